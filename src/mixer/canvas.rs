//! The canvas of one output frame: colours and pictures laid over each other, plane by plane.
//!
//! Pure: bytes in, bytes out. I420 in BT.709 of limited range throughout, and even edges, so that opaque pictures are
//! rows copied and nothing is ever converted. Called by [`stage`](super::stage).

use super::layout::{Rect, Size};
use super::scene::Colour;

/// One plane of samples.
#[derive(Debug, Clone, Copy)]
pub struct Plane<'a> {
    pub data: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// A picture to be drawn: Y, U and V, and how opaque each pixel is where that differs.
#[derive(Debug)]
pub struct Planes<'a> {
    pub size: Size,
    pub colours: [Plane<'a>; 3],
    pub alpha: Option<Plane<'a>>,
}

/// How opaque each pixel of a box is, 0 to 255.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    pub size: Size,
    pub data: Vec<u8>,
}

/// A colour as the canvas has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Yuv(pub [u8; 3]);

impl From<Colour> for Yuv {
    fn from(colour: Colour) -> Self {
        let share = |v: u8| f64::from(v) / 255.0;
        let (red, green, blue) = (share(colour.red), share(colour.green), share(colour.blue));
        // BT.709: luma of the primaries' shares, chroma of what is left, scaled to ±112.
        let luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
        let level = |v: f64| v.round().clamp(0.0, 255.0) as u8;
        Self([
            level(16.0 + 219.0 * luma),
            level(128.0 + 224.0 * (blue - luma) / 1.8556),
            level(128.0 + 224.0 * (red - luma) / 1.5748),
        ])
    }
}

/// An opacity as a weight of 256ths: all and nothing are exact.
pub fn weight(opacity: f32) -> u32 {
    (opacity.clamp(0.0, 1.0) * 256.0).round() as u32
}

/// An output frame that is being made.
#[derive(Debug)]
pub struct Canvas<'a> {
    pub size: Size,
    /// Y, U and V, each with the bytes from one row to the next.
    pub planes: [(&'a mut [u8], usize); 3],
}

impl<'a> Canvas<'a> {
    /// A canvas in memory that is laid out without gaps: each row of a plane follows the last; `None` when there is
    /// too little of it.
    pub fn packed(size: Size, memory: &'a mut [u8], strides: [usize; 3]) -> Option<Self> {
        let height = size.height as usize;
        let (luma, rest) = memory.split_at_mut_checked(strides[0] * height)?;
        let (u, rest) = rest.split_at_mut_checked(strides[1] * height.div_ceil(2))?;
        let (v, _) = rest.split_at_mut_checked(strides[2] * height.div_ceil(2))?;
        let planes = [(luma, strides[0]), (u, strides[1]), (v, strides[2])];
        Some(Self { size, planes })
    }

    /// What of a box is on the canvas.
    fn clip(&self, rect: Rect) -> Rect {
        let x = rect.x.min(self.size.width);
        let y = rect.y.min(self.size.height);
        Rect {
            x,
            y,
            width: rect.width.min(self.size.width - x),
            height: rect.height.min(self.size.height - y),
        }
    }

    /// Lays a colour over a box.
    pub fn fill(&mut self, rect: Rect, colour: Yuv, opacity: f32) {
        let (rect, weight) = (self.clip(rect), weight(opacity));
        for ((plane, stride), (n, value)) in
            self.planes.iter_mut().zip(colour.0.into_iter().enumerate())
        {
            let area = area(rect, n);
            for row in rows(plane, *stride, area) {
                if weight == 256 {
                    row.fill(value);
                } else {
                    row.iter_mut()
                        .for_each(|to| *to = mixed(*to, value, weight));
                }
            }
        }
    }

    /// Lays a colour over a box where the mask says so.
    pub fn fill_masked(&mut self, rect: Rect, colour: Yuv, opacity: f32, mask: &Mask) {
        let weight = weight(opacity);
        let alpha = mask.plane();
        let rect = self.clip(rect);
        for ((plane, stride), (n, value)) in
            self.planes.iter_mut().zip(colour.0.into_iter().enumerate())
        {
            for (y, row) in rows(plane, *stride, area(rect, n)).enumerate() {
                for (x, to) in row.iter_mut().enumerate() {
                    *to = mixed(*to, value, scaled(opaque(&alpha, n, x, y), weight));
                }
            }
        }
    }

    /// Lays a picture over the canvas with its top left corner at an even place.
    pub fn draw(&mut self, (x, y): (u32, u32), picture: &Planes<'_>, opacity: f32) {
        self.lay((x, y), picture, opacity, picture.alpha);
    }

    /// As [`Self::draw`], where the mask says so besides.
    pub fn draw_masked(
        &mut self,
        (x, y): (u32, u32),
        picture: &Planes<'_>,
        opacity: f32,
        mask: &Mask,
    ) {
        let Some(own) = picture.alpha else {
            return self.lay((x, y), picture, opacity, Some(mask.plane()));
        };
        let width = mask.size.width as usize;
        let both = mask.data.iter().enumerate().map(|(at, &alpha)| {
            let own = own.data.get(at / width * own.stride + at % width);
            (u32::from(alpha) * u32::from(own.copied().unwrap_or(0)) / 255) as u8
        });
        let both = Mask {
            size: mask.size,
            data: both.collect(),
        };
        self.lay((x, y), picture, opacity, Some(both.plane()));
    }

    fn lay(
        &mut self,
        (x, y): (u32, u32),
        picture: &Planes<'_>,
        opacity: f32,
        alpha: Option<Plane<'_>>,
    ) {
        let Size { width, height } = picture.size;
        let rect = self.clip(Rect {
            x,
            y,
            width,
            height,
        });
        let weight = weight(opacity);
        for (n, ((plane, stride), from)) in self.planes.iter_mut().zip(picture.colours).enumerate()
        {
            let area = area(rect, n);
            let sources = from.data.chunks(from.stride.max(1));
            for (y, (row, source)) in rows(plane, *stride, area).zip(sources).enumerate() {
                let length = row.len().min(source.len());
                let (row, source) = (&mut row[..length], &source[..length]);
                match alpha {
                    None if weight == 256 => row.copy_from_slice(source),
                    None => {
                        for (to, &from) in row.iter_mut().zip(source) {
                            *to = mixed(*to, from, weight);
                        }
                    }
                    Some(alpha) => {
                        if weight == 256 && is_solid(&alpha, n, y, length) {
                            row.copy_from_slice(source);
                            continue;
                        }
                        for (x, (to, &from)) in row.iter_mut().zip(source).enumerate() {
                            *to = mixed(*to, from, scaled(opaque(&alpha, n, x, y), weight));
                        }
                    }
                }
            }
        }
    }
}

impl Mask {
    fn plane(&self) -> Plane<'_> {
        Plane {
            data: &self.data,
            stride: self.size.width as usize,
        }
    }
}

