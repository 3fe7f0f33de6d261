//! One publish epoch: repairs the timestamps of what the client sends and hands it to the relay.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::AppConfig;
use super::bitrate::Allowance;
use crate::auth::Stay;
use crate::media::payload::MainTrack;
use crate::media::repair::Repair;
use crate::media::{Kind, MediaTime};
use crate::metrics::Metrics;
use crate::reason::Reason;
use crate::relay::{Publisher, Status};
use crate::rtmp::chunk;

/// A client's epoch on one message stream of its connection.
pub struct Publishing {
    pub stream_id: u32,
    publisher: Publisher,
    repair: Repair,
    main_track: MainTrack,
    last_media: Instant,
    /// The longest pause in the media.
    idle: Duration,
    /// What it may still send; `None`: whatever it likes.
    allowance: Option<Allowance>,
    /// Its place among publishers.
    stay: Stay,
}

impl Publishing {
    pub fn new(
        stream_id: u32,
        publisher: Publisher,
        app: &AppConfig,
        stay: Stay,
        now: Instant,
    ) -> Self {
        Self {
            stream_id,
            publisher,
            repair: Repair::new(),
            main_track: MainTrack::default(),
            last_media: now,
            idle: app.publish_idle,
            allowance: app.max_kbps.map(|kbps| Allowance::new(kbps, now)),
            stay,
        }
    }

    /// Hands one message of the wire on. `false`: the epoch is not ours any more.
    pub fn accept(&mut self, message: chunk::Message, metrics: &Metrics, now: Instant) -> bool {
        let Some(kind) = Kind::from_type_id(message.type_id) else {
            return true;
        };
        metrics.ingest_messages.inc();
        metrics.ingest_bytes.inc_by(message.payload.len() as u64);
        if kind != Kind::Data {
            self.last_media = now;
        }
        if message.payload.is_empty() {
            // Some encoders send empty audio to keep the connection alive; there is nothing to hand on.
            return true;
        }
        let mut media = self
            .main_track
            .read(kind, MediaTime::ZERO, own(message.payload));
        let is_clock = kind != Kind::Data && !media.is_header();
        let (dts, anomaly) = self
            .repair
            .map(kind, media.track, message.timestamp, is_clock);
        media.dts = dts;
        if let Some(anomaly) = anomaly {
            metrics.anomalies(anomaly.as_str());
        }
        self.publisher.publish(media, now) != Status::Done
    }

    /// Counts the bytes of one message. `false`: its application's bitrate was exceeded for too long.
    pub fn is_within_bitrate(&mut self, bytes: usize, now: Instant) -> bool {
        let allowance = self.allowance.as_mut();
        allowance.is_none_or(|allowance| allowance.spend(bytes, now))
    }

    /// Ready when a ban ends this epoch.
    pub fn poll_banned(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.stay.poll_ended(context)
    }

    /// When this epoch ends for want of media, unless some comes.
    pub fn idle_at(&self) -> Instant {
        self.last_media + self.idle
    }

    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The client said it was done, or was told to go: readers hear it at once.
    pub fn finish(self, reason: Reason) {
        self.publisher.finish(reason);
    }

    /// The connection broke: readers wait for its return.
    pub fn vanish(self, reason: Reason) {
        self.publisher.vanish(reason);
    }
}

/// The payload in memory of its own.
///
/// One that came in several chunks was put together into that already. Any other is a slice of the block that the
/// socket was read into, or of an aggregate message, and would keep all of it alive for as long as a ring keeps the
/// message: whoever sends junk between tiny messages could make each of them cost 64 KiB, and rings count payloads.
fn own(payload: Bytes) -> Bytes {
    if payload.is_unique() {
        payload
    } else {
        Bytes::copy_from_slice(&payload)
    }
}
