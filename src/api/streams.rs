//! `/api/v1/streams`: who publishes, who reads, how much.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::Error;
use super::body::{self, Path};
use crate::media::StreamKey;
use crate::media::findings::{self, Finding, Grade};
use crate::reason::Reason;
use crate::relay::{FeedInfo, Lately, Origin, PublisherInfo, Survey};

#[derive(OpenApi)]
#[openapi(paths(list, get, delete))]
pub(super) struct Description;

/// Streams with a publisher or a reader.
#[derive(Serialize, ToSchema)]
pub(super) struct Streams {
    streams: Vec<Stream>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Stream {
    app: String,
    stream: String,
    publisher: Option<Publisher>,
    mixed: bool,
    feeds: Feeds,
}

#[derive(Serialize, ToSchema)]
#[schema(as = StreamPublisher)]
struct Publisher {
    epoch: u64,
    origin: &'static str,
    address: Option<String>,
    connection: Option<String>,
    key: Option<String>,
    mix: Option<String>,
    since: String,
    messages: u64,
    bytes: u64,
    idle_ms: Option<u64>,
    video: Option<Track>,
    audio: Option<Track>,
    health: Health,
}

#[derive(Serialize, ToSchema)]
#[schema(as = StreamHealth)]
struct Health {
    /// `good`, `fair` or `poor`: the worst of the findings.
    #[schema(examples("good"))]
    grade: &'static str,
    /// The code of the worst of them; `…/diagnose` has all, and their sentences.
    worst: Option<&'static str>,
    /// Pictures a second lately, what the publisher's metadata announce, and what it sends in kilobits a second.
    fps: Option<f64>,
    declared_fps: Option<f64>,
    kbps: Option<f64>,
    gop_too_long: bool,
    longest_gop_ms: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = StreamTrack)]
struct Track {
    codec: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = StreamFeeds)]
struct Feeds {
    source: Feed,
    program: Feed,
}

#[derive(Serialize, ToSchema)]
#[schema(as = StreamFeed)]
struct Feed {
    low_latency: usize,
    viewers: usize,
    messages: u64,
    bytes: u64,
    ring_bytes: usize,
    newest_ms: i64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PublisherDisconnecting)]
pub(super) struct Disconnecting {
    app: String,
    stream: String,
    state: &'static str,
}

/// Names with a publisher or a reader.
#[utoipa::path(get, path = "/api/v1/streams", operation_id = "list_streams", tag = "streams",
    responses((status = 200, description = "all of them", body = Streams)))]
pub(super) async fn list(State(state): State<Arc<super::State>>) -> Json<Streams> {
    let streams = state
        .relay
        .surveys()
        .into_iter()
        .map(Stream::from)
        .collect();
    Json(Streams { streams })
}

/// One stream.
#[utoipa::path(get, path = "/api/v1/streams/{app}/{name}", operation_id = "get_stream", tag = "streams",
    params(("app" = String, Path, description = "Application", pattern = "^[A-Za-z0-9_-]{1,64}$"), ("name" = String, Path, description = "Stream", pattern = "^[A-Za-z0-9_.-]{1,128}$")),
    responses(
        (status = 200, description = "it has a publisher or a reader", body = Stream),
        (status = 404, description = "it has neither")))]
pub(super) async fn get(
    State(state): State<Arc<super::State>>,
    path: Path<(String, String)>,
) -> Result<Json<Stream>, Error> {
    let key = key(path)?;
    let survey = state.relay.survey(&key).ok_or_else(|| absent(&key))?;
    Ok(Json(survey.into()))
}

/// Disconnects the publisher.
#[utoipa::path(delete, path = "/api/v1/streams/{app}/{name}", operation_id = "delete_stream", tag = "streams",
    params(("app" = String, Path, description = "Application", pattern = "^[A-Za-z0-9_-]{1,64}$"), ("name" = String, Path, description = "Stream", pattern = "^[A-Za-z0-9_.-]{1,128}$")),
    responses(
        (status = 202, description = "it is told to go", body = Disconnecting),
        (status = 404, description = "nobody publishes it"),
        (status = 409, description = "a mix publishes it")))]
