//! The scene: what a mix request asks for, read strictly and turned into one normal form.
//!
//! Owns the native JSON of a mix and every check that needs nothing but the request itself; each error
//! names the field by its path, the value and the limit. Pure. Two requests that mean the same give equal
//! [`Scene`]s, which is how a repeated PUT is known to change nothing. Sizes in the output's pixels are
//! worked out by [`layout`](super::layout) once the canvas is known. Called by the mixer's handle, and by whoever
//! reads another dialect of requests: that one fills a [`MixRequest`].

mod length;
mod limits;
#[cfg(test)]
mod mistakes;
mod output;
mod overlay;
mod request;
mod template;
#[cfg(test)]
mod tests;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::layout::{Presence, Size};
use crate::media::StreamKey;

pub use length::{Colour, Length};
pub use limits::{
    AUDIO_KBPS, DEFAULT_LOSS_WAIT, GOP_SECONDS, MAX_ADDRESS, MAX_BORDER, MAX_FILE_ID, MAX_FPS,
    MAX_GAIN, MAX_INPUT_ID, MAX_INPUTS, MAX_LAYER, MAX_LOSS_WAIT, MAX_NAME, MAX_SEI_TEXT, MAX_SIDE,
    MAX_TRANSITION, MAX_VIDEO_KBPS, MIN_SIDE, NAME_PIXELS, PRESETS, SAMPLE_RATES,
};
pub use request::{
    Address, BorderRequest, CropRequest, InputRequest, LossPolicy, LossRequest, MixRequest,
    MixSeiRequest, NameRequest, OutputRequest, PictureRequest, WatermarkRequest,
};
pub use template::Template;

/// What of a stream is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Tracks {
    #[default]
    #[serde(rename = "audio+video")]
    Both,
    #[serde(rename = "audio")]
    Sound,
    #[serde(rename = "video")]
    Pictures,
}

/// How a picture meets a box of another aspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Whole, with black bars.
    #[default]
    Letterbox,
    /// Filling the box; what stands out on two sides is cut off.
    Crop,
    /// Filling the box, out of shape.
    Stretch,
}

/// A place inside a box or on the canvas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    TopLeft,
    Top,
    TopRight,
    Left,
    Center,
    Right,
    BottomLeft,
    Bottom,
    BottomRight,
}

/// May the source go to the viewers as it is when there is nothing to mix?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Passthrough {
    #[default]
    Auto,
    Never,
}

/// A mix as it stands: valid and in normal form, inputs by rising layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    pub inputs: Vec<SceneInput>,
    pub output: SceneOutput,
    /// The output takes over the program feed of one of the inputs.
    pub in_place: bool,
    /// Index of the input that gives the output its format and pace where the request leaves it open: the
    /// one whose name the output has, else the lowest stream with pictures, else the lowest stream. Always a stream.
    pub lead: usize,
    pub template: Template,
    /// Colour of the canvas where nothing covers it.
    pub background: Colour,
    pub on_loss: OnLoss,
    /// How long a change of layout takes; zero: from one frame to the next.
    pub transition: Duration,
    pub watermark: Option<Watermark>,
}

/// One input. What makes no sense for its source stands at its default: a colour has no crop, a picture no gain.
#[derive(Debug, Clone, PartialEq)]
pub struct SceneInput {
    /// Unique in the scene; the same input in two scenes has the same id.
    pub id: Arc<str>,
    pub source: Source,
    pub layer: u32,
    pub place: Place,
    /// Cut out of the source before anything else.
    pub crop: Option<Crop>,
    pub fit: Fit,
    /// 0 to 1.
    pub opacity: f32,
    /// Of the corners; a share is of the box's shorter side. At most half of it counts.
    pub radius: Option<Length>,
    /// Drawn inside the box.
    pub border: Option<Border>,
    /// Not shown; its place in a template stays free.
    pub hidden: bool,
    pub name: Option<Arc<NameTag>>,
    pub mute: bool,
    /// Factor on the amplitude, 0 to [`MAX_GAIN`].
    pub gain: f32,
}

/// What an input is.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// The source feed of a stream.
    Stream {
        key: StreamKey,
        tracks: Tracks,
    },
    Picture(Picture),
    Colour(Colour),
}

/// A still picture (PNG or JPEG).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Picture {
    /// A file that the configuration gives this id.
    File(String),
    /// An `http` or `https` address.
    Url(Address),
}

