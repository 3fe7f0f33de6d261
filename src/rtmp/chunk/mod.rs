//! The chunk stream of one peer, put together again into whole messages.
//!
//! Owns reassembly, the peer's chunk size, aborts, aggregates, what is owed in acknowledgements, and the limits that
//! keep a stranger's memory use small. Refuses to know what a message means. Every connection, in either role,
//! has one [`Reader`]; its owner reads the socket straight into [`Reader::buffer`].

mod aggregate;
mod header;
mod skim;

use bytes::{Buf, Bytes, BytesMut};

use self::aggregate::Aggregate;
use self::header::Header;
use crate::reason::Reason;
use crate::rtmp::kind;

pub use skim::Skim;

/// The chunk size of both directions until somebody announces another (RTMP 1.0, section 5.4.1).
pub const INITIAL_CHUNK_BYTES: usize = 128;

/// First room for reading. A player's connection, which hears little more than acknowledgements, stays at this.
const SMALLEST_BLOCK: usize = 4 * 1024;
/// Most room made for one read. Messages are slices of such blocks, so this is also what a kept small message pins.
const LARGEST_BLOCK: usize = 64 * 1024;
/// What a chunk stream that has carried such a message before is given up front for the next. Beyond it, room grows
/// with what has arrived.
const LARGEST_HEAD_START: usize = 256 * 1024;

/// What a peer may make us hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest audio, video or aggregate message in bytes. A key frame of a 50 Mbit/s stream has about 2 MB.
    pub message_bytes: usize,
    /// Most chunk streams ever used on one connection. Real clients use 3 to 8; every one costs about 80 bytes.
    pub chunk_streams: usize,
    /// Most bytes held in unfinished messages, over all chunk streams. Two of the longest: interleaved audio and video
    /// need no more.
    pub pending_bytes: usize,
    /// Longest message of any other type in bytes: commands, data and control. Real ones stay under 2 KB.
    pub command_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 8 << 20,
            chunk_streams: 64,
            pending_bytes: 16 << 20,
            command_bytes: 64 << 10,
        }
    }
}

/// One whole message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is; see [`kind`].
    pub type_id: u8,
    /// The message stream it belongs to; 0 is the connection itself.
    pub stream_id: u32,
    /// Milliseconds of the sender's own clock, absolute (deltas are resolved), wrapping at 2^32.
    pub timestamp: u32,
    /// The body. Often a slice of a read block of up to 64 KiB, which it keeps alive together with its
    /// neighbours: copy what is kept for much longer than they are.
    pub payload: Bytes,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("type_id", &self.type_id)
            .field("stream_id", &self.stream_id)
            .field("timestamp", &self.timestamp)
            .field("bytes", &self.payload.len())
            .finish()
    }
}

/// Why the peer's chunk stream cannot be read any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("message of {bytes} bytes (type {type_id}) exceeds the limit of {limit}")]
    MessageTooLong {
        type_id: u8,
        bytes: usize,
        limit: usize,
    },
    #[error("more than {limit} chunk streams on one connection")]
    TooManyChunkStreams { limit: usize },
    #[error("unfinished messages of {bytes} bytes exceed the limit of {limit}")]
    PendingTooLong { bytes: usize, limit: usize },
    #[error("chunk of type {format} on chunk stream {chunk_stream}, which has had no header yet")]
    NoHeader { chunk_stream: u32, format: u8 },
    #[error(
        "header on chunk stream {chunk_stream} announces {bytes} bytes of type {type_id} \
         inside a message of {unfinished} bytes of type {unfinished_type}"
    )]
    HeaderInsideMessage {
        chunk_stream: u32,
        bytes: u32,
        type_id: u8,
        unfinished: u32,
        unfinished_type: u8,
    },
    #[error("chunk size of {0} is outside 1 to 2147483647")]
    ChunkSize(u32),
    #[error("control message of type {type_id} has {bytes} bytes, needs 4")]
    ShortControl { type_id: u8, bytes: usize },
    #[error("aggregate message ends inside a tag that needs {needed} bytes and has {left}")]
    ShortAggregate { needed: usize, left: usize },
    #[error("aggregate message has a tag of type {0}; only audio, video and data may be in one")]
    AggregateTag(u8),
}

impl Error {
    /// The reason under which this end is counted and reported.
    pub fn reason(&self) -> Reason {
        match self {
            Error::MessageTooLong { .. }
            | Error::TooManyChunkStreams { .. }
            | Error::PendingTooLong { .. } => Reason::TooLarge,
            _ => Reason::Protocol,
        }
    }
}

