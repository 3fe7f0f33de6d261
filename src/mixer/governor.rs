//! How far a mix steps back when its machine cannot carry it: a cheaper preset first, then half of the pictures.
//!
//! Pure. [`ladder`] says what the steps are, [`Governor`] when to take them. The output's frame rate is no step: viewers get
//! the same number of frames at the same times, and on the last step every second of them repeats the one before it, which
//! costs an encoder next to nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::encoder::Kind;
use super::scene::PRESETS;

/// What is asked of the encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// x264's word.
    pub preset: String,
    /// Every second frame is a new picture.
    pub half: bool,
}

/// Presets that are stepped down to. Those between are so near to each other that a step would be taken in vain.
const CHEAP: [&str; 2] = ["superfast", "ultrafast"];

/// All steps of an encoder that is asked for `preset`, the dearest first.
pub fn ladder(kind: Kind, preset: &str) -> Vec<Rung> {
    let dearness = |preset: &str| PRESETS.iter().position(|known| *known == preset);
    let cheaper: &[&str] = match kind {
        Kind::X264 => &CHEAP,
        // It has three speeds, and the first three presets are the fastest.
        Kind::OpenH264 if dearness(preset) > dearness("veryfast") => &CHEAP[..1],
        // Presets cost an encoder in hardware nothing that the machine lacks.
        _ => &[],
    };
    let full = |preset: &str| Rung {
        preset: preset.to_owned(),
        half: false,
    };
    let mut rungs = vec![full(preset)];
    let cheaper = cheaper
        .iter()
        .filter(|cheap| dearness(cheap) < dearness(preset));
    rungs.extend(cheaper.map(|cheap| full(cheap)));
    let last = Rung {
        half: true,
        ..rungs[rungs.len() - 1].clone()
    };
    rungs.push(last);
    rungs
}

/// Frames are counted over this time.
const WINDOW: Duration = Duration::from_secs(2);
/// In pieces of this length.
const PIECE: Duration = Duration::from_millis(250);
/// Fewer pieces tell of a hiccup, not of an overload.
const LEAST_PIECES: usize = 4;
/// A share of frames left out that is too much, and how many they must be.
const TOO_MANY: f64 = 0.2;
const LEAST_LEFT_OUT: u32 = 3;
/// So long after a step (and the start) nothing is counted: the new encoder makes up for what the old one owed.
const SETTLE: Duration = Duration::from_secs(1);
/// Without a frame left out for this long, a step back up is tried.
const CALM: Duration = Duration::from_secs(20);
/// A step up that did not last is tried again after twice the time, and after this at the latest.
const MAX_CALM: Duration = Duration::from_secs(600);
/// A step up has lasted after this.
const LASTED: Duration = Duration::from_secs(60);
/// The encoder must need less than this share of the time: the next dearer step takes about twice as long.
const ROOM: f64 = 0.4;

/// Decides when a mix steps down and up.
#[derive(Debug)]
pub struct Governor {
    level: usize,
    last: usize,
    /// (begin, frames, frames left out)
    pieces: VecDeque<(Instant, u32, u32)>,
    stepped: Instant,
    /// Since when no frame was left out.
    calm_since: Instant,
    calm: Duration,
    went_up: Option<Instant>,
    /// Level, `calm` and `went_up` as they were before the latest step.
    before: (usize, Duration, Option<Instant>),
}

/// Frames that were due, and those of them that the encoder had no time for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    pub due: u32,
    pub left_out: u32,
}

impl Governor {
    /// At the top of a ladder of `rungs` steps.
    pub fn new(rungs: usize, now: Instant) -> Self {
        Self {
            level: 0,
            last: rungs.saturating_sub(1),
            pieces: VecDeque::new(),
            stepped: now,
            calm_since: now,
            calm: CALM,
            went_up: None,
            before: (0, CALM, None),
        }
    }

    /// On which step of the ladder, 0 at its top.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Tells of frames; `busy` is the share of a frame's time that the encoder lately needed. `true`: the level has
    /// changed.
    pub fn observe(&mut self, load: Load, busy: Option<f64>, now: Instant) -> bool {
        if load.left_out > 0 {
            self.calm_since = now;
        }
        if now.saturating_duration_since(self.stepped) < SETTLE {
            return false;
        }
        self.count(load, now);
        if self.is_overloaded() {
            return self.down(now);
        }
        let calm = now.saturating_duration_since(self.calm_since.max(self.stepped)) > self.calm;
        let room = busy.is_some_and(|busy| busy < ROOM);
        if self.level > 0 && calm && room {
            self.before = (self.level, self.calm, self.went_up);
            self.level -= 1;
            self.went_up = Some(now);
            self.settle(now);
            return true;
        }
        false
    }

