//! What becomes of a promise on a host, register by register, before anything is
//! done: kept, adapted, or refused.
//!
//! A plan is complete: it has a line for everything that was looked at, and whoever
//! refuses names every line that is refused, never the first only.

mod check;
pub(crate) mod firmware;
pub(crate) mod identity;
mod lines;
mod parts;

use std::borrow::Cow;
use std::fmt;

use kedge_ids::RegId;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::register::Firmware;

pub use check::check;
pub(crate) use check::{deviations, of_parts};

/// What becomes of everything that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Plan {
    /// A line for each thing looked at: firmware registers, then other registers, then
    /// what no register shows.
    pub lines: Vec<PlanLine>,
}

impl Plan {
    /// Whether any line is refused: then nothing must be done.
    pub fn is_refused(&self) -> bool {
        self.refusals().next().is_some()
    }

    /// The lines that are refused.
    pub fn refusals(&self) -> impl Iterator<Item = &PlanLine> {
        self.lines.iter().filter(|line| matches!(line.verdict, Verdict::Refuse { .. }))
    }

    /// The lines of things that will be otherwise than was asked for.
    pub fn adaptations(&self) -> impl Iterator<Item = &PlanLine> {
        self.lines.iter().filter(|line| matches!(line.verdict, Verdict::Adapt { .. }))
    }

    /// What can be done about the refusals, each once, in the order of the lines.
    pub fn cures(&self) -> Vec<&str> {
        let mut cures = Vec::new();
        for line in self.refusals() {
            if let Verdict::Refuse { cure: Some(cure), .. } = &line.verdict
                && !cures.contains(&cure.as_str())
            {
                cures.push(cure.as_str());
            }
        }
        cures
    }
}

/// One thing, what is asked of it, what there is, and what becomes of it.
///
/// As JSON, an object: `subject`, `id` where it is a register, `wanted`, `offered`,
/// `verdict` (`keep`, `adapt`, `refuse`), and `why` and `cure` where there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanLine {
    /// What it is about.
    pub subject: Subject,
    /// What is asked for, in the register's own words.
    pub wanted: String,
    /// What there is, in the same words.
    pub offered: String,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// `std_bmap: trng wanted, nothing offered: ...`, on one line.
impl fmt::Display for PlanLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, wanted, offered, verdict } = self;
        write!(f, "{subject}: ")?;
        match verdict {
            Verdict::Keep => write!(f, "{wanted}"),
            Verdict::Adapt { why } | Verdict::Refuse { why, .. } => {
                write!(f, "{wanted} wanted, {offered} offered: {why}")
            }
        }
    }
}

impl Serialize for PlanLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("subject", &self.subject.to_string())?;
        if let Some(id) = self.subject.id() {
            map.serialize_entry("id", &id.to_string())?;
        }
        map.serialize_entry("wanted", &self.wanted)?;
        map.serialize_entry("offered", &self.offered)?;
        map.serialize_entry("verdict", self.verdict.word())?;
        match &self.verdict {
            Verdict::Keep => {}
            Verdict::Adapt { why } => map.serialize_entry("why", why)?,
            Verdict::Refuse { why, cure } => {
                map.serialize_entry("why", why)?;
                if let Some(cure) = cure {
                    map.serialize_entry("cure", cure)?;
                }
            }
        }
        map.end()
    }
}

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A firmware register, known or not.
    Firmware(Firmware),
    /// Another register.
    Register {
        /// Its id.
        id: RegId,
        /// Its name in the Arm manual, or its encoding.
        name: String,
    },
    /// A part of the machine that no register shows, as profiles name it:
    /// `system_suspend`, `smccc_filter 0xc6000040+2`.
    Part(Cow<'static, str>),
}

impl Subject {
    /// A part of the machine.
    pub fn part(name: impl Into<Cow<'static, str>>) -> Self {
        Self::Part(name.into())
    }

    /// The register's id, where it is a register.
    pub fn id(&self) -> Option<RegId> {
        match self {
            Self::Firmware(firmware) => Some(firmware.id()),
            Self::Register { id, .. } => Some(*id),
            Self::Part(_) => None,
        }
    }
}

/// Its name.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Firmware(firmware) => firmware.fmt(f),
            Self::Register { name, .. } => f.pad(name),
            Self::Part(name) => f.pad(name),
        }
    }
}

/// What becomes of a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The guest gets what was asked for, or nothing was asked for and it gets what
    /// there is.
    Keep,
    /// The guest gets something else, and cannot tell or can live with it.
    Adapt {
        /// What it gets, and why that is as good.
        why: String,
    },
    /// It cannot be had.
    Refuse {
        /// What stands in the way.
        why: String,
        /// What the reader can do, where there is something: an imperative without a
        /// full stop.
        cure: Option<String>,
    },
}

impl Verdict {
    /// The verdict in a word: `keep`, `adapt` or `refuse`.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Adapt { .. } => "adapt",
            Self::Refuse { .. } => "refuse",
        }
    }

    /// An adaptation.
    pub fn adapt(why: impl Into<String>) -> Self {
        Self::Adapt { why: why.into() }
    }

    /// A refusal with its cure.
    pub fn refuse(why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::Refuse { why: why.into(), cure: Some(cure.into()) }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::FwReg;

    fn plan() -> Plan {
        let firmware = |reg, verdict| PlanLine {
            subject: Subject::Firmware(Firmware::Known(reg)),
            wanted: "a".to_owned(),
            offered: "b".to_owned(),
            verdict,
        };
        let cure = "start it with `--guest-abi arm64-v0`";
        Plan {
            lines: vec![
                firmware(FwReg::PsciVersion, Verdict::refuse("too new", cure)),
                firmware(FwReg::StdHypBmap, Verdict::Keep),
                firmware(FwReg::StdBmap, Verdict::refuse("no such register", cure)),
                PlanLine {
                    subject: Subject::part("counter"),
                    wanted: "stop".to_owned(),
                    offered: "virtual only".to_owned(),
                    verdict: Verdict::adapt("the physical counter runs on"),
                },
            ],
        }
    }

    #[test]
    fn one_refused_line_refuses_the_plan() {
        assert!(plan().is_refused());
        assert!(!Plan::default().is_refused());
        assert_eq!(plan().refusals().count(), 2);
        assert_eq!(plan().adaptations().count(), 1);
    }

    #[test]
    fn the_same_cure_is_named_once() {
        assert_eq!(plan().cures(), ["start it with `--guest-abi arm64-v0`"]);
    }

    #[test]
    fn a_line_says_it_all() {
        let plan = plan();
        assert_eq!(plan.lines[0].to_string(), "psci_version: a wanted, b offered: too new");
        assert_eq!(plan.lines[1].to_string(), "std_hyp_bmap: a");
    }

    #[test]
    fn a_line_is_flat_json() {
        let plan = plan();
        expect![[r#"
            {
              "subject": "psci_version",
              "id": "0x6030000000140000",
              "wanted": "a",
              "offered": "b",
              "verdict": "refuse",
              "why": "too new",
              "cure": "start it with `--guest-abi arm64-v0`"
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&plan.lines[0]).unwrap());
        expect![[r#"{"subject":"counter","wanted":"stop","offered":"virtual only","verdict":"adapt","why":"the physical counter runs on"}"#]]
        .assert_eq(&serde_json::to_string(&plan.lines[3]).unwrap());
    }
}
