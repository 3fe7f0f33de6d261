//! From a request to a scene: the checks, field by field in the request's order.

use std::sync::Arc;
use std::time::Duration;

use super::limits::{edge, extent, share};
use super::output::output;
use super::{
    Border, BorderRequest, Colour, Crop, CropRequest, Doubt, Draft, Fit, InputRequest, Invalid,
    Length, MAX_BORDER, MAX_GAIN, MAX_INPUT_ID, MAX_INPUTS, MAX_LAYER, MAX_SIDE, MAX_TRANSITION,
    MixRequest, OnLoss, Place, Scene, SceneInput, Source, Tracks, Warning, invalid, overlay,
};
use crate::media::StreamKey;
use crate::mixer::layout::Size;

/// Reads a whole request.
pub(super) fn draft(request: &MixRequest) -> Result<Draft, Invalid> {
    let key = |stream: &str, path: String| {
        StreamKey::new(&request.app, stream).map_err(|e| Invalid {
            path,
            message: e.to_string(),
        })
    };
    // The application's name is checked by itself, so that its error has its own path.
    key("x", "app".into())?;
    let count = request.inputs.len();
    if !(1..=MAX_INPUTS).contains(&count) {
        return invalid(
            "inputs",
            format!("{count} inputs; a mix has 1 to {MAX_INPUTS}"),
        );
    }
    let mut warnings = Vec::new();
    let mut inputs: Vec<(usize, SceneInput)> = Vec::with_capacity(count);
    for (index, asked) in request.inputs.iter().enumerate() {
        let at = |field: &str| format!("inputs[{index}].{field}");
        let source = source(asked, index, |stream| key(stream, at("stream")))?;
        if let Some(key) = source.key()
            && inputs.iter().any(|(_, other)| other.key() == Some(key))
        {
            return invalid(
                at("stream"),
                format!("stream {} is an input already", key.stream()),
            );
        }
        let layer = layer(asked.layer, &at("layer"))?;
        let id = id(asked, &source, layer, &at("id"))?;
        if inputs.iter().any(|(_, other)| other.id == id) {
            return invalid(
                at("id"),
                format!("id {id} is taken already; give this input another"),
            );
        }
        if inputs.iter().any(|(_, other)| other.layer == layer) {
            warnings.push(Warning {
                path: at("layer"),
                kind: Doubt::EqualLayers,
                message: format!("layer {layer} is taken already"),
            });
        }
        let named = request.template.is_some();
        inputs.push((index, input(asked, index, source, layer, id, named)?));
    }
    let output = output(
        &request.output,
        key(&request.output.stream, "output.stream".into())?,
    )?;
    // Stable: of two on one layer the later one is on top.
    inputs.sort_by_key(|(_, input)| input.layer);
    let (order, inputs): (Vec<_>, Vec<_>) = inputs.into_iter().unzip();
    let in_place = inputs
        .iter()
        .position(|input| input.key() == Some(&output.key));
    let lead = in_place.or_else(|| {
        let streams = || (0..inputs.len()).filter(|&at| inputs[at].key().is_some());
        streams()
            .find(|&at| inputs[at].source.is_visual())
            .or_else(|| streams().next())
    });
    let Some(lead) = lead else {
        return invalid("inputs", "no stream among them; a mix needs at least one");
    };
    let transition = Duration::from_millis(request.transition_ms.unwrap_or(0).into());
    if transition > MAX_TRANSITION {
        let (ms, most) = (transition.as_millis(), MAX_TRANSITION.as_millis());
        return invalid("transition_ms", format!("{ms} is outside 0 to {most} ms"));
    }
    let scene = Scene {
        in_place: in_place.is_some(),
        lead,
        inputs,
        output,
        template: request.template.unwrap_or_default(),
        background: request.background.unwrap_or(Colour::BLACK),
        on_loss: match &request.on_loss {
            Some(asked) => overlay::on_loss(asked)?,
            None => OnLoss::Freeze,
        },
        transition,
        watermark: request
            .watermark
            .as_ref()
            .map(overlay::watermark)
            .transpose()?,
    };
    counts(&scene)?;
    if let Some(canvas) = scene.canvas() {
        warnings.extend(outside(&scene, &order, canvas));
    }
    Ok(Draft {
        scene,
        warnings,
        order,
    })
}

/// What can only be said of all inputs together.
fn counts(scene: &Scene) -> Result<(), Invalid> {
    let visuals = scene.inputs.iter().filter(|i| i.source.is_visual()).count();
    if let Some(wanted) = scene.template.visuals()
        && wanted != visuals
    {
        let template = scene.template;
        return invalid(
            "template",
            format!(
                "template {template} is for {wanted} inputs with pictures; there are {visuals}"
            ),
        );
    }
    if scene.canvas().is_none() && scene.sizing().is_none() {
        return invalid(
            "output.width",
            "missing; no stream with pictures gives the canvas its size",
        );
    }
    Ok(())
}

