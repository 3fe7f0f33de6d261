//! What becomes of the picture when inputs and layouts come, go and move.

use super::studio::Coder;
use super::*;
use crate::media::Message;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_input_leaves_its_place_to_the_others_until_it_returns() {
    let (_guard, relay, mixer) = studio().await;
    let request = json!({"app": "live", "template": "side-by-side",
        "on_loss": {"policy": "hide", "after_ms": 1500},
        "inputs": [{"stream": "main", "layer": 1, "fit": "crop"}, {"stream": "sub", "layer": 2, "fit": "crop"}],
        "output": {"stream": "mixed", "width": 480, "height": 320, "fps": 20}});
    mixer
        .put("m", serde_json::from_value(request).unwrap())
        .unwrap();
    let _main = Anchor::start(&relay, "main", MAIN);
    let viewer = Viewer::attach(&relay, "mixed");
    eventually("on air", || splice(&viewer.seen(), 0).is_some()).await;
    // It has never come: it is waited for, and has no place.
    assert_eq!(state_of(&mixer, "m", 1), InputState::Waiting);
    let alone = settled(&viewer).await;
    let sub = Anchor::start(&relay, "sub", SUBS[0]);
    eventually("live", || state_of(&mixer, "m", 1) == InputState::Live).await;
    let shared = settled(&viewer).await;
    drop(sub);
    // State and box of one answer: a machine that stands still may bring what it held back after all.
    let is = |state, shown| {
        let sub = &mixer.get("m").unwrap().inputs[1];
        (sub.state, sub.rect.is_some()) == (state, shown)
    };
    eventually("held in its place", || is(InputState::Held, true)).await;
    let held = viewer.now_ms();
    eventually("hidden", || is(InputState::Hidden, false)).await;
    let hidden = settled(&viewer).await;
    let _sub = Anchor::start(&relay, "sub", SUBS[0]);
    eventually("live again", || {
        state_of(&mixer, "m", 1) == InputState::Live
    })
    .await;
    let back = settled(&viewer).await;
    mixer.remove("m").unwrap();

    let film = decode(&viewer.seen());
    let both = [(120, 200, MAIN.colour), (360, 200, SUBS[0].colour)];
    let one = [(120, 200, MAIN.colour), (360, 200, MAIN.colour)];
    for (what, (from, to), places) in [
        ("alone", alone, one),
        ("shared", shared, both),
        ("held", (held, held + 300), both),
        ("hidden", hidden, one),
        ("back", back, both),
    ] {
        assert_colours(what, &film.between(from, to).0, &places);
    }
    let times: Vec<_> = film.frames.iter().map(|f| f.pts_ms).collect();
    assert!(times.windows(2).all(|w| w[1] - w[0] == 50), "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_moves_what_stays_and_fades_what_comes_and_goes() {
    const MOVE: i64 = 1_000;
    let (_guard, relay, mixer) = studio().await;
    let body = |transition: i64, subs: &[(&str, u32, u32)]| -> MixRequest {
        let mut inputs = vec![json!({"stream": "main", "layer": 1, "fit": "stretch"})];
        inputs.extend(subs.iter().zip(2..).map(|((name, x, y), layer)| {
            json!({"stream": name, "layer": layer, "x": x, "y": y, "width": 80, "height": 120})
        }));
        serde_json::from_value(json!({"app": "live", "transition_ms": transition, "inputs": inputs,
            "output": {"stream": "mixed", "width": 480, "height": 320, "fps": 20, "video_kbps": 2000}}))
        .unwrap()
    };
    let _main = Anchor::start(&relay, "main", MAIN);
    let _subs = [0, 1].map(|n| Anchor::start(&relay, &format!("sub{n}"), SUBS[n]));
    let viewer = Viewer::attach(&relay, "mixed");
    mixer
        .put("m", body(0, &[("sub0", 0, 40), ("sub1", 100, 190)]))
        .unwrap();
    eventually("all live", || {
        (0..3).all(|n| state_of(&mixer, "m", n) == InputState::Live)
    })
    .await;
    let before = settled(&viewer).await;
    // One goes 400 to the right, the other leaves.
    mixer.put("m", body(MOVE, &[("sub0", 400, 40)])).unwrap();
    assert_eq!(mixer.get("m").unwrap().inputs.len(), 2);
    viewer.watch_for(MOVE).await;
    let after = settled(&viewer).await;
    mixer.remove("m").unwrap();

    let film = decode(&viewer.seen());
    // Left edge of the green box in each frame, on a row below its counter.
    let edge = |frame: &Frame| (0..480).find(|&x| frame.is_colour(x, 140, SUBS[0].colour));
    let is_gone = |frame: &Frame| frame.is_colour(140, 290, MAIN.colour);
    let (frames, sound) = film.between(before.0, before.1);
    assert!(
        frames
            .iter()
            .all(|f| edge(f).is_some_and(|x| x <= 2) && !is_gone(f))
    );
    assert!((loudness(sound, SUBS[1].hz) - 0.2).abs() < 0.06);
    let (frames, sound) = film.between(after.0, after.1);
    assert!(
        frames
            .iter()
            .all(|f| edge(f).is_some_and(|x| x.abs_diff(400) <= 2) && is_gone(f))
    );
    assert!(loudness(sound, SUBS[1].hz) < 0.02);

    let (frames, _) = film.between(before.1, after.0);
    let way: Vec<_> = frames
        .iter()
        .filter_map(|f| Some((f.pts_ms, edge(f)?)))
        .collect();
    assert!(way.windows(2).all(|w| w[1].1 + 2 >= w[0].1), "{way:?}");
    let under_way: Vec<_> = way.iter().filter(|(_, x)| (8..392).contains(x)).collect();
    // A second is 20 frames; the first and last few move less than 8 pixels.
    assert!((14..=20).contains(&under_way.len()), "{way:?}");
    // Slow, fast, slow: in the middle 400 × 1.5 × 50 / 1000 = 30 a frame.
    let fastest = way.windows(2).map(|w| w[1].1.saturating_sub(w[0].1)).max();
    assert!(
        fastest.is_some_and(|step| (24..=40).contains(&step)),
        "{way:?}"
    );
    // Meanwhile the other is neither there nor gone.
    let is_half = |f: &&&Frame| !f.is_colour(140, 290, SUBS[1].colour) && !is_gone(f);
    assert!(frames.iter().filter(is_half).count() >= 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_frames_tell_who_is_where() {
    let (_guard, relay, mixer) = studio().await;
    let body = |x: u32, sei: serde_json::Value| -> MixRequest {
        serde_json::from_value(
            json!({"app": "live", "inputs": [{"stream": "main", "layer": 1},
            {"stream": "sub", "layer": 2, "x": x, "y": 0, "width": 80, "height": 120, "gain": 0.5}],
            "output": {"stream": "mixed", "gop": 0.5, "fps": 20, "mix_sei": sei}}),
        )
        .unwrap()
    };
    let _main = Anchor::start(&relay, "main", MAIN);
    let _sub = Anchor::start(&relay, "sub", SUBS[0]);
    let viewer = Viewer::attach(&relay, "mixed");
    let mut shown = Vec::new();
    for (x, sei) in [
        (10, json!(true)),
        (100, json!(true)),
        (100, json!("on air")),
        (100, json!(false)),
    ] {
        mixer.put("m", body(x, sei.clone())).unwrap();
        eventually("live", || mixer.get("m").unwrap().state == MixState::Live).await;
        // Whatever was on its way is out, then a key frame at least.
        viewer.watch_for(300).await;
        let from = viewer.now_ms();
        viewer.watch_for(600).await;
        shown.push((x, sei, from..from + 600));
    }
    mixer.remove("m").unwrap();
    let seen = viewer.seen();
    assert!(splice(&seen, 1).is_none(), "no new format");
    let text = |message: &Message| {
        let payload = &message.payload;
        let at = payload.windows(16).position(|w| w == user_data::TEXT_ID)?;
        let end = (at + 16..payload.len()).find(|&n| payload[n] == 0x80)?;
        Some(String::from_utf8(payload[at + 16..end].to_vec()).unwrap())
    };
    for (x, sei, times) in shown {
        let frames = seen
            .iter()
            .map(|s| &s.message)
            .filter(|m| m.kind == Kind::Video);
        let frames: Vec<_> = frames
            .filter(|m| times.contains(&m.dts.0) && !m.is_header())
            .collect();
        let keys = frames.iter().filter(|m| m.is_video_key());
        let told: Vec<_> = keys.map(|m| text(m)).collect();
        assert!(!told.is_empty());
        assert!(frames.iter().all(|m| m.is_video_key() || text(m).is_none()));
        for told in told {
            if sei == json!(true) {
                let told: serde_json::Value = serde_json::from_str(&told.unwrap()).unwrap();
                let sub = &told["inputs"][1];
                assert_eq!(
                    (&sub["id"], &sub["x"], &sub["gain"]),
                    (&json!("sub"), &json!(x), &json!(0.5))
                );
                assert_eq!(told["canvas"], json!({"width": 360, "height": 640}));
            } else {
                assert_eq!(told.as_deref(), sei.as_str());
            }
        }
    }
    // And decoders do not mind.
    let film = decode(&seen);
    let frames: Vec<_> = film.frames.iter().rev().take(10).collect();
    assert_colours("the end", &frames, &[(140, 90, SUBS[0].colour)]);
}

/// Whose stamps those are, of a main and of a sub.
const STAMPS: [[u8; 16]; 2] = [*b"stamps of a main", *b"stamps of a sub."];

/// Adds an SEI unit to each picture: timing, which stays behind, and the picture's time as user data.
fn stamped(id: [u8; 16]) -> impl FnMut(Message) -> Vec<Message> + Send + 'static {
    move |mut message| {
        if message.kind == Kind::Video && !message.is_header() {
            let time = message.dts.0.to_be_bytes();
            let stamp = [&[5, 24][..], &id, &time].concat();
            let sei = user_data::unit(&[&[1, 1, 7][..], &stamp].concat());
            let (head, unit) = message.payload.split_at(5);
            message.payload = [head, &sei, unit].concat().into();
        }
        vec![message]
    }
}

/// Ids and contents of the user data in a picture's access unit.
fn told(message: &Message) -> Vec<(Vec<u8>, Vec<u8>)> {
    let messages = user_data::messages(Codec::H264, 4, &message.payload[5..]);
    let (mut told, mut rest) = (Vec::new(), &messages[..]);
    while let [5, after @ ..] = rest {
        let full = after.iter().take_while(|byte| **byte == 255).count();
        let size = 255 * full + usize::from(after[full]);
        let (message, after) = after[full + 1..].split_at(size);
        told.push((message[..16].to_vec(), message[16..].to_vec()));
        rest = after;
    }
    assert!(rest.is_empty(), "only user data: {rest:?}");
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mains_messages_come_with_its_pictures_and_nobody_elses() {
    let (_guard, relay, mixer) = studio().await;
    let body = |mix: bool, pass: bool| {
        request(
            &["main", "sub"],
            json!({"stream": "mixed", "gop": 0.5, "fps": 20, "mix_sei": mix, "pass_sei": pass}),
        )
    };
    let [of_main, of_sub] = STAMPS;
    let _main = Anchor::coded(&relay, "main", MAIN, Coder::H264, stamped(of_main));
    let _sub = Anchor::coded(&relay, "sub", SUBS[1], Coder::H264, stamped(of_sub));
    let viewer = Viewer::attach(&relay, "mixed");
    let mut asked = Vec::new();
    for (mix, pass) in [(false, true), (true, true), (false, false)] {
        mixer.put("m", body(mix, pass)).unwrap();
        eventually("live", || mixer.get("m").unwrap().state == MixState::Live).await;
        // Whatever was on its way is out, then a key frame at least.
        viewer.watch_for(600).await;
        let from = viewer.now_ms();
        viewer.watch_for(1_000).await;
        asked.push((mix, pass, from..from + 1_000));
    }
    mixer.remove("m").unwrap();
    let seen = viewer.seen();
    assert!(splice(&seen, 1).is_none(), "no new format");
    let film = decode(&seen);
    for (mix, pass, times) in asked {
        let mut stamps = Vec::new();
        let messages = seen.iter().map(|s| &s.message);
        let pictures = messages.filter(|m| m.kind == Kind::Video && !m.is_header());
        for picture in pictures.filter(|m| times.contains(&m.dts.0)) {
            let told = told(picture);
            let layouts = told.iter().filter(|(id, _)| *id == user_data::TEXT_ID);
            let wanted = usize::from(mix && picture.is_video_key());
            assert_eq!(layouts.count(), wanted, "the mix's own");
            assert!(!told.iter().any(|(id, _)| *id == of_sub), "the sub's");
            let own = told.iter().filter(|(id, _)| *id == of_main);
            let own: Vec<i64> = own
                .map(|(_, time)| i64::from_be_bytes(time[..].try_into().unwrap()))
                .collect();
            let frame = film.frames.iter().find(|f| f.pts_ms == picture.dts.0);
            if let (Some(newest), Some(frame)) = (own.last(), frame) {
                // The number in a picture is its time too, in frames.
                let number = (newest * 20 + 500) / 1_000 % 256;
                assert_eq!(frame.counter(0, 0, 360, 640) as i64, number);
            }
            stamps.extend(own);
        }
        if !pass {
            assert_eq!(stamps, [0i64; 0]);
            continue;
        }
        assert!(stamps.len() >= 15, "{stamps:?}");
        let steps = stamps.windows(2).map(|pair| pair[1] - pair[0]);
        let whole = steps.clone().all(|step| (49..=51).contains(&step));
        assert!(whole, "one of each picture, in order: {stamps:?}");
    }
}
