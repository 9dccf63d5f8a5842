//! Says in hexadecimal which bytes arrive at its serial port, until a `q`.
#![no_std]
#![no_main]

use kedge_payloads::start::Boot;
use kedge_payloads::{guest, println, serial};

guest!(main);

fn main(_: &Boot) {
    println!("ECHO ready");
    loop {
        let byte = serial::receive();
        println!("ECHO {byte:02x}");
        if byte == b'q' {
            return;
        }
    }
}
