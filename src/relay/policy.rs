//! What a late subscriber gets: the slow-consumer policy, pure.

use std::time::{Duration, Instant};

use super::item::Item;
use crate::media::{Kind, Role};

/// What a class is owed and what it may cost.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Over this lag, video is skipped to the next key frame.
    pub max_lag: Duration,
    /// Over this many bytes on the way to the reader, the same.
    pub max_bytes: usize,
    /// A reader that takes no byte at all for this long is closed.
    pub stuck: Duration,
}

impl Budget {
    /// Peers in a conversation: design.md's 400 ms, and what 40 Mbit/s are in that time.
    pub const fn low_latency() -> Self {
        Self {
            max_lag: Duration::from_millis(400),
            max_bytes: 2 << 20,
            stuck: Duration::from_secs(10),
        }
    }

    /// Viewers: a few seconds, and what 20 Mbit/s are in that time.
    pub const fn viewer() -> Self {
        Self {
            max_lag: Duration::from_secs(3),
            max_bytes: 8 << 20,
            stuck: Duration::from_secs(20),
        }
    }

    /// Why so far behind is too far; `None` when it is not.
    fn over(&self, behind: Behind) -> Option<Cause> {
        if behind.time > self.max_lag {
            Some(Cause::Time)
        } else if behind.bytes > self.max_bytes {
            Some(Cause::Bytes)
        } else {
            None
        }
    }
}

/// What lies between a reader and the live edge when a message's turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Behind {
    /// Media time from the message to the newest one, and what the reader has yet to receive before the message.
    pub time: Duration,
    /// Bytes from the last one received to the newest message.
    pub bytes: usize,
}

/// What to do with one message for one reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it.
    Send,
    /// Send the key frame's header set, then it: the reader continues here after a skip.
    Resume,
    /// Leave it out.
    Drop,
    /// Close the reader: it has been stuck for too long.
    Evict,
}

/// Why video is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// More media time behind than the budget allows.
    Time,
    /// More bytes behind than the budget allows.
    Bytes,
    /// The ring no longer had what came next.
    Lost,
    /// The reader did not want it.
    Unwanted,
}

impl Cause {
    /// The stable word for metrics; `None` for what nobody misses.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Cause::Time => Some("time"),
            Cause::Bytes => Some("bytes"),
            Cause::Lost => Some("lost"),
            Cause::Unwanted => None,
        }
    }
}

/// A reader's state. A word, not a pair of booleans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Has been given nothing yet and has no headers: waits for a place to begin.
    Waiting,
    /// Working through the GOP it was given to begin with: as far behind as that GOP's first message was does not
    /// count until it has caught up once.
    Joining {
        /// Lag of the first message judged.
        from: Option<Duration>,
    },
    Live,
    /// Waiting for a key frame: after joining without one, or over budget.
    Skipping(Cause),
}

/// Where a reader stood before a message was judged, to go [`Pace::back`] there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(State);

/// Judges messages for one reader, from how far behind it is and when it last took bytes.
#[derive(Debug)]
pub struct Pace {
    state: State,
    /// Sequence number of the place where the reader began, or continued after a skip: 0 before it has.
    began: u64,
    last_progress: Instant,
}

impl Pace {
    /// A reader that stands on a place to begin, `item`, however long ago that was recorded. `from`: how far behind that
    /// is, where the first message judged does not show it.
    pub fn joining(item: &Item, from: Option<Duration>, now: Instant) -> Self {
        Self {
            state: State::Joining { from },
            began: item.root().unwrap_or(0),
            last_progress: now,
        }
    }

    /// A reader that must wait for the next key frame.
    pub fn waiting(now: Instant) -> Self {
        Self {
            state: State::Waiting,
            began: 0,
            last_progress: now,
        }
    }

    /// The reader took bytes, or has taken all there was.
    pub fn progress(&mut self, now: Instant) {
        self.last_progress = now;
    }

    /// What came next is left out for `cause`; video continues at the next place to begin.
    pub fn skip(&mut self, cause: Cause) {
        if self.state != State::Waiting {
            self.state = State::Skipping(cause);
        }
    }

    /// The reader begins anew, at the next place to begin.
    pub fn wait(&mut self) {
        self.state = State::Waiting;
    }

    /// Is every message to be sent as it is, as long as the lag stays within the budget?
    pub fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// Sequence number of the item at which the reader began, or continued after a skip; 0 before it has.
    pub fn began(&self) -> u64 {
        self.began
    }

    /// Why video is being left out now; `None` while it is not.
    pub fn skipping(&self) -> Option<Cause> {
        match self.state {
            State::Skipping(cause) => Some(cause),
            _ => None,
        }
    }

