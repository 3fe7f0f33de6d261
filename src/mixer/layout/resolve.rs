//! From a scene to a layout: who takes part, what the template says of them, what was asked for besides, and what
//! becomes of the picture in the box.

use super::fit::{filling, fitted, floor_even, letterbox, own_size, shift, span, whole};
use super::template::{Role, Sizing, Stated, has_equal_cells, stated, unknown};
use super::{
    Cell, Content, Fact, Known, Layout, Presence, Rect, Remark, Size, View, mark, warning,
};
use crate::mixer::scene::{Border, Crop, Doubt, Fit, Length, OnLoss, Scene, SceneInput, Source};

/// Puts the scene on a canvas.
pub fn resolve(scene: &Scene, canvas: Size, known: &Known) -> Layout {
    let seats: Vec<_> = roles(scene, known)
        .into_iter()
        .enumerate()
        .map(|(index, role)| Some(Seat::new(scene, index, role?, canvas, known)))
        .collect();
    let tallest = seats
        .iter()
        .flatten()
        .filter(|seat| seat.stated.size == Sizing::Bounds)
        .map(|seat| seat.height)
        .fold(0.0, f64::max);
    let mut remarks = Vec::new();
    let cells = scene
        .inputs
        .iter()
        .zip(&seats)
        .enumerate()
        .map(|(index, (input, seat))| Cell {
            id: input.id.clone(),
            gain: input.loudness(),
            view: seat
                .as_ref()
                .filter(|_| !input.hidden)
                .map(|seat| seat.view(scene, index, tallest, canvas, &mut remarks)),
        })
        .collect();
    let mut layout = Layout {
        canvas,
        background: scene.background,
        cells,
        mark: scene
            .watermark
            .as_ref()
            .map(|asked| mark::place(asked, known.watermark, canvas)),
        remarks,
    };
    let found = warning::of(scene, &layout);
    layout.remarks.extend(found);
    layout
}

fn fact(known: &Known, index: usize) -> Fact {
    known.inputs.get(index).copied().unwrap_or_default()
}

/// Everybody's part in the template; `None` for those that have none: sound alone, and under the policy `hide` those
/// that are not there. Hidden inputs keep their place.
fn roles(scene: &Scene, known: &Known) -> Vec<Option<Role>> {
    let background = scene.background();
    let is_cell = |index: usize| {
        let source = &scene.inputs[index].source;
        Some(index) != background || (has_equal_cells(scene.template) && source.key().is_some())
    };
    let takes_part = |index: usize| {
        let input = &scene.inputs[index];
        let away = input.key().is_some() && fact(known, index).presence != Presence::Present;
        input.source.is_visual() && !(away && matches!(scene.on_loss, OnLoss::Hide { .. }))
    };
    let all = 0..scene.inputs.len();
    let of = all
        .clone()
        .filter(|&index| takes_part(index) && is_cell(index))
        .count();
    let mut n = 0;
    all.map(|index| {
        if !takes_part(index) {
            return None;
        }
        if !is_cell(index) {
            return Some(Role::Background);
        }
        n += 1;
        Some(Role::Nth { n: n - 1, of })
    })
    .collect()
}

/// One input's box before it is known how tall the others' are.
struct Seat<'a> {
    input: &'a SceneInput,
    content: Content,
    /// The content's own size, and what of it is taken.
    own: Option<Size>,
    part: Option<Rect>,
    /// The crop had to be made smaller; on which axis.
    cut: Option<&'static str>,
    stated: Stated,
    width: f64,
    height: f64,
    /// Of what is taken, hugged by the box.
    hugs: bool,
}

impl<'a> Seat<'a> {
    fn new(scene: &'a Scene, index: usize, role: Role, canvas: Size, known: &Known) -> Self {
        let input = &scene.inputs[index];
        let fact = fact(known, index);
        let away = input.key().is_some() && fact.presence != Presence::Present;
        let stands_in = away && scene.on_loss.placeholder().is_some();
        let (content, own) = match input.source {
            Source::Colour(colour) => (Content::Colour(colour), None),
            _ if stands_in => (Content::Placeholder, known.placeholder),
            _ => (Content::Input, fact.size),
        };
        let (part, cut) = match (input.crop, own) {
            (Some(crop), Some(own)) if content == Content::Input => cropped(crop, own),
            _ => (None, None),
        };
        let stated = stated(scene.template, role, canvas);
        let size = part.map(Rect::size).or(own);
        let mut hugs = false;
        let (width, height) = match (stated.size, size) {
            (Sizing::Box, _) => (stated.width, stated.height),
            (Sizing::Bounds, Some(size)) if input.fit == Fit::Letterbox => {
                hugs = true;
                let (width, height) = fitted(size, stated.width, stated.height);
                (width.into(), height.into())
            }
            (Sizing::Own, Some(size)) => {
                hugs = true;
                own_size(size, canvas)
            }
            (Sizing::Bounds | Sizing::Own, _) => unknown(scene.template, &stated),
        };
        let given = |length: Option<Length>, side| length.map(|length| length.pixels(side));
        let (given_width, given_height) = (
            given(input.place.width, canvas.width),
            given(input.place.height, canvas.height),
        );
        Self {
            hugs: hugs && given_width.is_none() && given_height.is_none(),
            input,
            content,
            own,
            part,
            cut,
            stated,
            width: given_width.unwrap_or(width),
            height: given_height.unwrap_or(height),
        }
    }

