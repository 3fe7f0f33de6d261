//! The description against itself and the mixer; the server holds the whole of it against the routers and the documents.

use std::collections::BTreeMap;
#[cfg(feature = "mixer")]
use std::collections::BTreeSet;

use super::*;

#[test]
fn two_files_never_give_one_name_to_two_schemas() {
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    for part in PARTS {
        let part = serde_json::to_value(part()).unwrap();
        for (name, schema) in entries(&part["components"]["schemas"]) {
            if let Some(other) = seen.get(&name) {
                assert_eq!(*other, schema, "{name}");
            }
            seen.insert(name, schema);
        }
    }
}

/// The fields of an object in the mixer's request are those that the description has.
#[cfg(feature = "mixer")]
#[test]
fn a_scene_is_described_with_the_fields_that_the_mixer_takes() {
    let schemas = &whole(&[])["components"]["schemas"];
    let unknown = |nested: Value| {
        let mut scene = json!({"app": "live", "inputs": [], "output": {"stream": "a"}});
        scene
            .as_object_mut()
            .unwrap()
            .extend(nested.as_object().unwrap().clone());
        let read = serde_json::from_value::<crate::mixer::MixRequest>(scene);
        let message = read.expect_err("an unknown field").to_string();
        // unknown field `zzz`, expected one of `a`, `b`
        let known = message.split_once("expected").expect(&message).1;
        let names = known.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let wrong = json!({"zzz": 1});
    for (schema, nested) in [
        ("Scene", wrong.clone()),
        ("SceneInput", json!({"inputs": [wrong]})),
        ("SceneCrop", json!({"inputs": [{"crop": wrong}]})),
        ("SceneBorder", json!({"inputs": [{"border": wrong}]})),
        ("ScenePicture", json!({"inputs": [{"picture": wrong}]})),
        ("SceneName", json!({"inputs": [{"name": wrong}]})),
        ("SceneLoss", json!({"on_loss": wrong})),
        ("SceneWatermark", json!({"watermark": wrong})),
        ("SceneOutput", json!({"output": wrong})),
    ] {
        let described = entries(&schemas[schema]["properties"]);
        let described: BTreeSet<_> = described.keys().cloned().collect();
        assert_eq!(described, unknown(nested), "{schema}");
    }
}
