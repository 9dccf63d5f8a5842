//! Raises interrupts of every kind, holds them back until a byte arrives at its serial
//! port, and then takes them: each once, whatever became of its machine in between.
//!
//! SGIs from itself, edges and a level among the SPIs, the virtual timer, whose line stays
//! high until it is switched off, and, where there is a translation service, LPIs by its
//! INT commands. An SError can only come from outside: how many came is printed.
#![no_std]
#![no_main]
// UNSAFETY: the timer and the CPU interface are in system registers.
#![expect(unsafe_code)]

use core::arch::asm;

use kedge_payloads::devicetree::DeviceTree;
use kedge_payloads::fault;
use kedge_payloads::mmio::{Width, load, load32, store, store32};
use kedge_payloads::start::Boot;
use kedge_payloads::{guest, println, serial};

guest!(main);

/// What is raised, and how often it was taken.
type Taken = [(u32, u32); 18];

const SGIS: [u32; 3] = [1, 2, 14];
const TIMER: u32 = 27;
/// SPIs that no device has. The last of them is a level.
const SPIS: [u32; 6] = [90, 91, 92, 120, 126, 127];
const FIRST_LPI: u32 = 8192;
const LPIS: u32 = 8;
/// No interrupt: 1020 and up, below the LPIs.
const SPECIAL: core::ops::Range<u32> = 1020..1024;
/// Which looks it takes to believe that nothing comes any more.
const LOOKS: u32 = 10_000;

fn main(boot: &Boot) {
    let Some(tree) = DeviceTree::at(boot.x0) else {
        println!("INTERRUPTS no device tree at {:#x}", boot.x0);
        return;
    };
    let Some(gic) = Gic::of(tree) else {
        println!("INTERRUPTS no interrupt controller");
        return;
    };
    let mut taken: Taken = [(0, 0); 18];
    let lpis = gic.its.map_or(0..0, |_| FIRST_LPI..FIRST_LPI + LPIS);
    let all = SGIS.into_iter().chain([TIMER]).chain(SPIS).chain(lpis);
    let count = taken.iter_mut().zip(all).map(|(place, intid)| place.0 = intid).count();
    let taken = &mut taken[..count];
    gic.set_up();
    gic.raise();
    println!("INTERRUPTS raised {count}");

    let _ = serial::receive();

    let serrors = fault::expect(take_serrors);
    println!("INTERRUPTS serrors {} esr {:#x}", serrors.count, serrors.esr);
    let strangers = gic.take(taken);
    for (intid, times) in taken.iter().filter(|(_, times)| *times != 1) {
        println!("INTERRUPTS {intid} was taken {times} times");
    }
    let once = taken.iter().filter(|(_, times)| *times == 1).count();
    println!("INTERRUPTS taken once {once} of {count}, others {strangers}");
}

/// Lets SErrors through for a while.
fn take_serrors() {
    // SAFETY: the vectors record them.
    unsafe { asm!("msr daifclr, #4", "isb", "msr daifset, #4", "isb") };
}

/// An interrupt controller, at its addresses.
#[derive(Clone, Copy)]
struct Gic {
    distributor: u64,
    /// The first redistributor of a GICv3, or the CPU interface of a GICv2.
    other: u64,
    v3: bool,
    its: Option<u64>,
}

// Offsets of a distributor and, but for the frame, of a redistributor.
const CTLR: u64 = 0x0;
const ISENABLER: u64 = 0x100;
const ISPENDR: u64 = 0x200;
const IPRIORITYR: u64 = 0x400;
const ITARGETSR: u64 = 0x800;
const ICFGR: u64 = 0xc00;
const SGIR: u64 = 0xf00;
const IROUTER: u64 = 0x6000;
const SGI_FRAME: u64 = 0x1_0000;
const PROPBASER: u64 = 0x70;
const PENDBASER: u64 = 0x78;
// Offsets of a GICv2's CPU interface.
const PMR: u64 = 0x4;
const IAR: u64 = 0xc;
const EOIR: u64 = 0x10;
/// Middling.
const PRIORITY: u64 = 0x80;

