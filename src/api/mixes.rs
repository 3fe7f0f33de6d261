//! `/api/v1/mixes`: several inputs into one output.
//!
//! The mixer is an optional part of the build, so what these endpoints need of it is a trait; without an
//! implementation they answer 501.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use utoipa::{OpenApi, ToSchema};

use super::Error;
use super::body::{self, Body, Path};
use super::describe::mixes as described;
use super::durable::{KeptMixes, When};
use crate::media::StreamKey;
use crate::media::vitals::Spread;
use crate::metrics::MixLoad;

#[derive(OpenApi)]
#[openapi(paths(list, get, put, preview, delete))]
pub(super) struct Description;

/// What a `PUT` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    Created,
    Changed,
    Unchanged,
}

/// Why a mix was refused: the field, what kind of refusal it is, and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MixError {
    /// It is no scene: types and names of fields. The message says where.
    #[error("{0}")]
    Unreadable(String),
    /// A field of the scene is wrong.
    #[error("{path}: {message}")]
    Invalid {
        path: String,
        flaw: Flaw,
        message: String,
    },
    /// It contradicts what is there.
    #[error("{path}: {message}")]
    Conflict {
        path: String,
        clash: Clash,
        message: String,
    },
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

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Its value, by itself or beside the scene's others.
    Value,
    /// The still picture that it names cannot be had or decoded.
    Picture,
}

/// What a scene contradicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clash {
    /// Another mix or publisher has the output.
    Taken,
    /// The mix runs, and keeps its output.
    Fixed,
    /// A mix would feed on itself.
    Loop,
    /// A stream is in as many mixes as it may be.
    Crowded,
    /// The output's name is published in a codec that the mix does not have.
    Codec,
    /// The mix is ending, and will be gone.
    Ending,
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

/// The end of a mix, to be awaited.
pub type Gone<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What is done between a change's being found good and its being made; when it fails, nothing is changed.
pub type Keep<'a> = Box<dyn FnOnce(Made) -> Pending<'a, ()> + Send + 'a>;

/// What the endpoints need of a mixer. Mixes are shown as the mixer describes them; each has `inputs`, each with a
/// `state`.
pub trait Mixes: Send + Sync {
    /// Makes or changes a mix from the JSON text of a request.
    fn put<'a>(&'a self, id: &'a str, scene: &'a [u8]) -> Pending<'a, (Made, Value)>;
    /// As [`Self::put`], with `keep` between the judgement, whose outcome it is told, and the change. Another mix may
    /// come in between, so that the change is refused after `keep` was done.
    fn put_kept<'a>(
        &'a self,
        id: &'a str,
        scene: &'a [u8],
        keep: Keep<'a>,
    ) -> Pending<'a, (Made, Value)> {
        Box::pin(async move {
            let there = self.get(id).is_some();
            keep(if there { Made::Changed } else { Made::Created }).await?;
            self.put(id, scene).await
        })
    }
    /// Whether still pictures have to be fetched to make that mix, which may take seconds.
    fn gets_pictures(&self, id: &str, scene: &[u8]) -> bool {
        let _ = (id, scene);
        false
    }
    /// Makes a mix that ran before the server's start and had had none of its streams for `idle`. How many are made at once
    /// is the caller's affair.
    fn restore<'a>(&'a self, id: &'a str, scene: &'a [u8], idle: Duration) -> Pending<'a, Value> {
        let _ = idle;
        Box::pin(async move { Ok(self.put(id, scene).await?.1) })
    }
    /// Draws the scene of such a request without making a mix.
    fn preview<'a>(&'a self, scene: &'a [u8], wish: Wish) -> Pending<'a, Drawn>;
    /// One mix; `None` when the id is not known.
    fn get(&self, id: &str) -> Option<Value>;
    /// All mixes, by id.
    fn list(&self) -> Vec<Value>;
    /// How long the latest pictures of a mix's main were in each of its stages, by the stage's word, and in all of them
    /// (`added`). Nothing of a mix that is not known, or does not mix.
    fn stages(&self, id: &str) -> Vec<(&'static str, Spread)> {
        let _ = id;
        Vec::new()
    }
    /// Decoders at work, by kind: `audio`, `video`.
    fn decoders(&self) -> [(&'static str, usize); 2];
    /// What they cost and may cost.
    fn load(&self) -> MixLoad;
    /// Width and height of a stream's own pictures in pixels; `None` while they are not known.
    fn picture_size(&self, stream: &StreamKey) -> Option<(u32, u32)>;
    /// Resolves when a mix is gone after this call, which is to say before the future is first polled too.
    fn gone(&self) -> Gone<'_>;
    /// Begins a mix's end and describes the ending mix.
    fn remove<'a>(&'a self, id: &'a str) -> Pending<'a, Value>;
}

impl From<MixError> for Error {
    fn from(error: MixError) -> Self {
        let whole = error.to_string();
        match error {
            MixError::Unreadable(message) => Error::invalid(message),
            MixError::Invalid { .. } => Error::invalid(whole),
            MixError::Conflict { .. } => Error::conflict(whole),
            MixError::NotFound(message) => Error::not_found(message),
            MixError::Overloaded(message) => {
                Error::new(StatusCode::SERVICE_UNAVAILABLE, "mixer_overloaded", message)
            }
            MixError::Unavailable(message) => Error::unavailable(message),
        }
    }
}

fn mixes(state: &super::State) -> Result<&KeptMixes, Error> {
    state.mixes.as_ref().ok_or_else(|| {
        Error::new(
            StatusCode::NOT_IMPLEMENTED,
            "mixer_not_built",
            "this linkmic was built without the feature \"mixer\"",
        )
    })
}

/// All mixes, and what there is room for.
#[utoipa::path(get, path = "/api/v1/mixes", operation_id = "list_mixes", tag = "mixes",
    responses((status = 200, description = "all of them", body = described::Mixes), (status = 501, description = "built without the mixer")))]
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

