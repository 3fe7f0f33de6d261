//! `/api/v1/streams/{app}/{name}/readers`: who plays, and how far behind.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::body::{self, Path};
use super::streams::{self, ms};
use super::{Error, whole};
use crate::media::StreamKey;
use crate::playback::ReaderInfo;

#[derive(OpenApi)]
#[openapi(paths(list, delete))]
pub(super) struct Description;

/// Who plays a stream.
#[derive(Serialize, ToSchema)]
pub(super) struct Readers {
    readers: Vec<Reader>,
}

#[derive(Serialize, ToSchema)]
struct Reader {
    id: u64,
    address: String,
    door: &'static str,
    feed: &'static str,
    class: &'static str,
    since: String,
    state: &'static str,
    audio: bool,
    video: bool,
    lag_ms: Option<u64>,
    bytes: u64,
    unacknowledged_bytes: usize,
    skipped: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ReaderDisconnecting)]
pub(super) struct Disconnecting {
    id: u64,
    state: &'static str,
}

/// Who plays a stream, and how far behind.
#[utoipa::path(get, path = "/api/v1/streams/{app}/{name}/readers", operation_id = "list_readers", tag = "streams",
    params(("app" = String, Path, description = "Application", pattern = "^[A-Za-z0-9_-]{1,64}$"), ("name" = String, Path, description = "Stream", pattern = "^[A-Za-z0-9_.-]{1,128}$")),
    responses(
        (status = 200, description = "all of them", body = Readers),
        (status = 404, description = "no such stream")))]
pub(super) async fn list(
    State(state): State<Arc<super::State>>,
    path: Path<(String, String)>,
) -> Result<Json<Readers>, Error> {
    let (app, name) = body::path(path)?;
    let key = key(&app, &name)?;
    if state.relay.stream_info(&key).is_none() {
        return Err(streams::absent(&key));
    }
    let readers = state.playback.readers(&key).await;
    let readers = readers.into_iter().map(Reader::from).collect();
    Ok(Json(Readers { readers }))
}

/// Disconnects one player.
#[utoipa::path(delete, path = "/api/v1/streams/{app}/{name}/readers/{id}", operation_id = "delete_reader",
    tag = "streams",
    params(("app" = String, Path, description = "Application", pattern = "^[A-Za-z0-9_-]{1,64}$"), ("name" = String, Path, description = "Stream", pattern = "^[A-Za-z0-9_.-]{1,128}$"), ("id" = u64, Path, description = "As the list has it")),
    responses(
        (status = 202, description = "it is told to go", body = Disconnecting),
        (status = 404, description = "no such reader")))]
pub(super) async fn delete(
    State(state): State<Arc<super::State>>,
    path: Path<(String, String, u64)>,
) -> Result<(StatusCode, Json<Disconnecting>), Error> {
    let (app, name, id) = body::path(path)?;
    let key = key(&app, &name)?;
    let (playback, whose) = (state.playback.clone(), key.clone());
    let kick = async move { Ok(playback.kick(&whose, id).await) };
    if !whole(&state.tasks, kick).await? {
        return Err(Error::not_found(format!(
            "no reader of {key} has the id {id}"
        )));
    }
    tracing::info!(stream = %key, id, "player dropped through the API");
    let answer = Disconnecting {
        id,
        state: "disconnecting",
    };
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

fn key(app: &str, name: &str) -> Result<StreamKey, Error> {
    StreamKey::new(app, name).map_err(|e| Error::invalid(e.to_string()))
}

impl From<ReaderInfo> for Reader {
    fn from(info: ReaderInfo) -> Self {
        Self {
            id: info.id,
            address: info.arrival.peer.to_string(),
            door: info.arrival.door,
            feed: info.feed.as_str(),
            class: info.class.as_str(),
            since: humantime::format_rfc3339_millis(info.arrival.since).to_string(),
            state: info.state,
            audio: info.audio,
            video: info.video,
            lag_ms: info.lag.map(ms),
            bytes: info.bytes,
            unacknowledged_bytes: info.unacknowledged,
            skipped: info.skipped,
        }
    }
}
