//! What scenes say, seen and heard in the output.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_hugs_its_pictures_and_inputs_are_hidden_and_muted() {
    let (_guard, relay, mixer) = studio().await;
    let wide = Look {
        width: 320,
        height: 160,
        ..SUBS[0]
    };
    let body = |hidden: bool, mute: bool| -> MixRequest {
        serde_json::from_value(json!({"app": "live", "template": 20, "inputs": [
            {"stream": "main", "layer": 1, "gain": 0.5},
            {"stream": "wide", "layer": 2, "hidden": hidden, "mute": mute}],
            "output": {"stream": "mixed", "fps": 25, "gop": 1, "preset": "ultrafast", "sample_rate": 32_000,
                "channels": 1}}))
        .unwrap()
    };
    mixer.put("m", body(false, false)).unwrap();
    let _main = Anchor::start(&relay, "main", MAIN);
    let viewer = Viewer::attach(&relay, "mixed");
    let _wide = Anchor::start(&relay, "wide", wide);
    // 2:1 in 120×213.3 is 120×60, 20 px from the right bottom corner; known once its first picture is.
    let placed = |mixer: &Mixer| mixer.get("m").unwrap().inputs[1].rect;
    let hugged = Rect {
        x: 220,
        y: 560,
        width: 120,
        height: 60,
    };
    eventually("hugged", || placed(&mixer) == Some(hugged)).await;
    eventually("both live", || {
        (0..2).all(|n| state_of(&mixer, "m", n) == InputState::Live)
    })
    .await;
    viewer.watch_for(400).await;
    let shown = viewer.now_ms();
    viewer.watch_for(1_200).await;
    mixer.put("m", body(true, true)).unwrap();
    assert_eq!(placed(&mixer), None);
    viewer.watch_for(400).await;
    let hidden = viewer.now_ms();
    viewer.watch_for(500).await;
    mixer.remove("m").unwrap();
    eventually("gone", || mixer.list().is_empty()).await;

    let seen = viewer.seen();
    assert!(splice(&seen, 1).is_none(), "the format stays");
    let header = |s: &Seen| s.message.kind == Kind::Audio && is_sequence(&s.message);
    let header = seen.iter().find(|s| header(s)).unwrap();
    let config = format::body(&header.message).unwrap();
    let sound = format::audio_config(&config).unwrap().format;
    assert_eq!((sound.rate, sound.channels), (32_000, 1));
    // A key frame a second.
    let keys: Vec<_> = seen
        .iter()
        .filter(|s| s.message.is_video_key())
        .map(|s| s.message.dts.0)
        .collect();
    assert!(keys.windows(2).all(|w| w[1] - w[0] == 1_000), "{keys:?}");

    let film = decode(&seen);
    for (from, colour, heard) in [(shown, wide.colour, 0.2), (hidden, MAIN.colour, 0.0)] {
        let (frames, sound) = film.between(from, from + 400);
        assert!(frames.len() > 7, "{}", frames.len());
        for frame in frames {
            assert_eq!((frame.width, frame.height), (360, 640));
            // No bars above and below, the main all around.
            assert!(
                frame.is_colour(320, 568, colour),
                "{:?}",
                frame.at(320, 568)
            );
            assert!(
                frame.is_colour(320, 614, colour),
                "{:?}",
                frame.at(320, 614)
            );
            for (x, y) in [(280, 550), (210, 590), (350, 590), (280, 630)] {
                assert!(frame.is_colour(x, y, MAIN.colour), "{:?}", frame.at(x, y));
            }
        }
        let tone = levels(sound, wide.hz);
        assert!(is_steady(&tone, heard), "{tone:?}");
    }
}
