//! The beat of sound: where each block of the output begins and how long it takes.
//!
//! Pure. The lead's sound gives the beat, as its pictures do: a block is 1,024 of its samples, and takes as long as those
//! do by its clock. Where blocks begin within its AAC frames decides two things. How long a block waits: its last
//! samples may be the first of a frame that comes 21 ms later. And what a splice sounds like: a decoder adds the end of
//! the main's last frame to the beginning of the mix's first, which gives a whole tone only if the mix's frames begin
//! where the main's do. So the beat keeps a place within the lead's frames. Where it has lost it, because a clock was
//! corrected or the lead began anew, it comes back by blocks of a sample more or less. Times are microseconds since the
//! mix's zero.

use super::audio::{BLOCK, Lead, Place, Span, off_place, whole_blocks};

/// A block is of so many samples of the lead more or less at most: 0.1 %, or 1.7 cents.
const STEP: f64 = 1.0;
/// So far from its place the beat goes back to it, samples: a quarter of a ms. Nearer nothing is touched.
const TOLERANCE: f64 = 12.0;

/// So much after the moment at which a block's sound is expected it is looked for: what decoding takes, and what sleeping
/// threads are late by.
const EARLY_MARGIN_US: i64 = 1_000;
/// The expectation moves forward by so much a block, and back at once.
const EARLY_RISE_US: i64 = 100;

/// The beat of one program pipeline.
#[derive(Debug, Clone)]
pub struct Beat {
    rate: f64,
    /// Where the next block begins.
    start_us: f64,
    /// Samples that should be left of the lead's newest frame when a block has been read.
    leaves: f64,
    /// Samples of the lead that the next block has more.
    extra: f64,
    /// How fast the lead's sound is.
    speed: f64,
    /// How long before its end a block's sound has lately been there.
    early_us: i64,
}

impl Beat {
    /// At `rate` samples a second, for an encoder whose frames are `delay` samples late; the first block begins no later
    /// than `at_us`. `newest`: where the lead's newest frame ends, and its length in samples.
    pub fn new(rate: u32, delay: u32, at_us: i64, newest: Option<(f64, usize)>) -> Self {
        let rate = f64::from(rate.max(1));
        // So that what the encoder gives begins where a frame of the lead does.
        let leaves = (-f64::from(delay)).rem_euclid(BLOCK as f64);
        let block_us = BLOCK as f64 * 1e6 / rate;
        let origin = match newest.filter(|(_, length)| whole_blocks(*length)) {
            Some((end_us, _)) => end_us - leaves * 1e6 / rate,
            None => 0.0,
        };
        let at = at_us as f64;
        let first = at - (at - origin).rem_euclid(block_us);
        Self {
            rate,
            // Nothing is before the mix's zero.
            start_us: if first < 0.0 { first + block_us } else { first },
            leaves,
            extra: 0.0,
            speed: 1.0,
            early_us: 0,
        }
    }

    /// From when on the next block's sound can be expected to be there. A frame of sound comes at once and is then heard for
    /// 21 ms, so what a block needs is there before it ends: not a live sender's, which needs as long to be spoken, but what
    /// was queued on the way or comes out of a file.
    pub fn expected_us(&self) -> i64 {
        let early = (self.early_us - EARLY_MARGIN_US).clamp(0, self.length_us() as i64);
        self.end_us() - early
    }

    /// The frame of the lead's sound that came at `at_us` was the latest when the next block could be made, and
    /// `beyond_us` of it are left for the blocks after it.
    pub fn arrived(&mut self, at_us: i64, beyond_us: i64) {
        let early = self.end_us() - at_us;
        // What came with earlier frames was there that much sooner.
        let block_us = self.length_us() as i64;
        let earlier = beyond_us.max(0) / block_us.max(1) * block_us;
        let early = (early + earlier).clamp(0, block_us);
        self.early_us = early.min(self.early_us + EARLY_RISE_US);
    }

    /// The next block, as the lead's sound is read for it.
    pub fn span(&self) -> Span {
        Span {
            start_us: self.start_us as i64,
            stretch: self.reads() / self.speed,
            lead: Some(Lead {
                speed: self.reads(),
                leaves: self.leaves as usize,
            }),
        }
    }

    /// Samples of the lead for each of the next block's.
    fn reads(&self) -> f64 {
        (BLOCK as f64 + self.extra) / BLOCK as f64
    }

    /// Where it begins, in nanoseconds.
    pub fn start_ns(&self) -> u64 {
        (self.start_us * 1e3) as u64
    }

    /// Where it ends.
    pub fn end_us(&self) -> i64 {
        (self.start_us + self.length_us()) as i64
    }

    fn length_us(&self) -> f64 {
        BLOCK as f64 * self.reads() / self.speed * 1e6 / self.rate
    }

