//! What runs in a guest to send datagrams that its network card cuts: ten of 1000 bytes, in
//! one call, to the address given. The bytes of each are its number.

// UNSAFETY: no library in use has this socket option.
#![expect(unsafe_code)]

use std::io::{Error, Result};
use std::mem::size_of;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// The bytes of each.
const SIZE: usize = 1000;
/// `UDP_SEGMENT` (`linux/udp.h`).
const UDP_SEGMENT: libc::c_int = 103;

fn main() -> Result<()> {
    let Some(target) = std::env::args().nth(1) else {
        return Err(Error::other("give an address: 10.0.0.1:7010"));
    };
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(target)?;
    cut(&socket)?;
    let datagrams: Vec<u8> = (0..10).flat_map(|number| [number; SIZE]).collect();
    println!("SENT {}", socket.send(&datagrams)?);
    Ok(())
}

/// Has the kernel, or the card, cut what is sent.
fn cut(socket: &UdpSocket) -> Result<()> {
    let size = libc::c_int::try_from(SIZE).map_err(Error::other)?;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(Error::other)?;
    // SAFETY: the option is an `int`, which `size` is, and the kernel reads it at once.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_UDP,
            UDP_SEGMENT,
            (&raw const size).cast(),
            length,
        )
    };
    if done < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
