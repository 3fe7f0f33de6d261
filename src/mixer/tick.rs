//! The output's beat: when the next frame leaves, on a grid that never changes its step.
//!
//! Pure. The grid's times are the frames' presentation times and are exact; *when* a frame is put together
//! follows the lead input within half a frame, so that its pictures wait for nothing. No input paces the
//! output: the lead being late or away only costs the deadline. Times are microseconds since the mix's zero
//! unless they are called nanoseconds.

/// Share of the phase error taken per frame: some seconds to settle, deaf to jitter.
const PULL: f64 = 0.02;
/// The lead's interval may differ by this share from ours before following its phase makes no sense.
const SAME_RATE: f64 = 0.05;
/// Behind by more than this, frames are left out (the last picture is repeated for them).
pub const BEHIND_US: i64 = 500_000;

/// What is known about the lead input's pictures.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lead {
    /// Due time of its newest decoded picture.
    pub newest_us: Option<i64>,
    /// Its usual frame interval.
    pub interval_us: Option<i64>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Put the next frame together now.
    Emit,
    /// Nothing before that time, unless the lead gets a new picture.
    Wait(i64),
}

/// The grid of output frames and its phase.
#[derive(Debug)]
pub struct Grid {
    origin_us: i64,
    fps: u32,
    next: u64,
    /// Added to the grid's times for gathering, never for presenting; within half a frame.
    phase_us: f64,
}

impl Grid {
    /// Frame 0 is presented at `origin_us`.
    pub fn new(origin_us: i64, fps: u32) -> Self {
        Self {
            origin_us,
            fps: fps.max(1),
            next: 0,
            phase_us: 0.0,
        }
    }

    fn frame_us(&self) -> i64 {
        1_000_000 / i64::from(self.fps)
    }

    /// Presentation time of frame `n` in nanoseconds: rounded down once from the exact time.
    pub fn pts_ns(&self, n: u64) -> u64 {
        let since = u128::from(n) * 1_000_000_000 / u128::from(self.fps);
        self.origin_us.max(0) as u64 * 1_000 + since as u64
    }

    /// Number of the frame presented at that time; `None` before frame 0.
    pub fn number_at(&self, pts_ns: u64) -> Option<u64> {
        let half = 500_000_000 / u64::from(self.fps);
        let since = (pts_ns + half).checked_sub(self.pts_ns(0))?;
        Some((u128::from(since) * u128::from(self.fps) / 1_000_000_000) as u64)
    }

    /// Number of the next frame.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The time for which the next frame's pictures are gathered.
    fn gather_us(&self) -> i64 {
        (self.pts_ns(self.next) / 1_000) as i64 + self.phase_us as i64
    }

    /// Pictures due up to here belong into the next frame.
    pub fn until_us(&self) -> i64 {
        self.gather_us() + self.frame_us() / 2
    }

    /// Emit now, or when at the latest? `patience_us` is how long after its time a frame waits for the lead.
    pub fn step(&self, now_us: i64, lead: Lead, patience_us: i64) -> Step {
        let gather = self.gather_us();
        let half = self.frame_us() / 2;
        let from = gather - half;
        if now_us < from {
            return Step::Wait(from);
        }
        let due = match (lead.newest_us, lead.interval_us) {
            (Some(newest), _) if newest >= from => now_us,
            // Its next picture should come into this frame: worth waiting for, unless it has stopped coming.
            (Some(newest), Some(interval))
                if newest + interval <= gather + half && gather - newest < 4 * interval + half =>
            {
                gather + patience_us
            }
            _ => gather,
        };
        if now_us >= due {
            Step::Emit
        } else {
            Step::Wait(due)
        }
    }

    /// The next frame was put together. `fresh_us` is the due time of the lead's picture in it when that picture is
    /// new and came in time.
    pub fn emitted(&mut self, fresh_us: Option<i64>, interval_us: Option<i64>) {
        let frame = self.frame_us() as f64;
        if let (Some(due), Some(interval)) = (fresh_us, interval_us)
            && (interval as f64 / frame - 1.0).abs() < SAME_RATE
        {
            let error = (due - self.gather_us()) as f64;
            if error.abs() <= frame {
                self.phase_us += PULL * error;
                // Half a frame off is the neighbouring frame: one picture is repeated or left out there.
                if self.phase_us.abs() > frame / 2.0 {
                    self.phase_us -= frame.copysign(self.phase_us);
                }
            }
        }
        self.next += 1;
    }

