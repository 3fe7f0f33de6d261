//! `/api/v1/mixes`: several inputs into one output.
//!
//! The mixer is an optional part of the build, so what these endpoints need of it is a trait; without an
//! implementation they answer 501.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Error;
use super::body::{self, Body, Path};
use crate::media::StreamKey;
use crate::metrics::MixLoad;

/// What a `PUT` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    Created,
    Changed,
    Unchanged,
}

/// Why a mix was refused: the sentence, and what kind of refusal it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MixError {
    /// The scene is wrong; begins with the field's path.
    #[error("{0}")]
    Invalid(String),
    /// It contradicts what is there: another mix's output, a live stream, a codec.
    #[error("{0}")]
    Conflict(String),
    /// No mix has that id.
    #[error("{0}")]
    NotFound(String),
    /// This machine has no room for it.
    #[error("{0}")]
    Overloaded(String),
    /// The mixer cannot do it now.
    #[error("{0}")]
    Unavailable(String),
}

/// How a preview is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// Show the newest pictures of streams that running mixes decode.
    pub live: bool,
    /// Of the image in pixels, when it is to be smaller than the canvas.
    pub width: Option<u32>,
}

/// A drawn scene.
#[derive(Debug, Clone)]
pub struct Drawn {
    pub png: Vec<u8>,
    /// Where everything is.
    pub layout: Value,
    /// What is doubtful about the scene.
    pub warnings: Vec<Value>,
}

/// An answer to be awaited.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, MixError>> + Send + 'a>>;

/// What the endpoints need of a mixer. Mixes are shown as the mixer describes them; each has `inputs`, each with a
/// `state`.
pub trait Mixes: Send + Sync {
    /// Makes or changes a mix from the JSON text of a request.
    fn put<'a>(&'a self, id: &'a str, scene: &'a [u8]) -> Pending<'a, (Made, Value)>;
    /// Draws the scene of such a request without making a mix.
    fn preview<'a>(&'a self, scene: &'a [u8], wish: Wish) -> Pending<'a, Drawn>;
    /// One mix; `None` when the id is not known.
    fn get(&self, id: &str) -> Option<Value>;
    /// All mixes, by id.
    fn list(&self) -> Vec<Value>;
    /// Decoders at work, by kind: `audio`, `video`.
    fn decoders(&self) -> [(&'static str, usize); 2];
    /// What they cost and may cost.
    fn load(&self) -> MixLoad;
    /// Width and height of a stream's own pictures in pixels; `None` while they are not known.
    fn picture_size(&self, stream: &StreamKey) -> Option<(u32, u32)>;
    /// Begins a mix's end and describes the ending mix.
    fn remove<'a>(&'a self, id: &'a str) -> Pending<'a, Value>;
}

impl From<MixError> for Error {
    fn from(error: MixError) -> Self {
        match error {
            MixError::Invalid(message) => Error::invalid(message),
            MixError::Conflict(message) => Error::conflict(message),
            MixError::NotFound(message) => Error::not_found(message),
            MixError::Overloaded(message) => {
                Error::new(StatusCode::SERVICE_UNAVAILABLE, "mixer_overloaded", message)
            }
            MixError::Unavailable(message) => Error::unavailable(message),
        }
    }
}

fn mixes(state: &super::State) -> Result<&dyn Mixes, Error> {
    state.mixes.as_deref().ok_or_else(|| {
        Error::new(
            StatusCode::NOT_IMPLEMENTED,
            "mixer_not_built",
            "this linkmic was built without the feature \"mixer\"",
        )
    })
}

/// `GET /api/v1/mixes`
pub(super) async fn list(State(state): State<Arc<super::State>>) -> Result<Json<Value>, Error> {
    let mixes = mixes(&state)?;
    let load = mixes.load();
    let capacity = json!({
        "budget": load.budget,
        "cost": load.cost,
        "can_accept": load.can_accept,
    });
    Ok(Json(json!({"mixes": mixes.list(), "capacity": capacity})))
}

/// `GET /api/v1/mixes/{id}`
pub(super) async fn get(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<Json<Value>, Error> {
    let id = body::path(path)?;
    let absent = || Error::not_found(format!("no mix has the id {id:?}"));
    mixes(&state)?.get(&id).map(Json).ok_or_else(absent)
}

/// What must be known of a scene before the mixer sees it: the mixer does not know which applications there are.
#[derive(serde::Deserialize)]
struct Asked {
    app: Option<String>,
}

/// `PUT /api/v1/mixes/{id}`
pub(super) async fn put(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Error> {
    let mixes = mixes(&state)?;
    let id = body::path(path)?;
    let scene: Bytes = body::bytes(body)?;
    // What is no JSON at all is told here, with its own code; what the scene lacks, the mixer tells.
    let asked: Asked = body::parse(&scene)?;
    if let Some(app) = asked.app {
        super::urls::check_app(&state, &app)?;
    }
    let (made, mix) = mixes.put(&id, &scene).await?;
    let code = match made {
        Made::Created => StatusCode::CREATED,
        Made::Changed | Made::Unchanged => StatusCode::OK,
    };
    Ok((code, Json(mix)))
}

/// `POST /api/v1/mixes:preview`
pub(super) async fn preview(
    State(state): State<Arc<super::State>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let mixes = mixes(&state)?;
    let (wish, form) = wished(query.as_deref().unwrap_or(""))?;
    let scene: Bytes = body::bytes(body)?;
    let asked: Asked = body::parse(&scene)?;
    if let Some(app) = asked.app {
        super::urls::check_app(&state, &app)?;
    }
    let drawn = mixes.preview(&scene, wish).await?;
    Ok(match form.unwrap_or_else(|| accepted(&headers)) {
        Form::Json => {
            let Drawn {
                png,
                layout,
                warnings,
            } = drawn;
            let png = STANDARD.encode(png);
            Json(json!({"layout": layout, "warnings": warnings, "png": png})).into_response()
        }
        Form::Png => {
            let warnings = HeaderValue::try_from(listed(&drawn.warnings));
            let fields = [
                (header::CONTENT_TYPE, HeaderValue::from_static("image/png")),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
                (WARNINGS, warnings.unwrap_or(HeaderValue::from_static("[]"))),
            ];
            (fields, drawn.png).into_response()
        }
    })
}

/// Warnings about the scene of an answer that is an image.
const WARNINGS: HeaderName = HeaderName::from_static("x-linkmic-warnings");
/// Longest value of that: many clients take 8 KB of headers and no more.
const MAX_WARNINGS_BYTES: usize = 4 << 10;

/// As what a preview comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Png,
    Json,
}

/// What the query says of a preview.
fn wished(query: &str) -> Result<(Wish, Option<Form>), Error> {
    let (mut wish, mut form) = (Wish::default(), None);
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let no = |what: &str| Err(Error::invalid(format!("{key}: {value:?} is {what}")));
        match (&*key, &*value) {
            ("live", "1" | "true") => wish.live = true,
            ("live", "0" | "false") => wish.live = false,
            ("live", _) => return no("neither true nor false"),
            ("format", "png") => form = Some(Form::Png),
            ("format", "json") => form = Some(Form::Json),
            ("format", _) => return no("neither png nor json"),
            ("width", width) => match width.parse() {
                Ok(width) => wish.width = Some(width),
                Err(_) => return no("no number of pixels"),
            },
            _ => {
                return Err(Error::invalid(format!(
                    "{key}: unknown parameter; known are live, width and format"
                )));
            }
        }
    }
    Ok((wish, form))
}

/// What the caller takes where the query leaves it open: the image, but for those who want JSON and no image.
fn accepted(headers: &HeaderMap) -> Form {
    let mut json = false;
    for value in headers.get_all(header::ACCEPT) {
        let value = value.to_str().unwrap_or("").to_ascii_lowercase();
        if value.contains("image/") {
            return Form::Png;
        }
        json |= value.contains("application/json");
    }
    if json { Form::Json } else { Form::Png }
}

/// As many warnings as there is room for in a header, as JSON in ASCII.
fn listed(warnings: &[Value]) -> String {
    let mut list = String::from("[");
    for warning in warnings {
        let mut item = String::new();
        for unit in warning.to_string().encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => item.push(byte.into()),
                // JSON's own escape (RFC 8259, section 7); such characters stand inside of strings only.
                _ => item.push_str(&format!("\\u{unit:04x}")),
            }
        }
        if list.len() + item.len() + 2 > MAX_WARNINGS_BYTES {
            break;
        }
        if list.len() > 1 {
            list.push(',');
        }
        list.push_str(&item);
    }
    list.push(']');
    list
}

