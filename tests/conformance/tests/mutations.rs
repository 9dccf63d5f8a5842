//! Each rule of the model, flipped, makes the suite fail: no rule is there without
//! a case or a fact that speaks for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kedge_conformance::mutations::{MUTATIONS, WRONG_ERRNOS, WrongErrno};
use kedge_conformance::{Known, Model};
use kedge_hv::GicVersion;
use kedge_hv_model::{ModelHypervisor, RELEASES, Recording, Refusal, Release};

/// Each release on hosts with either controller.
struct Originals(BTreeMap<&'static str, [(GicVersion, Known); 2]>);

fn model(release: &Release, of: &Release, gic: GicVersion) -> Model {
    let host = Recording::parse(of.recording).expect("a recording made by a program");
    Model(ModelHypervisor::on(release, host, &[gic]))
}

impl Originals {
    fn new() -> Self {
        let known = |release: &Release, gic| {
            let model = Arc::new(model(release, release, gic));
            (gic, Known::new(model).expect("the model makes plain machines"))
        };
        let both = |release: &'static Release| {
            let gics = [GicVersion::V3, GicVersion::V2].map(|gic| known(release, gic));
            (release.name, gics)
        };
        Self(RELEASES.iter().map(both).collect())
    }

    /// What fails when `release` is taken for `of`.
    fn first_failure(&self, release: &Release, of: &Release) -> Option<String> {
        self.0[of.name].iter().find_map(|(gic, known)| {
            known.first_failure(&model(release, of, *gic)).expect("it makes plain machines")
        })
    }
}

impl Originals {
    /// Whether `clue` tells `release` from `of`, on a host where it has a say; none
    /// where it has no say on either.
    fn notices(&self, clue: &str, release: &Release, of: &Release) -> Option<bool> {
        let heard = self.0[of.name].iter().filter(|(gic, known)| {
            known.hears(clue, &model(of, of, *gic)).expect("a clue that there is")
        });
        let noticed = heard.map(|(gic, known)| {
            known.notices(clue, &model(release, of, *gic)).expect("a clue that there is")
        });
        noticed.reduce(|one, other| one || other)
    }
}

#[test]
fn the_releases_themselves_pass() {
    let originals = Originals::new();
    for release in RELEASES {
        assert_eq!(originals.first_failure(release, release), None, "{}", release.name);
    }
}

#[test]
fn every_flipped_rule_is_noticed() {
    let originals = Originals::new();
    let unnoticed = MUTATIONS.iter().filter(|rule| {
        originals.notices(rule.clue, &rule.mutated(&rule.of), &rule.of) != Some(true)
    });
    assert_eq!(unnoticed.map(|rule| rule.name).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn every_wrong_errno_is_noticed_on_every_release_that_refuses() {
    let originals = Originals::new();
    let everywhere = |wrong: &WrongErrno| {
        let refusing = RELEASES.iter().filter(|of| (wrong.refuses)(of));
        let noticed =
            refusing.filter_map(|of| originals.notices(wrong.clue, &wrong.mutated(of), of));
        noticed.reduce(|one, other| one && other)
    };
    let unnoticed = WRONG_ERRNOS.iter().filter(|wrong| everywhere(wrong) != Some(true));
    assert_eq!(unnoticed.map(|wrong| wrong.refusal).collect::<Vec<_>>(), []);
}

#[test]
fn every_refusal_has_its_errno_flipped() {
    let flipped: Vec<_> = WRONG_ERRNOS.iter().map(|wrong| wrong.refusal).collect();
    assert_eq!(flipped, Refusal::ALL);
}
