//! Previews, judged by their pixels.

use serde_json::{Value, json};

use super::super::scene::{Doubt, MixRequest};
use super::super::{Config, Error, Mixer};
use super::*;
use crate::relay::Relay;

/// A decoded preview.
pub(in crate::mixer) struct Image {
    pub size: (u32, u32),
    pixels: Vec<u8>,
}

impl Image {
    pub fn read(file: &[u8]) -> Self {
        let mut decoder = ::png::Decoder::new(std::io::Cursor::new(file));
        decoder.set_transformations(::png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(info.color_type, ::png::ColorType::Rgb);
        Self {
            size: (info.width, info.height),
            pixels,
        }
    }

    pub fn at(&self, x: u32, y: u32) -> [u8; 3] {
        let at = 3 * (y * self.size.0 + x) as usize;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }

    /// How far the pixels of two pictures of one size are apart, as the mean over all their samples.
    pub fn distance(&self, other: &Self) -> f64 {
        assert_eq!(self.size, other.size);
        let pairs = self.pixels.iter().zip(&other.pixels);
        let sum: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        sum as f64 / self.pixels.len() as f64
    }
}

pub(in crate::mixer) fn is(colour: [u8; 3], wanted: u32) -> bool {
    let [_, wanted @ ..] = wanted.to_be_bytes();
    colour.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 6)
}

fn request(body: Value) -> MixRequest {
    serde_json::from_value(body).unwrap()
}

fn mixer() -> Mixer {
    Mixer::new(
        Relay::new(crate::relay::Config::default()),
        Config::default(),
    )
    .unwrap()
}

pub(super) fn preview(body: Value, wish: Wish) -> (Preview, Image) {
    let drawn = mixer().preview(&request(body), wish).unwrap();
    let image = Image::read(&drawn.png);
    (drawn, image)
}