    /// The block was made. `place`: where it left the lead's sound; `None` while there is none. Answers by how much the
    /// output's time of that place is later than the lead's own, in us.
    pub fn made(&mut self, place: Option<Place>) -> Option<i64> {
        self.start_us += self.length_us();
        let was_moving = self.extra != 0.0;
        let in_blocks = place.filter(|place| whole_blocks(place.length));
        let off = in_blocks.map_or(0.0, |place| off_place(place.unread, self.leaves));
        self.extra = if was_moving || off.abs() > TOLERANCE {
            off.clamp(-STEP, STEP)
        } else {
            0.0
        };
        self.speed = place.map_or(1.0, |place| place.speed);
        let Place {
            unread,
            length,
            media_us,
            ..
        } = place?;
        let read_us = (length as f64 - unread) * 1e6 / self.rate;
        Some((self.start_us - media_us as f64 - read_us).round() as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 48_000;
    const BLOCK_US: f64 = 1024e6 / 48_000.0;

    fn place(unread: f64, length: usize) -> Option<Place> {
        Some(Place {
            unread,
            length,
            media_us: 0,
            speed: 1.0,
        })
    }

    #[test]
    fn a_block_is_expected_as_early_as_its_sound_has_come_lately() {
        let mut beat = Beat::new(RATE, 1600, 990_000, None);
        assert_eq!(beat.expected_us(), beat.end_us());
        // Each block's sound comes 12 ms before its end, and 9 ms of the frame are left.
        for _ in 0..200 {
            beat.arrived(beat.end_us() - 12_000, 9_333);
            beat.made(None);
        }
        assert_eq!(beat.end_us() - beat.expected_us(), 11_000);
        // A frame that came late takes all of it back at once, and it is trusted again by and by.
        beat.arrived(beat.end_us() + 5_000, 9_333);
        assert_eq!(beat.expected_us(), beat.end_us());
        beat.arrived(beat.end_us() - 12_000, 9_333);
        assert!(beat.end_us() - beat.expected_us() <= 100);
        // What came in a burst was there with the frames before it, but never before its block began.
        for _ in 0..400 {
            beat.arrived(beat.end_us() - 1_000, 400_000);
            beat.made(None);
        }
        let early = beat.end_us() - beat.expected_us();
        assert!((19_000..=21_333).contains(&early), "{early}");
    }

    #[test]
    fn blocks_begin_where_their_frames_begin_with_a_frame_of_the_lead() {
        for (delay, leaves) in [(1024, 0.0), (1600, 448.0)] {
            let end = 1_000_000.0 + 7_777.0;
            let beat = Beat::new(RATE, delay, 990_000, Some((end, 1024)));
            let to_end = (end - leaves * 1e6 / 48_000.0 - beat.start_us) / BLOCK_US;
            assert!((to_end - to_end.round()).abs() < 1e-6, "{to_end}");
            assert!((0.0..BLOCK_US).contains(&(990_000.0 - beat.start_us)));
            assert_eq!(beat.span().stretch, 1.0);
        }
        // Nothing to follow: from the mix's zero on.
        for newest in [None, Some((7_777.0, 1115))] {
            let beat = Beat::new(RATE, 1024, 30_000, newest);
            assert_eq!(beat.span().start_us, 21_333);
        }
        assert_eq!(
            Beat::new(RATE, 1024, 5, Some((7_777.0, 1024)))
                .span()
                .start_us,
            7_777
        );
    }

    #[test]
    fn blocks_follow_one_another_and_pass_untouched_in_their_place() {
        let mut beat = Beat::new(RATE, 1600, 0, Some((0.0, 1024)));
        for _ in 0..1_000 {
            let end = beat.end_us();
            beat.made(place(448.0 + 10.0, 1024));
            assert!((beat.span().start_us - end).abs() <= 1);
            assert_eq!(beat.span().stretch, 1.0);
        }
    }

    #[test]
    fn a_place_that_was_lost_is_found_again_by_a_sample_a_block() {
        for begins in [448.0 - 500.0, 448.0 - 13.0, 448.0 + 300.0, 448.0 + 511.4] {
            let mut beat = Beat::new(RATE, 1600, 0, Some((0.0, 1024)));
            // The reader's own.
            let mut left: f64 = begins;
            let mut moved = 0.0;
            for _ in 0..600 {
                let extra = 1024.0 * beat.span().stretch - 1024.0;
                assert!(extra.abs() <= 1.0 + 1e-9);
                left -= extra;
                moved += extra;
                beat.made(place(left, 1024));
            }
            assert!((left - 448.0).abs() < 1e-6, "{begins}: {left}");
            assert!((moved - (begins - 448.0)).abs() < 1e-6);
            assert_eq!(beat.span().stretch, 1.0, "{begins}");
        }
    }

    #[test]
    fn frames_that_have_no_place_in_blocks_are_followed_in_time_only() {
        let mut beat = Beat::new(RATE, 1024, 0, None);
        for place in [None, place(300.0, 1115), place(300.0, 0)] {
            beat.made(place);
            assert_eq!(beat.span().stretch, 1.0);
        }
        // A move ends with the sound.
        beat.made(place(300.0, 2048));
        assert!(beat.span().stretch > 1.0);
        beat.made(None);
        assert_eq!(beat.span().stretch, 1.0);
    }

    #[test]
    fn how_much_later_the_output_is_than_the_lead_is_told_to_the_sample() {
        let mut beat = Beat::new(RATE, 1024, 0, None);
        let read_to_the_end = Place {
            unread: 0.0,
            length: 1024,
            media_us: 500_000,
            speed: 1.0,
        };
        // Block 0 ends at 21,333; the lead's frame at 521,333.
        assert_eq!(beat.made(Some(read_to_the_end)), Some(-500_000));
        let half_read = Place {
            unread: 480.0,
            ..read_to_the_end
        };
        // 10 ms less of the lead by a block more of the output.
        assert_eq!(beat.made(Some(half_read)), Some(-500_000 + 21_333 + 10_000));
    }

    #[test]
    fn blocks_take_as_long_as_the_leads_samples_do_by_its_clock() {
        let mut beat = Beat::new(RATE, 1600, 0, Some((0.0, 1024)));
        for _ in 0..1_000 {
            let fast = Place {
                speed: 1.01,
                ..place(448.0, 1024).expect("a place")
            };
            beat.made(Some(fast));
        }
        assert_eq!(beat.span().lead.expect("a lead").speed, 1.0);
        assert!((beat.span().stretch - 1.0 / 1.01).abs() < 1e-9);
        let took = 1_000.0 * BLOCK_US / 1.01;
        // The first one did not know.
        assert!((beat.start_us - took).abs() < BLOCK_US, "{}", beat.start_us);
    }
}
