//! The description against the router, the documents and the mixer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_description_in_the_documents_is_the_one_that_is_served() {
    let path = root().join("docs/api/openapi.json");
    if std::env::var_os("LINKMIC_WRITE_DOCS").is_some() {
        std::fs::write(&path, TEXT.as_str()).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == *TEXT,
        "docs/api/openapi.json is stale; LINKMIC_WRITE_DOCS=1 cargo test --lib api::describe writes it"
    );
}

#[test]
fn every_path_of_the_router_is_described_and_no_other() {
    let sources = [
        "src/api/mod.rs",
        "src/api/health.rs",
        "src/api/describe/mod.rs",
    ];
    let mut served = BTreeSet::new();
    for source in sources {
        let text = std::fs::read_to_string(root().join(source)).unwrap();
        // `.route("…", …)`, on one line or two.
        for rest in text.split(".route(").skip(1) {
            let path = rest.trim_start().strip_prefix('"').unwrap();
            served.insert(path.split('"').next().unwrap().to_owned());
        }
    }
    assert!(served.len() > 10, "{served:?}");
    let described: BTreeSet<_> = entries(&whole()["paths"]).keys().cloned().collect();
    assert_eq!(served, described);
}

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

#[test]
fn every_schema_that_is_named_is_there_and_every_operation_says_what_it_does() {
    let whole = whole();
    let text = whole.to_string();
    for rest in text.split("#/components/schemas/").skip(1) {
        let name = rest.split('"').next().unwrap();
        assert!(whole["components"]["schemas"][name].is_object(), "{name}");
    }
    let mut ids = BTreeSet::new();
    for (path, item) in entries(&whole["paths"]) {
        for (method, operation) in entries(&item) {
            let what = format!("{method} {path}");
            let summary = operation["summary"].as_str();
            assert!(summary.is_some_and(|summary| !summary.is_empty()), "{what}");
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(ids.insert(id), "{what}: its operationId is taken");
            for (status, response) in entries(&operation["responses"]) {
                assert!(response["content"].is_object(), "{what}: {status}");
            }
        }
    }
}

/// The fields of an object in the mixer's request are those that the description has.
#[cfg(feature = "mixer")]
#[test]
fn a_scene_is_described_with_the_fields_that_the_mixer_takes() {
    let schemas = &whole()["components"]["schemas"];
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
