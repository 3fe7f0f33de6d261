//! One player on its own: a socket, a cursor, a pace, and what is half written. A writer loop's stragglers are at
//! work; its followers stand by with all this as they left it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::media::{Class, Kind, MediaTime};
use crate::metrics::Metrics;
use crate::net::Socket;
use crate::reason::Reason;
use crate::relay::{Budget, Framing, Item, Pace, Read, Subscriber, Verdict};

/// Items taken from the ring per turn: what a reader that is behind holds of them while it writes.
pub const BATCH: usize = 64;
/// Bytes per write of a reader that works through its own queue: all of a frame, a share of a long burst.
const WRITE_BYTES: usize = 64 << 10;

/// Something to write.
#[derive(Debug)]
enum Outgoing {
    Item(Arc<Item>),
    Bytes(Bytes),
}

impl Outgoing {
    fn len(&self, framing: Framing) -> usize {
        match self {
            Outgoing::Item(item) => item.len_in(framing),
            Outgoing::Bytes(bytes) => bytes.len(),
        }
    }

    /// Appends the wire form from byte `skip` on, until `out` is `limit` bytes long.
    fn write(&self, framing: Framing, skip: usize, limit: usize, out: &mut Vec<u8>) {
        match self {
            Outgoing::Item(item) => item.write_in(framing, skip, limit, out),
            Outgoing::Bytes(bytes) => {
                let rest = &bytes[skip..];
                out.extend_from_slice(&rest[..rest.len().min(limit.saturating_sub(out.len()))]);
            }
        }
    }
}

/// What a turn left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// All there was is written.
    Idle,
    /// The socket takes no more; wait until it does.
    Blocked,
    /// The reader is done with.
    Over(Reason),
}

/// Room that a loop lends its readers for a turn.
#[derive(Default)]
pub struct Scratch {
    pub items: Vec<Arc<Item>>,
    pub bytes: Vec<u8>,
}

/// A player.
pub struct Reader {
    pub id: u64,
    pub socket: Arc<Socket>,
    subscriber: Subscriber,
    class: Class,
    framing: Framing,
    budget: Budget,
    pace: Pace,
    out: VecDeque<Outgoing>,
    /// Bytes of the front of `out` that are written.
    skip: usize,
    blocked: bool,
    /// Close after what is queued.
    finishing: bool,
    /// Tells the connection why it is over; taken when told.
    outcome: Option<oneshot::Sender<Reason>>,
    /// Dropped with the reader: tells the connection that nothing is written any more.
    released: oneshot::Sender<()>,
}

/// What a connection brings along when it joins its writer loop.
pub struct Joiner {
    pub id: u64,
    pub socket: Arc<Socket>,
    /// Its cursor was placed by `Subscriber::join`.
    pub subscriber: Subscriber,
    pub class: Class,
    /// How its messages travel; a loop serves readers of one framing.
    pub framing: Framing,
    /// The answer to `play`, which goes out in one write with the first media.
    pub first: Bytes,
    /// The burst of this joiner alone.
    pub private: Vec<Arc<Item>>,
    pub outcome: oneshot::Sender<Reason>,
    /// Dropped when the loop lets go of the socket.
    pub released: oneshot::Sender<()>,
}

impl Reader {
    pub fn new(joiner: Joiner, budget: Budget, now: Instant) -> Self {
        let first = joiner
            .private
            .first()
            .cloned()
            .or_else(|| joiner.subscriber.peek())
            .filter(|item| item.headers().is_some());
        let mut reader = Self {
            id: joiner.id,
            socket: joiner.socket,
            subscriber: joiner.subscriber,
            class: joiner.class,
            framing: joiner.framing,
            budget,
            pace: if first.is_some() {
                Pace::joining(now)
            } else {
                Pace::waiting(now)
            },
            out: VecDeque::new(),
            skip: 0,
            blocked: false,
            finishing: false,
            outcome: Some(joiner.outcome),
            released: joiner.released,
        };
        if !joiner.first.is_empty() {
            reader.out.push_back(Outgoing::Bytes(joiner.first));
        }
        if let Some(item) = first {
            reader.begin_at(&item);
        }
        reader
            .out
            .extend(joiner.private.into_iter().map(Outgoing::Item));
        reader
    }

    pub fn class(&self) -> Class {
        self.class
    }

    pub fn lag(&self) -> std::time::Duration {
        self.subscriber.lag()
    }

    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// May the loop's own batches, the next of which begins at `cursor`, be written to this reader as they are?
    pub fn may_follow(&self, cursor: u64) -> bool {
        !self.blocked
            && !self.finishing
            && self.out.is_empty()
            && self.pace.is_live()
            && self.subscriber.cursor() == cursor
    }

    /// The reader has followed its loop, which has written everything before `cursor` to it until now.
    pub fn followed_to(&mut self, cursor: u64, now: Instant) {
        self.subscriber.advance_to(cursor);
        self.pace.progress(now);
    }

