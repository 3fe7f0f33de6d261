//! The preview: a scene as one PNG, drawn by what draws mixes on air, without a mix.
//!
//! Owns what stands in for pictures that are not there: a field of colour in the stream's own size, a frame around it
//! to show what is cut off, the input's id in the middle. Pure but for still pictures, which are in hand before it is
//! called, and the newest pictures of running mixes when those are asked for. Called by the mixer's handle while a
//! request is answered.

mod png;
#[cfg(test)]
mod templates;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use gstreamer as gst;
use gstreamer_video as video;
use serde::Serialize;

use super::canvas::{Canvas, Yuv};
use super::cast::Stills;
use super::info::box_or_nulls;
use super::input::Picture;
use super::layout::{self, Fact, Known, Layout, Rect, Size};
use super::letters::Fonts;
use super::picture::{Cut, Raw, Scaler};
use super::scene::{Colour, Draft, Length, NameTag, Position, Scene, Source, Warning};
use super::stage::{self, Stage};

/// What a stream counts as that no running mix decodes: the sizes in which the vendor's kits publish, the first for
/// the one that gives the canvas its size.
const MAIN: Size = Size {
    width: 540,
    height: 960,
};
const SUB: Size = Size {
    width: 320,
    height: 480,
};
/// One for each input in turn, dark enough for white letters.
const COLOURS: [u32; 8] = [
    0x455a64, 0x1e88e5, 0xc2185b, 0x2e7d32, 0xe65100, 0x6a1b9a, 0x00838f, 0x795548,
];
/// Of the letters in the middle of a placeholder, as a share of its box's shorter side.
const LABEL: f64 = 0.14;

/// How a preview is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// Show the newest pictures of streams that running mixes decode.
    pub live: bool,
    /// Of the image, when it is to be smaller than the canvas.
    pub width: Option<u32>,
}

/// A drawn scene.
#[derive(Debug, Clone)]
pub struct Preview {
    pub png: Vec<u8>,
    pub layout: LayoutInfo,
    /// What is hardly meant, or what a mix would refuse.
    pub warnings: Vec<Warning>,
}

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayoutInfo {
    pub canvas: Size,
    /// By rising layer.
    pub inputs: Vec<Placed>,
}

/// One input's place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Placed {
    pub id: String,
    pub layer: u32,
    /// The box in pixels: `x`, `y`, `width`, `height`; null for what is not to be seen.
    #[serde(flatten, serialize_with = "box_or_nulls")]
    pub rect: Option<Rect>,
    /// Its own picture is shown: that of a still, or of a stream that a running mix decodes.
    pub real: bool,
}

/// What a running mix knows of a stream.
#[derive(Debug, Clone)]
pub(super) struct Sight {
    pub size: Size,
    /// Its newest picture.
    pub raw: Option<Raw>,
}

/// Draws a scene. `sights` are of its inputs, by their order.
///
/// # Errors
/// No memory, or no conversion.
pub(super) fn draw(
    draft: &Draft,
    stills: &Stills,
    sights: &[Option<Sight>],
    fonts: Arc<Fonts>,
    wish: Wish,
) -> Result<Preview, String> {
    let scene = &draft.scene;
    let still = |picture| stills.get(picture).cloned();
    let mut known = Known {
        inputs: Vec::with_capacity(scene.inputs.len()),
        placeholder: scene
            .on_loss
            .placeholder()
            .and_then(still)
            .map(|r| r.seen()),
        watermark: scene
            .watermark
            .as_ref()
            .and_then(|mark| still(&mark.picture))
            .map(|raw| raw.seen()),
    };
    let mut pictures = Vec::with_capacity(scene.inputs.len());
    for (index, input) in scene.inputs.iter().enumerate() {
        let sight = sights.get(index).and_then(Option::as_ref);
        let picture = match &input.source {
            Source::Colour(_) => None,
            Source::Picture(picture) => still(picture).map(|raw| (raw, true)),
            Source::Stream { .. } if !input.source.is_visual() => None,
            Source::Stream { .. } => Some(match sight {
                Some(Sight { raw: Some(raw), .. }) if wish.live => (raw.clone(), true),
                _ => (stand_in(index, size_of(scene, index, sight))?, false),
            }),
        };
        known.inputs.push(Fact {
            size: picture.as_ref().map(|(raw, _)| raw.seen()),
            ..Fact::default()
        });
        pictures.push(picture);
    }
    let canvas = layout::canvas(scene, &known).unwrap_or(MAIN);
    let layout = layout::resolve(scene, canvas, &known);
    let cast = Cast::new(scene, &layout, &pictures, stills);
    let raw = paint(&layout, &cast, fonts)?;
    let shown = layout.cells.iter().zip(&scene.inputs).zip(&pictures);
    let inputs = shown.map(|((cell, input), picture)| Placed {
        id: cell.id.to_string(),
        layer: input.layer,
        rect: cell.view.as_ref().map(|view| view.rect),
        real: picture.as_ref().is_some_and(|(_, real)| *real),
    });
    Ok(Preview {
        png: png::encode(&shrunk(raw, wish.width)?)?,
        layout: LayoutInfo {
            canvas,
            inputs: inputs.collect(),
        },
        warnings: draft.doubts(&layout),
    })
}

