//! `/api/v1/links`: requests and answers in JSON.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};

use super::desk::{self, Links, Seat, mix_id};
use super::link::{self, Layout, Limits, Link, Part, Reason, Urls, Wish};
use super::machine::Input;
use super::scene::{self, Encoder};
use crate::api::{self, Body, Path};
use crate::auth::{Policy, Purpose};
use crate::media::{PerApp, StreamKey};

/// Longest id: with its prefix it is the id of a mix, of 80 bytes at most.
const MAX_ID_BYTES: usize = 64;
/// RFC 3339 has no later millisecond.
const LAST_MS: u64 = 253_402_300_799_999;
/// How long URLs are good where the request does not say: the contract's recommendation.
const EXPIRES_IN: Duration = Duration::from_secs(12 * 60 * 60);

/// What the endpoints call.
pub struct Rooms {
    pub links: Links,
    pub policy: Arc<Policy>,
    /// Of links whose requests name none.
    pub limits: Limits,
    /// Which applications exist here.
    pub apps: PerApp<()>,
    /// Scheme, host and port of URLs for which the request names none: `rtmp://live.example`.
    pub base_url: String,
}

/// The paths, for a router that asks for the control token.
pub fn router(rooms: Rooms) -> api::Beside {
    api::Beside {
        paths: paths().with_state(Arc::new(rooms)),
        description: description(),
    }
}

fn paths() -> Router<Arc<Rooms>> {
    Router::new()
        .route("/api/v1/links", get(list).post(request))
        .route("/api/v1/links/{id}", get(one))
        .route("/api/v1/links/{id}/accept", post(accept))
        .route("/api/v1/links/{id}/reject", post(reject))
        .route("/api/v1/links/{id}/cancel", post(cancel))
        .route("/api/v1/links/{id}/leave", post(leave))
        .route("/api/v1/links/{id}/invite", post(invite))
}

/// What the API's description has of this room.
#[derive(OpenApi)]
#[openapi(paths(list, one, request, accept, reject, cancel, leave, invite))]
struct Description;

/// For the description that the server puts together.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// Either `sub` or `subs` says who joins.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LinkRequest, example = json!({"app": "live", "main": "8888_a", "sub": "8888_b"}))]
struct Request {
    /// Left out, one is made; the same wish under the same id is the same link.
    id: Option<String>,
    app: String,
    main: String,
    sub: Option<String>,
    /// Up to three; one in the layout `pk`.
    subs: Option<Vec<String>>,
    #[serde(default)]
    layout: Layout,
    #[serde(default)]
    limits: LimitsRequest,
    /// Of URLs, from each answer on: a duration like `12h`.
    #[serde(default, with = "humantime_serde")]
    #[schema(value_type = Option<String>)]
    expires_in: Option<Duration>,
    #[serde(default)]
    push_urls: bool,
    base: Option<String>,
}

/// Durations like `30s`; those of the configuration where left out.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LinkLimitsRequest)]
struct LimitsRequest {
    #[serde(default, with = "humantime_serde")]
    #[schema(value_type = Option<String>)]
    answer: Option<Duration>,
    #[serde(default, with = "humantime_serde")]
    #[schema(value_type = Option<String>)]
    start: Option<Duration>,
    #[serde(default, with = "humantime_serde")]
    #[schema(value_type = Option<String>)]
    gone: Option<Duration>,
    #[serde(default, with = "humantime_serde")]
    #[schema(value_type = Option<String>)]
    hold: Option<Duration>,
}

/// Which sub; where it may be left out, all of them.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LinkWhich)]
struct Which {
    sub: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LinkWho)]
struct Who {
    who: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LinkInvited)]
struct Invited {
    sub: String,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LinkNothing)]
struct Nothing {}

#[derive(Serialize, ToSchema)]
#[schema(as = Links)]
struct Listed {
    links: Vec<Shown>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Link)]
