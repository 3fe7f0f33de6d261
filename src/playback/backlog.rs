//! What a reader's TCP has acknowledged, in media time: a ledger of what was written maps bytes back. Pure.
//!
//! Lag is the media time from the last acknowledged byte to the head of the ring. The kernel tells how many bytes
//! at the end of all that were written are not acknowledged yet. Readers that follow their loop were all written the
//! same bytes, so one ledger of the loop, a mark for each batch, serves them all, and writing costs a reader nothing.
//! What a reader was written by itself (its burst, or while it was behind) is in a ledger of its own.

use std::collections::VecDeque;

use crate::media::MediaTime;

/// Marks of a loop's ledger: 8 s at 60 batches a second; no budget that the kernel may hold is longer.
const LOOP_MARKS: usize = 512;

/// Marks for which a reader that follows keeps room: a batch that it did not take whole.
const KEPT_MARKS: usize = 4;

/// Bytes in the order in which they were written, with the media time of each stretch.
#[derive(Debug, Default)]
pub struct Ledger {
    marks: VecDeque<Mark>,
    total: u64,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    /// All bytes up to the end of this stretch.
    end: u64,
    time: MediaTime,
}

impl Ledger {
    /// A loop's, in which what follows takes no memory.
    pub fn of_a_loop() -> Self {
        Self {
            marks: VecDeque::with_capacity(LOOP_MARKS),
            total: 0,
        }
    }

    /// `bytes` more were written, the newest of them of media time `time`.
    pub fn wrote(&mut self, bytes: usize, time: MediaTime) {
        self.total += bytes as u64;
        match self.marks.back_mut() {
            Some(last) if last.time == time => last.end = self.total,
            _ => self.marks.push_back(Mark {
                end: self.total,
                time,
            }),
        }
    }

    /// As [`Self::wrote`] for a loop, which forgets its oldest mark for it.
    pub fn wrote_batch(&mut self, bytes: usize, time: MediaTime) {
        if self.marks.len() == LOOP_MARKS {
            self.marks.pop_front();
        }
        self.wrote(bytes, time);
    }

    /// Bytes without a time of their own, such as answers to commands.
    fn wrote_beside(&mut self, bytes: usize) {
        self.total += bytes as u64;
        if let Some(last) = self.marks.back_mut() {
            last.end = self.total;
        }
    }

    /// Marks that are acknowledged to their end.
    fn whole(&self, unacknowledged: u64) -> usize {
        let acknowledged = self.total.saturating_sub(unacknowledged);
        self.marks.partition_point(|mark| mark.end <= acknowledged)
    }

    /// Media time of the last stretch that is acknowledged to its end when `unacknowledged` bytes are not; of the oldest
    /// one known when that is further back; `None` when nothing was written.
    fn acknowledged(&self, unacknowledged: u64) -> Option<MediaTime> {
        let last = self.whole(unacknowledged).saturating_sub(1);
        self.marks.get(last).map(|mark| mark.time)
    }

    /// Lets go of what is acknowledged, but for the last stretch of it.
    fn settle(&mut self, unacknowledged: u64) {
        let settled = self.whole(unacknowledged).saturating_sub(1);
        self.marks.drain(..settled);
    }
}

/// What one reader was written.
#[derive(Debug, Default)]
pub struct Backlog {
    own: Ledger,
    /// What the loop had written when this reader began to follow it; `None` while it does not.
    follows_since: Option<u64>,
}

impl Backlog {
    /// The reader by itself was written `bytes` of a message of media time `time`; `None` for answers to commands.
    pub fn wrote(&mut self, bytes: usize, time: Option<MediaTime>) {
        match time {
            Some(time) => self.own.wrote(bytes, time),
            None => self.own.wrote_beside(bytes),
        }
    }

    /// From now on the reader is written what the loop writes.
    pub fn follow(&mut self, line: &Ledger) {
        self.follows_since.get_or_insert(line.total);
    }

    /// From now on the reader is written by itself: its ledger takes over what of the loop's is not acknowledged.
    pub fn leave(&mut self, unacknowledged: usize, line: &Ledger) {
        let Some(since) = self.follows_since.take() else {
            return;
        };
        let began = self.own.total;
        let last = line.whole(unacknowledged as u64).saturating_sub(1);
        for mark in line.marks.range(last.min(line.marks.len())..) {
            if mark.end > since {
                let end = began + (mark.end - since);
                self.own.wrote((end - self.own.total) as usize, mark.time);
            }
        }
        self.own.total = began + (line.total - since);
    }

