//! Interrupt lines, and the registers that hold something of each of them (Arm IHI 0048,
//! 4.3, and IHI 0069, 12.9): by bits, pairs of bits or bytes.

/// What a controller knows of one interrupt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Line {
    group: bool,
    enabled: bool,
    /// Pending but for the level.
    latch: bool,
    level: bool,
    active: bool,
    priority: u8,
    edge: bool,
    /// Whom it goes to: an affinity for a GICv3, a set of vCPUs for a GICv2.
    target: u32,
    /// Which vCPUs sent it: an SGI of a GICv2.
    senders: u8,
}

/// The first interrupt that is not an SGI.
const FIRST_PPI: usize = 16;
/// SPIs of the largest controller.
const MOST_SPIS: u32 = 1020 - 32;
/// The first that is not private.
const FIRST_SPI: usize = 32;

impl Line {
    fn pending(&self) -> bool {
        self.latch || self.level && !self.edge
    }

    /// The SPIs of a controller as it is made, whatever number was asked for.
    pub(crate) fn spis(count: u32, rules: Rules) -> Vec<Self> {
        let line = Self { edge: true, group: rules == Rules::V3, ..Self::default() };
        vec![line; usize::try_from(count.min(MOST_SPIS)).unwrap_or_default()]
    }

    /// The private ones of a vCPU.
    pub(crate) fn private(rules: Rules) -> Vec<Self> {
        let sgi = |n| n < FIRST_PPI;
        let line = |n| Self {
            enabled: sgi(n),
            edge: sgi(n),
            group: rules == Rules::V3,
            ..Self::default()
        };
        (0..FIRST_SPI).map(line).collect()
    }
}

/// Whose rules registers follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// A GICv2's, once its revision was chosen or before.
    V2 {
        /// Whether groups can be written.
        groups: bool,
    },
    /// A GICv3's.
    V3,
}

/// What a register holds of its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bank {
    Group,
    Enable(Write),
    Pending(Write),
    Active(Write),
    Priority,
    Target,
    Config,
    Senders(Write),
    Route,
}

/// What the bits of a value that are set do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    Set,
    Clear,
}

/// The register at an offset: its bank, the number of its first line, and how many it
/// has.
fn bank(offset: u32, rules: Rules) -> Option<(Bank, usize, usize)> {
    let (bank, first, lines) = match offset {
        0x80..0x100 => (Bank::Group, 0x80, 32),
        0x100..0x180 => (Bank::Enable(Write::Set), 0x100, 32),
        0x180..0x200 => (Bank::Enable(Write::Clear), 0x180, 32),
        0x200..0x280 => (Bank::Pending(Write::Set), 0x200, 32),
        0x280..0x300 => (Bank::Pending(Write::Clear), 0x280, 32),
        0x300..0x380 => (Bank::Active(Write::Set), 0x300, 32),
        0x380..0x400 => (Bank::Active(Write::Clear), 0x380, 32),
        0x400..0x800 => (Bank::Priority, 0x400, 4),
        0xc00..0xd00 => (Bank::Config, 0xc00, 16),
        0x800..0xc00 if rules != Rules::V3 => (Bank::Target, 0x800, 4),
        0xf10..0xf20 if rules != Rules::V3 => (Bank::Senders(Write::Clear), 0xf10, 4),
        0xf20..0xf30 if rules != Rules::V3 => (Bank::Senders(Write::Set), 0xf20, 4),
        // The upper halves hold nothing: there is no fourth level of affinity.
        0x6000..0x8000 if rules == Rules::V3 && offset.is_multiple_of(8) => {
            return Some((Bank::Route, usize::try_from((offset - 0x6000) / 8).ok()?, 1));
        }
        _ => return None,
    };
    Some((bank, usize::try_from((offset - first) / 4).ok()? * lines, lines))
}

/// The lines that a register can be about.
pub(crate) struct Lines<'a> {
    /// The private ones of the vCPU through which it is reached, or none.
    pub(crate) private: &'a mut [Line],
    /// The shared ones, or none.
    pub(crate) shared: &'a mut [Line],
    /// The vCPU.
    pub(crate) cpu: u32,
    /// How many vCPUs there are.
    pub(crate) cpus: usize,
    pub(crate) rules: Rules,
}

