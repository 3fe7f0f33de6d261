//! The task that carries one stream's messages to its decoders.
//!
//! Joins with a burst, so that decoding begins at once; the burst goes in at the decoder's pace and none of it is shown.
//! Starts at key frames only, follows new headers, picks the decoder by what they say, and makes a new one when one fails:
//! the pictures' without the sound noticing, and the other way round. Owns the subscription and the [`Decoder`]s; tells
//! the [`Source`] what it learns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::codec::Coding;
use super::decode::{CATCH_UP_UNITS, Decoder, Failure};
use super::format;
use super::source::{Means, Source};
use super::stops::{MAX_HUNG, Stops};
use super::watch::Vigil;
use crate::media::{Feed, Headers, Kind, Message, Role, Slot, StreamKey};
use crate::relay::{Item, Join, Read, Relay, Subscriber};

/// First and longest pause before a decoder is made anew that fails again and again.
const BACK_OFF: Duration = Duration::from_millis(200);
const MAX_BACK_OFF: Duration = Duration::from_secs(5);
/// A decoder that lived this long failed by accident, not by nature.
const SETTLED: Duration = Duration::from_secs(10);
/// Failed decoders of this process that are being stopped.
static STOPS: Stops = Stops::new();

/// A decoder that gave nothing for longer than this, although it should have, may not work; that is the watchdog's matter.
const ALIVE: Duration = Duration::from_millis(500);

/// Where units have waited longer than this in front of a decoder, a new beginning does not wait for them.
const BEHIND: Duration = Duration::from_millis(500);

/// Messages taken from the ring at once.
const BATCH: usize = 32;
/// Longest wait for a decoder during the catch-up before looking again.
const CATCH_UP_WAIT: Duration = Duration::from_millis(20);

/// Feeds until aborted.
pub(super) async fn run(relay: Relay, key: StreamKey, source: Arc<Source>, means: Means) {
    let line = |kind| Line {
        kind,
        coding: None,
        decoder: None,
        failure: Arc::default(),
        vigil: Vigil::new(Instant::now()),
        retry: Retry::default(),
        source: source.clone(),
        means: means.clone(),
    };
    Feeder {
        video: line(Kind::Video),
        audio: line(Kind::Audio),
        subscriber: relay.watch(&key, Feed::Source),
        source: source.clone(),
        relay,
        key,
        epoch: None,
        needs_key: true,
        starts_live: false,
    }
    .serve()
    .await;
}

struct Feeder {
    source: Arc<Source>,
    video: Line,
    audio: Line,
    subscriber: Subscriber,
    relay: Relay,
    key: StreamKey,
    /// The publish epoch of the latest header.
    epoch: Option<u64>,
    /// Video is dropped until a key frame.
    needs_key: bool,
    /// The catch-up is over; the next picture is the first to be shown.
    starts_live: bool,
}

/// Where the feeder stands relative to the messages published before it joined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    /// Sequence number of the first message that is not old.
    CatchingUp(u64),
    Live,
}

impl Feeder {
    async fn serve(&mut self) {
        self.source.catching_up();
        self.subscriber.join(Join::Burst);
        let mut edge = Edge::CatchingUp(self.subscriber.head());
        let mut items: Vec<Arc<Item>> = Vec::with_capacity(BATCH);
        loop {
            if let Edge::CatchingUp(head) = edge
                && self.subscriber.cursor() >= head
                && self.subscriber.cursor() == self.subscriber.head()
            {
                edge = Edge::Live;
                self.starts_live = true;
            }
            let reception = tokio::select! {
                reception = self.subscriber.read(BATCH, &mut items) => reception,
                error = self.video.failure.failed() => {
                    self.needs_key = true;
                    self.video.fail(&self.key, error);
                    continue;
                }
                error = self.audio.failure.failed() => {
                    self.audio.fail(&self.key, error);
                    continue;
                }
            };
            let now = Instant::now();
            if let Read::Skipped(lost) = reception.read {
                self.source.lost(lost);
                self.needs_key = true;
            }
            if reception.ended.is_some() {
                self.needs_key = true;
            }
            for item in items.drain(..) {
                if edge == Edge::Live {
                    self.take(&item, Some(now)).await;
                } else {
                    self.keep_pace().await;
                    self.take(&item, None).await;
                }
            }
        }
    }

