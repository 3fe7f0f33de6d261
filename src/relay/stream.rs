//! One name's state: its two rings, its publisher, and the overlay (a mix in place) on its program feed.
//!
//! All of it under one lock, held for a few pushes at a time and never across an await. The splice
//! rules are semantics.md, "Feeds, rings and splices".

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Config;
use super::epoch::{Epoch, Tenure};
use super::feed::FeedState;
use super::held::Held;
use super::info::{FeedInfo, Lately, PublisherInfo, StreamInfo, Survey, TrackInfo, declared_fps};
use super::item::Item;
use super::news::{Locked, News, Told};
use super::overlay::{Overlay, State, Then};
use super::publisher::Status;
use super::takeover::{self, Incumbent, Moves, OnBusy, Refused};
use crate::media::{Class, Feed, Kind, MediaTime, Message, StreamKey};
use crate::reason::Reason;

/// A source that has sent no sound for this long has none: a mix that gives the feed back need not wait for it.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// A mix that has emitted nothing up to the source's key frame for this long will not do so any more.
const HOLD_LIMIT: Duration = Duration::from_millis(400);
/// A source without a key frame for this long, while a mix wants to end, is reported (semantics.md).
const OVERDUE: Duration = Duration::from_secs(10);

/// Sound of the source and of a mix that is no further apart is the same: half of the shortest AAC frame, 1,024 samples
/// at 96 kHz.
pub(super) const SAME_SOUND_MS: i64 = 5;

/// One stream of the registry.
#[derive(Debug)]
pub(super) struct Stream {
    pub key: StreamKey,
    pub config: Arc<Config>,
    inner: Mutex<Inner>,
    pub news: News,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub source: FeedState,
    pub program: FeedState,
    pub publisher: Option<Epoch>,
    pub overlay: Option<Overlay>,
    /// Program time minus source time as it was before any mix, in ms; `None` until the program forwards the source.
    home: Option<i64>,
    /// Source time of the latest sound that the program feed forwarded.
    heard: Option<MediaTime>,
    /// Publishers, overlays and subscribers that hold this stream in the registry.
    pub handles: usize,
    /// The latest epoch; 0 before the first.
    latest: u64,
    /// Takeovers of late.
    moves: Moves,
    overlays: u64,
    /// Who hears of what was changed, when the lock is released.
    pub told: Told,
}

impl Stream {
    pub fn new(key: StreamKey, config: Arc<Config>) -> Self {
        Self {
            key,
            config,
            inner: Mutex::new(Inner {
                source: FeedState::new(),
                program: FeedState::new(),
                publisher: None,
                overlay: None,
                home: None,
                heard: None,
                handles: 0,
                latest: 0,
                moves: Moves::default(),
                overlays: 0,
                told: Told::default(),
            }),
            news: News::default(),
        }
    }

