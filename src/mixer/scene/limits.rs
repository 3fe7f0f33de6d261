//! How much a scene may ask for, and the range checks that several fields share.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Invalid, Length, invalid};

/// Inputs of one mix (contract, section 2.2). How many the pipeline takes is `program`'s own number.
pub const MAX_INPUTS: usize = 16;
/// Layers run from 1, the background, to this (contract, section 2.2).
pub const MAX_LAYER: u32 = 16;
/// Longest side of a canvas or a box, and the largest position, in pixels (contract, section 2.2).
pub const MAX_SIDE: u32 = 3_000;
/// Shortest side of a canvas: x264 takes less, but no player shows it.
pub const MIN_SIDE: u32 = 16;
pub const MAX_FPS: u32 = 60;
/// Seconds between key frames (contract, section 3, from 1 on; half a second is what takeovers like).
pub const GOP_SECONDS: RangeInclusive<f64> = 0.5..=10.0;
/// Largest video bitrate (contract, section 2.2, legacy range).
pub const MAX_VIDEO_KBPS: u32 = 50_000;
/// AAC-LC in stereo needs no more, and the encoder gives no more.
pub const AUDIO_KBPS: RangeInclusive<u32> = 16..=500;
/// What AAC knows and the contract lists (section 3).
pub const SAMPLE_RATES: [u32; 12] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
];
/// What x264 knows, fastest first.
pub const PRESETS: [&str; 9] = [
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
];
/// Four times the amplitude is 12 dB.
pub const MAX_GAIN: f64 = 4.0;
/// Widest border in pixels.
pub const MAX_BORDER: u32 = 50;
/// Longest id of an input: that of a stream.
pub const MAX_INPUT_ID: usize = 128;
/// Longest name tag, in characters: what one line under a picture holds.
pub const MAX_NAME: usize = 64;
/// Height of a name tag's letters in pixels.
pub const NAME_PIXELS: RangeInclusive<f64> = 8.0..=200.0;
/// Longest move between two layouts.
pub const MAX_TRANSITION: Duration = Duration::from_secs(10);
/// Longest wait before a policy on loss acts: as long as a mix waits for its inputs at all (contract, section 2.5).
pub const MAX_LOSS_WAIT: Duration = Duration::from_secs(900);
/// How long a lost input's last picture stays where the request names a policy and no time: long enough for most
/// reconnects, short enough not to look broken.
pub const DEFAULT_LOSS_WAIT: Duration = Duration::from_secs(2);
/// Longest id of a picture file, and longest address of a picture.
pub const MAX_FILE_ID: usize = 64;
pub const MAX_ADDRESS: usize = 2_048;
/// Longest text of one's own in the output's SEI, in bytes.
pub const MAX_SEI_TEXT: usize = 1_024;

/// A position: 0 is the edge.
pub(super) fn edge(length: Option<Length>, path: &str) -> Result<(), Invalid> {
    match length {
        Some(Length::Pixels(v)) if !(0.0..=f64::from(MAX_SIDE)).contains(&v) => {
            invalid(path, format!("{v} is outside 0 to {MAX_SIDE} pixels"))
        }
        Some(Length::Share(v)) if !(0.0..=100.0).contains(&v) => {
            invalid(path, format!("{v}% is outside 0% to 100%"))
        }
        _ => Ok(()),
    }
}

/// A size: 4:2:0 video has none under 2, and nothing is no size.
pub(super) fn extent(length: Option<Length>, path: &str) -> Result<(), Invalid> {
    match length {
        Some(Length::Pixels(v)) if !(2.0..=f64::from(MAX_SIDE)).contains(&v) => {
            invalid(path, format!("{v} is outside 2 to {MAX_SIDE} pixels"))
        }
        Some(Length::Share(v)) if v <= 0.0 || v > 100.0 => {
            invalid(path, format!("{v}% is no share; sizes are over 0% to 100%"))
        }
        _ => Ok(()),
    }
}

/// A factor from 0 to 1.
pub(super) fn share(asked: Option<f64>, default: f64, path: &str) -> Result<f32, Invalid> {
    let value = asked.unwrap_or(default);
    if !(0.0..=1.0).contains(&value) {
        return invalid(path, format!("{value} is outside 0 to 1"));
    }
    Ok(value as f32)
}

/// A whole number that may be absent.
pub(super) fn within(
    path: &str,
    value: Option<u32>,
    limits: RangeInclusive<u32>,
) -> Result<Option<u32>, Invalid> {
    match value {
        Some(v) if !limits.contains(&v) => {
            let (least, most) = (limits.start(), limits.end());
            invalid(path, format!("{v} is outside {least} to {most}"))
        }
        _ => Ok(value),
    }
}

/// For messages.
pub(super) fn listed(values: &[impl ToString]) -> String {
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    values.join(", ")
}
