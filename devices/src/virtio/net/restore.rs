//! A network card as a guest was promised it, on whatever tap of the host.

use kedge_diag::{Fix, Trouble};
use kedge_saved_state::{Bytes, StateError};

use super::config::MTUS;
use super::mac::MacAddress;
use super::saved::{NetV1, PairsV1};
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
    check_frame("frame", &saved.frame)?;
    Ok(Identity { mac, mtu: saved.mtu })
}

/// How many pairs of queues the driver of the card `saved` uses, of the `most` that
/// the card has.
///
/// # Errors
/// `saved` is damaged, or of a card with other queues.
pub(super) fn in_use(saved: &NetV1, most: u16) -> Result<u16, Trouble> {
    let Some(pairs) = &saved.pairs else {
        return match most {
            1 => Ok(1),
            _ => Err(Trouble::new(bad("pairs", format!("are not there, and the card has {most}")))),
        };
    };
    check_pairs(pairs, most).map_err(Trouble::new)?;
    Ok(pairs.in_use)
}

fn check_pairs(pairs: &PairsV1, most: u16) -> Result<(), StateError> {
    let PairsV1 { in_use, frames } = pairs;
    let count = frames.len() + 1;
    if most == 1 || count != usize::from(most) {
        return Err(bad("pairs.frames", format!("are of {count} pairs, and the card has {most}")));
    }
    if !(1..=most).contains(in_use) {
        return Err(bad("pairs.in_use", format!("is {in_use}, and not 1 to {most}")));
    }
    frames.iter().try_for_each(|frame| check_frame("pairs.frames", frame))
}

fn check_frame(field: &str, frame: &Bytes) -> Result<(), StateError> {
    let length = frame.0.len();
    if length != 0 && !(HEADER_SIZE..=LARGEST_FRAME).contains(&length) {
        let problem = format!("is {length} bytes long, and not {HEADER_SIZE} to {LARGEST_FRAME}");
        return Err(bad(field, problem));
    }
    Ok(())
}

fn bad(field: &str, problem: impl Into<String>) -> StateError {
    StateError::field::<NetV1>(field, problem)
}
