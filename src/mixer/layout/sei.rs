//! A layout as the output's SEI tells it: small JSON for players that frame or tap the people in a mix.

use serde::Serialize;

use super::{Cell, Layout, Rect, Size};

/// A layout, ready to be serialised: `{"linkmic":1,"canvas":{…},"inputs":[…]}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sei<'a> {
    /// Version of this form, and the mark by which it is known among other SEI texts.
    linkmic: u32,
    canvas: Size,
    inputs: Vec<Entry<'a>>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Entry<'a> {
    id: &'a str,
    /// Factor on its sound; 0: not to be heard.
    gain: f32,
    /// `x`, `y`, `width`, `height`, `layer`, `opacity`; absent when it is not to be seen.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    view: Option<Shown>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Shown {
    /// Where the picture is, bars left out.
    #[serde(flatten)]
    rect: Rect,
    layer: u32,
    opacity: f32,
}

impl<'a> Sei<'a> {
    pub(super) fn of(layout: &'a Layout) -> Self {
        let entry = |cell: &'a Cell| Entry {
            id: &cell.id,
            gain: cell.gain,
            view: cell.view.as_ref().map(|view| Shown {
                rect: view.picture,
                layer: view.order / 2,
                opacity: view.opacity,
            }),
        };
        Self {
            linkmic: 1,
            canvas: layout.canvas,
            inputs: layout.cells.iter().map(entry).collect(),
        }
    }
}
