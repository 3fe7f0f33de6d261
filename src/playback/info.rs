//! What the API tells of players: plain values.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::media::{Class, Feed};

/// Through which door a player came, from where and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The stable word for the API: `rtmp`, `rtmps`, `http_flv`, `https_flv`.
    pub door: &'static str,
    pub peer: SocketAddr,
    /// When it began to play.
    pub since: SystemTime,
}

/// One player that plays now. One that waits for its stream is not counted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderInfo {
    /// Unique while the process lives.
    pub id: u64,
    pub arrival: Arrival,
    pub feed: Feed,
    pub class: Class,
    /// Media time from the last byte that its TCP has acknowledged to the newest message; `None` while it is paused,
    /// or nothing was written yet.
    pub lag: Option<Duration>,
    /// Bytes written to its socket.
    pub bytes: u64,
    /// Of those, bytes that its TCP has not acknowledged.
    pub unacknowledged: usize,
    /// Video messages that it missed.
    pub skipped: u64,
    /// Whether it wants sound, and pictures.
    pub audio: bool,
    pub video: bool,
    /// `waiting` (for a place to begin), `joining`, `live`, `skipping`, `paused`, `leaving`.
    pub state: &'static str,
}
