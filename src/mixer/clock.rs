//! Clock mapping: when, on our own clock, a picture or sound of an input is due, and how late inputs tend to be.
//!
//! Publishers' clocks drift, jump and stall; ours does not. A message's due time is its media time plus
//! an offset learnt from arrivals: the smallest (arrival − decode time) of the last seconds, approached
//! slowly. Pure: all times come in as microseconds, "wall" ones since the mix's zero, media ones on the
//! input's own timeline.

use std::collections::VecDeque;

/// Arrivals remembered for the smallest offset. Long enough to hold an undelayed arrival on any network
/// that is fit for live pictures, short enough to follow a path that got longer.
const WINDOW_US: i64 = 5_000_000;
/// The offset moves by at most this share of the time passed: sound resampled to follow is off by a quarter of a
/// semitone at most, and a clock that is 1 % fast is still caught up with.
const SLEW: f64 = 0.015;
/// So long after the first arrival the offset still falls at once: encoders send sound some 50 ms later than pictures of
/// the same time, so the first arrivals tell little, and sound bent for seconds is worse than a jump at the start.
const LEARNING_US: i64 = 3_000_000;
/// An offset that is too large by more than this (a burst after a stall drained) is corrected at once.
const BEHIND_US: f64 = 200_000.0;
/// An offset that is wrong by more than this in any direction belongs to another clock.
const LOST_US: f64 = 1_500_000.0;
/// Decode times that go back further than this are another clock, not loose interleaving.
const BACK_US: i64 = 300_000;
/// Decode times that run ahead of the wall by more than this in one step are a jump.
const AHEAD_US: i64 = 500_000;

/// Maps one input's media time to the wall. Shared by its sound and pictures, so that they stay together.
#[derive(Debug, Default)]
pub struct Mapper {
    /// (arrival, arrival − decode time), offsets rising: the front is the window's smallest.
    window: VecDeque<(i64, i64)>,
    offset_us: Option<f64>,
    /// Arrival and decode time of the newest message.
    last: Option<(i64, i64)>,
    /// When the offset began to be learnt.
    since_us: i64,
    #[cfg(test)]
    resets: u64,
}

impl Mapper {
    /// Takes note of a message that arrived now. Late ones are fine; messages that waited on our side before
    /// being looked at (a catch-up burst) are not arrivals.
    ///
    /// Answers by how much the due times given out so far were wrong, when the offset was corrected at once.
    pub fn observe(&mut self, arrival_us: i64, dts_us: i64) -> Option<i64> {
        let mut passed = 0;
        if let Some((last_arrival, last_dts)) = self.last {
            passed = (arrival_us - last_arrival).max(0);
            let step = dts_us - last_dts;
            if step < -BACK_US || step - passed > AHEAD_US {
                self.restart();
                #[cfg(test)]
                {
                    self.resets += 1;
                }
            }
        }
        // Loose interleaving must not look like going back later.
        let newest_dts = match self.last {
            Some((_, last)) => dts_us.max(last),
            None => dts_us,
        };
        self.last = Some((arrival_us, newest_dts));
        let offset = arrival_us - dts_us;
        while self.window.back().is_some_and(|&(_, o)| o >= offset) {
            self.window.pop_back();
        }
        self.window.push_back((arrival_us, offset));
        while self
            .window
            .front()
            .is_some_and(|&(at, _)| at < arrival_us - WINDOW_US)
        {
            self.window.pop_front();
        }
        let target = self.window.front().map_or(offset, |&(_, o)| o) as f64;
        let mut corrected = None;
        self.offset_us = Some(match self.offset_us {
            None => {
                self.since_us = arrival_us;
                target
            }
            Some(held) => {
                let error = target - held;
                let learning = arrival_us - self.since_us < LEARNING_US;
                if error < -BEHIND_US || error.abs() > LOST_US || (learning && error < 0.0) {
                    corrected = Some(error as i64);
                    target
                } else {
                    let limit = SLEW * passed as f64;
                    held + error.clamp(-limit, limit)
                }
            }
        });
        corrected
    }

    /// Another publisher feeds the input now: what was learnt was the other's.
    pub fn restart(&mut self) {
        self.window.clear();
        self.offset_us = None;
        self.last = None;
    }

    /// The wall time at which that media time is due; `None` before the first arrival.
    pub fn map(&self, media_us: i64) -> Option<i64> {
        self.offset_us.map(|offset| media_us + offset as i64)
    }
}

/// Observations that decide how long to wait: some seconds of frames.
const LATENESS_WINDOW: usize = 256;
/// Beyond this an input has stalled; waiting for it would only delay the others.
const STALL_US: i64 = 300_000;

