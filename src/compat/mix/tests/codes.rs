//! Section 2.7: each code is reached.

use std::collections::HashSet;

use super::*;

/// With inputs by name, each on its own layer, the sub at the top left corner.
fn named(names: &[&str]) -> Vec<Value> {
    let inputs = names.iter().enumerate();
    inputs
        .map(|(at, name)| input(name, at as i64 + 1, json!({})))
        .collect()
}

fn sub(more: Value) -> Vec<Value> {
    vec![input(OUTPUT, 1, json!({})), input("8888_b", 2, more)]
}

#[test]
fn section_2_7_minus_1_what_cannot_be_parsed() {
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    for text in ["", "{", "[]", "7", "null", "%7B", deep.as_str()] {
        let refusal = legacy::read(text.as_bytes()).1.unwrap_err();
        assert_eq!(refusal.code, Code::Body, "{:.20}", text);
    }
    for (pointer, value) in [
        ("/interface", json!(null)),
        ("/interface", json!("Mix_StreamV2")),
        ("/interface/interfaceName", json!("Mix_StreamV3")),
        ("/interface/interfaceName", json!(null)),
        ("/interface/para", json!(null)),
        ("/interface/para", json!([])),
        ("/interface/para/interface", json!("mix_streamv2.start")),
        ("/interface/para/interface", json!(null)),
        ("/interface/para/input_stream_list", json!(null)),
        ("/interface/para/input_stream_list", json!({})),
        ("/interface/para/input_stream_list", json!([])),
    ] {
        let mut body = body(pair(), json!({}));
        *body.pointer_mut(pointer).unwrap() = value.clone();
        let refusal = judge(&body).unwrap_err();
        assert_eq!(refusal.code.number(), -1, "{pointer} {value}: {refusal}");
    }
}

#[test]
fn section_2_7_minus_2_bad_parameters() {
    for event in [json!(0), json!("0"), json!(null), json!([])] {
        let mut body = body(pair(), json!({}));
        body["eventId"] = event.clone();
        assert_eq!(judge(&body).unwrap_err().code.number(), -2, "{event}");
    }
    assert_eq!(code(pair(), json!({"mix_stream_session_id": null})), -2);
    assert_eq!(code(pair(), json!({"output_stream_id": null})), -2);
    let foreign = json!({"output_stream_id": "9999_new", "output_stream_type": 1});
    assert_eq!(code(pair(), foreign), -2);
    // Nothing that could give the pace: found by what_is_granted_the_mixer_takes.
    let still = |layer| {
        input(
            "logo",
            layer,
            json!({"input_type": 2, "picture_id": 10, "image_width": 90, "image_height": 90}),
        )
    };
    let new = json!({"output_stream_id": "8888_new", "output_stream_type": 1});
    assert_eq!(code(vec![still(1), still(2)], new), -2);
    // 540×960: outside by a pixel, by a share, and by its own size of 320×480.
    for place in [
        json!({"location_x": 381, "image_width": 160, "image_height": 240}),
        json!({"location_y": 721, "image_width": 160, "image_height": 240}),
        json!({"image_width": 541, "image_height": 240}),
        json!({"location_x": 0.71, "image_width": 0.3, "image_height": 0.3}),
        json!({"location_x": 221}),
        json!({"location_x": 540, "image_width": 1}),
    ] {
        assert_eq!(code(sub(place.clone()), json!({})), -2, "{place}");
    }
    let fits =
        json!({"location_x": 380, "location_y": 720, "image_width": 160, "image_height": 240});
    assert!(judge(&body(sub(fits), json!({}))).is_ok());
    let shares =
        json!({"location_x": 0.7, "location_y": 0.7, "image_width": 0.3, "image_height": 0.3});
    assert!(judge(&body(sub(shares), json!({}))).is_ok());
    let refusal = judge(&body(sub(json!({"location_x": 221})), json!({}))).unwrap_err();
    assert_eq!(refusal.message, "small picture out of the background");
}

#[test]
fn section_2_7_minus_3_more_than_sixteen_inputs() {
    let mut names = vec![OUTPUT.to_owned()];
    names.extend(('b'..='p').map(|letter| format!("8888_{letter}")));
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    assert!(judge(&body(named(&all), json!({}))).is_ok(), "16 are mixed");
    names.push("8888_wide".into());
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(code(named(&all), json!({})), -3);
}

