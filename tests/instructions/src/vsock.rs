//! A stream between a program of the guest and one of the host, 1 KiB at a time.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
};

use anyhow::{anyhow, ensure};
use kedge_devices::virtio::vsock::KIND;
use serde_json::json;
use tempfile::TempDir;

use crate::driver::{BUFFERS, Buffer, Driver};

/// The queues (Virtio 1.2, 5.10.2).
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// The bytes of a packet's header (5.10.6), and of what follows it.
const HEADER: u32 = 44;
const PAYLOAD: u32 = 1024;
/// What packets are for.
const REQUEST: u16 = 1;
const RW: u16 = 5;
const CREDIT_UPDATE: u16 = 6;
/// Where packets are that the guest sends.
const SENT: u64 = BUFFERS;
/// Where all of those are that it receives: nobody reads them.
const ROOM: Buffer = Buffer { address: BUFFERS + 0x1000, length: HEADER + 4096, is_written: true };
/// After so many of the host's packets the guest says that it has room again.
const HALF: u32 = 32;

/// The guest sends.
pub(crate) fn to_host(count: u32) -> anyhow::Result<()> {
    let (mut driver, mut stream, _folder) = connected()?;
    let payload = SENT + u64::from(HEADER);
    let packet = [
        Buffer { address: SENT, length: HEADER, is_written: false },
        Buffer { address: payload, length: PAYLOAD, is_written: false },
    ];
    driver.write(SENT, &header(RW, PAYLOAD, 0))?;
    let mut arrived = [0; 2048];
    for _ in 0..count {
        driver.request(TRANSMIT, &packet)?;
        let length = stream.read(&mut arrived)?;
        ensure!(u32::try_from(length)? == PAYLOAD, "a packet has not arrived whole");
        // What it says of its room.
        refill(&mut driver)?;
    }
    Ok(())
}

/// The host sends.
pub(crate) fn to_guest(count: u32) -> anyhow::Result<()> {
    let (mut driver, mut stream, _folder) = connected()?;
    let mut forwarded = 0;
    for _ in 0..count {
        stream.write_all(&[7; 1024])?;
        driver.turn()?;
        ensure!(refill(&mut driver)? > 0, "a packet has not arrived");
        forwarded += PAYLOAD;
        if forwarded % (HALF * PAYLOAD) == 0 {
            say(&mut driver, CREDIT_UPDATE, forwarded)?;
        }
    }
    Ok(())
}

/// A program of the guest's connects to one of the host's.
fn connected() -> anyhow::Result<(Driver, UnixStream, TempDir)> {
    let folder = TempDir::new()?;
    let listener = UnixListener::bind(folder.path().join("v_1"))?;
    let body = json!({"guest_cid": 3, "uds_path": folder.path().join("v")});
    let opened = (KIND.from_json)(body).and_then(|config| config.open());
    let mut driver = Driver::new(opened.map_err(|error| anyhow!("{error}"))?)?;
    (0..2 * HALF).try_for_each(|_| driver.offer(RECEIVE, &[ROOM]))?;
    driver.ring(RECEIVE)?;
    say(&mut driver, REQUEST, 0)?;
    let (stream, _) = listener.accept()?;
    refill(&mut driver)?;
    Ok((driver, stream, folder))
}

/// Sends a packet without payload.
fn say(driver: &mut Driver, op: u16, forwarded: u32) -> anyhow::Result<()> {
    driver.write(SENT, &header(op, 0, forwarded))?;
    driver.request(TRANSMIT, &[Buffer { address: SENT, length: HEADER, is_written: false }])
}

/// Makes room for as many packets as have come; how many have.
fn refill(driver: &mut Driver) -> anyhow::Result<u16> {
    let count = driver.take_all(RECEIVE)?;
    (0..count).try_for_each(|_| driver.offer(RECEIVE, &[ROOM]))?;
    Ok(count)
}

/// `struct virtio_vsock_hdr` of a stream's packet (5.10.6).
fn header(op: u16, length: u32, forwarded: u32) -> Vec<u8> {
    const PORT: u32 = 1;
    const STREAM: u16 = 1;
    const ALL: u32 = 1 << 16;
    let (guest, host) = (3_u64, 2_u64);
    let fields: [&[u8]; 10] = [
        &guest.to_le_bytes(),
        &host.to_le_bytes(),
        &50_u32.to_le_bytes(),
        &PORT.to_le_bytes(),
        &length.to_le_bytes(),
        &STREAM.to_le_bytes(),
        &op.to_le_bytes(),
        &0_u32.to_le_bytes(),
        &ALL.to_le_bytes(),
        &forwarded.to_le_bytes(),
    ];
    fields.concat()
}
