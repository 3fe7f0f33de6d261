//! Callbacks and webhooks that were given up: looked at, sent again, forgotten.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::info;
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::Error;
use super::body::{self, Path};
use crate::hooks::Dead;

/// Letters of one answer; each has some 500 bytes.
const MOST: usize = 100;

#[derive(OpenApi)]
#[openapi(paths(list, retry, delete))]
pub(super) struct Description;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// The last id of the page before.
    after: Option<i64>,
    /// Letters of the answer.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetters)]
pub(super) struct Listed {
    dead: Vec<Shown>,
    /// `after` of the next page; null when this is the last one.
    next: Option<i64>,
}

/// A callback or webhook that was given up.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(super) struct Shown {
    id: i64,
    kind: &'static str,
    addressee: Option<String>,
    stream: String,
    attempts: i64,
    error: String,
    created_at: String,
    #[schema(value_type = Object)]
    body: Value,
}

/// Callbacks and webhooks that were given up.
#[utoipa::path(get, path = "/api/v1/hooks/dead", operation_id = "list_dead_letters", tag = "hooks", params(Page),
    responses((status = 200, description = "a page of them", body = Listed)))]
pub(super) async fn list(
    State(state): State<Arc<super::State>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Listed>, Error> {
    let Query(page) = page.map_err(|error| Error::invalid(error.body_text()))?;
    let limit = page.limit.unwrap_or(MOST);
    if !(1..=MOST).contains(&limit) {
        return Err(Error::invalid(format!(
            "limit: {limit} is not within 1 to {MOST}"
        )));
    }
    let after = page.after.unwrap_or(0);
    let mut dead = state.hooks.dead(after, limit + 1).await?;
    let more = dead.len() > limit;
    dead.truncate(limit);
    let last = dead.last().map(|dead| dead.row.id);
    Ok(Json(Listed {
        next: last.filter(|_| more),
        dead: dead.into_iter().map(Shown::from).collect(),
    }))
}

/// Sends one again at once, with all its tries.
#[utoipa::path(post, path = "/api/v1/hooks/dead/{id}/retry", operation_id = "retry_dead_letter", tag = "hooks",
    params(("id" = i64, Path, description = "As the list has it")),
    responses(
        (status = 202, description = "it is sent", body = Shown),
        (status = 404, description = "no such dead letter")))]
pub(super) async fn retry(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<(StatusCode, Json<Shown>), Error> {
    let id = id(path)?;
    let dead = state.hooks.retry(id).await?.ok_or_else(|| absent(id))?;
    info!(id, kind = dead.kind, "dead letter is sent again");
    Ok((StatusCode::ACCEPTED, Json(dead.into())))
}

/// Forgets one, and answers with what was forgotten.
#[utoipa::path(delete, path = "/api/v1/hooks/dead/{id}", operation_id = "forget_dead_letter", tag = "hooks",
    params(("id" = i64, Path, description = "As the list has it")),
    responses(
        (status = 200, description = "what it was", body = Shown),
        (status = 404, description = "no such dead letter")))]
pub(super) async fn delete(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<Json<Shown>, Error> {
    let id = id(path)?;
    let dead = state.hooks.forget(id).await?.ok_or_else(|| absent(id))?;
    info!(id, kind = dead.kind, "dead letter is forgotten");
    Ok(Json(dead.into()))
}

fn id(path: Path<String>) -> Result<i64, Error> {
    let text = body::path(path)?;
    let invalid = || Error::invalid(format!("id: {text:?} is not a whole number"));
    text.parse().map_err(|_| invalid())
}

fn absent(id: i64) -> Error {
    Error::not_found(format!("no dead letter has the id {id}"))
}

impl From<Dead> for Shown {
    fn from(dead: Dead) -> Self {
        let Dead {
            row,
            kind,
            addressee,
            stream,
        } = dead;
        let millis = u64::try_from(row.created_at).unwrap_or(0);
        let created_at = UNIX_EPOCH + Duration::from_millis(millis);
        let mut body: Value = serde_json::from_str(&row.body).unwrap_or_default();
        // The query opens what the URL opened.
        if let Some(query) = body.get_mut("stream_param") {
            *query = Value::from("***");
        }
        Self {
            id: row.id,
            kind,
            addressee,
            stream,
            attempts: row.attempts,
            error: row.error,
            created_at: humantime::format_rfc3339_millis(created_at).to_string(),
            body,
        }
    }
}
