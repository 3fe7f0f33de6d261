//! Where the watermark goes.

use super::fit::{own_size, shift};
use super::{Mark, Rect, Size};
use crate::mixer::scene::{Length, Position, Spot, Watermark};

/// A watermark of unknown size, and one that states none, is at most that share of the canvas.
const MARK_SHARE: f64 = 0.2;

/// Places the watermark, whose picture has the size `own`.
pub(super) fn place(asked: &Watermark, own: Option<Size>, canvas: Size) -> Mark {
    let given = |length: Option<Length>, side: u32| length.map(|length| length.pixels(side));
    let aspect = own.map_or(1.0, |own| {
        f64::from(own.width.max(1)) / f64::from(own.height.max(1))
    });
    let (width, height) = match (
        given(asked.width, canvas.width),
        given(asked.height, canvas.height),
    ) {
        (Some(width), Some(height)) => (width, height),
        (Some(width), None) => (width, width / aspect),
        (None, Some(height)) => (height * aspect, height),
        (None, None) => {
            let most = Size {
                width: (f64::from(canvas.width) * MARK_SHARE) as u32,
                height: (f64::from(canvas.height) * MARK_SHARE) as u32,
            };
            match own {
                Some(own) => own_size(own, most),
                None => (f64::from(most.shorter()), f64::from(most.shorter())),
            }
        }
    };
    // Neither side may be longer than the canvas's; the aspect stays.
    let shrink = (f64::from(canvas.width) / width)
        .min(f64::from(canvas.height) / height)
        .min(1.0);
    let (width, height) = (width * shrink, height * shrink);
    let (x, y) = match asked.spot {
        Spot::At { x, y } => (x.pixels(canvas.width), y.pixels(canvas.height)),
        Spot::Near(position, margin) => {
            let margin = margin.pixels(canvas.shorter());
            let (right, bottom) = (
                f64::from(canvas.width) - width,
                f64::from(canvas.height) - height,
            );
            let x = match position {
                Position::TopLeft | Position::Left | Position::BottomLeft => margin,
                Position::Top | Position::Center | Position::Bottom => right / 2.0,
                Position::TopRight | Position::Right | Position::BottomRight => right - margin,
            };
            let y = match position {
                Position::TopLeft | Position::Top | Position::TopRight => margin,
                Position::Left | Position::Center | Position::Right => bottom / 2.0,
                Position::BottomLeft | Position::Bottom | Position::BottomRight => bottom - margin,
            };
            (x, y)
        }
    };
    let (x, width) = shift(x, width, canvas.width);
    let (y, height) = shift(y, height, canvas.height);
    Mark {
        picture: asked.picture.clone(),
        rect: Rect {
            x,
            y,
            width,
            height,
        },
        opacity: asked.opacity,
    }
}
