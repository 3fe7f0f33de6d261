use std::time::Duration;

use serde_json::{Value, json};

use super::golden::{Box4, boxes, size};
use super::*;
use crate::mixer::scene::{Doubt, Draft, MixRequest};

const CANVAS: Size = size(640, 360);

fn draft(inputs: Value, more: Value) -> Draft {
    let mut request = json!({"app": "live", "inputs": inputs,
        "output": {"stream": "mixed", "width": CANVAS.width, "height": CANVAS.height}});
    for (field, value) in more.as_object().unwrap() {
        request[field] = value.clone();
    }
    let request: MixRequest = serde_json::from_value(request).unwrap();
    Scene::draft(&request).unwrap()
}

pub(super) fn sized(sizes: &[Size]) -> Known {
    let fact = |&size| Fact {
        size: Some(size),
        presence: Presence::Present,
    };
    Known {
        inputs: sizes.iter().map(fact).collect(),
        ..Known::default()
    }
}

fn rect((x, y, width, height): Box4) -> Rect {
    Rect {
        x,
        y,
        width,
        height,
    }
}

fn view(layout: &Layout, index: usize) -> &View {
    layout.cells[index].view.as_ref().expect("it is to be seen")
}

/// A main that fills the canvas and one sub.
fn with_sub(sub: Value, own: Size) -> Layout {
    let mut sub = sub;
    sub["stream"] = json!("b");
    sub["layer"] = json!(2);
    let draft = draft(json!([{"stream": "a", "layer": 1}, sub]), json!({}));
    resolve(&draft.scene, CANVAS, &sized(&[CANVAS, own]))
}

#[test]
fn shares_are_of_the_canvas() {
    let layout = with_sub(
        json!({"x": "50%", "y": "25%", "width": "37.5%", "height": 100}),
        size(240, 100),
    );
    assert_eq!(boxes(&layout)[1], (320, 90, 240, 100));
}

#[test]
fn each_fit_fills_its_box_in_its_way() {
    let of = |fit: &str, own| {
        let layout = with_sub(
            json!({"x": 0, "y": 0, "width": 160, "height": 240, "fit": fit}),
            own,
        );
        let view = view(&layout, 1);
        (view.picture, view.source)
    };
    let wide = size(1280, 720);
    let whole = rect((0, 0, 160, 240));
    // (240 − 90) / 2 = 75, even.
    assert_eq!(of("letterbox", wide), (rect((0, 74, 160, 90)), None));
    assert_eq!(of("stretch", wide), (whole, None));
    // 720 × 160 / 240 = 480 of 1280.
    assert_eq!(of("crop", wide), (whole, Some(rect((400, 0, 480, 720)))));
    assert_eq!(of("crop", size(320, 480)), (whole, None));
}

#[test]
fn a_crop_comes_before_everything_else() {
    let layout = with_sub(
        json!({"x": 0, "y": 0, "width": 160, "height": 240,
            "crop": {"x": "25%", "width": "50%", "height": 720}}),
        size(1280, 720),
    );
    let seen = view(&layout, 1);
    assert_eq!(seen.source, Some(rect((320, 0, 640, 720))));
    // 640×720 in 160×240: 160×180.
    assert_eq!(seen.picture, rect((0, 30, 160, 180)));
    // What is left of it fills the box: 720 × 160 / 240 = 480 of 640.
    let layout = with_sub(
        json!({"x": 0, "y": 0, "width": 160, "height": 240, "fit": "crop",
            "crop": {"x": "25%", "width": "50%", "height": 720}}),
        size(1280, 720),
    );
    assert_eq!(view(&layout, 1).source, Some(rect((400, 0, 480, 720))));
}

#[test]
fn a_crop_that_leaves_its_source_shrinks_and_says_so() {
    let layout = with_sub(
        json!({"crop": {"x": 300, "width": 100, "height": 100}}),
        size(320, 480),
    );
    assert_eq!(view(&layout, 1).source, Some(rect((300, 0, 20, 100))));
    let remark = &layout.remarks[0];
    assert_eq!(
        (remark.input, remark.field, remark.kind),
        (1, "crop.x", Doubt::OutsideSource)
    );
}

