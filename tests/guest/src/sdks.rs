//! Clients of Firecracker that others wrote drive kedge through their own code
//! (`tests/clients`).

use std::os::unix::fs::symlink;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::host::Host;
use crate::kedge::Kedge;
use crate::suite::{Outcome, Suite};

pub(crate) fn tests(suite: &mut Suite) {
    suite.once("sdks::firecracker_rs_sdk_starts_pauses_saves_and_restores", &[], |host| {
        drives(host, "rs_sdk_client", "firecracker-rs-sdk: done")
    });
    suite.once("sdks::fctools_starts_pauses_saves_and_restores", &[], |host| {
        drives(host, "fctools_client", "fctools: done")
    });
}

/// Has `client` drive kedge by Firecracker's name.
fn drives(host: &Host, client: &str, done: &str) -> Outcome {
    let folder = TempDir::new()?;
    let firecracker = folder.path().join("firecracker");
    symlink("/kedge/bin/kedge", &firecracker).context("cannot call kedge firecracker")?;
    let words = [firecracker.into_os_string(), host.payload("counters").into()];
    let client = Kedge::embedded(client).with(words).with([folder.path()]);
    let ended = client.finish()?;
    let said = format!("{}{}", ended.stdout, ended.stderr);
    ensure!(said.lines().any(|line| line == done), "the client says:\n{said}");
    ended.with_status(0)?;
    Ok(())
}
