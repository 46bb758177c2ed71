//! One HTTP request at a time, over a plain connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use serde_json::Value;

/// Longest wait for a connection, and for the next bytes of a reply.
const CONNECT: Duration = Duration::from_secs(5);
const READ: Duration = Duration::from_secs(60);
/// Longest head of a reply in bytes.
const MAX_HEAD: usize = 1 << 16;

/// Posts JSON and returns the JSON reply; anything but status 200 is an error.
pub(crate) fn post_json(address: SocketAddr, path: &str, body: &Value) -> anyhow::Result<Value> {
    let body = body.to_string();
    let mut stream = connect(address)?;
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut reply = String::new();
    stream.take(1 << 20).read_to_string(&mut reply)?;
    let (head, text) = reply
        .split_once("\r\n\r\n")
        .context("the reply has no body")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "{status}: {text}");
    Ok(serde_json::from_str(text)?)
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT)
        .with_context(|| format!("cannot reach {address}"))?;
    stream.set_read_timeout(Some(READ))?;
    Ok(stream)
}

/// The body behind an `http://` address, of at most `limit` bytes; anything but status 200 is an
/// error.
pub(crate) fn get(url: &str, limit: u64) -> anyhow::Result<Vec<u8>> {
    let Some(rest) = url.strip_prefix("http://") else {
        bail!("{url} does not start with http://, and nothing else is spoken here");
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    ensure!(
        !host.is_empty() && !url.contains(char::is_whitespace),
        "{url} is no address"
    );
    let with_port = if host.rsplit_once(':').is_some() {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let address = with_port
        .to_socket_addrs()
        .with_context(|| format!("cannot find {host}"))?
        .next()
        .with_context(|| format!("{host} has no address"))?;
    let mut stream = connect(address)?;
    let request =
        format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\nAccept-Encoding: identity\r\n\r\n");
    // As words: a broken pipe in the chain of an error means that nobody reads our output.
    let broken = |e: std::io::Error| anyhow!("the connection to {host} failed: {e}");
    stream.write_all(request.as_bytes()).map_err(broken)?;
    let mut reply = Vec::new();
    let most = limit + MAX_HEAD as u64;
    stream
        .take(most + 1)
        .read_to_end(&mut reply)
        .map_err(broken)?;
    let end = reply.windows(4).position(|w| w == b"\r\n\r\n");
    let end = end.context("the reply has no body")?;
    let head = String::from_utf8_lossy(&reply[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "{status}");
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let named = name.eq_ignore_ascii_case("content-length");
        named.then(|| value.trim().parse::<u64>().ok()).flatten()
    });
    let body = reply.split_off(end + 4);
    ensure!(
        body.len() as u64 <= limit,
        "the reply is longer than the {limit} bytes that were expected"
    );
    if let Some(length) = length {
        ensure!(
            body.len() as u64 == length,
            "the reply ends after {} of {length} bytes",
            body.len()
        );
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use super::*;

    /// Answers one request on this machine with `reply`; returns the address of a file there.
    fn serve(reply: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(reply);
        });
        format!("http://{address}/x/file.gz")
    }

    #[test]
    fn replies_are_whole_or_errors() {
        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab\r\n!";
        assert_eq!(get(&serve(ok), 5).unwrap(), b"ab\r\n!");
        let bare = b"HTTP/1.0 200 OK\r\n\r\nabc";
        assert_eq!(get(&serve(bare), 10).unwrap(), b"abc");
        for (reply, word) in [
            (&b"HTTP/1.1 404 Not Found\r\n\r\nno"[..], "404"),
            (b"HTTP/1.1 301 Moved\r\nLocation: https://x\r\n\r\n", "301"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "3 of 9"),
            (b"HTTP/1.1 200 OK\r\n\r\n12345678901", "longer than the 10"),
            (b"hello", "no body"),
        ] {
            let error = get(&serve(reply), 10).unwrap_err().to_string();
            assert!(error.contains(word), "{word} is missing in {error}");
        }
        for url in ["https://x/y", "http:///y", "http://a b/c", "ftp://x"] {
            assert!(get(url, 10).is_err(), "{url}");
        }
    }
}