fn source(
    asked: &InputRequest,
    index: usize,
    key: impl Fn(&str) -> Result<StreamKey, Invalid>,
) -> Result<Source, Invalid> {
    let at = |field: &str| format!("inputs[{index}].{field}");
    let source = match (&asked.stream, &asked.picture, asked.canvas) {
        (Some(stream), None, None) => Source::Stream {
            key: key(stream)?,
            tracks: asked.kind.unwrap_or_default(),
        },
        (None, Some(picture), None) => {
            Source::Picture(overlay::asked_picture(picture, &at("picture"))?)
        }
        (None, None, Some(colour)) => Source::Colour(colour),
        (None, None, None) => {
            return invalid(
                at("stream"),
                "missing; an input is a stream, a picture or a canvas",
            );
        }
        _ => {
            return invalid(
                format!("inputs[{index}]"),
                "more than one of stream, picture and canvas given",
            );
        }
    };
    let what = match &source {
        Source::Stream {
            tracks: Tracks::Sound,
            ..
        } => "an input of sound alone",
        Source::Stream { .. } => "an input of pictures alone",
        Source::Picture(_) => "a picture",
        Source::Colour(_) => "a canvas",
    };
    let (seen, heard) = (source.is_visual(), source.is_audible());
    let has_texture = seen && !matches!(source, Source::Colour(_));
    let is_stream = source.key().is_some();
    for (field, given, sensible) in [
        ("kind", asked.kind.is_some(), is_stream),
        ("x", asked.x.is_some(), seen),
        ("y", asked.y.is_some(), seen),
        ("width", asked.width.is_some(), seen),
        ("height", asked.height.is_some(), seen),
        ("crop", asked.crop.is_some(), has_texture),
        ("fit", asked.fit.is_some(), has_texture),
        ("opacity", asked.opacity.is_some(), seen),
        ("radius", asked.radius.is_some(), seen),
        ("border", asked.border.is_some(), seen),
        ("hidden", asked.hidden.is_some(), seen),
        ("name", asked.name.is_some(), seen),
        ("mute", asked.mute.is_some(), heard),
        ("gain", asked.gain.is_some(), heard),
    ] {
        if given && !sensible {
            return invalid(at(field), format!("{what} has no {field}"));
        }
    }
    Ok(source)
}

fn layer(asked: Option<u32>, path: &str) -> Result<u32, Invalid> {
    match asked {
        None => invalid(path, "missing; every input needs a layer"),
        Some(layer) if !(1..=MAX_LAYER).contains(&layer) => {
            invalid(path, format!("{layer} is outside 1 to {MAX_LAYER}"))
        }
        Some(layer) => Ok(layer),
    }
}

