//! Saved machines that a host cannot have as they were.

use expect_test::expect;
use kedge_diag::report;
use kedge_firmware::{HOST, builtin};
use kedge_ids::RegId;
use kedge_vmm::{Clock, Restoration};

use crate::faulty::Faulty;
use crate::pause::{goes_round, letters, says_more};
use crate::save::{LETTERS, Place, host, save};

#[test]
fn a_loss_is_taken_that_the_operator_allows() {
    let (place, programs) = (Place::new(), [letters()]);
    let all_of_it =
        |release| host(release, &programs).with(|spec| spec.guest_abi = builtin(HOST).unwrap());
    let guest = all_of_it("7.2").start();
    says_more(&guest);
    let mut said = save(guest, &place);
    let snapshot = place.open();
    let refused = host("6.12", &programs).restore(Restoration::of(&snapshot).unwrap());
    expect![[r#"
        error: this host cannot give the guest what it was saved with:
          psci_version: 1.3 wanted, 1.1 offered: this host does not have that version
          fix: restore it on a host that can, or let these differ with `--allow psci_version`"#]]
    .assert_eq(&report(&refused.err().unwrap()));
    let mut restoration = Restoration::of(&snapshot).unwrap();
    restoration.allow.insert(RegId::PSCI_VERSION);
    let guest = host("6.12", &programs).restore(restoration).unwrap().start();
    guest.handle.resume(Clock::default()).unwrap();
    says_more(&guest);
    said.extend(guest.stop().said);
    assert!(goes_round(&said, LETTERS));
}

#[test]
fn a_host_that_cannot_is_refused_with_all_that_it_lacks_before_memory_is_mapped() {
    let (place, programs) = (Place::new(), [letters()]);
    save(host("7.2", &programs).start(), &place);
    let snapshot = place.open();
    let (note, noted) = std::sync::mpsc::sync_channel(1);
    let guest = host("5.10", &programs).watched(move |model| {
        let host = std::sync::Arc::new(Faulty::new(model, usize::MAX));
        note.send(std::sync::Arc::clone(&host)).unwrap();
        host
    });
    let refused = guest.restore(Restoration::of(&snapshot).unwrap()).err().unwrap();
    expect![[r#"
        error: this host cannot give the guest what it was saved with:
          system_suspend: yes wanted, no offered: the kernel cannot give it
          gicd_revision: 3 wanted, 2 offered: the kernel's interrupt controller does not have this revision
          psci_version: 1.1 wanted, 1.0 offered: this host does not have that version
          std_bmap: trng wanted, no such register offered: a kernel without the register shows a guest none, for good
          vendor_hyp_bmap: func-feat,ptp wanted, no such register offered: a kernel without the register shows a guest none, for good
          CCSIDR_EL1 of cache 1: 0x00000002 wanted, 0x201fe012 offered: the nearest that this host takes: 0x201fe012
          CCSIDR_EL1 of cache 2: 0x00000002 wanted, 0x70ffe07a offered: the nearest that this host takes: 0x70ffe07a
          ID_DFR0_EL1: 0x0000000000010009 wanted, 0x0000000004010009 offered: the nearest that this host takes: PerfMon is 0x4, not 0x0
          ID_AA64DFR0_EL1: 0x0000000010305009 wanted, 0x0000000010305409 offered: the nearest that this host takes: PMUVer is 0x4, not 0x0
          ID_AA64MMFR1_EL1: 0x0000011010211122 wanted, 0x0000001010211122 offered: the nearest that this host takes: HCX is 0x0, not 0x1
          CLIDR_EL1: 0x0000000002000021 wanted, 0x0000000002000023 offered: the nearest that this host takes: Ctype1 is 0x3, not 0x1
          fix: restore it on a host that can"#]].assert_eq(&report(&refused));
    assert_eq!(noted.recv().unwrap().maps(), 0);
}
