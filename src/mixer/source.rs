//! A stream's decoders, once for all the mixes that use it.
//!
//! [`Sources`] knows who is being decoded; a [`Source`] is what the feeding task ([`feed`](super::feed)) and the decoders'
//! callbacks fill: its clock, what is known of its format, and the [`View`]s, one per mix, among which pictures and
//! samples are handed out. A picture is shared, not copied, and cut and scaled once for all views that want it alike;
//! samples are resampled once per rate that is asked for. The last view that leaves takes task and decoders along.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::Notify;

use super::clock::Mapper;
use super::codec::Coding;
use super::decode::{Count, Sink};
use super::feed;
use super::format::AudioConfig;
use super::input::{Picture, View};
use super::layout::Size;
use super::picture::{Cut, Raw};
use super::resample::Resampler;
use super::scene::Tracks;
use super::user_data::Carried;
use crate::media::{Cadence, Codec, Kind, StreamKey};
use crate::relay::Relay;

/// Arrivals remembered until their pictures are decoded.
const MAX_IN_FLIGHT: usize = 64;
/// A mix that joins is given the newest picture at once when it is no older than this.
const NEWEST_FOR: Duration = Duration::from_secs(1);

/// Locks hold values that are complete after every statement, so one whose holder panicked can be read on.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of the stream's format.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Size of its newest picture as meant to be seen, shown or not.
    pub size: Option<Size>,
    pub audio: Option<AudioConfig>,
    /// By the newest headers.
    codecs: [Option<Codec>; 2],
    /// Why there are no pictures, and no sound: a codec that is not decoded here, or what its decoder died of.
    troubles: [Option<String>; 2],
}

impl Facts {
    /// How that kind is coded, or why it is not decoded.
    pub fn set_coding(&mut self, kind: Kind, codec: Codec, coding: Result<&Coding, &String>) {
        self.codecs[place(kind)] = Some(codec);
        self.troubles[place(kind)] = coding.err().cloned();
        if let Ok(coding) = coding {
            self.audio = coding.audio.or(self.audio);
        }
    }

    /// What is wrong with that kind now; `None`: nothing any more.
    pub fn set_trouble(&mut self, kind: Kind, trouble: Option<String>) {
        self.troubles[place(kind)] = trouble;
    }

    /// What is wrong, the pictures first.
    pub fn trouble(&self) -> Option<&str> {
        let [video, audio] = &self.troubles;
        video.as_deref().or(audio.as_deref())
    }

    /// A codec that our encoders do not make, which a mix in place would change.
    pub fn foreign(&self) -> Option<String> {
        let [video, audio] = self.codecs;
        let foreign = |codec: Option<Codec>, ours| codec.filter(|&codec| codec != ours);
        foreign(video, Codec::H264)
            .or(foreign(audio, Codec::Aac))
            .map(|codec| format!("{codec:?}"))
            .or_else(|| {
                let plain = self.audio.is_none_or(|audio| audio.plain);
                (!plain).then(|| "HE-AAC".to_owned())
            })
    }
}

fn place(kind: Kind) -> usize {
    usize::from(kind != Kind::Video)
}

/// All sources of this server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sources {
    relay: Relay,
    runtime: tokio::runtime::Handle,
    running: Arc<Mutex<HashMap<StreamKey, Weak<Running>>>>,
    means: Means,
}

/// What decoders are made with.
#[derive(Clone)]
pub(super) struct Means {
    /// Folder for the graphs of failed ones.
    pub graphs: Option<PathBuf>,
    pub count: Arc<Count>,
}

/// A source at work. Dropping it ends its task and decoders.
pub(super) struct Running {
    source: Arc<Source>,
    task: tokio::task::AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::ops::Deref for Running {
    type Target = Source;
    fn deref(&self) -> &Source {
        &self.source
    }
}

impl Sources {
    /// Streams of `relay`, read by tasks on `runtime`.
    pub fn new(relay: Relay, runtime: tokio::runtime::Handle, graphs: Option<PathBuf>) -> Self {
        Self {
            relay,
            runtime,
            running: Arc::default(),
            means: Means {
                graphs,
                count: Arc::default(),
            },
        }
    }

    /// Decoders of that kind now.
    pub fn decoders(&self, kind: Kind) -> usize {
        self.means.count.of(kind)
    }

    /// Makes the decoder of that kind that was made last fail.
    #[cfg(test)]
    pub fn break_newest(&self, kind: Kind) {
        self.means.count.break_newest(kind);
    }

    /// Makes the decoder of that kind that was made last give nothing any more; it `hangs`, or swallows.
    #[cfg(test)]
    pub fn still_newest(&self, kind: Kind, hangs: bool) {
        self.means.count.still_newest(kind, hangs);
    }

    /// Makes the decoder of pictures that was made last, and those made after it, take that long for each.
    #[cfg(test)]
    pub fn slow_down(&self, each: Duration) {
        self.means.count.slow_down(each);
    }

