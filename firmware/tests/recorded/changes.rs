//! Hosts that are not recorded ones, but could be.

use kedge_firmware::{FoundField, FoundFirmware, FoundScope, Hex, HostAbi, RegValue, Takes};
use kedge_ids::RegId;
use proptest::prelude::*;
use proptest::sample::Index;

/// What [`Change::NewBitmap`] adds.
const NEW_BITMAP: RegId = RegId(0x6030_0000_0016_0009);

/// A way to make a host another.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A field takes these values, too.
    Takes { cpu: Index, register: Index, shift: u32, takes: u16 },
    /// A field takes its own value only.
    Fixed { cpu: Index, register: Index, shift: u32 },
    /// A field has another value, among those it takes.
    Value { cpu: Index, register: Index, shift: u32, value: u8 },
    /// Its vCPUs do not have an ID register.
    NoIdRegister(Index),
    /// It does not have a firmware register.
    NoFirmware(Index),
    /// A firmware register takes fewer of its bits or values.
    FewerValues { firmware: Index, keep: u8 },
    /// It does not have a feature.
    NoFeature(Index),
    /// It has other lengths of SVE vectors.
    OtherVectors(u8),
    /// Each vCPU holds a firmware register by itself.
    PerVcpu(Index),
    /// It has a bitmap that nobody knows.
    NewBitmap { default: u8, bits: u8 },
    /// Its guests' addresses are shorter.
    ShorterAddresses(u8),
    /// Its performance monitors count these at most of the first events.
    FewerEvents(u32),
}

/// The lengths up to 512 bits that a CPU can have, in bits: every power of two below
/// its longest is among them.
const VECTORS: [&[u32]; 5] =
    [&[128], &[128, 256], &[128, 256, 384], &[128, 256, 512], &[128, 256, 384, 512]];

/// Any of them.
pub(crate) fn change() -> impl Strategy<Value = Change> {
    let place = || (any::<Index>(), any::<Index>(), (0..16_u32).prop_map(|group| group * 4));
    prop_oneof![
        8 => (place(), any::<u16>()).prop_map(|((cpu, register, shift), takes)| {
            Change::Takes { cpu, register, shift, takes }
        }),
        2 => place().prop_map(|(cpu, register, shift)| Change::Fixed { cpu, register, shift }),
        2 => (place(), 0..16_u8).prop_map(|((cpu, register, shift), value)| {
            Change::Value { cpu, register, shift, value }
        }),
        1 => any::<Index>().prop_map(Change::NoIdRegister),
        1 => any::<Index>().prop_map(Change::NoFirmware),
        3 => (any::<Index>(), any::<u8>())
            .prop_map(|(firmware, keep)| Change::FewerValues { firmware, keep }),
        1 => any::<Index>().prop_map(Change::NoFeature),
        1 => any::<Index>().prop_map(Change::PerVcpu),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(default, bits)| {
            Change::NewBitmap { default, bits: bits | default }
        }),
        2 => (0..8_u8).prop_map(Change::OtherVectors),
        1 => (36..52_u8).prop_map(Change::ShorterAddresses),
        1 => any::<u32>().prop_map(Change::FewerEvents),
    ]
}

fn field(
    host: &mut HostAbi,
    cpu: Index,
    register: Index,
    shift: u32,
) -> (&mut Hex, &mut FoundField) {
    let cpu = cpu.index(host.cpus.len());
    let registers = &mut host.cpus[cpu].id_registers;
    let register = register.index(registers.len());
    let register = &mut registers[register];
    // Some have 32 bits only.
    let shift = shift % u32::try_from(register.id.size().bytes() * 8).unwrap();
    let takes = Hex(register.takes(shift));
    register.fields.retain(|field| field.shift != shift);
    register.fields.push(FoundField { shift, takes, drops: Hex(0) });
    (&mut register.value, register.fields.last_mut().unwrap())
}

fn fewer_events(host: &mut HostAbi, bits: u32) {
    if let Some(events) = &mut host.limits.pmu_events {
        events.pmceid0.0 &= u64::from(bits);
    }
}

/// Changes `host`.
pub(crate) fn apply(host: &mut HostAbi, change: &Change) {
    match change.clone() {
        Change::Takes { cpu, register, shift, takes } => {
            field(host, cpu, register, shift).1.takes.0 |= u64::from(takes);
        }
        Change::Fixed { cpu, register, shift } => {
            let (value, field) = field(host, cpu, register, shift);
            field.takes.0 = 1 << (value.0 >> shift & 0xf);
        }
        Change::Value { cpu, register, shift, value } => {
            let (whole, field) = field(host, cpu, register, shift);
            whole.0 = whole.0 & !(0xf << shift) | u64::from(value) << shift;
            field.takes.0 |= 1 << value;
        }
        Change::NoIdRegister(which) => {
            let all = &host.cpus[0].id_registers;
            let id = all[which.index(all.len())].id;
            for cpu in &mut host.cpus {
                cpu.registers.retain(|listed| *listed != id);
                cpu.id_registers.retain(|found| found.id != id);
            }
        }
        Change::NoFirmware(which) if host.firmware.len() > 1 => {
            host.firmware.remove(1 + which.index(host.firmware.len() - 1));
        }
        Change::NoFirmware(_) => {}
        Change::FewerValues { firmware, keep } => {
            let which = firmware.index(host.firmware.len());
            fewer(&mut host.firmware[which].takes, keep);
        }
        Change::NoFeature(which) if !host.limits.features.is_empty() => {
            let which = which.index(host.limits.features.len());
            let name = host.limits.features.remove(which);
            host.cpus.retain(|cpu| !cpu.features.contains(&name));
        }
        Change::NoFeature(_) => {}
        Change::OtherVectors(which) if !host.limits.sve_lengths.is_empty() => {
            let lengths = VECTORS[usize::from(which) % VECTORS.len()];
            host.limits.sve_lengths = lengths.to_vec();
        }
        Change::OtherVectors(_) => {}
        Change::PerVcpu(which) => {
            let which = which.index(host.firmware.len());
            host.firmware[which].scope = FoundScope::Vcpu;
        }
        Change::NewBitmap { default, bits } => {
            host.firmware.retain(|found| found.id != NEW_BITMAP);
            host.firmware.push(FoundFirmware {
                id: NEW_BITMAP,
                name: None,
                default: RegValue::from(u64::from(default)),
                scope: FoundScope::WholeVm,
                takes: Takes::Bits { bits: Hex(bits.into()), empty: true },
            });
        }
        Change::ShorterAddresses(bits) => host.limits.ipa_bits = bits,
        Change::FewerEvents(bits) => fewer_events(host, bits),
    }
}

fn fewer(takes: &mut Takes, keep: u8) {
    match takes {
        Takes::Values(values) | Takes::Levels(values) => {
            let mut keep = (0..u8::BITS).cycle().map(|bit| keep >> bit & 1 != 0);
            values.retain(|_| keep.next().unwrap());
        }
        Takes::Bits { bits, .. } => bits.0 &= u64::from(keep),
        Takes::Untried => {}
    }
}