/// A box in samples of plane `n`: the chroma planes have half of both sides.
fn area(rect: Rect, n: usize) -> Rect {
    let shift = u32::from(n > 0);
    Rect {
        x: rect.x >> shift,
        y: rect.y >> shift,
        width: rect.width >> shift,
        height: rect.height >> shift,
    }
}

/// The rows of a box in a plane; those that the memory lacks are left out.
fn rows(plane: &mut [u8], stride: usize, area: Rect) -> impl Iterator<Item = &mut [u8]> {
    let (x, width) = (area.x as usize, area.width as usize);
    plane
        .chunks_mut(stride.max(1))
        .skip(area.y as usize)
        .take(area.height as usize)
        .filter_map(move |row| row.get_mut(x..x + width))
}

/// `from` over `to`, with a weight of 0 to 256.
fn mixed(to: u8, from: u8, weight: u32) -> u8 {
    ((u32::from(from) * weight + u32::from(to) * (256 - weight) + 128) >> 8) as u8
}

/// A weight of 0 to 256 from an alpha of 0 to 255 and another weight.
fn scaled(alpha: u32, weight: u32) -> u32 {
    ((alpha + (alpha >> 7)) * weight) >> 8
}

/// The alpha of a sample of plane `n`; a chroma sample has the mean of its four pixels.
fn opaque(alpha: &Plane<'_>, n: usize, x: usize, y: usize) -> u32 {
    let at = |x: usize, y: usize| {
        let value = alpha.data.get(y * alpha.stride + x);
        u32::from(value.copied().unwrap_or(0))
    };
    if n == 0 {
        return at(x, y);
    }
    let (x, y) = (2 * x, 2 * y);
    (at(x, y) + at(x + 1, y) + at(x, y + 1) + at(x + 1, y + 1) + 2) / 4
}

