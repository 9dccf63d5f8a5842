//! What a guest finds out about its firmware and its processor, as the guest
//! `fingerprint` prints it: a line for each fact, the same lines on every host.

mod recorded;

use std::collections::BTreeSet;

use anyhow::{Context, ensure};

use crate::host::Host;
use crate::kedge::Kedge;
use crate::suite::{Outcome, Suite, after};

pub(crate) use recorded::{baseline, is_of_nothing, promised, record};

/// What one guest found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(String);

impl Fingerprint {
    /// Of these lines that a guest said.
    pub(crate) fn new(facts: &str) -> Self {
        Self(facts.to_owned())
    }

    /// Of a guest on a machine with these flags.
    ///
    /// # Errors
    /// The machine does not start, or the guest does not come to its end.
    pub(crate) fn take(host: &Host, flags: &str) -> anyhow::Result<Self> {
        Self::of(Self::guest(host).flags(flags))
    }

    /// kedge with the guest, yet without any other choice.
    pub(crate) fn guest(host: &Host) -> Kedge {
        Kedge::run(host.payload("fingerprint")).flags("--memory 16M")
    }

    /// Of the guest that this command starts.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) fn of(kedge: Kedge) -> anyhow::Result<Self> {
        let said = kedge.finish()?.with_status(0)?.stdout;
        let facts = said.strip_suffix("fingerprint done\n");
        let facts = facts.with_context(|| format!("the guest did not come to its end:\n{said}"))?;
        Ok(Self(facts.to_owned()))
    }

    /// All of it.
    pub(crate) fn whole(&self) -> &str {
        &self.0
    }

    /// The lines of a part: `firmware`, `id` or `cpu`.
    pub(crate) fn part(&self, name: &str) -> String {
        let lines = self.0.lines().filter(|line| line.split(' ').next() == Some(name));
        lines.flat_map(|line| [line, "\n"]).collect()
    }

    /// What the firmware answers a call of `function`: of several calls, the first.
    ///
    /// # Errors
    /// The guest does not call it.
    pub(crate) fn answer(&self, function: u32) -> anyhow::Result<&str> {
        let answer = after(&self.0, &format!("firmware call {function:#010x} "))?;
        let answer = answer.strip_suffix(" per-cpu").unwrap_or(answer);
        Ok(answer.split_once(' ').context("an answer follows the argument")?.1)
    }

    /// What the firmware answers when asked by `how` whether it has `function`.
    ///
    /// # Errors
    /// The guest does not ask.
    pub(crate) fn feature(&self, how: &str, function: u32) -> anyhow::Result<&str> {
        after(&self.0, &format!("firmware {how} {function:#010x} "))
    }

    /// The value of an ID register.
    ///
    /// # Errors
    /// The guest could not read it.
    pub(crate) fn id(&self, name: &str) -> anyhow::Result<u64> {
        let named = |line: &&str| line.starts_with("id ") && line.contains(&format!(" {name} "));
        let line = self.0.lines().find(named).with_context(|| format!("no {name}"))?;
        let value = line.split_whitespace().find_map(|word| word.strip_prefix("0x"));
        Ok(u64::from_str_radix(value.with_context(|| format!("{line}: no value"))?, 16)?)
    }

    /// The lines in which two of them differ: of this one with `-` before, of the other
    /// with `+`.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        differences(&self.0, &other.0)
    }
}

/// The lines that only one of two texts has: of the first with `-` before, of the
/// second with `+`.
pub(crate) fn differences(one: &str, other: &str) -> Vec<String> {
    let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) =
        (one.lines().collect(), other.lines().collect());
    let only_one = one.lines().filter(|line| !theirs.contains(line)).map(|line| format!("-{line}"));
    let only_other = other.lines().filter(|line| !ours.contains(line));
    only_one.chain(only_other.map(|line| format!("+{line}"))).collect()
}

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("fingerprint::two_guests_find_the_same", &[], |host| {
        let (one, other) = (Fingerprint::take(host, "")?, Fingerprint::take(host, "")?);
        let differences = one.differences(&other);
        ensure!(differences.is_empty(), "{}", differences.join("\n"));
        for part in ["firmware", "id", "cpu"] {
            ensure!(one.part(part).lines().count() > 50, "few of {part}:\n{}", one.whole());
        }
        Ok(())
    });
    suite.every_host("fingerprint::every_cpu_finds_the_same", &[], every_cpu);
    recorded::tests(suite);
}

/// But for what is marked as each CPU's own.
fn every_cpu(host: &Host) -> Outcome {
    let both = Fingerprint::of(Fingerprint::guest(host).flags("--cpus 2").cmdline("two"))?;
    let verdict = after(both.whole(), "second: 0 differ, ");
    let verdict = verdict.with_context(|| both.part("second:"))?;
    let (first, second) = verdict.split_once(" and ").context("two numbers")?;
    ensure!(second == format!("{first} lines"), "{verdict}");
    Ok(())
}
