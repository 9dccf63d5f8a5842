//! Prints all that a guest can find out about the firmware and the processor it
//! has, a line for each fact, the same lines in the same order on every host.
//!
//! A line begins with its part: `firmware`, `id` for what the processor says of
//! itself, or `cpu` for what it does when asked. A line that ends in `per-cpu` may
//! be another on another CPU. Nothing that is asked has an effect that stays. With
//! `two` on the command line, a second CPU asks for itself, and where it gets
//! another answer, it is printed.
#![no_std]
#![no_main]

mod firmware;
mod gic;
mod identity;
mod instructions;
mod second;

use core::fmt::Write;

use kedge_payloads::devicetree::DeviceTree;
use kedge_payloads::serial::Serial;
use kedge_payloads::start::Boot;
use kedge_payloads::{guest, println};

guest!(main);

fn main(boot: &Boot) {
    let Some(tree) = DeviceTree::at(boot.x0) else { return };
    firmware::in_the_tree(&mut Serial, tree);
    gic::ask(&mut Serial, tree);
    of_this_cpu(&mut Serial);
    if tree.bootargs() == "two" {
        second::compare(tree);
    }
    println!("fingerprint done");
}

/// What each CPU can be asked.
fn of_this_cpu(out: &mut dyn Write) {
    firmware::ask(out);
    identity::ask(out);
    instructions::ask(out);
}
