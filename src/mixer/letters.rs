//! Letters: a line of text becomes the shape of its letters, from font files.
//!
//! Owns the fonts, which are read when the first name asks for them: a mix without names costs nothing. Each letter
//! comes from the first font that has it. No shaping: letters stand one after the other as they are written, from left
//! to right. Knows no layouts. Called by [`stage`](super::stage), which keeps the shapes, and while a request is checked.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ab_glyph::{Font, FontVec, GlyphId, Point};

use super::canvas::Mask;
use super::layout::Size;

/// Where Debian and others keep fonts that will do; those that are there are used in this order.
const USUAL: [&str; 8] = [
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",
    "/usr/share/fonts/TTF/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
];
/// Stands for what of a text has no room.
const ELLIPSIS: char = '…';
/// How far capitals and digits reach, as a share of the letters' size: half of it lies under a line's middle.
const CAPITALS: f32 = 0.72;

/// Why a text cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "there is no font for it: install one (on Debian and Ubuntu: apt-get install fonts-dejavu-core, and fonts-noto-cjk \
         for Chinese), or name one in [mixer] fonts of the configuration"
    )]
    NoFont,
    #[error(
        "no font here has {letter:?} (U+{code:04X}): install one that has it (fonts-noto-cjk for Chinese, Japanese and Korean), or \
         name one in [mixer] fonts of the configuration",
        code = u32::from(*letter)
    )]
    NoLetter { letter: char },
    #[error("{}: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
}

/// The fonts of this server.
pub struct Fonts {
    files: Vec<(PathBuf, OnceLock<Option<FontVec>>)>,
}

/// A line of text as the shape of its letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub mask: Mask,
    /// Not all of the text is in it.
    pub cut: bool,
}

/// A letter in its place on a line.
struct Placed<'a> {
    font: &'a FontVec,
    glyph: GlyphId,
    /// Where it begins and ends, in pixels.
    x: f32,
    end: f32,
}

impl Fonts {
    /// Those files, in that order; none: the usual ones that are there.
    ///
    /// # Errors
    /// One that was named is no font.
    pub fn new(named: &[PathBuf]) -> Result<Self, Error> {
        let fonts = Self {
            files: match named {
                [] => USUAL.iter().map(PathBuf::from).map(unread).collect(),
                _ => named.iter().cloned().map(unread).collect(),
            },
        };
        for (path, font) in fonts.files.iter().take(named.len()) {
            let loaded = load(path).map_err(|reason| Error::Unreadable {
                path: path.clone(),
                reason,
            })?;
            // Nobody else has the fonts yet.
            let _ = font.set(Some(loaded));
        }
        Ok(fonts)
    }

    /// The fonts in their order, each read when it is come to.
    fn all(&self) -> impl Iterator<Item = &FontVec> {
        self.files
            .iter()
            .filter_map(|(path, font)| font.get_or_init(|| load(path).ok()).as_ref())
    }

