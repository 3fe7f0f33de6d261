//! `/api/v1/auth/keys`: which keys there are and what use is made of them. Never a secret.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::streams::ms;
use crate::auth::KeyStatus;

#[derive(OpenApi)]
#[openapi(paths(list))]
pub(super) struct Description;

/// The configured keys.
#[derive(Serialize, ToSchema)]
pub(super) struct Keys {
    keys: Vec<Key>,
}

#[derive(Serialize, ToSchema)]
struct Key {
    app: Option<String>,
    set: &'static str,
    id: String,
    role: &'static str,
    state: &'static str,
    signs: bool,
    not_before: Option<String>,
    not_after: Option<String>,
    valid_for_ms: u64,
    hits: u64,
    last_used: Option<String>,
}

/// The configured keys without their secrets.
#[utoipa::path(get, path = "/api/v1/auth/keys", operation_id = "list_keys", tag = "auth",
    responses((status = 200, description = "all of them", body = Keys)))]
pub(super) async fn list(State(state): State<Arc<super::State>>) -> Json<Keys> {
    let keys = state.policy.keys(SystemTime::now());
    Json(Keys {
        keys: keys.into_iter().map(Key::from).collect(),
    })
}

impl From<KeyStatus> for Key {
    fn from(key: KeyStatus) -> Self {
        let time = |at| humantime::format_rfc3339_millis(at).to_string();
        Self {
            app: key.app,
            set: key.set.as_str(),
            id: key.id.as_str().to_owned(),
            role: key.role.as_str(),
            state: key.phase.as_str(),
            signs: key.signs,
            not_before: key.window.not_before.map(time),
            not_after: key.window.not_after.map(time),
            valid_for_ms: ms(key.valid_for),
            hits: key.hits,
            last_used: key.last_used.map(time),
        }
    }
}
