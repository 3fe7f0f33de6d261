//! Scenes that are wrong, sent to a mix that runs: each is refused with the field, the value and the limit, and the mix
//! goes on as it was.

use std::collections::BTreeSet;

use linkmic::probe::player::Watch;
use linkmic::probe::{Colour, Player};
use serde_json::{Value, json};

use super::reading::{assert_even, shown};
use super::script::Reel;
use super::{CANVAS, FPS, one_plus_one_regions};
use crate::studio::{Studio, advances};

/// Says nearly everything that can be said; what it leaves out is in the mistakes.
fn scene() -> Value {
    json!({
        "app": "live", "template": "linkmic", "background": "#101418", "transition_ms": 100,
        "on_loss": {"policy": "hide", "after_ms": 5000},
        "inputs": [
            {"stream": "a", "layer": 1, "fit": "crop"},
            {"stream": "b", "layer": 2, "x": 300, "y": 480, "width": 100, "height": 150, "opacity": 1, "radius": 0,
             "crop": {"x": 0, "y": 0, "width": "100%", "height": "100%"}, "border": {"width": 0, "color": "#ffffff"},
             "name": {"text": "B", "position": "bottom", "size": 8, "color": "#ffffff", "background_opacity": 0.1},
             "hidden": false, "gain": 1, "mute": false},
        ],
        "output": {"stream": "out", "width": CANVAS.width, "height": CANVAS.height, "fps": FPS, "video_kbps": 800},
    })
}

/// Where in the scene, what instead (`null`: nothing), and how the message begins.
#[rustfmt::skip]
fn mistakes() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("/app", json!("li ve"), "app: application name has the character ' '"),
        ("/app", json!(1), "app: invalid type: integer `1`"),
        ("/inputs", json!([]), "inputs: 0 inputs; a mix has 1 to 16"),
        ("/template", json!(310), "template: template 310 is for 3 inputs with pictures; there are 2"),
        ("/template", json!("pip"), "template: "),
        ("/background", json!("red"), "background: "),
        ("/transition_ms", json!(10_001), "transition_ms: 10001 is outside 0 to 10000 ms"),
        ("/transition_ms", json!("1s"), "transition_ms: invalid type: string \"1s\""),
        ("/on_loss/policy", json!("vanish"), "on_loss.policy: "),
        ("/on_loss/after_ms", json!(900_001), "on_loss.after_ms: 900001 is outside 0 to 900000 ms"),
        ("/on_loss/picture", json!({"file": "away"}), "on_loss.picture: given without the policy"),
        ("/on_loss", json!({"policy": "placeholder", "picture": {"file": "away"}}), "on_loss.picture: "),
        ("/watermark", json!({"file": "logo"}), "watermark: "),
        ("/watermark", json!({"file": "l", "url": "http://a/b"}), "watermark: both file and url"),
        ("/watermark", json!({"file": "l", "position": "north"}), "watermark.position: "),
        ("/watermark", json!({"file": "l", "margin": 3001}), "watermark.margin: 3001 is outside 0 to 3000 pixels"),
        ("/watermark", json!({"file": "l", "x": 1}), "watermark.y: missing"),
        ("/watermark", json!({"file": "l", "width": "0%"}), "watermark.width: 0% is no share"),
        ("/watermark", json!({"file": "l", "height": 0}), "watermark.height: 0 is outside"),
        ("/watermark", json!({"file": "l", "opacity": 2}), "watermark.opacity: 2 is outside 0 to 1"),
        ("/inputs/1/stream", json!("a"), "inputs[1].stream: stream a is an input already"),
        ("/inputs/1/stream", json!("a/b"), "inputs[1].stream: stream name has the character '/'"),
        ("/inputs/1/kind", json!("both"), "inputs[1].kind: "),
        ("/inputs/1/picture", json!({"file": "board"}), "inputs[1]: more than one of"),
        ("/inputs/1/canvas", json!("#000000"), "inputs[1]: more than one of"),
        ("/inputs/1/id", json!("a"), "inputs[1].id: id a is taken"),
        ("/inputs/1/layer", json!(17), "inputs[1].layer: 17 is outside 1 to 16"),
        ("/inputs/1/layer", json!(1), "inputs[1].layer: layer 1 is taken"),
        ("/inputs/1/x", json!(301), "inputs[1].x: the box ends at 401 on a canvas of 400"),
        ("/inputs/1/x", json!([1]), "inputs[1].x: "),
        ("/inputs/1/y", json!("80%"), "inputs[1].y: the box ends at 662 on a canvas of 640"),
        ("/inputs/1/width", json!(3001), "inputs[1].width: 3001 is outside 2 to 3000 pixels"),
        ("/inputs/1/height", json!(1), "inputs[1].height: 1 is outside 2 to 3000 pixels"),
        ("/inputs/1/crop/width", json!(0), "inputs[1].crop.width: 0 is outside 2 to 3000"),
        ("/inputs/1/crop/x", json!("1%"), "inputs[1].crop.x: the crop ends at 101% of the source"),
        ("/inputs/1/fit", json!("fill"), "inputs[1].fit: "),
        ("/inputs/1/opacity", json!(1.5), "inputs[1].opacity: 1.5 is outside 0 to 1"),
        ("/inputs/1/radius", json!("51%"), "inputs[1].radius: 51% is outside 0% to 50%"),
        ("/inputs/1/border/width", json!(51), "inputs[1].border.width: 51 is outside 0 to 50 pixels"),
        ("/inputs/1/border/color", json!("white"), "inputs[1].border.color: "),
        ("/inputs/1/name/text", json!(""), "inputs[1].name.text: 0 characters; a name has 1 to 64"),
        ("/inputs/1/name/text", json!("\u{10fffd}"), "inputs[1].name.text: "),
        ("/inputs/1/name/position", json!("middle"), "inputs[1].name.position: "),
        ("/inputs/1/name/size", json!(7), "inputs[1].name.size: 7 is outside 8 to 200 pixels"),
        ("/inputs/1/name/color", json!("#fff"), "inputs[1].name.color: "),
        ("/inputs/1/name/background", json!(0), "inputs[1].name.background: "),
        ("/inputs/1/name/background_opacity", json!(-1), "inputs[1].name.background_opacity: -1 is outside 0 to 1"),
        ("/inputs/1/hidden", json!("no"), "inputs[1].hidden: "),
        ("/inputs/1/gain", json!(5), "inputs[1].gain: 5 is outside 0 to 4"),
        ("/inputs/1/mute", json!(0), "inputs[1].mute: "),
        ("/inputs/1/colour", json!("red"), "inputs[1].colour: "),
        ("/output", Value::Null, "missing field `output`"),
        ("/output/stream", json!("a"), "output.stream: "),
        ("/output/width", json!(401), "output.width: 401 is odd"),
        ("/output/height", Value::Null, "output.height: missing; width and height go together"),
        ("/output/fps", json!(61), "output.fps: 61 is outside 1 to 60"),
        ("/output/gop", json!(0.4), "output.gop: 0.4 is outside 0.5 to 10 seconds"),
        ("/output/video_kbps", json!(50_001), "output.video_kbps: 50001 is outside 1 to 50000"),
        ("/output/audio_kbps", json!(15), "output.audio_kbps: 15 is outside 16 to 500"),
        ("/output/sample_rate", json!(47_999), "output.sample_rate: 47999 is none of 96000"),
        ("/output/channels", json!(3), "output.channels: 3 is outside 1 to 2"),
        ("/output/preset", json!("placebo"), "output.preset: \"placebo\" is none of ultrafast"),
        ("/output/passthrough", json!("always"), "output.passthrough: "),
        ("/output/codec_change", json!("yes"), "output.codec_change: "),
        ("/output/mix_sei", json!(""), "output.mix_sei: text of 0 bytes is outside 1 to 1024"),
        ("/output/pass_sei", json!(1), "output.pass_sei: "),
    ]
}

