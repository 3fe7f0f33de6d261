//! The stage: one layout and the pictures of those in it become one output frame.
//!
//! Owns what is made once and shown many times: pictures scaled for places they were not decoded for (a move under way,
//! a held or still picture), and the shapes of rounded boxes and of names. Knows no streams and no clocks. Called by a mix's thread
//! once per frame.

use std::collections::HashMap;
use std::sync::Arc;

use super::canvas::{Canvas, Mask, Yuv};
use super::input::Picture;
use super::layout::{Align, Content, Layout, Rect, Size, View};
use super::letters::{self, Fonts};
use super::picture::{Cut, Raw, Scaler};
use super::scene::{Colour, NameTag};
use super::shape;

/// Who plays the cells of a layout.
pub trait Cast {
    /// The picture that the input with that id shows now; `None`: it has none, and its box stays empty.
    fn picture(&self, id: &str) -> Option<Picture>;
    /// What stands in for lost inputs.
    fn placeholder(&self) -> Option<&Raw>;
    /// The watermark's picture.
    fn mark(&self) -> Option<&Raw>;
    /// What is written over the box besides its name.
    fn label(&self, _id: &str) -> Option<Arc<NameTag>> {
        None
    }
}

/// Draws frames, one after the other.
#[derive(Debug)]
pub struct Stage {
    fonts: Arc<Fonts>,
    texts: HashMap<(Arc<str>, Writing), Written>,
    fitted: HashMap<Part, Fitted>,
    masks: HashMap<(Size, u32, Rect), Kept<Mask>>,
    rings: HashMap<(Size, u32, u32), Kept<Mask>>,
    frame: u64,
}

/// What a scaled picture is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Input(Arc<str>),
    Placeholder(Arc<str>),
    Mark,
}

/// What is written over a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Writing {
    Name,
    Label,
}

impl Writing {
    /// The smallest letters that a text of that size is written in before it is cut: a name stays easy to read, an id
    /// is of use only whole.
    fn least(self, size: u32) -> u32 {
        match self {
            Writing::Name => size.div_ceil(2).max(6),
            Writing::Label => 5,
        }
    }
}

/// A text as it was written last.
#[derive(Debug)]
struct Written {
    name: Arc<NameTag>,
    size: u32,
    height: u32,
    most: u32,
    line: Option<Arc<letters::Line>>,
    used: u64,
}

impl Written {
    /// Would it be written the same again?
    fn is(&self, name: &NameTag, size: u32, height: u32, most: u32) -> bool {
        let fits = self
            .line
            .as_ref()
            .is_some_and(|line| !line.cut && line.mask.size.width <= most);
        (self.size, self.height) == (size, height)
            && (self.most == most || fits)
            && self.name.text == name.text
    }
}

#[derive(Debug, Default)]
struct Fitted {
    scaler: Scaler,
    kept: Option<(Raw, Cut, Raw)>,
    /// The frame that it was last used for.
    used: u64,
    /// It was said already that this cannot be scaled.
    failed: bool,
}

#[derive(Debug)]
struct Kept<T> {
    value: Arc<T>,
    used: u64,
}

impl Stage {
    /// A stage that writes names with those fonts.
    pub fn new(fonts: Arc<Fonts>) -> Self {
        Self {
            fonts,
            texts: HashMap::new(),
            fitted: HashMap::new(),
            masks: HashMap::new(),
            rings: HashMap::new(),
            frame: 0,
        }
    }

