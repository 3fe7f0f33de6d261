//! Checks of what the output is to be.

use std::time::Duration;

use super::limits::{listed, within};
use super::{
    AUDIO_KBPS, GOP_SECONDS, Invalid, MAX_FPS, MAX_SEI_TEXT, MAX_SIDE, MAX_VIDEO_KBPS, MIN_SIDE,
    MixSei, MixSeiRequest, OutputRequest, PRESETS, SAMPLE_RATES, SceneOutput, invalid,
};
use crate::media::StreamKey;
use crate::mixer::layout::Size;

pub(super) fn output(asked: &OutputRequest, key: StreamKey) -> Result<SceneOutput, Invalid> {
    let size = match (asked.width, asked.height) {
        (None, None) => None,
        (Some(width), Some(height)) => {
            for (path, side) in [("output.width", width), ("output.height", height)] {
                within(path, Some(side), MIN_SIDE..=MAX_SIDE)?;
                if side % 2 != 0 {
                    return invalid(path, format!("{side} is odd; 4:2:0 video needs even sides"));
                }
            }
            Some(Size { width, height })
        }
        (Some(_), None) => {
            return invalid("output.height", "missing; width and height go together");
        }
        (None, Some(_)) => return invalid("output.width", "missing; width and height go together"),
    };
    let gop = match asked.gop {
        Some(v) if !GOP_SECONDS.contains(&v) => {
            let (least, most) = (GOP_SECONDS.start(), GOP_SECONDS.end());
            return invalid(
                "output.gop",
                format!("{v} is outside {least} to {most} seconds"),
            );
        }
        // Whole milliseconds, so that 2 and 2.0000001 are no two scenes.
        gop => gop.map(|v| Duration::from_millis((v * 1_000.0).round() as u64)),
    };
    if let Some(rate) = asked.sample_rate
        && !SAMPLE_RATES.contains(&rate)
    {
        return invalid(
            "output.sample_rate",
            format!("{rate} is none of {}", listed(&SAMPLE_RATES)),
        );
    }
    let preset = match &asked.preset {
        None => None,
        Some(name) => match PRESETS.iter().find(|preset| *preset == name) {
            Some(&preset) => Some(preset),
            None => {
                return invalid(
                    "output.preset",
                    format!("{name:?} is none of {}", listed(&PRESETS)),
                );
            }
        },
    };
    Ok(SceneOutput {
        key,
        size,
        fps: within("output.fps", asked.fps, 1..=MAX_FPS)?,
        gop,
        video_kbps: within("output.video_kbps", asked.video_kbps, 1..=MAX_VIDEO_KBPS)?,
        audio_kbps: within("output.audio_kbps", asked.audio_kbps, AUDIO_KBPS)?,
        sample_rate: asked.sample_rate,
        channels: within("output.channels", asked.channels, 1..=2)?,
        preset,
        passthrough: asked.passthrough.unwrap_or_default(),
        codec_change: asked.codec_change.unwrap_or(false),
        mix_sei: sei(asked.mix_sei.as_ref())?,
        pass_sei: asked.pass_sei.unwrap_or(false),
    })
}

fn sei(asked: Option<&MixSeiRequest>) -> Result<MixSei, Invalid> {
    match asked {
        None | Some(MixSeiRequest::Layout(false)) => Ok(MixSei::Nothing),
        Some(MixSeiRequest::Layout(true)) => Ok(MixSei::Layout),
        Some(MixSeiRequest::Text(text)) if !(1..=MAX_SEI_TEXT).contains(&text.len()) => invalid(
            "output.mix_sei",
            format!(
                "text of {} bytes is outside 1 to {MAX_SEI_TEXT}",
                text.len()
            ),
        ),
        Some(MixSeiRequest::Text(text)) => Ok(MixSei::Text(text.clone())),
    }
}