    /// Queues what the socket did not take of the loop's batch, that is all but `written` bytes.
    pub fn keep_rest(&mut self, batch: &[Arc<Item>], written: usize, metrics: &Metrics) {
        self.out.extend(batch.iter().cloned().map(Outgoing::Item));
        self.consume(written, metrics);
    }

    /// Queues the headers that belong before `item`, at its time.
    fn begin_at(&mut self, item: &Item) {
        let Some(headers) = item.headers() else {
            return;
        };
        for header in headers.iter() {
            let message = Arc::new(header.at(item.message().dts));
            self.out
                .push_back(Outgoing::Item(Arc::new(Item::new(message, None))));
        }
    }

    /// Answers of the session go between messages.
    pub fn control(&mut self, bytes: Bytes) {
        self.out.push_back(Outgoing::Bytes(bytes));
    }

    /// Control bytes that wait for this reader.
    pub fn queued(&self) -> usize {
        self.out.len()
    }

    /// Last words; the reader is over once they are written.
    pub fn finish(&mut self, bytes: Bytes) {
        self.control(bytes);
        self.finishing = true;
    }

    /// Has the connection gone without a word? One that has its last words to write is on its own by intent.
    pub fn is_abandoned(&self) -> bool {
        !self.finishing && self.released.is_closed()
    }

    pub fn is_finishing(&self) -> bool {
        self.finishing
    }

    /// Tells the connection why it is over.
    pub fn tell(&mut self, reason: Reason) {
        if let Some(outcome) = self.outcome.take() {
            // The connection may have gone by itself meanwhile.
            let _ = outcome.send(reason);
        }
    }

    /// Marks where the socket stands after [`Turn::Blocked`], or that it takes bytes again.
    pub fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
    }

    /// Writes what is queued and then what the ring has before `upto`, until the socket or the ring says stop.
    pub fn pump(
        &mut self,
        upto: u64,
        scratch: &mut Scratch,
        metrics: &Metrics,
        now: Instant,
    ) -> Turn {
        loop {
            match self.flush(&mut scratch.bytes, metrics, now) {
                Ok(true) => {}
                Ok(false) => {
                    return if self.pace.is_stuck(&self.budget, now) {
                        Turn::Over(Reason::TooSlow)
                    } else {
                        Turn::Blocked
                    };
                }
                Err(_) => return Turn::Over(Reason::SocketError),
            }
            if self.finishing {
                return Turn::Over(Reason::StreamEnded);
            }
            scratch.items.clear();
            let left = upto.saturating_sub(self.subscriber.cursor());
            let max = usize::try_from(left).map_or(BATCH, |left| left.min(BATCH));
            let reception = self.subscriber.try_read(max, &mut scratch.items);
            if let Read::Skipped(lost) = reception.read {
                self.pace.skipped();
                metrics.playback_drops("lost", lost);
            }
            if reception.ended.is_some() {
                self.tell(Reason::StreamEnded);
            }
            if scratch.items.is_empty() {
                self.pace.progress(now);
                return Turn::Idle;
            }
            for item in scratch.items.drain(..) {
                if self.queue(item, reception.head, metrics, now) == Verdict::Evict {
                    return Turn::Over(Reason::TooSlow);
                }
            }
        }
    }

    fn queue(
        &mut self,
        item: Arc<Item>,
        head: MediaTime,
        metrics: &Metrics,
        now: Instant,
    ) -> Verdict {
        let message = item.message();
        let lag = head.since(message.dts);
        let can_begin = item.headers().is_some();
        let verdict = self.pace.judge(message, can_begin, lag, &self.budget, now);
        match verdict {
            Verdict::Send => self.out.push_back(Outgoing::Item(item)),
            Verdict::Resume => {
                self.begin_at(&item);
                self.out.push_back(Outgoing::Item(item));
            }
            Verdict::Drop if message.kind == Kind::Video && self.pace.has_begun() => {
                metrics.playback_drops("skip", 1);
            }
            Verdict::Drop | Verdict::Evict => {}
        }
        verdict
    }

    /// Writes the queue. `true`: it is empty.
    fn flush(&mut self, bytes: &mut Vec<u8>, metrics: &Metrics, now: Instant) -> io::Result<bool> {
        while !self.out.is_empty() {
            bytes.clear();
            let mut skip = self.skip;
            for outgoing in &self.out {
                outgoing.write(self.framing, skip, WRITE_BYTES, bytes);
                skip = 0;
                if bytes.len() >= WRITE_BYTES {
                    break;
                }
            }
            match self.socket.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.pace.progress(now);
                    self.consume(written, metrics);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Takes written bytes off the front of the queue.
    fn consume(&mut self, mut written: usize, metrics: &Metrics) {
        metrics.playback_bytes.inc_by(written as u64);
        while let Some(front) = self.out.front() {
            let left = front.len(self.framing) - self.skip;
            if written < left {
                self.skip += written;
                return;
            }
            written -= left;
            self.skip = 0;
            if matches!(self.out.pop_front(), Some(Outgoing::Item(_))) {
                metrics.playback_messages.inc();
            }
        }
    }
}
