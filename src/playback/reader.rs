//! One player on its own: a socket, a cursor, a pace, and what is half written. A writer loop's stragglers are at
//! work; its followers stand by with all this as they left it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::backlog::{Backlog, Ledger};
use super::info::{Arrival, ReaderInfo};
use super::outbound::{Outbound, Undo};
use super::sizing::Sizing;
use super::wish::{Wish, Wishes};
use crate::media::{Class, Kind, MediaTime};
use crate::metrics::Metrics;
use crate::net::{self, Socket};
use crate::reason::Reason;
use crate::relay::{Behind, Budget, Cause, Framing, Item, Pace, Read, Subscriber, Verdict};

/// Items taken from the ring per turn.
pub const BATCH: usize = 64;
/// Bytes per write of a reader that works through its own queue: all of a frame, a share of a long burst.
const WRITE_BYTES: usize = 64 << 10;
/// How long acknowledgements are looked for many times a second: several round trips, or delays of 40 ms to 200 ms by
/// which receivers save packets. Afterwards the path stands still, and the next batch is soon enough.
const ACKNOWLEDGED_SOON: Duration = Duration::from_millis(500);
/// How long a reader that must go may take to hear why.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What a turn left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// All there was is written.
    Idle,
    /// The socket takes no more; wait until it does.
    Blocked,
    /// The socket would take more, and must not have it before its peer has acknowledged some of what it has.
    /// `soon`: acknowledgements are on their way, or have not been waited for long.
    Gated { soon: bool },
    /// The reader is done with.
    Over(Reason),
}

/// Room that a loop lends its readers for a turn.
#[derive(Default)]
pub struct Scratch {
    pub items: Vec<Arc<Item>>,
    pub bytes: Vec<u8>,
}

/// What a loop's readers have in common.
pub struct Surroundings<'a> {
    /// No reader reads past this cursor.
    pub upto: u64,
    pub budget: &'a Budget,
    pub sizing: &'a Sizing,
    /// What the loop has written to its followers.
    pub line: &'a Ledger,
    pub metrics: &'a Metrics,
    pub now: Instant,
}

/// A player.
pub struct Reader {
    pub id: u64,
    pub socket: Arc<Socket>,
    arrival: Arrival,
    subscriber: Subscriber,
    class: Class,
    pace: Pace,
    wishes: Wishes,
    out: Outbound,
    backlog: Backlog,
    /// Bytes that its TCP had acknowledged when it was last asked.
    acknowledged: u64,
    /// When it had been given all there was for the last time; `None` while it has never.
    caught_up: Option<Instant>,
    /// When its peer was last seen to have acknowledged all that it had been given.
    drained: Option<Instant>,
    /// Pictures left out.
    skipped: u64,
    blocked: bool,
    /// Since when it waits for acknowledgements.
    gated: Option<Instant>,
    /// It must go: only what has begun and its last words are still written, until then.
    leaving: Option<Instant>,
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
    pub arrival: Arrival,
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
    pub fn new(joiner: Joiner, budget: &Budget, now: Instant) -> Self {
        let first = joiner
            .private
            .first()
            .cloned()
            .or_else(|| joiner.subscriber.peek())
            .filter(|item| item.headers().is_some());
        // A burst of its own ends at the live edge, so it is not behind to begin with, and has its budget to arrive.
        let from = (!joiner.private.is_empty()).then_some(budget.max_lag);
        let mut reader = Self {
            id: joiner.id,
            socket: joiner.socket,
            arrival: joiner.arrival,
            subscriber: joiner.subscriber,
            class: joiner.class,
            pace: if first.is_some() {
                Pace::joining(from, now)
            } else {
                Pace::waiting(now)
            },
            wishes: Wishes::default(),
            out: Outbound::new(joiner.framing),
            backlog: Backlog::default(),
            acknowledged: 0,
            caught_up: None,
            drained: None,
            skipped: 0,
            blocked: false,
            gated: None,
            leaving: None,
            finishing: false,
            outcome: Some(joiner.outcome),
            released: joiner.released,
        };
        reader.out.push_bytes(joiner.first);
        let undo = Undo {
            cursor: reader.subscriber.cursor(),
            mark: reader.pace.mark(),
            private: !joiner.private.is_empty(),
        };
        if let Some(item) = first {
            reader.begin_at(&item, undo);
        }
        for item in joiner.private {
            reader.out.push(item, undo);
        }
        reader
    }

    pub fn class(&self) -> Class {
        self.class
    }

    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Does it wait for acknowledgements, which nobody announces?
    pub fn is_gated(&self) -> bool {
        self.gated.is_some()
    }

