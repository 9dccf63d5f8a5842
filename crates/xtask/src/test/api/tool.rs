//! schemathesis (PyPI), which reads an OpenAPI document and sends what it allows and what it does not: installed below the
//! cache, and run.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context;
use serde_json::Value;

use crate::{paths, process, progress};

/// It and all that it needs, pinned.
const REQUIREMENTS: &str = include_str!("requirements.txt");
const HOOKS: &str = include_str!("hooks.py");
/// What is wrong with an answer: every check that holds for a machine in whatever state.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,negative_data_rejection";
/// Seconds that an answer may take: who waits longer is told so.
const HANGS: &str = "30";

/// The tool.
pub(super) struct Tool {
    python: PathBuf,
}

/// What to send.
pub(super) struct Order<'a> {
    /// Words that choose operations and how many requests to send.
    pub(super) words: &'a [&'a str],
    /// Where.
    pub(super) address: SocketAddr,
    /// A folder for its own files.
    pub(super) folder: &'a Path,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Fed {
    /// How often each operation was answered with each status.
    pub(super) answers: BTreeMap<(String, u64), u64>,
    /// What it has to complain about.
    pub(super) finding: Option<String>,
}

impl Fed {
    /// How many requests were answered.
    pub(super) fn count(&self) -> u64 {
        self.answers.values().sum()
    }
}

impl Tool {
    /// Installs it where it is not.
    ///
    /// # Errors
    /// Python or its package index cannot be had.
    pub(super) fn installed() -> anyhow::Result<Self> {
        let mut hasher = DefaultHasher::new();
        REQUIREMENTS.hash(&mut hasher);
        let name = format!("schemathesis-{:016x}", hasher.finish());
        let folder = paths::item(paths::cache()?.join("python").join(name), |at| {
            progress::step("install schemathesis", || install(at))
        })?;
        Ok(Self { python: folder.join("bin/python3") })
    }

    /// Sends what `order` says.
    ///
    /// # Errors
    /// It cannot be run, or does not say what it has done.
    pub(super) fn feed(&self, order: &Order) -> anyhow::Result<Fed> {
        let Order { words, address, folder } = order;
        let hooks = folder.join("hooks.py");
        fs::write(&hooks, HOOKS)?;
        let report = folder.join("report.ndjson");
        let mut run = Command::new(&self.python);
        // The folder may have been moved since its own scripts were written.
        run.args(["-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]);
        run.arg(paths::workspace().join("resources/api/openapi.yaml"));
        run.args(["--url", &format!("http://{address}"), "--checks", CHECKS, "--no-color"]);
        run.args(["--request-timeout", HANGS, "--generation-deterministic", "--no-shrink"]);
        run.args(["--warnings", "off"]);
        run.args(["--suppress-health-check", "all", "--report", "ndjson"]);
        run.arg("--report-ndjson-path").arg(&report).args(*words);
        run.env("SCHEMATHESIS_HOOKS", "hooks").env("PYTHONPATH", folder).current_dir(folder);
        let done = run.stdin(Stdio::null()).output().context("cannot run schemathesis")?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        let finding =
            (!done.status.success()).then(|| said + &String::from_utf8_lossy(&done.stderr));
        let answers = match (read(&report), &finding) {
            (Err(_), Some(_)) => BTreeMap::new(),
            (answers, _) => answers?,
        };
        Ok(Fed { answers, finding })
    }
}

fn install(at: &Path) -> anyhow::Result<()> {
    process::quiet(Command::new("python3").args(["-m", "venv"]).arg(at))?;
    let list = at.join("requirements.txt");
    fs::write(&list, REQUIREMENTS)?;
    let mut pip = Command::new(at.join("bin/python3"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary"]);
    process::quiet(pip.args([":all:", "--requirement"]).arg(list))
}

/// How often each operation was answered with each status, by the report at `path`.
fn read(path: &Path) -> anyhow::Result<BTreeMap<(String, u64), u64>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut answers = BTreeMap::new();
    for line in BufReader::new(file).lines() {
        let event: Value = serde_json::from_str(&line?)?;
        for (name, status) in answered(&event) {
            *answers.entry((name, status)).or_default() += 1;
        }
    }
    Ok(answers)
}

/// Each answer in an event: of which operation, and with which status.
fn answered(event: &Value) -> Vec<(String, u64)> {
    let recorder = &event["ScenarioFinished"]["recorder"];
    let Some(interactions) = recorder["interactions"].as_object() else { return Vec::new() };
    let one = |(id, interaction): (&String, &Value)| {
        let case = &recorder["cases"][id]["value"];
        let name = format!("{} {}", case["method"].as_str()?, case["path"].as_str()?);
        Some((name, interaction["response"]["status_code"].as_u64()?))
    };
    interactions.iter().filter_map(one).collect()
}
