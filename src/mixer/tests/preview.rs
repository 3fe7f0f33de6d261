//! Previews beside running mixes.

use super::super::preview::tests::{Image, is};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_is_the_running_mix() {
    let (_guard, relay, mixer) = studio().await;
    let body = || -> MixRequest {
        serde_json::from_value(json!({"app": "live", "template": 391,
            "inputs": [{"stream": "main", "layer": 1}, {"stream": "sub", "layer": 2},
                {"stream": "other", "layer": 3, "fit": "crop", "x": "2%", "name": {"text": "Ann"}}],
            "output": {"stream": "main"}}))
        .unwrap()
    };
    let _anchors = [
        Anchor::start(&relay, "main", MAIN),
        Anchor::start(&relay, "sub", SUBS[0]),
        Anchor::start(&relay, "other", SUBS[2]),
    ];
    // Nobody knows the sizes yet: the canvas is the kits' own.
    let before = mixer.preview(&body(), Wish::default()).unwrap();
    assert_eq!(
        (before.layout.canvas.width, before.layout.canvas.height),
        (540, 960)
    );
    mixer.put("m", body()).unwrap();
    eventually("live", || {
        let info = mixer.get("m").unwrap();
        info.state == MixState::Live && info.inputs.iter().all(|i| i.state == InputState::Live)
    })
    .await;
    let boxes = || -> Vec<_> {
        let inputs = mixer.get("m").unwrap().inputs;
        inputs
            .into_iter()
            .map(|i| (i.id, i.layer, i.rect))
            .collect()
    };
    let wish = Wish {
        live: true,
        ..Wish::default()
    };
    // An input lives from its first decoded picture, and is seen from the next frame.
    eventually("seen", || {
        let live = mixer.preview(&body(), wish).unwrap();
        live.layout.inputs.iter().all(|input| input.real)
    })
    .await;
    let live = mixer.preview(&body(), wish).unwrap();
    let drawn = mixer.preview(&body(), Wish::default()).unwrap();
    assert_eq!(
        (live.layout.canvas.width, live.layout.canvas.height),
        (MAIN.width, MAIN.height)
    );
    for shown in [&live, &drawn] {
        let placed = shown.layout.inputs.iter();
        let placed: Vec<_> = placed.map(|i| (i.id.clone(), i.layer, i.rect)).collect();
        assert_eq!(placed, boxes());
    }
    assert!(live.layout.inputs.iter().all(|input| input.real));
    assert!(!drawn.layout.inputs.iter().any(|input| input.real));
    // Their own colours, in the boxes that the mix has them in; the counter is in the upper quarter.
    let image = Image::read(&live.png);
    for ((_, _, rect), colour) in
        boxes()
            .into_iter()
            .zip([MAIN.colour, SUBS[0].colour, SUBS[2].colour])
    {
        let rect = rect.unwrap();
        let (x, y) = (rect.x + rect.width * 7 / 8, rect.y + rect.height * 5 / 8);
        assert!(is(image.at(x, y), colour), "{x},{y}: {:?}", image.at(x, y));
    }
    // It took nothing from the mix.
    assert_eq!(mixer.get("m").unwrap().revision, 1);
    mixer.remove("m").unwrap();
}
