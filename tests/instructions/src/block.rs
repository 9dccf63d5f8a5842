//! A disk of memory under a driver that reads and writes it in pages, as Linux does.

use std::{fs::File, os::fd::AsRawFd};

use anyhow::{anyhow, ensure};
use kedge_devices::virtio::block::KIND;
use rustix::fs::MemfdFlags;
use serde_json::json;

use crate::driver::{BUFFERS, Buffer, Driver};

/// Bytes of the disk, and of a page.
const DISK: u64 = 1 << 20;
const PAGE: u32 = 4096;
/// Types of requests (Virtio 1.2, 5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;

/// Reads `bytes` at a time.
pub(crate) fn read(bytes: u32, count: u32) -> anyhow::Result<()> {
    requests(IN, bytes, count)
}

/// Writes `bytes` at a time.
pub(crate) fn write(bytes: u32, count: u32) -> anyhow::Result<()> {
    requests(OUT, bytes, count)
}

fn requests(kind: u32, bytes: u32, count: u32) -> anyhow::Result<()> {
    let disk = File::from(rustix::fs::memfd_create("disk", MemfdFlags::CLOEXEC)?);
    disk.set_len(DISK)?;
    let path = format!("/proc/self/fd/{}", disk.as_raw_fd());
    let body = json!({"drive_id": "d", "is_root_device": false, "path_on_host": path,
        "cache_type": "Writeback"});
    let opened = (KIND.from_json)(body).and_then(|config| config.open());
    let mut driver = Driver::new(opened.map_err(|error| anyhow!("{error}"))?)?;

    let (header, status, data) = (BUFFERS, BUFFERS + 0x100, BUFFERS + 0x1000);
    let sector = 8_u64.to_le_bytes();
    driver.write(header, &[&kind.to_le_bytes()[..], &[0; 4], &sector].concat())?;
    let is_written = kind == IN;
    let mut chain = vec![Buffer { address: header, length: 16, is_written: false }];
    chain.extend((0..bytes / PAGE).map(|page| {
        let address = data + u64::from(page) * u64::from(PAGE);
        Buffer { address, length: PAGE, is_written }
    }));
    chain.push(Buffer { address: status, length: 1, is_written: true });
    for _ in 0..count {
        driver.write(status, &[0xff])?;
        driver.request(0, &chain)?;
        ensure!(driver.read::<1>(status)? == [0], "the disk could not do it");
    }
    Ok(())
}
