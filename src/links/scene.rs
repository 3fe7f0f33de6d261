//! What the viewers of a link's main are to see, as a native scene, and what its anchors' encoders are best set to.

use serde::Serialize;
use serde_json::{Value, json};

use super::link::{Layout, Link};

/// Two portrait pictures of the contract's PK encoders side by side.
const PK: (u32, u32) = (720, 640);

/// The scene of the main with these subs, in place of the main's own program.
pub fn scene(link: &Link, subs: &[&str]) -> Value {
    let fit = match link.wish.layout {
        Layout::Linkmic => "letterbox",
        Layout::Pk => "crop",
    };
    let main = std::iter::once(link.wish.main.as_str());
    let inputs = main.chain(subs.iter().copied()).zip(1..);
    let inputs: Vec<_> = inputs
        .map(|(stream, layer)| json!({"stream": stream, "layer": layer, "fit": fit}))
        .collect();
    let mut scene = json!({
        "app": link.wish.app,
        "inputs": inputs,
        "output": {"stream": link.wish.main},
    });
    match link.wish.layout {
        Layout::Linkmic => scene["template"] = "linkmic".into(),
        Layout::Pk => {
            scene["template"] = "side-by-side".into();
            let (width, height) = PK;
            scene["output"]["width"] = width.into();
            scene["output"]["height"] = height.into();
        }
    }
    scene
}

/// What an anchor's encoder is best set to: the official clients' presets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = LinkEncoder)]
pub struct Encoder {
    /// The official clients' name for it.
    #[schema(value_type = String)]
    pub preset: &'static str,
    pub width: u32,
    pub height: u32,
    pub fps: u32,
    /// Equal where the rate is fixed.
    pub video_kbps_min: u32,
    pub video_kbps_max: u32,
    /// Between key frames.
    pub gop_seconds: u32,
    pub audio_sample_rate: u32,
    pub audio_channels: u32,
    pub echo_cancellation: bool,
}

const MAIN: Encoder = Encoder {
    preset: "linkmic_main_publisher",
    width: 540,
    height: 960,
    fps: 20,
    video_kbps_min: 600,
    video_kbps_max: 1_500,
    gop_seconds: 3,
    audio_sample_rate: 48_000,
    audio_channels: 1,
    echo_cancellation: true,
};
const SUB: Encoder = Encoder {
    preset: "linkmic_sub_publisher",
    width: 320,
    height: 480,
    video_kbps_min: 350,
    video_kbps_max: 350,
    ..MAIN
};
/// Both sides of a PK are mains at home.
const RIVAL: Encoder = Encoder {
    width: 360,
    height: 640,
    video_kbps_min: 800,
    video_kbps_max: 800,
    ..MAIN
};

/// For the main, or a sub.
pub fn encoder(layout: Layout, is_main: bool) -> Encoder {
    match (layout, is_main) {
        (Layout::Pk, _) => RIVAL,
        (Layout::Linkmic, true) => MAIN,
        (Layout::Linkmic, false) => SUB,
    }
}
