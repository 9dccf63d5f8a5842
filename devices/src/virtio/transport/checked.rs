//! What a saved transport must be before it is taken up: nothing that no driver
//! and no device could have brought about. Saved state is input.

use kedge_guest_memory::{GuestAddress, GuestMemory, GuestMemoryAccess};
use kedge_ids::usize_from;
use kedge_saved_state::StateError;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_F_VERSION_1,
};
use virtio_queue::QueueState;
use vm_memory::Permissions;

use super::saved::{QueueV1, TransportV1};

/// The bits of the status that the driver sets.
const STATUS: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE
    | VIRTIO_CONFIG_S_DRIVER
    | VIRTIO_CONFIG_S_FEATURES_OK
    | VIRTIO_CONFIG_S_DRIVER_OK
    | VIRTIO_CONFIG_S_FAILED;

/// The bits of `InterruptStatus` (4.2.2).
const INTERRUPTS: u32 = 0b11;

fn bad(field: impl Into<String>, problem: impl Into<String>) -> StateError {
    StateError::field::<TransportV1>(field, problem)
}

/// Checks what a saved transport says of the negotiation, as far as it can be
/// without the device.
pub(super) fn negotiation(saved: &TransportV1) -> Result<(), StateError> {
    let TransportV1 { status, offered, accepted, .. } = *saved;
    let has = |bit| status & bit != 0;
    if status & !STATUS != 0 {
        return Err(bad("status", format!("is {status:#x}, with bits that no driver sets")));
    }
    if has(VIRTIO_CONFIG_S_DRIVER_OK) && !has(VIRTIO_CONFIG_S_FEATURES_OK) {
        return Err(bad("status", format!("is {status:#x}: DRIVER_OK without FEATURES_OK")));
    }
    if offered & 1 << VIRTIO_F_VERSION_1 == 0 {
        return Err(bad("offered", format!("is {offered:#x}, without VIRTIO_F_VERSION_1")));
    }
    if has(VIRTIO_CONFIG_S_FEATURES_OK) && saved.strange_features {
        return Err(bad("strange_features", "is true, and the features are agreed on"));
    }
    if has(VIRTIO_CONFIG_S_FEATURES_OK) && accepted & !offered != 0 {
        let problem = format!("is {accepted:#x}, more than was offered: {offered:#x}");
        return Err(bad("accepted", problem));
    }
    if has(VIRTIO_CONFIG_S_FEATURES_OK) && accepted & 1 << VIRTIO_F_VERSION_1 == 0 {
        return Err(bad("accepted", format!("is {accepted:#x}, without VIRTIO_F_VERSION_1")));
    }
    if saved.interrupt_status & !INTERRUPTS != 0 {
        let problem = format!("is {:#x}, of which 0x3 can be set", saved.interrupt_status);
        return Err(bad("interrupt_status", problem));
    }
    Ok(())
}

/// Checks that what the guest was offered is `available` of the device still.
pub(super) fn offer(saved: &TransportV1, available: u64) -> Result<(), StateError> {
    match saved.offered & !available {
        0 => Ok(()),
        missing => {
            let problem = format!(
                "is {:#x}, of which this device has not {missing:#x}: perhaps a later release's",
                saved.offered
            );
            Err(bad("offered", problem))
        }
    }
}

/// The queues of a device that has queues of `sizes` at most.
pub(super) fn queues(
    saved: &TransportV1,
    sizes: &[u16],
    memory: &GuestMemory,
) -> Result<Vec<QueueState>, StateError> {
    if saved.queues.len() != sizes.len() {
        let problem = format!("has {} queues, the device {}", saved.queues.len(), sizes.len());
        return Err(bad("queues", problem));
    }
    let queues = (0..).zip(saved.queues.iter().zip(sizes));
    queues
        .map(|(index, (queue, &most))| {
            SavedQueue { index, queue, broken: saved.needs_reset }.check(most, memory)
        })
        .collect()
}

/// A saved queue and what errors need to know of it.
struct SavedQueue<'a> {
    index: usize,
    queue: &'a QueueV1,
    /// Whether the device needs a reset: a ring that broke may have lost chains.
    broken: bool,
}

impl SavedQueue<'_> {
    fn bad(&self, field: &str, problem: impl Into<String>) -> StateError {
        bad(format!("queues[{}].{field}", self.index), problem)
    }

    /// The state, for a device that has a queue of size `most`.
    fn check(&self, most: u16, memory: &GuestMemory) -> Result<QueueState, StateError> {
        let &QueueV1 {
            max_size,
            size,
            ready,
            descriptor_table,
            available_ring,
            used_ring,
            next_available,
            next_used,
        } = self.queue;
        if !max_size.is_power_of_two() || max_size > most {
            let problem = format!("is {max_size}, and not a power of two up to {most}");
            return Err(self.bad("max_size", problem));
        }
        if ready {
            self.check_ready(memory)?;
        } else if next_available != 0 || next_used != 0 {
            // Only a queue that was set up goes on.
            let field = if next_used == 0 { "next_available" } else { "next_used" };
            return Err(self.bad(field, "is not 0, and the queue is not set up"));
        }
        Ok(QueueState {
            max_size,
            next_avail: next_available,
            next_used,
            event_idx_enabled: false,
            size,
            ready,
            desc_table: descriptor_table,
            avail_ring: available_ring,
            used_ring,
        })
    }

    /// Sizes of a split virtqueue's parts are those of 2.7.
    fn check_ready(&self, memory: &GuestMemory) -> Result<(), StateError> {
        let queue = self.queue;
        if !queue.size.is_power_of_two() || queue.size > queue.max_size {
            let problem =
                format!("is {}, and not a power of two up to {}", queue.size, queue.max_size);
            return Err(self.bad("size", problem));
        }
        let size = u64::from(queue.size);
        let check = |field, address, alignment, length, access| {
            self.check_area(memory, field, (address, alignment, length, access))
        };
        check("descriptor_table", queue.descriptor_table, 16, 16 * size, Permissions::Read)?;
        check("available_ring", queue.available_ring, 2, 6 + 2 * size, Permissions::Read)?;
        check("used_ring", queue.used_ring, 4, 6 + 8 * size, Permissions::Write)?;
        let in_flight = queue.next_available.wrapping_sub(queue.next_used);
        let most = if self.broken { queue.size } else { 0 };
        if in_flight > most {
            let problem = format!(
                "is {}, with {in_flight} chains in flight: a device at rest has none",
                queue.next_available
            );
            return Err(self.bad("next_available", problem));
        }
        Ok(())
    }

    fn check_area(
        &self,
        memory: &GuestMemory,
        field: &str,
        (address, alignment, length, access): (u64, u64, u64, Permissions),
    ) -> Result<(), StateError> {
        if !address.is_multiple_of(alignment) {
            return Err(
                self.bad(field, format!("is {address:#x}, and not a multiple of {alignment}"))
            );
        }
        if !memory.check_range(GuestAddress(address), usize_from(length), access) {
            return Err(self.bad(field, format!("is {address:#x}, and not all of it in RAM")));
        }
        Ok(())
    }
}
