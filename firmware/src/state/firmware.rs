//! What becomes of firmware registers: those both sides have, those only one has, and
//! those that contradict the profile.

use kedge_ids::RegId;

use super::destination::RegList;
use super::plan::Planner;
use super::rules::{Rules, number};
use super::settle::{Fate, Parts, Refusal, Settled, Tolerance};
use super::{PlanError, RegisterState};
use crate::abi::UnknownFirmware;
use crate::hex::RegValue;
use crate::plan::{PlanLine, Subject, Verdict};
use crate::register::{Domain, Firmware, FwSpec};

/// What stands for a register that there is not.
const ABSENT: &str = "no such register";

/// What a kernel shows a guest in the place of a firmware register that it does not
/// have, as a value of that register; nothing where that cannot be told.
fn shown_without(spec: &FwSpec, ptp: bool) -> Option<u64> {
    spec.absent.and_then(|absent| absent.means(ptp))
}

/// The firmware's part of a planner's work.
#[derive(Clone, Copy)]
pub(super) struct FirmwareRules<'a> {
    pub(super) state: &'a RegisterState,
    pub(super) rules: &'a Rules<'a>,
}

impl FirmwareRules<'_> {
    pub(super) fn format(&self, id: RegId, value: &RegValue) -> String {
        match (self.rules.firmware(id), value.as_u64()) {
            (Some(firmware), Some(number)) => firmware.format(number),
            _ => value.to_string(),
        }
    }

    fn line(&self, id: RegId, words: (String, String), verdict: Verdict) -> PlanLine {
        let firmware = self.rules.firmware(id).unwrap_or(Firmware::Unknown(id));
        let (wanted, offered) = words;
        PlanLine { subject: Subject::Firmware(firmware), wanted, offered, verdict }
    }

    /// The parts in which a register's value is refused.
    pub(super) fn parts(&self, id: RegId) -> Parts {
        match self.rules.firmware(id) {
            Some(firmware) if is_bitmap(self.rules, firmware) => Parts::Bits,
            _ => Parts::Whole,
        }
    }

    /// What may be otherwise than saved: a level, upwards.
    pub(super) fn tolerance(&self, id: RegId) -> Tolerance {
        let level = self.rules.spec(id).filter(|spec| matches!(spec.domain, Domain::Level(_)));
        let better = level.map(|_| (u64::MAX, BETTER.to_owned()));
        Tolerance {
            keep: Vec::new(),
            normalised: better.into_iter().collect(),
            allowed: self.rules.allow.contains(&id),
        }
    }

    /// The line of a register that both sides have.
    pub(super) fn settled(&self, id: RegId, wanted: &RegValue, settled: &Settled) -> PlanLine {
        let verdict = settled.fate.verdict(|refusal| {
            Verdict::refuse(self.why(id, wanted, refusal), cure(self.rules, id))
        });
        // A register that was made to take the saved value offers just that.
        let offered = match settled.fate {
            Fate::Kept => &settled.now,
            _ => &settled.born,
        };
        self.line(id, (self.format(id, wanted), self.format(id, offered)), verdict)
    }

    fn why(&self, id: RegId, wanted: &RegValue, refusal: Refusal) -> String {
        let domain = self.rules.spec(id).map(|spec| spec.domain);
        match (refusal, domain) {
            (Refusal::Altered, _) => "this host makes something else of it".to_owned(),
            (Refusal::Bits(bits), Some(Domain::Bits(_))) => {
                let excess = RegValue::from(number(wanted) & bits);
                format!("this host cannot offer {}", self.format(id, &excess))
            }
            (Refusal::Bits(_), Some(Domain::Version(_))) => {
                "this host does not have that version".to_owned()
            }
            (Refusal::Bits(_), Some(Domain::Level(_))) => {
                "this host is mitigated worse than the guest was told, and the guest may rely \
                 on it"
                    .to_owned()
            }
            (Refusal::Bits(bits), None) => {
                format!("this host does not take the bits {:#x}", number(wanted) & bits)
            }
        }
    }

    /// The line of a register that only the source has.
    pub(super) fn only_source(&self, id: RegId, wanted: &RegValue, ptp: bool) -> PlanLine {
        let verdict = match (self.rules.spec(id), wanted.as_u64()) {
            _ if self.rules.allow.contains(&id) => {
                Verdict::adapt("the operator allows it to be dropped")
            }
            (Some(spec), Some(value)) => match shown_without(spec, ptp) {
                Some(shown) if shown == value => {
                    Verdict::adapt("a kernel without the register shows a guest the same")
                }
                Some(shown) => Verdict::refuse(
                    format!(
                        "a kernel without the register shows a guest {}, for good",
                        spec.reg.format(shown)
                    ),
                    cure(self.rules, id),
                ),
                None => Verdict::refuse(
                    "there is no telling what a kernel without the register shows a guest",
                    cure(self.rules, id),
                ),
            },
            _ if self.is_unknown_bitmap(id) && wanted.is_zero() => {
                Verdict::adapt("it is empty: it offers nothing, and neither does its absence")
            }
            _ => Verdict::refuse(
                "this host does not have this firmware register, and nobody knows what the \
                 guest would miss",
                cure(self.rules, id),
            ),
        };
        self.line(id, (self.format(id, wanted), ABSENT.to_owned()), verdict)
    }

    /// What a register that the source did not have should become, or why there is
    /// nothing to write.
    fn target(&self, id: RegId, born: &RegValue) -> Result<RegValue, Verdict> {
        let firmware = self.rules.firmware(id).unwrap_or(Firmware::Unknown(id));
        let abi = &self.state.birth.abi;
        let shown = self.rules.spec(id);
        let shown = shown.and_then(|spec| shown_without(spec, self.state.ptp));
        if let Some(value) = abi.firmware.get(firmware).or(shown) {
            return Ok(RegValue::from(value));
        }
        if self.rules.allow.contains(&id) || abi.unknown_firmware == UnknownFirmware::Adopt {
            return Err(Verdict::adapt(
                "the guest was born without it; its profile adopts what a host has",
            ));
        }
        if is_bitmap(self.rules, firmware) {
            return Ok(RegValue(vec![0; born.0.len()]));
        }
        let why = "the guest was born without it, and no value is known with which it offers \
                   nothing";
        Err(Verdict::refuse(why, cure(self.rules, id)))
    }

    fn is_unknown_bitmap(&self, id: RegId) -> bool {
        self.rules.spec(id).is_none() && id.coprocessor() == Firmware::FEAT_BMAP
    }
}