    /// Bytes written to this reader in all.
    pub fn total(&self, line: &Ledger) -> u64 {
        let following = self.follows_since.map_or(0, |since| line.total - since);
        self.own.total + following
    }

    /// Media time of the last acknowledged byte when `unacknowledged` bytes of what the reader was written are not;
    /// `None` when nothing was written.
    pub fn acknowledged(&mut self, unacknowledged: usize, line: &Ledger) -> Option<MediaTime> {
        let unacknowledged = unacknowledged as u64;
        let following = self.follows_since.map_or(0, |since| line.total - since);
        if following > 0 && unacknowledged <= following {
            // Nothing of the reader's own is on the way any more.
            self.own.settle(0);
            self.own.marks.shrink_to(KEPT_MARKS);
            return line.acknowledged(unacknowledged);
        }
        let own = unacknowledged - following.min(unacknowledged);
        self.own.settle(own);
        self.own.acknowledged(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: fn(i64) -> MediaTime = MediaTime;

    /// Ten batches of 100 bytes, 40 ms apart.
    fn line() -> Ledger {
        let mut line = Ledger::of_a_loop();
        for n in 0..10 {
            line.wrote_batch(100, T(n * 40));
        }
        line
    }

    #[test]
    fn what_is_acknowledged_in_part_counts_as_not_acknowledged() {
        let line = line();
        for (unacknowledged, time) in [(0, 360), (1, 320), (99, 320), (100, 320), (950, 0)] {
            assert_eq!(
                line.acknowledged(unacknowledged),
                Some(T(time)),
                "{unacknowledged} bytes"
            );
        }
        assert_eq!(Ledger::default().acknowledged(5), None);
    }

    #[test]
    fn a_follower_is_looked_up_in_the_loops_ledger_and_behind_its_beginning_in_its_own() {
        let mut line = line();
        let mut backlog = Backlog::default();
        // A burst of its own: 500 bytes of 2 s ago, 50 of an answer to a command.
        backlog.wrote(500, Some(T(-2_000)));
        backlog.wrote(50, None);
        backlog.follow(&line);
        for n in 10..13 {
            line.wrote_batch(100, T(n * 40));
        }
        let mut acknowledged =
            |unacknowledged| backlog.acknowledged(unacknowledged, &line).unwrap();
        assert_eq!(acknowledged(320), T(-2_000), "20 bytes of its own");
        assert_eq!(acknowledged(250), T(360));
        assert_eq!(acknowledged(200), T(400));
        assert_eq!(acknowledged(0), T(480));
        assert_eq!(backlog.total(&line), 850);
    }

    #[test]
    fn a_reader_that_leaves_the_loop_takes_its_times_along() {
        let mut line = line();
        let mut backlog = Backlog::default();
        backlog.wrote(500, Some(T(-2_000)));
        backlog.follow(&line);
        for n in 10..13 {
            line.wrote_batch(100, T(n * 40));
        }
        backlog.leave(1_000, &line);
        // It was given one batch less than the loop goes on to write.
        line.wrote_batch(100, T(520));
        backlog.wrote(30, Some(T(520)));
        assert_eq!(backlog.total(&line), 830);
        let mut acknowledged =
            |unacknowledged| backlog.acknowledged(unacknowledged, &line).unwrap();
        assert_eq!(acknowledged(400), T(-2_000));
        assert_eq!(acknowledged(140), T(400));
        assert_eq!(acknowledged(29), T(480));
        assert_eq!(acknowledged(0), T(520));
    }

    #[test]
    fn a_ledger_keeps_what_is_not_acknowledged_and_no_more() {
        let mut backlog = Backlog::default();
        let line = Ledger::of_a_loop();
        for n in 0..1_000 {
            backlog.wrote(100, Some(T(n * 40)));
            backlog.acknowledged(250, &line);
        }
        assert!(backlog.own.marks.len() <= 4, "{}", backlog.own.marks.len());
        let mut line = Ledger::of_a_loop();
        let room = line.marks.capacity();
        for n in 0..10_000 {
            line.wrote_batch(100, T(n * 40));
        }
        assert_eq!(line.marks.capacity(), room);
    }
}