    /// The source `key`, for one who wants `tracks` of it: the one that is at work, or a new one. A newcomer who wants
    /// pictures of a source that decodes only sound gets one of its own: it begins with what the ring still has of the GOP
    /// instead of waiting for the next key frame, and the sound of the others has no gap.
    pub fn find(&self, key: &StreamKey, tracks: Tracks) -> Arc<Running> {
        let mut running = lock(&self.running);
        let kept = running.get(key).and_then(Weak::upgrade);
        if let Some(kept) = kept.filter(|kept| tracks == Tracks::Sound || kept.wants_pictures()) {
            return kept;
        }
        running.retain(|_, source| source.strong_count() > 0);
        // The task may begin before this one goes on, and whoever asks next must find it decoding what it was made for.
        let source = Arc::new(Source::new());
        source.wish(tracks);
        let feeding = feed::run(
            self.relay.clone(),
            key.clone(),
            source.clone(),
            self.means.clone(),
        );
        let task = self.runtime.spawn(feeding).abort_handle();
        let started = Arc::new(Running { source, task });
        running.insert(key.clone(), Arc::downgrade(&started));
        started
    }
}

#[derive(Debug, Default)]
struct Clock {
    mapper: Mapper,
    /// Pictures before this media time are the catch-up; `None` while catching up.
    live_from_us: Option<i64>,
    in_flight: VecDeque<(i64, Instant)>,
    cadence: Cadence,
}

/// What the feeding task, the decoders' callbacks and the mixes' views share.
pub(super) struct Source {
    zero: Instant,
    clock: Mutex<Clock>,
    facts: Mutex<Facts>,
    views: ArcSwap<Vec<Arc<View>>>,
    /// The newest live picture with its due time on our clock and when it was decoded; held while a view is added.
    newest: Mutex<Option<(i64, Raw, Instant)>>,
    wants_pictures: AtomicBool,
    wants_sound: AtomicBool,
    /// Are SEI messages of user data to come with their pictures?
    wants_user_data: AtomicBool,
    /// Those whose pictures are not decoded yet.
    user_data: Mutex<Carried>,
    /// Messages that were not decoded.
    lost: AtomicU64,
    /// Used by the sound decoder's thread alone.
    resamplers: Mutex<Vec<Resampler>>,
    /// Woken by each decoded picture, for the catch-up's pace.
    pub decoded: Notify,
}

impl Source {
    fn new() -> Self {
        Self {
            zero: Instant::now(),
            clock: Mutex::default(),
            facts: Mutex::default(),
            views: ArcSwap::default(),
            newest: Mutex::default(),
            wants_pictures: AtomicBool::new(false),
            wants_sound: AtomicBool::new(false),
            wants_user_data: AtomicBool::new(false),
            user_data: Mutex::default(),
            lost: AtomicU64::new(0),
            resamplers: Mutex::default(),
            decoded: Notify::new(),
        }
    }

    /// The moment from which our clock counts.
    pub fn zero(&self) -> Instant {
        self.zero
    }

    fn since_zero(&self, now: Instant) -> i64 {
        // No source outlives 292,000 years.
        now.saturating_duration_since(self.zero).as_micros() as i64
    }

    /// Pictures and sound are for this one too from now on. It begins with the newest picture, if there is a fresh one.
    pub fn join(&self, view: &Arc<View>) {
        let newest = lock(&self.newest);
        let now = Instant::now();
        if let Some((due_us, raw, at)) = &*newest
            && view.tracks() != Tracks::Sound
            && now.saturating_duration_since(*at) < NEWEST_FOR
        {
            view.begin_with(*due_us, raw.clone(), now);
        }
        let mut views: Vec<_> = self.views.load().to_vec();
        views.push(view.clone());
        self.views.store(Arc::new(views));
        drop(newest);
        self.wishes_changed();
    }

    /// Nothing is for that one any more.
    pub fn leave(&self, view: &Arc<View>) {
        let newest = lock(&self.newest);
        let views = self.views.load();
        let others = views.iter().filter(|other| !Arc::ptr_eq(other, view));
        let others: Vec<_> = others.cloned().collect();
        self.views.store(Arc::new(others));
        drop(newest);
        self.wishes_changed();
    }

    /// Somebody wants something else than before.
    pub fn wishes_changed(&self) {
        // Under the lock of those who come and go: of two changes the later one counts.
        let _one_at_a_time = lock(&self.newest);
        let views = self.views.load();
        let any = |not: Tracks| views.iter().any(|view| view.tracks() != not);
        self.wants_pictures
            .store(any(Tracks::Sound), Ordering::Release);
        self.wants_sound
            .store(any(Tracks::Pictures), Ordering::Release);
        let carried = views.iter().any(|view| view.carries());
        if self.wants_user_data.swap(carried, Ordering::AcqRel) && !carried {
            lock(&self.user_data).clear();
        }
    }

    fn wish(&self, tracks: Tracks) {
        self.wants_pictures
            .store(tracks != Tracks::Sound, Ordering::Release);
        self.wants_sound
            .store(tracks != Tracks::Pictures, Ordering::Release);
    }

    pub fn wants_pictures(&self) -> bool {
        self.wants_pictures.load(Ordering::Acquire)
    }

