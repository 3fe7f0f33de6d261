//! Who may call: whoever knows the token, and for metrics also whoever is on this machine; from an address that
//! `[access] control` lets in.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Called, Error, Peer, calls};
use crate::logging::refused;
use crate::reason::Reason;

/// Lets a request through, or answers 403 or 401.
pub(super) async fn check(
    State(state): State<Arc<super::State>>,
    request: Request,
    next: Next,
) -> Response {
    if !state.gate.admits_control(caller(&request)) {
        let message = "your address may not call this API";
        refused!(Reason::AddressDenied, "call refused: {message}");
        return Error::new(StatusCode::FORBIDDEN, "address_denied", message).into_response();
    }
    if request.uri().path() == "/metrics" && is_local(&request) {
        return next.run(request).await;
    }
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| bearer(value.as_bytes()));
    let (reason, message) = match given {
        Some(token) if state.token.matches(token) => return admitted(request, next).await,
        Some(_) => {
            let message = "the token is not the one of this server";
            (Reason::SignatureWrong, message)
        }
        None => {
            let message = "send the control token as Authorization: Bearer …";
            (Reason::SignatureMissing, message)
        }
    };
    refused!(reason, "call refused: {message}");
    Error::new(StatusCode::UNAUTHORIZED, "unauthorized", message).into_response()
}

async fn admitted(request: Request, next: Next) -> Response {
    let called = Called {
        // There is one token.
        who: "token".to_owned(),
        action: None,
        changes: calls::changes(request.method(), request.uri().path()),
    };
    let mut response = next.run(request).await;
    response.extensions_mut().insert(called);
    response
}

/// The token of an `Authorization` header. The scheme's case does not matter (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

/// Where a request comes from. Without an address (a router not served by [`super::serve`]) it is nobody's.
fn caller(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    peer.map_or(
        Ipv4Addr::UNSPECIFIED.into(),
        |ConnectInfo(Peer(address))| address.ip(),
    )
}

/// Without an address (a router not served by [`super::serve`]) nobody is local.
fn is_local(request: &Request) -> bool {
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    peer.is_some_and(|ConnectInfo(Peer(address))| address.ip().to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_header_has_a_token() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("Bearerabc", None),
            ("", None),
        ] {
            assert_eq!(
                bearer(value.as_bytes()),
                token.map(str::as_bytes),
                "{value}"
            );
        }
    }
}
