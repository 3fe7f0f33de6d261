//! One player on its own: a cursor, a pace, its wishes, and the way to it with what is half written. A writer loop's
//! stragglers are at work; its followers stand by with all this as they left it.

mod turn;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::backlog::Ledger;
use super::delivery::{Delivery, Heard};
use super::info::{Arrival, ReaderInfo};
use super::outbound::Undo;
use super::sizing::Sizing;
use super::wish::{Wish, Wishes};
use crate::media::{Class, MediaTime};
use crate::metrics::Metrics;
use crate::net::Socket;
use crate::net::turns::Turns;
use crate::reason::Reason;
use crate::relay::{Budget, Cause, Framing, Item, Pace, Subscriber};

pub use turn::{BATCH, Scratch, Surroundings, Turn};

/// How long a reader that must go may take to hear why.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A player.
pub struct Reader {
    pub id: u64,
    arrival: Arrival,
    subscriber: Subscriber,
    class: Class,
    pace: Pace,
    /// Where it had begun when all that comes was found to build on what it has.
    settled: Option<u64>,
    wishes: Wishes,
    delivery: Delivery,
    /// When it had been given all there was for the last time; `None` while it has never.
    caught_up: Option<Instant>,
    /// Pictures left out.
    skipped: u64,
    /// While it waits for its socket: ends the wait, which holds the socket, too.
    blocked: Option<oneshot::Sender<Farewell>>,
    /// Since when it waits for acknowledgements.
    gated: Option<Instant>,
    /// It must go: only what has begun and its last words are still written, until then.
    leaving: Option<Instant>,
    /// Close after what is queued.
    finishing: bool,
    /// Tells the connection why it is over; taken when told.
    outcome: Option<oneshot::Sender<Reason>>,
    /// Dropped with the reader: tells the connection that nothing is written any more. Sent to where the last message
    /// was written to its end.
    released: oneshot::Sender<()>,
}

/// What a reader's connection is told when nobody writes to its socket any more, or holds it for that.
pub struct Farewell {
    released: oneshot::Sender<()>,
    /// The last message was written to its end.
    is_whole: bool,
}

impl Farewell {
    pub fn say(self) {
        if self.is_whole {
            // The connection may have gone by itself meanwhile.
            let _ = self.released.send(());
        }
    }
}