    fn view(
        &self,
        scene: &Scene,
        index: usize,
        tallest: f64,
        canvas: Size,
        remarks: &mut Vec<Remark>,
    ) -> View {
        let Self { input, stated, .. } = self;
        let place = input.place;
        let mut axis =
            |(position, size), given: Option<Length>, sized: bool, along, length, tallest, side| {
                let along: super::template::Along = along;
                let from = given.map_or_else(
                    || along.position(length, tallest, side),
                    |given| given.pixels(side),
                );
                // The templates' own overhang is no mistake of the request's.
                let asked = (given.is_some() || sized) && !scene.is_canvas(index);
                let ends = from + length;
                if asked && ends > f64::from(side) + 0.5 {
                    remarks.push(Remark {
                        input: index,
                        field: if given.is_some() { position } else { size },
                        kind: Doubt::OutsideCanvas,
                        message: format!("the box ends at {ends} on a canvas of {side}"),
                    });
                }
                match given {
                    Some(_) => span(from, length, side),
                    None => shift(from, length, side),
                }
            };
        let (x, width) = axis(
            ("x", "width"),
            place.x,
            place.width.is_some(),
            stated.x,
            self.width,
            0.0,
            canvas.width,
        );
        let (y, height) = axis(
            ("y", "height"),
            place.y,
            place.height.is_some(),
            stated.y,
            self.height,
            tallest,
            canvas.height,
        );
        if stated.size == Sizing::Own && self.hugs {
            let size = self.part.map(Rect::size).or(self.own).unwrap_or(canvas);
            if size.width > canvas.width || size.height > canvas.height {
                remarks.push(Remark {
                    input: index,
                    field: "width",
                    kind: Doubt::OutsideCanvas,
                    message: format!(
                        "the picture of {}x{} is larger than the canvas of {}x{}",
                        size.width, size.height, canvas.width, canvas.height
                    ),
                });
            }
        }
        if let Some(field) = self.cut {
            let own = self.own.unwrap_or(canvas);
            remarks.push(Remark {
                input: index,
                field,
                kind: Doubt::OutsideSource,
                message: format!("the crop leaves the source of {}x{}", own.width, own.height),
            });
        }
        let rect = Rect {
            x,
            y,
            width,
            height,
        };
        let (picture, source) = self.fill(rect);
        View {
            content: self.content,
            rect,
            picture,
            source,
            own: self.own,
            order: 2 * input.layer,
            opacity: input.opacity,
            radius: radius(input.radius, rect),
            border: border(input.border, rect),
            name: input.name.clone(),
        }
    }

    /// Where the picture goes in the box, and what of the source is taken.
    fn fill(&self, rect: Rect) -> (Rect, Option<Rect>) {
        let Some(own) = self.own else {
            return (rect, None);
        };
        let size = self.part.map_or(own, Rect::size);
        match self.input.fit {
            Fit::Stretch => (rect, self.part),
            // Shrunk by the canvas's edge, a box hugs no more.
            Fit::Letterbox if self.hugs => {
                let same = (floor_even(self.width), floor_even(self.height));
                if same == (rect.width, rect.height) {
                    (rect, self.part)
                } else {
                    (letterbox(size, rect), self.part)
                }
            }
            Fit::Letterbox => (letterbox(size, rect), self.part),
            Fit::Crop => {
                let area = self.part.unwrap_or_else(|| whole(own));
                let part = filling(area, rect.size());
                let all = part == Rect::from(own);
                (rect, (!all).then_some(part))
            }
        }
    }
}

/// The part of a source that a crop leaves, and the axis on which it had to be made smaller.
fn cropped(crop: Crop, own: Size) -> (Option<Rect>, Option<&'static str>) {
    let inside = whole(own);
    let axis = |from: Length, length: Length, side: u32, even_side: u32| {
        let (from, length) = (from.pixels(side), length.pixels(side));
        let leaves = from + length > f64::from(side) + 0.5;
        (span(from, length, even_side), leaves)
    };
    let ((x, width), wide) = axis(crop.x, crop.width, own.width, inside.width);
    let ((y, height), high) = axis(crop.y, crop.height, own.height, inside.height);
    let part = Rect {
        x,
        y,
        width,
        height,
    };
    let cut = match (wide, high) {
        (true, _) => Some("crop.x"),
        (_, true) => Some("crop.y"),
        _ => None,
    };
    (Some(part).filter(|&part| part != Rect::from(own)), cut)
}

pub(super) fn radius(asked: Option<Length>, rect: Rect) -> u32 {
    let shorter = rect.size().shorter();
    let radius = asked.map_or(0.0, |radius| radius.pixels(shorter));
    (radius.round() as u32).min(shorter / 2)
}

/// A border never meets itself.
pub(super) fn border(asked: Option<Border>, rect: Rect) -> Option<Border> {
    let most = rect.size().shorter() / 4;
    asked
        .map(|border| Border {
            width: border.width.min(most),
            ..border
        })
        .filter(|border| border.width > 0)
}
