//! One input of a mix: its newest pictures and sound, mapped to the mix's clock, whatever its publisher does.
//!
//! [`Input`] is what the mix's thread reads; its [`View`] is filled by the stream's [`source`](super::source), which may
//! serve other mixes too. An input never fails as far as the mix is concerned: it waits, lives, or holds its last picture.
//! The last input of a stream that is dropped ends its decoders.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;

use super::audio::{Faults, Frame, Place, Span, Track};
use super::clock::{Lateness, Screen};
use super::format::DEFAULT_AUDIO;
use super::layout::Size;
use super::pass::Main;
use super::picture::{Cut, Raw, Scaler};
use super::scene::Tracks;
use super::signal::Signal;
use super::slot::Slot;
use super::source::{Facts, Running, Sources, lock};
use super::tick::Lead;
use super::user_data::Carried;
use crate::media::StreamKey;

/// An input without news for this long holds.
pub(super) const HELD_AFTER: Duration = Duration::from_secs(1);

/// What an input is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InputState {
    /// Nothing was decoded from it yet.
    Waiting,
    /// Pictures or sound are coming.
    Live,
    /// It has stopped; its last picture stays, without sound.
    Held,
    /// It has stopped, and by the mix's policy its place is another's for now.
    Hidden,
    /// It has stopped, and by the mix's policy a picture stands in for it.
    Placeholder,
}

impl InputState {
    pub const ALL: [Self; 5] = [
        Self::Waiting,
        Self::Live,
        Self::Held,
        Self::Hidden,
        Self::Placeholder,
    ];

    /// As the API spells it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Live => "live",
            Self::Held => "held",
            Self::Hidden => "hidden",
            Self::Placeholder => "placeholder",
        }
    }

    /// Of a stream of which nothing has come for `silent`; `None`: nothing ever has.
    pub(super) fn of(silent: Option<Duration>) -> Self {
        match silent {
            None => Self::Waiting,
            Some(silent) if silent < HELD_AFTER => Self::Live,
            Some(_) => Self::Held,
        }
    }
}

/// A decoded picture.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    pub raw: Raw,
    /// The cut that was wanted of it when it was decoded.
    pub fitted: Option<(Cut, Raw)>,
    /// When its access unit arrived; `None` when that was forgotten.
    pub arrival: Option<Instant>,
    /// When it was ready to be shown.
    pub decoded: Option<Instant>,
}

/// Counters of what did not reach the screen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Losses {
    /// Messages not decoded: waiting for a key frame, or the decoder was behind.
    pub messages: u64,
    /// Pictures decoded but never shown.
    pub pictures: u64,
    pub sound: Faults,
}

/// What is on its way to one mix.
pub(super) struct View {
    zero: Instant,
    /// From the source's zero to the mix's, in µs.
    ahead_us: i64,
    signal: Arc<Signal>,
    slot: Mutex<Slot<Picture>>,
    /// SEI messages of the pictures that are not on screen yet.
    user_data: Mutex<Carried>,
    screen: Mutex<Screen>,
    /// Locked before `target` where both are.
    track: Mutex<Track>,
    target: Mutex<Target>,
    pace: Mutex<Pace>,
    /// Used by the decoder's thread alone.
    scaler: Mutex<Scaler>,
}

/// How decoded media should come.
#[derive(Debug, Clone, Copy)]
struct Target {
    cut: Option<Cut>,
    /// Nobody is to be woken up for its pictures.
    quiet: bool,
    /// Their SEI messages of user data come with them.
    carries: bool,
    tracks: Tracks,
    rate: u32,
}

/// When media came, and how late.
#[derive(Debug, Default)]
struct Pace {
    last_picture: Option<Instant>,
    last_sound: Option<Instant>,
    video: Lateness,
    audio: Lateness,
}

