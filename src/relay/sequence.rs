//! Where a coded video sequence of AVC ends, for those who play a ring by tags: see [`Item`](super::item::Item).

use bytes::Bytes;

use crate::media::{Codec, Message};

/// The sequence that a ring is in, in whatever epoch.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// The newest configuration.
    avc: Option<Bytes>,
}

impl Sequence {
    /// Takes note of the next message. Is it a header of AVC other than the one before it, so that what comes is another
    /// sequence?
    pub fn ends(&mut self, message: &Message) -> bool {
        // Enhanced RTMP's other way to write the same is left as it is: who plays that by tags is not known to need it.
        if message.codec != Codec::H264 || !message.payload.starts_with(&[0x17, 0]) {
            return false;
        }
        let before = self.avc.replace(message.payload.clone());
        before.is_some_and(|before| before != message.payload)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::media::{Kind, MediaTime};
    use crate::relay::Config;
    use crate::relay::item::{Framing, Item};
    use crate::relay::ring::Ring;

    const OURS: &[u8] = &[0x17, 0, 0, 0, 0, 1];
    const THEIRS: &[u8] = &[0x17, 0, 0, 0, 0, 2];
    const KEY: &[u8] = &[0x17, 1, 0, 0, 0, 9];
    const INTER: &[u8] = &[0x27, 1, 0, 0, 0, 9];
    /// A command tag with the NAL unit.
    const END: &[u8] = &[0x57, 1, 0, 0, 0, 0, 0, 0, 1, 10];

    fn push(ring: &mut Ring, payload: &'static [u8]) -> Arc<Item> {
        let message = Message::new(Kind::Video, MediaTime(0), Bytes::from_static(payload));
        ring.push(Arc::new(message), &Config::default())
    }

    fn wire(item: &Item, framing: Framing) -> Vec<u8> {
        let mut out = Vec::new();
        item.write_in(framing, 0, usize::MAX, &mut out);
        assert_eq!(out.len(), item.len_in(framing));
        out
    }

    /// How often the end of a sequence stands in front of it.
    fn ends(item: &Item) -> usize {
        let wire = wire(item, Framing::Flv);
        wire.windows(END.len()).filter(|w| *w == END).count()
    }

    #[test]
    fn another_configuration_of_avc_ends_the_sequence_before_it_twice_in_tags() {
        let mut ring = Ring::new();
        for (payload, wanted) in [
            (OURS, 0),
            (KEY, 0),
            (INTER, 0),
            // The same again.
            (OURS, 0),
            (THEIRS, 2),
            (KEY, 0),
        ] {
            assert_eq!(ends(&push(&mut ring, payload)), wanted, "{payload:?}");
        }
        // Of another epoch.
        ring.seal();
        let ending = push(&mut ring, OURS);
        assert_eq!(ends(&ending), 2);
        // In a ring that has had no other it ends nothing.
        let mut other = Ring::new();
        other.share(&ending, &Config::default());
        let mut out = Vec::new();
        other.read(&mut 0, usize::MAX, &mut out);
        assert_eq!(ends(&out[0]), 0);
        for framing in [Framing::RTMP, Framing::Flv, Framing::BareFlv] {
            let (plain, ending) = (wire(&out[0], framing), wire(&ending, framing));
            assert!(ending.ends_with(&plain), "{framing:?}");
            assert_eq!(ending == plain, framing == Framing::RTMP, "{framing:?}");
        }
    }
}
