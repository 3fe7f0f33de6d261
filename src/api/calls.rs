//! Names every call, hands the name back, and writes the audit: a line for each call that changes something.
//!
//! A call's name is its client's `X-Request-Id`, or ours where it sends none that can be logged. It is in the call's span, so in
//! every line that is logged on the way; in the answer; and in the events of what the call changed. The audit says who called, from
//! where, what, and how it was answered; never a query or a body, where signatures and keys stand. Who may not call at all is
//! refused elsewhere and is not in it, since nothing was changed and strangers could fill it.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tracing::{Instrument, error_span, info};

use super::Peer;
use crate::logging::{self, RequestId};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest path in bytes that is logged; the longest that leads anywhere has some 250.
const MAX_PATH: usize = 300;
/// What is asked with a body, and changes nothing.
const QUESTIONS: [&str; 2] = ["/api/v1/mixes:preview", "/api/v1/urls/verify"];

/// Who called and what for. Whoever has found that out puts it into its answer's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// `token`, or `account 1251000001`.
    pub who: String,
    /// What was called, where the path does not say it.
    pub action: Option<String>,
    /// Whether such a call changes anything when it succeeds.
    pub changes: bool,
}

/// The same paths, with every call named and audited.
pub fn named(router: Router) -> Router {
    router.layer(from_fn(name))
}

async fn name(request: Request, next: Next) -> Response {
    let id = given(&request).unwrap_or_default();
    let method = request.method().clone();
    let path = shown(request.uri().path()).to_owned();
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let from = peer.map(|ConnectInfo(Peer(address))| *address);
    // Of the highest level: whatever is logged at all says which call it was for.
    let span = error_span!("call", request_id = %id, %method, path);
    let work = next.run(request).instrument(span);
    let mut response = logging::on_behalf(Some(id.clone()), work).await;
    if let Some(called) = response.extensions_mut().remove::<Called>() {
        audit(
            &called,
            &id,
            &method,
            &path,
            from,
            response.status().as_u16(),
        );
    }
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn given(request: &Request) -> Option<RequestId> {
    let text = request.headers().get(REQUEST_ID)?.to_str().ok()?;
    RequestId::given(text)
}

/// A path as far as it is logged.
fn shown(path: &str) -> &str {
    let mut end = path.len().min(MAX_PATH);
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    &path[..end]
}

/// Whether a call of the native form changes anything.
pub(super) fn changes(method: &Method, path: &str) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && !QUESTIONS.contains(&path)
}

fn audit(
    called: &Called,
    id: &RequestId,
    method: &Method,
    path: &str,
    from: Option<SocketAddr>,
    status: u16,
) {
    if !called.changes {
        return;
    }
    let from = from.map(|address| address.to_string());
    let (who, action) = (&called.who, &called.action);
    // A target of its own, so that it can be kept where the rest is not: level = "warn,linkmic::audit=info".
    info!(target: "linkmic::audit", who, from, %method, path, action, status, request_id = %id, "call");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_asks_is_no_change() {
        for (method, path, wanted) in [
            (Method::GET, "/api/v1/streams", false),
            (Method::HEAD, "/api/v1/streams", false),
            (Method::POST, "/api/v1/mixes:preview", false),
            (Method::POST, "/api/v1/urls/verify", false),
            // It gives out what opens a door.
            (Method::POST, "/api/v1/urls/sign", true),
            (Method::PUT, "/api/v1/mixes/m", true),
            (Method::DELETE, "/api/v1/streams/live/a", true),
        ] {
            assert_eq!(changes(&method, path), wanted, "{method} {path}");
        }
    }

    #[test]
    fn a_path_is_logged_up_to_a_length() {
        assert_eq!(shown("/a"), "/a");
        let long = format!("/{}é", "x".repeat(MAX_PATH - 2));
        assert_eq!(shown(&long).len(), MAX_PATH - 1);
    }
}
