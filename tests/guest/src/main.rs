//! Real guests on real KVM: what kedge does, seen from inside and from outside.
//!
//! The program runs on an arm64 host with KVM, as root, with `kedge` on its path,
//! the guests of `KEDGE_GUESTS` and the bare-metal guests of `KEDGE_PAYLOADS`.
//! Tests called `every_host::...` show what depends on the host's kernel,
//! processor or interrupt controller; those called `every_kernel::...` what depends on
//! its kernel only, those called `any_kernel::...` what should be the same on each of
//! them, and those called `once::...` what depends on nothing of it. Tests called
//! `every_guest::...` run with all kernels that are to be guests there, and those called
//! `moves::...` take several hosts, one after the other.

mod abi;
mod again;
mod boot;
mod cards;
mod clones;
mod devices;
mod devicetree;
mod differences;
mod disks;
mod door;
mod errors;
mod evidence;
mod faults;
mod features;
mod fingerprint;
mod fips;
mod firecracker;
mod firmware;
mod formats;
mod frames;
mod host;
mod io_threads;
mod kedge;
mod killed;
mod library;
mod limits;
mod linux;
mod loop_device;
mod metadata;
mod moves;
mod pattern;
mod pause;
mod pci;
mod peer;
mod plug;
mod power;
mod profile;
mod programs;
mod remote;
mod restore;
mod rom;
mod rows;
mod sdks;
mod services;
mod snapshot;
mod suite;
mod sys;
mod systemd;
mod tap;
mod tap_ioctl;
mod terminal;
mod told;
mod trace;
mod vhost;
mod vsock;

use std::env;
use std::process::ExitCode;

use libtest_mimic::Arguments;

use host::Host;
use suite::Suite;

fn main() -> ExitCode {
    let words: Vec<_> = env::args().skip(1).collect();
    if let [flag, name] = words.as_slice()
        && flag == "--record"
    {
        return record(name);
    }
    let arguments = Arguments::from_args();
    let mut suite = Suite::new(Host::probe());
    linux::tests(&mut suite);
    boot::tests(&mut suite);
    cards::tests(&mut suite);
    vhost::tests(&mut suite);
    firmware::tests(&mut suite);
    fingerprint::tests(&mut suite);
    rows::tests(&mut suite);
    abi::tests(&mut suite);
    power::tests(&mut suite);
    pause::tests(&mut suite);
    remote::tests(&mut suite);
    snapshot::tests(&mut suite);
    again::tests(&mut suite);
    door::tests(&mut suite);
    differences::tests(&mut suite);
    clones::tests(&mut suite);
    metadata::tests(&mut suite);
    vsock::tests(&mut suite);
    pci::tests(&mut suite);
    plug::tests(&mut suite);
    restore::tests(&mut suite);
    devices::tests(&mut suite);
    disks::tests(&mut suite);
    programs::tests(&mut suite);
    killed::tests(&mut suite);
    io_threads::tests(&mut suite);
    faults::tests(&mut suite);
    rom::tests(&mut suite);
    sdks::tests(&mut suite);
    services::tests(&mut suite);
    features::tests(&mut suite);
    limits::tests(&mut suite);
    formats::tests(&mut suite);
    firecracker::tests(&mut suite);
    terminal::tests(&mut suite);
    systemd::tests(&mut suite);
    errors::tests(&mut suite);
    library::tests(&mut suite);
    moves::tests(&mut suite);
    libtest_mimic::run(&arguments, suite.into_trials()).exit_code()
}

/// Prints what a recorded test expects, as this host has it.
fn record(name: &str) -> ExitCode {
    match fingerprint::record(&Host::probe(), name) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
