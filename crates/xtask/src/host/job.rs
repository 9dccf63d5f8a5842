//! What the host's init runs: the command, with each word exactly as given.

use std::fmt::Write as _;

use super::{HostConfig, HostJob, PageSize, Stdin, terminal};

/// The text of `/kedge/job`, which init reads: it runs the command and leaves its exit status in `status`.
pub(super) fn script(config: &HostConfig, job: &HostJob) -> String {
    let page_size = match config.page_size {
        PageSize::K4 => "4k",
        PageSize::K16 => "16k",
    };
    let own = [
        ("KEDGE_GUESTS", "/kedge/guests"),
        ("KEDGE_PAYLOADS", "/kedge/payloads"),
        ("KEDGE_HOST_KERNEL", &config.kernel),
        ("KEDGE_HOST_GIC", &config.gic.to_string()),
        ("KEDGE_HOST_CPU", &config.cpu),
        ("KEDGE_HOST_PAGE_SIZE", page_size),
    ];
    let mut text = String::new();
    let asked = job.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.into_iter().chain(asked) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "export {name}={}", quoted(value));
    }
    // The kernel finds them in the order in which QEMU is given them.
    for (disk, letter) in job.disks.iter().zip('a'..='z') {
        let path = quoted(&disk.path);
        let _ = writeln!(text, "mkdir -p $(dirname {path}) && ln -s /dev/vd{letter} {path}");
    }
    let shell = ["sh".to_owned()];
    let command = if job.command.is_empty() { &shell[..] } else { &job.command };
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    let words = words.join(" ");
    match job.stdin {
        // Lines arrive as they were written, without carriage returns.
        Stdin::Nothing => text.push_str(&format!("stty -opost\n{words} </dev/null\nstatus=$?\n")),
        Stdin::Terminal => {
            let (rows, columns) = terminal::size();
            let _ = writeln!(text, "stty rows {rows} cols {columns}");
            let _ = writeln!(text, "setsid cttyhack {words}\nstatus=$?");
        }
    }
    text
}

/// `word` as one word of a POSIX shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::host::{Disk, Writes};

    #[test]
    fn a_word_reaches_the_command_unchanged_whatever_is_in_it() {
        for word in
            ["", "a b", "it's", "$HOME `id` \\ \"", "line\nbreak", "-n", "*", "''", "ends\\"]
        {
            let script = format!("printf %s {}", quoted(word));
            let printed = Command::new("sh").arg("-c").arg(script).output().unwrap();
            assert_eq!(String::from_utf8(printed.stdout).unwrap(), word);
        }
    }

    #[test]
    fn a_disk_is_found_where_the_job_wants_it() {
        let mut job = HostJob::new(vec!["true".into()], Vec::new());
        let disk = |path: &str| Disk {
            image: "/x.img".into(),
            path: path.to_owned(),
            writes: Writes::Dropped,
        };
        job.disks = vec![disk("/one"), disk("/kedge/two")];
        let script = script(&HostConfig::default(), &job);
        assert!(script.contains("ln -s /dev/vda '/one'\n"));
        assert!(script.contains("ln -s /dev/vdb '/kedge/two'\n"));
    }

    #[test]
    fn the_job_runs_the_command_in_its_environment() {
        let mut job = HostJob::new(vec!["guest-tests".into(), "a b".into()], Vec::new());
        job.env.push(("RUST_BACKTRACE".into(), "1".into()));
        let script = script(&HostConfig::default(), &job);
        assert!(script.contains("export KEDGE_HOST_KERNEL='6.12'\n"));
        assert!(script.contains("export RUST_BACKTRACE='1'\n"));
        assert!(script.ends_with("'guest-tests' 'a b' </dev/null\nstatus=$?\n"));
    }
}
