//! The scene: what a mix request asks for, read strictly and turned into one normal form.
//!
//! Owns the native JSON of a mix and every check that needs nothing but the request itself; each error
//! names the field by its path, the value and the limit. Pure. Two requests that mean the same give equal
//! [`Scene`]s, which is how a repeated PUT is known to change nothing. Sizes in the output's pixels are
//! worked out by [`layout`](super::layout) once the canvas is known.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::media::StreamKey;

/// Inputs of one mix: one main and three subs, as the linkmic of its day had it. The layers, pads and
/// layouts count up to this constant only, so raising it (16 is the contract's end) is a matter of CPU.
pub const MAX_INPUTS: usize = 4;
/// Layers run from 1, the background, to this (contract, section 2.2).
pub const MAX_LAYER: u32 = 16;
/// Longest side of a canvas or a box, and the largest position, in pixels (contract, section 2.2).
pub const MAX_SIDE: u32 = 3_000;
/// Shortest side of a canvas: x264 takes less, but no player shows it.
pub const MIN_SIDE: u32 = 16;
pub const MAX_FPS: u32 = 60;
/// Largest video bitrate (contract, section 2.2, legacy range).
pub const MAX_VIDEO_KBPS: u32 = 50_000;
/// AAC-LC in stereo needs no more, and the encoder gives no more.
pub const AUDIO_KBPS: std::ops::RangeInclusive<u32> = 16..=500;
/// Four times the amplitude is 12 dB.
pub const MAX_GAIN: f64 = 4.0;

/// The body of `PUT /api/v1/mixes/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixRequest {
    pub app: String,
    pub inputs: Vec<InputRequest>,
    pub output: OutputRequest,
}

/// One input of a request. A box is given wholly, by position alone, or not at all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRequest {
    pub stream: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<Length>,
    /// Factor on the amplitude; absent means 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
}

/// The output of a request. What is absent is taken from the input that [`Scene::lead`] names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputRequest {
    pub stream: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video_kbps: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_kbps: Option<u32>,
    /// Lets an in-place mix replace a codec that the encoder does not give (HEVC, HE-AAC …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec_change: Option<bool>,
}

/// A position or size: a JSON number is pixels, a string like `"37.5%"` a share of the canvas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    Pixels(f64),
    /// Percent of the canvas's side, 0 to 100.
    Share(f64),
}

/// A mix as it stands: valid and in normal form, inputs by rising layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    pub inputs: Vec<SceneInput>,
    pub output: SceneOutput,
    /// The output takes over the program feed of one of the inputs.
    pub in_place: bool,
    /// Index of the input that gives the output its format and pace where the request leaves it open: the
    /// one whose name the output has, else the lowest layer.
    pub lead: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SceneInput {
    pub key: StreamKey,
    pub layer: u32,
    pub place: Place,
    pub gain: f32,
}

/// Where an input goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Place {
    /// The main fills the canvas, a sub takes its place in the official linkmic layout.
    Default,
    /// That position, in the official size.
    At { x: Length, y: Length },
    Box {
        x: Length,
        y: Length,
        width: Length,
        height: Length,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct SceneOutput {
    pub key: StreamKey,
    /// Width and height in pixels, both even.
    pub size: Option<(u32, u32)>,
    pub fps: Option<u32>,
    pub video_kbps: Option<u32>,
    pub audio_kbps: Option<u32>,
    pub codec_change: bool,
}

/// A request that is not a scene: which field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Invalid {
    /// Path of the field in the request, like `inputs[1].x`.
    pub path: String,
    pub message: String,
}

fn invalid<T>(path: impl Into<String>, message: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid {
        path: path.into(),
        message: message.into(),
    })
}

