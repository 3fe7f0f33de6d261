//! What a scene can say and the engine cannot do yet.
//!
//! One place, so that nothing asked for is silently left out: a line goes when the engine has learnt what it refuses.

use super::program::PADS;
use super::scene::{
    Colour, Draft, Fit, Invalid, MixSei, OnLoss, Passthrough, SceneInput, Source, Tracks,
};

/// Refuses a scene that the engine would not show as it is meant.
///
/// # Errors
/// The field, and that it is not supported yet.
pub(super) fn unsupported(draft: &Draft) -> Result<(), Invalid> {
    let scene = &draft.scene;
    let refuse = |path: String, what: &str| {
        Err(Invalid {
            path,
            message: format!("{what}: not supported yet"),
        })
    };
    if scene.inputs.len() > PADS {
        let count = scene.inputs.len();
        return refuse(
            "inputs".into(),
            &format!("{count} inputs, over the {PADS} that are mixed"),
        );
    }
    for (input, index) in scene.inputs.iter().zip(&draft.order) {
        if let Some((field, what)) = of(input) {
            return refuse(format!("inputs[{index}].{field}"), what);
        }
    }
    let output = &scene.output;
    for (path, asked, what) in [
        (
            "background",
            scene.background != Colour::BLACK,
            "a canvas of another colour than black",
        ),
        (
            "on_loss.policy",
            scene.on_loss != OnLoss::Freeze,
            "another policy than freeze",
        ),
        (
            "transition_ms",
            !scene.transition.is_zero(),
            "a move over time",
        ),
        ("watermark", scene.watermark.is_some(), "a watermark"),
        (
            "output.passthrough",
            output.passthrough != Passthrough::Auto,
            "forbidding pass-through, which is not there either",
        ),
        (
            "output.mix_sei",
            output.mix_sei != MixSei::Nothing,
            "the layout in SEI",
        ),
        (
            "output.pass_sei",
            output.pass_sei,
            "SEI messages of the main",
        ),
    ] {
        if asked {
            return refuse(path.into(), what);
        }
    }
    Ok(())
}

fn of(input: &SceneInput) -> Option<(&'static str, &'static str)> {
    let tracks = match &input.source {
        Source::Picture(_) => return Some(("picture", "a still picture")),
        Source::Colour(_) => return Some(("canvas", "a canvas as input")),
        Source::Stream { tracks, .. } => *tracks,
    };
    [
        (
            "kind",
            tracks != Tracks::Both,
            "a stream's sound or picture alone",
        ),
        ("crop", input.crop.is_some(), "cropping"),
        (
            "fit",
            input.fit != Fit::Letterbox,
            "another fit than letterbox",
        ),
        ("opacity", input.opacity < 1.0, "opacity under 1"),
        ("radius", input.radius.is_some(), "rounded corners"),
        ("border", input.border.is_some(), "a border"),
        ("name", input.name.is_some(), "a name tag"),
    ]
    .into_iter()
    .find(|&(_, asked, _)| asked)
    .map(|(field, _, what)| (field, what))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::mixer::scene::{MixRequest, Scene};

    fn verdict(sub: Value, output: Value, more: Value) -> Result<(), Invalid> {
        let mut request = json!({"app": "live",
            "inputs": [{"layer": 2}, {"stream": "a", "layer": 1}],
            "output": {"stream": "a", "width": 640, "height": 360}});
        for (into, from) in [("/inputs/0", sub), ("/output", output), ("", more)] {
            let into = request.pointer_mut(into).unwrap().as_object_mut().unwrap();
            into.extend(from.as_object().unwrap().clone());
        }
        let request: MixRequest = serde_json::from_value(request).unwrap();
        unsupported(&Scene::draft(&request).unwrap())
    }

    #[test]
    fn what_the_engine_cannot_do_is_refused_by_its_field() {
        let stream = |field: &str, value: Value| {
            let mut sub = json!({"stream": "b"});
            sub[field] = value;
            (sub, json!({}), json!({}))
        };
        let output = |field: &str, value: Value| {
            let mut output = json!({});
            output[field] = value;
            (json!({"stream": "b"}), output, json!({}))
        };
        let mix = |field: &str, value: Value| {
            let mut more = json!({});
            more[field] = value;
            (json!({"stream": "b"}), json!({}), more)
        };
        let five: Vec<_> = (1..=5)
            .map(|n| json!({"stream": format!("s{n}"), "layer": n}))
            .collect();
        for (path, (sub, output, more)) in [
            ("inputs", mix("inputs", json!(five))),
            (
                "inputs[0].canvas",
                (json!({"canvas": "#000000"}), json!({}), json!({})),
            ),
            (
                "inputs[0].picture",
                (json!({"picture": {"file": "a"}}), json!({}), json!({})),
            ),
            ("inputs[0].kind", stream("kind", json!("audio"))),
            (
                "inputs[0].crop",
                stream("crop", json!({"width": 10, "height": 10})),
            ),
            ("inputs[0].fit", stream("fit", json!("crop"))),
            ("inputs[0].opacity", stream("opacity", json!(0.5))),
            ("inputs[0].radius", stream("radius", json!(5))),
            ("inputs[0].border", stream("border", json!({"width": 2}))),
            ("inputs[0].name", stream("name", json!({"text": "Ann"}))),
            ("background", mix("background", json!("#ffffff"))),
            ("on_loss.policy", mix("on_loss", json!({"policy": "hide"}))),
            ("transition_ms", mix("transition_ms", json!(300))),
            ("watermark", mix("watermark", json!({"file": "a"}))),
            ("output.passthrough", output("passthrough", json!("never"))),
            ("output.mix_sei", output("mix_sei", json!(true))),
            ("output.pass_sei", output("pass_sei", json!(true))),
        ] {
            let error = verdict(sub, output, more).expect_err(path);
            assert_eq!(error.path, path, "{error}");
            assert!(error.message.ends_with(": not supported yet"), "{error}");
        }
    }

    #[test]
    fn what_it_can_do_passes() {
        let sub =
            json!({"stream": "b", "mute": true, "hidden": true, "gain": 2, "opacity": 1, "x": 10});
        let output = json!({"gop": 1, "preset": "veryfast", "sample_rate": 44100, "channels": 1,
            "passthrough": "auto"});
        let more =
            json!({"template": 20, "background": "#000000", "on_loss": {"policy": "freeze"}});
        assert_eq!(verdict(sub, output, more), Ok(()));
    }
}
