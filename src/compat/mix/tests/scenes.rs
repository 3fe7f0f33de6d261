//! Sections 2.2 and 2.3: what is asked for becomes the mixer's own scene. With the mixer built in, it has to take it.

use super::*;

#[cfg(feature = "mixer")]
pub(super) fn is_taken(scene: &Value) {
    let request = serde_json::from_value(scene.clone()).unwrap_or_else(|e| panic!("{e}: {scene}"));
    crate::mixer::Scene::new(&request).unwrap_or_else(|e| panic!("{e}: {scene}"));
}

#[cfg(not(feature = "mixer"))]
pub(super) fn is_taken(_: &Value) {}

fn taken(inputs: Vec<Value>, more: Value) -> Value {
    let scene = scene(inputs, more);
    is_taken(&scene);
    scene
}

#[test]
fn section_2_2_main_and_sub_in_pixels() {
    assert_eq!(
        taken(pair(), json!({"output_stream_bitrate": 1500})),
        json!({
            "app": "live",
            "template": "stacked",
            "inputs": [
                {"stream": "8888_a", "kind": "audio+video", "layer": 1},
                {"stream": "8888_b", "kind": "audio+video", "layer": 2,
                 "x": 380.0, "width": 160.0, "y": 630.0, "height": 240.0},
            ],
            "output": {"stream": "8888_a", "width": 540, "height": 960, "codec_change": true, "video_kbps": 1500},
        })
    );
}

#[test]
fn section_2_2_ratios_are_of_the_background_and_mix_with_pixels() {
    let sub = json!({"location_x": 0.5, "location_y": 1, "image_width": 0.25, "image_height": 240});
    let scene = taken(
        vec![input(OUTPUT, 1, json!({})), input("8888_b", 2, sub)],
        json!({}),
    );
    let sub = &scene["inputs"][1];
    // 540 × 0.5, a pixel from 1 on, 540 × 0.25.
    assert_eq!((&sub["x"], &sub["y"]), (&json!(270.0), &json!(1.0)));
    assert_eq!(
        (&sub["width"], &sub["height"]),
        (&json!(135.0), &json!(240.0))
    );
}

#[test]
fn section_2_2_nothing_given_is_the_top_left_corner_and_the_own_size() {
    let bare = vec![input(OUTPUT, 1, json!({})), input("8888_b", 2, json!({}))];
    let scene = taken(bare, json!({}));
    assert_eq!(scene["template"], "stacked");
    let wanted = json!({"stream": "8888_b", "kind": "audio+video", "layer": 2});
    assert_eq!(scene["inputs"][1], wanted);
    // 0 is as good as nothing for a size, and the edge for a position.
    let zeros = json!({"image_width": 0, "image_height": 0, "location_x": 0, "location_y": 0});
    let scene = taken(
        vec![input(OUTPUT, 1, json!({})), input("8888_b", 2, zeros)],
        json!({}),
    );
    let wanted = json!({"stream": "8888_b", "kind": "audio+video", "layer": 2, "x": 0.0, "y": 0.0});
    assert_eq!(scene["inputs"][1], wanted);
}

#[test]
fn section_2_2_the_background_gives_the_size() {
    let sizes = |background: Value, id: &str| {
        let inputs = vec![
            input(id, 1, background),
            input("8888_b", 2, json!({"image_width": 90, "image_height": 90})),
            input(OUTPUT, 3, json!({"image_width": 90, "image_height": 90})),
        ];
        let output = taken(inputs, json!({}))["output"].clone();
        (
            output["width"].as_u64().unwrap(),
            output["height"].as_u64().unwrap(),
        )
    };
    let canvas = |more: Value| {
        let mut canvas = json!({"input_type": 3, "color": "0x393F3F"});
        canvas
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        canvas
    };
    // Given, one side given, and that of the lowest stream.
    assert_eq!(
        sizes(
            canvas(json!({"image_width": 720, "image_height": 640})),
            "c"
        ),
        (720, 640)
    );
    assert_eq!(sizes(canvas(json!({"image_width": 720})), "c"), (720, 480));
    assert_eq!(sizes(canvas(json!({})), "c"), (320, 480));
    assert_eq!(
        sizes(
            json!({"image_width": 360, "image_height": 640}),
            "8888_wide"
        ),
        (360, 640)
    );
    assert_eq!(sizes(json!({}), "8888_wide"), (1280, 720));
    // 4:2:0 has no odd sides.
    assert_eq!(sizes(json!({}), "8888_odd"), (360, 640));
    let crop = json!({"crop_params": {"crop_width": 640, "crop_height": 700, "crop_x": 100}});
    assert_eq!(sizes(crop, "8888_wide"), (640, 700));
}

