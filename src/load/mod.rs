//! The load generator behind `linkmic bench`: publishes at any RTMP server, plays there or over HTTP-FLV, and says what that cost and how
//! late it was.
//!
//! Owns stamped clips, crowds of players and what is counted of them. Refuses to know our server: it is handed URLs
//! and process ids like any stranger, so that other servers are measured by the same rule. Called by `cli`, and by
//! `benches/compare`. Threads and epoll instead of tasks: a client that measures must cost far less than what it
//! measures.

mod aim;
mod board;
mod clip;
mod download;
mod floor;
mod link;
mod options;
mod player;
mod poll;
mod publish;
pub mod report;
mod run;
pub mod stamp;
mod synthetic;
pub mod usage;

pub use aim::{Aim, Error as AimError};
pub use clip::{Clip, Error as ClipError, Frame};
pub use floor::{Config as FloorConfig, Floor};
pub(crate) use options::stop_on_interrupt;
pub use options::{Outcome, Subcommand};
pub use run::{Crowd, Timing, play, publish};
pub use synthetic::Shape;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Aim(#[from] AimError),
    #[error(transparent)]
    Clip(#[from] ClipError),
    #[error("no process {0} to measure")]
    NoProcess(u32),
    #[error(
        "{sockets} connections need more open files than the limit of {limit}; raise it with `ulimit -Hn`, as root"
    )]
    OpenFiles { sockets: usize, limit: u64 },
    #[error(
        "nobody can publish to a tcp:// or http:// URL; publish to rtmp:// and play from there"
    )]
    PlayOnly,
    #[error("load generator failed: {0}")]
    Io(#[from] std::io::Error),
}
