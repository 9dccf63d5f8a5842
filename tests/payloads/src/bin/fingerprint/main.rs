//! Prints all that a guest can find out about the firmware and the processor it
//! has, a line for each fact, the same lines in the same order on every host.
//!
//! A line begins with its part: `firmware`, `id` for what the processor says of
//! itself, or `cpu` for what it does when asked. A line that ends in `per-cpu` may
//! be another on another CPU. Nothing that is asked has an effect that stays. With
//! `two` on the command line, a second CPU asks for itself, and where it gets
//! another answer, it is printed. With `wait`, all is asked again after a byte has
//! come, and printed again; two lines between say the time of the virtual counter.
#![no_std]
#![no_main]
// UNSAFETY: registers are read by instructions.
#![expect(unsafe_code)]

mod firmware;
mod gic;
mod identity;
mod instructions;
mod second;

use core::arch::asm;
use core::fmt::Write;

use kedge_payloads::devicetree::DeviceTree;
use kedge_payloads::serial::{Serial, receive};
use kedge_payloads::start::Boot;
use kedge_payloads::{guest, println};

guest!(main);

fn main(boot: &Boot) {
    let Some(tree) = DeviceTree::at(boot.x0) else { return };
    let asked = tree.bootargs();
    of_the_machine(tree);
    if asked == "wait" {
        println!("fingerprint waits {}", virtual_counter());
        let _ = receive();
        println!("fingerprint woke {}", virtual_counter());
        of_the_machine(tree);
    }
    if asked == "two" {
        second::compare(tree);
    }
    println!("fingerprint done");
}

fn of_the_machine(tree: DeviceTree) {
    let mut out = Serial::default();
    firmware::in_the_tree(&mut out, tree);
    gic::ask(&mut out, tree);
    of_this_cpu(&mut out);
}

/// What each CPU can be asked.
fn of_this_cpu(out: &mut dyn Write) {
    firmware::ask(out);
    identity::ask(out);
    instructions::ask(out);
}

/// `CNTVCT_EL0` (Arm DDI 0487, D24.10), not read ahead of time.
fn virtual_counter() -> u64 {
    let count: u64;
    // SAFETY: it reads a register that is everywhere.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) count) };
    count
}