#[test]
fn section_2_2_a_box_up_to_an_odd_edge_is_cut_to_the_even_one() {
    let inputs = vec![
        input("8888_odd", 1, json!({})),
        input(
            "8888_b",
            2,
            json!({"location_x": 241, "image_width": 120, "image_height": 100}),
        ),
    ];
    let scene = taken(inputs, json!({"output_stream_id": "8888_odd"}));
    assert_eq!(scene["output"]["width"], 360);
    assert_eq!(scene["inputs"][1]["width"], 119.0);
}

#[test]
fn section_2_2_every_kind_of_input() {
    let inputs = vec![
        input(
            "canvas1",
            1,
            json!({"input_type": 3, "color": "0xCC0033", "image_width": 720, "image_height": 640}),
        ),
        input(
            OUTPUT,
            2,
            json!({"input_type": 0, "image_width": 360, "image_height": 640}),
        ),
        input(
            "8888_b",
            3,
            json!({"input_type": 5, "location_x": 360, "image_width": 360, "image_height": 540}),
        ),
        input("8888_c", 4, json!({"input_type": 4, "image_width": 77})),
        input(
            "logo",
            5,
            json!({"input_type": 2, "picture_id": 10, "location_x": 20, "image_width": 90, "image_height": 40}),
        ),
        input(
            "frame",
            6,
            json!({"input_type": 2, "picture_id": 11, "image_width": 90, "image_height": 40}),
        ),
    ];
    let scene = taken(inputs, json!({}));
    let kinds: Vec<_> = (0..6)
        .map(|at| {
            let input = scene["inputs"][at].as_object().unwrap();
            ["kind", "canvas", "picture"]
                .iter()
                .find_map(|key| input.get(*key).cloned())
                .unwrap()
        })
        .collect();
    assert_eq!(
        kinds,
        [
            json!("#cc0033"),
            json!("audio+video"),
            json!("video"),
            json!("audio"),
            json!({"file": "compat.10"}),
            json!({"url": "https://cdn.example/frame.png"}),
        ]
    );
    // Sound has no box, whatever was sent.
    assert_eq!(scene["inputs"][3].get("width"), None);
}

#[test]
fn section_2_2_colours_in_every_spelling() {
    for (colour, wanted) in [
        (json!("0x99CCFF"), "#99ccff"),
        (json!("0X99ccff"), "#99ccff"),
        (json!("99CCFF"), "#99ccff"),
        (json!("#000000"), "#000000"),
        (json!(0x39_3F_3F), "#393f3f"),
        (json!(255), "#0000ff"),
        (json!(""), "#000000"),
        (json!(null), "#000000"),
    ] {
        let canvas =
            json!({"input_type": 3, "color": colour, "image_width": 540, "image_height": 960});
        let inputs = vec![input("c", 1, canvas), input(OUTPUT, 2, json!({}))];
        assert_eq!(
            taken(inputs, json!({}))["inputs"][0]["canvas"],
            wanted,
            "{colour}"
        );
    }
}

