//! What becomes of a saved machine, said before anything of it is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use kedge_firmware::{Plan, probe};
use kedge_hv_model::{ModelHypervisor, release};
use kedge_ids::RegId;
use kedge_saved_state::Snapshot;
use kedge_vmm::{Forecast, Restoration, RestoreError, SaveOrder, Surroundings};
use tempfile::TempDir;

use crate::faulty::Faulty;
use crate::guest::{ENTRY, Guest};
use crate::pause::letters;

/// A guest of Linux 7.2's that was saved.
fn saved() -> (TempDir, Snapshot) {
    let folder = TempDir::new().unwrap();
    let files = ["state", "memory"].map(|name| folder.path().join(name));
    let guest = Guest::on("7.2", &[letters().at(ENTRY)]).start();
    guest.handle.pause().unwrap();
    guest.handle.save(SaveOrder::new(&files[0], &files[1])).unwrap();
    guest.stop();
    let snapshot = Snapshot::open(&files[0], &files[1]).unwrap();
    (folder, snapshot)
}

fn host(name: &str) -> ModelHypervisor {
    ModelHypervisor::new(release(name).unwrap()).unwrap()
}

fn refused(plan: &Plan) -> BTreeSet<String> {
    plan.refusals().map(|line| line.subject.to_string()).collect()
}

#[test]
fn it_is_the_plan_that_a_restore_makes_with_nothing_mapped() {
    let (_folder, snapshot) = saved();
    for name in ["5.10", "6.1", "6.12", "7.2"] {
        let guest = Guest::on(name, &[letters().at(ENTRY)]);
        let restored = guest.restore(Restoration::of(&snapshot).unwrap());
        let here = Faulty::new(Arc::new(host(name)), usize::MAX);
        let around = Surroundings::new(std::io::sink());
        let plan = Forecast::of(snapshot.state()).unwrap().here(&here, &around).unwrap();
        assert_eq!(here.maps(), 0);
        match restored.err() {
            Some(RestoreError::Refused(refusal)) => assert_eq!(refusal, plan, "on {name}"),
            Some(other) => panic!("{other}"),
            None => assert!(!plan.is_refused(), "on {name}"),
        }
    }
}

#[test]
fn a_recorded_host_refuses_what_the_host_does() {
    let (_folder, snapshot) = saved();
    let forecast = Forecast::of(snapshot.state()).unwrap();
    for name in ["5.10", "6.1", "6.12", "7.2"] {
        let there = host(name);
        let recorded = forecast.on(&probe(&there).unwrap()).unwrap();
        let around = Surroundings::new(std::io::sink());
        let live = forecast.here(&there, &around).unwrap();
        assert_eq!(refused(&recorded), refused(&live), "on {name}");
    }
}

#[test]
fn a_register_that_is_allowed_is_not_refused() {
    let (_folder, snapshot) = saved();
    let mut forecast = Forecast::of(snapshot.state()).unwrap();
    let there = probe(&host("5.10")).unwrap();
    assert!(refused(&forecast.on(&there).unwrap()).contains("psci_version"));
    forecast.allow.insert(RegId::PSCI_VERSION);
    assert!(!refused(&forecast.on(&there).unwrap()).contains("psci_version"));
}
