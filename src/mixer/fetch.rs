//! Fetches a picture by `http` or `https`: one request, at most so many bytes, in at most so much time, and never from
//! inside the house.
//!
//! | source | covered |
//! |---|---|
//! | RFC 9112 | requests and answers of HTTP/1.1: lengths, chunks, until close |
//! | RFC 6890, 6598, 4193 and kin | addresses that are nobody's on the open network |
//!
//! The name is looked up once and the connection goes to the address that was checked, so that a name which answers
//! otherwise the second time gains nothing. Blocking: called on a thread of its own. Errors never hold the address,
//! which may be signed.

mod timed;

#[cfg(test)]
mod tests;

use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use url::Url;

use timed::{LookUps, MAX_LOOK_UPS, Socket};

/// Longest answer's head.
const MAX_HEAD: usize = 16 * 1024;
/// More than this from one place to the next is a circle.
const MAX_REDIRECTS: usize = 3;
/// Where Debian, Fedora and Alpine keep the authorities that the system trusts.
const AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];
/// Networks that are not the open one.
const INTERNAL: [&str; 22] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "::/96",
    "64:ff9b::/32",
    "100::/64",
    "2001::/23",
    "2002::/16",
    "fc00::/7",
    "fe80::/9",
    "ff00::/8",
];

/// Why there is no answer. The host is named, the rest of the address never.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no address: {0}")]
    Address(String),
    #[error("{host} is not found")]
    Unknown { host: String },
    #[error("{MAX_LOOK_UPS} names are being looked up, and {host} cannot be as well; try again")]
    Busy { host: String },
    #[error("{host} is at {address}, which is internal; [mixer] picture_networks can allow it")]
    Internal { host: String, address: IpAddr },
    #[error("{host}: {error}")]
    Connection { host: String, error: String },
    #[error("{host} answers {status}")]
    Status { host: String, status: u16 },
    #[error("{host} sends no HTTP")]
    Syntax { host: String },
    #[error("{host} leads on more than {MAX_REDIRECTS} times")]
    Circle { host: String },
    #[error("more than {limit} bytes")]
    TooLong { limit: usize },
    #[error("not there within {} s", .limit.as_secs())]
    Slow { limit: Duration },
}

/// What may be fetched.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Internal networks from which pictures may come all the same.
    pub networks: Vec<IpNet>,
    pub max_bytes: usize,
    /// For all of it: looking up, connecting and reading.
    pub time: Duration,
}

impl Policy {
    /// What is at that address.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn get(&self, address: &str) -> Result<Vec<u8>, Error> {
        let mut url = Url::parse(address).map_err(|e| Error::Address(e.to_string()))?;
        let deadline = Instant::now() + self.time;
        for _ in 0..=MAX_REDIRECTS {
            match self.request(&url, deadline)? {
                Answer::Body(body) => return Ok(body),
                Answer::Elsewhere(place) => {
                    url = url
                        .join(&place)
                        .map_err(|e| Error::Address(e.to_string()))?;
                }
            }
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        Err(Error::Circle { host })
    }

    fn request(&self, url: &Url, deadline: Instant) -> Result<Answer, Error> {
        let host = url.host_str().unwrap_or_default().to_owned();
        if !matches!(url.scheme(), "http" | "https") {
            let scheme = url.scheme();
            return Err(Error::Address(format!(
                "{scheme:?} is neither http nor https"
            )));
        }
        let peer = Peer {
            policy: self,
            host: &host,
            deadline,
        };
        let stream = peer.connect(url)?;
        let stream: Box<dyn Stream> = if url.scheme() == "https" {
            Box::new(peer.secure(stream)?)
        } else {
            Box::new(stream)
        };
        peer.exchange(stream, url)
    }

    /// May pictures come from there?
    fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        let internal: Vec<IpNet> = INTERNAL.iter().filter_map(|n| n.parse().ok()).collect();
        !within(&internal) || within(&self.networks)
    }
}

enum Answer {
    Body(Vec<u8>),
    Elsewhere(String),
}

trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// Names are looked up for all requests of this process.
static LOOK_UPS: LookUps = LookUps::new();

/// One request's other side.
struct Peer<'a> {
    policy: &'a Policy,
    host: &'a str,
    deadline: Instant,
}

