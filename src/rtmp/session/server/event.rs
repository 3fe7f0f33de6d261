//! What a server session tells its owner: events, and why it gave up.

use std::fmt;

use super::ConnectInfo;
use crate::reason::Reason;
use crate::rtmp::{Message, command};

/// Why the client's side of the conversation made no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Command(#[from] command::Error),
    #[error("{what} before connect")]
    BeforeConnect { what: &'static str },
    #[error("connect was sent twice")]
    ConnectedTwice,
    #[error("{what} before {question} was answered")]
    Unanswered {
        what: &'static str,
        question: &'static str,
    },
    #[error("{what} for message stream {stream_id}, which was never created")]
    NoStream { what: &'static str, stream_id: u32 },
    #[error("{what} on message stream {stream_id}, which is in use")]
    StreamInUse { what: &'static str, stream_id: u32 },
    #[error("media on message stream {stream_id}, which does not publish")]
    NotPublishing { stream_id: u32 },
    #[error("more than {limit} message streams on one connection")]
    TooManyStreams { limit: usize },
    #[error("{command} without {argument}")]
    Missing {
        command: &'static str,
        argument: &'static str,
    },
}

impl Error {
    /// The reason under which this end is counted and reported.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Command(error) => error.reason(),
            Error::TooManyStreams { .. } => Reason::LimitReached,
            _ => Reason::Protocol,
        }
    }
}

/// How a publisher wants its stream kept; nothing is recorded here, so it only matters to callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishKind {
    Live,
    Record,
    Append,
}

/// How a publisher said that it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `FCUnpublish` or `deleteStream`.
    Deleted,
    /// `closeStream`.
    Closed,
}

impl End {
    /// The reason under which this end is counted and reported.
    pub fn reason(self) -> Reason {
        match self {
            End::Deleted => Reason::Deleted,
            End::Closed => Reason::Closed,
        }
    }
}

/// What the client wants or does. Prints without queries and payloads.
#[derive(Clone, PartialEq)]
pub enum Event {
    /// A question: [`Session::accept_connect`](super::Session::accept_connect) or [`Session::refuse_connect`](super::Session::refuse_connect).
    Connect(ConnectInfo),
    /// A question: [`Session::accept_publish`](super::Session::accept_publish) or [`Session::refuse_publish`](super::Session::refuse_publish).
    Publish {
        stream_id: u32,
        /// Stream name without its query.
        name: String,
        /// The name's query, else that of `app`, else that of `tcUrl`, else empty. Undecoded.
        query: String,
        kind: PublishKind,
    },
    /// A question: [`Session::accept_play`](super::Session::accept_play) or [`Session::refuse_play`](super::Session::refuse_play).
    Play {
        stream_id: u32,
        /// Stream name without its query.
        name: String,
        /// As in [`Event::Publish`].
        query: String,
        /// Where to begin, as sent: negative is live (-2 or -2000 when the client doesn't care).
        start: f64,
    },
    /// Audio, video or AMF0 data of a publishing stream, with the publisher's own timestamps. `@setDataFrame` is
    /// stripped, so that data begins with `onMetaData`.
    Media(Message),
    /// A publisher is done. Late media is ignored from here on.
    Unpublish { stream_id: u32, how: End },
    /// A player is done, or no longer waits.
    StopPlay { stream_id: u32 },
    /// A player stops or resumes; it has been told that this is so.
    Pause { stream_id: u32, on: bool },
    /// A player wants audio, or no longer does.
    ReceiveAudio { stream_id: u32, on: bool },
    /// A player wants video, or no longer does.
    ReceiveVideo { stream_id: u32, on: bool },
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Connect(info) => f.debug_tuple("Connect").field(info).finish(),
            Event::Publish {
                stream_id, name, ..
            } => write!(f, "Publish({stream_id}, {name:?})"),
            Event::Play {
                stream_id, name, ..
            } => write!(f, "Play({stream_id}, {name:?})"),
            Event::Media(message) => f.debug_tuple("Media").field(message).finish(),
            Event::Unpublish { stream_id, how } => write!(f, "Unpublish({stream_id}, {how:?})"),
            Event::StopPlay { stream_id } => write!(f, "StopPlay({stream_id})"),
            Event::Pause { stream_id, on } => write!(f, "Pause({stream_id}, {on})"),
            Event::ReceiveAudio { stream_id, on } => write!(f, "ReceiveAudio({stream_id}, {on})"),
            Event::ReceiveVideo { stream_id, on } => write!(f, "ReceiveVideo({stream_id}, {on})"),
        }
    }
}
