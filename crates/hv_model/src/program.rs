//! What a model vCPU runs: a script of steps instead of instructions.
//!
//! A step takes four bytes of address space, as an A64 instruction does, so the
//! program counter means the same: it stands on the step that a vCPU left with,
//! and moving it moves the vCPU in its script. Behind the last step the vCPU
//! waits for ever.

use kedge_hv::SystemEvent;
use kedge_ids::Spi;

/// Bytes of a load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Half,
    /// 4 bytes.
    Word,
    /// 8 bytes.
    Double,
}

impl Width {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Byte, Self::Half, Self::Word, Self::Double];

    /// The number of bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }
}

/// One thing that a guest does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Puts `value` into general-purpose register `reg`.
    Set {
        /// 0 to 30.
        reg: u8,
        /// The value.
        value: u64,
    },
    /// Loads into `reg`, zero-extended: from RAM where there is RAM, otherwise
    /// the vCPU exits.
    Load {
        /// 0 to 30.
        reg: u8,
        /// Where.
        address: u64,
        /// How much.
        width: Width,
    },
    /// Stores the low bytes of `reg`: to RAM, to a doorbell, or by an exit.
    Store {
        /// 0 to 30.
        reg: u8,
        /// Where.
        address: u64,
        /// How much.
        width: Width,
    },
    /// Loads a pair of registers, which hardware does not describe.
    LoadPair {
        /// Where.
        address: u64,
    },
    /// Calls the firmware: the function id in x0, its arguments in x1 to x3.
    Call,
    /// The same by SMC instead of HVC.
    SecureCall,
    /// Waits for an interrupt.
    Wait,
    /// Waits until this interrupt is raised. In the model only.
    AwaitIrq(Spi),
    /// Goes on this many steps from here; a negative number is back.
    Jump(i32),
    /// The hypervisor reports this event, whatever its firmware would do. In the
    /// model only.
    Event(SystemEvent),
    /// The hypervisor cannot run the vCPU any further. In the model only.
    Fail(String),
}

impl Step {
    /// Stores `value`.
    pub fn store(address: u64, width: Width, value: u64) -> [Self; 2] {
        [Self::Set { reg: VALUE, value }, Self::Store { reg: VALUE, address, width }]
    }

    /// Calls the firmware with up to three arguments; the answer is in x0.
    pub fn call(function: u32, arguments: [u64; 3]) -> [Self; 5] {
        let [x1, x2, x3] = arguments;
        [
            Self::Set { reg: 0, value: u64::from(function) },
            Self::Set { reg: 1, value: x1 },
            Self::Set { reg: 2, value: x2 },
            Self::Set { reg: 3, value: x3 },
            Self::Call,
        ]
    }
}

/// The register that [`Step::store`] goes through.
const VALUE: u8 = 8;

/// The script of a vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// What it does from where it is started: by its user through the program
    /// counter, or by CPU_ON.
    pub main: Vec<Step>,
    /// What it does at its vector (`VBAR_EL1` + 0x200) when it takes an
    /// external abort.
    pub vector: Vec<Step>,
    /// The address of its first step, where that is not where it is first started: in
    /// a machine that goes on from where another left off.
    pub base: Option<u64>,
}

impl Program {
    /// A program that takes no aborts.
    pub fn new(main: impl IntoIterator<Item = Step>) -> Self {
        Self { main: main.into_iter().collect(), vector: Vec::new(), base: None }
    }

    /// The same, whose first step is at `base` wherever it is started.
    pub fn at(self, base: u64) -> Self {
        Self { base: Some(base), ..self }
    }

    /// The same, which does `vector` at its vector.
    pub fn with_vector(self, vector: impl IntoIterator<Item = Step>) -> Self {
        Self { vector: vector.into_iter().collect(), ..self }
    }
}

/// Function ids of PSCI (Arm DEN0022), as a guest puts them into x0.
#[rustfmt::skip]
pub mod psci {
    /// The version of the interface.
    pub const VERSION:        u32 = 0x8400_0000;
    /// Turns the calling CPU off.
    pub const CPU_OFF:        u32 = 0x8400_0002;
    /// Turns another CPU on.
    pub const CPU_ON:         u32 = 0xc400_0003;
    /// Says whether a CPU is on.
    pub const AFFINITY_INFO:  u32 = 0xc400_0004;
    /// Turns the machine off.
    pub const SYSTEM_OFF:     u32 = 0x8400_0008;
    /// Starts the machine again.
    pub const SYSTEM_RESET:   u32 = 0x8400_0009;
    /// Says which functions there are.
    pub const FEATURES:       u32 = 0x8400_000a;
    /// Suspends the machine.
    pub const SYSTEM_SUSPEND: u32 = 0xc400_000e;
    /// Starts the machine again in a way of the caller's choice.
    pub const SYSTEM_RESET2:  u32 = 0xc400_0012;
    /// Turns the machine off in a way of the caller's choice.
    pub const SYSTEM_OFF2:    u32 = 0xc400_0015;
}
