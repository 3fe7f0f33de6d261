//! Headers of AVC that end a coded video sequence, as they go to who plays tags.

use std::sync::Arc;

use bytes::Bytes;

use super::Config;
use super::item::{Framing, Item};
use super::ring::Ring;
use crate::media::{Kind, MediaTime, Message};

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
