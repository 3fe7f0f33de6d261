//! What decoders meet: other codecs, broken media, and their own end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::studio::{Coder, encoder_record};
use super::*;
use crate::media::Message;

/// Where the sub is in the mix of [`pair`].
const SUB: ((u32, u32), (u32, u32)) = (BOXES[0], (120, 180));

/// A main and a sub in a mix of its own name, which encodes also while the main is alone.
fn pair(mixer: &Mixer) {
    let output =
        json!({"stream": "mixed", "width": 360, "height": 640, "fps": 20, "passthrough": "never"});
    mixer.put("m", request(&["main", "sub"], output)).unwrap();
}

/// The graphs in that folder.
fn written(graphs: &Path) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(graphs) else {
        return Vec::new();
    };
    let paths = files.map(|file| file.unwrap().path());
    let graphs = paths.filter(|path| path.extension().is_some_and(|is| is == "dot"));
    graphs
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

async fn both_live(mixer: &Mixer) {
    eventually("both live", || {
        (0..2).all(|n| state_of(mixer, "m", n) == InputState::Live)
    })
    .await;
}

/// Main and sub are both to be seen, and both move.
fn assert_moving(what: &str, frames: &[&Frame], sub: u32) {
    let ((x, y), size) = SUB;
    assert_colours(
        what,
        frames,
        &[(60, 400, MAIN.colour), (x + 60, y + 130, sub)],
    );
    let seconds = frames.len() as f64 / 20.0;
    let moved = advance(frames, (0, 0), (360, 640)) as f64;
    assert!(
        moved > 16.0 * seconds,
        "{what}: main by {moved} in {seconds} s"
    );
    let moved = advance(frames, (x, y), size) as f64;
    assert!(
        moved > 10.0 * seconds,
        "{what}: sub by {moved} in {seconds} s"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hevc_and_av1_are_mixed_and_a_publisher_may_change_codec() {
    let (_guard, relay, mixer) = studio().await;
    let _main = Anchor::start(&relay, "main", MAIN);
    pair(&mixer);
    let viewer = Viewer::attach(&relay, "mixed");
    eventually("on air", || splice(&viewer.seen(), 0).is_some()).await;
    let mut judged = Vec::new();
    for (coder, colour) in [
        (Coder::Hevc, 0x00ff00),
        (Coder::Av1, 0x0000ff),
        (Coder::H264, 0xffff00),
    ] {
        let look = Look { colour, ..SUBS[0] };
        let _sub = Anchor::coded(&relay, "sub", look, coder, |message| vec![message]);
        both_live(&mixer).await;
        // What came last from the one before may still count as live.
        viewer.watch_for(1_500).await;
        both_live(&mixer).await;
        let from = viewer.now_ms();
        viewer.watch_for(1_200).await;
        judged.push((coder, colour, from));
        assert_eq!(mixer.get("m").unwrap().inputs[1].error, None, "{coder:?}");
        assert_eq!(mixer.decoders(Kind::Video), 2);
    }
    let film = decode(&viewer.seen());
    for (coder, colour, from) in judged {
        let (frames, _) = film.between(from, from + 1_000);
        assert_moving(&format!("{coder:?}"), &frames, colour);
    }
    let times = video_times(&viewer.seen());
    assert!(times.windows(2).all(|w| w[1] - w[0] == 50), "{times:?}");
    mixer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decoder_that_fails_is_replaced_and_only_its_own_pictures_notice() {
    let folder = tempfile::tempdir().unwrap();
    let graphs = folder.path().join("graphs");
    let (_guard, relay, mixer) = studio_with(Config {
        graphs: Some(graphs.clone()),
        degrade: false,
        ..Config::default()
    })
    .await;
    let _main = Anchor::start(&relay, "main", MAIN);
    pair(&mixer);
    let viewer = Viewer::attach(&relay, "mixed");
    eventually("on air", || splice(&viewer.seen(), 0).is_some()).await;
    // The sub's decoders are the newest.
    let _sub = Anchor::start(&relay, "sub", SUBS[0]);
    both_live(&mixer).await;
    viewer.watch_for(500).await;
    let broken = viewer.now_ms();
    mixer.shared.context.sources.break_newest(Kind::Video);
    eventually("the API tells", || {
        let error = mixer.get("m").unwrap().inputs[1].error.clone();
        error.is_some_and(|error| error.contains("broken by a test"))
    })
    .await;
    eventually("a graph is written", || written(&graphs).len() == 1).await;
    let graph = &written(&graphs)[0];
    assert!(graph.starts_with("// live/sub Video: video: "), "{graph}");
    assert!(graph.contains("avdec_h264"), "{graph}");
    viewer.watch_for(broken + 3_500 - viewer.now_ms()).await;
    assert_eq!(
        (mixer.decoders(Kind::Video), mixer.decoders(Kind::Audio)),
        (2, 2)
    );

    let film = decode(&viewer.seen());
    // Its key frames are a second apart.
    let (frames, _) = film.between(broken + 2_000, broken + 3_000);
    assert_moving("replaced", &frames, SUBS[0].colour);
    let (frames, sound) = film.between(broken, broken + 3_000);
    let main = advance(&frames, (0, 0), (360, 640));
    assert!(main >= 55, "the main moved by {main} of 60");
    for hz in [MAIN.hz, SUBS[0].hz] {
        let heard = levels(sound, hz);
        assert!(is_steady(&heard, 0.2), "{hz} Hz: {heard:?}");
    }
    let times = video_times(&viewer.seen());
    assert!(times.windows(2).all(|w| w[1] - w[0] == 50), "{times:?}");
    mixer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decoder_that_gives_nothing_and_says_nothing_is_replaced_too() {
    let (_guard, relay, mixer) = studio().await;
    let _main = Anchor::start(&relay, "main", MAIN);
    pair(&mixer);
    let viewer = Viewer::attach(&relay, "mixed");
    eventually("on air", || splice(&viewer.seen(), 0).is_some()).await;
    // The sub's decoders are the newest.
    let _sub = Anchor::start(&relay, "sub", SUBS[0]);
    both_live(&mixer).await;
    let error = || mixer.get("m").unwrap().inputs[1].error.clone();
    let mut again = Vec::new();
    for (kind, hangs) in [
        (Kind::Audio, false),
        (Kind::Video, false),
        (Kind::Video, true),
    ] {
        viewer.watch_for(500).await;
        let before = error();
        let sources = &mixer.shared.context.sources;
        sources.still_newest(kind, hangs);
        eventually("the API tells", || {
            let now = error();
            now != before && now.is_some_and(|now| now.starts_with("the decoder has given no "))
        })
        .await;
        // Its key frames are a second apart.
        viewer.watch_for(1_500).await;
        let from = viewer.now_ms();
        viewer.watch_for(1_000).await;
        again.push((kind, hangs, from));
        assert_eq!(
            (mixer.decoders(Kind::Video), mixer.decoders(Kind::Audio)),
            (2, 2)
        );
    }
    let film = decode(&viewer.seen());
    for (kind, hangs, from) in again {
        let (frames, sound) = film.between(from, from + 1_000);
        let what = format!("{kind:?}, hangs: {hangs}");
        assert_moving(&what, &frames, SUBS[0].colour);
        for hz in [MAIN.hz, SUBS[0].hz] {
            let heard = levels(sound, hz);
            assert!(is_steady(&heard, 0.2), "{what}: {hz} Hz: {heard:?}");
        }
    }
    let times = video_times(&viewer.seen());
    assert!(times.windows(2).all(|w| w[1] - w[0] == 50), "{times:?}");
    mixer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decoder_that_cannot_keep_up_is_left_behind_at_a_key_frame() {
    let (_guard, relay, mixer) = studio().await;
    let _sub = Anchor::start(&relay, "sub", SUBS[0]);
    pair(&mixer);
    eventually("the sub", || state_of(&mixer, "m", 1) == InputState::Live).await;
    // Its decoder is the newest.
    let _main = Anchor::start(&relay, "main", MAIN);
    both_live(&mixer).await;
    let viewer = Viewer::attach(&relay, "mixed");
    // A third of the speed that it needs.
    let each = Duration::from_millis(150);
    mixer.shared.context.sources.slow_down(each);
    viewer.watch_for(8_000).await;
    let info = mixer.get("m").unwrap();
    let latency = info.stats.added_latency_ms.expect("it has shown some");
    // Refused after 1.5 s, when it is 1 s behind; the next key frame comes within a second. When it had first to decode all
    // that waited for it, the last of that was 3 s late.
    assert!(latency.p99 < 2_000.0, "{} ms", latency.p99);
    assert!(info.inputs.iter().all(|input| input.error.is_none()));
    assert_eq!(mixer.decoders(Kind::Video), 2);
    mixer.shutdown().await;
}

/// After the first 60 pictures nothing for two seconds, then all of it at once.
fn held_up() -> impl FnMut(Message) -> Vec<Message> + Send + 'static {
    let (mut pictures, mut held) = (0, Vec::new());
    move |message| {
        pictures += u32::from(message.kind == Kind::Video);
        held.push(message);
        match pictures {
            60..100 => Vec::new(),
            _ => std::mem::take(&mut held),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_at_once_after_a_stall_is_decoded_all_of_it() {
    let (_guard, relay, mixer) = studio().await;
    let _main = Anchor::start(&relay, "main", MAIN);
    pair(&mixer);
    let viewer = Viewer::attach(&relay, "mixed");
    eventually("on air", || splice(&viewer.seen(), 0).is_some()).await;
    let _sub = Anchor::coded(&relay, "sub", SUBS[1], Coder::H264, held_up());
    both_live(&mixer).await;
    let dropped = || mixer.get("m").unwrap().stats.messages_dropped;
    let before = dropped();
    eventually("held", || state_of(&mixer, "m", 1) == InputState::Held).await;
    both_live(&mixer).await;
    let from = viewer.now_ms();
    viewer.watch_for(500).await;
    assert_eq!(dropped() - before, 0);
    // No key frame is waited for: it moves at once.
    let film = decode(&viewer.seen());
    let (frames, _) = film.between(from, from + 500);
    assert_moving("after the stall", &frames, SUBS[1].colour);
    mixer.shutdown().await;
}

/// What becomes of messages on their way.
const WHOLE: u8 = 0;
const CORRUPT: u8 = 1;
const WITHOUT_SETS: u8 = 2;
const BAD_SOUND: u8 = 3;

/// Spoils what passes as `how` says; with each change of it the headers come again.
fn spoiled(how: Arc<AtomicU8>) -> impl FnMut(Message) -> Vec<Message> + Send + 'static {
    let mut headers: [Option<Message>; 2] = [None, None];
    let mut told = [WHOLE; 2];
    let mut count = 0u32;
    move |message| {
        let (now, kind) = (how.load(Ordering::SeqCst), message.kind);
        if message.is_header() {
            headers[kind.index()] = Some(message.clone());
            return vec![message];
        }
        let mut out = Vec::new();
        let begins = kind == Kind::Audio || message.is_video_key();
        if begins && std::mem::replace(&mut told[kind.index()], now) != now {
            let mut header = headers[kind.index()].clone().unwrap().at(message.dts);
            match (now, kind) {
                // A record that counts no parameter set of either kind.
                (WITHOUT_SETS, Kind::Video) => {
                    header.payload =
                        crate::mixer::format::avc_header(b"\x01\x42\xc0\x1e\xff\xe0\0");
                }
                // TwinVQ, an object type that no decoder here knows.
                (BAD_SOUND, Kind::Audio) => {
                    header.payload = crate::mixer::format::aac_header(&[0x39, 0x90]);
                }
                _ => {}
            }
            out.push(header);
        }
        let mut message = message;
        count += 1;
        if now == CORRUPT && kind == Kind::Video && count.is_multiple_of(3) {
            let mut bytes = message.payload.to_vec();
            for byte in bytes.iter_mut().skip(12).step_by(7) {
                *byte ^= 0x5a;
            }
            message.payload = bytes.into();
        }
        out.push(message);
        out
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_media_end_nothing_and_what_is_whole_again_is_shown_again() {
    let (_guard, relay, mixer) = studio().await;
    let _main = Anchor::start(&relay, "main", MAIN);
    pair(&mixer);
    let viewer = Viewer::attach(&relay, "mixed");
    eventually("on air", || splice(&viewer.seen(), 0).is_some()).await;
    let how = Arc::new(AtomicU8::new(WHOLE));
    let _sub = Anchor::coded(&relay, "sub", SUBS[0], Coder::H264, spoiled(how.clone()));
    both_live(&mixer).await;
    let mut whole = Vec::new();
    for spoil in [CORRUPT, WITHOUT_SETS, BAD_SOUND] {
        how.store(spoil, Ordering::SeqCst);
        if spoil == BAD_SOUND {
            eventually("the API tells of its sound", || {
                mixer.get("m").unwrap().inputs[1].error.is_some()
            })
            .await;
        }
        viewer.watch_for(2_000).await;
        how.store(WHOLE, Ordering::SeqCst);
        // Two key frames: the header comes with the first.
        viewer.watch_for(2_200).await;
        whole.push((spoil, viewer.now_ms()));
        viewer.watch_for(1_000).await;
        both_live(&mixer).await;
        assert_eq!(mixer.decoders(Kind::Video), 2);
    }
    assert_eq!(mixer.decoders(Kind::Audio), 2);
    let film = decode(&viewer.seen());
    for (spoil, from) in whole {
        let (frames, sound) = film.between(from, from + 1_000);
        let what = format!("after {spoil}");
        assert_moving(&what, &frames, SUBS[0].colour);
        for hz in [MAIN.hz, SUBS[0].hz] {
            assert!(is_steady(&levels(sound, hz), 0.2), "{what}: {hz} Hz");
        }
    }
    let times = video_times(&viewer.seen());
    assert!(times.windows(2).all(|w| w[1] - w[0] == 50), "{times:?}");
    mixer.shutdown().await;
}

/// Announces pictures of 160×240, whatever comes: the sets of those are in band, with each key frame.
fn announced_small() -> impl FnMut(Message) -> Vec<Message> + Send + 'static {
    let small = encoder_record(160, 240, "baseline", "1/1");
    let mut own = None;
    move |mut message| {
        let body = crate::mixer::format::body(&message);
        if message.kind == Kind::Video && message.is_header() {
            own = body;
            message.payload = crate::mixer::format::avc_header(&small);
        } else if message.is_video_key() {
            let (sets, unit) = (own.as_ref().unwrap(), body.unwrap());
            message.payload = crate::mixer::format::avc_key_frame(sets, &[], &unit);
        }
        vec![message]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_larger_than_their_header_says_end_their_decoder_and_nothing_else() {
    let (_guard, relay, mixer) = studio().await;
    let _main = Anchor::start(&relay, "main", MAIN);
    pair(&mixer);
    let viewer = Viewer::attach(&relay, "mixed");
    eventually("on air", || splice(&viewer.seen(), 0).is_some()).await;
    // The way alone changes nothing: sets in band that say what comes are decoded.
    let honest = Anchor::coded(&relay, "sub", SUBS[0], Coder::H264, announced_small());
    both_live(&mixer).await;
    viewer.watch_for(1_000).await;
    assert_eq!(mixer.get("m").unwrap().inputs[1].error, None);
    drop(honest);
    let wide = Look {
        width: 4_352,
        height: 64,
        ..SUBS[0]
    };
    let liar = Anchor::coded(&relay, "sub", wide, Coder::H264, announced_small());
    let error = || mixer.get("m").unwrap().inputs[1].error.clone();
    eventually("the API tells", || error().is_some()).await;
    assert!(error().is_some_and(|error| error.starts_with("video: ")));
    let lied = viewer.now_ms();
    viewer.watch_for(2_000).await;
    assert!(error().is_some(), "nothing of it is shown");
    drop(liar);
    let _honest = Anchor::start(&relay, "sub", SUBS[0]);
    both_live(&mixer).await;
    viewer.watch_for(1_500).await;
    let back = viewer.now_ms();
    viewer.watch_for(1_000).await;

    let film = decode(&viewer.seen());
    let (frames, sound) = film.between(lied, lied + 2_000);
    let main = advance(&frames, (0, 0), (360, 640));
    assert!(main >= 32, "the main moved by {main} of 40");
    // Its sound is none the worse.
    for hz in [MAIN.hz, SUBS[0].hz] {
        assert!(is_steady(&levels(sound, hz), 0.2), "{hz} Hz");
    }
    let (frames, _) = film.between(back, back + 1_000);
    assert_moving("honest again", &frames, SUBS[0].colour);
    let times = video_times(&viewer.seen());
    assert!(times.windows(2).all(|w| w[1] - w[0] == 50), "{times:?}");
    mixer.shutdown().await;
}
