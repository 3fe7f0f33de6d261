//! What a late subscriber gets: the slow-consumer policy, pure.

use std::time::{Duration, Instant};

use crate::media::{Message, Role};

/// What a class is owed and what it may cost.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Over this lag, video is skipped to the next key frame.
    pub max_lag: Duration,
    /// A reader that takes no byte at all for this long is closed.
    pub stuck: Duration,
}

impl Budget {
    /// Peers in a conversation: design.md's 400 ms.
    pub const fn low_latency() -> Self {
        Self {
            max_lag: Duration::from_millis(400),
            stuck: Duration::from_secs(10),
        }
    }

    /// Viewers: a few seconds.
    pub const fn viewer() -> Self {
        Self {
            max_lag: Duration::from_secs(3),
            stuck: Duration::from_secs(20),
        }
    }
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

/// A reader's state. A word, not a pair of booleans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Has been given nothing yet and has no headers: waits for a place to begin.
    Waiting,
    /// Working through the GOP it was given to begin with: lag does not count until it has caught up once.
    Joining,
    Live,
    /// Waiting for a key frame: after joining without one, or over budget.
    Skipping,
}

/// Judges messages for one reader, from how far behind it is and when it last took bytes.
#[derive(Debug)]
pub struct Pace {
    state: State,
    last_progress: Instant,
}

impl Pace {
    /// A reader whose cursor stands on a place to begin, however long ago that was recorded.
    pub fn joining(now: Instant) -> Self {
        Self {
            state: State::Joining,
            last_progress: now,
        }
    }

    /// A reader that must wait for the next key frame.
    pub fn waiting(now: Instant) -> Self {
        Self {
            state: State::Waiting,
            last_progress: now,
        }
    }

    /// The reader took bytes, or has taken all there was.
    pub fn progress(&mut self, now: Instant) {
        self.last_progress = now;
    }

    /// The cursor was moved by the ring; video continues at the next place to begin.
    pub fn skipped(&mut self) {
        self.state = State::Skipping;
    }

    /// Has the reader been given a place to begin at?
    pub fn has_begun(&self) -> bool {
        self.state != State::Waiting
    }

    /// Is every message to be sent as it is, as long as the lag stays within the budget?
    pub fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// Has the reader taken nothing for longer than its budget allows?
    pub fn is_stuck(&self, budget: &Budget, now: Instant) -> bool {
        now.saturating_duration_since(self.last_progress) > budget.stuck
    }

    /// Judges one message at the reader's cursor. `lag` is media time from it to the head of the ring;
    /// `can_begin` says whether a reader may begin at it.
    pub fn judge(
        &mut self,
        message: &Message,
        can_begin: bool,
        lag: Duration,
        budget: &Budget,
        now: Instant,
    ) -> Verdict {
        if self.is_stuck(budget, now) {
            return Verdict::Evict;
        }
        let over = lag > budget.max_lag;
        if self.state == State::Joining {
            if !over {
                self.state = State::Live;
            }
            return Verdict::Send;
        }
        match (self.state, message.role) {
            // It gets the headers of the place where it begins, and cannot use anything before.
            (State::Waiting, _) if !can_begin || over => Verdict::Drop,
            (_, Role::Header(_)) => Verdict::Send,
            (State::Waiting | State::Skipping, _) if can_begin && !over => {
                self.state = State::Live;
                Verdict::Resume
            }
            (State::Skipping, _) if message.kind == crate::media::Kind::Video => Verdict::Drop,
            // Old audio would only keep the reader behind.
            _ if over && message.kind == crate::media::Kind::Audio => Verdict::Drop,
            _ if over && message.kind == crate::media::Kind::Video => {
                self.state = State::Skipping;
                Verdict::Drop
            }
            _ => Verdict::Send,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Kind, MediaTime};
    use bytes::Bytes;

    fn message(kind: Kind, payload: &'static [u8]) -> Message {
        Message::new(kind, MediaTime::ZERO, Bytes::from_static(payload))
    }

    #[test]
    fn a_late_reader_loses_video_until_a_key_frame_that_is_in_time() {
        let now = Instant::now();
        let budget = Budget::low_latency();
        let mut pace = Pace::joining(now);
        let inter = message(Kind::Video, &[0x27, 1, 0, 0, 0]);
        let key = message(Kind::Video, &[0x17, 1, 0, 0, 0]);
        let header = message(Kind::Video, &[0x17, 0, 0, 0, 0]);
        let sound = message(Kind::Audio, &[0xaf, 1]);
        let ms = Duration::from_millis;
        let mut judge = |m: &Message, begin, lag| pace.judge(m, begin, ms(lag), &budget, now);
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
        let mut pace = Pace::joining(now);
        let inter = message(Kind::Video, &[0x27, 1, 0, 0, 0]);
        let mut judge = |ms| pace.judge(&inter, false, Duration::from_millis(ms), &budget, now);
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
            pace.judge(&message, begin, Duration::ZERO, &budget, now)
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
        let mut pace = Pace::joining(t0);
        let inter = message(Kind::Video, &[0x27, 1, 0, 0, 0]);
        let later = t0 + budget.stuck + Duration::from_millis(1);
        assert_eq!(
            pace.judge(&inter, false, Duration::ZERO, &budget, later),
            Verdict::Evict
        );
        pace.progress(later);
        assert_eq!(
            pace.judge(&inter, false, Duration::ZERO, &budget, later),
            Verdict::Send
        );
    }
}
