//! A guest without header: says where it was entered and what x0 pointed to.
#![no_std]
#![no_main]

use kedge_payloads::devicetree::DeviceTree;
use kedge_payloads::start::Boot;
use kedge_payloads::{flat_guest, println};

flat_guest!(main);

fn main(boot: &Boot) {
    println!("FLAT entered at {:#x}", boot.entered_at);
    match DeviceTree::at(boot.x0) {
        Some(tree) => {
            println!("FLAT device tree at {:#x}", boot.x0);
            println!("FLAT bootargs [{}]", tree.bootargs());
            tree.each(|property| {
                if property.node.starts_with("memory@") && property.name == "reg" {
                    println!("FLAT {} {:x?}", property.node, property.value);
                }
            });
        }
        None => println!("FLAT no device tree at {:#x}", boot.x0),
    }
}
