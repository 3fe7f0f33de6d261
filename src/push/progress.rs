//! What a target has really taken: bytes that its TCP has acknowledged, and the media time they stand for. Pure.
//!
//! A byte that our kernel took says nothing about the target; a send buffer is seconds of a slow stream. So the clock of
//! the watchdog runs from the last byte acknowledged, whatever the bitrate. What lies in the receive buffer of a target
//! that has stopped reading counts as taken: it is out of reach.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::media::MediaTime;

/// Marks nearer together than this are one, so that many small messages take little memory.
const MARK: Duration = Duration::from_millis(20);
/// Over which the path's bandwidth is taken.
const WINDOW: Duration = Duration::from_secs(1);
/// A target further behind than this is given only what it takes in [`ON_THE_WAY_S`]: what is on its way cannot be taken
/// back, and goes before the key frame that it is to continue at. More than the round trip of any healthy one.
const BEHIND: Duration = Duration::from_millis(500);
/// In seconds. A round trip longer than that would be throttled more and more.
const ON_THE_WAY_S: u64 = 2;
/// What it is always given: a few packets.
const LEAST: u64 = 16 << 10;

/// One connection's account. Offsets count bytes queued on it, from 0.
#[derive(Debug)]
pub(super) struct Progress {
    /// Where messages end, those that are not acknowledged.
    marks: VecDeque<Mark>,
    /// End of what was queued.
    queued: u64,
    /// End of what the socket took.
    written: u64,
    /// End of what is acknowledged.
    acknowledged: u64,
    /// When bytes were last acknowledged, or the first began to wait.
    moved: Instant,
    /// Of the last message acknowledged to its end.
    heard: Option<MediaTime>,
    path: Path,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    end: u64,
    time: MediaTime,
}