    /// Waits until the decoder has room for more of the catch-up.
    async fn keep_pace(&mut self) {
        let since = Instant::now();
        while let Some(decoder) = &self.video.decoder
            && decoder.backlog() > CATCH_UP_UNITS
            && since.elapsed() < SETTLED
        {
            let _ = tokio::time::timeout(CATCH_UP_WAIT, self.source.decoded.notified()).await;
            self.watch_pictures();
        }
    }

    /// Gives up the decoder of pictures when it gives none.
    fn watch_pictures(&mut self) {
        if let Some(error) = self.video.stuck(Instant::now()) {
            self.needs_key = true;
            self.video.fail(&self.key, error);
        }
    }

    /// Hands one message to the decoders. `arrival` is `None` during the catch-up.
    async fn take(&mut self, item: &Item, arrival: Option<Instant>) {
        let message = item.message();
        match (message.kind, message.role) {
            (Kind::Data, _) => {}
            (_, Role::Header(slot)) if slot.slot == Slot::Sequence && slot.track == 0 => {
                self.header(message);
            }
            (_, Role::Header(_)) => {}
            (Kind::Video, role) => self.video(item, role == Role::Key, arrival).await,
            (Kind::Audio, _) => self.audio(item, arrival).await,
        }
    }

    /// Every epoch begins with headers, but not every header begins an epoch.
    fn note_epoch(&mut self) {
        let info = self.relay.stream_info(self.subscriber.key());
        let epoch = info.and_then(|info| info.publisher).map(|p| p.epoch);
        if epoch.is_some() && std::mem::replace(&mut self.epoch, epoch) != epoch {
            self.source.new_epoch();
        }
    }

    fn header(&mut self, message: &Message) {
        self.note_epoch();
        let line = match message.kind {
            Kind::Video => {
                // What follows is another sequence even when its header is the same: a publisher came back.
                self.needs_key = true;
                &mut self.video
            }
            _ => &mut self.audio,
        };
        if let Some(coding) = Coding::of_header(message) {
            line.follow(message, coding);
        }
    }

    fn headers(&mut self, headers: &Headers, kind: Kind) {
        if let Some(header) = headers.find(kind, Slot::Sequence).cloned() {
            self.header(&header);
        }
    }

    async fn video(&mut self, item: &Item, key: bool, arrival: Option<Instant>) {
        let message = item.message();
        if !self.source.wants_pictures() {
            // Of a stream that was there already its sound's header comes with its key frames only.
            if let Some(headers) = item.headers().cloned() {
                self.headers(&headers, Kind::Audio);
            }
            self.needs_key = true;
            self.video.dismiss();
            return;
        }
        self.watch_pictures();
        if self.needs_key {
            if !key {
                self.source.lost(1);
                return;
            }
            if let Some(headers) = item.headers().cloned() {
                self.headers(&headers, Kind::Video);
                self.headers(&headers, Kind::Audio);
            }
            self.video.leave_behind();
            if self.video.ready(&self.key).await.is_none() && self.video.coding.is_some() {
                // It has failed, and must not be tried again yet.
                self.needs_key = true;
                self.source.lost(1);
                return;
            }
            self.needs_key = false;
            if let Some(decoder) = &mut self.video.decoder {
                decoder.mark_discontinuity();
            }
        }
        let Some(unit) = format::body(message) else {
            return;
        };
        let (pts, dts) = (message.pts().0, message.dts.0);
        self.source.paced(dts);
        if let Some(now) = arrival {
            if std::mem::take(&mut self.starts_live) {
                self.source.live_from(pts);
            }
            self.source.arrived(dts, Some(pts), now);
            if self.source.wants_user_data()
                && let Some(coding) = &self.video.coding
            {
                self.source.carry(pts, coding.user_data(&unit));
            }
        }
        if let Some(decoder) = &mut self.video.decoder {
            if decoder.push_video(unit, key, pts, dts) {
                self.video.vigil.took();
            } else {
                // What follows would refer to what is missing.
                self.needs_key = true;
                self.source.lost(1);
            }
        }
    }

