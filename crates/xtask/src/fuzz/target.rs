//! The fuzz targets, and what becomes of one that is fed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Context;

use crate::paths;

/// A fuzz target.
#[derive(Debug)]
pub(crate) struct Target {
    /// Its program in `tests/fuzz/src/bin`.
    pub(crate) name: &'static str,
    /// What it is meant to reach: files and folders of the tree.
    pub(super) parts: &'static [&'static str],
    /// What of that it cannot reach, and why.
    pub(super) left_out: &'static [(&'static str, &'static str)],
    /// A bug that it is to find.
    pub(super) planted: Planted,
}

/// A bug for a target to find: a change of the tree.
#[derive(Debug)]
pub(super) struct Planted {
    /// Where it is, and what is said of it, as of no other, where it is found.
    pub(super) file: &'static str,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    /// With which others it is planted: those that none of their targets can come upon but its own.
    pub(super) round: u8,
}

/// Why a fuzzer does not come to what has the host's kernel carry frames.
const KERNEL: &str = "it asks the host's kernel, which is trusted and not alike on every host";

/// All of them.
#[rustfmt::skip]
pub(crate) const TARGETS: &[Target] = &[
    target("block", &["devices/src/virtio/block", "devices/src/virtio/limits"], Planted {
        file: "devices/src/virtio/block/request.rs",
        from: "status.len().checked_sub(1).ok_or_else(|| wrong(no_status))?",
        to: "status.len() - 1",
        round: 0,
    })
    .but(&[("devices/src/virtio/block/user", "the requests of a disk that another process has are its own: `vhost_user`")]),
    target("image", &["devices/src/virtio/block/qcow2.rs", "devices/src/virtio/block/back_end.rs", "devices/src/virtio/block/backed.rs"], Planted {
        file: "devices/src/virtio/block/qcow2.rs",
        from: "self.content.read(into, offset)",
        to: "self.content.read(into, offset).map_err(|error| panic!(\"{error}\"))",
        round: 1,
    }),
    target("net", &["devices/src/virtio/net"], Planted {
        file: "devices/src/virtio/net/receive.rs",
        from: "Ok(length) if length < HEADER_SIZE =>",
        to: "Ok(length) if length < 1 =>",
        round: 0,
    })
    .but(&[
        ("devices/src/virtio/net/kernel.rs", KERNEL),
        ("devices/src/virtio/net/user", "the frames of a card that another process carries are its own: `vhost_user`"),
    ]),
    target("vsock", &["devices/src/virtio/vsock"], Planted {
        file: "devices/src/virtio/vsock/connection.rs",
        from: "if !sends || waiting + length > u64::from(BUFFER) {",
        to: "assert!(sends); if waiting + length > u64::from(BUFFER) {",
        round: 0,
    }),
    target("rng", &["devices/src/virtio/rng"], Planted {
        file: "devices/src/virtio/rng/worker.rs",
        from: "bounce.len().min(buffers.len()).min(MOST - filled)",
        to: "bounce.len().max(buffers.len()).min(MOST - filled)",
        round: 0,
    }),
    target("vhost_user", &["devices/src/virtio/vhost", "devices/src/virtio/block/user", "devices/src/virtio/net/user"], Planted {
        file: "devices/src/virtio/vhost/answers.rs",
        from: "(Wrapping(at) - Wrapping(used)).0",
        to: "at - used",
        round: 0,
    })
    .but(&[("devices/src/virtio/vhost/kernel", KERNEL)]),
    target("transport", &["devices/src/pci", "devices/src/virtio/transport"], Planted {
        file: "devices/src/pci/msix.rs",
        from: "let Some(vector) = table.vectors.get_mut(usize_from(offset / ENTRY)) else { return };",
        to: "let vector = &mut table.vectors[usize_from(offset / ENTRY)];",
        round: 2,
    }),
    target("config", &["devices/src/virtio/options.rs"], Planted {
        file: "devices/src/virtio/options.rs",
        from: "parts.push(String::new());",
        to: "parts.push(text[12..].to_owned());",
        round: 1,
    }),
    target("http", &["crates/api/src/http"], Planted {
        file: "crates/api/src/http/request.rs",
        from: "let Some(body) = body.get(..meaning.length) else {",
        to: "let Some(body) = Some(&body[..meaning.length]) else {",
        round: 1,
    }),
    target("requests", &["crates/api/src/call"], Planted {
        file: "crates/api/src/call/place.rs",
        from: "if complaint.starts_with(\"missing field\") {",
        to: "assert!(!complaint.contains(\"missing\")); if false {",
        round: 0,
    }),
    target("metadata", &["crates/metadata/src"], Planted {
        file: "crates/metadata/src/net/connection.rs",
        from: "self.sent = 0;",
        to: "",
        round: 0,
    }),
    target("state_file", &["crates/saved_state/src/header.rs", "crates/saved_state/src/file.rs"], Planted {
        file: "crates/saved_state/src/header.rs",
        from: ".filter(|&end| end <= behind)",
        to: "",
        round: 0,
    }),
];