#[test]
fn explicit_fields_override_a_template_one_by_one() {
    let of = |sub: Value| {
        let mut sub = sub;
        sub["stream"] = json!("b");
        sub["layer"] = json!(2);
        let inputs = json!([{"stream": "a", "layer": 1}, sub]);
        let draft = draft(inputs, json!({"template": 20}));
        boxes(&resolve(
            &draft.scene,
            CANVAS,
            &sized(&[CANVAS, size(320, 480)]),
        ))[1]
    };
    // 2:3 in 213.3×120 is 80×120, at the right bottom corner.
    assert_eq!(of(json!({})), (540, 220, 80, 120));
    assert_eq!(of(json!({"x": 30})), (30, 220, 80, 120));
    assert_eq!(of(json!({"y": "50%"})), (540, 180, 80, 120));
    // A size given makes the box; the other side is the template's.
    assert_eq!(of(json!({"width": 100})), (520, 220, 100, 120));
    assert_eq!(
        of(json!({"width": 100, "height": 60, "x": 0, "y": 0})),
        (0, 0, 100, 60)
    );
}

#[test]
fn hidden_inputs_keep_their_place_and_sound_has_none() {
    let inputs = json!([{"stream": "a", "layer": 1}, {"stream": "b", "layer": 2, "hidden": true},
        {"stream": "s", "kind": "audio", "layer": 3, "gain": 2}, {"stream": "c", "layer": 4}]);
    let scene = draft(inputs, json!({"template": 310})).scene;
    let layout = resolve(&scene, CANVAS, &Known::default());
    let seen: Vec<_> = layout.cells.iter().map(|c| c.view.is_some()).collect();
    assert_eq!(seen, [true, false, false, true]);
    // c is the second sub of 310: at the right bottom.
    assert_eq!(view(&layout, 3).rect, rect((406, 220, 212, 120)));
    assert_eq!(layout.cells[2].gain, 2.0);
}

#[test]
fn losses_follow_the_policy() {
    let inputs = json!([{"stream": "a", "layer": 1}, {"stream": "b", "layer": 2}, {"stream": "c", "layer": 3}]);
    let of = |policy: Value, presence| {
        let scene = draft(inputs.clone(), json!({"on_loss": policy})).scene;
        let mut known = sized(&[CANVAS, size(320, 480), size(320, 480)]);
        known.inputs[1].presence = presence;
        known.placeholder = Some(size(100, 100));
        resolve(&scene, CANVAS, &known)
    };
    // 60 + 2 × 180 = 420 on 360 for two, 60 + 180 for one.
    let one = (520, 120, 120, 180);
    let two = boxes(&of(json!({"policy": "freeze"}), Presence::Lost));
    assert_eq!(two.len(), 3);
    let hide = json!({"policy": "hide"});
    assert_eq!(boxes(&of(hide.clone(), Presence::Present)), two);
    for away in [Presence::Lost, Presence::Awaited] {
        let layout = of(hide.clone(), away);
        assert_eq!(layout.cells[1].view, None);
        assert_eq!(boxes(&layout), [(0, 0, 640, 360), one]);
    }
    let layout = of(
        json!({"policy": "placeholder", "picture": {"file": "away"}}),
        Presence::Lost,
    );
    assert_eq!(boxes(&layout), two);
    let stand_in = view(&layout, 1);
    assert_eq!(stand_in.content, Content::Placeholder);
    // Square, in the middle of its box.
    let picture = stand_in.picture;
    assert_eq!(picture.width, picture.height);
}

#[test]
fn a_lost_main_leaves_the_canvas_and_the_others_stay() {
    let inputs = json!([{"stream": "a", "layer": 1}, {"stream": "b", "layer": 2}]);
    let hide = json!({"on_loss": {"policy": "hide"}});
    let scene = draft(inputs.clone(), hide).scene;
    let mut known = sized(&[CANVAS, size(320, 480)]);
    let before = resolve(&scene, CANVAS, &known);
    known.inputs[0].presence = Presence::Lost;
    let after = resolve(&scene, CANVAS, &known);
    assert_eq!(after.cells[0].view, None);
    assert_eq!(after.cells[1], before.cells[1]);
    // In a grid all are equal: the one that is left gets it all.
    let grid = json!({"on_loss": {"policy": "hide"}, "template": "grid"});
    let layout = resolve(&draft(inputs, grid).scene, CANVAS, &known);
    assert_eq!(boxes(&layout), [(0, 0, 640, 360)]);
}

