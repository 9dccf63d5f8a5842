//! What is said of taps that cannot be opened.

use expect_test::{Expect, expect};
use kedge_diag::report;

use super::*;

fn check(error: &OpenTapError, text: &Expect) {
    text.assert_eq(&report(error));
}

#[test]
fn a_tap_that_does_not_exist_is_not_made() {
    // Any device that can be opened stands in for /dev/net/tun here.
    let error = Tap::open_from(Path::new("/dev/null"), "kedge-none", Queues::Single).unwrap_err();
    check(
        &error,
        &expect![[r#"
            error: the tap interface `kedge-none` does not exist
              fix: create it: `ip tuntap add dev kedge-none mode tap`"#]],
    );
}

#[test]
fn a_host_without_taps_says_so_first() {
    let error = Tap::open_from(Path::new("/dev/no-such-tun"), "lo", Queues::Single).unwrap_err();
    check(
        &error,
        &expect![[r#"
            error: this host has no /dev/net/tun
              because: No such file or directory (os error 2)
              fix: load the host's driver: `modprobe tun`"#]],
    );
}

#[test]
fn a_tap_in_use_says_so() {
    check(
        &OpenTapError::interface("tap0", Queues::Single, Errno::BUSY),
        &expect![[r#"
            error: the tap interface `tap0` is in use by another process
              fix: give each machine a tap of its own, or stop the other process"#]],
    );
}

#[test]
fn a_tap_of_somebody_else_says_how_to_get_one() {
    check(
        &OpenTapError::interface("tap0", Queues::Single, Errno::PERM),
        &expect![[r#"
            error: no permission to use the tap interface `tap0`
              fix: create it for this user: `ip tuntap add dev tap0 mode tap user USER`, or run with CAP_NET_ADMIN"#]],
    );
}

#[test]
fn an_interface_that_is_no_tap_says_so() {
    check(
        &OpenTapError::interface("eth0", Queues::Single, Errno::INVAL),
        &expect![[r#"
            error: the network interface `eth0` is not a tap with a single queue
              fix: create one, without `multi_queue`: `ip tuntap add dev NAME mode tap`"#]],
    );
}

#[test]
fn a_device_that_may_not_be_opened_says_so() {
    check(
        &OpenTapError::tun(Errno::ACCESS),
        &expect![[r#"
            error: no permission to open /dev/net/tun
              because: Permission denied (os error 13)
              fix: let this user open it: `chmod 666 /dev/net/tun`"#]],
    );
}

#[test]
fn a_name_no_interface_can_have_is_refused() {
    for name in ["", "..", "a b", "a/b", "tap%d", "sixteen-letters!", "a\0b"] {
        assert!(matches!(Tap::open(name), Err(OpenTapError::Name { .. })), "{name:?}");
    }
    assert!(padded("fifteen-letters").is_some());
}

#[test]
fn an_interface_that_has_a_single_queue_says_so_where_several_are_asked_for() {
    check(
        &OpenTapError::interface("tap0", Queues::Several, Errno::INVAL),
        &expect![[r#"
            error: the network interface `tap0` is not a tap with several queues
              fix: create one: `ip tuntap add dev NAME mode tap multi_queue`"#]],
    );
}

// Not under qemu-user, which runs arm64's unit tests and has another error for ioctls that it
// does not know.
#[cfg(not(target_arch = "aarch64"))]
#[test]
fn a_descriptor_of_something_else_says_so() {
    let file = tempfile::tempfile().unwrap();
    let error = Tap::from_descriptors(&[file.as_raw_fd()]).unwrap_err();
    let said = report(&error).replace(&format!(" {} ", file.as_raw_fd()), " N ");
    expect![[r#"
        error: file descriptor N is not that of a tap interface
          because: Inappropriate ioctl for device (os error 25)
          fix: open a tap in the program that starts kedge, and pass it on"#]]
    .assert_eq(&said);
}

#[test]
fn a_descriptor_that_is_closed_says_so() {
    let error = Tap::from_descriptors(&[i32::MAX]).unwrap_err();
    check(
        &error,
        &expect![[r#"
            error: file descriptor 2147483647 is not that of a tap interface
              because: Bad file descriptor (os error 9)
              fix: open a tap in the program that starts kedge, and pass it on"#]],
    );
}

#[test]
fn queues_of_somebody_else_are_noticed() {
    // The loopback interface has one.
    assert!(has_more_queues("lo", 0));
    assert!(!has_more_queues("lo", 1));
    assert!(!has_more_queues("kedge-none", 0));
}
