//! What a scene can say and the engine cannot do yet.
//!
//! One place, so that nothing asked for is silently left out: a line goes when the engine has learnt what it refuses.

use super::scene::{Draft, Invalid};

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
    let output = &scene.output;
    for (path, asked, what) in [(
        "output.pass_sei",
        output.pass_sei,
        "SEI messages of the main",
    )] {
        if asked {
            return refuse(path.into(), what);
        }
    }
    Ok(())
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
        let output = json!({"pass_sei": true});
        let error = verdict(json!({"stream": "b"}), output, json!({})).unwrap_err();
        assert_eq!(error.path, "output.pass_sei", "{error}");
        assert!(error.message.ends_with(": not supported yet"), "{error}");
    }

    #[test]
    fn what_it_can_do_passes() {
        let sub = json!({"stream": "b", "kind": "video", "hidden": true, "opacity": 0.5, "x": 10,
            "crop": {"width": 10, "height": 10}, "fit": "crop", "radius": 5, "border": {"width": 2},
            "name": {"text": "Ann"}});
        let output = json!({"gop": 1, "preset": "veryfast", "sample_rate": 44100, "channels": 1,
            "passthrough": "never"});
        let more = json!({"template": 20, "background": "#ff0000", "on_loss": {"policy": "hide"},
                "transition_ms": 300});
        assert_eq!(verdict(sub, output, more), Ok(()));
    }
}
