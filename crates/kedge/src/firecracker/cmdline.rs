//! The kernel command line of a Firecracker configuration: what its `boot_args`
//! say, or a default, and words appended to it (FIRECRACKER_API.md, 3.2).

use kedge_vmm::spec::Transport;

use crate::devices::Devices;

/// What Firecracker gives a kernel that its user gives nothing.
const DEFAULT: &str = "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux \
                       i8042.dumbkbd swiotlb=noforce";

/// The early console on the serial port, for kernels that are to have a console.
const EARLYCON: &str = "earlycon=uart,mmio,0x40002000";

/// What follows this goes to init, not to the kernel.
const INIT: &str = " -- ";

/// The command line of a machine with `devices`.
pub(super) fn compose(boot_args: Option<&str>, transport: Transport, devices: &Devices) -> String {
    let given = boot_args.unwrap_or(DEFAULT);
    let (kernel, init) = match given.split_once(INIT) {
        Some((kernel, init)) => (kernel, Some(init)),
        None => (given, None),
    };
    let mut words = vec![kernel.trim().to_owned()];
    if transport == Transport::Mmio {
        words.push("pci=off".to_owned());
    }
    for (place, device) in devices.iter().enumerate() {
        let kind = device.kind().key;
        let before = devices.iter().take(place).filter(|other| other.kind().key == kind).count();
        words.extend(device.cmdline(before));
    }
    if given.contains("console=") {
        words.push(EARLYCON.to_owned());
    }
    words.retain(|word| !word.is_empty());
    let mut line = words.join(" ");
    if let Some(init) = init {
        line.push_str(INIT);
        line.push_str(init.trim());
    }
    line
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_kernel_given_nothing_gets_the_default() {
        expect!["reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce pci=off"]
            .assert_eq(&compose(None, Transport::Mmio, &Vec::new()));
    }

    #[test]
    fn an_empty_command_line_is_no_default() {
        expect!["pci=off"].assert_eq(&compose(Some(""), Transport::Mmio, &Vec::new()));
    }

    #[test]
    fn a_console_brings_an_early_console() {
        expect!["console=ttyS0 panic=1 pci=off earlycon=uart,mmio,0x40002000"].assert_eq(&compose(
            Some("console=ttyS0 panic=1"),
            Transport::Mmio,
            &Vec::new(),
        ));
    }

    #[test]
    fn a_kernel_looks_for_pci_where_there_is_any() {
        expect!["panic=1"].assert_eq(&compose(Some("panic=1"), Transport::Pci, &Vec::new()));
    }

    #[test]
    fn arguments_of_init_stay_last() {
        expect!["panic=1 pci=off -- single"].assert_eq(&compose(
            Some("panic=1 -- single"),
            Transport::Mmio,
            &Vec::new(),
        ));
    }
}
