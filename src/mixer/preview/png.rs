//! A picture as a PNG file.
//!
//! Pure. In a palette where it has few colours, as scenes of placeholders have.

use std::collections::HashMap;

use super::super::canvas::Planes;
use super::super::picture::Raw;
use super::text;

/// The picture, whose colours are the canvas's, as a PNG.
///
/// # Errors
/// No memory.
pub(super) fn encode(raw: &Raw) -> Result<Vec<u8>, String> {
    let size = raw.seen();
    let pixels = raw.read(rgb).ok_or("a picture that cannot be read")?;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size.width, size.height);
    encoder.set_depth(png::BitDepth::Eight);
    let data = match indexed(&pixels) {
        Some((palette, indices)) => {
            encoder.set_color(png::ColorType::Indexed);
            encoder.set_palette(palette);
            encoder.set_filter(png::Filter::NoFilter);
            encoder.set_compression(png::Compression::High);
            indices
        }
        None => {
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_filter(png::Filter::Up);
            pixels.into_flattened()
        }
    };
    let mut writer = encoder.write_header().map_err(text)?;
    writer.write_image_data(&data).map_err(text)?;
    writer.finish().map_err(text)?;
    Ok(file)
}

/// The pixels by rows, as red, green and blue.
fn rgb(planes: &Planes<'_>) -> Vec<[u8; 3]> {
    let (width, height) = (planes.size.width as usize, planes.size.height as usize);
    let mut pixels = Vec::with_capacity(width * height);
    let [luma, u, v] = &planes.colours;
    for y in 0..height {
        for x in 0..width {
            let at = |plane: &super::super::canvas::Plane<'_>, x: usize, y: usize| {
                let sample = plane.data.get(y * plane.stride + x);
                i32::from(sample.copied().unwrap_or(0))
            };
            let chroma = (x / 2, y / 2);
            pixels.push(colour([
                at(luma, x, y),
                at(u, chroma.0, chroma.1),
                at(v, chroma.0, chroma.1),
            ]));
        }
    }
    pixels
}

/// A sample of BT.709, limited range, as red, green and blue. In 65536ths.
fn colour([luma, u, v]: [i32; 3]) -> [u8; 3] {
    let (luma, u, v) = ((luma - 16) * 76_309, u - 128, v - 128);
    let level = |value: i32| ((value + 32_768) >> 16).clamp(0, 255) as u8;
    [
        level(luma + 117_489 * v),
        level(luma - 13_975 * u - 34_925 * v),
        level(luma + 138_438 * u),
    ]
}

/// The palette and each pixel's place in it; `None` when there are more colours than a palette holds.
fn indexed(pixels: &[[u8; 3]]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut places = HashMap::new();
    let mut palette = Vec::new();
    let mut indices = Vec::with_capacity(pixels.len());
    let mut last = None;
    for pixel in pixels {
        let place = match last {
            Some((colour, place)) if colour == pixel => place,
            _ => match places.get(pixel) {
                Some(&place) => place,
                None => {
                    let place = u8::try_from(places.len()).ok()?;
                    places.insert(*pixel, place);
                    palette.extend_from_slice(pixel);
                    place
                }
            },
        };
        last = Some((pixel, place));
        indices.push(place);
    }
    Some((palette, indices))
}

#[cfg(test)]
mod tests {
    use super::super::super::canvas::Yuv;
    use super::super::super::scene::Colour;
    use super::*;

    #[test]
    fn colours_come_back_as_they_went_in() {
        for value in [
            0x00_00_00, 0xff_ff_ff, 0xff_00_00, 0x00_ff_00, 0x00_00_ff, 0x12_34_56, 0xc0_ff_ee,
        ] {
            let asked = Colour::rgb(value);
            let back = colour(Yuv::from(asked).0.map(i32::from));
            let there = [asked.red, asked.green, asked.blue];
            assert!(
                back.iter().zip(there).all(|(&a, b)| a.abs_diff(b) <= 2),
                "{value:06x}: {back:?}"
            );
        }
    }

    #[test]
    fn a_palette_holds_256_colours_and_no_more() {
        let colours = |n: u16| {
            (0..n)
                .map(|n| [n as u8, (n >> 8) as u8, 7])
                .collect::<Vec<_>>()
        };
        let (palette, indices) = indexed(&colours(256)).unwrap();
        assert_eq!(
            (palette.len(), indices.len(), indices[255]),
            (768, 256, 255)
        );
        assert_eq!(indexed(&colours(257)), None);
    }
}