    /// Whom [`Inner::told`] names is told when the lock is released.
    pub fn lock(&self) -> Locked<'_> {
        // A panic while holding this lock is a bug in the few lines of this file; the data is
        // counters and queues that are valid after every statement, so reading on is sound.
        let inner = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        Locked::new(inner, &self.news)
    }

    /// A message of the source's publisher. Its time is on the publisher's timeline.
    pub fn publish_source(&self, epoch: u64, message: Message, now: Instant) -> Status {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(publisher) = inner.publisher.as_mut().filter(|p| p.id == epoch) else {
            return Status::Done;
        };
        publisher.count(&message, now);
        if publisher.is_undecodable(&message) {
            // Readers that stay through a change of publishers would see it smeared over their last picture.
            return Status::Live;
        }
        let Some(item) = inner.source.push(Arc::new(message), now, &self.config) else {
            return Status::Live;
        };
        if inner.source.is_attended() {
            inner.told.source = true;
        }
        let has_video = publisher.video.is_some();
        match &mut inner.overlay {
            None => self.forward(inner, &item, now),
            Some(overlay) => match &mut overlay.state {
                State::Preparing | State::Resting => self.forward(inner, &item, now),
                State::OnAir => {}
                State::Yielding {
                    held: Some(held), ..
                } => {
                    held.push(item.shared().clone());
                    if now.saturating_duration_since(held.since) > HOLD_LIMIT {
                        self.splice_back(inner, now);
                    }
                }
                State::Yielding {
                    since,
                    overdue,
                    held,
                    ..
                } => {
                    let message = item.shared();
                    let begins = message.is_video_key()
                        || (!has_video && message.kind == Kind::Audio && !message.is_header());
                    if begins {
                        let wall = match overlay.anchor {
                            Some((dts, at)) => {
                                dts + now.saturating_duration_since(at).as_millis() as i64
                            }
                            None => inner.program.timeline.next_start(now),
                        };
                        let home = inner.home.map(|home| message.dts + home);
                        let headers = inner.source.ring.headers().clone();
                        let newest_sound = inner.source.timeline.newest_of(Kind::Audio);
                        let has_sound = newest_sound.is_some_and(|(_, at)| {
                            now.saturating_duration_since(at) <= SILENT_AFTER
                        });
                        *held = Some(Held::begin(
                            message.clone(),
                            home,
                            wall,
                            headers,
                            has_sound,
                            now,
                        ));
                        if overlay.gone {
                            self.splice_back(inner, now);
                        }
                    } else if !*overdue && now.saturating_duration_since(*since) > OVERDUE {
                        *overdue = true;
                        tracing::warn!(stream = %self.key, "mix cannot give the program feed back: no key frame from the source for 10 s");
                    }
                }
            },
        }
        Status::Live
    }

    /// A message of the overlay. Its time is on the overlay's own timeline; `of` is the source's time of what it tells.
    pub fn publish_overlay(
        &self,
        id: u64,
        message: Message,
        of: Option<MediaTime>,
        now: Instant,
    ) -> Status {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(overlay) = inner.overlay.as_mut().filter(|o| o.id == id) else {
            return Status::Done;
        };
        if matches!(overlay.state, State::Resting) {
            return Status::Resting;
        }
        if message.is_header() {
            overlay.headers = Arc::new(overlay.headers.with(&Arc::new(message.clone())));
        }
        if matches!(overlay.state, State::Preparing) {
            if !message.is_video_key() {
                return Status::Preparing;
            }
            overlay.state = State::OnAir;
            let timeline = &inner.program.timeline;
            overlay.anchor = timeline.newest_of(Kind::Video).or(timeline.newest());
            overlay.heard = inner.heard;
            let headers = overlay.headers.clone();
            inner
                .program
                .splice(&headers, message.dts, None, now, &self.config);
            tracing::info!(stream = %self.key, "mix on air");
            inner.told.overlay = true;
        }
        let lands = inner.program.timeline.locate(message.dts);
        let status = match &mut overlay.state {
            State::Yielding {
                held: Some(held), ..
            } => {
                let passes = lands.is_some_and(|at| held.passes(&message, at, of));
                let waited = now.saturating_duration_since(held.since) > HOLD_LIMIT;
                if (held.video_passed && held.audio_passed) || waited {
                    return self.splice_back(inner, now);
                }
                if passes {
                    // The source tells of this moment itself; only what the mix says of before still goes out.
                    return Status::Ending;
                }
                Status::Ending
            }
            State::Yielding { held: None, .. } => Status::Ending,
            State::Preparing | State::Resting | State::OnAir => Status::Live,
        };
        if message.kind == Kind::Audio && !message.is_header() {
            // Its sound is later than its pictures: the first of it was heard from the source already.
            let heard = overlay.heard.zip(of);
            if heard.is_some_and(|(heard, of)| of <= heard + SAME_SOUND_MS) {
                return status;
            }
            overlay.heard = None;
        }
        inner.program.push(Arc::new(message), now, &self.config);
        inner.told.program = true;
        status
    }

    /// The program feed carries the source.
    fn forward(&self, inner: &mut Inner, item: &Arc<Item>, now: Instant) {
        let message = item.message();
        if let Some(dts) = inner.program.forward(item, now, &self.config)
            && !message.is_header()
        {
            inner.home.get_or_insert(dts - message.dts);
            if message.kind == Kind::Audio {
                inner.heard = Some(message.dts);
            }
        }
        if inner.program.is_attended() {
            inner.told.program = true;
        }
    }

    /// The source takes the program feed back with the messages held since its key frame. What the overlay is then.
    fn splice_back(&self, inner: &mut Inner, now: Instant) -> Status {
        let Some(mut overlay) = inner.overlay.take() else {
            return Status::Done;
        };
        let before = std::mem::replace(&mut overlay.state, State::Resting);
        let rests = matches!(
            before,
            State::Yielding {
                then: Then::Rest,
                ..
            }
        );
        if let State::Yielding {
            held: Some(held), ..
        } = before
            && let Some(first) = held.messages.first()
        {
            inner.program.splice(
                &held.headers,
                first.dts,
                Some(held.start),
                now,
                &self.config,
            );
            // The mix has told of nothing that was held.
            inner.program.timeline.keep_early();
            for message in &held.messages {
                inner.program.push(message.clone(), now, &self.config);
            }
            tracing::info!(stream = %self.key, held_ms = now.saturating_duration_since(held.since).as_millis() as u64, "source back on the program feed");
        }
        inner.told.program = true;
        inner.told.overlay = true;
        if rests && !overlay.gone {
            overlay.rest();
            inner.overlay = Some(overlay);
        }
        inner.overlay.as_ref().map_or(Status::Done, Overlay::status)
    }

    /// Where what that epoch sends will end; `None` when it is over.
    pub fn tenure(&self, epoch: u64) -> Option<Tenure> {
        let inner = self.lock();
        let publisher = inner.publisher.as_ref().filter(|p| p.id == epoch)?;
        Some(Tenure(publisher.hold.clone()))
    }

    /// The source's epoch ends. A clean end reaches readers at once; after another one they wait out a
    /// grace, at whose end the caller calls [`Stream::end_feeds_if_offline`].
    pub fn end_source(&self, epoch: u64, reason: Reason, clean: bool) -> Option<Epoch> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let ended = inner.publisher.take_if(|p| p.id == epoch)?;
        if let Some(overlay) = inner.overlay.as_mut().filter(|o| !o.is_leaving()) {
            // There is nothing to rest behind: a mix that was about to stays on the air.
            overlay.stay();
        }
        ended.hold.over(inner.source.ring.head());
        self.seal(inner);
        if clean {
            self.end_feeds(inner, reason);
        }
        Some(ended)
    }

    /// The grace of a vanished publisher is over: readers of the feeds that it fed are told.
    pub fn end_feeds_if_offline(&self, epoch: u64, reason: Reason) {
        let mut inner = self.lock();
        if inner.publisher.is_none() && inner.latest == epoch {
            self.end_feeds(&mut inner, reason);
        }
    }

    fn end_feeds(&self, inner: &mut Inner, reason: Reason) {
        inner.source.end(reason);
        inner.told.source = true;
        let overlay = inner.overlay.as_ref();
        if overlay.is_some_and(|o| o.is_splicing() && !o.is_leaving()) {
            // What has been left out of the mix must not be missing: the source keeps what it has begun to take.
            self.splice_back(inner, Instant::now());
        }
        if inner.overlay.as_ref().is_some_and(Overlay::is_leaving) {
            inner.overlay = None;
            inner.end_program_with_feeder(reason);
            inner.told.program = true;
            inner.told.overlay = true;
        } else if inner.overlay_forwards_source() {
            inner.program.end(reason);
            inner.told.program = true;
        }
    }

    /// Gives the name to a newcomer, where nobody holds it or the policy lets it be taken over. Returns the epoch that
    /// ended by that, whose publisher is told to go.
    pub fn begin_source(
        &self,
        newcomer: Epoch,
        policy: OnBusy,
        now: Instant,
    ) -> Result<Option<Epoch>, Refused> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if let Some(held) = &inner.publisher {
            let incumbent = Incumbent {
                origin: &held.origin,
                quiet: held.hold.quiet(now),
            };
            let granted = takeover::decide(policy, incumbent, &newcomer.origin, &inner.moves, now)?;
            if granted.is_move {
                inner.moves.note(now);
            }
        }
        let ended = inner.publisher.take();
        if let Some(ended) = &ended {
            ended.hold.over(inner.source.ring.head());
            self.seal(inner);
            ended.hold.evict(Reason::TakenOver);
        }
        inner.handles += 1;
        inner.latest = newcomer.id;
        inner.publisher = Some(newcomer);
        // Whatever clock the newcomer has, the feed continues where wall time is.
        inner.source.timeline.new_feeder();
        // Players may wait for this.
        inner.told.source = true;
        inner.told.program = true;
        Ok(ended)
    }

    /// Nobody may begin in what an epoch has sent, once it is over.
    fn seal(&self, inner: &mut Inner) {
        inner.source.ring.seal();
        if inner.overlay_forwards_source() {
            inner.program.ring.seal();
        }
    }

    pub fn begin_overlay(&self) -> Option<u64> {
        let mut inner = self.lock();
        if inner.overlay.is_some() {
            return None;
        }
        inner.overlays += 1;
        inner.handles += 1;
        let id = inner.overlays;
        inner.overlay = Some(Overlay::new(id));
        Some(id)
    }

    /// Asks the overlay to end. It keeps publishing until [`Status::Done`].
    pub fn end_overlay(&self, id: u64, now: Instant) -> Status {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(overlay) = inner.overlay.as_mut().filter(|o| o.id == id) else {
            return Status::Done;
        };
        match overlay.state {
            State::Preparing | State::Resting => inner.overlay = None,
            State::OnAir if inner.publisher.is_none() => {
                inner.overlay = None;
                inner.end_program_with_feeder(Reason::StreamEnded);
                inner.told.program = true;
            }
            State::OnAir | State::Yielding { .. } => {
                overlay.give_back(Then::Leave, now);
                inner.told.overlay = true;
                return Status::Ending;
            }
        }
        inner.told.overlay = true;
        Status::Done
    }

    /// Asks the overlay to give the feed back to the source, for as long as it does not [resume](Self::resume_overlay).
    /// It keeps publishing until [`Status::Resting`]. Without a source it stays where it is.
    pub fn rest_overlay(&self, id: u64, now: Instant) -> Status {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(overlay) = inner.overlay.as_mut().filter(|o| o.id == id) else {
            return Status::Done;
        };
        if inner.publisher.is_some() || overlay.forwards_source() {
            overlay.give_back(Then::Rest, now);
            inner.told.overlay = true;
        }
        overlay.status()
    }

    /// The overlay is to stay on the air, if it is there and has not begun to leave.
    pub fn stay_overlay(&self, id: u64) -> Status {
        let mut inner = self.lock();
        let Some(overlay) = inner.overlay.as_mut().filter(|o| o.id == id) else {
            return Status::Done;
        };
        overlay.stay();
        let status = overlay.status();
        inner.told.overlay = true;
        status
    }

    /// The overlay is to go on the air again, or to stay there.
    pub fn resume_overlay(&self, id: u64) -> Status {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(overlay) = inner.overlay.as_mut().filter(|o| o.id == id) else {
            return Status::Done;
        };
        overlay.resume();
        inner.told.overlay = true;
        overlay.status()
    }

    /// The overlay's publisher handle is gone.
    pub fn drop_overlay(&self, id: u64, now: Instant) {
        self.end_overlay(id, now);
        let mut inner = self.lock();
        if let Some(overlay) = inner.overlay.as_mut().filter(|o| o.id == id) {
            overlay.gone = true;
            if overlay.is_splicing() {
                self.splice_back(&mut inner, now);
            }
        }
    }

    pub fn overlay_status(&self, id: u64) -> Status {
        self.lock().overlay_status(id)
    }

    pub fn overlay_is_overdue(&self, id: u64) -> bool {
        let inner = self.lock();
        let overlay = inner.overlay.as_ref().filter(|o| o.id == id);
        overlay.is_some_and(Overlay::is_overdue)
    }

    fn gop_warning(&self) -> Duration {
        let configured = self.config.gop_warning.find(self.key.app());
        configured.copied().unwrap_or(Duration::MAX)
    }

    /// A snapshot for the API.
    pub fn info(&self, now: Instant) -> StreamInfo {
        self.told(&self.lock(), now)
    }

    /// As above, with how its publisher does.
    pub fn survey(&self, now: Instant) -> Survey {
        let inner = self.lock();
        let headers = inner.source.ring.headers().clone();
        let vitals = inner.publisher.as_ref().map(|p| p.vitals.clone());
        let stream = self.told(&inner, now);
        // What takes longer than copying does not keep the publisher waiting.
        drop(inner);
        let lately = vitals.map(|vitals| Lately {
            reading: vitals.reading(now),
            declared_fps: declared_fps(&headers),
        });
        Survey { stream, lately }
    }

    fn told(&self, inner: &Inner, now: Instant) -> StreamInfo {
        let feed = |state: &FeedState| FeedInfo {
            low_latency: state.subscribers[Class::LowLatency as usize],
            viewers: state.subscribers[Class::Viewer as usize],
            messages: state.messages,
            frames: state.frames,
            bytes: state.bytes,
            ring_bytes: state.ring.bytes(),
            newest: state.ring.head_time(),
        };
        StreamInfo {
            key: self.key.clone(),
            publisher: inner.publisher.as_ref().map(|p| PublisherInfo {
                epoch: p.id,
                origin: p.origin.clone(),
                since: p.since,
                messages: p.messages,
                bytes: p.bytes,
                idle: p.last_media.map(|at| now.saturating_duration_since(at)),
                video: p.video.map(|codec| TrackInfo { codec }),
                audio: p.audio.map(|codec| TrackInfo { codec }),
                longest_gop: p.gop.longest(),
                last_gop: p.gop.last(),
                gop_too_long: p.gop.longest() > self.gop_warning(),
            }),
            mixed: !inner.overlay_forwards_source(),
            source: feed(&inner.source),
            program: feed(&inner.program),
        }
    }
}

impl Inner {
    pub fn feed(&self, feed: Feed) -> &FeedState {
        match feed {
            Feed::Source => &self.source,
            Feed::Program => &self.program,
        }
    }

    pub fn feed_mut(&mut self, feed: Feed) -> &mut FeedState {
        match feed {
            Feed::Source => &mut self.source,
            Feed::Program => &mut self.program,
        }
    }

    /// The end of a program feed that a mix fed until now: whoever feeds it next has another clock.
    fn end_program_with_feeder(&mut self, reason: Reason) {
        self.program.end(reason);
        self.program.timeline.new_feeder();
        self.home = None;
    }

    /// Is a publisher, or for the program feed a mix on the air, feeding this now?
    pub fn is_fed(&self, feed: Feed) -> bool {
        self.publisher.is_some() || (feed == Feed::Program && !self.overlay_forwards_source())
    }

    /// Does the program feed carry the source right now (and not a mix)?
    fn overlay_forwards_source(&self) -> bool {
        self.overlay.as_ref().is_none_or(Overlay::forwards_source)
    }

    fn overlay_status(&self, id: u64) -> Status {
        let overlay = self.overlay.as_ref().filter(|o| o.id == id);
        overlay.map_or(Status::Done, Overlay::status)
    }
}
