//! The layout: a scene on a canvas of known size becomes one view of whole, even pixels per input.
//!
//! Pure geometry. Every box lies inside the canvas whatever was asked for: what would leave it is moved or shrinks,
//! with a warning. Edges are even because 4:2:0 chroma has no odd ones. Knows no clock and no pictures: sizes and who is
//! present are arguments ([`Known`]). Called by a mix's session and by whoever previews a scene.

mod fit;
#[cfg(test)]
mod golden;
mod mark;
#[cfg(test)]
mod properties;
mod resolve;
mod sei;
mod template;
#[cfg(test)]
mod tests;
mod transition;
mod warning;

use std::sync::Arc;

use serde::Serialize;

use super::scene::{Border, Colour, NameTag, Picture, Position, Scene};

pub use resolve::resolve;
pub use sei::Sei;
pub use transition::{Transition, between};
pub use warning::{Remark, TINY};

use fit::{even, floor_even};

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

/// A box on the canvas, in pixels from its top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Rect {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// Is an input there?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Presence {
    /// Nothing has come from it yet.
    Awaited,
    /// It is coming, or its last picture stands.
    #[default]
    Present,
    /// It has been away for longer than the scene's policy bears
    /// ([`OnLoss::presence`](super::scene::OnLoss::presence)).
    Lost,
}

/// What is known of one input besides the scene. Still pictures and colours are always present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fact {
    /// Size at which its pictures are meant to be seen; `None`: not known yet.
    pub size: Option<Size>,
    pub presence: Presence,
}

/// What is known of everything that a scene shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// By the scene's order; inputs beyond its end are present and of unknown size.
    pub inputs: Vec<Fact>,
    pub placeholder: Option<Size>,
    pub watermark: Option<Size>,
}

/// A scene in pixels: everything that the compositor and the sound's mixer must know of one output frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    pub canvas: Size,
    /// Colour where no view is.
    pub background: Colour,
    /// One per input in the scene's order; in a transition those that are leaving follow.
    pub cells: Vec<Cell>,
    /// On top of all views.
    pub mark: Option<Mark>,
    /// Of the layout that was asked for, not of those on the way to it.
    pub remarks: Vec<Remark>,
}

/// One input's part in a layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The scene's id of the input: the key by which pads and decoders are found.
    pub id: Arc<str>,
    /// Factor on its sound, muting included.
    pub gain: f32,
    /// `None`: not to be seen (sound alone, hidden, or lost under the policy `hide`).
    pub view: Option<View>,
}

/// What an input shows, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub content: Content,
    /// The box. What of it `picture` does not cover is black.
    pub rect: Rect,
    /// Where the source's picture is scaled to, inside the box.
    pub picture: Rect,
    /// What of the source's picture is taken, in pixels as it is meant to be seen; `None`: all of it.
    pub source: Option<Rect>,
    /// The content's own size, when it is known.
    pub own: Option<Size>,
    /// Views of higher order cover those of lower order; no two are equal in a scene on air.
    pub order: u32,
    /// 0 to 1, of box, border and name together.
    pub opacity: f32,
    /// Of the box's corners in pixels, at most half its shorter side; 0: square.
    pub radius: u32,
    /// Inside the box, over the picture.
    pub border: Option<Border>,
    pub name: Option<Arc<NameTag>>,
}

/// What fills a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The input's own newest picture.
    Input,
    /// The scene's placeholder.
    Placeholder,
    Colour(Colour),
}

/// The watermark.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    pub picture: Picture,
    pub rect: Rect,
    pub opacity: f32,
}

/// Where a name tag's line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Line {
    /// One line high, inside the box.
    pub area: Rect,
    /// Height of the letters in pixels.
    pub size: u32,
    /// At which end of the area the text stands.
    pub align: Align,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Align {
    Left,
    Center,
    Right,
}