#[test]
fn a_colour_in_the_background_is_no_cell_of_a_grid() {
    let inputs = json!([{"canvas": "#112233", "layer": 1}, {"stream": "a", "layer": 2}, {"stream": "b", "layer": 3}]);
    let scene = draft(inputs, json!({"template": "side-by-side"})).scene;
    let layout = resolve(&scene, CANVAS, &Known::default());
    assert_eq!(
        boxes(&layout),
        [(0, 0, 640, 360), (0, 0, 320, 360), (320, 0, 320, 360)]
    );
    assert_eq!(
        view(&layout, 0).content,
        Content::Colour(Colour::rgb(0x112233))
    );
}

#[test]
fn doubts_name_the_fields_of_the_request() {
    let draft = draft(
        json!([
            {"stream": "top", "layer": 3, "x": 0, "y": 0, "width": 200, "height": 200},
            {"stream": "a", "layer": 1},
            {"stream": "under", "layer": 2, "x": 10, "y": 10, "width": 100, "height": 100},
            {"stream": "wide", "layer": 3, "x": 500, "y": 0, "width": 200, "height": 10},
        ]),
        json!({}),
    );
    let layout = resolve(&draft.scene, CANVAS, &Known::default());
    let doubts = draft.doubts(&layout);
    let found: Vec<_> = doubts.iter().map(|d| (d.path.as_str(), d.kind)).collect();
    assert_eq!(
        found,
        [
            ("inputs[3].layer", Doubt::EqualLayers),
            ("inputs[3].x", Doubt::OutsideCanvas),
            ("inputs[2].layer", Doubt::Covered),
            ("inputs[3].height", Doubt::Tiny),
        ]
    );
    assert_eq!(doubts[2].message, "the box lies wholly behind that of top");
    let json = serde_json::to_value(&doubts[3]).unwrap();
    assert_eq!(json["kind"], "tiny");
    // Seen through, it is not covered.
    let mut clear = draft.scene.clone();
    for input in &mut clear.inputs {
        input.opacity = 0.5;
    }
    let layout = resolve(&clear, CANVAS, &Known::default());
    assert!(layout.remarks.iter().all(|r| r.kind != Doubt::Covered));
}

#[test]
fn the_watermark_keeps_its_aspect_and_stays_inside() {
    let of = |mark: Value, own| {
        let inputs = json!([{"stream": "a", "layer": 1}]);
        let scene = draft(inputs, json!({"watermark": mark})).scene;
        let known = Known {
            watermark: own,
            ..Known::default()
        };
        resolve(&scene, CANVAS, &known).mark.unwrap().rect
    };
    let own = Some(size(200, 100));
    // At most a fifth of the canvas: 128 wide.
    assert_eq!(of(json!({"file": "a"}), own), rect((492, 20, 128, 64)));
    assert_eq!(
        of(
            json!({"file": "a", "width": "50%", "position": "bottom-left", "margin": 0}),
            own
        ),
        rect((0, 200, 320, 160))
    );
    assert_eq!(
        of(json!({"file": "a", "x": 600, "y": 0, "height": 100}), own),
        rect((440, 0, 200, 100))
    );
    // 3000 high is 6000 wide: shrunk to 640.
    assert_eq!(
        of(
            json!({"file": "a", "height": 3000, "position": "center"}),
            own
        ),
        rect((0, 20, 640, 320))
    );
}

#[test]
fn a_name_stands_inside_its_box() {
    for position in [
        "top-left",
        "top",
        "center",
        "right",
        "bottom-left",
        "bottom-right",
    ] {
        for (width, height) in [(160, 240), (60, 40), (640, 360)] {
            let layout = with_sub(
                json!({"x": 0, "y": 0, "width": width, "height": height,
                    "name": {"text": "Ann", "size": 20, "position": position}}),
                size(320, 480),
            );
            let seen = view(&layout, 1);
            let line = seen.line(seen.name.as_ref().unwrap(), CANVAS).unwrap();
            assert!(seen.rect.contains(line.area), "{line:?}");
            assert!(line.size <= 20 && line.size <= line.area.height, "{line:?}");
        }
    }
    let layout = with_sub(
        json!({"x": 0, "y": 0, "width": 8, "height": 8, "name": {"text": "Ann"}}),
        CANVAS,
    );
    let small = view(&layout, 1);
    let name = small.name.as_ref().unwrap();
    assert_eq!(small.line(name, CANVAS), None);
    assert_eq!(view(&layout, 0).name, None);
}

