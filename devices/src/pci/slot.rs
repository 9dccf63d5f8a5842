//! What a root port says of the slot behind it, in its PCI Express capability (PCI Express
//! Base 5.0, 7.5.3 and 6.7): whether there is a card, whether it has power, and what
//! happened that the guest has not seen. No clock, no lock; who holds it sends interrupts.
//!
//! A card that is put in presses the button to be switched on; one that is to go presses it
//! to be switched off, and is let go once the guest has done so and put the light out.

use super::config::ConfigSpace;

/// The capability's number.
const CAPABILITY: u8 = 0x10;

/// The capability (7.5.3), from its start. Zero where not named.
#[rustfmt::skip]
mod reg {
    //         name                    offset           access
    pub(super) const FLAGS:             usize = 0x02; //  ro  PCI Express Capabilities
    pub(super) const DEVICE:            usize = 0x04; //  ro  Device Capabilities
    pub(super) const DEVICE_CONTROL:    usize = 0x08; //  rw
    pub(super) const LINK:              usize = 0x0c; //  ro  Link Capabilities
    pub(super) const LINK_CONTROL:      usize = 0x10; //  rw
    pub(super) const LINK_STATUS:       usize = 0x12; //  ro
    pub(super) const SLOT:              usize = 0x14; //  ro  Slot Capabilities
    pub(super) const CONTROL:           usize = 0x18; //  rw  Slot Control
    pub(super) const STATUS:            usize = 0x1a; //  w1c Slot Status
    pub(super) const ROOT_CONTROL:      usize = 0x1c; //  rw
    pub(super) const END:               usize = 0x3c;
}

/// Version 2, a root port with a slot (7.5.3.2).
const FLAGS: u16 = 2 | 4 << 4 | 1 << 8;
/// Errors are told by role (7.5.3.3), as from version 1.1 on.
const DEVICE: u32 = 1 << 15;
/// One lane of 2.5 GT/s whose state is told (7.5.3.6).
const LINK: u32 = 1 | 1 << 4 | 1 << 20;
/// One lane of 2.5 GT/s (7.5.3.8).
const LINK_STATUS: u16 = 1 | 1 << 4;
/// The link is up.
const LINK_ACTIVE: u16 = 1 << 13;
/// Button, power switch, both lights; hot-plug; a command takes no time (7.5.3.9).
const SLOT: u32 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 18;
/// Where the slot's number is in that.
const SLOT_NUMBER: u32 = 19;

/// Slot Control (7.5.3.10).
mod control {
    /// Which events interrupt, at their places in Slot Status.
    pub(super) const EVENTS: u16 = 0b1_1111;
    pub(super) const LINK_CHANGED: u16 = 1 << 12;
    pub(super) const INTERRUPT: u16 = 1 << 5;
    pub(super) const ATTENTION_LIGHT_OUT: u16 = 0b11 << 6;
    pub(super) const POWER_LIGHT: u16 = 0b11 << 8;
    pub(super) const POWER_LIGHT_ON: u16 = 0b01 << 8;
    pub(super) const POWER_LIGHT_OUT: u16 = 0b11 << 8;
    pub(super) const POWER_OFF: u16 = 1 << 10;
    /// All that the guest can change.
    pub(super) const ALL: u16 =
        EVENTS | LINK_CHANGED | INTERRUPT | ATTENTION_LIGHT_OUT | POWER_LIGHT | POWER_OFF;
}

/// Slot Status (7.5.3.11).
mod status {
    pub(super) const BUTTON_PRESSED: u16 = 1 << 0;
    pub(super) const PRESENCE_CHANGED: u16 = 1 << 3;
    pub(super) const PRESENT: u16 = 1 << 6;
    pub(super) const LINK_CHANGED: u16 = 1 << 8;
    /// Those that the guest clears.
    pub(super) const EVENTS: u16 = BUTTON_PRESSED | PRESENCE_CHANGED | LINK_CHANGED;
}

/// Where the capability lies in a port's space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    at: usize,
}

/// What the guest has done to a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// Nothing that concerns it.
    Nothing,
    /// It has switched it off.
    SwitchedOff,
    /// It has switched it on, and the light shines: the card can be asked for.
    Shining,
}

