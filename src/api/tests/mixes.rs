//! Mixes: what is told of them and asked for, where there is no mixer, and a mixer that is none.

use super::*;

/// Remembers scenes as they came, and refuses those that say so.
#[derive(Default)]
pub struct Scenes(Mutex<Vec<(String, Value)>>);

impl Mixes for Scenes {
    fn put<'a>(&'a self, id: &'a str, scene: &'a [u8]) -> Pending<'a, (Made, Value)> {
        Box::pin(async move {
            let scene: Value = body::parse(scene).map_err(|e| MixError::Unreadable(e.message))?;
            match scene["fail"].as_str() {
                Some("conflict") => {
                    return Err(MixError::Conflict {
                        path: "output".into(),
                        clash: Clash::Taken,
                        message: "is taken".into(),
                    });
                }
                Some("unavailable") => return Err(MixError::Unavailable("no encoder".into())),
                _ => {}
            }
            let mut all = self.0.lock().unwrap();
            let made = match all.iter().find(|(known, _)| known == id) {
                None => Made::Created,
                Some((_, old)) if *old == scene => Made::Unchanged,
                Some(_) => Made::Changed,
            };
            all.retain(|(known, _)| known != id);
            all.push((id.to_owned(), scene.clone()));
            Ok((made, scene))
        })
    }

    fn preview<'a>(&'a self, scene: &'a [u8], wish: Wish) -> Pending<'a, Drawn> {
        Box::pin(async move {
            let scene: Value = body::parse(scene).map_err(|e| MixError::Unreadable(e.message))?;
            if let Some(message) = scene["fail"].as_str() {
                return Err(MixError::Unreadable(message.into()));
            }
            let width = wish.width.unwrap_or(540);
            let input = json!({"id": "a", "layer": 1, "x": 0, "y": 0, "width": 540, "height": 960, "real": wish.live});
            Ok(Drawn {
                png: format!("picture of {width}").into_bytes(),
                layout: json!({"canvas": {"width": 540, "height": 960}, "inputs": [input]}),
                warnings: vec![
                    json!({"path": "inputs[1].layer", "kind": "covered", "message": "behind"}),
                ],
            })
        })
    }

    fn get(&self, id: &str) -> Option<Value> {
        let all = self.0.lock().unwrap();
        let found = all.iter().find(|(known, _)| known == id);
        found.map(|(_, scene)| scene.clone())
    }

    fn list(&self) -> Vec<Value> {
        let all = self.0.lock().unwrap();
        all.iter().map(|(_, scene)| scene.clone()).collect()
    }

    fn decoders(&self) -> [(&'static str, usize); 2] {
        [("audio", 0), ("video", 0)]
    }

    fn load(&self) -> MixLoad {
        MixLoad {
            budget: 150,
            cost: 46,
            can_accept: true,
            ..MixLoad::default()
        }
    }

    fn picture_size(&self, _: &StreamKey) -> Option<(u32, u32)> {
        None
    }

    fn gone(&self) -> Gone<'_> {
        Box::pin(std::future::pending())
    }

    fn remove<'a>(&'a self, id: &'a str) -> Pending<'a, Value> {
        let found = self.get(id);
        Box::pin(async move {
            found.ok_or_else(|| MixError::NotFound(format!("no mix has the id {id:?}")))?;
            Ok(json!({"id": id, "state": "ending"}))
        })
    }
}

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
    // Counted by us, and by a mixer that does not tell what is no change.
    let shown = json!({"a": 2, "revision": 3});
    assert_eq!(client.call("GET", path, "").await.json(), shown);
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