    /// Can all of the text be written?
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&self, text: &str) -> Result<(), Error> {
        if self.all().next().is_none() {
            return Err(Error::NoFont);
        }
        let missing = |&c: &char| !c.is_whitespace() && self.find(c).is_none();
        match text.chars().find(missing) {
            Some(letter) => Err(Error::NoLetter { letter }),
            None => Ok(()),
        }
    }

    /// The first font that has the letter.
    fn find(&self, letter: char) -> Option<(&FontVec, GlyphId)> {
        self.all()
            .map(|font| (font, font.glyph_id(letter)))
            .find(|(_, glyph)| glyph.0 != 0)
    }

    /// The text in letters of `size` pixels (an em) on a line of that height, at most `most` wide: a text that has no room
    /// is written smaller, down to `least`, and then what still has none gives way to an ellipsis. Both sides of the shape
    /// are even. `None` when nothing of it can be written.
    pub fn line(&self, text: &str, size: u32, least: u32, height: u32, most: u32) -> Option<Line> {
        let most = most & !1;
        let mut size = size;
        let mut all = self.place(text, size);
        if let Some(last) = all.last().filter(|last| last.end > most as f32) {
            // Widths go with the size, give or take what hinting there is.
            let fitting = (size as f32 * most as f32 / last.end) as u32;
            size = fitting.max(least).min(size);
            all = self.place(text, size);
        }
        let fits = all.last().is_none_or(|last| last.end <= most as f32);
        let placed = if fits {
            all
        } else {
            self.cut(text, size, most)
        };
        let width = ((placed.last()?.end.ceil() as u32 + 1) & !1).min(most);
        let mut mask = Mask {
            size: Size {
                width,
                height: height & !1,
            },
            data: vec![0; (width * (height & !1)) as usize],
        };
        let baseline = mask.size.height as f32 / 2.0 + size as f32 * CAPITALS / 2.0;
        for letter in &placed {
            letter.draw(size, baseline, &mut mask);
        }
        let some = mask.data.iter().any(|&alpha| alpha > 0);
        some.then_some(Line { mask, cut: !fits })
    }

    /// The beginning of a text that is too long, with an ellipsis.
    fn cut(&self, text: &str, size: u32, most: u32) -> Vec<Placed<'_>> {
        let letters: Vec<char> = text.chars().collect();
        for kept in (0..letters.len()).rev() {
            let beginning: String = letters[..kept].iter().collect();
            let shortened = format!("{}{ELLIPSIS}", beginning.trim_end());
            let placed = self.place(&shortened, size);
            if placed.last().is_some_and(|last| last.end <= most as f32) {
                return placed;
            }
        }
        Vec::new()
    }

    /// The text's letters side by side; what no font has is left out.
    fn place(&self, text: &str, size: u32) -> Vec<Placed<'_>> {
        let mut placed: Vec<Placed<'_>> = Vec::new();
        let mut x = 0.0;
        for letter in text.chars() {
            let Some((font, glyph)) = self.find(letter) else {
                x += if letter.is_whitespace() {
                    size as f32 / 3.0
                } else {
                    0.0
                };
                continue;
            };
            let scale = scale(font, size);
            let before = placed
                .last()
                .filter(|before| std::ptr::eq(before.font, font));
            x += before.map_or(0.0, |before| {
                font.kern_unscaled(before.glyph, glyph) * scale
            });
            let end = x + font.h_advance_unscaled(glyph) * scale;
            placed.push(Placed {
                font,
                glyph,
                x,
                end,
            });
            x = end;
        }
        placed
    }
}

impl std::fmt::Debug for Fonts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.files.iter().map(|(path, _)| path))
            .finish()
    }
}

impl Placed<'_> {
    fn draw(&self, size: u32, baseline: f32, mask: &mut Mask) {
        let position = Point {
            x: self.x,
            y: baseline,
        };
        let glyph = self
            .glyph
            .with_scale_and_position(em(self.font, size), position);
        let Some(outline) = self.font.outline_glyph(glyph) else {
            return;
        };
        let bounds = outline.px_bounds();
        let (left, top) = (bounds.min.x as i64, bounds.min.y as i64);
        let (width, height) = (i64::from(mask.size.width), i64::from(mask.size.height));
        outline.draw(|x, y, coverage| {
            let (x, y) = (left + i64::from(x), top + i64::from(y));
            if (0..width).contains(&x) && (0..height).contains(&y) {
                let alpha = &mut mask.data[(y * width + x) as usize];
                *alpha = alpha.saturating_add((coverage.clamp(0.0, 1.0) * 255.0).round() as u8);
            }
        });
    }
}

fn unread(path: PathBuf) -> (PathBuf, OnceLock<Option<FontVec>>) {
    (path, OnceLock::new())
}

fn load(path: &Path) -> Result<FontVec, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    FontVec::try_from_vec(bytes).map_err(|error| error.to_string())
}

/// The scale at which a font's em is that many pixels.
fn em(font: &FontVec, size: u32) -> ab_glyph::PxScale {
    ab_glyph::PxScale::from(scale(font, size) * font.height_unscaled())
}