/// `DELETE /api/v1/mixes/{id}`: the mix is gone when the output is back with its source.
pub(super) async fn delete(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<(StatusCode, Json<Value>), Error> {
    let id = body::path(path)?;
    let mix = mixes(&state)?.remove(&id).await?;
    Ok((StatusCode::ACCEPTED, Json(mix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_warnings_is_json_in_ascii_and_bounded() {
        let one = json!({"path": "inputs[0].x", "message": "Łódź 😀"});
        let list = listed(std::slice::from_ref(&one));
        assert!(list.is_ascii());
        assert_eq!(serde_json::from_str::<Value>(&list).unwrap(), json!([one]));
        assert_eq!(listed(&[]), "[]");
        let many = listed(&vec![one; 1_000]);
        assert!((3_900..=MAX_WARNINGS_BYTES).contains(&many.len()));
        assert!(serde_json::from_str::<Vec<Value>>(&many).is_ok());
    }

    #[test]
    fn the_query_goes_before_what_is_accepted() {
        let wish = |live, width| Wish { live, width };
        assert_eq!(wished("").unwrap(), (wish(false, None), None));
        assert_eq!(
            wished("live=1&width=180&format=json").unwrap(),
            (wish(true, Some(180)), Some(Form::Json))
        );
        for (query, message) in [
            ("live=yes", "live: \"yes\" is neither true nor false"),
            ("width=-1", "width: \"-1\" is no number of pixels"),
            ("format=gif", "format: \"gif\" is neither png nor json"),
            (
                "size=3",
                "size: unknown parameter; known are live, width and format",
            ),
        ] {
            assert_eq!(wished(query).unwrap_err().message, message);
        }
        for (accept, form) in [
            ("*/*", Form::Png),
            ("application/json", Form::Json),
            ("application/json, */*", Form::Json),
            ("text/html,image/avif,application/json;q=0.5", Form::Png),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(accepted(&headers), form, "{accept}");
        }
        assert_eq!(accepted(&HeaderMap::new()), Form::Png);
    }
}