#[test]
fn section_2_7_minus_4_inputs_that_make_no_sense() {
    for layout in [
        json!({"input_type": 1}),
        json!({"input_type": 6}),
        json!({"input_type": -1}),
        json!({"input_type": "video"}),
        json!({"image_width": -1}),
        json!({"image_width": 3001}),
        json!({"image_width": 0.005}),
        json!({"image_width": 0.995}),
        json!({"image_height": "tall"}),
        json!({"location_x": -1}),
        json!({"location_y": 3001}),
        json!({"crop_params": {"crop_width": 3001}}),
        json!({"crop_params": {"crop_x": -1}}),
    ] {
        assert_eq!(code(sub(layout.clone()), json!({})), -4, "{layout}");
    }
    let long = "8".repeat(81);
    for id in [json!(""), json!(long), json!("8888 b"), json!(null)] {
        let mut inputs = pair();
        inputs[1]["input_stream_id"] = id.clone();
        assert_eq!(code(inputs, json!({})), -4, "{id}");
    }
    let mut inputs = pair();
    inputs[1].as_object_mut().unwrap().remove("layout_params");
    assert_eq!(code(inputs, json!({})), -4);
    for field in ["mix_stream_session_id", "output_stream_id"] {
        assert_eq!(code(pair(), json!({field: long})), -4);
        assert_eq!(code(pair(), json!({field: ""})), -4);
    }
    let twice = named(&[OUTPUT, "8888_b", "8888_b"]);
    assert_eq!(code(twice, json!({})), -4);
}

#[test]
fn section_2_7_minus_11_layers() {
    for layer in [
        json!(1),
        json!(0),
        json!(17),
        json!(-1),
        json!(null),
        json!("top"),
        json!(1.5),
    ] {
        let mut inputs = pair();
        inputs[1]["layout_params"]["image_layer"] = layer.clone();
        assert_eq!(code(inputs, json!({})), -11, "{layer}");
    }
}

#[test]
fn section_2_7_minus_20_templates_and_colours() {
    for (template, count) in [(10, 3), (310, 2), (590, 6), (11, 2), (-10, 2)] {
        let names = [OUTPUT, "8888_b", "8888_c", "8888_d", "8888_e", "8888_f"];
        let asked = json!({"mix_stream_template_id": template});
        assert_eq!(code(named(&names[..count]), asked), -20, "{template}");
    }
    assert_eq!(code(pair(), json!({"mix_stream_template_id": "big"})), -20);
    let refusal = judge(&body(
        named(&[OUTPUT, "8888_b", "8888_c"]),
        json!({"mix_stream_template_id": 20}),
    ));
    assert_eq!(
        refusal.unwrap_err().message,
        "input stream num is not match the template id!"
    );
    for colour in [
        json!("red"),
        json!("0x39F"),
        json!("0x393F3G"),
        json!(true),
        json!(-1),
    ] {
        let canvas =
            json!({"input_type": 3, "color": colour, "image_width": 100, "image_height": 100});
        let inputs = vec![input(OUTPUT, 1, json!({})), input("canvas1", 2, canvas)];
        assert_eq!(code(inputs, json!({})), -20, "{colour}");
    }
}

#[test]
fn section_2_7_minus_21_one_input_that_is_no_end_of_a_mix() {
    let new = json!({"output_stream_id": "8888_new", "output_stream_type": 1});
    assert_eq!(code(named(&[OUTPUT]), new), -21);
}

#[test]
fn section_2_7_minus_28_the_background_has_no_size() {
    // A canvas over sound alone; a stream of which nothing is known; sound alone; a share of itself.
    let canvas = input("canvas1", 1, json!({"input_type": 3}));
    let sound = |layer| input(OUTPUT, layer, json!({"input_type": 4}));
    let other = |layer| input("8888_b", layer, json!({"input_type": 4}));
    assert_eq!(code(vec![canvas, sound(2)], json!({})), -28);
    assert_eq!(code(vec![sound(1), other(2)], json!({})), -28);
    let unknown = json!({"output_stream_id": "8888_unknown"});
    assert_eq!(code(named(&["8888_unknown", "8888_b"]), unknown), -28);
    let share = vec![
        input(OUTPUT, 1, json!({"image_width": 0.5, "image_height": 0.5})),
        input("8888_b", 2, json!({})),
    ];
    assert_eq!(code(share, json!({})), -28);
}

#[test]
fn section_2_7_minus_29_a_crop_leaves_its_source() {
    // 320×480.
    for crop in [
        json!({"crop_width": 321, "crop_height": 100}),
        json!({"crop_x": 300, "crop_width": 21}),
        json!({"crop_y": 480}),
        json!({"crop_x": 319, "crop_height": 100}),
    ] {
        let asked = json!({"crop_params": crop});
        assert_eq!(code(sub(asked), json!({})), -29, "{crop}");
    }
}

