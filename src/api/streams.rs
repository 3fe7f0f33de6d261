//! `/api/v1/streams`: who publishes, who reads, how much.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::Error;
use super::body::{self, Path};
use crate::media::StreamKey;
use crate::reason::Reason;
use crate::relay::{FeedInfo, Origin, PublisherInfo, StreamInfo};

#[derive(Serialize)]
pub(super) struct Streams {
    streams: Vec<Stream>,
}

#[derive(Serialize)]
pub(super) struct Stream {
    app: String,
    stream: String,
    publisher: Option<Publisher>,
    mixed: bool,
    feeds: Feeds,
}

#[derive(Serialize)]
struct Publisher {
    epoch: u64,
    origin: &'static str,
    address: Option<String>,
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

#[derive(Serialize)]
struct Health {
    gop_too_long: bool,
    longest_gop_ms: u64,
}

#[derive(Serialize)]
struct Track {
    codec: &'static str,
}

#[derive(Serialize)]
struct Feeds {
    source: Feed,
    program: Feed,
}

#[derive(Serialize)]
struct Feed {
    low_latency: usize,
    viewers: usize,
    messages: u64,
    bytes: u64,
    ring_bytes: usize,
    newest_ms: i64,
}

#[derive(Serialize)]
pub(super) struct Disconnecting {
    app: String,
    stream: String,
    state: &'static str,
}

/// `GET /api/v1/streams`
pub(super) async fn list(State(state): State<Arc<super::State>>) -> Json<Streams> {
    let streams = state
        .relay
        .streams()
        .into_iter()
        .map(Stream::from)
        .collect();
    Json(Streams { streams })
}

/// `GET /api/v1/streams/{app}/{name}`
pub(super) async fn get(
    State(state): State<Arc<super::State>>,
    path: Path<(String, String)>,
) -> Result<Json<Stream>, Error> {
    let key = key(path)?;
    let info = state.relay.stream_info(&key).ok_or_else(|| absent(&key))?;
    Ok(Json(info.into()))
}

/// `DELETE /api/v1/streams/{app}/{name}`: disconnects the publisher.
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

fn key(path: Path<(String, String)>) -> Result<StreamKey, Error> {
    let (app, name) = body::path(path)?;
    StreamKey::new(&app, &name).map_err(|e| Error::invalid(e.to_string()))
}

pub(super) fn absent(key: &StreamKey) -> Error {
    Error::not_found(format!("{key} has neither a publisher nor a reader"))
}

impl From<StreamInfo> for Stream {
    fn from(info: StreamInfo) -> Self {
        Self {
            app: info.key.app().to_owned(),
            stream: info.key.stream().to_owned(),
            publisher: info.publisher.map(Publisher::from),
            mixed: info.mixed,
            feeds: Feeds {
                source: info.source.into(),
                program: info.program.into(),
            },
        }
    }
}

impl From<PublisherInfo> for Publisher {
    fn from(info: PublisherInfo) -> Self {
        let (origin, address, key, mix) = match info.origin {
            Origin::Anchor {
                address, key_id, ..
            } => ("anchor", Some(address.to_string()), key_id, None),
            Origin::Mix { id } => ("mix", None, None, Some(id)),
        };
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Self {
            epoch: info.epoch,
            origin,
            address,
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