    /// An encoder took frames and gave none: the next one gets less to do.
    pub fn choked(&mut self, now: Instant) -> bool {
        self.down(now)
    }

    /// The latest step could not be made: all is as before it, but that it is not tried again before the time to settle.
    pub fn take_back(&mut self) {
        (self.level, self.calm, self.went_up) = self.before;
    }

    /// Another pipeline begins, on the same step.
    pub fn restart(&mut self, now: Instant) {
        self.settle(now);
    }

    fn count(&mut self, load: Load, now: Instant) {
        let begun = self.pieces.back().map(|piece| piece.0);
        if begun.is_none_or(|begun| now.saturating_duration_since(begun) >= PIECE) {
            self.pieces.push_back((now, 0, 0));
        }
        if let Some(piece) = self.pieces.back_mut() {
            piece.1 += load.due;
            piece.2 += load.left_out;
        }
        let old = |piece: &(Instant, u32, u32)| now.saturating_duration_since(piece.0) > WINDOW;
        while self.pieces.front().is_some_and(old) {
            self.pieces.pop_front();
        }
    }

    fn is_overloaded(&self) -> bool {
        let due: u32 = self.pieces.iter().map(|piece| piece.1).sum();
        let left_out: u32 = self.pieces.iter().map(|piece| piece.2).sum();
        self.pieces.len() >= LEAST_PIECES
            && left_out >= LEAST_LEFT_OUT
            && f64::from(left_out) >= TOO_MANY * f64::from(due)
    }

    fn down(&mut self, now: Instant) -> bool {
        if self.level == self.last {
            return false;
        }
        self.before = (self.level, self.calm, self.went_up);
        self.level += 1;
        let lasted = |up: Instant| now.saturating_duration_since(up) > LASTED;
        self.calm = match self.went_up.take() {
            Some(up) if !lasted(up) => (self.calm * 2).min(MAX_CALM),
            _ => CALM,
        };
        self.settle(now);
        true
    }