/// Where an input's box was asked to be; what is `None` the template decides.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Place {
    pub x: Option<Length>,
    pub y: Option<Length>,
    pub width: Option<Length>,
    pub height: Option<Length>,
}

/// Part of a source's picture, in pixels as it is meant to be seen or in shares of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crop {
    pub x: Length,
    pub y: Length,
    pub width: Length,
    pub height: Length,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Border {
    /// In pixels, at least 1.
    pub width: u32,
    pub colour: Colour,
}

/// A line of text over an input's picture.
#[derive(Debug, Clone, PartialEq)]
pub struct NameTag {
    pub text: String,
    pub position: Position,
    /// Height of the letters; a share is of the canvas's height.
    pub size: Length,
    pub colour: Colour,
    /// What the text stands on, and how opaque that is (over 0).
    pub plate: Option<(Colour, f32)>,
}

/// A picture over everything.
#[derive(Debug, Clone, PartialEq)]
pub struct Watermark {
    pub picture: Picture,
    pub spot: Spot,
    /// Where one is absent it follows from the picture's aspect; where both are, the picture has its own size.
    pub width: Option<Length>,
    pub height: Option<Length>,
    pub opacity: f32,
}

/// Where a watermark is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spot {
    /// So far from the sides that the position names; a share is of the canvas's shorter side.
    Near(Position, Length),
    At {
        x: Length,
        y: Length,
    },
}

/// What becomes of an input's place while the input is away. Times count from its last picture or sound.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum OnLoss {
    /// Its last picture stays.
    #[default]
    Freeze,
    /// It leaves the picture, and the template closes the gap.
    Hide { after: Duration },
    /// A picture takes its place.
    Placeholder { after: Duration, picture: Picture },
}

#[derive(Debug, Clone, PartialEq)]
pub struct SceneOutput {
    pub key: StreamKey,
    /// Both sides even.
    pub size: Option<Size>,
    pub fps: Option<u32>,
    /// Between key frames.
    pub gop: Option<Duration>,
    pub video_kbps: Option<u32>,
    pub audio_kbps: Option<u32>,
    pub sample_rate: Option<u32>,
    pub channels: Option<u32>,
    /// One of [`PRESETS`].
    pub preset: Option<&'static str>,
    pub passthrough: Passthrough,
    pub codec_change: bool,
    pub mix_sei: MixSei,
    pub pass_sei: bool,
}

/// What goes into an SEI message with every key frame of the output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MixSei {
    #[default]
    Nothing,
    /// The layout, as [`layout::Layout::sei`](super::layout::Layout::sei) has it.
    Layout,
    Text(String),
}

/// A request that is not a scene: which field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Invalid {
    /// Path of the field in the request, like `inputs[1].x`.
    pub path: String,
    pub message: String,
}

/// A doubt about a scene that can be drawn all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Path of the field in the request, like `inputs[1].x`.
    pub path: String,
    pub kind: Doubt,
    pub message: String,
}

/// What a warning is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doubt {
    /// A box leaves the canvas, so it was moved or shrunk.
    OutsideCanvas,
    /// A crop leaves the source's picture, so it was shrunk.
    OutsideSource,
    /// Two inputs have one layer; the later one in the request covers the other.
    EqualLayers,
    /// A box is wholly behind another.
    Covered,
    /// A box so small that nothing can be made out in it.
    Tiny,
}

/// A scene that can be drawn, with what would keep it from going on air.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub scene: Scene,
    /// For which [`Scene::new`] would refuse it.
    pub warnings: Vec<Warning>,
    /// For each input of the scene, its place in the request.
    pub order: Vec<usize>,
}

impl Scene {
    /// Checks a request and puts it into normal form.
    ///
    /// # Errors
    /// The first field that is wrong, in the order of the request; what can at least be drawn comes last.
    pub fn new(request: &MixRequest) -> Result<Self, Invalid> {
        Self::draft(request)?.accept()
    }

    /// As [`Self::new`], but equal layers and boxes outside the canvas are only warned of: for previews.
    ///
    /// # Errors
    /// The first field that is wrong, in the order of the request.
    pub fn draft(request: &MixRequest) -> Result<Draft, Invalid> {
        validate::draft(request)
    }

