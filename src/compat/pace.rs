//! How fast a stream comes, from what the relay holds of it.

use super::state::State;
use crate::media::{Feed, StreamKey};

/// Frames and bits per second; 0 where they are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pace {
    pub fps: u32,
    pub source_bits: u64,
    pub program_bits: u64,
}

impl State {
    /// Of a stream's running GOP, and of the last seconds of its feeds.
    pub(super) fn pace(&self, key: &StreamKey) -> Pace {
        let bits = |feed| {
            let watcher = self.relay.watch(key, feed);
            watcher.byte_rate().unwrap_or(0).saturating_mul(8)
        };
        Pace {
            fps: self.relay.cadence(key).fps().unwrap_or(0),
            source_bits: bits(Feed::Source),
            program_bits: bits(Feed::Program),
        }
    }
}
