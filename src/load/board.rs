//! What the players' threads and the one that watches them have in common: the measured window and the counts.
//!
//! The window is a range of frame numbers of each stream, not a span of time: a frame published in it counts when it
//! arrives, and so the share delivered is exact. Bytes and CPU time are those of the span of time in between.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use super::stamp::Stamp;

/// Texts of failures that are kept; the rest are counted.
const MAX_ERRORS: usize = 5;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Joining,
    /// Bytes count, and so do frames from the window's first on.
    Measuring,
    /// Frames of the window that are still on their way count.
    Closing,
    Over,
}

/// What one stream's frames are counted by.
#[derive(Debug)]
pub(super) struct Range {
    /// Number after the newest frame that any player has seen.
    newest: AtomicU64,
    from: AtomicU64,
    until: AtomicU64,
}

/// Shared by all threads of a run. Phase and ranges change only while every [`Tally`] is locked, and each thread holds
/// its own for a turn: so within a turn they stand still, and relaxed loads are enough.
pub(super) struct Board {
    phase: AtomicUsize,
    ranges: Vec<Range>,
    tallies: Vec<Mutex<Tally>>,
    /// Players that have had their first video.
    pub joined: AtomicUsize,
    /// Players whose connection ended, and those of them that had had no video yet.
    pub lost: AtomicUsize,
    pub failed: AtomicUsize,
}

/// What one thread has counted.
pub(super) struct Tally {
    /// In the measured span of time.
    pub bytes: u64,
    /// Of the window.
    pub frames: u64,
    pub missed: u64,
    /// Age of the window's frames on arrival, µs.
    pub latency: Histogram<u64>,
    /// The same for any frames since the last progress line.
    pub recent: Histogram<u64>,
    pub recent_bytes: u64,
    /// Stamps of another machine's clock.
    pub foreign: u64,
    pub errors: Vec<String>,
}

impl Tally {
    fn new() -> Self {
        Self {
            bytes: 0,
            frames: 0,
            missed: 0,
            latency: histogram(),
            recent: histogram(),
            recent_bytes: 0,
            foreign: 0,
            errors: Vec::new(),
        }
    }

    pub fn fail(&mut self, error: String) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }
}

/// Three digits, whatever the magnitude.
pub(super) fn histogram() -> Histogram<u64> {
    // Only a number of digits above 5 is an error.
    Histogram::new(3).expect("3 significant digits")
}

impl Board {
    pub fn new(streams: usize, threads: usize) -> Self {
        let range = || Range {
            newest: AtomicU64::new(0),
            from: AtomicU64::new(u64::MAX),
            until: AtomicU64::new(u64::MAX),
        };
        Self {
            phase: AtomicUsize::new(Phase::Joining as usize),
            ranges: (0..streams).map(|_| range()).collect(),
            tallies: (0..threads).map(|_| Mutex::new(Tally::new())).collect(),
            joined: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
        }
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Joining,
            1 => Phase::Measuring,
            2 => Phase::Closing,
            _ => Phase::Over,
        }
    }

    /// The tally of one thread, for a turn of its loop.
    pub fn tally(&self, thread: usize) -> MutexGuard<'_, Tally> {
        lock(&self.tallies[thread])
    }

    /// Goes on to the next phase; frames from the newest on, or up to it, are the window. All threads stand still
    /// meanwhile, for `measure` too.
    pub fn enter<T>(&self, phase: Phase, measure: impl FnOnce() -> T) -> T {
        let _still: Vec<_> = self.tallies.iter().map(lock).collect();
        for range in &self.ranges {
            let newest = range.newest.load(Relaxed);
            match phase {
                Phase::Measuring => range.from.store(newest, Relaxed),
                Phase::Closing => range.until.store(newest, Relaxed),
                Phase::Joining | Phase::Over => {}
            }
        }
        self.phase.store(phase as usize, Relaxed);
        measure()
    }

    /// Counts a frame of `stream`, whose player's last was `last`. Returns how many frames of the window it, and
    /// those missed before it, are: received and missed.
    pub fn frame(&self, stream: usize, stamp: Stamp, last: Option<u64>) -> (u64, u64) {
        let range = &self.ranges[stream];
        let (from, until) = (range.from.load(Relaxed), range.until.load(Relaxed));
        let sequence = stamp.sequence;
        range.newest.fetch_max(sequence.saturating_add(1), Relaxed);
        let received = u64::from((from..until).contains(&sequence));
        // A number that goes back is another publisher's.
        let missed = match last {
            Some(last) if last < sequence => {
                let gap = (last + 1).max(from)..sequence.min(until);
                gap.end.saturating_sub(gap.start)
            }
            _ => 0,
        };
        (received, missed)
    }

    /// Frames published in the window so far, by stream.
    pub fn published(&self) -> Vec<u64> {
        let count = |range: &Range| {
            let until = range.until.load(Relaxed).min(range.newest.load(Relaxed));
            until.saturating_sub(range.from.load(Relaxed))
        };
        self.ranges.iter().map(count).collect()
    }

    /// All threads' counts together.
    pub fn sum(&self) -> Tally {
        let mut sum = Tally::new();
        for tally in &self.tallies {
            let tally = lock(tally);
            sum.bytes += tally.bytes;
            sum.frames += tally.frames;
            sum.missed += tally.missed;
            sum.foreign += tally.foreign;
            // Same digits, and they grow by themselves.
            let _ = sum.latency.add(&tally.latency);
            for error in &tally.errors {
                sum.fail(error.clone());
            }
        }
        sum
    }

    /// What has come since the last call: ages, and bytes.
    pub fn take_recent(&self) -> (Histogram<u64>, u64) {
        let mut sum = histogram();
        let mut bytes = 0;
        for tally in &self.tallies {
            let mut tally = lock(tally);
            let _ = sum.add(&tally.recent);
            tally.recent.reset();
            bytes += std::mem::take(&mut tally.recent_bytes);
        }
        (sum, bytes)
    }
}

