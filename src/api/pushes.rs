//! `/api/v1/pushes`: targets that feeds are sent to.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::Error;
use super::body::{self, Body, Path};
use crate::push::{Put, Spec, Status};

#[derive(OpenApi)]
#[openapi(paths(list, get, put, delete))]
pub(super) struct Description;

/// All targets.
#[derive(Serialize, ToSchema)]
pub(super) struct Pushes {
    pushes: Vec<Status>,
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
        (status = 200, description = "as it stands", body = Status),
        (status = 404, description = "no such push")))]
pub(super) async fn get(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<Json<Status>, Error> {
    let id = body::path(path)?;
    let absent = || Error::not_found(format!("no push has the id {id:?}"));
    state.pushes.get(&id).map(Json).ok_or_else(absent)
}

/// Makes or changes a target.
#[utoipa::path(put, path = "/api/v1/pushes/{id}", operation_id = "put_push", tag = "pushes",
    params(("id" = String, Path, pattern = "^[A-Za-z0-9_.-]{1,128}$")),
    request_body = Spec,
    responses(
        (status = 200, description = "it is changed, or was so already", body = Status),
        (status = 201, description = "it is made", body = Status),
        (status = 409, description = "a rule made it, or there are too many"),
        (status = 503, description = "the server goes down")))]
pub(super) async fn put(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
    body: Body,
) -> Result<(StatusCode, Json<Status>), Error> {
    let id = body::path(path)?;
    let spec: Spec = body::json(body)?;
    super::urls::check_app(&state, &spec.app)?;
    let (put, status) = state.pushes.put(&id, spec)?;
    let code = match put {
        Put::Created => StatusCode::CREATED,
        Put::Changed | Put::Unchanged => StatusCode::OK,
    };
    Ok((code, Json(status)))
}

/// Ends a target, and answers with the last numbers once it has been told.
#[utoipa::path(delete, path = "/api/v1/pushes/{id}", operation_id = "delete_push", tag = "pushes",
    params(("id" = String, Path, description = "Also rule:N:app:stream")),
    responses(
        (status = 200, description = "its last numbers", body = Status),
        (status = 404, description = "no such push"),
        (status = 409, description = "a rule made it")))]
pub(super) async fn delete(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<Json<Status>, Error> {
    let id = body::path(path)?;
    Ok(Json(state.pushes.remove(&id).await?))
}
