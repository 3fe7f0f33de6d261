//! Repair of a publisher's timestamps, per track: unwraps the wire's 32 bits and absorbs jumps.
//!
//! A timestamp anomaly never ends a session (lessons, row 5); it is mended here and counted by the caller.

use super::message::{Kind, MediaTime};

/// A step ahead of more than this is a jump of the clock, not a pause in the media.
/// A pause of the encoder longer than this does look like a jump; the mended stream then merely
/// skips the silence, which a live viewer would want anyway.
pub const MAX_STEP_MS: i64 = 10_000;
/// A step back of more than this is a reset of the clock, not reordering.
pub const MAX_BACK_MS: i64 = 500;
/// What a mended jump advances by: about one frame.
const MENDED_STEP_MS: i64 = 20;

/// What was mended, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anomaly {
    /// The clock jumped ahead by that many ms.
    Ahead(i64),
    /// The clock jumped back by that many ms.
    Back(i64),
}

/// Unwraps and mends the timestamps of one publish epoch. All tracks share one correction, because
/// an encoder has one clock; each track is judged against its own last time, because tracks are
/// interleaved loosely.
#[derive(Debug, Default)]
pub struct Repair {
    /// Last raw time per kind, unwrapped, before correction.
    last: [Option<i64>; 3],
    /// Latest raw time over all kinds; where a track appears late, it is judged against this.
    newest: Option<i64>,
    /// Added to every raw time, in ms.
    correction: i64,
}

impl Repair {
    pub fn new() -> Self {
        Self::default()
    }

    /// The repaired time of a message with the wire timestamp `wire`, and what was mended, if anything.
    /// Zero is wire timestamp 0 of the epoch's first clock.
    ///
    /// `is_clock` is false for headers and script data: encoders send them with time 0 whatever their clock
    /// says, so they follow the media and never set or move anything.
    pub fn map(&mut self, kind: Kind, wire: u32, is_clock: bool) -> (MediaTime, Option<Anomaly>) {
        if !is_clock {
            let near = self.last[kind.index()].or(self.newest);
            let raw = near.map_or(0, |near| {
                let raw = near + i64::from(wire.wrapping_sub(near as u32) as i32);
                if (raw - near).abs() > MAX_BACK_MS {
                    near
                } else {
                    raw
                }
            });
            return (MediaTime(raw + self.correction), None);
        }
        let reference = self.last[kind.index()].or(self.newest);
        let raw = match reference {
            // The nearest 64-bit time with those low 32 bits: crosses 2^32 in both directions.
            Some(near) => near + i64::from(wire.wrapping_sub(near as u32) as i32),
            None => i64::from(wire),
        };
        let mut anomaly = None;
        if let Some(near) = reference {
            let step = raw - near;
            if !(-MAX_BACK_MS..=MAX_STEP_MS).contains(&step) {
                // Another track may already have taken the jump into the correction; then this
                // track's own step is explained by it, and only its reference is stale.
                let newest = self.newest.unwrap_or(near);
                if !(-MAX_BACK_MS..=MAX_STEP_MS).contains(&(raw - newest)) {
                    self.correction += newest + MENDED_STEP_MS - raw;
                    self.newest = Some(raw);
                    anomaly = Some(if step > 0 {
                        Anomaly::Ahead(step)
                    } else {
                        Anomaly::Back(-step)
                    });
                }
            }
        }
        self.last[kind.index()] = Some(raw);
        if self.newest.is_none_or(|n| raw > n) {
            self.newest = Some(raw);
        }
        (MediaTime(raw + self.correction), anomaly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(steps: &[(Kind, u32)]) -> Vec<i64> {
        let mut repair = Repair::new();
        steps
            .iter()
            .map(|&(k, t)| repair.map(k, t, true).0.0)
            .collect()
    }

    #[test]
    fn time_runs_on_across_24_and_32_bits() {
        assert_eq!(
            run(&[(Kind::Video, 0xFF_FFFE), (Kind::Video, 0x100_0001),]),
            [0xFF_FFFE, 0x100_0001]
        );
        assert_eq!(
            run(&[
                (Kind::Video, u32::MAX - 19),
                (Kind::Audio, u32::MAX),
                (Kind::Video, 20),
                (Kind::Audio, 3),
            ]),
            [
                i64::from(u32::MAX) - 19,
                i64::from(u32::MAX),
                (1 << 32) + 20,
                (1 << 32) + 3
            ]
        );
    }

    #[test]
    fn a_jump_is_mended_once_for_both_tracks() {
        let mut repair = Repair::new();
        repair.map(Kind::Video, 1_000, true);
        repair.map(Kind::Audio, 1_010, true);
        let (video, what) = repair.map(Kind::Video, 500_000, true);
        assert_eq!(
            (video, what),
            (MediaTime(1_030), Some(Anomaly::Ahead(499_000)))
        );
        let (audio, what) = repair.map(Kind::Audio, 500_010, true);
        assert_eq!((audio, what), (MediaTime(1_040), None));
    }

    #[test]
    fn a_reset_to_zero_is_mended() {
        let mut repair = Repair::new();
        repair.map(Kind::Video, 60_000, true);
        repair.map(Kind::Audio, 60_010, true);
        assert_eq!(repair.map(Kind::Audio, 0, true).0, MediaTime(60_030));
        assert_eq!(repair.map(Kind::Video, 5, true).0, MediaTime(60_035));
    }

    #[test]
    fn script_data_with_time_zero_moves_no_clock() {
        let mut repair = Repair::new();
        repair.map(Kind::Video, 60_000, true);
        assert_eq!(repair.map(Kind::Data, 0, false), (MediaTime(60_000), None));
        assert_eq!(
            repair.map(Kind::Video, 60_040, true),
            (MediaTime(60_040), None)
        );
    }

    #[test]
    fn a_header_with_time_zero_moves_no_clock() {
        let mut repair = Repair::new();
        assert_eq!(repair.map(Kind::Video, 0, false), (MediaTime(0), None));
        let first = repair.map(Kind::Video, 3_600_000, true);
        assert_eq!(first, (MediaTime(3_600_000), None));
        let again = repair.map(Kind::Video, 0, false);
        assert_eq!(again, (MediaTime(3_600_000), None));
        let next = repair.map(Kind::Video, 3_600_040, true);
        assert_eq!(next, (MediaTime(3_600_040), None));
    }

    #[test]
    fn small_steps_back_are_reordering_and_stay() {
        assert_eq!(
            run(&[
                (Kind::Video, 1_000),
                (Kind::Audio, 1_020),
                (Kind::Audio, 990)
            ]),
            [1_000, 1_020, 990]
        );
    }
}
