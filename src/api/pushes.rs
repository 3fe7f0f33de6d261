//! `/api/v1/pushes`: targets that feeds are sent to.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::Error;
use super::body::{self, Body, Path};
use crate::push::{Put, Spec, Status};

#[derive(Serialize)]
pub(super) struct Pushes {
    pushes: Vec<Status>,
}

/// `GET /api/v1/pushes`
pub(super) async fn list(State(state): State<Arc<super::State>>) -> Json<Pushes> {
    Json(Pushes {
        pushes: state.pushes.list(),
    })
}

/// `GET /api/v1/pushes/{id}`
pub(super) async fn get(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<Json<Status>, Error> {
    let id = body::path(path)?;
    let absent = || Error::not_found(format!("no push has the id {id:?}"));
    state.pushes.get(&id).map(Json).ok_or_else(absent)
}

/// `PUT /api/v1/pushes/{id}`
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

/// `DELETE /api/v1/pushes/{id}`: answers with the last numbers once the target has been told.
pub(super) async fn delete(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<Json<Status>, Error> {
    let id = body::path(path)?;
    Ok(Json(state.pushes.remove(&id).await?))
}
