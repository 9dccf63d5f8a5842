//! The suite over `hv_kvm`.

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use kedge_conformance::backend::{GuestCode, Instructions};
use kedge_conformance::{Abilities, Backend, Ctx, Model, facts, record, suite};
use kedge_hv::Hypervisor;
use kedge_hv_kvm::Kvm;
use kedge_hv_model::{ModelHypervisor, release};
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
    let abilities = Abilities::probe(&Ctx::new(host.as_ref()))?;
    let mut trials = Vec::new();
    for case in suite::cases() {
        let host = Arc::clone(&host);
        let trial = move || suite::run(case, host.as_ref()).map_err(|error| failed(&error));
        trials.push(Trial::test(case.name, trial).with_ignored_flag(!abilities.meet(case.need)));
    }
    if let Ok(name) = env::var("KEDGE_HOST_KERNEL") {
        trials.extend(comparisons(&host, &name)?);
    }
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}

/// The cases by name, for whoever asks on a machine without KVM which there are.
/// Comparisons depend on the host and are left out.
fn names() -> Vec<Trial> {
    suite::cases().map(|case| Trial::test(case.name, || Ok(()))).collect()
}

/// Compares this host with the model of the release called `name`.
fn comparisons(host: &Arc<Host>, name: &str) -> anyhow::Result<Vec<Trial>> {
    let release =
        release(name).with_context(|| format!("KEDGE_HOST_KERNEL: no model of {name}"))?;
    let model = Arc::new(Model(ModelHypervisor::new(release)?));
    let mut trials = Vec::new();
    for group in facts::groups() {
        let ctx = (Ctx::new(host.as_ref()), Ctx::new(model.as_ref()));
        let comparable = facts::comparable(group.holds, &ctx.0, &ctx.1)?;
        let (host, model) = (Arc::clone(host), Arc::clone(&model));
        let trial = move || {
            facts::compare(group, host.as_ref(), model.as_ref()).map_err(|error| failed(&error))
        };
        let title = format!("as the model of {name}: {}", group.name);
        trials.push(Trial::test(title, trial).with_ignored_flag(!comparable));
    }
    Ok(trials)
}

fn failed(error: &anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}
