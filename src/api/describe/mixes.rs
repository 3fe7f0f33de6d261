//! Bodies of the mixes' endpoints, for the description alone: what they really are is the mixer's, which may not be built
//! in. Tests hold the requests to the mixer's own fields and the answers to what it says.

#![allow(dead_code)] // only described

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::mixes::Form;

/// What is mixed, where it goes and how it is encoded; docs/mixing.md has the ranges.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Scene, example = json!({
    "app": "live",
    "inputs": [{"stream": "8888_streamA", "layer": 1}, {"stream": "8888_streamB", "layer": 2}],
    "output": {"stream": "8888_streamA", "width": 540, "height": 960},
}))]
pub(in crate::api) struct Scene {
    /// Application of all the streams.
    app: String,
    #[schema(min_items = 1, max_items = 16)]
    inputs: Vec<Input>,
    output: Output,
    template: Option<Template>,
    /// Colour of the canvas where nothing covers it.
    background: Option<String>,
    on_loss: Option<Loss>,
    /// How long a change of layout takes.
    #[schema(maximum = 10_000)]
    transition_ms: Option<u32>,
    watermark: Option<Watermark>,
}

/// Exactly one of `stream`, `picture` and `canvas` says what it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SceneInput)]
struct Input {
    id: Option<String>,
    stream: Option<String>,
    kind: Option<Tracks>,
    picture: Option<Picture>,
    /// A plain colour.
    canvas: Option<String>,
    #[schema(minimum = 1, maximum = 16)]
    layer: Option<u32>,
    x: Option<Length>,
    y: Option<Length>,
    width: Option<Length>,
    height: Option<Length>,
    crop: Option<Crop>,
    fit: Option<Fit>,
    #[schema(minimum = 0, maximum = 1)]
    opacity: Option<f64>,
    radius: Option<Length>,
    border: Option<Border>,
    hidden: Option<bool>,
    name: Option<Name>,
    mute: Option<bool>,
    /// Factor on the amplitude.
    #[schema(minimum = 0, maximum = 4)]
    gain: Option<f64>,
}

/// Pixels, or a share like "37.5%".
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = SceneLength)]
enum Length {
    Pixels(f64),
    Share(String),
}

/// By its word or by its number.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = SceneTemplate)]
enum Template {
    Word(String),
    Number(u32),
}

#[derive(Deserialize, ToSchema)]
#[schema(as = SceneTracks)]
enum Tracks {
    #[serde(rename = "audio+video")]
    Both,
    #[serde(rename = "audio")]
    Audio,
    #[serde(rename = "video")]
    Video,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SceneFit)]
enum Fit {
    Letterbox,
    Crop,
    Stretch,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SceneCrop)]
struct Crop {
    x: Option<Length>,
    y: Option<Length>,
    width: Length,
    height: Length,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SceneBorder)]
struct Border {
    #[schema(maximum = 50)]
    width: u32,
    color: Option<String>,
}

/// A still picture: an id of the configuration's, or an address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ScenePicture)]
struct Picture {
    file: Option<String>,
    url: Option<String>,
}

/// A name tag.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SceneName)]
struct Name {
    text: String,
    position: Option<Position>,
    size: Option<Length>,
    color: Option<String>,
    background: Option<String>,
    #[schema(minimum = 0, maximum = 1)]
    background_opacity: Option<f64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = ScenePosition)]
enum Position {
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

/// What becomes of an input's place while it is away.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SceneLoss)]
struct Loss {
    policy: Policy,
    #[schema(maximum = 900_000)]
    after_ms: Option<u32>,
    picture: Option<Picture>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SceneLossPolicy)]
enum Policy {
    Freeze,
    Hide,
    Placeholder,
}

/// A picture over everything.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SceneWatermark)]
struct Watermark {
    file: Option<String>,
    url: Option<String>,
    position: Option<Position>,
    margin: Option<Length>,
    x: Option<Length>,
    y: Option<Length>,
    width: Option<Length>,
    height: Option<Length>,
    #[schema(minimum = 0, maximum = 1)]
    opacity: Option<f64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SceneOutput)]
