//! Decides who may publish and who may play what, from the signature in a URL.
//!
//! | source | covered here |
//! |---|---|
//! | contract, section 1 (the vendor's anti-leech signature) | `txSecret = md5(key + stream name + txTime)`, both txTime spellings, every vector as a test |
//! | semantics, "Names and signatures" (decides) | which key set opens which feed; the table is one test in `tests.rs` |
//!
//! Owns the key sets, the signature, the address lists, the bans, and the decision as a pure function of a
//! [`Request`]; [`Gate`] puts them in their order, counts who is in, and shows out whom a new ban concerns. All of it
//! is in memory: nobody who connects waits for a disk. Refuses to know sockets, clocks (`now` is in the request), the
//! relay, the configuration file and where bans are kept. Called by ingest and playback through [`Authorizer`], by the
//! API and the command line to sign and to explain URLs.
//!
//! Two properties of the vendor's scheme cannot be repaired here, only known:
//! - The application is not part of the signed text: a key opens a name in every application that uses the key. Keys
//!   of an application's own ([`AppKeys`]) keep it apart.
//! - The three parts are joined without separators, so the text of (`x`, ten decimal digits) is also that of
//!   (`x` + two digits, eight digits). We therefore only ever sign hexadecimal txTime, as the vendor's samples do.

mod address;
mod bans;
pub mod digest;
mod gate;
mod guests;
mod key;
mod lists;
mod policy;
mod secret;
mod signature;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::SystemTime;

pub use address::{Address, AddressError};
pub use bans::{Ban, BanId, Bans, Pattern, PatternError, Scope, Subject, SubjectError};
pub use gate::{Gate, GuestLimits, LIMITS, Rules};
pub use guests::{Ended, Stay};
pub use key::{Access, AppKeys, Config, Key, KeySet, KeyStatus, Phase, Purpose, Role, Window};
pub use lists::AddressList;
pub use policy::{NearMisses, Policy, SignError};
pub use secret::{KeyId, Secret};
pub use signature::{sign, signed_query, tx_time};

use crate::logging::ConnectionId;
use crate::media::{Class, Feed, StreamKey};
use crate::reason::Reason;

/// What the client wants to do with the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send media under the name.
    Publish,
    /// Receive one of the name's feeds.
    Play,
}

/// Everything a decision may look at. Debug leaves the query out: it may hold a valid signature.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What is asked for.
    pub action: Action,
    /// The name, already parsed.
    pub key: &'a StreamKey,
    /// The URL's query as received, still percent-encoded, without the leading `?`; empty when there is none.
    pub query: &'a str,
    /// Who asks; not looked at by [`Policy`], there for hooks.
    pub peer: SocketAddr,
    /// The connection that asks, as logs name it; `None` when nobody is there and only the answer is wanted.
    pub connection: Option<ConnectionId>,
    /// The wall clock at the time of asking.
    pub now: SystemTime,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("action", &self.action)
            .field("key", &self.key)
            .field("query", &"***")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// What was granted. It holds for the connection's life: expiry is checked when a client comes, not later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// May publish under the name.
    Publish {
        /// The push key the URL was signed with; `None` when publishing is open and no key was needed.
        key: Option<KeyId>,
    },
    /// May play the name.
    Play {
        /// Which of the two feeds.
        feed: Feed,
        /// How the reader is to be served.
        class: Class,
        /// The key the URL was signed with; `None` when none was needed.
        key: Option<KeyId>,
    },
}

impl Grant {
    /// The key that opened the door, if one was needed.
    pub fn key(&self) -> Option<&KeyId> {
        match self {
            Grant::Publish { key } | Grant::Play { key, .. } => key.as_ref(),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grant::Publish { .. } => f.write_str("publish")?,
            Grant::Play { feed, class, .. } => {
                write!(
                    f,
                    "play the {} feed, class {}",
                    feed.as_str(),
                    class.as_str()
                )?;
            }
        }
        match self.key() {
            Some(key) => write!(f, ", signed with key \"{key}\""),
            None => f.write_str(", no signature needed"),
        }
    }
}

/// Why not. The message is for the client and the log, and never has a secret or a signature in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The word for metrics, callbacks and `onStatus`.
    pub reason: Reason,
    /// What a person can act on, e.g. `txTime expired 37 s ago`.
    pub message: String,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// The answer of an [`Authorizer`], to be awaited.
pub type Decision<'a> = Pin<Box<dyn Future<Output = Result<Grant, Refusal>> + Send + 'a>>;

/// Asked once for every publish and every play, before the client hears success.
///
/// Asynchronous because a decision may come from elsewhere (an HTTP hook); [`Policy`] answers at once.
///
/// # Cancel safety
/// Dropping the future drops the request; nothing was granted.
pub trait Authorizer: Send + Sync {
    /// Grants or refuses one request.
    fn authorize<'a>(&'a self, request: &'a Request<'a>) -> Decision<'a>;

    /// Lets somebody in to whom that was granted just now: a place among those who publish or play, to be kept as
    /// long as they do. Whoever holds it watches [`Stay::ended`]: a ban may come later.
    ///
    /// # Errors
    /// When a limit is reached, or a ban was made since the grant.
    fn admit(&self, request: &Request<'_>, grant: &Grant) -> Result<Stay, Refusal> {
        let _ = (request, grant);
        Ok(Stay::unwatched())
    }

    /// A grant to publish became that epoch of the name: done when whoever must remember that does, before the client hears success.
    /// What was granted and is forgotten by a kill was then never heard of. Bounded in time.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    fn remembered<'a>(
        &'a self,
        key: &'a StreamKey,
        epoch: u64,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let _ = (key, epoch);
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
mod tests;
