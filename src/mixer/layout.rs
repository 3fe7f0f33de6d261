//! The layout: a scene on a canvas of known size becomes one box of whole, even pixels per input.
//!
//! Pure geometry. Every box lies inside the canvas whatever was asked for: what would leave it shrinks.
//! Edges are even because 4:2:0 chroma has no odd ones. Keeping a picture's aspect inside its box (with
//! black bars) is the scaler's part.

use serde::Serialize;

use super::scene::{Place, Scene};

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

/// A box on the canvas, in pixels from its top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rect {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl Rect {
    pub fn size(self) -> Size {
        Size {
            width: self.width,
            height: self.height,
        }
    }
}

/// The official linkmic column of subs, drawn for a canvas of at least 540×960: their size, and the gap
/// below the first (contract, section 6).
const LARGE: Column = Column {
    width: 160.0,
    height: 240.0,
    bottom: 90.0,
};
/// The same for smaller canvases.
const SMALL: Column = Column {
    width: 120.0,
    height: 180.0,
    bottom: 60.0,
};

#[derive(Debug, Clone, Copy)]
struct Column {
    width: f64,
    height: f64,
    bottom: f64,
}

/// One box per input of the scene, in its order.
pub fn resolve(scene: &Scene, canvas: Size) -> Vec<Rect> {
    let column = column(canvas, scene.inputs.len().saturating_sub(1));
    let mut subs = 0;
    scene
        .inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let main = index == 0;
            let nth = subs;
            subs += u32::from(!main);
            let (x, y, width, height) = match input.place {
                Place::Default if main => {
                    (0.0, 0.0, f64::from(canvas.width), f64::from(canvas.height))
                }
                Place::Default => (
                    f64::from(canvas.width) - column.width,
                    f64::from(canvas.height) - column.bottom - f64::from(nth + 1) * column.height,
                    column.width,
                    column.height,
                ),
                Place::At { x, y } => (
                    x.pixels(canvas.width),
                    y.pixels(canvas.height),
                    column.width,
                    column.height,
                ),
                Place::Box {
                    x,
                    y,
                    width,
                    height,
                } => (
                    x.pixels(canvas.width),
                    y.pixels(canvas.height),
                    width.pixels(canvas.width),
                    height.pixels(canvas.height),
                ),
            };
            let (x, width) = span(x, width, canvas.width);
            let (y, height) = span(y, height, canvas.height);
            Rect {
                x,
                y,
                width,
                height,
            }
        })
        .collect()
}

/// The column for that canvas, shrunk with its aspect kept when `subs` boxes would leave it.
fn column(canvas: Size, subs: usize) -> Column {
    let (width, height) = (f64::from(canvas.width), f64::from(canvas.height));
    let base = if width >= 540.0 && height >= 960.0 {
        LARGE
    } else {
        SMALL
    };
    let scale = (height / (base.bottom + base.height * subs as f64))
        .min(width / base.width)
        .min(1.0);
    Column {
        width: base.width * scale,
        height: base.height * scale,
        bottom: base.bottom * scale,
    }
}

