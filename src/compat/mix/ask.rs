//! A request to mix, whichever form it came in.

use super::{Code, MAX_ID, Refusal};

/// What is asked for. Values are as they came: ranges are checked where they are used.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::compat) struct Ask {
    pub session: String,
    pub output: String,
    /// `None`: neither 0 nor 1 was asked for.
    pub kind: Option<Output>,
    /// The number of a template; 0: none.
    pub template: i64,
    pub inputs: Vec<Input>,
    pub encoding: Encoding,
    /// Pictures fill their boxes and are cut, instead of standing in them with bars.
    pub crop_to_fill: bool,
    /// A single input is sent on under the new name, instead of ending the mix.
    pub copy: bool,
    pub limits: Limits,
}

/// What the output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::compat) enum Output {
    /// 0: it takes the place of one of the inputs.
    Replaces,
    /// 1: it is a stream of its own.
    New,
}

/// How the output is encoded; what is `None` the mixer chooses.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::compat) struct Encoding {
    /// Kilobits per second.
    pub video_kbps: Option<f64>,
    /// Seconds between key frames.
    pub gop: Option<i64>,
    /// Frames a second.
    pub fps: Option<i64>,
    /// Kilobits per second.
    pub audio_kbps: Option<i64>,
    /// Hertz.
    pub sample_rate: Option<i64>,
    pub channels: Option<i64>,
    /// A text that goes into SEI messages.
    pub sei: Option<String>,
    /// The main's own user data goes along.
    pub pass_sei: bool,
}

/// One input.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::compat) struct Input {
    /// The stream's name; of a canvas or picture a label that means nothing.
    pub id: String,
    pub kind: Kind,
    /// `None`: no whole number was given.
    pub layer: Option<i64>,
    pub width: Option<f64>,
    pub height: Option<f64>,
    pub x: Option<f64>,
    pub y: Option<f64>,
    /// Of a canvas, as it came.
    pub colour: Option<String>,
    /// Of a picture.
    pub picture: Option<i64>,
    pub crop: Option<Crop>,
}

/// What an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::compat) enum Kind {
    Both,
    Picture,
    Canvas,
    Sound,
    Pictures,
}

impl Kind {
    /// By the number of the documents; 1 stands for nothing.
    pub fn numbered(number: i64) -> Option<Self> {
        Some(match number {
            0 => Kind::Both,
            2 => Kind::Picture,
            3 => Kind::Canvas,
            4 => Kind::Sound,
            5 => Kind::Pictures,
            _ => return None,
        })
    }

    /// Is there something to see?
    pub fn is_visual(self) -> bool {
        self != Kind::Sound
    }

    pub fn is_stream(self) -> bool {
        matches!(self, Kind::Both | Kind::Sound | Kind::Pictures)
    }
}

/// Part of the source's picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::compat) struct Crop {
    pub width: Option<f64>,
    pub height: Option<f64>,
    pub x: Option<f64>,
    pub y: Option<f64>,
}

/// What differs between the forms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::compat) struct Limits {
    /// Longest side of a box and largest position, in pixels.
    pub side: f64,
    /// What a longer one is answered with.
    pub too_long: Code,
    /// Largest video bitrate in kilobits per second.
    pub kbps: f64,
}

/// Of Mix_StreamV2.
pub(in crate::compat) const LEGACY: Limits = Limits {
    side: 3_000.0,
    too_long: Code::Input,
    kbps: 50_000.0,
};

/// Of CreateCommonMixStream.
pub(in crate::compat) const V3: Limits = Limits {
    side: 2_000.0,
    too_long: Code::TooLarge,
    kbps: 10_000.0,
};

/// A position or size: from 1 on pixels, below it a share of the background's side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Length {
    Pixels(f64),
    Ratio(f64),
}

impl Length {
    /// In pixels, where the background's side has `side`.
    pub fn pixels(self, side: f64) -> f64 {
        match self {
            Length::Pixels(pixels) => pixels,
            Length::Ratio(ratio) => ratio * side,
        }
    }
}

impl Limits {
    /// Reads a length. `what` names the field.
    ///
    /// # Errors
    /// When it is neither 0, nor a ratio of 0.01 to 0.99, nor pixels up to [`Self::side`].
    pub(super) fn length(&self, value: f64, what: &str) -> Result<Length, Refusal> {
        if value == 0.0 || (1.0..=self.side).contains(&value) {
            return Ok(Length::Pixels(value));
        }
        if (0.01..=0.99).contains(&value) {
            return Ok(Length::Ratio(value));
        }
        let code = if value > self.side {
            self.too_long
        } else {
            Code::Input
        };
        Err(code.because(format!(
            "{what} {value} is neither 0.01 to 0.99 nor 0 to {} pixels",
            self.side
        )))
    }

    /// As [`Self::length`], of a size, where 0 is as good as absent.
    pub(super) fn size(&self, value: Option<f64>, what: &str) -> Result<Option<Length>, Refusal> {
        match value {
            None | Some(0.0) => Ok(None),
            Some(value) => self.length(value, what).map(Some),
        }
    }

    /// Pixels of a crop: no ratios there.
    pub(super) fn pixels(&self, value: Option<f64>, what: &str) -> Result<f64, Refusal> {
        match value.unwrap_or(0.0) {
            value if (0.0..=self.side).contains(&value) => Ok(value),
            value => Err(Code::Input.because(format!(
                "{what} {value} is outside 0 to {} pixels",
                self.side
            ))),
        }
    }
}

/// Refuses an id that is empty, too long, or could not be that of a stream here. `what` names it.
///
/// # Errors
/// [`Code::Input`], as the documents have it for lengths.
pub(super) fn check_id(id: &str, what: &str) -> Result<(), Refusal> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if (1..=MAX_ID).contains(&id.len()) && id.chars().all(plain) {
        return Ok(());
    }
    Err(Code::Input.because(format!(
        "{what} of {} bytes is not 1 to {MAX_ID} letters, digits or underscores",
        id.len()
    )))
}

/// Refuses a label that is empty or too long.
///
/// # Errors
/// [`Code::Input`].
pub(super) fn check_label(id: &str) -> Result<(), Refusal> {
    if (1..=MAX_ID).contains(&id.len()) {
        return Ok(());
    }
    Err(Code::Input.because(format!(
        "input id of {} bytes is outside 1 to {MAX_ID}",
        id.len()
    )))
}
