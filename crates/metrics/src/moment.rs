//! A clock for what takes a few hundred instructions: looking at it must not take as long.
//! On arm64 that is the counter which the architecture gives to every program (Arm ARM,
//! D13.11.1): the C library's clock is a system call where its vDSO is not found.

use std::time::Duration;
#[cfg(not(target_arch = "aarch64"))]
use std::time::Instant;

/// A moment, to be told how long ago it was.
#[derive(Clone, Copy, Debug)]
pub struct Moment(
    #[cfg(target_arch = "aarch64")] u64,
    #[cfg(not(target_arch = "aarch64"))] Instant,
);

impl Moment {
    /// How long ago it was. Nothing, where the counter went backwards.
    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(self.nanoseconds())
    }
}

#[cfg(not(target_arch = "aarch64"))]
impl Moment {
    /// This one.
    #[must_use]
    pub fn now() -> Self {
        Self(Instant::now())
    }

    fn nanoseconds(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(target_arch = "aarch64")]
mod counter {
    // UNSAFETY: a system register has no other way to be read.
    #![expect(unsafe_code)]

    use std::arch::asm;

    use super::Moment;

    impl Moment {
        /// This one.
        #[must_use]
        pub fn now() -> Self {
            let count: u64;
            // SAFETY: Linux lets every program read CNTVCT_EL0, by itself or in its place, and
            // that changes nothing.
            unsafe { asm!("mrs {}, cntvct_el0", out(reg) count, options(nomem, nostack)) };
            Self(count)
        }

        pub(super) fn nanoseconds(self) -> u64 {
            let ticks = Self::now().0.saturating_sub(self.0);
            let hz: u64;
            // SAFETY: as for the counter; this is its frequency.
            unsafe { asm!("mrs {}, cntfrq_el0", out(reg) hz, options(nomem, nostack, pure)) };
            let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(hz.max(1));
            u64::try_from(nanoseconds).unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn time_passes_as_it_does_elsewhere() {
        let (moment, instant) = (Moment::now(), Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        let (shorter, longer) = (moment.elapsed(), instant.elapsed());
        assert!(shorter >= Duration::from_millis(20), "{shorter:?}");
        assert!(shorter < longer + Duration::from_millis(50), "{shorter:?} of {longer:?}");
    }
}
