//! What operators ask of the whole server: to read its configuration again, to drain, and how much room its host has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::streams::{ms, tenths};
use super::{Error, Mixes};
use crate::logging;
use crate::net::descriptors;
use crate::relay::{Origin, StreamInfo};

/// Nobody waits longer than a day.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// The server that this is of.
pub trait Operator: Send + Sync {
    /// Reads the configuration again and has it hold as far as it can. Blocks on files.
    ///
    /// # Errors
    /// Why nothing has changed.
    fn reload(&self) -> Result<Reloaded, NotReloaded>;

    /// Has the server drain within that time, or within the configured one, which is given back.
    fn drain(&self, within: Option<Duration>) -> Duration;

    /// By when it is down; `None`: it does not drain.
    fn drains_until(&self) -> Option<Instant>;
}

/// What became of a configuration that was read again. Keys are paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reloaded {
    /// Changed, and holds now.
    pub applied: Vec<String>,
    /// Changed, and holds from the next start on.
    pub needs_restart: Vec<String>,
}

/// Why a configuration was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReloaded {
    /// There is nothing to read.
    Nothing,
    /// What is wrong: keys, and what about them.
    Mistakes(Vec<(String, String)>),
}

/// A configuration that was not taken; nothing has changed.
#[derive(Serialize, ToSchema)]
#[schema(as = Rejected)]
struct Rejected {
    code: &'static str,
    message: String,
    /// Every mistake there is.
    rejected: Vec<Mistake>,
}

/// What is wrong with a key.
#[derive(Serialize, ToSchema)]
struct Mistake {
    /// Its path; empty: the file as a whole.
    key: String,
    message: String,
}

#[derive(OpenApi)]
#[openapi(paths(reload, drain, host), components(schemas(Rejected)))]
pub(super) struct Description;

/// Reads the configuration again, as SIGHUP does.
#[utoipa::path(post, path = "/api/v1/reload", operation_id = "reload", tag = "operation",
    responses(
        (status = 200, description = "what holds now, and what does from the next start on", body = Reloaded),
        (status = 409, description = "the server was not started from a configuration that can be read again"),
        (status = 422, description = "it has mistakes; nothing has changed", body = Rejected)))]
pub(super) async fn reload(State(state): State<Arc<super::State>>) -> Result<Response, Error> {
    let operator = state.operator.clone();
    let reloaded =
        tokio::task::spawn_blocking(logging::carried_blocking(move || operator.reload())).await;
    let reloaded = reloaded.map_err(|_| Error::internal("the configuration could not be read"))?;
    Ok(match reloaded {
        Ok(reloaded) => Json(reloaded).into_response(),
        Err(NotReloaded::Nothing) => {
            Error::conflict("this server has no configuration that could be read again")
                .into_response()
        }
        Err(NotReloaded::Mistakes(mistakes)) => {
            let count = mistakes.len();
            let rejected = Rejected {
                code: "rejected",
                message: format!("the configuration has mistakes ({count}); nothing has changed"),
                rejected: mistakes
                    .into_iter()
                    .map(|(key, message)| Mistake { key, message })
                    .collect(),
            };
            (StatusCode::UNPROCESSABLE_ENTITY, Json(rejected)).into_response()
        }
    })
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Within {
    /// As in `30s` or `10m`; absent: as configured (`drain.deadline`).
    deadline: Option<String>,
}

/// How the server goes down.
#[derive(Serialize, ToSchema)]
#[schema(as = Draining)]
pub(super) struct Drained {
    state: &'static str,
    /// By then it is down; sooner when nobody publishes.
    deadline_ms: u64,
    /// Who still publishes.
    publishers: usize,
}

/// Has the server go down without haste, as SIGTERM does: nobody new may publish, who publishes is asked to connect elsewhere, and it
/// ends when nobody publishes or at the deadline. Asked again, the deadline is another.
#[utoipa::path(post, path = "/api/v1/drain", operation_id = "drain", tag = "operation", params(Within),
    responses((status = 202, description = "it drains", body = Drained)))]
pub(super) async fn drain(
    State(state): State<Arc<super::State>>,
    within: Result<Query<Within>, QueryRejection>,
) -> Result<(StatusCode, Json<Drained>), Error> {
    let Query(within) = within.map_err(|error| Error::invalid(error.body_text()))?;
    let within = within.deadline.map(|text| {
        let term = humantime::parse_duration(&text);
        let term = term.map_err(|error| Error::invalid(format!("deadline: {error}")))?;
        match term <= LONGEST {
            true => Ok(term),
            false => Err(Error::invalid("deadline: is longer than a day")),
        }
    });
    let within = state.operator.drain(within.transpose()?);
    info!(within_ms = ms(within), "asked to drain");
    let drained = Drained {
        state: "draining",
        deadline_ms: ms(within),
        publishers: anchors(&state.relay.streams()),
    };
    Ok((StatusCode::ACCEPTED, Json(drained)))
}

/// How much of its host the server takes, and for whom there is room.
#[derive(Serialize, ToSchema)]
#[schema(as = Host)]
pub(super) struct Shown {
    /// `serving`, or `draining`.
    #[schema(example = "serving")]
    state: &'static str,
    /// While it drains: until it is down at the latest.
    deadline_ms: Option<u64>,
    memory: Used,
    cpu: Cpu,
    /// Megabits per second to players.
    egress_mbps: Share,
    /// Connections of RTMP and HTTP-FLV.
    connections: Used,
    /// Open files, of which each connection is one.
    descriptors: Used,
    can_accept: CanAccept,
}