    /// The stream that gives the output its format and pace; `None` never happens in a scene of [`Self::new`].
    pub fn lead_key(&self) -> Option<&StreamKey> {
        self.inputs.get(self.lead)?.source.key()
    }

    /// Index of the lowest input that is to be seen; `None`: the mix is of sound alone.
    pub fn background(&self) -> Option<usize> {
        self.inputs
            .iter()
            .position(|input| input.source.is_visual())
    }

    /// Index of the input whose own size the canvas takes when [`Self::canvas`] is open; `None`: there is none, and
    /// then the canvas is not open.
    pub fn sizing(&self) -> Option<usize> {
        let shows = |index: &usize| {
            let source = self.inputs.get(*index).map(|input| &input.source);
            source.is_some_and(|s| s.is_visual() && s.key().is_some())
        };
        let all = 0..self.inputs.len();
        Some(self.lead)
            .filter(shows)
            .or_else(|| all.into_iter().find(shows))
    }

    /// The canvas as far as the request settles it: `output`'s size, else that of a colour or picture in the
    /// background; `None`: the own size of the input that [`Self::sizing`] names.
    pub fn canvas(&self) -> Option<Size> {
        let given = || self.given_canvas().map(|(_, size)| size);
        self.output.size.or_else(given)
    }

    /// The colour or picture in the background whose box is the canvas, by its index.
    fn given_canvas(&self) -> Option<(usize, Size)> {
        let index = self.background()?;
        let SceneInput { source, place, .. } = self.inputs.get(index)?;
        let (Some(Length::Pixels(width)), Some(Length::Pixels(height))) =
            (place.width, place.height)
        else {
            return None;
        };
        let at_corner = |v: &Option<Length>| v.is_none_or(|v| v.pixels(1) == 0.0);
        let counts = self.output.size.is_none()
            && source.key().is_none()
            && [place.x, place.y].iter().all(at_corner);
        counts.then(|| (index, Size::even(width, height)))
    }

    /// Is the box of that input the canvas, so that rounding is all that it can differ by?
    pub(super) fn is_canvas(&self, index: usize) -> bool {
        self.given_canvas().is_some_and(|(given, _)| given == index)
    }
}

impl Draft {
    /// The scene, when nothing keeps it from going on air.
    ///
    /// # Errors
    /// The first of its warnings.
    pub fn accept(self) -> Result<Scene, Invalid> {
        match self.warnings.into_iter().next() {
            None => Ok(self.scene),
            Some(Warning { path, message, .. }) => Err(Invalid { path, message }),
        }
    }
}

impl Source {
    /// The stream, when it is one.
    pub fn key(&self) -> Option<&StreamKey> {
        match self {
            Source::Stream { key, .. } => Some(key),
            Source::Picture(_) | Source::Colour(_) => None,
        }
    }

    /// Is there something to see?
    pub fn is_visual(&self) -> bool {
        !matches!(
            self,
            Source::Stream {
                tracks: Tracks::Sound,
                ..
            }
        )
    }

    /// Is there something to hear?
    pub fn is_audible(&self) -> bool {
        matches!(
            self,
            Source::Stream {
                tracks: Tracks::Both | Tracks::Sound,
                ..
            }
        )
    }
}

impl SceneInput {
    /// The stream, when it is one.
    pub fn key(&self) -> Option<&StreamKey> {
        self.source.key()
    }

    /// The factor on its sound, muting included.
    pub fn loudness(&self) -> f32 {
        if self.mute || !self.source.is_audible() {
            0.0
        } else {
            self.gain
        }
    }
}

impl OnLoss {
    /// Where a stream stands of which nothing has come for `silent`; `None`: nothing ever has.
    pub fn presence(&self, silent: Option<Duration>) -> Presence {
        let after = match self {
            OnLoss::Freeze => Duration::MAX,
            OnLoss::Hide { after } | OnLoss::Placeholder { after, .. } => *after,
        };
        match silent {
            None => Presence::Awaited,
            Some(silent) if silent < after => Presence::Present,
            Some(_) => Presence::Lost,
        }
    }

    /// What stands in for a lost input.
    pub fn placeholder(&self) -> Option<&Picture> {
        match self {
            OnLoss::Placeholder { picture, .. } => Some(picture),
            OnLoss::Freeze | OnLoss::Hide { .. } => None,
        }
    }
}

fn invalid<T>(path: impl Into<String>, message: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid {
        path: path.into(),
        message: message.into(),
    })
}
