use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn example() -> Value {
    json!({ "app": "live",
        "inputs": [
            {"stream": "8888_streamA", "layer": 1},
            {"stream": "8888_streamB", "layer": 2, "x": 380, "y": 630, "width": 160, "height": 240, "gain": 1.0}],
        "output": {"stream": "8888_streamA", "width": 540, "height": 960, "fps": 20, "video_kbps": 1200} })
}

/// Everything that a request can say.
pub(super) fn full() -> Value {
    json!({ "app": "live", "template": "grid", "background": "#202020", "transition_ms": 400,
        "on_loss": {"policy": "placeholder", "after_ms": 5000, "picture": {"file": "away"}},
        "watermark": {"url": "https://cdn.example/logo.png?sign=abc", "position": "bottom-right", "margin": "3%",
            "width": "15%", "opacity": 0.7},
        "inputs": [
            {"canvas": "0x102030", "layer": 1},
            {"id": "anchor", "stream": "a", "layer": 2, "fit": "crop", "opacity": 0.9, "radius": 12,
             "crop": {"x": "10%", "width": "80%", "height": 400},
             "border": {"width": 2, "color": "#ff0000"}, "gain": 0.5,
             "name": {"text": "Ann", "position": "top", "size": 20, "color": "#ffff00", "background": "#000000",
                "background_opacity": 0.3}},
            {"stream": "b", "kind": "audio", "layer": 3, "mute": true},
            {"stream": "c", "kind": "video", "layer": 4, "hidden": true},
            {"picture": {"file": "board"}, "layer": 5, "width": "20%"}],
        "output": {"stream": "mixed", "width": 1280, "height": 720, "fps": 30, "gop": 2, "video_kbps": 2000,
            "audio_kbps": 128, "sample_rate": 44100, "channels": 1, "preset": "veryfast", "passthrough": "never",
            "codec_change": true, "mix_sei": true, "pass_sei": true} })
}

fn parse(value: Value) -> MixRequest {
    serde_json::from_value(value).expect("the JSON has the right shape")
}

pub(super) fn read(value: Value) -> Result<Scene, Invalid> {
    Scene::new(&parse(value))
}

/// `json` with one field set to something else (`null` takes it away).
pub(super) fn set(mut json: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    match (json.pointer_mut(parent).expect("the field's parent"), value) {
        (Value::Object(map), Value::Null) => drop(map.remove(field)),
        (Value::Object(map), value) => drop(map.insert(field.into(), value)),
        _ => panic!("{pointer} is no field of an object"),
    }
    json
}

pub(super) fn with(pointer: &str, value: Value) -> Value {
    set(example(), pointer, value)
}

pub(super) fn but(pointer: &str, value: Value) -> Value {
    set(full(), pointer, value)
}

#[test]
fn the_documented_example_is_a_scene_in_place() {
    let scene = read(example()).unwrap();
    assert!(scene.in_place);
    assert_eq!(scene.lead_key(), Some(&scene.output.key));
    assert_eq!(scene.inputs[0].place, Place::default());
    assert_eq!(scene.canvas(), Some(Size::even(540.0, 960.0)));
    assert_eq!(scene.template, Template::Linkmic);
}

#[test]
fn everything_said_arrives_in_the_scene() {
    let scene = read(full()).unwrap();
    let [canvas, anchor, sound, video, board] = &scene.inputs[..] else {
        panic!("{:?}", scene.inputs);
    };
    assert_eq!(canvas.source, Source::Colour(Colour::rgb(0x102030)));
    assert_eq!((&*canvas.id, &*sound.id), ("canvas-1", "b"));
    assert_eq!((&*anchor.id, anchor.loudness()), ("anchor", 0.5));
    let crop = anchor.crop.unwrap();
    assert_eq!(
        (crop.x, crop.y, crop.width, crop.height),
        (
            Length::Share(10.0),
            Length::Pixels(0.0),
            Length::Share(80.0),
            Length::Pixels(400.0)
        )
    );
    let name = anchor.name.as_ref().unwrap();
    assert_eq!((name.text.as_str(), name.position), ("Ann", Position::Top));
    assert_eq!(name.plate, Some((Colour::BLACK, 0.3)));
    assert!(!sound.source.is_visual() && sound.loudness() == 0.0);
    assert!(!video.source.is_audible() && video.hidden && video.loudness() == 0.0);
    assert_eq!(board.source, Source::Picture(Picture::File("board".into())));
    assert_eq!(board.place.width, Some(Length::Share(20.0)));
    assert_eq!(
        scene.on_loss,
        OnLoss::Placeholder {
            after: Duration::from_secs(5),
            picture: Picture::File("away".into())
        }
    );
    let mark = scene.watermark.as_ref().unwrap();
    assert_eq!(
        mark.spot,
        Spot::Near(Position::BottomRight, Length::Share(3.0))
    );
    assert_eq!(scene.output.gop, Some(Duration::from_secs(2)));
    assert_eq!(scene.output.preset, Some("veryfast"));
    assert_eq!(scene.output.mix_sei, MixSei::Layout);
    // The lead is a stream that shows: not the canvas, not the sound.
    assert_eq!(
        (scene.in_place, scene.lead, scene.sizing()),
        (false, 1, Some(1))
    );
}