    /// The stable word for the API.
    pub fn as_str(&self) -> &'static str {
        match self.state {
            State::Waiting => "waiting",
            State::Joining { .. } => "joining",
            State::Live => "live",
            State::Skipping(_) => "skipping",
        }
    }

    /// Has the reader taken nothing for longer than its budget allows?
    pub fn is_stuck(&self, budget: &Budget, now: Instant) -> bool {
        now.saturating_duration_since(self.last_progress) > budget.stuck
    }

    /// Where the reader stands, for [`Self::back`].
    pub fn mark(&self) -> Mark {
        Mark(self.state)
    }

    /// Messages that were judged since `mark` were not sent after all. Call for what waited too long to be
    /// [`stale`](Self::stale): it is judged once more.
    pub fn back(&mut self, mark: Mark) {
        self.state = mark.0;
    }

    /// Has a message that was to be sent become too late for it while it waited?
    pub fn stale(&self, behind: Behind, budget: &Budget) -> Option<Cause> {
        match self.state {
            State::Joining { from } => Self::lost_ground(from, behind, budget),
            _ => budget.over(behind),
        }
    }

    /// A joiner that comes no nearer, but falls further behind by its whole budget, will not catch up.
    fn lost_ground(from: Option<Duration>, behind: Behind, budget: &Budget) -> Option<Cause> {
        let allowed = from.unwrap_or(behind.time) + budget.max_lag;
        (behind.time > allowed).then_some(Cause::Time)
    }

    /// Judges one message at the reader's cursor.
    ///
    /// Frames of a track beside the main one that build on a key frame from before the reader's beginning are dropped,
    /// and nobody misses them: [`Self::skipping`] is `None`.
    pub fn judge(&mut self, item: &Item, behind: Behind, budget: &Budget, now: Instant) -> Verdict {
        match self.weigh(item, behind, budget, now) {
            Verdict::Resume => {
                self.began = item.root().unwrap_or(0);
                Verdict::Resume
            }
            Verdict::Send if item.root().is_some_and(|root| root < self.began) => Verdict::Drop,
            verdict => verdict,
        }
    }

    fn weigh(&mut self, item: &Item, behind: Behind, budget: &Budget, now: Instant) -> Verdict {
        let (message, can_begin) = (item.message(), item.headers().is_some());
        if self.is_stuck(budget, now) {
            return Verdict::Evict;
        }
        let over = budget.over(behind);
        if let State::Joining { from } = &mut self.state {
            let from = *from.get_or_insert(behind.time);
            match (over, Self::lost_ground(Some(from), behind, budget)) {
                (None, _) => self.state = State::Live,
                (_, None) => return Verdict::Send,
                (_, Some(cause)) => self.state = State::Skipping(cause),
            }
        }
        match (self.state, message.role, over) {
            // It gets the headers of the place where it begins, and cannot use anything before.
            (State::Waiting, _, over) if !can_begin || over.is_some() => Verdict::Drop,
            (_, Role::Header(_), _) => Verdict::Send,
            (State::Waiting | State::Skipping(_), _, None) if can_begin => {
                self.state = State::Live;
                Verdict::Resume
            }
            (State::Skipping(_), _, _) if message.kind == Kind::Video => Verdict::Drop,
            // Old audio would only keep the reader behind.
            (_, _, Some(_)) if message.kind == Kind::Audio => Verdict::Drop,
            (_, _, Some(cause)) if message.kind == Kind::Video => {
                self.state = State::Skipping(cause);
                Verdict::Drop
            }
            _ => Verdict::Send,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use bytes::Bytes;

    use crate::media::{MediaTime, Message};

    fn message(kind: Kind, payload: &'static [u8]) -> Message {
        Message::new(kind, MediaTime::ZERO, Bytes::from_static(payload))
    }

    fn item(message: &Message, can_begin: bool) -> Item {
        Item::new(Arc::new(message.clone()), can_begin.then(Arc::default))
    }

    fn start() -> Item {
        item(&message(Kind::Video, &[0x17, 1, 0, 0, 0]), true)
    }

    fn late(ms: u64) -> Behind {
        Behind {
            time: Duration::from_millis(ms),
            bytes: 0,
        }
    }

    #[test]
    fn a_late_reader_loses_video_until_a_key_frame_that_is_in_time() {
        let now = Instant::now();
        let budget = Budget::low_latency();
        let mut pace = Pace::joining(&start(), None, now);
        let inter = message(Kind::Video, &[0x27, 1, 0, 0, 0]);
        let key = message(Kind::Video, &[0x17, 1, 0, 0, 0]);
        let header = message(Kind::Video, &[0x17, 0, 0, 0, 0]);
        let sound = message(Kind::Audio, &[0xaf, 1]);
        let mut judge =
            |m: &Message, begin, lag| pace.judge(&item(m, begin), late(lag), &budget, now);
        assert_eq!(judge(&inter, false, 100), Verdict::Send);
        assert_eq!(judge(&inter, false, 401), Verdict::Drop);
        assert_eq!(judge(&sound, false, 401), Verdict::Drop);
        assert_eq!(judge(&header, false, 401), Verdict::Send);
        assert_eq!(judge(&inter, false, 300), Verdict::Drop);
        assert_eq!(judge(&sound, false, 300), Verdict::Send);
        assert_eq!(judge(&key, true, 401), Verdict::Drop);
        assert_eq!(judge(&key, true, 300), Verdict::Resume);
        assert_eq!(judge(&inter, false, 300), Verdict::Send);
    }

    #[test]
    fn a_joiner_gets_its_whole_gop_and_is_judged_once_it_has_caught_up() {
        let now = Instant::now();
        let budget = Budget::low_latency();
        let mut pace = Pace::joining(&start(), None, now);
        let inter = message(Kind::Video, &[0x27, 1, 0, 0, 0]);
        let mut judge = |ms| pace.judge(&item(&inter, false), late(ms), &budget, now);
        assert_eq!(judge(2_900), Verdict::Send);
        assert_eq!(judge(900), Verdict::Send);
        assert_eq!(judge(10), Verdict::Send);
        assert_eq!(judge(900), Verdict::Drop);
    }

    #[test]
    fn a_reader_that_waits_for_a_key_frame_gets_nothing_before_it() {
        let now = Instant::now();
        let budget = Budget::viewer();
        let mut pace = Pace::waiting(now);
        let mut judge = |payload: &'static [u8], kind, begin| {
            let message = message(kind, payload);
            pace.judge(&item(&message, begin), Behind::default(), &budget, now)
        };
        assert_eq!(
            judge(&[0x17, 0, 0, 0, 0], Kind::Video, false),
            Verdict::Drop
        );
        assert_eq!(judge(&[0xaf, 1], Kind::Audio, false), Verdict::Drop);
        assert_eq!(
            judge(&[0x27, 1, 0, 0, 0], Kind::Video, false),
            Verdict::Drop
        );
        assert_eq!(
            judge(&[0x17, 1, 0, 0, 0], Kind::Video, true),
            Verdict::Resume
        );
        assert_eq!(judge(&[0xaf, 1], Kind::Audio, false), Verdict::Send);
    }

    #[test]
    fn a_reader_that_takes_nothing_is_closed() {
        let t0 = Instant::now();
        let budget = Budget::low_latency();
        let mut pace = Pace::joining(&start(), None, t0);
        let inter = message(Kind::Video, &[0x27, 1, 0, 0, 0]);
        let later = t0 + budget.stuck + Duration::from_millis(1);
        assert_eq!(
            pace.judge(&item(&inter, false), Behind::default(), &budget, later),
            Verdict::Evict
        );
        pace.progress(later);
        assert_eq!(
            pace.judge(&item(&inter, false), Behind::default(), &budget, later),
            Verdict::Send
        );
    }

    #[test]
    fn too_many_bytes_are_as_bad_as_too_much_time_and_told_apart() {
        let now = Instant::now();
        let budget = Budget::low_latency();
        let inter = message(Kind::Video, &[0x27, 1, 0, 0, 0]);
        let heavy = Behind {
            time: Duration::ZERO,
            bytes: budget.max_bytes + 1,
        };
        for (behind, cause) in [(heavy, Cause::Bytes), (late(401), Cause::Time)] {
            let mut pace = Pace::joining(&start(), None, now);
            let mut judge = |behind| pace.judge(&item(&inter, false), behind, &budget, now);
            assert_eq!(judge(late(0)), Verdict::Send);
            assert_eq!(judge(behind), Verdict::Drop);
            assert_eq!(judge(late(0)), Verdict::Drop, "no key frame");
            assert_eq!(pace.skipping(), Some(cause));
        }
    }

    #[test]
    fn a_joiner_that_loses_as_much_ground_as_its_budget_skips() {
        let now = Instant::now();
        let budget = Budget::low_latency();
        let mut pace = Pace::joining(&start(), None, now);
        let inter = message(Kind::Video, &[0x27, 1, 0, 0, 0]);
        let mut judge = |ms| pace.judge(&item(&inter, false), late(ms), &budget, now);
        // It begins 2 s behind, and may be 2.4 s behind for a while.
        assert_eq!(judge(2_000), Verdict::Send);
        assert_eq!(judge(2_400), Verdict::Send);
        assert_eq!(judge(2_401), Verdict::Drop);
        assert_eq!(judge(100), Verdict::Drop, "no key frame");
    }

    #[test]
    fn what_waited_too_long_is_judged_again() {
        let now = Instant::now();
        let budget = Budget::low_latency();
        let mut pace = Pace::joining(&start(), None, now);
        let key = message(Kind::Video, &[0x17, 1, 0, 0, 0]);
        let inter = message(Kind::Video, &[0x27, 1, 0, 0, 0]);
        assert_eq!(
            pace.judge(&item(&inter, false), late(0), &budget, now),
            Verdict::Send
        );
        pace.skip(Cause::Lost);
        let mark = pace.mark();
        assert_eq!(
            pace.judge(&item(&key, true), late(0), &budget, now),
            Verdict::Resume
        );
        assert_eq!(pace.stale(late(400), &budget), None);
        assert_eq!(pace.stale(late(401), &budget), Some(Cause::Time));
        pace.back(mark);
        assert_eq!(
            pace.judge(&item(&inter, false), late(0), &budget, now),
            Verdict::Drop
        );
    }
}
