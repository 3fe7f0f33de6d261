//! What becomes of links, as it leaves this room: one event per change of state.

use std::time::SystemTime;

use super::link::{Reason, State};
use crate::logging::RequestId;
use crate::media::StreamKey;

/// A link's state changed. Sent in the order in which it became true, after the disk has it where it takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The link's id.
    pub id: String,
    /// Its main's stream.
    pub key: StreamKey,
    /// `None`: it has just been made.
    pub from: Option<State>,
    pub to: State,
    /// Why, when it ended.
    pub reason: Option<Reason>,
    /// The call of an API that did it; `None`: time or who publishes did.
    pub request: Option<RequestId>,
    /// Wall time; it may step where the host's clock does.
    pub at: SystemTime,
}
