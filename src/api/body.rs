//! Request bodies and path segments, with errors that name the field.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use super::strict::Strict;
use super::{Error, MAX_BODY_BYTES};

/// A body as it came, or why it did not.
pub type Body = Result<Bytes, BytesRejection>;
/// Path parameters, or why they could not be read.
pub type Path<T> = Result<axum::extract::Path<T>, PathRejection>;

/// The body's bytes.
///
/// # Errors
/// When it is too long, or was cut short.
pub fn bytes(body: Body) -> Result<Bytes, Error> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Error::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("body exceeds the limit of {MAX_BODY_BYTES} bytes"),
        ),
        _ => Error::new(StatusCode::BAD_REQUEST, "malformed", "body was cut short"),
    })
}

/// The body as `T`. Whatever content type it claims: there is only JSON here, and many clients claim something else.
///
/// # Errors
/// As for [`bytes`] and [`parse`].
pub fn json<T: DeserializeOwned>(body: Body) -> Result<T, Error> {
    parse(&bytes(body)?)
}

/// JSON text as `T`, with the path of the field in the message when it does not fit.
///
/// # Errors
/// When it is no JSON, or no `T`.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    match Json::from_bytes(text) {
        Ok(Json(Strict(value))) => Ok(value),
        Err(rejection) => {
            let text = rejection.body_text();
            // The frame around the message is about Rust types; the rest, "path: what is wrong", is for the caller.
            let detail = text
                .split_once(": ")
                .map_or(text.as_str(), |(_, rest)| rest);
            Err(match rejection {
                JsonRejection::JsonDataError(_) => Error::invalid(detail),
                _ => Error::new(
                    StatusCode::BAD_REQUEST,
                    "malformed_json",
                    format!("body is not JSON: {detail}"),
                ),
            })
        }
    }
}

/// How long something may be meant to last: what is to last longer has no end. Ten years of 365.25 days.
const TERMS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(315_576_000);

/// Refuses a duration in `field` that is outside one second to ten years.
///
/// # Errors
/// With the field's name.
pub fn term(field: &str, term: Duration) -> Result<(), Error> {
    if TERMS.contains(&term) {
        return Ok(());
    }
    let text = humantime::format_duration;
    let (least, most) = (text(*TERMS.start()), text(*TERMS.end()));
    let term = text(term);
    Err(Error::invalid(format!(
        "{field}: {term} is not within {least} to {most}"
    )))
}

/// The path's parameters.
///
/// # Errors
/// When they are not what the path is for.
pub fn path<T>(path: Path<T>) -> Result<T, Error> {
    path.map(|axum::extract::Path(value)| value)
        .map_err(|rejection| Error::invalid(rejection.body_text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // only parsed
    struct Outer {
        inputs: Vec<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // only parsed
    struct Inner {
        x: u32,
        #[serde(default)]
        more: Option<Box<Inner>>,
        #[serde(default)]
        how: How,
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    enum How {
        #[default]
        Plain,
        Sized {
            by: u32,
        },
    }

    #[test]
    fn an_object_of_every_kind_is_read_and_a_list_never_taken_for_one() {
        let text = r#"{"inputs": [{"x": 1, "more": {"x": 2, "how": "Plain"}}, {"x": 3, "how": {"Sized": {"by": 4}}}]}"#;
        let read = parse::<Outer>(text.as_bytes()).unwrap();
        assert_eq!(read.inputs[0].more.as_ref().map(|more| more.x), Some(2));
        assert_eq!(read.inputs[1].how, How::Sized { by: 4 });
        for (text, message) in [
            ("[[]]", "invalid type: sequence, expected an object"),
            (
                r#"[[{"x": 1}]]"#,
                "invalid type: sequence, expected an object",
            ),
            ("7", "invalid type: integer `7`, expected an object"),
            (
                r#"{"inputs": [[1]]}"#,
                "inputs[0]: invalid type: sequence, expected an object",
            ),
            (
                r#"{"inputs": [{"x": 1, "more": [2, null, "Plain"]}]}"#,
                "inputs[0].more: invalid type: sequence, expected an object",
            ),
            (
                r#"{"inputs": [{"x": 1, "how": {"Sized": [4]}}]}"#,
                "inputs[0].how.Sized: invalid type: sequence, expected an object",
            ),
            (
                r#"{"inputs": [{"x": 1, "more": "a"}]}"#,
                "inputs[0].more: invalid type: string \"a\", expected an object",
            ),
        ] {
            let error = parse::<Outer>(text.as_bytes()).unwrap_err();
            assert_eq!(error.code, "invalid", "{text}: {error:?}");
            assert!(error.message.starts_with(message), "{text}: {error:?}");
        }
    }

    #[test]
    fn mistakes_are_named_by_their_path() {
        for (text, code, message) in [
            (
                r#"{"inputs": [{"x": 1}, {"x": "a"}]}"#,
                "invalid",
                "inputs[1].x: invalid type",
            ),
            (
                r#"{"inputs": [{"x": 1, "y": 2}]}"#,
                "invalid",
                "inputs[0].y: unknown field `y`",
            ),
            (
                r#"{"input": []}"#,
                "invalid",
                "input: unknown field `input`",
            ),
            (r#"{}"#, "invalid", "missing field `inputs`"),
            (r#"{"inputs": ["#, "malformed_json", "body is not JSON: "),
            ("", "malformed_json", "body is not JSON: "),
            (
                r#"{"inputs": []} x"#,
                "malformed_json",
                "body is not JSON: ",
            ),
        ] {
            let error = parse::<Outer>(text.as_bytes()).unwrap_err();
            assert_eq!(error.code, code, "{text}: {error:?}");
            assert!(error.message.starts_with(message), "{text}: {error:?}");
        }
    }
}
