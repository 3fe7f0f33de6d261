//! From a request that makes sense to the native JSON of a mix.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::ask::Length;
use super::canvas::Canvas;
use super::{Ask, Code, Facts, Input, Kind, Refusal};
use crate::compat::account::{Account, Picture};

/// The scene on a canvas of that size. Boxes are in pixels, so that the same request is the same scene.
///
/// The input at the bottom fills the canvas. Of the others what is not given is the template's, without one the top left
/// corner and the picture's own size.
///
/// # Errors
/// What is wrong with an input's picture, crop, colour or box.
pub(super) fn native(
    account: &Account,
    pictures: &BTreeMap<u32, Picture>,
    ask: &Ask,
    order: &[usize],
    canvas: Canvas,
    facts: &Facts,
) -> Result<Value, Refusal> {
    let bottom = order.iter().find(|&&at| ask.inputs[at].kind.is_visual());
    let mut inputs = Vec::with_capacity(ask.inputs.len());
    for (at, input) in ask.inputs.iter().enumerate() {
        let mut native = source(pictures, input)?;
        native.insert("layer".into(), json!(input.layer));
        if let Some(crop) = crop(ask, input, facts)? {
            native.insert("crop".into(), crop);
        }
        if ask.crop_to_fill && !matches!(input.kind, Kind::Canvas | Kind::Sound) {
            native.insert("fit".into(), json!("crop"));
        }
        if input.kind.is_visual() && Some(&at) != bottom {
            let own = own_size(ask, input, facts)?;
            native.extend(place(ask, input, canvas, own)?);
        }
        inputs.push(Value::Object(native));
    }
    let template = match ask.template {
        0 => json!("stacked"),
        number => json!(number),
    };
    Ok(json!({
        "app": account.app,
        "template": template,
        "inputs": inputs,
        "output": output(ask, canvas.even),
    }))
}

fn output(ask: &Ask, (width, height): (u32, u32)) -> Value {
    let mut output = Map::new();
    output.insert("stream".into(), json!(ask.output));
    output.insert("width".into(), json!(width));
    output.insert("height".into(), json!(height));
    // The output is H.264 and AAC, whatever the inputs are.
    output.insert("codec_change".into(), json!(true));
    let encoding = &ask.encoding;
    if let Some(kbps) = encoding.video_kbps {
        output.insert("video_kbps".into(), json!(kbps.round() as u32));
    }
    for (field, value) in [
        ("gop", encoding.gop),
        ("fps", encoding.fps),
        ("audio_kbps", encoding.audio_kbps),
        ("sample_rate", encoding.sample_rate),
        ("channels", encoding.channels),
    ] {
        if let Some(value) = value {
            output.insert(field.into(), json!(value));
        }
    }
    if let Some(sei) = &encoding.sei {
        output.insert("mix_sei".into(), json!(sei));
    }
    if encoding.pass_sei {
        output.insert("pass_sei".into(), json!(true));
    }
    Value::Object(output)
}

/// What the input is.
fn source(pictures: &BTreeMap<u32, Picture>, input: &Input) -> Result<Map<String, Value>, Refusal> {
    let mut native = Map::new();
    match input.kind {
        Kind::Both | Kind::Sound | Kind::Pictures => {
            let kind = match input.kind {
                Kind::Sound => "audio",
                Kind::Pictures => "video",
                _ => "audio+video",
            };
            native.insert("stream".into(), json!(input.id));
            native.insert("kind".into(), json!(kind));
        }
        Kind::Canvas => {
            native.insert("canvas".into(), json!(colour(input.colour.as_deref())?));
        }
        Kind::Picture => {
            let number = input.picture.and_then(|id| u32::try_from(id).ok());
            let known = number.and_then(|number| Some((number, pictures.get(&number)?)));
            let (number, picture) = known
                .ok_or_else(|| Code::Picture.because("there is no picture of that picture id"))?;
            let picture = match picture {
                Picture::File(_) => json!({"file": Picture::file_id(number)}),
                Picture::Url(url) => json!({"url": url}),
            };
            native.insert("picture".into(), picture);
        }
    }
    Ok(native)
}

/// `0xRRGGBB`, also with `#` or nothing in front; absent: black.
fn colour(text: Option<&str>) -> Result<String, Refusal> {
    let Some(text) = text else {
        return Ok("#000000".into());
    };
    let text = text.trim();
    let digits = ["0x", "0X", "#"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(text);
    if digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(format!("#{}", digits.to_ascii_lowercase()));
    }
    Err(Code::Template.because("color is not of the form 0xRRGGBB"))
}

