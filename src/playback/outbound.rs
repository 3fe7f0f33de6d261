//! What one reader is still to be written: whole messages and answers, the first of them perhaps half written.
//!
//! What has begun to go out must be finished, or the bytes behind it make no sense; what has not can be taken back,
//! with the place in the ring and the pace that were there before it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::media::{Kind, MediaTime};
use crate::relay::{Framing, Item, Mark};

/// Something to write.
#[derive(Debug)]
enum Outgoing {
    Item(Arc<Item>, Undo),
    Bytes(Bytes),
}

impl Outgoing {
    fn len(&self, framing: Framing) -> usize {
        match self {
            Outgoing::Item(item, _) => item.len_in(framing),
            Outgoing::Bytes(bytes) => bytes.len(),
        }
    }

    /// Appends the wire form from byte `skip` on, until `out` is `limit` bytes long.
    fn write(&self, framing: Framing, skip: usize, limit: usize, out: &mut Vec<u8>) {
        match self {
            Outgoing::Item(item, _) => item.write_in(framing, skip, limit, out),
            Outgoing::Bytes(bytes) => {
                let rest = &bytes[skip..];
                out.extend_from_slice(&rest[..rest.len().min(limit.saturating_sub(out.len()))]);
            }
        }
    }
}

/// Where the reader stood before a message was queued.
#[derive(Debug, Clone, Copy)]
pub struct Undo {
    pub cursor: u64,
    pub mark: Mark,
    /// The message was made for this reader: the ring does not give it again.
    pub private: bool,
}

/// What [`Outbound::consume`] has taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumed {
    pub bytes: usize,
    /// Media time of the message; `None` for an answer.
    pub time: Option<MediaTime>,
    /// The message is written to its end.
    pub whole_message: bool,
}

/// Messages for which an empty queue keeps its room: more than a reader at the live edge has at a time. A joiner's burst is
/// a whole group of pictures, and once.
const KEPT: usize = 8;

/// The queue of one reader.
#[derive(Debug)]
pub struct Outbound {
    framing: Framing,
    queue: VecDeque<Outgoing>,
    /// Bytes of the front that are written.
    skip: usize,
    /// The front counts as begun, whatever was reported of it.
    pinned: bool,
    bytes: usize,
}

impl Outbound {
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            queue: VecDeque::new(),
            skip: 0,
            pinned: false,
            bytes: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Has it begun to go out, or been offered so that it must?
    pub fn has_begun(&self) -> bool {
        self.skip > 0 || self.pinned
    }

    /// Bytes still to write of the first message or answer.
    pub fn rest_of_first(&self) -> usize {
        let first = self.queue.front();
        first.map_or(0, |first| first.len(self.framing) - self.skip)
    }

