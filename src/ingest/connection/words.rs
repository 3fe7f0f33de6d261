//! The words for those who are told to go.

use crate::reason::Reason;

pub(super) const GOING_DOWN: &str = "the server is going down";

/// What a client hears that is told to go; `None` where there is nobody to hear it.
pub(super) fn words(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::Dropped => Some("dropped by the operator"),
        Reason::Banned => Some("banned by the operator"),
        Reason::TooFast => Some("more than this application's max_kbps for too long"),
        Reason::TakenOver => Some("another publisher has taken this name over"),
        Reason::Idle => Some("no media came for too long"),
        Reason::TooSlow => Some("too slow: nothing was taken for too long"),
        Reason::Overloaded => Some("the server's memory is full, and this message is large"),
        Reason::Shutdown => Some(GOING_DOWN),
        _ => None,
    }
}
