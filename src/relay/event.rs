//! Facts about names, as they leave the hall: for pushes and callbacks, and for judging the hall itself.

use std::time::{Duration, SystemTime};

use super::origin::Origin;
use crate::logging::RequestId;
use crate::media::StreamKey;
use crate::reason::Reason;

/// A fact about a name. They are sent in the order in which they became true; an epoch's end precedes the next
/// one's start.
#[derive(Debug, Clone)]
pub enum Event {
    /// An epoch began: somebody was granted the name.
    Published {
        key: StreamKey,
        /// Unique and rising within this run of the server, over all names.
        epoch: u64,
        origin: Origin,
        stamp: Stamp,
    },
    /// That epoch ended.
    Unpublished {
        key: StreamKey,
        epoch: u64,
        /// Whose epoch it was.
        origin: Origin,
        reason: Reason,
        /// From its grant to its end.
        lasted: Duration,
        /// Media payload bytes that it sent.
        bytes: u64,
        /// The call of an API that sent the publisher away, if it was one.
        request: Option<RequestId>,
        stamp: Stamp,
    },
}

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Counts this server's events from 1, without a gap.
    pub sequence: u64,
    /// Wall time; it may step where the host's clock does, `sequence` does not.
    pub at: SystemTime,
}

impl Event {
    pub fn key(&self) -> &StreamKey {
        match self {
            Event::Published { key, .. } | Event::Unpublished { key, .. } => key,
        }
    }

    pub fn epoch(&self) -> u64 {
        match self {
            Event::Published { epoch, .. } | Event::Unpublished { epoch, .. } => *epoch,
        }
    }

    pub fn stamp(&self) -> Stamp {
        match self {
            Event::Published { stamp, .. } | Event::Unpublished { stamp, .. } => *stamp,
        }
    }
}
