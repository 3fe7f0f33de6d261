//! The short control messages (types 1 to 6): written whole, read where a session answers them.
//!
//! All of them fit one chunk of the initial 128 bytes, so they may be sent before any chunk size is agreed.

use bytes::{Bytes, BytesMut};

use crate::rtmp::{CHUNK_BYTES, Framed, kind};

/// The acknowledgement window we ask for and grant, in bytes.
///
/// What ffmpeg and nginx-rtmp use; at 3 Mbit/s a peer reports every 6 s. Nothing here waits for the reports.
pub const WINDOW_BYTES: u32 = 2_500_000;

/// User control event numbers (RTMP 1.0, section 7.1.7).
const STREAM_BEGIN: u16 = 0;
const STREAM_EOF: u16 = 1;
const SET_BUFFER_LENGTH: u16 = 3;
const PING_REQUEST: u16 = 6;
const PING_RESPONSE: u16 = 7;

/// "I have received `total` bytes": what [`chunk::Reader::acknowledgement`](crate::rtmp::chunk::Reader::acknowledgement) asks to be sent.
pub fn acknowledgement(total: u32) -> Framed {
    word(kind::ACKNOWLEDGEMENT, total)
}

/// "From now on my chunks have up to [`CHUNK_BYTES`] bytes."
pub(crate) fn chunk_size() -> Framed {
    word(kind::SET_CHUNK_SIZE, CHUNK_BYTES as u32)
}

/// "Acknowledge what you get at least every [`WINDOW_BYTES`]."
pub(crate) fn window() -> Framed {
    word(kind::WINDOW_ACKNOWLEDGEMENT_SIZE, WINDOW_BYTES)
}

/// "Send me no more than [`WINDOW_BYTES`] unacknowledged", with the limit type "dynamic".
pub(crate) fn peer_bandwidth() -> Framed {
    let mut body = [2; 5];
    body[..4].copy_from_slice(&WINDOW_BYTES.to_be_bytes());
    message(kind::SET_PEER_BANDWIDTH, &body)
}

/// "Stream `stream_id` exists and can be used."
pub(crate) fn stream_begin(stream_id: u32) -> Framed {
    user(STREAM_BEGIN, &stream_id.to_be_bytes())
}

/// "What you play on stream `stream_id` has ended."
pub(crate) fn stream_eof(stream_id: u32) -> Framed {
    user(STREAM_EOF, &stream_id.to_be_bytes())
}

/// "I buffer `milliseconds` of stream `stream_id`."
pub(crate) fn buffer_length(stream_id: u32, milliseconds: u32) -> Framed {
    let mut body = [0; 8];
    body[..4].copy_from_slice(&stream_id.to_be_bytes());
    body[4..].copy_from_slice(&milliseconds.to_be_bytes());
    user(SET_BUFFER_LENGTH, &body)
}

/// The user control events that somebody acts upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// The peer wants its four bytes back.
    Ping([u8; 4]),
    /// What we play on this stream has ended.
    StreamEof(u32),
}

impl User {
    /// `None` for every event nobody acts upon, and for those too short to mean anything.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let (event, rest) = payload.split_first_chunk::<2>()?;
        let (word, _) = rest.split_first_chunk::<4>()?;
        match u16::from_be_bytes(*event) {
            PING_REQUEST => Some(User::Ping(*word)),
            STREAM_EOF => Some(User::StreamEof(u32::from_be_bytes(*word))),
            _ => None,
        }
    }
}

/// The answer to a [`User::Ping`].
pub(crate) fn pong(stamp: [u8; 4]) -> Framed {
    user(PING_RESPONSE, &stamp)
}

fn word(type_id: u8, value: u32) -> Framed {
    message(type_id, &value.to_be_bytes())
}

fn user(event: u16, body: &[u8]) -> Framed {
    let mut payload = BytesMut::with_capacity(2 + body.len());
    payload.extend_from_slice(&event.to_be_bytes());
    payload.extend_from_slice(body);
    Framed::new(kind::USER_CONTROL, 0, 0, payload.freeze())
}

fn message(type_id: u8, body: &[u8]) -> Framed {
    Framed::new(type_id, 0, 0, Bytes::copy_from_slice(body))
}
