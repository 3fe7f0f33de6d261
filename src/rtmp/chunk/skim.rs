//! A chunk stream of which only the beginnings of messages are of interest: read where it lies, not put together.

use bytes::{Bytes, BytesMut};

use super::header::{self, Header};
use super::{Error, Message, Reader, word};
use crate::rtmp::kind;

/// Reads on where a [`Reader`] was left, without copying what it does not keep. For whoever measures: the bytes of
/// hundreds of players need not go through memory twice.
///
/// An aggregate is handed out as the message that it is, and not taken apart.
pub struct Skim {
    kept: usize,
    /// The beginning of a chunk whose rest is to come; usually empty.
    buffer: BytesMut,
    received: u64,
    chunk_bytes: usize,
    streams: Vec<ChunkStream>,
    window: u32,
    acknowledged: u64,
}

struct ChunkStream {
    id: u32,
    header: Header,
    /// Bytes of the unfinished message so far, and the first of them.
    done: usize,
    head: Vec<u8>,
}

impl Skim {
    /// Goes on after `reader`, which has no whole message left, and keeps the first `kept` bytes of each message.
    /// Commands longer than that are cut too.
    pub fn after(reader: Reader, kept: usize) -> Self {
        let streams = reader.streams.into_iter().map(|stream| ChunkStream {
            id: stream.id,
            header: stream.header,
            done: stream.partial.len(),
            head: stream.partial[..stream.partial.len().min(kept)].to_vec(),
        });
        Self {
            kept,
            received: reader.consumed + reader.buffer.len() as u64,
            chunk_bytes: reader.chunk_bytes,
            streams: streams.collect(),
            window: reader.window,
            acknowledged: reader.acknowledged,
            buffer: reader.buffer,
        }
    }

    /// Bytes received since the handshake.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// As [`Reader::acknowledgement`].
    pub fn acknowledgement(&mut self) -> Option<u32> {
        let due = u64::from(self.window / 2).max(1);
        if self.window == 0 || self.received - self.acknowledged < due {
            return None;
        }
        self.acknowledged = self.received;
        Some(self.received as u32)
    }

