//! One input of a mix: its newest pictures and sound, mapped to our clock, whatever its publisher does.
//!
//! [`Input`] is what the mix's thread reads; behind it a task ([`feed`](super::feed)) carries the stream's messages to
//! decoders whose callbacks fill it. An input never fails as far as the mix is concerned: it waits, lives, or holds
//! its last picture. Dropping it ends the task and the decoders.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use serde::Serialize;
use tokio::sync::Notify;

use super::audio::{Faults, Frame, Track};
use super::clock::{Cadence, Lateness, Mapper, Screen};
use super::decode::{self, Sink};
use super::feed;
use super::format::{AudioConfig, DEFAULT_AUDIO};
use super::layout::Size;
use super::picture::{Cut, Raw, Scaler};
use super::scene::Tracks;
use super::signal::Signal;
use super::slot::Slot;
use super::tick::Lead;
use crate::media::StreamKey;
use crate::relay::Relay;

/// An input without news for this long holds.
const HELD_AFTER: Duration = Duration::from_secs(1);
/// Arrivals remembered until their pictures are decoded.
const MAX_IN_FLIGHT: usize = 64;

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
}

/// A decoded picture.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    pub raw: Raw,
    /// The cut that was wanted of it when it was decoded.
    pub fitted: Option<(Cut, Raw)>,
    /// When its access unit arrived; `None` when that was forgotten.
    pub arrival: Option<Instant>,
}

/// What is known of the stream's format.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Size of its newest picture as meant to be seen, shown or not.
    pub size: Option<Size>,
    pub audio: Option<AudioConfig>,
    /// A codec that is not decoded here, by name.
    pub unsupported: Option<String>,
    /// The latest failure of its decoders.
    pub error: Option<String>,
    last_picture: Option<Instant>,
    last_sound: Option<Instant>,
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

#[derive(Debug, Default)]
struct Clock {
    mapper: Mapper,
    /// Pictures before this media time are the catch-up; `None` while catching up.
    live_from_us: Option<i64>,
    in_flight: VecDeque<(i64, Instant)>,
    cadence: Cadence,
    video: Lateness,
    audio: Lateness,
}

/// What the feeding task, the decoders' callbacks and the mix's thread share.
pub(super) struct Shared {
    zero: Instant,
    signal: Arc<Signal>,
    clock: Mutex<Clock>,
    slot: Mutex<Slot<Picture>>,
    screen: Mutex<Screen>,
    track: Mutex<Track>,
    facts: Mutex<Facts>,
    target: Mutex<Target>,
    /// Used by the decoder's thread alone.
    scaler: Mutex<Scaler>,
    lost: Mutex<u64>,
    /// Woken by each decoded picture, for the catch-up's pace.
    pub decoded: Notify,
}

/// How decoded media should come, and the filter that sees to it while there are decoders.
#[derive(Default)]
struct Target {
    cut: Option<Cut>,
    /// Nobody is to be woken up for its pictures.
    quiet: bool,
    tracks: Tracks,
    rate: u32,
    sound: Option<gst::Element>,
}

/// Locks hold values that are complete after every statement, so one whose holder panicked can be read on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The mix's handle on one input.
pub(super) struct Input {
    key: StreamKey,
    shared: Arc<Shared>,
    task: tokio::task::AbortHandle,
}

impl Input {
    /// Starts reading the source feed of `key`. `zero` is the mix's zero; `signal` is rung at each new picture and sound.
    pub fn new(
        key: StreamKey,
        relay: &Relay,
        runtime: &tokio::runtime::Handle,
        zero: Instant,
        signal: Arc<Signal>,
    ) -> Self {
        let shared = Arc::new(Shared {
            zero,
            signal,
            clock: Mutex::default(),
            slot: Mutex::default(),
            screen: Mutex::default(),
            track: Mutex::new(Track::new(DEFAULT_AUDIO.rate)),
            facts: Mutex::default(),
            target: Mutex::new(Target {
                rate: DEFAULT_AUDIO.rate,
                ..Target::default()
            }),
            scaler: Mutex::default(),
            lost: Mutex::new(0),
            decoded: Notify::new(),
        });
        let task = runtime.spawn(feed::run(relay.clone(), key.clone(), shared.clone()));
        Self {
            key,
            shared,
            task: task.abort_handle(),
        }
    }

    pub fn key(&self) -> &StreamKey {
        &self.key
    }

    /// Whether it comes at all; what a policy makes of its absence is the mix's matter.
    pub fn state(&self, now: Instant) -> InputState {
        match self.silent(now) {
            None => InputState::Waiting,
            Some(silent) if silent < HELD_AFTER => InputState::Live,
            Some(_) => InputState::Held,
        }
    }

