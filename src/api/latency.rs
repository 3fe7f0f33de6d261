//! `GET /api/v1/streams/{app}/{name}/latency`: how long media takes, hop by hop, as far as it can be measured here.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::body::Path;
use super::streams::{self, ms};
use super::{Error, Mixes, diagnose};
use crate::media::Class;
use crate::media::vitals::Spread;
use crate::playback::ReaderInfo;

#[derive(OpenApi)]
#[openapi(paths(get))]
pub(super) struct Description;

/// A stream's hops, from the publisher to those who take it from here.
#[derive(Serialize, ToSchema)]
pub(super) struct Latency {
    publisher: Option<Publisher>,
    ingest: Option<Ingest>,
    ring: Ring,
    /// Those that read or make the stream.
    mixes: Vec<Mix>,
    readers: Readers,
    pushes: Vec<Push>,
}

/// The least, the median and the most of some times, in milliseconds.
#[derive(Serialize, ToSchema)]
#[schema(as = LatencySpread)]
struct Times {
    min: f64,
    median: f64,
    max: f64,
    /// Of how many.
    count: usize,
}

/// What can be told of the way from the encoder to here.
#[derive(Serialize, ToSchema)]
#[schema(as = LatencyPublisher)]
struct Publisher {
    /// How much later than the earliest of them the latest pictures came, by their own times.
    arrival_jitter_ms: Option<Times>,
    /// How much faster than ours its clock is, in millionths; known after a minute.
    clock_ppm: Option<i64>,
    /// The longest way of a picture from decoding to showing: what B-frames cost.
    composition_ms: u64,
}

/// From the socket to the ring, timestamps repaired.
#[derive(Serialize, ToSchema)]
#[schema(as = LatencyIngest)]
struct Ingest {
    handling_ms: Times,
}

/// What the feeds keep.
#[derive(Serialize, ToSchema)]
#[schema(as = LatencyRing)]
struct Ring {
    /// Media time from the source's newest key frame to its newest message: what a joiner is given at once.
    source_gop_ms: Option<u64>,
    source_bytes: usize,
    program_bytes: usize,
}

/// A mix, by the latest pictures of its main: the stages add up to `added_ms`.
#[derive(Serialize, ToSchema)]
#[schema(as = LatencyMix)]
struct Mix {
    mix: String,
    /// `output` where the stream is what the mix makes, `input` where it only reads it.
    role: &'static str,
    decode_ms: Option<Times>,
    hold_ms: Option<Times>,
    beat_ms: Option<Times>,
    encode_ms: Option<Times>,
    added_ms: Option<Times>,
}

/// By class, of both feeds.
#[derive(Serialize, ToSchema)]
#[schema(as = LatencyReaders)]
struct Readers {
    low_latency: OfClass,
    viewer: OfClass,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LatencyReadersOfClass)]
struct OfClass {
    readers: usize,
    /// Media time from the last byte that its TCP has acknowledged to the newest message; of those that play.
    lag_ms: Option<Times>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LatencyPush)]
struct Push {
    push: String,
    state: &'static str,
    /// As a reader's; only in `live`.
    lag_ms: Option<u64>,
}

/// How long media takes, hop by hop.
#[utoipa::path(get, path = "/api/v1/streams/{app}/{name}/latency", operation_id = "get_stream_latency", tag = "streams",
    params(("app" = String, Path, description = "Application", pattern = "^[A-Za-z0-9_-]{1,64}$"), ("name" = String, Path, description = "Stream", pattern = "^[A-Za-z0-9_.-]{1,128}$")),
    responses(
        (status = 200, description = "as far as it can be measured", body = Latency),
        (status = 404, description = "it has neither a publisher nor a reader")))]
pub(super) async fn get(
    State(state): State<Arc<super::State>>,
    path: Path<(String, String)>,
) -> Result<Json<Latency>, Error> {
    let key = streams::key(path)?;
    let survey = state.relay.survey(&key);
    let survey = survey.ok_or_else(|| streams::absent(&key))?;
    let info = survey.stream;
    let reading = survey.lately.map(|lately| lately.reading);
    let readers = state.playback.readers(&key).await;
    let mut mixes = Vec::new();
    if let Some(kept) = &state.mixes {
        for mix in kept.list() {
            let id = mix["id"].as_str().unwrap_or_default();
            if diagnose::is_of(&mix, &key) {
                let is_output = mix["output"]["stream"] == key.stream();
                mixes.push(Mix::new(id, is_output, &kept.stages(id)));
            }
        }
    }
    let pushes = state.pushes.handle().list().into_iter();
    let ours = pushes.filter(|p| p.app == key.app() && p.stream == key.stream());
    let of = |class| OfClass::new(&readers, class);
    Ok(Json(Latency {
        ring: Ring {
            source_gop_ms: reading.as_ref().and_then(|r| r.running_gop).map(ms),
            source_bytes: info.source.ring_bytes,
            program_bytes: info.program.ring_bytes,
        },
        ingest: reading.as_ref().and_then(|reading| {
            let handling_ms = reading.handling?.into();
            Some(Ingest { handling_ms })
        }),
        publisher: reading.map(|reading| Publisher {
            arrival_jitter_ms: reading.jitter.map(Times::from),
            clock_ppm: reading.clock_ppm,
            composition_ms: ms(reading.composition),
        }),
        mixes,
        readers: Readers {
            low_latency: of(Class::LowLatency),
            viewer: of(Class::Viewer),
        },
        pushes: ours
            .map(|push| Push {
                push: push.id,
                state: push.state.as_str(),
                lag_ms: push.lag_ms,
            })
            .collect(),
    }))
}

impl From<Spread> for Times {
    fn from(spread: Spread) -> Self {
        // To the microsecond.
        let ms = |time: Duration| time.as_micros() as f64 / 1e3;
        Self {
            min: ms(spread.min),
            median: ms(spread.median),
            max: ms(spread.max),
            count: spread.count,
        }
    }
}

impl Mix {
    fn new(id: &str, is_output: bool, stages: &[(&'static str, Spread)]) -> Self {
        let of = |wanted: &str| {
            let found = stages.iter().find(|(word, _)| *word == wanted);
            found.map(|(_, spread)| Times::from(*spread))
        };
        Self {
            mix: id.to_owned(),
            role: if is_output { "output" } else { "input" },
            decode_ms: of("decode"),
            hold_ms: of("hold"),
            beat_ms: of("beat"),
            encode_ms: of("encode"),
            added_ms: of("added"),
        }
    }
}

impl OfClass {
    fn new(readers: &[ReaderInfo], class: Class) -> Self {
        let of_class = || readers.iter().filter(|reader| reader.class == class);
        let lags = of_class().filter_map(|reader| reader.lag);
        let us = lags.map(|lag| u64::try_from(lag.as_micros()).unwrap_or(u64::MAX));
        Self {
            readers: of_class().count(),
            lag_ms: Spread::of(us).map(Times::from),
        }
    }
}
