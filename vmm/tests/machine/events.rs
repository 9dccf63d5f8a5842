//! What a machine tells of itself.

use std::sync::{Arc, Mutex};

use kedge_vmm::spec::{OnPanic, OnReset};
use kedge_vmm::{Clock, Ended, MachineEvent, Reset, Restoration};

use crate::guest::{Guest, off, print, program, reset};
use crate::pause::{letters, says_more};
use crate::save::{Place, host};

/// What was told so far.
type Told = Arc<Mutex<Vec<MachineEvent>>>;

/// `guest`, and what it tells.
fn heard(guest: Guest) -> (Guest, Told) {
    let told = Told::default();
    let hear = Arc::clone(&told);
    let listen = move |event: &MachineEvent| hear.lock().unwrap().push(event.clone());
    (guest.around(move |around| around.on_event(listen)), told)
}

fn all(told: &Told) -> Vec<MachineEvent> {
    told.lock().unwrap().clone()
}

#[test]
fn a_life_is_told_from_its_start_to_its_end() {
    let place = Place::new();
    let (guest, told) = heard(host("6.12", &[letters()]));
    let guest = guest.start();
    says_more(&guest);
    guest.handle.pause().unwrap();
    guest.handle.pause().unwrap();
    guest.handle.save(place.order()).unwrap();
    guest.handle.resume(Clock::default()).unwrap();
    guest.stop();
    let expected = [
        MachineEvent::Started,
        MachineEvent::Paused,
        MachineEvent::Saved(place.path("state")),
        MachineEvent::Resumed,
        MachineEvent::Stopped(Ok(Ended::Stopped)),
    ];
    assert_eq!(all(&told), expected);

    for (resume, runs) in [(None, false), (Some(Clock::default()), true)] {
        let snapshot = place.open();
        let mut restoration = Restoration::of(&snapshot).unwrap();
        restoration.resume = resume;
        let (guest, told) = heard(host("6.12", &[letters()]));
        guest.restore(restoration).unwrap().start().stop();
        let expected = [MachineEvent::Loaded { runs }, MachineEvent::Stopped(Ok(Ended::Stopped))];
        assert_eq!(all(&told), expected);
    }
}

#[test]
fn a_reset_and_a_new_life_are_told() {
    let guest = Guest::new(&[program(&[reset()])]).then(program(&[off()]));
    let (guest, told) = heard(guest.with(|spec| spec.on_reset = OnReset::Restart));
    guest.run();
    let expected = [
        MachineEvent::Started,
        MachineEvent::Reset(Reset::Cold),
        MachineEvent::Started,
        MachineEvent::Stopped(Ok(Ended::Off)),
    ];
    assert_eq!(all(&told), expected);
}

#[test]
fn a_panic_is_told_whatever_comes_of_it_and_a_flood_of_them_now_and_then() {
    let line = "Kernel panic - not syncing: x";
    let lines = print(&format!("{line}\r\n").repeat(9));
    let end = print("---[ end Kernel panic - not syncing: x ]---\r\n");
    let guest = Guest::new(&[program(&[lines, end, off()])]);
    let (guest, told) = heard(guest.with(|spec| spec.on_panic = OnPanic::Continue));
    guest.run();
    let told = all(&told);
    let panics = told.iter().filter_map(|event| match event {
        MachineEvent::Panicked { line, times } => Some((line.as_str(), *times)),
        _ => None,
    });
    assert_eq!(panics.collect::<Vec<_>>(), [1, 2, 4, 8].map(|times| (line, times)));
}
