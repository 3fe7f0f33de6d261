//! `/api/v1/mixes`: several inputs into one output.
//!
//! The mixer is an optional part of the build, so what these endpoints need of it is a trait; without an
//! implementation they answer 501.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Error;
use super::body::{self, Body, Path};

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
    /// The mixer cannot do it now.
    #[error("{0}")]
    Unavailable(String),
}

/// An answer to be awaited.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, MixError>> + Send + 'a>>;

/// What the endpoints need of a mixer. Mixes are shown as the mixer describes them; each has `inputs`, each with a
/// `state`.
pub trait Mixes: Send + Sync {
    /// Makes or changes a mix from the JSON text of a request.
    fn put<'a>(&'a self, id: &'a str, scene: &'a [u8]) -> Pending<'a, (Made, Value)>;
    /// One mix; `None` when the id is not known.
    fn get(&self, id: &str) -> Option<Value>;
    /// All mixes, by id.
    fn list(&self) -> Vec<Value>;
    /// Begins a mix's end and describes the ending mix.
    fn remove<'a>(&'a self, id: &'a str) -> Pending<'a, Value>;
}

impl From<MixError> for Error {
    fn from(error: MixError) -> Self {
        match error {
            MixError::Invalid(message) => Error::invalid(message),
            MixError::Conflict(message) => Error::conflict(message),
            MixError::NotFound(message) => Error::not_found(message),
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
    Ok(Json(json!({"mixes": mixes(&state)?.list()})))
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

/// `DELETE /api/v1/mixes/{id}`: the mix is gone when the output is back with its source.
pub(super) async fn delete(
    State(state): State<Arc<super::State>>,
    path: Path<String>,
) -> Result<(StatusCode, Json<Value>), Error> {
    let id = body::path(path)?;
    let mix = mixes(&state)?.remove(&id).await?;
    Ok((StatusCode::ACCEPTED, Json(mix)))
}
