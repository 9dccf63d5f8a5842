//! An entropy device under a driver that asks for 64 bytes at a time, as Linux does.

use kedge_devices::virtio::rng::Rng;

use crate::driver::{BUFFERS, Buffer, Driver};

pub(crate) fn request(count: u32) -> anyhow::Result<()> {
    let mut driver = Driver::new(Box::new(Rng::new()))?;
    let room = [Buffer { address: BUFFERS, length: 64, is_written: true }];
    (0..count).try_for_each(|_| driver.request(0, &room))
}
