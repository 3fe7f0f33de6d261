//! `GET /api/v1/streams/{app}/{name}/events`: what happened to a name lately, also when its stream is gone.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{OpenApi, ToSchema};

use super::Error;
use super::body::Path;
use super::streams;
use crate::hooks::{Entry, What};

#[derive(OpenApi)]
#[openapi(paths(list))]
pub(super) struct Description;

/// What happened to a name, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamEvents)]
pub(super) struct Events {
    events: Vec<Event>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = StreamEvent)]
struct Event {
    /// When, the last time.
    time: String,
    /// When it was for the first time, of those that came in a row.
    first_time: String,
    /// How often, in a row.
    count: u64,
    /// A kind of fact as webhooks have it, or `publish_refused`, `play_refused`, `player_closed`, `trouble`.
    r#type: &'static str,
    /// The id of a fact; none of the others.
    id: Option<String>,
    /// The stable reason, where there is one.
    reason: Option<String>,
    /// A sentence, where there is one.
    message: Option<String>,
    /// Whom a refusal met.
    address: Option<String>,
    /// What a fact tells.
    #[schema(value_type = Object)]
    data: Map<String, Value>,
}

/// What happened to a name lately, newest first.
#[utoipa::path(get, path = "/api/v1/streams/{app}/{name}/events", operation_id = "list_stream_events", tag = "streams",
    params(("app" = String, Path, description = "Application", pattern = "^[A-Za-z0-9_-]{1,64}$"), ("name" = String, Path, description = "Stream", pattern = "^[A-Za-z0-9_.-]{1,128}$")),
    responses(
        (status = 200, description = "what is remembered", body = Events),
        (status = 404, description = "nothing is remembered of that name, and nobody is there")))]
pub(super) async fn list(
    State(state): State<Arc<super::State>>,
    path: Path<(String, String)>,
) -> Result<Json<Events>, Error> {
    let key = streams::key(path)?;
    let entries = state.hooks.journal().chronicle().of(&key);
    if entries.is_none() && state.relay.stream_info(&key).is_none() {
        return Err(Error::not_found(format!(
            "nothing is remembered of {key}, and it has neither a publisher nor a reader"
        )));
    }
    let events = entries.unwrap_or_default().into_iter().map(Event::from);
    Ok(Json(Events {
        events: events.collect(),
    }))
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

impl From<Entry> for Event {
    fn from(entry: Entry) -> Self {
        let event = Self {
            time: rfc3339(entry.at),
            first_time: rfc3339(entry.first_at),
            count: entry.count,
            r#type: "",
            id: None,
            reason: None,
            message: None,
            address: None,
            data: Map::new(),
        };
        match entry.what {
            What::Fact { kind, id, data } => Self {
                r#type: kind,
                id: Some(id),
                reason: data["reason"].as_str().map(str::to_owned),
                data: match data {
                    Value::Object(data) => data,
                    _ => Map::new(),
                },
                ..event
            },
            What::Remark(remark) => Self {
                r#type: remark.kind,
                reason: Some(remark.reason.to_owned()),
                message: Some(remark.words),
                address: remark.address,
                ..event
            },
        }
    }
}