struct Output {
    /// An input's name: in its place; another: a new stream.
    stream: String,
    width: Option<u32>,
    height: Option<u32>,
    fps: Option<u32>,
    /// Seconds between key frames.
    gop: Option<f64>,
    video_kbps: Option<u32>,
    audio_kbps: Option<u32>,
    sample_rate: Option<u32>,
    channels: Option<u32>,
    preset: Option<String>,
    passthrough: Option<Passthrough>,
    codec_change: Option<bool>,
    mix_sei: Option<Sei>,
    pass_sei: Option<bool>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ScenePassthrough)]
enum Passthrough {
    Auto,
    Never,
}

/// `true` for the layout, a text for that text.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = SceneSei)]
enum Sei {
    Layout(bool),
    Text(String),
}

/// All mixes, and what there is room for.
#[derive(ToSchema)]
#[schema(as = Mixes)]
pub(in crate::api) struct Mixes {
    mixes: Vec<AnyMix>,
    capacity: Capacity,
}

/// In units of cost.
#[derive(ToSchema)]
#[schema(as = MixCapacity)]
struct Capacity {
    budget: u32,
    cost: u32,
    can_accept: bool,
}

/// A mix, or what was kept of one.
#[derive(ToSchema)]
#[schema(as = AnyMix)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant)]
pub(in crate::api) enum AnyMix {
    Shown(Mix),
    Kept(KeptMix),
}

/// A mix that was kept from before the server's start, and cannot be made.
#[derive(ToSchema)]
#[schema(as = KeptMix)]
pub(in crate::api) struct KeptMix {
    id: String,
    revision: i64,
    state: State,
    app: Option<String>,
    #[schema(value_type = Vec<Object>)]
    inputs: Vec<()>,
    /// It holds no name.
    #[schema(value_type = Object)]
    output: (),
    error: String,
    /// As it was asked for.
    #[schema(value_type = Object)]
    scene: (),
}

/// A mix as it stands.
#[derive(ToSchema)]
#[schema(as = Mix)]
pub(in crate::api) struct Mix {
    id: String,
    /// Counts the scenes from 1.
    revision: u64,
    state: State,
    /// What keeps the main's own stream from going out as it came.
    not_passed: Option<String>,
    in_place: bool,
    app: String,
    inputs: Vec<MixInput>,
    output: MixOutput,
    stats: Stats,
    degraded: Option<Degraded>,
    error: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = MixState)]
enum State {
    Waiting,
    Passing,
    Starting,
    Live,
    Ending,
    Failed,
}

#[derive(ToSchema)]
#[schema(as = MixInput)]
struct MixInput {
    id: String,
    kind: String,
    stream: Option<String>,
    layer: u32,
    state: String,
    x: Option<u32>,
    y: Option<u32>,
    width: Option<u32>,
    height: Option<u32>,
    gain: f32,
    error: Option<String>,
}

#[derive(ToSchema)]
#[schema(as = MixOutput)]
struct MixOutput {
    stream: String,
    width: Option<u32>,
    height: Option<u32>,
    fps: Option<u32>,
    video_kbps: Option<u32>,
    audio_kbps: u32,
}

#[derive(ToSchema)]
#[schema(as = MixStats)]
struct Stats {
    frames_out: u64,
    ticks_skipped: u64,
    restarts: u64,
    added_latency_ms: Option<Latency>,
    messages_dropped: u64,
    pictures_dropped: u64,
    sound_underruns: u64,
    sound_resyncs: u64,
}

#[derive(ToSchema)]
#[schema(as = MixLatency)]
struct Latency {
    p50: f64,
    p99: f64,
}

#[derive(ToSchema)]
#[schema(as = MixDegraded)]
struct Degraded {
    steps: usize,
    preset: String,
    half_pictures: bool,
}

/// A drawn scene.
#[derive(ToSchema)]
#[schema(as = MixPreview)]
pub(in crate::api) struct Preview {
    layout: Value,
    warnings: Vec<Warning>,
    /// The image in Base64.
    png: String,
}

#[derive(ToSchema)]
#[schema(as = MixWarning)]
struct Warning {
    path: String,
    kind: String,
    message: String,
}

/// How a preview is asked for.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Wish {
    /// Show the newest pictures of streams that running mixes decode: `true` or `1`, `false` or `0`.
    #[param(pattern = "^(true|false|1|0)$")]
    live: Option<String>,
    /// As what it comes; left out, the `Accept` header says.
    #[param(inline)]
    format: Option<Form>,
    /// Of the image in pixels.
    #[param(minimum = 16, maximum = 3000)]
    width: Option<u32>,
}
