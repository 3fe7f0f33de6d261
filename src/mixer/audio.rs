//! Sound: each input's samples in a ring, read at our pace through a resampler that follows its clock, and summed.
//!
//! Pure. A [`Track`] is written by a decoder's callback and read once per block; it stays in tune with the wall by
//! stretching a little, resynchronises hard when far off, and goes silent without a click when it runs dry.
//! Samples are stereo pairs of 32-bit floats; times are microseconds since the mix's zero.

use std::collections::VecDeque;

/// One sample of left and right.
pub type Frame = [f32; 2];

/// Samples per block: one AAC frame.
pub const BLOCK: usize = 1_024;

/// Speed correction per millisecond off: a second to settle.
const PULL_PER_MS: f64 = 0.001;
/// Largest speed correction; a clock that is further off than this is not a clock.
const MAX_CORRECTION: f64 = 0.02;
/// Samples that a block takes at most, with those around the last one that the resampler looks at.
const MOST_READ: usize = BLOCK + BLOCK / 50 + 5;
/// Off by less than this the samples pass through untouched (time stamps are rounded to whole ms).
const DEAD_BAND_MS: f64 = 2.0;
/// Off by more than this we jump.
const RESYNC_US: f64 = 60_000.0;
/// Time stamps that leave the expected ones by more than this tell of lost or repeated sound.
const GAP_US: f64 = 30_000.0;
/// Longest gap filled with silence; after a longer one the ring starts anew.
const MAX_GAP_US: f64 = 1_000_000.0;
/// Time constants of following time stamps and of the speed, in updates.
const FOLLOW: f64 = 0.05;
/// Share of the same distance that goes into the pace: with [`FOLLOW`] as quick as can be without swinging.
const FOLLOW_PACE: f64 = FOLLOW * FOLLOW / 4.0;
/// Time stamps within this share of the samples' own pace are rounding, and the samples pass untouched.
const SAME_PACE: f64 = 0.001;
/// A ring never holds more than this many seconds.
const MAX_SECONDS: usize = 2;
/// Length of the ramp that hides a break: 5 ms at 48 kHz.
const RAMP: usize = 240;

/// What went wrong so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Times the sound ran dry.
    pub underruns: u64,
    /// Times we jumped because the input's clock was too far off.
    pub resyncs: u64,
    /// Samples thrown away because nobody read them.
    pub overflowed: u64,
}

/// One input's sound.
#[derive(Debug)]
pub struct Track {
    rate: u32,
    ring: VecDeque<Frame>,
    /// Due time of the end of the ring; meaningless while the ring is empty.
    end_us: f64,
    /// Pushes since the ring was empty.
    pushes: u32,
    /// Share by which time stamps run slower than the samples between them: below 0 for a clock that is fast.
    pace: f64,
    /// Position of the reader between `ring[1]` and `ring[2]`; `ring[0]` is the sample before.
    fraction: f64,
    /// Smoothed distance between the ring's front and the block to read.
    error_us: f64,
    playing: bool,
    declick: Declick,
    /// Gain at the end of the last block; `None` before the first.
    gain: Option<f32>,
    faults: Faults,
}

/// Hides a step in the signal: what the step would have been fades out instead.
#[derive(Debug, Default)]
struct Declick {
    last: Frame,
    residual: Frame,
    left: usize,
    pending: bool,
}

impl Declick {
    fn pass(&mut self, mut frame: Frame) -> Frame {
        if std::mem::take(&mut self.pending) {
            self.residual = [self.last[0] - frame[0], self.last[1] - frame[1]];
            self.left = RAMP;
        }
        if self.left > 0 {
            // A raised cosine: no corner at either end.
            let x = self.left as f32 / RAMP as f32;
            let weight = 0.5 - 0.5 * (std::f32::consts::PI * x).cos();
            frame[0] += self.residual[0] * weight;
            frame[1] += self.residual[1] * weight;
            self.left -= 1;
        }
        self.last = frame;
        frame
    }