/// The input's own size in pixels, as far as it is known: what its crop leaves of the source's.
///
/// # Errors
/// As [`crop`].
pub(super) fn own_size(
    ask: &Ask,
    input: &Input,
    facts: &Facts,
) -> Result<Option<(f64, f64)>, Refusal> {
    if let Some(part) = part(ask, input, facts)? {
        return Ok(Some((part[2], part[3])));
    }
    Ok(source_size(input, facts).map(|(width, height)| (width.into(), height.into())))
}

fn source_size(input: &Input, facts: &Facts) -> Option<(u32, u32)> {
    let stream = facts
        .streams
        .get(&input.id)
        .filter(|_| input.kind.is_stream());
    stream.and_then(|stream| stream.size)
}

/// x, y, width and height of what is left of the source; `None`: all of it.
fn part(ask: &Ask, input: &Input, facts: &Facts) -> Result<Option<[f64; 4]>, Refusal> {
    let Some(crop) = input.crop else {
        return Ok(None);
    };
    if matches!(input.kind, Kind::Canvas | Kind::Sound) {
        return Ok(None);
    }
    let limits = &ask.limits;
    let x = limits.pixels(crop.x, "crop_x")?;
    let y = limits.pixels(crop.y, "crop_y")?;
    let width = limits.pixels(crop.width, "crop_width")?;
    let height = limits.pixels(crop.height, "crop_height")?;
    if [x, y, width, height] == [0.0; 4] {
        return Ok(None);
    }
    let (across, down) = match source_size(input, facts) {
        Some((width, height)) => (f64::from(width), f64::from(height)),
        // The mixer, which fetches it, holds the crop against it.
        None if input.kind == Kind::Picture && width > 0.0 && height > 0.0 => {
            (x + width, y + height)
        }
        None => {
            return Err(Code::SizeUnknown.because(format!("size of {} is not known", input.id)));
        }
    };
    // Without a size of its own it takes what is left of the source.
    let or_rest = |length: f64, rest: f64| if length > 0.0 { length } else { rest };
    let (width, height) = (or_rest(width, across - x), or_rest(height, down - y));
    // Under 2 pixels there is no picture in 4:2:0.
    if width < 2.0 || height < 2.0 || x + width > across || y + height > down {
        return Err(Code::Crop.because(format!(
            "crop of {} leaves its source of {across}x{down}",
            input.id
        )));
    }
    Ok(Some([x, y, width, height]))
}

fn crop(ask: &Ask, input: &Input, facts: &Facts) -> Result<Option<Value>, Refusal> {
    let part = part(ask, input, facts)?;
    Ok(part.map(|[x, y, width, height]| json!({"x": x, "y": y, "width": width, "height": height})))
}

/// The box, as far as it is given.
fn place(
    ask: &Ask,
    input: &Input,
    canvas: Canvas,
    own: Option<(f64, f64)>,
) -> Result<Map<String, Value>, Refusal> {
    let limits = &ask.limits;
    let edge = |value: Option<f64>, what| value.map(|v| limits.length(v, what)).transpose();
    let axes = [
        (
            ["x", "width"],
            edge(input.x, "location_x")?,
            limits.size(input.width, "image_width")?,
            own.map(|own| own.0),
            canvas.asked.0,
            canvas.even.0,
        ),
        (
            ["y", "height"],
            edge(input.y, "location_y")?,
            limits.size(input.height, "image_height")?,
            own.map(|own| own.1),
            canvas.asked.1,
            canvas.even.1,
        ),
    ];
    let mut native = Map::new();
    for ([position, size], from, length, own, asked, even) in axes {
        let pixels = |length: Length| length.pixels(asked);
        let end = f64::from(even);
        let (from, length) = (from.map(pixels), length.map(pixels));
        // What a template decides lies inside.
        let own = own.filter(|_| ask.template == 0);
        let reach = from.unwrap_or(0.0) + length.or(own).unwrap_or(0.0);
        // Ratios that add up to 1 may do so by a rounding error more.
        if reach > asked + 1e-6 || from.is_some_and(|from| from + 2.0 > end) {
            return Err(Code::Parameter.because("small picture out of the background"));
        }
        if let Some(from) = from {
            native.insert(position.into(), json!(from));
        }
        if let Some(length) = length {
            let length = length.min(end - from.unwrap_or(0.0)).max(2.0);
            native.insert(size.into(), json!(length));
        }
    }
    Ok(native)
}
