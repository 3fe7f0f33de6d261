//! The RTMP handshake of both ends: 1 + 1536 + 1536 bytes each way, then the chunk stream begins.
//!
//! Owns the order and size of the six packets; what is inside them (plain or with digests) is `rml_rtmp`'s.
//! Knows no deadline: whoever reads the socket gives up on a peer that never finishes.

use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};

use crate::reason::Reason;

/// The only version on the open internet; 6 and above are the encrypted variants, which nobody needs beside TLS.
const VERSION: u8 = 3;
/// Bytes each side sends: version, its own packet, and the answer to the peer's.
pub const PEER_BYTES: usize = 1 + 1536 + 1536;

/// Why a handshake ended the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("handshake asks for version {0}; only version 3 (plain RTMP) is spoken here")]
    Version(u8),
    #[error("handshake is already done")]
    Done,
    #[error("handshake failed: {0}")]
    Failed(String),
}

impl Error {
    /// The reason under which this end is counted and reported.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Version(_) | Error::Failed(_) => Reason::Protocol,
            Error::Done => Reason::Internal,
        }
    }
}

/// What one read brought.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Progress {
    /// To be sent now; often empty.
    pub reply: Bytes,
    /// `Some` when the handshake is over: the bytes already read that belong to the chunk stream (often none).
    pub done: Option<Bytes>,
}

/// The accepting end.
pub struct Server(Exchange);

/// The connecting end.
pub struct Client(Exchange);

impl Server {
    /// A handshake that waits for the client's first byte.
    pub fn new() -> Self {
        Self(Exchange::new(PeerType::Server))
    }

    /// Takes what the socket gave, split anywhere.
    ///
    /// # Errors
    /// When the first byte is another version, or the handshake is already over. Close the connection.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Progress, Error> {
        self.0.receive(bytes)
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A handshake, and the bytes (C0 and C1) that open it.
    pub fn new() -> (Self, Bytes) {
        let mut exchange = Exchange::new(PeerType::Client);
        let opening = exchange
            .inner
            .generate_outbound_p0_and_p1()
            // The function only fills an array with random bytes and a digest; it has no failing path.
            .expect("generating C1 does no I/O");
        (Self(exchange), opening.into())
    }

    /// Takes what the socket gave, split anywhere.
    ///
    /// # Errors
    /// When the first byte is another version, or the handshake is already over. Close the connection.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Progress, Error> {
        self.0.receive(bytes)
    }
}

struct Exchange {
    inner: Handshake,
    /// Bytes of the peer's handshake seen so far; the crate is never given more than [`PEER_BYTES`].
    received: usize,
}

impl Exchange {
    fn new(end: PeerType) -> Self {
        Self {
            inner: Handshake::new(end),
            received: 0,
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<Progress, Error> {
        if self.received == PEER_BYTES {
            return Err(Error::Done);
        }
        let Some(&first) = bytes.first() else {
            return Ok(Progress::default());
        };
        if self.received == 0 && first != VERSION {
            return Err(Error::Version(first));
        }
        let (ours, rest) = bytes.split_at(bytes.len().min(PEER_BYTES - self.received));
        self.received += ours.len();
        match self.inner.process_bytes(ours).map_err(failed)? {
            HandshakeProcessResult::InProgress { response_bytes } => Ok(Progress {
                reply: response_bytes.into(),
                done: None,
            }),
            HandshakeProcessResult::Completed { response_bytes, .. } => Ok(Progress {
                reply: response_bytes.into(),
                done: Some(Bytes::copy_from_slice(rest)),
            }),
        }
    }
}

fn failed(error: rml_rtmp::handshake::HandshakeError) -> Error {
    Error::Failed(error.to_string())
}

#[cfg(test)]
mod digests;

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets both ends talk, `step` bytes at a time, and returns what each has left over.
    fn converse(step: usize, after_c2: &[u8]) -> (Bytes, Bytes) {
        let mut server = Server::new();
        let (mut client, opening) = Client::new();
        let mut to_server = opening.to_vec();
        let mut to_client = Vec::new();
        let (mut server_done, mut client_done) = (None, None);
        while server_done.is_none() || client_done.is_none() {
            for part in std::mem::take(&mut to_server).chunks(step) {
                let progress = server.receive(part).unwrap();
                to_client.extend_from_slice(&progress.reply);
                server_done = server_done.or(progress.done);
            }
            for part in std::mem::take(&mut to_client).chunks(step) {
                let progress = client.receive(part).unwrap();
                to_server.extend_from_slice(&progress.reply);
                if progress.done.is_some() {
                    to_server.extend_from_slice(after_c2);
                    client_done = progress.done;
                }
            }
        }
        (server_done.unwrap(), client_done.unwrap())
    }

    #[test]
    fn both_ends_finish_however_the_bytes_are_split() {
        for step in [1, 2, 7, 1535, 1536, 1537, 3073, 65536] {
            let (server, client) = converse(step, b"");
            assert!(server.is_empty() && client.is_empty(), "step {step}");
        }
    }

    #[test]
    fn bytes_after_the_handshake_are_handed_on() {
        let (server, _) = converse(65536, b"\x02\x00\x00");
        assert_eq!(&server[..], b"\x02\x00\x00");
    }

    #[test]
    fn a_plain_client_that_sends_everything_at_once_is_served() {
        let mut all = vec![0; PEER_BYTES + 3];
        all[0] = VERSION;
        let progress = Server::new().receive(&all).unwrap();
        // S0 and S1, then S2 as the echo of a C1 without a digest.
        assert_eq!(progress.reply.len(), PEER_BYTES);
        assert_eq!(&progress.reply[1537..], &all[1..1537]);
        assert_eq!(progress.done.unwrap().len(), 3);
    }

    #[test]
    fn another_version_is_refused_at_the_first_byte() {
        for version in [0, 1, 6, 8, 0x16, b'G'] {
            assert_eq!(
                Server::new().receive(&[version]),
                Err(Error::Version(version))
            );
        }
    }

    #[test]
    fn half_a_handshake_keeps_waiting_and_bytes_after_its_end_are_an_error() {
        let mut server = Server::new();
        let mut half = vec![7; 1000];
        half[0] = VERSION;
        assert_eq!(server.receive(&half).unwrap().done, None);
        assert_eq!(server.receive(&[]).unwrap(), Progress::default());
        assert!(server.receive(&vec![7; 3000]).unwrap().done.is_some());
        assert_eq!(server.receive(b"x"), Err(Error::Done));
    }
}