    /// Messages and answers that are not written to their end.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Bytes still to write.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push(&mut self, item: Arc<Item>, undo: Undo) {
        self.append(Outgoing::Item(item, undo));
    }

    pub fn push_bytes(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.append(Outgoing::Bytes(bytes));
        }
    }

    fn append(&mut self, outgoing: Outgoing) {
        self.bytes += outgoing.len(self.framing);
        self.queue.push_back(outgoing);
    }

    /// Appends what comes next to `out`, until it is `limit` bytes long.
    pub fn fill(&self, limit: usize, out: &mut Vec<u8>) {
        let mut skip = self.skip;
        for outgoing in &self.queue {
            if out.len() >= limit {
                return;
            }
            outgoing.write(self.framing, skip, limit, out);
            skip = 0;
        }
    }

    /// Takes written bytes off the front, at most to the end of one message; call again with the rest.
    pub fn consume(&mut self, written: usize) -> Option<Consumed> {
        let front = self.queue.front()?;
        if written == 0 {
            return None;
        }
        let left = front.len(self.framing) - self.skip;
        let bytes = written.min(left);
        let time = match front {
            Outgoing::Item(item, _) => Some(item.message().dts),
            Outgoing::Bytes(_) => None,
        };
        self.bytes -= bytes;
        self.skip += bytes;
        if bytes == left {
            self.queue.pop_front();
            self.skip = 0;
            self.pinned = false;
            if self.queue.is_empty() && self.queue.capacity() > KEPT {
                self.queue = VecDeque::new();
            }
        }
        Some(Consumed {
            bytes,
            time,
            whole_message: bytes == left && time.is_some(),
        })
    }

    /// What comes next was offered and not taken, by a connection that must be offered the same again: TLS may have
    /// encrypted a byte of it that it could not report as taken.
    pub fn pin(&mut self) {
        self.pinned = !self.queue.is_empty();
    }

    /// The first message of which nothing is written.
    pub fn next_whole(&self) -> Option<&Item> {
        let begun = usize::from(self.has_begun());
        self.queue.iter().skip(begun).find_map(|o| match o {
            Outgoing::Item(item, _) => Some(&**item),
            Outgoing::Bytes(_) => None,
        })
    }

    /// Takes back every message of which nothing is written; answers stay. Where the reader stood before the first of
    /// them, and how many of them were pictures that the ring does not give again; `None` when there were none.
    pub fn take_back(&mut self) -> Option<(Undo, u64)> {
        let begun = usize::from(self.has_begun());
        let mut first = None;
        let mut pictures = 0;
        let mut at = 0;
        let (framing, bytes) = (self.framing, &mut self.bytes);
        self.queue.retain(|outgoing| {
            at += 1;
            match outgoing {
                Outgoing::Item(item, undo) if at > begun => {
                    first.get_or_insert(*undo);
                    *bytes -= item.len_in(framing);
                    let message = item.message();
                    let picture = message.kind == Kind::Video && !message.is_header();
                    pictures += u64::from(picture && undo.private);
                    false
                }
                _ => true,
            }
        });
        first.map(|undo| (undo, pictures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Message;
    use crate::relay::Pace;
    use std::time::Instant;

    const RTMP: Framing = Framing::Rtmp { stream_id: 1 };

    fn item(n: u8) -> Arc<Item> {
        let payload = vec![0x27, 1, 0, 0, 0, n, n, n];
        let message = Message::new(Kind::Video, MediaTime(n.into()), payload.into());
        Arc::new(Item::new(Arc::new(message), None))
    }

    fn undo(cursor: u64) -> Undo {
        let mark = Pace::waiting(Instant::now()).mark();
        Undo {
            cursor,
            mark,
            private: cursor == 13,
        }
    }

    /// Three messages of 12 + 8 bytes with an answer of 5 behind the first.
    fn three() -> Outbound {
        let mut out = Outbound::new(RTMP);
        out.push(item(1), undo(11));
        out.push_bytes(Bytes::from_static(b"reply"));
        out.push(item(2), undo(12));
        out.push(item(3), undo(13));
        out
    }

    fn wire(out: &Outbound) -> Vec<u8> {
        let mut bytes = Vec::new();
        out.fill(usize::MAX, &mut bytes);
        assert_eq!(bytes.len(), out.bytes());
        bytes
    }

    #[test]
    fn what_was_written_in_any_pieces_is_the_whole() {
        let whole = wire(&three());
        for piece in 1..whole.len() {
            let mut out = three();
            let mut got = Vec::new();
            let mut messages = 0;
            while !out.is_empty() {
                let mut bytes = Vec::new();
                out.fill(piece, &mut bytes);
                let mut written = bytes.len();
                assert!(written <= piece && written > 0);
                got.extend(bytes);
                while let Some(consumed) = out.consume(written) {
                    written -= consumed.bytes;
                    messages += u32::from(consumed.whole_message);
                }
            }
            assert_eq!((got, messages), (whole.clone(), 3), "pieces of {piece}");
        }
    }

    #[test]
    fn what_has_begun_is_finished_and_the_rest_taken_back_but_for_answers() {
        let mut out = three();
        let whole = wire(&out);
        out.consume(4);
        assert_eq!(out.next_whole().unwrap().message().dts, MediaTime(2));
        let (undo, pictures) = out.take_back().unwrap();
        assert_eq!((undo.cursor, pictures), (12, 1));
        assert_eq!(wire(&out), whole[4..25]);
        assert!(out.take_back().is_none());

        let mut out = three();
        let (undo, pictures) = out.take_back().unwrap();
        assert_eq!((undo.cursor, pictures), (11, 1));
        assert_eq!(wire(&out), b"reply");

        let mut out = three();
        out.pin();
        assert_eq!(out.take_back().unwrap().0.cursor, 12);
        assert_eq!(wire(&out), whole[..25], "the first was offered");
        out.consume(20);
        out.push(item(3), undo);
        assert_eq!(out.take_back().unwrap().0.cursor, 11, "it is out");
    }
}
