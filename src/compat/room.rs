//! `merge_stream` of a room service: apps that let one call for them.
//!
//! | source | covered |
//! |---|---|
//! | the official room services (Node, Java) and the clients of the hosted one | the path, `mergeParams` as an object or as a text, both shapes of the answer |
//!
//! Who is in which room is none of our business: `userID`, `token` and `roomID` are not looked at. The call is signed in its
//! query as any of the legacy form, by whoever keeps the rooms or stands in front of us.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::common_access::{called, mixed, reply, unread};
use super::gateway;
use super::query::Query;
use super::state::now;

/// How it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// As the room services do that people run themselves: what mixing said is in `result`.
    #[default]
    Own,
    /// As the vendor's own does: what mixing said is in `merge_code` and `merge_message`.
    Hosted,
}

impl Shape {
    /// The answer. `code` is of the call itself, 0 when it reached mixing; `mixing` is what that answered.
    fn answer(self, code: i64, message: &str, mixing: &Value) -> Value {
        let [merge_code, merge_message, timestamp] =
            ["code", "message", "timestamp"].map(|field| &mixing[field]);
        match self {
            Shape::Own => json!({
                "code": code,
                "message": message,
                "result": {"code": merge_code, "message": merge_message, "timestamp": timestamp},
            }),
            Shape::Hosted => json!({
                "code": code,
                "message": message,
                "merge_code": merge_code,
                "merge_message": merge_message,
                "timestamp": timestamp,
            }),
        }
    }

    /// The answer to a call that came to nothing before mixing.
    fn refusal(self, code: i64, message: &str) -> Value {
        let mixing = json!({"code": code, "message": message, "timestamp": now()});
        self.answer(code, message, &mixing)
    }
}

/// `POST /weapp/live_room/merge_stream`
pub(super) async fn merge_stream(
    State(state): State<Arc<super::State>>,
    RawQuery(query): RawQuery,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let shape = state.shape;
    let query = Query::parse(query.as_deref().unwrap_or_default());
    let account = match gateway::caller(&state.accounts, &query, now()) {
        Ok(account) => account,
        Err(refused) => {
            let answer = shape.refusal(refused.code(), &refused.to_string());
            return reply(StatusCode::OK, &answer);
        }
    };
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            let answer = shape.refusal(-1, &unread(&rejection));
            return reply(rejection.status(), &answer);
        }
    };
    let Some(params) = params(&body) else {
        let message = "the body is not JSON with mergeParams in it";
        return reply(StatusCode::OK, &shape.refusal(-1, message));
    };
    let mixing = mixed(&state, account, params.as_bytes()).await;
    let answer = reply(StatusCode::OK, &shape.answer(0, "ok", &mixing));
    called(answer, account, "merge_stream", true)
}

/// The body of Mix_StreamV2 that stands in `mergeParams`.
fn params(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    match body.get("mergeParams")? {
        Value::String(text) => Some(text.clone()),
        object @ Value::Object(_) => Some(object.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_5_what_mixing_said_is_told_in_both_shapes() {
        let mixing = json!({"code": -505, "event_id": "7", "message": "not live", "timestamp": 9});
        assert_eq!(
            Shape::Own.answer(0, "ok", &mixing).to_string(),
            r#"{"code":0,"message":"ok","result":{"code":-505,"message":"not live","timestamp":9}}"#
        );
        assert_eq!(
            Shape::Hosted.answer(0, "ok", &mixing).to_string(),
            r#"{"code":0,"message":"ok","merge_code":-505,"merge_message":"not live","timestamp":9}"#
        );
    }

    #[test]
    fn section_5_merge_params_are_an_object_or_a_text() {
        for (body, found) in [
            (
                r#"{"userID":"u","roomID":"r","mergeParams":{"a":1}}"#,
                Some(r#"{"a":1}"#),
            ),
            (r#"{"mergeParams":"{\"a\":1}"}"#, Some(r#"{"a":1}"#)),
            (r#"{"mergeParams":[1]}"#, None),
            (r#"{"userID":"u"}"#, None),
            ("[", None),
        ] {
            assert_eq!(params(body.as_bytes()).as_deref(), found, "{body}");
        }
    }
}
