//! The native JSON of a mix, field for field, before any check but that of types and names.
//!
//! Absent fields mean their default; docs/mixing.md has the table. [`Scene::new`](super::Scene::new) checks and
//! normalises.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Colour, Fit, Length, Passthrough, Position, Template, Tracks};

/// The body of `PUT /api/v1/mixes/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixRequest {
    pub app: String,
    pub inputs: Vec<InputRequest>,
    pub output: OutputRequest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// Colour of the canvas where nothing covers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Colour>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_loss: Option<LossRequest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition_ms: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<WatermarkRequest>,
}

/// One input of a request: exactly one of `stream`, `picture` and `canvas` says what it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRequest {
    /// What it is called in answers and between changes; absent: the stream's name, or `canvas-3` for layer 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What of the stream is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Tracks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<PictureRequest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canvas: Option<Colour>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<CropRequest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opacity: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radius: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub border: Option<BorderRequest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<NameRequest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mute: Option<bool>,
    /// Factor on the amplitude; absent means 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
}

/// Part of the source's picture, cut out before anything else.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CropRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<Length>,
    pub width: Length,
    pub height: Length,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BorderRequest {
    pub width: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<Colour>,
}

/// A picture: one of `file`, an id that the configuration gives, and `url`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Address>,
}

/// A name tag over the input's picture.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameRequest {
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Height of the letters; a share is of the canvas's height.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<Colour>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Colour>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background_opacity: Option<f64>,
}

/// A picture over everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatermarkRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Address>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<Length>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opacity: Option<f64>,
}

/// What becomes of an input's place while the input is away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossRequest {
    pub policy: LossPolicy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<PictureRequest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossPolicy {
    Freeze,
    Hide,
    Placeholder,
}

/// The output of a request. What is absent is taken from the input that [`Scene::lead`](super::Scene::lead) names, or
/// from the configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputRequest {
    pub stream: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<u32>,
    /// Seconds between key frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gop: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video_kbps: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_kbps: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passthrough: Option<Passthrough>,
    /// Lets an in-place mix replace a codec that the encoder does not give (HEVC, HE-AAC …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec_change: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mix_sei: Option<MixSeiRequest>,
    /// Carries the lead's own SEI messages over into the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass_sei: Option<bool>,
}

/// `true` for the layout, a text for that text, in an SEI message with every key frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "true, false or a text")]
pub enum MixSeiRequest {
    Layout(bool),
    Text(String),
}

/// Where a picture is fetched. Shown without its query, which may hold a signature.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(pub String);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.find(['?', '#']).unwrap_or(self.0.len());
        let (shown, rest) = self.0.split_at(end);
        // What stands before an @ may be a password, in addresses that are refused for it.
        let shown = match (shown.split_once("//"), shown.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}//***@{host}"),
            _ => shown.to_owned(),
        };
        write!(f, "{shown}{}", if rest.is_empty() { "" } else { "?***" })
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
