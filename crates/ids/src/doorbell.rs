//! The store that rings a doorbell.

/// What a guest stores to a register to ring a doorbell: the width counts as much as the
/// value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ring {
    /// 16 bits.
    Half(u16),
    /// 32 bits.
    Word(u32),
}

impl Ring {
    /// The value stored.
    pub fn value(self) -> u64 {
        match self {
            Self::Half(value) => value.into(),
            Self::Word(value) => value.into(),
        }
    }

    /// Bytes stored.
    pub const fn length(self) -> usize {
        match self {
            Self::Half(_) => 2,
            Self::Word(_) => 4,
        }
    }
}
