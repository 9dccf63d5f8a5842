//! QEMU's command line for a host.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context;

use super::HostConfig;
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
    let (accelerator, smp) = if config.icount {
        (&["-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off"][..], 1)
    } else {
        (&["-accel", "tcg,thread=multi"][..], config.smp)
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
    fn no_key_is_qemus_own() {
        let words = arguments(&HostConfig::default()).join(" ");
        assert!(words.contains("-chardev stdio,id=console,mux=off,signal=off"));
        assert!(words.contains("gic-version=3"));
    }
}
