//! Mixes of real publishers, judged by what a viewer's decoders make of them.

mod changes;
mod decoders;
pub(super) mod faults;
mod guard;
mod passing;
mod preview;
mod scenes;
mod sources;
mod stills;
pub(super) mod studio;

use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

use self::studio::{
    Anchor, Frame, Look, Seen, Viewer, decode, eventually, is_sequence, key, levels, mixing_threads,
};
use super::*;
use crate::media::Codec;
use crate::relay::{self, Origin};

/// Real-time tests one after the other: together they would measure the machine.
static STUDIO: Mutex<()> = Mutex::const_new(());

const MAIN: Look = Look {
    width: 360,
    height: 640,
    fps: 20,
    colour: 0xff0000,
    corner: None,
    hz: 440,
    rate: 48_000,
};
const SUBS: [Look; 3] = [
    Look {
        width: 160,
        height: 240,
        fps: 15,
        colour: 0x00ff00,
        corner: None,
        hz: 660,
        rate: 44_100,
    },
    Look {
        width: 160,
        height: 240,
        fps: 20,
        colour: 0x0000ff,
        corner: None,
        hz: 880,
        rate: 48_000,
    },
    Look {
        width: 320,
        height: 480,
        fps: 10,
        colour: 0xffff00,
        corner: None,
        hz: 1_320,
        rate: 48_000,
    },
];
/// GLib keeps this many unused threads, under their last names, for a while. One 1+3 mix has 14.
const IDLE_THREADS: usize = 8;
/// Boxes of the subs on 360×640 in the official layout.
const BOXES: [(u32, u32); 3] = [(240, 400), (240, 220), (240, 40)];

/// A mixer that makes no less of what is asked for when a busy machine makes its encoders late: every step down would be
/// another header.
async fn studio() -> (MutexGuard<'static, ()>, Relay, Mixer) {
    studio_with(Config {
        degrade: false,
        ..Config::default()
    })
    .await
}

async fn studio_with(config: Config) -> (MutexGuard<'static, ()>, Relay, Mixer) {
    let guard = STUDIO.lock().await;
    let relay = Relay::new(relay::Config::default());
    let mixer = Mixer::new(relay.clone(), config).expect("GStreamer is installed");
    (guard, relay, mixer)
}

fn request(names: &[&str], output: serde_json::Value) -> MixRequest {
    let inputs: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(n, name)| json!({"stream": name, "layer": n + 1}))
        .collect();
    serde_json::from_value(json!({"app": "live", "inputs": inputs, "output": output})).unwrap()
}

/// Decode times of the video frames, headers left out.
fn video_times(seen: &[Seen]) -> Vec<i64> {
    let frames = seen
        .iter()
        .map(|s| &s.message)
        .filter(|m| m.kind == Kind::Video && !m.is_header());
    frames.map(|m| m.dts.0).collect()
}

/// Index of the first header of the nth set (counted from 0) that holds a video decoder configuration.
fn splice(seen: &[Seen], nth: usize) -> Option<usize> {
    let is_video = |s: &Seen| s.message.kind == Kind::Video && is_sequence(&s.message);
    let mut sets = (0..seen.len()).filter(|&at| is_video(&seen[at]));
    let at = sets.nth(nth)?;
    let headers = seen[..at]
        .iter()
        .rev()
        .take_while(|s| s.message.is_header());
    Some(at - headers.count())
}

/// Counters seen over some frames in a box: they must only move ahead, and by how much they did.
fn advance(frames: &[&Frame], (x, y): (u32, u32), (width, height): (u32, u32)) -> usize {
    let counters: Vec<_> = frames
        .iter()
        .map(|f| f.counter(x, y, width, height))
        .collect();
    let mut total = 0;
    for pair in counters.windows(2) {
        let step = (pair[1] + 256 - pair[0]) % 256;
        assert!(step < 64, "{counters:?}");
        total += step;
    }
    total
}

/// Is a tone at that level throughout? One window in ten may be off: on a busy machine sound comes too late now and then,
/// and a clock just learnt is corrected.
fn is_steady(levels: &[f64], wanted: f64) -> bool {
    let good = levels
        .iter()
        .filter(|&&v| (v - wanted).abs() < 0.06)
        .count();
    good > 0 && good * 10 >= levels.len() * 9
}

/// Mean level of a tone.
fn loudness(sound: &[f32], hz: u32) -> f64 {
    let levels = levels(sound, hz);
    levels.iter().sum::<f64>() / levels.len().max(1) as f64
}