impl Slot {
    /// Adds the capability for the empty slot of this number.
    pub(super) fn add_to(space: &mut ConfigSpace, number: u8) -> Self {
        let mut body = [0; reg::END];
        let mut writable = [0; reg::END];
        let put = |into: &mut [u8], at: usize, bytes: &[u8]| {
            into[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(&mut body, reg::FLAGS, &FLAGS.to_le_bytes());
        put(&mut body, reg::DEVICE, &DEVICE.to_le_bytes());
        put(&mut body, reg::LINK, &(LINK | u32::from(number) << 24).to_le_bytes());
        put(&mut body, reg::LINK_STATUS, &LINK_STATUS.to_le_bytes());
        let slot = SLOT | u32::from(number) << SLOT_NUMBER;
        put(&mut body, reg::SLOT, &slot.to_le_bytes());
        let dark = control::POWER_OFF | control::POWER_LIGHT_OUT | control::ATTENTION_LIGHT_OUT;
        put(&mut body, reg::CONTROL, &dark.to_le_bytes());
        // Errors that there are none of, sizes that nobody uses, common clocks.
        put(&mut writable, reg::DEVICE_CONTROL, &[0xff, 0x70]);
        put(&mut writable, reg::LINK_CONTROL, &[0xd8, 0x00]);
        put(&mut writable, reg::CONTROL, &control::ALL.to_le_bytes());
        put(&mut writable, reg::ROOT_CONTROL, &[0x0f, 0x00]);
        Self { at: space.add_capability(CAPABILITY, &body[2..], &writable[2..]) }
    }

    fn control(self, space: &ConfigSpace) -> u16 {
        space.half(self.at + reg::CONTROL)
    }

    fn status(self, space: &ConfigSpace) -> u16 {
        space.half(self.at + reg::STATUS)
    }

    fn put(self, space: &mut ConfigSpace, register: usize, value: u16) {
        space.put(self.at + register, &value.to_le_bytes());
    }

    fn note(self, space: &mut ConfigSpace, events: u16) {
        let status = self.status(space) | events;
        self.put(space, reg::STATUS, status);
    }

    /// Whether a card would have power.
    pub(super) fn is_powered(self, space: &ConfigSpace) -> bool {
        self.control(space) & control::POWER_OFF == 0
    }

    /// Whether the guest has let go of what is in the slot: it has no power, and the light
    /// is out.
    pub(super) fn is_dark(self, space: &ConfigSpace) -> bool {
        !self.is_powered(space)
            && self.control(space) & control::POWER_LIGHT == control::POWER_LIGHT_OUT
    }

    /// Whether the light says that a card works.
    pub(super) fn shines(self, space: &ConfigSpace) -> bool {
        self.is_powered(space)
            && self.control(space) & control::POWER_LIGHT == control::POWER_LIGHT_ON
    }

    /// Whether something happened that the guest wants to be interrupted for (6.7.3.4).
    pub(super) fn wants_interrupt(self, space: &ConfigSpace) -> bool {
        let (control, status) = (self.control(space), self.status(space));
        let link = control & control::LINK_CHANGED != 0 && status & status::LINK_CHANGED != 0;
        control & control::INTERRUPT != 0 && (control & status & control::EVENTS != 0 || link)
    }

    /// A card is there, from before the guest.
    pub(super) fn begin_with_card(self, space: &mut ConfigSpace) {
        let lit = control::POWER_LIGHT_ON | control::ATTENTION_LIGHT_OUT;
        self.put(space, reg::CONTROL, lit);
        self.note(space, status::PRESENT);
        self.follow_power(space);
        self.clear(space, status::EVENTS);
    }

    /// A card comes, and wants to be switched on.
    pub(super) fn put_in(self, space: &mut ConfigSpace) {
        let events = status::PRESENT | status::PRESENCE_CHANGED | status::BUTTON_PRESSED;
        self.note(space, events);
        self.follow_power(space);
    }

    /// The card is gone.
    pub(super) fn take_out(self, space: &mut ConfigSpace) {
        self.clear(space, status::PRESENT);
        self.note(space, status::PRESENCE_CHANGED);
        self.follow_power(space);
    }

    /// The button is pressed.
    pub(super) fn press(self, space: &mut ConfigSpace) {
        self.note(space, status::BUTTON_PRESSED);
    }

    fn clear(self, space: &mut ConfigSpace, bits: u16) {
        let status = self.status(space) & !bits;
        self.put(space, reg::STATUS, status);
    }

    /// The link is up where a card has power.
    fn follow_power(self, space: &mut ConfigSpace) {
        let up = self.is_powered(space) && self.status(space) & status::PRESENT != 0;
        let before = space.half(self.at + reg::LINK_STATUS);
        let now = LINK_STATUS | if up { LINK_ACTIVE } else { 0 };
        if before != now {
            self.put(space, reg::LINK_STATUS, now);
            self.note(space, status::LINK_CHANGED);
        }
    }

    /// The guest stores to the port's space.
    pub(super) fn write(self, space: &mut ConfigSpace, offset: usize, data: &[u8]) -> Done {
        let (was_powered, shone) = (self.is_powered(space), self.shines(space));
        space.write(offset, data);
        // Events are cleared by ones.
        let mut ones = [0; 2];
        for (at, byte) in (offset..).zip(data) {
            let place = at.checked_sub(self.at + reg::STATUS);
            if let Some(one) = place.and_then(|place| ones.get_mut(place)) {
                *one = *byte;
            }
        }
        self.clear(space, u16::from_le_bytes(ones) & status::EVENTS);
        self.follow_power(space);
        match (was_powered, self.is_powered(space)) {
            (true, false) => Done::SwitchedOff,
            (_, true) if !shone && self.shines(space) => Done::Shining,
            _ => Done::Nothing,
        }
    }

    /// Makes what only a slot's events change as it is in `saved`, for all else to be held
    /// against.
    pub(super) fn adopt(self, space: &mut ConfigSpace, saved: &[u8]) {
        let half = |register: usize| {
            let at = self.at + register;
            let bytes = saved.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u16::from_le_bytes)
        };
        let present = self.status(space) & status::PRESENT;
        self.put(space, reg::STATUS, half(reg::STATUS) & status::EVENTS | present);
        let link = half(reg::LINK_STATUS) & LINK_ACTIVE;
        self.put(space, reg::LINK_STATUS, LINK_STATUS | link);
    }
}
