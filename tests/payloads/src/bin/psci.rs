//! Shows the firmware's version and features, and turns on every CPU of the
//! device tree in the way that the tree says.
#![no_std]
#![no_main]
// UNSAFETY: CPUs get their stacks in memory that no Rust object is in, and report
// there.
#![expect(unsafe_code)]

use kedge_payloads::devicetree::DeviceTree;
use kedge_payloads::psci::{call, function, wait};
use kedge_payloads::start::{Boot, secondary};
use kedge_payloads::{guest, println};

guest!(main);

/// Stacks of 4 KiB, from here on; a machine has this much memory.
const STACKS: u64 = 0x8040_0000;
const STACK: u64 = 0x1000;
/// How often a CPU is looked for before it is given up.
const PATIENCE: u64 = 500_000_000;

#[rustfmt::skip]
const FUNCTIONS: [(&str, u32); 9] = [
    ("PSCI_VERSION",      function::PSCI_VERSION),
    ("CPU_ON",            function::CPU_ON),
    ("AFFINITY_INFO",     function::AFFINITY_INFO),
    ("SYSTEM_OFF",        function::SYSTEM_OFF),
    ("SYSTEM_RESET",      function::SYSTEM_RESET),
    ("SYSTEM_SUSPEND",    function::SYSTEM_SUSPEND),
    ("SYSTEM_RESET2",     function::SYSTEM_RESET2),
    ("SYSTEM_OFF2",       function::SYSTEM_OFF2),
    ("SMCCC_VERSION",     function::SMCCC_VERSION),
];

/// The top of a CPU's stack, which is its context.
#[repr(C)]
struct Context {
    run: extern "C" fn(&Context) -> !,
    arrived: u64,
}

fn main(boot: &Boot) {
    let Some(tree) = DeviceTree::at(boot.x0) else {
        println!("PSCI no device tree at {:#x}", boot.x0);
        return;
    };
    let of_psci = |name: &'static str| {
        tree.find(move |property| property.node == "psci" && property.name == name)
    };
    let compatible = of_psci("compatible").map_or("", |property| property.text());
    println!("PSCI compatible {}", Words(compatible));
    let cpu_on = of_psci("cpu_on").and_then(|id| u32::try_from(id.number()).ok());
    if cpu_on.is_none() {
        let version = call(function::PSCI_VERSION, [0; 3]);
        println!("PSCI version {}.{}", version >> 16, version & 0xffff);
        println!("PSCI MIGRATE_INFO_TYPE {}", call(function::MIGRATE_INFO_TYPE, [0; 3]));
        for (name, id) in FUNCTIONS {
            let answer = call(function::PSCI_FEATURES, [id.into(), 0, 0]);
            println!("PSCI feature {name} {answer}");
        }
    }
    let (mut asked, mut arrived) = (0_u64, 0_u64);
    tree.each(|property| {
        let is_cpu = property.parent == "cpus" && property.node.starts_with("cpu@");
        if is_cpu && property.name == "reg" && property.number() != 0 {
            asked += 1;
            let id = cpu_on.unwrap_or(function::CPU_ON);
            match turn_on(id, property.number(), asked) {
                0 => arrived += 1,
                answer => println!("PSCI cpu {:#x}: {answer}", property.number()),
            }
        }
    });
    println!("PSCI {} cpus of {}", arrived + 1, asked + 1);
    if tree.bootargs() == "then-reset" {
        call(function::SYSTEM_RESET, [0; 3]);
    }
}

/// Turns on the CPU `mpidr` and waits until it has arrived.
fn turn_on(function: u32, mpidr: u64, number: u64) -> i64 {
    let top = STACKS + number * STACK + STACK - 64;
    let context = top as *mut Context;
    // SAFETY: memory that is neither ours nor, before it runs, the CPU's.
    unsafe { context.write_volatile(Context { run: arrive, arrived: u64::MAX }) };
    let answer = call(function, [mpidr, secondary as *const () as u64, top]);
    if answer != 0 {
        return answer;
    }
    for _ in 0..PATIENCE {
        // SAFETY: the CPU writes it once, whole.
        if unsafe { (&raw const (*context).arrived).read_volatile() } == mpidr {
            return 0;
        }
    }
    i64::MIN
}

extern "C" fn arrive(context: &Context) -> ! {
    let mpidr: u64;
    // SAFETY: it reads who we are.
    unsafe { core::arch::asm!("mrs {}, mpidr_el1", out(reg) mpidr) };
    let arrived = (&raw const context.arrived).cast_mut();
    // SAFETY: the first CPU only reads it, by a pointer of its own.
    unsafe { arrived.write_volatile(mpidr & 0xff_00ff_ffff) };
    wait()
}

/// Strings of a property, a space between.
struct Words(&'static str);

impl core::fmt::Display for Words {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.split('\0').enumerate().try_for_each(|(index, word)| {
            if index > 0 {
                f.write_str(" ")?
            }
            f.write_str(word)
        })
    }
}
