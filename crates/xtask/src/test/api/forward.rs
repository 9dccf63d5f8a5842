//! A port of this machine behind which is a Unix socket: for clients that know no other way, and that hear every answer
//! to its end, also of one that has none.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// What an answer of unknown length has in its head, and how it ends (RFC 9112, 7.1).
const UNKNOWN: &[u8] = b"\r\nTransfer-Encoding: chunked\r\n";
const END: &[u8] = b"0\r\n\r\n";
/// After so long a silence, such an answer is ended for its client, as the machine's own end would do.
const SILENCE: Duration = Duration::from_millis(50);

/// Forwards to `socket` whoever connects to the address that it returns, until the process ends.
///
/// # Errors
/// There is no free port.
pub(super) fn to(socket: &Path) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let socket = socket.to_owned();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // Who is not let in sees the connection end.
            let _ = connect(client, &socket);
        }
    });
    Ok(address)
}

fn connect(client: TcpStream, socket: &PathBuf) -> io::Result<()> {
    client.set_nodelay(true)?;
    let server = UnixStream::connect(socket)?;
    let (mut from_client, mut to_client) = (client.try_clone()?, client);
    let (mut from_server, mut to_server) = (server.try_clone()?, server);
    thread::spawn(move || {
        // Either end may go at any time.
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let _ = hand_on(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
        let _ = from_server.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// Hands on answers until there are no more, or one has no end.
fn hand_on(from: &mut UnixStream, to: &mut TcpStream) -> io::Result<()> {
    let mut bytes = [0; 65536];
    loop {
        let count = match from.read(&mut bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return to.write_all(END),
            Err(error) => return Err(error),
        };
        let Some(bytes) = bytes.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        if bytes.windows(UNKNOWN.len()).any(|window| window == UNKNOWN) {
            from.set_read_timeout(Some(SILENCE))?;
        }
        to.write_all(bytes)?;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
    };

    use super::*;

    #[test]
    fn what_is_sent_to_the_port_reaches_the_socket_and_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = TcpStream::connect(to(&path).unwrap()).unwrap();
        client.write_all(b"there").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).unwrap();
        server.write_all(b"and back").unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!((heard.as_str(), answer.as_str()), ("there", "and back"));
    }

    #[test]
    fn an_answer_without_an_end_is_given_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = TcpStream::connect(to(&path).unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let begun = "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n";
        server.write_all(begun.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("{begun}0\r\n\r\n"));
    }
}
