//! Another CPU that asks for itself.

// UNSAFETY: it gets its stack, and room for what it has to say, in memory that no
// Rust object is in.
#![expect(unsafe_code)]

use core::fmt::{self, Write};
use core::{slice, str};

use kedge_payloads::devicetree::DeviceTree;
use kedge_payloads::println;
use kedge_payloads::psci::{call, function, wait};
use kedge_payloads::start::secondary;

use crate::of_this_cpu;

/// Memory of a machine with 16 MiB that nothing else is in: what each CPU says, and the
/// top of the second CPU's stack.
const FIRST_SAYS: u64 = 0x8060_0000;
const SECOND_SAYS: u64 = 0x8064_0000;
const ROOM: usize = 0x4_0000;
const STACK: u64 = 0x8070_0000;
/// How often a CPU is looked for before it is given up.
const PATIENCE: u64 = 2_000_000_000;

/// The top of a CPU's stack, which is its context.
#[repr(C)]
struct Context {
    run: extern "C" fn(&Context) -> !,
    /// How many bytes it has said, once it has said everything.
    said: u64,
}

/// Has the tree's second CPU ask, and prints where it got another answer.
pub(crate) fn compare(tree: DeviceTree) {
    let second = tree.find(|property| {
        property.parent == "cpus" && property.name == "reg" && property.number() != 0
    });
    let Some(second) = second else {
        println!("second: there is none");
        return;
    };
    let Some(other) = said_by(second.number()) else {
        println!("second: CPU {:#x} says nothing", second.number());
        return;
    };
    let mut own = Memory { at: FIRST_SAYS, used: 0 };
    of_this_cpu(&mut own);
    let own = text(FIRST_SAYS, own.used);
    let pairs = own.lines().zip(other.lines());
    let differing = pairs.filter(|(own, other)| own != other && !own.ends_with(" per-cpu"));
    let mut count = 0;
    for (own, other) in differing {
        count += 1;
        println!("second: {other}, first: {own}");
    }
    let (lines, others) = (own.lines().count(), other.lines().count());
    println!("second: {count} differ, {lines} and {others} lines");
}

/// What the CPU `mpidr` says.
fn said_by(mpidr: u64) -> Option<&'static str> {
    let context = STACK as *mut Context;
    // SAFETY: memory that is neither ours nor, before it runs, the CPU's.
    unsafe { context.write_volatile(Context { run: ask, said: 0 }) };
    if call(function::CPU_ON, [mpidr, secondary as *const () as u64, STACK]) != 0 {
        return None;
    }
    let said = (0..PATIENCE).find_map(|_| {
        // SAFETY: the CPU writes it once, whole, after all that it says.
        let said = unsafe { (&raw const (*context).said).read_volatile() };
        (said > 0).then_some(said)
    })?;
    Some(text(SECOND_SAYS, usize::try_from(said).ok()?))
}

extern "C" fn ask(context: &Context) -> ! {
    let mut memory = Memory { at: SECOND_SAYS, used: 0 };
    of_this_cpu(&mut memory);
    let said = (&raw const context.said).cast_mut();
    // SAFETY: the first CPU only reads it, by a pointer of its own, and what was written
    // before is to be there by then.
    unsafe {
        core::arch::asm!("dmb ish");
        said.write_volatile(memory.used as u64);
    }
    wait()
}

/// What is written to it lies in memory from `at` on.
struct Memory {
    at: u64,
    used: usize,
}

impl Write for Memory {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = ROOM.checked_sub(self.used + text.len()).ok_or(fmt::Error);
        room?;
        let to = (self.at + self.used as u64) as *mut u8;
        // SAFETY: there is room, and only this writer writes there.
        unsafe { to.copy_from_nonoverlapping(text.as_ptr(), text.len()) };
        self.used += text.len();
        Ok(())
    }
}

/// What lies there.
fn text(at: u64, length: usize) -> &'static str {
    // SAFETY: its writer has written that much, and is done.
    let bytes = unsafe { slice::from_raw_parts(at as *const u8, length) };
    str::from_utf8(bytes).unwrap_or("")
}
