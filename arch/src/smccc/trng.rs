//! Entropy for the guest (Arm DEN0098 1.0, True Random Number Generator firmware
//! interface), for guests whose profile takes KVM's own away: KVM's came with
//! Linux 5.12, ours is the same on every host.

use std::io;

use super::{Call, Functions, NOT_SUPPORTED, Results, Service, only};

#[rustfmt::skip]
mod function {
    pub(super) const VERSION:  u32 = 0x8400_0050;
    pub(super) const FEATURES: u32 = 0x8400_0051;
    pub(super) const GET_UUID: u32 = 0x8400_0052;
    pub(super) const RND32:    u32 = 0x8400_0053;
    pub(super) const RND64:    u32 = 0xc400_0053;
}

const FUNCTIONS: &[Functions] =
    &[function::VERSION..=function::RND32, function::RND64..=function::RND64];

/// Version 1.0: the major number in bits 30:16.
const VERSION: u32 = 0x1_0000;

/// Which generator this is (DEN0098, 2.4.3: it names the back end). Ours goes by a name
/// of its own, since it is not KVM's (0d21e000-4384-11eb-8070-5244554e5a4c), and by the
/// same in every release, so that a guest that moves sees no other.
const UUID: u128 = 0x054d_d25c_49a1_4320_8f4e_de31_9fea_e740;

const SUCCESS: i64 = 0;
const INVALID_PARAMETERS: i64 = -2;
const NO_ENTROPY: i64 = -3;

/// Fills a buffer with random bytes, or says that there are none now.
type Entropy = Box<dyn Fn(&mut [u8]) -> io::Result<()> + Send + Sync>;

/// The TRNG firmware interface. It has no state.
pub struct Trng {
    entropy: Entropy,
}

impl Trng {
    /// A generator of what `entropy` gives. Where that fails the guest is told
    /// NO_ENTROPY, and may ask again.
    pub fn new(entropy: impl Fn(&mut [u8]) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { entropy: Box::new(entropy) }
    }

    /// `bits` random bits in the low bits of three words of `width` bits, the highest
    /// word first.
    fn random(&self, bits: u64, width: u32) -> Results {
        let most = 3 * width;
        let Ok(bits @ 1..) = u32::try_from(bits) else { return only(INVALID_PARAMETERS) };
        if bits > most {
            return only(INVALID_PARAMETERS);
        }
        let mut random = [0; 24];
        if (self.entropy)(&mut random).is_err() {
            return only(NO_ENTROPY);
        }
        let mut words = [0; 3];
        for (n, (word, bytes)) in (0..).zip(words.iter_mut().zip(random.as_chunks::<8>().0)) {
            let wanted = bits.saturating_sub(n * width).min(width);
            *word = u64::from_le_bytes(*bytes) & u64::MAX.checked_shr(64 - wanted).unwrap_or(0);
        }
        let [low, middle, high] = words;
        [SUCCESS.cast_unsigned(), high, middle, low]
    }
}

impl std::fmt::Debug for Trng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trng")
    }
}

impl Service for Trng {
    fn name(&self) -> &str {
        "TRNG"
    }

    fn functions(&self) -> &[Functions] {
        FUNCTIONS
    }

    fn call(&self, call: &Call) -> Results {
        match call.function() {
            function::VERSION => only(VERSION.into()),
            function::FEATURES => {
                let known = FUNCTIONS.iter().any(|ids| {
                    u32::try_from(call.argument(1)).is_ok_and(|function| ids.contains(&function))
                });
                only(if known { SUCCESS } else { NOT_SUPPORTED })
            }
            function::GET_UUID => uuid(),
            function::RND32 => self.random(call.argument(1), 32),
            function::RND64 => self.random(call.argument(1), 64),
            _ => only(NOT_SUPPORTED),
        }
    }
}

/// The UUID's bytes, four to a word, the first in its low bits (DEN0028, 5.3).
fn uuid() -> Results {
    let bytes = UUID.to_be_bytes();
    let mut results = [0; 4];
    for (word, bytes) in results.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes).into();
    }
    results
}

#[cfg(test)]
mod tests {
    use kedge_hv::Conduit;
    use kedge_ids::VcpuId;
    use proptest::prelude::*;

    use super::*;

    /// All ones, as far as they go.
    fn ones() -> Trng {
        Trng::new(|buffer| {
            buffer.fill(0xff);
            Ok(())
        })
    }

    fn ask(trng: &Trng, function: u32, argument: u64) -> Results {
        trng.call(&Call::new(function, Conduit::Hvc, VcpuId(0), &[argument]))
    }

    #[test]
    fn it_is_version_1_0_with_these_functions() {
        assert_eq!(ask(&ones(), function::VERSION, 0), [0x1_0000, 0, 0, 0]);
        let known = [0x8400_0050, 0x8400_0051, 0x8400_0052, 0x8400_0053, 0xc400_0053];
        assert_eq!(known.map(|id| ask(&ones(), function::FEATURES, id)), [only(0); 5]);
        let unknown = [0x8400_0054, 0xc400_0050, 0, 0x8000_0000];
        assert_eq!(unknown.map(|id| ask(&ones(), function::FEATURES, id)), [only(-1); 4]);
    }

    #[test]
    fn it_has_a_name_of_its_own() {
        let words = ask(&ones(), function::GET_UUID, 0);
        assert_eq!(words, [0x5cd2_4d05, 0x2043_a149, 0x31de_4e8f, 0x40e7_ea9f]);
    }

    #[test]
    fn random_bits_fill_the_last_word_first() {
        assert_eq!(ask(&ones(), function::RND32, 1), [0, 0, 0, 1]);
        assert_eq!(ask(&ones(), function::RND32, 40), [0, 0, 0xff, 0xffff_ffff]);
        assert_eq!(ask(&ones(), function::RND64, 64), [0, 0, 0, u64::MAX]);
        assert_eq!(ask(&ones(), function::RND64, 192), [0, u64::MAX, u64::MAX, u64::MAX]);
    }

    #[test]
    fn no_bits_and_too_many_are_invalid() {
        assert_eq!(ask(&ones(), function::RND32, 96)[0], 0);
        assert_eq!(ask(&ones(), function::RND32, 97), only(-2));
        assert_eq!(ask(&ones(), function::RND64, 193), only(-2));
        assert_eq!(ask(&ones(), function::RND64, 1 << 32 | 1), only(-2));
        assert_eq!([function::RND32, function::RND64].map(|id| ask(&ones(), id, 0)), [only(-2); 2]);
    }

    #[test]
    fn a_32_bit_caller_is_not_held_to_what_is_above_its_argument() {
        assert_eq!(ask(&ones(), function::RND32, 0xffff_ffff_0000_0001), [0, 0, 0, 1]);
    }

    #[test]
    fn a_host_without_entropy_is_no_entropy() {
        let dry = Trng::new(|_| Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!(ask(&dry, function::RND64, 64), only(-3));
        assert_eq!(ask(&dry, function::VERSION, 0), [0x1_0000, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn a_guest_gets_as_many_bits_as_it_asked_for(bits in 1_u32..=192) {
            let [status, words @ ..] = ask(&ones(), function::RND64, bits.into());
            prop_assert_eq!(status, 0);
            prop_assert_eq!(words.iter().map(|word| word.count_ones()).sum::<u32>(), bits);
        }

        #[test]
        fn nothing_that_a_guest_says_goes_unanswered(function: u32, argument: u64) {
            ask(&ones(), function, argument);
        }
    }
}