/// A thread that panicked has counted what it has counted.
fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs one player through `arrived` around a window, returns received, missed and published.
    fn window(before: &[u64], inside: &[u64], after: &[u64]) -> (u64, u64, u64) {
        let board = Board::new(1, 1);
        let mut last = None;
        let mut sum = (0, 0);
        let mut take = |numbers: &[u64]| {
            for &sequence in numbers {
                let stamp = Stamp {
                    sequence,
                    sent_ns: 0,
                    clock: 0,
                };
                let (received, missed) = board.frame(0, stamp, last);
                last = Some(sequence);
                sum = (sum.0 + received, sum.1 + missed);
            }
        };
        take(before);
        board.enter(Phase::Measuring, || ());
        take(inside);
        board.enter(Phase::Closing, || ());
        take(after);
        (sum.0, sum.1, board.published()[0])
    }

    #[test]
    fn what_was_published_in_the_window_counts_once() {
        assert_eq!(window(&[0, 1, 2], &[3, 4, 5], &[6, 7]), (3, 0, 3));
    }

    #[test]
    fn a_gap_in_the_numbers_is_missed_frames() {
        assert_eq!(window(&[0, 1], &[2, 5, 6], &[]), (3, 2, 5));
    }

    #[test]
    fn a_gap_across_the_windows_edge_counts_for_its_part_inside() {
        // 1 was before the window, which begins at 1 (the newest was 0) and so holds it: 1, 2 and 3 are missed.
        assert_eq!(window(&[0], &[4, 5], &[8]), (2, 3, 5));
        // 6 and 7 come, or are missed, after it.
        assert_eq!(window(&[0, 1, 2], &[3], &[8]), (1, 0, 1));
    }

    #[test]
    fn a_publisher_that_begins_anew_misses_nothing() {
        assert_eq!(window(&[100, 101], &[102, 0, 1, 2], &[3]).1, 0);
    }

    #[test]
    fn a_late_frame_of_the_window_counts_when_it_comes() {
        let board = Board::new(2, 1);
        let stamp = |sequence| Stamp {
            sequence,
            sent_ns: 0,
            clock: 0,
        };
        board.frame(1, stamp(0), None);
        board.enter(Phase::Measuring, || ());
        board.frame(1, stamp(1), Some(0));
        board.enter(Phase::Closing, || ());
        // Another, slower player of the same stream.
        assert_eq!(board.frame(1, stamp(1), Some(0)), (1, 0));
        assert_eq!(board.published(), [0, 1]);
    }
}
