//! `/`: the v3 form, as the vendor's own SDKs speak it.
//!
//! | source | covered |
//! |---|---|
//! | the vendor's API 3.0 pages, live 2018-08-01 | common parameters, the POST and GET forms, the actions below, names of errors |
//!
//! An answer is always HTTP 200 and one object, `Response`, with `Error` in it or what was asked for.

mod mix;
mod params;
mod signature;
mod streams;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::account::Account;
use super::common_access::called;
use super::mix::Refusal;
use super::state::now;
use crate::api;
use crate::auth::digest;
use signature::Signed;

const VERSION: &str = "2018-08-01";
/// Actions that change something.
const CHANGES: [&str; 5] = [
    "CreateCommonMixStream",
    "CancelCommonMixStream",
    "ForbidLiveStream",
    "ResumeLiveStream",
    "DropLiveStream",
];

/// What an action is answered with that was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    /// As the vendor names it.
    code: &'static str,
    message: String,
}

impl Problem {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<Refusal> for Problem {
    /// Codes that have no name of their own stand in the message, in the vendor's words.
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, message } = refusal;
        match code.name() {
            Some(name) => Self::new(name, message),
            None => Self::new(
                "InvalidParameter.OtherError",
                format!(
                    "InnerErrCode:[ {} ],InnerErrMsg: [ {message} ]",
                    code.number()
                ),
            ),
        }
    }
}

impl From<api::Error> for Problem {
    fn from(error: api::Error) -> Self {
        Self::new("InternalError", error.message)
    }
}

/// `GET|POST /`
pub(super) async fn call(
    State(state): State<Arc<super::State>>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let query = query.unwrap_or_default();
    let mut caller = None;
    let done = match body {
        Ok(body) => act(&state, &method, &query, &headers, &body, &mut caller).await,
        Err(_) => Err(Problem::new(
            "RequestSizeLimitExceeded",
            "The body is too large.",
        )),
    };
    let id = request_id();
    let response = match done {
        Ok(Value::Object(mut object)) => {
            object.insert("RequestId".into(), json!(id));
            Value::Object(object)
        }
        Ok(_) => json!({"RequestId": id}),
        Err(Problem { code, message }) => {
            // Strangers can be refused as often as they like.
            tracing::debug!(code, why = message, "v3 request refused");
            json!({"Error": {"Code": code, "Message": message}, "RequestId": id})
        }
    };
    let json = [(header::CONTENT_TYPE, "application/json")];
    let answer = (json, json!({"Response": response}).to_string()).into_response();
    match caller {
        Some((account, action)) => {
            let changes = CHANGES.contains(&action.as_str());
            called(answer, account, &action, changes)
        }
        None => answer,
    }
}

/// `caller` is who signed it and the action, once that is known.
async fn act<'a>(
    state: &'a super::State,
    method: &Method,
    query: &str,
    headers: &HeaderMap,
    body: &[u8],
    caller: &mut Option<(&'a Account, String)>,
) -> Result<Value, Problem> {
    let header = |name: &str| {
        let value = headers.get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    // In the GET form they may stand in the query.
    let common = |name: &str, parameter: &str| {
        let in_query = || {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            let found = pairs.find(|(key, _)| key == parameter);
            found.map(|(_, value)| value.into_owned())
        };
        let found = header(name).or_else(in_query);
        found.filter(|value| !value.is_empty()).ok_or_else(|| {
            let message = format!("The request is missing a required parameter `{parameter}`.");
            Problem::new("MissingParameter", message)
        })
    };
    let action = common("X-TC-Action", "Action")?;
    let version = common("X-TC-Version", "Version")?;
    let signed = Signed {
        method: method.as_str(),
        query,
        headers: &header,
        body,
    };
    let account = signature::caller(&state.accounts, &signed, now())?;
    *caller = Some((account, action.clone()));
    if version != VERSION {
        let message =
            format!("There is no version {version:?} of this interface; it is {VERSION}.");
        return Err(Problem::new("NoSuchVersion", message));
    }
    let params = if method == Method::GET {
        params::of_query(query)?
    } else {
        params::of_body(body)?
    };
    let done = perform(state, account, &action, &params).await;
    match &done {
        Ok(_) => tracing::debug!(appid = account.appid, action, "v3 request done"),
        Err(Problem { code, message }) => {
            tracing::info!(appid = account.appid, action, code, %message, "v3 request refused");
        }
    }
    done
}

async fn perform(
    state: &super::State,
    account: &Account,
    action: &str,
    params: &Map<String, Value>,
) -> Result<Value, Problem> {
    match action {
        "CreateCommonMixStream" => {
            state.start(account, &mix::create(params)?).await?;
            Ok(json!({}))
        }
        "CancelCommonMixStream" => {
            let session = mix::cancel(params)?;
            state.cancel(account, &session, None).await?;
            Ok(json!({}))
        }
        "DescribeLiveStreamState" => streams::state(state, account, params),
        "DescribeLiveStreamOnlineList" => streams::online(state, account, params),
        "ForbidLiveStream" => streams::forbid(state, account, params).await,
        "ResumeLiveStream" => streams::resume(state, account, params).await,
        "DropLiveStream" => streams::drop(state, account, params),
        _ => {
            let message = format!("The action {action:?} is not known here.");
            Err(Problem::new("InvalidAction", message))
        }
    }
}

/// A UUID of version 4 (RFC 9562).
fn request_id() -> String {
    let mut bytes = [0; 16];
    // Without random bytes it is still in its form, and only not unique.
    let _ = getrandom::fill(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = digest::hex(&bytes);
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}