/// What a connection brings along when it joins its writer loop.
pub struct Joiner {
    pub id: u64,
    pub socket: Arc<Socket>,
    /// Where others write to the socket, too.
    pub turns: Option<Arc<Turns>>,
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
        let shared = joiner.turns.map(|turns| turns.enter(joiner.id));
        let mut reader = Self {
            id: joiner.id,
            arrival: joiner.arrival,
            subscriber: joiner.subscriber,
            class: joiner.class,
            pace: match &first {
                Some(item) => Pace::joining(item, from, now),
                None => Pace::waiting(now),
            },
            settled: None,
            wishes: Wishes::default(),
            delivery: Delivery::new(joiner.socket, joiner.framing, shared),
            caught_up: None,
            skipped: 0,
            blocked: None,
            gated: None,
            leaving: None,
            finishing: false,
            outcome: Some(joiner.outcome),
            released: joiner.released,
        };
        reader.delivery.out.push_bytes(joiner.first);
        let undo = Undo {
            cursor: reader.subscriber.cursor(),
            mark: reader.pace.mark(),
            private: !joiner.private.is_empty(),
        };
        if let Some(item) = first {
            reader.begin_at(&item, undo);
        }
        for item in joiner.private {
            reader.delivery.out.push(item, undo);
        }
        reader
    }

    pub fn socket(&self) -> &Arc<Socket> {
        &self.delivery.socket
    }

    /// Where others write to the socket, too: to wait for one's turn.
    pub fn turns(&self) -> Option<Arc<Turns>> {
        self.delivery.turns()
    }

    /// Others write to the socket from now on.
    pub fn share(&mut self, turns: &Arc<Turns>, line: &Ledger) {
        self.delivery.share(turns, self.id, line);
    }

    /// Bounds what the kernel holds for it.
    ///
    /// # Errors
    /// When the socket refuses an option.
    pub fn bound(&self, sizing: &Sizing) -> io::Result<()> {
        self.delivery.bound(sizing)
    }

    pub fn class(&self) -> Class {
        self.class
    }

    pub fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Does it wait for acknowledgements, which nobody announces?
    pub fn is_gated(&self) -> bool {
        self.gated.is_some()
    }

    /// May the loop's own batches, the next of which begins at `cursor`, be written to this reader as they are? Readers
    /// of the low latency class never: each message is weighed for each of them.
    /// Nor those who still miss key frames of a track beside the main one, or share their socket.
    pub fn may_follow(&mut self, cursor: u64) -> bool {
        self.class == Class::Viewer
            && self.blocked.is_none()
            && self.gated.is_none()
            && !self.finishing
            && self.leaving.is_none()
            && self.delivery.out.is_empty()
            && !self.delivery.is_shared()
            && self.pace.is_live()
            && self.wishes.are_all()
            && self.subscriber.cursor() == cursor
            && self.is_settled()
    }

    /// Asks the ring once for each place where it begins.
    fn is_settled(&mut self) -> bool {
        let began = self.pace.began();
        if self.settled != Some(began) && self.subscriber.is_settled(began) {
            self.settled = Some(began);
        }
        self.settled == Some(began)
    }

    /// The reader follows its loop from now on.
    pub fn follow(&mut self, line: &Ledger) {
        self.delivery.follow(line);
    }

    /// The reader has followed its loop, which has written everything before `cursor` to it until now.
    pub fn followed_to(&mut self, cursor: u64, line: &Ledger, now: Instant) {
        self.subscriber.advance_to(cursor);
        self.caught_up = Some(now);
        self.delivery.leave(line);
    }

    /// New messages have come from cursor `from` on: a reader that has nothing older to get is not late for them, however
    /// much media time they bring at once.
    pub fn meet(&mut self, from: u64, now: Instant) {
        if self.delivery.out.is_empty() && self.gated.is_none() && self.subscriber.cursor() >= from
        {
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
            self.delivery.out.push(item.clone(), undo);
        }
        self.delivery.was_written(written, metrics);
    }

    /// Queues the headers that belong before `item`, at its time.
    fn begin_at(&mut self, item: &Item, undo: Undo) {
        let Some(headers) = item.headers() else {
            return;
        };
        for header in headers.iter() {
            let message = Arc::new(header.at(item.message().dts));
            self.delivery
                .out
                .push(Arc::new(Item::new(message, None)), undo);
        }
    }

    /// Answers of the session go between messages.
    pub fn control(&mut self, bytes: Bytes) {
        self.delivery.out.push_bytes(bytes);
    }

    /// What waits for this reader, in messages and answers.
    pub fn queued(&self) -> usize {
        self.delivery.out.len()
    }

    /// Last words; the reader is over once they are written.
    pub fn finish(&mut self, bytes: Bytes) {
        self.control(bytes);
        self.finishing = true;
    }

    /// The client has heard enough: the reader is over once what has begun is written to its end, and what answers wait.
    pub fn stop(&mut self) {
        self.delivery.out.take_back();
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
                if let Some((undo, _)) = self.delivery.out.take_back() {
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

    /// What was queued from there on is read once more.
    fn go_back(&mut self, undo: Undo, cause: Cause) {
        self.subscriber.go_back_to(undo.cursor);
        self.pace.back(undo.mark);
        self.pace.skip(cause);
    }

    /// The reader must go: it is told, and given time to hear the reason.
    pub fn dismiss(&mut self, reason: Reason, now: Instant) {
        self.delivery.out.take_back();
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

    /// It is let go of.
    pub fn release(self) {
        let Self {
            delivery,
            released,
            blocked,
            ..
        } = self;
        let farewell = Farewell {
            released,
            is_whole: delivery.out.is_empty(),
        };
        // First, so that the connection finds itself alone with the socket when it hears of it, and can close it.
        drop(delivery);
        let unsaid = match blocked {
            Some(wait) => wait.send(farewell).err(),
            None => Some(farewell),
        };
        if let Some(farewell) = unsaid {
            farewell.say();
        }
    }

    /// It waits for its socket after [`Turn::Blocked`]: what comes is to end the wait.
    pub fn block(&mut self) -> oneshot::Receiver<Farewell> {
        let (wait, gone) = oneshot::channel();
        self.blocked = Some(wait);
        gone
    }

    /// It takes bytes again.
    pub fn unblock(&mut self) {
        self.blocked = None;
    }

    /// Asks the kernel how far the peer is, at the price of a system call: bytes that it has not acknowledged, and its
    /// lag as of `head`. A paused reader, and one that was written nothing, has none.
    pub fn measure(
        &mut self,
        head: MediaTime,
        line: &Ledger,
        now: Instant,
    ) -> (usize, Option<Duration>) {
        let heard = self.look(line, now);
        let lag = heard
            .time
            .filter(|_| !self.wishes.is_paused())
            .map(|time| head.since(time));
        (heard.unacknowledged, lag)
    }

    fn look(&mut self, line: &Ledger, now: Instant) -> Heard {
        let heard = self.delivery.look(line, now);
        if heard.progress {
            self.pace.progress(now);
        }
        heard
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
            bytes: self.delivery.total(line),
            unacknowledged,
            skipped: self.skipped,
            audio: self.wishes.audio(),
            video: self.wishes.video(),
            state,
        }
    }
}