/// How late decoded frames of an input come: the worst (ready − due) of the last seconds. Not a percentile, since the
/// wait that it allows ends as soon as everything is there and so costs nothing while nothing is late.
#[derive(Debug, Default)]
pub struct Lateness {
    window: VecDeque<i64>,
}

impl Lateness {
    pub fn observe(&mut self, late_us: i64) {
        if late_us > STALL_US {
            return;
        }
        if self.window.len() == LATENESS_WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(late_us.max(0));
    }

    pub fn worst_us(&self) -> i64 {
        self.window.iter().copied().max().unwrap_or(0)
    }
}

/// Pictures over which the delay of the screen is averaged: some seconds.
const SCREEN_WINDOW: u32 = 64;
/// Fewer tell little.
const SCREEN_MIN: u32 = 12;
/// Further off than this a picture tells of a stall or a jump, not of the screen.
const SCREEN_LIMIT_US: i64 = 150_000;
/// The sound follows by this share of the time passed: a sixth of a semitone.
const SCREEN_SLEW: f64 = 0.01;

/// How much later than due an input's pictures are on screen, on average. An output frame shows the newest picture
/// there is, so a picture waits for half a frame interval in the mean, and longer where its decoder is late; its sound
/// has to wait as long. Negative for a lead whose beat we follow: a frame may then be presented a little before the
/// picture's time.
#[derive(Debug, Default)]
pub struct Screen {
    mean_us: f64,
    seen: u32,
    /// What the sound waits, and the time that it had followed up to.
    sound: Option<(f64, i64)>,
}

impl Screen {
    /// A picture, or a newer one in its stead, was on screen for the first time, so much later than it was due. Until
    /// enough were, the delay is taken for `usual_us`.
    pub fn observe(&mut self, late_us: i64, usual_us: i64) {
        if late_us.abs() > SCREEN_LIMIT_US {
            return;
        }
        if self.seen == 0 {
            self.mean_us = usual_us as f64;
        }
        self.seen = (self.seen + 1).min(SCREEN_WINDOW);
        let share = 1.0 / f64::from(self.seen.max(SCREEN_MIN));
        self.mean_us += (late_us as f64 - self.mean_us) * share;
    }

    /// How long the sound due at `now_us` waits: comes closer to the pictures' delay each time, and never jumps, since
    /// a jump in a tone is a dip in it. Sound that begins before the first picture is on screen begins with what is
    /// usual.
    pub fn follow(&mut self, now_us: i64, usual_us: i64) -> i64 {
        let mean = match self.seen {
            0 => usual_us as f64,
            _ => self.mean_us,
        };
        let (held, at) = self.sound.unwrap_or((mean, now_us));
        let limit = (now_us - at).max(0) as f64 * SCREEN_SLEW;
        let held = held + (mean - held).clamp(-limit, limit);
        self.sound = Some((held, now_us));
        held as i64
    }

    /// As it was when it was last followed.
    pub fn sound_waits_us(&self) -> i64 {
        self.sound.map_or(0, |(held, _)| held as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift: a fixed seed is enough, the bounds below hold for every jitter in range.
    struct Noise(u64);
    impl Noise {
        fn up_to(&mut self, limit: i64) -> i64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit as u64) as i64
        }
    }

    const FRAME: i64 = 40_000;

    fn mapped(mapper: &Mapper, media: i64) -> i64 {
        mapper.map(media).expect("an arrival was observed")
    }

    #[test]
    fn sound_waits_as_long_as_pictures_do_in_the_mean_and_is_deaf_to_stalls() {
        let mut screen = Screen::default();
        // Before the first picture it is what is usual, from the first block on.
        assert_eq!(screen.follow(0, 20_000), 20_000);
        screen.observe(0, 20_000);
        for n in 0..200 {
            screen.observe(n % 2 * 100_000, 0);
        }
        screen.observe(900_000, 0);
        // One percent of the second that passed, then as far as there is to go.
        assert_eq!(screen.follow(1_000_000, 20_000), 30_000);
        let mean = screen.follow(60_000_000, 20_000);
        assert!((48_000..=52_000).contains(&mean), "{mean}");
        assert_eq!(screen.sound_waits_us(), mean);
    }

    #[test]
    fn sound_that_begins_after_its_pictures_waits_as_long_at_once() {
        let mut screen = Screen::default();
        for _ in 0..64 {
            screen.observe(50_000, 20_000);
        }
        let first = screen.follow(5_000_000, 20_000);
        assert!((45_000..=50_000).contains(&first), "{first}");
    }

