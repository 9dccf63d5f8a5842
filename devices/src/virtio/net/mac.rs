//! The Ethernet address of a card.

use std::fmt;
use std::str::FromStr;

/// The Ethernet address of one card: neither a group's nor nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddress([u8; 6]);

/// Something that is not the Ethernet address of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not the Ethernet address of a card")]
pub struct NotAMacAddress;

impl MacAddress {
    /// The bytes as they are sent.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = NotAMacAddress;

    fn from_str(text: &str) -> Result<Self, NotAMacAddress> {
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or(NotAMacAddress)?;
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(NotAMacAddress);
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_| NotAMacAddress)?;
        }
        if pairs.next().is_some() {
            return Err(NotAMacAddress);
        }
        octets.try_into()
    }
}

impl TryFrom<[u8; 6]> for MacAddress {
    type Error = NotAMacAddress;

    fn try_from(octets: [u8; 6]) -> Result<Self, NotAMacAddress> {
        const GROUP: u8 = 1;
        if octets[0] & GROUP != 0 || octets == [0; 6] {
            return Err(NotAMacAddress);
        }
        Ok(Self(octets))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