    fn is_silent(&self) -> bool {
        self.left == 0 && !self.pending && self.last == [0.0; 2]
    }
}

impl Track {
    /// A silent track at `rate` samples a second.
    pub fn new(rate: u32) -> Self {
        Self {
            rate,
            ring: VecDeque::new(),
            end_us: 0.0,
            pushes: 0,
            pace: 0.0,
            fraction: 0.0,
            error_us: 0.0,
            playing: false,
            declick: Declick::default(),
            gain: None,
            faults: Faults::default(),
        }
    }

    /// Another sample rate from now on: what is in the ring is of no use.
    pub fn set_rate(&mut self, rate: u32) {
        if rate != self.rate {
            self.rate = rate;
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.ring.clear();
        self.stop();
    }

    fn stop(&mut self) {
        if std::mem::take(&mut self.playing) {
            self.declick.pending = true;
        }
        self.fraction = 0.0;
        self.error_us = 0.0;
    }

    fn micros(&self, samples: usize) -> f64 {
        samples as f64 * 1e6 / f64::from(self.rate)
    }

    /// Due time of `ring[1]`, the sample that the reader stands on or after.
    fn front_us(&self) -> f64 {
        self.end_us - self.micros(self.ring.len().saturating_sub(1))
    }

    /// Appends decoded samples, left and right in turn, the first of them due at `start_us`.
    pub fn push(&mut self, samples: &[f32], start_us: i64) {
        let (frames, _) = samples.as_chunks::<2>();
        let start = start_us as f64;
        let mut after_silence = false;
        if !self.ring.is_empty() {
            let gap = start - self.end_us;
            if gap.abs() <= GAP_US {
                // The first time stamps count fully, then each less, until noise does not matter.
                let share = 1.0 / f64::from(self.pushes + 1);
                self.end_us += gap * FOLLOW.max(share);
                if share <= FOLLOW && !frames.is_empty() {
                    let pace = self.pace + FOLLOW_PACE * gap / self.micros(frames.len());
                    self.pace = pace.clamp(-MAX_CORRECTION, MAX_CORRECTION);
                }
            } else if (0.0..MAX_GAP_US).contains(&gap) {
                self.fade_end();
                let silence = (gap * f64::from(self.rate) / 1e6) as usize;
                self.ring.extend(std::iter::repeat_n([0.0; 2], silence));
                self.end_us = start;
                after_silence = true;
            } else {
                self.clear();
            }
        }
        if self.ring.is_empty() {
            // The sample before the first one.
            self.ring.push_back([0.0; 2]);
            self.end_us = start;
            self.pushes = 0;
            self.pace = 0.0;
        }
        self.pushes = self.pushes.saturating_add(1);
        let begin = self.ring.len();
        self.ring.extend(frames);
        if after_silence {
            let ramp = RAMP.min(frames.len());
            fade(self.ring.range_mut(begin..begin + ramp));
        }
        self.end_us += self.micros(frames.len()) * (1.0 + self.pace);
        let limit = MAX_SECONDS * self.rate as usize;
        if let Some(over) = self.ring.len().checked_sub(limit)
            && over > 0
        {
            self.ring.drain(..over);
            self.faults.overflowed += over as u64;
        }
    }

    /// All sound pushed so far is due that much later than was said: it is taken up anew at the right place.
    pub fn shift(&mut self, by_us: i64) {
        self.end_us += by_us as f64;
        // Less than this the resampler takes out unheard.
        if (by_us.abs() as f64) > DEAD_BAND_MS * 1_000.0 {
            self.stop();
        }
    }

    /// What is read next belongs elsewhere than what was read last: it is found anew, without a click.
    pub fn move_on(&mut self) {
        self.stop();
    }

    /// Lets the ring end in silence.
    fn fade_end(&mut self) {
        let length = self.ring.len();
        fade(self.ring.range_mut(length - RAMP.min(length)..).rev());
    }

    /// Is all sound of the next block here, which ends at `until_us`?
    pub fn covers(&self, until_us: i64) -> bool {
        if self.playing {
            // By samples, not by time: the reader may stand ahead of its time within the dead band.
            return self.ring.len() >= MOST_READ;
        }
        // The resampler looks two samples ahead.
        !self.ring.is_empty() && self.end_us - self.micros(3) >= until_us as f64
    }

    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// Adds the block due at `start_us` to `sum`, with the gain moving to `gain` over the block.
    pub fn mix(&mut self, start_us: i64, gain: f32, sum: &mut [Frame]) {
        let start = start_us as f64;
        if self.playing && (self.position_us() - start).abs() > RESYNC_US {
            self.faults.resyncs += 1;
            self.stop();
        }
        let count = sum.len();
        if !self.playing {
            self.align(start, count);
        }
        let from = self.gain.replace(gain).unwrap_or(gain);
        if !self.playing && self.declick.is_silent() {
            return;
        }
        let speed = self.speed(start);
        for (n, out) in sum.iter_mut().enumerate() {
            let frame = self.next(speed).unwrap_or([0.0; 2]);
            let frame = self.declick.pass(frame);
            let gain = from + (gain - from) * (n + 1) as f32 / count as f32;
            out[0] += frame[0] * gain;
            out[1] += frame[1] * gain;
        }
    }

    /// Due time of what the reader would give next.
    fn position_us(&self) -> f64 {
        self.front_us() + self.fraction * 1e6 / f64::from(self.rate)
    }

    /// Starts playing when the ring has the whole block that begins at `start`; what is older goes.
    fn align(&mut self, start: f64, count: usize) {
        let ahead = (start - self.front_us()) * f64::from(self.rate) / 1e6;
        // Within the dead band early is early enough.
        if self.ring.is_empty() || ahead < -DEAD_BAND_MS * f64::from(self.rate) / 1_000.0 {
            return;
        }
        // Keep the sample before the reader's.
        let skip = (ahead as usize).min(self.ring.len() - 1);
        self.ring.drain(..skip);
        if self.ring.len() >= count + 4 {
            self.playing = true;
            self.error_us = 0.0;
            self.fraction = 0.0;
            self.declick.pending = true;
        }
    }

    /// Input samples to go on by per output sample.
    fn speed(&mut self, start: f64) -> f64 {
        let error = self.position_us() - start;
        self.error_us += FOLLOW * 2.0 * (error - self.error_us);
        let ms = self.error_us / 1_000.0;
        let beyond = ms.signum() * (ms.abs() - DEAD_BAND_MS).max(0.0);
        let pace = if self.pace.abs() < SAME_PACE {
            0.0
        } else {
            self.pace
        };
        // Standing too late in the ring means that we read too fast.
        1.0 - (beyond * PULL_PER_MS + pace).clamp(-MAX_CORRECTION, MAX_CORRECTION)
    }

    /// The next sample at that speed; `None` when not playing or the ring has run dry.
    fn next(&mut self, speed: f64) -> Option<Frame> {
        if !self.playing {
            return None;
        }
        let [Some(a), Some(b), Some(c), Some(d)] = [0, 1, 2, 3].map(|n| self.ring.get(n)) else {
            self.faults.underruns += 1;
            self.stop();
            return None;
        };
        let frame = if self.fraction == 0.0 {
            *b
        } else {
            let t = self.fraction as f32;
            [0, 1].map(|n| cubic(a[n], b[n], c[n], d[n], t))
        };
        self.fraction += speed;
        while self.fraction >= 1.0 {
            self.fraction -= 1.0;
            self.ring.pop_front();
        }
        Some(frame)
    }
}

/// Raises samples from silence to their full level.
fn fade<'a>(frames: impl ExactSizeIterator<Item = &'a mut Frame>) {
    let count = frames.len() as f32;
    for (n, frame) in frames.enumerate() {
        let weight = n as f32 / count;
        *frame = [frame[0] * weight, frame[1] * weight];
    }
}