    /// Leaves frames out when the next one is far behind `now_us`; how many.
    pub fn skip(&mut self, now_us: i64) -> u64 {
        let behind = now_us - self.gather_us();
        if behind <= BEHIND_US {
            return 0;
        }
        let frames = (behind / self.frame_us()) as u64;
        self.next += frames;
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: i64 = 40_000;

    fn lead(newest: i64, interval: i64) -> Lead {
        Lead {
            newest_us: Some(newest),
            interval_us: Some(interval),
        }
    }

    #[test]
    fn presentation_times_are_exact_and_evenly_spaced() {
        let grid = Grid::new(5, 30);
        assert_eq!(grid.pts_ns(0), 5_000);
        assert_eq!(grid.pts_ns(1), 33_338_333);
        assert_eq!(grid.pts_ns(3_000_000), 100_000 * 1_000_000_000 + 5_000);
        for n in [0, 1, 2, 29, 30, 3_000_000] {
            for off in [0, 1, -1] {
                let pts = grid.pts_ns(n).saturating_add_signed(off);
                assert_eq!(grid.number_at(pts), Some(n));
            }
        }
        assert_eq!(Grid::new(1_000_000, 30).number_at(5), None);
    }

    #[test]
    fn a_frame_leaves_when_the_lead_is_there_or_at_the_deadline() {
        let grid = Grid::new(1_000_000, 25);
        // Its time is 1 s; before half a frame earlier nothing happens.
        assert_eq!(
            grid.step(970_000, Lead::default(), PATIENCE),
            Step::Wait(980_000)
        );
        assert_eq!(
            grid.step(981_000, lead(980_000, 40_000), PATIENCE),
            Step::Emit
        );
        assert_eq!(
            grid.step(990_000, lead(960_000, 40_000), PATIENCE),
            Step::Wait(1_040_000)
        );
        assert_eq!(
            grid.step(1_040_000, lead(960_000, 40_000), PATIENCE),
            Step::Emit
        );
    }

    #[test]
    fn a_lead_that_has_nothing_for_this_frame_is_not_waited_for() {
        let grid = Grid::new(1_000_000, 25);
        // 15 frames a second: after 979 ms the next comes at 1046, past this frame.
        assert_eq!(
            grid.step(1_000_000, lead(979_000, 66_667), PATIENCE),
            Step::Emit
        );
        // Gone for more than four intervals.
        assert_eq!(
            grid.step(1_000_000, lead(800_000, 40_000), PATIENCE),
            Step::Emit
        );
        assert_eq!(
            grid.step(999_999, Lead::default(), PATIENCE),
            Step::Wait(1_000_000)
        );
        assert_eq!(grid.step(1_000_000, Lead::default(), PATIENCE), Step::Emit);
    }

    #[test]
    fn the_phase_follows_the_lead_and_wraps_when_it_drifts_past_half_a_frame() {
        let mut grid = Grid::new(0, 25);
        // The lead is 0.5 % slow: over 100 s it loses 12.5 frames, each time it repeats one picture.
        let mut repeated = 0;
        let mut shown = -1;
        for _ in 0..2_500 {
            let until = grid.until_us();
            let nth = until.div_euclid(40_200);
            assert!((0..=2).contains(&(nth - shown)), "frame {}", grid.next());
            repeated += i64::from(nth == shown);
            let fresh = (nth != shown).then_some(nth * 40_200);
            shown = nth;
            grid.emitted(fresh, Some(40_200));
            assert!(grid.phase_us.abs() <= 20_000.0);
        }
        assert!((11..=14).contains(&repeated), "{repeated}");
    }

    #[test]
    fn far_behind_frames_are_left_out_and_the_grid_stays() {
        let mut grid = Grid::new(0, 20);
        assert_eq!(grid.skip(500_000), 0);
        assert_eq!(grid.skip(2_020_000), 40);
        assert_eq!(grid.pts_ns(grid.next()), 2_000_000_000);
    }
}
