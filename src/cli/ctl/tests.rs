//! The table of verbs against the API's own description, and arguments against the calls that they make.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Parser;
use serde_json::Value;

use super::*;

#[derive(Debug, Parser)]
struct Ctl {
    #[command(flatten)]
    options: Options,
}

fn description() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn operations(description: &Value) -> Vec<(String, &Value)> {
    let paths = description["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().unwrap().iter();
        item.map(move |(method, operation)| {
            (format!("{} {path}", method.to_uppercase()), operation)
        })
    });
    all.collect()
}

fn name_of(verb: &Verb) -> String {
    format!("{} {}", verb.method, verb.path)
}

#[test]
fn every_operation_of_the_description_has_a_verb_with_its_parameters() {
    let description = description();
    let operations = operations(&description);
    assert!(operations.len() > 30);
    for (name, operation) in &operations {
        let verbs: Vec<_> = VERBS.iter().filter(|verb| name_of(verb) == *name).collect();
        let [verb] = verbs[..] else {
            panic!(
                "{name}: {} verbs in src/cli/ctl/verbs.rs, not one",
                verbs.len()
            );
        };
        let there = |place: &str| -> BTreeSet<&str> {
            let all = operation["parameters"].as_array().into_iter().flatten();
            all.filter(|one| one["in"] == place)
                .map(|one| one["name"].as_str().unwrap())
                .collect()
        };
        let query: BTreeSet<_> = verb.query.iter().copied().collect();
        assert_eq!(query, there("query"), "{name}: its query");
        let headers: BTreeSet<_> = verb.headers.iter().copied().collect();
        assert_eq!(headers, there("header"), "{name}: its headers");
        let has_body = operation.get("requestBody").is_some();
        assert_eq!(verb.body == Body::Yes, has_body, "{name}: its body");
    }
    let described: BTreeSet<_> = operations.iter().map(|(name, _)| name.as_str()).collect();
    for verb in VERBS {
        let name = name_of(verb);
        let known = described.contains(name.as_str());
        assert!(known, "{}: there is no {name}", verb.words);
    }
}

#[test]
fn columns_are_fields_of_what_the_operation_answers() {
    let description = description();
    let operations = operations(&description);
    for verb in VERBS.iter().filter(|verb| !verb.columns.is_empty()) {
        let (_, operation) = operations
            .iter()
            .find(|(name, _)| *name == name_of(verb))
            .unwrap();
        let answer = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        let answer = resolved(&description, answer);
        let fields = answer["properties"].as_object().unwrap().values();
        let lists: Vec<_> = fields.filter(|field| field["type"] == "array").collect();
        let [list] = lists[..] else {
            panic!("{}: not one list", verb.words);
        };
        for column in verb.columns {
            let found = column.split('.').try_fold(&list["items"], |schema, name| {
                let schema = resolved(&description, schema);
                let field = &schema["properties"][name];
                (!field.is_null()).then_some(field)
            });
            assert!(found.is_some(), "{}: no field {column}", verb.words);
        }
    }
}

/// A schema behind its references; of one that may be null, the other.
fn resolved<'a>(description: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(path) = schema["$ref"].as_str() {
        let name = path.rsplit('/').next().unwrap();
        return resolved(description, &description["components"]["schemas"][name]);
    }
    let several = schema["oneOf"].as_array().or(schema["allOf"].as_array());
    let one = several
        .into_iter()
        .flatten()
        .find(|one| one["type"] != "null");
    match one {
        Some(one) => resolved(description, one),
        None => schema,
    }
}

#[test]
fn words_are_unique_and_every_group_has_verbs() {
    let words: BTreeSet<_> = VERBS.iter().map(|verb| verb.words).collect();
    assert_eq!(words.len(), VERBS.len());
    for (group, _) in GROUPS {
        assert!(
            VERBS.iter().any(|verb| verb.split().0 == Some(group)),
            "{group}"
        );
    }
    for verb in VERBS {
        if let Some(group) = verb.split().0 {
            assert!(
                GROUPS.iter().any(|(name, _)| *name == group),
                "{}",
                verb.words
            );
        }
    }
}

fn call(line: &str) -> Call {
    let words = ["linkmic"].into_iter().chain(line.split_whitespace());
    Ctl::try_parse_from(words).unwrap().options.call
}

#[test]
fn arguments_make_the_call() {
    let asked = call("readers drop live/8888_a 17").ask;
    assert_eq!(asked.method, Method::DELETE);
    assert_eq!(
        asked.path,
        ["api", "v1", "streams", "live", "8888_a", "readers", "17"]
    );
    let asked = call("hooks dead --after 3 --limit 10").ask;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(asked.query, [pair("after", "3"), pair("limit", "10")]);
    let put = call("mixes put room-1 --if-none-match * -f scene.json output.fps=30 --json");
    assert_eq!(put.ask.headers, [("If-None-Match", "*".to_owned())]);
    assert_eq!(
        (put.ask.method, put.ask.path.last().unwrap().as_str()),
        (Method::PUT, "room-1")
    );
    assert_eq!(
        (put.fields, put.file),
        (vec!["output.fps=30".to_owned()], Some("scene.json".into()))
    );
    assert_eq!(
        call("drain --deadline 30s").ask.query,
        [pair("deadline", "30s")]
    );
}

#[test]
fn a_stream_is_named_by_its_application_and_its_name() {
    for line in [
        "streams get a",
        "streams get /a",
        "streams get live/",
        "streams get a/b/c",
        "streams get",
    ] {
        let words = ["linkmic"].into_iter().chain(line.split_whitespace());
        assert!(Ctl::try_parse_from(words).is_err(), "{line}");
    }
}

#[test]
fn fields_make_a_body_of_json_and_go_over_those_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scene.json");
    std::fs::write(
        &file,
        r#"{"app": "live", "output": {"fps": 20, "width": 640}}"#,
    )
    .unwrap();
    let fields = ["output.fps=30", "name=8888_a", "deep.er=[1]", "note=7 of 9"].map(str::to_owned);
    let made = body(&fields, Some(&file)).unwrap().unwrap();
    let made: Value = serde_json::from_slice(&made).unwrap();
    let wanted = serde_json::json!({
        "app": "live", "output": {"fps": 30, "width": 640}, "name": "8888_a", "deep": {"er": [1]}, "note": "7 of 9",
    });
    assert_eq!(made, wanted);
    assert_eq!(body(&[], None).unwrap(), None);
    for wrong in ["fps", "=1", "a..b=1"] {
        assert!(body(&[wrong.to_owned()], None).is_err(), "{wrong}");
    }
    std::fs::write(&file, "{").unwrap();
    assert!(matches!(body(&[], Some(&file)), Err(Error::Json(..))));
}
