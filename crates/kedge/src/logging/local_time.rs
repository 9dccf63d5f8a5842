//! The local time of day, as Firecracker's log lines begin with it.
//!
//! UNSAFETY: the time zone is the C library's to know, and no crate in use asks
//! it.
#![expect(unsafe_code)]

use std::fmt;
use std::mem::MaybeUninit;
use std::time::{SystemTime, UNIX_EPOCH};

/// A local time, printed as RFC 3339 without its zone, to the nanosecond.
#[derive(Debug)]
pub(super) struct LocalTime {
    date: libc::tm,
    nanoseconds: u32,
}

impl LocalTime {
    /// `time` in the zone that `TZ` or /etc/localtime names.
    pub(super) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs().try_into().unwrap_or_default();
        let mut date = MaybeUninit::<libc::tm>::zeroed();
        // SAFETY: both pointers are valid for the call, which only reads the one
        // and fills the other. It reads the environment, which kedge never changes.
        unsafe { libc::localtime_r(&raw const seconds, date.as_mut_ptr()) };
        // SAFETY: all zeroes is a valid `tm`, and so is what the call wrote.
        let date = unsafe { date.assume_init() };
        Self { date, nanoseconds: since.subsec_nanos() }
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, nanoseconds } = self;
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{nanoseconds:09}",
            i64::from(date.tm_year) + 1900,
            date.tm_mon + 1,
            date.tm_mday,
            date.tm_hour,
            date.tm_min,
            date.tm_sec,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_has_a_fixed_width() {
        let text = LocalTime::of(UNIX_EPOCH + Duration::new(86_400 * 400, 5)).to_string();
        assert_eq!(text.len(), "1971-02-05T00:00:00.000000005".len());
        assert!(text.starts_with("1971-02-0"), "{text}");
        assert!(text.ends_with(".000000005"), "{text}");
    }
}
