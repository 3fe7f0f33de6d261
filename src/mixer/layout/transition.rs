//! From one layout to the next over some time: what stays moves, what comes and goes fades.
//!
//! Times are those of the output's frames, not of a clock: the same frames give the same pictures.

use std::borrow::Cow;
use std::time::Duration;

use super::fit::{even, whole};
use super::resolve::{border, radius};
use super::{Cell, Layout, Mark, Rect, View};
use crate::mixer::scene::Length;

/// A move that is under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    from: Layout,
    to: Layout,
    start: Duration,
    length: Duration,
}

impl Transition {
    /// Moves from `from` to `to`, from the output time `start` on, for `length`. To turn a running move round, begin
    /// another from [`Self::at`] of that moment.
    pub fn new(from: Layout, to: Layout, start: Duration, length: Duration) -> Self {
        Self {
            from,
            to,
            start,
            length,
        }
    }

    /// The layout of the output frame at `time`: `from` up to the start, `to` from the end on.
    pub fn at(&self, time: Duration) -> Cow<'_, Layout> {
        let elapsed = time.saturating_sub(self.start);
        if self.is_over(time) {
            Cow::Borrowed(&self.to)
        } else if elapsed.is_zero() {
            Cow::Borrowed(&self.from)
        } else {
            let share = elapsed.as_secs_f64() / self.length.as_secs_f64();
            Cow::Owned(between(&self.from, &self.to, eased(share)))
        }
    }

    /// Is the frame at `time` the first of the new layout, or a later one?
    pub fn is_over(&self, time: Duration) -> bool {
        time >= self.start + self.length
    }

    /// Where it leads.
    pub fn target(&self) -> &Layout {
        &self.to
    }
}

/// Slow, fast, slow: 0 to 1, flat at both ends.
fn eased(share: f64) -> f64 {
    let t = share.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// The layout at `share` of the way, 0 to 1. Inputs are known by their ids; those that the second one lacks come last
/// and fade out beneath those on their layer. Layouts on different canvases have no way between them: the second.
pub fn between(from: &Layout, to: &Layout, share: f64) -> Layout {
    if share >= 1.0 || from.canvas != to.canvas {
        return to.clone();
    }
    if share <= 0.0 {
        return from.clone();
    }
    let way = Way(share);
    let staying = to.cells.iter().map(|cell| Cell {
        id: cell.id.clone(),
        gain: way.level(from.cell(&cell.id).map_or(0.0, |c| c.gain), cell.gain),
        view: way.view(
            from.cell(&cell.id).and_then(|c| c.view.as_ref()),
            cell.view.as_ref(),
        ),
    });
    let leaving = from
        .cells
        .iter()
        .filter(|cell| to.cell(&cell.id).is_none())
        .map(|cell| Cell {
            id: cell.id.clone(),
            gain: way.level(cell.gain, 0.0),
            view: way.view(cell.view.as_ref(), None),
        });
    Layout {
        canvas: to.canvas,
        background: from.background.towards(to.background, share),
        cells: staying.chain(leaving).collect(),
        mark: way.mark(from.mark.as_ref(), to.mark.as_ref()),
        remarks: to.remarks.clone(),
    }
}

/// How far along.
struct Way(f64);

impl Way {
    fn level(&self, from: f32, to: f32) -> f32 {
        from + (to - from) * self.0 as f32
    }

    fn side(&self, from: u32, to: u32) -> f64 {
        f64::from(from) + (f64::from(to) - f64::from(from)) * self.0
    }

    /// Edges move, not sizes: a box inside another at both ends is so all the way.
    fn rect(&self, from: Rect, to: Rect) -> Rect {
        let edge = |from, to| even(self.side(from, to));
        let (left, right) = (edge(from.x, to.x), edge(from.right(), to.right()));
        let (top, bottom) = (edge(from.y, to.y), edge(from.bottom(), to.bottom()));
        Rect {
            x: left,
            y: top,
            width: right - left,
            height: bottom - top,
        }
    }

    fn view(&self, from: Option<&View>, to: Option<&View>) -> Option<View> {
        match (from, to) {
            (None, None) => None,
            (None, Some(view)) => Some(View {
                opacity: self.level(0.0, view.opacity),
                ..view.clone()
            }),
            (Some(view), None) => Some(View {
                opacity: self.level(view.opacity, 0.0),
                // Orders of layouts are even: this one is its own, under that of its layer.
                order: view.order.saturating_sub(1) | 1,
                ..view.clone()
            }),
            (Some(from), Some(to)) => {
                let rect = self.rect(from.rect, to.rect);
                let rounding = Length::Pixels(self.side(from.radius, to.radius));
                Some(View {
                    rect,
                    picture: self.rect(from.picture, to.picture),
                    source: self.source(from, to),
                    opacity: self.level(from.opacity, to.opacity),
                    radius: radius(Some(rounding), rect),
                    border: border(to.border, rect),
                    ..to.clone()
                })
            }
        }
    }

    fn source(&self, from: &View, to: &View) -> Option<Rect> {
        // From one content to another there is no way, and none while the size of the whole is not known.
        let whole = match (from.own, to.own) {
            (Some(before), Some(own)) if before == own && from.content == to.content => whole(own),
            _ => return to.source,
        };
        let part = self.rect(from.source.unwrap_or(whole), to.source.unwrap_or(whole));
        (part != whole).then_some(part)
    }

    fn mark(&self, from: Option<&Mark>, to: Option<&Mark>) -> Option<Mark> {
        match (from, to) {
            (Some(from), Some(to)) if from.picture == to.picture => Some(Mark {
                rect: self.rect(from.rect, to.rect),
                opacity: self.level(from.opacity, to.opacity),
                picture: to.picture.clone(),
            }),
            (Some(mark), None) => Some(Mark {
                opacity: self.level(mark.opacity, 0.0),
                ..mark.clone()
            }),
            (_, Some(mark)) => Some(Mark {
                opacity: self.level(0.0, mark.opacity),
                ..mark.clone()
            }),
            (None, None) => None,
        }
    }
}
