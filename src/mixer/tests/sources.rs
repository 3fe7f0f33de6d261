//! One stream in several mixes: decoded once, right in each.

use super::*;
use crate::mixer::input::Input;
use crate::mixer::scene::Tracks;

/// Decoders of pictures and of sound.
fn decoders(mixer: &Mixer) -> (usize, usize) {
    (mixer.decoders(Kind::Video), mixer.decoders(Kind::Audio))
}

/// Threads in which decoders work, as the system names them.
fn decoding_threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .expect("Linux")
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .filter(|comm| ["video:src", "audio:src"].contains(&comm.trim()))
        .count()
}

async fn on_air(viewer: &Viewer) {
    eventually("on air", || splice(&viewer.seen(), 0).is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_in_three_mixes_are_decoded_once_and_right_in_each() {
    let (_guard, relay, mixer) = studio().await;
    let _anchors = [
        Anchor::start(&relay, "a", MAIN),
        Anchor::start(&relay, "b", SUBS[0]),
        Anchor::start(&relay, "c", SUBS[1]),
    ];
    let mut viewers = Vec::new();
    // Another size, another rate of pictures and of sound; the third shares one stream with the first.
    let mut threads = 0;
    for (name, inputs, output) in [
        (
            "one",
            ["a", "b"],
            json!({"stream": "one", "sample_rate": 48_000}),
        ),
        (
            "two",
            ["a", "b"],
            json!({"stream": "two", "width": 180, "height": 320, "fps": 10, "sample_rate": 44_100}),
        ),
        (
            "three",
            ["b", "c"],
            json!({"stream": "three", "width": 360, "height": 640}),
        ),
    ] {
        mixer.put(name, request(&inputs, output)).unwrap();
        viewers.push(Viewer::attach(&relay, name));
        on_air(viewers.last().unwrap()).await;
        eventually("all live", || {
            (0..2).all(|n| state_of(&mixer, name, n) == InputState::Live)
        })
        .await;
        let expected = if name == "three" { 3 } else { 2 };
        // An input lives by its sound, too.
        eventually("pictures of all", || {
            decoders(&mixer) == (expected, expected)
        })
        .await;
        if name == "one" {
            threads = decoding_threads();
        } else if name == "two" {
            assert_eq!(decoding_threads(), threads);
        }
    }
    let sub_at = BOXES[0];
    let places = [
        vec![
            (60, 400, MAIN.colour),
            (sub_at.0 + 60, sub_at.1 + 130, SUBS[0].colour),
        ],
        vec![(30, 200, MAIN.colour)],
        vec![
            (60, 500, SUBS[0].colour),
            (sub_at.0 + 60, sub_at.1 + 130, SUBS[1].colour),
        ],
    ];
    let tones = [
        [MAIN.hz, SUBS[0].hz],
        [MAIN.hz, SUBS[0].hz],
        [SUBS[0].hz, SUBS[1].hz],
    ];
    for ((viewer, places), tones) in viewers.iter().zip(&places).zip(tones) {
        let from = viewer.now_ms() + 300;
        viewer.watch_for(1_800).await;
        let film = decode(&viewer.seen());
        let (frames, sound) = film.between(from, from + 1_500);
        assert_colours("a mix", &frames, places);
        for hz in [MAIN.hz, SUBS[0].hz, SUBS[1].hz] {
            let wanted = if tones.contains(&hz) { 0.2 } else { 0.0 };
            assert!(
                is_steady(&levels(sound, hz), wanted),
                "{hz} Hz of {tones:?}"
            );
        }
    }

    // The last that leaves a stream takes its decoders along, and no other does.
    mixer.remove("one").unwrap();
    eventually("gone", || mixer.get("one").is_none()).await;
    assert_eq!(decoders(&mixer), (3, 3));
    mixer.remove("two").unwrap();
    eventually("a's are gone", || decoders(&mixer) == (2, 2)).await;
    mixer.remove("three").unwrap();
    eventually("all are gone", || decoders(&mixer) == (0, 0)).await;
    eventually("no thread left", || mixing_threads() <= IDLE_THREADS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_alone_decodes_no_pictures_and_who_wants_them_later_has_one_at_once() {
    let (_guard, relay, mixer) = studio().await;
    let _anchor = Anchor::start(&relay, "a", MAIN);
    let radio = json!({"app": "live", "inputs": [{"canvas": "#000000", "layer": 1}, {"stream": "a", "kind": "audio", "layer": 2}],
        "output": {"stream": "radio", "width": 160, "height": 120, "fps": 10}});
    mixer
        .put("radio", serde_json::from_value(radio).unwrap())
        .unwrap();
    let radio = Viewer::attach(&relay, "radio");
    on_air(&radio).await;
    assert_eq!(decoders(&mixer), (0, 1));

    mixer
        .put(
            "first",
            request(&["a"], json!({"stream": "first", "passthrough": "never"})),
        )
        .unwrap();
    let first = Viewer::attach(&relay, "first");
    on_air(&first).await;
    assert_eq!(mixer.decoders(Kind::Video), 1);

    // The decoder is at work: the picture and the format are there before the call returns.
    mixer
        .put(
            "second",
            request(&["a"], json!({"stream": "second", "passthrough": "never"})),
        )
        .unwrap();
    let info = mixer.get("second").unwrap();
    assert_eq!(info.inputs[0].state, InputState::Live);
    let second = Viewer::attach(&relay, "second");
    on_air(&second).await;
    assert_eq!(mixer.decoders(Kind::Video), 1);
    // What it shows moves on with the source.
    let (from, to) = settled(&second).await;
    let film = decode(&second.seen());
    let (frames, _) = film.between(from, to);
    assert!(advance(&frames, (0, 0), (360, 640)) >= 4);

    for id in ["first", "second"] {
        mixer.remove(id).unwrap();
    }
    eventually("no pictures", || decoders(&mixer) == (0, 1)).await;
    // The radio has not noticed.
    let (from, to) = settled(&radio).await;
    let film = decode(&radio.seen());
    let (_, sound) = film.between(from, to);
    assert!(is_steady(&levels(sound, MAIN.hz), 0.2));
    mixer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_a_stream_begins_with_its_gop_so_far_every_time() {
    let (_guard, relay, mixer) = studio().await;
    let _main = Anchor::start(&relay, "main", MAIN);
    let viewer = Viewer::attach(&relay, "main");
    viewer.next(60).await;
    let sources = mixer.shared.context.sources.clone();
    let joins = tokio::task::spawn_blocking(move || {
        for n in 0..200 {
            let (key, now) = (key("main"), Instant::now());
            let input = Input::new(key, Tracks::Both, &sources, now, Arc::default());
            let lost = || input.losses().messages;
            // The key frame's headers, or what cannot be decoded without it.
            while input.facts().audio.is_none() && lost() == 0 {
                assert!(now.elapsed() < Duration::from_secs(10));
                std::thread::yield_now();
            }
            assert_eq!(lost(), 0, "join {n}");
        }
    });
    joins.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_in_twenty_mixes_at_most() {
    // The budget is another bound.
    let (_guard, _relay, mixer) = studio_with(Config {
        budget: Some(10_000),
        ..Config::default()
    })
    .await;
    // Nobody publishes: scenes alone count.
    for n in 0..MAX_MIXES_OF_A_STREAM {
        let output = json!({"stream": format!("out{n}")});
        mixer
            .put(&format!("m{n}"), request(&["popular"], output))
            .unwrap();
    }
    let wanted = json!({"app": "live", "inputs": [{"stream": "popular", "layer": 2}, {"stream": "other", "layer": 1}],
        "output": {"stream": "more"}});
    let wanted: MixRequest = serde_json::from_value(wanted).unwrap();
    let error = mixer.put("more", wanted.clone()).unwrap_err();
    let message = "live/popular is in 20 mixes; a stream may be in 20 at most".to_owned();
    let path = "inputs[0].stream".to_owned();
    let clash = Clash::Crowded;
    let expected = Error::Conflict {
        path,
        clash,
        message,
    };
    assert_eq!(error, expected);
    // A mix that has it already may change, and one that leaves makes room.
    let again = json!({"stream": "out0", "width": 320, "height": 240});
    mixer.put("m0", request(&["popular"], again)).unwrap();
    mixer.remove("m1").unwrap();
    eventually("gone", || mixer.get("m1").is_none()).await;
    mixer.put("more", wanted).unwrap();
    assert_eq!(decoders(&mixer), (0, 0));
    mixer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_alone_of_a_stream_that_is_on_the_air_already_is_heard() {
    let (_guard, relay, mixer) = studio().await;
    let _anchor = Anchor::start(&relay, "a", MAIN);
    // Its headers are long sent, and its next key frame is up to a second away.
    Viewer::attach(&relay, "a").next(100).await;
    let radio = json!({"app": "live", "inputs": [{"canvas": "#000000", "layer": 1}, {"stream": "a", "kind": "audio", "layer": 2}],
        "output": {"stream": "radio", "width": 160, "height": 120, "fps": 10}});
    mixer
        .put("radio", serde_json::from_value(radio).unwrap())
        .unwrap();
    let radio = Viewer::attach(&relay, "radio");
    on_air(&radio).await;
    assert_eq!(decoders(&mixer), (0, 1));
    let (from, to) = settled(&radio).await;
    let film = decode(&radio.seen());
    let (_, sound) = film.between(from, to);
    assert!(is_steady(&levels(sound, MAIN.hz), 0.2));
    mixer.shutdown().await;
}
