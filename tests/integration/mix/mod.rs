//! Mixing, judged by decoded pictures and sound: who is where, moves, is heard, and what viewers notice of changes.

mod inputs;
mod scene;
mod splice;

use linkmic::probe::Region;
use linkmic::probe::publisher::Show;
use linkmic::probe::{Colour, Size};
use serde_json::{Value, json};

use crate::studio::{CANVAS, FPS, main_show};

/// A sub's place in the tests' scenes: 100×150 in a column on the right.
const fn place(y: usize) -> Region {
    Region {
        x: 300,
        y,
        width: 100,
        height: 150,
    }
}

/// Main and one sub in place, the sub at `place(480)`.
fn one_plus_one() -> Value {
    json!({
        "app": "live",
        "inputs": [
            {"stream": "a", "layer": 1},
            {"stream": "b", "layer": 2, "x": 300, "y": 480, "width": 100, "height": 150},
        ],
        "output": {"stream": "a", "width": CANVAS.width, "height": CANVAS.height, "fps": FPS, "video_kbps": 800},
    })
}

fn sub_show(colour: Colour, tone: f64) -> Show {
    Show {
        size: Size::new(320, 480),
        ..Show::sub(colour, tone)
    }
}

/// The regions of [`one_plus_one`].
fn one_plus_one_regions() -> [Region; 2] {
    [main_show().size.whole(), place(480)]
}