/// The size of a stream's pictures, as far as anybody knows.
fn size_of(scene: &Scene, index: usize, sight: Option<&Sight>) -> Size {
    match sight {
        Some(sight) => sight.size,
        None if scene.sizing() == Some(index) => MAIN,
        None => SUB,
    }
}

/// The layout as a picture in the canvas's colours.
fn paint(layout: &Layout, cast: &Cast<'_>, fonts: Arc<Fonts>) -> Result<Raw, String> {
    blank(layout.canvas, |canvas| {
        Stage::new(fonts).draw(canvas, layout, cast);
    })
}

/// A picture of that size that `draw` makes.
fn blank(size: Size, draw: impl FnOnce(&mut Canvas<'_>)) -> Result<Raw, String> {
    let format = video::VideoFormat::I420;
    let colours = "bt709".parse().map_err(text)?;
    let info = video::VideoInfo::builder(format, size.width, size.height)
        .colorimetry(&colours)
        .build()
        .map_err(text)?;
    let mut memory = vec![0; info.size()];
    let mut strides = [0; 3];
    for (stride, of) in strides.iter_mut().zip(info.stride()) {
        *stride = usize::try_from(*of).unwrap_or(0);
    }
    draw(&mut Canvas::packed(size, &mut memory, strides).ok_or("a picture out of shape")?);
    let buffer = gst::Buffer::from_mut_slice(memory);
    Ok(Raw::new(buffer, Arc::new(info)))
}

/// What stands for the pictures of input `index`.
fn stand_in(index: usize, size: Size) -> Result<Raw, String> {
    let size = Size::even(size.width.into(), size.height.into());
    let colour = Yuv::from(Colour::rgb(COLOURS[index % COLOURS.len()]));
    let light = Yuv([colour.0[0].saturating_add(50), colour.0[1], colour.0[2]]);
    let frame = (size.shorter() / 40 * 2).max(2);
    let inner = Rect {
        x: frame,
        y: frame,
        width: size.width.saturating_sub(2 * frame),
        height: size.height.saturating_sub(2 * frame),
    };
    blank(size, |canvas| {
        canvas.fill(size.into(), light, 1.0);
        canvas.fill(inner, colour, 1.0);
    })
}

/// The picture no wider than asked for, its aspect kept.
fn shrunk(raw: Raw, width: Option<u32>) -> Result<Raw, String> {
    let own = raw.seen();
    let Some(width) = width.filter(|&width| width < own.width) else {
        return Ok(raw);
    };
    let height = f64::from(own.height) * f64::from(width) / f64::from(own.width);
    let even = |v: f64| ((v / 2.0).round() as u32 * 2).max(2);
    let size = Size {
        width: even(width.into()),
        height: even(height),
    };
    Scaler::default().scale(&raw, Cut { part: None, size })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Who plays in a preview.
struct Cast<'a> {
    scene: &'a Scene,
    pictures: &'a [Option<(Raw, bool)>],
    labels: Vec<Option<Arc<NameTag>>>,
    placeholder: Option<&'a Raw>,
    mark: Option<&'a Raw>,
}

impl<'a> Cast<'a> {
    fn new(
        scene: &'a Scene,
        layout: &Layout,
        pictures: &'a [Option<(Raw, bool)>],
        stills: &'a Stills,
    ) -> Self {
        let labels = layout.cells.iter().zip(pictures).map(|(cell, picture)| {
            let view = cell.view.as_ref()?;
            let stands_in = picture.as_ref().is_some_and(|(_, real)| !real);
            stands_in.then(|| Arc::new(label(&cell.id, view.rect)))
        });
        Self {
            scene,
            pictures,
            labels: labels.collect(),
            placeholder: scene.on_loss.placeholder().and_then(|p| stills.get(p)),
            mark: scene
                .watermark
                .as_ref()
                .and_then(|asked| stills.get(&asked.picture)),
        }
    }

    fn index(&self, id: &str) -> Option<usize> {
        self.scene.inputs.iter().position(|input| *input.id == *id)
    }
}

impl stage::Cast for Cast<'_> {
    fn picture(&self, id: &str) -> Option<Picture> {
        let picture = self.pictures.get(self.index(id)?)?.as_ref();
        picture.map(|(raw, _)| stage::still(raw))
    }

    fn placeholder(&self) -> Option<&Raw> {
        self.placeholder
    }

    fn mark(&self) -> Option<&Raw> {
        self.mark
    }

    fn label(&self, id: &str) -> Option<Arc<NameTag>> {
        self.labels.get(self.index(id)?)?.clone()
    }
}

/// The id of an input, over the middle of its box.
fn label(id: &str, rect: Rect) -> NameTag {
    NameTag {
        text: id.to_owned(),
        position: Position::Center,
        size: Length::Pixels((f64::from(rect.size().shorter()) * LABEL).clamp(8.0, 200.0)),
        colour: Colour::WHITE,
        plate: None,
    }
}
