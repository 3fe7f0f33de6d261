//! Mixes where there is no mixer, and a mixer that is none.

use super::*;

/// Remembers scenes as they came, and refuses those that say so.
#[derive(Default)]
pub struct Scenes(Mutex<Vec<(String, Value)>>);

impl Mixes for Scenes {
    fn put<'a>(&'a self, id: &'a str, scene: &'a [u8]) -> Pending<'a, (Made, Value)> {
        Box::pin(async move {
            let scene: Value = body::parse(scene).map_err(|e| MixError::Invalid(e.message))?;
            match scene["fail"].as_str() {
                Some("conflict") => return Err(MixError::Conflict("output: is taken".into())),
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
            let scene: Value = body::parse(scene).map_err(|e| MixError::Invalid(e.message))?;
            if let Some(message) = scene["fail"].as_str() {
                return Err(MixError::Invalid(message.into()));
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
