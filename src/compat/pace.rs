//! How fast a stream comes, from what its ring holds.

use super::state::State;
use crate::media::{Feed, Kind, Message, StreamKey};
use crate::relay::Join;

/// Most messages that are looked at: 20 s of a busy stream.
const MOST: usize = 4_096;
/// Less of a GOP says little of its rate.
const LEAST_MS: i64 = 300;

/// Frames and bits per second; 0 where they are not known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Pace {
    pub fps: f64,
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
        let mut source = self.relay.watch(key, Feed::Source);
        source.join(Join::Burst);
        let mut items = Vec::new();
        source.try_read(MOST, &mut items);
        Pace {
            fps: frames_per_second(items.iter().map(|item| item.message())),
            source_bits: bits(Feed::Source),
            program_bits: bits(Feed::Program),
        }
    }
}

fn frames_per_second<'a>(messages: impl Iterator<Item = &'a Message>) -> f64 {
    let frames = messages.filter(|m| m.kind == Kind::Video && !m.is_header() && m.track == 0);
    let times: Vec<i64> = frames.map(|message| message.dts.0).collect();
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        return 0.0;
    };
    let span = last - first;
    if span < LEAST_MS {
        return 0.0;
    }
    (times.len() - 1) as f64 * 1_000.0 / span as f64
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::media::MediaTime;

    #[test]
    fn the_rate_is_that_of_the_frames_there_are() {
        let frame = |ms| {
            let payload = Bytes::from_static(&[0x27, 1, 0, 0, 0, 1]);
            Message::new(Kind::Video, MediaTime(ms), payload)
        };
        let rate = |times: &[i64]| {
            let frames: Vec<_> = times.iter().map(|&ms| frame(ms)).collect();
            frames_per_second(frames.iter())
        };
        let at_20: Vec<i64> = (0..41).map(|n| n * 50).collect();
        assert_eq!(rate(&at_20), 20.0);
        assert_eq!(rate(&[0, 50]), 0.0, "too little to tell");
        assert_eq!(rate(&[]), 0.0);
    }
}
