//! What a client of a machine's API waits for: from the first byte sent to the last one of
//! the answer, over a connection that is there already.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

/// The longest that a machine may take to be there, or to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until something listens at `socket`.
pub(crate) fn wait_for(socket: &Path) -> anyhow::Result<()> {
    let start = Instant::now();
    while UnixStream::connect(socket).is_err() {
        ensure!(start.elapsed() < PATIENCE, "nobody listens at {}", socket.display());
        thread::sleep(Duration::from_millis(20));
    }
    // It is at rest again once it has seen that client go.
    thread::sleep(Duration::from_millis(100));
    Ok(())
}

/// Asks for something that is to succeed; how long the answer took.
pub(crate) fn ask(socket: &Path, request: (&str, &str), body: &str) -> anyhow::Result<Duration> {
    let (method, path) = request;
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("cannot connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    // The other side takes the connection meanwhile.
    thread::sleep(Duration::from_millis(20));
    let start = Instant::now();
    exchange(&mut stream, &text)?;
    Ok(start.elapsed())
}

/// Sends a request that is to succeed, and waits for its answer.
pub(crate) fn exchange(stream: &mut UnixStream, request: &str) -> anyhow::Result<()> {
    stream.write_all(request.as_bytes())?;
    let answer = answer(stream).with_context(|| format!("no answer to {request}"))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    ensure!(status.starts_with('2'), "{request}: {answer}");
    Ok(())
}

/// Reads one answer: its head, and as much behind it as that says.
fn answer(stream: &mut impl Read) -> anyhow::Result<String> {
    const END: &str = "\r\n\r\n";
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once(END)
            && body.len() >= length(head)
        {
            return Ok(text.into_owned());
        }
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "the connection ended behind `{text}`");
        bytes.extend_from_slice(&piece[..read]);
    }
}

/// What the head of an answer says of its body's length.
fn length(head: &str) -> usize {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().and_then(|(_, length)| length.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_its_body() {
        let text = "HTTP/1.1 400 \r\nContent-Length: 2\r\n\r\nno and more";
        let cut = text.replace(" and more", "");
        assert_eq!(answer(&mut cut.as_bytes()).unwrap(), cut);
        let bare = "HTTP/1.1 204 \r\nServer: s\r\n\r\n";
        assert_eq!(answer(&mut bare.as_bytes()).unwrap(), bare);
    }

    #[test]
    fn an_answer_that_is_cut_short_is_none() {
        let cut = "HTTP/1.1 200 \r\nContent-Length: 9\r\n\r\n{}";
        assert!(answer(&mut cut.as_bytes()).is_err());
    }
}