    /// Takes what was read, and calls `each` with every message that ends in it: type, message stream and beginning.
    /// Chunk size, abort and acknowledgement window are acted upon here.
    ///
    /// # Errors
    /// As [`Reader::next`], but for its limits: nothing is held here that a peer could make grow, save one chunk.
    pub fn take(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(u8, u32, &[u8]),
    ) -> Result<(), Error> {
        self.received += bytes.len() as u64;
        if self.buffer.is_empty() {
            let read = self.read(bytes, &mut each)?;
            self.buffer.extend_from_slice(&bytes[read..]);
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(bytes);
        let read = self.read(&buffer, &mut each)?;
        let _ = buffer.split_to(read);
        self.buffer = buffer;
        Ok(())
    }

    /// Reads all whole chunks; returns how many bytes they are.
    fn read(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(u8, u32, &[u8]),
    ) -> Result<usize, Error> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let Some((id, basic_len)) = header::chunk_stream(rest) else {
                return Ok(at);
            };
            let known = self.streams.iter().position(|stream| stream.id == id);
            let previous = known.map(|index| &self.streams[index]);
            let done = previous.map_or(0, |stream| stream.done);
            let previous = previous.map(|stream| stream.header);
            let Some((header, header_len)) = header::read(id, rest, basic_len, previous, done > 0)?
            else {
                return Ok(at);
            };
            let take = (header.length as usize - done).min(self.chunk_bytes);
            let Some(body) = rest.get(header_len..header_len + take) else {
                return Ok(at);
            };
            at += header_len + take;
            let index = known.unwrap_or_else(|| {
                self.streams.push(ChunkStream {
                    id,
                    header,
                    done: 0,
                    head: Vec::new(),
                });
                self.streams.len() - 1
            });
            let stream = &mut self.streams[index];
            stream.header = header;
            stream.done += take;
            let room = self.kept - stream.head.len();
            stream.head.extend_from_slice(&body[..take.min(room)]);
            if stream.done < header.length as usize {
                continue;
            }
            stream.done = 0;
            let head = std::mem::take(&mut stream.head);
            let message = |payload| header.message(payload);
            match header.type_id {
                kind::SET_CHUNK_SIZE | kind::ABORT | kind::WINDOW_ACKNOWLEDGEMENT_SIZE => {
                    self.control(&message(Bytes::copy_from_slice(&head)))?;
                }
                type_id => each(type_id, message(Bytes::new()).stream_id, &head),
            }
            // Its room is used again.
            let stream = &mut self.streams[index];
            stream.head = head;
            stream.head.clear();
        }
    }

    fn control(&mut self, message: &Message) -> Result<(), Error> {
        let value = word(message)?;
        match message.type_id {
            kind::SET_CHUNK_SIZE if value == 0 || value >= 0x8000_0000 => {
                return Err(Error::ChunkSize(value));
            }
            kind::SET_CHUNK_SIZE => self.chunk_bytes = value as usize,
            kind::ABORT => {
                for stream in self.streams.iter_mut().filter(|stream| stream.id == value) {
                    stream.done = 0;
                    stream.head.clear();
                }
            }
            _ => self.window = value,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtmp::chunk::Limits;
    use crate::rtmp::{Framed, MEDIA_STREAM_ID};

    const KEPT: usize = 64;

    fn word(type_id: u8, value: u32) -> Framed {
        Framed::new(type_id, 0, 0, value.to_be_bytes().to_vec().into())
    }

    /// Messages of many lengths, in chunks of several sizes and on several chunk streams.
    fn said() -> Vec<u8> {
        let mut said = BytesMut::new();
        for (round, size) in [128_u32, 4_096, 100_000].into_iter().enumerate() {
            word(kind::SET_CHUNK_SIZE, size).write_to(&mut said);
            for (n, length) in [0, 1, 63, 64, 65, 127, 128, 129, 5_000, 70_000]
                .into_iter()
                .enumerate()
            {
                let type_id = if n % 2 == 0 { kind::VIDEO } else { kind::AUDIO };
                let time = 40 * (round * 10 + n) as u32;
                let payload = vec![n as u8; length];
                chunked(&mut said, type_id, time, &payload, size as usize);
            }
        }
        said.to_vec()
    }

    fn chunked(out: &mut BytesMut, type_id: u8, time: u32, payload: &[u8], size: usize) {
        let stream = 4 + (type_id & 1);
        out.extend_from_slice(&[stream]);
        out.extend_from_slice(&time.to_be_bytes()[1..]);
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        out.extend_from_slice(&[type_id]);
        out.extend_from_slice(&MEDIA_STREAM_ID.to_le_bytes());
        for (index, chunk) in payload.chunks(size).enumerate() {
            if index > 0 {
                out.extend_from_slice(&[0xc0 | stream]);
            }
            out.extend_from_slice(chunk);
        }
    }

    /// What a [`Reader`] makes of it, beginnings only.
    fn whole(said: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
        let mut reader = Reader::new(Limits::default());
        reader.buffer().extend_from_slice(said);
        let mut all = Vec::new();
        while let Some(m) = reader.next().unwrap() {
            let head = m.payload[..m.payload.len().min(KEPT)].to_vec();
            all.push((m.type_id, m.stream_id, head));
        }
        all
    }

    #[test]
    fn it_goes_on_where_the_reader_was_left_and_sees_the_same_messages() {
        let said = said();
        let expected = whole(&said);
        assert_eq!(expected.len(), 30);
        for (at, piece) in [(0, 1), (1, 7), (17, 100), (300, 4_096), (9_000, said.len())] {
            let mut reader = Reader::new(Limits::default());
            reader.buffer().extend_from_slice(&said[..at]);
            let mut got = Vec::new();
            while let Some(m) = reader.next().unwrap() {
                let head = m.payload[..m.payload.len().min(KEPT)].to_vec();
                got.push((m.type_id, m.stream_id, head));
            }
            let mut skim = Skim::after(reader, KEPT);
            for bytes in said[at..].chunks(piece) {
                let each = |kind, stream, head: &[u8]| got.push((kind, stream, head.to_vec()));
                skim.take(bytes, each).unwrap();
            }
            assert_eq!(got, expected, "left at {at}, pieces of {piece}");
            assert_eq!(skim.received(), said.len() as u64);
            assert!(skim.buffer.is_empty());
        }
    }

    #[test]
    fn a_window_asks_for_acknowledgements_and_framing_that_breaks_ends_it() {
        let mut skim = Skim::after(Reader::new(Limits::default()), KEPT);
        let mut said = BytesMut::new();
        word(kind::WINDOW_ACKNOWLEDGEMENT_SIZE, 200).write_to(&mut said);
        Framed::new(kind::AUDIO, 0, 1, vec![0xaf; 100].into()).write_to(&mut said);
        skim.take(&said, |_, _, _| ()).unwrap();
        assert_eq!(skim.acknowledgement(), Some(said.len() as u32));
        assert_eq!(skim.acknowledgement(), None);
        let broken = skim.take(&[0xc9], |_, _, _| ());
        assert!(matches!(broken, Err(Error::NoHeader { .. })));
    }
}
