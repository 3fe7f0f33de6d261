//! Whatever is sent: nothing panics, and what is granted the mixer takes.

use proptest::prelude::*;

use super::scenes::is_taken;
use super::*;

fn length() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => Just(json!(null)),
        2 => (0.0..=1.0).prop_map(|ratio: f64| json!(ratio)),
        4 => (0_u32..=700).prop_map(|pixels| json!(pixels)),
        1 => (0.0..=700.0).prop_map(|pixels: f64| json!(pixels)),
        1 => prop_oneof![Just(json!(-1)), Just(json!(3_001)), Just(json!("12")), Just(json!({}))],
    ]
}

fn an_input() -> impl Strategy<Value = Value> {
    let names = [
        "8888_a",
        "8888_b",
        "8888_c",
        "8888_wide",
        "8888_odd",
        "8888_unknown",
        "canvas1",
    ];
    let id = prop::sample::select(names.to_vec());
    let kind = prop_oneof![4 => Just(0), 1 => Just(2), 1 => Just(3), 1 => Just(4), 1 => Just(5)];
    let crop = prop::option::weighted(0.3, (length(), length(), length(), length()));
    let layout = (length(), length(), length(), length());
    (id, kind, 1_i64..=5, layout, crop).prop_map(|(id, kind, layer, layout, crop)| {
        let (width, height, x, y) = layout;
        let mut input = input(
            id,
            layer,
            json!({
                "input_type": kind, "image_width": width, "image_height": height, "location_x": x, "location_y": y,
                "picture_id": 10 + layer % 2, "color": "0x99CCFF",
            }),
        );
        if let Some((width, height, x, y)) = crop {
            input["crop_params"] =
                json!({"crop_width": width, "crop_height": height, "crop_x": x, "crop_y": y});
        }
        input
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_is_granted_the_mixer_takes(
        inputs in prop::collection::vec(an_input(), 2..=4),
        template in prop::sample::select(vec![0, 0, 0, 10, 20, 50, 310, 390, 391, 410]),
        new in any::<bool>(),
        bitrate in prop::option::of(1_u32..=50_000),
    ) {
        // Layers that are all different, so that not all are refused for that.
        let mut inputs = inputs;
        for (at, input) in inputs.iter_mut().enumerate() {
            input["layout_params"]["image_layer"] = json!(at + 1);
        }
        let output = if new { "8888_new" } else { inputs[0]["input_stream_id"].as_str().unwrap_or_default() };
        let more = json!({
            "mix_stream_template_id": template, "output_stream_type": u8::from(new),
            "output_stream_id": output, "output_stream_bitrate": bitrate,
        });
        if let Ok(Plan::Mix { scene, .. }) = judge(&body(inputs, more)) {
            is_taken(&scene);
        }
    }

    #[test]
    fn no_body_is_a_panic(
        inputs in prop::collection::vec(an_input(), 0..=3),
        pointer in prop::sample::select(vec![
            "", "/eventId", "/interface", "/interface/para", "/interface/para/input_stream_list",
            "/interface/para/input_stream_list/0", "/interface/para/input_stream_list/0/layout_params",
            "/interface/para/input_stream_list/0/layout_params/image_layer", "/interface/para/output_stream_id",
        ]),
        value in prop::sample::select(vec![
            json!(null), json!([]), json!({}), json!(""), json!(-1), json!(1e308), json!(i64::MIN), json!("é"), json!([[]]),
        ]),
    ) {
        let mut body = body(inputs, json!({}));
        if let Some(field) = body.pointer_mut(pointer) {
            *field = value;
        }
        let _ = judge(&body);
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (echo, call) = legacy::read(&bytes);
        let _ = echo.answer(&call.map(drop), 7).to_string();
    }
}
