//! Loads from and stores to every device's registers at random, in every width:
//! whatever the guest does, its machine answers.
#![no_std]
#![no_main]

use kedge_payloads::devicetree::DeviceTree;
use kedge_payloads::mmio::{Width, load, store};
use kedge_payloads::start::Boot;
use kedge_payloads::{guest, println, serial};

guest!(main);

/// Queues are put here, so that devices write where nothing is lost.
const PLAYGROUND: u64 = 0x8080_0000;
const PLAYGROUND_SIZE: u64 = 1 << 20;

/// Registers of a virtio-mmio transport that hold parts of addresses.
const QUEUE_ADDRESSES: core::ops::Range<u64> = 0x80..0xa8;

fn main(boot: &Boot) {
    let Some(tree) = DeviceTree::at(boot.x0) else {
        println!("STORM no device tree at {:#x}", boot.x0);
        return;
    };
    let mut words = tree.bootargs().split(' ');
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
    let (seed, count) = (number().unwrap_or(1), number().unwrap_or(10_000));
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    fill(&mut random);
    let mut places = [(0, 0); 40];
    let mut known = 0;
    tree.each(|property| {
        let is_device = property.node.contains("@4000");
        if is_device && property.name == "reg" && known < places.len() {
            let base = property.value.first_chunk().map_or(0, |cells| u64::from_be_bytes(*cells));
            places[known] = (base, 0x1000);
            known += 1;
        }
    });
    println!("STORM begins: {known} devices, seed {seed}, {count} accesses");
    for _ in 0..count {
        let (base, size) = places[random.below(known)];
        access(&mut random, base, size);
    }
    // The port may be in any state: 8 bits, no loopback, no divisor.
    store(serial::BASE + 3, Width::W1, 3);
    store(serial::BASE + 4, Width::W1, 0);
    println!("\nSTORM over");
}

fn access(random: &mut Random, base: u64, size: u64) {
    let width = Width::ALL[random.below(4)];
    // Most registers are low.
    let range = if random.below(4) == 0 { size } else { 0x200.min(size) };
    let offset = (random.next() % range) & !(width.bytes() - 1);
    if random.below(2) == 0 {
        load(base + offset, width);
        return;
    }
    let value = match random.below(4) {
        _ if QUEUE_ADDRESSES.contains(&offset) && offset.is_multiple_of(16) => {
            PLAYGROUND + random.next() % PLAYGROUND_SIZE
        }
        _ if QUEUE_ADDRESSES.contains(&offset) => random.below(64) as u64 / 63,
        0 => random.next() % 16,
        1 => 1 << (random.next() % 32),
        2 => PLAYGROUND + random.next() % PLAYGROUND_SIZE,
        _ => random.next(),
    };
    store(base + offset, width, value);
}

/// Half of the playground looks like descriptors of itself.
fn fill(random: &mut Random) {
    for at in (PLAYGROUND..PLAYGROUND + PLAYGROUND_SIZE).step_by(64) {
        let value = if random.below(2) == 0 {
            PLAYGROUND + random.next() % PLAYGROUND_SIZE
        } else {
            random.next()
        };
        store(at, Width::W8, value);
        store(at + 8, Width::W8, random.next() & 0x0007_0003_0000_0fff);
    }
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 1).map_or(0, |value| value % limit)
    }
}
