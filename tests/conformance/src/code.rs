//! Steps as A64 instructions (Arm DDI 0487, C6.2): the few that the cases need.

use anyhow::{Context, bail};
use kedge_hv_model::{Step, Width};
use kedge_ids::u64_from;

/// The register that addresses go through: one that no step uses.
const ADDRESS: u32 = 16;
/// The pair that an undecodable load would fill.
const PAIR: (u32, u32) = (17, 18);

const HVC_0: u32 = 0xd400_0002;
const SMC_0: u32 = 0xd400_0003;
const WFI: u32 = 0xd503_207f;

/// The instructions of `steps`. Behind the last one the vCPU waits for ever.
///
/// # Errors
/// A step exists in the model only, or a jump leaves the program.
pub fn assemble(steps: &[Step]) -> anyhow::Result<Vec<u32>> {
    let mut starts = Vec::with_capacity(steps.len() + 1);
    let mut length = 0;
    for step in steps {
        starts.push(length);
        length += words(step)?;
    }
    starts.push(length);
    let mut code = Vec::with_capacity(length + 2);
    for (index, step) in steps.iter().enumerate() {
        match *step {
            Step::Set { reg, value } => code.extend(set(reg.into(), value)),
            Step::Load { reg, address, width } => {
                code.extend(set(ADDRESS, address));
                code.push(access(width) | LOAD | ADDRESS << 5 | u32::from(reg));
            }
            Step::Store { reg, address, width } => {
                code.extend(set(ADDRESS, address));
                code.push(access(width) | ADDRESS << 5 | u32::from(reg));
            }
            Step::LoadPair { address } => {
                code.extend(set(ADDRESS, address));
                code.push(0xa940_0000 | PAIR.1 << 10 | ADDRESS << 5 | PAIR.0);
            }
            Step::Call => code.push(HVC_0),
            Step::SecureCall => code.push(SMC_0),
            Step::Wait => code.push(WFI),
            Step::Jump(steps) => code.push(jump(&starts, index, steps)?),
            Step::AwaitIrq(_) | Step::Event(_) | Step::Fail(_) => {
                bail!("the model's only: {step:?}")
            }
        }
    }
    code.extend([WFI, branch(-1)?]);
    Ok(code)
}

/// How many instructions a step takes.
fn words(step: &Step) -> anyhow::Result<usize> {
    match step {
        Step::Set { .. } => Ok(4),
        Step::Load { .. } | Step::Store { .. } | Step::LoadPair { .. } => Ok(5),
        Step::Call | Step::SecureCall | Step::Wait | Step::Jump(_) => Ok(1),
        Step::AwaitIrq(_) | Step::Event(_) | Step::Fail(_) => bail!("the model's only: {step:?}"),
    }
}

/// MOVZ and three MOVKs, whatever the value: every step has a fixed length.
fn set(reg: u32, value: u64) -> [u32; 4] {
    const MOVZ: u32 = 0xd280_0000;
    const MOVK: u32 = 0xf280_0000;
    [0, 1, 2, 3].map(|half: u32| {
        let opcode = if half == 0 { MOVZ } else { MOVK };
        let bits = u32::try_from(value >> (16 * half) & 0xffff).unwrap_or_default();
        opcode | half << 21 | bits << 5 | reg
    })
}

/// LDR (immediate, unsigned offset) instead of STR.
const LOAD: u32 = 1 << 22;

/// STRB, STRH, STR (immediate, unsigned offset 0).
const fn access(width: Width) -> u32 {
    match width {
        Width::Byte => 0x3900_0000,
        Width::Half => 0x7900_0000,
        Width::Word => 0xb900_0000,
        Width::Double => 0xf900_0000,
    }
}

fn jump(starts: &[usize], index: usize, steps: i32) -> anyhow::Result<u32> {
    let target = i64::try_from(index)? + i64::from(steps);
    let target = usize::try_from(target).ok().and_then(|target| starts.get(target));
    let target = target.context("a jump leaves the program")?;
    branch(i64::try_from(u64_from(*target))? - i64::try_from(u64_from(starts[index]))?)
}

/// B, by so many instructions.
fn branch(offset: i64) -> anyhow::Result<u32> {
    let offset = i32::try_from(offset)?.cast_unsigned() & 0x03ff_ffff;
    Ok(0x1400_0000 | offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_an_assembler() {
        let steps = [
            Step::Set { reg: 3, value: 0x1234_5678_9abc_def0 },
            Step::Load { reg: 1, address: 0x1000, width: Width::Half },
            Step::Call,
            Step::Jump(-1),
        ];
        let code = assemble(&steps).unwrap();
        // movz x3, #0xdef0; movk x3, #0x9abc, lsl #16; ...
        assert_eq!(code[..4], [0xd29b_de03, 0xf2b3_5783, 0xf2ca_cf03, 0xf2e2_4683]);
        // ldrh w1, [x16]; hvc #0; b .-4; wfi; b .-4
        assert_eq!(code[8..], [0x7940_0201, HVC_0, 0x17ff_ffff, WFI, 0x17ff_ffff]);
    }

    #[test]
    fn what_only_the_model_has_is_refused() {
        assert!(assemble(&[Step::Fail("broken".to_owned())]).is_err());
    }
}
