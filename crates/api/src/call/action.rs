//! `PUT /actions` (FIRECRACKER_API.md, 3.1).

use serde::Deserialize;

use super::{Call, Fault, Parsed, body};

/// What is to happen once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Action {
    /// The machine starts.
    InstanceStart,
    /// Metrics are written.
    FlushMetrics,
    /// A keyboard that arm64 machines have not.
    SendCtrlAltDel,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    action_type: Action,
}

pub(super) fn read(bytes: &[u8]) -> Result<Parsed, Fault> {
    let Body { action_type } = body::read(bytes)?;
    match action_type {
        Action::InstanceStart => Ok(Call::Start.into()),
        Action::FlushMetrics => Ok(Call::FlushMetrics.into()),
        Action::SendCtrlAltDel => Err(Fault::Fields {
            wrong: "SendCtrlAltDel does not supported on aarch64. It is a keyboard's, and the \
                    machine has none",
            cure: "run `poweroff` in the guest, or end the process",
        }),
    }
}
