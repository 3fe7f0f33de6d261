//! Errors as answers: a stable code, a sentence for people, and the right status.

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::push;

/// An answer that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub status: StatusCode,
    /// Stable, for programs.
    pub code: &'static str,
    /// For people. Holds no secret and nothing of our insides.
    pub message: String,
}

impl Error {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// The request's content is wrong; the message names the field.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// The thing asked for is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The request contradicts what is there.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// A mistake of ours; the log says more.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// Not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let body = Json(json!({"code": self.code, "message": self.message}));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"linkmic\""),
            );
        }
        response
    }
}

impl From<push::Error> for Error {
    fn from(error: push::Error) -> Self {
        let message = error.to_string();
        match error {
            push::Error::Invalid { .. } => Error::invalid(message),
            push::Error::NotFound(_) => Error::not_found(message),
            push::Error::MadeByRule(_) => Error::conflict(message),
            push::Error::Full { .. } => Error::new(StatusCode::CONFLICT, "limit_reached", message),
            push::Error::Closed => Error::unavailable(message),
        }
    }
}

/// For paths that lead nowhere.
pub(super) async fn not_found(uri: Uri) -> Error {
    Error::not_found(format!("there is nothing at {}", uri.path()))
}

/// For methods that a path does not know. The router adds `Allow`.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Error {
    Error::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{} does not take {method}", uri.path()),
    )
}
