//! What the rows need of kernels that there are not, beside those of the model.

use kedge_hv_model::invented::{NEW_BANK, NEXT_LEVEL, SIZES};
use kedge_hv_model::{Invented, Release, V7_2, register};
use kedge_ids::RegId;

/// The registers of the new bank of [`kedge_hv_model::invented::every_size`], the
/// smallest first.
pub(crate) fn new_bank() -> [RegId; 9] {
    SIZES.map(|bytes| register(NEW_BANK, 0, bytes))
}

/// Linux 7.2 with a level more, each vCPU's own.
pub(crate) fn level_more() -> Release {
    Invented::after(&V7_2, "with a level more").with_state(NEXT_LEVEL, &[0x2]).release()
}
