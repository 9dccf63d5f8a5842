//! `tap_maker make|make-queues|remove NAME`: a tap interface of the host that stays, or goes.

mod tap_ioctl;

use anyhow::{Context, bail};

use tap_ioctl::{Lasting, open_tap, open_tap_queue, set_lasting};

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let usage = "usage: tap_maker make|make-queues|remove NAME";
    let (verb, name) = (words.next().context(usage)?, words.next().context(usage)?);
    match verb.as_str() {
        "make" => set_lasting(&open_tap(&name)?, Lasting::Yes),
        "make-queues" => set_lasting(&open_tap_queue(&name)?, Lasting::Yes),
        "remove" => set_lasting(&open_tap(&name)?, Lasting::No),
        _ => bail!("{usage}"),
    }
}
