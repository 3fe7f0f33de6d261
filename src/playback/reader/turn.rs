//! One turn of a reader: what is queued is written, what has come is judged and queued, until the socket, the ring or
//! the reader's share of the kernel says stop. Owns the order of these and why a turn ends; knows no lists of readers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::backlog::Ledger;
use super::super::delivery::Heard;
use super::super::outbound::Undo;
use super::super::sizing::Sizing;
use super::Reader;
use crate::media::{Kind, MediaTime};
use crate::metrics::Metrics;
use crate::reason::Reason;
use crate::relay::{Behind, Budget, Cause, Item, Read, Verdict};

/// Items taken from the ring per turn.
pub const BATCH: usize = 64;
/// How long acknowledgements are looked for many times a second: several round trips, or delays of 40 ms to 200 ms by
/// which receivers save packets. Afterwards the path stands still, and the next batch is soon enough.
const ACKNOWLEDGED_SOON: Duration = Duration::from_millis(500);
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

impl Reader {
    /// Writes what is queued and then what the ring has, until the socket, the ring or the reader's share says stop.
    pub fn pump(&mut self, around: &Surroundings<'_>, scratch: &mut Scratch) -> Turn {
        let mut heard = self.look(around.line, around.now);
        let mut moving = heard.progress;
        let gated = self.gated.take();
        self.rejudge(heard, around);
        loop {
            let queued = self.delivery.out.bytes();
            match self.delivery.flush(&mut scratch.bytes, around.metrics) {
                Ok(true) => heard.unacknowledged += queued,
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
            if heard.unacknowledged >= around.sizing.share {
                // Some of what was written in this turn may be acknowledged already.
                heard = self.look(around.line, around.now);
                moving |= heard.progress;
            }
            if heard.unacknowledged >= around.sizing.share {
                if self.is_stuck(around) {
                    return Turn::Over(Reason::TooSlow);
                }
                // The time begins anew whenever some of it has come.
                let since = gated.filter(|_| !moving).unwrap_or(around.now);
                self.gated = Some(since);
                let waited = around.now.saturating_duration_since(since);
                return Turn::Gated {
                    soon: waited < ACKNOWLEDGED_SOON,
                };
            }
            match self.refill(heard, around, scratch) {
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
    fn rejudge(&mut self, heard: Heard, around: &Surroundings<'_>) {
        let Some(next) = self.delivery.out.next_whole() else {
            return;
        };
        let head = self.subscriber.head_time();
        let behind = Behind {
            time: self.behind(next.message().dts, head, heard, around),
            bytes: heard.unacknowledged + self.delivery.out.bytes(),
        };
        let Some(cause) = self.pace.stale(behind, around.budget) else {
            return;
        };
        if let Some((undo, private)) = self.delivery.out.take_back() {
            self.count(cause, private, around.metrics);
            self.go_back(undo, cause);
        }
    }

    /// Queues what comes next in the ring, as much as the kernel may still hold; one message at least. What was read is
    /// in `scratch`.
    fn refill(
        &mut self,
        heard: Heard,
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
            let waiting = heard.unacknowledged + self.delivery.out.bytes();
            if waiting >= around.sizing.share && !self.delivery.out.is_empty() {
                self.subscriber.go_back_to(cursor);
                break;
            }
            let message = item.message();
            let place = Behind {
                time: self.behind(message.dts, reception.head, heard, around),
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
        let verdict = self.pace.judge(item, place, around.budget, around.now);
        match verdict {
            Verdict::Send => self.delivery.out.push(item.clone(), undo),
            Verdict::Resume => {
                self.begin_at(item, undo);
                self.delivery.out.push(item.clone(), undo);
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

    /// How far behind the reader is with a message of `dts`: the media time from it to the head, and what the bytes are
    /// worth that its peer has yet to acknowledge.
    ///
    /// Neither is more than the time since there was nothing of its kind: what a publisher sends in a burst, after a
    /// pause of its own, makes no reader late.
    fn behind(
        &self,
        dts: MediaTime,
        head: MediaTime,
        heard: Heard,
        around: &Surroundings<'_>,
    ) -> Duration {
        let since_caught_up = self
            .caught_up
            .map_or(Duration::MAX, |at| around.now.saturating_duration_since(at));
        let on_the_way = self
            .delivery
            .on_the_way(dts, heard, around.sizing, around.now);
        head.since(dts).min(since_caught_up) + on_the_way
    }
}
