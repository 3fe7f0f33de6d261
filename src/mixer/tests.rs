//! Mixes of real publishers, judged by what a viewer's decoders make of them.

mod studio;

use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

use self::studio::{
    Anchor, Film, Look, Seen, Viewer, decode, eventually, is_sequence, key, levels, mixing_threads,
};
use super::*;
use crate::relay;

/// Real-time tests one after the other: together they would measure the machine.
static STUDIO: Mutex<()> = Mutex::const_new(());

const MAIN: Look = Look {
    width: 360,
    height: 640,
    fps: 20,
    colour: 0xff0000,
    hz: 440,
    rate: 48_000,
};
const SUBS: [Look; 3] = [
    Look {
        width: 160,
        height: 240,
        fps: 15,
        colour: 0x00ff00,
        hz: 660,
        rate: 44_100,
    },
    Look {
        width: 160,
        height: 240,
        fps: 20,
        colour: 0x0000ff,
        hz: 880,
        rate: 48_000,
    },
    Look {
        width: 320,
        height: 480,
        fps: 10,
        colour: 0xffff00,
        hz: 1_320,
        rate: 48_000,
    },
];
/// Boxes of the subs on 360×640 in the official layout.
const BOXES: [(u32, u32); 3] = [(240, 400), (240, 220), (240, 40)];

async fn studio() -> (MutexGuard<'static, ()>, Relay, Mixer) {
    let guard = STUDIO.lock().await;
    let relay = Relay::new(relay::Config::default());
    let mixer = Mixer::new(relay.clone(), Config::default()).expect("GStreamer is installed");
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

/// Counters seen over a film's frames in a box: they must only move ahead, and by how much they did.
fn advance(film: &Film, (x, y): (u32, u32), (width, height): (u32, u32)) -> usize {
    let counters: Vec<_> = film
        .frames
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
        let after: Vec<_> = seen[at..]
            .iter()
            .map(|s| &s.message)
            .filter(|m| !m.is_header())
            .collect();
        let first = after.iter().find(|m| m.kind == Kind::Video).unwrap();
        assert!(first.is_video_key());
        let before = *video_times(&seen[..at]).last().unwrap();
        let gap = first.dts.0 - before;
        println!("splice gap {gap} ms");
        assert!((1..=150).contains(&gap), "{gap}");
    }
    // The mix's frames are evenly spaced whatever the inputs do.
    let times = video_times(&seen[into..back]);
    assert!(times.windows(2).all(|w| w[1] - w[0] == 50), "{times:?}");

    // What the viewer sees and hears from the whole mix, judged where all inputs are live.
    let film = decode(&seen[into..back]);
    let from = mixed[0].message.dts.0;
    let frames: Vec<_> = film
        .frames
        .iter()
        .filter(|f| f.pts_ms > from + 200)
        .collect();
    assert!(frames.len() > 40, "{}", frames.len());
    for frame in &frames {
        assert_eq!((frame.width, frame.height), (360, 640));
        assert!(
            frame.is_colour(60, 400, MAIN.colour),
            "{:?}",
            frame.at(60, 400)
        );
        for (look, (x, y)) in SUBS.iter().zip(BOXES) {
            assert!(
                frame.is_colour(x + 60, y + 130, look.colour),
                "{:?}",
                frame.at(x + 60, y + 130)
            );
        }
    }
    let film = Film {
        frames: film
            .frames
            .into_iter()
            .filter(|f| f.pts_ms > from + 200)
            .collect(),
        sound: film.sound,
    };
    let seconds = film.frames.len() as f64 / 20.0;
    assert!(advance(&film, (0, 0), (360, 640)) as f64 > 17.0 * seconds);
    for (look, place) in SUBS.iter().zip(BOXES) {
        let moved = advance(&film, place, (120, 180)) as f64;
        assert!(
            moved > f64::from(look.fps) * seconds * 0.8,
            "{moved} in {seconds} s of {look:?}"
        );
    }
    let late = &film.sound[film.sound.len() / 3..];
    for look in SUBS.iter().chain([&MAIN]) {
        let heard = levels(late, look.hz);
        assert!(
            heard.iter().all(|v| (0.17..0.23).contains(v)),
            "{} Hz: {heard:?}",
            look.hz
        );
    }
    // No tone that nobody sends.
    assert!(levels(late, 1_000).iter().all(|&v| v < 0.02));
    eventually("no thread left", || mixing_threads() == 0).await;
}
