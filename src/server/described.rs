//! What the server puts together: the API's description against the routers and the documents.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::{api, links};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn served() -> String {
    api::describe::text(&[links::description()])
}

fn description() -> Value {
    serde_json::from_str(&served()).unwrap()
}

fn fields(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().unwrap().iter()
}

#[test]
fn the_description_in_the_documents_is_the_one_that_is_served() {
    let path = root().join("docs/api/openapi.json");
    if std::env::var_os("LINKMIC_WRITE_DOCS").is_some() {
        std::fs::write(&path, served()).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == served(),
        "docs/api/openapi.json is stale; LINKMIC_WRITE_DOCS=1 cargo test --lib server::described writes it"
    );
}

#[test]
fn every_path_of_the_routers_is_described_and_no_other() {
    let sources = [
        "src/api/mod.rs",
        "src/api/health.rs",
        "src/api/describe/mod.rs",
        "src/links/http.rs",
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
    assert!(served.len() > 20, "{served:?}");
    let description = description();
    let described: BTreeSet<_> = fields(&description["paths"])
        .map(|(path, _)| path.clone())
        .collect();
    assert_eq!(served, described);
}

#[test]
fn every_schema_that_is_named_is_there_and_every_operation_says_what_it_does() {
    let description = description();
    let text = description.to_string();
    for rest in text.split("#/components/schemas/").skip(1) {
        let name = rest.split('"').next().unwrap();
        let schema = &description["components"]["schemas"][name];
        assert!(schema.is_object(), "{name}");
    }
    let mut ids = BTreeSet::new();
    for (path, item) in fields(&description["paths"]) {
        for (method, operation) in fields(item) {
            let what = format!("{method} {path}");
            let summary = operation["summary"].as_str();
            assert!(summary.is_some_and(|summary| !summary.is_empty()), "{what}");
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(ids.insert(id), "{what}: its operationId is taken");
            for (status, response) in fields(&operation["responses"]) {
                assert!(response["content"].is_object(), "{what}: {status}");
            }
        }
    }
}
