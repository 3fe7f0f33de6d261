//! How a publisher is doing lately: rates, stalls, GOPs, and how its sound stands to its pictures, second by second.
//!
//! Looks at arrival and decode times, roles and sizes, of the lowest track of each kind. Owns some 3.5 KB per publisher,
//! whatever comes. Says nothing of what is good or bad: that is [`super::findings`]. Kept by the relay for each epoch, and
//! read whenever somebody asks. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::message::{Kind, Message};

/// Seconds that are kept, the running one among them.
const KEPT: u64 = 32;
/// Whole seconds that rates are taken over.
const WINDOW: u64 = 10;
/// Whole seconds over which the best rates are looked for: shorter, and a burst would be one.
const BEST_WINDOW: u64 = 5;
/// Fewer whole seconds than this say nothing.
const LEAST: u64 = 3;
/// What the best rates of the past lose each second: half of it in some two minutes, so that a calmer scene becomes the usual.
const FADING: f64 = 0.995;
/// A gap between two arrivals, beyond the media time that passed in it, from which on it is a stall.
const STALL: Duration = Duration::from_millis(500);
/// A gap of arrival and media time alike from which on the publisher paused.
const PAUSE: Duration = Duration::from_millis(1_500);
/// Stalls and pauses that are kept.
const STALLS: usize = 16;
/// GOPs that are kept.
const GOPS: usize = 8;
/// Arrivals that jitter is told of: some seconds of pictures.
const ARRIVALS: usize = 128;
/// A publisher's clock is told when two looks at it are so far apart: below, jitter of the way is the larger part.
const CLOCK_AFTER: u64 = 60;

/// One second of arrivals.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    /// Which, from the first media on.
    number: u64,
    bytes: u64,
    pictures: u32,
    sounds: u32,
    /// Pictures that are shown before one that was sent earlier.
    reordered: u32,
    /// Sums of arrival − decode time, in tenths of a ms.
    picture_transit: i64,
    sound_transit: i64,
    least_transit: Option<i64>,
    /// How far the pictures' decode times went on, in ms.
    media_ms: i64,
}

/// A time in which nothing came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// When it was over.
    pub at: Instant,
    pub lasted: Duration,
    /// The publisher's own clock went on: it sent nothing, and nothing was held up on the way.
    pub is_pause: bool,
}

/// What is kept of a kind of media.
#[derive(Debug, Clone, Copy, Default)]
struct Track {
    /// The lowest that came.
    number: Option<u8>,
    last_ms: Option<i64>,
    ever: bool,
}

impl Track {
    fn admits(&mut self, message: &Message) -> bool {
        match self.number {
            Some(number) if message.track > number => false,
            Some(number) if message.track == number => true,
            _ => {
                self.number = Some(message.track);
                self.last_ms = None;
                true
            }
        }
    }
}

/// Watches one publisher.
#[derive(Debug, Clone)]
pub struct Vitals {
    /// When the first media came.
    begun: Option<Instant>,
    last: Option<Instant>,
    /// The furthest decode time of all media.
    furthest_ms: i64,
    seconds: [Second; KEPT as usize],
    current: u64,
    video: Track,
    audio: Track,
    /// The latest presentation time of a picture so far, in ms.
    shown_ms: i64,
    key_ms: Option<i64>,
    gops_ms: VecDeque<u32>,
    /// The longest way from decoding to showing, in ms, and the second in which it was seen.
    composition: (i32, u64),
    stalls: VecDeque<Stall>,
    /// Arrival − decode time of the newest pictures (sounds where there are none), in tenths of a ms.
    arrivals: VecDeque<i32>,
    best_rate: f64,
    best_bytes: f64,
    /// The least transit of the first seconds, in tenths of a ms.
    first_transit: Option<i64>,
    handling_us: VecDeque<u32>,
}

impl Default for Vitals {
    fn default() -> Self {
        Self {
            begun: None,
            last: None,
            furthest_ms: i64::MIN,
            seconds: [Second::default(); KEPT as usize],
            current: 0,
            video: Track::default(),
            audio: Track::default(),
            shown_ms: i64::MIN,
            key_ms: None,
            gops_ms: VecDeque::new(),
            composition: (0, 0),
            stalls: VecDeque::new(),
            arrivals: VecDeque::new(),
            best_rate: 0.0,
            best_bytes: 0.0,
            first_transit: None,
            handling_us: VecDeque::new(),
        }
    }
}

fn keep<T>(ring: &mut VecDeque<T>, value: T, most: usize) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(value);
}

