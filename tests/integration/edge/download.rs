//! An HTTP client that shows every byte: the head, the chunks, and how the answer ended.

use std::net::SocketAddr;

use linkmic::probe::flv::{self, Tag};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::SOON;

/// An answer that may still be coming.
pub struct Download<S = TcpStream> {
    pub socket: S,
    pub status: u16,
    pub head: String,
    /// What came behind the head, as it came.
    raw: Vec<u8>,
    /// The server has closed.
    closed: bool,
}

impl Download {
    /// Asks, and reads the answer's head.
    pub async fn ask(server: SocketAddr, line: &str) -> Self {
        let mut socket = TcpStream::connect(server).await.expect("it listens");
        let request = format!("{line}\r\nHost: {server}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
        Self::answer(socket).await
    }

    pub async fn get(server: SocketAddr, target: &str) -> Self {
        Self::ask(server, &format!("GET {target} HTTP/1.1")).await
    }
}

impl<S: AsyncRead + Unpin> Download<S> {
    /// Reads the head of an answer to what was asked before.
    pub async fn answer(socket: S) -> Self {
        let mut download = Self {
            socket,
            status: 0,
            head: String::new(),
            raw: Vec::new(),
            closed: false,
        };
        let end = loop {
            if let Some(at) = find(&download.raw, b"\r\n\r\n") {
                break at;
            }
            assert!(download.more().await, "closed without an answer");
        };
        let head: Vec<u8> = download.raw.drain(..end + 4).collect();
        download.head = String::from_utf8(head).expect("a head is text");
        let status = download.head.split(' ').nth(1).expect("a status");
        download.status = status.parse().expect("a number");
        download
    }

    /// The value of a field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// `false`: the server has closed.
    async fn more(&mut self) -> bool {
        let read = timeout(SOON, self.socket.read_buf(&mut self.raw)).await;
        self.closed = read
            .expect("something comes")
            .expect("the connection holds")
            == 0;
        !self.closed
    }

    /// The body so far, and whether it is whole.
    pub fn body(&self) -> (Vec<u8>, bool) {
        if self.field("transfer-encoding").is_none() {
            return (self.raw.clone(), self.closed);
        }
        let mut body = Vec::new();
        let mut rest = self.raw.as_slice();
        while let Some(at) = find(rest, b"\r\n") {
            let size = std::str::from_utf8(&rest[..at]).expect("a chunk's size");
            let size = usize::from_str_radix(size, 16).expect("a chunk's size");
            let Some(chunk) = rest.get(at + 2..at + 4 + size) else {
                break;
            };
            assert!(chunk.ends_with(b"\r\n"), "a chunk without its end");
            if size == 0 {
                assert_eq!(rest.len(), at + 4, "something behind the last chunk");
                return (body, true);
            }
            body.extend_from_slice(&chunk[..size]);
            rest = &rest[at + 4 + size..];
        }
        (body, false)
    }

    /// The flags of the FLV header and the whole tags so far.
    pub fn tags(&self) -> (u8, Vec<Tag>) {
        let (body, _) = self.body();
        if body.len() < 13 {
            return (0, Vec::new());
        }
        (body[4], flv::tags(&body).expect("FLV"))
    }

    /// Reads until `what` is found in the tags so far.
    pub async fn until<T>(&mut self, what: impl Fn(&[Tag]) -> Option<T>) -> T {
        loop {
            if let Some(found) = what(&self.tags().1) {
                return found;
            }
            assert!(self.more().await, "the stream ended");
        }
    }

    /// All that comes behind the head, as it comes, until the server closes.
    pub async fn rest(&mut self) -> &[u8] {
        while self.more().await {}
        &self.raw
    }

    /// Reads to the end, which must be one, and gives the body.
    pub async fn end(&mut self) -> Vec<u8> {
        while self.more().await {}
        let (body, whole) = self.body();
        assert!(whole, "cut off");
        body
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