    /// Time since its last picture or sound; `None`: neither has ever come.
    pub fn silent(&self, now: Instant) -> Option<Duration> {
        let facts = lock(&self.shared.facts);
        let last = facts.last_picture.max(facts.last_sound)?;
        Some(now.saturating_duration_since(last))
    }

    /// Takes only that of the stream from now on.
    pub fn set_tracks(&self, tracks: Tracks) {
        let before = std::mem::replace(&mut lock(&self.shared.target).tracks, tracks);
        if before == tracks {
            return;
        }
        let mut facts = lock(&self.shared.facts);
        if tracks == Tracks::Sound {
            (facts.last_picture, facts.size) = (None, None);
            *lock(&self.shared.slot) = Slot::default();
        }
        if tracks == Tracks::Pictures {
            facts.last_sound = None;
        }
    }

    /// Has something come of what is taken, so that a mix need not wait for it?
    pub fn has_shown(&self) -> bool {
        if lock(&self.shared.target).tracks == Tracks::Sound {
            return lock(&self.shared.facts).last_sound.is_some();
        }
        self.has_picture()
    }

    pub fn facts(&self) -> Facts {
        lock(&self.shared.facts).clone()
    }

    /// Size of its newest picture as meant to be seen; `None` before the first.
    pub fn size(&self) -> Option<Size> {
        lock(&self.shared.facts).size
    }

    pub fn fps(&self) -> Option<u32> {
        lock(&self.shared.clock).cadence.fps()
    }

    /// Has a picture been decoded that is not catch-up?
    pub fn has_picture(&self) -> bool {
        lock(&self.shared.slot).newest_us().is_some()
    }

    /// This is what will be shown of pictures decoded from now on; `None`: nothing.
    pub fn set_cut(&self, cut: Option<Cut>) {
        lock(&self.shared.target).cut = cut;
    }

    /// Its pictures wake the mix's thread, or are found when it looks.
    pub fn set_quiet(&self, quiet: bool) {
        lock(&self.shared.target).quiet = quiet;
    }

    /// Sound comes at this rate from now on.
    pub fn set_rate(&self, rate: u32) {
        lock(&self.shared.track).set_rate(rate);
        let filter = {
            let mut target = lock(&self.shared.target);
            target.rate = rate;
            target.sound.clone()
        };
        if let Some(filter) = filter {
            decode::set_sound_rate(&filter, rate);
        }
    }