/// The scene's canvas; `None` until the size of the input that gives it ([`Scene::sizing`]) is known.
pub fn canvas(scene: &Scene, known: &Known) -> Option<Size> {
    scene.canvas().or_else(|| {
        let size = known.inputs.get(scene.sizing()?)?.size?;
        Some(Size::even(size.width.into(), size.height.into()))
    })
}

impl Size {
    /// A canvas of about that size: even sides, no longer and no shorter than a canvas may be.
    pub fn even(width: f64, height: f64) -> Self {
        let side = |v: f64| floor_even(v).clamp(super::scene::MIN_SIDE, super::scene::MAX_SIDE);
        Self {
            width: side(width),
            height: side(height),
        }
    }

    pub fn shorter(self) -> u32 {
        self.width.min(self.height)
    }
}

impl Rect {
    pub fn size(self) -> Size {
        Size {
            width: self.width,
            height: self.height,
        }
    }

    /// First column to the right of it.
    pub fn right(self) -> u32 {
        self.x + self.width
    }

    /// First row below it.
    pub fn bottom(self) -> u32 {
        self.y + self.height
    }

    /// Does `other` lie wholly inside?
    pub fn contains(self, other: Self) -> bool {
        self.x <= other.x
            && self.y <= other.y
            && other.right() <= self.right()
            && other.bottom() <= self.bottom()
    }
}

impl From<Size> for Rect {
    /// All of it.
    fn from(Size { width, height }: Size) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }
}

impl Layout {
    /// Of the input with that id; `None` when the layout has none.
    pub fn cell(&self, id: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| *cell.id == *id)
    }

    /// What is to be seen, from the lowest to the highest.
    pub fn views(&self) -> Vec<(&Cell, &View)> {
        let seen = |cell: &'_ Cell| cell.view.is_some();
        let mut views: Vec<_> = self
            .cells
            .iter()
            .filter(|cell| seen(cell))
            .filter_map(|cell| Some((cell, cell.view.as_ref()?)))
            .collect();
        views.sort_by_key(|(_, view)| view.order);
        views
    }

    /// What the output's SEI says of it.
    pub fn sei(&self) -> Sei<'_> {
        Sei::of(self)
    }
}

impl View {
    /// Does it hide all that lies under its box?
    pub fn is_solid(&self) -> bool {
        self.opacity >= 1.0 && self.radius == 0
    }

    /// Where a picture of that size goes in the box, and what of it is taken. Where the view was made for another size,
    /// all of it is shown in its own aspect until there is a layout for it.
    pub fn place(&self, size: Size) -> (Rect, Option<Rect>) {
        if self.own == Some(size) {
            return (self.picture, self.source);
        }
        (fit::letterbox(size, self.rect), None)
    }

    /// Where a name goes in it; `None` when the box is too small for letters.
    pub fn line(&self, name: &NameTag, canvas: Size) -> Option<Line> {
        // Margin, line and margin are two and a half letters high and must fit.
        let wanted = name.size.pixels(canvas.height).round() as u32;
        let size = wanted.max(8).min(self.rect.height * 2 / 5);
        if size < 6 {
            return None;
        }
        let margin = even(f64::from(size) / 2.0);
        let height = even(f64::from(size) * 1.5).min(self.rect.height);
        let width = self.rect.width.checked_sub(2 * margin).filter(|&w| w > 0)?;
        let slack = self.rect.height - height;
        let (down, align) = match name.position {
            Position::TopLeft => (0, Align::Left),
            Position::Top => (0, Align::Center),
            Position::TopRight => (0, Align::Right),
            Position::Left => (1, Align::Left),
            Position::Center => (1, Align::Center),
            Position::Right => (1, Align::Right),
            Position::BottomLeft => (2, Align::Left),
            Position::Bottom => (2, Align::Center),
            Position::BottomRight => (2, Align::Right),
        };
        let y = match down {
            0 => margin.min(slack),
            1 => slack / 4 * 2,
            _ => slack.saturating_sub(margin),
        };
        let area = Rect {
            x: self.rect.x + margin,
            y: self.rect.y + y,
            width,
            height,
        };
        Some(Line { area, size, align })
    }
}
