//! The host's console: boot noise is kept back, the command's output handed on, the marks of init acted upon.

use std::{
    io::{Read, Write, stdin, stdout},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Instant,
};

use anyhow::{Context, bail};

use super::{HostExit, HostJob, Stdin, indented, terminal::RawTerminal};

/// What the marks printed by `images/host_init.sh` start with.
const MARK: &str = "\u{1e}kedge-host-";
const LINES_SHOWN: usize = 40;

/// Starts `qemu` and follows its console to the command's end.
///
/// # Errors
/// QEMU does not start, or the host does not come up.
pub(super) fn run(
    mut qemu: Command,
    job: &HostJob,
    on_line: &mut dyn FnMut(&str),
) -> anyhow::Result<HostExit> {
    if job.stdin == Stdin::Terminal {
        qemu.stdin(Stdio::piped());
    }
    let deadline = Instant::now() + job.timeout;
    let mut qemu = Running(qemu.spawn().context("cannot start QEMU")?);
    let chunks = qemu.output()?;
    let mut screen = Screen::new(job.stdin);
    let mut raw = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = if screen.is_up { job.silence.min(left) } else { left };
        let chunk = match chunks.recv_timeout(patience) {
            Ok(chunk) => chunk,
            Err(RecvTimeoutError::Timeout) if patience < left => {
                return Ok(HostExit::Silent(screen.tail));
            }
            Err(RecvTimeoutError::Timeout) if screen.is_up => return Ok(HostExit::TimedOut),
            Err(RecvTimeoutError::Timeout) => {
                let seconds = job.timeout.as_secs();
                bail!("the emulated host was not up after {seconds} s:\n{}", indented(&screen.tail))
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if let Some(status) = screen.show(&chunk, on_line)? {
            return Ok(HostExit::Status(status));
        }
        if screen.is_up && raw.is_none() && job.stdin == Stdin::Terminal {
            raw = Some(RawTerminal::enter()?);
            qemu.connect_keyboard()?;
        }
    }
    screen.end(on_line);
    if !screen.is_up {
        bail!("the emulated host did not come up:\n{}", indented(&screen.tail));
    }
    Ok(HostExit::Died(screen.tail))
}

/// A QEMU that is killed when dropped.
struct Running(Child);

impl Running {
    /// What it prints, as it comes; ends with it.
    fn output(&mut self) -> anyhow::Result<Receiver<Vec<u8>>> {
        let (sender, receiver) = channel();
        let console = self.0.stdout.take().context("QEMU's output is a pipe")?;
        let complaints = self.0.stderr.take().context("QEMU's errors are a pipe")?;
        let sources: [Box<dyn Read + Send>; 2] = [Box::new(console), Box::new(complaints)];
        for mut source in sources {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = source.read(&mut buffer) {
                    let chunk = buffer.iter().take(length).copied().collect();
                    if sender.send(chunk).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(receiver)
    }

    /// Sends what is typed to the console. The thread ends with the process.
    fn connect_keyboard(&mut self) -> anyhow::Result<()> {
        let mut console = self.0.stdin.take().context("QEMU's input is a pipe")?;
        thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(length @ 1..) = stdin().read(&mut buffer) {
                let typed: Vec<u8> = buffer.iter().take(length).copied().collect();
                if console.write_all(&typed).and_then(|()| console.flush()).is_err() {
                    break;
                }
            }
        });
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either fails only if QEMU has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes a console apart: noise before the "up" mark, then output, then the "exit" mark with the status.
struct Screen {
    is_up: bool,
    stdin: Stdin,
    /// Bytes not handed on yet: an unfinished line, or on a terminal what may become a mark.
    pending: Vec<u8>,
    /// The last lines, for errors.
    tail: Vec<String>,
}

impl Screen {
    fn new(stdin: Stdin) -> Self {
        Self { is_up: false, stdin, pending: Vec::new(), tail: Vec::new() }
    }

    /// Takes what the console printed; returns the exit status once that was in it.
    fn show(&mut self, chunk: &[u8], on_line: &mut dyn FnMut(&str)) -> anyhow::Result<Option<u8>> {
        let mut shown = Vec::new();
        for &byte in chunk {
            let mark = if self.is_up && self.stdin == Stdin::Terminal {
                self.take_key(byte, &mut shown)
            } else {
                self.take_of_line(byte, on_line)
            };
            match mark.as_deref().map(|mark| mark.trim_end().strip_prefix("exit ")) {
                None => {}
                Some(None) => self.is_up = true,
                Some(Some(status)) => {
                    write_out(&shown)?;
                    return Ok(Some(status.parse().context("init prints a status")?));
                }
            }
        }
        write_out(&shown)?;
        Ok(None)
    }

    /// Takes a byte where whole lines are handed on; returns a mark when it is complete.
    fn take_of_line(&mut self, byte: u8, on_line: &mut dyn FnMut(&str)) -> Option<String> {
        if byte != b'\n' {
            self.pending.push(byte);
            return None;
        }
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned();
        let Some((before, mark)) = line.split_once(MARK) else {
            self.line(&line, on_line);
            return None;
        };
        if !before.is_empty() {
            self.line(before, on_line);
        }
        Some(mark.to_owned())
    }

    /// Takes a byte where each is `shown` at once, but for what may become a mark; returns a mark when it is complete.
    fn take_key(&mut self, byte: u8, shown: &mut Vec<u8>) -> Option<String> {
        if self.pending.is_empty() && !MARK.as_bytes().starts_with(&[byte]) {
            shown.push(byte);
            return None;
        }
        self.pending.push(byte);
        let seen = self.pending.len().min(MARK.len());
        if self.pending.get(..seen) != MARK.as_bytes().get(..seen) {
            shown.append(&mut self.pending);
            return None;
        }
        let mark = String::from_utf8_lossy(&self.pending).into_owned();
        let mark = mark.strip_prefix(MARK)?.strip_suffix('\n')?.to_owned();
        self.pending.clear();
        Some(mark)
    }

    /// The console has ended: hands on the last line, if it was not finished.
    fn end(&mut self, on_line: &mut dyn FnMut(&str)) {
        let rest = std::mem::take(&mut self.pending);
        if !rest.is_empty() {
            self.line(&String::from_utf8_lossy(&rest), on_line);
        }
    }

    fn line(&mut self, line: &str, on_line: &mut dyn FnMut(&str)) {
        let line = line.trim_end_matches('\r');
        if self.tail.len() == LINES_SHOWN {
            self.tail.remove(0);
        }
        self.tail.push(line.to_owned());
        if self.is_up {
            on_line(line);
        }
    }
}

fn write_out(bytes: &[u8]) -> anyhow::Result<()> {
    let mut terminal = stdout();
    terminal.write_all(bytes)?;
    terminal.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines handed on, and the status, of a console that prints `chunks`.
    fn shown(chunks: &[&str]) -> (Vec<String>, Option<u8>) {
        let mut screen = Screen::new(Stdin::Nothing);
        let mut lines = Vec::new();
        let mut status = None;
        for chunk in chunks {
            status =
                screen.show(chunk.as_bytes(), &mut |line| lines.push(line.to_owned())).unwrap();
        }
        (lines, status)
    }

    #[test]
    fn only_the_commands_lines_are_handed_on() {
        let noise = "[    0.1] noise\r\n\u{1e}kedge-host-up\r\n";
        let (lines, status) = shown(&[noise, "one\r\ntw", "o\n", "\u{1e}kedge-host-exit 3\n"]);
        assert_eq!(lines, ["one", "two"]);
        assert_eq!(status, Some(3));
    }

    #[test]
    fn a_last_line_without_an_end_is_not_lost_to_the_mark() {
        let (lines, status) = shown(&["\u{1e}kedge-host-up\nno end\u{1e}kedge-host-exit 0\n"]);
        assert_eq!(lines, ["no end"]);
        assert_eq!(status, Some(0));
    }

    #[test]
    fn an_empty_line_is_a_line() {
        assert_eq!(shown(&["\u{1e}kedge-host-up\n\n"]).0, [""]);
    }

    #[test]
    fn the_last_lines_of_a_host_that_dies_are_kept() {
        let mut screen = Screen::new(Stdin::Nothing);
        for number in 0..100 {
            screen.show(format!("line {number}\n").as_bytes(), &mut |_| ()).unwrap();
        }
        assert_eq!(screen.tail.len(), LINES_SHOWN);
        assert_eq!(screen.tail.last().unwrap(), "line 99");
    }
}
