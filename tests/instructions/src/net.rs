//! A network card, the other end of whose cable is a socket.

use std::os::fd::OwnedFd;

use anyhow::ensure;
use kedge_devices::{
    tap::{HEADER_SIZE, Tap},
    virtio::net::Net,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send as send_to, socketpair,
};

use crate::driver::{BUFFERS, Buffer, Driver};

/// The queues (Virtio 1.2, 5.1.2).
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Receives frames of so many bytes.
pub(crate) fn receive(bytes: usize, count: u32) -> anyhow::Result<()> {
    let (mut driver, cable) = card()?;
    let frame = vec![0; HEADER_SIZE + bytes];
    // Such as Linux gives a card with mergeable buffers.
    let room = [Buffer { address: BUFFERS, length: 1536, is_written: true }];
    for _ in 0..count {
        driver.offer(RECEIVE, &room)?;
        send_to(&cable, &frame, SendFlags::empty())?;
        driver.turn()?;
        driver.take(RECEIVE)?;
    }
    Ok(())
}

/// Sends frames of so many bytes.
pub(crate) fn send(bytes: usize, count: u32) -> anyhow::Result<()> {
    let (mut driver, cable) = card()?;
    let length = u32::try_from(HEADER_SIZE + bytes)?;
    let frame = [Buffer { address: BUFFERS, length, is_written: false }];
    let mut arrived = [0; 2048];
    for _ in 0..count {
        driver.request(TRANSMIT, &frame)?;
        let (_, length) = recv(&cable, &mut arrived[..], RecvFlags::empty())?;
        ensure!(length == HEADER_SIZE + bytes, "a frame has not arrived whole");
    }
    Ok(())
}

fn card() -> anyhow::Result<(Driver, OwnedFd)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (tap, cable) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let mac = "06:00:ac:10:00:02".parse().ok();
    let card = Net::new("eth0", vec![Tap::from(tap)], mac, None);
    Ok((Driver::new(Box::new(card))?, cable))
}
