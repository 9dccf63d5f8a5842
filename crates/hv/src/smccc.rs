//! Which calls of the SMC Calling Convention (Arm DEN0028) reach whom.

use serde::{Deserialize, Serialize};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmcccAction {
    /// The hypervisor answers, as without a filter: a service that a bitmap switches
    /// off stays off.
    Handle,
    /// The guest is told NOT_SUPPORTED.
    Deny,
    /// The user answers: the vCPU leaves its guest with [`crate::Exit::Hypercall`].
    Forward,
}

/// What becomes of the calls of some function ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SmcccRange {
    /// The first function id.
    pub base: u32,
    /// How many, the first included.
    pub count: u32,
    /// What becomes of them.
    pub action: SmcccAction,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_written_in_lower_case() {
        let range = SmcccRange { base: 0xc600_0040, count: 2, action: SmcccAction::Forward };
        let text = serde_json::to_string(&range).unwrap();
        assert_eq!(text, r#"{"base":3321888832,"count":2,"action":"forward"}"#);
    }
}
