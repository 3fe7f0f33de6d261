//! Inputs that misbehave: the output keeps its pace, nobody else notices, and what was late comes back to its time.
//!
//! All inputs follow one clock and carry their numbers, so how late one is can be read in each picture of the output, as
//! the media time of the one that behaves less that of the one that does not. A busy machine delays both.

use std::ops::Range;
use std::time::Duration;

use linkmic::probe::player::{Seen, Watch};
use linkmic::probe::{Player, Region, Size};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::reading::{Shown, Wire, assert_even, assert_undisturbed, lateness, shown};
use super::script::{Reel, Script};
use super::{FPS, median};
use crate::edge::SOON;
use crate::studio::Studio;

/// From when on all are there and have found their time, ms.
const SETTLED: i64 = 5_000;
/// What misbehaves does so in this while.
const TROUBLE: Range<i64> = 6_500..8_500;
/// From then on everything is as before.
const RECOVERED: i64 = 10_500;
/// All is judged up to here.
const END: i64 = 14_500;
/// Whoever watches on a busy machine sees the end well after it was sent, and what sounds then must still sound.
const SECONDS: u32 = 36;
/// Who is late by so much more than before is not back in time, ms: a picture's and a half's quantisation.
const BACK_WITHIN: i64 = 80;
/// Nobody is judged by single messages: a viewer that is late for a moment on a busy machine loses none.
const PATIENT: &str = "[classes.viewer]\nmax_lag = \"20s\"\n";

/// An input, and what is to be seen of it.
struct Role {
    name: &'static str,
    reel: Reel,
    act: fn(Script) -> Script,
    /// How late it may be while it misbehaves, ms; `None`: as late as it likes.
    at_most: Option<i64>,
    /// Whether its tone is heard when all is over.
    sounds: bool,
}

/// Sixteen tones that are told apart, from 300 Hz up.
fn tone(n: usize) -> f64 {
    300.0 * 1.25f64.powi(n as i32)
}

fn roles() -> Vec<Role> {
    let mut roles: Vec<Role> = Vec::new();
    let mut add = |name, fps, act: fn(Script) -> Script, at_most| {
        let reel = Reel::sub(fps, tone(roles.len() + 1), SECONDS);
        roles.push(Role {
            name,
            reel,
            act,
            at_most,
            sounds: true,
        });
    };
    add("behaves", 20, |s| s, Some(BACK_WITHIN));
    add("corrupt", 10, |s| s.damage(TROUBLE), None);
    add("headerless", 10, without_its_first_header, None);
    add("reordered", 10, |s| s, Some(BACK_WITHIN));
    add("slow", 1, |s| s, Some(BACK_WITHIN));
    add("fast", 60, |s| s, Some(BACK_WITHIN));
    add("variable", 30, |s| s, Some(3 * BACK_WITHIN));
    add("ahead", 10, |s| s.jump(TROUBLE.start, 5_000), Some(600));
    add("back", 10, |s| s.jump(TROUBLE.start, -5_000), Some(600));
    add("reset", 10, |s| s.reset(TROUBLE.start), Some(600));
    add("still", 10, |s| s.stand_still(TROUBLE), Some(600));
    add("jittery", 10, |s| s.jitter(TROUBLE, 200), Some(500));
    add("bursty", 10, |s| s.hold_up(TROUBLE), Some(2_500));
    add(
        "pictures",
        10,
        |s| s.keep(|cue| cue.is_picture()),
        Some(BACK_WITHIN),
    );
    for role in &mut roles {
        match role.name {
            "reordered" => (role.reel.profile, role.reel.reordered) = ("main", 2),
            // Two of five are left out, never evenly.
            "variable" => role.reel.filter = "select='gt(mod(n*7\\,11)\\,3)'",
            "pictures" => role.sounds = false,
            _ => {}
        }
    }
    roles
}

/// The header of its pictures comes only when the mix has long begun: nothing can be made of those before.
fn without_its_first_header(script: Script) -> Script {
    let header = script
        .0
        .iter()
        .find(|cue| cue.is_picture() && cue.tag.is_header());
    let mut header = header.expect("it has one").clone();
    let mut script = script.keep(|cue| !cue.is_picture() || !cue.tag.is_header());
    let late = script
        .0
        .iter()
        .position(|cue| cue.at >= TROUBLE.end && cue.tag.is_key_frame());
    let late = late.expect("a key frame");
    (header.at, header.says) = (script.0[late].at, script.0[late].says);
    script.0.insert(late, header);
    script
}

/// The place of input number `n` of the subs: five in a row under the main's number.
fn place(n: usize) -> Region {
    Region {
        x: n % 5 * 80,
        y: 100 + n / 5 * 124,
        width: 80,
        height: 120,
    }
}

const CANVAS: Size = Size::new(400, 480);

