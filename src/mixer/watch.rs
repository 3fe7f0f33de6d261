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

/// Watches one pipeline.
#[derive(Debug)]
pub struct Watchdog {
    given: u64,
    looked: Instant,
    silent: Duration,
    limit: Duration,
    longest_look: Duration,
}

impl Watchdog {
    /// From `now` on; `given` is what came out so far.
    pub fn new(given: u64, now: Instant) -> Self {
        Self {
            given,
            looked: now,
            silent: Duration::ZERO,
            limit: LIMIT,
            longest_look: LOOK,
        }
    }

    /// `given` has come out so far; something is `owed` when more went in. For how long nothing came that was owed, once
    /// that is too long.
    pub fn look(&mut self, given: u64, owed: bool, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.looked);
        let passed = passed.min(self.longest_look);
        self.looked = now;
        if given != self.given || !owed {
            self.given = given;
            self.silent = Duration::ZERO;
            return None;
        }
        self.silent += passed;
        (self.silent > self.limit).then_some(self.silent)
    }
}

/// Watches one decoder, from its first key frame on.
#[derive(Debug)]
pub struct Vigil {
    dog: Watchdog,
    /// Units that went in since something came out last.
    taken: u32,
}

impl Vigil {
    /// Of a decoder that was made just now.
    pub fn new(now: Instant) -> Self {
        Self {
            dog: Watchdog {
                limit: DECODER_LIMIT,
                longest_look: DECODER_LOOK,
                ..Watchdog::new(0, now)
            },
            taken: 0,
        }
    }

    /// A unit went in.
    pub fn took(&mut self) {
        self.taken = self.taken.saturating_add(1);
    }

    /// To be called as each unit comes, before it goes in: `given` has come out so far, and `waiting` units are in front of
    /// the decoder. For how long nothing has come out, once that is too long to be delay.
    pub fn look(&mut self, given: u64, waiting: u64, now: Instant) -> Option<Duration> {
        if given != self.dog.given {
            self.taken = 0;
        }
        let silent = self.dog.look(given, self.taken > 0, now)?;
        (self.taken >= HELD_BACK || waiting >= STUCK).then_some(silent)
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