const fn target(name: &'static str, parts: &'static [&'static str], planted: Planted) -> Target {
    Target { name, parts, left_out: &[], planted }
}

impl Target {
    /// The same, which cannot reach these.
    const fn but(self, left_out: &'static [(&'static str, &'static str)]) -> Self {
        Self { left_out, ..self }
    }
}

/// What came of feeding a target.
#[derive(Debug, Default)]
pub(crate) struct Fed {
    /// How many inputs it was given.
    pub(super) inputs: u64,
    /// How many edges of its program they have reached.
    pub(super) edges: u64,
    /// For how long, in seconds.
    pub(super) seconds: f64,
    /// What was found, as the target told it, with the file that has the input.
    pub(crate) finding: Option<String>,
}

impl Fed {
    pub(super) fn line(&self) -> String {
        let found = if self.finding.is_some() { "FOUND SOMETHING" } else { "nothing found" };
        let Self { inputs, edges, seconds, .. } = self;
        format!("{inputs:>10} inputs in {seconds:>6.1} s, {edges:>6} edges reached, {found}")
    }
}

/// Where the inputs that lead somewhere are kept, and what was found.
pub(crate) fn corpus(target: &Target) -> PathBuf {
    paths::work().join("fuzz/corpus").join(target.name)
}

/// What every clone begins with, where nothing was kept: bytes by chance, the same ones each time. Most targets take
/// their input for what a driver does, one thing after the other, and what takes many of them is not come upon from
/// inputs of a few bytes.
///
/// # Errors
/// The folder cannot be written to.
pub(super) fn seeds() -> anyhow::Result<PathBuf> {
    const COUNT: usize = 32;
    let folder = paths::work().join("fuzz/seeds");
    fs::create_dir_all(&folder)?;
    // Marsaglia's generator of 64 bits (Xorshift RNGs, 2003).
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for index in 1..=COUNT {
        let bytes: Vec<_> = (0..index * 64 / 8).flat_map(|_| next().to_le_bytes()).collect();
        fs::write(folder.join(format!("{index:02}")), bytes)?;
    }
    Ok(folder)
}

/// The longest input in bytes, the longest any of them may take in seconds, and the most memory in MiB.
const BOUNDS: [&str; 4] = ["-max_len=2048", "-len_control=0", "-timeout=20", "-rss_limit_mb=2048"];

/// Feeds `target`, one of `programs`, as `limits` say, from what every clone begins with and what `corpus` has kept.
///
/// # Errors
/// It cannot be run.
pub(crate) fn run(
    target: &Target,
    programs: &Path,
    corpus: &Path,
    limits: &[String],
) -> anyhow::Result<Fed> {
    let seeds = seeds()?;
    fs::create_dir_all(corpus)?;
    let found = paths::work().join("fuzz/found");
    fs::create_dir_all(&found)?;
    let mut fuzzer = Command::new(programs.join(target.name));
    fuzzer.args(BOUNDS).args(limits).arg("-print_final_stats=1");
    fuzzer.arg(format!("-artifact_prefix={}/{}-", found.display(), target.name));
    fuzzer.args([corpus, &seeds]);
    fuzzer.current_dir(paths::workspace()).stdin(Stdio::null());
    let began = Instant::now();
    let ended = fuzzer.output().with_context(|| format!("cannot run {}", target.name))?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    Ok(Fed {
        inputs: last_number(&said, "stat::number_of_executed_units:").unwrap_or(0),
        edges: last_number(&said, " cov:").unwrap_or(0),
        seconds: began.elapsed().as_secs_f64(),
        finding: (!ended.status.success()).then(|| finding(&said)),
    })
}

/// The number behind the last `key` of `text`.
fn last_number(text: &str, key: &str) -> Option<u64> {
    text.rsplit_once(key)?.1.split_whitespace().next()?.parse().ok()
}

/// Lines of what a fuzzer says from where it has found something.
fn finding(said: &str) -> String {
    const SHOWN: usize = 40;
    let lines: Vec<_> = said.lines().collect();
    let is_first = |line: &&str| line.contains("panicked at") || line.starts_with("==");
    let first = lines.iter().position(is_first).unwrap_or(lines.len().saturating_sub(SHOWN));
    let mut shown: Vec<_> = lines[first..].iter().take(SHOWN).copied().collect();
    shown.extend(lines.iter().filter(|line| line.contains("Test unit written to")));
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
#1024\tpulse  cov: 12 ft: 3 corp: 1/1b\n\
#2048\tNEW    cov: 1973 ft: 5985 corp: 520/6809b\n\
thread 'main' panicked at a.rs:1:2:\nindex out of bounds\n\
artifact_prefix='x/'; Test unit written to x/crash-1\n\
stat::number_of_executed_units: 2048\n";

    #[test]
    fn what_a_fuzzer_says_is_understood() {
        assert_eq!(last_number(SAID, " cov:"), Some(1973));
        assert_eq!(last_number(SAID, "stat::number_of_executed_units:"), Some(2048));
        let shown = finding(SAID);
        assert!(shown.starts_with("thread 'main' panicked at a.rs"), "{shown}");
        assert!(shown.ends_with("Test unit written to x/crash-1"), "{shown}");
    }

    #[test]
    fn every_clone_begins_with_the_same_inputs_of_many_lengths() {
        let read = || {
            let files = fs::read_dir(seeds().unwrap()).unwrap();
            let mut all: Vec<_> =
                files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
            all.sort();
            all
        };
        let all = read();
        assert_eq!(all, read());
        assert_eq!(all.len(), 32);
        assert_eq!(all.iter().map(Vec::len).max(), Some(2048));
    }
}
