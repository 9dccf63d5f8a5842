//! The greatest profile that every host of a fleet can give its guests and take from
//! the others.
//!
//! Everything is chosen by what was tried on the hosts, never by the names of their
//! kernels or CPUs, and does not depend on the order in which they are given. Values of
//! ID registers were tried one field at a time: that a host takes all of them together
//! shows when a guest is born.
//!
//! What performance monitors count is the host's CPU's own, so guests have none where the
//! CPUs differ, and only the events that all kernels tell of where they do not.

mod cpu;
mod error;
mod firmware;
mod identity;
mod machine;
mod varying;

use crate::abi::{GuestAbi, UnknownFirmware};
use crate::digest::digest;
use crate::host::HostAbi;

pub use error::{BaselineError, Conflict};

/// What a fleet can promise its guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// The profile.
    pub abi: GuestAbi,
    /// What some hosts could have given, and others not.
    pub losses: Vec<Loss>,
}

/// Something that a host keeps from the others' guests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Loss {
    /// What is lost: `psci_version 1.3`, `ID_AA64DFR0_EL1.DebugVer 0x9`.
    pub subject: String,
    /// The name of the host that does not have it.
    pub host: String,
    /// What it has, as a phrase that the host begins.
    pub reason: String,
}

/// The greatest profile that each of `hosts`, named for messages, can give.
///
/// # Errors
/// There is no host, or no value of something that all of them have; all such things
/// are named.
pub fn baseline(hosts: &[(String, HostAbi)]) -> Result<Baseline, BaselineError> {
    if hosts.is_empty() {
        return Err(BaselineError::NoHosts);
    }
    let fleet = Fleet::new(hosts);
    let mut found = Findings::default();
    let (firmware, levels) = firmware::promises(&fleet, &mut found);
    let cpu = cpu::promises(&fleet, &firmware, &mut found);
    let features = cpu.features.as_deref().unwrap_or_default();
    let machine = machine::promises(&fleet, &firmware, features, &mut found);
    let Findings { mut losses, conflicts } = found;
    if !conflicts.is_empty() {
        return Err(BaselineError::NothingInCommon { conflicts });
    }
    losses.sort();
    losses.dedup();
    let mut abi = GuestAbi {
        format: GuestAbi::FORMAT,
        name: String::new(),
        about: String::new(),
        firmware,
        levels,
        unknown_firmware: UnknownFirmware::Neutralise,
        cpu,
        machine,
    };
    abi.name = name(&abi);
    abi.about = fleet.about();
    Ok(Baseline { abi, losses })
}

/// A name that tells profiles apart: the same promises always have the same.
fn name(abi: &GuestAbi) -> String {
    let text = serde_json::to_string(abi).expect("texts and numbers are always JSON");
    format!("fleet-{:016x}", digest(&text))
}

/// The hosts in an order of their own.
#[derive(Debug)]
struct Fleet<'a> {
    hosts: Vec<(&'a str, &'a HostAbi)>,
}

impl<'a> Fleet<'a> {
    fn new(hosts: &'a [(String, HostAbi)]) -> Self {
        let mut hosts: Vec<_> = hosts.iter().map(|(name, host)| (name.as_str(), host)).collect();
        hosts.sort_by_key(|(name, _)| *name);
        Self { hosts }
    }

    fn hosts(&self) -> impl Iterator<Item = &'a HostAbi> {
        self.hosts.iter().map(|(_, host)| *host)
    }

    /// Whether all hosts are like that.
    fn all(&self, is: impl Fn(&HostAbi) -> bool) -> bool {
        self.hosts().all(is)
    }

    /// Whether any host is like that.
    fn any(&self, is: impl Fn(&HostAbi) -> bool) -> bool {
        self.hosts().any(is)
    }

    fn about(&self) -> String {
        const SHOWN: usize = 8;
        let names: Vec<_> = self.hosts.iter().map(|(name, _)| *name).take(SHOWN).collect();
        let more = match self.hosts.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("What each of these hosts can give: {}{more}.", names.join(", "))
    }
}

/// What was found on the way.
#[derive(Debug, Default)]
struct Findings {
    losses: Vec<Loss>,
    conflicts: Vec<Conflict>,
}

impl Findings {
    /// The host of this name does not have `subject`.
    fn lose(&mut self, subject: &str, host: &str, reason: String) {
        self.losses.push(Loss { subject: subject.to_owned(), host: host.to_owned(), reason });
    }

    /// The hosts of `fleet` that are not like that do not have `subject`.
    fn lost(
        &mut self,
        fleet: &Fleet<'_>,
        subject: &str,
        has: impl Fn(&HostAbi) -> bool,
        reason: impl Fn(&HostAbi) -> String,
    ) {
        for (name, host) in fleet.hosts.iter().filter(|(_, host)| !has(host)) {
            self.lose(subject, name, reason(host));
        }
    }

    /// There is no value of `subject` that all hosts of `fleet` have.
    fn conflict(
        &mut self,
        fleet: &Fleet<'_>,
        subject: impl Into<String>,
        has: impl Fn(&HostAbi) -> String,
    ) {
        let hosts = fleet.hosts.iter().map(|(name, host)| ((*name).to_owned(), has(host)));
        self.conflicts.push(Conflict { subject: subject.into(), hosts: hosts.collect() });
    }
}