    /// Draws `layout` on all of `canvas`.
    pub fn draw(&mut self, canvas: &mut Canvas<'_>, layout: &Layout, cast: &impl Cast) {
        self.frame += 1;
        let ground = Rect::from(canvas.size);
        let mut bare = true;
        for (cell, view) in layout.views() {
            if view.opacity <= 0.0 {
                continue;
            }
            let content = match view.content {
                Content::Colour(colour) => Ok(colour),
                Content::Input => {
                    let Some(picture) = cast.picture(&cell.id) else {
                        continue;
                    };
                    Err((Part::Input(cell.id.clone()), picture))
                }
                Content::Placeholder => match cast.placeholder() {
                    Some(raw) => Err((Part::Placeholder(cell.id.clone()), still(raw))),
                    None => Ok(Colour::BLACK),
                },
            };
            let drawn = match content {
                Ok(colour) => Drawn::Colour(colour),
                Err((part, picture)) => {
                    let (rect, source) = view.place(picture.raw.seen());
                    let cut = Cut {
                        part: source,
                        size: rect.size(),
                    };
                    match self.fit(part, &picture, cut) {
                        Some(raw) => Drawn::Picture(raw, rect),
                        None => continue,
                    }
                }
            };
            if std::mem::take(&mut bare) {
                // What the first picture covers need not be painted, and black bars on black neither.
                let covers = view.rect == ground && view.is_solid();
                let bars_show = layout.background != Colour::BLACK;
                let whole = drawn.is_opaque() && (drawn.area(view) == ground || bars_show);
                if !(covers && whole) {
                    canvas.fill(ground, layout.background.into(), 1.0);
                }
                let skip_bars = !bars_show && view.radius == 0;
                self.put(canvas, view, &drawn, skip_bars);
            } else {
                self.put(canvas, view, &drawn, false);
            }
            if let Some(label) = cast.label(&cell.id) {
                self.write(canvas, (&cell.id, Writing::Label), view, &label);
            }
            if let Some(name) = &view.name {
                self.write(canvas, (&cell.id, Writing::Name), view, name);
            }
        }
        if bare {
            canvas.fill(ground, layout.background.into(), 1.0);
        }
        if let (Some(mark), Some(raw)) = (&layout.mark, cast.mark()) {
            let cut = Cut {
                part: None,
                size: mark.rect.size(),
            };
            if let Some(raw) = self.fit(Part::Mark, &still(raw), cut) {
                raw.read(|planes| canvas.draw((mark.rect.x, mark.rect.y), planes, mark.opacity));
            }
        }
        let frame = self.frame;
        self.fitted.retain(|_, fitted| fitted.used == frame);
        self.masks.retain(|_, kept| kept.used == frame);
        self.rings.retain(|_, kept| kept.used == frame);
        self.texts.retain(|_, text| text.used == frame);
    }

    /// Draws one box: what its picture leaves of it is black.
    fn put(&mut self, canvas: &mut Canvas<'_>, view: &View, drawn: &Drawn, skip_bars: bool) {
        let opacity = view.opacity;
        let area = drawn.area(view);
        if !skip_bars {
            // Where a picture lets the ground through, that is the box.
            let bars = if drawn.is_opaque() {
                bars(view.rect, area)
            } else {
                vec![view.rect]
            };
            for bar in bars {
                self.fill(canvas, view, bar, Colour::BLACK);
            }
        }
        match drawn {
            Drawn::Colour(colour) => self.fill(canvas, view, area, *colour),
            Drawn::Picture(raw, area) if view.radius > 0 => {
                let mask = self.mask(view, *area);
                raw.read(|planes| canvas.draw_masked((area.x, area.y), planes, opacity, &mask));
            }
            Drawn::Picture(raw, area) => {
                raw.read(|planes| canvas.draw((area.x, area.y), planes, opacity));
            }
        }
        if let Some(border) = view.border {
            let key = (view.rect.size(), view.radius, border.width);
            let ring = kept(&mut self.rings, key, self.frame, || {
                shape::ring(key.0, view.radius, border.width)
            });
            canvas.fill_masked(view.rect, border.colour.into(), opacity, &ring);
        }
    }

    /// Writes a name over a box, on its plate.
    fn write(
        &mut self,
        canvas: &mut Canvas<'_>,
        (id, what): (&Arc<str>, Writing),
        view: &View,
        name: &Arc<NameTag>,
    ) {
        let Some(place) = view.line(name, canvas.size) else {
            return;
        };
        let area = place.area;
        // The plate reaches half a letter beyond the text on both sides.
        let margin = match name.plate {
            Some(_) => place.size / 4 * 2,
            None => 0,
        };
        let most = area.width.saturating_sub(2 * margin);
        let key = (id.clone(), what);
        let same = |text: &&mut Written| text.is(name, place.size, area.height, most);
        let line = match self.texts.get_mut(&key).filter(same) {
            Some(text) => {
                text.used = self.frame;
                text.line.clone()
            }
            None => {
                let least = what.least(place.size);
                let line = self
                    .fonts
                    .line(&name.text, place.size, least, area.height, most)
                    .map(Arc::new);
                let text = Written {
                    name: name.clone(),
                    size: place.size,
                    height: area.height,
                    most,
                    line: line.clone(),
                    used: self.frame,
                };
                self.texts.insert(key, text);
                line
            }
        };
        let Some(line) = line else { return };
        let size = line.mask.size;
        let slack = area.width - (size.width + 2 * margin);
        let plate = Rect {
            x: area.x
                + match place.align {
                    Align::Left => 0,
                    Align::Center => slack / 4 * 2,
                    Align::Right => slack,
                },
            y: area.y,
            width: size.width + 2 * margin,
            height: size.height,
        };
        if let Some((colour, opacity)) = name.plate {
            canvas.fill(plate, colour.into(), opacity * view.opacity);
        }
        let text = Rect {
            x: plate.x + margin,
            width: size.width,
            ..plate
        };
        canvas.fill_masked(text, name.colour.into(), view.opacity, &line.mask);
    }