/// Turns one peer's bytes into messages.
///
/// ```
/// use bytes::BytesMut;
/// use linkmic::rtmp::{Framed, MEDIA_STREAM_ID, chunk, kind};
///
/// let mut reader = chunk::Reader::new(chunk::Limits::default());
/// let sent = Framed::new(kind::AUDIO, 40, MEDIA_STREAM_ID, vec![0xaf, 1, 2].into());
/// sent.write_to(reader.buffer()); // a socket's `read_buf` in real life
/// while let Some(message) = reader.next()? {
///     assert_eq!((message.type_id, message.timestamp), (kind::AUDIO, 40));
/// }
/// # Ok::<(), chunk::Error>(())
/// ```
pub struct Reader {
    limits: Limits,
    buffer: BytesMut,
    /// Room made for reading when it runs out, grown while reads fill all of it.
    block: usize,
    /// Room the last [`Reader::buffer`] offered, and the bytes received until then.
    offered: (usize, u64),
    /// Bytes taken out of the buffer since the connection's start.
    consumed: u64,
    chunk_bytes: usize,
    streams: Vec<ChunkStream>,
    /// Room reserved for unfinished messages, over all chunk streams.
    pending: usize,
    aggregate: Option<Aggregate>,
    /// What the peer asked for; 0 until it does.
    window: u32,
    acknowledged: u64,
}

struct ChunkStream {
    id: u32,
    header: Header,
    /// The unfinished message; empty between messages.
    partial: Vec<u8>,
    /// Longest message put together here so far.
    longest: usize,
}

impl Reader {
    /// A reader for a connection whose handshake is over.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            buffer: BytesMut::new(),
            block: SMALLEST_BLOCK,
            offered: (0, 0),
            consumed: 0,
            chunk_bytes: INITIAL_CHUNK_BYTES,
            streams: Vec::new(),
            pending: 0,
            aggregate: None,
            window: 0,
            acknowledged: 0,
        }
    }

    /// Where the socket reads to (append only), with room for a read. Call [`Reader::next`] after each read until
    /// it returns `None`; then the buffer never holds more than one chunk and one read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        let received = self.received();
        let (room, before) = self.offered;
        if room > 0 && received - before >= room as u64 {
            self.block = (self.block * 2).min(LARGEST_BLOCK);
        }
        if self.buffer.capacity() - self.buffer.len() < self.block / 4 {
            self.buffer.reserve(self.block);
        }
        self.offered = (self.buffer.capacity() - self.buffer.len(), received);
        &mut self.buffer
    }

    /// Lets go of the room for reading while nothing is in it: for whoever waits long for the next byte. The next
    /// [`Reader::buffer`] makes it anew.
    pub fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// The next whole message, or `None` when more bytes are needed. Chunk size, abort and acknowledgement window
    /// are acted upon here and not returned; an aggregate is returned as the messages in it.
    ///
    /// # Errors
    /// When the bytes break the protocol or a limit, with the first header that says so, not when its payload is
    /// there. The position in the stream is lost then: close the connection.
    #[allow(clippy::should_implement_trait)] // fallible, and "none yet" is not an end
    pub fn next(&mut self) -> Result<Option<Message>, Error> {
        loop {
            if let Some(aggregate) = &mut self.aggregate {
                match aggregate.next()? {
                    Some(message) => return Ok(Some(message)),
                    None => self.aggregate = None,
                }
            }
            let Some(message) = self.assemble()? else {
                return Ok(None);
            };
            match message.type_id {
                kind::SET_CHUNK_SIZE => match word(&message)? {
                    size @ (0 | 0x8000_0000..) => return Err(Error::ChunkSize(size)),
                    size => self.chunk_bytes = size as usize,
                },
                kind::ABORT => self.abort(word(&message)?),
                kind::WINDOW_ACKNOWLEDGEMENT_SIZE => self.window = word(&message)?,
                kind::AGGREGATE => self.aggregate = Some(Aggregate::new(message)),
                _ => return Ok(Some(message)),
            }
        }
    }

    /// The count to send in an acknowledgement now, when one is due: all bytes received since the handshake, wrapping
    /// at 2^32. Due at half the peer's window, because some servers stop sending at the whole of it.
    pub fn acknowledgement(&mut self) -> Option<u32> {
        let received = self.received();
        let due = u64::from(self.window / 2).max(1);
        if self.window == 0 || received - self.acknowledged < due {
            return None;
        }
        self.acknowledged = received;
        Some(received as u32)
    }

    /// Bytes of memory that this reader holds for its peer: what was received and not taken yet, and the room that is
    /// reserved for unfinished messages.
    pub fn held(&self) -> usize {
        self.pending + self.buffer.capacity()
    }

    /// Bytes received since the handshake.
    pub fn received(&self) -> u64 {
        self.consumed + self.buffer.len() as u64
    }

    /// Bytes that have arrived of the audio or video messages on that message stream that are not whole yet. To be asked
    /// when [`Reader::next`] has nothing more: on a slow line a key frame takes seconds, in which its sender is not idle
    /// while this grows.
    pub fn unfinished_media(&self, stream_id: u32) -> usize {
        let ours = self
            .streams
            .iter()
            .filter(|s| s.header.is_media_of(stream_id));
        let put_together: usize = ours.map(|stream| stream.partial.len()).sum();
        put_together + self.unfinished_chunk(stream_id)
    }

    /// The same of the chunk that stays in the buffer until all of it is there.
    fn unfinished_chunk(&self, stream_id: u32) -> usize {
        let Some((id, basic_len)) = header::chunk_stream(&self.buffer) else {
            return 0;
        };
        let known = self.streams.iter().find(|stream| stream.id == id);
        let inside = known.is_some_and(|stream| !stream.partial.is_empty());
        let previous = known.map(|stream| stream.header);
        match header::read(id, &self.buffer, basic_len, previous, inside) {
            Ok(Some((header, header_len))) if header.is_media_of(stream_id) => {
                self.buffer.len() - header_len
            }
            _ => 0,
        }
    }

    /// Reads chunks until one of them completes a message.
    fn assemble(&mut self) -> Result<Option<Message>, Error> {
        let mut at = 0;
        let message = loop {
            let Some((id, basic_len)) = header::chunk_stream(&self.buffer[at..]) else {
                break None;
            };
            let known = self.streams.iter().position(|stream| stream.id == id);
            let previous = known.map(|index| &self.streams[index]);
            if previous.is_none() && self.streams.len() == self.limits.chunk_streams {
                return Err(Error::TooManyChunkStreams {
                    limit: self.limits.chunk_streams,
                });
            }
            let done = previous.map_or(0, |stream| stream.partial.len());
            let bytes = &self.buffer[at..];
            let Some((header, header_len)) =
                header::read(id, bytes, basic_len, previous.map(|s| s.header), done > 0)?
            else {
                break None;
            };
            if done == 0 {
                self.check_length(&header)?;
            }

            let length = header.length as usize;
            let take = (length - done).min(self.chunk_bytes);
            if bytes.len() < header_len + take {
                break None;
            }
            let index = known.unwrap_or_else(|| {
                self.streams.push(ChunkStream::new(id, header));
                self.streams.len() - 1
            });
            let stream = &mut self.streams[index];
            stream.header = header;
            at += header_len;
            if take == length {
                // The whole message lies in the buffer: it becomes a slice of it.
                self.advance(at);
                self.consumed += length as u64;
                let payload = match length {
                    0 => Bytes::new(),
                    _ => self.buffer.split_to(length).freeze(),
                };
                return Ok(Some(header.message(payload)));
            }
            let arrived = self.buffer.len() - at;
            let body = &self.buffer[at..at + take];
            stream.append(body, arrived, &mut self.pending, self.limits.pending_bytes)?;
            at += take;
            if stream.partial.len() == length {
                self.pending -= stream.partial.capacity();
                stream.longest = stream.longest.max(length);
                let payload = Bytes::from(std::mem::take(&mut stream.partial));
                break Some(header.message(payload));
            }
        };
        self.advance(at);
        Ok(message)
    }

    fn advance(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        self.consumed += bytes as u64;
    }

    fn check_length(&self, header: &Header) -> Result<(), Error> {
        let limit = match header.type_id {
            kind::AUDIO | kind::VIDEO | kind::AGGREGATE => self.limits.message_bytes,
            _ => self.limits.command_bytes,
        };
        let bytes = header.length as usize;
        if bytes > limit {
            return Err(Error::MessageTooLong {
                type_id: header.type_id,
                bytes,
                limit,
            });
        }
        Ok(())
    }

    fn abort(&mut self, id: u32) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
            self.pending -= stream.partial.capacity();
            stream.partial = Vec::new();
        }
    }
}