#[test]
fn the_example_for_users_is_a_scene() {
    let page = include_str!("../../../docs/mixing.md");
    let blocks = page.split("```json").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    let mut examples = blocks.filter(|block| block.contains("\"app\""));
    let example: Value = serde_json::from_str(examples.next().unwrap()).unwrap();
    let scene = read(example).unwrap();
    assert!(scene.in_place && scene.inputs.len() == 4);
}

#[test]
fn every_field_is_on_the_page_for_users() {
    let page = include_str!("../../../docs/mixing.md");
    let request = full();
    let inputs = request["inputs"].as_array().unwrap();
    for object in inputs.iter().chain([&request, &request["output"]]) {
        for field in object.as_object().unwrap().keys() {
            assert!(page.contains(&format!("`{field}`")), "{field}");
        }
    }
}

#[test]
fn order_spelling_and_defaults_do_not_make_another_scene() {
    let mut other = example();
    other["inputs"].as_array_mut().unwrap().reverse();
    other["inputs"][0].as_object_mut().unwrap().remove("gain");
    other["inputs"][0]["x"] = json!(380.0);
    other["inputs"][0]["id"] = json!("8888_streamB");
    for (field, value) in [
        ("kind", json!("audio+video")),
        ("fit", json!("letterbox")),
        ("opacity", json!(1)),
        ("radius", json!("0%")),
        ("border", json!({"width": 0})),
        ("crop", json!({"width": "100%", "height": "100%"})),
        ("hidden", json!(false)),
        ("mute", json!(null)),
    ] {
        other["inputs"][0][field] = value;
    }
    for (field, value) in [
        ("background", json!("0x000000")),
        ("template", json!("linkmic")),
        ("transition_ms", json!(0)),
        ("on_loss", json!({"policy": "freeze"})),
    ] {
        other[field] = value;
    }
    for (field, value) in [
        ("passthrough", json!("auto")),
        ("mix_sei", json!(false)),
        ("pass_sei", json!(false)),
    ] {
        other["output"][field] = value;
    }
    assert_eq!(read(example()).unwrap(), read(other).unwrap());
    let share = |text| read(with("/inputs/1/x", json!(text))).unwrap();
    assert_eq!(share("50%"), share("50.0%"));
    assert_ne!(share("50%"), share("51%"));
}

#[test]
fn every_field_makes_another_scene() {
    let base = read(full()).unwrap();
    for (pointer, value) in [
        ("/background", json!("#202021")),
        ("/template", json!("side-by-side")),
        ("/transition_ms", json!(401)),
        ("/on_loss", json!({"policy": "hide"})),
        ("/on_loss/after_ms", json!(5001)),
        ("/on_loss/picture", json!({"file": "gone"})),
        ("/watermark", Value::Null),
        ("/watermark/opacity", json!(0.8)),
        ("/watermark/margin", json!("4%")),
        ("/inputs/0/canvas", json!("#102031")),
        ("/inputs/1/id", json!("host")),
        ("/inputs/1/kind", json!("video")),
        ("/inputs/1/fit", json!("stretch")),
        ("/inputs/1/opacity", json!(0.8)),
        ("/inputs/1/radius", json!(13)),
        ("/inputs/1/crop/width", json!("79%")),
        ("/inputs/1/border/width", json!(3)),
        ("/inputs/1/name/text", json!("Anna")),
        ("/inputs/1/name/size", json!(21)),
        ("/inputs/1/name/background", json!("#000001")),
        ("/inputs/2/mute", json!(false)),
        ("/inputs/3/hidden", json!(false)),
        ("/inputs/4/width", json!("21%")),
        ("/output/gop", json!(3)),
        ("/output/sample_rate", json!(48000)),
        ("/output/channels", json!(2)),
        ("/output/preset", json!("superfast")),
        ("/output/passthrough", json!("auto")),
        ("/output/mix_sei", json!("hello")),
        ("/output/pass_sei", json!(false)),
    ] {
        let mut changed = but(pointer, value.clone());
        if pointer == "/inputs/1/kind" {
            changed["inputs"][1].as_object_mut().unwrap().remove("gain");
        }
        assert_ne!(read(changed).expect(pointer), base, "{pointer}: {value}");
    }
}

#[test]
fn the_lead_is_the_input_that_the_output_replaces() {
    let scene = read(with("/output/stream", json!("8888_streamB"))).unwrap();
    assert_eq!((scene.in_place, scene.lead), (true, 1));
    let scene = read(with("/output/stream", json!("mixed"))).unwrap();
    assert_eq!((scene.in_place, scene.lead), (false, 0));
}

