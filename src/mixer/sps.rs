//! The size of a stream's pictures as its H.264 sequence parameter set tells it, so that it is known without a decoder.
//!
//! | source | version | covered |
//! |---|---|---|
//! | ITU-T H.264 | 08/2021, 7.3.2.1.1, 7.4.2.1.1, E.1.1 | sequence parameter set up to the sample aspect ratio |
//!
//! Pure. Strangers write what is read here: whatever makes no sense gives `None`.

use super::layout::Size;

/// Profiles whose parameter sets tell of chroma and scaling lists.
const HIGH: [u8; 13] = [44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244];
/// Longest side in pixels that is believed.
const MAX_SIDE: u32 = 16_384;

/// Size of the pictures in pixels; `None` when `unit` is no such NAL unit or its pixels are not square.
pub(super) fn size(unit: &[u8]) -> Option<Size> {
    let bytes = unescaped(unit);
    let mut bits = Bits {
        bytes: &bytes,
        at: 0,
    };
    if bits.take(8)? & 0x1f != 7 {
        return None;
    }
    let profile = bits.take(8)? as u8;
    bits.skip(16);
    bits.number()?;
    let mut chroma = 1;
    let mut planes = false;
    if HIGH.contains(&profile) {
        chroma = bits.number()?;
        if chroma == 3 {
            planes = bits.flag()?;
        }
        bits.number()?;
        bits.number()?;
        bits.skip(1);
        if bits.flag()? {
            for n in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.flag()? {
                    bits.skip_scaling(if n < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.number()?;
    match bits.number()? {
        0 => {
            bits.number()?;
        }
        1 => {
            bits.skip(1);
            bits.signed()?;
            bits.signed()?;
            for _ in 0..bits.number()?.min(256) {
                bits.signed()?;
            }
        }
        _ => {}
    }
    bits.number()?;
    bits.skip(1);
    let columns = bits.number()?.checked_add(1)?;
    let rows = bits.number()?.checked_add(1)?;
    let frames_only = bits.flag()?;
    if !frames_only {
        bits.skip(1);
    }
    bits.skip(1);
    // In units of chroma samples, and of two rows where there may be fields.
    let (across, down) = match (planes, chroma) {
        (false, 1) => (2, 2),
        (false, 2) => (2, 1),
        _ => (1, 1),
    };
    let down = if frames_only { down } else { 2 * down };
    let mut cut = [0; 4];
    if bits.flag()? {
        for side in &mut cut {
            *side = bits.number()?;
        }
    }
    let square = !bits.flag()? || !bits.flag()? || bits.take(8)? <= 1;
    let side = |blocks: u32, step: u32, one: u32, other: u32| {
        let cut = one.checked_add(other)?.checked_mul(step)?;
        let side = blocks.checked_mul(16)?.checked_sub(cut)?;
        (1..=MAX_SIDE).contains(&side).then_some(side)
    };
    let rows = if frames_only {
        rows
    } else {
        rows.checked_mul(2)?
    };
    let size = Size {
        width: side(columns, across, cut[0], cut[1])?,
        height: side(rows, down, cut[2], cut[3])?,
    };
    square.then_some(size)
}

/// A NAL unit without the bytes that keep it from looking like a start code.
fn unescaped(unit: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(unit.len());
    let mut zeros = 0;
    for &byte in unit {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        bytes.push(byte);
    }
    bytes
}

/// Reads from the highest bit on.
struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl Bits<'_> {
    fn flag(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// Up to 32 bits.
    fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    fn skip(&mut self, count: usize) {
        self.at += count;
    }

    /// An unsigned Exp-Golomb number.
    fn number(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.take(zeros)?)
    }

    /// A signed one.
    fn signed(&mut self) -> Option<i32> {
        let number = self.number()?;
        let half = i32::try_from(number.div_ceil(2)).ok()?;
        Some(if number % 2 == 1 { half } else { -half })
    }

    /// A scaling list of so many coefficients.
    fn skip_scaling(&mut self, count: usize) -> Option<()> {
        let (mut last, mut next) = (8i32, 8i32);
        for _ in 0..count {
            if next != 0 {
                next = last.wrapping_add(self.signed()?) & 0xff;
            }
            if next != 0 {
                last = next;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixer::tests::studio::encoder_sets;

    #[test]
    fn the_parameter_set_tells_the_size_that_the_encoder_was_given() {
        for (width, height) in [(1_280, 720), (360, 640), (540, 960), (854, 480), (162, 242)] {
            for profile in ["baseline", "main", "high"] {
                let sets = encoder_sets(width, height, profile, "1/1");
                assert_eq!(size(&sets), Some(Size { width, height }), "{profile}");
            }
        }
        // Anamorphic pictures are seen in another size than they have.
        assert_eq!(size(&encoder_sets(720, 576, "high", "16/11")), None);
    }

    #[test]
    fn what_makes_no_sense_tells_nothing() {
        let sets = encoder_sets(640, 360, "high", "1/1");
        for end in 0..sets.len().min(7) {
            assert_eq!(size(&sets[..end]), None, "{end} bytes");
        }
        assert_eq!(size(&[0x68, 1, 2, 3]), None);
        assert_eq!(size(&[0x67; 64]), None);
        assert_eq!(size(&[0x67, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
