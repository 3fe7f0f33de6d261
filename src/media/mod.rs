//! Media as values: names, messages, headers, timestamps, timelines. Pure: no sockets, no clocks, no tasks.
//!
//! Every room above speaks in these types. Knows the FLV/RTMP payload headers, but neither chunks nor connections.

pub mod cadence;
pub mod findings;
pub mod flv;
pub mod health;
pub mod message;
pub mod name;
pub mod payload;
pub mod repair;
pub mod timeline;
pub mod vitals;

pub use cadence::Cadence;
pub use message::{Beside, HeaderSlot, Headers, Kind, MediaTime, Message, Role, Slot};
pub use name::{NameError, PerApp, StreamKey};
pub use payload::Codec;
pub use timeline::Timeline;

/// Which of a name's two feeds: what the anchor sends, or what viewers get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feed {
    /// The anchor's own stream, untouched. Peers and mixes read this one.
    Source,
    /// The stream for viewers and the CDN: the source until a mix takes the name over.
    Program,
}

impl Feed {
    /// The stable word for the API, metrics and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Feed::Source => "source",
            Feed::Program => "program",
        }
    }
}

/// What a subscriber is owed: it decides budgets, join behaviour and socket sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Peers in a conversation: at most 400 ms behind.
    LowLatency,
    /// Everybody else: a few seconds behind is fine, a broken picture is not.
    Viewer,
}

impl Class {
    /// The stable word for the API, metrics and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::LowLatency => "low_latency",
            Class::Viewer => "viewer",
        }
    }
}
