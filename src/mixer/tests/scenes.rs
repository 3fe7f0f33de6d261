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

const ORANGE: u32 = 0xff_80_00;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_is_cut_fitted_and_let_through_as_it_is_asked_to() {
    const GREEN: u32 = 0x00_ff_00;
    const BLUE: u32 = 0x00_00_ff;
    let (_guard, relay, mixer) = studio().await;
    let wide = Look {
        width: 320,
        height: 160,
        colour: GREEN,
        corner: Some(BLUE),
        ..SUBS[0]
    };
    // The main in the left half, the sub in a box of 160×160 at (200, 100), the rest is the canvas.
    let body = |background: &str, sub: serde_json::Value| -> MixRequest {
        let mut place =
            json!({"stream": "wide", "layer": 2, "x": 200, "y": 100, "width": 160, "height": 160});
        let asked = sub.as_object().unwrap().clone();
        place.as_object_mut().unwrap().extend(asked);
        serde_json::from_value(json!({"app": "live", "background": background, "inputs": [
            {"stream": "main", "layer": 1, "x": 0, "y": 0, "width": 180, "height": 360}, place],
            "output": {"stream": "mixed", "width": 480, "height": 360, "fps": 20, "video_kbps": 900}}))
        .unwrap()
    };
    let _main = Anchor::start(&relay, "main", MAIN);
    let _wide = Anchor::start(&relay, "wide", wide);
    let viewer = Viewer::attach(&relay, "mixed");
    let half = json!({"x": "50%", "y": "50%", "width": "50%", "height": "50%"});
    // Orange and green: half of 255, half of 128 + 255.
    let mixed = 0x7f_bf_00;
    let cases = [
        // 160×80, 40 rows down. The quarter begins at its middle.
        (
            json!({}),
            vec![
                (280, 120, 0),
                (280, 240, 0),
                (240, 205, GREEN),
                (320, 205, BLUE),
                (320, 170, GREEN),
            ],
        ),
        // The middle 160×160 as they are.
        (
            json!({"fit": "crop"}),
            vec![
                (215, 250, GREEN),
                (270, 250, GREEN),
                (290, 250, BLUE),
                (350, 110, GREEN),
                (350, 190, BLUE),
                (350, 170, GREEN),
            ],
        ),
        // All of it, twice as high: the counter's columns are 10 px wide and reach to 40 of 160 rows.
        (
            json!({"fit": "stretch"}),
            vec![
                (210, 250, GREEN),
                (350, 110, GREEN),
                (350, 250, BLUE),
                (290, 190, BLUE),
                (290, 170, GREEN),
            ],
        ),
        // The quarter alone, 160×80: nothing green is left.
        (
            json!({"crop": half}),
            vec![
                (280, 120, 0),
                (205, 145, BLUE),
                (355, 145, BLUE),
                (205, 215, BLUE),
                (355, 215, BLUE),
            ],
        ),
        // And the quarter's middle square.
        (
            json!({"crop": half, "fit": "crop"}),
            vec![(205, 105, BLUE), (355, 255, BLUE), (205, 255, BLUE)],
        ),
        (
            json!({"fit": "stretch", "opacity": 0.5}),
            vec![(350, 110, mixed), (210, 250, mixed), (400, 300, ORANGE)],
        ),
        // Corners of 40: what they cut off is the canvas.
        (
            json!({"fit": "stretch", "radius": 40, "border": {"width": 8, "color": "#ffffff"}}),
            vec![
                (203, 103, ORANGE),
                (357, 257, ORANGE),
                (203, 180, 0xff_ff_ff),
                (280, 256, 0xff_ff_ff),
                (335, 125, GREEN),
                (340, 240, BLUE),
            ],
        ),
        (
            json!({"hidden": true}),
            vec![(280, 180, ORANGE), (210, 110, ORANGE)],
        ),
    ];
    mixer.put("m", body("#ff8000", json!({}))).unwrap();
    eventually("both live", || {
        (0..2).all(|n| state_of(&mixer, "m", n) == InputState::Live)
    })
    .await;
    eventually("on air", || splice(&viewer.seen(), 0).is_some()).await;
    let mut shown = Vec::new();
    for (sub, places) in cases {
        mixer.put("m", body("#ff8000", sub.clone())).unwrap();
        shown.push((sub.to_string(), settled(&viewer).await, places));
    }
    mixer
        .put("m", body("#0080ff", json!({"hidden": true})))
        .unwrap();
    let places = vec![(280, 180, 0x00_80_ff), (470, 350, 0x00_80_ff)];
    shown.push(("another canvas".into(), settled(&viewer).await, places));
    mixer.remove("m").unwrap();

    let seen = viewer.seen();
    assert!(splice(&seen, 1).is_none(), "the format stays");
    let film = decode(&seen);
    for (what, (from, to), places) in shown {
        let (frames, _) = film.between(from, to);
        assert_colours(&what, &frames, &places);
        // The main, 9:16 in 1:2: 180×320, its bars above and below are black on whatever canvas.
        assert_colours(
            &what,
            &frames,
            &[(90, 10, 0), (90, 350, 0), (90, 200, MAIN.colour)],
        );
        assert!(
            advance(&frames, (0, 20), (180, 320)) > 3,
            "{what}: the main moves"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_alone_has_no_picture_and_pictures_alone_have_no_sound() {
    let (_guard, relay, mixer) = studio().await;
    let body = |kind: &str| -> MixRequest {
        let mut sub = json!({"stream": "sub", "layer": 2, "kind": kind});
        if kind != "audio" {
            sub["x"] = 200.into();
        }
        serde_json::from_value(
            json!({"app": "live", "inputs": [{"stream": "main", "layer": 1}, sub],
            "output": {"stream": "mixed", "width": 360, "height": 640, "fps": 20}}),
        )
        .unwrap()
    };
    let _main = Anchor::start(&relay, "main", MAIN);
    let _sub = Anchor::start(&relay, "sub", SUBS[0]);
    let viewer = Viewer::attach(&relay, "mixed");
    let mut shown = Vec::new();
    for kind in ["audio", "video", "audio+video", "audio"] {
        mixer.put("m", body(kind)).unwrap();
        eventually("both live", || {
            (0..2).all(|n| state_of(&mixer, "m", n) == InputState::Live)
        })
        .await;
        let sub = &mixer.get("m").unwrap().inputs[1];
        assert_eq!((sub.kind, sub.rect.is_some()), (kind, kind != "audio"));
        // A picture that was not taken begins at its next key frame, a second away at most.
        viewer.watch_for(1_100).await;
        shown.push((kind, settled(&viewer).await));
    }
    mixer.remove("m").unwrap();
    let film = decode(&viewer.seen());
    for (kind, (from, to)) in shown {
        let (frames, sound) = film.between(from, to);
        let colour = if kind == "audio" {
            MAIN.colour
        } else {
            SUBS[0].colour
        };
        assert_colours(kind, &frames, &[(260, 120, colour), (60, 400, MAIN.colour)]);
        let heard = if kind == "video" { 0.0 } else { 0.2 };
        let tone = loudness(sound, SUBS[0].hz);
        assert!((tone - heard).abs() < 0.06, "{kind}: {tone}");
        assert!((loudness(sound, MAIN.hz) - 0.2).abs() < 0.06);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_inputs_and_a_canvas_share_a_grid() {
    let (_guard, relay, mixer) = studio().await;
    const COLOURS: [u32; 8] = [
        0xff_00_00, 0x00_ff_00, 0x00_00_ff, 0xff_ff_00, 0xff_00_ff, 0x00_ff_ff, 0xff_ff_ff,
        0x80_80_80,
    ];
    let names: Vec<_> = (0..COLOURS.len()).map(|n| format!("s{n}")).collect();
    let anchors = names
        .iter()
        .zip(COLOURS)
        .zip(1..)
        .map(|((name, colour), n)| {
            let look = Look {
                width: 80,
                height: 80,
                fps: 10,
                colour,
                hz: 300 * n,
                ..SUBS[0]
            };
            Anchor::start(&relay, name, look)
        });
    let anchors: Vec<_> = anchors.collect();
    let mut inputs = vec![json!({"canvas": "#203040", "layer": 1})];
    inputs.extend(
        names
            .iter()
            .zip(2..)
            .map(|(name, layer)| json!({"stream": name, "layer": layer})),
    );
    let request = json!({"app": "live", "template": "grid", "inputs": inputs,
        "output": {"stream": "mixed", "width": 360, "height": 360, "fps": 10}});
    mixer
        .put("m", serde_json::from_value(request).unwrap())
        .unwrap();
    let viewer = Viewer::attach(&relay, "mixed");
    eventually("all live", || {
        mixer
            .get("m")
            .unwrap()
            .inputs
            .iter()
            .all(|i| i.state == InputState::Live)
    })
    .await;
    viewer.watch_for(1_000).await;
    let (from, to) = settled(&viewer).await;
    viewer.watch_for(1_000).await;
    let info = mixer.get("m").unwrap();
    assert_eq!(
        (info.inputs[0].kind, info.inputs[0].stream.as_deref()),
        ("canvas", None)
    );
    let boxes: Vec<_> = info.inputs[1..].iter().map(|i| i.rect.unwrap()).collect();
    mixer.remove("m").unwrap();
    drop(anchors);

    let film = decode(&viewer.seen());
    let (frames, _) = film.between(from, to + 600);
    for (n, (rect, colour)) in boxes.iter().zip(COLOURS).enumerate() {
        let middle = (
            rect.x + rect.width / 2,
            rect.y + rect.height * 3 / 4,
            colour,
        );
        assert_colours(&format!("input {n}"), &frames, &[middle]);
    }
    // The last row has two of three cells, in the middle: beside them is the canvas.
    assert_colours(
        "canvas",
        &frames,
        &[(10, 300, 0x20_30_40), (350, 300, 0x20_30_40)],
    );
    let (_, sound) = film.between(from, to + 600);
    for n in 1..=COLOURS.len() as u32 {
        // The sum of eight is bent by the clipping; each is there all the same.
        assert!(loudness(sound, 300 * n) > 0.05, "tone {n}");
    }
}
