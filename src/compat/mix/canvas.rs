//! The size of the background, which is the output's.

use super::ask::Length;
use super::{Ask, Code, Facts, Input, Kind, Refusal, scene};

/// The sides that a mix's picture may have.
const SIDES: std::ops::RangeInclusive<u32> = 16..=3_000;

/// The background.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Canvas {
    /// Width and height in pixels as they were asked for: what boxes and ratios are held against.
    pub asked: (f64, f64),
    /// The same as the mixer takes them: even, since 4:2:0 has no odd sides.
    pub even: (u32, u32),
}

/// `order` has the inputs by rising layer.
///
/// It is the size that the lowest input with a picture is given, where that is pixels, else the own size of that stream,
/// cropped as it is asked to be; a canvas or picture without a size takes that of the lowest stream with pictures.
///
/// # Errors
/// [`Code::Background`] where neither is known.
pub(super) fn size(ask: &Ask, order: &[usize], facts: &Facts) -> Result<Canvas, Refusal> {
    let unknown = || Code::Background.because("size of the background is not known");
    let by_layer = || order.iter().map(|&at| &ask.inputs[at]);
    let background = by_layer().find(|input| input.kind.is_visual());
    let background = background.ok_or_else(unknown)?;
    let limits = &ask.limits;
    let given = [
        limits.size(background.width, "image_width")?,
        limits.size(background.height, "image_height")?,
    ];
    let mut sides = [0.0; 2];
    for (at, given) in given.into_iter().enumerate() {
        sides[at] = match given {
            Some(Length::Pixels(pixels)) => pixels,
            // A share of itself says nothing.
            Some(Length::Ratio(_)) => return Err(unknown()),
            None => {
                let shows = |input: &&Input| matches!(input.kind, Kind::Both | Kind::Pictures);
                let of = Some(background).filter(shows);
                let of = of.or_else(|| by_layer().find(shows));
                let own = scene::own_size(ask, of.ok_or_else(unknown)?, facts)?;
                let (width, height) = own.ok_or_else(unknown)?;
                [width, height][at]
            }
        };
    }
    let even = |side: f64| side.round() as u32 & !1;
    let [width, height] = sides.map(even);
    if !SIDES.contains(&width) || !SIDES.contains(&height) {
        return Err(Code::Background.because(format!(
            "background of {width}x{height} is outside {} to {} pixels",
            SIDES.start(),
            SIDES.end()
        )));
    }
    Ok(Canvas {
        asked: sides.into(),
        even: (width, height),
    })
}
