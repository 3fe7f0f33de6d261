//! Rounding, and pictures in boxes of another aspect.

use super::{Rect, Size};

/// The nearest even number; 0 for what is negative.
pub(super) fn even(v: f64) -> u32 {
    (v.max(0.0) / 2.0).round() as u32 * 2
}

/// The even number at or under the nearest whole one: what was asked for in odd pixels does not grow.
pub(super) fn floor_even(v: f64) -> u32 {
    v.max(0.0).round() as u32 & !1
}

/// The scale at which a picture just fits into bounds.
fn scale(picture: Size, width: f64, height: f64) -> f64 {
    let across = width / f64::from(picture.width.max(1));
    across.min(height / f64::from(picture.height.max(1)))
}

/// The largest size with the picture's aspect inside these bounds; each side rounded to even, at least 2.
pub(super) fn fitted(picture: Size, width: f64, height: f64) -> (u32, u32) {
    let scale = scale(picture, width, height);
    let side = |v: u32| even(f64::from(v) * scale).max(2);
    (side(picture.width), side(picture.height))
}

/// Where a picture lies in a box with its aspect kept, in the middle. Bars of less than two pixels in all are rounding
/// and left out.
pub(super) fn letterbox(picture: Size, rect: Rect) -> Rect {
    let (width, height) = fitted(picture, rect.width.into(), rect.height.into());
    let snap = |length: u32, side: u32| if length + 2 >= side { side } else { length };
    let (width, height) = (snap(width, rect.width), snap(height, rect.height));
    Rect {
        x: rect.x + (rect.width - width) / 4 * 2,
        y: rect.y + (rect.height - height) / 4 * 2,
        width,
        height,
    }
}

/// The middle part of `area` that has the aspect of `of`, so that it fills a box of that size.
pub(super) fn filling(area: Rect, of: Size) -> Rect {
    let (width, height) = fitted(of, area.width.into(), area.height.into());
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect {
        x: area.x + (area.width - width) / 4 * 2,
        y: area.y + (area.height - height) / 4 * 2,
        width,
        height,
    }
}

/// The picture's own size, made to fit the canvas.
pub(super) fn own_size(size: Size, canvas: Size) -> (f64, f64) {
    let (width, height) = (f64::from(size.width), f64::from(size.height));
    let fits = size.width <= canvas.width && size.height <= canvas.height;
    if fits {
        return (width, height);
    }
    let (width, height) = fitted(size, canvas.width.into(), canvas.height.into());
    (width.into(), height.into())
}

/// The largest even part of a picture.
pub(super) fn whole(size: Size) -> Rect {
    Rect {
        x: 0,
        y: 0,
        width: (size.width & !1).max(2),
        height: (size.height & !1).max(2),
    }
}

/// Even start and length inside an even side of `side` pixels; what would leave it shrinks.
pub(super) fn span(from: f64, length: f64, side: u32) -> (u32, u32) {
    let from = floor_even(from).min(side.saturating_sub(2));
    (from, floor_even(length).clamp(2, side - from))
}

/// As [`span`], but what would leave the side moves before it shrinks.
pub(super) fn shift(from: f64, length: f64, side: u32) -> (u32, u32) {
    let length = floor_even(length).clamp(2, side);
    (floor_even(from).min(side - length), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn a_picture_fits_with_its_aspect_kept() {
        // 320×480 in 180×320: width decides, 180 / 320 × 480 = 270.
        assert_eq!(fitted(size(320, 480), 180.0, 320.0), (180, 270));
        // 1280×720 in 180×320: 180 / 1280 × 720 = 101.25.
        assert_eq!(fitted(size(1280, 720), 180.0, 320.0), (180, 102));
        assert_eq!(fitted(size(1, 3000), 10.0, 10.0), (2, 10));
    }

    #[test]
    fn bars_are_equal_and_those_of_a_pixel_are_left_out() {
        let rect = Rect {
            x: 100,
            y: 50,
            width: 160,
            height: 240,
        };
        let inner = letterbox(size(1280, 720), rect);
        // 160 / 1280 × 720 = 90; (240 − 90) / 2 = 75, even: 74.
        let wanted = Rect {
            x: 100,
            y: 124,
            width: 160,
            height: 90,
        };
        assert_eq!(inner, wanted);
        // 160 / 322 × 480 = 238.5: two rows are missing.
        assert_eq!(letterbox(size(322, 480), rect), rect);
    }

    #[test]
    fn filling_cuts_the_sides_that_stand_out() {
        // A 160×240 box of a 1280×720 picture: 720 × 160 / 240 = 480 wide, from (1280 − 480) / 2 = 400.
        let part = filling(size(1280, 720).into(), size(160, 240));
        let wanted = Rect {
            x: 400,
            y: 0,
            width: 480,
            height: 720,
        };
        assert_eq!(part, wanted);
    }

    #[test]
    fn what_leaves_the_side_shrinks_or_moves() {
        assert_eq!(span(300.0, 100.0, 360), (300, 60));
        assert_eq!(shift(300.0, 100.0, 360), (260, 100));
        assert_eq!(shift(300.0, 400.0, 360), (0, 360));
        assert_eq!(span(9_000.0, 100.0, 360), (358, 2));
    }
}