impl Planner<'_> {
    /// Settles a firmware register that only the destination has: the guest must not
    /// gain what it was not born with.
    pub(super) fn firmware_only_here(&mut self, id: RegId) -> Result<PlanLine, PlanError> {
        let rules = self.firmware_rules();
        let born = self.read(0, id)?;
        let absent = "nothing".to_owned();
        let target = match rules.target(id, &born) {
            Ok(target) => target,
            Err(verdict) => {
                let line = rules.line(id, (absent, rules.format(id, &born)), verdict);
                self.expect_on_all(id, &born);
                return Ok(line);
            }
        };
        let offered = rules.format(id, &born);
        let how = || (rules.parts(id), rules.tolerance(id));
        let settled = self.settle_on_all(id, &target, &how)?;
        let wanted = rules.format(id, &target);
        let verdict = match (&settled.fate, born == target) {
            (Fate::Kept, true) => Verdict::Keep,
            (Fate::Kept, false) => {
                Verdict::adapt(format!("the guest was born without it: it is made {wanted}"))
            }
            (fate, _) => fate.verdict(|refusal| {
                Verdict::refuse(
                    format!("the guest was born without it: {}", rules.why(id, &target, refusal)),
                    cure(self.rules, id),
                )
            }),
        };
        Ok(rules.line(id, (wanted, offered), verdict))
    }

    /// Notes the registers that neither side has, where the kernels do not mean the same
    /// by that.
    pub(super) fn firmware_nowhere(&mut self, list: &RegList) {
        let ptp = self.destination.ptp();
        let nowhere = |spec: &&FwSpec| !list.contains(spec.id) && !self.state.has(spec.id);
        let both = |spec: &FwSpec| {
            let before = shown_without(spec, self.state.ptp)?;
            let now = shown_without(spec, ptp)?;
            (before != now).then_some((spec.id, before, now))
        };
        let differ: Vec<_> = self.rules.table.iter().filter(nowhere).filter_map(both).collect();
        for (id, before, now) in differ {
            let rules = self.firmware_rules();
            let verdict = if self.rules.allow.contains(&id) {
                Verdict::adapt("the operator allows it")
            } else {
                Verdict::refuse(
                    "neither kernel has the register, and each shows a guest its own, for good",
                    cure(self.rules, id),
                )
            };
            let words = [before, now].map(|value| rules.format(id, &RegValue::from(value)));
            let [wanted, offered] = words;
            let line = rules.line(id, (wanted, offered), verdict);
            self.note(None, id, line);
        }
    }

    /// The lines of promises that the saved registers do not keep.
    pub(super) fn contradictions(&self) -> Vec<PlanLine> {
        let rules = self.firmware_rules();
        let mut lines = Vec::new();
        for (firmware, promised) in &self.state.birth.abi.firmware {
            let id = firmware.id();
            let saved = self.state.of_vcpu(0, id).and_then(RegValue::as_u64);
            let shown = self.rules.spec(id);
            let shown = shown.and_then(|spec| shown_without(spec, self.state.ptp));
            let Some(saved) = saved.or(shown).filter(|saved| saved != promised) else { continue };
            if self.rules.allow.contains(&id) {
                continue;
            }
            let words = (firmware.format(*promised), firmware.format(saved));
            let why = format!(
                "profile `{}` promises the one, and the saved registers hold the other",
                self.state.birth.abi.name
            );
            let cure = "restore the state that this guest saved";
            lines.push(rules.line(id, words, Verdict::refuse(why, cure)));
        }
        lines
    }
}

fn is_bitmap(rules: &Rules<'_>, firmware: Firmware) -> bool {
    match rules.spec(firmware.id()) {
        Some(spec) => matches!(spec.domain, Domain::Bits(_)),
        None => firmware.id().coprocessor() == Firmware::FEAT_BMAP,
    }
}

const BETTER: &str = "this host is mitigated at least as well, which no register can hide; the \
                      guest sees it if it asks again";

pub(super) fn cure(rules: &Rules<'_>, id: RegId) -> String {
    let name = rules.name(id);
    format!("restore it on a host that can, or let it differ with `--allow {name}`")
}