    pub fn wants_sound(&self) -> bool {
        self.wants_sound.load(Ordering::Acquire)
    }

    pub fn wants_user_data(&self) -> bool {
        self.wants_user_data.load(Ordering::Acquire)
    }

    /// The picture of that time has these SEI messages of user data.
    pub fn carry(&self, pts_ms: i64, messages: Bytes) {
        // As the decoder is told it.
        lock(&self.user_data).push(pts_ms.max(0) * 1_000, messages);
    }

    pub fn facts(&self) -> Facts {
        lock(&self.facts).clone()
    }

    pub fn with_facts(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut lock(&self.facts));
    }

    /// Usual time between pictures, and pictures a second.
    pub fn interval_us(&self) -> Option<i64> {
        lock(&self.clock).cadence.interval_us()
    }

    pub fn fps(&self) -> Option<u32> {
        lock(&self.clock).cadence.fps()
    }

    /// Messages not decoded so far: waiting for a key frame, or the decoder was behind.
    pub fn messages_lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub fn lost(&self, messages: u64) {
        self.lost.fetch_add(messages, Ordering::Relaxed);
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
            for view in self.views.load().iter() {
                view.shift_sound(by);
            }
        }
    }

    /// An access unit's decode time, live or not: tells the frame rate.
    pub fn paced(&self, dts_ms: i64) {
        lock(&self.clock).cadence.observe(dts_ms);
    }

    /// When that picture is due, and when its access unit arrived; `None`: it is catch-up.
    fn place_picture(&self, pts_us: i64) -> Option<(i64, Option<Instant>)> {
        let mut clock = lock(&self.clock);
        let live_from = clock.live_from_us?;
        if pts_us < live_from {
            return None;
        }
        let due_us = clock.mapper.map(pts_us)?;
        let found = clock.in_flight.iter().position(|&(pts, _)| pts == pts_us);
        let arrival = found.and_then(|n| clock.in_flight.remove(n)).map(|f| f.1);
        Some((due_us, arrival))
    }

    /// The samples at another rate, and how much earlier than theirs the first one's place is, in µs.
    fn resampled(&self, from: u32, to: u32, samples: &[f32]) -> Option<(i64, Vec<f32>)> {
        let mut resamplers = lock(&self.resamplers);
        let found = resamplers.iter().position(|r| r.is(from, to));
        let at = match found {
            Some(at) => at,
            None => {
                let made = Resampler::new(from, to);
                let made = made.map_err(|error| tracing::warn!(error, "sound not resampled"));
                resamplers.push(made.ok()?);
                resamplers.len() - 1
            }
        };
        Some(resamplers.get_mut(at)?.convert(samples))
    }
}

impl Sink for Source {
    fn picture(&self, pts_us: i64, raw: Raw) {
        self.decoded.notify_one();
        lock(&self.facts).size = Some(raw.seen());
        let Some((due_us, arrival)) = self.place_picture(pts_us) else {
            return;
        };
        let user_data = match self.wants_user_data() {
            true => lock(&self.user_data).take_until(pts_us),
            false => Bytes::new(),
        };
        *lock(&self.newest) = Some((due_us, raw.clone(), Instant::now()));
        // Mixes of one layout want it alike.
        let mut scaled: Vec<(Cut, Option<Raw>)> = Vec::new();
        for view in self.views.load().iter() {
            if view.tracks() == Tracks::Sound {
                continue;
            }
            let fitted = view.cut().and_then(|cut| {
                let done = scaled.iter().find(|(of, _)| *of == cut);
                let fitted = match done {
                    Some((_, fitted)) => fitted.clone(),
                    None => {
                        let fitted = view.scale(&raw, cut);
                        scaled.push((cut, fitted.clone()));
                        fitted
                    }
                };
                Some((cut, fitted?))
            });
            let picture = Picture {
                raw: raw.clone(),
                fitted,
                arrival,
                decoded: Some(Instant::now()),
            };
            view.take_user_data(due_us, &user_data);
            view.take_picture(due_us, picture, Instant::now());
        }
    }

    fn sound(&self, pts_us: i64, rate: u32, samples: &[f32]) {
        let Some(due_us) = lock(&self.clock).mapper.map(pts_us) else {
            return;
        };
        let views = self.views.load();
        let mut done: Vec<(u32, i64, Vec<f32>)> = Vec::new();
        for view in views.iter() {
            if view.tracks() == Tracks::Pictures {
                continue;
            }
            let wanted = view.rate();
            let now = Instant::now();
            if wanted == rate {
                view.take_sound((due_us, pts_us), rate, samples, now);
                continue;
            }
            if !done.iter().any(|(to, ..)| *to == wanted) {
                let Some((held_us, made)) = self.resampled(rate, wanted, samples) else {
                    continue;
                };
                done.push((wanted, held_us, made));
            }
            if let Some((_, held_us, made)) = done.iter().find(|(to, ..)| *to == wanted) {
                view.take_sound((due_us - held_us, pts_us - held_us), wanted, made, now);
            }
        }
        lock(&self.resamplers).retain(|r| done.iter().any(|(to, ..)| r.is(rate, *to)));
    }
}
