//! How long a guest has taken until it says that it is up (FIRECRACKER_API.md, 16).

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::info;

/// The clocks when the guest was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began {
    wall: Duration,
    cpu: Duration,
}

impl Began {
    /// It is asked for now.
    pub(crate) fn now() -> Self {
        Self { wall: read(ClockId::Monotonic), cpu: read(ClockId::ProcessCPUTime) }
    }

    /// The monotonic clock and that of the process's CPU time.
    pub(crate) fn times(self) -> [Duration; 2] {
        [self.wall, self.cpu]
    }

    /// It is up: says so in the log.
    pub(crate) fn log(self) {
        let now = Self::now();
        let [wall, cpu] = [(now.wall, self.wall), (now.cpu, self.cpu)]
            .map(|(now, then)| now.saturating_sub(then));
        info!("{}", line(wall, cpu));
    }
}

/// As clients read it.
fn line(wall: Duration, cpu: Duration) -> String {
    let [(wall_us, wall_ms), (cpu_us, cpu_ms)] =
        [wall, cpu].map(|time| (time.as_micros(), time.as_millis()));
    format!("Guest-boot-time = {wall_us:>6} us {wall_ms} ms, {cpu_us:>6} CPU us {cpu_ms} CPU ms")
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_one_that_clients_read() {
        let line = line(Duration::from_micros(1_234_567), Duration::from_micros(890));
        assert_eq!(line, "Guest-boot-time = 1234567 us 1234 ms,    890 CPU us 0 CPU ms");
    }
}
