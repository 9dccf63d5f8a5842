//! What the suite runs on: a hypervisor, and the way guest code gets into it.

use kedge_guest_memory::{Bytes, GuestMemoryRegion, RamRegion};
use kedge_hv::Hypervisor;
use kedge_hv_model::{ModelHypervisor, Program};
use kedge_ids::{VcpuId, usize_from};

use crate::code;

/// A hypervisor under test.
pub trait Backend: Send + Sync {
    /// What makes machines.
    fn hypervisor(&self) -> &dyn Hypervisor;

    /// How guest code gets into them.
    fn guest_code(&self) -> &dyn GuestCode;
}

/// Guest code: a program in the model's terms, brought into a machine.
pub trait GuestCode {
    /// Lets a vCPU, which does not exist yet, run `program`. `places` are where its
    /// main part and its vector begin, in bytes from the start of `ram`.
    ///
    /// # Errors
    /// The program cannot be had here.
    fn load(
        &self,
        id: VcpuId,
        program: &Program,
        ram: &RamRegion,
        places: (u64, u64),
    ) -> anyhow::Result<()>;
}

/// The model.
#[derive(Debug)]
pub struct Model(pub ModelHypervisor);

impl Backend for Model {
    fn hypervisor(&self) -> &dyn Hypervisor {
        &self.0
    }

    fn guest_code(&self) -> &dyn GuestCode {
        self
    }
}

impl GuestCode for Model {
    fn load(
        &self,
        id: VcpuId,
        program: &Program,
        _: &RamRegion,
        _: (u64, u64),
    ) -> anyhow::Result<()> {
        self.0.set_program(id, program.clone());
        Ok(())
    }
}

/// Guest code as A64 instructions in guest memory, for a hypervisor that runs them.
#[derive(Clone, Copy, Debug)]
pub struct Instructions;

impl GuestCode for Instructions {
    fn load(
        &self,
        _: VcpuId,
        program: &Program,
        ram: &RamRegion,
        (main, vector): (u64, u64),
    ) -> anyhow::Result<()> {
        let memory = ram.as_volatile_slice()?;
        for (steps, at) in [(&program.main, main), (&program.vector, vector)] {
            let words = code::assemble(steps)?;
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            memory.write_slice(&bytes, usize_from(at))?;
        }
        Ok(())
    }
}
