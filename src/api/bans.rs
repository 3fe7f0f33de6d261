//! `/api/v1/bans`: who or what may not publish or play.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use utoipa::{OpenApi, ToSchema};

use super::body::{self, Body, Path};
use super::{Error, whole};
use crate::auth::{self, Ban, BanId, Ended, Gate, Pattern, Scope, Subject};
use crate::media::StreamKey;
use crate::store::{self, BanRow, Store};

/// Most bans. Each costs some hundred bytes, and all of them are copied when one changes.
const MAX_BANS: usize = 10_000;
/// Longest note, in bytes.
const MAX_NOTE_BYTES: usize = 500;

/// The bans that hold, and the store that remembers them. What is answered is on the disk first and in force then.
/// Cheap to clone.
#[derive(Clone)]
pub struct Bans(Arc<Inner>);

struct Inner {
    store: Store,
    gate: Arc<Gate>,
    /// Changes come one after the other, so that memory and disk see them in one order.
    changing: Mutex<()>,
}

impl Bans {
    /// Puts the bans that were kept in force at the gate. That those which have ended cannot be removed, on a full disk
    /// say, is only logged.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn load(store: Store, gate: Arc<Gate>) -> Result<Self, store::Error> {
        Self::load_at(SystemTime::now(), store, gate).await
    }

    pub(super) async fn load_at(
        now: SystemTime,
        store: Store,
        gate: Arc<Gate>,
    ) -> Result<Self, store::Error> {
        let now = millis(now);
        if let Err(error) = store.forget_bans(now).await {
            warn!(%error, "bans that have ended could not be removed; changes of bans may fail too");
        }
        let rows = store.bans(now).await?;
        let mut bans = auth::Bans::default();
        for row in rows {
            let id = row.id;
            match ban(row) {
                Some(ban) => bans.insert(ban),
                None => warn!(id, "a ban that was kept makes no sense and does not hold"),
            }
        }
        if !bans.is_empty() {
            info!(bans = bans.len(), "bans hold");
        }
        gate.set_bans(bans);
        Ok(Self(Arc::new(Inner {
            store,
            gate,
            changing: Mutex::default(),
        })))
    }

    /// How many hold now.
    pub(super) fn count(&self) -> usize {
        let now = SystemTime::now();
        let bans = self.0.gate.bans();
        bans.iter().filter(|ban| ban.holds(now)).count()
    }
}

/// What other rooms of this row may do.
impl Bans {
    /// Nobody may publish the stream until then, and whoever does is disconnected. One that is forbidden already is so
    /// until the new time.
    ///
    /// # Errors
    /// As for a `POST`.
    pub async fn forbid_publishing(
        &self,
        tasks: &TaskTracker,
        key: StreamKey,
        until: SystemTime,
        note: String,
    ) -> Result<(), Error> {
        let subject = Subject::Stream(Pattern::Stream(key));
        let row = BanRow {
            id: 0,
            kind: subject.kind().to_owned(),
            subject: subject.to_string(),
            scope: Scope::Publish.as_str().to_owned(),
            created_at: millis(SystemTime::now()),
            expires_at: Some(millis(until)),
            note,
        };
        let bans = self.0.clone();
        let (_, ban, ended) = whole(tasks, async move { bans.add(row).await }).await?;
        let (subject, publishers) = (&ban.subject, ended.publishers);
        info!(id = ban.id, %subject, publishers, "publishing forbidden");
        Ok(())
    }

    /// Takes back what [`Self::forbid_publishing`] did, or a ban like it; other bans hold on. `false`: there was none.
    ///
    /// # Errors
    /// As for a `DELETE`.
    pub async fn allow_publishing(
        &self,
        tasks: &TaskTracker,
        key: StreamKey,
    ) -> Result<bool, Error> {
        let subject = Subject::Stream(Pattern::Stream(key));
        let held = self.0.gate.bans();
        let mut held = held.iter();
        let found = held.find(|ban| ban.scope == Scope::Publish && ban.subject == subject);
        let Some(id) = found.map(|ban| ban.id) else {
            return Ok(false);
        };
        let bans = self.0.clone();
        let removed = whole(tasks, async move { bans.remove(id).await }).await?;
        info!(id, %subject, "publishing allowed again");
        Ok(removed.is_some())
    }
}

impl Inner {
    /// Keeps a ban and puts it in force. Gives whether it is new, the ban as it is kept, and whom it ended.
    ///
    /// # Errors
    /// When there is no room, or it could not be kept: then it does not hold.
    ///
    /// # Cancel safety
    /// What is on the disk and what is in force would part: run it in a task of its own, as [`super::whole`] does.
    async fn add(&self, row: BanRow) -> Result<(bool, Ban, Ended), Error> {
        let _one_at_a_time = self.changing.lock().await;
        let now = SystemTime::now();
        self.forget_expired(now).await?;
        let bans = self.gate.bans();
        let kept = self.make_room(&bans, &row)?;
        let row = self.store.put_ban(row).await?;
        let ban = ban(row).ok_or_else(internal)?;
        let ended = self.gate.ban(ban.clone());
        Ok((!kept, ban, ended))
    }

