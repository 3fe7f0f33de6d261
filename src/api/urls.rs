//! `/api/v1/urls`: signing URLs and explaining them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

use super::Error;
use super::body::{self, Body};
use crate::auth::{Action, Grant, Purpose, Refusal, Request};
use crate::media::StreamKey;
use crate::reason::Reason;
use crate::rtmp::url::Target;

#[derive(OpenApi)]
#[openapi(paths(sign, verify))]
pub(super) struct Description;

/// What is to be signed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SignRequest, example = json!({
    "action": "peer", "app": "live", "stream": "8888_streamA", "expires_in": "12h",
}))]
struct Sign {
    action: Purposes,
    app: String,
    stream: String,
    /// A duration like `12h`.
    #[serde(with = "humantime_serde")]
    #[schema(value_type = String)]
    expires_in: Duration,
    key: Option<String>,
    base: Option<String>,
}

/// Publishing, the source feed at low latency, the program feed.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SignPurpose)]
enum Purposes {
    Push,
    Peer,
    View,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SignedUrl)]
pub(super) struct Signed {
    url: String,
    /// `null` when a plain URL does.
    query: Option<String>,
    expires_at: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VerifyRequest, example = json!({"url": "rtmp://live.example/live/8888_streamA"}))]
struct Verify {
    url: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = VerifiedUrl)]
pub(super) struct Verified {
    app: String,
    stream: String,
    publish: Verdict,
    play: Verdict,
}

#[derive(Serialize, ToSchema)]
#[schema(as = UrlVerdict)]
struct Verdict {
    granted: bool,
    feed: Option<&'static str>,
    class: Option<&'static str>,
    key: Option<String>,
    reason: Option<&'static str>,
    message: String,
}

/// Signs a URL.
#[utoipa::path(post, path = "/api/v1/urls/sign", operation_id = "sign_url", tag = "auth",
    request_body = Sign,
    responses((status = 200, description = "the URL", body = Signed)))]
pub(super) async fn sign(
    State(state): State<Arc<super::State>>,
    body: Body,
) -> Result<Json<Signed>, Error> {
    let request: Sign = body::json(body)?;
    check_app(&state, &request.app)?;
    let key = stream_key(&request.app, &request.stream)?;
    body::term("expires_in", request.expires_in)?;
    let plain = plain_url(request.base.as_deref().unwrap_or(&state.base_url), &key)?;
    let purpose = match request.action {
        Purposes::Push => Purpose::Push,
        Purposes::Peer => Purpose::Peer,
        Purposes::View => Purpose::View,
    };
    let now = SystemTime::now();
    let expires_at = now + request.expires_in;
    let query = state
        .policy
        .signed_query(purpose, &key, expires_at, request.key.as_deref(), now)
        .map_err(|e| Error::invalid(format!("key: {e}")))?;
    Ok(Json(Signed {
        url: match &query {
            Some(query) => format!("{plain}?{query}"),
            None => plain,
        },
        query,
        expires_at: humantime::format_rfc3339_seconds(expires_at).to_string(),
    }))
}

/// The URL of a stream below `base`, unsigned.
///
/// # Errors
/// When the base is no scheme, host and port.
pub fn plain_url(base: &str, key: &StreamKey) -> Result<String, Error> {
    let base = base.trim_end_matches('/');
    let plain = format!("{base}/{}/{}", key.app(), key.stream());
    // The base is the operator's text; what it is good for shows when the whole is parsed.
    let parsed = Target::parse(&plain).map_err(|e| Error::invalid(format!("base: {e}")))?;
    if parsed.app != key.app() || !parsed.query.is_empty() {
        return Err(Error::invalid(
            "base: has more than scheme, host and port; expected rtmp://host[:port]",
        ));
    }
    Ok(plain)
}

/// What a client with this URL would hear, as publisher and as player.
#[utoipa::path(post, path = "/api/v1/urls/verify", operation_id = "verify_url", tag = "auth",
    request_body = Verify,
    responses((status = 200, description = "what it opens", body = Verified)))]
pub(super) async fn verify(
    State(state): State<Arc<super::State>>,
    body: Body,
) -> Result<Json<Verified>, Error> {
    let request: Verify = body::json(body)?;
    let target = Target::parse(&request.url).map_err(|e| Error::invalid(format!("url: {e}")))?;
    let key = StreamKey::new(&target.app, &target.name)
        .map_err(|e| Error::invalid(format!("url: {e}")))?;
    let decide = |action| match state.apps.find(key.app()) {
        Some(()) => state.gate.explain(&Request {
            connection: None,
            action,
            key: &key,
            query: &target.query,
            peer: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            now: SystemTime::now(),
        }),
        None => Err(Refusal::new(
            Reason::UnknownApp,
            format!("no application {:?} is configured", key.app()),
        )),
    };
    Ok(Json(Verified {
        app: key.app().to_owned(),
        stream: key.stream().to_owned(),
        publish: decide(Action::Publish).into(),
        play: decide(Action::Play).into(),
    }))
}

/// Refuses applications that are not configured: such a request waits for something that cannot come.
pub(super) fn check_app(state: &super::State, app: &str) -> Result<(), Error> {
    match state.apps.find(app) {
        Some(()) => Ok(()),
        // An invalid name gets its own sentence from whoever parses it.
        None if StreamKey::new(app, "x").is_err() => Ok(()),
        None => Err(Error::invalid(format!(
            "app: no application {app:?} is configured"
        ))),
    }
}

fn stream_key(app: &str, stream: &str) -> Result<StreamKey, Error> {
    StreamKey::new(app, stream).map_err(|e| {
        let field = if StreamKey::new(app, "x").is_err() {
            "app"
        } else {
            "stream"
        };
        Error::invalid(format!("{field}: {e}"))
    })
}

impl From<Result<Grant, Refusal>> for Verdict {
    fn from(decision: Result<Grant, Refusal>) -> Self {
        match decision {
            Ok(grant) => {
                let (feed, class) = match grant {
                    Grant::Play { feed, class, .. } => (Some(feed.as_str()), Some(class.as_str())),
                    Grant::Publish { .. } => (None, None),
                };
                Self {
                    granted: true,
                    feed,
                    class,
                    key: grant.key().map(|key| key.as_str().to_owned()),
                    reason: None,
                    message: grant.to_string(),
                }
            }
            Err(refusal) => Self {
                granted: false,
                feed: None,
                class: None,
                key: None,
                reason: Some(refusal.reason.code()),
                message: refusal.message,
            },
        }
    }
}
