//! The calls that kvm-ioctls offers not at all, or not as kedge needs them.

// UNSAFETY: an ioctl trusts its argument to match its number.
#![expect(unsafe_code)]

use std::os::fd::AsRawFd;
use std::ptr;

use kedge_ids::{u64_from, usize_from};
use kvm_bindings::{
    KVM_ARM_FEATURE_ID_RANGE_SIZE, KVM_CREATE_DEVICE_TEST, KVMIO, kvm_arm_counter_offset,
    kvm_create_device, kvm_device_attr, kvm_reg_list, reg_mask_range,
};
use libc::{E2BIG, c_ulong};
use vmm_sys_util::errno;
use vmm_sys_util::ioctl::{
    _IOC_READ, _IOC_WRITE, ioctl_expr, ioctl_with_mut_ptr, ioctl_with_mut_ref, ioctl_with_ref,
};

/// `struct kvm_signal_mask` with the kernel's own set of 64 signals behind it,
/// which is shorter than libc's.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct SignalMask {
    len: u32,
    sigset: [u8; 8],
}

impl SignalMask {
    /// The set with signal n as bit n - 1.
    pub(crate) fn new(sigset: u64) -> Self {
        Self { len: u64::BITS / 8, sigset: sigset.to_ne_bytes() }
    }
}

// The headers take the size of what is fixed: neither list's nor set's tail.
const KVM_SET_SIGNAL_MASK: c_ulong = ioctl_expr(_IOC_WRITE, KVMIO, 0x8b, 4);
const KVM_ARM_SET_COUNTER_OFFSET: c_ulong = ioctl_expr(_IOC_WRITE, KVMIO, 0xb5, 16);
const KVM_ARM_GET_REG_WRITABLE_MASKS: c_ulong = ioctl_expr(_IOC_READ, KVMIO, 0xb6, 64);
const KVM_GET_DEVICE_ATTR: c_ulong = ioctl_expr(_IOC_WRITE, KVMIO, 0xe2, 24);
const KVM_GET_REG_LIST: c_ulong = ioctl_expr(_IOC_READ | _IOC_WRITE, KVMIO, 0xb0, 8);
const KVM_CREATE_DEVICE: c_ulong = ioctl_expr(_IOC_READ | _IOC_WRITE, KVMIO, 0xe0, 12);

const _: () = assert!(KVM_SET_SIGNAL_MASK == 0x4004_ae8b);
const _: () = assert!(KVM_GET_REG_LIST == 0xc008_aeb0);
const _: () = assert!(KVM_CREATE_DEVICE == 0xc00c_aee0);
const _: () = assert!(KVM_ARM_SET_COUNTER_OFFSET == 0x4010_aeb5);
const _: () = assert!(KVM_ARM_GET_REG_WRITABLE_MASKS == 0x8040_aeb6);
const _: () = assert!(KVM_GET_DEVICE_ATTR == 0x4018_aee2);
const _: () = assert!(size_of::<SignalMask>() == 12);
const _: () = assert!(size_of::<kvm_arm_counter_offset>() == 16);
const _: () = assert!(size_of::<reg_mask_range>() == 64);
const _: () = assert!(size_of::<kvm_device_attr>() == 24);
const _: () = assert!(size_of::<kvm_reg_list>() == 8);
const _: () = assert!(size_of::<kvm_create_device>() == 12);

/// Makes `mask` the thread's blocked signals while it is inside `KVM_RUN` of
/// `vcpu`.
pub(crate) fn set_signal_mask(vcpu: &impl AsRawFd, mask: SignalMask) -> Result<(), errno::Error> {
    // SAFETY: the kernel reads 4 bytes and then as many as `len` says, 8: all of `mask`.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_SET_SIGNAL_MASK, &mask) };
    check(result)
}

/// Whether a device of this type could be created.
///
/// kvm-ioctls takes every successful `KVM_CREATE_DEVICE` for the owner of a new
/// file; a test makes none, and standard input would be closed in its place.
pub(crate) fn has_device_type(vm: &impl AsRawFd, type_: u32) -> bool {
    let mut device = kvm_create_device { type_, fd: 0, flags: KVM_CREATE_DEVICE_TEST };
    // SAFETY: the kernel reads and writes a `kvm_create_device`, which `device` is.
    unsafe { ioctl_with_mut_ref(vm, KVM_CREATE_DEVICE, &mut device) == 0 }
}