fn with(mut scene: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
    let parent = scene.pointer_mut(parent).and_then(Value::as_object_mut);
    let parent = parent.expect("the field's parent");
    if value.is_null() {
        parent.remove(field);
    } else {
        parent.insert(field.to_owned(), value);
    }
    scene
}

/// The fields that the page for users has a row for.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../../docs/mixing.md");
    let (page, _) = page.split_once("## Templates").expect("the fields' end");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let names = rows.filter_map(|row| row.split('|').nth(1));
    let names = names.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_scene_is_refused_by_its_field_and_leaves_the_running_mix_as_it_was() {
    let mistakes = mistakes();
    let tried: BTreeSet<&str> = mistakes
        .iter()
        .flat_map(|(pointer, _, _)| pointer.split('/'))
        .collect();
    let documented = documented();
    assert!(documented.len() > 35, "{documented:?}");
    let untried: Vec<_> = documented
        .iter()
        .filter(|f| !tried.contains(f.as_str()))
        .collect();
    assert!(untried.is_empty(), "fields without a mistake: {untried:?}");

    let main = Reel {
        size: CANVAS,
        colour: Colour::BLUE,
        ..Reel::sub(FPS as u32, 400.0, 60)
    };
    let sub = Reel::sub(FPS as u32, 700.0, 60);
    let (main, sub) = tokio::join!(main.script(), sub.script());
    let studio = Studio::open().await;
    let watch = Watch {
        size: CANVAS,
        regions: one_plus_one_regions().to_vec(),
    };
    let url = studio.urls.plain("out");
    let mut viewer = Player::start(&url, watch).await.expect("ffmpeg");
    studio.put("/api/v1/mixes/m", &scene()).await;
    let _main = main.start(studio.urls.push("a"));
    let _sub = sub.start(studio.urls.push("b"));
    advances(&mut viewer, 0, Colour::BLUE, 5).await;
    advances(&mut viewer, 1, Colour::RED, 5).await;

    let running = |mix: &Value| {
        [
            mix["revision"].clone(),
            mix["inputs"].clone(),
            mix["output"].clone(),
        ]
    };
    let before = studio.get("/api/v1/mixes/m").await;
    let mut wrong = Vec::new();
    for (pointer, value, said) in mistakes {
        let body = with(scene(), pointer, value.clone());
        let answer = studio
            .api
            .put("/api/v1/mixes/m", &body)
            .await
            .expect("an answer");
        let message = answer.json()["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let refused = matches!(answer.status, 400 | 409);
        if !refused || !message.starts_with(said) {
            wrong.push(format!(
                "{pointer} {value}: {} {message:?}, not {said:?}",
                answer.status
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let after = studio.get("/api/v1/mixes/m").await;
    assert_eq!(running(&after), running(&before));
    advances(&mut viewer, 0, Colour::BLUE, 5).await;
    advances(&mut viewer, 1, Colour::RED, 5).await;
    viewer.look(|seen| {
        assert_eq!(seen.errors, Vec::<String>::new());
        assert_even(&shown(seen, &[FPS as u32; 2]));
    });
}
