//! QEMU's command line for a host.

use std::{
    ffi::OsString,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context;

use super::{Disk, HostConfig, Threads, Writes};
use crate::process;

/// QEMU about to start this host, its console on standard input and output.
///
/// # Errors
/// QEMU is not installed.
pub(super) fn command(
    config: &HostConfig,
    kernel: &Path,
    initrd: &Path,
) -> anyhow::Result<Command> {
    let program = process::find("qemu-system-aarch64").context(
        "qemu-system-aarch64 is not installed: run `cargo xtask setup` (package qemu-system-arm)",
    )?;
    // QEMU must not outlive us, however we end.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL"]).arg(program);
    qemu.args(arguments(config));
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(qemu)
}

/// All arguments but the files.
fn arguments(config: &HostConfig) -> Vec<String> {
    let (accelerator, smp) = match config.threads {
        _ if config.icount => {
            (&["-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off"][..], 1)
        }
        Threads::One => (&["-accel", "tcg,thread=single"][..], config.smp),
        Threads::OnePerCpu => (&["-accel", "tcg,thread=multi"][..], config.smp),
    };
    let append = ["console=ttyAMA0", "panic=-1", "quiet"].map(str::to_owned);
    let append: Vec<String> = append.into_iter().chain(config.append.iter().cloned()).collect();
    let mut words: Vec<String> = vec![
        "-machine".into(),
        format!("virt,virtualization=on,gic-version={}", config.gic),
        "-cpu".into(),
        config.cpu.clone(),
        "-smp".into(),
        smp.to_string(),
        "-m".into(),
        format!("{}M", config.memory_mib),
        "-append".into(),
        append.join(" "),
    ];
    words.extend(accelerator.iter().map(|&word| word.to_owned()));
    // A plain console: no escape key of QEMU's own, so that every key reaches what runs inside. No default network card:
    // its option ROM is in a package of its own.
    let devices = "-nodefaults -display none -monitor none -net none -no-reboot \
                   -chardev stdio,id=console,mux=off,signal=off -serial chardev:console";
    words.extend(devices.split_whitespace().map(str::to_owned));
    words
}

/// The arguments for a job's disk, the first being number 0.
pub(super) fn disk((disk, number): (&Disk, usize)) -> [OsString; 4] {
    // A comma would end the file's name.
    let mut drive = OsString::from(format!("if=none,id=disk{number},format=raw,"));
    drive.push(match disk.writes {
        // Whole or not used at all: nothing is lost by not waiting for the medium.
        Writes::Kept => "cache=unsafe,discard=unmap,file=",
        Writes::Dropped => "snapshot=on,file=",
    });
    drive.push(disk.image.as_os_str().to_string_lossy().replace(',', ",,"));
    let device = format!("virtio-blk-pci,drive=disk{number},romfile=");
    ["-drive".into(), drive, "-device".into(), device.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_icount_there_is_one_cpu_and_time_is_instructions() {
        let config = HostConfig { icount: true, smp: 4, ..HostConfig::default() };
        let words = arguments(&config).join(" ");
        assert!(words.contains("-smp 1 "));
        assert!(words.contains("-icount shift=1,sleep=off"));
    }

    #[test]
    fn cpus_share_a_thread_or_have_their_own() {
        for (threads, word) in [(Threads::One, "single"), (Threads::OnePerCpu, "multi")] {
            let config = HostConfig { smp: 4, threads, ..HostConfig::default() };
            let words = arguments(&config).join(" ");
            assert!(words.contains(&format!("-accel tcg,thread={word}")), "{words}");
            assert!(words.contains("-smp 4 "));
        }
    }

    #[test]
    fn what_a_host_writes_to_a_shared_disk_is_dropped() {
        let image = "/a,b.img".into();
        let shared = Disk { image, path: "/disk".into(), writes: Writes::Dropped };
        let words = disk((&shared, 1)).map(|word| word.into_string().unwrap());
        assert_eq!(words[1], "if=none,id=disk1,format=raw,snapshot=on,file=/a,,b.img");
        assert_eq!(words[3], "virtio-blk-pci,drive=disk1,romfile=");
    }

    #[test]
    fn no_key_is_qemus_own() {
        let words = arguments(&HostConfig::default()).join(" ");
        assert!(words.contains("-chardev stdio,id=console,mux=off,signal=off"));
        assert!(words.contains("gic-version=3"));
    }
}
