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
    /// What came out before this pipeline, and what went into it.
    before: u64,
    taken: u64,
    /// What an encoder may keep to itself.
    keeps: u64,
    given: u64,
    looked: Instant,
    silent: Duration,
}

impl Watchdog {
    /// From `now` on; `given` is what came out so far, of others. The pipeline may keep the last `keeps` of what goes in.
    pub fn new(given: u64, keeps: u64, now: Instant) -> Self {
        Self {
            before: given,
            taken: 0,
            keeps,
            given,
            looked: now,
            silent: Duration::ZERO,
        }
    }

    /// So much more went in.
    pub fn took(&mut self, count: u64) {
        self.taken += count;
    }

    /// Another pipeline goes on from here; `given` has come out so far, all of others.
    pub fn renew(&mut self, given: u64) {
        (self.before, self.taken) = (given, 0);
    }

    /// Has anything come out of this pipeline, when `given` has so far?
    pub fn has_given(&self, given: u64) -> bool {
        given > self.before
    }

    /// `given` has come out so far. For how long nothing came although more had gone in, once that is too long.
    pub fn look(&mut self, given: u64, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.looked).min(LOOK);
        self.looked = now;
        let is_owed = given.saturating_sub(self.before) + self.keeps < self.taken;
        if given != self.given || !is_owed {
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

    /// One that nothing has come of, and into which that much went.
    fn dog(taken: u64, now: Instant) -> Watchdog {
        let mut dog = Watchdog::new(7, 2, now);
        dog.took(taken);
        dog
    }

    /// Looks every 50 ms for that long; when it bit.
    fn watch(dog: &mut Watchdog, from: Instant, ms: u32) -> Option<Instant> {
        (1..=ms / 50)
            .map(|n| from + 50 * n * MS)
            .find(|&now| dog.look(7, now).is_some())
    }

    #[test]
    fn it_bites_when_what_is_owed_does_not_come() {
        let t0 = Instant::now();
        assert_eq!(watch(&mut dog(3, t0), t0, 2_000), Some(t0 + 1_250 * MS));
    }

    #[test]
    fn nothing_owed_or_something_given_is_life() {
        let t0 = Instant::now();
        let mut dog = dog(2, t0);
        assert_eq!(watch(&mut dog, t0, 60_000), None);
        dog.took(5);
        let t1 = t0 + 60_000 * MS;
        assert_eq!(watch(&mut dog, t1, 1_100), None);
        assert!(!dog.has_given(7) && dog.has_given(8));
        assert_eq!(dog.look(8, t1 + 1_150 * MS), None);
        assert_eq!(dog.look(8, t1 + 1_200 * MS), None);
    }

    #[test]
    fn what_another_pipeline_was_owed_is_forgotten_and_the_next_one_is_watched_as_well() {
        let t0 = Instant::now();
        let mut dog = dog(40, t0);
        dog.renew(7);
        assert_eq!(watch(&mut dog, t0, 60_000), None);
        dog.took(3);
        assert!(watch(&mut dog, t0 + 60_000 * MS, 2_000).is_some());
    }

    #[test]
    fn a_machine_that_stood_still_is_no_dead_pipeline() {
        let t0 = Instant::now();
        let mut dog = dog(3, t0);
        assert_eq!(dog.look(7, t0 + 3_600_000 * MS), None);
        assert!(watch(&mut dog, t0 + 3_600_000 * MS, 2_000).is_some());
    }
}
