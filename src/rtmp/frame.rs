//! One message, encoded once for every reader: a few header bytes held inline around a shared payload.
//!
//! Every message starts with a full (type 0) header and goes on with type 3 chunks, so it can be decoded
//! whatever was sent, or skipped, before it. Bytes may be shared between connections exactly when message
//! stream id and chunk size agree, which is why both are constants here. Called by the relay's writers.

use std::io::IoSlice;

use bytes::{BufMut, Bytes, BytesMut};

use crate::rtmp::kind;

/// The chunk size announced to every peer, in both roles.
///
/// Large enough that all but big key frames are one chunk (one header and one slice of payload to write, and
/// nothing to reassemble at the peer); small enough that a key frame in flight delays an audio message of another
/// chunk stream by no more than 64 KiB. Clients that mirror our size (ffmpeg) then send us whole messages too.
pub const CHUNK_BYTES: usize = 65536;

/// The message stream id of all shared media: what the first `createStream` of a connection returns here.
pub const MEDIA_STREAM_ID: u32 = 1;

/// The longest message whose length fits the header's 24 bits.
pub const MAX_PAYLOAD_BYTES: usize = 0xff_ffff;

/// From here on a timestamp travels in the four extra bytes.
pub(crate) const EXTENDED: u32 = 0xff_ffff;

/// Basic header (1), message header (11), extended timestamp (4).
const HEADER_BYTES: usize = 16;
/// Basic header (1), extended timestamp (4).
const CONTINUATION_BYTES: usize = 5;

/// A message ready to be written, as often as wanted: cloning shares the payload and copies 30 bytes.
#[derive(Clone)]
pub struct Framed {
    header: [u8; HEADER_BYTES],
    header_len: u8,
    continuation: [u8; CONTINUATION_BYTES],
    continuation_len: u8,
    chunk_bytes: u32,
    payload: Bytes,
}

impl Framed {
    /// Frames `payload` (an FLV tag's body, or AMF) at `timestamp` milliseconds of the stream's own time, for
    /// message stream `stream_id`, in chunks of [`CHUNK_BYTES`]. Nothing is copied or allocated.
    ///
    /// A payload longer than [`MAX_PAYLOAD_BYTES`] has no representation in RTMP. The reader's limits keep such a
    /// message from coming into being; should one be made, it is framed as an empty message, which costs that message
    /// and not the connection.
    pub fn new(type_id: u8, timestamp: u32, stream_id: u32, payload: Bytes) -> Self {
        Self::with_chunk_bytes(type_id, timestamp, stream_id, payload, CHUNK_BYTES as u32)
    }

    /// As [`Framed::new`], for what must be sent before our chunk size is announced.
    pub(crate) fn with_chunk_bytes(
        type_id: u8,
        timestamp: u32,
        stream_id: u32,
        payload: Bytes,
        chunk_bytes: u32,
    ) -> Self {
        debug_assert!(payload.len() <= MAX_PAYLOAD_BYTES);
        let payload = if payload.len() > MAX_PAYLOAD_BYTES {
            Bytes::new()
        } else {
            payload
        };
        let chunk_stream = chunk_stream(type_id);
        let short = timestamp.min(EXTENDED);
        let length = payload.len() as u32;

        let mut header = [0; HEADER_BYTES];
        header[0] = chunk_stream;
        header[1..4].copy_from_slice(&short.to_be_bytes()[1..]);
        header[4..7].copy_from_slice(&length.to_be_bytes()[1..]);
        header[7] = type_id;
        // The one little-endian field of the protocol.
        header[8..12].copy_from_slice(&stream_id.to_le_bytes());
        header[12..].copy_from_slice(&timestamp.to_be_bytes());

        let mut continuation = [0; CONTINUATION_BYTES];
        continuation[0] = 0xc0 | chunk_stream;
        continuation[1..].copy_from_slice(&timestamp.to_be_bytes());

        let extra = if short == EXTENDED { 4 } else { 0 };
        Self {
            header,
            header_len: 12 + extra,
            continuation,
            continuation_len: 1 + extra,
            chunk_bytes,
            payload,
        }
    }

    /// Bytes on the wire, headers included. Never 0.
    #[allow(clippy::len_without_is_empty)] // a framed message always has a header
    pub fn len(&self) -> usize {
        let continuations = self.payload.len().saturating_sub(1) / self.chunk_bytes as usize;
        usize::from(self.header_len)
            + self.payload.len()
            + continuations * usize::from(self.continuation_len)
    }

