//! The output of a mix: encoded packets become messages of a stream, and their cost in time is taken down.
//!
//! Called from the encoders' threads. Publishing never blocks (the relay's rule), so it happens right here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::aac::Encoder;
use super::audio::BLOCK;
use super::format::{self, Metadata};
use super::outlet::Outlet;
use super::program::{Packet, Packets};
use super::signal::Signal;
use super::{Observer, Stage, user_data};
use crate::media::vitals::Spread;
use crate::media::{Kind, MediaTime, Message};
use crate::relay::Status;

/// Output frames between encoder and gathering at most.
const MAX_IN_FLIGHT: usize = 32;
/// Frames whose added latency is kept for the percentiles: some 30 s.
const LATENCIES: usize = 1_024;
/// Frames whose stages are kept: some 10 s.
const STAGES: usize = 256;
/// Frames over which the time in the encoder is averaged.
const ENCODED: u64 = 32;

/// No time in µs.
const UNKNOWN: i64 = i64::MIN;

/// Numbers of a mix that outlive its pipelines.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub frames: AtomicU64,
    /// Frames of sound that came out of encoders, published or not.
    pub sounds: AtomicU64,
    pub skipped: AtomicU64,
    pub restarts: AtomicU64,
    /// Times of the latest picture and block of sound published, in ns since the mix's zero: where the next pipeline
    /// goes on.
    last_picture_ns: AtomicU64,
    last_sound_ns: AtomicU64,
    latencies: Mutex<VecDeque<Duration>>,
    /// In µs, in the order of [`Journey::stages`].
    stages: Mutex<VecDeque<[u32; 4]>>,
    /// Mean time of a frame in the encoder lately, in ns; 0: not known.
    encoding_ns: AtomicU64,
    /// The step of the ladder that it stands on (see `governor`).
    pub level: AtomicUsize,
}

impl Tally {
    fn latency(&self, latency: Duration) {
        let mut latencies = lock(&self.latencies);
        if latencies.len() == LATENCIES {
            latencies.pop_front();
        }
        latencies.push_back(latency);
    }

    fn stages(&self, stages: [(Stage, Duration); 4]) {
        let us = |(_, took): (Stage, Duration)| u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let mut kept = lock(&self.stages);
        if kept.len() == STAGES {
            kept.pop_front();
        }
        kept.push_back(stages.map(us));
    }

    /// How long the latest pictures of the lead were in each stage, and in all (`added`).
    pub fn spreads(&self) -> Vec<(&'static str, Spread)> {
        let kept: Vec<_> = lock(&self.stages).iter().copied().collect();
        let of = |n: usize| Spread::of(kept.iter().map(|stages| u64::from(stages[n])));
        let words = [Stage::Decode, Stage::Hold, Stage::Beat, Stage::Encode].map(Stage::word);
        let each = words.into_iter().enumerate().map(|(n, word)| (word, of(n)));
        let sums = kept.iter().map(|s| s.iter().copied().map(u64::from).sum());
        let all = each.chain([("added", Spread::of(sums))]);
        all.filter_map(|(word, spread)| Some((word, spread?)))
            .collect()
    }

    /// A frame took that long in the encoder. Called by one thread at a time.
    fn encoded(&self, took: Duration) {
        let took = took.as_nanos() as u64;
        let mean = match self.encoding_ns.load(Ordering::Relaxed) {
            0 => took,
            mean => mean - mean / ENCODED + took / ENCODED,
        };
        self.encoding_ns.store(mean.max(1), Ordering::Relaxed);
    }

    /// Mean time of a frame in the encoder lately; `None`: not known.
    pub fn encoding(&self) -> Option<Duration> {
        let mean = self.encoding_ns.load(Ordering::Relaxed);
        (mean > 0).then(|| Duration::from_nanos(mean))
    }

    /// Another encoder begins.
    pub fn forget_encoding(&self) {
        self.encoding_ns.store(0, Ordering::Relaxed);
    }

    /// Time of the latest picture published, in ns since the mix's zero; 0 before the first.
    pub fn last_picture_ns(&self) -> u64 {
        self.last_picture_ns.load(Ordering::Relaxed)
    }

    /// Time of the latest picture published, in µs since the mix's zero; 0 before the first.
    pub fn last_picture_us(&self) -> i64 {
        (self.last_picture_ns.load(Ordering::Relaxed) / 1_000) as i64
    }

    /// Median and 99th percentile of the added latency; `None` before the first frame.
    pub fn latencies(&self) -> Option<(Duration, Duration)> {
        let mut sorted: Vec<_> = lock(&self.latencies).iter().copied().collect();
        sorted.sort_unstable();
        let at = |share: usize| sorted.get(((sorted.len() * share).div_ceil(100)).max(1) - 1);
        Some((*at(50)?, *at(99)?))
    }
}

/// See the metrics' side in [`Observer`].
pub(super) type SharedObserver = RwLock<Option<Arc<dyn Observer>>>;

