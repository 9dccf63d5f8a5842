//! What is said where the kernel does not serve cards. That it does is shown in real hosts.

use expect_test::{Expect, expect};
use kedge_diag::report;

use super::*;

fn refused_by(path: &str, expected: &Expect) {
    let tap = OwnedFd::from(File::open("/dev/null").unwrap());
    expected.assert_eq(&report(&KernelNet::open_from(Path::new(path), vec![tap]).err().unwrap()));
}

#[test]
fn a_host_without_the_driver_says_how_to_get_it() {
    refused_by(
        "/dev/no-such-vhost-net",
        &expect![[r#"
        error: this host has no /dev/no-such-vhost-net: its kernel carries no frames for guests
          fix: load the host's driver: `modprobe vhost_net`, or leave `vhost` out"#]],
    );
}

// Not under qemu-user, which runs arm64's unit tests and has another error for ioctls that it
// does not know.
#[cfg(not(target_arch = "aarch64"))]
#[test]
fn what_is_no_driver_is_told_apart() {
    refused_by(
        "/dev/null",
        &expect![[r#"
        error: the host's kernel does not serve this process
          because: Inappropriate ioctl for device (os error 25)
          fix: leave `vhost` out: kedge carries the frames itself then"#]],
    );
}

#[test]
fn a_device_that_may_not_be_opened_says_so() {
    let denied = KernelError::opening(Path::new(VHOST_NET), io::ErrorKind::PermissionDenied.into());
    expect![[r#"
        error: no permission to open /dev/vhost-net
          because: permission denied
          fix: let this user open it: `chmod 666 /dev/vhost-net`, or leave `vhost` out"#]]
    .assert_eq(&report(&denied));
}

#[test]
fn a_node_without_a_driver_is_none() {
    let error =
        KernelError::opening(Path::new(VHOST_NET), io::Error::from_raw_os_error(libc::ENODEV));
    assert!(matches!(error, KernelError::Absent { .. }), "{error:?}");
}
