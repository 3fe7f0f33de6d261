//! Pass-through: may the main's stream go out as it came, because there is nothing to mix? The decision, pure.
//!
//! The rule is semantics.md's: only when the inputs present are exactly the main, on the full frame, with gain 1, nothing
//! over it, and with output fields that are absent or equal to the main's. Called by a mix's
//! [`session`](super::session), which acts on it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::format::AudioFormat;
use super::layout::{self, Content, Fact, Known, Presence, Rect, Size};
use super::scene::{MixSei, Passthrough, Scene, Source, Tracks};

/// What is known of the main's stream without decoding it.
#[derive(Debug, Clone, Default)]
pub(super) struct Main {
    /// Of its pictures; `None`: not known yet, or its pixels are not square.
    pub size: Option<Size>,
    pub fps: Option<u32>,
    /// `None`: not known yet, or there is no sound.
    pub audio: Option<AudioFormat>,
    /// In a codec that the mix would not give, by name.
    pub foreign: Option<String>,
}

/// What keeps the main's stream from going out as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The request forbids it.
    Never,
    /// An input besides the main is there.
    Company(Arc<str>),
    /// Something of the scene changes the main's picture or sound, or lies over it.
    Scene(&'static str),
    /// This field of the output is not as the main has it, or cannot be compared.
    Output(&'static str),
    /// The main is in a codec that the mix would not give.
    Foreign(String),
    /// Of the main this is not known yet.
    Unknown(&'static str),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Never => f.write_str("output.passthrough is \"never\""),
            Obstacle::Company(id) => write!(f, "{id} is present"),
            Obstacle::Scene(what) => f.write_str(what),
            Obstacle::Output(field) => write!(f, "output.{field} is not the main's"),
            Obstacle::Foreign(codec) => write!(f, "the main is in {codec}"),
            Obstacle::Unknown(what) => write!(f, "the main's {what} is not known"),
        }
    }
}

/// What keeps the main from passing; `None`: nothing. `present` says of each input, in the scene's order, whether
/// something of it is to be seen or heard; of the main it does not count. `main` is `None` until the main has come: then
/// only the scene counts.
pub(super) fn obstacle(scene: &Scene, present: &[bool], main: Option<&Main>) -> Option<Obstacle> {
    if scene.output.passthrough == Passthrough::Never {
        return Some(Obstacle::Never);
    }
    let mut others = scene.inputs.iter().zip(present).enumerate();
    if let Some((_, (input, _))) =
        others.find(|(index, (_, present))| *index != scene.lead && **present)
    {
        return Some(Obstacle::Company(input.id.clone()));
    }
    let (lead, output) = (scene.inputs.get(scene.lead)?, &scene.output);
    let both = |source: &Source| {
        matches!(
            source,
            Source::Stream {
                tracks: Tracks::Both,
                ..
            }
        )
    };
    for (in_the_way, what) in [
        (!both(&lead.source), "only a part of the main is taken"),
        (lead.loudness() != 1.0, "the main's gain is not 1"),
        (lead.hidden, "the main is hidden"),
        (lead.name.is_some(), "a name lies over the main"),
        (lead.border.is_some(), "the main has a border"),
        (lead.opacity < 1.0, "the main is not opaque"),
        (scene.watermark.is_some(), "a watermark lies over the main"),
    ] {
        if in_the_way {
            return Some(Obstacle::Scene(what));
        }
    }
    for (asked, field) in [
        (output.mix_sei != MixSei::Nothing, "mix_sei"),
        (output.gop.is_some(), "gop"),
        (output.video_kbps.is_some(), "video_kbps"),
        (output.audio_kbps.is_some(), "audio_kbps"),
        (output.preset.is_some(), "preset"),
    ] {
        if asked {
            return Some(Obstacle::Output(field));
        }
    }
    let main = main?;
    if let Some(codec) = &main.foreign {
        return Some(Obstacle::Foreign(codec.clone()));
    }
    let Some(size) = main.size else {
        return Some(Obstacle::Unknown("size"));
    };
    if scene.canvas().is_some_and(|canvas| canvas != size) {
        return Some(Obstacle::Output("width"));
    }
    if !fills_the_frame(scene, size) {
        return Some(Obstacle::Scene("the main does not fill the frame"));
    }
    let audio = main.audio;
    for (field, what, asked, own) in [
        ("fps", "frame rate", output.fps, main.fps),
        (
            "sample_rate",
            "sound",
            output.sample_rate,
            audio.map(|a| a.rate),
        ),
        (
            "channels",
            "sound",
            output.channels,
            audio.map(|a| a.channels),
        ),
    ] {
        match (asked, own) {
            (Some(_), None) => return Some(Obstacle::Unknown(what)),
            (Some(asked), Some(own)) if asked != own => return Some(Obstacle::Output(field)),
            _ => {}
        }
    }
    None
}

