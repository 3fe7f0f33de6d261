//! `/api/v1/pushes`: targets that feeds are sent to.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::Error;
use super::body::{self, Body, Path};
use super::durable::When;
use crate::push::{Put, Spec};

#[derive(Serialize)]
pub(super) struct Pushes {
    pushes: Vec<Value>,
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
) -> Result<Response, Error> {
    let id = body::path(path)?;
    let absent = || Error::not_found(format!("no push has the id {id:?}"));
    // In this order: a tag that is too old makes a change fail, one that is too new would make it go through.
    let tag = state.pushes.tag(&id).map(|tag| [tag.header()]);
    let push = state.pushes.get(&id).ok_or_else(absent)?;
    Ok((tag, Json(push)).into_response())
}

/// `PUT /api/v1/pushes/{id}`
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

/// `DELETE /api/v1/pushes/{id}`: answers with the last numbers once the target has been told.
pub(super) async fn delete(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Error> {
    let id = body::path(path)?;
    let when = When::read(&headers)?;
    Ok(Json(state.pushes.remove_when(&id, when).await?))
}
