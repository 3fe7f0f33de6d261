//! What the API tells of streams: plain values.

use std::time::{Duration, SystemTime};

use super::origin::Origin;
use crate::media::vitals::Reading;
use crate::media::{Codec, Headers, Kind, MediaTime, Slot, StreamKey};
use crate::rtmp::amf;

/// What the API tells of one stream. Times are server time; counters run since the stream's record was made.
#[derive(Debug, Clone)]
pub struct StreamInfo {
    pub key: StreamKey,
    pub publisher: Option<PublisherInfo>,
    /// The program feed carries a mix.
    pub mixed: bool,
    pub source: FeedInfo,
    pub program: FeedInfo,
}

/// The running publish epoch.
#[derive(Debug, Clone)]
pub struct PublisherInfo {
    /// Unique and rising within this run of the server, over all names.
    pub epoch: u64,
    pub origin: Origin,
    pub since: SystemTime,
    pub messages: u64,
    /// Media payload bytes.
    pub bytes: u64,
    /// Time since the last media message; `None` before the first.
    pub idle: Option<Duration>,
    pub video: Option<TrackInfo>,
    pub audio: Option<TrackInfo>,
    /// The longest time between two key frames of this epoch, in its own time; the running GOP counts as far as it
    /// has come.
    pub longest_gop: Duration,
    /// Between the newest two key frames of this epoch, in its own time; `None` before there are two.
    pub last_gop: Option<Duration>,
    /// That is longer than the application's `gop_warning`.
    pub gop_too_long: bool,
}

/// One stream, and how its publisher does: costs a copy and some sorting, for who wants to know.
#[derive(Debug, Clone)]
pub struct Survey {
    pub stream: StreamInfo,
    /// There when a publisher is.
    pub lately: Option<Lately>,
}

/// How a publisher does lately.
#[derive(Debug, Clone)]
pub struct Lately {
    pub reading: Reading,
    /// Pictures a second, as its metadata announce them.
    pub declared_fps: Option<f64>,
}

/// What is known of one track.
#[derive(Debug, Clone, Copy)]
pub struct TrackInfo {
    pub codec: Codec,
}

/// One feed's numbers.
#[derive(Debug, Clone, Copy)]
pub struct FeedInfo {
    pub low_latency: usize,
    pub viewers: usize,
    pub messages: u64,
    /// Messages among them that hold pictures.
    pub frames: u64,
    /// Media payload bytes that went into the ring.
    pub bytes: u64,
    /// Media payload bytes in the ring now.
    pub ring_bytes: usize,
    /// Time of the newest message on the feed's own timeline.
    pub newest: MediaTime,
}

/// What the metadata among those headers say of the frame rate. Encoders call it `framerate`, some servers `fps`.
pub(super) fn declared_fps(headers: &Headers) -> Option<f64> {
    let metadata = headers.find(Kind::Data, Slot::Metadata)?;
    let values = amf::decode(&metadata.payload).ok()?;
    let told = |key| {
        let value = values.iter().find_map(|value| amf::property(value, key))?;
        // Strangers write it.
        amf::number(value).filter(|fps| fps.is_finite() && *fps > 0.0)
    };
    told("framerate").or_else(|| told("fps"))
}
