//! The second round: guests go on where they were saved, or are refused.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use kedge_firmware::Varying;
use kedge_ids::RegId;
use tempfile::TempDir;

use super::bare::{Expected, Finding};
use super::expected::{LESSER, Wanted, is_better, wanted};
use super::save::kept_profile;
use super::{Case, FINDING, Guest, Source, file, folder, working};
use crate::host::Host;
use crate::kedge::{Ended, Kedge};
use crate::suite::{Outcome, ensure_contains};
use crate::trace::{Event, Trace};

/// No guest here has less memory, and no machine that kedge makes to try things as much.
const MEMORY: u64 = 16 << 20;

/// What comes before the list of what a host cannot give.
const REFUSAL: &str = "this host cannot give the guest what it was saved with:";

/// `ID_AA64DFR0_EL1`, and PMUVer in it. Where a profile leaves open whether an old kernel
/// shows its processor's performance monitors, more is open than these fields.
const MONITORS: (RegId, u64) = (RegId::system(3, 0, 0, 5, 0), 0xf00);
const OF_MONITORS: [&str; 4] = ["PMCR_EL0", "PMCEID0_EL0", "PMCEID1_EL0", "PMMIR_EL1"];

/// There is none without monitors, and so the processor says. What becomes of a guest that
/// reads it all the same is each kernel's own: Linux 6.1 and 6.12 give 0, 5.10 and 7.2 an
/// undefined instruction, and nothing can choose.
const BEHIND_MONITORS: &str = "PMMIR_EL1";

/// How much is written down of what went wrong, in characters.
const LINE: usize = 240;

/// What came of a guest.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It went on, and noticed nothing.
    Restored,
    /// It was refused: why, a line for each thing.
    Refused(Vec<String>),
}

pub(super) fn load(host: &Host, source: &Source, case: &Case) -> Outcome {
    let folder = folder()?.join(source.label).join(case.name);
    let this = Move { case, folder: &folder, better: is_better(host, source) };
    let state = folder.join(file::STATE);
    ensure!(state.exists(), "there is no {}: it was not saved", state.display());
    let verdict = told(source, case.name, this.attempt(&[]))?;
    match (wanted(host, source, case), verdict) {
        (Wanted::Either, _)
        | (Wanted::Restored, Verdict::Restored)
        | (Wanted::Refused, Verdict::Refused(_)) => Ok(()),
        (Wanted::Restored, Verdict::Refused(why)) => bail!("refused: {}", why.join("\n")),
        (Wanted::Refused | Wanted::RefusedFor(_), Verdict::Restored) => bail!("it was not refused"),
        (Wanted::RefusedFor(register), Verdict::Refused(why)) => {
            ensure!(why.len() == 1, "refused for more than {register}:\n{}", why.join("\n"));
            ensure_contains(&why.join("\n"), &[register])?;
            let name = format!("{}+allow", case.name);
            let allowed = told(source, &name, this.attempt(&["--allow", register]))?;
            ensure!(allowed == Verdict::Restored, "allowed by name, and {allowed:?}");
            Ok(())
        }
    }
}

/// The one line that says most: what kedge complains about, or how all of it begins.
fn in_a_line(text: &str) -> String {
    let complaint = text.lines().find(|line| line.starts_with("error: "));
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let line = complaint.map_or_else(|| lines.join("; "), str::to_owned);
    line.chars().take(LINE).collect()
}

/// Hands on what came of it, when it is written down.
fn told(source: &Source, what: &str, verdict: anyhow::Result<Verdict>) -> anyhow::Result<Verdict> {
    let words = match &verdict {
        Ok(Verdict::Restored) => "restored".to_owned(),
        Ok(Verdict::Refused(why)) => format!("refused: {}", why.join("; ")),
        Err(error) => format!("failed: {}", in_a_line(&format!("{error:#}"))),
    };
    let path = folder()?.join(file::VERDICTS);
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    writeln!(file, "MOVE {} {what} {words}", source.label)?;
    verdict
}

/// A guest on its way.
struct Move<'a> {
    case: &'a Case,
    folder: &'a Path,
    /// Whether the host promises more than the guest was told.
    better: bool,
}

