//! Alive, ready, and in numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::{OpenApi, ToSchema};

use super::{Error, Mixes, error};
use crate::auth::LIMITS;
use crate::media::findings::Grade;
use crate::media::{Class, Feed};
use crate::metrics::{self, StreamNumbers};
use crate::playback::Playback;
use crate::relay::{StreamInfo, Survey};

/// How long a scrape waits for what writer loops tell of their players: those of a stream that take longer are left out of it. Prometheus
/// gives a scrape up after 10 s by default, and all its numbers with it.
const LOOPS: Duration = Duration::from_secs(2);

/// Whether the server takes work: set once all listeners are open, taken back when it is going down. Shared by clones.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Not ready yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What `/readyz` says from now on.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(OpenApi)]
#[openapi(paths(alive, ready, metrics))]
pub(super) struct Description;

/// How the server is.
#[derive(Serialize, ToSchema)]
struct Health {
    status: &'static str,
}

/// `/healthz` and `/readyz`.
pub(super) fn router<S: Clone + Send + Sync + 'static>(readiness: Readiness) -> Router<S> {
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(move || ready(readiness.clone())))
        .method_not_allowed_fallback(error::method_not_allowed)
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, description = "it does", body = Health)))]
async fn alive() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether the server takes work.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses(
        (status = 200, description = "it does", body = Health),
        (status = 503, description = "it is starting or going down")))]
async fn ready(readiness: Readiness) -> Result<Json<Health>, Error> {
    if readiness.is_ready() {
        return Ok(Json(Health { status: "ready" }));
    }
    Err(Error::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not_ready",
        "the server is starting or going down",
    ))
}

/// Numbers for Prometheus; callers on the same machine need no token.
#[utoipa::path(get, path = "/metrics", tag = "health", security((), ("token" = [])),
    responses(
        (status = 200, description = "all series", body = String, content_type = "text/plain"),
        (status = 401, description = "from another machine: no token, or another"),
        (status = 403, description = "not from this address")))]
pub(super) async fn metrics(State(state): State<Arc<super::State>>) -> impl IntoResponse {
    let surveys = state.relay.surveys();
    collect(&state, &surveys);
    each_stream(&state, &surveys).await;
    // Without an answer of the disk the numbers are those of before.
    if let Ok(outbox) = state.hooks.outbox().await {
        let count = |n: i64| usize::try_from(n).unwrap_or(0);
        let (waiting, dead) = (count(outbox.waiting), count(outbox.dead));
        state
            .metrics
            .set_outbox(waiting, dead, outbox.oldest(SystemTime::now()));
    }
    let content_type = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    (content_type, state.metrics.encode())
}

/// Tells of single streams, where an operator wants that.
async fn each_stream(state: &super::State, surveys: &[Survey]) {
    let streams = || surveys.iter().map(|survey| &survey.stream);
    let present = streams().map(|s| (s.key.app(), s.key.stream(), s.publisher.is_some()));
    let chosen = state.metrics.choose_streams(&present.collect::<Vec<_>>());
    let chosen = streams().filter(|stream| {
        let name = (stream.key.app().to_owned(), stream.key.stream().to_owned());
        chosen.contains(&name)
    });
    // All at once, so that loops that do not answer have one deadline together.
    let told = join_all(chosen.map(|stream| numbers(&state.playback, stream))).await;
    state.metrics.set_each_stream(&told);
}

async fn numbers(playback: &Playback, stream: &StreamInfo) -> StreamNumbers {
    let readers = [stream.source, stream.program];
    let slowest = match readers
        .iter()
        .any(|feed| feed.low_latency + feed.viewers > 0)
    {
        true => timeout(LOOPS, playback.readers(&stream.key)).await,
        false => Ok(Vec::new()),
    };
    let slowest = slowest.unwrap_or_default();
    let publisher = stream.publisher.as_ref();
    StreamNumbers {
        app: stream.key.app().to_owned(),
        stream: stream.key.stream().to_owned(),
        up: publisher.is_some(),
        bytes: stream.source.bytes,
        frames: stream.source.frames,
        key_frame_interval: publisher.and_then(|publisher| publisher.last_gop),
        readers: [
            readers.iter().map(|feed| feed.low_latency).sum(),
            readers.iter().map(|feed| feed.viewers).sum(),
        ],
        slowest: slowest.iter().filter_map(|reader| reader.lag).max(),
    }
}

