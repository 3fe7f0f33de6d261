//! The vendor's linkmic interface, for apps and back ends that were written against it: they change a host name and
//! keys, and nothing else.
//!
//! | form | path | module |
//! |---|---|---|
//! | legacy, signed with MD5 of API key and expiry | `/common_access` | [`common_access`]; mixing in [`mix`], channel calls in [`channel`] |
//! | v3, signed with TC3-HMAC-SHA256 | `/` | [`v3`] |
//! | `merge_stream` of a room service, signed as the legacy form | `/weapp/live_room/merge_stream` | [`room`] |
//! | queries of push URLs, before 2.0 | none | [`by_url`] |
//!
//! Owns the forms: who signed, what was asked for in which spelling, codes and shapes of answers. Requests become values
//! and decisions in pure modules; [`State`] alone asks and calls the rooms below, through the handles that the native API
//! uses too. Refuses to know layouts, decoders and tables of bans. What was chosen where the documents leave a choice is
//! in docs/compat.md. Called by the server, which puts [`router`] on the control listener and on one of its own.

mod account;
pub mod by_url;
mod channel;
mod common_access;
mod gateway;
mod loose;
mod mix;
mod pace;
mod query;
mod room;
mod seen;
mod state;
#[cfg(test)]
mod tests;
mod v3;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

pub use account::{Account, Callback, Credentials, Picture};
pub use room::Shape;
pub use seen::Seen;
pub use state::State;

/// Largest request body. A mix of sixteen inputs has about 6 KB in the legacy form.
const MAX_BODY_BYTES: usize = 256 << 10;

/// Where a router stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// Beside the native API: for the addresses that may call that.
    Control,
    /// By itself.
    Own,
}

/// The paths of both forms. None of them asks for the control token: calls are signed.
pub fn router(state: Arc<State>, listener: Listener) -> Router {
    let paths = Router::new()
        .route(
            "/common_access",
            get(common_access::call).post(common_access::call),
        )
        .route("/weapp/live_room/merge_stream", post(room::merge_stream))
        .route("/", get(v3::call).post(v3::call));
    let paths = match listener {
        Listener::Control => paths.layer(from_fn_with_state(state.clone(), state::admit)),
        Listener::Own => paths.fallback(common_access::nothing_here),
    };
    paths
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(state)
}