impl Move<'_> {
    /// Restores it, with more flags.
    ///
    /// # Errors
    /// It is neither refused nor goes on as it was.
    fn attempt(&self, flags: &[&str]) -> anyhow::Result<Verdict> {
        let kedge = self.kedge().with(flags);
        match self.case.guest {
            Guest::Bare => self.attempt_bare(kedge, !flags.is_empty()),
            Guest::Working => self.attempt_working(kedge),
        }
    }

    /// What loads it.
    fn kedge(&self) -> Kedge {
        Kedge::new(["snapshot", "load"])
            .with([self.path(file::STATE)])
            .with(["--memory".into(), self.path(file::MEMORY)])
    }

    /// Fails if the guest's memory is mapped before the guest is refused.
    fn ensure_nothing_is_mapped(&self) -> Outcome {
        let trace = Trace::of_failure(self.kedge())?;
        let is_mapped =
            trace.events().iter().any(|event| matches!(event, Event::Memory { size: MEMORY.. }));
        ensure!(!is_mapped, "memory is mapped, then the guest is refused:\n{trace}");
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn attempt_bare(&self, kedge: Kedge, allowed: bool) -> anyhow::Result<Verdict> {
        let begin = Instant::now();
        let mut guest = kedge.start()?;
        // A refused guest's console has gone.
        let _ = guest.type_in(b"w");
        let ended = guest.finish_within(FINDING)?;
        if let Some(refused) = refusal(&ended)? {
            self.ensure_nothing_is_mapped()?;
            return Ok(refused);
        }
        let said = ended.with_status(0)?.stdout;
        let before = Finding::before(&fs::read_to_string(self.path(file::SAID))?)?;
        let ran: u64 = fs::read_to_string(self.path(file::RAN))?.parse()?;
        let ran = Duration::from_millis(ran) + begin.elapsed();
        let profile = kept_profile(self.folder)?;
        let varying = profile.as_ref().map_or(&[][..], |profile| &profile.cpu.varying);
        let mut otherwise = Vec::new();
        if allowed || self.better {
            otherwise.push(LESSER.1);
        }
        let of_monitors =
            |Varying { id, mask, .. }: &Varying| *id == MONITORS.0 && mask.0 & MONITORS.1 != 0;
        if varying.iter().any(of_monitors) {
            otherwise.extend(OF_MONITORS);
        }
        if before.has_no_monitors()? {
            otherwise.push(BEHIND_MONITORS);
        }
        let expected = Expected { varying, otherwise: &otherwise };
        before.goes_on_in(&Finding::after(&said)?, ran, &expected)?;
        Ok(Verdict::Restored)
    }

    fn attempt_working(&self, kedge: Kedge) -> anyhow::Result<Verdict> {
        let scratch = TempDir::new()?;
        let disk = scratch.path().join(file::DISK);
        fs::copy(self.path(file::DISK), &disk)?;
        let tap = working::tap(working::OTHER_TAP)?;
        let guest = kedge
            .with(["--disk", &format!("id={},path={}", working::DISK, disk.display())])
            .with(["--net", &format!("id={},tap={}", working::CARD, tap.name())])
            .start()?;
        if let Err(error) = working::works(&guest) {
            let refused = refusal(&guest.terminate()?)?;
            return refused.ok_or(error);
        }
        working::end(guest, &disk)?;
        Ok(Verdict::Restored)
    }
}

/// The refusal, if it ended with one. A guest that is refused says nothing.
fn refusal(ended: &Ended) -> anyhow::Result<Option<Verdict>> {
    let Some((_, list)) = ended.stderr.split_once(REFUSAL) else { return Ok(None) };
    ensure!(ended.code() == Some(1), "refused with status {:?}", ended.code());
    ensure!(ended.stdout.is_empty(), "refused after it had said:\n{}", ended.stdout);
    let lines = list
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with("  ") && !line.trim_start().starts_with("fix:"));
    let lines: Vec<_> = lines.map(|line| line.trim().to_owned()).collect();
    ensure!(!lines.is_empty(), "refused without a reason:\n{}", ended.stderr);
    Ok(Some(Verdict::Refused(lines)))
}
