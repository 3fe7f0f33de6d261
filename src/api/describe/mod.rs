//! The API in OpenAPI 3.1, for programs that make clients and tests of it.
//!
//! Each file of endpoints describes its own: `#[utoipa::path]` on its handlers, `ToSchema` on its bodies, and a
//! `Description` that lists the handlers. [`PARTS`] has these files. What holds everywhere is added here, so that nobody
//! has to write it again: who may call, which errors any endpoint answers with, what an error looks like, and that answers
//! leave no field out. Rooms whose paths stand beside ours give theirs to the server, which puts the text together; docs/api/openapi.json is it.

pub(super) mod mixes;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderName, header};
use axum::routing;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::{OpenApi, ToSchema};

use super::{
    bans, captures, dead, diagnose, error, events, health, history, keys, latency, pushes, readers,
    snapshot, streams, urls,
};

/// The files that describe endpoints. Names of schemas are unique over all of them.
const PARTS: [fn() -> utoipa::openapi::OpenApi; 17] = [
    streams::Description::openapi,
    readers::Description::openapi,
    diagnose::Description::openapi,
    latency::Description::openapi,
    snapshot::Description::openapi,
    history::Description::openapi,
    captures::Description::openapi,
    super::mixes::Description::openapi,
    pushes::Description::openapi,
    urls::Description::openapi,
    bans::Description::openapi,
    keys::Description::openapi,
    events::Description::openapi,
    dead::Description::openapi,
    health::Description::openapi,
    super::operate::Description::openapi,
    Description::openapi,
];

/// Every answer that is not what was asked for.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
#[allow(dead_code)] // only described
struct Problem {
    /// Stable, for programs.
    #[schema(example = "invalid")]
    code: String,
    /// For people.
    #[schema(example = "inputs[1].gain: 5 is outside 0 to 4")]
    message: String,
}

#[derive(OpenApi)]
#[openapi(paths(get), components(schemas(Problem)))]
struct Description;

/// What is served and kept in docs/api; `beside` are the descriptions of other rooms' paths.
pub fn text(beside: &[utoipa::openapi::OpenApi]) -> String {
    let text = serde_json::to_string_pretty(&whole(beside));
    // Maps with texts for keys are always JSON.
    text.unwrap_or_default() + "\n"
}

/// Where it is served, to whom it may concern.
pub(super) fn router<S: Clone + Send + Sync + 'static>(text: String) -> Router<S> {
    let text = Bytes::from(text);
    Router::new()
        .route("/api/v1/openapi.json", routing::get(|| get(text)))
        .method_not_allowed_fallback(error::method_not_allowed)
}

/// This description.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "health", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
async fn get(text: Bytes) -> ([(HeaderName, &'static str); 1], Bytes) {
    ([(header::CONTENT_TYPE, "application/json")], text)
}

pub(super) fn whole(beside: &[utoipa::openapi::OpenApi]) -> Value {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    let own = PARTS.map(|part| part());
    for part in own.iter().chain(beside) {
        let part = serde_json::to_value(part).unwrap_or_default();
        paths.extend(entries(&part["paths"]));
        schemas.extend(entries(&part["components"]["schemas"]));
    }
    for item in paths.values_mut() {
        let operations = item.as_object_mut().into_iter().flat_map(Map::values_mut);
        operations.for_each(complete);
    }
    schemas.values_mut().for_each(leave_nothing_out);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "linkmic control API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Streams, mixes, links, pushes, bans, keys, URLs and events of one server. docs/api.md tells it for people.",
            "license": {"name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE")},
        },
        "servers": [{"url": "/", "description": "the [control] listener"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn entries(object: &Value) -> Map<String, Value> {
    object.as_object().cloned().unwrap_or_default()
}

/// Adds what an operation need not say itself.
fn complete(operation: &mut Value) {
    let has = |field: &str| operation.get(field).is_some();
    let mut common: Vec<(&str, &str)> = Vec::new();
    if has("parameters") || has("requestBody") {
        common.push((
            "400",
            "the request is wrong; the message begins with the field",
        ));
    }
    if !has("security") {
        common.push(("401", "no token, or another"));
        common.push(("403", "not from this address"));
    }
    if has("requestBody") {
        common.push(("413", "the body is over 256 KiB"));
    }
    let Some(Value::Object(responses)) = operation.get_mut("responses") else {
        return;
    };
    for (status, description) in common {
        let response = json!({"description": description});
        responses.entry(status).or_insert(response);
    }
    for (status, response) in responses {
        if status.as_str() >= "400" && response.get("content").is_none() {
            let schema = json!({"$ref": "#/components/schemas/Error"});
            response["content"] = json!({"application/json": {"schema": schema}});
        }
    }
}

/// Answers have all of their fields. Schemas of requests are known by refusing fields that they don't have.
fn leave_nothing_out(schema: &mut Value) {
    if schema.get("additionalProperties").is_none()
        && let Some(Value::Object(properties)) = schema.get("properties")
    {
        schema["required"] = properties.keys().cloned().collect();
    }
    let parts = schema.get_mut("allOf").and_then(Value::as_array_mut);
    parts.into_iter().flatten().for_each(leave_nothing_out);
}
