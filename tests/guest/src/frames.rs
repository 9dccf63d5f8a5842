//! The frames that a host sends and receives: how long the longest is from an address, and to it.

use std::net::Ipv4Addr;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketType, recv, socket};

/// All protocols (linux/if_ether.h), which the kernel wants with the highest byte first.
const ETH_P_ALL: u16 = 3;
/// Where a frame says that it is of IPv4, whom it is from and whom it is for (IEEE 802.3, RFC 791).
const TYPE: usize = 12;
const IPV4: [u8; 2] = [0x08, 0x00];
const SOURCE: usize = 26;
const DESTINATION: usize = 30;
const HEADERS: usize = 34;
/// How often the watch looks whether it is over.
const TURN: Duration = Duration::from_millis(100);

/// The longest frames so far in bytes, with their headers.
#[derive(Debug, Default)]
struct Longest {
    from: AtomicU64,
    to: AtomicU64,
}

/// A watch over the frames of one address, until it is dropped.
pub(crate) struct Watch {
    longest: Arc<Longest>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches the frames of `address`, on whatever card.
    ///
    /// # Errors
    /// The host does not let programs see its frames.
    pub(crate) fn over(address: Ipv4Addr) -> anyhow::Result<Self> {
        let all = NonZero::new(u32::from(ETH_P_ALL.to_be())).map(Protocol::from_raw);
        let frames = socket(AddressFamily::PACKET, SocketType::RAW, all)
            .context("cannot see the host's frames")?;
        set_socket_timeout(&frames, Timeout::Recv, Some(TURN))?;
        let (longest, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (found, stopped) = (Arc::clone(&longest), Arc::clone(&stop));
        let thread = Some(thread::spawn(move || watch(&frames, address, &found, &stopped)));
        Ok(Self { longest, stop, thread })
    }

    /// The length of the longest frame so far from the address, in bytes with its header.
    pub(crate) fn longest_from(&self) -> u64 {
        self.longest.from.load(Ordering::SeqCst)
    }

    /// The same of those to it.
    pub(crate) fn longest_to(&self) -> u64 {
        self.longest.to.load(Ordering::SeqCst)
    }
}

fn watch(frames: &OwnedFd, address: Ipv4Addr, longest: &Longest, stopped: &AtomicBool) {
    let mut frame = [0; HEADERS];
    while !stopped.load(Ordering::SeqCst) {
        // None came for a while, or more than the host kept.
        let Ok((_, length)) = recv(frames, &mut frame, RecvFlags::TRUNC) else { continue };
        if length < HEADERS || !frame[TYPE..].starts_with(&IPV4) {
            continue;
        }
        for (place, longest) in [(SOURCE, &longest.from), (DESTINATION, &longest.to)] {
            if frame[place..].starts_with(&address.octets()) {
                longest.fetch_max(u64::try_from(length).unwrap_or(u64::MAX), Ordering::SeqCst);
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
