//! One publish epoch: repairs the timestamps of what the client sends and hands it to the relay.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::AppConfig;
use super::bitrate::Allowance;
use crate::auth::Stay;
use crate::media::health::{Health, Report};
use crate::media::payload::{self, MainTrack};
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
    health: Health,
    /// What it has found and nobody has asked for yet.
    report: Option<Report>,
    /// When media bytes last came, of whole messages or not.
    last_media: Instant,
    /// How much there was, when last looked at, of media messages that are not whole yet.
    unfinished: usize,
    /// The longest pause in the media.
    idle: Duration,
    /// What it may still send; `None`: whatever it likes.
    allowance: Option<Allowance>,
    /// Its place among publishers.
    stay: Stay,
    /// Messages of media so far.
    accepted: u64,
}

/// Each of so many messages is timed on its way to the ring.
const TIMED: u64 = 64;

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
            health: Health::new(now),
            report: None,
            last_media: now,
            unfinished: 0,
            idle: app.publish_idle,
            allowance: app.max_kbps.map(|kbps| Allowance::new(kbps, now)),
            stay,
            accepted: 0,
        }
    }

    /// Hands one message of the wire on. `false`: the epoch is not ours any more.
    pub fn accept(&mut self, message: chunk::Message, metrics: &Metrics, now: Instant) -> bool {
        let Some(kind) = Kind::from_type_id(message.type_id) else {
            return true;
        };
        metrics.ingest_messages.inc();
        metrics.ingest_bytes.inc_by(message.payload.len() as u64);
        // Some encoders send empty audio to keep the connection alive: that is no media, and nothing to hand on.
        if payload::is_hollow(kind, &message.payload) {
            return true;
        }
        if kind != Kind::Data {
            self.last_media = now;
        }
        let mut media = self
            .main_track
            .read(kind, MediaTime::ZERO, own(message.payload));
        let is_clock = kind != Kind::Data && !media.is_header();
        let (dts, anomaly) = self
            .repair
            .map(kind, media.track, message.timestamp, is_clock);
        let report = self.health.note(&media, message.timestamp, now);
        self.report = report.or(self.report.take());
        media.dts = dts;
        if let Some(anomaly) = anomaly {
            metrics.anomalies(anomaly.as_str());
        }
        let status = self.publisher.publish(media, now);
        self.accepted += 1;
        if self.accepted.is_multiple_of(TIMED) {
            self.publisher.handled(now.elapsed());
        }
        status != Status::Done
    }

    /// What was wrong in the last interval, once.
    pub fn take_report(&mut self) -> Option<Report> {
        self.report.take()
    }

    /// So many bytes are there of media messages that are not whole yet. When they have become more, that is progress,
    /// on a slow line.
    pub fn unfinished(&mut self, bytes: usize, now: Instant) {
        if bytes > self.unfinished {
            self.last_media = now;
            self.publisher.progress(now);
        }
        self.unfinished = bytes;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::StreamKey;
    use crate::relay::{Bell, Config, Origin, Query, Relay};
    use crate::rtmp::kind;

    const IDLE: Duration = Duration::from_secs(15);

    fn publishing(now: Instant) -> Publishing {
        let origin = Origin::Anchor {
            connection: crate::logging::ConnectionId::next(),
            address: ([203, 0, 113, 1], 5_000).into(),
            key_id: None,
            query: Query::new(""),
        };
        let key = StreamKey::new("live", "a").unwrap();
        let relay = Relay::new(Config::default());
        let publisher = relay.publish_with(&key, origin, Bell::new(), now).unwrap();
        let app = AppConfig {
            publish_idle: IDLE,
            ..AppConfig::default()
        };
        Publishing::new(1, publisher, &app, Stay::unwatched(), now)
    }

    fn message(type_id: u8, payload: &'static [u8]) -> chunk::Message {
        chunk::Message {
            type_id,
            stream_id: 1,
            timestamp: 0,
            payload: Bytes::from_static(payload),
        }
    }

    #[test]
    fn a_key_frame_that_takes_longer_than_the_limit_is_no_silence_while_it_grows() {
        let begin = Instant::now();
        let mut ours = publishing(begin);
        let at = |s| begin + Duration::from_secs(s);
        // 40 KB/s, looked at every 5 s.
        for s in (5..=40).step_by(5) {
            ours.unfinished(40_000 * s as usize, at(s));
            assert_eq!(ours.idle_at(), at(s) + IDLE);
        }
        // Looked at again when nothing more has come: for a ping, or because the time is up.
        ours.unfinished(1_600_000, at(50));
        assert_eq!(ours.idle_at(), at(40) + IDLE);
        // The next one begins smaller than that one had become.
        ours.unfinished(0, at(51));
        ours.unfinished(7, at(52));
        assert_eq!(ours.idle_at(), at(52) + IDLE);
    }

    #[test]
    fn empty_audio_and_metadata_do_not_count_as_media() {
        let begin = Instant::now();
        let metrics = Metrics::new();
        let mut ours = publishing(begin);
        let later = begin + Duration::from_secs(10);
        for (type_id, payload) in [
            (kind::AUDIO, b"".as_slice()),
            (kind::AUDIO, &[0xaf, 1]),
            (kind::AUDIO, &[0x2f]),
            (kind::AUDIO, b"\x91Opus"),
            (kind::VIDEO, b""),
            (kind::DATA, b"\x02\x00\x01x"),
        ] {
            assert!(ours.accept(message(type_id, payload), &metrics, later));
            assert_eq!(ours.idle_at(), begin + IDLE, "{type_id} {payload:?}");
        }
        for (n, (type_id, payload)) in [
            (kind::AUDIO, [0xaf, 1, 0x21].as_slice()),
            (kind::AUDIO, &[0x2f, 0xff]),
            (kind::VIDEO, &[0x27, 1, 0, 0, 0, 1]),
        ]
        .into_iter()
        .enumerate()
        {
            let now = later + Duration::from_secs(n as u64);
            assert!(ours.accept(message(type_id, payload), &metrics, now));
            assert_eq!(ours.idle_at(), now + IDLE, "{type_id} {payload:?}");
        }
    }
}
