//! Chunk headers: the basic header of 1 to 3 bytes, then 11, 7, 3 or no bytes, then perhaps four of timestamp.

use bytes::Bytes;

use super::{Error, Message};
use crate::rtmp::frame::EXTENDED;
use crate::rtmp::kind;

/// What a chunk stream remembers of its last header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Of the message, absolute.
    timestamp: u32,
    /// What the timestamp field said: the absolute time after a type 0 header, else the delta. A type 3 header that
    /// begins a message adds it again, after type 0 too (section 5.3.1.2.4; ffmpeg's encoder relies on that).
    field: u32,
    /// Whether the field came in the four extra bytes.
    extended: bool,
    pub(super) length: u32,
    pub(super) type_id: u8,
    stream_id: u32,
}

impl Header {
    /// Audio, video or an aggregate of both.
    pub(super) fn is_media_of(&self, stream_id: u32) -> bool {
        self.stream_id == stream_id
            && matches!(self.type_id, kind::AUDIO | kind::VIDEO | kind::AGGREGATE)
    }

    pub(super) fn message(&self, payload: Bytes) -> Message {
        Message {
            type_id: self.type_id,
            stream_id: self.stream_id,
            timestamp: self.timestamp,
            payload,
        }
    }
}

/// The chunk stream's id and the length of the basic header; `None` when more bytes are needed.
pub(super) fn chunk_stream(bytes: &[u8]) -> Option<(u32, usize)> {
    match bytes {
        [first, second, third, ..] if first & 0x3f == 1 => {
            Some((64 + u32::from(*second) + 256 * u32::from(*third), 3))
        }
        [first, second, ..] if first & 0x3f == 0 => Some((64 + u32::from(*second), 2)),
        [first, ..] if first & 0x3f > 1 => Some((u32::from(first & 0x3f), 1)),
        _ => None,
    }
}

/// Reads the header at the start of `bytes`, whose basic header has `basic_len` bytes; `None` when more bytes are
/// needed. `inside` says that a message is unfinished on this chunk stream.
pub(super) fn read(
    chunk_stream: u32,
    bytes: &[u8],
    basic_len: usize,
    previous: Option<Header>,
    inside: bool,
) -> Result<Option<(Header, usize)>, Error> {
    let format = bytes[0] >> 6;
    let previous = match (previous, format) {
        (Some(header), _) => header,
        // librtmp's ping opens chunk stream 2 with a type 1 header, which is then as good as type 0.
        (None, 0 | 1) => Header {
            timestamp: 0,
            field: 0,
            extended: false,
            length: 0,
            type_id: 0,
            stream_id: 0,
        },
        (None, _) => {
            return Err(Error::NoHeader {
                chunk_stream,
                format,
            });
        }
    };
    let rest = &bytes[basic_len..];
    if format == 3 {
        return Ok(repeat(rest, previous, inside).map(|(header, len)| (header, basic_len + len)));
    }

    let fields = [11, 7, 3][usize::from(format)];
    if rest.len() < fields {
        return Ok(None);
    }
    let short = u24(&rest[..3]);
    let extended = short == EXTENDED;
    let field = match (extended, rest[fields..].first_chunk()) {
        (false, _) => short,
        (true, Some(long)) => u32::from_be_bytes(*long),
        (true, None) => return Ok(None),
    };
    let mut header = previous;
    if format <= 1 {
        header.length = u24(&rest[3..6]);
        header.type_id = rest[6];
    }
    if inside {
        // Some encoders head every chunk of a message (nginx-rtmp, ffmpeg and librtmp read it so); the same length
        // and type say that this is one of theirs. Another length would be a message begun inside another.
        if (header.length, header.type_id) != (previous.length, previous.type_id) {
            return Err(Error::HeaderInsideMessage {
                chunk_stream,
                bytes: header.length,
                type_id: header.type_id,
                unfinished: previous.length,
                unfinished_type: previous.type_id,
            });
        }
        header = previous;
    } else {
        header.field = field;
        header.extended = extended;
        header.timestamp = match format {
            0 => field,
            _ => previous.timestamp.wrapping_add(field),
        };
        if format == 0 {
            header.stream_id = u32::from_le_bytes([rest[7], rest[8], rest[9], rest[10]]);
        }
    }
    let len = basic_len + fields + if extended { 4 } else { 0 };
    Ok(Some((header, len)))
}

/// A type 3 header: nothing, or four bytes when the last header had an extended timestamp.
fn repeat(rest: &[u8], previous: Header, inside: bool) -> Option<(Header, usize)> {
    let len = match previous.extended {
        true => repeated_timestamp(rest, &previous)?,
        false => 0,
    };
    let mut header = previous;
    if !inside {
        header.timestamp = previous.timestamp.wrapping_add(previous.field);
    }
    Some((header, len))
}

/// Whether the extended timestamp stands in a type 3 chunk again (4) or not (0): the specification says it does, old
/// librtmp and Flash encoders leave it out. Told apart by value; senders repeat the field or the absolute time.
/// `None` while the bytes could still become either.
fn repeated_timestamp(rest: &[u8], previous: &Header) -> Option<usize> {
    let seen = &rest[..rest.len().min(4)];
    let possible = [previous.field, previous.timestamp]
        .iter()
        .any(|value| value.to_be_bytes().starts_with(seen));
    match (possible, seen.len()) {
        (true, 4) => Some(4),
        (true, _) => None,
        (false, _) => Some(0),
    }
}

fn u24(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}
