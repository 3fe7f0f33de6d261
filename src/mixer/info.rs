//! What the API tells about a mix: plain values, ready for JSON.

use std::sync::atomic::Ordering;

use serde::{Serialize, Serializer};

use super::input::{InputState, Losses};
use super::layout::{Rect, Size};
use super::output::Tally;

/// Where a mix stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MixState {
    /// For the first pictures of the inputs that it needs to begin.
    Waiting,
    /// Its pipeline is being made.
    Starting,
    /// There is nothing to mix: the main goes out as it came, and nothing is decoded or encoded.
    Passing,
    /// Frames are coming out.
    Live,
    /// Asked to end; in place it goes on until the source's next key frame.
    Ending,
    /// It cannot go on as it is; `error` says why. A new publisher or scene may help.
    Failed,
}

impl MixState {
    pub const ALL: [Self; 6] = [
        Self::Waiting,
        Self::Passing,
        Self::Starting,
        Self::Live,
        Self::Ending,
        Self::Failed,
    ];

    /// As the API spells it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Passing => "passing",
            Self::Starting => "starting",
            Self::Live => "live",
            Self::Ending => "ending",
            Self::Failed => "failed",
        }
    }
}

/// One mix.
#[derive(Debug, Clone, Serialize)]
pub struct MixInfo {
    pub id: String,
    /// Counts the scenes from 1.
    pub revision: u64,
    pub state: MixState,
    /// What keeps the main's own stream from going out as it came; null while nothing does.
    pub not_passed: Option<String>,
    pub in_place: bool,
    pub app: String,
    /// By rising layer.
    pub inputs: Vec<InputInfo>,
    pub output: OutputInfo,
    pub stats: Stats,
    /// Null while the encoder does what was asked for.
    pub degraded: Option<DegradedInfo>,
    /// Of a pipeline that failed: stays until its successor has run for 5 s.
    pub error: Option<String>,
}

/// What a mix makes less of because its encoder cannot carry what was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct DegradedInfo {
    /// Steps down from what was asked for.
    pub steps: usize,
    /// The preset in use.
    pub preset: String,
    /// Every second frame repeats the one before.
    pub half_pictures: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct InputInfo {
    /// The scene's name for it.
    pub id: String,
    /// `audio+video`, `audio`, `video`, `picture` or `canvas`.
    pub kind: &'static str,
    /// Null for what is no stream.
    pub stream: Option<String>,
    pub layer: u32,
    pub state: InputState,
    /// The box in pixels: `x`, `y`, `width`, `height`; null until the canvas is known, and
    /// for what is not to be seen.
    #[serde(flatten, serialize_with = "box_or_nulls")]
    pub rect: Option<Rect>,
    pub gain: f32,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct OutputInfo {
    pub stream: String,
    /// `width`, `height`; null, as the rate and bitrate, while they depend on a lead that has not shown itself.
    #[serde(flatten, serialize_with = "size_or_nulls")]
    pub size: Option<Size>,
    pub fps: Option<u32>,
    pub video_kbps: Option<u32>,
    pub audio_kbps: u32,
}

/// Every answer has the same keys, whatever is known yet.
pub(super) fn box_or_nulls<S: Serializer>(
    rect: &Option<Rect>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Fields {
        x: Option<u32>,
        y: Option<u32>,
        width: Option<u32>,
        height: Option<u32>,
    }
    Fields {
        x: rect.map(|r| r.x),
        y: rect.map(|r| r.y),
        width: rect.map(|r| r.width),
        height: rect.map(|r| r.height),
    }
    .serialize(serializer)
}

fn size_or_nulls<S: Serializer>(size: &Option<Size>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Fields {
        width: Option<u32>,
        height: Option<u32>,
    }
    Fields {
        width: size.map(|s| s.width),
        height: size.map(|s| s.height),
    }
    .serialize(serializer)
}

/// Counters since the mix was made.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    pub frames_out: u64,
    /// Output frames that repeat the one before because the machine was too slow.
    pub ticks_skipped: u64,
    /// Pipelines made anew after a failure.
    pub restarts: u64,
    /// From the arrival of the newest picture of the main in a frame to the frame's publishing; null before the first.
    pub added_latency_ms: Option<LatencyInfo>,
    /// Of all present inputs: messages that were not decoded.
    pub messages_dropped: u64,
    /// Of all present inputs: pictures that were never on screen.
    pub pictures_dropped: u64,
    pub sound_underruns: u64,
    pub sound_resyncs: u64,
}

/// Over the last thousand frames.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LatencyInfo {
    pub p50: f64,
    pub p99: f64,
}

impl Stats {
    pub(super) fn new(tally: &Tally, losses: impl Iterator<Item = Losses>) -> Self {
        let ms = |d: std::time::Duration| (d.as_secs_f64() * 10_000.0).round() / 10.0;
        let mut stats = Self {
            frames_out: tally.frames.load(Ordering::Relaxed),
            ticks_skipped: tally.skipped.load(Ordering::Relaxed),
            restarts: tally.restarts.load(Ordering::Relaxed),
            added_latency_ms: tally.latencies().map(|(p50, p99)| LatencyInfo {
                p50: ms(p50),
                p99: ms(p99),
            }),
            ..Self::default()
        };
        for loss in losses {
            stats.messages_dropped += loss.messages;
            stats.pictures_dropped += loss.pictures;
            stats.sound_underruns += loss.sound.underruns;
            stats.sound_resyncs += loss.sound.resyncs;
        }
        stats
    }
}