/// Pixels per unit of the font.
fn scale(font: &FontVec, size: u32) -> f32 {
    size as f32 / font.units_per_em().unwrap_or(1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and last column with something in it.
    fn extent(mask: &Mask) -> (usize, usize) {
        let width = mask.size.width as usize;
        let inked = |x: &usize| mask.data.iter().skip(*x).step_by(width).any(|&a| a > 64);
        let first = (0..width).find(inked).unwrap();
        (first, (0..width).rev().find(inked).unwrap())
    }

    fn fonts() -> Fonts {
        Fonts::new(&[]).unwrap()
    }

    #[test]
    fn letters_are_as_high_as_they_say_and_in_the_middle_of_the_line() {
        let line = fonts().line("HHH", 40, 40, 60, 400).unwrap();
        assert_eq!((line.mask.size.height, line.cut), (60, false));
        let width = line.mask.size.width as usize;
        let rows: Vec<usize> = (0..60)
            .filter(|y| {
                line.mask.data[y * width..(y + 1) * width]
                    .iter()
                    .any(|&a| a > 128)
            })
            .collect();
        // Capitals are some 0.7 em high.
        let (top, bottom) = (rows[0], rows[rows.len() - 1]);
        assert!((26..=31).contains(&(bottom - top + 1)), "{top} to {bottom}");
        assert!(
            (top as i64 - (59 - bottom as i64)).abs() <= 2,
            "{top} to {bottom}"
        );
        // Twice the size is twice as wide.
        let large = fonts().line("HHH", 80, 80, 120, 800).unwrap();
        let span = |line: &Line| extent(&line.mask).1 - extent(&line.mask).0;
        assert!(span(&large).abs_diff(2 * span(&line)) <= 4);
    }

    #[test]
    fn what_has_no_room_gives_way_to_an_ellipsis() {
        let fonts = fonts();
        let whole = fonts.line("Margarethe", 20, 20, 30, 1_000).unwrap();
        let most = whole.mask.size.width / 2;
        let cut = fonts.line("Margarethe", 20, 20, 30, most).unwrap();
        assert!(cut.cut && cut.mask.size.width <= most);
        // The dots at its end stand low.
        let width = cut.mask.size.width as usize;
        let (_, last) = extent(&cut.mask);
        let inked = |y: usize| cut.mask.data[y * width + last] > 64;
        assert!((18..30).any(inked) && !(0..15).any(inked));
        assert_eq!(fonts.line("Margarethe", 20, 6, 30, 2), None);
        assert_eq!(fonts.line("   ", 20, 20, 30, 100), None);
    }

    #[test]
    fn what_has_no_room_is_written_smaller_before_it_gives_way() {
        let fonts = fonts();
        let width = |line: &Line| extent(&line.mask).1 - extent(&line.mask).0;
        let whole = fonts.line("Margarethe", 20, 20, 30, 1_000).unwrap();
        let most = whole.mask.size.width * 2 / 3;
        let smaller = fonts.line("Margarethe", 20, 10, 30, most).unwrap();
        assert!(!smaller.cut && smaller.mask.size.width <= most);
        // No smaller than need be: 13 of 20 pixels.
        assert!(width(&smaller) * 20 >= width(&whole) * 12);
        // A quarter is less than half.
        let cut = fonts.line("Margarethe", 20, 10, 30, most * 3 / 8).unwrap();
        assert!(cut.cut);
    }

    #[test]
    fn letters_beyond_ascii_are_written_and_missing_ones_named() {
        let fonts = fonts();
        assert_eq!(fonts.check("Zoë Łukasz Ωμέγα Дмитрий"), Ok(()));
        // Of the area for private use: no font of the usual ones has it.
        let error = fonts.check("Ann \u{f1234}").unwrap_err();
        assert_eq!(
            error,
            Error::NoLetter {
                letter: '\u{f1234}'
            }
        );
        assert!(error.to_string().contains("U+F1234"), "{error}");
    }

    #[test]
    fn a_named_file_must_be_a_font() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("font.ttf");
        let named = std::slice::from_ref(&path);
        assert!(matches!(Fonts::new(named), Err(Error::Unreadable { .. })));
        std::fs::write(&path, b"no font").unwrap();
        assert!(matches!(Fonts::new(named), Err(Error::Unreadable { .. })));
        // Without any, a text is refused with what to do.
        let none = Fonts {
            files: vec![unread(path)],
        };
        assert_eq!(none.check("Ann"), Err(Error::NoFont));
        assert_eq!(none.line("Ann", 20, 20, 30, 100), None);
    }
}
