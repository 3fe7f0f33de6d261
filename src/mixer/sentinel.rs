//! One input of a mix that rests: whether its stream comes, and in what format, told without decoding it.
//!
//! Reads what the relay has of the stream, ten times a second at most once it is there, and rings the mix's bell when it
//! comes. Dropping it ends the task.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::codec::Coding;
use super::format::{self, AudioConfig};
use super::input::HELD_AFTER;
use super::layout::Size;
use super::pass::Main;
use super::scene::Tracks;
use super::signal::Signal;
use super::sps;
use crate::media::{Cadence, Codec, Feed, Headers, Kind, Message, Slot, StreamKey};
use crate::relay::{Item, Relay, Subscriber};

/// From one look at a stream that is there to the next: of no more use to the mix's thread than this often.
const PACE: Duration = Duration::from_millis(100);
/// Messages taken from the ring at once: more than come in [`PACE`].
const BATCH: usize = 256;

/// What was seen of the stream.
#[derive(Default)]
struct Sight {
    /// When the first and the latest message came that a decoder could have used.
    first: Option<Instant>,
    last: Option<Instant>,
    cadence: Cadence,
    video: Option<Arc<Message>>,
    size: Option<Size>,
    sound: Option<Arc<Message>>,
    /// How its sound would come out, by its header; `None` also when no decoder takes it.
    audio: Option<AudioConfig>,
    /// Sound has come in a codec that has no header, and that a decoder takes.
    bare: bool,
    foreign: Option<String>,
}

/// Watches the source feed of one stream.
pub(super) struct Sentinel {
    key: StreamKey,
    sight: Arc<Mutex<Sight>>,
    task: tokio::task::AbortHandle,
}

/// Complete after every statement, so one whose holder panicked can be read on.
fn lock(sight: &Mutex<Sight>) -> MutexGuard<'_, Sight> {
    sight.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sentinel {
    /// Starts watching `key`, of which the latest was seen at `last`. `signal` is rung when the stream comes.
    pub fn new(
        key: StreamKey,
        last: Option<Instant>,
        relay: &Relay,
        runtime: &tokio::runtime::Handle,
        signal: Arc<Signal>,
    ) -> Self {
        let subscriber = relay.watch(&key, Feed::Source);
        let mut sight = Sight {
            last,
            ..Sight::default()
        };
        // Who is there already is not waited for.
        let publisher = relay.stream_info(&key).and_then(|info| info.publisher);
        if let Some(idle) = publisher.and_then(|publisher| publisher.idle)
            && subscriber.can_begin()
        {
            sight.heed(&subscriber.headers());
            if sight.is_decodable() {
                sight.first = Some(Instant::now());
                sight.last = Instant::now().checked_sub(idle).max(last);
            }
        }
        let sight = Arc::new(Mutex::new(sight));
        let task = runtime.spawn(watch(subscriber, sight.clone(), signal));
        Self {
            key,
            sight,
            task: task.abort_handle(),
        }
    }

    pub fn key(&self) -> &StreamKey {
        &self.key
    }

    /// Time since its latest message; `None`: none of use has ever come.
    pub fn silent(&self, now: Instant) -> Option<Duration> {
        let last = lock(&self.sight).last?;
        Some(now.saturating_duration_since(last))
    }

    /// Has it come only just now, so that more of it will be known in a moment?
    pub fn is_new(&self, now: Instant) -> bool {
        let first = lock(&self.sight).first;
        first.is_none_or(|first| now.saturating_duration_since(first) < HELD_AFTER)
    }

    /// Has its stream something of what is taken?
    pub fn offers(&self, tracks: Tracks) -> bool {
        let sight = lock(&self.sight);
        match tracks {
            Tracks::Both => sight.is_decodable(),
            Tracks::Sound => sight.has_sound(),
            Tracks::Pictures => sight.has_pictures(),
        }
    }

    pub fn size(&self) -> Option<Size> {
        lock(&self.sight).size
    }

    /// What is known of it as a main; `None` until it has come.
    pub fn main(&self) -> Option<Main> {
        let sight = lock(&self.sight);
        sight.first?;
        Some(Main {
            size: sight.size,
            fps: sight.cadence.fps(),
            audio: sight.audio.map(|audio| audio.format),
            foreign: sight.foreign.clone(),
        })
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The size of the pictures that these headers announce; `None` of what is not H.264.
pub(super) fn size(headers: &Headers) -> Option<Size> {
    let video = headers.find(Kind::Video, Slot::Sequence)?;
    let record = format::body(video).filter(|_| video.codec == Codec::H264)?;
    sps::size(format::parameter_set(&record)?)
}

async fn watch(mut subscriber: Subscriber, sight: Arc<Mutex<Sight>>, signal: Arc<Signal>) {
    let mut items: Vec<Arc<Item>> = Vec::new();
    loop {
        subscriber.ready().await;
        items.clear();
        subscriber.try_read(BATCH, &mut items);
        if !subscriber.can_begin() {
            continue;
        }
        let (headers, now) = (subscriber.headers(), Instant::now());
        let news = lock(&sight).note(&headers, &items, now);
        items.clear();
        if news {
            signal.ring();
        }
        tokio::time::sleep(PACE).await;
    }
}

impl Sight {
    /// Takes note of messages. Has the stream come with them, for the first time or after a pause?
    fn note(&mut self, headers: &Headers, items: &[Arc<Item>], now: Instant) -> bool {
        self.heed(headers);
        for message in items.iter().map(|item| item.message()) {
            if message.kind == Kind::Video && !message.is_header() && message.track == 0 {
                self.cadence.observe(message.dts.0);
            }
            if message.kind == Kind::Audio && !self.bare {
                self.bare = matches!(Coding::of_frame(message), Some(Ok(_)));
            }
        }
        if items.is_empty() || !self.is_decodable() {
            return false;
        }
        let before = self.last.replace(now);
        self.first.get_or_insert(now);
        before.is_none_or(|before| now.saturating_duration_since(before) >= HELD_AFTER)
    }

    fn heed(&mut self, headers: &Headers) {
        let video = headers.find(Kind::Video, Slot::Sequence);
        let audio = headers.find(Kind::Audio, Slot::Sequence);
        if let Some(video) = video
            && self
                .video
                .as_ref()
                .is_none_or(|known| !Arc::ptr_eq(known, video))
        {
            self.size = size(headers);
            self.video = Some(video.clone());
        }
        if self.sound.as_ref().map(Arc::as_ptr) != audio.map(Arc::as_ptr) {
            let coding = audio.and_then(|header| Coding::of_header(header)?.ok());
            self.audio = coding.and_then(|coding| coding.audio);
            self.sound = audio.cloned();
            self.bare = false;
        }
        let other = |header: Option<&Arc<Message>>, own: Codec| {
            let codec = header.map(|header| header.codec);
            codec
                .filter(|codec| *codec != own)
                .map(|codec| format!("{codec:?}"))
        };
        let he = self
            .audio
            .filter(|audio| !audio.plain)
            .map(|_| "HE-AAC".to_owned());
        self.foreign = other(video, Codec::H264)
            .or(other(audio, Codec::Aac))
            .or(he);
    }

    /// Is there anything that decoders could make something of?
    fn is_decodable(&self) -> bool {
        self.has_pictures() || self.has_sound()
    }

    fn has_pictures(&self) -> bool {
        let known = |video: &Arc<Message>| matches!(Coding::of_header(video), Some(Ok(_)));
        self.video.as_ref().is_some_and(known)
    }

    fn has_sound(&self) -> bool {
        self.bare || self.audio.is_some()
    }
}
