//! Every mistake a request can make, and what is said of it.

use serde_json::{Value, json};

use super::tests::{but, read, with};
use super::*;

#[test]
#[rustfmt::skip]
fn every_mistake_names_its_field() {
    let many: Vec<_> = (1..=17)
        .map(|n| json!({"stream": format!("s{n}"), "layer": n}))
        .collect();
    let long = "x".repeat(65);
    let cases = [
        (with("/app", json!("li ve")), "app", "application name has the character ' '"),
        (with("/inputs", json!([])), "inputs", "0 inputs; a mix has 1 to 16"),
        (with("/inputs", json!(many)), "inputs", "17 inputs; a mix has 1 to 16"),
        (with("/inputs", json!([{"canvas": "#000000", "layer": 1}])), "inputs", "no stream among them"),
        (with("/inputs/1/stream", json!("a/b")), "inputs[1].stream", "stream name has the character '/'"),
        (with("/inputs/1/stream", json!("8888_streamA")), "inputs[1].stream", "stream 8888_streamA is an input already"),
        (with("/inputs/1/stream", Value::Null), "inputs[1].stream", "missing; an input is a stream, a picture or a canvas"),
        (with("/inputs/1/canvas", json!("#000000")), "inputs[1]", "more than one of"),
        (with("/inputs/1/layer", Value::Null), "inputs[1].layer", "missing"),
        (with("/inputs/1/layer", json!(1)), "inputs[1].layer", "layer 1 is taken"),
        (with("/inputs/1/layer", json!(17)), "inputs[1].layer", "17 is outside 1 to 16"),
        (with("/inputs/1/id", json!("8888_streamA")), "inputs[1].id", "id 8888_streamA is taken"),
        (with("/inputs/1/id", json!("a b")), "inputs[1].id", "the id has 3 bytes; an input's id has 1 to 128"),
        (with("/inputs/1/x", json!(-1)), "inputs[1].x", "-1 is outside 0 to 3000 pixels"),
        (with("/inputs/1/x", json!(381)), "inputs[1].x", "the box ends at 541 on a canvas of 540"),
        (with("/inputs/1/y", json!("80%")), "inputs[1].y", "the box ends at 1008 on a canvas of 960"),
        (with("/inputs/1/y", json!("101%")), "inputs[1].y", "101% is outside 0% to 100%"),
        (with("/inputs/1/width", json!("101%")), "inputs[1].width", "101% is no share"),
        (with("/inputs/1/width", json!("0%")), "inputs[1].width", "0% is no share"),
        (but("/inputs/4/width", json!(1281)), "inputs[4].width", "1281 is over the canvas's 1280"),
        (with("/inputs/1/width", Value::Null), "inputs[1].width", "missing; width and height"),
        (with("/inputs/1/height", Value::Null), "inputs[1].height", "missing; width and height"),
        (with("/inputs/1/height", json!(0)), "inputs[1].height", "0 is outside 2 to 3000 pixels"),
        (with("/inputs/1/gain", json!(5)), "inputs[1].gain", "5 is outside 0 to 4"),
        (with("/inputs/1/opacity", json!(1.5)), "inputs[1].opacity", "1.5 is outside 0 to 1"),
        (with("/inputs/1/radius", json!(-1)), "inputs[1].radius", "-1 is outside 0 to 1500 pixels"),
        (with("/inputs/1/radius", json!("51%")), "inputs[1].radius", "51% is outside 0% to 50%"),
        (with("/inputs/1/border", json!({"width": 51})), "inputs[1].border.width", "51 is outside 0 to 50 pixels"),
        (with("/inputs/1/crop", json!({"width": 0, "height": 2})), "inputs[1].crop.width", "0 is outside 2 to 3000"),
        (with( "/inputs/1/crop", json!({"y": "60%", "width": 2, "height": "50%"}), ), "inputs[1].crop.y", "the crop ends at 110%"),
        (with("/inputs/1/name", json!({"text": "  "})), "inputs[1].name.text", "0 characters; a name has 1 to 64"),
        (with("/inputs/1/name", json!({"text": long})), "inputs[1].name.text", "65 characters"),
        (with("/inputs/1/name", json!({"text": "a\nb"})), "inputs[1].name.text", "the character '\\n' is no text"),
        (with("/inputs/1/name", json!({"text": "a", "size": 7})), "inputs[1].name.size", "7 is outside 8 to 200 pixels"),
        (with("/inputs/1/name", json!({"text": "a", "size": "51%"})), "inputs[1].name.size", "51% is outside"),
        (with("/inputs/1/name", json!({"text": "a", "background_opacity": 1.5})), "inputs[1].name.background_opacity", "1.5 is outside"),
        (but("/inputs/0/crop", json!({"width": 2, "height": 2})), "inputs[0].crop", "a canvas has no crop"),
        (but("/inputs/0/kind", json!("video")), "inputs[0].kind", "a canvas has no kind"),
        (but("/inputs/2/x", json!(0)), "inputs[2].x", "an input of sound alone has no x"),
        (but("/inputs/3/gain", json!(1)), "inputs[3].gain", "an input of pictures alone has no gain"),
        (but("/inputs/4/mute", json!(true)), "inputs[4].mute", "a picture has no mute"),
        (but("/inputs/4/picture", json!({})), "inputs[4].picture", "missing; a picture needs a file or a url"),
        (but("/inputs/4/picture/url", json!("http://a/b")), "inputs[4].picture", "both file and url"),
        (but("/inputs/4/picture/file", json!("../etc/passwd")), "inputs[4].picture.file", "the id has 13 bytes"),
        (but("/inputs/4/picture", json!({"url": "file:///etc/passwd"})), "inputs[4].picture.url", "pictures are fetched by http or https, not by \"file\""),
        (but("/inputs/4/picture", json!({"url": "http://me:word@a/"})), "inputs[4].picture.url", "an address with a user name"),
        (but("/inputs/4/picture", json!({"url": "nowhere"})), "inputs[4].picture.url", "no address: relative"),
        (with("/template", json!(410)), "template", "template 410 is for 4 inputs with pictures; there are 2"),
        (with("/transition_ms", json!(10_001)), "transition_ms", "10001 is outside 0 to 10000 ms"),
        (with("/on_loss", json!({"policy": "placeholder"})), "on_loss.picture", "missing"),
        (with( "/on_loss", json!({"policy": "hide", "picture": {"file": "a"}}), ), "on_loss.picture", "given without the policy"),
        (with("/on_loss", json!({"policy": "freeze", "after_ms": 1})), "on_loss.after_ms", "given with freeze"),
        (with("/on_loss", json!({"policy": "hide", "after_ms": 900_001})), "on_loss.after_ms", "900001 is outside 0 to 900000 ms"),
        (with("/watermark", json!({})), "watermark", "missing"),
        (with("/watermark", json!({"file": "a", "x": 1})), "watermark.y", "missing; x and y go together"),
        (with( "/watermark", json!({"file": "a", "x": 1, "y": 1, "margin": 5}), ), "watermark.margin", "given besides x and y"),
        (with("/watermark", json!({"file": "a", "opacity": -0.1})), "watermark.opacity", "-0.1 is outside 0 to 1"),
        (with("/watermark", json!({"file": "a", "height": "0%"})), "watermark.height", "0% is no share"),
        (with("/output/width", json!(541)), "output.width", "541 is odd"),
        (with("/output/width", json!(14)), "output.width", "14 is outside 16 to 3000"),
        (with("/output/height", Value::Null), "output.height", "missing; width and height"),
        (with("/output/fps", json!(61)), "output.fps", "61 is outside 1 to 60"),
        (with("/output/gop", json!(0.4)), "output.gop", "0.4 is outside 0.5 to 10 seconds"),
        (with("/output/video_kbps", json!(0)), "output.video_kbps", "0 is outside 1 to 50000"),
        (with("/output/audio_kbps", json!(501)), "output.audio_kbps", "501 is outside 16 to 500"),
        (with("/output/sample_rate", json!(44_000)), "output.sample_rate", "44000 is none of 96000, 88200"),
        (with("/output/channels", json!(3)), "output.channels", "3 is outside 1 to 2"),
        (with("/output/preset", json!("placebo")), "output.preset", "\"placebo\" is none of ultrafast"),
        (with("/output/mix_sei", json!("")), "output.mix_sei", "text of 0 bytes is outside 1 to 1024"),
        (with("/output/stream", json!("")), "output.stream", "stream name is empty"),
    ];
    for (json, path, message) in cases {
        let error = read(json).expect_err(path);
        assert_eq!(error.path, path, "{error}");
        assert!(error.message.starts_with(message), "{error} / {message}");
    }
    // Only sound, and no size for the canvas.
    let deaf = json!({"app": "live", "output": {"stream": "m"},
        "inputs": [{"stream": "a", "kind": "audio", "layer": 1}]});
    assert_eq!(read(deaf).unwrap_err().path, "output.width");
}

#[test]
fn unknown_fields_and_wrong_types_are_refused() {
    for (pointer, value) in [
        ("/colour", json!("red")),
        ("/template", json!("pip")),
        ("/background", json!("red")),
        ("/on_loss", json!("hide")),
        ("/inputs/0/crop", json!(1)),
        ("/inputs/0/fit", json!("fill")),
        ("/inputs/0/kind", json!("both")),
        ("/inputs/0/name", json!({"text": "a", "font": "b"})),
        ("/output/codec", json!("h264")),
        ("/output/passthrough", json!("always")),
        ("/output/mix_sei", json!(1)),
        ("/inputs/1/x", json!("37.5")),
        ("/inputs/1/x", json!("NaN%")),
        ("/inputs/1/x", json!([1])),
    ] {
        let result: Result<MixRequest, _> = serde_json::from_value(with(pointer, value));
        assert!(result.is_err(), "{pointer}");
    }
}
