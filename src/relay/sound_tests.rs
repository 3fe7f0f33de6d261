//! Splices of sound: of a mix that knows what of the source its sound is, no frame comes twice and none is lost.

use std::time::{Duration, Instant};

use super::*;
use crate::media::{Class, Feed, Kind, MediaTime, Message, StreamKey};

/// Frames of 1,024 samples at 48 kHz begin at these times, ms.
fn begins(frame: i64) -> i64 {
    (frame * 64 + 1) / 3
}

fn picture(dts: i64, key: bool) -> Message {
    let first = if key { 0x17 } else { 0x27 };
    Message::new(Kind::Video, MediaTime(dts), vec![first, 1, 0, 0, 0].into())
}

fn sound(dts: i64, frame: i64) -> Message {
    Message::new(
        Kind::Audio,
        MediaTime(dts),
        vec![0xaf, 1, frame as u8].into(),
    )
}

/// Between the mix's zero and the source's, ms.
const APART: i64 = 70_000;

/// Three seconds of a source with 25 frames a second and a key frame each second, with a mix from 0.5 s on that is to
/// end at 1.5 s. The mix's pictures leave `late` ms after the source's, its sound 45 ms after. The frames of sound that a
/// viewer gets.
fn heard(late: i64, knows: bool) -> Vec<u8> {
    let key = StreamKey::new("live", "8888_streamA").unwrap();
    let relay = Relay::new(Config::default());
    let origin = Origin::Mix { id: "test".into() };
    let source = relay.publish(&key, origin).unwrap();
    let mut viewer = relay.subscribe(&key, Feed::Program, Class::Viewer);
    let mix = relay.overlay(&key).unwrap();
    let (t0, mut ended) = (Instant::now(), false);
    for (kind, payload) in [
        (Kind::Video, vec![0x17, 0, 0, 0, 0]),
        (Kind::Audio, vec![0xaf, 0, 0]),
    ] {
        for publisher in [&source, &mix] {
            let header = Message::new(kind, MediaTime(0), payload.clone().into());
            publisher.publish(header, t0);
        }
    }
    let mut items = Vec::new();
    for ms in 0..3_000 {
        let now = t0 + Duration::from_millis(ms as u64);
        if ms % 40 == 0 {
            source.publish(picture(ms, ms % 1_000 == 0), now);
        }
        // A frame leaves when its last sample has been heard.
        if let Some(frame) = (0..150).find(|&frame| begins(frame + 1) == ms) {
            source.publish(sound(begins(frame), frame), now);
        }
        if ms == 1_500 {
            mix.request_end(now);
        }
        let since = ms - late;
        if since >= 520 && since % 40 == 0 && !ended {
            let status = mix.publish(picture(APART + since, since == 520), now);
            ended |= status == Status::Done;
        }
        if let Some(frame) = (0..150).find(|&frame| begins(frame + 1) + 45 == ms)
            && ms > 450
            && !ended
        {
            let of = knows.then(|| MediaTime(begins(frame)));
            let status = mix.publish_of(sound(APART + begins(frame), frame), of, now);
            ended |= status == Status::Done;
        }
        while viewer.try_read(64, &mut items).read == Read::Upto && viewer.cursor() < viewer.head()
        {
        }
    }
    assert!(ended);
    let messages = items.iter().map(|item| item.message());
    let sounds = messages.filter(|message| message.kind == Kind::Audio && !message.is_header());
    sounds.map(|message| message.payload[2]).collect()
}

#[test]
fn no_frame_of_sound_comes_twice_and_none_is_lost_where_the_mix_knows_what_it_is_of() {
    for late in [2, 12, 20, 33] {
        let frames = heard(late, true);
        assert!(frames.len() > 130, "{late}: {frames:?}");
        assert!(
            frames.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "{late}: {frames:?}"
        );
    }
    // Where it does not know, times decide: what was said already is said again in part.
    let frames = heard(12, false);
    assert!(!frames.windows(2).all(|pair| pair[1] == pair[0] + 1));
}