/// Is a row of plane `n` wholly opaque?
fn is_solid(alpha: &Plane<'_>, n: usize, y: usize, length: usize) -> bool {
    let shift = usize::from(n > 0);
    (0..=shift).all(|row| {
        let start = ((y << shift) + row) * alpha.stride;
        let row = alpha.data.get(start..start + (length << shift));
        row.is_some_and(|row| row.iter().all(|&a| a == 255))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLACK: Yuv = Yuv([16, 128, 128]);
    const SIZE: Size = Size {
        width: 16,
        height: 8,
    };

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect {
            x,
            y,
            width,
            height,
        }
    }

    /// A black canvas after some drawing, as bytes.
    fn drawn(draw: impl FnOnce(&mut Canvas<'_>)) -> Vec<u8> {
        let mut memory = vec![0; 16 * 8 * 3 / 2];
        let mut canvas = Canvas::packed(SIZE, &mut memory, [16, 8, 8]).unwrap();
        canvas.fill(SIZE.into(), BLACK, 1.0);
        draw(&mut canvas);
        memory
    }

    fn at(memory: &[u8], x: usize, y: usize) -> [u8; 3] {
        let chroma = y / 2 * 8 + x / 2;
        [
            memory[y * 16 + x],
            memory[128 + chroma],
            memory[160 + chroma],
        ]
    }

    /// A picture of 4×4 of one colour, opaque in its left half when `half`.
    fn with_picture<T>(colour: [u8; 3], half: bool, with: impl FnOnce(&Planes<'_>) -> T) -> T {
        let data = colour.map(|v| vec![v; 16]);
        let alpha: Vec<u8> = (0..16).map(|n| if n % 4 < 2 { 255 } else { 0 }).collect();
        let plane = |n: usize, stride| Plane {
            data: &data[n][..],
            stride,
        };
        with(&Planes {
            size: Size {
                width: 4,
                height: 4,
            },
            colours: [plane(0, 4), plane(1, 2), plane(2, 2)],
            alpha: half.then_some(Plane {
                data: &alpha,
                stride: 4,
            }),
        })
    }

    #[test]
    fn colours_are_those_of_bt709() {
        assert_eq!(Yuv::from(Colour::BLACK), BLACK);
        assert_eq!(Yuv::from(Colour::WHITE).0, [235, 128, 128]);
        // 16 + 219 × 0.2126 = 62.6; 128 − 224 × 0.2126 / 1.8556 = 102.3; 128 + 112 = 240.
        assert_eq!(Yuv::from(Colour::rgb(0xff_00_00)).0, [63, 102, 240]);
    }

    #[test]
    fn boxes_are_filled_and_no_more() {
        let memory = drawn(|canvas| canvas.fill(rect(4, 2, 4, 2), Yuv([100, 50, 60]), 1.0));
        assert_eq!(at(&memory, 4, 2), [100, 50, 60]);
        assert_eq!(at(&memory, 7, 3), [100, 50, 60]);
        for (x, y) in [(3, 2), (8, 2), (4, 1), (4, 4)] {
            assert_eq!(at(&memory, x, y), BLACK.0, "{x},{y}");
        }
        // What leaves the canvas is cut off.
        let memory = drawn(|canvas| canvas.fill(rect(14, 6, 90, 90), Yuv([100, 50, 60]), 1.0));
        assert_eq!(at(&memory, 15, 7), [100, 50, 60]);
        assert_eq!(at(&memory, 13, 7), BLACK.0);
    }

    #[test]
    fn opacity_mixes_and_its_ends_are_exact() {
        for (opacity, wanted) in [(0.0, 16), (0.5, 66), (1.0, 116)] {
            let memory = drawn(|canvas| {
                with_picture([116, 128, 128], false, |p| canvas.draw((2, 2), p, opacity));
            });
            // 16 + (116 − 16) × opacity.
            assert_eq!(at(&memory, 2, 2)[0], wanted);
            assert_eq!(at(&memory, 6, 2)[0], 16);
        }
    }

    #[test]
    fn a_pictures_own_alpha_lets_the_ground_through() {
        let memory = drawn(|canvas| {
            with_picture([200, 90, 90], true, |p| canvas.draw((4, 0), p, 1.0));
        });
        assert_eq!(at(&memory, 5, 1), [200, 90, 90]);
        assert_eq!(at(&memory, 6, 1), BLACK.0);
        let mask = Mask {
            size: Size {
                width: 4,
                height: 4,
            },
            data: (0..16).map(|n| if n < 8 { 255 } else { 0 }).collect(),
        };
        let memory = drawn(|canvas| {
            with_picture([200, 90, 90], true, |p| {
                canvas.draw_masked((4, 0), p, 1.0, &mask);
            });
        });
        assert_eq!(at(&memory, 5, 1), [200, 90, 90]);
        assert_eq!(at(&memory, 5, 2)[0], 16);
        assert_eq!(at(&memory, 6, 1)[0], 16);
    }

    #[test]
    fn a_picture_over_the_edge_is_cut_off_there() {
        let memory = drawn(|canvas| {
            with_picture([200, 90, 90], false, |p| canvas.draw((14, 6), p, 1.0));
        });
        assert_eq!(at(&memory, 15, 7), [200, 90, 90]);
        assert_eq!(at(&memory, 13, 6), BLACK.0);
        assert_eq!(at(&memory, 0, 7), BLACK.0);
    }
}
