//! From the colours of standard definition (BT.601) to those of the canvas (BT.709), in place.
//!
//! Pure. Between two YCbCr spaces of the same range grey stays grey: luma moves by a share of the chroma, and chroma is
//! turned a little. So it is done where the chroma samples are, on a quarter of the pixels.
//!
//! | source | version | covered |
//! |---|---|---|
//! | ITU-R BT.601 | 7, 2.5.1 | weights of the primaries |
//! | ITU-R BT.709 | 6, 3.2 | weights of the primaries |

/// Binary digits behind the point of the factors.
const SHIFT: u32 = 14;
const HALF: i32 = 1 << (SHIFT - 1);
/// Luma and chroma levels from nothing to all, in limited range.
const LUMA: f64 = 219.0;
const CHROMA: f64 = 224.0;

/// Share of red and of blue in luma.
#[derive(Debug, Clone, Copy)]
struct Weights {
    red: f64,
    blue: f64,
}

const BT601: Weights = Weights {
    red: 0.299,
    blue: 0.114,
};
const BT709: Weights = Weights {
    red: 0.2126,
    blue: 0.0722,
};

/// What each sample gets of the old U and V, the old luma besides.
#[derive(Debug, Clone, Copy)]
pub struct Recolour {
    luma: [i32; 2],
    u: [i32; 2],
    v: [i32; 2],
}

impl Recolour {
    pub fn bt601_to_bt709() -> Self {
        Self::between(BT601, BT709)
    }

    fn between(from: Weights, to: Weights) -> Self {
        let green = |w: Weights| 1.0 - w.red - w.blue;
        // How far red and blue lie from luma, for a chroma of 1.
        let spread = |w: Weights| (2.0 * (1.0 - w.blue), 2.0 * (1.0 - w.red));
        let (old_u, old_v) = spread(from);
        let (new_u, new_v) = spread(to);
        // Luma by the new weights less that by the old ones, for a U and a V of 1: what is given to blue or red is
        // taken from green.
        let by_u = old_u * (to.blue - green(to) * from.blue / green(from));
        let by_v = old_v * (to.red - green(to) * from.red / green(from));
        let fixed = |share: f64| (share * f64::from(1 << SHIFT)).round() as i32;
        let level = LUMA / CHROMA;
        Self {
            luma: [fixed(by_u * level), fixed(by_v * level)],
            u: [fixed((old_u - by_u) / new_u), fixed(-by_v / new_u)],
            v: [fixed(-by_u / new_v), fixed((old_v - by_v) / new_v)],
        }
    }

    /// Recolours an I420 picture of limited range. `strides` are the bytes from one row to the next, of Y, U and V.
    pub fn run(&self, [luma, u, v]: [&mut [u8]; 3], strides: [usize; 3]) {
        let [luma_stride, u_stride, v_stride] = strides.map(|stride| stride.max(1));
        let mut shift: Vec<i16> = Vec::new();
        let chroma = u.chunks_mut(u_stride).zip(v.chunks_mut(v_stride));
        for (pair, (u, v)) in luma.chunks_mut(2 * luma_stride).zip(chroma) {
            shift.clear();
            for (u, v) in u.iter_mut().zip(v) {
                let (old_u, old_v) = (i32::from(*u) - 128, i32::from(*v) - 128);
                let mixed = |[a, b]: [i32; 2]| (a * old_u + b * old_v + HALF) >> SHIFT;
                let by = mixed(self.luma) as i16;
                shift.extend([by, by]);
                *u = (mixed(self.u) + 128).clamp(0, 255) as u8;
                *v = (mixed(self.v) + 128).clamp(0, 255) as u8;
            }
            for row in pair.chunks_mut(luma_stride) {
                for (y, by) in row.iter_mut().zip(&shift) {
                    *y = (i16::from(*y) + by).clamp(0, 255) as u8;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(w: Weights, [r, g, b]: [f64; 3]) -> [f64; 3] {
        let y = w.red * r + (1.0 - w.red - w.blue) * g + w.blue * b;
        [
            16.0 + LUMA * y,
            128.0 + CHROMA * (b - y) / (2.0 * (1.0 - w.blue)),
            128.0 + CHROMA * (r - y) / (2.0 * (1.0 - w.red)),
        ]
    }

    fn recoloured([y, u, v]: [u8; 3]) -> [u8; 3] {
        let (mut luma, mut u, mut v) = ([y; 4], [u], [v]);
        Recolour::bt601_to_bt709().run([&mut luma, &mut u, &mut v], [2, 1, 1]);
        assert_eq!(luma, [luma[0]; 4]);
        [luma[0], u[0], v[0]]
    }

    #[test]
    fn every_colour_becomes_what_it_would_have_been_coded_as() {
        let steps = || (0..=10).map(|n| f64::from(n) / 10.0);
        for colour in
            steps().flat_map(|r| steps().flat_map(move |g| steps().map(move |b| [r, g, b])))
        {
            let from = coded(BT601, colour).map(|level| level.round() as u8);
            let wanted = coded(BT709, colour);
            for (got, wanted) in recoloured(from).into_iter().zip(wanted) {
                // Rounded before and after.
                assert!((f64::from(got) - wanted).abs() < 1.6, "{colour:?} {from:?}");
            }
        }
    }

    #[test]
    fn greys_stay_and_what_no_camera_sends_does_no_harm() {
        for y in [0, 16, 100, 235, 255] {
            assert_eq!(recoloured([y, 128, 128]), [y, 128, 128]);
        }
        assert_eq!(recoloured([255, 0, 0])[0], 255);
        assert_eq!(recoloured([0, 255, 255])[0], 0);
    }

    #[test]
    fn what_lies_between_the_rows_is_no_picture_and_may_be_anything() {
        let mut luma = [100; 2 * 6];
        let (mut u, mut v) = ([200, 7], [90, 7]);
        Recolour::bt601_to_bt709().run([&mut luma, &mut u, &mut v], [6, 2, 2]);
        let [y, u1, v1] = recoloured([100, 200, 90]);
        assert_eq!((luma[0], luma[7], u[0], v[0]), (y, y, u1, v1));
    }
}