impl Scene {
    /// Checks a request and puts it into normal form.
    ///
    /// # Errors
    /// The first field that is wrong, in the order of the request.
    pub fn new(request: &MixRequest) -> Result<Self, Invalid> {
        let key = |stream: &str, path: String| {
            StreamKey::new(&request.app, stream).map_err(|e| Invalid {
                path,
                message: e.to_string(),
            })
        };
        // The application's name is checked by itself, so that its error has its own path.
        StreamKey::new(&request.app, "x").map_err(|e| Invalid {
            path: "app".into(),
            message: e.to_string(),
        })?;
        let count = request.inputs.len();
        if !(1..=MAX_INPUTS).contains(&count) {
            return invalid(
                "inputs",
                format!("{count} inputs; a mix has 1 to {MAX_INPUTS}"),
            );
        }
        let mut inputs: Vec<SceneInput> = Vec::with_capacity(count);
        for (index, input) in request.inputs.iter().enumerate() {
            let at = |field: &str| format!("inputs[{index}].{field}");
            let key = key(&input.stream, at("stream"))?;
            if inputs.iter().any(|other| other.key == key) {
                return invalid(
                    at("stream"),
                    format!("stream {} is an input already", key.stream()),
                );
            }
            let layer = match input.layer {
                None => return invalid(at("layer"), "missing; every input needs a layer"),
                Some(layer) if !(1..=MAX_LAYER).contains(&layer) => {
                    return invalid(at("layer"), format!("{layer} is outside 1 to {MAX_LAYER}"));
                }
                Some(layer) => layer,
            };
            if inputs.iter().any(|other| other.layer == layer) {
                return invalid(at("layer"), format!("layer {layer} is taken already"));
            }
            let gain = input.gain.unwrap_or(1.0);
            if !(0.0..=MAX_GAIN).contains(&gain) {
                return invalid(at("gain"), format!("{gain} is outside 0 to {MAX_GAIN}"));
            }
            inputs.push(SceneInput {
                key,
                layer,
                place: place(input, index)?,
                gain: gain as f32,
            });
        }
        let output = output(
            &request.output,
            key(&request.output.stream, "output.stream".into())?,
        )?;
        if let Some(size) = output.size {
            for (index, input) in inputs.iter().enumerate() {
                fits(input.place, size, index)?;
            }
        }
        inputs.sort_by_key(|input| input.layer);
        let same = inputs.iter().position(|input| input.key == output.key);
        Ok(Self {
            in_place: same.is_some(),
            lead: same.unwrap_or(0),
            inputs,
            output,
        })
    }

    /// The input that gives the output its format and pace.
    pub fn lead(&self) -> &SceneInput {
        &self.inputs[self.lead]
    }
}

fn place(input: &InputRequest, index: usize) -> Result<Place, Invalid> {
    let at = |field: &str| format!("inputs[{index}].{field}");
    for (field, value, least) in [
        ("x", input.x, 0.0),
        ("y", input.y, 0.0),
        ("width", input.width, 2.0),
        ("height", input.height, 2.0),
    ] {
        match value {
            Some(Length::Pixels(v)) if !(least..=f64::from(MAX_SIDE)).contains(&v) => {
                return invalid(
                    at(field),
                    format!("{v} is outside {least} to {MAX_SIDE} pixels"),
                );
            }
            // A size of no percent is no size; a position of 0 % is the edge.
            Some(Length::Share(v)) if !(0.0..=100.0).contains(&v) || (least > 0.0 && v == 0.0) => {
                return invalid(at(field), format!("{v}% is no share of the canvas"));
            }
            _ => {}
        }
    }
    let zero = Length::Pixels(0.0);
    match (input.width, input.height) {
        (Some(width), Some(height)) => Ok(Place::Box {
            x: input.x.unwrap_or(zero),
            y: input.y.unwrap_or(zero),
            width,
            height,
        }),
        (None, None) if input.x.is_none() && input.y.is_none() => Ok(Place::Default),
        (None, None) => Ok(Place::At {
            x: input.x.unwrap_or(zero),
            y: input.y.unwrap_or(zero),
        }),
        (Some(_), None) => invalid(at("height"), "missing; width and height go together"),
        (None, Some(_)) => invalid(at("width"), "missing; width and height go together"),
    }
}

/// A given box must lie inside a canvas of known size.
fn fits(place: Place, size: (u32, u32), index: usize) -> Result<(), Invalid> {
    let Place::Box {
        x,
        y,
        width,
        height,
    } = place
    else {
        return Ok(());
    };
    for (field, from, length, side) in [("x", x, width, size.0), ("y", y, height, size.1)] {
        let (from, length) = (from.pixels(side), length.pixels(side));
        if from + length > f64::from(side) + 0.5 {
            return invalid(
                format!("inputs[{index}].{field}"),
                format!("the box ends at {} on a canvas of {side}", from + length),
            );
        }
    }
    Ok(())
}