    /// May the loop's own batches, the next of which begins at `cursor`, be written to this reader as they are? Readers
    /// of the low latency class never: each message is weighed for each of them.
    pub fn may_follow(&self, cursor: u64) -> bool {
        self.class == Class::Viewer
            && !self.blocked
            && self.gated.is_none()
            && !self.finishing
            && self.leaving.is_none()
            && self.out.is_empty()
            && self.pace.is_live()
            && self.wishes.are_all()
            && self.subscriber.cursor() == cursor
    }

    /// The reader follows its loop from now on.
    pub fn follow(&mut self, line: &Ledger) {
        self.backlog.follow(line);
    }

    /// The reader has followed its loop, which has written everything before `cursor` to it until now.
    pub fn followed_to(&mut self, cursor: u64, line: &Ledger, now: Instant) {
        self.subscriber.advance_to(cursor);
        self.caught_up = Some(now);
        let unacknowledged = net::unacknowledged(&self.socket).unwrap_or(usize::MAX);
        self.backlog.leave(unacknowledged, line);
    }

    /// New messages have come from cursor `from` on: a reader that has nothing older to get is not late for them, however
    /// much media time they bring at once.
    pub fn meet(&mut self, from: u64, now: Instant) {
        if self.out.is_empty() && self.gated.is_none() && self.subscriber.cursor() >= from {
            self.caught_up = Some(now);
        }
    }

    /// Queues what the socket did not take of the loop's batch, that is all but `written` bytes.
    pub fn keep_rest(&mut self, batch: &[Arc<Item>], written: usize, metrics: &Metrics) {
        let first = self.subscriber.cursor() - batch.len() as u64;
        let mark = self.pace.mark();
        for (item, cursor) in batch.iter().zip(first..) {
            let undo = Undo {
                cursor,
                mark,
                private: false,
            };
            self.out.push(item.clone(), undo);
        }
        self.consume(written, metrics);
        self.pin();
    }

    /// The socket took less than it was offered.
    fn pin(&mut self) {
        if self.socket.is_encrypted() {
            self.out.pin();
        }
    }

    /// Queues the headers that belong before `item`, at its time.
    fn begin_at(&mut self, item: &Item, undo: Undo) {
        let Some(headers) = item.headers() else {
            return;
        };
        for header in headers.iter() {
            let message = Arc::new(header.at(item.message().dts));
            self.out.push(Arc::new(Item::new(message, None)), undo);
        }
    }

    /// Answers of the session go between messages.
    pub fn control(&mut self, bytes: Bytes) {
        self.out.push_bytes(bytes);
    }

    /// What waits for this reader, in messages and answers.
    pub fn queued(&self) -> usize {
        self.out.len()
    }

    /// Last words; the reader is over once they are written.
    pub fn finish(&mut self, bytes: Bytes) {
        self.control(bytes);
        self.finishing = true;
    }

    /// The player asks for less, or for more again.
    pub fn wish(&mut self, wish: Wish) {
        if !self.wishes.change(wish) {
            return;
        }
        match wish {
            Wish::Pause(true) | Wish::Video(false) => {
                // Nothing of it is missed; what is wanted of it is read once more.
                if let Some((undo, _)) = self.out.take_back() {
                    self.go_back(undo, Cause::Unwanted);
                }
                self.pace.skip(Cause::Unwanted);
            }
            Wish::Pause(false) => {
                // At the next key frame from now on, with headers: they may have changed meanwhile.
                self.subscriber.advance_to(self.subscriber.head());
                self.pace.wait();
            }
            Wish::Video(true) => self.pace.skip(Cause::Unwanted),
            Wish::Audio(_) => {}
        }
    }

    /// The reader must go: it is told, and given time to hear the reason.
    pub fn dismiss(&mut self, reason: Reason, now: Instant) {
        self.out.take_back();
        self.leaving = Some(now + LAST_WORDS);
        self.tell(reason);
    }

    /// Has it taken its last words too long to hear?
    pub fn has_lingered(&self, now: Instant) -> bool {
        self.leaving.is_some_and(|end| now > end)
    }

    /// Has it been told to go?
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
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

    /// Asks the kernel how far the peer is, at the price of a system call: bytes that it has not acknowledged, and its
    /// lag as of `head`. A paused reader, and one that was written nothing, has none.
    pub fn measure(
        &mut self,
        head: MediaTime,
        line: &Ledger,
        now: Instant,
    ) -> (usize, Option<Duration>) {
        let (unacknowledged, heard) = self.look(line, now);
        let lag = heard
            .filter(|_| !self.wishes.is_paused())
            .map(|heard| head.since(heard));
        (unacknowledged, lag)
    }