/// Publishes one pipeline's packets.
pub(super) struct Output {
    outlet: Arc<Outlet>,
    signal: Arc<Signal>,
    tally: Arc<Tally>,
    observer: Arc<SharedObserver>,
    metadata: Metadata,
    encoder: Encoder,
    video_header: Mutex<Bytes>,
    /// Goes in front of each key frame, as a NAL unit.
    sei: Mutex<Bytes>,
    audio_header: Mutex<Bytes>,
    /// Set with the AAC header: from here on pictures may follow, since a splice takes both headers along.
    sounding: AtomicBool,
    done: AtomicBool,
    /// By how much the output's time of the lead's sound is later than the lead's own, in µs; [`UNKNOWN`]: it has none.
    later_us: AtomicI64,
    /// Frames in the encoder, by their times.
    in_flight: Mutex<VecDeque<(u64, Gathered)>>,
}

/// A frame that went into the encoder.
#[derive(Debug, Clone)]
pub(super) struct Gathered {
    pub at: Instant,
    /// The SEI messages of the lead's picture in it, when it is a new one and they are to be carried over.
    pub user_data: Bytes,
    /// The lead's picture in it, when it is a new one.
    pub fresh: Option<Journey>,
}

/// When a picture was where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Journey {
    pub arrival: Instant,
    pub decoded: Instant,
    /// When it was due on the mix's clock: it is held until then.
    pub due: Instant,
}

impl Journey {
    /// How long it was in each stage, if it was gathered and published then. They add up to all of its time.
    fn stages(&self, gathered: Instant, published: Instant) -> [(Stage, Duration); 4] {
        let between = |from: Instant, to: Instant| to.saturating_duration_since(from);
        let held_until = self.due.clamp(self.decoded, gathered.max(self.decoded));
        [
            (Stage::Decode, between(self.arrival, self.decoded)),
            (Stage::Hold, between(self.decoded, held_until)),
            (Stage::Beat, between(held_until, gathered)),
            (Stage::Encode, between(gathered, published)),
        ]
    }
}