    /// Fills a part of a view's box, inside its corners.
    fn fill(&mut self, canvas: &mut Canvas<'_>, view: &View, part: Rect, colour: Colour) {
        let colour = Yuv::from(colour);
        if view.radius == 0 {
            return canvas.fill(part, colour, view.opacity);
        }
        let mask = self.mask(view, part);
        canvas.fill_masked(part, colour, view.opacity, &mask);
    }

    /// The shape of a part of a view's box.
    fn mask(&mut self, view: &View, part: Rect) -> Arc<Mask> {
        let inside = Rect {
            x: part.x - view.rect.x,
            y: part.y - view.rect.y,
            ..part
        };
        let key = (view.rect.size(), view.radius, inside);
        kept(&mut self.masks, key, self.frame, || {
            shape::rounded(key.0, view.radius, inside)
        })
    }

    fn fit(&mut self, part: Part, picture: &Picture, cut: Cut) -> Option<Raw> {
        if let Some((of, fitted)) = &picture.fitted
            && *of == cut
        {
            return Some(fitted.clone());
        }
        let fitted = self.fitted.entry(part).or_default();
        fitted.used = self.frame;
        if let Some((raw, of, kept)) = &fitted.kept
            && raw.is(&picture.raw)
            && *of == cut
        {
            return Some(kept.clone());
        }
        match fitted.scaler.scale(&picture.raw, cut) {
            Ok(scaled) => {
                fitted.failed = false;
                fitted.kept = Some((picture.raw.clone(), cut, scaled.clone()));
                Some(scaled)
            }
            Err(error) => {
                if !std::mem::replace(&mut fitted.failed, true) {
                    tracing::warn!(error, "a picture cannot be shown");
                }
                None
            }
        }
    }
}

/// What is drawn in a box, ready for it.
enum Drawn {
    Colour(Colour),
    Picture(Raw, Rect),
}

impl Drawn {
    fn area(&self, view: &View) -> Rect {
        match self {
            Drawn::Colour(_) => view.rect,
            Drawn::Picture(_, area) => *area,
        }
    }

    fn is_opaque(&self) -> bool {
        match self {
            Drawn::Colour(_) => true,
            Drawn::Picture(raw, _) => !raw.has_alpha(),
        }
    }
}

/// A still picture as one of an input.
pub(super) fn still(raw: &Raw) -> Picture {
    Picture {
        raw: raw.clone(),
        fitted: None,
        arrival: None,
        decoded: None,
    }
}

fn kept<K: std::hash::Hash + Eq, T>(
    map: &mut HashMap<K, Kept<T>>,
    key: K,
    frame: u64,
    make: impl FnOnce() -> T,
) -> Arc<T> {
    let kept = map.entry(key).or_insert_with(|| Kept {
        value: Arc::new(make()),
        used: frame,
    });
    kept.used = frame;
    kept.value.clone()
}

/// What of a box its picture leaves: at most a bar on each side.
fn bars(rect: Rect, picture: Rect) -> Vec<Rect> {
    let row = |y, height| Rect { y, height, ..rect };
    let column = |x, width| Rect {
        x,
        width,
        ..picture
    };
    [
        row(rect.y, picture.y - rect.y),
        row(picture.bottom(), rect.bottom() - picture.bottom()),
        column(rect.x, picture.x - rect.x),
        column(picture.right(), rect.right() - picture.right()),
    ]
    .into_iter()
    .filter(|bar| bar.width > 0 && bar.height > 0)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_picture_are_the_box() {
        let rect = |x, y, width, height| Rect {
            x,
            y,
            width,
            height,
        };
        let outer = rect(10, 20, 100, 60);
        assert_eq!(bars(outer, outer), []);
        assert_eq!(
            bars(outer, rect(10, 30, 100, 40)),
            [rect(10, 20, 100, 10), rect(10, 70, 100, 10)]
        );
        assert_eq!(
            bars(outer, rect(30, 20, 60, 60)),
            [rect(10, 20, 20, 60), rect(90, 20, 20, 60)]
        );
        let area: u32 = bars(outer, rect(30, 30, 20, 20))
            .iter()
            .map(|r| r.width * r.height)
            .sum();
        assert_eq!(area, 100 * 60 - 20 * 20);
    }
}
