//! What happens to targets, as it leaves this room: one event per change of state.

use std::time::SystemTime;

use super::status::State;
use crate::logging::RequestId;
use crate::media::StreamKey;

/// A target's state changed. Sent in the order in which it became true, for each target by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The target's id.
    pub id: String,
    /// The stream that it is for.
    pub key: StreamKey,
    /// The new state.
    pub state: State,
    /// Why, when the state is [`State::Backoff`]. Masked: fit for answers and logs.
    pub error: Option<String>,
    /// Failures in a row until now.
    pub failures_in_a_row: u32,
    /// The latest call of an API that made, changed or removed it; `None` for a rule's and for one that was kept.
    pub request: Option<RequestId>,
    /// Wall time; it may step where the host's clock does.
    pub at: SystemTime,
}