/// Locks hold values that are complete after every statement, so one whose holder panicked can be read on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Output {
    pub fn new(
        outlet: Arc<Outlet>,
        signal: Arc<Signal>,
        tally: Arc<Tally>,
        observer: Arc<SharedObserver>,
        metadata: Metadata,
        encoder: Encoder,
    ) -> Self {
        Self {
            outlet,
            signal,
            tally,
            observer,
            metadata,
            encoder,
            video_header: Mutex::default(),
            sei: Mutex::default(),
            audio_header: Mutex::default(),
            sounding: AtomicBool::new(false),
            done: AtomicBool::new(false),
            later_us: AtomicI64::new(UNKNOWN),
            in_flight: Mutex::default(),
        }
    }

    /// Sound has begun to come out, so pictures may go in.
    pub fn is_sounding(&self) -> bool {
        self.sounding.load(Ordering::Acquire)
    }

    /// The relay wants no more.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Key frames carry that text from the next one on; `None`: none.
    pub fn tell(&self, text: Option<&str>) {
        let unit = |text: &str| user_data::unit(&user_data::text(text.as_bytes()));
        *lock(&self.sei) = text.map_or_else(Bytes::new, unit);
    }

    /// By how much the output's time of the lead's sound is later than the lead's own; `None`: it has no sound.
    pub fn follow(&self, later_us: Option<i64>) {
        self.later_us
            .store(later_us.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    /// What of the lead sounds at that time, by the lead's own time.
    fn of_lead(&self, time_ns: u64) -> Option<MediaTime> {
        let later_us = self.later_us.load(Ordering::Relaxed);
        (later_us != UNKNOWN).then(|| {
            let time_us = (time_ns / 1_000) as i64 - later_us;
            MediaTime((time_us + 500).div_euclid(1_000))
        })
    }

    /// The output frame at `pts_ns` is about to go into the encoder.
    pub fn expect(&self, pts_ns: u64, frame: Gathered) {
        let mut in_flight = lock(&self.in_flight);
        if in_flight.len() == MAX_IN_FLIGHT {
            in_flight.pop_front();
        }
        in_flight.push_back((pts_ns, frame));
    }

    /// The frame of that time, out of the encoder, with the SEI messages that it takes along: those of frames that never
    /// came out too.
    fn gathered(&self, time_ns: u64) -> (Option<Gathered>, Bytes) {
        let mut in_flight = lock(&self.in_flight);
        let mut carried = Bytes::new();
        // The encoder keeps times to the nanosecond, give or take a rounding.
        while let Some((_, gone)) = in_flight.pop_front_if(|(t, _)| *t + 1_000 < time_ns) {
            carried = user_data::joined(carried, gone.user_data);
        }
        let frame = in_flight
            .pop_front_if(|(t, _)| *t <= time_ns + 1_000)
            .map(|(_, frame)| frame);
        if let Some(frame) = &frame {
            carried = user_data::joined(carried, frame.user_data.clone());
        }
        (frame, carried)
    }

    fn publish(&self, kind: Kind, time_ns: u64, payload: Bytes) {
        self.publish_of(kind, time_ns, payload, None);
    }

    /// `of`: what of the lead it is, by the lead's own time.
    fn publish_of(&self, kind: Kind, time_ns: u64, payload: Bytes, of: Option<MediaTime>) {
        let dts = MediaTime(((time_ns + 500_000) / 1_000_000) as i64);
        let message = Message::new(kind, dts, payload);
        let status = self.outlet.publish_of(message, of, Instant::now());
        let over = matches!(status, Status::Done | Status::Resting);
        if over && !self.done.swap(true, Ordering::AcqRel) {
            self.signal.ring();
        }
    }

    fn observe(&self, tell: impl Fn(&dyn Observer)) {
        let observer = self.observer.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(observer) = observer.as_deref() {
            tell(observer);
        }
    }
}

/// Is `header` another one than last time? It is kept.
fn renewed(kept: &Mutex<Bytes>, header: &[u8]) -> bool {
    let mut kept = lock(kept);
    let renewed = kept.as_ref() != header;
    if renewed {
        *kept = Bytes::copy_from_slice(header);
    }
    renewed
}

impl Packets for Output {
    fn video(&self, packet: Packet<'_>) {
        let Packet {
            time_ns,
            key,
            header,
            bytes: unit,
        } = packet;
        if renewed(&self.video_header, header) {
            self.publish(Kind::Data, time_ns, self.metadata.payload());
            self.publish(Kind::Video, time_ns, format::avc_header(header));
        }
        let (frame, carried) = self.gathered(time_ns);
        let carried = user_data::unit(&carried);
        let payload = if key {
            let sei = [lock(&self.sei).clone(), carried].concat();
            format::avc_key_frame(header, &sei, unit)
        } else {
            format::avc_frame(&carried, unit)
        };
        self.publish(Kind::Video, time_ns, payload);
        self.tally
            .last_picture_ns
            .fetch_max(time_ns, Ordering::Relaxed);
        let now = Instant::now();
        self.tally.frames.fetch_add(1, Ordering::Relaxed);
        self.observe(|o| o.frame());
        let Some(frame) = frame else { return };
        self.tally.encoded(now.saturating_duration_since(frame.at));
        if let Some(picture) = frame.fresh {
            let latency = now.saturating_duration_since(picture.arrival);
            self.tally.latency(latency);
            let stages = picture.stages(frame.at, now);
            self.tally.stages(stages);
            self.observe(|o| {
                o.added_latency(latency);
                for (stage, took) in stages {
                    o.stage(stage, took);
                }
            });
        }
    }

    fn audio(&self, packet: Packet<'_>) {
        let Packet {
            time_ns,
            header,
            bytes: frame,
            ..
        } = packet;
        self.tally.sounds.fetch_add(1, Ordering::Relaxed);
        // What the encoder begins with is made of nothing: all its sound comes that much later than it says.
        let rate = self.metadata.audio.rate;
        let sounds_at = time_ns.checked_sub(self.encoder.delay_ns(rate));
        if renewed(&self.audio_header, header) {
            let time_ns = sounds_at.unwrap_or_default();
            self.publish(Kind::Audio, time_ns, format::aac_header(header));
            self.sounding.store(true, Ordering::Release);
            self.signal.ring();
        }
        // What would sound before the mix's zero is that beginning, and nothing is in it.
        let Some(time_ns) = sounds_at else {
            return;
        };
        // A pipeline's first blocks only wake its encoder: the pipeline before it has told of that time. An eighth of a block
        // of tolerance, because a lead whose clock is being learnt makes blocks a little shorter.
        let last = self
            .tally
            .last_sound_ns
            .fetch_max(time_ns, Ordering::Relaxed);
        let apart_ns = BLOCK as u64 * 875_000_000 / u64::from(rate);
        if last == 0 || last + apart_ns < time_ns {
            let of = self.of_lead(time_ns);
            self.publish_of(Kind::Audio, time_ns, format::aac_frame(frame), of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_of_a_picture_add_up_to_its_time_in_the_mix() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        // (decoded, due, gathered, published), and what each stage took.
        for (times, took) in [
            ((5, 20, 26, 30), [5, 15, 6, 4]),
            // Late: nothing to hold it for.
            ((25, 20, 26, 30), [25, 0, 1, 4]),
            // The beat was a little ahead of the picture's time.
            ((5, 20, 18, 30), [5, 13, 0, 12]),
        ] {
            let (decoded, due, gathered, published) = times;
            let journey = Journey {
                arrival: t0,
                decoded: at(decoded),
                due: at(due),
            };
            let stages = journey.stages(at(gathered), at(published));
            let got = stages.map(|(_, took)| took.as_millis());
            assert_eq!(got, took, "{times:?}");
            assert_eq!(got.iter().sum::<u128>(), 30);
        }
    }
}
