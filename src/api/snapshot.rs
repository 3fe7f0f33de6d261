//! `GET /api/v1/streams/{app}/{name}/snapshot.jpg`: the newest key frame of a feed, to look at.
//!
//! The mixer decodes, and is an optional part of the build: what is needed of it is a trait, and without it the answer is
//! 501. Owns how many pictures are made at once and for how long one is good for all who ask.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::Semaphore;
use utoipa::{IntoParams, OpenApi};

use super::body::Path;
use super::{Error, streams};
use crate::media::{Feed, StreamKey};

/// A picture is good for all who ask for the same within this.
const FRESH: Duration = Duration::from_secs(1);
/// Pictures that are made at once: each has a thread and some 20 MB for its milliseconds.
const AT_ONCE: usize = 2;
/// How long a request waits for its turn.
const WAIT: Duration = Duration::from_secs(5);
/// Pictures that are kept, some 100 KB each.
const KEPT: usize = 32;
/// The least and the most that may be asked for, in pixels.
const WIDTHS: std::ops::RangeInclusive<u32> = 16..=4_096;
/// Of the picture when it was made, on the feed's clock.
const AGE: HeaderName = HeaderName::from_static("picture-age-ms");

#[derive(OpenApi)]
#[openapi(paths(get))]
pub(super) struct Description;

/// A picture as it was made.
#[derive(Debug, Clone)]
pub struct Picture {
    pub jpeg: Bytes,
    /// Media time from its key frame to the feed's newest message then.
    pub age: Duration,
}

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// The feed has no key frame now.
    #[error("{0}")]
    None(String),
    /// It has one that cannot be decoded here.
    #[error("{0}")]
    Undecodable(String),
    /// It cannot be done now.
    #[error("{0}")]
    Unavailable(String),
}

/// A picture to be awaited.
pub type Developing<'a> = Pin<Box<dyn Future<Output = Result<Picture, PictureError>> + Send + 'a>>;

/// What decodes.
pub trait Camera: Send + Sync {
    /// The feed's newest key frame, no wider than `width` pixels.
    fn picture<'a>(&'a self, key: &'a StreamKey, feed: Feed, width: Option<u32>) -> Developing<'a>;
}

type Wanted = (StreamKey, Feed, Option<u32>);

/// Pictures of all streams, made when they are asked for.
pub struct Pictures {
    camera: Option<Arc<dyn Camera>>,
    turns: Semaphore,
    kept: Mutex<HashMap<Wanted, (Instant, Picture)>>,
}

impl Pictures {
    /// With what decodes; `None`: built without the mixer.
    pub fn new(camera: Option<Arc<dyn Camera>>) -> Self {
        Self {
            camera,
            turns: Semaphore::new(AT_ONCE),
            kept: Mutex::default(),
        }
    }

    async fn get(&self, wanted: Wanted) -> Result<Picture, Error> {
        let camera = self.camera.as_ref().ok_or_else(|| {
            Error::new(
                StatusCode::NOT_IMPLEMENTED,
                "mixer_not_built",
                "this linkmic was built without the feature \"mixer\", which decodes",
            )
        })?;
        if let Some(picture) = self.fresh(&wanted) {
            return Ok(picture);
        }
        let turn = tokio::time::timeout(WAIT, self.turns.acquire());
        let _turn = match turn.await {
            Ok(Ok(turn)) => turn,
            _ => return Err(Error::unavailable("too many snapshots at once; try again")),
        };
        // Whoever had the turn before may have made it.
        if let Some(picture) = self.fresh(&wanted) {
            return Ok(picture);
        }
        let picture = camera.picture(&wanted.0, wanted.1, wanted.2).await?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (made, _)| made.elapsed() < FRESH);
        if kept.len() < KEPT {
            kept.insert(wanted, (Instant::now(), picture.clone()));
        }
        Ok(picture)
    }

    fn fresh(&self, wanted: &Wanted) -> Option<Picture> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (made, picture) = kept.get(wanted)?;
        (made.elapsed() < FRESH).then(|| picture.clone())
    }
}

