//! A network card as a guest was promised it, on whatever tap of the host.

use kedge_diag::{Fix, Trouble};
use kedge_saved_state::StateError;

use super::config::{MTUS, MacAddress};
use super::saved::NetV1;
use super::{Identity, LARGEST_FRAME};
use crate::tap::HEADER_SIZE;

/// The card has an address, and the guest was promised none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest was given a card without a MAC address, and this one has {mac}")]
pub struct UnpromisedMac {
    /// The address.
    pub mac: MacAddress,
}

impl Fix for UnpromisedMac {
    fn fix(&self) -> Option<String> {
        Some("give no MAC address: the guest chose one by itself".to_owned())
    }
}

/// Who the card `own` is to a guest that knows the card `saved`: it may be given
/// another address, and nothing else.
///
/// # Errors
/// `saved` is damaged, or the guest cannot be given the address.
pub(super) fn identity(own: &Identity, saved: &NetV1) -> Result<Identity, Trouble> {
    let known = check(saved).map_err(Trouble::new)?;
    match (own.mac, known.mac) {
        (Some(mac), None) => Err(Trouble::new(UnpromisedMac { mac })),
        (mac, promised) => Ok(Identity { mac: mac.or(promised), mtu: known.mtu }),
    }
}

fn check(saved: &NetV1) -> Result<Identity, StateError> {
    let mac = saved.mac.map(MacAddress::try_from).transpose();
    let mac = mac.map_err(|_| bad("mac", "is not the Ethernet address of a card"))?;
    if let Some(mtu) = saved.mtu.filter(|mtu| !MTUS.contains(mtu)) {
        return Err(bad("mtu", format!("is {mtu}, less than {}", MTUS.start())));
    }
    let length = saved.frame.0.len();
    if length != 0 && !(HEADER_SIZE..=LARGEST_FRAME).contains(&length) {
        let problem = format!("is {length} bytes long, and not {HEADER_SIZE} to {LARGEST_FRAME}");
        return Err(bad("frame", problem));
    }
    Ok(Identity { mac, mtu: saved.mtu })
}

fn bad(field: &str, problem: impl Into<String>) -> StateError {
    StateError::field::<NetV1>(field, problem)
}