impl View {
    fn new(zero: Instant, source_zero: Instant, tracks: Tracks, signal: Arc<Signal>) -> Self {
        let later = zero.saturating_duration_since(source_zero);
        let earlier = source_zero.saturating_duration_since(zero);
        let rate = DEFAULT_AUDIO.rate;
        Self {
            zero,
            // One of the two is 0, and neither is 292,000 years.
            ahead_us: later.as_micros() as i64 - earlier.as_micros() as i64,
            signal,
            slot: Mutex::default(),
            user_data: Mutex::default(),
            screen: Mutex::default(),
            track: Mutex::new(Track::new(rate)),
            target: Mutex::new(Target {
                cut: None,
                quiet: false,
                carries: false,
                tracks,
                rate,
            }),
            pace: Mutex::default(),
            scaler: Mutex::default(),
        }
    }

    /// What is taken of the stream.
    pub fn tracks(&self) -> Tracks {
        lock(&self.target).tracks
    }

    /// What is shown of its pictures; `None`: nothing.
    pub fn cut(&self) -> Option<Cut> {
        lock(&self.target).cut
    }

    /// Does it want the SEI messages of its pictures?
    pub fn carries(&self) -> bool {
        lock(&self.target).carries
    }

    /// Samples a second that its sound should come with.
    pub fn rate(&self) -> u32 {
        lock(&self.target).rate
    }

    /// The cut of a picture. What cannot be scaled here is tried again, and reported, where it is to be shown.
    pub fn scale(&self, raw: &Raw, cut: Cut) -> Option<Raw> {
        lock(&self.scaler).scale(raw, cut).ok()
    }

    /// On this mix's clock what is due at that time of the source's.
    fn due(&self, due_us: i64) -> i64 {
        due_us - self.ahead_us
    }

    fn since_zero(&self, now: Instant) -> i64 {
        // No mix outlives 292,000 years.
        now.saturating_duration_since(self.zero).as_micros() as i64
    }

    /// The source is at work already, and this is its newest picture, due at that time of its clock.
    pub fn begin_with(&self, due_us: i64, raw: Raw, now: Instant) {
        let picture = Picture {
            raw,
            fitted: None,
            // It arrived for others: its way to our screen tells nothing.
            arrival: None,
            decoded: None,
        };
        lock(&self.pace).last_picture = Some(now);
        lock(&self.slot).push(self.due(due_us), picture);
    }

    /// The picture due at that time of the source's clock, which is about to come, has these SEI messages.
    pub fn take_user_data(&self, due_us: i64, messages: &Bytes) {
        if !messages.is_empty() && self.carries() {
            lock(&self.user_data).push_next(self.due(due_us), messages.clone());
        }
    }

    /// A picture due at that time of the source's clock is ready.
    pub fn take_picture(&self, due_us: i64, picture: Picture, now: Instant) {
        let due_us = self.due(due_us);
        {
            let mut pace = lock(&self.pace);
            pace.last_picture = Some(now);
            pace.video.observe(self.since_zero(now) - due_us);
        }
        lock(&self.slot).push(due_us, picture);
        if !lock(&self.target).quiet {
            self.signal.ring();
        }
    }

    /// Samples are here, the first of them due at that time of the source's clock.
    /// `media_us` is what the stream itself calls that time.
    pub fn take_sound(
        &self,
        (due_us, media_us): (i64, i64),
        rate: u32,
        samples: &[f32],
        now: Instant,
    ) {
        let due_us = self.due(due_us);
        {
            let mut pace = lock(&self.pace);
            pace.last_sound = Some(now);
            pace.audio.observe(self.since_zero(now) - due_us);
        }
        {
            let mut track = lock(&self.track);
            // Asked for at another rate meanwhile: the next ones will have it.
            if self.rate() == rate {
                track.push(samples, due_us, media_us);
            }
        }
        self.signal.ring_for_sound();
    }

    /// All sound so far is due that much later than was said.
    pub fn shift_sound(&self, by_us: i64) {
        lock(&self.track).shift(by_us);
    }
}

