//! One publisher's hold on a name: what is counted of it, and how it is told to go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use super::origin::Origin;
use crate::logging::{self, RequestId};
use crate::media::vitals::Vitals;
use crate::media::{Codec, Kind, MediaTime, Message};
use crate::reason::Reason;

/// Rung when one of the epochs that share it is told to go. A connection that holds several names has one for all.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    pub fn new() -> Self {
        Self::default()
    }

    /// Resolves when it was rung since the last time.
    ///
    /// # Cancel safety
    /// Safe: a ring that came while nobody listened is kept.
    pub async fn rung(&self) {
        self.0.notified().await;
    }
}

/// What an epoch and its publisher's handle share outside the stream's lock.
#[derive(Debug)]
pub(super) struct Hold {
    bell: Bell,
    /// Why the publisher is to go, and which call of an API wants it; the first reason stands.
    eviction: OnceLock<(Reason, Option<RequestId>)>,
    begun: Instant,
    /// When media bytes last came, whole messages or not, in ms after `begun`.
    progress_ms: AtomicU64,
    /// Sequence number in the source feed of what comes after its last message; unknown while it lasts.
    over_at: OnceLock<u64>,
}

/// Where one publisher's messages end in the source feed, whoever goes on there.
#[derive(Debug, Clone)]
pub struct Tenure(pub(super) Arc<Hold>);

impl Tenure {
    /// Sequence number of the first message that is none of its own; `None` while it publishes. Known before that message can be
    /// read.
    pub fn over_at(&self) -> Option<u64> {
        self.0.over_at.get().copied()
    }
}

impl Hold {
    pub fn new(bell: Bell, now: Instant) -> Self {
        Self {
            bell,
            eviction: OnceLock::new(),
            begun: now,
            progress_ms: AtomicU64::new(0),
            over_at: OnceLock::new(),
        }
    }

    /// Its last message is before that one.
    pub fn over(&self, at: u64) {
        // It is over once.
        let _ = self.over_at.set(at);
    }

    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    pub fn evict(&self, reason: Reason) {
        // It may have been told to go for another reason already.
        let _ = self.eviction.set((reason, logging::request()));
        self.bell.0.notify_one();
    }

    pub fn eviction(&self) -> Option<Reason> {
        self.eviction.get().map(|(reason, _)| *reason)
    }

    /// The call of an API that wants the publisher to go, if it was one.
    pub fn evicted_by(&self) -> Option<RequestId> {
        self.eviction.get()?.1.clone()
    }

    pub fn progress(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.begun).as_millis();
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        self.progress_ms.fetch_max(ms, Ordering::Relaxed);
    }

    /// Time since media bytes last came, or since the grant.
    pub fn quiet(&self, now: Instant) -> Duration {
        let progress = Duration::from_millis(self.progress_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(self.begun)
            .saturating_sub(progress)
    }

    /// Time since the grant.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }
}

/// The publisher's hold on the name, from grant to disconnect.
#[derive(Debug)]
pub(super) struct Epoch {
    pub id: u64,
    pub origin: Origin,
    pub since: SystemTime,
    pub hold: Arc<Hold>,
    pub video: Option<Codec>,
    pub audio: Option<Codec>,
    pub messages: u64,
    pub bytes: u64,
    pub last_media: Option<Instant>,
    pub gop: Gop,
    /// How it does lately. Boxed: a name without a publisher needs none.
    pub vitals: Box<Vitals>,
}

impl Epoch {
    pub fn new(id: u64, origin: Origin, hold: Arc<Hold>) -> Self {
        Self {
            id,
            origin,
            since: SystemTime::now(),
            hold,
            video: None,
            audio: None,
            messages: 0,
            bytes: 0,
            last_media: None,
            gop: Gop::default(),
            vitals: Box::default(),
        }
    }

