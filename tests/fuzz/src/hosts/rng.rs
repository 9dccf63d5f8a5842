//! An entropy device.

use arbitrary::{Result, Unstructured};
use kedge_devices::virtio::catalog::DeviceConfig;
use kedge_devices::virtio::device::VirtioDevice;
use kedge_devices::virtio::rng::{KIND, Rng};

use crate::driver::{Request, Subject};
use crate::words::Words;

#[rustfmt::skip]
const WORDS: Words = Words {
    kind: &KIND,
    options: &[
        ("bandwidth", &["1G", "16", "64/1ms", "8+64", "x"]),
        ("ops", &["100000", "2/1ms", "1+3", "0"]),
    ],
    fields: &[
        ("rate_limiter", &[
            "null", "{}", "{\"ops\": {\"size\": 2, \"refill_time\": 1}}",
            "{\"bandwidth\": {\"size\": 64, \"refill_time\": 1, \"one_time_burst\": 5}}", "[]",
        ]),
    ],
};

pub(super) struct Entropy(Option<Box<dyn DeviceConfig>>);

impl Entropy {
    pub(super) fn new(from: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self(WORDS.say("", from)?))
    }
}

impl Subject for Entropy {
    fn device(&mut self) -> Box<dyn VirtioDevice> {
        match &self.0 {
            Some(config) => config.open().expect("the host has random numbers"),
            None => {
                let device = Rng::default();
                drop(format!("{device:?} {:?}", device.metrics()));
                Box::new(device)
            }
        }
    }

    fn happen(&mut self, _from: &mut Unstructured<'_>) -> Result<()> {
        Ok(())
    }

    fn request(
        &mut self,
        _queue: usize,
        _queues: usize,
        from: &mut Unstructured<'_>,
    ) -> Result<Request> {
        let writable = match from.ratio(3, 4)? {
            true => from.arbitrary::<u8>()?.into(),
            false => from.arbitrary::<u16>()?.into(),
        };
        let readable = vec![0; from.int_in_range(0..=40_usize)?.saturating_sub(35)];
        Ok(Request { readable, writable })
    }
}
