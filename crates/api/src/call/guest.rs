//! What a guest is promised of its CPU and its firmware: Firecracker's `/cpu-config`
//! (FIRECRACKER_API.md, 3.2) and kedge's own `/guest-abi`.

use kedge_firmware::{CpuConfig, GuestAbi};

use super::{Call, Fault, Parsed, Setting, body};

/// `PUT /guest-abi`: a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// By its name, or by that of its file.
    Named(String),
    /// The document itself.
    Document(Box<GuestAbi>),
}

pub(super) fn read_cpu_config(bytes: &[u8]) -> Result<Parsed, Fault> {
    let read = CpuConfig::read(bytes).map_err(Fault::document)?;
    Ok(Call::Set(Setting::Cpu(Box::new(read))).into())
}

pub(super) fn read_profile(bytes: &[u8]) -> Result<Parsed, Fault> {
    let profile = match bytes.trim_ascii_start() {
        [b'"', ..] => Profile::Named(body::read(bytes)?),
        _ => Profile::Document(Box::new(GuestAbi::read(bytes).map_err(Fault::document)?)),
    };
    Ok(Call::Set(Setting::GuestAbi(profile)).into())
}