impl From<PictureError> for Error {
    fn from(error: PictureError) -> Self {
        let message = error.to_string();
        match error {
            PictureError::None(_) => Error::not_found(message),
            PictureError::Undecodable(_) => Error::conflict(message),
            PictureError::Unavailable(_) => Error::unavailable(message),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wish {
    /// `source` (the default) or `program`.
    #[param(pattern = "^(source|program)$")]
    feed: Option<String>,
    /// The most that it may be wide, in pixels; its own width when absent.
    #[param(minimum = 16, maximum = 4096)]
    width: Option<u32>,
}

/// The newest key frame, as a JPEG that is at most a second old.
#[utoipa::path(get, path = "/api/v1/streams/{app}/{name}/snapshot.jpg", operation_id = "get_stream_snapshot", tag = "streams",
    params(("app" = String, Path, description = "Application", pattern = "^[A-Za-z0-9_-]{1,64}$"), ("name" = String, Path, description = "Stream", pattern = "^[A-Za-z0-9_.-]{1,128}$"), Wish),
    responses(
        (status = 200, description = "the picture; `Picture-Age-Ms` says how old its key frame was", content_type = "image/jpeg", body = String),
        (status = 404, description = "no such stream, or it has no key frame now"),
        (status = 409, description = "it cannot be decoded here"),
        (status = 501, description = "built without the mixer"),
        (status = 503, description = "as many are made as may be at once")))]
pub(super) async fn get(
    State(state): State<Arc<super::State>>,
    path: Path<(String, String)>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Result<Response, Error> {
    let key = streams::key(path)?;
    let Query(wish) = wish.map_err(|error| Error::invalid(error.body_text()))?;
    let feed = match wish.feed.as_deref() {
        None | Some("source") => Feed::Source,
        Some("program") => Feed::Program,
        Some(other) => {
            let message = format!("feed: {other:?} is neither source nor program");
            return Err(Error::invalid(message));
        }
    };
    if let Some(width) = wish.width.filter(|width| !WIDTHS.contains(width)) {
        let (least, most) = (WIDTHS.start(), WIDTHS.end());
        let message = format!("width: {width} is outside {least} to {most} pixels");
        return Err(Error::invalid(message));
    }
    if state.relay.stream_info(&key).is_none() {
        return Err(streams::absent(&key));
    }
    // A task of its own: a client that hangs up does not give its turn to the next one while its picture is being decoded.
    let (making, wanted) = (state.clone(), (key, feed, wish.width));
    let picture = super::whole(
        &state.tasks,
        async move { making.pictures.get(wanted).await },
    );
    let picture = picture.await?;
    let age = streams::ms(picture.age);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("image/jpeg")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (AGE, HeaderValue::from(age)),
    ];
    Ok((headers, picture.jpeg).into_response())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Develops nothing of the stream "endless", and counts.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Camera for Counting {
        fn picture<'a>(&'a self, key: &'a StreamKey, _: Feed, _: Option<u32>) -> Developing<'a> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async {
                if key.stream() == "endless" {
                    std::future::pending::<()>().await;
                }
                Ok(Picture {
                    jpeg: Bytes::new(),
                    age: Duration::ZERO,
                })
            })
        }
    }

    fn wanted(name: &str, width: u32) -> Wanted {
        let key = StreamKey::new("live", name).unwrap();
        (key, Feed::Source, Some(width))
    }

    #[tokio::test]
    async fn all_who_ask_for_the_same_within_a_second_get_one_picture() {
        let camera = Arc::new(Counting::default());
        let pictures = Pictures::new(Some(camera.clone()));
        let begun = Instant::now();
        for _ in 0..1_000 {
            pictures.get(wanted("a", 320)).await.unwrap();
        }
        let made = camera.0.load(Ordering::Relaxed);
        // One, and another for each second that this took.
        let seconds = begun.elapsed().as_secs() as usize;
        assert!((1..=1 + seconds).contains(&made), "{made} in {seconds} s");
        pictures.get(wanted("a", 640)).await.unwrap();
        assert!(camera.0.load(Ordering::Relaxed) > made, "another width");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_longer_than_five_seconds_for_a_turn_is_sent_away_and_the_next_one_has_it() {
        let camera = Arc::new(Counting::default());
        let pictures = Arc::new(Pictures::new(Some(camera.clone())));
        let busy: Vec<_> = (0..AT_ONCE as u32)
            .map(|n| {
                let pictures = pictures.clone();
                tokio::spawn(async move { pictures.get(wanted("endless", 100 + n)).await })
            })
            .collect();
        while camera.0.load(Ordering::Relaxed) < AT_ONCE {
            tokio::task::yield_now().await;
        }
        let begun = tokio::time::Instant::now();
        let error = pictures.get(wanted("a", 320)).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), WAIT.as_secs());
        assert_eq!(error.status, StatusCode::SERVICE_UNAVAILABLE);
        busy[0].abort();
        pictures.get(wanted("a", 320)).await.unwrap();
    }
}
