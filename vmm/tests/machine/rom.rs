//! Read-only memory.

use std::io::Write;

use expect_test::expect;
use kedge_diag::report;
use kedge_hv_model::{Event, Step, Width};
use kedge_vmm::Ended;
use kedge_vmm::spec::{OnReset, RomSpec};
use tempfile::NamedTempFile;

use crate::guest::{ENTRY, Guest, off, print, print_reg, program, reset};

const ROM: u64 = 0x1000_0000;

fn file(bytes: &[u8]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().write_all(bytes).unwrap();
    file
}

fn rom(file: &NamedTempFile, address: u64) -> RomSpec {
    RomSpec { path: file.path().to_owned(), address }
}

/// Shows the byte at `address`.
fn show(address: u64) -> Vec<Step> {
    [vec![Step::Load { reg: 9, address, width: Width::Byte }], print_reg(9)].concat()
}

#[test]
fn the_guest_reads_the_files_bytes_and_zeros_behind_them() {
    let file = file(b"boot");
    let steps = [show(ROM), show(ROM + 3), show(ROM + 4), show(ROM + 0xffff), off()];
    let guest = Guest::new(&[program(&steps)]).with(|spec| spec.rom.push(rom(&file, ROM)));
    assert_eq!(guest.run().outcome(), ("bt\0\0", Ended::Off));
}

#[test]
fn a_store_aborts_and_changes_nothing() {
    let file = file(b"boot");
    let store = Step::Store { reg: 8, address: ROM, width: Width::Byte };
    let main = program(&[vec![store], print("stored"), off()]);
    let main = main.with_vector([print("aborted "), show(ROM), off()].concat());
    let finished = Guest::new(&[main]).with(|spec| spec.rom.push(rom(&file, ROM))).run();
    assert_eq!(finished.outcome(), ("aborted b", Ended::Off));
    assert_eq!(finished.events, [Event::Aborted { vcpu: 0, pc: ENTRY }]);
}

#[test]
fn a_machine_has_any_number_and_keeps_them_over_lives() {
    let (one, two) = (file(&[b'1'; 0x1_0001]), file(b"2"));
    let steps = |end| program(&[show(ROM), show(ROM + 0x2_0000), end]);
    let guest = Guest::new(&[steps(reset())]).then(steps(off())).with(|spec| {
        spec.on_reset = OnReset::Restart;
        spec.rom = vec![rom(&one, ROM), rom(&two, ROM + 0x2_0000)];
    });
    assert_eq!(guest.run().outcome(), ("1212", Ended::Off));
}

/// Why a machine has not these files as read-only memory at these addresses.
fn refused(files: &[(&NamedTempFile, u64)]) -> String {
    let specs = files.iter().map(|(file, address)| rom(file, *address)).collect();
    let guest = Guest::new(&[program(&[])]).with(|spec| spec.rom = specs);
    let text = report(&guest.build().map(drop).unwrap_err());
    let numbered = (1..).zip(files);
    numbered.fold(text, |text, (number, (file, _))| {
        text.replace(&file.path().display().to_string(), &format!("FILE{number}"))
    })
}

#[test]
fn files_that_are_no_read_only_memory_are_refused() {
    expect![[r#"
        error: cannot place the read-only memory `FILE1` at 0x10000000
          because: the file is empty
          fix: give a file with something in it"#]]
    .assert_eq(&refused(&[(&file(b""), ROM)]));
    expect![[r#"
        error: cannot place the read-only memory `FILE1` at 0x10001000
          because: 0x10001000 is not a multiple of 64 KiB
          fix: place it at 0x10000000"#]]
    .assert_eq(&refused(&[(&file(b"boot"), ROM + 0x1000)]));
    let gone = file(b"");
    let path = gone.path().to_owned();
    std::fs::remove_file(&path).unwrap();
    expect![[r#"
        error: cannot open `FILE1`
          because: No such file or directory (os error 2)
          fix: name a file that exists"#]]
    .assert_eq(&refused(&[(&gone, ROM)]));
}

#[test]
fn places_that_are_taken_are_refused() {
    let (one, two) = (file(&[1; 0x1_0001]), file(b"2"));
    expect![[r#"
        error: cannot place the read-only memory `FILE2` at 0x10010000
          because: its 64 KiB overlap `FILE1`, from 0x10000000 to 0x1001ffff
          fix: place it elsewhere: a machine has nothing of its own from 0x10000000 to 0x3fffffff"#]].assert_eq(&refused(&[(&one, ROM), (&two, ROM + 0x1_0000)]));
    expect![[r#"
        error: cannot place the read-only memory `FILE1` at 0x80000000
          because: its 128 KiB overlap the machine's memory, from 0x80000000 to 0x801fffff
          fix: place it elsewhere: a machine has nothing of its own from 0x10000000 to 0x3fffffff"#]].assert_eq(&refused(&[(&one, 0x8000_0000)]));
    expect![[r#"
        error: cannot place the read-only memory `FILE1` at 0x40000000
          because: its 128 KiB overlap the devices' registers, from 0x40000000 to 0x4005efff
          fix: place it elsewhere: a machine has nothing of its own from 0x10000000 to 0x3fffffff"#]].assert_eq(&refused(&[(&one, 0x4000_0000)]));
    expect![[r#"
        error: cannot place the read-only memory `FILE1` at 0xffffff0000
          because: its 128 KiB end past the machine's last address, 0xffffffffff
          fix: place it elsewhere: a machine has nothing of its own from 0x10000000 to 0x3fffffff"#]].assert_eq(&refused(&[(&one, 0xff_ffff_0000)]));
}
