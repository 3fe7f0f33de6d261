//! What was asked for and outlives the process: mixes and pushes. The order is the same for both: found good, then on the
//! disk, then done, then answered; so what is answered is there after a kill, and what cannot be kept changes nothing.

mod mixes;
mod pushes;
mod tag;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use tokio::sync::OwnedMutexGuard;

pub use mixes::KeptMixes;
pub use pushes::KeptPushes;
pub use tag::{Tag, When};

use super::{Error, MixError};
use crate::push;
use crate::store;

/// What cannot be made at the start is tried again this often: a picture's server may be down for a while.
const AGAIN: Duration = Duration::from_secs(60);

/// What somebody is told whose change could not be kept.
const NOT_KEPT: &str =
    "the change could not be written to state.dir, and does not hold; the log says why";

/// Why a change was not made. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not what the caller took it for.
    #[error("{0}")]
    Stale(String),
    #[error("{0}")]
    Mix(MixError),
    #[error("{0}")]
    Push(push::Error),
    /// The request is not what it should be.
    #[error("{}", .0.message)]
    Body(Error),
    /// It could not be written.
    #[error("{NOT_KEPT}")]
    NotKept,
    /// It panicked.
    #[error("the change failed half way")]
    Internal,
}

impl From<MixError> for Refused {
    fn from(error: MixError) -> Self {
        Refused::Mix(error)
    }
}

impl From<push::Error> for Refused {
    fn from(error: push::Error) -> Self {
        Refused::Push(error)
    }
}

impl From<store::Error> for Refused {
    fn from(error: store::Error) -> Self {
        tracing::warn!(%error, "a change could not be kept");
        Refused::NotKept
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Stale(message) => {
                Error::new(StatusCode::PRECONDITION_FAILED, "stale", message)
            }
            Refused::Mix(error) => error.into(),
            Refused::Push(error) => error.into(),
            Refused::Body(error) => error,
            Refused::NotKept => Error::new(StatusCode::SERVICE_UNAVAILABLE, "storage", NOT_KEPT),
            Refused::Internal => Error::internal("the change failed half way"),
        }
    }
}

/// For callers that know a mixer and nothing of a disk.
impl From<Refused> for MixError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Mix(error) => error,
            other => MixError::Unavailable(other.to_string()),
        }
    }
}

/// One change at a time of each id; changes of others do not wait.
#[derive(Debug, Default)]
struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for the turn, which is over when dropped.
    async fn take(&self, id: &str) -> OwnedMutexGuard<()> {
        let turn = {
            // Complete after every statement, so readable after a panic.
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever holds or awaits one has a handle of its own.
            all.retain(|_, turn| Arc::strong_count(turn) > 1);
            all.entry(id.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

/// UNIX milliseconds.
fn millis(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
