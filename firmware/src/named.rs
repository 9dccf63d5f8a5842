//! Registers by the names that plans give them, for an operator who names one.

use kedge_diag::Fix;
use kedge_ids::RegId;

use crate::hex::Hex;
use crate::probe::{PMCR_EL0, identity};
use crate::register::Firmware;

/// A text that names no register.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no register `{text}`")]
pub struct NoRegister {
    /// The text.
    pub text: String,
}

impl Fix for NoRegister {
    fn fix(&self) -> Option<String> {
        Some(
            "write it as the plan does, as in smccc_arch_workaround_3, ID_AA64PFR0_EL1, \
              S3_0_C0_C7_5 or 0x6030000000160002"
                .to_owned(),
        )
    }
}

/// The register that a plan calls `text`: by its name, by its encoding as assemblers
/// write it, or by its id in hexadecimal.
///
/// # Errors
/// There is no such register.
pub fn register_named(text: &str) -> Result<RegId, NoRegister> {
    let firmware = || text.parse::<Firmware>().ok().map(Firmware::id);
    let others = [("MPIDR_EL1", RegId::MPIDR_EL1), ("PMCR_EL0", PMCR_EL0)];
    let other = || others.into_iter().find(|(name, _)| *name == text).map(|(_, id)| id);
    let by_id = || Hex::parse(text).map(|id| RegId(id.0));
    firmware()
        .or_else(|| identity::register(text))
        .or_else(other)
        .or_else(|| encoded(text))
        .or_else(|| cache(text))
        .or_else(by_id)
        .ok_or_else(|| NoRegister { text: text.to_owned() })
}

/// `S3_0_C0_C7_5`: op0, op1, CRn, CRm and op2 (Arm DDI 0487, C5.3.1).
fn encoded(text: &str) -> Option<RegId> {
    let parts: Vec<&str> = text.strip_prefix('S')?.split('_').collect();
    let [op0, op1, crn, crm, op2] = parts.try_into().ok()?;
    let number = |text: &str, most: u64| text.parse().ok().filter(|number| *number <= most);
    let [op0, op1, op2] = [number(op0, 3)?, number(op1, 7)?, number(op2, 7)?];
    let (crn, crm) = (number(crn.strip_prefix('C')?, 15)?, number(crm.strip_prefix('C')?, 15)?);
    Some(RegId::system(op0, op1, crn, crm, op2))
}

/// The 32-bit register with the geometry of a cache (Linux,
/// Documentation/virt/kvm/api.rst, 4.68: CCSIDR registers).
fn cache(text: &str) -> Option<RegId> {
    const CCSIDR: u64 = 0x6020_0000_0011_0000;
    let index: u8 = text.strip_prefix("CCSIDR_EL1 of cache ")?.parse().ok()?;
    Some(RegId(CCSIDR | u64::from(index)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::name_of;
    use crate::table::TABLE;

    #[test]
    fn what_a_plan_calls_a_register_names_it() {
        let known = TABLE.iter().map(|row| row.id);
        let more = [
            RegId::MPIDR_EL1,
            PMCR_EL0,
            RegId::system(3, 0, 0, 4, 0),
            RegId::system(3, 0, 0, 7, 7),
            RegId::system(3, 3, 14, 2, 1),
            RegId(0x6020_0000_0011_0003),
            RegId(0x6030_0000_0016_0009),
            RegId::PC,
        ];
        for id in known.chain(more) {
            assert_eq!(register_named(&name_of(id)), Ok(id), "{}", name_of(id));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "S3_0_C0_C7", "S4_0_C0_C0_0", "S3_0_C16_C0_0", "CCSIDR_EL1", "x0"] {
            assert!(register_named(text).is_err(), "{text}");
        }
    }
}