#[test]
fn section_2_7_minus_33_pictures_by_their_number() {
    for picture in [json!(12), json!(null), json!(-1), json!("logo")] {
        let picture =
            json!({"input_type": 2, "picture_id": picture, "image_width": 90, "image_height": 90});
        let inputs = vec![
            input(OUTPUT, 1, json!({})),
            input("logo", 2, picture.clone()),
        ];
        assert_eq!(code(inputs, json!({})), -33, "{picture}");
    }
}

#[test]
fn section_2_7_minus_41_a_stream_in_twenty_mixes() {
    let mut facts = facts();
    for n in 0..20 {
        facts.mixes.push(Mix {
            streams: vec!["8888_b".into()],
            ..mix(&format!("other-{n}"), &format!("8888_out{n}"))
        });
    }
    let asked = body(pair(), json!({}));
    assert_eq!(judge_with(&asked, &facts).unwrap_err().code.number(), -41);
    // One of them is this very session's: 19 others leave room.
    facts.mixes[7] = Mix {
        streams: vec!["8888_b".into()],
        ..mix("1251000001.room_1", OUTPUT)
    };
    assert!(judge_with(&asked, &facts).is_ok());
}

#[test]
fn section_2_7_minus_111_the_output_s_name_and_its_type() {
    for more in [
        json!({"output_stream_id": "8888_new"}),
        json!({"output_stream_type": 1}),
        json!({"output_stream_type": 2}),
        json!({"output_stream_type": "x"}),
        // There already.
        json!({"output_stream_type": 1, "output_stream_id": "8888_c"}),
    ] {
        assert_eq!(code(pair(), more.clone()), -111, "{more}");
    }
    // A canvas that is called like the output is no input of its.
    let canvas = json!({"input_type": 3, "image_width": 540, "image_height": 960});
    let inputs = vec![input(OUTPUT, 1, canvas), input("8888_b", 2, json!({}))];
    assert_eq!(code(inputs, json!({})), -111);
    let new = json!({"output_stream_type": 1, "output_stream_id": "8888_new"});
    assert!(judge(&body(pair(), new)).is_ok());
}

#[test]
fn section_2_7_minus_300_and_minus_508_sessions_and_outputs() {
    let asked = body(pair(), json!({}));
    let mut facts = facts();
    facts.mixes = vec![mix("1251000001.room_2", OUTPUT)];
    let refusal = judge_with(&asked, &facts).unwrap_err();
    assert_eq!(refusal.code.number(), -300);
    assert!(
        refusal
            .message
            .contains("already use as background in other sessionid")
    );
    facts.mixes = vec![mix("1251000001.room_1", "8888_c")];
    assert_eq!(judge_with(&asked, &facts).unwrap_err().code.number(), -508);
}

#[test]
fn section_2_7_minus_505_inputs_that_are_not_live() {
    for name in ["8888_absent", "8888_early", "9999_foreign"] {
        for kind in [0, 4, 5] {
            let inputs = vec![
                input(OUTPUT, 1, json!({})),
                input(name, 2, json!({"input_type": kind})),
            ];
            assert_eq!(code(inputs, json!({})), -505, "{name} {kind}");
        }
    }
}

#[test]
fn section_2_7_minus_507_a_crop_of_a_stream_of_unknown_size() {
    let crop = json!({"crop_params": {"crop_width": 100, "crop_height": 100}});
    let inputs = vec![input(OUTPUT, 1, json!({})), input("8888_unknown", 2, crop)];
    assert_eq!(code(inputs, json!({})), -507);
}

#[test]
fn section_2_7_minus_31004_the_bitrate() {
    for bitrate in [json!(0), json!(50_001), json!(-1), json!("fast")] {
        assert_eq!(
            code(pair(), json!({"output_stream_bitrate": bitrate})),
            -31_004
        );
    }
    for bitrate in [1, 50_000] {
        let asked = body(pair(), json!({"output_stream_bitrate": bitrate}));
        assert!(judge(&asked).is_ok());
    }
}

#[test]
fn section_3_codes_have_their_names_or_stand_in_the_message() {
    let mut numbers = HashSet::new();
    for code in Code::ALL {
        assert!(numbers.insert(code.number()), "{code:?}");
        assert!(code.number() < 0);
        if let Some(name) = code.name() {
            assert!(
                name.starts_with("InvalidParameter.") || name.starts_with("FailedOperation."),
                "{name}"
            );
        }
    }
    assert_eq!(
        Code::Background.name(),
        Some("InvalidParameter.InvalidBackgroudResolution")
    );
    assert_eq!(Code::Parameter.name(), None);
}