#[test]
fn section_2_2_the_pk_form_names_the_main_as_its_canvas_too() {
    let half =
        |x| json!({"location_x": x, "location_y": 0, "image_width": 360, "image_height": 640});
    let inputs = vec![
        input(
            OUTPUT,
            1,
            json!({"input_type": 3, "image_width": 720, "image_height": 640}),
        ),
        input(OUTPUT, 2, half(0)),
        input("8888_b", 3, half(360)),
    ];
    let scene = taken(inputs, json!({}));
    assert_eq!(scene["output"]["width"], 720);
    assert_eq!(scene["inputs"][0]["canvas"], "#000000");
    assert_eq!(scene["inputs"][2]["x"], 360.0);
}

#[test]
fn section_2_2_a_crop_is_in_pixels_of_the_source() {
    let cropped = |crop: Value| {
        let sub = json!({"crop_params": crop, "image_width": 160, "image_height": 240});
        let inputs = vec![input(OUTPUT, 1, json!({})), input("8888_b", 2, sub)];
        taken(inputs, json!({}))["inputs"][1].get("crop").cloned()
    };
    let whole = json!({"crop_x": 60, "crop_y": 40, "crop_width": 200, "crop_height": 300});
    let wanted = json!({"x": 60.0, "y": 40.0, "width": 200.0, "height": 300.0});
    assert_eq!(cropped(whole), Some(wanted));
    // What is left of 320×480.
    let wanted = json!({"x": 60.0, "y": 40.0, "width": 260.0, "height": 440.0});
    assert_eq!(cropped(json!({"crop_x": 60, "crop_y": 40})), Some(wanted));
    assert_eq!(cropped(json!({"crop_width": 0})), None);
    assert_eq!(cropped(json!({})), None);
}

#[test]
fn section_2_2_sound_alone_over_one_stream() {
    let mut inputs = vec![input(OUTPUT, 1, json!({}))];
    for (at, letter) in ('b'..='p').enumerate() {
        let id = format!("8888_{letter}");
        inputs.push(input(&id, at as i64 + 2, json!({"input_type": 4})));
    }
    let scene = taken(inputs, json!({}));
    assert_eq!(scene["inputs"].as_array().unwrap().len(), 16);
    assert_eq!(scene["output"]["height"], 960);
}

#[test]
fn section_2_3_every_template_with_sound_besides() {
    let names = [OUTPUT, "8888_b", "8888_c", "8888_d", "8888_e", "8888_f"];
    for (template, count) in [
        (10, 2),
        (20, 2),
        (30, 2),
        (40, 2),
        (50, 2),
        (310, 3),
        (390, 3),
        (391, 3),
        (410, 4),
        (510, 5),
        (590, 5),
        (610, 6),
    ] {
        let visual = names[..count].iter().enumerate();
        let mut inputs: Vec<_> = visual
            .map(|(at, name)| input(name, at as i64 + 1, json!({})))
            .collect();
        inputs.push(input("8888_p", 16, json!({"input_type": 4})));
        let scene = taken(inputs, json!({"mix_stream_template_id": template}));
        assert_eq!(scene["template"], template);
        assert_eq!(scene["inputs"][1].get("x"), None, "the template's");
    }
}

#[test]
fn section_2_3_a_canvas_may_be_a_template_s_background() {
    let inputs = vec![
        input(
            "canvas1",
            1,
            json!({"input_type": 3, "image_width": 720, "image_height": 640}),
        ),
        input(OUTPUT, 2, json!({})),
        input("8888_b", 3, json!({})),
    ];
    let scene = taken(inputs, json!({"mix_stream_template_id": 390}));
    assert_eq!(
        (&scene["output"]["width"], &scene["template"]),
        (&json!(720), &json!(390))
    );
}

#[test]
fn section_2_2_what_is_given_goes_before_the_template_field_by_field() {
    let sub = json!({"location_x": 10, "image_height": 100});
    let inputs = vec![input(OUTPUT, 1, json!({})), input("8888_b", 2, sub)];
    let scene = taken(inputs, json!({"mix_stream_template_id": 20}));
    let wanted =
        json!({"stream": "8888_b", "kind": "audio+video", "layer": 2, "x": 10.0, "height": 100.0});
    assert_eq!(scene["inputs"][1], wanted);
}