pub(super) async fn delete(
    State(state): State<Arc<super::State>>,
    path: Path<(String, String)>,
) -> Result<(StatusCode, Json<Disconnecting>), Error> {
    let key = key(path)?;
    if state.relay.evict(&key, Reason::Dropped) {
        tracing::info!(stream = %key, "publisher dropped through the API");
        let answer = Disconnecting {
            app: key.app().to_owned(),
            stream: key.stream().to_owned(),
            state: "disconnecting",
        };
        return Ok((StatusCode::ACCEPTED, Json(answer)));
    }
    let info = state.relay.stream_info(&key).ok_or_else(|| absent(&key))?;
    match info.publisher.map(|publisher| publisher.origin) {
        Some(Origin::Mix { id }) => Err(Error::conflict(format!(
            "{key} is the output of the mix {id:?}; delete the mix"
        ))),
        _ => Err(Error::not_found(format!("nobody publishes {key}"))),
    }
}

pub(super) fn key(path: Path<(String, String)>) -> Result<StreamKey, Error> {
    let (app, name) = body::path(path)?;
    StreamKey::new(&app, &name).map_err(|e| Error::invalid(e.to_string()))
}

pub(super) fn absent(key: &StreamKey) -> Error {
    Error::not_found(format!("{key} has neither a publisher nor a reader"))
}

impl From<Survey> for Stream {
    fn from(survey: Survey) -> Self {
        let info = survey.stream;
        Self {
            app: info.key.app().to_owned(),
            stream: info.key.stream().to_owned(),
            publisher: info.publisher.zip(survey.lately).map(Publisher::from),
            mixed: info.mixed,
            feeds: Feeds {
                source: info.source.into(),
                program: info.program.into(),
            },
        }
    }
}

/// What there is to say of a publisher, worst first.
pub(super) fn findings(lately: &Lately) -> Vec<Finding> {
    findings::of_publisher(&lately.reading, lately.declared_fps, Instant::now())
}

/// Whole milliseconds.
pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// With one digit.
pub(super) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl From<(PublisherInfo, Lately)> for Publisher {
    fn from((info, lately): (PublisherInfo, Lately)) -> Self {
        let found = findings(&lately);
        let rates = lately.reading.rates;
        let (origin, address, connection, key, mix) = match info.origin {
            Origin::Anchor {
                address,
                connection,
                key_id,
                ..
            } => {
                let connection = Some(connection.to_string());
                (
                    "anchor",
                    Some(address.to_string()),
                    connection,
                    key_id,
                    None,
                )
            }
            Origin::Mix { id } => ("mix", None, None, None, Some(id)),
        };
        Self {
            epoch: info.epoch,
            origin,
            address,
            connection,
            key,
            mix,
            since: humantime::format_rfc3339_millis(info.since).to_string(),
            messages: info.messages,
            bytes: info.bytes,
            idle_ms: info.idle.map(ms),
            video: info.video.map(|track| Track {
                codec: track.codec.as_str(),
            }),
            audio: info.audio.map(|track| Track {
                codec: track.codec.as_str(),
            }),
            health: Health {
                grade: Grade::of(&found).word(),
                worst: found.first().map(|found| found.code),
                fps: rates.map(|rates| tenths(rates.fps)),
                declared_fps: lately.declared_fps.map(tenths),
                kbps: rates.map(|rates| tenths(rates.kbps)),
                gop_too_long: info.gop_too_long,
                longest_gop_ms: ms(info.longest_gop),
            },
        }
    }
}

impl From<FeedInfo> for Feed {
    fn from(info: FeedInfo) -> Self {
        Self {
            low_latency: info.low_latency,
            viewers: info.viewers,
            messages: info.messages,
            bytes: info.bytes,
            ring_bytes: info.ring_bytes,
            newest_ms: info.newest.0,
        }
    }
}
