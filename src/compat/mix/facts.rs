//! What must be known to judge a request.

use std::collections::HashMap;

/// Streams and mixes as they are now.
#[derive(Debug, Clone, Default)]
pub(in crate::compat) struct Facts {
    /// Those of the account's streams that the request names and somebody publishes.
    pub streams: HashMap<String, Stream>,
    /// All mixes in the account's application, whoever made them.
    pub mixes: Vec<Mix>,
}

/// A stream that is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::compat) struct Stream {
    /// Its first key frame, or sound where there are no pictures, has come.
    pub begun: bool,
    /// Of its pictures, in pixels.
    pub size: Option<(u32, u32)>,
}

/// A mix that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::compat) struct Mix {
    pub id: String,
    pub output: String,
    /// The streams that it mixes.
    pub streams: Vec<String>,
    /// It was asked to end and holds its output for a moment more.
    pub ending: bool,
}

impl Facts {
    /// The mix of that id, unless it is ending: for callers it is gone then.
    pub fn mix(&self, id: &str) -> Option<&Mix> {
        self.mixes.iter().find(|mix| mix.id == id && !mix.ending)
    }

    /// Another mix with that output, unless it is ending.
    pub fn holder(&self, output: &str, but: &str) -> Option<&Mix> {
        let holds = |mix: &&Mix| mix.output == output && mix.id != but && !mix.ending;
        self.mixes.iter().find(holds)
    }

    /// Must what takes that id and output wait for a mix that is ending?
    pub fn is_in_the_way(&self, id: &str, output: &str) -> bool {
        let mut mixes = self.mixes.iter().filter(|mix| mix.ending);
        mixes.any(|mix| mix.id == id || mix.output == output)
    }

    /// Mixes that the stream is in, but for that one.
    pub fn mixes_of(&self, stream: &str, but: &str) -> usize {
        let mixes = self.mixes.iter().filter(|mix| mix.id != but && !mix.ending);
        mixes
            .filter(|mix| mix.streams.iter().any(|other| other == stream))
            .count()
    }
}
