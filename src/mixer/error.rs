//! Why the mixer refuses a call: the field, the kind of refusal, and a sentence for people.

use super::scene;

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request makes no sense.
    #[error("{path}: {message}")]
    Invalid { path: String, message: String },
    /// A still picture that the request names cannot be had or decoded.
    #[error("{path}: {message}")]
    Picture { path: String, message: String },
    /// The request makes sense, but not together with what is there.
    #[error("{path}: {message}")]
    Conflict {
        path: String,
        clash: Clash,
        message: String,
    },
    #[error("no such mix")]
    NotFound,
    /// It would cost more than there is room for.
    #[error(
        "the mix would cost {cost} units, and {used} of {budget} are in use; end or shrink a mix, or ask for less (size, fps, preset, inputs)"
    )]
    Overloaded { cost: u32, used: u32, budget: u32 },
    /// This machine cannot mix.
    #[error("{0}")]
    Unavailable(String),
}

/// What a request does not go together with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clash {
    /// Another mix or publisher has the output.
    Taken,
    /// A running mix keeps its output.
    Fixed,
    /// A mix would feed on itself.
    Loop,
    /// A stream is in as many mixes as it may be.
    Crowded,
    /// The output's name is published in a codec that the mix does not have.
    Codec,
    /// The mix is ending.
    Ending,
}

impl From<scene::Invalid> for Error {
    fn from(invalid: scene::Invalid) -> Self {
        Error::Invalid {
            path: invalid.path,
            message: invalid.message,
        }
    }
}

/// A refusal of that field.
pub(super) fn conflict(clash: Clash, path: &str, message: String) -> Error {
    Error::Conflict {
        path: path.into(),
        clash,
        message,
    }
}