    fn settle(&mut self, now: Instant) {
        self.pieces.clear();
        self.stepped = now;
        self.calm_since = now;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME: Duration = Duration::from_millis(40);

    /// Beats for that long, `out_of_ten` of ten frames left out; after which times the level changed, and to what.
    fn beats(
        governor: &mut Governor,
        from: Instant,
        seconds: u32,
        out_of_ten: u32,
        busy: f64,
    ) -> Vec<(f64, usize)> {
        let mut steps = Vec::new();
        for n in 1..=seconds * 25 {
            let now = from + n * FRAME;
            let left_out = u32::from(n % 10 < out_of_ten);
            if governor.observe(Load { due: 1, left_out }, Some(busy), now) {
                steps.push((f64::from(n) * FRAME.as_secs_f64(), governor.level()));
            }
        }
        steps
    }

    #[test]
    fn ladders_go_down_by_presets_and_end_with_half_of_the_pictures() {
        let words = |kind, preset| {
            let rungs = ladder(kind, preset);
            let words: Vec<_> = rungs
                .iter()
                .map(|r| format!("{}{}", r.preset, if r.half { "/2" } else { "" }))
                .collect();
            words.join(" ")
        };
        for (kind, preset, wanted) in [
            (
                Kind::X264,
                "veryslow",
                "veryslow superfast ultrafast ultrafast/2",
            ),
            (Kind::X264, "superfast", "superfast ultrafast ultrafast/2"),
            (Kind::X264, "ultrafast", "ultrafast ultrafast/2"),
            (Kind::OpenH264, "medium", "medium superfast superfast/2"),
            (Kind::OpenH264, "veryfast", "veryfast veryfast/2"),
            (Kind::Nvenc, "slow", "slow slow/2"),
        ] {
            assert_eq!(words(kind, preset), wanted);
        }
    }

    #[test]
    fn an_overload_is_stepped_down_from_within_two_seconds_each_and_no_further_than_the_end() {
        let t0 = Instant::now();
        let mut governor = Governor::new(3, t0);
        let steps = beats(&mut governor, t0, 20, 5, 1.0);
        assert_eq!(steps.iter().map(|s| s.1).collect::<Vec<_>>(), [1, 2]);
        assert!(steps[0].0 <= 2.0 && steps[1].0 <= 4.0, "{steps:?}");
    }

    #[test]
    fn a_hiccup_is_no_overload() {
        let t0 = Instant::now();
        let mut governor = Governor::new(3, t0);
        assert!(beats(&mut governor, t0, 60, 0, 0.9).is_empty());
        // 300 ms without a frame, once.
        let t1 = t0 + Duration::from_secs(60);
        let load = Load {
            due: 7,
            left_out: 7,
        };
        assert!(!governor.observe(load, Some(0.9), t1 + FRAME));
        assert!(beats(&mut governor, t1 + FRAME, 3, 0, 0.9).is_empty());
        // One in ten, for ever.
        let t2 = t1 + Duration::from_secs(4);
        assert!(beats(&mut governor, t2, 60, 1, 0.9).is_empty());
    }

    #[test]
    fn after_calm_it_goes_up_again_if_there_is_room_and_more_slowly_each_time_that_it_fails() {
        let t0 = Instant::now();
        let mut governor = Governor::new(2, t0);
        assert_eq!(beats(&mut governor, t0, 4, 5, 1.0).len(), 1);
        let mut from = t0 + Duration::from_secs(4);
        assert!(beats(&mut governor, from, 60, 0, 0.5).is_empty(), "no room");
        from += Duration::from_secs(60);
        let up = beats(&mut governor, from, 1, 0, 0.3);
        assert_eq!(up.iter().map(|s| s.1).collect::<Vec<_>>(), [0]);
        from += Duration::from_secs(1);
        for calm in [40.0, 80.0, 160.0, 320.0, 600.0, 600.0] {
            let down = beats(&mut governor, from, 4, 5, 1.0);
            assert_eq!(down.iter().map(|s| s.1).collect::<Vec<_>>(), [1]);
            from += Duration::from_secs(4);
            let up = beats(&mut governor, from, calm as u32 + 5, 0, 0.1);
            assert!(
                up.len() == 1 && (up[0].0 - calm).abs() < 3.0,
                "{calm}: {up:?}"
            );
            from += Duration::from_secs(calm as u64 + 5);
        }
        // It lasts, and the next time counts anew.
        assert!(beats(&mut governor, from, 61, 0, 0.5).is_empty());
        from += Duration::from_secs(61);
        assert_eq!(beats(&mut governor, from, 4, 5, 1.0).len(), 1);
        from += Duration::from_secs(4);
        let up = beats(&mut governor, from, 25, 0, 0.1);
        assert!(up.len() == 1 && (up[0].0 - 20.0).abs() < 3.0, "{up:?}");
    }

    #[test]
    fn a_choked_encoder_is_a_step_at_once() {
        let t0 = Instant::now();
        let mut governor = Governor::new(2, t0);
        assert!(governor.choked(t0));
        assert_eq!(governor.level(), 1);
        assert!(!governor.choked(t0));
    }

    #[test]
    fn a_step_that_could_not_be_made_is_tried_again_and_counts_for_nothing() {
        let t0 = Instant::now();
        let mut governor = Governor::new(3, t0);
        let mut from = t0;
        for _ in 0..3 {
            let down = beats(&mut governor, from, 2, 5, 1.0);
            assert_eq!(down.iter().map(|s| s.1).collect::<Vec<_>>(), [1]);
            governor.take_back();
            assert_eq!(governor.level(), 0);
            from += Duration::from_secs(2);
        }
        assert_eq!(beats(&mut governor, from, 2, 5, 1.0).len(), 1);
        from += Duration::from_secs(2);
        // Up in vain, twice: the wait for the next time does not grow.
        for _ in 0..2 {
            let up = beats(&mut governor, from, 21, 0, 0.1);
            assert_eq!(up.iter().map(|s| s.1).collect::<Vec<_>>(), [0]);
            governor.take_back();
            assert_eq!(governor.level(), 1);
            from += Duration::from_secs(21);
        }
    }

    proptest! {
        /// Whatever comes: the level stays on the ladder and moves by one, never twice within the settling time.
        #[test]
        fn it_never_leaves_the_ladder_or_hurries(
            rungs in 1usize..5,
            beats in prop::collection::vec((1u64..2_000, 0u32..5, 0u32..5, prop::option::of(0.0..2.0)), 0..400),
        ) {
            let t0 = Instant::now();
            let mut governor = Governor::new(rungs, t0);
            let (mut now, mut stepped) = (t0, t0);
            for (ms, made, left_out, busy) in beats {
                now += Duration::from_millis(ms);
                let before = governor.level();
                let load = Load { due: made + left_out, left_out };
                let changed = governor.observe(load, busy, now);
                let level = governor.level();
                prop_assert!(level < rungs);
                prop_assert_eq!(changed, level != before);
                prop_assert!(level.abs_diff(before) <= 1);
                if changed {
                    prop_assert!(now - stepped >= SETTLE);
                    stepped = now;
                }
            }
        }
    }
}