fn scene(roles: &[Role]) -> Value {
    let mut inputs = vec![json!({"stream": "main", "layer": 1, "gain": 0.3})];
    inputs.extend(roles.iter().enumerate().map(|(n, role)| {
        let Region { x, y, width, height } = place(n);
        json!({"stream": role.name, "layer": n + 2, "gain": 0.3, "x": x, "y": y, "width": width, "height": height})
    }));
    inputs.push(json!({"stream": "sound", "layer": 16, "gain": 0.3}));
    json!({
        "app": "live", "inputs": inputs,
        "output": {"stream": "out", "width": CANVAS.width, "height": CANVAS.height, "fps": FPS, "video_kbps": 2000},
    })
}

/// What nine of ten are not above; `None` of nothing.
fn usually_at_most(late: &[i64]) -> Option<i64> {
    let mut sorted = late.to_vec();
    sorted.sort_unstable();
    sorted.get(late.len() * 9 / 10).copied()
}

/// Waits until input `n`, which has that frame rate, is shown at a media time, ms.
async fn upto(viewer: &mut Player, fps: u32, n: usize, media: i64) {
    let number = media * i64::from(fps) / 1000;
    let reached = viewer.until("the end of the script", SOON, |seen| {
        let newest = seen
            .sightings
            .iter()
            .rev()
            .find_map(|s| s.readings[n].counter)?;
        (i64::from(newest) >= number).then_some(())
    });
    reached.await.unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_that_misbehave_in_every_way_disturb_neither_the_output_nor_each_other() {
    let roles = roles();
    let main = Reel {
        size: CANVAS,
        ..Reel::sub(FPS as u32, tone(0), SECONDS)
    };
    let sound = Reel::sub(1, tone(15), SECONDS);
    let reels = roles.iter().map(|role| &role.reel).chain([&main, &sound]);
    let scripts = futures_util::future::join_all(reels.map(Reel::script)).await;
    let studio = Studio::open_alone(PATIENT).await;
    let mut regions = vec![CANVAS.whole()];
    regions.extend((0..roles.len()).map(place));
    let watch = Watch {
        size: CANVAS,
        regions,
    };
    let url = studio.urls.plain("out");
    let mut viewer = Player::start(&url, watch).await.expect("ffmpeg");
    let begin = Instant::now() + Duration::from_millis(200);
    let names = roles.iter().map(|role| role.name).chain(["main", "sound"]);
    let acts = roles.iter().map(|role| role.act);
    let acts = acts.chain([(|s| s) as fn(Script) -> Script, |s| {
        s.keep(|cue| !cue.is_picture())
    }]);
    let mut senders = tokio::task::JoinSet::new();
    for ((name, act), script) in names.zip(acts).zip(scripts) {
        senders.spawn(act(script).send(studio.urls.push(name), begin));
    }
    studio.put("/api/v1/mixes/m", &scene(&roles)).await;

    upto(&mut viewer, FPS as u32, 0, END).await;
    // Everybody is heard at the end, when nobody misbehaves any more. To listen for so many tones takes a while, so it
    // is not done at each picture.
    let silent = |seen: &Seen| -> Vec<&'static str> {
        let heard = roles
            .iter()
            .zip(1..)
            .filter(|(role, n)| seen.hears(tone(*n)) != role.sounds);
        let mut wrong: Vec<&'static str> = heard.map(|(role, _)| role.name).collect();
        wrong.extend((!seen.hears(tone(0))).then_some("main"));
        wrong.extend((!seen.hears(tone(15))).then_some("sound"));
        wrong
    };
    let mut listened = 0;
    let heard = viewer.until("all that sound", SOON, |seen| {
        if seen.total < listened + 10 {
            return None;
        }
        listened = seen.total;
        silent(seen).is_empty().then_some(())
    });
    if let Err(error) = heard.await {
        panic!("{error}; wrong: {:?}", viewer.look(silent));
    }
    while let Some(sent) = senders.try_join_next() {
        sent.expect("it sends everything");
    }
    let mix = studio.get("/api/v1/mixes/m").await;
    println!("{}", mix["stats"]);
    assert_eq!(mix["stats"]["restarts"], 0, "{mix}");
    senders.abort_all();
    viewer.look(|seen| {
        assert_eq!(seen.errors, Vec::<String>::new());
        let mut rates = vec![FPS as u32];
        rates.extend(roles.iter().map(|role| role.reel.fps));
        let shown = shown(seen, &rates);
        let on_air = |s: &Shown| s.media[0].is_some_and(|main| (SETTLED..END).contains(&main));
        let from = shown.iter().position(on_air).expect("it begins");
        let until = shown.iter().rposition(on_air).expect("it begins");
        let played = &shown[from..until];
        assert_even(played);
        assert_undisturbed("main", played, 0);
        let mut wrong = Vec::new();
        for (role, n) in roles.iter().zip(1..) {
            let before = lateness(played, n, 0, SETTLED..TROUBLE.start);
            let meanwhile = lateness(played, n, 0, TROUBLE.start..RECOVERED);
            let after = lateness(played, n, 0, RECOVERED..END);
            let interval = 1000 / i64::from(role.reel.fps);
            let usual = usually_at_most(&before).unwrap_or(0).max(interval);
            let worst = meanwhile.iter().max().copied().unwrap_or(0);
            let end = usually_at_most(&after).unwrap_or(i64::MAX);
            println!(
                "{}: at most {usual} ms behind the main, then {worst}, then {end}, in {} of {} pictures",
                role.name,
                after.len(),
                played.len(),
            );
            let late = role.at_most.is_some_and(|most| worst > usual + most);
            if late || end > usual + BACK_WITHIN || after.len() < 40 {
                wrong.push(format!(
                    "{}: before {before:?}, meanwhile {meanwhile:?}, after {after:?}",
                    role.name
                ));
            }
            if role.name == "behaves" {
                assert_undisturbed(role.name, played, n);
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// A name, what is done to the script, and the while in which everything is to be as before.
type Trouble = (&'static str, fn(Script) -> Script, Range<i64>);

/// What goes wrong with a main, one after the other, from when all have found their time.
const TROUBLES: [Trouble; 6] = [
    ("ahead", |s| s.jump(8_000, 5_000), 9_500..11_000),
    ("back", |s| s.jump(11_000, -5_000), 12_500..14_000),
    ("reset", |s| s.reset(14_000), 15_500..17_000),
    ("still", |s| s.stand_still(17_000..18_000), 19_500..21_000),
    ("jittery", |s| s.jitter(21_000..23_000, 200), 24_000..25_000),
    (
        "bursty",
        |s| s.hold_up(25_000..27_000),
        28_500..TROUBLES_END,
    ),
];
const TROUBLES_END: i64 = 30_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_main_that_misbehaves_moves_neither_the_outputs_pace_nor_anybody_else() {
    let reel = Reel::sub(FPS as u32, tone(0), 31);
    let sub = Reel::sub(FPS as u32, tone(3), 31);
    let (main, sub) = tokio::join!(reel.script(), sub.script());
    let main = TROUBLES
        .iter()
        .fold(main, |script, (_, act, _)| act(script));
    let studio = Studio::open_alone(PATIENT).await;
    let canvas = Size::new(240, 360);
    let place = Region {
        x: 130,
        y: 150,
        width: 100,
        height: 150,
    };
    let url = studio.urls.plain("out");
    let watch = Watch {
        size: canvas,
        regions: vec![canvas.whole(), place],
    };
    let mut viewer = Player::start(&url, watch).await.expect("ffmpeg");
    let scene = json!({
        "app": "live",
        "inputs": [
            {"stream": "main", "layer": 1},
            {"stream": "sub", "layer": 2, "x": place.x, "y": place.y, "width": place.width, "height": place.height},
        ],
        "output": {"stream": "out", "width": canvas.width, "height": canvas.height, "fps": FPS, "video_kbps": 500},
    });
    studio.put("/api/v1/mixes/m", &scene).await;
    let wire = Wire::of(&url).await;
    let begin = Instant::now();
    let senders = [(main, "main"), (sub, "sub")];
    let senders =
        senders.map(|(script, name)| tokio::spawn(script.send(studio.urls.push(name), begin)));
    let [main, sub] = senders;
    // It takes longer than one wait may.
    for media in [TROUBLES_END / 2, TROUBLES_END] {
        upto(&mut viewer, FPS as u32, 1, media).await;
    }
    main.await.expect("it sends everything");
    sub.await.expect("it sends everything");
    wire.assert_untouched();
    let mix = studio.get("/api/v1/mixes/m").await;
    viewer.look(|seen| {
        assert_eq!(seen.errors, Vec::<String>::new());
        let shown = shown(seen, &[FPS as u32; 2]);
        assert_even(&shown);
        let on_air =
            |s: &Shown| s.media[1].is_some_and(|sub| (SETTLED..TROUBLES_END).contains(&sub));
        let from = shown.iter().position(on_air).expect("it begins");
        let until = shown.iter().rposition(on_air).expect("it begins");
        let played = &shown[from..until];
        assert_undisturbed("sub", played, 1);
        let before = ("before", SETTLED..8_000);
        let troubles = TROUBLES.map(|(what, _, after)| (what, after));
        let mut wrong = Vec::new();
        for (what, while_) in [before].into_iter().chain(troubles) {
            let late = lateness(played, 0, 1, while_);
            // One clock has sent both.
            let off = if late.is_empty() {
                i64::MAX
            } else {
                median(&late)
            };
            println!("{what}: {off} ms behind the sub");
            if off.unsigned_abs() > BACK_WITHIN as u64 {
                wrong.push(format!("{what}: {late:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}\n{mix}", wrong.join("\n"));
    });
}