struct Shown {
    id: String,
    state: link::State,
    reason: Option<Reason>,
    app: String,
    main: String,
    layout: Layout,
    created_at: String,
    since: String,
    /// When it ends if nothing happens.
    ends_at: Option<String>,
    limits: ShownLimits,
    parties: Vec<Party>,
    /// `null` while there is none and there is to be none.
    mix: Option<ShownMix>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LinkLimits)]
struct ShownLimits {
    answer: String,
    start: String,
    gone: String,
    hold: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LinkMix)]
struct ShownMix {
    id: String,
    /// As the mix tells; `null` while it is not there.
    #[schema(value_type = Option<String>)]
    state: Value,
    #[schema(value_type = Option<String>)]
    error: Value,
}

/// One side of a link, with what it needs.
#[derive(Serialize, ToSchema)]
#[schema(as = LinkParty)]
struct Party {
    stream: String,
    #[schema(value_type = String)]
    role: &'static str,
    /// Of a sub; a main is always `accepted`.
    state: Part,
    publishing: bool,
    encoder: Encoder,
    /// The others' streams, for who is in.
    play: Vec<Signed>,
    /// `null` where none is asked for, and for who is not in.
    push: Option<Signed>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LinkUrl)]
struct Signed {
    stream: String,
    url: Option<String>,
    expires_at: String,
    /// Why there is no URL.
    error: Option<String>,
}

/// All links, those that ended lately too.
#[utoipa::path(get, path = "/api/v1/links", operation_id = "list_links", tag = "links",
    responses(
        (status = 200, description = "all of them", body = Listed)))]
async fn list(State(rooms): State<Arc<Rooms>>) -> Json<Listed> {
    let now = SystemTime::now();
    let seats = rooms.links.list();
    Json(Listed {
        links: seats.iter().map(|seat| rooms.shown(seat, now)).collect(),
    })
}

/// One link.
#[utoipa::path(get, path = "/api/v1/links/{id}", operation_id = "get_link", tag = "links",
    params(("id" = String, Path, pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    responses(
        (status = 200, description = "as it stands", body = Shown),
        (status = 404, description = "no such link")))]
async fn one(
    State(rooms): State<Arc<Rooms>>,
    path: Path<String>,
) -> Result<Json<Shown>, api::Error> {
    let id = api::path(path)?;
    let seat = rooms.links.get(&id);
    let seat = seat.ok_or(desk::Error::NotFound(id))?;
    Ok(Json(rooms.shown(&seat, SystemTime::now())))
}

/// Asks for a link.
#[utoipa::path(post, path = "/api/v1/links", operation_id = "request_link", tag = "links",
    request_body = Request,
    responses(
        (status = 200, description = "it was there already", body = Shown),
        (status = 201, description = "it is made", body = Shown),
        (status = 409, description = "not as it stands"),
        (status = 503, description = "it could not be written to the disk, and nothing has changed")))]
async fn request(State(rooms): State<Arc<Rooms>>, body: Body) -> Result<Response, api::Error> {
    let mut request: Request = api::parse(&api::bytes(body)?)?;
    let id = match request.id.take() {
        Some(id) => checked_id(id)?,
        None => fresh_id()?,
    };
    let wish = rooms.wish(request)?;
    let (seat, new) = rooms.links.request(id, wish).await?;
    let code = match new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((code, Json(rooms.shown(&seat, SystemTime::now()))).into_response())
}

/// Takes a sub in, or all who were asked.
#[utoipa::path(post, path = "/api/v1/links/{id}/accept", operation_id = "accept_link", tag = "links",
    params(("id" = String, Path, pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    request_body = Option<Which>,
    responses(
        (status = 200, description = "as it stands", body = Shown),
        (status = 404, description = "no such link"),
        (status = 409, description = "not as it stands"),
        (status = 503, description = "it could not be written to the disk, and nothing has changed")))]
