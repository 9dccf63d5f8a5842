//! A token bucket: the arithmetic, without a clock. The caller passes `now`.
//!
//! A bucket holds `size` tokens when full, and fills from empty in `refill_time`,
//! steadily. What it holds beside them at first, its burst, goes first and never
//! comes back. Something larger than the bucket is let through when it is full, and
//! leaves it in debt: in the long run nothing goes faster than the bucket fills.

use std::time::{Duration, Instant};

use super::config::TokenBucket;
use super::saved::BucketV1;

/// The debt that is taken over from a saved bucket, in tokens: that of the largest
/// operation there is.
const MOST_DEBT: i64 = 1 << 32;

/// A bucket at work.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// Tokens in a full one.
    size: i128,
    /// Nanoseconds in which an empty one fills.
    refill: i128,
    /// The tokens in it times `refill`, so that nothing is lost by rounding; below
    /// 0 where it is in debt.
    level: i128,
    /// Tokens that are spent first and never come back.
    burst: u64,
    /// When `level` was true.
    since: Instant,
}

impl Bucket {
    /// A full one. None where `config` limits nothing.
    pub(super) fn new(config: TokenBucket, now: Instant) -> Option<Self> {
        let TokenBucket { size, refill_time, one_time_burst } = config;
        if size == 0 || refill_time == 0 {
            return None;
        }
        let size = i128::from(size);
        // At most 292 years, so that a full level fits.
        let refill = refill_time.saturating_mul(1_000_000).min(i64::MAX.unsigned_abs());
        let refill = i128::from(refill);
        let level = size.saturating_mul(refill);
        Some(Self { size, refill, level, burst: one_time_burst.unwrap_or(0), since: now })
    }

    /// Fills it with what has come since the last time.
    pub(super) fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_nanos();
        let passed = i128::try_from(passed).unwrap_or(i128::MAX);
        let more = passed.saturating_mul(self.size);
        self.level = self.level.saturating_add(more).min(self.full());
        self.since = self.since.max(now);
    }

    /// How long until `tokens` can be taken; zero where they can be now.
    pub(super) fn wait(&self, tokens: u64) -> Duration {
        let lacking = self.price(self.beyond_burst(tokens)).min(self.full()) - self.level;
        if lacking <= 0 {
            return Duration::ZERO;
        }
        let nanoseconds = (lacking - 1) / self.size + 1;
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Takes `tokens`, which were to be waited for.
    pub(super) fn take(&mut self, tokens: u64) {
        let rest = self.beyond_burst(tokens);
        self.level = self.level.saturating_sub(self.price(rest));
        self.burst = self.burst.saturating_sub(tokens);
    }

    /// What is left, in whole tokens.
    pub(super) fn save(&self) -> BucketV1 {
        let tokens = self.level.div_euclid(self.refill);
        let budget = i64::try_from(tokens).unwrap_or(if tokens < 0 { i64::MIN } else { i64::MAX });
        BucketV1 { budget, burst: self.burst }
    }

    /// Takes up what was left of one like it, as far as it can have that.
    pub(super) fn restore(&mut self, saved: &BucketV1) {
        let &BucketV1 { budget, burst } = saved;
        let tokens = i128::from(budget.max(-MOST_DEBT)).min(self.size);
        self.level = tokens.saturating_mul(self.refill);
        self.burst = self.burst.min(burst);
    }

    fn full(&self) -> i128 {
        self.size.saturating_mul(self.refill)
    }

    fn price(&self, tokens: u64) -> i128 {
        i128::from(tokens).saturating_mul(self.refill)
    }

    fn beyond_burst(&self, tokens: u64) -> u64 {
        tokens.saturating_sub(self.burst)
    }
}