impl Lines<'_> {
    /// The lines from `first` on, at most so many, each with its number; those that there
    /// are.
    fn from(&mut self, first: usize, count: usize) -> impl Iterator<Item = (usize, &mut Line)> {
        let private = self.private.iter_mut().enumerate();
        let shared = self.shared.iter_mut().enumerate();
        let all = private.chain(shared.map(|(n, line)| (n + FIRST_SPI, line)));
        all.filter(move |(n, _)| (first..first + count).contains(n))
    }

    /// What is read at `offset`; nothing of lines is 0.
    pub(crate) fn read(&mut self, offset: u32) -> u32 {
        let rules = self.rules;
        let Some((bank, first, count)) = bank(offset, rules) else { return 0 };
        let width = 32 / u32::try_from(count).unwrap_or(1);
        let own = 1 << (self.cpu % 8);
        self.from(first, count).fold(0, |value, (n, line)| {
            let bits = match bank {
                Bank::Group => line.group.into(),
                Bank::Enable(_) => line.enabled.into(),
                // The level is apart, and clearing is not for the user.
                Bank::Pending(Write::Set) if rules == Rules::V3 => line.latch.into(),
                Bank::Pending(_) if rules == Rules::V3 => 0,
                Bank::Pending(_) => line.pending().into(),
                Bank::Active(_) => line.active.into(),
                Bank::Priority => line.priority.into(),
                Bank::Target if n < FIRST_SPI => own,
                Bank::Target | Bank::Route => line.target,
                Bank::Config => u32::from(line.edge) << 1,
                Bank::Senders(_) => line.senders.into(),
            };
            value | bits << (width * u32::try_from(n - first).unwrap_or(0))
        })
    }

    /// Writes at `offset`.
    pub(crate) fn write(&mut self, offset: u32, value: u32) {
        let rules = self.rules;
        let Some((bank, first, count)) = bank(offset, rules) else { return };
        let width = 32 / u32::try_from(count).unwrap_or(1);
        let own = 1 << (self.cpu % 8);
        let everybody = (1 << self.cpus.min(8)) - 1;
        for (n, line) in self.from(first, count) {
            let bits = value >> (width * u32::try_from(n - first).unwrap_or(0));
            line.write(bank, n, bits, (rules, own, everybody));
        }
    }

    /// The levels of 32 lines.
    pub(crate) fn levels(&mut self, first: usize) -> u32 {
        let high = |line: &Line| line.level && !line.edge;
        self.from(first, 32)
            .fold(0, |value, (n, line)| value | u32::from(high(line)) << (n - first))
    }

    /// Sets them. SGIs have no lines.
    pub(crate) fn set_levels(&mut self, first: usize, value: u32) {
        for (n, line) in self.from(first, 32).filter(|(n, _)| *n >= FIRST_PPI) {
            line.level = value >> (n - first) & 1 != 0;
        }
    }
}

impl Line {
    fn write(
        &mut self,
        bank: Bank,
        n: usize,
        bits: u32,
        (rules, own, everybody): (Rules, u8, u32),
    ) {
        let set = bits & 1 != 0;
        let byte = u8::try_from(bits & 0xff).unwrap_or_default();
        match bank {
            Bank::Group if rules == (Rules::V2 { groups: false }) => {}
            Bank::Group => self.group = set,
            Bank::Enable(write) => change(&mut self.enabled, set, write),
            Bank::Active(write) => change(&mut self.active, set, write),
            // As it was, whatever it was.
            Bank::Pending(Write::Set) if rules == Rules::V3 => self.latch = set,
            Bank::Pending(Write::Clear) if rules == Rules::V3 => {}
            Bank::Pending(write) if set => {
                self.latch = write == Write::Set;
                let sgi = n < FIRST_PPI;
                self.senders = if self.latch && sgi { self.senders | own } else { 0 };
            }
            // Five bits of priority.
            Bank::Priority => self.priority = byte & 0xf8,
            Bank::Target if n >= FIRST_SPI => self.target = bits & everybody,
            Bank::Config if n >= FIRST_SPI => self.edge = bits & 0b10 != 0,
            Bank::Senders(Write::Set) if byte != 0 => {
                self.senders |= byte;
                self.latch = true;
            }
            Bank::Senders(Write::Clear) => {
                self.senders &= !byte;
                self.latch &= self.senders != 0;
            }
            Bank::Route => self.target = bits & 0xff_ffff,
            Bank::Pending(_) | Bank::Target | Bank::Config | Bank::Senders(_) => {}
        }
    }
}

fn change(state: &mut bool, chosen: bool, write: Write) {
    if chosen {
        *state = write == Write::Set;
    }
}
