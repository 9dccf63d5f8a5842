//! Saves that are watched, and ended by who watches.

use std::fs;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use expect_test::expect;
use kedge_diag::report;
use kedge_vmm::{Clock, Lifecycle, SaveOrder, SaveProgress};

use crate::guest::Running;
use crate::pause::{goes_round, letters, says_more};
use crate::save::{LETTERS, Place, host, save};

/// What whoever watches has heard.
type Heard = Arc<Mutex<Vec<SaveProgress>>>;

/// Ends the save once it has come to the end of memory, before anything is in place.
pub(crate) fn cancel_at_the_end(guest: &Running, order: SaveOrder) -> String {
    let watcher = |SaveProgress { done, total }| match done == total {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    report(&guest.handle.save_watched(order, watcher).unwrap_err())
}

#[test]
fn who_watches_hears_how_far_it_is() {
    let (place, heard) = (Place::new(), Heard::default());
    let guest = host("6.12", &[letters()]).start();
    says_more(&guest);
    guest.handle.pause().unwrap();
    let hears = Arc::clone(&heard);
    let saved = guest.handle.save_watched(place.order(), move |progress| {
        hears.lock().unwrap().push(progress);
        ControlFlow::Continue(())
    });
    let saved = saved.unwrap();
    guest.stop();
    let heard = heard.lock().unwrap();
    assert!(heard.len() > 2, "{heard:?}");
    assert!(heard.iter().all(|progress| progress.total == saved.memory));
    assert!(heard.is_sorted_by_key(|progress| progress.done));
    assert_eq!(heard.first().map(|progress| progress.done), Some(0));
    assert_eq!(heard.last().map(|progress| progress.done), Some(saved.memory));
}

#[test]
fn a_save_that_is_cancelled_leaves_the_snapshot_before_it_and_a_machine_that_goes_on() {
    let place = Place::new();
    let guest = host("6.12", &[letters()]).start();
    says_more(&guest);
    guest.handle.pause().unwrap();
    guest.handle.save(place.order()).unwrap();
    let files = || fs::read_dir(place.path("")).unwrap().count();
    let state = fs::read(place.path("state")).unwrap();
    for at_once in [true, false] {
        let refused = match at_once {
            true => {
                let refused = guest.handle.save_watched(place.order(), |_| ControlFlow::Break(()));
                report(&refused.unwrap_err())
            }
            false => cancel_at_the_end(&guest, place.order()),
        };
        expect![[r#"
            error: the machine cannot be saved
              because: the save was cancelled by who had asked for it"#]]
        .assert_eq(&refused);
        assert_eq!((guest.handle.status(), files()), (Lifecycle::Paused, 2));
        assert_eq!(fs::read(place.path("state")).unwrap(), state);
    }
    guest.handle.resume(Clock::default()).unwrap();
    says_more(&guest);
    assert!(goes_round(&save(guest, &place), LETTERS));
    place.open();
}
