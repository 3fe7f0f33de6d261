//! Sends feeds to other RTMP servers: a CDN, a recorder, the next server in a chain.
//!
//! Owns the targets, by id; one task and at most one connection per target; when to connect, which of a group's targets
//! publish, what a target that is behind still gets, when a connection counts as dead, and when to try again. Refuses to know who asked for a target
//! (the API or a rule) beyond its id, and how a stream came to be: it reads feeds like any other subscriber and never
//! holds one up. Called by `api` and `server` through [`Pushes`].
//!
//! | state | means | goes on to |
//! |---|---|---|
//! | `waiting` | there is no media to send | `connecting`, when there is; a backup to `standby` |
//! | `standby` | there is media, and it is another's turn in the group | `connecting`, when it is this one's; `waiting` |
//! | `connecting` | name look-up, TCP, handshake, `connect`, `publish` | `live`, or `backoff` |
//! | `live` | publishing | `waiting`, when the program ends; `backoff`, when the target fails; `standby` |
//! | `backoff` | failed; trying again after a pause that grows with each failure | `connecting`, or `waiting` |
//! | `ended` | removed, or its rule's stream is over | nothing |
//!
//! What waits for a target is bounded: messages in the feed's ring, which skip to a key frame beyond
//! [`Config::max_lag`]; 64 KiB and one message framed; about a second of the stream in the kernel, less where the target
//! takes less.

mod backoff;
mod connection;
mod dial;
mod event;
mod feeder;
mod group;
mod outbox;
mod progress;
mod registry;
mod rules;
mod status;
mod target;
mod task;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use event::Event;
pub use registry::{Pushes, Put, Snapshot};
pub use rules::{Apps, Rule};
pub use status::{State, Status};
pub use target::{Membership, Role, Sign, SignWith, Spec, Target};

use crate::net::tls::Trust;

/// Bounds of this room. Defaults are those of config/linkmic.toml where it has the key.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a connection is kept while its feed brings no media.
    pub hold: Duration,
    /// Longest pause between two attempts.
    pub max_backoff: Duration,
    /// How long there must have been media and no primary of the group publishing before a backup does.
    pub failover: Duration,
    /// A connection that has published for this long is a good one: the next failure is a first one again, and a group's
    /// backup hands back to such a primary.
    pub steady: Duration,
    /// Whose certificates servers may show; `None`: `rtmps://` targets fail.
    pub trust: Option<Trust>,
    /// Name look-up, TCP and TLS, all addresses together.
    pub connect_timeout: Duration,
    /// From the first byte of the handshake to the permission to publish.
    pub publish_timeout: Duration,
    /// A target whose TCP acknowledges no byte for this long, while there are some to acknowledge, is dead.
    pub stall: Duration,
    /// A target further behind its feed than this, in media time, what is on its way to it included, continues at the next
    /// key frame.
    pub max_lag: Duration,
    /// Most targets at a time, of the API and of rules together. Each costs a task and a socket.
    pub max_targets: usize,
    /// Streams that end do not come back here: no connection is held for them.
    pub hurried: Arc<AtomicBool>,
}

impl Config {
    /// How long a connection is kept now while its feed brings no media.
    fn hold(&self) -> Duration {
        match self.hurried.load(Ordering::Relaxed) {
            true => self.hold.min(HURRIED_HOLD),
            false => self.hold,
        }
    }
}

/// As long as a publisher may pause that has not gone.
const HURRIED_HOLD: Duration = Duration::from_secs(1);

impl Default for Config {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(10),
            max_backoff: Duration::from_secs(30),
            failover: Duration::from_secs(2),
            steady: Duration::from_secs(10),
            trust: None,
            connect_timeout: Duration::from_secs(5),
            publish_timeout: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            max_lag: Duration::from_secs(3),
            max_targets: 1_000,
            hurried: Arc::default(),
        }
    }
}

/// Signs targets' URLs with keys that are known by id. Implemented over `auth` where the server is put together.
pub trait Signer: Send + Sync {
    /// The query that opens `stream` at the target for `expires_in` from now: `txSecret=…&txTime=…`.
    ///
    /// # Errors
    /// When there is no such key, with a message that names the id and no secret.
    fn sign(&self, key_id: &str, stream: &str, expires_in: Duration) -> Result<String, SignError>;
}

/// Why a URL could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SignError(pub String);

/// Why a request about targets was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something in the target's description is wrong.
    #[error("{field}: {message}")]
    Invalid {
        /// Path of the field in the request.
        field: &'static str,
        message: String,
    },
    /// The id is not known.
    #[error("no push has the id {0:?}")]
    NotFound(String),
    /// The target belongs to a rule in the configuration.
    #[error("push {0:?} was made by a rule in the configuration; change the rule")]
    MadeByRule(String),
    /// There are as many targets as there may be.
    #[error("{limit} pushes exist already, which is the limit")]
    Full { limit: usize },
    /// The server is going down.
    #[error("the server is going down")]
    Closed,
}
