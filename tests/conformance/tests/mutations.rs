//! Each rule of the model, flipped, makes the suite fail: no rule is there without
//! a case or a fact that speaks for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kedge_conformance::mutations::{MUTATIONS, Mutation, with_wrong_errno};
use kedge_conformance::{Known, Model};
use kedge_hv::GicVersion;
use kedge_hv_model::{ModelHypervisor, RELEASES, Recording, Refusal, Release, V5_10, V7_2};

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

/// The names of those mutations that nothing notices.
fn unnoticed<T: Sync>(
    mutations: &[T],
    name: impl Fn(&T) -> String + Sync,
    failure: impl Fn(&T) -> Option<String> + Sync,
) -> Vec<String> {
    std::thread::scope(|scope| {
        let halves = mutations.chunks(mutations.len().div_ceil(4));
        let unnoticed = |half: &[T]| {
            let all = half.iter().filter(|mutation| failure(mutation).is_none());
            all.map(&name).collect::<Vec<_>>()
        };
        let workers: Vec<_> = halves.map(|half| scope.spawn(move || unnoticed(half))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no case panics")).collect()
    })
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
    let failure = |flipped: &Mutation| originals.first_failure(&flipped.mutated(), &flipped.of);
    assert_eq!(unnoticed(MUTATIONS, |m| m.name.to_owned(), failure), [""; 0]);
}

#[test]
fn every_wrong_errno_is_noticed() {
    let originals = Originals::new();
    // What one release cannot refuse, another can.
    let failure = |refusal: &Refusal| {
        let of = [V7_2, V5_10];
        of.iter().find_map(|of| originals.first_failure(&with_wrong_errno(of, *refusal), of))
    };
    assert_eq!(unnoticed(Refusal::ALL, |refusal| format!("{refusal:?}"), failure), [""; 0]);
}
