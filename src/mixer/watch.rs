//! Has a pipeline stopped giving? Told from what went in and what came out, by whoever looks often.
//!
//! Pure. A [`Watchdog`] is for pipelines that give as soon as they take; a [`Vigil`] is for decoders, which may hold back.

use std::time::{Duration, Instant};

/// A pipeline that owes something and gives nothing for this long is dead, whatever it says: with the rebuild the viewers
/// have a picture again within 2 s.
pub const LIMIT: Duration = Duration::from_millis(1_200);
/// A look counts for no more than this: a machine that stood still, and we with it, tells nothing of the pipeline.
const LOOK: Duration = Duration::from_millis(250);

/// A decoder that has taken and gives nothing for this long is dead: long enough for one that a busy machine has no time
/// for, and its place shows a picture of then anyway.
const DECODER_LIMIT: Duration = Duration::from_secs(2);
/// Looks at a decoder come with its units, of which a stream has one a second at least, or is not there.
const DECODER_LOOK: Duration = Duration::from_secs(1);
/// Units that a decoder may hold back: H.264 and HEVC reorder 16 pictures at most, and the next one shows that they are
/// not all of them late.
const HELD_BACK: u32 = 17;
/// Units that wait in front of a decoder that takes none: one may just have come.
const STUCK: u64 = 2;

/// For how long something that was owed has not come.
#[derive(Debug)]
struct Silence {
    given: u64,
    looked: Instant,
    lasted: Duration,
    limit: Duration,
    longest_look: Duration,
}

impl Silence {
    /// From `now` on; `given` is what came out so far. It is too long beyond `limit`, and no look counts for more than
    /// `longest_look`.
    fn new(given: u64, limit: Duration, longest_look: Duration, now: Instant) -> Self {
        Self {
            given,
            looked: now,
            lasted: Duration::ZERO,
            limit,
            longest_look,
        }
    }

    /// `given` has come out so far; something is `owed` when more went in. How long it has lasted, once that is too long.
    fn look(&mut self, given: u64, owed: bool, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.looked);
        let passed = passed.min(self.longest_look);
        self.looked = now;
        if given != self.given || !owed {
            self.given = given;
            self.lasted = Duration::ZERO;
            return None;
        }
        self.lasted += passed;
        (self.lasted > self.limit).then_some(self.lasted)
    }
}

/// Watches one pipeline.
#[derive(Debug)]
pub struct Watchdog {
    /// What came out before this pipeline, and what went into it.
    before: u64,
    taken: u64,
    /// What an encoder may keep to itself.
    keeps: u64,
    silence: Silence,
}

impl Watchdog {
    /// From `now` on; `given` is what came out so far, of others. The pipeline may keep the last `keeps` of what goes in.
    pub fn new(given: u64, keeps: u64, now: Instant) -> Self {
        Self {
            before: given,
            taken: 0,
            keeps,
            silence: Silence::new(given, LIMIT, LOOK, now),
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
        let owed = given.saturating_sub(self.before) + self.keeps < self.taken;
        self.silence.look(given, owed, now)
    }
}

/// Watches one decoder, from its first key frame on.
#[derive(Debug)]
pub struct Vigil {
    silence: Silence,
    /// Units that went in since something came out last.
    taken: u32,
}

impl Vigil {
    /// Of a decoder that was made just now.
    pub fn new(now: Instant) -> Self {
        Self {
            silence: Silence::new(0, DECODER_LIMIT, DECODER_LOOK, now),
            taken: 0,
        }
    }

    /// A unit went in.
    pub fn took(&mut self) {
        self.taken = self.taken.saturating_add(1);
    }

    /// For how long it has owed something and given nothing, as of the last look.
    pub fn silent(&self) -> Duration {
        self.silence.lasted
    }

    /// To be called as each unit comes, before it goes in: `given` has come out so far, and `waiting` units are in front of
    /// the decoder. For how long nothing has come out, once that is too long to be delay.
    pub fn look(&mut self, given: u64, waiting: u64, now: Instant) -> Option<Duration> {
        if given != self.silence.given {
            self.taken = 0;
        }
        let silent = self.silence.look(given, self.taken > 0, now)?;
        (self.taken >= HELD_BACK || waiting >= STUCK).then_some(silent)
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

    /// A decoder gets a unit every `step` ms, and gives back as many as `gives` says of those that went in; when it is
    /// given up, within so many units. `stuck`: it takes none.
    fn decode(step: u32, units: u32, stuck: bool, gives: impl Fn(u32) -> u32) -> Option<u32> {
        let t0 = Instant::now();
        let mut vigil = Vigil::new(t0);
        (0..units).find(|&n| {
            let now = t0 + step * n * MS;
            let waiting = if stuck { u64::from(n) } else { 0 };
            let bites = vigil.look(u64::from(gives(n)), waiting, now).is_some();
            vigil.took();
            bites
        })
    }

    #[test]
    fn a_decoder_that_swallows_or_takes_nothing_is_given_up_after_two_seconds() {
        // The first look after the first unit that went in is the second.
        assert_eq!(decode(50, 1_000, false, |_| 0), Some(41));
        assert_eq!(decode(50, 1_000, true, |_| 0), Some(41));
        // It worked for a while.
        assert_eq!(decode(50, 1_000, false, |n| n.min(200)), Some(241));
        // One picture a second: two wait at once when it hangs; one that swallows has had all it could hold back.
        assert_eq!(decode(1_000, 1_000, true, |_| 0), Some(3));
        assert_eq!(decode(1_000, 1_000, false, |_| 0), Some(17));
    }

    #[test]
    fn a_decoder_that_holds_back_is_none_that_is_dead() {
        for step in [16, 50, 200, 1_000, 5_000] {
            // As many as the standards allow, from the first on.
            assert_eq!(decode(step, 1_000, false, |n| n.saturating_sub(16)), None);
            // Two pictures to a unit and none to the next: fields, or pictures that are not shown.
            assert_eq!(decode(step, 1_000, false, |n| n / 2 * 2), None);
        }
    }

    #[test]
    fn a_burst_after_a_pause_is_none_either() {
        let t0 = Instant::now();
        let mut vigil = Vigil::new(t0);
        for n in 0..100 {
            assert_eq!(vigil.look(n, 0, t0 + 50 * n as u32 * MS), None);
            vigil.took();
        }
        // Nothing for a minute, then a hundred units before the decoder could do anything.
        let t1 = t0 + 65_000 * MS;
        for n in 0..100 {
            assert_eq!(vigil.look(99, n, t1), None);
            vigil.took();
        }
    }
}