/// What the target takes, measured while bytes wait for it all the time.
#[derive(Debug, Default)]
struct Path {
    window: Option<(Instant, u64)>,
    bytes_per_second: Option<u64>,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            marks: VecDeque::new(),
            queued: 0,
            written: 0,
            acknowledged: 0,
            moved: now,
            heard: None,
            path: Path::default(),
        }
    }

    /// So many bytes more wait to be written: a message of that media time, or control bytes.
    pub(super) fn queued(&mut self, bytes: u64, time: Option<MediaTime>, now: Instant) {
        if bytes == 0 {
            return;
        }
        if !self.is_outstanding() {
            self.moved = now;
        }
        self.queued += bytes;
        let Some(time) = time else { return };
        match self.marks.back_mut() {
            Some(last) if time >= last.time && time.since(last.time) < MARK => {
                last.end = self.queued;
            }
            _ => self.marks.push_back(Mark {
                end: self.queued,
                time,
            }),
        }
    }

    /// The socket took bytes.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }

    /// So many bytes of what the socket took are not acknowledged now. Returns how many more are than before.
    pub(super) fn look(&mut self, unacknowledged: usize, now: Instant) -> u64 {
        let acknowledged = self.written.saturating_sub(unacknowledged as u64);
        // Inside TLS the kernel counts a little more than we wrote.
        let more = acknowledged.saturating_sub(self.acknowledged);
        if more > 0 {
            self.acknowledged = acknowledged;
            self.moved = now;
        }
        while let Some(first) = self.marks.front()
            && first.end <= self.acknowledged
        {
            self.heard = Some(first.time);
            self.marks.pop_front();
        }
        self.measure(now);
        more
    }

    fn measure(&mut self, now: Instant) {
        if !self.is_outstanding() {
            // What it took when it was slow holds until it is measured anew.
            self.path.window = None;
            return;
        }
        let (since, from) = *self.path.window.get_or_insert((now, self.acknowledged));
        let span = now.saturating_duration_since(since);
        if span >= WINDOW {
            let bytes = (self.acknowledged - from) as f64 / span.as_secs_f64();
            self.path.bytes_per_second = Some(bytes as u64);
            self.path.window = Some((now, self.acknowledged));
        }
    }

    /// Is there something that the target has yet to acknowledge?
    pub(super) fn is_outstanding(&self) -> bool {
        self.queued > self.acknowledged
    }

    /// Bytes queued or written that are not acknowledged.
    pub(super) fn outstanding(&self) -> u64 {
        self.queued - self.acknowledged
    }

    /// When the target last made progress; when the first of what waits began to, if that is later.
    pub(super) fn moved(&self) -> Instant {
        self.moved
    }

    /// How long what is on its way to the target will take: the media time that it spans, or less where the target skipped,
    /// then what so many bytes take at the stream's `rate` (bytes a second) or, where that is less, at the target's.
    pub(super) fn on_the_way(&self, rate: Option<u64>) -> Duration {
        let Some(last) = self.marks.back() else {
            return Duration::ZERO;
        };
        let first = self.marks.front().map_or(last.time, |first| first.time);
        let span = last.time.since(self.heard.unwrap_or(first));
        match rate.into_iter().chain(self.path.bytes_per_second).min() {
            Some(rate) => {
                let seconds = self.outstanding() as f64 / rate.max(1) as f64;
                span.min(Duration::from_secs_f64(seconds))
            }
            None => span,
        }
    }

    /// Media time from the last message acknowledged to `head`; zero when the target has all there was.
    pub(super) fn lag(&self, head: MediaTime) -> Duration {
        match (self.marks.front(), self.heard) {
            (Some(first), heard) => head.since(heard.unwrap_or(first.time)),
            (None, Some(heard)) => head.since(heard),
            (None, None) => Duration::ZERO,
        }
    }

    /// How many bytes more the target, which is `behind`, may be given.
    pub(super) fn room(&self, behind: Duration) -> u64 {
        match self.path.bytes_per_second {
            Some(rate) if behind > BEHIND => {
                let worth = rate.saturating_mul(ON_THE_WAY_S).max(LEAST);
                worth.saturating_sub(self.outstanding())
            }
            _ => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A message every 40 ms, of 1 000 bytes, written at once.
    fn send(progress: &mut Progress, n: i64, now: Instant) {
        progress.queued(1_000, Some(MediaTime(n * 40)), now);
        progress.wrote(1_000);
    }

    #[test]
    fn what_the_kernel_took_is_no_progress_and_what_the_target_acknowledged_is() {
        let zero = Instant::now();
        let mut progress = Progress::new(zero);
        // Silence does not count against it.
        assert!(!progress.is_outstanding());
        send(&mut progress, 0, zero + ms(9_000));
        assert_eq!(progress.moved(), zero + ms(9_000));
        send(&mut progress, 1, zero + ms(9_040));
        assert_eq!(progress.look(2_000, zero + ms(9_100)), 0);
        assert_eq!(progress.moved(), zero + ms(9_000));
        assert_eq!(progress.look(999, zero + ms(9_200)), 1_001);
        assert_eq!(progress.moved(), zero + ms(9_200));
        assert_eq!(progress.look(0, zero + ms(9_300)), 999);
        assert!(!progress.is_outstanding());
        // All is well again, however long it was silent before.
        send(&mut progress, 2, zero + ms(60_000));
        assert_eq!(progress.moved(), zero + ms(60_000));
    }

    #[test]
    fn a_count_that_includes_more_than_we_wrote_is_no_step_back() {
        let zero = Instant::now();
        let mut progress = Progress::new(zero);
        send(&mut progress, 0, zero);
        assert_eq!(progress.look(1_022, zero), 0);
        assert_eq!(progress.look(500, zero + ms(1)), 500);
        assert_eq!(progress.look(522, zero + ms(2)), 0);
        assert_eq!(progress.moved(), zero + ms(1));
    }

    #[test]
    fn lag_counts_from_the_last_message_that_arrived_whole() {
        let zero = Instant::now();
        let mut progress = Progress::new(zero);
        for n in 0..100 {
            send(&mut progress, n, zero);
        }
        let head = MediaTime(99 * 40);
        assert_eq!(progress.lag(head), ms(99 * 40));
        // 50 messages and a half have arrived: the last whole one is number 49.
        progress.look(49_500, zero);
        assert_eq!(progress.lag(head), ms(50 * 40));
        assert_eq!(progress.on_the_way(None), ms(50 * 40));
        // 49 500 bytes at 25 000 a second.
        assert_eq!(progress.on_the_way(Some(25_000)), ms(1_980));
        progress.look(0, zero);
        assert_eq!(progress.lag(head), ms(0));
        assert_eq!(progress.on_the_way(Some(25_000)), ms(0));
        // After a skip of 10 s the hole is not on the way.
        send(&mut progress, 349, zero);
        assert_eq!(progress.on_the_way(Some(25_000)), ms(40));
    }

    #[test]
    fn a_slow_target_is_given_what_it_takes_in_two_seconds() {
        let zero = Instant::now();
        let mut progress = Progress::new(zero);
        let mut sent = 0;
        let mut most = 0;
        // 25 000 bytes a second are there, 12 500 are taken.
        for step in 0..400u64 {
            let now = zero + ms(step * 40);
            let behind = ms(step * 40) / 2;
            if progress.room(behind) > 0 {
                send(&mut progress, step as i64, now);
                sent += 1_000;
            }
            let taken = (step * 500).min(sent);
            progress.look((sent - taken) as usize, now);
            if step > 100 {
                most = most.max(progress.outstanding());
            }
        }
        assert!((20_000..=30_000).contains(&most), "{most}");
        // One that keeps up is never held back.
        let mut progress = Progress::new(zero);
        for step in 0..100 {
            send(&mut progress, step, zero + ms(step as u64 * 40));
            progress.look(0, zero + ms(step as u64 * 40 + 20));
            assert_eq!(progress.room(ms(9_000)), u64::MAX);
        }
    }

    #[test]
    fn small_messages_share_their_marks() {
        let zero = Instant::now();
        let mut progress = Progress::new(zero);
        for n in 0..10_000 {
            progress.queued(20, Some(MediaTime(n)), zero);
        }
        assert!(progress.marks.len() <= 501, "{}", progress.marks.len());
    }
}