impl ChunkStream {
    fn new(id: u32, header: Header) -> Self {
        Self {
            id,
            header,
            partial: Vec::new(),
            longest: 0,
        }
    }

    /// Adds one chunk's `body`. Room grows with `arrived`, what the buffer holds from here on, so that a length that
    /// lies costs its sender as many bytes as us; a chunk stream that has kept its word before gets a head start, and
    /// so one allocation for a message.
    fn append(
        &mut self,
        body: &[u8],
        arrived: usize,
        pending: &mut usize,
        limit: usize,
    ) -> Result<(), Error> {
        let have = self.partial.len();
        let room = self.partial.capacity();
        if room - have < body.len() {
            let remaining = self.header.length as usize - have;
            let head_start = self.longest.min(LARGEST_HEAD_START).saturating_sub(have);
            let wanted = have.max(arrived).max(head_start).min(remaining);
            self.partial.reserve_exact(wanted);
            *pending += self.partial.capacity() - room;
            if *pending > limit {
                return Err(Error::PendingTooLong {
                    bytes: *pending,
                    limit,
                });
            }
        }
        self.partial.extend_from_slice(body);
        Ok(())
    }
}

fn word(message: &Message) -> Result<u32, Error> {
    match message.payload.first_chunk() {
        Some(bytes) => Ok(u32::from_be_bytes(*bytes)),
        None => Err(Error::ShortControl {
            type_id: message.type_id,
            bytes: message.payload.len(),
        }),
    }
}

#[cfg(test)]
mod tests;
