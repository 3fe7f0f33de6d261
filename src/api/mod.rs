//! The control plane over HTTP: streams, mixes, pushes, bans, keys, URLs, events, dead letters, health and metrics.
//!
//! Owns paths, JSON forms, status codes and who may call. Refuses to decide anything about media: every request is a
//! call on the handle of the room below, and every error a translation of that room's. The server puts a
//! [`State`] together and serves [`control_router`] on the private listener through [`serve`], and [`public_router`] on
//! those connections of the public ones that do not ask for media through [`serve_handed`]. Every endpoint is described, with an example answer, in docs/api.md,
//! and by itself for programs: see [`describe`].
//!
//! Times are RFC 3339 in UTC; durations are milliseconds in fields that end in `_ms` and texts like `12h` in requests.

mod access;
mod bans;
mod body;
mod calls;
mod captures;
mod dead;
pub mod describe;
mod diagnose;
mod durable;
mod error;
mod events;
mod health;
mod history;
mod keys;
mod latency;
mod listener;
mod mixes;
mod operate;
mod pushes;
mod readers;
mod snapshot;
mod streams;
mod strict;
#[cfg(test)]
pub(crate) mod tests;
mod urls;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{delete, get, post};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use bans::Bans;
pub use body::{Body, Path, bytes, parse, path, term};
pub use calls::{Called, named};
pub use durable::{KeptMixes, KeptPushes, Tag, When};
pub use error::Error;
pub use health::Readiness;
pub use listener::{Peer, serve, serve_handed};
pub use mixes::{Clash, Drawn, Flaw, Gone, Keep, Made, MixError, Mixes, Pending, Wish};
pub use operate::{NotReloaded, Operator, Reloaded};
pub use snapshot::{Camera, Developing, Picture, PictureError, Pictures};
pub use urls::plain_url;

use crate::auth::{Gate, Policy, Secret};
use crate::capture::Captures;
use crate::hooks::Hooks;
use crate::logging;
use crate::media::PerApp;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::net::Admission;
use crate::net::host::Host;
use crate::net::tls::Certificates;
use crate::playback::Playback;
use crate::relay::Relay;
use crate::store::Store;

/// Largest request body. A mix of sixteen inputs has about 3 KB.
const MAX_BODY_BYTES: usize = 256 << 10;

/// What the endpoints call.
pub struct State {
    pub relay: Relay,
    pub playback: Playback,
    pub pushes: KeptPushes,
    /// `None`: built without the mixer.
    pub mixes: Option<KeptMixes>,
    pub pictures: Pictures,
    pub captures: Captures,
    pub policy: Arc<Policy>,
    pub gate: Arc<Gate>,
    pub bans: Bans,
    pub memory: Memory,
    pub admission: Admission,
    pub host: Host,
    pub operator: Arc<dyn Operator>,
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
    /// What RTMPS and HTTPS show, if they are served.
    pub certificates: Option<Arc<Certificates>>,
    pub store: Store,
    pub hooks: Hooks,
    /// Ends answers that have no end of their own.
    pub shutdown: CancellationToken,
    /// Changes that are being made; the server waits for them when it goes down.
    pub tasks: TaskTracker,
    /// What `Authorization: Bearer` must say.
    pub token: Secret,
    /// Which applications exist here.
    pub apps: PerApp<()>,
    /// Scheme, host and port of signed URLs for which the request names none: `rtmp://live.example`.
    pub base_url: String,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// Paths of another room that ask for the same token.
pub struct Beside {
    pub paths: Router,
    pub description: utoipa::openapi::OpenApi,
}

/// Everything, for the private listener.
pub fn control_router(state: State, beside: Beside) -> Router {
    let state = Arc::new(state);
    let listeners = events::Listeners::default();
    Router::new()
        .route(
            "/api/v1/events",
            get(move |state, query, headers| events::get(listeners, state, query, headers)),
        )
        .route("/api/v1/hooks/dead", get(dead::list))
        .route("/api/v1/hooks/dead/{id}", delete(dead::delete))
        .route("/api/v1/hooks/dead/{id}/retry", post(dead::retry))
        .route("/api/v1/streams", get(streams::list))
        .route(
            "/api/v1/streams/{app}/{name}",
            get(streams::get).delete(streams::delete),
        )
        .route("/api/v1/streams/{app}/{name}/readers", get(readers::list))
        .route(
            "/api/v1/streams/{app}/{name}/readers/{id}",
            delete(readers::delete),
        )
        .route("/api/v1/streams/{app}/{name}/diagnose", get(diagnose::get))
        .route("/api/v1/streams/{app}/{name}/latency", get(latency::get))
        .route(
            "/api/v1/streams/{app}/{name}/snapshot.jpg",
            get(snapshot::get),
        )
        .route("/api/v1/streams/{app}/{name}/events", get(history::list))
        .route(
            "/api/v1/streams/{app}/{name}/capture",
            post(captures::begin),
        )
        .route("/api/v1/captures", get(captures::list))
        .route(
            "/api/v1/captures/{id}",
            get(captures::get).delete(captures::delete),
        )
        .route("/api/v1/captures/{id}/media.flv", get(captures::media))
        .route("/api/v1/captures/{id}/timing.jsonl", get(captures::timing))
        .route("/api/v1/mixes", get(mixes::list))
        .route("/api/v1/mixes:preview", post(mixes::preview))
        .route(
            "/api/v1/mixes/{id}",
            get(mixes::get).put(mixes::put).delete(mixes::delete),
        )
        .route("/api/v1/pushes", get(pushes::list))
        .route(
            "/api/v1/pushes/{id}",
            get(pushes::get).put(pushes::put).delete(pushes::delete),
        )
        .route("/api/v1/bans", get(bans::list).post(bans::post))
        .route("/api/v1/bans/{id}", get(bans::get).delete(bans::delete))
        .route("/api/v1/auth/keys", get(keys::list))
        .route("/api/v1/reload", post(operate::reload))
        .route("/api/v1/drain", post(operate::drain))
        .route("/api/v1/host", get(operate::host))
        .route("/api/v1/urls/sign", post(urls::sign))
        .route("/api/v1/urls/verify", post(urls::verify))
        .route("/metrics", get(health::metrics))
        .merge(beside.paths.with_state(()))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(from_fn_with_state(state.clone(), access::check))
        // Health is asked by machines without tokens, and the description is in the documents: outside the check.
        .merge(health::router(state.readiness.clone()))
        .merge(describe::router(describe::text(&[beside.description])))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(state)
}

/// Makes a change to its end, whatever becomes of the request that asked for it: a caller who hangs up takes the
/// handler along at its next await, and would leave the change half made.
///
/// # Errors
/// The change's own; `internal` when it panicked.
async fn whole<T: Send + 'static>(
    tasks: &TaskTracker,
    change: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let made = tasks.spawn(logging::carried(change)).await;
    made.unwrap_or_else(|_| Err(Error::internal("the change failed half way")))
}

/// Health only, for the public listener. One request per connection: the next one may be for media, which is decided
/// where connections begin.
pub fn public_router(readiness: Readiness) -> Router {
    health::router(readiness)
        .fallback(error::not_found)
        .layer(map_response(|mut response: Response| async {
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }))
}