/// The mix's handle on one input.
pub(super) struct Input {
    key: StreamKey,
    source: Arc<Running>,
    view: Arc<View>,
    /// What the source had lost before.
    lost_before: u64,
}

impl Input {
    /// Starts reading `tracks` of the source feed of `key`, with the other mixes that do. `zero` is the mix's zero; `signal`
    /// is rung at each new picture and sound.
    pub fn new(
        key: StreamKey,
        tracks: Tracks,
        sources: &Sources,
        zero: Instant,
        signal: Arc<Signal>,
    ) -> Self {
        let source = sources.find(&key, tracks);
        let view = Arc::new(View::new(zero, source.zero(), tracks, signal));
        source.join(&view);
        Self {
            key,
            view,
            lost_before: source.messages_lost(),
            source,
        }
    }

    pub fn key(&self) -> &StreamKey {
        &self.key
    }

    /// Time since its last picture or sound; `None`: neither has ever come.
    pub fn silent(&self, now: Instant) -> Option<Duration> {
        let pace = lock(&self.view.pace);
        let last = pace.last_picture.max(pace.last_sound)?;
        Some(now.saturating_duration_since(last))
    }

    /// Takes only that of the stream from now on.
    pub fn set_tracks(&self, tracks: Tracks) {
        let before = std::mem::replace(&mut lock(&self.view.target).tracks, tracks);
        if before == tracks {
            return;
        }
        if tracks == Tracks::Sound {
            lock(&self.view.pace).last_picture = None;
            *lock(&self.view.slot) = Slot::default();
        }
        if tracks == Tracks::Pictures {
            lock(&self.view.pace).last_sound = None;
        }
        self.source.wishes_changed();
    }

    /// Has something come of what is taken, so that a mix need not wait for it?
    pub fn has_shown(&self) -> bool {
        if self.view.tracks() == Tracks::Sound {
            return lock(&self.view.pace).last_sound.is_some();
        }
        self.has_picture()
    }

    pub fn facts(&self) -> Facts {
        self.source.facts()
    }

    /// Size of its newest picture as meant to be seen; `None` before the first, and while none are taken.
    pub fn size(&self) -> Option<Size> {
        (self.view.tracks() != Tracks::Sound)
            .then(|| self.source.facts().size)
            .flatten()
    }

    pub fn fps(&self) -> Option<u32> {
        self.source.fps()
    }

    /// What is known of it as a stream that may pass as it is; `None` until it has come.
    pub fn main(&self) -> Option<Main> {
        let facts = self.facts();
        {
            let pace = lock(&self.view.pace);
            pace.last_picture.or(pace.last_sound)?;
        }
        Some(Main {
            size: facts.size,
            fps: self.fps(),
            audio: facts.audio.map(|audio| audio.format),
            foreign: facts.foreign(),
        })
    }

    /// Has a picture been decoded that is not catch-up?
    pub fn has_picture(&self) -> bool {
        lock(&self.view.slot).newest_us().is_some()
    }

    /// This is what will be shown of pictures decoded from now on; `None`: nothing.
    pub fn set_cut(&self, cut: Option<Cut>) {
        lock(&self.view.target).cut = cut;
    }

    /// Its pictures wake the mix's thread, or are found when it looks.
    pub fn set_quiet(&self, quiet: bool) {
        lock(&self.view.target).quiet = quiet;
    }

    /// SEI messages of user data come with its pictures from now on, or do not.
    pub fn set_carrying(&self, carries: bool) {
        let before = std::mem::replace(&mut lock(&self.view.target).carries, carries);
        if before != carries {
            lock(&self.view.user_data).clear();
            self.source.wishes_changed();
        }
    }

    /// The SEI messages of the picture due then, which comes on screen, and of those before it that never did.
    pub fn user_data(&self, due_us: i64) -> Bytes {
        lock(&self.view.user_data).take_until(due_us)
    }

    /// Sound comes at this rate from now on.
    pub fn set_rate(&self, rate: u32) {
        let mut track = lock(&self.view.track);
        lock(&self.view.target).rate = rate;
        track.set_rate(rate);
    }