    /// Whether the same ban is there already; else there must be room for it.
    fn make_room(&self, bans: &auth::Bans, row: &BanRow) -> Result<bool, Error> {
        let same = |ban: &Ban| {
            ban.scope.as_str() == row.scope
                && ban.subject.kind() == row.kind
                && ban.subject.to_string() == row.subject
        };
        if bans.iter().any(same) {
            return Ok(true);
        }
        if bans.len() >= MAX_BANS {
            return Err(Error::new(
                StatusCode::CONFLICT,
                "limit_reached",
                format!(
                    "there are {MAX_BANS} bans; delete some, or ban a network or an application"
                ),
            ));
        }
        Ok(false)
    }

    /// Forgets a ban; gives it, if it held until now.
    ///
    /// # Errors
    /// When that could not be kept: then it holds on.
    ///
    /// # Cancel safety
    /// As [`Self::add`].
    async fn remove(&self, id: BanId) -> Result<Option<Ban>, Error> {
        let _one_at_a_time = self.changing.lock().await;
        let kept = self.store.delete_ban(id).await?;
        let held = self
            .gate
            .pardon(id)
            .filter(|ban| ban.holds(SystemTime::now()));
        Ok(kept.and(held))
    }

    async fn forget_expired(&self, now: SystemTime) -> Result<(), Error> {
        let bans = self.gate.bans();
        let expired = bans.iter().filter(|ban| !ban.holds(now));
        let expired: Vec<BanId> = expired.map(|ban| ban.id).collect();
        if expired.is_empty() {
            return Ok(());
        }
        self.store.forget_bans(millis(now)).await?;
        for id in expired {
            self.gate.pardon(id);
        }
        Ok(())
    }
}

#[derive(OpenApi)]
#[openapi(paths(list, get, post, delete))]
pub(super) struct Description;

/// Exactly one of `stream`, `address` and `key` says who.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BanRequest, example = json!({"address": "203.0.113.0/24", "action": "publish", "expires_in": "1day"}))]
struct Request {
    stream: Option<String>,
    address: Option<String>,
    key: Option<String>,
    #[serde(default)]
    action: Action,
    /// A duration like `12h`; left out, it has no end.
    #[serde(default, with = "humantime_serde")]
    #[schema(value_type = Option<String>)]
    expires_in: Option<Duration>,
    #[serde(default)]
    note: String,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = BanAction)]
enum Action {
    Publish,
    Play,
    #[default]
    Both,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Bans)]
pub(super) struct Listed {
    bans: Vec<Shown>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Ban)]
pub(super) struct Shown {
    #[schema(value_type = i64)]
    id: BanId,
    stream: Option<String>,
    address: Option<String>,
    key: Option<String>,
    action: &'static str,
    created_at: String,
    expires_at: Option<String>,
    note: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = BanMade)]
pub(super) struct Made {
    #[serde(flatten)]
    ban: Shown,
    /// Whom it ended at once.
    ended: Gone,
}

#[derive(Serialize, ToSchema)]
#[schema(as = BanEnded)]
struct Gone {
    publishers: usize,
    players: usize,
}

/// The bans that hold.
#[utoipa::path(get, path = "/api/v1/bans", operation_id = "list_bans", tag = "bans",
    responses((status = 200, description = "all of them", body = Listed)))]
pub(super) async fn list(State(state): State<Arc<super::State>>) -> Json<Listed> {
    let now = SystemTime::now();
    let bans = state.gate.bans();
    let holding = bans.iter().filter(|ban| ban.holds(now));
    Json(Listed {
        bans: holding.map(Shown::from).collect(),
    })
}

/// One ban.
#[utoipa::path(get, path = "/api/v1/bans/{id}", operation_id = "get_ban", tag = "bans",
    params(("id" = i64, Path, description = "As the list has it")),
    responses(
        (status = 200, description = "it holds", body = Shown),
        (status = 404, description = "no such ban")))]
pub(super) async fn get(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<Json<Shown>, Error> {
    let id = id(path)?;
    let bans = state.gate.bans();
    let ban = bans.get(id).filter(|ban| ban.holds(SystemTime::now()));
    ban.map(|ban| Json(ban.into())).ok_or_else(|| absent(id))
}

/// Bans: holds from the answer on; whoever it concerns is disconnected.
#[utoipa::path(post, path = "/api/v1/bans", operation_id = "make_ban", tag = "bans",
    request_body = Request,
    responses(
        (status = 200, description = "the same was banned already: end and note are the new ones", body = Made),
        (status = 201, description = "it holds", body = Made),
        (status = 409, description = "there are too many"),
        (status = 503, description = "it could not be written to the disk, and does not hold")))]
