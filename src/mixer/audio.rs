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
/// Off by less than this the samples pass through untouched (time stamps are rounded to whole ms).
const DEAD_BAND_MS: f64 = 2.0;
/// A correction up to this the resampler takes out unheard, at less than half a percent of speed.
const UNHEARD_MS: f64 = 6.0;
/// This near to a sample the reader stands on it: what whole steps of [`Beat`](super::beat::Beat) leave of rounding.
const ON_SAMPLE: f64 = 1e-6;
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

/// A block's place in time.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Where it begins.
    pub start_us: i64,
    /// How many times as long as its samples it takes.
    pub stretch: f64,
    /// How it is read of the input whose sound gives the beat; `None`: as time has it.
    pub lead: Option<Lead>,
}

/// How a block is read of the lead's sound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lead {
    /// Samples that are read for each of the block's; 1 leaves them as they are.
    pub speed: f64,
    /// How many samples of the newest frame it should leave unread.
    pub leaves: usize,
}

impl Span {
    /// The same block for sound that is heard so much later than it is due.
    pub fn delayed(self, by_us: i64) -> Self {
        Self {
            start_us: self.start_us - by_us,
            ..self
        }
    }
}

/// Where a track is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Samples that came and were not read yet.
    pub unread: f64,
    /// Samples that came at once.
    pub length: usize,
    /// Media time at which the newest frame begins, in us.
    pub media_us: i64,
    /// Samples to read for each of a block's that takes as long as its samples do, for the sound to keep its time.
    pub speed: f64,
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
    /// Samples of the latest push, and its media time.
    pushed: usize,
    media_us: i64,
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
            pushed: 0,
            media_us: 0,
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

    /// Appends decoded samples, left and right in turn, the first of them due at `start_us`; `media_us` is what the
    /// input itself calls that time.
    pub fn push(&mut self, samples: &[f32], start_us: i64, media_us: i64) {
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
        (self.pushed, self.media_us) = (frames.len(), media_us);
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
        if (by_us.abs() as f64) > UNHEARD_MS * 1_000.0 {
            self.stop();
        }
    }

    /// Lets the ring end in silence.
    fn fade_end(&mut self) {
        let length = self.ring.len();
        fade(self.ring.range_mut(length - RAMP.min(length)..).rev());
    }

    /// Is all sound of that block here?
    pub fn covers(&self, span: Span) -> bool {
        let start = span.start_us as f64;
        if self.playing {
            // By samples, not by time: the reader may stand ahead of its time within the dead band.
            return self.ring.len() >= self.needed(BLOCK, span);
        }
        let until = start + self.micros(self.to_begin(BLOCK, span) - 1);
        // Due times are whole microseconds.
        !self.ring.is_empty() && self.end_us + 1.0 >= until
    }

    /// Length of the ring from which `count` samples can be read: the reader's own, those after it, and where it stands
    /// between two those around them.
    fn needed(&self, count: usize, span: Span) -> usize {
        let speed = self.speed_in(span, self.smoothed(span.start_us as f64));
        // What is not the lead may have to move a little by the time it is read.
        if self.fraction == 0.0 && speed == 1.0 && span.lead.is_some() {
            return count + 1;
        }
        // One more for what rounding adds up to.
        (self.fraction + count as f64 * speed) as usize + 5
    }

    /// Length of the ring from which reading begins, with `count` samples.
    fn to_begin(&self, count: usize, span: Span) -> usize {
        let speed = self.speed_in(span, 0.0);
        match speed == 1.0 {
            true => count + 1,
            false => (count as f64 * speed) as usize + 5,
        }
    }

    /// How much sound is there beyond that block, in us; negative: so much is missing. `None` while nothing is read.
    pub fn beyond_us(&self, span: Span) -> Option<i64> {
        let needed = self.needed(BLOCK, span);
        let beyond = self.ring.len() as f64 - needed as f64;
        self.playing
            .then_some((beyond * 1e6 / f64::from(self.rate)) as i64)
    }

    /// Where the reader stands; `None` while nothing is read.
    pub fn place(&self) -> Option<Place> {
        self.playing.then_some(Place {
            unread: self.ring.len() as f64 - 1.0 - self.fraction,
            length: self.pushed,
            media_us: self.media_us,
            speed: self.speed(self.error_us),
        })
    }

    /// Due time of the end of the latest push, and its length in samples; `None` before the first.
    pub fn newest(&self) -> Option<(f64, usize)> {
        (!self.ring.is_empty()).then_some((self.end_us, self.pushed))
    }

    /// By how much sound is heard before its time, smoothed; negative: after it. `None` while it is silent.
    pub fn early_us(&self) -> Option<i64> {
        self.playing.then_some(self.error_us as i64)
    }

    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// Adds that block to `sum`, with the gain moving to `gain` over it.
    pub fn mix(&mut self, span: Span, gain: f32, sum: &mut [Frame]) {
        let start = span.start_us as f64;
        if self.playing && (self.position_us() - start).abs() > RESYNC_US {
            self.faults.resyncs += 1;
            self.stop();
        }
        let count = sum.len();
        if !self.playing {
            self.align(span, count);
        }
        let from = self.gain.replace(gain).unwrap_or(gain);
        if !self.playing && self.declick.is_silent() {
            return;
        }
        self.error_us = self.smoothed(start);
        let speed = self.speed_in(span, self.error_us);
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

    /// Starts playing when the ring has the whole block of `count` samples; what is older goes.
    fn align(&mut self, span: Span, count: usize) {
        let enough = self.to_begin(count, span);
        let dead_band = DEAD_BAND_MS * f64::from(self.rate) / 1_000.0;
        let ahead = (span.start_us as f64 - self.front_us()) * f64::from(self.rate) / 1e6;
        // Within the dead band early is early enough.
        if self.ring.is_empty() || ahead < -dead_band {
            return;
        }
        let mut skip = ahead.round() as usize;
        if let Some(Lead { leaves, .. }) = span.lead.filter(|_| whole_blocks(self.pushed)) {
            // Due times are learnt from arrivals, and so are less exact than the samples themselves.
            let unread = self.ring.len() as f64 - 1.0 - (skip + count) as f64;
            let off = off_place(unread, leaves as f64);
            if off.abs() <= dead_band {
                skip = skip.saturating_add_signed(off.round() as isize);
            }
        }
        // Keep the sample before the reader's.
        skip = skip.min(self.ring.len() - 1);
        // The sample that rounding takes.
        if self.ring.len() - skip + 1 == enough {
            skip = skip.saturating_sub(1);
        }
        if self.ring.len() - skip >= enough {
            self.ring.drain(..skip);
            self.playing = true;
            self.error_us = 0.0;
            self.fraction = 0.0;
            self.declick.pending = true;
        }
    }

    /// The smoothed distance after a block that begins at `start`.
    fn smoothed(&self, start: f64) -> f64 {
        let error = self.position_us() - start;
        self.error_us + FOLLOW * 2.0 * (error - self.error_us)
    }

    /// Input samples to go on by per sample of that block.
    fn speed_in(&self, span: Span, error_us: f64) -> f64 {
        match span.lead {
            Some(lead) => lead.speed,
            None => self.speed(error_us) * span.stretch,
        }
    }

    /// The same of a block that takes as long as its samples do, when the reader is off by that much.
    fn speed(&self, error_us: f64) -> f64 {
        let ms = error_us / 1_000.0;
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
        let at = |n: usize| self.ring.get(n).copied();
        let frame = if self.fraction == 0.0 {
            at(1)
        } else if let [Some(a), Some(b), Some(c), Some(d)] = [0, 1, 2, 3].map(at) {
            let t = self.fraction as f32;
            Some([0, 1].map(|n| cubic(a[n], b[n], c[n], d[n], t)))
        } else {
            None
        };
        if frame.is_none() {
            self.faults.underruns += 1;
            self.stop();
            return None;
        }
        self.fraction += speed;
        while self.fraction >= 1.0 {
            self.fraction -= 1.0;
            self.ring.pop_front();
        }
        if self.fraction < ON_SAMPLE {
            self.fraction = 0.0;
        } else if self.fraction > 1.0 - ON_SAMPLE && self.ring.len() > 1 {
            self.fraction = 0.0;
            self.ring.pop_front();
        }
        frame
    }
}

/// Only frames of as many samples as a block, or of several times as many, keep their place in blocks.
pub fn whole_blocks(length: usize) -> bool {
    length > 0 && length.is_multiple_of(BLOCK)
}

/// By how many samples too many are left unread where `leaves` should be, counted within a block.
pub fn off_place(unread: f64, leaves: f64) -> f64 {
    let half = BLOCK as f64 / 2.0;
    (unread - leaves + half).rem_euclid(BLOCK as f64) - half
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
mod tests;