async fn accept(
    State(rooms): State<Arc<Rooms>>,
    path: Path<String>,
    body: Body,
) -> Result<Json<Shown>, api::Error> {
    let which: Which = optional(body)?;
    rooms.act(path, Input::Accept(which.sub)).await
}

/// Says no for a sub, or for all who were asked.
#[utoipa::path(post, path = "/api/v1/links/{id}/reject", operation_id = "reject_link", tag = "links",
    params(("id" = String, Path, pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    request_body = Option<Which>,
    responses(
        (status = 200, description = "as it stands", body = Shown),
        (status = 404, description = "no such link"),
        (status = 409, description = "not as it stands"),
        (status = 503, description = "it could not be written to the disk, and nothing has changed")))]
async fn reject(
    State(rooms): State<Arc<Rooms>>,
    path: Path<String>,
    body: Body,
) -> Result<Json<Shown>, api::Error> {
    let which: Which = optional(body)?;
    rooms.act(path, Input::Reject(which.sub)).await
}

/// Calls it off.
#[utoipa::path(post, path = "/api/v1/links/{id}/cancel", operation_id = "cancel_link", tag = "links",
    params(("id" = String, Path, pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    request_body = Option<Nothing>,
    responses(
        (status = 200, description = "as it stands", body = Shown),
        (status = 404, description = "no such link"),
        (status = 409, description = "not as it stands"),
        (status = 503, description = "it could not be written to the disk, and nothing has changed")))]
async fn cancel(
    State(rooms): State<Arc<Rooms>>,
    path: Path<String>,
    body: Body,
) -> Result<Json<Shown>, api::Error> {
    let Nothing {} = optional(body)?;
    rooms.act(path, Input::Cancel).await
}

/// A sub leaves, or the main, which ends it.
#[utoipa::path(post, path = "/api/v1/links/{id}/leave", operation_id = "leave_link", tag = "links",
    params(("id" = String, Path, pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    request_body = Who,
    responses(
        (status = 200, description = "as it stands", body = Shown),
        (status = 404, description = "no such link"),
        (status = 409, description = "not as it stands"),
        (status = 503, description = "it could not be written to the disk, and nothing has changed")))]
async fn leave(
    State(rooms): State<Arc<Rooms>>,
    path: Path<String>,
    body: Body,
) -> Result<Json<Shown>, api::Error> {
    let Who { who } = api::parse(&api::bytes(body)?)?;
    rooms.act(path, Input::Leave(who)).await
}

/// Asks one more sub.
#[utoipa::path(post, path = "/api/v1/links/{id}/invite", operation_id = "invite_link", tag = "links",
    params(("id" = String, Path, pattern = "^[A-Za-z0-9_.-]{1,64}$")),
    request_body = Invited,
    responses(
        (status = 200, description = "as it stands", body = Shown),
        (status = 404, description = "no such link"),
        (status = 409, description = "not as it stands"),
        (status = 503, description = "it could not be written to the disk, and nothing has changed")))]
async fn invite(
    State(rooms): State<Arc<Rooms>>,
    path: Path<String>,
    body: Body,
) -> Result<Json<Shown>, api::Error> {
    let Invited { sub } = api::parse(&api::bytes(body)?)?;
    // An application that there is, or the link would not.
    StreamKey::new("x", &sub).map_err(|e| api::Error::invalid(format!("sub: {e}")))?;
    rooms.act(path, Input::Invite(sub)).await
}

/// A body that may be left out.
fn optional<T: Default + serde::de::DeserializeOwned>(body: Body) -> Result<T, api::Error> {
    let bytes = api::bytes(body)?;
    match bytes.is_empty() {
        true => Ok(T::default()),
        false => api::parse(&bytes),
    }
}

impl Rooms {
    async fn act(&self, path: Path<String>, input: Input) -> Result<Json<Shown>, api::Error> {
        let id = api::path(path)?;
        let seat = self.links.act(&id, input).await?;
        Ok(Json(self.shown(&seat, SystemTime::now())))
    }