impl Peer<'_> {
    fn failed(&self, error: &std::io::Error) -> Error {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Slow {
                limit: self.policy.time,
            },
            _ => self.broken(error.to_string()),
        }
    }

    fn broken(&self, error: String) -> Error {
        Error::Connection {
            host: self.host.to_owned(),
            error,
        }
    }

    fn connect(&self, url: &Url) -> Result<Socket, Error> {
        let unknown = || Error::Unknown {
            host: self.host.to_owned(),
        };
        let port = url.port_or_known_default().ok_or_else(unknown)?;
        // An IPv6 address stands in brackets in a URL.
        let name = self.host.trim_start_matches('[').trim_end_matches(']');
        let found = LOOK_UPS.look_up(name, port, self.deadline);
        let found = found.map_err(|error| match error.kind() {
            ErrorKind::TimedOut => self.failed(&error),
            ErrorKind::QuotaExceeded => Error::Busy {
                host: self.host.to_owned(),
            },
            _ => unknown(),
        })?;
        let first = found.first().ok_or_else(unknown)?;
        let mut error = Error::Internal {
            host: self.host.to_owned(),
            address: first.ip(),
        };
        for address in found.iter().filter(|a| self.policy.allows(a.ip())) {
            match Socket::connect(address, self.deadline) {
                Ok(stream) => return Ok(stream),
                Err(e) => error = self.failed(&e),
            }
        }
        Err(error)
    }

    fn secure(
        &self,
        stream: Socket,
    ) -> Result<rustls::StreamOwned<rustls::ClientConnection, Socket>, Error> {
        let broken = |e: &dyn std::fmt::Display| self.broken(e.to_string());
        let Some(file) = AUTHORITIES.iter().map(Path::new).find(|path| path.exists()) else {
            let error = "no file of trusted authorities on this system (ca-certificates)";
            return Err(self.broken(error.to_owned()));
        };
        let mut roots = rustls::RootCertStore::empty();
        let read = CertificateDer::pem_file_iter(file).map_err(|e| broken(&e))?;
        roots.add_parsable_certificates(read.flatten());
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .map_err(|e| broken(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
        let name = ServerName::try_from(self.host.to_owned()).map_err(|e| broken(&e))?;
        let connection =
            rustls::ClientConnection::new(Arc::new(config), name).map_err(|e| broken(&e))?;
        Ok(rustls::StreamOwned::new(connection, stream))
    }

    fn exchange(&self, mut stream: Box<dyn Stream>, url: &Url) -> Result<Answer, Error> {
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: linkmic/{}\r\n\
             Accept: image/png, image/jpeg\r\nConnection: close\r\n\r\n",
            env!("CARGO_PKG_VERSION")
        );
        stream
            .write_all(request.as_bytes())
            .map_err(|e| self.failed(&e))?;
        let mut received = Vec::new();
        let head = loop {
            if let Some(head) = self.head(&received)? {
                break head;
            }
            if received.len() > MAX_HEAD || !self.more(stream.as_mut(), &mut received)? {
                return Err(self.syntax());
            }
        };
        let mut body = received.split_off(head.length);
        match head.status {
            200 => {}
            301 | 302 | 303 | 307 | 308 if head.location.is_some() => {
                return Ok(Answer::Elsewhere(head.location.unwrap_or_default()));
            }
            status => {
                return Err(Error::Status {
                    host: self.host.to_owned(),
                    status,
                });
            }
        }
        let limit = self.policy.max_bytes;
        if head.body.is_some_and(|length| length > limit) {
            return Err(Error::TooLong { limit });
        }
        // Chunks take a few bytes each besides their content.
        let most = if head.chunked { 2 * limit } else { limit };
        while head.body.is_none_or(|length| body.len() < length)
            && self.more(stream.as_mut(), &mut body)?
        {
            if body.len() > most {
                return Err(Error::TooLong { limit });
            }
        }
        if head.chunked {
            body = unchunked(&body).ok_or_else(|| self.syntax())?;
        }
        match head.body {
            Some(length) if body.len() < length => Err(self.syntax()),
            Some(length) => {
                body.truncate(length);
                Ok(Answer::Body(body))
            }
            None if body.len() > limit => Err(Error::TooLong { limit }),
            None => Ok(Answer::Body(body)),
        }
    }

    /// Reads on; `false` at the end.
    fn more(&self, stream: &mut dyn Stream, to: &mut Vec<u8>) -> Result<bool, Error> {
        let mut chunk = [0; 16 * 1024];
        match stream.read(&mut chunk) {
            Ok(0) => Ok(false),
            Ok(count) => {
                to.extend_from_slice(&chunk[..count]);
                Ok(true)
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(true),
            // Many servers end without saying goodbye in TLS; lengths tell whether something is missing.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(self.failed(&e)),
        }
    }

    fn syntax(&self) -> Error {
        Error::Syntax {
            host: self.host.to_owned(),
        }
    }

    /// The answer's head, once it is all there.
    fn head(&self, received: &[u8]) -> Result<Option<Head>, Error> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(received) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(self.syntax()),
        };
        let find = |name: &str| {
            let header = response
                .headers
                .iter()
                .find(|h| h.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(header.value).ok().map(str::trim)
        };
        let chunked = find("transfer-encoding")
            .is_some_and(|coding| coding.to_ascii_lowercase().contains("chunked"));
        Ok(Some(Head {
            length,
            status: response.code.unwrap_or(0),
            location: find("location").map(str::to_owned),
            body: find("content-length")
                .filter(|_| !chunked)
                .and_then(|length| length.parse().ok()),
            chunked,
        }))
    }
}

struct Head {
    /// Bytes of the head itself.
    length: usize,
    status: u16,
    location: Option<String>,
    body: Option<usize>,
    chunked: bool,
}

/// The content of chunks; `None` when they are broken off or no chunks.
fn unchunked(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((skip, size))) = httparse::parse_chunk_size(chunks)
        else {
            return None;
        };
        if size == 0 {
            return Some(content);
        }
        let end = skip.checked_add(usize::try_from(size).ok()?)?;
        content.extend_from_slice(chunks.get(skip..end)?);
        chunks = chunks.get(end + 2..)?;
    }
}