/// The address cells of the node with this `compatible`: two ranges at most.
fn frames(tree: DeviceTree, compatible: &str) -> Option<[u64; 2]> {
    let is = |text: &str| text.split('\0').any(|word| word == compatible);
    let node = tree.find(|property| property.name == "compatible" && is(property.text()))?.node;
    let reg = tree.find(|property| property.node == node && property.name == "reg")?.value;
    let cell = |at: usize| {
        let bytes = reg.get(8 * at..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
    };
    Some([cell(0), cell(2)])
}

impl Gic {
    fn of(tree: DeviceTree) -> Option<Self> {
        if let Some([distributor, other]) = frames(tree, "arm,gic-v3") {
            let its = frames(tree, "arm,gic-v3-its").map(|[its, _]| its);
            return Some(Self { distributor, other, v3: true, its });
        }
        let [distributor, other] =
            frames(tree, "arm,gic-400").or_else(|| frames(tree, "arm,cortex-a15-gic"))?;
        Some(Self { distributor, other, v3: false, its: None })
    }

    /// Lets everything through to this CPU, but for the CPU itself, which masks it.
    fn set_up(self) {
        let private = if self.v3 { self.other + SGI_FRAME } else { self.distributor };
        for intid in SGIS.into_iter().chain([TIMER]) {
            store(private + IPRIORITYR + u64::from(intid), Width::W1, PRIORITY);
        }
        store32(private + ISENABLER, SGIS.iter().fold(1 << TIMER, |bits, n| bits | 1 << n));
        // Group 1 and affinity routing; a GICv2 has the one group.
        store32(self.distributor + CTLR, if self.v3 { 0x12 } else { 1 });
        for intid in SPIS {
            let (n, word) = (u64::from(intid), u64::from(intid / 32 * 4));
            store(self.distributor + IPRIORITYR + n, Width::W1, PRIORITY);
            if self.v3 {
                store(self.distributor + IROUTER + 8 * n, Width::W8, 0);
            } else {
                store(self.distributor + ITARGETSR + n, Width::W1, 1);
            }
            let config = self.distributor + ICFGR + u64::from(intid / 16 * 4);
            let edge = 0b10 << (intid % 16 * 2);
            let level = Some(&intid) == SPIS.last();
            let others = load32(config) & !edge;
            store32(config, if level { others } else { others | edge });
            store32(self.distributor + ISENABLER + word, 1 << (intid % 32));
        }
        if self.v3 {
            // SAFETY: with interrupts masked, none is taken.
            unsafe {
                asm!(
                    "msr S3_0_C12_C12_5, {on}", // ICC_SRE_EL1
                    "isb",
                    "msr S3_0_C4_C6_0, {all}", // ICC_PMR_EL1
                    "msr S3_0_C12_C12_7, {on}", // ICC_IGRPEN1_EL1
                    "isb",
                    on = in(reg) 1_u64,
                    all = in(reg) 0xff_u64,
                );
            }
        } else {
            store32(self.other + PMR, 0xff);
            store32(self.other + CTLR, 1);
        }
    }

    /// Raises all of them.
    fn raise(self) {
        for sgi in SGIS {
            if self.v3 {
                // SAFETY: with interrupts masked, none is taken. ICC_SGI1R_EL1, to CPU 0.
                unsafe {
                    asm!("msr S3_0_C12_C11_5, {}", "isb", in(reg) u64::from(sgi) << 24 | 1);
                }
            } else {
                store32(self.distributor + SGIR, 1 << 16 | sgi);
            }
        }
        for intid in SPIS {
            store32(self.distributor + ISPENDR + u64::from(intid / 32 * 4), 1 << (intid % 32));
        }
        // SAFETY: the timer is ours; its interrupt is masked.
        unsafe {
            asm!("msr cntv_cval_el0, xzr", "msr cntv_ctl_el0, {}", "isb", in(reg) 1_u64);
        }
        if let Some(its) = self.its {
            raise_lpis(its, self.other);
        }
    }

    /// Takes what there is; how many were none of `taken`'s.
    fn take(self, taken: &mut [(u32, u32)]) -> u32 {
        let (mut strangers, mut idle) = (0, 0);
        while idle < LOOKS {
            let word = self.acknowledge();
            let intid = if self.v3 { word } else { word & 0x3ff };
            if SPECIAL.contains(&intid) {
                idle += 1;
                continue;
            }
            idle = 0;
            match taken.iter_mut().find(|(known, _)| *known == intid) {
                Some((_, times)) => *times += 1,
                None => strangers += 1,
            }
            if intid == TIMER {
                // SAFETY: the timer is ours. Its line falls before the interrupt ends.
                unsafe { asm!("msr cntv_ctl_el0, xzr", "isb") };
            }
            self.end(word);
        }
        strangers
    }

    fn acknowledge(self) -> u32 {
        if !self.v3 {
            return load32(self.other + IAR);
        }
        let intid: u64;
        // SAFETY: what is acknowledged is ended. ICC_IAR1_EL1.
        unsafe { asm!("mrs {}, S3_0_C12_C12_0", "dsb sy", out(reg) intid) };
        u32::try_from(intid).unwrap_or(u32::MAX)
    }

    fn end(self, word: u32) {
        if !self.v3 {
            store32(self.other + EOIR, word);
            return;
        }
        // SAFETY: it was acknowledged. ICC_EOIR1_EL1.
        unsafe { asm!("msr S3_0_C12_C12_1, {}", "isb", in(reg) u64::from(word)) };
    }
}

// Memory that nobody else uses, each at a multiple of 64 KiB.
const PROPERTIES: u64 = 0x8080_0000;
const PENDING: u64 = 0x8081_0000;
const DEVICES: u64 = 0x8082_0000;
const COLLECTIONS: u64 = 0x8083_0000;
const TRANSLATIONS: u64 = 0x8084_0000;
const QUEUE: u64 = 0x8085_0000;
// Offsets of a translation service.
const CBASER: u64 = 0x80;
const CWRITER: u64 = 0x88;
const CREADR: u64 = 0x90;
const BASER: u64 = 0x100;
const VALID: u64 = 1 << 63;
/// The device that has the events: no device at all.
const DEVICE: u64 = 5 << 32;

/// Makes LPIs pending by commands (Arm IHI 0069, 5.3).
fn raise_lpis(its: u64, redistributor: u64) {
    (PROPERTIES..QUEUE + 0x1000).step_by(8).for_each(|at| store(at, Width::W8, 0));
    for n in 0..u64::from(LPIS) {
        store(PROPERTIES + n, Width::W1, PRIORITY | 1);
    }
    // Numbers of 16 bits.
    store(redistributor + PROPBASER, Width::W8, PROPERTIES | 0xf);
    store(redistributor + PENDBASER, Width::W8, PENDING);
    store32(redistributor + CTLR, 1);
    store(its + BASER, Width::W8, VALID | DEVICES);
    store(its + BASER + 8, Width::W8, VALID | COLLECTIONS);
    store(its + CBASER, Width::W8, VALID | QUEUE);
    store32(its + CTLR, 1);
    // 5 bits of events; collection 0 is this CPU.
    let mut at = command(QUEUE, [0x08 | DEVICE, 4, VALID | TRANSLATIONS]);
    at = command(at, [0x09, 0, VALID]);
    for n in 0..u64::from(LPIS) {
        let lpi = u64::from(FIRST_LPI) + n;
        at = command(at, [0x0a | DEVICE, lpi << 32 | n, 0]);
        at = command(at, [0x03 | DEVICE, n, 0]);
    }
    // SAFETY: it waits until the commands are in memory.
    unsafe { asm!("dsb sy") };
    store(its + CWRITER, Width::W8, at - QUEUE);
    while load(its + CREADR, Width::W8) != at - QUEUE {}
}

/// Puts a command into the queue; where the next one goes.
fn command(at: u64, words: [u64; 3]) -> u64 {
    for (offset, word) in [0, 8, 16].into_iter().zip(words) {
        store(at + offset, Width::W8, word);
    }
    store(at + 24, Width::W8, 0);
    at + 32
}