/// Even start and length inside an even side of `side` pixels.
fn span(from: f64, length: f64, side: u32) -> (u32, u32) {
    let even = |v: f64| (v.max(0.0).round() as u32) & !1;
    let from = even(from).min(side.saturating_sub(2));
    (from, even(length).clamp(2, side - from))
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Length, MixRequest, SceneInput};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn scene(subs: usize) -> Scene {
        let inputs: Vec<_> = (0..=subs)
            .map(|n| json!({"stream": format!("s{n}"), "layer": n + 1}))
            .collect();
        let request: MixRequest = serde_json::from_value(
            json!({"app": "live", "inputs": inputs, "output": {"stream": "mixed"}}),
        )
        .unwrap();
        Scene::new(&request).unwrap()
    }

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    fn boxes(subs: usize, canvas: Size) -> Vec<(u32, u32, u32, u32)> {
        resolve(&scene(subs), canvas)
            .iter()
            .map(|r| (r.x, r.y, r.width, r.height))
            .collect()
    }

    #[test]
    fn three_subs_stand_where_the_official_clients_put_them() {
        assert_eq!(
            boxes(3, size(540, 960)),
            [
                (0, 0, 540, 960),
                (380, 630, 160, 240),
                (380, 390, 160, 240),
                (380, 150, 160, 240)
            ]
        );
        assert_eq!(
            boxes(3, size(360, 640)),
            [
                (0, 0, 360, 640),
                (240, 400, 120, 180),
                (240, 220, 120, 180),
                (240, 40, 120, 180)
            ]
        );
        assert_eq!(boxes(1, size(480, 640))[1], (360, 400, 120, 180));
    }

    #[test]
    fn a_column_that_would_leave_the_canvas_shrinks_whole() {
        // 60 + 3 × 180 = 600 on 300: half of everything.
        assert_eq!(
            boxes(3, size(640, 300)),
            [
                (0, 0, 640, 300),
                (580, 180, 60, 90),
                (580, 90, 60, 90),
                (580, 0, 60, 90)
            ]
        );
    }

    #[test]
    fn shares_are_of_the_canvas() {
        let mut scene = scene(1);
        scene.inputs[1].place = Place::Box {
            x: Length::Share(50.0),
            y: Length::Share(25.0),
            width: Length::Share(37.5),
            height: Length::Pixels(100.0),
        };
        let rect = resolve(&scene, size(640, 360))[1];
        assert_eq!(
            (rect.x, rect.y, rect.width, rect.height),
            (320, 90, 240, 100)
        );
    }

    fn length() -> impl Strategy<Value = Length> {
        prop_oneof![
            (0.0..3000.0f64).prop_map(Length::Pixels),
            (0.0..100.0f64).prop_map(Length::Share)
        ]
    }

    fn place() -> impl Strategy<Value = Place> {
        prop_oneof![
            Just(Place::Default),
            (length(), length()).prop_map(|(x, y)| Place::At { x, y }),
            (length(), length(), length(), length()).prop_map(|(x, y, width, height)| Place::Box {
                x,
                y,
                width,
                height
            }),
        ]
    }

    proptest! {
        #[test]
        fn every_box_is_even_and_inside_the_canvas(
            places in prop::collection::vec(place(), 1..=4),
            width in 8u32..1500,
            height in 8u32..1500,
        ) {
            let mut scene = scene(places.len() - 1);
            for (input, place) in scene.inputs.iter_mut().zip(&places) {
                *input = SceneInput { place: *place, ..input.clone() };
            }
            let canvas = size(width * 2, height * 2);
            for rect in resolve(&scene, canvas) {
                prop_assert!(rect.width >= 2 && rect.height >= 2, "{rect:?}");
                prop_assert!(rect.x + rect.width <= canvas.width, "{rect:?}");
                prop_assert!(rect.y + rect.height <= canvas.height, "{rect:?}");
                prop_assert!([rect.x, rect.y, rect.width, rect.height].iter().all(|v| v % 2 == 0));
            }
        }

        #[test]
        fn default_subs_keep_their_aspect_and_never_overlap(
            subs in 1usize..=3,
            width in 60u32..1500,
            height in 60u32..1500,
        ) {
            let rects = resolve(&scene(subs), size(width * 2, height * 2));
            for pair in rects[1..].windows(2) {
                // Each edge is rounded to even by itself: one step of 2.
                prop_assert!(pair[1].y + pair[1].height <= pair[0].y + 2, "{pair:?}");
            }
            for rect in &rects[1..] {
                let off = f64::from(rect.width) * 1.5 - f64::from(rect.height);
                prop_assert!(off.abs() <= 4.0, "{rect:?}");
            }
        }
    }
}
