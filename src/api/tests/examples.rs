//! What docs/api shows is what the server answers: the same keys with the same types.

use std::path::Path;

use super::*;

/// An example from docs/api.
fn example(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/api")
        .join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path:?}: {e}"))
}

/// Where two values differ in shape; empty when they don't. Null stands for any type; an array is as its first item.
fn differences(at: &str, shown: &Value, real: &Value) -> Vec<String> {
    match (shown, real) {
        (Value::Null, _) | (_, Value::Null) => Vec::new(),
        (Value::Object(shown), Value::Object(real)) => {
            let mut found = Vec::new();
            for key in real.keys().filter(|key| !shown.contains_key(*key)) {
                found.push(format!("{at}.{key} is not documented"));
            }
            for (key, value) in shown {
                match real.get(key) {
                    Some(real) => found.extend(differences(&format!("{at}.{key}"), value, real)),
                    None => found.push(format!("{at}.{key} is documented and not there")),
                }
            }
            found
        }
        (Value::Array(shown), Value::Array(real)) => match (shown.first(), real.first()) {
            (Some(shown), Some(real)) => differences(&format!("{at}[0]"), shown, real),
            _ => vec![format!("{at} needs an item to compare")],
        },
        (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => Vec::new(),
        _ => vec![format!("{at} is {real}, documented is {shown}")],
    }
}

pub(crate) fn is_as_documented(name: &str, real: &Value) {
    let found = differences(name, &example(name), real);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_comparison_sees_what_is_missing_extra_or_of_another_type() {
    let shown = json!({"a": 1, "b": [{"c": "x"}], "d": null});
    assert!(differences("", &shown, &json!({"a": 2, "b": [{"c": "y"}], "d": 5})).is_empty());
    for real in [
        json!({"a": 2, "b": [{"c": "y"}]}),
        json!({"a": 2, "b": [{"c": "y"}], "d": null, "e": 1}),
        json!({"a": "2", "b": [{"c": "y"}], "d": null}),
        json!({"a": 2, "b": [{"c": 1}], "d": null}),
        json!({"a": 2, "b": [], "d": null}),
    ] {
        assert!(!differences("", &shown, &real).is_empty(), "{real}");
    }
}

#[tokio::test]
async fn streams_answer_as_documented() {
    let (house, client) = open(None).await;
    let _publisher = anchor(&house.relay);
    let listed = client.call("GET", "/api/v1/streams", "").await.json();
    is_as_documented("streams", &listed);
    let path = "/api/v1/streams/live/8888_streamA";
    let shown = client.call("GET", path, "").await.json();
    is_as_documented("stream", &shown);
    assert_eq!(shown["publisher"]["video"]["codec"], "h264");
    let deleted = client.call("DELETE", path, "").await.json();
    is_as_documented("stream_delete", &deleted);
}

#[tokio::test]
async fn pushes_answer_as_documented() {
    let (house, client) = open(None).await;
    let _publisher = anchor(&house.relay);
    let path = "/api/v1/pushes/cdn-a";
    // Nobody listens at port 1 of this machine, so there is an error to show.
    let body = json!({
        "app": "live", "stream": "8888_streamA", "feed": "program",
        "url": "rtmp://127.0.0.1:1/live/8888_streamA?k=v",
        "sign": {"key": "main", "expires_in": "12h"}
    })
    .to_string();
    let created = client.call("PUT", path, &body).await;
    assert_eq!(created.status, 201);
    is_as_documented("push", &created.json());
    assert_eq!(client.call("PUT", path, &body).await.status, 200);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let shown = client.call("GET", path, "").await.json();
        is_as_documented("push", &shown);
        if shown["state"] == "backoff" {
            assert!(shown["last_error"].is_string() && shown["retry_in_ms"].is_number());
            assert_eq!(shown["url"], "rtmp://127.0.0.1:1/live/8888_streamA?***");
            break;
        }
        assert!(Instant::now() < deadline, "{shown}");
    }
    let listed = client.call("GET", "/api/v1/pushes", "").await.json();
    is_as_documented("pushes", &listed);
    let deleted = client.call("DELETE", path, "").await;
    assert_eq!(deleted.status, 200);
    is_as_documented("push_delete", &deleted.json());
    assert_eq!(deleted.json()["state"], "ended");
    for method in ["GET", "DELETE"] {
        is_error(&client.call(method, path, "").await, 404, "not_found");
    }
}

#[tokio::test]
async fn urls_answer_as_documented() {
    let (_house, client) = open(None).await;
    let body =
        json!({"action": "peer", "app": "live", "stream": "8888_streamA", "expires_in": "12h"});
    let signed = client.post("/api/v1/urls/sign", &body).await.json();
    is_as_documented("urls_sign", &signed);
    for url in [&signed["url"], &json!("rtmp://h/live/a")] {
        let verified = client
            .post("/api/v1/urls/verify", &json!({"url": url}))
            .await;
        is_as_documented("urls_verify", &verified.json());
    }
}

#[tokio::test]
async fn bans_answer_as_documented() {
    let (_house, client) = open(None).await;
    let body = json!({
        "address": "203.0.113.7/24", "action": "publish", "expires_in": "1day", "note": "spam, ticket 4711"
    });
    let made = client.post("/api/v1/bans", &body).await;
    assert_eq!(made.status, 201);
    is_as_documented("ban", &made.json());
    assert_eq!(made.json()["address"], "203.0.113.0/24");
    let listed = client.call("GET", "/api/v1/bans", "").await.json();
    is_as_documented("bans", &listed);
    let path = format!("/api/v1/bans/{}", made.json()["id"]);
    for method in ["GET", "DELETE"] {
        let shown = client.call(method, &path, "").await.json();
        is_as_documented("ban_delete", &shown);
    }
}

#[tokio::test]
async fn keys_answer_as_documented() {
    let (_house, client) = open(None).await;
    let keys = client.call("GET", "/api/v1/auth/keys", "").await.json();
    is_as_documented("auth_keys", &keys);
}

#[tokio::test]
async fn health_and_errors_answer_as_documented() {
    let (house, client) = open(None).await;
    house.readiness.set(true);
    let alive = client.call("GET", "/healthz", "").await.json();
    is_as_documented("healthz", &alive);
    let ready = client.call("GET", "/readyz", "").await.json();
    is_as_documented("readyz", &ready);
    let error = client.call("GET", "/nothing", "").await.json();
    is_as_documented("error", &error);
}

/// Names and labels of a page of metrics, without values.
fn series(page: &str) -> Vec<String> {
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        // The version is a label, and no promise.
        .filter(|series| !series.starts_with("linkmic_build_info"))
        .collect()
}

#[tokio::test]
async fn the_metrics_page_has_the_series_that_are_documented_and_no_other() {
    let (_house, client) = open(None).await;
    let real = client.call("GET", "/metrics", "").await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api/metrics.txt");
    if std::env::var_os("LINKMIC_WRITE_DOCS").is_some() {
        std::fs::write(&path, &real.body).unwrap();
    }
    let shown = std::fs::read_to_string(&path).unwrap();
    assert_eq!(series(&real.body), series(&shown));
}

/// Whoever reads docs/api.md reads what the other tests compare.
#[test]
fn the_page_shows_every_example_as_it_is() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = std::fs::read_to_string(docs.join("api.md")).unwrap();
    let mut examples = 0;
    for entry in std::fs::read_dir(docs.join("api")).unwrap() {
        let path = entry.unwrap().path();
        // What is for programs is too long for a page.
        let whole = path.file_name().is_some_and(|name| name == "openapi.json");
        if whole || path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let shown = format!("```json\n{}\n```", text.trim());
        assert!(
            page.contains(&shown),
            "{path:?} is not in docs/api.md as it is"
        );
        examples += 1;
    }
    assert!(examples > 10, "only {examples} examples");
}
