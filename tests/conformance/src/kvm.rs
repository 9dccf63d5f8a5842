//! The suite over `hv_kvm`, and what it says of the model: that it is this kernel, and
//! that it would not be with any of its rules flipped.

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use kedge_conformance::backend::{GuestCode, Instructions};
use kedge_conformance::facts::Holds;
use kedge_conformance::mutations::{MUTATIONS, WRONG_ERRNOS};
use kedge_conformance::{Backend, Ctx, Known, Model, facts, fixes, record, suite};
use kedge_hv::{GicVersion, Hypervisor};
use kedge_hv_kvm::Kvm;
use kedge_hv_model::{ModelHypervisor, Recording, Release, release};
use libtest_mimic::{Arguments, Failed, Trial};

/// KVM, which runs instructions.
struct Host(Kvm);

impl Backend for Host {
    fn hypervisor(&self) -> &dyn Hypervisor {
        &self.0
    }

    fn guest_code(&self) -> &dyn GuestCode {
        &Instructions
    }
}

pub(crate) fn main() -> anyhow::Result<ExitCode> {
    if env::args().nth(1).is_some_and(|argument| argument == "--record") {
        print!("{}", record::recording(&Ctx::new(&Host(Kvm::open()?)))?);
        return Ok(ExitCode::SUCCESS);
    }
    let arguments = Arguments::from_args();
    if arguments.list {
        return Ok(libtest_mimic::run(&arguments, names()).exit_code());
    }
    let host = Arc::new(Host(Kvm::open()?));
    let known = Arc::new(Known::new(host.clone())?);
    let abilities = known.abilities();
    let mut trials = Vec::new();
    for case in suite::cases() {
        let host = Arc::clone(&host);
        let trial = move || suite::run(case, host.as_ref()).map_err(|error| failed(&error));
        trials.push(Trial::test(case.name, trial).with_ignored_flag(!abilities.meet(case.need)));
    }
    if let Ok(name) = env::var("KEDGE_HOST_KERNEL") {
        let release =
            release(&name).with_context(|| format!("KEDGE_HOST_KERNEL: no model of {name}"))?;
        let release = fixes::as_found(&known, release)?;
        trials.extend(comparisons(&known, &release)?);
        trials.extend(flipped_rules(&known, &release)?);
    }
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}

/// The cases by name, for whoever asks on a machine without KVM which there are.
/// Comparisons depend on the host and are left out.
fn names() -> Vec<Trial> {
    suite::cases().map(|case| Trial::test(case.name, || Ok(()))).collect()
}

/// Compares this host with the model of its release.
fn comparisons(known: &Arc<Known>, release: &Release) -> anyhow::Result<Vec<Trial>> {
    let host = Recording::parse(release.recording)?;
    let model = |gic| Arc::new(Model(ModelHypervisor::on(release, host.clone(), &[gic])));
    let [v2, v3] = [GicVersion::V2, GicVersion::V3].map(model);
    let mut trials = Vec::new();
    for group in facts::groups() {
        let model = if group.holds == Holds::GicV2 { &v2 } else { &v3 };
        let comparable = known.is_like(model.as_ref(), group.holds)?;
        let (known, model) = (Arc::clone(known), Arc::clone(model));
        let trial = move || known.compare(group, model.as_ref()).map_err(|error| failed(&error));
        let title = format!("as the model of {}: {}", release.name, group.name);
        trials.push(Trial::test(title, trial).with_ignored_flag(!comparable));
    }
    Ok(trials)
}

/// Takes this host for what the model of its release would be with one rule flipped:
/// what speaks for the rule has to speak against it. Only where the model was recorded
/// on such a host: elsewhere, what differs says nothing.
fn flipped_rules(known: &Arc<Known>, release: &Release) -> anyhow::Result<Vec<Trial>> {
    let model = Model(ModelHypervisor::new(release)?);
    let like = known.is_like(&model, Holds::SameHost)?;
    let trial = |name: String, clue: &'static str, flipped: Release| {
        let heard = like && known.hears(clue, &model)?;
        let known = Arc::clone(known);
        let trial = move || notices(&known, clue, &flipped).map_err(|error| failed(&error));
        anyhow::Ok(Trial::test(format!("flipped: {name}"), trial).with_ignored_flag(!heard))
    };
    let rules = MUTATIONS.iter().filter(|rule| rule.of.name == release.name);
    // A fix may have made a rule what it would be flipped to.
    let rules = rules.filter(|rule| rule.flips(release));
    let rules = rules.map(|rule| trial(rule.name.to_owned(), rule.clue, rule.mutated(release)));
    let errnos = WRONG_ERRNOS.iter().filter(|wrong| (wrong.refuses)(release));
    let errnos = errnos.map(|wrong| {
        trial(format!("errno of {:?}", wrong.refusal), wrong.clue, wrong.mutated(release))
    });
    rules.chain(errnos).collect()
}

fn notices(known: &Known, clue: &str, flipped: &Release) -> anyhow::Result<()> {
    let host = Recording::parse(flipped.recording)?;
    let model = Model(ModelHypervisor::on(flipped, host, &[GicVersion::V3]));
    ensure!(known.notices(clue, &model)?, "`{clue}` does not speak against it");
    Ok(())
}

fn failed(error: &anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}