    /// What a request asks for, checked.
    fn wish(&self, request: Request) -> Result<Wish, api::Error> {
        let invalid = |field: &str, what: String| api::Error::invalid(format!("{field}: {what}"));
        let app = request.app;
        StreamKey::new(&app, "x").map_err(|e| invalid("app", e.to_string()))?;
        if self.apps.find(&app).is_none() {
            let what = format!("no application {app:?} is configured");
            return Err(invalid("app", what));
        }
        let main = StreamKey::new(&app, &request.main);
        let main = main.map_err(|e| invalid("main", e.to_string()))?;
        let subs = match (request.sub, request.subs) {
            (Some(sub), None) => vec![sub],
            (None, Some(subs)) => subs,
            _ => {
                let what = "say who: sub for one, or subs for up to three";
                return Err(invalid("subs", what.into()));
            }
        };
        let room = request.layout.room();
        if !(1..=room).contains(&subs.len()) {
            let what = format!("{} subs; a link of this layout has 1 to {room}", subs.len());
            return Err(invalid("subs", what));
        }
        for (at, sub) in subs.iter().enumerate() {
            let field = format!("subs[{at}]");
            StreamKey::new(&app, sub).map_err(|e| invalid(&field, e.to_string()))?;
            if sub == main.stream() || subs[..at].contains(sub) {
                return Err(invalid(&field, format!("{sub:?} stands there twice")));
            }
        }
        let limit = |field: &str, asked: Option<Duration>, default: i64| match asked {
            None => Ok(default),
            Some(term) => {
                api::term(&format!("limits.{field}"), term)?;
                Ok::<_, api::Error>(i64::try_from(term.as_millis()).unwrap_or(i64::MAX))
            }
        };
        let (asked, default) = (request.limits, self.limits);
        let limits = Limits {
            answer_ms: limit("answer", asked.answer, default.answer_ms)?,
            start_ms: limit("start", asked.start, default.start_ms)?,
            gone_ms: limit("gone", asked.gone, default.gone_ms)?,
            hold_ms: limit("hold", asked.hold, default.hold_ms)?,
        };
        let expires_in = request.expires_in.unwrap_or(EXPIRES_IN);
        api::term("expires_in", expires_in)?;
        api::plain_url(request.base.as_deref().unwrap_or(&self.base_url), &main)?;
        let wish = Wish {
            main: main.stream().to_owned(),
            app,
            subs,
            layout: request.layout,
            limits,
            urls: Urls {
                expires_in: expires_in.as_secs(),
                push: request.push_urls,
                base: request.base,
            },
        };
        // Better now than when both sides wait for their URLs.
        let now = SystemTime::now();
        let signed = self.signed(&wish, Purpose::Peer, &wish.main, now);
        match signed.error {
            Some(error) => Err(api::Error::conflict(error)),
            None => Ok(wish),
        }
    }

    fn shown(&self, seat: &Seat, now: SystemTime) -> Shown {
        let Seat { link, mix, trouble } = seat;
        let wish = &link.wish;
        let term = |ms: i64| {
            let term = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
            humantime::format_duration(term).to_string()
        };
        let main = std::iter::once((wish.main.as_str(), Part::Accepted));
        let subs = link.subs.iter().map(|sub| (sub.stream.as_str(), sub.part));
        let parties = main
            .chain(subs)
            .map(|(s, part)| self.party(link, s, part, now));
        let told = |field: &str| mix.as_ref().map_or(Value::Null, |mix| mix[field].clone());
        let to_be = mix.is_some() || trouble.is_some();
        Shown {
            id: link.id.clone(),
            state: link.state,
            reason: link.reason,
            app: wish.app.clone(),
            main: wish.main.clone(),
            layout: wish.layout,
            created_at: time(link.created_at),
            since: time(link.since),
            ends_at: link.ends_at().map(time),
            limits: ShownLimits {
                answer: term(wish.limits.answer_ms),
                start: term(wish.limits.start_ms),
                gone: term(wish.limits.gone_ms),
                hold: term(wish.limits.hold_ms),
            },
            parties: parties.collect(),
            mix: to_be.then(|| ShownMix {
                id: mix_id(&link.id),
                state: told("state"),
                error: match trouble {
                    Some(trouble) => trouble.as_str().into(),
                    None => told("error"),
                },
            }),
        }
    }