    /// Bytes that the peer has not acknowledged, and the media time of the last one that it has.
    fn look(&mut self, line: &Ledger, now: Instant) -> (usize, Option<MediaTime>) {
        // A socket that is none any more fails at the next write, with its cause.
        let unacknowledged = net::unacknowledged(&self.socket).unwrap_or(0);
        let total = self.backlog.total(line);
        let acknowledged = total.saturating_sub(unacknowledged as u64);
        if acknowledged > self.acknowledged || (unacknowledged == 0 && self.out.is_empty()) {
            self.pace.progress(now);
        }
        self.acknowledged = acknowledged;
        if unacknowledged == 0 {
            self.drained = Some(now);
        }
        (
            unacknowledged,
            self.backlog.acknowledged(unacknowledged, line),
        )
    }

    /// What the API tells of it.
    pub fn info(&mut self, head: MediaTime, line: &Ledger, now: Instant) -> ReaderInfo {
        let (unacknowledged, lag) = self.measure(head, line, now);
        let state = if self.finishing || self.leaving.is_some() {
            "leaving"
        } else if self.wishes.is_paused() {
            "paused"
        } else {
            self.pace.as_str()
        };
        ReaderInfo {
            id: self.id,
            arrival: self.arrival.clone(),
            feed: self.subscriber.feed(),
            class: self.class,
            lag,
            bytes: self.backlog.total(line),
            unacknowledged,
            skipped: self.skipped,
            audio: self.wishes.audio(),
            video: self.wishes.video(),
            state,
        }
    }

    /// Writes what is queued and then what the ring has, until the socket, the ring or the reader's share says stop.
    pub fn pump(&mut self, around: &Surroundings<'_>, scratch: &mut Scratch) -> Turn {
        let before = self.acknowledged;
        let (mut unacknowledged, mut heard) = self.look(around.line, around.now);
        let gated = self.gated.take();
        self.rejudge(unacknowledged, heard, around);
        loop {
            let queued = self.out.bytes();
            match self.flush(&mut scratch.bytes, around.metrics) {
                Ok(true) => unacknowledged += queued,
                Ok(false) if self.is_stuck(around) => return Turn::Over(Reason::TooSlow),
                Ok(false) => return Turn::Blocked,
                Err(_) => return Turn::Over(Reason::SocketError),
            }
            if self.finishing {
                return Turn::Over(Reason::StreamEnded);
            }
            if self.leaving.is_some() {
                return Turn::Idle;
            }
            if unacknowledged >= around.sizing.share {
                // Some of what was written in this turn may be acknowledged already.
                (unacknowledged, heard) = self.look(around.line, around.now);
            }
            if unacknowledged >= around.sizing.share {
                if self.is_stuck(around) {
                    return Turn::Over(Reason::TooSlow);
                }
                // The time begins anew whenever some of it has come.
                let moving = self.acknowledged > before;
                let since = gated.filter(|_| !moving).unwrap_or(around.now);
                self.gated = Some(since);
                let waited = around.now.saturating_duration_since(since);
                return Turn::Gated {
                    soon: waited < ACKNOWLEDGED_SOON,
                };
            }
            match self.refill(unacknowledged, heard, around, scratch) {
                Verdict::Evict => return Turn::Over(Reason::TooSlow),
                _ if scratch.items.is_empty() => return Turn::Idle,
                _ => scratch.items.clear(),
            }
        }
    }

    fn is_stuck(&self, around: &Surroundings<'_>) -> bool {
        self.leaving.is_none() && self.pace.is_stuck(around.budget, around.now)
    }

    /// Takes back what has not begun to be written and has become too old while the reader took nothing.
    fn rejudge(
        &mut self,
        unacknowledged: usize,
        heard: Option<MediaTime>,
        around: &Surroundings<'_>,
    ) {
        let Some(next) = self.out.next_whole() else {
            return;
        };
        let head = self.subscriber.head_time();
        let behind = Behind {
            time: self.behind(next.message().dts, head, unacknowledged, heard, around),
            bytes: unacknowledged + self.out.bytes(),
        };
        let Some(cause) = self.pace.stale(behind, around.budget) else {
            return;
        };
        if let Some((undo, private)) = self.out.take_back() {
            self.count(cause, private, around.metrics);
            self.go_back(undo, cause);
        }
    }

    fn go_back(&mut self, undo: Undo, cause: Cause) {
        self.subscriber.go_back_to(undo.cursor);
        self.pace.back(undo.mark);
        self.pace.skip(cause);
    }

