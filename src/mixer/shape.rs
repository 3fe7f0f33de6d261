//! Shapes of boxes with round corners, and of the borders inside them.
//!
//! Pure. A pixel that an edge goes through is covered by as much of it as lies inside, so that edges are smooth.

use super::canvas::Mask;
use super::layout::{Rect, Size};

/// How much of each pixel of `part` lies inside a box of `size` with corners of `radius`.
pub fn rounded(size: Size, radius: u32, part: Rect) -> Mask {
    mask(part, |x, y| coverage(size, radius.into(), 0.0, x, y))
}

/// How much of each pixel of a box belongs to the border of `width` inside it.
pub fn ring(size: Size, radius: u32, width: u32) -> Mask {
    let (radius, width) = (f64::from(radius), f64::from(width));
    let inner = (radius - width).max(0.0);
    mask(size.into(), |x, y| {
        coverage(size, radius, 0.0, x, y) - coverage(size, inner, width, x, y)
    })
}

fn mask(part: Rect, share: impl Fn(u32, u32) -> f64) -> Mask {
    let rows = part.y..part.bottom();
    let pixels = rows.flat_map(|y| (part.x..part.right()).map(move |x| (x, y)));
    let alpha = |(x, y)| (share(x, y).clamp(0.0, 1.0) * 255.0).round() as u8;
    Mask {
        size: part.size(),
        data: pixels.map(alpha).collect(),
    }
}

/// How much of the pixel lies inside a box of `size` that is `inset` smaller on each side. Its distance to the edge
/// stands for it, which is right to a few hundredths.
fn coverage(size: Size, radius: f64, inset: f64, x: u32, y: u32) -> f64 {
    let (half_width, half_height) = (f64::from(size.width) / 2.0, f64::from(size.height) / 2.0);
    // From the middle of the box to that of the pixel, and past the corner's centre.
    let across = (f64::from(x) + 0.5 - half_width).abs() - (half_width - inset - radius);
    let down = (f64::from(y) + 0.5 - half_height).abs() - (half_height - inset - radius);
    let outside = across.max(0.0).hypot(down.max(0.0)) + across.max(down).min(0.0) - radius;
    (0.5 - outside).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOX: Size = Size {
        width: 40,
        height: 20,
    };

    fn at(mask: &Mask, x: usize, y: usize) -> u8 {
        mask.data[y * mask.size.width as usize + x]
    }

    #[test]
    fn corners_are_cut_and_the_rest_is_whole() {
        let mask = rounded(BOX, 8, BOX.into());
        assert_eq!(at(&mask, 0, 0), 0);
        assert_eq!(at(&mask, 39, 19), 0);
        assert_eq!(at(&mask, 0, 10), 255);
        assert_eq!(at(&mask, 20, 0), 255);
        assert_eq!(at(&mask, 20, 10), 255);
        // A square of 8 loses 8² × (1 − π / 4) = 13.7 pixels at each corner.
        let missing: f64 = mask.data.iter().map(|&a| 1.0 - f64::from(a) / 255.0).sum();
        assert!((missing - 4.0 * 13.7).abs() < 1.5, "{missing}");
        // A part of it is the same pixels.
        let part = Rect {
            x: 32,
            y: 0,
            width: 8,
            height: 8,
        };
        let corner = rounded(BOX, 8, part);
        assert!((0..8).all(|x| (0..8).all(|y| at(&corner, x, y) == at(&mask, 32 + x, y))));
    }

    #[test]
    fn a_square_box_is_whole() {
        assert!(rounded(BOX, 0, BOX.into()).data.iter().all(|&a| a == 255));
    }

    #[test]
    fn a_border_is_as_wide_as_it_says() {
        let mask = ring(BOX, 0, 3);
        let row: Vec<u8> = (0..8).map(|x| at(&mask, x, 10)).collect();
        assert_eq!(row, [255, 255, 255, 0, 0, 0, 0, 0]);
        let column: Vec<u8> = (0..5).map(|y| at(&mask, 20, y)).collect();
        assert_eq!(column, [255, 255, 255, 0, 0]);
        let round = ring(BOX, 8, 3);
        assert_eq!(
            (at(&round, 0, 0), at(&round, 20, 1), at(&round, 20, 10)),
            (0, 255, 0)
        );
    }
}
