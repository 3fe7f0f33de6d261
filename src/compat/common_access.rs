//! `/common_access`: every call of the legacy form, told apart by `interface`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::MAX_BODY_BYTES;
use super::account::Account;
use super::channel;
use super::gateway::{self, Refused};
use super::mix::legacy;
use super::query::Query;
use super::state::now;
use crate::api::{Called, Error};

/// Interfaces that change something.
const CHANGES: [&str; 4] = [
    "mix_streamv2",
    "mix_stream",
    "live_channel_setstatus",
    "channel_manager",
];

/// `GET|POST /common_access`
pub(super) async fn call(
    State(state): State<Arc<super::State>>,
    RawQuery(query): RawQuery,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    let account = match gateway::caller(&state.accounts, &query, now()) {
        Ok(account) => account,
        Err(refused) => return gate(refused),
    };
    let interface = query.interface();
    let answer = match interface.as_str() {
        "mix_streamv2" | "mix_stream" => mix(&state, account, body).await,
        interface => match channel::call(&state, account, interface, &query).await {
            Some(answer) => reply(StatusCode::OK, &answer),
            None => return gate(Refused::Interface),
        },
    };
    let changes = CHANGES.contains(&interface.as_str());
    called(answer, account, &interface, changes)
}

/// Says in an answer who called what.
pub(super) fn called(
    mut answer: Response,
    account: &Account,
    action: &str,
    changes: bool,
) -> Response {
    answer.extensions_mut().insert(Called {
        who: format!("account {}", account.appid),
        action: Some(action.to_owned()),
        changes,
    });
    answer
}

async fn mix(
    state: &super::State,
    account: &Account,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            let answer = json!({"code": -1, "message": unread(&rejection), "timestamp": now()});
            return reply(rejection.status(), &answer);
        }
    };
    reply(StatusCode::OK, &mixed(state, account, &body).await)
}

/// Why a body did not come.
pub(super) fn unread(rejection: &BytesRejection) -> String {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            format!("the body exceeds the limit of {MAX_BODY_BYTES} bytes")
        }
        _ => "the body was cut short".to_owned(),
    }
}

/// Does what the body of a Mix_StreamV2 asks for, and answers as that does.
pub(super) async fn mixed(state: &super::State, account: &Account, body: &[u8]) -> Value {
    let (echo, call) = legacy::read(body);
    let done = match call {
        Err(refusal) => Err(refusal),
        Ok(legacy::Call::Start(ask)) => state.start(account, &ask).await,
        Ok(legacy::Call::Cancel { session, output }) => {
            state.cancel(account, &session, output.as_deref()).await
        }
    };
    match &done {
        Ok(()) => tracing::info!(appid = account.appid, "mix request done"),
        Err(refusal) => {
            tracing::info!(appid = account.appid, %refusal, "mix request refused");
        }
    }
    echo.answer(&done, now())
}

/// The gateway's answers have the keys of mixing and of the channel calls both.
fn gate(refused: Refused) -> Response {
    let (code, message) = (refused.code(), refused.to_string());
    let answer = json!({
        "code": code,
        "ret": code,
        "retcode": code,
        "errmsg": message,
        "message": message,
    });
    reply(StatusCode::OK, &answer)
}

/// JSON and a line's end, as the vendor's gateway sends it.
pub(super) fn reply(status: StatusCode, answer: &Value) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    (status, json, format!("{answer}\n")).into_response()
}

/// Paths that lead nowhere, on the listener of its own.
pub(super) async fn nothing_here(uri: Uri) -> Error {
    Error::not_found(format!("there is nothing at {}", uri.path()))
}