    /// The message's body, shared.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Appends the slices that make up everything from byte `skip` of the wire form on: for vectored writes, and
    /// for going on where a short write stopped. Appends nothing when `skip` is [`Framed::len`] or more.
    pub fn append_slices<'a>(&'a self, skip: usize, out: &mut Vec<IoSlice<'a>>) {
        self.slices(skip, |slice| out.push(IoSlice::new(slice)));
    }

    /// Hands out the parts that make up everything from byte `skip` of the wire form on, in order.
    pub fn for_each_part<'a>(&'a self, skip: usize, emit: impl FnMut(&'a [u8])) {
        self.slices(skip, emit);
    }

    /// Appends the wire form to `out`.
    pub fn write_to(&self, out: &mut BytesMut) {
        out.reserve(self.len());
        self.slices(0, |slice| out.put_slice(slice));
    }

    fn slices<'a>(&'a self, mut skip: usize, mut emit: impl FnMut(&'a [u8])) {
        let mut part = |slice: &'a [u8]| {
            if skip < slice.len() {
                emit(&slice[skip..]);
                skip = 0;
            } else {
                skip -= slice.len();
            }
        };
        part(&self.header[..usize::from(self.header_len)]);
        for (index, chunk) in self.payload.chunks(self.chunk_bytes as usize).enumerate() {
            if index > 0 {
                part(&self.continuation[..usize::from(self.continuation_len)]);
            }
            part(chunk);
        }
    }
}

impl std::fmt::Debug for Framed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Framed")
            .field("type_id", &self.header[7])
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// The chunk stream for a message type. Audio, video and data each have their own, so that a peer which assumes
/// "one kind per chunk stream" (older Flash and set-top players) is right about us.
const fn chunk_stream(type_id: u8) -> u8 {
    match type_id {
        kind::COMMAND | kind::COMMAND_AMF3 => 3,
        kind::AUDIO => 4,
        kind::DATA | kind::DATA_AMF3 => 5,
        kind::VIDEO => 6,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_after_any_number_of_bytes_is_the_end_of_the_whole() {
        for (timestamp, length) in [
            (7, 0),
            (7, 1),
            (0xff_fffe, 10),
            (0xff_ffff, 10),
            (u32::MAX, 3 * CHUNK_BYTES),
            (5, 3 * CHUNK_BYTES + 1),
        ] {
            let framed = Framed::new(kind::VIDEO, timestamp, 1, vec![0xab; length].into());
            let mut whole = BytesMut::new();
            framed.write_to(&mut whole);
            assert_eq!(framed.len(), whole.len());
            let edges = [
                0,
                1,
                11,
                12,
                16,
                17,
                CHUNK_BYTES,
                whole.len() - 1,
                whole.len(),
            ];
            let odd = (0..whole.len()).step_by(9973);
            for skip in edges.into_iter().filter(|&n| n <= whole.len()).chain(odd) {
                let mut slices = Vec::new();
                framed.append_slices(skip, &mut slices);
                let rest: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
                assert!(rest == whole[skip..], "{timestamp:#x}/{length} from {skip}");
            }
            let mut slices = Vec::new();
            framed.append_slices(whole.len() + 1, &mut slices);
            assert!(slices.is_empty());
        }
    }

    #[test]
    fn a_message_is_a_full_header_and_bare_continuations() {
        let mut bytes = BytesMut::new();
        let payload = vec![1; CHUNK_BYTES + 2];
        Framed::new(kind::VIDEO, 0x100_0000, 0x0102, payload.into()).write_to(&mut bytes);
        assert_eq!(
            bytes[..16],
            [6, 255, 255, 255, 1, 0, 2, 9, 2, 1, 0, 0, 1, 0, 0, 0]
        );
        assert_eq!(bytes[16 + CHUNK_BYTES..], [0xc6, 1, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn the_payload_is_shared_and_a_frame_is_small() {
        let payload = Bytes::from(vec![1; 1000]);
        let framed = Framed::new(kind::AUDIO, 0, 1, payload.clone());
        assert_eq!(framed.clone().payload().as_ptr(), payload.as_ptr());
        assert!(size_of::<Framed>() <= 64, "{}", size_of::<Framed>());
    }
}
