//! The task that carries one stream's messages to its decoders.
//!
//! Joins with a burst, so that decoding begins at once; the burst goes in at the decoder's pace and none of it is shown.
//! Starts at key frames only, follows new headers, and makes new decoders when old ones fail. Owns the subscription and
//! the [`Decoder`]; tells [`Shared`] what it learns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::decode::{CATCH_UP_UNITS, Decoder, Failure};
use super::format;
use super::input::Shared;
use super::scene::Tracks;
use crate::media::{Codec, Feed, Headers, Kind, Message, Role, Slot, StreamKey};
use crate::relay::{Item, Join, Read, Relay, Subscriber};

/// First and longest pause before decoders are made anew.
const BACK_OFF: Duration = Duration::from_millis(200);
const MAX_BACK_OFF: Duration = Duration::from_secs(5);
/// Decoders that lived this long failed by accident, not by nature.
const SETTLED: Duration = Duration::from_secs(10);
/// Messages taken from the ring at once.
const BATCH: usize = 32;
/// Longest wait for a decoder during the catch-up before looking again.
const CATCH_UP_WAIT: Duration = Duration::from_millis(20);

/// Feeds until aborted.
pub(super) async fn run(relay: Relay, key: StreamKey, shared: Arc<Shared>) {
    let mut back_off = BACK_OFF;
    loop {
        let since = Instant::now();
        let failure = Arc::new(Failure::default());
        let mut feeder = Feeder {
            shared: shared.clone(),
            failure,
            subscriber: relay.watch(&key, Feed::Source),
            relay: relay.clone(),
            epoch: None,
            decoder: None,
            needs_key: true,
            starts_live: false,
        };
        let error = feeder.serve().await;
        drop(feeder);
        if since.elapsed() > SETTLED {
            back_off = BACK_OFF;
        }
        tracing::warn!(stream = %key, error, retry_ms = back_off.as_millis() as u64, "input's decoders failed");
        shared.with_facts(|facts| facts.error = Some(error));
        tokio::time::sleep(back_off).await;
        back_off = (back_off * 2).min(MAX_BACK_OFF);
    }
}

struct Feeder {
    shared: Arc<Shared>,
    failure: Arc<Failure>,
    subscriber: Subscriber,
    relay: Relay,
    /// The publish epoch of the latest header.
    epoch: Option<u64>,
    decoder: Option<Decoder>,
    /// Video is dropped until a key frame.
    needs_key: bool,
    /// The catch-up is over; the next picture is the first to be shown.
    starts_live: bool,
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.shared.decoders_gone();
        let Some(decoder) = self.decoder.take() else {
            return;
        };
        // Stopping a pipeline joins its threads, which is nothing for a thread that serves sockets.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(decoder));
        }
    }
}

/// Where the feeder stands relative to the messages published before it joined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    /// Sequence number of the first message that is not old.
    CatchingUp(u64),
    Live,
}

