//! Publishers that come back in another format, or change it on the way: they rejoin at their next key frame, and the
//! output stays what it was to the last byte of its headers.

use linkmic::probe::player::Watch;
use linkmic::probe::{Colour, Player, Size};
use serde_json::json;

use super::reading::{Wire, assert_even, shown};
use super::script::{Reel, Script};
use super::{CANVAS, FPS, hears, place};
use crate::studio::{Studio, advances};

/// As long as any act takes on a busy machine; it is cut off when it was seen.
const SECONDS: u32 = 30;
const MAIN_TONE: f64 = 400.0;

/// How a publisher comes back, and what is then to be seen and heard of it.
struct Act {
    what: &'static str,
    reel: Reel,
    turn: fn(Script) -> Script,
    seen: Option<Colour>,
    heard: bool,
}

fn acts() -> Vec<Act> {
    let plain = |n: i32, colour| Reel {
        colour,
        ..Reel::sub(20, 600.0 * 1.3f64.powi(n), SECONDS)
    };
    let act = |what, reel: Reel| Act {
        what,
        seen: Some(reel.colour),
        reel,
        turn: |s| s,
        heard: true,
    };
    let small = act("at first", plain(0, Colour::RED));
    let large = Reel {
        size: Size::new(320, 480),
        profile: "main",
        reordered: 2,
        rate: 44_100,
        channels: 2,
        ..plain(1, Colour::GREEN)
    };
    let middle = Reel {
        size: Size::new(240, 360),
        fps: 25,
        gop: 25,
        profile: "high",
        rate: 32_000,
        ..plain(2, Colour::YELLOW)
    };
    let mute = Act {
        turn: |s| s.keep(|cue| cue.is_picture()),
        heard: false,
        ..act("without sound", plain(3, Colour::RED))
    };
    let dark = Act {
        turn: |s| s.keep(|cue| !cue.is_picture()),
        seen: None,
        ..act("without pictures", plain(4, Colour::BLACK))
    };
    let whole = Reel {
        rate: 22_050,
        channels: 2,
        ..plain(5, Colour::GREEN)
    };
    let late = Act {
        turn: |s| s.keep(|cue| cue.is_picture() || cue.tag.is_header() || cue.at > 1_500),
        ..act("with sound that begins later", plain(6, Colour::RED))
    };
    let dawning = Act {
        turn: |s| s.keep(|cue| !cue.is_picture() || cue.tag.is_header() || cue.at > 1_500),
        ..act("with pictures that begin later", plain(7, Colour::YELLOW))
    };
    // A core of 24 kHz that comes out at 48, as its header says. No program here makes the part that restores the treble.
    let efficient = Act {
        turn: |s| {
            s.each(|cue| {
                if !cue.is_picture() && cue.tag.is_header() {
                    cue.tag.body.splice(2.., [0x2b, 0x09, 0x88, 0x00]);
                }
            })
        },
        ..act(
            "in HE-AAC",
            Reel {
                rate: 24_000,
                ..plain(8, Colour::GREEN)
            },
        )
    };
    vec![
        small,
        act("larger, main profile with B-frames, 44.1 kHz stereo", large),
        act("smaller, high profile, 25 pictures, 32 kHz", middle),
        mute,
        dark,
        act("with both again, 22.05 kHz stereo", whole),
        late,
        dawning,
        efficient,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_return_in_other_formats_and_the_output_is_untouched() {
    let acts = acts();
    let main = Reel {
        size: CANVAS,
        colour: Colour::BLUE,
        ..Reel::sub(FPS as u32, MAIN_TONE, SECONDS * 2)
    };
    let other_main = Reel {
        size: Size::new(300, 480),
        profile: "high",
        reordered: 2,
        rate: 44_100,
        channels: 2,
        ..main.clone()
    };
    let reels = acts.iter().map(|act| &act.reel);
    let reels = reels.chain([&main, &other_main]);
    let mut scripts = futures_util::future::join_all(reels.map(Reel::script)).await;
    let (other_main, main) = (scripts.pop().expect("two"), scripts.pop().expect("two"));
    let studio = Studio::open().await;
    let out = studio.urls.plain("out");
    let watch = Watch {
        size: CANVAS,
        regions: vec![CANVAS.whole(), place(480)],
    };
    let mut viewer = Player::start(&out, watch).await.expect("ffmpeg");
    let scene = json!({
        "app": "live",
        "inputs": [
            {"stream": "a", "layer": 1},
            {"stream": "b", "layer": 2, "x": 300, "y": 480, "width": 100, "height": 150},
        ],
        "output": {"stream": "out", "width": CANVAS.width, "height": CANVAS.height, "fps": FPS, "video_kbps": 800},
    });
    studio.put("/api/v1/mixes/m", &scene).await;
    let wire = Wire::of(&out).await;
    // Who returns by the same address is known at once to be the one who was there.
    let [a, b] = ["a", "b"].map(|name| studio.urls.push(name));
    let on_air = main.start(a.clone());
    let mut tones = vec![MAIN_TONE];
    tones.extend(acts.iter().map(|act| act.reel.tone));
    let mut last = None;
    for (act, script) in acts.iter().zip(&scripts) {
        println!("{}", act.what);
        // It takes over from the one before, who has gone without a word.
        drop(last.take());
        last = Some((act.turn)(script.clone()).start(b.clone()));
        let own = act.heard.then_some(act.reel.tone);
        let heard: Vec<f64> = [MAIN_TONE].into_iter().chain(own).collect();
        hears(&mut viewer, &tones, &heard).await;
        if let Some(colour) = act.seen {
            advances(&mut viewer, 1, colour, 10).await;
        }
    }
    // The same without an end between: on one connection the first format, then the second.
    drop(last.take());
    let short = scripts[0].clone().keep(|cue| cue.at < 2_000);
    last = Some(short.then(scripts[1].clone()).start(b.clone()));
    advances(&mut viewer, 1, Colour::RED, 10).await;
    advances(&mut viewer, 1, Colour::GREEN, 10).await;
    hears(&mut viewer, &tones, &[MAIN_TONE, acts[1].reel.tone]).await;

    // And the main: another size, profile, rate and number of channels.
    drop(on_air);
    let _again = other_main.start(a);
    advances(&mut viewer, 0, Colour::BLUE, 10).await;
    hears(&mut viewer, &tones, &[MAIN_TONE, acts[1].reel.tone]).await;
    drop(last);
    wire.assert_untouched();
    viewer.look(|seen| {
        assert_eq!(seen.errors, Vec::<String>::new());
        assert_even(&shown(seen, &[FPS as u32]));
    });
    let mix = studio.get("/api/v1/mixes/m").await;
    assert_eq!(mix["stats"]["restarts"], 0, "{mix}");
}
