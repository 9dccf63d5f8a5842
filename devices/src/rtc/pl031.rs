//! Arm PL031 real-time clock (Arm DDI 0224): a counter the guest may load, and
//! one alarm.
//!
//! The registers never read the host clock: the caller passes `now`, in seconds
//! since 1970, so a test can. The counter always runs; hardware starts it once
//! and cannot stop it (3.3.4).

use super::saved;

#[rustfmt::skip]
mod reg {
    //                    name       offset     access  reset
    pub(super) const DR:   u64 = 0x000; //  ro      -      counter
    pub(super) const MR:   u64 = 0x004; //  rw      0      match
    pub(super) const LR:   u64 = 0x008; //  rw      0      load
    pub(super) const CR:   u64 = 0x00c; //  rw      1      control
    pub(super) const IMSC: u64 = 0x010; //  rw      0      interrupt mask: 1 lets it through
    pub(super) const RIS:  u64 = 0x014; //  ro      0      raw interrupt status
    pub(super) const MIS:  u64 = 0x018; //  ro      0      masked interrupt status
    pub(super) const ICR:  u64 = 0x01c; //  wo      -      interrupt clear
    /// The first of the eight identification registers, 32 bits apart (3.3.9).
    pub(super) const ID:   u64 = 0xfe0;
}

/// `RTCPeriphID0` to `3`: part 0x031, designer 0x41, revision 0; then
/// `RTCPCellID0` to `3`: a PrimeCell.
const ID: [u8; 8] = [0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// `RTCCR`: the counter runs.
const RUNNING: u32 = 1;

/// The one interrupt's bit in `IMSC`, `RIS`, `MIS` and `ICR`.
const ALARM: u32 = 1;

/// Seconds after which the counter shows the same again.
const ROUND: u64 = 1 << 32;

/// The state that is saved.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// What the counter is ahead of the clock, in seconds modulo 2^32.
    offset: u32,
    /// When the counter next reaches `MR`, by the clock.
    match_at: u64,
    /// What was last written to `LR`.
    load: u32,
    /// Whether the interrupt is let through.
    masked_in: bool,
    /// Whether the counter has reached `MR` since that was last cleared.
    raised: bool,
}

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pl031 {
    state: State,
}

/// The counter's worth of `seconds`.
fn modulo_round(seconds: u64) -> u32 {
    u32::try_from(seconds % ROUND).expect("a remainder is smaller than its divisor")
}

impl Pl031 {
    /// Registers after a reset, but with the counter at `now`, as if a battery
    /// had kept it.
    pub(super) fn new(now: u64) -> Self {
        let state = State { offset: 0, match_at: now, load: 0, masked_in: false, raised: false };
        let mut chip = Self { state };
        chip.set_match(0, now.saturating_add(1));
        chip
    }

    /// The state to save.
    pub(super) fn save(&self) -> saved::Pl031V1 {
        // No `..`: a field added to `State` must be decided on here.
        let State { offset, match_at, load, masked_in, raised } = self.state.clone();
        saved::Pl031V1 { offset, match_at, load, masked_in, raised }
    }

    /// Registers as they were saved. Saved state is input: every value of it has
    /// a meaning, nothing here panics.
    pub(super) fn restore(saved: &saved::Pl031V1) -> Self {
        let &saved::Pl031V1 { offset, match_at, load, masked_in, raised } = saved;
        Self { state: State { offset, match_at, load, masked_in, raised } }
    }

    /// The guest loads a register. Reserved ones read as zero.
    pub(super) fn load(&self, offset: u64, now: u64) -> u32 {
        match offset {
            reg::DR => self.counter(now),
            reg::MR => self.counter(self.state.match_at),
            reg::LR => self.state.load,
            reg::CR => RUNNING,
            reg::IMSC => u32::from(self.state.masked_in) * ALARM,
            reg::RIS => u32::from(self.state.raised) * ALARM,
            reg::MIS => u32::from(self.interrupt()) * ALARM,
            reg::ID.. => id(offset),
            _ => 0,
        }
    }

    /// The guest stores to a register. Those that are read-only or reserved stay.
    pub(super) fn store(&mut self, offset: u64, value: u32, now: u64) {
        match offset {
            reg::MR => self.set_match(value, now),
            reg::LR => {
                let match_register = self.counter(self.state.match_at);
                self.state.load = value;
                self.state.offset = value.wrapping_sub(modulo_round(now));
                self.set_match(match_register, now);
            }
            reg::IMSC => self.state.masked_in = value & ALARM != 0,
            reg::ICR if value & ALARM != 0 => self.state.raised = false,
            _ => {}
        }
    }

    /// Raises the alarm if its time came by `now`.
    pub(super) fn tick(&mut self, now: u64) {
        let State { match_at, raised, .. } = &mut self.state;
        if now >= *match_at {
            *raised = true;
            // The next whole round that ends in the future.
            let rounds = (now - *match_at) / ROUND + 1;
            *match_at = match_at.saturating_add(rounds.saturating_mul(ROUND));
        }
    }

    /// Whether the interrupt is raised and let through.
    pub(super) fn interrupt(&self) -> bool {
        self.state.raised && self.state.masked_in
    }

    /// When [`Self::tick`] has to be called next for the interrupt to come in
    /// time, by the clock.
    pub(super) fn alarm(&self) -> Option<u64> {
        (self.state.masked_in && !self.state.raised).then_some(self.state.match_at)
    }

    fn counter(&self, now: u64) -> u32 {
        modulo_round(now).wrapping_add(self.state.offset)
    }

    /// Makes the counter match at `value`, from `now` on.
    fn set_match(&mut self, value: u32, now: u64) {
        let ahead = value.wrapping_sub(self.counter(now));
        self.state.match_at = now.saturating_add(u64::from(ahead));
    }
}

fn id(offset: u64) -> u32 {
    let index = usize::try_from((offset - reg::ID) / 4).unwrap_or(usize::MAX);
    ID.get(index).copied().map_or(0, u32::from)
}