fn two(sub: Value) -> Value {
    let mut body = json!({"app": "live",
        "inputs": [{"stream": "a", "layer": 1}, {"stream": "b", "layer": 2}],
        "output": {"stream": "a", "width": 540, "height": 960}});
    let into = body["inputs"][1].as_object_mut().unwrap();
    into.extend(sub.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn everybody_is_in_the_place_that_the_template_gives() {
    let (drawn, image) = preview(two(json!({})), Wish::default());
    assert_eq!(image.size, (540, 960));
    assert_eq!(drawn.warnings, []);
    assert_eq!(
        serde_json::to_value(&drawn.layout).unwrap(),
        json!({"canvas": {"width": 540, "height": 960}, "inputs": [
            {"id": "a", "layer": 1, "x": 0, "y": 0, "width": 540, "height": 960, "real": false},
            {"id": "b", "layer": 2, "x": 380, "y": 630, "width": 160, "height": 240, "real": false},
        ]})
    );
    // Inside of the frames of both, and away from the letters.
    for (x, y, colour) in [
        (100, 100, COLOURS[0]),
        (370, 640, COLOURS[0]),
        (400, 660, COLOURS[1]),
        (520, 850, COLOURS[1]),
        (510, 890, COLOURS[0]),
    ] {
        assert!(is(image.at(x, y), colour), "{x},{y}: {:?}", image.at(x, y));
    }
    // Its id stands in the middle of the sub: some white letters there, none above.
    let white = |rows: std::ops::Range<u32>| {
        let pixels = rows.flat_map(|y| (400..520).map(move |x| (x, y)));
        pixels
            .filter(|&(x, y)| is(image.at(x, y), 0xff_ff_ff))
            .count()
    };
    assert!(white(735..765) > 20, "{}", white(735..765));
    assert_eq!(white(660..700), 0);
}

#[tokio::test]
async fn an_image_may_be_smaller_than_its_canvas() {
    let wish = Wish {
        width: Some(180),
        ..Wish::default()
    };
    let (drawn, image) = preview(two(json!({})), wish);
    assert_eq!(image.size, (180, 320));
    assert_eq!(drawn.layout.canvas.width, 540);
    assert!(is(image.at(140, 222), COLOURS[1]));
    for width in [15, 3001] {
        let wish = Wish {
            width: Some(width),
            ..wish
        };
        let error = mixer().preview(&request(two(json!({}))), wish).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("width: {width} is outside 16 to 3000 pixels")
        );
    }
}

#[tokio::test]
async fn a_name_is_written_at_its_place_on_its_band() {
    let name = json!({"name": {"text": "Zoë", "size": 40, "color": "#ffff00", "background": "#0000ff",
        "background_opacity": 1}, "x": 100, "y": 200, "width": 300, "height": 400, "fit": "stretch"});
    let (_, image) = preview(two(name), Wish::default());
    // Letters of 40 keep 20 from the box's corner; their line is 60 high, the band 20 wider than the letters.
    assert!(is(image.at(124, 525), 0x00_00_ff));
    assert!(is(image.at(124, 576), 0x00_00_ff));
    assert!(is(image.at(116, 550), COLOURS[1]) && is(image.at(124, 584), COLOURS[1]));
    assert!(is(image.at(124, 515), COLOURS[1]));
    let yellow = (140..240).flat_map(|x| (520..580).map(move |y| (x, y)));
    let yellow: Vec<_> = yellow
        .filter(|&(x, y)| is(image.at(x, y), 0xff_ff_00))
        .collect();
    assert!(yellow.len() > 100, "{}", yellow.len());
    // Without a word about it the band is black, half of it there, and with none the letters stand alone.
    let plain = |opacity: Value| {
        let mut name = json!({"x": 100, "y": 200, "width": 300, "height": 400, "fit": "stretch",
            "name": {"text": "Zoë", "size": 40}});
        if !opacity.is_null() {
            name["name"]["background_opacity"] = opacity;
        }
        preview(two(name), Wish::default()).1.at(126, 525)
    };
    let half = (COLOURS[1] >> 1) & 0x7f_7f_7f;
    assert!(is(plain(Value::Null), half), "{:?}", plain(Value::Null));
    assert!(is(plain(json!(0)), COLOURS[1]));
}

#[tokio::test]
async fn what_a_mix_would_refuse_is_drawn_with_a_warning_where_it_can_be() {
    let mut body = two(json!({"layer": 1, "x": 500, "y": 0, "width": 100, "height": 100}));
    let kinds = |body: &Value| {
        let (drawn, _) = preview(body.clone(), Wish::default());
        let warnings = drawn.warnings.into_iter();
        warnings.map(|w| (w.path, w.kind)).collect::<Vec<_>>()
    };
    let found = kinds(&body);
    assert!(
        found.contains(&("inputs[1].layer".into(), Doubt::EqualLayers)),
        "{found:?}"
    );
    assert!(
        found.contains(&("inputs[1].x".into(), Doubt::OutsideCanvas)),
        "{found:?}"
    );
    body["inputs"][1] =
        json!({"stream": "b", "layer": 2, "x": 0, "y": 0, "width": 100, "height": 100});
    body["inputs"]
        .as_array_mut()
        .unwrap()
        .push(json!({"stream": "c", "layer": 3, "x": 0, "y": 0, "width": 200, "height": 200}));
    assert_eq!(kinds(&body), [("inputs[1].layer".into(), Doubt::Covered)]);
}

#[tokio::test]
async fn wrong_scenes_are_refused_as_a_mix_would_refuse_them() {
    let mixer = mixer();
    for (sub, path) in [
        (json!({"gain": 5}), "inputs[1].gain"),
        (json!({"x": 3001}), "inputs[1].x"),
        (json!({"name": {"text": ""}}), "inputs[1].name.text"),
        (
            json!({"name": {"text": "\u{f1234}"}}),
            "inputs[1].name.text",
        ),
        (
            json!({"stream": null, "picture": {"file": "nobody"}}),
            "inputs[1].picture",
        ),
    ] {
        let mut body = two(sub);
        body["inputs"][1]
            .as_object_mut()
            .unwrap()
            .retain(|_, v| !v.is_null());
        let drawn = mixer.preview(&request(body.clone()), Wish::default());
        let refused = drawn.expect_err("it cannot be drawn");
        let (Error::Invalid { path: at, message } | Error::Picture { path: at, message }) =
            &refused
        else {
            panic!("{body}: {refused:?}");
        };
        assert_eq!(at, path, "{message}");
        assert_eq!(mixer.put("m", request(body)).unwrap_err(), refused);
    }
}

#[tokio::test]
async fn the_largest_canvas_is_drawn() {
    let body = json!({"app": "live",
        "inputs": [{"canvas": "#204060", "layer": 1}, {"stream": "b", "layer": 2}],
        "output": {"stream": "new", "width": 3000, "height": 3000}});
    let (_, image) = preview(body, Wish::default());
    assert_eq!(image.size, (3000, 3000));
    assert!(is(image.at(10, 10), 0x20_40_60));
}
