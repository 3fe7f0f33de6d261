//! One HTTP request with JSON in it, and the status of the answer.
//!
//! | source | covered |
//! |---|---|
//! | RFC 9112 | a request of HTTP/1.1 that asks for the connection's end, and the head of its answer |

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

/// The vendor waits so long for an answer, and so do back ends that were written for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest head of an answer.
const MAX_HEAD: usize = 16 << 10;

/// Why there is no status. Never holds the address beyond its host.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("the connection broke: {0}")]
    Broke(#[from] std::io::Error),
    #[error("the answer is no HTTP")]
    Syntax,
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Slow,
}

/// Where letters go: `http://host[:port]/path?query`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    path: String,
}

impl Address {
    /// # Errors
    /// When it is no address of HTTP without TLS, or has a user name or password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("not an address: {error}"))?;
        if url.scheme() != "http" {
            return Err(format!("scheme {:?} is not http", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has a user name or password".to_owned());
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        Ok(Self {
            host,
            port: url.port_or_known_default().unwrap_or(80),
            path,
        })
    }
}

/// Sends `body` and gives the status.
///
/// # Errors
/// When there is no answer in time.
pub(super) async fn post(to: &Address, body: &str) -> Result<u16, Error> {
    timeout(PATIENCE, exchange(to, body))
        .await
        .unwrap_or(Err(Error::Slow))
}

async fn exchange(to: &Address, body: &str) -> Result<u16, Error> {
    let Address { host, port, path } = to;
    let name = host.trim_matches(['[', ']']);
    let connected = TcpStream::connect((name, *port)).await;
    let mut socket = connected.map_err(Error::Connect)?;
    let authority = match port {
        80 => host.clone(),
        port => format!("{host}:{port}"),
    };
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: linkmic\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(1_024);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut answer = httparse::Response::new(&mut headers);
        match answer.parse(&head) {
            Ok(httparse::Status::Complete(_)) => return answer.code.ok_or(Error::Syntax),
            Ok(httparse::Status::Partial) if head.len() < MAX_HEAD => {}
            _ => return Err(Error::Syntax),
        }
        if socket.read_buf(&mut head).await? == 0 {
            return Err(Error::Syntax);
        }
    }
}
