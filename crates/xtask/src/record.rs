//! `cargo xtask record`: what emulated hosts can give their guests, as `kedge abi probe` finds it, kept in
//! `resources/hosts` for tests that need no host.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{
    build,
    host::{self, HostConfig, HostExit, HostJob, Overlay},
    paths, progress, setup,
};

/// The CPUs: name in the file's name, QEMU's `-cpu`.
#[rustfmt::skip]
const CPUS: &[(&str, &str)] = &[
    ("max",         "max,pauth-impdef=on,sve=off"),
    ("neoverse-n1", "neoverse-n1"),
    ("cortex-a57",  "cortex-a57"),
    ("a64fx",       "a64fx"),
];
const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "7.2"];
/// How long a probe may take.
const TIMEOUT: Duration = Duration::from_secs(300);
/// How long a line may be before it is broken at the outermost bracket.
const LINE: usize = 160;

/// `cargo xtask record`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only hosts with this kernel
    #[arg(long = "kernel", value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Only hosts with this CPU
    #[arg(long = "cpu", value_name = "NAME")]
    cpus: Vec<String>,
}

/// Runs `cargo xtask record`.
///
/// # Errors
/// kedge does not build, no host is meant, or a probe fails.
pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let hosts = hosts(args);
    if hosts.is_empty() {
        let names: Vec<_> = CPUS.iter().map(|(name, _)| *name).collect();
        bail!("no such host: kernels are {}; CPUs {}", KERNELS.join(", "), names.join(", "));
    }
    setup::ensure()?;
    let kedge = build::kedge()?;
    for (name, config) in hosts {
        let started = Instant::now();
        let probed = probe(&config, kedge.clone()).with_context(|| format!("host {name}"))?;
        let path = paths::workspace().join("resources/hosts").join(format!("{name}.json"));
        fs::write(&path, document(&probed))
            .with_context(|| format!("cannot write {}", path.display()))?;
        progress::note(format_args!("{name}: {} s", started.elapsed().as_secs()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The hosts that `args` mean, each with the name of its file.
fn hosts(args: &Args) -> Vec<(String, HostConfig)> {
    let means = |only: &[String], name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let cpus = CPUS.iter().filter(|(name, _)| means(&args.cpus, name));
    let of_cpu = |(name, cpu): &(&str, &str)| {
        let (name, cpu) = ((*name).to_owned(), (*cpu).to_owned());
        KERNELS.into_iter().filter(|kernel| means(&args.kernels, kernel)).map(move |kernel| {
            let (kernel, cpu) = (kernel.to_owned(), cpu.clone());
            (format!("{name}-{kernel}"), HostConfig { kernel, cpu, ..HostConfig::default() })
        })
    };
    cpus.flat_map(of_cpu).collect()
}

/// What `kedge abi probe` says on this host.
fn probe(config: &HostConfig, kedge: PathBuf) -> anyhow::Result<Value> {
    let command = ["kedge", "abi", "probe", "--json"].map(str::to_owned).to_vec();
    let mut job = HostJob::new(command, vec![Overlay::copy("/kedge/bin/kedge", kedge)]);
    job.timeout = TIMEOUT;
    let mut text = String::new();
    let exit = host::run(config, &job, &mut |line| {
        text.push_str(line);
        text.push('\n');
    })?;
    match exit {
        HostExit::Status(0) => Ok(serde_json::from_str(&text).context("it printed no JSON")?),
        HostExit::Status(status) => bail!("kedge ended with status {status}:\n{text}"),
        HostExit::TimedOut => bail!("it was not done after {} s", TIMEOUT.as_secs()),
        HostExit::Silent(console) | HostExit::Died(console) => {
            bail!("it died:\n{}", console.join("\n"))
        }
    }
}

/// JSON that a reader of a change to it can follow: a line for each register.
fn document(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value, 0);
    text + "\n"
}

fn write_value(text: &mut String, value: &Value, depth: usize) {
    let whole = value.to_string();
    let indent = "  ".repeat(depth + 1);
    let close = &indent[2..];
    match value {
        Value::Array(items) if whole.len() > LINE => {
            text.push('[');
            for (number, item) in items.iter().enumerate() {
                text.push_str(if number == 0 { "\n" } else { ",\n" });
                text.push_str(&indent);
                write_value(text, item, depth + 1);
            }
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{close}]");
        }
        Value::Object(entries) if whole.len() > LINE => {
            text.push('{');
            for (number, (key, item)) in entries.iter().enumerate() {
                text.push_str(if number == 0 { "\n" } else { ",\n" });
                let _ = write!(text, "{indent}{}: ", Value::from(key.as_str()));
                write_value(text, item, depth + 1);
            }
            let _ = write!(text, "\n{close}}}");
        }
        _ => text.push_str(&whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(kernels: &[&str], cpus: &[&str]) -> Vec<String> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let args = Args { kernels: owned(kernels), cpus: owned(cpus) };
        hosts(&args).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn every_cpu_is_recorded_on_every_kernel() {
        assert_eq!(named(&[], &[]).len(), CPUS.len() * KERNELS.len());
    }

    #[test]
    fn a_choice_of_hosts_is_recorded_alone() {
        assert_eq!(named(&["7.2"], &["a64fx", "max"]), ["max-7.2", "a64fx-7.2"]);
        assert_eq!(named(&["8.0"], &[]), [""; 0]);
    }

    #[test]
    fn a_document_is_the_same_json_in_short_lines() {
        let long = vec!["0x6030000000130000"; 12];
        let value = serde_json::json!({"registers": [{"id": long}, {"id": "0x1"}], "n": 1});
        let text = document(&value);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert!(text.lines().all(|line| line.len() <= LINE + 20));
        assert!(text.contains("\n    {\"id\":\"0x1\"}\n"), "{text}");
    }
}