fn output(request: &OutputRequest, key: StreamKey) -> Result<SceneOutput, Invalid> {
    let size = match (request.width, request.height) {
        (None, None) => None,
        (Some(width), Some(height)) => {
            for (path, side) in [("output.width", width), ("output.height", height)] {
                if !(MIN_SIDE..=MAX_SIDE).contains(&side) {
                    return invalid(path, format!("{side} is outside {MIN_SIDE} to {MAX_SIDE}"));
                }
                if side % 2 != 0 {
                    return invalid(path, format!("{side} is odd; 4:2:0 video needs even sides"));
                }
            }
            Some((width, height))
        }
        (Some(_), None) => {
            return invalid("output.height", "missing; width and height go together");
        }
        (None, Some(_)) => return invalid("output.width", "missing; width and height go together"),
    };
    let range = |path: &str, value: Option<u32>, limits: std::ops::RangeInclusive<u32>| match value
    {
        Some(v) if !limits.contains(&v) => invalid(
            path,
            format!("{v} is outside {} to {}", limits.start(), limits.end()),
        ),
        _ => Ok(value),
    };
    Ok(SceneOutput {
        key,
        size,
        fps: range("output.fps", request.fps, 1..=MAX_FPS)?,
        video_kbps: range("output.video_kbps", request.video_kbps, 1..=MAX_VIDEO_KBPS)?,
        audio_kbps: range("output.audio_kbps", request.audio_kbps, AUDIO_KBPS)?,
        codec_change: request.codec_change.unwrap_or(false),
    })
}

