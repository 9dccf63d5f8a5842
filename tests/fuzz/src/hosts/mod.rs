//! The devices that are fuzzed, each with what the host's side of it may do.

mod block;
mod image;
mod net;
mod program;
mod rng;
mod user;
mod vsock;

use arbitrary::{Result, Unstructured};

use crate::driver::{Driver, Subject};
use crate::front::{Front, Mmio, Pci};

/// A driver of a disk.
pub fn block(data: &[u8]) {
    drive::<Mmio, _>(block::Disk::new, data);
}

/// A driver of a disk that is an image, or that a program has in its own way.
pub fn image(data: &[u8]) {
    let of = |from: &mut Unstructured<'_>| match from.ratio(1, 6)? {
        true => block::Disk::of_program(from),
        false => block::Disk::of_image(from),
    };
    drive::<Mmio, _>(of, data);
}

/// A driver of a network card.
pub fn net(data: &[u8]) {
    drive::<Mmio, _>(net::Card::new, data);
}

/// A driver of an entropy device.
pub fn rng(data: &[u8]) {
    drive::<Mmio, _>(rng::Entropy::new, data);
}

/// A driver of a disk or a card that another process has, and that process.
pub fn vhost_user(data: &[u8]) {
    drive::<Mmio, _>(user::Lent::new, data);
}

/// A driver of a vsock device, and programs of the host.
pub fn vsock(data: &[u8]) {
    drive::<Mmio, _>(vsock::Sockets::new, data);
}

/// A driver of a disk behind either transport: the first byte says which.
pub fn transport(data: &[u8]) {
    let [which, data @ ..] = data else { return };
    match which % 4 {
        0 => drive::<Mmio, _>(block::Disk::new, data),
        _ => drive::<Pci, _>(block::Disk::new, data),
    }
}

/// Drives what `subject` makes of the beginning of `data` behind an `F`.
fn drive<F: Front, S: Subject>(
    subject: impl FnOnce(&mut Unstructured<'_>) -> Result<S>,
    data: &[u8],
) {
    let from = &mut Unstructured::new(data);
    if let Ok(subject) = subject(from) {
        Driver::<_, F>::drive(subject, from);
    }
}
