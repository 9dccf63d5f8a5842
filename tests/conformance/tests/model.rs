//! The suite over the model of every release.

use std::sync::Arc;

use kedge_conformance::{Abilities, Ctx, Model, suite};
use kedge_hv::GicVersion;
use kedge_hv_model::{ModelHypervisor, RELEASES, Recording, Release};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> anyhow::Result<()> {
    let mut trials = Vec::new();
    for release in RELEASES {
        trials.extend(trials_of(release, release.name, &[GicVersion::V3])?);
    }
    let newest = &RELEASES[RELEASES.len() - 1];
    trials.extend(trials_of(newest, &format!("{} with a GICv2", newest.name), &[GicVersion::V2])?);
    libtest_mimic::run(&Arguments::from_args(), trials).exit()
}

fn trials_of(
    release: &'static Release,
    name: &str,
    gics: &[GicVersion],
) -> anyhow::Result<Vec<Trial>> {
    let gics: Arc<[GicVersion]> = gics.into();
    let host = Recording::parse(release.recording)?;
    let model = move || Model(ModelHypervisor::on(release, host.clone(), &gics));
    let abilities = Abilities::probe(&Ctx::new(&model()))?;
    Ok(suite::cases()
        .map(|case| {
            let model = model.clone();
            let trial =
                move || suite::run(case, &model()).map_err(|e| Failed::from(format!("{e:#}")));
            Trial::test(format!("{}::{}", name, case.name), trial)
                .with_ignored_flag(!abilities.meet(case.need))
        })
        .collect())
}