    async fn audio(&mut self, item: &Item, arrival: Option<Instant>) {
        if let Some(headers) = item.headers().cloned() {
            self.headers(&headers, Kind::Audio);
        }
        // Old sound is of no use: frames decode alone.
        let Some(now) = arrival else {
            return;
        };
        if !self.source.wants_sound() {
            self.audio.dismiss();
            return;
        }
        let message = item.message();
        if let Some(coding) = Coding::of_frame(message) {
            self.audio.follow(message, coding);
        }
        let Some(frame) = format::body(message) else {
            return;
        };
        self.source.arrived(message.dts.0, None, now);
        if let Some(error) = self.audio.stuck(Instant::now()) {
            self.audio.fail(&self.key, error);
        }
        let taken = match self.audio.ready(&self.key).await {
            Some(decoder) => decoder.push_audio(frame, message.dts.0),
            None => self.audio.coding.is_none(),
        };
        if taken {
            self.audio.vigil.took();
        } else {
            self.source.lost(1);
        }
    }
}

/// The way of one kind of media to its decoder.
struct Line {
    kind: Kind,
    /// By the latest header; `None` before the first, and when it cannot be decoded.
    coding: Option<Coding>,
    decoder: Option<Decoder>,
    failure: Arc<Failure>,
    /// Over the decoder.
    vigil: Vigil,
    retry: Retry,
    source: Arc<Source>,
    means: Means,
}

impl Line {
    /// Media is coded like this from here on, as `message` says.
    fn follow(&mut self, message: &Message, coding: Result<Coding, String>) {
        if let (Ok(new), Some(old)) = (&coding, &self.coding)
            && new == old
        {
            return;
        }
        self.source
            .with_facts(|facts| facts.set_coding(self.kind, message.codec, coding.as_ref()));
        // What the old one failed of need not be wrong with the new one.
        self.retry = Retry::default();
        self.coding = coding.ok();
        match (&mut self.decoder, &self.coding) {
            (Some(decoder), Some(coding)) if decoder.codec() == coding.codec => {
                decoder.configure(coding);
            }
            _ => self.dismiss(),
        }
    }

    /// The decoder, made if need be; `None` when there is nothing to decode or it may not be tried again yet.
    async fn ready(&mut self, key: &StreamKey) -> Option<&mut Decoder> {
        let now = Instant::now();
        if let Some(decoder) = &self.decoder {
            if decoder.given() > 0 && self.retry.has_settled(now) {
                self.source
                    .with_facts(|facts| facts.set_trouble(self.kind, None));
            }
            return self.decoder.as_mut();
        }
        let coding = self.coding.clone()?;
        if !self.retry.allows(now) {
            return None;
        }
        let hung = STOPS.hung(now);
        if hung >= MAX_HUNG {
            let error =
                format!("{hung} decoders that failed cannot be stopped; the limit is {MAX_HUNG}");
            self.fail(key, error);
            return None;
        }
        let (source, failure) = (self.source.clone(), self.failure.clone());
        let count = self.means.count.clone();
        let made =
            tokio::task::spawn_blocking(move || Decoder::new(coding, source, &failure, &count));
        match made.await.map_err(|e| e.to_string()).flatten() {
            Ok(decoder) => {
                self.retry.made(now);
                self.vigil = Vigil::new(Instant::now());
                self.decoder = Some(decoder);
            }
            Err(error) => self.fail(key, error),
        }
        self.decoder.as_mut()
    }

    /// What is wrong with the decoder when it takes and gives nothing. To be asked as each unit comes.
    fn stuck(&mut self, now: Instant) -> Option<String> {
        let decoder = self.decoder.as_ref()?;
        let waiting = decoder.backlog();
        let silent = self.vigil.look(decoder.given(), waiting, now)?;
        let what = match self.kind {
            Kind::Video => "picture",
            _ => "sound",
        };
        Some(format!(
            "the decoder has given no {what} for {:.1} s, and {waiting} units wait for it",
            silent.as_secs_f64()
        ))
    }

