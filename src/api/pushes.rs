//! `/api/v1/pushes`: targets that feeds are sent to.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};

use super::Error;
use super::body::{self, Body, Path};
use super::durable::When;
use crate::push::{Put, Spec, Status};

#[derive(OpenApi)]
#[openapi(paths(list, get, put, delete))]
pub(super) struct Description;

/// A target as it stands. Only described.
#[derive(ToSchema)]
#[schema(as = Push)]
#[allow(dead_code)]
struct Shown {
    #[schema(inline)]
    #[serde(flatten)]
    status: Status,
    /// Counts the changes from 1; null for one that a rule made.
    revision: Option<i64>,
}

/// A target that was kept from before the server's start, and cannot be made. Only described.
#[derive(ToSchema)]
#[schema(as = KeptPush)]
#[allow(dead_code)]
struct Kept {
    id: String,
    revision: i64,
    origin: String,
    state: String,
    last_error: String,
}

/// One of the two. Only described.
#[derive(ToSchema)]
#[schema(as = AnyPush)]
#[serde(untagged)]
#[allow(dead_code, clippy::large_enum_variant)]
enum Any {
    Shown(Shown),
    Kept(Kept),
}

/// All targets.
#[derive(Serialize, ToSchema)]
pub(super) struct Pushes {
    #[schema(value_type = Vec<Any>)]
    pushes: Vec<Value>,
}

/// All targets.
#[utoipa::path(get, path = "/api/v1/pushes", operation_id = "list_pushes", tag = "pushes",
    responses((status = 200, description = "all of them", body = Pushes)))]
pub(super) async fn list(State(state): State<Arc<super::State>>) -> Json<Pushes> {
    Json(Pushes {
        pushes: state.pushes.list(),
    })
}

/// One target.
#[utoipa::path(get, path = "/api/v1/pushes/{id}", operation_id = "get_push", tag = "pushes",
    params(("id" = String, Path, description = "Also rule:N:app:stream")),
    responses(
        (status = 200, description = "as it stands", body = Any),
        (status = 404, description = "no such push")))]
pub(super) async fn get(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<Response, Error> {
    let id = body::path(path)?;
    let absent = || Error::not_found(format!("no push has the id {id:?}"));
    // In this order: a tag that is too old makes a change fail, one that is too new would make it go through.
    let tag = state.pushes.tag(&id).map(|tag| [tag.header()]);
    let push = state.pushes.get(&id).ok_or_else(absent)?;
    Ok((tag, Json(push)).into_response())
}

/// Makes or changes a target.
#[utoipa::path(put, path = "/api/v1/pushes/{id}", operation_id = "put_push", tag = "pushes",
    params(("id" = String, Path, pattern = "^[A-Za-z0-9_.-]{1,128}$"), ("If-Match" = Option<String>, Header, description = "Only if it is at this ETag or revision, in quotes"), ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none")),
    request_body = Spec,
    responses(
        (status = 200, description = "it is changed, or was so already", body = Any),
        (status = 201, description = "it is made", body = Any),
        (status = 409, description = "a rule made it, or there are too many"),
        (status = 503, description = "the server goes down, or it could not be written to the disk, and nothing has changed"),
        (status = 412, description = "it is at another revision")))]
pub(super) async fn put(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let id = body::path(path)?;
    let when = When::read(&headers)?;
    let text = body::bytes(body)?;
    let spec: Spec = body::parse(&text)?;
    super::urls::check_app(&state, &spec.app)?;
    let change = state.pushes.put_when(&id, &text, when).await?;
    let code = match change.put {
        Put::Created => StatusCode::CREATED,
        Put::Changed | Put::Unchanged => StatusCode::OK,
    };
    let tag = change.tag.map(|tag| [tag.header()]);
    Ok((code, tag, Json(change.push)).into_response())
}

/// Ends a target, and answers with the last numbers once it has been told.
#[utoipa::path(delete, path = "/api/v1/pushes/{id}", operation_id = "delete_push", tag = "pushes",
    params(("id" = String, Path, description = "Also rule:N:app:stream"), ("If-Match" = Option<String>, Header, description = "Only if it is at this ETag or revision, in quotes"), ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none")),
    responses(
        (status = 200, description = "its last numbers", body = Any),
        (status = 404, description = "no such push"),
        (status = 409, description = "a rule made it"),
        (status = 412, description = "it is at another revision"),
        (status = 503, description = "it could not be written to the disk, and nothing has changed")))]
pub(super) async fn delete(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Error> {
    let id = body::path(path)?;
    let when = When::read(&headers)?;
    Ok(Json(state.pushes.remove_when(&id, when).await?))
}
