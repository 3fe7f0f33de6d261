//! Links: one anchor joins another's programme, from the request to the end.
//!
//! | state | means | goes on to |
//! |---|---|---|
//! | `requested` | somebody asked, nobody has accepted | `accepted`; `ended`: rejected, cancelled, left, unanswered |
//! | `accepted` | both sides have each other's low-latency URLs | `live`, when main and a sub publish; `ended`: not started in time |
//! | `live` | the viewers of the main see them together | `ended`: left, cancelled, gone for too long |
//! | `ended` | over, with a reason | nothing |
//!
//! Owns the links, by id; who is in each, how long it may stand where it does, and what mix it is to have. Decisions are pure
//! ([`machine`]); [`Links`] writes each to the store before it is answered, and makes the mix follow through the same
//! handle as the API's callers. Refuses to know how pictures are mixed, and signs nothing itself. The server puts
//! [`router`] beside the native API, under its token.

mod desk;
mod event;
mod http;
mod link;
pub mod machine;
mod scene;
#[cfg(test)]
mod tests;

pub use desk::{Error, Links, Seat};
pub use event::Event;
pub use http::{Rooms, description, router};
pub use link::{Layout, Limits, Link, MAX_SUBS, Part, Reason, Seen, State, Sub, Urls, Wish};