pub(super) async fn post(
    State(state): State<Arc<super::State>>,
    body: Body,
) -> Result<(StatusCode, Json<Made>), Error> {
    let request: Request = body::json(body)?;
    let subject = subject(&state, &request)?;
    if let Some(term) = request.expires_in {
        body::term("expires_in", term)?;
    }
    if request.note.len() > MAX_NOTE_BYTES {
        return Err(Error::invalid(format!(
            "note: {} bytes exceed the limit of {MAX_NOTE_BYTES}",
            request.note.len()
        )));
    }
    let now = SystemTime::now();
    let scope = match request.action {
        Action::Publish => Scope::Publish,
        Action::Play => Scope::Play,
        Action::Both => Scope::Both,
    };
    let row = BanRow {
        id: 0,
        kind: subject.kind().to_owned(),
        subject: subject.to_string(),
        scope: scope.as_str().to_owned(),
        created_at: millis(now),
        expires_at: request.expires_in.map(|term| millis(now + term)),
        note: request.note,
    };
    let bans = state.bans.0.clone();
    let (new, ban, ended) = whole(&state.tasks, async move { bans.add(row).await }).await?;
    info!(
        id = ban.id, kind = ban.subject.kind(), subject = %ban.subject, action = ban.scope.as_str(),
        publishers = ended.publishers, players = ended.players, "banned"
    );
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let made = Made {
        ban: Shown::from(&ban),
        ended: Gone {
            publishers: ended.publishers,
            players: ended.players,
        },
    };
    Ok((status, Json(made)))
}

/// Lifts a ban, and answers with what held.
#[utoipa::path(delete, path = "/api/v1/bans/{id}", operation_id = "delete_ban", tag = "bans",
    params(("id" = i64, Path, description = "As the list has it")),
    responses(
        (status = 200, description = "what held", body = Shown),
        (status = 404, description = "no such ban"),
        (status = 503, description = "it could not be written to the disk, and holds on")))]
pub(super) async fn delete(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<Json<Shown>, Error> {
    let id = id(path)?;
    let bans = state.bans.0.clone();
    let removed = whole(&state.tasks, async move { bans.remove(id).await }).await?;
    let ban = removed.ok_or_else(|| absent(id))?;
    info!(id, kind = ban.subject.kind(), subject = %ban.subject, "ban lifted");
    Ok(Json(Shown::from(&ban)))
}

/// Exactly one of the three, of something there is.
fn subject(state: &super::State, request: &Request) -> Result<Subject, Error> {
    let given = [
        ("stream", &request.stream),
        ("address", &request.address),
        ("key", &request.key),
    ];
    let mut given = given
        .into_iter()
        .filter_map(|(kind, text)| Some((kind, text.as_deref()?)));
    let (Some((kind, text)), None) = (given.next(), given.next()) else {
        return Err(Error::invalid(
            "exactly one of stream, address and key says what is banned",
        ));
    };
    let subject = Subject::parse(kind, text).map_err(|e| Error::invalid(e.to_string()))?;
    match &subject {
        Subject::Stream(pattern) => {
            let app = match pattern {
                Pattern::Stream(key) => key.app(),
                Pattern::App(app) => app,
            };
            if state.apps.find(app).is_none() {
                return Err(Error::invalid(format!(
                    "stream: no application {app:?} is configured"
                )));
            }
        }
        Subject::Key(id) => {
            let keys = state.policy.keys(SystemTime::now());
            if !keys.iter().any(|key| key.id == *id) {
                // The same id may stand in more than one set.
                let mut seen = HashSet::new();
                let known = keys.iter().map(|key| key.id.as_str());
                let known: Vec<_> = known.filter(|id| seen.insert(*id)).collect();
                return Err(Error::invalid(format!(
                    "key: no key has the id {:?}; there are: {}",
                    id.as_str(),
                    known.join(", ")
                )));
            }
        }
        Subject::Address(_) => {}
    }
    Ok(subject)
}

fn id(path: Path<String>) -> Result<BanId, Error> {
    let text = body::path(path)?;
    let invalid = || Error::invalid(format!("id: {text:?} is not a whole number"));
    text.parse().map_err(|_| invalid())
}

fn absent(id: BanId) -> Error {
    Error::not_found(format!("no ban has the id {id}"))
}

fn internal() -> Error {
    Error::internal("the ban that was kept makes no sense")
}

/// UNIX milliseconds.
fn millis(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn moment(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// What a row means; `None` when it means nothing.
fn ban(row: BanRow) -> Option<Ban> {
    Some(Ban {
        id: row.id,
        subject: Subject::parse(&row.kind, &row.subject).ok()?,
        scope: *Scope::ALL
            .iter()
            .find(|scope| scope.as_str() == row.scope)?,
        created_at: moment(row.created_at),
        expires_at: row.expires_at.map(moment),
        note: row.note,
    })
}

impl From<&Ban> for Shown {
    fn from(ban: &Ban) -> Self {
        let named = |kind| (ban.subject.kind() == kind).then(|| ban.subject.to_string());
        let time = |at| humantime::format_rfc3339_millis(at).to_string();
        Self {
            id: ban.id,
            stream: named("stream"),
            address: named("address"),
            key: named("key"),
            action: ban.scope.as_str(),
            created_at: time(ban.created_at),
            expires_at: ban.expires_at.map(time),
            note: ban.note.clone(),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        warn!(%error, "a change could not be kept");
        Error::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "storage",
            "the change could not be written to state.dir, and does not hold; the log says why",
        )
    }
}
