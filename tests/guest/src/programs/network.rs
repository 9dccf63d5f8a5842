//! Two network cards, one of them with eight pairs of queues, over which iperf3 sends both
//! ways: first with segments and checksums left to the other side, then without.

use std::net::Ipv4Addr;

use anyhow::{Context, ensure};

use super::{Boot, go_on, on_host::Programs, work};
use crate::cards::{LONGEST, statistic};
use crate::frames::Watch;
use crate::kedge::Running;
use crate::suite::{Outcome, after, times};
use crate::tap::Tap;

/// Bytes of each transfer.
fn bytes() -> u64 {
    u64::from(times(6, 4)) << 20
}

/// The cards, by what the guest calls them, with the streams over each at once.
const CARDS: [(&str, u64); 2] = [("one", 1), ("eight", 8)];

/// The cards over which it is sent with offloads, and without: where there is time for all of
/// it, both each time.
fn used() -> [&'static [usize]; 2] {
    if times(1, 0) > 0 { [&[0, 1], &[0, 1]] } else { [&[0], &[1]] }
}

/// What the guest is told of that.
pub(super) fn words() -> String {
    let names = |cards: &[usize]| cards.iter().map(|&card| CARDS[card].0).collect::<Vec<_>>();
    let [with, without] = used().map(|cards| names(cards).join(","));
    format!("kedge.bytes={} kedge.with={with} kedge.without={without}", bytes())
}

/// Bytes of a stream that may be under way when its sender has sent enough, which its receiver
/// then does not count: more than the buffers of both, which iperf3 is told to make small.
const UNDER_WAY: u64 = 256 << 10;

/// The guest's addresses on them.
const GUEST: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 90, 0, 2), Ipv4Addr::new(10, 91, 0, 2)];

/// The cards' taps.
pub(super) struct Cards([Tap; 2]);

/// Bytes from the guest and to it: those that passed a tap, or those of the longest frame.
#[derive(Clone, Copy, Debug)]
struct Bytes {
    sent: u64,
    received: u64,
}

/// What was seen of each card.
pub(super) struct Found {
    /// What had passed its tap: before all, with offloads, and in the end.
    passed: [[Bytes; 2]; 3],
    /// Its longest frames, with offloads and without.
    longest: [[Bytes; 2]; 2],
}

impl Cards {
    /// Makes the taps.
    ///
    /// # Errors
    /// The host has none.
    pub(super) fn new() -> anyhow::Result<Self> {
        let one = Tap::new("kedge-i0")?.with_address("10.90.0.1/24")?;
        Ok(Self([one, Tap::with_queues("kedge-i1")?.with_address("10.91.0.1/24")?]))
    }

    /// What kedge is told of them.
    pub(super) fn flags(&self) -> [String; 4] {
        let [one, eight] = self.0.each_ref().map(|tap| format!("tap={}", tap.name()));
        ["--net".to_owned(), one, "--net".to_owned(), format!("{eight},queues=8")]
    }

    /// Serves what the guest sends and asks for.
    ///
    /// # Errors
    /// The guest does not come to an end.
    pub(super) fn watch(&self, guest: &mut Running, host: &Programs) -> anyhow::Result<Found> {
        let server = host.start("usr/bin/iperf3", &["--server"])?;
        guest.wait_for("=== iperf3", 1, work())?;
        let first = self.passed()?;
        let frames = watches()?;
        go_on(guest)?;
        guest.wait_for("=== plain", 1, work())?;
        let (with_offloads, with) = (self.passed()?, longest(&frames));
        for tap in &self.0 {
            let words = ["-K", tap.name(), "tso", "off", "gso", "off", "tx", "off"];
            host.run("usr/sbin/ethtool", &words)?;
        }
        let frames = watches()?;
        go_on(guest)?;
        guest.wait_for("=== sent", 1, work())?;
        let (last, without) = (self.passed()?, longest(&frames));
        go_on(guest)?;
        drop(server);
        Ok(Found { passed: [first, with_offloads, last], longest: [with, without] })
    }

    fn passed(&self) -> anyhow::Result<[Bytes; 2]> {
        let passed = |tap: &Tap| -> anyhow::Result<Bytes> {
            // The tap receives what the guest sends.
            let (sent, received) = (statistic(tap, "rx_bytes")?, statistic(tap, "tx_bytes")?);
            Ok(Bytes { sent, received })
        };
        Ok([passed(&self.0[0])?, passed(&self.0[1])?])
    }
}

/// Watches over the frames of both cards.
fn watches() -> anyhow::Result<[Watch; 2]> {
    Ok([Watch::over(GUEST[0])?, Watch::over(GUEST[1])?])
}

/// What they have seen.
fn longest(frames: &[Watch; 2]) -> [Bytes; 2] {
    frames.each_ref().map(|watch| {
        let (sent, received) = (watch.longest_from(), watch.longest_to());
        Bytes { sent, received }
    })
}

pub(super) fn iperf3(boot: &Boot) -> Outcome {
    let Found { passed: [first, with_offloads, last], longest } = &boot.network;
    let [with, without] = used();
    for &card in with {
        let passed = (&first[card], &with_offloads[card]);
        transferred(boot.said.section("iperf3")?, ("with", card), passed)?;
        let Bytes { sent, received } = longest[0][card];
        ensure!(sent > LONGEST, "card {card} has sent no frame of more than {sent} bytes");
        ensure!(received > LONGEST, "card {card} has received none of more than {received} bytes");
    }
    for &card in without {
        let passed = (&with_offloads[card], &last[card]);
        transferred(boot.said.section("plain")?, ("without", card), passed)?;
        let Bytes { sent, received } = longest[1][card];
        // They are filled either way.
        ensure!(
            (sent, received) == (LONGEST, LONGEST),
            "card {card}, without offloads, has sent {sent} bytes in a frame and received {received}"
        );
    }
    Ok(())
}

/// Both transfers over a card have come to their end, and all of them has passed its tap.
fn transferred(
    said: &str,
    (name, card): (&str, usize),
    (before, now): (&Bytes, &Bytes),
) -> Outcome {
    let (queues, streams) = CARDS[card];
    let directions =
        [("to-host", now.sent - before.sent), ("to-guest", now.received - before.received)];
    for (direction, passed) in directions {
        let sum = |sum: &str| -> anyhow::Result<u64> {
            let line = format!("{name} {queues} {direction} {sum} ");
            after(said, &line)?.parse().with_context(|| format!("after {line}"))
        };
        let (sent, received) = (sum("sum_sent")?, sum("sum_received")?);
        let about = format!("{name} {queues} {direction}: {sent} sent, {received} received");
        ensure!(sent >= bytes() && received <= sent, "{about}");
        ensure!(received <= passed, "{about}, {passed} over the tap");
        ensure!(received + streams * UNDER_WAY >= sent, "{about}");
    }
    Ok(())
}