/// One mix.
#[utoipa::path(get, path = "/api/v1/mixes/{id}", operation_id = "get_mix", tag = "mixes",
    params(("id" = String, Path, pattern = "^[A-Za-z0-9_.-]{1,80}$")),
    responses(
        (status = 200, description = "as it stands", body = described::AnyMix),
        (status = 404, description = "no such mix"),
        (status = 501, description = "built without the mixer")))]
pub(super) async fn get(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<Response, Error> {
    let id = body::path(path)?;
    let mixes = mixes(&state)?;
    let absent = || Error::not_found(format!("no mix has the id {id:?}"));
    // In this order: a tag that is too old makes a change fail, one that is too new would make it go through.
    let tag = mixes.tag(&id).map(|tag| [tag.header()]);
    let mix = mixes.get(&id).ok_or_else(absent)?;
    Ok((tag, Json(mix)).into_response())
}

/// What must be known of a scene before the mixer sees it: the mixer does not know which applications there are.
#[derive(serde::Deserialize)]
struct Asked {
    app: Option<String>,
}

/// Makes a mix, or changes it while it runs.
#[utoipa::path(put, path = "/api/v1/mixes/{id}", operation_id = "put_mix", tag = "mixes",
    params(("id" = String, Path, pattern = "^[A-Za-z0-9_.-]{1,80}$"), ("If-Match" = Option<String>, Header, description = "Only if it is at this ETag or revision, in quotes"), ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none")),
    request_body = described::Scene,
    responses(
        (status = 200, description = "it is changed, or was so already", body = described::AnyMix),
        (status = 201, description = "it is made", body = described::AnyMix),
        (status = 409, description = "it contradicts what is there"),
        (status = 501, description = "built without the mixer"),
        (status = 503, description = "there is no room for it, it cannot be mixed now, or it could not be written to the disk, and nothing has changed"),
        (status = 412, description = "it is at another revision")))]
pub(super) async fn put(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let mixes = mixes(&state)?;
    let id = body::path(path)?;
    let when = When::read(&headers)?;
    let scene: Bytes = body::bytes(body)?;
    // What is no JSON at all is told here, with its own code; what the scene lacks, the mixer tells.
    let asked: Asked = body::parse(&scene)?;
    if let Some(app) = asked.app {
        super::urls::check_app(&state, &app)?;
    }
    let change = mixes.put_when(&id, &scene, when).await?;
    let code = match change.made {
        Made::Created => StatusCode::CREATED,
        Made::Changed | Made::Unchanged => StatusCode::OK,
    };
    let tag = change.tag.map(|tag| [tag.header()]);
    Ok((code, tag, Json(change.mix)).into_response())
}

/// Draws a scene without making a mix.
#[utoipa::path(post, path = "/api/v1/mixes:preview", operation_id = "preview_mix", tag = "mixes",
    params(described::Wish),
    request_body = described::Scene,
    responses(
        (status = 200, description = "the image, or JSON with it in it", content(
            (String = "image/png"), (described::Preview = "application/json"))),
        (status = 501, description = "built without the mixer"),
        (status = 503, description = "it cannot be drawn now")))]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(as = MixPreviewForm, rename_all = "lowercase")]
pub(super) enum Form {
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

/// Begins a mix's end: it is gone when its output is back with the source.
#[utoipa::path(delete, path = "/api/v1/mixes/{id}", operation_id = "delete_mix", tag = "mixes",
    params(("id" = String, Path, pattern = "^[A-Za-z0-9_.-]{1,80}$"), ("If-Match" = Option<String>, Header, description = "Only if it is at this ETag or revision, in quotes"), ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none")),
    responses(
        (status = 202, description = "it is ending", body = described::AnyMix),
        (status = 404, description = "no such mix"),
        (status = 501, description = "built without the mixer"),
        (status = 503, description = "the mixer failed, or it could not be written to the disk, and nothing has changed"),
        (status = 412, description = "it is at another revision")))]
pub(super) async fn delete(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<Value>), Error> {
    let id = body::path(path)?;
    let when = When::read(&headers)?;
    let mix = mixes(&state)?.remove_when(&id, when).await?;
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