impl Vitals {
    /// Takes note of a message of sound or pictures that came at `now`, with its time on the publisher's own timeline.
    pub fn note(&mut self, message: &Message, now: Instant) {
        if message.kind == Kind::Data {
            return;
        }
        let begun = *self.begun.get_or_insert(now);
        let since = now.saturating_duration_since(begun);
        self.turn_to(since.as_secs());
        self.second().bytes += message.payload.len() as u64;
        if message.is_header() {
            return;
        }
        let dts = message.dts.0;
        self.look_for_stall(dts, now);
        let transit = i64::try_from(since.as_micros() / 100).unwrap_or(i64::MAX) - dts * 10;
        match message.kind {
            Kind::Video if self.video.admits(message) => self.picture(message, transit),
            Kind::Audio if self.audio.admits(message) => {
                self.audio.ever = true;
                let second = self.second();
                second.sounds += 1;
                second.sound_transit += transit;
                if !self.video.ever {
                    self.arrive(transit);
                }
            }
            _ => {}
        }
    }

    /// One of its messages took so long from the socket to the ring.
    pub fn handled(&mut self, took: Duration) {
        let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        keep(&mut self.handling_us, us, ARRIVALS);
    }

    fn picture(&mut self, message: &Message, transit: i64) {
        let dts = message.dts.0;
        if !self.video.ever {
            // Sound may be on another time than pictures: their arrivals are not compared.
            self.arrivals.clear();
            self.first_transit = None;
            for second in &mut self.seconds {
                second.least_transit = None;
            }
        }
        self.arrive(transit);
        let last = self.video.last_ms.replace(dts);
        self.video.ever = true;
        let pts = message.pts().0;
        let reordered = pts < self.shown_ms;
        self.shown_ms = self.shown_ms.max(pts);
        let current = self.current;
        if message.composition_ms >= self.composition.0 || self.composition.1 + WINDOW < current {
            self.composition = (message.composition_ms, current);
        }
        let second = self.second();
        second.pictures += 1;
        second.reordered += u32::from(reordered);
        second.picture_transit += transit;
        second.media_ms += last.map_or(0, |last| dts - last).max(0);
        if message.is_video_key()
            && let Some(before) = self.key_ms.replace(dts)
        {
            let long = u32::try_from(dts - before).unwrap_or(0);
            keep(&mut self.gops_ms, long, GOPS);
        }
    }

    fn arrive(&mut self, transit: i64) {
        let second = self.second();
        second.least_transit = Some(second.least_transit.map_or(transit, |t| t.min(transit)));
        // Tenths of a ms in 32 bits are two and a half days around the first; a clock that jumps further has no jitter to tell.
        keep(&mut self.arrivals, transit as i32, ARRIVALS);
    }

    fn look_for_stall(&mut self, dts: i64, now: Instant) {
        let went_on = match self.furthest_ms {
            i64::MIN => 0,
            furthest => (dts - furthest).max(0),
        };
        self.furthest_ms = self.furthest_ms.max(dts);
        let Some(last) = self.last.replace(now) else {
            return;
        };
        let lasted = now.saturating_duration_since(last);
        let went_on = Duration::from_millis(u64::try_from(went_on).unwrap_or(0));
        let is_stall = lasted.saturating_sub(went_on) >= STALL;
        if is_stall || lasted >= PAUSE {
            let stall = Stall {
                at: now,
                lasted,
                is_pause: !is_stall,
            };
            keep(&mut self.stalls, stall, STALLS);
        }
    }

    fn second(&mut self) -> &mut Second {
        &mut self.seconds[(self.current % KEPT) as usize]
    }

    /// Closes the seconds before that one.
    fn turn_to(&mut self, number: u64) {
        while self.current < number {
            // Those that are kept stand for all that were missed.
            if number - self.current > KEPT {
                self.current = number - KEPT;
            }
            self.close();
            self.current += 1;
            let current = self.current;
            *self.second() = Second {
                number: current,
                ..Second::default()
            };
        }
    }

    /// The current second is over: what it and those before it say of the best.
    fn close(&mut self) {
        let whole = self.current + 1;
        self.best_rate *= FADING;
        self.best_bytes *= FADING;
        if whole == WINDOW {
            self.first_transit = self.sum(whole, WINDOW).least_transit;
        }
        if whole >= BEST_WINDOW {
            let sum = self.sum(whole, BEST_WINDOW);
            // Behind a stall more come than were made in the time.
            let media_s = (sum.media_ms as f64 / 1e3).max(BEST_WINDOW as f64);
            self.best_rate = self.best_rate.max(f64::from(sum.pictures) / media_s);
            self.best_bytes = self.best_bytes.max(sum.bytes as f64 / media_s);
        }
    }

