//! A disk of the program around the machine, over resets and restorations; what a request does
//! to one is tested beside the device.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use expect_test::expect;
use kedge_diag::report;
use kedge_hv_model::Program;
use kedge_vmm::Restoration;
use kedge_vmm::disk::{BlockBackEnd, BlockConfig};
use kedge_vmm::spec::OnReset;

use crate::guest::{Guest, off, program, reset};
use crate::save::{Place, host, save};

/// Zeroes, and how often a machine has asked how many.
#[derive(Default)]
struct Zeroes(AtomicU64);

impl BlockBackEnd for Zeroes {
    fn size(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed);
        4096
    }

    fn read_at(&self, into: &mut [u8], _offset: u64) -> io::Result<()> {
        into.fill(0);
        Ok(())
    }

    fn write_at(&self, _from: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

fn with_disk(guest: Guest, disk: &Arc<Zeroes>) -> Guest {
    let disk = BlockConfig::new("zeroes", "nothing but zeroes").on(Arc::<Zeroes>::clone(disk));
    guest.with(|spec| spec.devices.push(Box::new(disk)))
}

#[test]
fn a_machine_has_its_disk_again_after_a_reset() {
    let disk = Arc::<Zeroes>::default();
    let guest = Guest::new(&[program(&[reset()])]).then(program(&[off()]));
    let guest = guest.with(|spec| spec.on_reset = OnReset::Restart);
    with_disk(guest, &disk).run().ended.unwrap();
    assert_eq!(disk.0.load(Ordering::Relaxed), 2);
}

#[test]
fn a_restored_machine_is_given_its_disk_by_its_program() {
    let (place, programs, disk) = (Place::new(), [Program::default()], Arc::<Zeroes>::default());
    save(with_disk(host("6.12", &programs), &disk).start(), &place);
    let snapshot = place.open();

    let forgotten = host("6.12", &programs).restore(Restoration::of(&snapshot).unwrap());
    expect![[r#"
        error: disk `zeroes` is on a back end of a program, nothing but zeroes, and nobody gave one
          fix: restore it in the program that has it (`Restoration::replace`), or give a file with the same content: --disk id=zeroes,path=FILE"#]].assert_eq(&report(&forgotten.err().unwrap()));

    let mut restoration = Restoration::of(&snapshot).unwrap();
    let again = BlockConfig::new("zeroes", "the same zeroes").on(Arc::<Zeroes>::clone(&disk));
    restoration.replace(Box::new(again)).unwrap();
    let restored = host("6.12", &programs).restore(restoration).unwrap();
    assert_eq!(restored.machine.handle().status(), kedge_vmm::Lifecycle::Paused);
    assert_eq!(disk.0.load(Ordering::Relaxed), 2);
}