#[test]
fn without_a_template_a_position_alone_or_a_size_alone_is_completed_with_zero() {
    let place = |json| read(json).unwrap().inputs[1].place;
    let size_alone = set(with("/inputs/1/x", Value::Null), "/inputs/1/y", Value::Null);
    let zero = Some(Length::Pixels(0.0));
    let wanted = Place {
        x: zero,
        y: zero,
        width: Some(Length::Pixels(160.0)),
        height: Some(Length::Pixels(240.0)),
    };
    assert_eq!(place(size_alone.clone()), wanted);
    // With one named, what is absent is the template's.
    let wanted = Place {
        x: None,
        y: None,
        ..wanted
    };
    assert_eq!(
        place(set(size_alone, "/template", json!("linkmic"))),
        wanted
    );
    let half = set(with("/inputs/1/width", Value::Null), "/template", json!(20));
    assert_eq!(place(half).width, None);
}

#[test]
fn the_background_gives_the_canvas_its_size() {
    let canvas = |background: Value, output: Value| {
        let json = json!({"app": "live", "output": output,
            "inputs": [background, {"stream": "a", "layer": 5}]});
        read(json).map(|scene| (scene.canvas(), scene.sizing()))
    };
    let open = json!({"stream": "a"});
    let sized = json!({"stream": "a", "width": 540, "height": 960});
    let colour = json!({"canvas": "#000000", "layer": 1, "width": 721, "height": 640});
    let of = |width, height| Some(Size { width, height });
    assert_eq!(
        canvas(colour.clone(), open.clone()),
        Ok((of(720, 640), Some(1)))
    );
    let small = json!({"canvas": "#000000", "layer": 1, "width": 400, "height": 300});
    assert_eq!(canvas(small, sized), Ok((of(540, 960), Some(1))));
    // A colour without a size takes that of the stream; a stream's box is a box.
    let bare = json!({"canvas": "#000000", "layer": 1});
    assert_eq!(canvas(bare, open.clone()), Ok((None, Some(1))));
    let boxed = json!({"stream": "b", "layer": 1, "width": 360, "height": 640});
    assert_eq!(canvas(boxed, open), Ok((None, Some(1))));
}

#[test]
fn previews_draw_what_a_mix_would_refuse() {
    let twice = with("/inputs/1/layer", json!(1));
    let draft = Scene::draft(&parse(set(twice.clone(), "/inputs/1/x", json!(400)))).unwrap();
    let kinds: Vec<_> = draft
        .warnings
        .iter()
        .map(|w| (w.path.as_str(), w.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            ("inputs[1].layer", Doubt::EqualLayers),
            ("inputs[1].x", Doubt::OutsideCanvas)
        ]
    );
    assert_eq!(read(twice).unwrap_err().path, "inputs[1].layer");
}

#[test]
fn presence_follows_the_policy() {
    let after = Duration::from_secs(2);
    let seconds = |s| Some(Duration::from_secs(s));
    let freeze = OnLoss::Freeze;
    let hide = OnLoss::Hide { after };
    assert_eq!(freeze.presence(seconds(1_000_000)), Presence::Present);
    assert_eq!(freeze.presence(None), Presence::Awaited);
    assert_eq!(hide.presence(seconds(1)), Presence::Present);
    assert_eq!(hide.presence(seconds(2)), Presence::Lost);
}

#[test]
fn a_request_survives_its_own_json() {
    for json in [with("/inputs/1/x", json!("37.5%")), full()] {
        let request = parse(json);
        assert_eq!(parse(serde_json::to_value(&request).unwrap()), request);
    }
}

#[test]
fn no_signature_of_an_address_is_shown() {
    let shown = format!("{:?} {:?}", parse(full()), read(full()).unwrap());
    assert!(
        shown.contains("https://cdn.example/logo.png?***"),
        "{shown}"
    );
    assert!(!shown.contains("abc"), "{shown}");
    let refused = format!("{:?}", Address("http://me:word@a/b?c".into()));
    assert_eq!(refused, "http://***@a/b?***");
}

proptest! {
    #[test]
    fn shuffled_inputs_are_the_same_scene(order in Just((0..5usize).collect::<Vec<_>>()).prop_shuffle()) {
        let mut shuffled = full();
        for (to, &from) in order.iter().enumerate() {
            shuffled["inputs"][to] = full()["inputs"][from].clone();
        }
        let draft = Scene::draft(&parse(shuffled)).unwrap();
        prop_assert_eq!(&draft.scene, &read(full()).unwrap());
        // And each input is found again where it stood.
        for (at, &index) in draft.order.iter().enumerate() {
            prop_assert_eq!(order[index], at);
        }
    }
}
