//! Uses a device that only the program around the machine knows: `example,tally`, which adds
//! up what is stored to it and raises its interrupt each time. The device tree says where it
//! is. The words of the command line are the numbers to add.
#![no_std]
#![no_main]

use kedge_payloads::devicetree::{DeviceTree, Property};
use kedge_payloads::mmio::{load32, store32};
use kedge_payloads::start::Boot;
use kedge_payloads::{guest, println};

guest!(main);

/// The first shared interrupt.
const SPI: u64 = 32;

/// The distributor of either controller, and its registers: a bit, or two, for each interrupt
/// (Arm IHI 0048, 4.3 and IHI 0069, 12.9).
const DISTRIBUTOR: u64 = 0x0800_0000;
const ISPENDR: u64 = DISTRIBUTOR + 0x200;
const ICPENDR: u64 = DISTRIBUTOR + 0x280;
const ICFGR: u64 = DISTRIBUTOR + 0xc00;

/// Makes the interrupt one of edges.
fn expect_edges(intid: u64) {
    let register = ICFGR + intid / 16 * 4;
    store32(register, load32(register) | 0b10 << (intid % 16 * 2));
}

/// Whether the interrupt is pending, which it then is no more.
fn take(intid: u64) -> bool {
    let (offset, bit) = (intid / 32 * 4, 1 << (intid % 32));
    let is_pending = load32(ISPENDR + offset) & bit != 0;
    store32(ICPENDR + offset, bit);
    is_pending
}

fn main(boot: &Boot) {
    let Some(tree) = DeviceTree::at(boot.x0) else { return };
    let is_tally = |property: &Property| {
        property.name == "compatible" && property.text() == "example,tally"
    };
    let Some(Property { node, .. }) = tree.find(is_tally) else {
        println!("TALLY there is none");
        return;
    };
    let cell = |name: &str, at: usize| {
        let of = tree.find(|property| property.node == node && property.name == name);
        let cell = of.and_then(|property| property.value.get(4 * at..)?.first_chunk());
        cell.map_or(0, |bytes| u64::from(u32::from_be_bytes(*bytes)))
    };
    let address = cell("reg", 0) << 32 | cell("reg", 1);
    let intid = SPI + cell("interrupts", 1);
    println!("TALLY {node} has interrupt {intid}");
    expect_edges(intid);
    for number in tree.bootargs().split(' ').filter_map(|word| word.parse().ok()) {
        store32(address, number);
        let raised = if take(intid) { "raised" } else { "did not raise" };
        println!("TALLY {number} more are {}, and {raised} the interrupt", load32(address));
    }
}