/// Reads an attribute: a value of 32 bits, and no more, is in the lower half.
pub(crate) fn get_attribute(
    of: &impl AsRawFd,
    (group, attr): (u32, u64),
) -> Result<u64, errno::Error> {
    let mut value = 0_u64;
    let addr = u64_from(ptr::from_mut(&mut value).expose_provenance());
    let attr = kvm_device_attr { flags: 0, group, attr, addr };
    // SAFETY: the kernel reads a `kvm_device_attr`, which `attr` is, and writes its
    // value, 4 or 8 bytes whatever attribute of arm64 it is, to `value`.
    let result = unsafe { ioctl_with_ref(of, KVM_GET_DEVICE_ATTR, &attr) };
    check(result).map(|()| value)
}

/// Sets the distance of a machine's counters from the host's.
pub(crate) fn set_counter_offset(
    vm: &impl AsRawFd,
    counter_offset: u64,
) -> Result<(), errno::Error> {
    let offset = kvm_arm_counter_offset { counter_offset, reserved: 0 };
    // SAFETY: the kernel reads a `kvm_arm_counter_offset`, which `offset` is.
    check(unsafe { ioctl_with_ref(vm, KVM_ARM_SET_COUNTER_OFFSET, &offset) })
}

/// How many masks [`writable_masks`] gives.
pub(crate) const MASKS: usize = 192;
const _: () = assert!(KVM_ARM_FEATURE_ID_RANGE_SIZE == 192);

/// The bits of ID registers that can be changed: by op1 (0, 1, 3), CRm and op2.
pub(crate) fn writable_masks(vm: &impl AsRawFd) -> Result<Box<[u64; MASKS]>, errno::Error> {
    let mut masks = Box::new([0; MASKS]);
    let addr = u64_from(masks.as_mut_ptr().expose_provenance());
    let range = reg_mask_range { addr, ..Default::default() };
    // SAFETY: the kernel reads a `reg_mask_range`, which `range` is: it asks for range
    // 0, of which it writes the 192 masks to `addr`.
    check(unsafe { ioctl_with_ref(vm, KVM_ARM_GET_REG_WRITABLE_MASKS, &range) })?;
    Ok(masks)
}

/// The ids of all registers of `vcpu`, as many as there are.
///
/// kvm-ioctls stops at 500, and Linux is on its way there.
pub(crate) fn reg_list(vcpu: &impl AsRawFd) -> Result<Vec<u64>, errno::Error> {
    let mut room = 500;
    loop {
        // A `struct kvm_reg_list`: the number of ids, then the ids.
        let mut list = vec![0; 1 + room];
        list[0] = u64_from(room);
        // SAFETY: the kernel writes the number and at most `room` ids behind it.
        let result = unsafe { ioctl_with_mut_ptr(vcpu, KVM_GET_REG_LIST, list.as_mut_ptr()) };
        let found = usize_from(list[0]);
        match check(result) {
            Ok(()) => {
                list.truncate(1 + found);
                list.remove(0);
                return Ok(list);
            }
            // The list can grow between two calls: ids come and go with the values
            // of ID registers.
            Err(error) if error.errno() == E2BIG && found > room => room = found,
            Err(error) => return Err(error),
        }
    }
}

fn check(result: i32) -> Result<(), errno::Error> {
    if result < 0 { Err(errno::Error::last()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_signal_mask_holds_the_kernels_eight_bytes() {
        let mask = SignalMask::new(1 << 34);
        assert_eq!((mask.len, mask.sigset), (8, [0, 0, 0, 0, 4, 0, 0, 0]));
    }

    #[test]
    fn what_is_not_a_vcpu_has_no_registers() {
        let file = File::open("/dev/null").unwrap();
        assert!(reg_list(&file).is_err());
    }

    #[test]
    fn what_is_not_a_machine_has_nothing_of_one() {
        let file = File::open("/dev/null").unwrap();
        assert!(get_attribute(&file, (0, 0)).is_err());
        assert!(set_counter_offset(&file, 0).is_err());
        assert!(writable_masks(&file).is_err());
        assert!(!has_device_type(&file, 7));
    }
}
