//! Interrupt numbers of the Generic Interrupt Controller (Arm IHI 0069, 2.2).

use serde::{Deserialize, Serialize};

/// A shared peripheral interrupt: INTID 32 to 1019.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Spi(u32);

/// A number outside the SPI range.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("INTID {0} is not a shared peripheral interrupt (32 to 1019)")]
pub struct NotAnSpi(pub u32);

impl Spi {
    const FIRST: u32 = 32;
    const LAST: u32 = 1019;

    /// What the guest reads from `ICC_IAR1_EL1`, and what `KVM_IRQ_LINE` takes.
    pub const fn intid(self) -> u32 {
        self.0
    }

    /// The second cell of an `interrupts` property, and the GSI of an irqfd.
    pub const fn offset(self) -> u32 {
        self.0 - Self::FIRST
    }

    /// The SPI at `offset` from the first.
    ///
    /// # Errors
    /// `offset` is 988 or more.
    pub fn from_offset(offset: u32) -> Result<Self, NotAnSpi> {
        Self::try_from(offset.saturating_add(Self::FIRST))
    }
}

impl TryFrom<u32> for Spi {
    type Error = NotAnSpi;

    fn try_from(intid: u32) -> Result<Self, NotAnSpi> {
        match intid {
            Self::FIRST..=Self::LAST => Ok(Self(intid)),
            _ => Err(NotAnSpi(intid)),
        }
    }
}

impl From<Spi> for u32 {
    fn from(spi: Spi) -> Self {
        spi.0
    }
}

/// A private peripheral interrupt: INTID 16 to 31, one line per CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Ppi(u32);

/// A number outside the PPI range.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("INTID {0} is not a private peripheral interrupt (16 to 31)")]
pub struct NotAPpi(pub u32);

impl Ppi {
    /// The secure physical timer, by Arm's Base System Architecture (DEN0094, 3.8).
    pub const SECURE_PHYSICAL_TIMER: Self = Self(29);
    /// The non-secure physical timer.
    pub const PHYSICAL_TIMER: Self = Self(30);
    /// The virtual timer.
    pub const VIRTUAL_TIMER: Self = Self(27);
    /// The non-secure EL2 physical timer.
    pub const HYPERVISOR_TIMER: Self = Self(26);
    /// The performance monitors' overflow interrupt.
    pub const PMU: Self = Self(23);

    const FIRST: u32 = 16;
    const LAST: u32 = 31;

    /// What the guest reads from `ICC_IAR1_EL1`, and what KVM's attributes take.
    pub const fn intid(self) -> u32 {
        self.0
    }

    /// The second cell of an `interrupts` property.
    pub const fn offset(self) -> u32 {
        self.0 - Self::FIRST
    }
}

impl TryFrom<u32> for Ppi {
    type Error = NotAPpi;

    fn try_from(intid: u32) -> Result<Self, NotAPpi> {
        match intid {
            Self::FIRST..=Self::LAST => Ok(Self(intid)),
            _ => Err(NotAPpi(intid)),
        }
    }
}

impl From<Ppi> for u32 {
    fn from(ppi: Ppi) -> Self {
        ppi.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_spi_knows_both_of_its_numbers() {
        let spi = Spi::try_from(45).unwrap();
        assert_eq!((spi.intid(), spi.offset()), (45, 13));
        assert_eq!(Spi::from_offset(13), Ok(spi));
    }

    #[test]
    fn numbers_outside_the_spi_range_are_refused() {
        assert_eq!(Spi::try_from(31), Err(NotAnSpi(31)));
        assert_eq!(Spi::try_from(1020), Err(NotAnSpi(1020)));
        assert_eq!(Spi::from_offset(u32::MAX), Err(NotAnSpi(u32::MAX)));
    }

    #[test]
    fn a_ppi_counts_from_sixteen() {
        assert_eq!(Ppi::VIRTUAL_TIMER.offset(), 11);
        assert_eq!(Ppi::try_from(32), Err(NotAPpi(32)));
    }
}
