//! `PATCH /vm` (FIRECRACKER_API.md, 3.1).

use serde::Deserialize;

use super::{Call, Fault, Parsed, body};

/// What a machine is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum WantedState {
    /// Stand still.
    Paused,
    /// Go on.
    Resumed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    state: WantedState,
}

pub(super) fn read(bytes: &[u8]) -> Result<Parsed, Fault> {
    let Body { state } = body::read(bytes)?;
    Ok(Call::SetState(state).into())
}
