//! Which device owns an address: a table sorted once, when the machine is
//! built, and never changed while it runs, so that no lookup takes a lock.

use std::fmt;
use std::sync::Arc;

use kedge_diag::Fix;

use crate::MmioDevice;

/// A device and its place.
struct Entry {
    start: u64,
    end: u64,
    device: Arc<dyn MmioDevice>,
}

/// Two devices want the same addresses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("two devices overlap at {at:#x}")]
pub struct Conflict {
    /// The first address both want.
    pub at: u64,
}

impl Fix for Conflict {
    fn fix(&self) -> Option<String> {
        None
    }
}

/// No device owns an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotMapped;

/// A device found, and where in it the access lies.
#[derive(Clone)]
pub struct Lookup<'a> {
    /// The device.
    pub device: &'a Arc<dyn MmioDevice>,
    /// Bytes from the start of the device's range.
    pub offset: u64,
}

/// The table.
#[derive(Default)]
pub struct AddressMap {
    entries: Vec<Entry>,
}

impl AddressMap {
    /// The table of `devices`, each with its first address.
    ///
    /// # Errors
    /// Two of them overlap.
    pub fn new(
        devices: impl IntoIterator<Item = (u64, Arc<dyn MmioDevice>)>,
    ) -> Result<Self, Conflict> {
        let mut entries: Vec<_> = devices
            .into_iter()
            .map(|(start, device)| Entry {
                start,
                end: start.saturating_add(device.size()),
                device,
            })
            .collect();
        entries.sort_by_key(|entry| entry.start);
        match entries.windows(2).find(|pair| pair[0].end > pair[1].start) {
            Some(pair) => Err(Conflict { at: pair[1].start }),
            None => Ok(Self { entries }),
        }
    }

    /// Who owns `length` bytes at `address`.
    ///
    /// # Errors
    /// Nobody owns all of them.
    pub fn find(&self, address: u64, length: u64) -> Result<Lookup<'_>, NotMapped> {
        let behind = self.entries.partition_point(|entry| entry.start <= address);
        let entry = behind.checked_sub(1).and_then(|i| self.entries.get(i)).ok_or(NotMapped)?;
        match address.checked_add(length) {
            Some(end) if end <= entry.end => {
                Ok(Lookup { device: &entry.device, offset: address - entry.start })
            }
            _ => Err(NotMapped),
        }
    }
}

impl fmt::Debug for Lookup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl fmt::Debug for AddressMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|e| e.start..e.end)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Node, Unsuitable};

    struct Sized(u64);

    impl MmioDevice for Sized {
        fn size(&self) -> u64 {
            self.0
        }
        fn read(&self, _: u64, _: &mut [u8]) -> Result<(), Unsuitable> {
            Ok(())
        }
        fn write(&self, _: u64, _: &[u8]) -> Result<(), Unsuitable> {
            Ok(())
        }
        fn node(&self) -> Node {
            Node::new("sized", &["test,sized"])
        }
    }

    fn device(size: u64) -> Arc<dyn MmioDevice> {
        Arc::new(Sized(size))
    }

    #[test]
    fn an_address_belongs_to_the_device_around_it() {
        let map = AddressMap::new([(0x2000, device(0x1000)), (0x1000, device(0x100))]).unwrap();
        assert_eq!(map.find(0x10fc, 4).map(|found| found.offset), Ok(0xfc));
        assert_eq!(map.find(0x2ff8, 8).map(|found| found.offset), Ok(0xff8));
    }

    #[test]
    fn an_access_past_a_device_is_nobodys() {
        let map = AddressMap::new([(0x1000, device(0x100))]).unwrap();
        assert!(map.find(0xfff, 1).is_err());
        assert!(map.find(0x10fd, 4).is_err());
        assert!(map.find(u64::MAX, 8).is_err());
    }

    #[test]
    fn overlapping_devices_are_refused() {
        let map = AddressMap::new([(0x1000, device(0x1000)), (0x1fff, device(1))]);
        assert_eq!(map.unwrap_err(), Conflict { at: 0x1fff });
    }
}