/// How much of something is used; a limit of 0 is none.
#[derive(Serialize, ToSchema)]
struct Used {
    used: u64,
    limit: u64,
}

/// As much as is used of something, measured; a limit of 0 is none.
#[derive(Serialize, ToSchema)]
struct Share {
    used: f64,
    limit: u32,
}

/// Processor time, in percent of what the process may have, and in units: hundredths of a processor.
#[derive(Serialize, ToSchema)]
struct Cpu {
    /// Measured over the last seconds, in percent.
    percent: Share,
    /// What there is, in units.
    units: u64,
    /// What mixes are reckoned to cost and may cost together, in units.
    mixes: Used,
    /// What sending to players is reckoned to cost, in units.
    egress_units: f64,
}

/// Whether another one would be taken in now.
#[derive(Serialize, ToSchema)]
struct CanAccept {
    publisher: Verdict,
    player: Verdict,
    mix: Verdict,
}

#[derive(Serialize, ToSchema)]
struct Verdict {
    accepts: bool,
    /// Why not.
    reason: Option<String>,
}

impl From<Option<String>> for Verdict {
    fn from(reason: Option<String>) -> Self {
        Self {
            accepts: reason.is_none(),
            reason,
        }
    }
}

/// How much of its host the server takes, and for whom there is room.
#[utoipa::path(get, path = "/api/v1/host", operation_id = "get_host", tag = "operation",
    responses((status = 200, description = "as of now", body = Shown)))]
pub(super) async fn host(State(state): State<Arc<super::State>>) -> Json<Shown> {
    let until = state.operator.drains_until();
    let host = state.host.view();
    let mixes = state.mixes.as_ref().map(Mixes::load).unwrap_or_default();
    let [publisher, player, mix] = refusals(&state, anchors(&state.relay.streams()));
    let limit = |limit: usize| limit as u64;
    Json(Shown {
        state: if until.is_some() {
            "draining"
        } else {
            "serving"
        },
        deadline_ms: until.map(|until| ms(until.saturating_duration_since(Instant::now()))),
        memory: Used {
            used: state.memory.used() as u64,
            limit: limit(state.memory.limit()),
        },
        cpu: Cpu {
            percent: Share {
                used: tenths(host.cpu_percent),
                limit: host.budget.cpu_percent,
            },
            units: (host.cores * 100.0) as u64,
            mixes: Used {
                used: mixes.cost.into(),
                limit: mixes.budget.into(),
            },
            egress_units: tenths(host.egress_units),
        },
        egress_mbps: Share {
            used: tenths(host.egress_mbps),
            limit: host.budget.egress_mbps,
        },
        connections: Used {
            used: limit(state.admission.open()),
            limit: limit(state.admission.most()),
        },
        descriptors: Used {
            used: descriptors::open(),
            limit: descriptors::limit().unwrap_or(0),
        },
        can_accept: CanAccept {
            publisher: publisher.into(),
            player: player.into(),
            mix: mix.into(),
        },
    })
}

/// Whether a publisher, a player and a mix would be taken in now, where so many anchors publish.
pub(super) fn can_accept(state: &super::State, anchors: usize) -> [bool; 3] {
    refusals(state, anchors).map(|refusal| refusal.is_none())
}

/// Why a publisher, a player and a mix would not be taken in now.
fn refusals(state: &super::State, anchors: usize) -> [Option<String>; 3] {
    let draining = || {
        let drains = state.operator.drains_until().is_some();
        drains.then(|| "the server is going down".to_owned())
    };
    let full = || {
        state
            .memory
            .is_full()
            .then(|| "its memory is full".to_owned())
    };
    let crowded = || {
        let (open, most) = (state.admission.open(), state.admission.most());
        (most > 0 && open >= most)
            .then(|| format!("{open} connections are open, as many as there may be"))
    };
    let exhausted = || state.host.exhausted().map(|why| why.to_string());
    let player = crowded().or_else(full).or_else(exhausted);
    let publisher = draining().or_else(|| player.clone()).or_else(|| {
        let (here, most) = (anchors, state.gate.most_publishers());
        (most > 0 && here >= most)
            .then(|| format!("{here} publishers are here, as many as there may be"))
    });
    let mix = draining().or_else(full).or_else(|| match &state.mixes {
        None => Some("this build has no mixer".to_owned()),
        Some(mixes) => {
            let load = mixes.load();
            let (cost, budget) = (load.cost, load.budget);
            (!load.can_accept).then(|| {
                format!("mixes cost {cost} of {budget} units, which leaves no room for a usual one")
            })
        }
    });
    [publisher, player, mix]
}

/// How many anchors publish.
pub(super) fn anchors<'a>(streams: impl IntoIterator<Item = &'a StreamInfo>) -> usize {
    let publishers = streams.into_iter().filter_map(|s| s.publisher.as_ref());
    publishers
        .filter(|publisher| matches!(publisher.origin, Origin::Anchor { .. }))
        .count()
}