    #[test]
    fn jitter_does_not_move_the_picture() {
        let seed = 0x9e37_79b9_7f4a_7c15;
        println!("seed {seed:#x}");
        let mut noise = Noise(seed);
        let mut mapper = Mapper::default();
        for n in 0..1_000 {
            let dts = 7_000_000 + n * FRAME;
            mapper.observe(n * FRAME + 1_000 + noise.up_to(40_000), dts);
            if n > 250 {
                // Due at the undelayed arrival, give or take what 5 s of luck left.
                let off = mapped(&mapper, dts) - (n * FRAME + 1_000);
                assert!((0..3_000).contains(&off), "frame {n}: {off} us");
            }
        }
        assert_eq!(mapper.resets, 0);
    }

    #[test]
    fn a_fast_publisher_is_followed_without_growing_error() {
        // 1 % fast: 100 s of media in 99 s of wall time.
        let mut mapper = Mapper::default();
        for n in 0..2_500 {
            let arrival = n * FRAME * 99 / 100;
            mapper.observe(arrival, n * FRAME);
            let error = mapped(&mapper, n * FRAME) - arrival;
            assert!(error.abs() < 1_000, "frame {n}: {error} us");
        }
    }

    #[test]
    fn a_slow_publisher_lags_by_no_more_than_the_window() {
        let mut mapper = Mapper::default();
        for n in 0..2_500 {
            let arrival = n * FRAME * 101 / 100;
            mapper.observe(arrival, n * FRAME);
            // The smallest offset is up to 5 s old, at 1 %: 50 ms.
            let error = mapped(&mapper, n * FRAME) - arrival;
            assert!((-55_000..=0).contains(&error), "frame {n}: {error} us");
        }
    }

    #[test]
    fn a_stall_and_its_burst_leave_the_offset_alone() {
        let mut mapper = Mapper::default();
        for n in 0..300 {
            let dts = n * FRAME;
            // Frames 150..187 all arrive when the network thaws, 1.5 s late at first.
            let arrival = if (150..187).contains(&n) {
                187 * FRAME
            } else {
                dts
            };
            mapper.observe(arrival, dts);
            assert_eq!(mapped(&mapper, dts), dts, "frame {n}");
        }
    }

    #[test]
    fn an_offset_learnt_from_delayed_arrivals_snaps_back() {
        let mut mapper = Mapper::default();
        for n in 0..100 {
            mapper.observe(600_000 + n * FRAME, n * FRAME);
        }
        // 300 ms earlier than thought: corrected at once, not at 1.5 % over 20 s.
        let dts = 100 * FRAME;
        mapper.observe(300_000 + dts, dts);
        assert_eq!(mapped(&mapper, dts), 300_000 + dts);
        // Another 100 ms: followed slowly.
        let dts = 101 * FRAME;
        mapper.observe(200_000 + dts, dts);
        assert!(mapped(&mapper, dts) > 290_000 + dts);
    }

    #[test]
    fn sound_that_comes_first_and_late_does_not_bend_the_start() {
        let mut mapper = Mapper::default();
        assert_eq!(mapper.observe(60_000, 0), None);
        assert_eq!(mapper.observe(65_000, 60_000), Some(-55_000));
        assert_eq!(mapped(&mapper, 60_000), 65_000);
    }

    #[test]
    fn jumps_of_the_publishers_clock_start_anew() {
        for jump in [-5_000_000, 5_000_000] {
            let mut mapper = Mapper::default();
            for n in 0..100 {
                mapper.observe(n * FRAME, 10_000_000 + n * FRAME);
            }
            let dts = 10_000_000 + 100 * FRAME + jump;
            mapper.observe(100 * FRAME, dts);
            assert_eq!(mapped(&mapper, dts), 100 * FRAME, "jump {jump}");
            assert_eq!(mapper.resets, 1);
        }
    }

    #[test]
    fn loose_interleaving_is_no_jump() {
        let mut mapper = Mapper::default();
        for n in 0..100 {
            mapper.observe(n * FRAME, n * FRAME);
            mapper.observe(n * FRAME, (n * FRAME - 250_000).max(0));
        }
        assert_eq!(mapper.resets, 0);
        assert_eq!(mapped(&mapper, 99 * FRAME), 99 * FRAME);
    }

    #[test]
    fn lateness_forgets_and_a_stall_is_none() {
        let mut lateness = Lateness::default();
        lateness.observe(2_000_000);
        assert_eq!(lateness.worst_us(), 0);
        lateness.observe(90_000);
        for _ in 0..LATENESS_WINDOW - 1 {
            lateness.observe(10_000);
        }
        assert_eq!(lateness.worst_us(), 90_000);
        lateness.observe(10_000);
        assert_eq!(lateness.worst_us(), 10_000);
    }
}