    /// What the output's beat needs to know when this is the lead.
    pub fn lead(&self) -> Lead {
        Lead {
            newest_us: lock(&self.view.slot).newest_us(),
            interval_us: self.source.interval_us(),
        }
    }

    /// The picture that the frame presented at `pts_us` shows of those due up to `until_us`, its due time, and whether
    /// it is new. `usual_us` is how late pictures are in a frame as a rule.
    pub fn picture(
        &self,
        until_us: i64,
        pts_us: i64,
        usual_us: i64,
    ) -> Option<(Picture, i64, bool)> {
        let mut slot = lock(&self.view.slot);
        let mut screen = lock(&self.view.screen);
        let fresh = slot.advance(until_us, |due| screen.observe(pts_us - due, usual_us));
        let (due, picture) = slot.current()?;
        Some((picture.clone(), *due, fresh))
    }

    /// How much later the sound of the blocks mixed last is heard than the picture due at `due_us` is seen, which is on
    /// screen from `pts_us`, compared with the source; negative: earlier. `None` while there is no sound.
    pub fn av_offset_us(&self, due_us: i64, pts_us: i64) -> Option<i64> {
        let waits = lock(&self.view.screen).sound_waits_us();
        let early = lock(&self.view.track).early_us()?;
        Some(waits - early - (pts_us - due_us))
    }

    /// The picture on screen; the slot is left as it is.
    pub fn newest(&self) -> Option<Raw> {
        let slot = lock(&self.view.slot);
        Some(slot.current()?.1.raw.clone())
    }

    /// Adds this input's sound of that block. `usual_us` is how late its pictures are in a frame as a rule.
    pub fn mix(&self, span: Span, usual_us: i64, gain: f32, sum: &mut [Frame]) {
        let usual_us = if self.has_picture() { usual_us } else { 0 };
        let delay_us = match self.view.tracks() {
            Tracks::Sound => 0,
            Tracks::Both | Tracks::Pictures => {
                lock(&self.view.screen).follow(span.start_us, usual_us)
            }
        };
        lock(&self.view.track).mix(span.delayed(delay_us), gain, sum);
    }

    /// Need that block not wait for this input: is its sound here, or has it none?
    pub fn sound_ready(&self, span: Span, now: Instant) -> bool {
        let last = lock(&self.view.pace).last_sound;
        let sounding = last.is_some_and(|at| now.saturating_duration_since(at) < HELD_AFTER);
        // As it will be read: sound alone has no pictures to wait for, whatever it waited for before.
        let delay_us = match self.view.tracks() {
            Tracks::Sound => 0,
            Tracks::Both | Tracks::Pictures => lock(&self.view.screen).sound_waits_us(),
        };
        !sounding || lock(&self.view.track).covers(span.delayed(delay_us))
    }

    /// Where its newest frame of sound ends, and how many samples it has.
    pub fn newest_sound(&self) -> Option<(f64, usize)> {
        lock(&self.view.track).newest()
    }

    /// How much of its sound is there beyond that block, in us, and when the newest of it came; `None` while it is silent.
    pub fn sound_beyond(&self, span: Span) -> Option<(i64, Instant)> {
        let came = lock(&self.view.pace).last_sound?;
        Some((lock(&self.view.track).beyond_us(span)?, came))
    }

    /// Where its sound is read.
    pub fn sound_place(&self) -> Option<Place> {
        lock(&self.view.track).place()
    }

    /// How late pictures and sound have lately been at worst, in us.
    pub fn lateness(&self) -> (i64, i64) {
        let pace = lock(&self.view.pace);
        (pace.video.worst_us(), pace.audio.worst_us())
    }

    pub fn losses(&self) -> Losses {
        Losses {
            messages: self.source.messages_lost() - self.lost_before,
            pictures: lock(&self.view.slot).dropped(),
            sound: lock(&self.view.track).faults(),
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.source.leave(&self.view);
    }
}
