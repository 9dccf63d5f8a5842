//! The metadata service on the machine's network cards, each of which has a stack of it.

use std::sync::Arc;
use std::time::Instant;

use kedge_devices::virtio::detour::Detour;
use kedge_devices::virtio::device::{DeviceId, VirtioDevice};
use kedge_metadata::{Service, Stack};

use super::BuildError;
use crate::spec::MachineSpec;
use crate::surroundings::Surroundings;

/// Bytes of metadata where the machine's own service has them, which is empty: nobody else
/// knows it.
const NONE: usize = 0;

/// Puts the service beside the networks of those cards that the specification names;
/// `opened` are its devices.
///
/// # Errors
/// The machine has no such cards, somebody else carries the frames of one of them, or the host
/// has no entropy.
pub(super) fn attach(
    spec: &MachineSpec,
    surroundings: &Surroundings,
    opened: &mut [Box<dyn VirtioDevice>],
) -> Result<(), BuildError> {
    let Some(config) = &spec.metadata else { return Ok(()) };
    let devices = spec.devices.iter().map(|device| device.id()).zip(opened);
    let mut cards: Vec<_> =
        devices.filter(|(_, device)| device.device_id() == DeviceId::Net).collect();
    let ids: Vec<&str> = cards.iter().map(|(id, _)| *id).collect();
    config.check(&ids)?;
    let own = || Arc::new(Service::new("", NONE, surroundings.entropy));
    let service = surroundings.metadata.as_ref().map_or_else(own, |service| service());
    for (id, card) in &mut cards {
        if config.network_interfaces.iter().any(|named| named == id) {
            let mut seed = [0; 8];
            (surroundings.entropy)(&mut seed)
                .map_err(BuildError::host("give a metadata service random numbers"))?;
            let stack = Stack::new(Arc::clone(&service), config, u64::from_le_bytes(seed));
            card.set_detour(Box::new(OnCard(stack)))?;
        }
    }
    Ok(())
}

/// The service on a card.
struct OnCard(Stack);

impl Detour for OnCard {
    fn claims(&self, head: &[u8]) -> bool {
        self.0.claims(head)
    }

    fn take(&mut self, frame: &[u8], now: Instant) {
        self.0.take(frame, now);
    }

    fn give(&mut self, to: &mut [u8], now: Instant) -> Option<usize> {
        self.0.give(to, now)
    }

    fn due(&mut self, _now: Instant) -> Option<Instant> {
        self.0.due()
    }
}
