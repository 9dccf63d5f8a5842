//! What goes wrong with a device while its guest runs, and who hears of it beside the log.

use std::fmt;
use std::sync::Arc;

/// Something that went wrong with a device. What a guest can cause again and again is told
/// the first time, the second, the fourth, the eighth and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mishap {
    /// What kind of mishap it is.
    pub kind: MishapKind,
    /// Which device: "disk `root`".
    pub device: String,
    /// What is wrong.
    pub why: String,
    /// How often it has happened by now.
    pub times: u64,
}

/// A kind of mishap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MishapKind {
    /// The guest has corrupted the device's rings or registers: it works again once its
    /// driver has reset it (Virtio 1.2, 2.1.1).
    NeedsReset,
    /// The host cannot do what the guest asked for.
    HostFails,
}

/// Who hears of mishaps. It must not wait: devices do, meanwhile.
#[derive(Clone)]
pub struct MishapListener(Arc<dyn Fn(Mishap) + Send + Sync>);

impl MishapListener {
    /// Has `hear` hear of them.
    pub fn new(hear: impl Fn(Mishap) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Tells of a mishap.
    pub(crate) fn tell(&self, mishap: Mishap) {
        (self.0)(mishap);
    }
}

impl fmt::Debug for MishapListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MishapListener")
    }
}