    /// What the output's beat needs to know when this is the lead.
    pub fn lead(&self) -> Lead {
        let interval_us = lock(&self.shared.clock).cadence.interval_us();
        Lead {
            newest_us: lock(&self.shared.slot).newest_us(),
            interval_us,
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
        let mut slot = lock(&self.shared.slot);
        let mut screen = lock(&self.shared.screen);
        let fresh = slot.advance(until_us, |due| screen.observe(pts_us - due, usual_us));
        let (due, picture) = slot.current()?;
        Some((picture.clone(), *due, fresh))
    }

    /// The picture on screen; the slot is left as it is.
    pub fn newest(&self) -> Option<Raw> {
        let slot = lock(&self.shared.slot);
        Some(slot.current()?.1.raw.clone())
    }

    /// Adds this input's block of sound that is heard at `start_us`.
    pub fn mix(&self, start_us: i64, gain: f32, sum: &mut [Frame]) {
        let (delay_us, moved) = match lock(&self.shared.target).tracks {
            Tracks::Sound => (0, false),
            Tracks::Both | Tracks::Pictures => lock(&self.shared.screen).follow(start_us),
        };
        let mut track = lock(&self.shared.track);
        if moved {
            track.move_on();
        }
        track.mix(start_us - delay_us, gain, sum);
    }

    /// Need the block that ends at `until_us` not wait for this input: is its sound here, or has it none?
    pub fn sound_ready(&self, until_us: i64, now: Instant) -> bool {
        let last = lock(&self.shared.facts).last_sound;
        let sounding = last.is_some_and(|at| now.saturating_duration_since(at) < HELD_AFTER);
        let due_us = until_us - lock(&self.shared.screen).sound_waits_us();
        !sounding || lock(&self.shared.track).covers(due_us)
    }

    /// How late pictures and sound have lately been at worst, in us.
    pub fn lateness(&self) -> (i64, i64) {
        let clock = lock(&self.shared.clock);
        (clock.video.worst_us(), clock.audio.worst_us())
    }

    pub fn losses(&self) -> Losses {
        Losses {
            messages: *lock(&self.shared.lost),
            pictures: lock(&self.shared.slot).dropped(),
            sound: lock(&self.shared.track).faults(),
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn since_zero(&self, now: Instant) -> i64 {
        // An input never outlives 292,000 years.
        now.saturating_duration_since(self.zero).as_micros() as i64
    }

    /// A joiner begins with old messages: nothing is shown until [`Self::live_from`].
    pub fn catching_up(&self) {
        let mut clock = lock(&self.clock);
        clock.live_from_us = None;
        clock.in_flight.clear();
    }

    /// Another publish epoch has begun: its clock is learnt anew.
    pub fn new_epoch(&self) {
        let mut clock = lock(&self.clock);
        clock.mapper.restart();
        clock.in_flight.clear();
    }

    /// The catch-up is over: pictures from this media time on are shown.
    pub fn live_from(&self, pts_ms: i64) {
        lock(&self.clock).live_from_us = Some(pts_ms * 1_000);
    }

    /// A message of the live edge arrived.
    pub fn arrived(&self, dts_ms: i64, picture_pts_ms: Option<i64>, now: Instant) {
        let at = self.since_zero(now);
        let mut clock = lock(&self.clock);
        let corrected = clock.mapper.observe(at, dts_ms * 1_000);
        if let Some(pts) = picture_pts_ms {
            if clock.in_flight.len() == MAX_IN_FLIGHT {
                clock.in_flight.pop_front();
            }
            clock.in_flight.push_back((pts * 1_000, now));
        }
        drop(clock);
        if let Some(by) = corrected {
            lock(&self.track).shift(by);
        }
    }

    /// An access unit's decode time, live or not: tells the frame rate.
    pub fn paced(&self, dts_ms: i64) {
        lock(&self.clock).cadence.observe(dts_ms);
    }

    pub fn lost(&self, messages: u64) {
        *lock(&self.lost) += messages;
    }

    pub fn with_facts(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut lock(&self.facts));
    }

    /// Decoders have started; the filter of their sound gets the rate set so far.
    pub fn decoders_started(&self, sound: gst::Element) {
        let rate = {
            let mut target = lock(&self.target);
            target.sound = Some(sound.clone());
            target.rate
        };
        decode::set_sound_rate(&sound, rate);
    }

    pub fn decoders_gone(&self) {
        lock(&self.target).sound = None;
    }

    /// What is taken of the stream.
    pub fn tracks(&self) -> Tracks {
        lock(&self.target).tracks
    }
}

impl Sink for Shared {
    fn picture(&self, pts_us: i64, raw: Raw) {
        self.decoded.notify_one();
        let size = Some(raw.seen());
        let (tracks, cut, quiet) = {
            let target = lock(&self.target);
            (target.tracks, target.cut, target.quiet)
        };
        if tracks == Tracks::Sound {
            return;
        }
        lock(&self.facts).size = size;
        let is_live = |clock: &Clock| clock.live_from_us.is_some_and(|from| pts_us >= from);
        if !is_live(&lock(&self.clock)) {
            return;
        }
        // What cannot be scaled here is tried again, and reported, where it is to be shown.
        let scaled = cut.and_then(|cut| Some((cut, lock(&self.scaler).scale(&raw, cut).ok()?)));
        let now = Instant::now();
        let at = self.since_zero(now);
        let (due, arrival) = {
            let mut clock = lock(&self.clock);
            let Some(due) = clock.mapper.map(pts_us).filter(|_| is_live(&clock)) else {
                return;
            };
            clock.video.observe(at - due);
            let found = clock.in_flight.iter().position(|&(pts, _)| pts == pts_us);
            let arrival = found.and_then(|n| clock.in_flight.remove(n)).map(|f| f.1);
            (due, arrival)
        };
        lock(&self.facts).last_picture = Some(now);
        lock(&self.slot).push(
            due,
            Picture {
                raw,
                fitted: scaled,
                arrival,
            },
        );
        if !quiet {
            self.signal.ring();
        }
    }

    fn sound(&self, pts_us: i64, samples: &[f32]) {
        if self.tracks() == Tracks::Pictures {
            return;
        }
        let now = Instant::now();
        let at = self.since_zero(now);
        let due = {
            let mut clock = lock(&self.clock);
            let Some(due) = clock.mapper.map(pts_us) else {
                return;
            };
            clock.audio.observe(at - due);
            due
        };
        lock(&self.facts).last_sound = Some(now);
        lock(&self.track).push(samples, due);
        self.signal.ring_for_sound();
    }
}