    /// The decoder is no good any more.
    fn fail(&mut self, key: &StreamKey, error: String) {
        let decoder = self.decoder.take();
        let worked = decoder.as_ref().is_some_and(|decoder| decoder.given() > 0);
        let pause = self.retry.failed(worked, Instant::now());
        let kind = self.kind;
        // What else it says concerns nobody any more.
        self.failure = Arc::default();
        tracing::warn!(stream = %key, ?kind, error, retry_ms = pause.as_millis() as u64, "an input's decoder failed");
        self.source
            .with_facts(|facts| facts.set_trouble(kind, Some(error.clone())));
        let Some(decoder) = decoder else {
            return;
        };
        let (graphs, stream) = (self.means.graphs.clone(), key.clone());
        let stopping = Stopping::new(Instant::now());
        off_the_media_path(move || {
            let _until_it_has = stopping;
            if let Some(folder) = graphs {
                decoder.write_graph(&folder, &format!("{stream} {kind:?}: {error}"));
            }
            drop(decoder);
        });
    }

    /// At a key frame, behind which nothing of what waits is needed: where a decoder that works is far behind, another one goes
    /// on from here. What waits would be decoded only to be shown late, and all that came meanwhile would be refused.
    fn leave_behind(&mut self) {
        let now = Instant::now();
        let behind = |decoder: &mut Decoder| decoder.behind(now) > BEHIND;
        let works = self.vigil.silent() <= ALIVE;
        if let Some(decoder) = self.decoder.take_if(|decoder| works && behind(decoder)) {
            decoder.retire();
            self.failure = Arc::default();
            self.source.lost(decoder.backlog());
            let stopping = Stopping::new(now);
            off_the_media_path(move || {
                let _until_it_has = stopping;
                drop(decoder);
            });
        }
    }

    /// Nobody needs the decoder any more, or another one is needed.
    fn dismiss(&mut self) {
        if let Some(decoder) = self.decoder.take() {
            decoder.retire();
            self.failure = Arc::default();
            off_the_media_path(move || drop(decoder));
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.dismiss();
    }
}

/// One of the failed decoders that are being stopped.
struct Stopping(Instant);

impl Stopping {
    fn new(now: Instant) -> Self {
        STOPS.begin(now);
        Self(now)
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        STOPS.end(self.0);
    }
}

/// Stopping a pipeline joins its threads, which is nothing for a thread that serves sockets.
fn off_the_media_path(stop: impl FnOnce() + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn_blocking(stop);
    }
}

/// When a decoder that failed may be made anew: at the next chance after an accident, later and later when one after
/// another fails.
#[derive(Debug, Default)]
struct Retry {
    failures: u32,
    made: Option<Instant>,
    not_before: Option<Instant>,
}

impl Retry {
    fn made(&mut self, now: Instant) {
        self.made = Some(now);
    }

    /// How long to wait now. `worked`: the one that failed had given something.
    fn failed(&mut self, worked: bool, now: Instant) -> Duration {
        if worked {
            self.has_settled(now);
        }
        let pause = match self.failures {
            0 => Duration::ZERO,
            n => BACK_OFF
                .saturating_mul(1 << (n - 1).min(10))
                .min(MAX_BACK_OFF),
        };
        self.failures += 1;
        self.made = None;
        self.not_before = Some(now + pause);
        pause
    }

    fn allows(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }

    /// The one made last has lived long enough for what was before to be forgotten; `true` once.
    fn has_settled(&mut self, now: Instant) -> bool {
        let settled = self.failures > 0
            && self
                .made
                .is_some_and(|at| now.saturating_duration_since(at) > SETTLED);
        if settled {
            self.failures = 0;
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accident_is_made_good_at_once_and_what_fails_again_and_again_waits_longer() {
        let mut retry = Retry::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            retry.made(now);
            now += Duration::from_millis(10);
            let pause = retry.failed(true, now);
            assert!(retry.allows(now + pause));
            assert!(pause.is_zero() || !retry.allows(now + pause / 2));
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(pauses, [0, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        // One that lives long and gives nothing is no better.
        retry.made(now);
        now += 2 * SETTLED;
        assert_eq!(retry.failed(false, now), MAX_BACK_OFF);
        retry.made(now);
        now += SETTLED;
        assert!(!retry.has_settled(now));
        now += Duration::from_millis(1);
        assert!(retry.has_settled(now) && !retry.has_settled(now));
        assert_eq!(retry.failed(true, now), Duration::ZERO);
    }
}
