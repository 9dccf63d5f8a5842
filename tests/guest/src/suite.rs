//! The table of tests, and what holds for each of them: it runs only where the
//! host has what it needs, and it leaves the host as it was.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, anyhow, ensure};
use libtest_mimic::{Completion, Failed, Trial};

use crate::host::{Host, Need, Traces};

/// How a test went.
pub(crate) type Outcome = anyhow::Result<()>;

/// All tests.
pub(crate) struct Suite {
    host: Arc<Host>,
    trials: Vec<Trial>,
}

impl Suite {
    /// No tests yet, all of them for `host`.
    pub(crate) fn new(host: Host) -> Self {
        Self { host: Arc::new(host), trials: Vec::new() }
    }

    /// A test that could go another way on another host.
    pub(crate) fn every_host(
        &mut self,
        name: &str,
        needs: &'static [Need],
        test: impl FnOnce(&Host) -> Outcome + Send + 'static,
    ) {
        self.add(format!("every_host::{name}"), needs, test);
    }

    /// A test that could go another way on another host kernel, and nowhere else: neither
    /// processor nor interrupt controller have a part in it.
    pub(crate) fn every_kernel(
        &mut self,
        name: &str,
        needs: &'static [Need],
        test: impl FnOnce(&Host) -> Outcome + Send + 'static,
    ) {
        self.add(format!("every_kernel::{name}"), needs, test);
    }

    /// A test of devices and all that is around them, in which host kernels have a part, but
    /// the same one: any of them shows it every day, and each of them when there is time.
    pub(crate) fn any_kernel(
        &mut self,
        name: &str,
        needs: &'static [Need],
        test: impl FnOnce(&Host) -> Outcome + Send + 'static,
    ) {
        self.add(format!("any_kernel::{name}"), needs, test);
    }

    /// A test that goes the same way on all hosts which have what it needs.
    pub(crate) fn once(
        &mut self,
        name: &str,
        needs: &'static [Need],
        test: impl FnOnce(&Host) -> Outcome + Send + 'static,
    ) {
        self.add(format!("once::{name}"), needs, test);
    }

    /// A test that goes the same way on all hosts and with all guests: one of each shows it
    /// every day, and [`Host::kernels`] has the guests where it is to be shown with more.
    pub(crate) fn every_guest(
        &mut self,
        name: &str,
        needs: &'static [Need],
        test: impl FnOnce(&Host) -> Outcome + Send + 'static,
    ) {
        self.add(format!("every_guest::{name}"), needs, test);
    }

    /// A test of [`Self::every_guest`] with each of the guests in turn, by the folder of its
    /// kernel.
    pub(crate) fn each_guest(
        &mut self,
        name: &str,
        needs: &'static [Need],
        test: impl Fn(&Host, &Path) -> Outcome + Send + 'static,
    ) {
        self.every_guest(name, needs, move |host| {
            host.kernels()?.iter().try_for_each(|kernel| {
                let about = format!("a guest of {}", kernel.display());
                test(host, kernel).with_context(|| about.clone())?;
                // Whoever waits for the host hears that it does something.
                eprintln!("{about} is done with");
                Ok(())
            })
        });
    }

    /// A test that has its part on one of several hosts; see [`crate::moves`].
    pub(crate) fn moves(
        &mut self,
        name: &str,
        needs: &'static [Need],
        test: impl FnOnce(&Host) -> Outcome + Send + 'static,
    ) {
        self.add(format!("moves::{name}"), needs, test);
    }

    fn add(
        &mut self,
        name: String,
        needs: &'static [Need],
        test: impl FnOnce(&Host) -> Outcome + Send + 'static,
    ) {
        let host = Arc::clone(&self.host);
        let run = move || {
            if let Some(reason) = needs.iter().find_map(|need| host.lacks(*need)) {
                return Ok(Completion::ignored_with(reason));
            }
            let outcome = on_clean_host(|| test(&host));
            outcome
                .map(|()| Completion::Completed)
                .map_err(|error| Failed::from(format!("{error:#}")))
        };
        self.trials.push(Trial::ignorable_test(name, run));
    }

    /// The tests in the order in which they were added.
    pub(crate) fn into_trials(self) -> Vec<Trial> {
        self.trials
    }
}

/// Runs a test; then the host must be as it was before.
fn on_clean_host(test: impl FnOnce() -> Outcome) -> Outcome {
    let before = Traces::now()?;
    test()?;
    let after = Traces::now()?;
    ensure!(after == before, "something is left behind: before {before:?}, after {after:?}");
    Ok(())
}

/// Something that several tests look at, and that the first of them makes.
pub(crate) struct Shared<T>(Arc<OnceLock<Result<T, String>>>);

impl<T> Shared<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// What `make` made, for whoever asked first.
    pub(crate) fn get(&self, make: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<&T> {
        let made = self.0.get_or_init(|| make().map_err(|error| format!("{error:#}")));
        made.as_ref().map_err(|error| anyhow!("{error}"))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// How often a test does what takes long: so often as there is time for `every_day` where the
/// environment says that it is one, and otherwise as `asked`.
pub(crate) fn times(asked: u32, every_day: u32) -> u32 {
    // Whoever starts the program by hand asks for something.
    if std::env::var_os("KEDGE_EVERY_DAY").is_some() { every_day } else { asked }
}

/// Fails unless `text` contains each of `parts`, showing it whole.
pub(crate) fn ensure_contains(text: &str, parts: &[&str]) -> Outcome {
    for part in parts {
        ensure!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
    Ok(())
}

/// The rest of the first line that starts with `prefix`.
pub(crate) fn after<'a>(text: &'a str, prefix: &str) -> anyhow::Result<&'a str> {
    text.lines()
        .find_map(|line| line.trim_end().strip_prefix(prefix))
        .with_context(|| format!("no line starts with `{prefix}` in:\n{text}"))
}
