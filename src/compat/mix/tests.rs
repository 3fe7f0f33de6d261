//! Mixing against the documents, paragraph by paragraph. Numbers of sections are those of the table in docs/compat.md.

mod codes;
mod lifecycle;
mod properties;
mod scenes;
mod transport;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::legacy::{self, Call};
use super::*;
use crate::compat::account::{Account, Picture};

const OUTPUT: &str = "8888_a";

fn account() -> Account {
    Account {
        appid: 1_251_000_001,
        api_key: None,
        credentials: None,
        app: "live".into(),
        stream_prefix: "8888_".into(),
        callback: None,
    }
}

fn pictures() -> BTreeMap<u32, Picture> {
    BTreeMap::from([
        (10, Picture::File("/etc/linkmic/logo.png".into())),
        (11, Picture::Url("https://cdn.example/frame.png".into())),
    ])
}

/// `8888_a` of 540×960, `8888_b` to `8888_p` of 320×480, and some that are not quite there.
fn facts() -> Facts {
    let stream = |begun, size| Stream { begun, size };
    let mut facts = Facts::default();
    facts
        .streams
        .insert(OUTPUT.into(), stream(true, Some((540, 960))));
    for letter in 'b'..='p' {
        let name = format!("8888_{letter}");
        facts.streams.insert(name, stream(true, Some((320, 480))));
    }
    for (name, begun, size) in [
        ("8888_wide", true, Some((1280, 720))),
        ("8888_odd", true, Some((361, 641))),
        ("8888_early", false, None),
        ("8888_unknown", true, None),
        ("9999_foreign", true, Some((320, 480))),
    ] {
        facts.streams.insert(name.into(), stream(begun, size));
    }
    facts
}

fn mix(id: &str, output: &str) -> Mix {
    Mix {
        id: id.into(),
        output: output.into(),
        streams: Vec::new(),
        ending: false,
    }
}

/// One input of a body.
fn input(id: &str, layer: i64, more: Value) -> Value {
    let mut input = json!({"input_stream_id": id, "layout_params": {"image_layer": layer}});
    for (key, value) in more.as_object().unwrap() {
        if key == "crop_params" {
            input[key] = value.clone();
        } else {
            input["layout_params"][key] = value.clone();
        }
    }
    input
}

/// A start of `8888_a` with these inputs, and with `more` in `para`; null there takes a field away.
fn body(inputs: Vec<Value>, more: Value) -> Value {
    let mut body = json!({
        "timestamp": 1490079362,
        "eventId": 1490079362,
        "interface": {
            "interfaceName": "Mix_StreamV2",
            "para": {
                "app_id": 1251000001,
                "interface": "mix_streamv2.start_mix_stream_advanced",
                "mix_stream_session_id": "room_1",
                "output_stream_id": OUTPUT,
                "input_stream_list": inputs,
            },
        },
    });
    let para = body["interface"]["para"].as_object_mut().unwrap();
    for (key, value) in more.as_object().unwrap() {
        if value.is_null() {
            para.remove(key);
        } else {
            para.insert(key.clone(), value.clone());
        }
    }
    body
}

/// Main and one sub.
fn pair() -> Vec<Value> {
    vec![
        input(OUTPUT, 1, json!({})),
        input(
            "8888_b",
            2,
            json!({"location_x": 380, "location_y": 630, "image_width": 160, "image_height": 240}),
        ),
    ]
}

fn judge_with(body: &Value, facts: &Facts) -> Result<Plan, Refusal> {
    match legacy::read(body.to_string().as_bytes()).1? {
        Call::Start(ask) => start(&account(), &pictures(), &ask, facts),
        Call::Cancel { session, output } => {
            let id = cancel(&account(), &session, output.as_deref(), facts)?;
            Ok(Plan::Stop { id })
        }
    }
}

fn judge(body: &Value) -> Result<Plan, Refusal> {
    judge_with(body, &facts())
}

/// The scene that a body asks for.
fn scene(inputs: Vec<Value>, more: Value) -> Value {
    match judge(&body(inputs, more)) {
        Ok(Plan::Mix { scene, .. }) => scene,
        other => panic!("{other:?}"),
    }
}

fn code(inputs: Vec<Value>, more: Value) -> i64 {
    match judge(&body(inputs, more)) {
        Ok(plan) => panic!("{plan:?}"),
        Err(refusal) => refusal.code.number(),
    }
}
