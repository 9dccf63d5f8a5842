//! Limits in a time that the tests make, and a worker that they wake up.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use kedge_diag::report;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::saved::{BucketV1, LimitsV1};
use super::*;
use crate::virtio::options::{OptionError, Options};

/// A time that passes when told to.
#[derive(Clone)]
struct FakeTime(Arc<Mutex<Instant>>);

impl FakeTime {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }

    fn limits(&self, config: RateLimiter) -> Limits {
        let now = Arc::clone(&self.0);
        Limits::with_clock(config, move || *now.lock().unwrap())
    }
}

fn bucket(size: u64, refill_time: u64, burst: u64) -> TokenBucket {
    TokenBucket { size, refill_time, one_time_burst: Some(burst) }
}

fn bandwidth(size: u64, refill_time: u64, burst: u64) -> RateLimiter {
    RateLimiter { bandwidth: Some(bucket(size, refill_time, burst)), ops: None }
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn a_full_bucket_lets_its_size_through_and_then_as_much_as_comes_in() {
    let time = FakeTime::new();
    let limits = time.limits(bandwidth(1000, 100, 0));
    assert_eq!(limits.take(1000), Ok(()));
    assert_eq!(limits.take(10), Err(ms(1)));
    time.pass(ms(1));
    assert_eq!(limits.take(10), Ok(()));
    assert_eq!(limits.take(1), Err(Duration::from_micros(100)));
}

#[test]
fn a_bucket_never_holds_more_than_its_size() {
    let time = FakeTime::new();
    let limits = time.limits(bandwidth(1000, 100, 0));
    time.pass(Duration::from_secs(3600));
    assert_eq!(limits.take(1000), Ok(()));
    assert_eq!(limits.take(1), Err(Duration::from_micros(100)));
}

#[test]
fn a_burst_is_spent_first_and_does_not_come_back() {
    let time = FakeTime::new();
    let limits = time.limits(bandwidth(1000, 100, 500));
    assert_eq!(limits.take(1500), Ok(()));
    time.pass(Duration::from_secs(1));
    assert_eq!(limits.take(1000), Ok(()));
    assert!(limits.take(1).is_err());
}

#[test]
fn what_is_larger_than_the_bucket_waits_for_a_full_one_and_is_paid_afterwards() {
    let time = FakeTime::new();
    let limits = time.limits(bandwidth(1000, 100, 0));
    assert_eq!(limits.take(1), Ok(()));
    assert_eq!(limits.take(3000), Err(Duration::from_micros(100)));
    time.pass(ms(1));
    assert_eq!(limits.take(3000), Ok(()));
    assert_eq!(limits.take(0), Err(ms(200)));
    time.pass(ms(201));
    assert_eq!(limits.take(10), Ok(()));
}

#[test]
fn nothing_is_taken_of_either_bucket_where_one_is_empty() {
    let time = FakeTime::new();
    let limits = time
        .limits(RateLimiter { bandwidth: Some(bucket(1000, 100, 0)), ops: Some(bucket(1, 10, 0)) });
    assert_eq!(limits.take(100), Ok(()));
    assert_eq!(limits.take(100), Err(ms(10)));
    let left = limits.save().unwrap();
    assert_eq!(left.bandwidth.unwrap().budget, 900);
    assert_eq!(left.ops.unwrap().budget, 0);
}

#[test]
fn a_change_fills_the_buckets_it_has_and_leaves_others() {
    let time = FakeTime::new();
    let limits = time.limits(RateLimiter {
        bandwidth: Some(bucket(1000, 100, 0)),
        ops: Some(bucket(5, 100, 0)),
    });
    limits.take(1000).unwrap();
    limits.change(RateLimiter { bandwidth: Some(bucket(2000, 100, 7)), ops: None });
    let left = limits.save().unwrap();
    assert_eq!(left.bandwidth, Some(BucketV1 { budget: 2000, burst: 7 }));
    assert_eq!(left.ops, Some(BucketV1 { budget: 4, burst: 0 }));
    limits.change(RateLimiter { bandwidth: Some(bucket(0, 100, 0)), ops: None });
    assert_eq!(limits.save().unwrap().bandwidth, None);
}

#[test]
fn a_bucket_of_nothing_limits_nothing() {
    for nothing in [bucket(0, 100, 9), bucket(100, 0, 9)] {
        let config = RateLimiter { bandwidth: Some(nothing), ops: Some(nothing) };
        let limits = Limits::new(config);
        assert!(!limits.is_limiting());
        assert_eq!(limits.take(u64::MAX), Ok(()));
        assert_eq!(limits.save(), None);
    }
}

#[test]
fn what_is_left_goes_over_to_another_machine() {
    let time = FakeTime::new();
    let here = time.limits(bandwidth(1000, 100, 500));
    here.take(800).unwrap();
    let saved = here.save();
    assert_eq!(saved.unwrap().bandwidth, Some(BucketV1 { budget: 700, burst: 0 }));
    let there = time.limits(bandwidth(1000, 100, 500));
    there.restore(saved.as_ref());
    assert_eq!(there.save(), saved);
}

#[test]
fn a_saved_budget_fits_the_bucket_there_is() {
    let limits = FakeTime::new().limits(bandwidth(1000, 100, 5));
    let odd = |budget, burst| LimitsV1 {
        bandwidth: Some(BucketV1 { budget, burst }),
        ops: Some(BucketV1 { budget, burst }),
    };
    limits.restore(Some(&odd(i64::MAX, u64::MAX)));
    assert_eq!(limits.save().unwrap().bandwidth, Some(BucketV1 { budget: 1000, burst: 5 }));
    limits.restore(Some(&odd(i64::MIN, 0)));
    let indebted = BucketV1 { budget: -(1 << 32), burst: 0 };
    assert_eq!(limits.save().unwrap().bandwidth, Some(indebted));
    assert_eq!(limits.save().unwrap().ops, None);
}

#[test]
fn the_saved_form_is_frozen() {
    let saved = LimitsV1 { bandwidth: Some(BucketV1 { budget: -7, burst: 9 }), ops: None };
    let text = serde_json::to_string(&saved).unwrap();
    expect![[r#"{"bandwidth":{"budget":-7,"burst":9}}"#]].assert_eq(&text);
    assert_eq!(serde_json::from_str::<LimitsV1>(&text).unwrap(), saved);
}

fn parse(text: &str) -> Result<RateLimiter, OptionError> {
    let options = Options::parse("disk", "", &["bandwidth", "ops"], text).unwrap();
    RateLimiter::from_options(&options, "bandwidth", "ops")
}

fn is(text: &str, expected: &Expect) {
    expected.assert_eq(&parse(text).unwrap().to_json().to_string());
}

fn refused(text: &str, expected: &Expect) {
    expected.assert_eq(&report(&parse(text).unwrap_err()));
}

#[test]
fn options_say_how_much_in_which_time_and_how_much_at_first() {
    is("", &expect!["null"]);
    is(
        "bandwidth=64M",
        &expect![[
            r#"{"bandwidth":{"one_time_burst":null,"refill_time":1000,"size":67108864},"ops":null}"#
        ]],
    );
    is(
        "ops=500/100ms+7,bandwidth=2K/2s+1G",
        &expect![[
            r#"{"bandwidth":{"one_time_burst":1073741824,"refill_time":2000,"size":2048},"ops":{"one_time_burst":7,"refill_time":100,"size":500}}"#
        ]],
    );
}

#[test]
fn an_option_that_is_no_limit_is_refused_by_name() {
    refused(
        "bandwidth=fast",
        &expect![[r#"
            error: --disk cannot have `bandwidth=fast`
              fix: give bytes in a second, as in `64M`; in another time, as in `64M/100ms`; and what may go at once at first, as in `64M+1G`"#]],
    );
    refused(
        "ops=5k",
        &expect![[r#"
            error: --disk cannot have `ops=5k`
              fix: give operations in a second, as in `5000`; in another time, as in `500/100ms`; and what may go at once at first, as in `5000+100000`"#]],
    );
    let odd = ["", "0", "1/0s", "1/5", "1/+5s", "+1", "1+", "-1", "1++2", "1é", "99999999T"];
    for value in odd {
        assert!(parse(&format!("bandwidth={value}")).is_err(), "{value}");
    }
}

fn from_json(value: Value) -> Result<RateLimiter, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[test]
fn json_is_firecrackers() {
    let text = json!({
        "bandwidth": {"size": 1, "refill_time": 2, "one_time_burst": 3},
        "ops": {"size": 4, "refill_time": 5, "one_time_burst": null},
    });
    assert_eq!(from_json(text.clone()).unwrap().to_json(), text);
    let nothing = json!({"bandwidth": {"size": 0, "refill_time": 5}, "ops": null});
    assert_eq!(from_json(nothing).unwrap().to_json(), Value::Null);
    assert_eq!(from_json(json!({})).unwrap(), RateLimiter::default());
}

#[test]
fn json_with_unknown_or_missing_fields_is_refused() {
    let error = from_json(json!({"bytes": null})).unwrap_err();
    expect!["unknown field `bytes`, expected `bandwidth` or `ops`"].assert_eq(&error);
    let error = from_json(json!({"ops": {"size": 4}})).unwrap_err();
    expect!["missing field `refill_time`"].assert_eq(&error);
    let odd = json!({"ops": {"size": 4, "refill_time": 1, "burst": 1}});
    expect!["unknown field `burst`, expected one of `size`, `refill_time`, `one_time_burst`"]
        .assert_eq(&from_json(odd).unwrap_err());
}

#[test]
fn an_array_is_no_bucket() {
    let error = from_json(json!({"ops": [1, 2, 3]})).unwrap_err();
    expect!["invalid type: sequence, expected an object"].assert_eq(&error);
}

#[test]
fn a_change_keeps_the_buckets_it_does_not_have() {
    let ops = RateLimiter { bandwidth: None, ops: Some(bucket(5, 100, 0)) };
    let both = bandwidth(1, 2, 3).changed(ops);
    assert_eq!(both, RateLimiter { ops: ops.ops, ..bandwidth(1, 2, 3) });
    let lifted = both.changed(RateLimiter { bandwidth: None, ops: Some(bucket(0, 0, 0)) });
    assert_eq!(lifted.to_json(), bandwidth(1, 2, 3).to_json());
}

fn any_bucket() -> impl Strategy<Value = TokenBucket> {
    let size = prop_oneof![1..100_u64, any::<u64>()];
    let refill_time = prop_oneof![1..100_u64, any::<u64>()];
    let burst = prop_oneof![Just(0), 0..100_u64, any::<u64>()];
    (size, refill_time, burst).prop_map(|(size, time, burst)| bucket(size, time, burst))
}

proptest! {
    /// Whatever is asked for and whenever: no more goes through than the bucket held
    /// and what has come in since, but for the last operation, which may be larger
    /// than the bucket.
    #[test]
    fn nothing_goes_faster_than_the_bucket_fills(
        size in 1..10_000_u64,
        refill_time in 1..1000_u64,
        burst in 0..1000_u64,
        steps in prop::collection::vec((0..20_000_u64, 0..50_000_000_u64), 1..100),
    ) {
        let time = FakeTime::new();
        let limits = time.limits(bandwidth(size, refill_time, burst));
        let (mut passed, mut through) = (0_u128, 0_u128);
        for (tokens, nanoseconds) in steps {
            if limits.take(tokens).is_ok() {
                let came = passed * u128::from(size) / (u128::from(refill_time) * 1_000_000);
                let most = u128::from(size + burst) + came;
                prop_assert!(through + u128::from(tokens.min(size)) <= most);
                through += u128::from(tokens);
            }
            time.pass(Duration::from_nanos(nanoseconds));
            passed += u128::from(nanoseconds);
        }
    }

    /// Who waits as long as he is told gets what he asked for, and not before.
    #[test]
    fn the_wait_that_is_told_is_enough_and_not_too_long(
        config in any_bucket(),
        first in any::<u64>(),
        second in any::<u64>(),
    ) {
        let time = FakeTime::new();
        let limits = time.limits(RateLimiter { bandwidth: Some(config), ops: None });
        limits.take(first).unwrap();
        if let Err(wait) = limits.take(second) {
            let Some(nearly) = wait.checked_sub(Duration::from_nanos(1)) else {
                return Err(TestCaseError::fail("a wait of no time"));
            };
            // Longer waits are told as this one.
            if wait < Duration::from_nanos(u64::MAX) {
                time.pass(nearly);
                prop_assert!(limits.take(second).is_err());
                time.pass(Duration::from_nanos(1));
                prop_assert_eq!(limits.take(second), Ok(()));
            }
        }
    }

    /// Saved state is input: whatever it says, the bucket is one there can be.
    #[test]
    fn no_saved_budget_makes_an_impossible_bucket(
        config in any_bucket(),
        budget in any::<i64>(),
        burst in any::<u64>(),
        tokens in any::<u64>(),
    ) {
        let limits = FakeTime::new().limits(RateLimiter { bandwidth: Some(config), ops: None });
        limits.restore(Some(&LimitsV1 { bandwidth: Some(BucketV1 { budget, burst }), ops: None }));
        let left = limits.save().unwrap().bandwidth.unwrap();
        prop_assert!(left.burst <= config.one_time_burst.unwrap());
        prop_assert!(i128::from(left.budget) <= i128::from(config.size));
        prop_assert!(left.budget >= -(1 << 32));
        let _ = limits.take(tokens);
    }
}