/// Lets a change settle, then some time of output pass; from when to when that is.
async fn settled(viewer: &Viewer) -> (i64, i64) {
    viewer.watch_for(300).await;
    let from = viewer.now_ms();
    viewer.watch_for(400).await;
    (from, from + 400)
}

/// All frames have these colours at these places.
fn assert_colours(what: &str, frames: &[&Frame], places: &[(u32, u32, u32)]) {
    assert!(frames.len() > 5, "{what}: {} frames", frames.len());
    for frame in frames {
        for &(x, y, colour) in places {
            let got = frame.at(x, y);
            assert!(
                frame.is_colour(x, y, colour),
                "{what}: {got:?} at {x},{y} is not {colour:06x}"
            );
        }
    }
}

fn state_of(mixer: &Mixer, id: &str, input: usize) -> InputState {
    mixer.get(id).expect("the mix is there").inputs[input].state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_and_three_mixed_in_place_and_back() {
    let (_guard, relay, mixer) = studio().await;
    let _main = Anchor::start(&relay, "main", MAIN);
    let _subs = [0, 1, 2].map(|n| Anchor::start(&relay, &format!("sub{n}"), SUBS[n]));
    let viewer = Viewer::attach(&relay, "main");
    viewer.next(60).await;

    let wanted = request(&["main", "sub0", "sub1", "sub2"], json!({"stream": "main"}));
    let (info, outcome) = mixer.put("pk", wanted.clone()).unwrap();
    assert_eq!(
        (outcome, info.in_place, info.revision),
        (Outcome::Created, true, 1)
    );
    assert_eq!(mixer.put("pk", wanted).unwrap().1, Outcome::Unchanged);
    eventually("on air", || splice(&viewer.seen(), 1).is_some()).await;
    eventually("all inputs live", || {
        mixer
            .get("pk")
            .unwrap()
            .inputs
            .iter()
            .all(|i| i.state == InputState::Live)
    })
    .await;
    let mixed = viewer.next(220).await;
    let info = mixer.get("pk").unwrap();
    assert_eq!(info.state, MixState::Live);
    assert_eq!(
        info.output.size,
        Some(Size {
            width: 360,
            height: 640
        })
    );
    assert_eq!(info.output.fps, Some(20));
    println!("{}", serde_json::to_string(&info).unwrap());

    mixer.remove("pk").unwrap();
    eventually("gone", || mixer.get("pk").is_none()).await;
    viewer.next(40).await;
    let seen = viewer.seen();

    // Two splices: each brings headers and a key frame, and no more than a frame of time passes.
    let (into, back) = (splice(&seen, 1).unwrap(), splice(&seen, 2).unwrap());
    assert_eq!(splice(&seen, 3), None);
    for at in [into, back] {
        let is_frame = |s: &&Seen| s.message.kind == Kind::Video && !s.message.is_header();
        let first = seen[at..].iter().find(is_frame).unwrap();
        let before = seen[..at].iter().rfind(is_frame).unwrap();
        assert!(first.message.is_video_key());
        // An interval is 50 ms; the rest is a busy machine.
        let media = first.message.dts.0 - before.message.dts.0;
        let wall = first.at.duration_since(before.at).as_millis();
        println!("splice: {media} ms of media, {wall} ms of time");
        assert!((1..=200).contains(&media) && wall <= 400);
    }
    // The mix's frames are evenly spaced whatever the inputs do.
    let times = video_times(&seen[into..back]);
    assert!(times.windows(2).all(|w| w[1] - w[0] == 50), "{times:?}");

    // What the viewer sees and hears from the whole mix, judged where all inputs are live.
    let film = decode(&seen[into..back]);
    let from = mixed[0].message.dts.0 + 200;
    let (frames, sound) = film.between(from, i64::MAX / 100);
    assert!(frames.len() > 40, "{}", frames.len());
    for frame in &frames {
        assert_eq!((frame.width, frame.height), (360, 640));
        assert!(
            frame.is_colour(60, 400, MAIN.colour),
            "{:?}",
            frame.at(60, 400)
        );
        for (look, (x, y)) in SUBS.iter().zip(BOXES) {
            let at = (x + 60, y + 130);
            assert!(
                frame.is_colour(at.0, at.1, look.colour),
                "{:?}",
                frame.at(at.0, at.1)
            );
        }
    }
    let seconds = frames.len() as f64 / 20.0;
    assert!(advance(&frames, (0, 0), (360, 640)) as f64 > 17.0 * seconds);
    for (look, place) in SUBS.iter().zip(BOXES) {
        let moved = advance(&frames, place, (120, 180)) as f64;
        assert!(
            moved > f64::from(look.fps) * seconds * 0.8,
            "{moved} in {seconds} s of {look:?}"
        );
    }
    for look in SUBS.iter().chain([&MAIN]) {
        let heard = levels(sound, look.hz);
        assert!(is_steady(&heard, 0.2), "{} Hz: {heard:?}", look.hz);
    }
    // No tone that nobody sends.
    assert!(is_steady(&levels(sound, 1_050), 0.0));
    eventually("no thread left", || mixing_threads() <= IDLE_THREADS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_stop_and_return_and_the_output_does_not_notice() {
    let (_guard, relay, mixer) = studio().await;
    let main = Anchor::start(&relay, "main", MAIN);
    let sub = Anchor::start(&relay, "sub", SUBS[0]);
    let viewer = Viewer::attach(&relay, "main");
    mixer
        .put("pk", request(&["main", "sub"], json!({"stream": "main"})))
        .unwrap();
    let both_live = || (0..2).all(|n| state_of(&mixer, "pk", n) == InputState::Live);
    eventually("on air", || {
        splice(&viewer.seen(), 1).is_some() && both_live()
    })
    .await;
    viewer.watch_for(500).await;

    drop(sub);
    eventually("the sub is held", || {
        state_of(&mixer, "pk", 1) == InputState::Held
    })
    .await;
    let held = viewer.now_ms();
    viewer.watch_for(600).await;
    let back = viewer.now_ms();
    let _sub = Anchor::start(
        &relay,
        "sub",
        Look {
            colour: 0x00ffff,
            ..SUBS[0]
        },
    );
    eventually("the sub is back", both_live).await;
    viewer.watch_for(300).await;
    let returned = viewer.now_ms();
    viewer.watch_for(600).await;

    drop(main);
    eventually("the main is held", || {
        state_of(&mixer, "pk", 0) == InputState::Held
    })
    .await;
    let main_held = viewer.now_ms();
    viewer.watch_for(600).await;
    let main_back = viewer.now_ms();
    let _main = Anchor::start(
        &relay,
        "main",
        Look {
            colour: 0xff00ff,
            ..MAIN
        },
    );
    eventually("the main is back", both_live).await;
    viewer.watch_for(300).await;
    let main_returned = viewer.now_ms();
    viewer.watch_for(600).await;
    mixer.remove("pk").unwrap();
    eventually("gone", || mixer.get("pk").is_none()).await;

    let seen = viewer.seen();
    let (start, end) = (splice(&seen, 1).unwrap(), splice(&seen, 2).unwrap());
    let times = video_times(&seen[start..end]);
    assert!(times.windows(2).all(|w| w[1] - w[0] == 50), "{times:?}");
    let film = decode(&seen[start..end]);
    let (x, y) = BOXES[0];
    let shows = |frames: &[&Frame], main: u32, sub: u32| {
        assert!(frames.len() > 5, "{}", frames.len());
        for frame in frames {
            assert!(frame.is_colour(60, 400, main), "{:?}", frame.at(60, 400));
            assert!(
                frame.is_colour(x + 60, y + 130, sub),
                "{:?}",
                frame.at(x + 60, y + 130)
            );
        }
    };
    let mean = |sound: &[f32], hz| {
        let levels = levels(sound, hz);
        levels.iter().sum::<f64>() / levels.len() as f64
    };

    let (frames, sound) = film.between(held, back);
    shows(&frames, MAIN.colour, SUBS[0].colour);
    assert_eq!(
        advance(&frames, (x, y), (120, 180)),
        0,
        "a held picture stands"
    );
    assert!(advance(&frames, (0, 0), (360, 640)) > 5);
    assert!(mean(sound, 660) < 0.01 && mean(sound, 440) > 0.15);

    let (frames, sound) = film.between(returned, returned + 500);
    shows(&frames, MAIN.colour, 0x00ffff);
    assert!(advance(&frames, (x, y), (120, 180)) > 4);
    assert!(mean(sound, 660) > 0.15 && mean(sound, 440) > 0.15);

    let (frames, sound) = film.between(main_held, main_back);
    shows(&frames, MAIN.colour, 0x00ffff);
    assert_eq!(advance(&frames, (0, 0), (360, 640)), 0);
    assert!(advance(&frames, (x, y), (120, 180)) > 5);
    assert!(mean(sound, 660) > 0.15 && mean(sound, 440) < 0.01);

    let (frames, sound) = film.between(main_returned, main_returned + 500);
    shows(&frames, 0xff00ff, 0x00ffff);
    assert!(advance(&frames, (0, 0), (360, 640)) > 5);
    assert!(mean(sound, 660) > 0.15 && mean(sound, 440) > 0.15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_to_a_new_name_changes_while_it_runs() {
    let (_guard, relay, mixer) = studio().await;
    let wide = Look {
        width: 320,
        height: 160,
        ..SUBS[1]
    };
    let body = |box_x: u32, gain: f64, output: serde_json::Value| -> MixRequest {
        serde_json::from_value(json!({"app": "live", "output": output, "inputs": [
            {"stream": "main", "layer": 1},
            {"stream": "wide", "layer": 5, "x": box_x, "y": "25%", "width": 160, "height": 160, "gain": gain}]}))
        .unwrap()
    };
    let output =
        json!({"stream": "mixed", "width": 640, "height": 360, "fps": 25, "video_kbps": 900});
    let info = mixer.put("m", body(0, 0.0, output.clone())).unwrap().0;
    // Absent inputs are waited for, and the name is taken already.
    assert_eq!((info.state, info.in_place), (MixState::Waiting, false));
    assert!(relay.is_published(&key("mixed")));

    let _main = Anchor::start(&relay, "main", MAIN);
    let _wide = Anchor::start(&relay, "wide", wide);
    let viewer = Viewer::attach(&relay, "mixed");
    eventually("both live", || {
        (0..2).all(|n| state_of(&mixer, "m", n) == InputState::Live)
    })
    .await;
    viewer.watch_for(300).await;
    let first = viewer.now_ms();
    viewer.watch_for(500).await;
    let (info, outcome) = mixer.put("m", body(400, 1.0, output)).unwrap();
    assert_eq!((outcome, info.revision), (Outcome::Changed, 2));
    viewer.watch_for(400).await;
    let second = viewer.now_ms();
    viewer.watch_for(500).await;
    assert!(
        splice(&viewer.seen(), 1).is_none(),
        "a new layout is no new format"
    );

    let larger =
        json!({"stream": "mixed", "width": 320, "height": 320, "fps": 25, "video_kbps": 900});
    mixer.put("m", body(100, 1.0, larger)).unwrap();
    eventually("new headers", || splice(&viewer.seen(), 1).is_some()).await;
    viewer.watch_for(300).await;
    mixer.remove("m").unwrap();
    eventually("gone", || {
        mixer.list().is_empty() && !relay.is_published(&key("mixed"))
    })
    .await;

    let seen = viewer.seen();
    let times = video_times(&seen[..splice(&seen, 1).unwrap()]);
    assert!(times.windows(2).all(|w| w[1] - w[0] == 40), "{times:?}");
    let film = decode(&seen);
    // The main, 9:16 on 16:9, stands in the middle between bars; the wide sub has bars above and below.
    for (from, x, heard) in [(first, 0, 0.0), (second, 400, 0.2)] {
        let (frames, sound) = film.between(from, from + 400);
        assert!(frames.len() > 7, "{}", frames.len());
        for frame in &frames {
            assert_eq!((frame.width, frame.height), (640, 360));
            assert!(
                frame.is_colour(320, 240, MAIN.colour),
                "{:?}",
                frame.at(320, 240)
            );
            assert!(frame.is_colour(200, 50, 0), "{:?}", frame.at(200, 50));
            assert!(
                frame.is_colour(x + 140, 170, wide.colour),
                "{:?}",
                frame.at(x + 140, 170)
            );
            assert!(frame.is_colour(x + 80, 110, 0) && frame.is_colour(x + 80, 230, 0));
        }
        let tone = levels(sound, 880);
        assert!(is_steady(&tone, heard), "{tone:?}");
    }
    let last = film.frames.last().unwrap();
    assert_eq!((last.width, last.height), (320, 320));
    assert!(last.is_colour(200, 180, wide.colour));
    // The pipeline of the new size went on behind the old one: nothing is told twice. A block of sound has 21.3 ms; where
    // blocks begin is found anew from the lead's frames, whose times are whole ms.
    for (kind, least) in [(Kind::Video, 39), (Kind::Audio, 18)] {
        let times = seen.iter().map(|s| &s.message);
        let times = times.filter(|m| m.kind == kind && !m.is_header());
        let times: Vec<_> = times.map(|m| m.dts.0).collect();
        // The stream begins with its first picture; sound of just before is moved there.
        let steps = times.windows(2).skip(1).map(|pair| pair[1] - pair[0]);
        assert!(steps.min().unwrap() >= least, "{kind:?}: {times:?}");
    }

    // Again and again: nothing is left behind.
    for _ in 0..4 {
        let output = json!({"stream": "mixed", "width": 320, "height": 240});
        mixer.put("m", body(0, 1.0, output)).unwrap();
        eventually("live", || mixer.get("m").unwrap().state == MixState::Live).await;
        mixer.remove("m").unwrap();
        eventually("gone", || mixer.list().is_empty()).await;
    }
    eventually("no thread left", || mixing_threads() <= IDLE_THREADS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_with_its_field() {
    let (_guard, relay, mixer) = studio().await;
    let path = |result: Result<(MixInfo, Outcome), Error>| match result {
        Err(Error::Conflict { path, .. } | Error::Invalid { path, .. }) => path,
        other => panic!("{other:?}"),
    };
    let new = |inputs: &[&str], output: &str| request(inputs, json!({"stream": output}));
    assert_eq!(path(mixer.put("a/b", new(&["a"], "m"))), "id");
    assert_eq!(path(mixer.put(&"x".repeat(81), new(&["a"], "m"))), "id");

    mixer.put("one", new(&["a", "b"], "ab")).unwrap();
    assert_eq!(path(mixer.put("two", new(&["c"], "ab"))), "output.stream");
    assert_eq!(
        path(mixer.put("one", new(&["a", "b"], "other"))),
        "output.stream"
    );
    assert_eq!(
        path(mixer.put("one", new(&["a", "b"], "a"))),
        "output.stream"
    );
    // a, b -> ab -> abc -> b would be a circle.
    mixer.put("two", new(&["ab", "c"], "abc")).unwrap();
    assert_eq!(path(mixer.put("three", new(&["abc", "d"], "b"))), "inputs");
    assert_eq!(
        path(mixer.put("three", new(&["abc", "d"], "abc"))),
        "output.stream"
    );
    // In place nothing flows back.
    mixer.put("three", new(&["b", "abc"], "b")).unwrap();

    let _anchor = relay
        .publish(&key("taken"), Origin::Mix { id: "test".into() })
        .unwrap();
    assert_eq!(
        path(mixer.put("four", new(&["a"], "taken"))),
        "output.stream"
    );

    let publish = |name: &str, kind, payload: &'static [u8]| {
        let publisher = relay
            .publish(&key(name), Origin::Mix { id: "test".into() })
            .unwrap();
        let payload = bytes::Bytes::from_static(payload);
        let message = crate::media::Message::new(kind, crate::media::MediaTime(0), payload);
        publisher.publish(message, Instant::now());
        publisher
    };
    let _hevc = publish("hevc", Kind::Video, b"\x90hvc1record");
    let _he_aac = publish("he", Kind::Audio, &[0xaf, 0, 0x2b, 0x11, 0x88]);
    for name in ["hevc", "he"] {
        assert_eq!(
            path(mixer.put("five", new(&[name, "b"], name))),
            "output.codec_change"
        );
        let allowed = json!({"stream": name, "codec_change": true});
        mixer.put(name, request(&[name, "b"], allowed)).unwrap();
    }
    assert!(matches!(mixer.remove("five"), Err(Error::NotFound)));
    mixer.shutdown().await;
    assert!(mixer.list().is_empty());
    assert!(!relay.is_published(&key("ab")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_that_ends_while_its_format_changes_still_hands_back_by_a_splice() {
    let (_guard, relay, mixer) = studio().await;
    let _main = Anchor::start(&relay, "main", MAIN);
    let _sub = Anchor::start(&relay, "sub", SUBS[0]);
    let wanted = |output| request(&["main", "sub"], output);
    mixer
        .put("pk", wanted(json!({"stream": "main"})))
        .expect("the name is free");
    eventually("on air", || {
        mixer.get("pk").unwrap().state == MixState::Live
    })
    .await;
    let smaller = json!({"stream": "main", "width": 180, "height": 320});
    mixer.put("pk", wanted(smaller)).unwrap();
    mixer.remove("pk").unwrap();
    eventually("gone", || mixer.get("pk").is_none()).await;
    // Gone means that the source is back on the feed, not that viewers look at a still until its next key frame.
    assert!(!relay.stream_info(&key("main")).unwrap().mixed);
    mixer
        .put("pk", wanted(json!({"stream": "main"})))
        .expect("the name is free again");
    mixer.shutdown().await;
}