/// Catmull-Rom between `b` (t = 0) and `c` (t = 1): flat to far beyond what AAC at 96 kbit/s keeps.
fn cubic(a: f32, b: f32, c: f32, d: f32, t: f32) -> f32 {
    let slope = c - a;
    let square = 2.0 * a - 5.0 * b + 4.0 * c - d;
    let cube = 3.0 * (b - c) + d - a;
    b + 0.5 * t * (slope + t * (square + t * cube))
}

/// Level up to which a sum passes untouched.
const KNEE: f32 = 0.8;

/// Bends what is over the knee so that no sum leaves −1 to 1.
pub fn soft_clip(sum: &mut [Frame]) {
    for sample in sum.as_flattened_mut() {
        let level = sample.abs();
        if level > KNEE {
            let bent = KNEE + (1.0 - KNEE) * ((level - KNEE) / (1.0 - KNEE)).tanh();
            *sample = bent.copysign(*sample);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    const RATE: u32 = 48_000;

    fn due(samples: usize) -> i64 {
        (samples as f64 * 1e6 / f64::from(RATE)) as i64
    }

    /// Stereo samples `from..from + count` of a tone of amplitude 0.5, sampled at `rate`.
    fn tone(hz: f64, rate: f64, from: usize, count: usize) -> Vec<f32> {
        (from..from + count)
            .flat_map(|n| {
                let v = (0.5 * (TAU * hz * n as f64 / rate).sin()) as f32;
                [v, v]
            })
            .collect()
    }

    /// Largest change from one sample to the next.
    fn roughest(samples: &[Frame]) -> f32 {
        samples
            .windows(2)
            .map(|w| (w[1][0] - w[0][0]).abs())
            .fold(0.0, f32::max)
    }

    /// Amplitude of a tone in mono samples.
    fn level(samples: &[Frame], hz: f64) -> f64 {
        let (mut re, mut im) = (0.0, 0.0);
        for (n, s) in samples.iter().enumerate() {
            let phase = TAU * hz * n as f64 / f64::from(RATE);
            re += f64::from(s[0]) * phase.cos();
            im += f64::from(s[0]) * phase.sin();
        }
        2.0 * re.hypot(im) / samples.len() as f64
    }

    /// A tone of 440 Hz and amplitude 0.5 changes by at most 0.5 × 2π × 440 / 48000 = 0.029 per sample; a ramp of a
    /// residual of up to 1 over 240 samples adds at most π / 2 / 240 = 0.0066.
    const SMOOTH: f32 = 0.036;

    #[test]
    fn sound_on_time_passes_bit_by_bit() {
        let mut track = Track::new(RATE);
        let whole = tone(440.0, 48_000.0, 0, 20 * BLOCK);
        let mut out = vec![];
        for n in 0..20 {
            track.push(&whole[n * 2 * BLOCK..(n + 1) * 2 * BLOCK], due(n * BLOCK));
            if n > 0 {
                let mut sum = vec![[0.0; 2]; BLOCK];
                track.mix(due((n - 1) * BLOCK), 1.0, &mut sum);
                out.extend(sum);
            }
        }
        let (expected, _) = whole.as_chunks::<2>();
        // Times are whole microseconds, so the start may be one sample off.
        let from = RAMP + 10;
        let matches = |shift: usize| {
            out[from..from + 10_000] == expected[from + shift - 1..from + shift - 1 + 10_000]
        };
        assert!((0..3).any(matches));
        assert_eq!(track.faults(), Faults::default());
    }

    #[test]
    fn running_dry_and_coming_back_makes_no_click() {
        let mut track = Track::new(RATE);
        let mut out = vec![];
        for n in 0..60usize {
            if !(20..30).contains(&n) {
                track.push(&tone(440.0, 48_000.0, n * BLOCK, BLOCK), due(n * BLOCK));
            }
            let mut sum = vec![[0.0; 2]; BLOCK];
            if let Some(block) = n.checked_sub(1) {
                track.mix(due(block * BLOCK), 1.0, &mut sum);
                out.extend(sum);
            }
        }
        assert_eq!(track.faults().underruns, 1);
        assert!(roughest(&out) < SMOOTH, "{}", roughest(&out));
        assert!(out[25 * BLOCK][0].abs() < 1e-6);
        let after = &out[40 * BLOCK..55 * BLOCK];
        assert!((level(after, 440.0) - 0.5).abs() < 0.01);
    }

    #[test]
    fn a_clock_one_percent_fast_is_followed_by_resampling() {
        let mut track = Track::new(RATE);
        let mut out: Vec<Frame> = vec![];
        // The publisher's 48 kHz run 1 % fast: its frame n is due at 0.99 × n frames, as the clock map says.
        let wall = |n: usize| (due(n * BLOCK) as f64 * 0.99) as i64;
        let mut pushed = 0;
        for block in 0..1_500usize {
            while wall(pushed) < due((block + 2) * BLOCK) {
                track.push(&tone(440.0, 48_000.0, pushed * BLOCK, BLOCK), wall(pushed));
                pushed += 1;
            }
            let mut sum = vec![[0.0; 2]; BLOCK];
            track.mix(due(block * BLOCK), 1.0, &mut sum);
            out.extend(sum);
        }
        assert_eq!(track.faults(), Faults::default());
        assert!(roughest(&out) < SMOOTH, "{}", roughest(&out));
        // 440 Hz by its clock are 444.4 Hz by ours.
        let late = &out[1_000 * BLOCK..1_400 * BLOCK];
        assert!(
            level(late, 440.0 / 0.99) > 0.45,
            "{}",
            level(late, 440.0 / 0.99)
        );
        // And by the samples that were pushed, not by what the track makes of their times, it stands in the dead band.
        let behind = track.ring.len() as f64 - 1.0 - track.fraction;
        let stands_at = (wall(pushed) as f64) - behind * 1e6 / f64::from(RATE) * 0.99;
        let off_ms = (stands_at - due(1_500 * BLOCK) as f64) / 1_000.0;
        assert!(off_ms.abs() < 3.0, "{off_ms}");
    }

    #[test]
    fn a_block_that_is_said_to_be_here_never_runs_dry() {
        for pace in [0.99, 0.997, 1.0, 1.003, 1.01] {
            let mut track = Track::new(RATE);
            let wall = |n: usize| (due(n * BLOCK) as f64 * pace) as i64;
            let mut pushed = 0;
            for block in 0..1_500usize {
                // Not a sample more than needed.
                while !track.covers(due((block + 1) * BLOCK)) {
                    track.push(&tone(440.0, 48_000.0, pushed * BLOCK, BLOCK), wall(pushed));
                    pushed += 1;
                }
                let mut sum = vec![[0.0; 2]; BLOCK];
                track.mix(due(block * BLOCK), 1.0, &mut sum);
            }
            assert_eq!(track.faults(), Faults::default(), "{pace}");
        }
    }

    #[test]
    fn a_corrected_clock_moves_the_sound_at_once() {
        let mut track = Track::new(RATE);
        let mut out = vec![];
        for n in 0..40usize {
            // Said to be due 40 ms too late until block 20.
            let wrong = if n < 20 { 40_000 } else { 0 };
            if n == 20 {
                track.shift(-40_000);
            }
            track.push(
                &tone(440.0, 48_000.0, n * BLOCK, BLOCK),
                due(n * BLOCK) + wrong,
            );
            let mut sum = vec![[0.0; 2]; BLOCK];
            if let Some(block) = n.checked_sub(1) {
                track.mix(due(block * BLOCK), 1.0, &mut sum);
                out.extend(sum);
            }
        }
        assert!(roughest(&out) < SMOOTH, "{}", roughest(&out));
        // Sample for sample where it belongs, without a bent note.
        let wanted = tone(440.0, 48_000.0, 25 * BLOCK, 10 * BLOCK);
        let (wanted, _) = wanted.as_chunks::<2>();
        let got = &out[25 * BLOCK..35 * BLOCK];
        let off = wanted.iter().zip(got).map(|(w, g)| (w[0] - g[0]).abs());
        // Times are whole microseconds: a sample may be one off.
        assert!(off.fold(0.0, f32::max) < 0.03);
    }

    #[test]
    fn far_off_it_jumps_once_and_smoothly() {
        let mut track = Track::new(RATE);
        let mut out = vec![];
        for n in 0..80usize {
            // After 40 blocks all time stamps are 50 ms + 20 ms earlier: repeated sound, then ahead of time.
            let shift = if n < 40 { 0 } else { -80_000 };
            track.push(
                &tone(440.0, 48_000.0, n * BLOCK, BLOCK),
                due((n + 4) * BLOCK) + shift,
            );
            let mut sum = vec![[0.0; 2]; BLOCK];
            track.mix(due(n * BLOCK), 1.0, &mut sum);
            out.extend(sum);
        }
        assert!(roughest(&out) < SMOOTH, "{}", roughest(&out));
        assert!((level(&out[60 * BLOCK..], 440.0) - 0.5).abs() < 0.01);
    }

    #[test]
    fn lost_sound_becomes_silence_of_its_length() {
        let mut track = Track::new(RATE);
        let mut out = vec![];
        for n in (0..40usize).filter(|n| !(15..20).contains(n)) {
            track.push(&tone(440.0, 48_000.0, n * BLOCK, BLOCK), due(n * BLOCK));
        }
        for n in 0..38 {
            let mut sum = vec![[0.0; 2]; BLOCK];
            track.mix(due(n * BLOCK), 1.0, &mut sum);
            out.extend(sum);
        }
        assert_eq!(track.faults(), Faults::default());
        let silent = out.iter().filter(|f| f[0].abs() < 1e-6).count();
        assert!(
            (5 * BLOCK - 600..5 * BLOCK + 600).contains(&silent),
            "{silent}"
        );
        assert!((level(&out[25 * BLOCK..35 * BLOCK], 440.0) - 0.5).abs() < 0.02);
    }

    #[test]
    fn nobody_reading_does_not_grow_memory() {
        let mut track = Track::new(RATE);
        for n in 0..1_000usize {
            track.push(&tone(440.0, 48_000.0, n * BLOCK, BLOCK), due(n * BLOCK));
        }
        assert!(track.ring.len() <= 2 * RATE as usize);
        assert!(track.faults().overflowed > 0);
        assert!(track.covers(due(999 * BLOCK)) && !track.covers(due(1_000 * BLOCK)));
    }

    #[test]
    fn gains_move_without_steps_and_loud_sums_stay_inside() {
        let mut tracks = [Track::new(RATE), Track::new(RATE), Track::new(RATE)];
        let mut out = vec![];
        for n in 0..30usize {
            let mut sum = vec![[0.0; 2]; BLOCK];
            for track in &mut tracks {
                track.push(&tone(440.0, 48_000.0, n * BLOCK, BLOCK), due(n * BLOCK));
                let gain = if n < 10 { 0.0 } else { 1.0 };
                if let Some(block) = n.checked_sub(1) {
                    track.mix(due(block * BLOCK), gain, &mut sum);
                }
            }
            soft_clip(&mut sum);
            out.extend(sum);
        }
        let peak = out.iter().map(|f| f[0].abs()).fold(0.0, f32::max);
        assert!(peak > 0.9 && peak <= 1.0, "{peak}");
        assert!(roughest(&out) < 3.0 * SMOOTH, "{}", roughest(&out));
        let mut quiet = [[0.5, -0.79]];
        soft_clip(&mut quiet);
        assert_eq!(quiet, [[0.5, -0.79]]);
    }
}
