//! `/mmds` and `/mmds/config` (FIRECRACKER_API.md, 3.4): what guests may read, and where.

use kedge_metadata::{Config, Version};

use super::{Call, Fault, Parsed, Setting, body};

/// The first version will go away.
pub(super) fn read_config(bytes: &[u8]) -> Result<Parsed, Fault> {
    let config: Config = body::read(bytes)?;
    let deprecated = config.version == Version::V1;
    Ok(Parsed { call: Call::Set(Setting::Metadata(config)), deprecated })
}

pub(super) fn read_data(bytes: &[u8]) -> Result<Parsed, Fault> {
    Ok(Call::PutMetadata(body::any(bytes)?).into())
}

pub(super) fn read_change(bytes: &[u8]) -> Result<Parsed, Fault> {
    Ok(Call::PatchMetadata(body::any(bytes)?).into())
}
