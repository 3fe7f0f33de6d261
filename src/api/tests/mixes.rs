//! Mixes: what is told of them and asked for, and where there is no mixer.

use super::*;

#[tokio::test]
async fn without_the_mixer_mixes_are_not_implemented() {
    let (_house, client) = open(None).await;
    for (method, path) in [
        ("GET", "/api/v1/mixes"),
        ("GET", "/api/v1/mixes/m"),
        ("PUT", "/api/v1/mixes/m"),
        ("DELETE", "/api/v1/mixes/m"),
        ("POST", "/api/v1/mixes:preview"),
    ] {
        let answer = client.call(method, path, "{}").await;
        is_error(&answer, 501, "mixer_not_built");
    }
}

#[tokio::test]
async fn mixes_are_translated_both_ways() {
    let (_house, client) = open(Some(Arc::new(Scenes::default()))).await;
    let path = "/api/v1/mixes/m";
    is_error(&client.call("GET", path, "").await, 404, "not_found");
    is_error(&client.call("DELETE", path, "").await, 404, "not_found");
    for (body, status) in [
        (r#"{"a": 1}"#, 201),
        (r#"{"a": 1}"#, 200),
        (r#"{"a": 2}"#, 200),
    ] {
        assert_eq!(
            client.call("PUT", path, body).await.status,
            status,
            "{body}"
        );
    }
    for (body, status, code) in [
        ("{", 400, "malformed_json"),
        (r#"{"app": "elsewhere"}"#, 400, "invalid"),
        (r#"{"fail": "conflict"}"#, 409, "conflict"),
        (r#"{"fail": "unavailable"}"#, 503, "unavailable"),
    ] {
        is_error(&client.call("PUT", path, body).await, status, code);
    }
    assert_eq!(client.call("GET", path, "").await.json(), json!({"a": 2}));
    let listed = client.call("GET", "/api/v1/mixes", "").await.json();
    let capacity = json!({"budget": 150, "cost": 46, "can_accept": true});
    assert_eq!(listed, json!({"mixes": [{"a": 2}], "capacity": capacity}));
    let answer = client.call("DELETE", path, "").await;
    assert_eq!(
        (answer.status, answer.json()["state"].as_str()),
        (202, Some("ending"))
    );
}

#[tokio::test]
async fn previews_come_as_an_image_or_as_json() {
    let (_house, client) = open(Some(Arc::new(Scenes::default()))).await;
    let path = "/api/v1/mixes:preview";
    let image = client.call("POST", path, "{}").await;
    assert_eq!((image.status, image.body.as_str()), (200, "picture of 540"));
    assert_eq!(image.header("content-type"), Some("image/png"));
    let warnings: Value =
        serde_json::from_str(image.header("x-linkmic-warnings").unwrap()).unwrap();
    assert_eq!(warnings[0]["path"], "inputs[1].layer");
    let all = client
        .call(
            "POST",
            &format!("{path}?format=json&width=90&live=true"),
            "{}",
        )
        .await;
    let all = all.json();
    examples::is_as_documented("mix_preview", &all);
    // "picture of 90".
    assert_eq!(all["png"], "cGljdHVyZSBvZiA5MA==");
    assert_eq!(all["layout"]["inputs"][0]["real"], true);
    assert_eq!(all["warnings"], warnings);
    for (query, body, status, code) in [
        ("", "{", 400, "malformed_json"),
        ("", r#"{"app": "elsewhere"}"#, 400, "invalid"),
        (
            "",
            r#"{"fail": "inputs[0].x: 5000 is outside"}"#,
            400,
            "invalid",
        ),
        ("?width=wide", "{}", 400, "invalid"),
        ("?heigth=90", "{}", 400, "invalid"),
    ] {
        is_error(
            &client.call("POST", &format!("{path}{query}"), body).await,
            status,
            code,
        );
    }
    is_error(
        &client.call("GET", path, "").await,
        405,
        "method_not_allowed",
    );
}
