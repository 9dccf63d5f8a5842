//! A guest may cause the same line of the log as often as it likes: each place
//! in the code gets so many lines in so much time (FIRECRACKER_API.md, 12).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;

/// Lines of one place in one period.
const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(5);

/// What places in the code have logged.
#[derive(Debug, Default)]
pub(super) struct Limiter(HashMap<Identifier, Period>);

#[derive(Debug)]
struct Period {
    began: Instant,
    lines: u32,
}

impl Limiter {
    /// Whether `place` may log a line at `now`; then, how many lines of its last
    /// period were left out.
    pub(super) fn allow(&mut self, place: Identifier, now: Instant) -> Option<u32> {
        let period = self.0.entry(place).or_insert(Period { began: now, lines: 0 });
        let mut left_out = 0;
        if now.duration_since(period.began) >= PERIOD {
            left_out = period.lines.saturating_sub(LINES);
            *period = Period { began: now, lines: 0 };
        }
        period.lines = period.lines.saturating_add(1);
        (period.lines <= LINES).then_some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use tracing::callsite::Callsite;
    use tracing::{Metadata, subscriber::Interest};

    use super::*;

    struct Place;

    impl Callsite for Place {
        fn set_interest(&self, _interest: Interest) {}

        fn metadata(&self) -> &Metadata<'_> {
            unreachable!("only the place counts")
        }
    }

    #[test]
    fn a_place_gets_ten_lines_in_five_seconds() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let place = Identifier(&Place);
        let mut log = |at| limiter.allow(place.clone(), at);
        let allowed: Vec<_> = (0..12).map(|_| log(start)).collect();
        assert_eq!(allowed, [[Some(0); 10].as_slice(), &[None; 2]].concat());
        assert_eq!(log(start + PERIOD), Some(2));
    }
}
