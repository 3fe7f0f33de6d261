//! Test pictures, tones and real client programs: what the demo and the integration tests see the server with.
//!
//! Owns moving pictures whose every frame carries its number, tones that can be told apart, and the child
//! processes (ffmpeg, nginx) that send, receive and judge them. Refuses to know the server: it is handed
//! URLs and addresses like any stranger. Called by `demo` and by the integration tests, never by the server.

pub mod flv;
pub mod http;
pub mod latency;
pub mod nginx;
pub mod picture;
pub mod player;
pub mod process;
pub mod publisher;
pub mod record;
pub mod sync;
pub mod tone;

pub use picture::{Colour, Pattern, Reading, Region, Size};
pub use player::Player;
pub use publisher::Publisher;

use std::time::Duration;

/// What keeps a probe from seeing what it was sent to see.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A client program is not installed.
    #[error("{program} is not installed; try `apt-get install {package}`")]
    Missing {
        program: String,
        package: &'static str,
    },
    /// A client program could not be started or talked to.
    #[error("{what}: {source}")]
    Io {
        what: String,
        source: std::io::Error,
    },
    /// A client program ended, and should not have, or said something that it should not have.
    #[error("{program} ended ({status}); it last said:\n{said}")]
    Ended {
        program: String,
        status: String,
        said: String,
    },
    /// What was waited for did not happen in time.
    #[error("{what} did not happen within {} s", within.as_secs())]
    Deadline { what: String, within: Duration },
    /// An HTTP peer answered something that is no HTTP.
    #[error("no HTTP answer from {0}")]
    Http(String),
    /// An HTTP peer answered something else than it should.
    #[error("{what} was answered with {status}: {body}")]
    Answer {
        what: String,
        status: u16,
        body: String,
    },
    /// A picture, a sound or a sequence is not what it should be.
    #[error("{0}")]
    Wrong(String),
    /// Bytes that should be FLV are not.
    #[error("FLV damaged at byte {at}: {what}")]
    Flv { at: usize, what: &'static str },
}

impl Error {
    /// An I/O error with what was being done.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Error::Io {
            what: what.into(),
            source,
        }
    }
}
