//! `POST /api/v1/streams/{app}/{name}/capture` and `/api/v1/captures`: what a publisher sends, as files to take away.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;
use utoipa::{OpenApi, ToSchema};

use super::body::{self, Body, Path};
use super::{Error, streams, whole};
use crate::capture::{self, Info, MAX_TIME, Part};

/// Bytes of a file that are read at once.
const PIECE: usize = 64 << 10;

#[derive(OpenApi)]
#[openapi(paths(begin, list, get, delete, media, timing))]
pub(super) struct Description;

/// What is to be captured, and for how long.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CaptureWish)]
pub(super) struct Wish {
    #[schema(minimum = 1, maximum = 60)]
    seconds: u64,
    what: What,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = CaptureSubject)]
enum What {
    /// The messages of the publisher's connection.
    Publisher,
}

/// A capture.
#[derive(Serialize, ToSchema)]
#[schema(as = Capture)]
pub(super) struct Shown {
    id: String,
    app: String,
    stream: String,
    /// Of the publisher, when it began.
    epoch: u64,
    address: Option<String>,
    /// `running` or `done`.
    state: &'static str,
    /// That were asked for.
    seconds: u64,
    started: String,
    ended: Option<String>,
    /// Why it ended: `time`, `bytes`, `publisher`, `stopped`, `disk` or `unknown`.
    end: Option<&'static str>,
    messages: u64,
    /// Of the FLV file.
    bytes: u64,
    /// Where the files are.
    media: String,
    timing: String,
}

/// All captures, the newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct Captures {
    captures: Vec<Shown>,
}

/// Begins to capture what the publisher sends from now on.
#[utoipa::path(post, path = "/api/v1/streams/{app}/{name}/capture", operation_id = "begin_capture", tag = "captures",
    params(("app" = String, Path, description = "Application", pattern = "^[A-Za-z0-9_-]{1,64}$"), ("name" = String, Path, description = "Stream", pattern = "^[A-Za-z0-9_.-]{1,128}$")),
    request_body = Wish,
    responses(
        (status = 201, description = "it has begun", body = Shown),
        (status = 404, description = "nobody publishes it"),
        (status = 409, description = "it is being captured, or as many are as may be at once"),
        (status = 503, description = "the disk does not take it")))]
pub(super) async fn begin(
    State(state): State<Arc<super::State>>,
    path: Path<(String, String)>,
    body: Body,
) -> Result<(StatusCode, Json<Shown>), Error> {
    let key = streams::key(path)?;
    let Wish {
        seconds,
        what: What::Publisher,
    } = body::json(body)?;
    if !(1..=MAX_TIME.as_secs()).contains(&seconds) {
        let message = format!("seconds: {seconds} is outside 1 to {}", MAX_TIME.as_secs());
        return Err(Error::invalid(message));
    }
    let captures = state.captures.clone();
    let begin = async move {
        let begun = captures.begin(&key, Duration::from_secs(seconds)).await;
        begun.map_err(Error::from)
    };
    let info = whole(&state.tasks, begin).await?;
    Ok((StatusCode::CREATED, Json(info.into())))
}

/// All captures, the newest first.
#[utoipa::path(get, path = "/api/v1/captures", operation_id = "list_captures", tag = "captures",
    responses(
        (status = 200, description = "all of them", body = Captures),
        (status = 503, description = "the disk cannot be read")))]
pub(super) async fn list(State(state): State<Arc<super::State>>) -> Result<Json<Captures>, Error> {
    let captures = state.captures.list().await?;
    Ok(Json(Captures {
        captures: captures.into_iter().map(Shown::from).collect(),
    }))
}

/// One capture.
#[utoipa::path(get, path = "/api/v1/captures/{id}", operation_id = "get_capture", tag = "captures",
    params(("id" = String, Path, description = "As the list has it")),
    responses(
        (status = 200, description = "as it stands", body = Shown),
        (status = 404, description = "no such capture"),
        (status = 503, description = "the disk cannot be read")))]
pub(super) async fn get(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<Json<Shown>, Error> {
    let id = body::path(path)?;
    Ok(Json(state.captures.get(&id).await?.into()))
}

/// Ends a capture if it runs, and deletes its files.
#[utoipa::path(delete, path = "/api/v1/captures/{id}", operation_id = "delete_capture", tag = "captures",
    params(("id" = String, Path, description = "As the list has it")),
    responses(
        (status = 200, description = "as it was", body = Shown),
        (status = 404, description = "no such capture"),
        (status = 503, description = "the disk does not do it")))]
pub(super) async fn delete(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<Json<Shown>, Error> {
    let id = body::path(path)?;
    let captures = state.captures.clone();
    let delete = async move { captures.delete(&id).await.map_err(Error::from) };
    Ok(Json(whole(&state.tasks, delete).await?.into()))
}

/// What was sent, as an FLV file.
#[utoipa::path(get, path = "/api/v1/captures/{id}/media.flv", operation_id = "get_capture_media", tag = "captures",
    params(("id" = String, Path, description = "As the list has it")),
    responses(
        (status = 200, description = "the file, as far as it is written", content_type = "video/x-flv", body = String),
        (status = 404, description = "no such capture"),
        (status = 503, description = "the disk cannot be read")))]
pub(super) async fn media(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<Response, Error> {
    file(&state, path, Part::Media, "video/x-flv").await
}

/// When each message came, as lines of JSON.
#[utoipa::path(get, path = "/api/v1/captures/{id}/timing.jsonl", operation_id = "get_capture_timing", tag = "captures",
    params(("id" = String, Path, description = "As the list has it")),
    responses(
        (status = 200, description = "a line for each message, as far as they are written", content_type = "application/jsonl", body = String),
        (status = 404, description = "no such capture"),
        (status = 503, description = "the disk cannot be read")))]
pub(super) async fn timing(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<Response, Error> {
    file(&state, path, Part::Timing, "application/jsonl").await
}

async fn file(
    state: &super::State,
    path: Path<String>,
    part: Part,
    content_type: &'static str,
) -> Result<Response, Error> {
    let id = body::path(path)?;
    let stored = state.captures.open(&id, part).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        // One that runs grows meanwhile; what there was is given.
        (header::CONTENT_LENGTH, HeaderValue::from(stored.bytes)),
    ];
    let pieces = ReaderStream::with_capacity(stored.file.take(stored.bytes), PIECE);
    Ok((headers, axum::body::Body::from_stream(pieces)).into_response())
}

impl From<capture::Error> for Error {
    fn from(error: capture::Error) -> Self {
        let message = error.to_string();
        match error {
            capture::Error::NotPublished(_) | capture::Error::NotFound(_) => {
                Error::not_found(message)
            }
            capture::Error::Busy(_) => Error::conflict(message),
            capture::Error::Full => Error::new(StatusCode::CONFLICT, "limit_reached", message),
            capture::Error::Disk(_) => Error::unavailable(message),
        }
    }
}

impl From<Info> for Shown {
    fn from(info: Info) -> Self {
        let path = format!("/api/v1/captures/{}", info.id);
        Self {
            state: match info.end {
                Some(_) => "done",
                None => "running",
            },
            media: format!("{path}/media.flv"),
            timing: format!("{path}/timing.jsonl"),
            id: info.id,
            app: info.app,
            stream: info.stream,
            epoch: info.epoch,
            address: info.address,
            seconds: info.seconds,
            started: info.started,
            ended: info.ended,
            end: info.end.map(capture::End::word),
            messages: info.messages,
            bytes: info.bytes,
        }
    }
}
