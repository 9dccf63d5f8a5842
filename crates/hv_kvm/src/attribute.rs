//! Device attributes: numbered settings of machines, interrupt controllers and vCPUs
//! (Linux, Documentation/virt/kvm/devices).

use std::os::fd::AsRawFd;
use std::ptr;

use kedge_hv::HvError;
use kedge_ids::u64_from;
use kvm_bindings::kvm_device_attr;
use kvm_ioctls::{DeviceFd, VcpuFd, VmFd};
use vmm_sys_util::errno;

use crate::ioctl;

/// What has attributes.
pub(crate) trait Attributes: AsRawFd + Sized {
    /// Sets the attribute that `attr` describes.
    fn set(&self, attr: &kvm_device_attr) -> Result<(), errno::Error>;

    /// Sets an attribute without a value: does what it names.
    fn perform(&self, (group, attr): Attribute, call: &'static str) -> Result<(), HvError> {
        let attr = kvm_device_attr { group, attr, ..Default::default() };
        self.set(&attr).map_err(refused(call))
    }

    /// Sets an attribute of 32 bits.
    fn set_u32(&self, attribute: Attribute, value: u32, call: &'static str) -> Result<(), HvError> {
        self.set_to(attribute, &value, call)
    }

    /// Sets an attribute of 64 bits, or one of 32 to the lower half.
    fn set_u64(&self, attribute: Attribute, value: u64, call: &'static str) -> Result<(), HvError> {
        self.set_to(attribute, &value, call)
    }

    /// Sets an attribute to what the kernel reads as `value` is laid out.
    fn set_to<T>(
        &self,
        attribute: Attribute,
        value: &T,
        call: &'static str,
    ) -> Result<(), HvError> {
        self.set(&pointing_at(attribute, value)).map_err(refused(call))
    }

    /// Reads an attribute of up to 64 bits.
    fn get_u64(&self, attribute: Attribute, call: &'static str) -> Result<u64, HvError> {
        ioctl::get_attribute(self, attribute).map_err(refused(call))
    }
}

/// An attribute's group, and its number in the group.
pub(crate) type Attribute = (u32, u64);

/// The attribute with this number in this group.
#[expect(clippy::as_conversions, reason = "u64::from is not const yet; it widens")]
pub(crate) const fn attribute(group: u32, number: u32) -> Attribute {
    (group, number as u64)
}

impl Attributes for VmFd {
    fn set(&self, attr: &kvm_device_attr) -> Result<(), errno::Error> {
        self.set_device_attr(attr)
    }
}

impl Attributes for DeviceFd {
    fn set(&self, attr: &kvm_device_attr) -> Result<(), errno::Error> {
        self.set_device_attr(attr)
    }
}

impl Attributes for VcpuFd {
    fn set(&self, attr: &kvm_device_attr) -> Result<(), errno::Error> {
        self.set_device_attr(attr)
    }
}

/// The refusal of `call`, from the errno of kvm-ioctls.
pub(crate) fn refused(call: &'static str) -> impl Fn(errno::Error) -> HvError {
    move |error| HvError::new(call, error.errno())
}

/// The kernel reads the value where it lies: it must outlive the call.
fn pointing_at<T>((group, attr): Attribute, value: &T) -> kvm_device_attr {
    let addr = u64_from(ptr::from_ref(value).expose_provenance());
    kvm_device_attr { flags: 0, group, attr, addr }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_points_at_its_value() {
        let value = 0x0800_0000_u64;
        let attr = pointing_at((4, 2), &value);
        assert_eq!((attr.flags, attr.group, attr.attr), (0, 4, 2));
        assert_eq!(attr.addr, u64_from(ptr::from_ref(&value).addr()));
    }

    #[test]
    fn a_refusal_keeps_the_kernels_errno() {
        let error = refused("knock")(errno::Error::new(libc::EBUSY));
        assert_eq!((error.call, error.errno()), ("knock", libc::EBUSY));
    }
}