    /// Takes note of a message, whose time is on the publisher's own timeline.
    pub fn count(&mut self, message: &Message, now: Instant) {
        self.messages += 1;
        self.bytes += message.payload.len() as u64;
        match message.kind {
            // Key frames are the main track's; others may have other codecs.
            Kind::Video if self.video.is_some() && !message.is_video_key() => {}
            Kind::Video => self.video = Some(message.codec),
            Kind::Audio if self.audio.is_some() && message.track != 0 => {}
            Kind::Audio => self.audio = Some(message.codec),
            // Metadata keeps nobody in a name.
            Kind::Data => return,
        }
        self.last_media = Some(now);
        self.hold.progress(now);
        self.vitals.note(message, now);
        if message.kind == Kind::Video && !message.is_header() {
            self.gop.count(message.dts, message.is_video_key());
        }
    }

    /// Is this a picture that nothing before it in this epoch lets anybody decode?
    pub fn is_undecodable(&self, message: &Message) -> bool {
        message.kind == Kind::Video && !message.is_header() && !self.gop.has_key
    }
}

/// How far a publisher's key frames are apart, in its own time.
#[derive(Debug, Default)]
pub(super) struct Gop {
    has_key: bool,
    /// The newest key frame, or the first picture where none has come.
    since: Option<MediaTime>,
    longest: Duration,
    last: Option<Duration>,
}

impl Gop {
    fn count(&mut self, dts: MediaTime, is_key: bool) {
        let since = *self.since.get_or_insert(dts);
        self.longest = self.longest.max(dts.since(since));
        if is_key {
            if self.has_key {
                self.last = Some(dts.since(since));
            }
            self.has_key = true;
            self.since = Some(dts);
        }
    }

    /// The longest so far; the running one counts as far as it has come.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The newest that is whole: from one key frame to the next.
    pub fn last(&self) -> Option<Duration> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gop_is_known_also_while_it_lasts() {
        let mut gop = Gop::default();
        let mut at = |ms, is_key| {
            gop.count(MediaTime(ms), is_key);
            gop.longest().as_millis()
        };
        assert_eq!(at(50_000, true), 0);
        assert_eq!(at(51_960, false), 1_960);
        assert_eq!(at(52_000, true), 2_000);
        assert_eq!(at(53_000, false), 2_000);
        assert_eq!(at(56_000, false), 4_000);
        assert_eq!(at(56_040, true), 4_040);
        assert_eq!(at(57_000, true), 4_040);
    }

    #[test]
    fn the_last_gop_is_between_two_key_frames_and_nothing_else() {
        let mut gop = Gop::default();
        let mut at = |ms, is_key| {
            gop.count(MediaTime(ms), is_key);
            gop.last().map(|last| last.as_millis())
        };
        assert_eq!(at(0, false), None);
        assert_eq!(at(300, true), None);
        assert_eq!(at(2_000, false), None);
        assert_eq!(at(2_300, true), Some(2_000));
        assert_eq!(at(4_000, false), Some(2_000));
        assert_eq!(at(4_300, true), Some(2_000));
        assert_eq!(at(5_300, true), Some(1_000));
    }

    #[test]
    fn a_publisher_without_key_frames_has_one_long_gop() {
        let mut gop = Gop::default();
        for n in 0..=300 {
            gop.count(MediaTime(n * 40), false);
        }
        assert_eq!(gop.longest(), Duration::from_secs(12));
    }

    #[test]
    fn quiet_counts_from_the_last_bytes_or_the_grant() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let hold = Hold::new(Bell::new(), t0);
        assert_eq!(hold.quiet(at(700)).as_millis(), 700);
        hold.progress(at(900));
        hold.progress(at(800));
        assert_eq!(hold.quiet(at(1_000)).as_millis(), 100);
        assert_eq!(hold.quiet(at(850)).as_millis(), 0);
    }

    #[tokio::test]
    async fn the_first_reason_to_go_stands_and_the_bell_is_heard_later() {
        let bell = Bell::new();
        let hold = Hold::new(bell.clone(), Instant::now());
        hold.evict(Reason::Dropped);
        hold.evict(Reason::Idle);
        bell.rung().await;
        assert_eq!(hold.eviction(), Some(Reason::Dropped));
    }
}
