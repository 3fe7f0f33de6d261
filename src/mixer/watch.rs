//! Has a pipeline stopped giving? Told from what went in and what came out, by whoever looks often.
//!
//! Pure.

use std::time::{Duration, Instant};

/// A pipeline that owes something and gives nothing for this long is dead, whatever it says: with the rebuild the viewers
/// have a picture again within 2 s.
pub const LIMIT: Duration = Duration::from_millis(1_200);
/// A look counts for no more than this: a machine that stood still, and we with it, tells nothing of the pipeline.
const LOOK: Duration = Duration::from_millis(250);

/// Watches one pipeline.
#[derive(Debug)]
pub struct Watchdog {
    given: u64,
    looked: Instant,
    silent: Duration,
}

impl Watchdog {
    /// From `now` on; `given` is what came out so far.
    pub fn new(given: u64, now: Instant) -> Self {
        Self {
            given,
            looked: now,
            silent: Duration::ZERO,
        }
    }

    /// `given` has come out so far; something is `owed` when more went in. For how long nothing came that was owed, once
    /// that is too long.
    pub fn look(&mut self, given: u64, owed: bool, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.looked).min(LOOK);
        self.looked = now;
        if given != self.given || !owed {
            self.given = given;
            self.silent = Duration::ZERO;
            return None;
        }
        self.silent += passed;
        (self.silent > LIMIT).then_some(self.silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Looks every 50 ms for that long; when it bit.
    fn watch(dog: &mut Watchdog, from: Instant, ms: u32, owed: bool) -> Option<Instant> {
        (1..=ms / 50)
            .map(|n| from + 50 * n * MS)
            .find(|&now| dog.look(7, owed, now).is_some())
    }

    #[test]
    fn it_bites_when_what_is_owed_does_not_come() {
        let t0 = Instant::now();
        let mut dog = Watchdog::new(7, t0);
        assert_eq!(watch(&mut dog, t0, 2_000, true), Some(t0 + 1_250 * MS));
    }

    #[test]
    fn nothing_owed_or_something_given_is_life() {
        let t0 = Instant::now();
        let mut dog = Watchdog::new(7, t0);
        assert_eq!(watch(&mut dog, t0, 60_000, false), None);
        let t1 = t0 + 60_000 * MS;
        assert_eq!(watch(&mut dog, t1, 1_100, true), None);
        assert_eq!(dog.look(8, true, t1 + 1_150 * MS), None);
        assert_eq!(dog.look(8, true, t1 + 1_200 * MS), None);
    }

    #[test]
    fn a_machine_that_stood_still_is_no_dead_pipeline() {
        let t0 = Instant::now();
        let mut dog = Watchdog::new(7, t0);
        assert_eq!(dog.look(7, true, t0 + 3_600_000 * MS), None);
        assert!(watch(&mut dog, t0 + 3_600_000 * MS, 2_000, true).is_some());
    }
}