/// Is the main's whole picture the whole of the canvas, when nobody else is there?
fn fills_the_frame(scene: &Scene, size: Size) -> bool {
    // 4:2:0 has no odd sides: a canvas that takes its size from the main leaves out a column or row.
    let canvas = Size::even(size.width.into(), size.height.into());
    let fact = |index: usize| Fact {
        size: (index == scene.lead).then_some(canvas),
        presence: match index == scene.lead {
            true => Presence::Present,
            false => Presence::Awaited,
        },
    };
    let known = Known {
        inputs: (0..scene.inputs.len()).map(fact).collect(),
        ..Known::default()
    };
    let layout = layout::resolve(scene, canvas, &known);
    let cell = layout.cells.get(scene.lead);
    let view = cell.and_then(|cell| cell.view.as_ref());
    view.is_some_and(|view| {
        let whole = Rect::from(canvas);
        let all = view.source.is_none_or(|part| part == whole);
        let square = view.radius == 0 && view.content == Content::Input;
        view.rect == whole && view.picture == whole && all && square
    })
}

/// How long there has been nothing to mix, so that a mix does not come and go with every pause.
#[derive(Debug, Default)]
pub(super) struct Calm {
    since: Option<Instant>,
}

impl Calm {
    /// Takes note of whether anything is in the way now; has nothing been for `long`?
    pub fn has_lasted(&mut self, long: Duration, in_the_way: bool, now: Instant) -> bool {
        if in_the_way {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) >= long
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::mixer::scene::MixRequest;

    const MAIN: Size = Size {
        width: 540,
        height: 960,
    };

    fn main() -> Main {
        Main {
            size: Some(MAIN),
            fps: Some(20),
            audio: Some(AudioFormat {
                rate: 48_000,
                channels: 1,
            }),
            foreign: None,
        }
    }

    /// Main and one sub, with fields of the main, of the output and of the whole changed.
    fn scene(lead: Value, output: Value, more: Value) -> Scene {
        let mut request = json!({"app": "live",
            "inputs": [{"stream": "a", "layer": 1}, {"stream": "b", "layer": 2}],
            "output": {"stream": "a"}});
        for (into, from) in [("/inputs/0", lead), ("/output", output), ("", more)] {
            let into = request.pointer_mut(into).unwrap().as_object_mut().unwrap();
            into.extend(from.as_object().unwrap().clone());
        }
        let request: MixRequest = serde_json::from_value(request).unwrap();
        Scene::new(&request).unwrap()
    }

    fn verdict(lead: Value, output: Value, more: Value) -> Option<Obstacle> {
        obstacle(&scene(lead, output, more), &[true, false], Some(&main()))
    }

    #[test]
    fn only_the_main_alone_as_it_came_passes() {
        use Obstacle::{Never, Output, Scene, Unknown};
        let n = || json!({});
        let picture = json!({"file": "logo"});
        let gain = Scene("the main's gain is not 1");
        let frame = Scene("the main does not fill the frame");
        // Name, fields of the main, of the output, of the whole; what is in the way.
        let table = [
            ("nothing asked", n(), n(), n(), None),
            (
                "grid of those present",
                n(),
                n(),
                json!({"template": "grid", "on_loss": {"policy": "hide"}}),
                None,
            ),
            (
                "grid with places kept",
                n(),
                n(),
                json!({"template": "grid"}),
                Some(frame.clone()),
            ),
            (
                "never",
                n(),
                json!({"passthrough": "never"}),
                n(),
                Some(Never),
            ),
            ("auto", n(), json!({"passthrough": "auto"}), n(), None),
            ("louder", json!({"gain": 1.5}), n(), n(), Some(gain.clone())),
            ("muted", json!({"mute": true}), n(), n(), Some(gain)),
            (
                "pictures alone",
                json!({"kind": "video"}),
                n(),
                n(),
                Some(Scene("only a part of the main is taken")),
            ),
            (
                "hidden",
                json!({"hidden": true}),
                n(),
                n(),
                Some(Scene("the main is hidden")),
            ),
            (
                "with a name",
                json!({"name": {"text": "A"}}),
                n(),
                n(),
                Some(Scene("a name lies over the main")),
            ),
            (
                "with a border",
                json!({"border": {"width": 2}}),
                n(),
                n(),
                Some(Scene("the main has a border")),
            ),
            (
                "shining through",
                json!({"opacity": 0.5}),
                n(),
                n(),
                Some(Scene("the main is not opaque")),
            ),
            (
                "round corners",
                json!({"radius": 20}),
                n(),
                n(),
                Some(frame.clone()),
            ),
            (
                "watermark",
                n(),
                n(),
                json!({"watermark": picture}),
                Some(Scene("a watermark lies over the main")),
            ),
            (
                "cropped",
                json!({"crop": {"width": "50%", "height": "50%"}}),
                n(),
                n(),
                Some(frame.clone()),
            ),
            (
                "a part of the frame",
                json!({"width": "50%", "height": "50%"}),
                n(),
                n(),
                Some(frame.clone()),
            ),
            (
                "all of it, said so",
                json!({"width": "100%", "height": "100%"}),
                n(),
                n(),
                None,
            ),
            (
                "all of it in pixels",
                json!({"width": 540, "height": 960}),
                n(),
                n(),
                None,
            ),
            (
                "the main's size",
                n(),
                json!({"width": 540, "height": 960}),
                n(),
                None,
            ),
            (
                "another size",
                n(),
                json!({"width": 720, "height": 1280}),
                n(),
                Some(Output("width")),
            ),
            ("the main's rate", n(), json!({"fps": 20}), n(), None),
            (
                "another rate",
                n(),
                json!({"fps": 25}),
                n(),
                Some(Output("fps")),
            ),
            (
                "the main's sound",
                n(),
                json!({"sample_rate": 48_000, "channels": 1}),
                n(),
                None,
            ),
            (
                "another sample rate",
                n(),
                json!({"sample_rate": 44_100}),
                n(),
                Some(Output("sample_rate")),
            ),
            (
                "another number of channels",
                n(),
                json!({"channels": 2}),
                n(),
                Some(Output("channels")),
            ),
            (
                "a bitrate",
                n(),
                json!({"video_kbps": 800}),
                n(),
                Some(Output("video_kbps")),
            ),
            (
                "a bitrate of sound",
                n(),
                json!({"audio_kbps": 64}),
                n(),
                Some(Output("audio_kbps")),
            ),
            (
                "a distance of key frames",
                n(),
                json!({"gop": 2}),
                n(),
                Some(Output("gop")),
            ),
            (
                "a preset",
                n(),
                json!({"preset": "fast"}),
                n(),
                Some(Output("preset")),
            ),
            (
                "a message",
                n(),
                json!({"mix_sei": true}),
                n(),
                Some(Output("mix_sei")),
            ),
            (
                "the main's messages, which are there",
                n(),
                json!({"pass_sei": true}),
                n(),
                None,
            ),
        ];
        for (name, lead, output, more, wanted) in table {
            assert_eq!(verdict(lead, output, more), wanted, "{name}");
        }
        let scene = scene(n(), n(), n());
        for (present, wanted) in [
            ([true, false], None),
            ([false, false], None),
            ([true, true], Some(Obstacle::Company("b".into()))),
            ([false, true], Some(Obstacle::Company("b".into()))),
        ] {
            assert_eq!(
                obstacle(&scene, &present, Some(&main())),
                wanted,
                "{present:?}"
            );
        }
        assert_eq!(obstacle(&scene, &[false, false], None), None);
        let unknown = Main::default();
        let found = obstacle(&scene, &[true, false], Some(&unknown));
        assert_eq!(found, Some(Unknown("size")));
        let foreign = Main {
            foreign: Some("H265".into()),
            ..main()
        };
        let found = obstacle(&scene, &[true, false], Some(&foreign));
        assert_eq!(found, Some(Obstacle::Foreign("H265".into())));
    }

    #[test]
    fn an_input_that_is_always_there_is_company() {
        let mut request = json!({"app": "live", "output": {"stream": "a"}, "inputs": [
            {"canvas": "#000000", "layer": 1}, {"stream": "a", "layer": 2, "width": "100%", "height": "100%"}]});
        let company = |request: &Value| {
            let request: MixRequest = serde_json::from_value(request.clone()).unwrap();
            let scene = Scene::new(&request).unwrap();
            obstacle(&scene, &[true, true], Some(&main()))
        };
        assert_eq!(
            company(&request),
            Some(Obstacle::Company("canvas-1".into()))
        );
        request["inputs"].as_array_mut().unwrap().remove(0);
        assert_eq!(company(&request), None);
    }

    #[test]
    fn calm_has_to_last_without_a_break() {
        let long = Duration::from_secs(10);
        let start = Instant::now();
        let mut calm = Calm::default();
        for (second, in_the_way, wanted) in [
            (0, true, false),
            (1, false, false),
            (10, false, false),
            (11, false, true),
            (12, true, false),
            (13, false, false),
            (22, false, false),
            (23, false, true),
        ] {
            let now = start + Duration::from_secs(second);
            let lasted = calm.has_lasted(long, in_the_way, now);
            assert_eq!(lasted, wanted, "second {second}");
        }
    }
}