impl Length {
    /// In pixels, on a canvas whose side in that direction is `side`.
    pub fn pixels(self, side: u32) -> f64 {
        match self {
            Length::Pixels(v) => v,
            Length::Share(percent) => percent / 100.0 * f64::from(side),
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Length::Pixels(v) => write!(f, "{v}"),
            Length::Share(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Length {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Length::Pixels(v) if v.fract() == 0.0 => serializer.serialize_i64(*v as i64),
            Length::Pixels(v) => serializer.serialize_f64(*v),
            Length::Share(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Length;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of pixels or a share like \"37.5%\"")
            }
            fn visit_i64<E>(self, v: i64) -> Result<Length, E> {
                Ok(Length::Pixels(v as f64))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Length, E> {
                Ok(Length::Pixels(v as f64))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Length, E> {
                Ok(Length::Pixels(v))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Length, E> {
                v.strip_suffix('%')
                    .and_then(|digits| digits.parse().ok())
                    .filter(|percent: &f64| percent.is_finite())
                    .map(Length::Share)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(v), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn example() -> Value {
        json!({ "app": "live",
            "inputs": [
                {"stream": "8888_streamA", "layer": 1},
                {"stream": "8888_streamB", "layer": 2, "x": 380, "y": 630, "width": 160, "height": 240, "gain": 1.0}],
            "output": {"stream": "8888_streamA", "width": 540, "height": 960, "fps": 20, "video_kbps": 1200} })
    }

    fn read(value: Value) -> Result<Scene, Invalid> {
        Scene::new(&serde_json::from_value(value).expect("the JSON has the right shape"))
    }

    /// The example with one field set to something else (`null` takes it away).
    fn with(pointer: &str, value: Value) -> Value {
        let mut json = example();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = json.pointer_mut(parent).unwrap();
        match (parent, value) {
            (Value::Object(map), Value::Null) => drop(map.remove(field)),
            (Value::Object(map), value) => drop(map.insert(field.into(), value)),
            _ => panic!("{pointer} is no field of an object"),
        }
        json
    }

    #[test]
    fn the_documented_example_is_a_scene_in_place() {
        let scene = read(example()).unwrap();
        assert!(scene.in_place);
        assert_eq!(scene.lead().key.stream(), "8888_streamA");
        assert_eq!(scene.inputs[0].place, Place::Default);
        assert_eq!(scene.output.size, Some((540, 960)));
    }

    #[test]
    fn order_spelling_and_defaults_do_not_make_another_scene() {
        let mut other = example();
        other["inputs"].as_array_mut().unwrap().reverse();
        other["inputs"][0].as_object_mut().unwrap().remove("gain");
        other["inputs"][0]["x"] = json!(380.0);
        assert_eq!(read(example()).unwrap(), read(other).unwrap());
        let share = |text| read(with("/inputs/1/x", json!(text))).unwrap();
        assert_eq!(share("50%"), share("50.0%"));
        assert_ne!(share("50%"), share("51%"));
    }

    #[test]
    fn the_lead_is_the_input_that_the_output_replaces() {
        let scene = read(with("/output/stream", json!("8888_streamB"))).unwrap();
        assert_eq!((scene.in_place, scene.lead), (true, 1));
        let scene = read(with("/output/stream", json!("mixed"))).unwrap();
        assert_eq!((scene.in_place, scene.lead), (false, 0));
    }

    #[test]
    fn every_mistake_names_its_field() {
        let five: Vec<_> = (1..=5)
            .map(|n| json!({"stream": format!("s{n}"), "layer": n}))
            .collect();
        let cases = [
            (
                with("/app", json!("li ve")),
                "app",
                "application name has the character ' '",
            ),
            (
                with("/inputs", json!([])),
                "inputs",
                "0 inputs; a mix has 1 to 4",
            ),
            (
                with("/inputs", json!(five)),
                "inputs",
                "5 inputs; a mix has 1 to 4",
            ),
            (
                with("/inputs/1/stream", json!("a/b")),
                "inputs[1].stream",
                "stream name has the character '/'",
            ),
            (
                with("/inputs/1/stream", json!("8888_streamA")),
                "inputs[1].stream",
                "stream 8888_streamA is an input already",
            ),
            (
                with("/inputs/1/layer", Value::Null),
                "inputs[1].layer",
                "missing",
            ),
            (
                with("/inputs/1/layer", json!(1)),
                "inputs[1].layer",
                "layer 1 is taken",
            ),
            (
                with("/inputs/1/layer", json!(17)),
                "inputs[1].layer",
                "17 is outside 1 to 16",
            ),
            (
                with("/inputs/1/x", json!(-1)),
                "inputs[1].x",
                "-1 is outside 0 to 3000 pixels",
            ),
            (
                with("/inputs/1/x", json!(381)),
                "inputs[1].x",
                "the box ends at 541 on a canvas of 540",
            ),
            (
                with("/inputs/1/y", json!("80%")),
                "inputs[1].y",
                "the box ends at 1008 on a canvas of 960",
            ),
            (
                with("/inputs/1/width", json!("101%")),
                "inputs[1].width",
                "101% is no share",
            ),
            (
                with("/inputs/1/width", Value::Null),
                "inputs[1].width",
                "missing; width and height",
            ),
            (
                with("/inputs/1/height", json!(0)),
                "inputs[1].height",
                "0 is outside 2 to 3000 pixels",
            ),
            (
                with("/inputs/1/gain", json!(5)),
                "inputs[1].gain",
                "5 is outside 0 to 4",
            ),
            (
                with("/output/width", json!(541)),
                "output.width",
                "541 is odd",
            ),
            (
                with("/output/height", Value::Null),
                "output.height",
                "missing; width and height",
            ),
            (
                with("/output/fps", json!(61)),
                "output.fps",
                "61 is outside 1 to 60",
            ),
            (
                with("/output/video_kbps", json!(0)),
                "output.video_kbps",
                "0 is outside 1 to 50000",
            ),
            (
                with("/output/audio_kbps", json!(501)),
                "output.audio_kbps",
                "501 is outside 16 to 500",
            ),
            (
                with("/output/stream", json!("")),
                "output.stream",
                "stream name is empty",
            ),
        ];
        for (json, path, message) in cases {
            let error = read(json).expect_err(path);
            assert_eq!(error.path, path, "{error}");
            assert!(error.message.starts_with(message), "{error} / {message}");
        }
    }

    #[test]
    fn unknown_fields_and_wrong_types_are_refused() {
        for (pointer, value) in [
            ("/colour", json!("red")),
            ("/inputs/0/crop", json!(1)),
            ("/output/codec", json!("h264")),
            ("/inputs/1/x", json!("37.5")),
            ("/inputs/1/x", json!("NaN%")),
            ("/inputs/1/x", json!([1])),
        ] {
            let result: Result<MixRequest, _> = serde_json::from_value(with(pointer, value));
            assert!(result.is_err(), "{pointer}");
        }
    }

    #[test]
    fn a_request_survives_its_own_json() {
        let request: MixRequest =
            serde_json::from_value(with("/inputs/1/x", json!("37.5%"))).unwrap();
        let again = serde_json::from_value(serde_json::to_value(&request).unwrap()).unwrap();
        assert_eq!(request, again);
    }
}