fn collect(state: &super::State, surveys: &[Survey]) {
    let metrics = &state.metrics;
    metrics.set_tasks(
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
    );
    let streams = || surveys.iter().map(|survey| &survey.stream);
    let published = streams().filter(|s| s.publisher.is_some()).count();
    metrics.set_streams(surveys.len(), published);
    let publishers = streams().filter_map(|s| s.publisher.as_ref());
    metrics.set_long_gops(publishers.filter(|p| p.gop_too_long).count());
    let lately = surveys.iter().filter_map(|survey| survey.lately.as_ref());
    let grades: Vec<_> = lately
        .map(|l| Grade::of(&super::streams::findings(l)))
        .collect();
    let graded = Grade::ALL.map(|grade| {
        let of_it = grades.iter().filter(|one| **one == grade);
        (grade.word(), of_it.count())
    });
    metrics.set_grades(&graded);
    for feed in [Feed::Source, Feed::Program] {
        let mut readers = [0, 0];
        for stream in streams() {
            let info = match feed {
                Feed::Source => &stream.source,
                Feed::Program => &stream.program,
            };
            readers[0] += info.low_latency;
            readers[1] += info.viewers;
        }
        for (class, n) in [Class::LowLatency, Class::Viewer].into_iter().zip(readers) {
            metrics.set_subscribers(feed.as_str(), class.as_str(), n);
        }
    }
    let keys = state.policy.keys(SystemTime::now());
    let keys = keys
        .iter()
        .map(|key| (key.set.as_str(), key.id.as_str(), key.hits));
    metrics.set_key_hits(&keys.collect::<Vec<_>>());
    let connections = state.admission.refused();
    let connections = ["connections", "connections_per_address"]
        .into_iter()
        .zip(connections);
    let guests = LIMITS.into_iter().zip(state.gate.refused());
    metrics.set_limits_refused(&connections.chain(guests).collect::<Vec<_>>());
    metrics.set_memory(state.memory.used(), state.memory.limit());
    let anchors = super::operate::anchors(streams());
    metrics.set_can_accept(super::operate::can_accept(state, anchors));
    metrics.set_bans(state.bans.count());
    metrics.set_store_failures(state.store.failures());
    let certificates = state.certificates.as_ref();
    metrics.set_certificate_expiry(certificates.and_then(|shown| shown.expiry()));
    let near = state.policy.near_misses();
    metrics.set_near_misses(near.forgiven, near.refused);
    let push = state.pushes.handle().metrics();
    metrics.set_push(&metrics::Push {
        by_state: &push.by_state,
        stalled: push.stalled,
        connects: push.connects,
        failures: push.failures,
        bytes: push.bytes,
        messages: push.messages,
        dropped: push.dropped,
        skips: push.skips,
        takeovers: push.takeovers,
        lag: push.lag,
    });
    if let Some(mixes) = &state.mixes {
        metrics.set_mix_decoders(&mixes.decoders());
        metrics.set_mix_load(&mixes.load());
        let mixes = mixes.list();
        let inputs = mixes
            .iter()
            .filter_map(|mix| mix["inputs"].as_array())
            .flatten();
        metrics.set_mixes(&by_state(mixes.iter()), &by_state(inputs));
    }
}

/// How many of some objects are in each state that they tell.
fn by_state<'a>(objects: impl Iterator<Item = &'a serde_json::Value>) -> Vec<(&'a str, usize)> {
    let mut by_state: Vec<(&str, usize)> = Vec::new();
    for object in objects {
        let word = object["state"].as_str().unwrap_or_default();
        match by_state.iter_mut().find(|(known, _)| *known == word) {
            Some((_, n)) => *n += 1,
            None => by_state.push((word, 1)),
        }
    }
    by_state
}