    /// The `most` seconds before second `end`, together.
    fn sum(&self, end: u64, most: u64) -> Second {
        let mut sum = Second::default();
        let wanted = end.saturating_sub(most)..end;
        for second in self.seconds.iter().filter(|s| wanted.contains(&s.number)) {
            sum.bytes += second.bytes;
            sum.pictures += second.pictures;
            sum.sounds += second.sounds;
            sum.reordered += second.reordered;
            sum.picture_transit += second.picture_transit;
            sum.sound_transit += second.sound_transit;
            sum.media_ms += second.media_ms;
            sum.least_transit = match (sum.least_transit, second.least_transit) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        sum
    }

    /// What there is to say at `now`.
    pub fn reading(mut self, now: Instant) -> Reading {
        let mut reading = Reading::default();
        let (Some(begun), Some(last)) = (self.begun, self.last) else {
            return reading;
        };
        let age = now.saturating_duration_since(begun);
        self.turn_to(age.as_secs());
        let whole = self.current;
        reading.media_for = age;
        reading.silent = now.saturating_duration_since(last);
        reading.has_video = self.video.ever;
        reading.has_audio = self.audio.ever;
        reading.stalls = self.stalls.iter().copied().collect();
        reading.composition = Duration::from_millis(u64::try_from(self.composition.0).unwrap_or(0));
        reading.usual_gop = median(self.gops_ms.iter().copied()).map(millis);
        reading.running_gop = match (self.key_ms, self.video.last_ms) {
            (Some(key), Some(last)) => u32::try_from(last - key).ok().map(millis),
            _ => None,
        };
        reading.jitter = self.jitter();
        reading.handling = Spread::of(self.handling_us.iter().map(|us| u64::from(*us)));
        if whole < LEAST {
            return reading;
        }
        let over = whole.min(WINDOW);
        let sum = self.sum(whole, over);
        let a_second = |n: f64| n / over as f64;
        reading.rates = Some(Rates {
            fps: a_second(f64::from(sum.pictures)),
            best_fps: self.best_rate,
            kbps: a_second(sum.bytes as f64) * 8.0 / 1e3,
            best_kbps: self.best_bytes * 8.0 / 1e3,
            reordered: f64::from(sum.reordered) / f64::from(sum.pictures.max(1)),
        });
        if sum.pictures > 0 && sum.sounds > 0 {
            let pictures = sum.picture_transit / i64::from(sum.pictures);
            let sounds = sum.sound_transit / i64::from(sum.sounds);
            reading.audio_ahead_ms = Some((pictures - sounds) / 10);
        }
        reading.clock_ppm = match (self.first_transit, sum.least_transit) {
            (Some(first), Some(now)) if whole >= CLOCK_AFTER => {
                // A clock that is fast is less and less under way. A tenth of a ms in a second is 100 ppm.
                let seconds = (whole - WINDOW) as f64;
                Some(((first - now) as f64 * 100.0 / seconds).round() as i64)
            }
            _ => None,
        };
        reading
    }

    fn jitter(&self) -> Option<Spread> {
        let least = self.arrivals.iter().min()?;
        let late = self.arrivals.iter();
        // In µs.
        Spread::of(late.map(|t| (i64::from(*t) - i64::from(*least)) as u64 * 100))
    }
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

fn median(values: impl Iterator<Item = u32>) -> Option<u32> {
    let mut sorted: Vec<_> = values.collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

/// The least, the middle and the most of some times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    pub min: Duration,
    pub median: Duration,
    pub max: Duration,
    /// Of how many.
    pub count: usize,
}

impl Spread {
    /// Of times in µs; `None` of none.
    pub fn of(us: impl Iterator<Item = u64>) -> Option<Self> {
        let mut sorted: Vec<_> = us.collect();
        sorted.sort_unstable();
        let (first, last) = (sorted.first()?, sorted.last()?);
        Some(Self {
            min: Duration::from_micros(*first),
            median: Duration::from_micros(sorted[sorted.len() / 2]),
            max: Duration::from_micros(*last),
            count: sorted.len(),
        })
    }
}

/// A publisher as it was found. Durations are wall time unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// Since the first media.
    pub media_for: Duration,
    /// Since the latest.
    pub silent: Duration,
    pub has_video: bool,
    pub has_audio: bool,
    /// Over the latest ten seconds, or as many as there are; `None` in the first three.
    pub rates: Option<Rates>,
    /// The latest of them, oldest first, whenever they were.
    pub stalls: Vec<Stall>,
    /// Media time from key frame to key frame, the median of the latest eight.
    pub usual_gop: Option<Duration>,
    /// Media time since the latest key frame; `None`: there was none.
    pub running_gop: Option<Duration>,
    /// The longest way of a picture from its decode time to its presentation time lately.
    pub composition: Duration,
    /// By how much the times of sound are ahead of those of pictures that arrive with it; negative: behind.
    pub audio_ahead_ms: Option<i64>,
    /// How much later than the earliest of them the latest 128 pictures came, by their decode times.
    pub jitter: Option<Spread>,
    /// From the socket to the ring, of some messages.
    pub handling: Option<Spread>,
    /// How much faster than ours its clock is, in millionths; known after a minute.
    pub clock_ppm: Option<i64>,
}

/// What comes in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Pictures of the main track.
    pub fps: f64,
    /// The best of the last minutes, which fades.
    pub best_fps: f64,
    /// Payloads of all tracks, in kilobits.
    pub kbps: f64,
    pub best_kbps: f64,
    /// The share of pictures that are shown before one that was sent earlier: 0 without B-frames.
    pub reordered: f64,
}