fn id(asked: &InputRequest, source: &Source, layer: u32, path: &str) -> Result<Arc<str>, Invalid> {
    let Some(id) = &asked.id else {
        return Ok(match source {
            Source::Stream { key, .. } => key.stream().into(),
            Source::Picture(_) => format!("picture-{layer}").into(),
            Source::Colour(_) => format!("canvas-{layer}").into(),
        });
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !(1..=MAX_INPUT_ID).contains(&id.len()) || !id.chars().all(allowed) {
        let bytes = id.len();
        return invalid(
            path,
            format!(
                "the id has {bytes} bytes; an input's id has 1 to {MAX_INPUT_ID} of A-Z a-z 0-9 _ . -"
            ),
        );
    }
    Ok(id.as_str().into())
}

fn input(
    asked: &InputRequest,
    index: usize,
    source: Source,
    layer: u32,
    id: Arc<str>,
    template_named: bool,
) -> Result<SceneInput, Invalid> {
    let at = |field: &str| format!("inputs[{index}].{field}");
    let place = place(asked, index, template_named)?;
    let crop = match &asked.crop {
        Some(crop) => self::crop(crop, &at("crop"))?,
        None => None,
    };
    let radius = match asked.radius {
        Some(Length::Pixels(v)) if !(0.0..=f64::from(MAX_SIDE / 2)).contains(&v) => {
            let most = MAX_SIDE / 2;
            return invalid(at("radius"), format!("{v} is outside 0 to {most} pixels"));
        }
        Some(Length::Share(v)) if !(0.0..=50.0).contains(&v) => {
            return invalid(at("radius"), format!("{v}% is outside 0% to 50%"));
        }
        radius => radius.filter(|radius| radius.pixels(1) > 0.0),
    };
    let border = match asked.border {
        Some(BorderRequest { width, .. }) if width > MAX_BORDER => {
            return invalid(
                at("border.width"),
                format!("{width} is outside 0 to {MAX_BORDER} pixels"),
            );
        }
        Some(BorderRequest { width, color }) if width > 0 => Some(Border {
            width,
            colour: color.unwrap_or(Colour::WHITE),
        }),
        _ => None,
    };
    let gain = asked.gain.unwrap_or(1.0);
    if !(0.0..=MAX_GAIN).contains(&gain) {
        return invalid(at("gain"), format!("{gain} is outside 0 to {MAX_GAIN}"));
    }
    let name = match &asked.name {
        Some(name) => Some(Arc::new(overlay::name(name, &at("name"))?)),
        None => None,
    };
    Ok(SceneInput {
        id,
        source,
        layer,
        place,
        crop,
        fit: asked.fit.unwrap_or(Fit::Letterbox),
        opacity: share(asked.opacity, 1.0, &at("opacity"))?,
        radius,
        border,
        hidden: asked.hidden.unwrap_or(false),
        name,
        mute: asked.mute.unwrap_or(false),
        gain: gain as f32,
    })
}

/// With a template named, each absent field is the template's. Without one, a box is given wholly, by its size, by its
/// position alone, or not at all, and absent positions are 0.
fn place(asked: &InputRequest, index: usize, template_named: bool) -> Result<Place, Invalid> {
    let at = |field: &str| format!("inputs[{index}].{field}");
    edge(asked.x, &at("x"))?;
    edge(asked.y, &at("y"))?;
    extent(asked.width, &at("width"))?;
    extent(asked.height, &at("height"))?;
    let mut place = Place {
        x: asked.x,
        y: asked.y,
        width: asked.width,
        height: asked.height,
    };
    if template_named || place == Place::default() {
        return Ok(place);
    }
    match (place.width, place.height) {
        (Some(_), None) => {
            return invalid(at("height"), "missing; width and height go together");
        }
        (None, Some(_)) => return invalid(at("width"), "missing; width and height go together"),
        _ => {}
    }
    place.x.get_or_insert(Length::Pixels(0.0));
    place.y.get_or_insert(Length::Pixels(0.0));
    Ok(place)
}

/// `None` for a crop that leaves all there.
fn crop(asked: &CropRequest, path: &str) -> Result<Option<Crop>, Invalid> {
    let crop = Crop {
        x: asked.x.unwrap_or(Length::Pixels(0.0)),
        y: asked.y.unwrap_or(Length::Pixels(0.0)),
        width: asked.width,
        height: asked.height,
    };
    edge(Some(crop.x), &format!("{path}.x"))?;
    edge(Some(crop.y), &format!("{path}.y"))?;
    extent(Some(crop.width), &format!("{path}.width"))?;
    extent(Some(crop.height), &format!("{path}.height"))?;
    for (field, from, length) in [("x", crop.x, crop.width), ("y", crop.y, crop.height)] {
        // Pixels are held against the source's picture once that is known.
        if let (Length::Share(from), Length::Share(length)) = (from, length)
            && from + length > 100.0 + 1e-9
        {
            let end = from + length;
            return invalid(
                format!("{path}.{field}"),
                format!("the crop ends at {end}% of the source"),
            );
        }
    }
    let starts = [crop.x, crop.y].iter().all(|v| v.pixels(1) == 0.0);
    let whole = [crop.width, crop.height]
        .iter()
        .all(|&v| v == Length::Share(100.0));
    Ok((!(starts && whole)).then_some(crop))
}

/// Given boxes that do not lie inside a canvas of known size.
fn outside(scene: &Scene, order: &[usize], canvas: Size) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (at, (input, index)) in scene.inputs.iter().zip(order).enumerate() {
        if scene.is_canvas(at) {
            continue;
        }
        let place = input.place;
        for (position, size, from, length, side) in [
            ("x", "width", place.x, place.width, canvas.width),
            ("y", "height", place.y, place.height, canvas.height),
        ] {
            // Where a size is not given, template and picture decide it.
            let Some(length) = length.map(|length| length.pixels(side)) else {
                continue;
            };
            let end = from.map_or(0.0, |from| from.pixels(side)) + length;
            if end <= f64::from(side) + 0.5 {
                continue;
            }
            let (field, message) = match from {
                Some(_) => (
                    position,
                    format!("the box ends at {end} on a canvas of {side}"),
                ),
                None => (size, format!("{length} is over the canvas's {side}")),
            };
            warnings.push(Warning {
                path: format!("inputs[{index}].{field}"),
                kind: Doubt::OutsideCanvas,
                message,
            });
        }
    }
    warnings
}