    /// Queues what comes next in the ring, as much as the kernel may still hold; one message at least. What was read is
    /// in `scratch`.
    fn refill(
        &mut self,
        unacknowledged: usize,
        heard: Option<MediaTime>,
        around: &Surroundings<'_>,
        scratch: &mut Scratch,
    ) -> Verdict {
        let items = &mut scratch.items;
        items.clear();
        let left = around.upto.saturating_sub(self.subscriber.cursor());
        let max = usize::try_from(left).map_or(BATCH, |left| left.min(BATCH));
        let reception = self.subscriber.try_read(max, items);
        if let Read::Skipped(lost) = reception.read {
            self.pace.skip(Cause::Lost);
            self.count(Cause::Lost, lost, around.metrics);
        }
        if reception.ended.is_some() {
            self.tell(Reason::StreamEnded);
        }
        let first = self.subscriber.cursor() - items.len() as u64;
        let mut ahead = reception.bytes;
        for (item, cursor) in items.iter().zip(first..) {
            let waiting = unacknowledged + self.out.bytes();
            if waiting >= around.sizing.share && !self.out.is_empty() {
                self.subscriber.go_back_to(cursor);
                break;
            }
            let message = item.message();
            let place = Behind {
                time: self.behind(message.dts, reception.head, unacknowledged, heard, around),
                bytes: waiting + ahead,
            };
            ahead = ahead.saturating_sub(message.payload.len());
            if self.wishes.want(message)
                && self.queue(item, cursor, place, around) == Verdict::Evict
            {
                return Verdict::Evict;
            }
        }
        Verdict::Send
    }

    fn queue(
        &mut self,
        item: &Arc<Item>,
        cursor: u64,
        place: Behind,
        around: &Surroundings<'_>,
    ) -> Verdict {
        let message = item.message();
        let undo = Undo {
            cursor,
            mark: self.pace.mark(),
            private: false,
        };
        let can_begin = item.headers().is_some();
        let verdict = self
            .pace
            .judge(message, can_begin, place, around.budget, around.now);
        match verdict {
            Verdict::Send => self.out.push(item.clone(), undo),
            Verdict::Resume => {
                self.begin_at(item, undo);
                self.out.push(item.clone(), undo);
            }
            Verdict::Drop if message.kind == Kind::Video => {
                if let Some(cause) = self.pace.skipping() {
                    self.count(cause, 1, around.metrics);
                }
            }
            Verdict::Drop | Verdict::Evict => {}
        }
        verdict
    }

    /// Counts messages that the reader misses.
    fn count(&mut self, cause: Cause, messages: u64, metrics: &Metrics) {
        if let Some(cause) = cause.as_str() {
            self.skipped += messages;
            metrics.playback_drops(cause, messages);
        }
    }

    /// Writes the queue. `true`: it is empty.
    fn flush(&mut self, bytes: &mut Vec<u8>, metrics: &Metrics) -> io::Result<bool> {
        while !self.out.is_empty() {
            bytes.clear();
            self.out.fill(WRITE_BYTES, bytes);
            match self.socket.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.consume(written, metrics),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.pin();
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Takes written bytes off the front of the queue.
    fn consume(&mut self, mut written: usize, metrics: &Metrics) {
        metrics.playback_bytes.inc_by(written as u64);
        while let Some(part) = self.out.consume(written) {
            written -= part.bytes;
            self.backlog.wrote(part.bytes, part.time);
            if part.whole_message {
                metrics.playback_messages.inc();
            }
        }
    }

    /// How far behind the reader is with a message of `dts`: the media time from it to the head, and what the bytes are
    /// worth that its peer has yet to acknowledge: the media time that they span, or less where the reader skipped, then
    /// what the stream takes for so many.
    ///
    /// Neither is more than the time since there was nothing of its kind: what a publisher sends in a burst, after a
    /// pause of its own, makes no reader late.
    fn behind(
        &self,
        dts: MediaTime,
        head: MediaTime,
        unacknowledged: usize,
        heard: Option<MediaTime>,
        around: &Surroundings<'_>,
    ) -> Duration {
        let since = |at: Option<Instant>| {
            at.map_or(Duration::MAX, |at| around.now.saturating_duration_since(at))
        };
        let span = heard.map_or(Duration::ZERO, |heard| dts.since(heard));
        let on_the_way = span.min(around.sizing.time_of(unacknowledged));
        head.since(dts).min(since(self.caught_up)) + on_the_way.min(since(self.drained))
    }
}