    fn party(&self, link: &Link, stream: &str, part: Part, now: SystemTime) -> Party {
        let wish = &link.wish;
        let is_main = stream == wish.main;
        let open = matches!(link.state, link::State::Accepted | link::State::Live);
        let is_in = open && part == Part::Accepted;
        let others = std::iter::once(wish.main.as_str())
            .chain(
                link.subs_that_are(Part::Accepted)
                    .map(|sub| sub.stream.as_str()),
            )
            .filter(|other| is_in && *other != stream);
        Party {
            stream: stream.to_owned(),
            role: if is_main { "main" } else { "sub" },
            state: part,
            publishing: self.links.publishes(link, stream),
            encoder: scene::encoder(wish.layout, is_main),
            play: others
                .map(|s| self.signed(wish, Purpose::Peer, s, now))
                .collect(),
            push: (is_in && wish.urls.push).then(|| self.signed(wish, Purpose::Push, stream, now)),
        }
    }

    /// A URL that is good from now on.
    fn signed(&self, wish: &Wish, purpose: Purpose, stream: &str, now: SystemTime) -> Signed {
        let expires_at = now + Duration::from_secs(wish.urls.expires_in);
        let url = || -> Result<String, String> {
            let key = StreamKey::new(&wish.app, stream).map_err(|e| e.to_string())?;
            let base = wish.urls.base.as_deref().unwrap_or(&self.base_url);
            let plain = api::plain_url(base, &key).map_err(|e| e.message)?;
            let query = self
                .policy
                .signed_query(purpose, &key, expires_at, None, now);
            Ok(match query.map_err(|e| e.to_string())? {
                Some(query) => format!("{plain}?{query}"),
                None => plain,
            })
        };
        let (url, error) = match url() {
            Ok(url) => (Some(url), None),
            Err(error) => (None, Some(error)),
        };
        Signed {
            stream: stream.to_owned(),
            url,
            expires_at: humantime::format_rfc3339_seconds(expires_at).to_string(),
            error,
        }
    }
}

fn checked_id(id: String) -> Result<String, api::Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if (1..=MAX_ID_BYTES).contains(&id.len()) && id.chars().all(allowed) {
        return Ok(id);
    }
    Err(api::Error::invalid(format!(
        "id: {} bytes; a link's id has 1 to {MAX_ID_BYTES} of A-Z a-z 0-9 _ . -",
        id.len()
    )))
}

/// An id that nobody has had.
fn fresh_id() -> Result<String, api::Error> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(|_| api::Error::internal("no random numbers"))?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

/// UNIX milliseconds as the API spells times; the last moment of the year 9999 for what is later.
fn time(ms: i64) -> String {
    let since = Duration::from_millis(u64::try_from(ms).unwrap_or(0).min(LAST_MS));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

impl From<desk::Error> for api::Error {
    fn from(error: desk::Error) -> Self {
        let message = error.to_string();
        match error {
            desk::Error::NotFound(_) => api::Error::not_found(message),
            desk::Error::Invalid(_) => api::Error::invalid(message),
            desk::Error::Conflict(_) => api::Error::conflict(message),
            desk::Error::Full => api::Error::new(StatusCode::CONFLICT, "limit_reached", message),
            desk::Error::NotKept => {
                api::Error::new(StatusCode::SERVICE_UNAVAILABLE, "storage", message)
            }
            desk::Error::Internal => api::Error::internal(message),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_that_a_damaged_disk_gives_can_be_told() {
        assert_eq!(super::time(i64::MIN), "1970-01-01T00:00:00.000Z");
        assert_eq!(super::time(i64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
