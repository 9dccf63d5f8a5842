//! The library's public items are those of `vmm/public-api.txt`, and its version says what has
//! become of them since the last release.
//!
//! The listing is made from the sources, re-exports followed into the crates that they lead to:
//! what embeds the machine names it by this crate alone. `UPDATE_GOLDEN=1` writes the file
//! anew, where the version allows it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compare;
mod list;
mod resolve;
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use expect_test::expect;

use compare::{Change, Golden, difference, judge, read, version, write};
use list::{Listing, list};
use resolve::Workspace;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/public-api.txt");
const UPDATE: &str = "`UPDATE_GOLDEN=1 cargo test -p kedge-vmm --test public_api` writes them down";

fn now() -> (Listing, BTreeMap<String, String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    list(&Workspace::at(folder), "kedge_vmm")
}

/// What is left has no name because nobody else makes it or keeps it: rows of kedge's own
/// catalogue of devices, what a hypervisor is made of, and details of what was recorded or saved.
#[test]
fn what_public_items_mention_can_be_named() {
    let unnamed: Vec<_> = now().1.into_iter().map(|(what, by)| format!("{what} by {by}")).collect();
    expect![[r#"
        kedge_devices::virtio::block::config::Format by kedge_vmm::disk::BlockConfig
        kedge_devices::virtio::body::BodyError by kedge_vmm::device::RateLimiter
        kedge_devices::virtio::catalog::ApiWords by kedge_vmm::device::Kind
        kedge_devices::virtio::catalog::HostField by kedge_vmm::device::Kind
        kedge_devices::virtio::catalog::Parsed by kedge_vmm::device::DeviceConfig
        kedge_devices::virtio::change::Changeable by kedge_vmm::device::Kind
        kedge_devices::virtio::device::VirtioDevice by kedge_vmm::device::DeviceConfig
        kedge_devices::virtio::options::OptionError by kedge_vmm::device::RateLimiter
        kedge_devices::virtio::options::Options by kedge_vmm::device::RateLimiter
        kedge_devices::virtio::syscalls::Syscall by kedge_vmm::device::Kind
        kedge_firmware::host::FoundCpu by kedge_vmm::firmware::HostAbi
        kedge_firmware::host::FoundFirmware by kedge_vmm::firmware::HostAbi
        kedge_firmware::host::FoundGic by kedge_vmm::firmware::HostAbi
        kedge_firmware::host::HostAbilities by kedge_vmm::firmware::HostAbi
        kedge_firmware::host::HostLimits by kedge_vmm::firmware::HostAbi
        kedge_firmware::register::FwSpec by kedge_vmm::firmware::Firmware
        kedge_firmware::state::Birth by kedge_vmm::firmware::Born
        kedge_firmware::symbols::BadFwValue by kedge_vmm::firmware::FwReg
        kedge_guest_memory::dirty::DirtyPages by kedge_vmm::mmio::GuestMemory
        kedge_hv::vm::Abilities by kedge_vmm::hv::Hypervisor
        kedge_hv::vm::Vm by kedge_vmm::hv::Hypervisor
        kedge_ids::register::RegSize by kedge_vmm::firmware::RegId
        kedge_metrics::line::Line by kedge_vmm::metrics::Lines
        kedge_saved_state::header::Entry by kedge_vmm::saved_state::Header
        kedge_saved_state::header::MemoryIdentity by kedge_vmm::saved_state::Header
        kedge_saved_state::header::Need by kedge_vmm::saved_state::Section
        kedge_saved_state::image::check::ImageError by kedge_vmm::saved_state::Image
        kedge_saved_state::image::map::MemoryMap by kedge_vmm::saved_state::Image"#]]
    .assert_eq(&unnamed.join("\n"));
}

#[test]
fn public_items_are_those_on_record_and_the_version_says_what_changed() {
    let (golden, (now, _)) = (read(&fs::read_to_string(FILE).unwrap()), now());
    let here = version(env!("CARGO_PKG_VERSION"));
    let (change, lines) = difference(&golden.listing, &now);
    let lines = lines.join("\n");
    judge(&golden, here, change)
        .unwrap_or_else(|error| panic!("{lines}\n{error}: raise it in Cargo.toml"));
    let is_released = golden.is_released && golden.version == here;
    let new = write(&Golden { version: here, is_released, listing: now });
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(FILE, new).unwrap();
    } else if new != write(&golden) {
        panic!("{lines}\nthe public items have changed; {UPDATE}");
    }
}

/// A crate `below` and the listing of one on top of it.
fn listed(below: &str, top: &str) -> String {
    let workspace = Workspace::of(&[("below", below), ("top", top)]);
    let golden =
        Golden { version: [1, 2, 3], is_released: true, listing: list(&workspace, "top").0 };
    write(&golden)
}

#[test]
fn items_are_listed_by_their_public_paths_wherever_they_are_written() {
    let below = "mod inner { pub struct Deep(pub u8, u16); impl Deep { pub fn new(a: u8) -> Self { todo() } fn own(&self) {} } }
        pub use inner::Deep as Shallow;
        pub trait Speak: Send { fn say(&self) -> String; fn shout(&self) {} }
        impl Speak for inner::Deep { fn say(&self) -> String { String::new() } }
        #[cfg(test)] mod tests { pub struct Never; }";
    let top = "mod own { #[derive(Clone, Debug)] #[non_exhaustive] pub enum Kind { One, Two { a: u8 } } pub(crate) struct Hidden; }
        pub use own::Kind;
        pub mod words { pub use below::{Shallow, Speak}; pub use vm_memory::GuestAddress; pub fn f(\n a: &str,\n ) {} }
        pub use words::Shallow as Again;";
    expect![[r#"
        1.2.3, released

        top::Again
            is top::words::Shallow

        top::Kind
            enum
            variant One
            variant Two { field a: u8 }
            non_exhaustive
            impl Clone
            impl Debug

        top::words::GuestAddress
            is vm_memory::GuestAddress

        top::words::Shallow
            struct
            field 0: u8
            ..
            fn new(a: u8) -> Self
            impl Speak

        top::words::Speak
            trait: Send
            required fn say(&self) -> String
            provided fn shout(&self)

        top::words::f
            fn f(a: &str)
    "#]]
    .assert_eq(&listed(below, top));
}

fn lines(lines: &[&str]) -> Listing {
    let lines = lines.iter().map(|&line| line.to_owned()).collect();
    [("top::A".to_owned(), lines)].into()
}

/// What it is to a program that an item which was as `before` is as `now`.
fn change(before: &[&str], now: &[&str]) -> Change {
    difference(&lines(before), &lines(now)).0
}

#[test]
fn what_breaks_a_program_is_told_from_what_does_not() {
    assert_eq!(change(&["fn f()"], &["fn f()"]), Change::None);
    assert_eq!(change(&["fn f()"], &["fn f(a: u8)"]), Change::Break);
    assert_eq!(
        change(&["struct", "field a: u8"], &["struct", "field a: u8", "field b: u8"]),
        Change::Break
    );
    let open = ["struct", "field a: u8", ".."];
    assert_eq!(change(&open, &["struct", "field a: u8", "field b: u8", ".."]), Change::Addition);
    assert_eq!(change(&open, &["struct", ".."]), Change::Break);
    assert_eq!(change(&["struct", "field a: u8"], &open), Change::Break);
    assert_eq!(change(&["struct", ".."], &["struct", "..", "fn f()"]), Change::Addition);
    assert_eq!(change(&["enum"], &["enum", "variant A"]), Change::Break);
    let open = ["enum", "non_exhaustive"];
    assert_eq!(change(&open, &["enum", "non_exhaustive", "variant A"]), Change::Addition);
    assert_eq!(change(&["trait"], &["trait", "required fn f()"]), Change::Break);
    assert_eq!(change(&["trait"], &["trait", "provided fn f()"]), Change::Addition);
    assert_eq!(change(&["enum", "impl Clone"], &["enum"]), Change::Break);
    assert_eq!(difference(&lines(&[]), &Listing::new()).0, Change::Break);
    assert_eq!(difference(&Listing::new(), &lines(&[])).0, Change::Addition);
}

/// Whether `now` may have `change` since the release `then`.
fn may(then: &str, now: &str, change: Change) -> bool {
    let golden = Golden { version: version(then), is_released: true, listing: Listing::new() };
    judge(&golden, version(now), change).is_ok()
}

#[test]
fn a_released_version_is_raised_as_far_as_a_change_asks() {
    assert!(may("1.2.3", "1.2.3", Change::None));
    assert!(!may("1.2.3", "1.2.3", Change::Addition) && may("1.2.3", "1.3.0", Change::Addition));
    assert!(!may("1.2.3", "1.9.0", Change::Break) && may("1.2.3", "2.0.0", Change::Break));
    assert!(!may("0.1.0", "0.1.1", Change::Break) && may("0.1.0", "0.2.0", Change::Break));
    let golden = Golden { version: [0, 1, 0], is_released: true, listing: Listing::new() };
    expect!["these changes break programs: 0.1.0 was released, and 0.1.1 is not 0.2.0 or later"]
        .assert_eq(&judge(&golden, [0, 1, 1], Change::Break).unwrap_err());
}

#[test]
fn before_a_release_only_the_record_has_to_follow() {
    let golden = Golden { version: [0, 1, 0], is_released: false, listing: Listing::new() };
    assert_eq!(judge(&golden, [0, 1, 0], Change::Break), Ok(()));
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let golden =
        Golden { version: [0, 1, 0], is_released: false, listing: lines(&["struct", ".."]) };
    let text = write(&golden);
    assert_eq!(write(&read(&text)), text);
}