impl Feeder {
    /// Carries messages until the decoders fail; with what error.
    async fn serve(&mut self) -> String {
        self.shared.catching_up();
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
                error = self.failure.failed() => return error,
            };
            let now = Instant::now();
            if let Read::Skipped(lost) = reception.read {
                self.shared.lost(lost);
                self.needs_key = true;
            }
            if reception.ended.is_some() {
                self.needs_key = true;
            }
            if self.decoder.is_none() && !items.is_empty() {
                match self.make_decoder().await {
                    Ok(decoder) => self.decoder = Some(decoder),
                    Err(error) => return error,
                }
            }
            for item in items.drain(..) {
                if edge == Edge::Live {
                    self.take(&item, Some(now));
                } else {
                    self.keep_pace().await;
                    self.take(&item, None);
                }
            }
        }
    }

    async fn make_decoder(&self) -> Result<Decoder, String> {
        let (shared, failure) = (self.shared.clone(), self.failure.clone());
        let decoder = tokio::task::spawn_blocking(move || Decoder::new(shared, &failure))
            .await
            .map_err(|e| e.to_string())??;
        self.shared.decoders_started(decoder.sound_filter());
        Ok(decoder)
    }

    /// Waits until the decoder has room for more of the catch-up.
    async fn keep_pace(&self) {
        let since = Instant::now();
        while let Some(decoder) = &self.decoder
            && decoder.backlog() > CATCH_UP_UNITS
            && since.elapsed() < SETTLED
        {
            let _ = tokio::time::timeout(CATCH_UP_WAIT, self.shared.decoded.notified()).await;
        }
    }

    /// Hands one message to the decoders. `arrival` is `None` during the catch-up.
    fn take(&mut self, item: &Item, arrival: Option<Instant>) {
        let message = item.message();
        match (message.kind, message.role) {
            (Kind::Data, _) => {}
            (_, Role::Header(slot)) if slot.slot == Slot::Sequence && slot.track == 0 => {
                self.header(message);
            }
            (_, Role::Header(_)) => {}
            (Kind::Video, role) => self.video(item, role == Role::Key, arrival),
            (Kind::Audio, _) => self.audio(item, arrival),
        }
    }

    /// Every epoch begins with headers, but not every header begins an epoch.
    fn note_epoch(&mut self) {
        let info = self.relay.stream_info(self.subscriber.key());
        let epoch = info.and_then(|info| info.publisher).map(|p| p.epoch);
        if epoch.is_some() && std::mem::replace(&mut self.epoch, epoch) != epoch {
            self.shared.new_epoch();
        }
    }

    fn header(&mut self, message: &Message) {
        self.note_epoch();
        match message.kind {
            Kind::Video => {
                // What follows is another sequence even when its header is the same: a publisher came back.
                self.needs_key = true;
                self.note_codec(message, Codec::H264);
                if let (Some(record), Some(decoder)) = (format::body(message), &mut self.decoder)
                    && message.codec == Codec::H264
                {
                    decoder.configure_video(record);
                }
            }
            Kind::Audio => {
                self.note_codec(message, Codec::Aac);
                let Some(config) = format::body(message) else {
                    return;
                };
                let Some(read) = format::audio_config(&config) else {
                    return;
                };
                self.shared.with_facts(|facts| facts.audio = Some(read));
                if let Some(decoder) = &mut self.decoder {
                    decoder.configure_audio(config, read.format);
                }
            }
            Kind::Data => {}
        }
    }

    fn note_codec(&self, message: &Message, decoded: Codec) {
        let codec = message.codec;
        self.shared.with_facts(|facts| {
            facts.unsupported = (codec != decoded).then(|| format!("{codec:?}"));
        });
    }

    fn headers(&mut self, headers: &Headers, kind: Kind) {
        if let Some(header) = headers.find(kind, Slot::Sequence).cloned() {
            self.header(&header);
        }
    }

    fn video(&mut self, item: &Item, key: bool, arrival: Option<Instant>) {
        let message = item.message();
        if self.shared.tracks() == Tracks::Sound {
            self.needs_key = true;
            return;
        }
        if self.needs_key {
            if !key {
                self.shared.lost(1);
                return;
            }
            if let Some(headers) = item.headers().cloned() {
                self.headers(&headers, Kind::Video);
                self.headers(&headers, Kind::Audio);
            }
            self.needs_key = false;
            if let Some(decoder) = &mut self.decoder {
                decoder.mark_discontinuity();
            }
        }
        let Some(unit) = format::body(message) else {
            return;
        };
        let (pts, dts) = (message.pts().0, message.dts.0);
        self.shared.paced(dts);
        if let Some(now) = arrival {
            if std::mem::take(&mut self.starts_live) {
                self.shared.live_from(pts);
            }
            self.shared.arrived(dts, Some(pts), now);
        }
        if let Some(decoder) = &mut self.decoder
            && !decoder.push_video(unit, key, pts, dts)
        {
            // What follows would refer to what is missing.
            self.needs_key = true;
            self.shared.lost(1);
        }
    }

    fn audio(&mut self, item: &Item, arrival: Option<Instant>) {
        // Old sound is of no use: frames decode alone.
        let Some(now) = arrival.filter(|_| self.shared.tracks() != Tracks::Pictures) else {
            return;
        };
        let message = item.message();
        if let Some(headers) = item.headers().cloned() {
            self.headers(&headers, Kind::Audio);
        }
        let Some(frame) = format::body(message) else {
            return;
        };
        self.shared.arrived(message.dts.0, None, now);
        if let Some(decoder) = &mut self.decoder
            && !decoder.push_audio(frame, message.dts.0)
        {
            self.shared.lost(1);
        }
    }
}