#[test]
fn the_sei_tells_who_is_where() {
    let inputs = json!([{"stream": "a", "layer": 1}, {"id": "ann", "stream": "b", "layer": 3, "opacity": 0.5,
        "x": 0, "y": 0, "width": 160, "height": 240}, {"stream": "s", "kind": "audio", "layer": 4, "mute": true}]);
    let scene = draft(inputs, json!({})).scene;
    let known = sized(&[CANVAS, size(1280, 720)]);
    let layout = resolve(&scene, CANVAS, &known);
    assert_eq!(
        serde_json::to_value(layout.sei()).unwrap(),
        json!({"linkmic": 1, "canvas": {"width": 640, "height": 360}, "inputs": [
            {"id": "a", "gain": 1.0, "x": 0, "y": 0, "width": 640, "height": 360, "layer": 1, "opacity": 1.0},
            {"id": "ann", "gain": 1.0, "x": 0, "y": 74, "width": 160, "height": 90, "layer": 3, "opacity": 0.5},
            {"id": "s", "gain": 0.0},
        ]})
    );
}

fn moved(x: u32, opacity: f64) -> Layout {
    with_sub(
        json!({"x": x, "y": 0, "width": 160, "height": 240, "opacity": opacity}),
        size(1280, 720),
    )
}

#[test]
fn a_move_starts_and_ends_on_its_frames_and_is_half_way_in_the_middle() {
    let (from, to) = (moved(0, 1.0), moved(400, 0.5));
    let ms = Duration::from_millis;
    let way = Transition::new(from.clone(), to.clone(), ms(1_000), ms(400));
    assert_eq!(*way.at(ms(0)), from);
    assert_eq!(*way.at(ms(1_000)), from);
    assert_eq!(*way.at(ms(1_400)), to);
    assert!(way.is_over(ms(1_400)) && !way.is_over(ms(1_399)));
    let middle = way.at(ms(1_200));
    let seen = view(&middle, 1);
    assert_eq!((seen.rect, seen.opacity), (rect((200, 0, 160, 240)), 0.75));
    assert_eq!(seen.picture, rect((200, 74, 160, 90)));
    // Slow at both ends: a tenth of the time is 2.8 % of the way, 11 px.
    assert_eq!(view(&way.at(ms(1_040)), 1).rect.x, 12);
    // Turned round half way it goes on from where it is.
    let back = Transition::new(middle.clone().into_owned(), from, ms(1_200), ms(400));
    assert_eq!(*back.at(ms(1_200)), *middle);
}

#[test]
fn who_comes_and_goes_fades() {
    let scene = |name: &str| {
        let inputs = json!([{"stream": "a", "layer": 1}, {"stream": name, "layer": 2}]);
        resolve(&draft(inputs, json!({})).scene, CANVAS, &Known::default())
    };
    let half = between(&scene("b"), &scene("c"), 0.5);
    let of = |id: &str| half.cell(id).unwrap();
    for id in ["b", "c"] {
        let seen = of(id).view.as_ref().unwrap();
        assert_eq!((seen.opacity, of(id).gain), (0.5, 0.5), "{id}");
    }
    let order: Vec<_> = half.views().iter().map(|(c, _)| c.id.to_string()).collect();
    assert_eq!(order, ["a", "b", "c"]);
    assert_eq!(of("a").view.as_ref().unwrap().opacity, 1.0);
}

#[test]
fn a_crop_opens_smoothly() {
    let with = |crop: Value| with_sub(json!({"crop": crop}), size(1280, 720));
    let (close, wide) = (
        with(json!({"x": 320, "y": 180, "width": 640, "height": 360})),
        with(Value::Null),
    );
    let half = between(&close, &wide, 0.5);
    assert_eq!(view(&half, 1).source, Some(rect((160, 90, 960, 540))));
}
