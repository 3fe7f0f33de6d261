//! Scenes: everybody in their place, moving and heard.

use linkmic::probe::Colour;
use serde_json::json;

use super::{
    CANVAS, FPS, hears, is_as_documented, main_show, one_plus_one, one_plus_one_regions, place,
    sub_show,
};
use crate::edge::SOON;
use crate::studio::{Studio, advances};

const TONES: [f64; 4] = [400.0, 700.0, 1100.0, 1700.0];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_anchors_are_seen_in_their_places_moving_and_heard() {
    let studio = Studio::open().await;
    let _a = studio.publish("a", &main_show()).await;
    let _b = studio.publish("b", &sub_show(Colour::RED, TONES[1])).await;
    let _c = studio
        .publish("c", &sub_show(Colour::GREEN, TONES[2]))
        .await;
    let _d = studio
        .publish("d", &sub_show(Colour::YELLOW, TONES[3]))
        .await;
    let regions = [CANVAS.whole(), place(480), place(320), place(160)];
    let mut viewer = studio.watch("a", &regions).await;
    advances(&mut viewer, 0, Colour::BLUE, 10).await;
    hears(&mut viewer, &TONES, &TONES[..1]).await;

    // Pixels, shares of the canvas (25 % of 400 is 100, 75 % is 300, 50 % of 640 is 320), and both.
    let scene = json!({
        "app": "live",
        "inputs": [
            {"stream": "a", "layer": 1},
            {"stream": "b", "layer": 2, "x": 300, "y": 480, "width": 100, "height": 150, "gain": 1.0},
            {"stream": "c", "layer": 3, "x": "75%", "y": "50%", "width": "25%", "height": 150},
            {"stream": "d", "layer": 4, "x": 300, "y": "25%", "width": "25%", "height": 150},
        ],
        "output": {"stream": "a", "width": CANVAS.width, "height": CANVAS.height, "fps": FPS, "video_kbps": 900},
    });
    let first = studio.put("/api/v1/mixes/m", &scene).await;
    for (region, colour) in [Colour::BLUE, Colour::RED, Colour::GREEN, Colour::YELLOW]
        .into_iter()
        .enumerate()
    {
        advances(&mut viewer, region, colour, 15).await;
    }
    hears(&mut viewer, &TONES, &TONES).await;
    let live = studio.get("/api/v1/mixes/m").await;
    assert_eq!(live["state"], "live");
    is_as_documented("mix", &live);
    is_as_documented("mixes", &studio.get("/api/v1/mixes").await);

    // The same scene again is no change; a changed one changes the running mix.
    let same = studio.put("/api/v1/mixes/m", &scene).await;
    assert_eq!(same["revision"], first["revision"], "{same}");
    let mut smaller = scene.clone();
    smaller["inputs"]
        .as_array_mut()
        .expect("a list")
        .truncate(2);
    let changed = studio.put("/api/v1/mixes/m", &smaller).await;
    assert_ne!(changed["revision"], first["revision"], "{changed}");
    viewer
        .until("C and D gone, B still there", SOON, |seen| {
            let readings = &seen.sightings.back()?.readings;
            let names: Vec<_> = readings.iter().map(|r| r.colour.name()).collect();
            (names == [Some("blue"), Some("red"), Some("blue"), Some("blue")]).then_some(())
        })
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    hears(&mut viewer, &TONES, &TONES[..2]).await;
    viewer.look(|seen| assert_eq!(seen.errors, Vec::<String>::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_to_a_new_name_leaves_its_inputs_alone_and_ends_with_its_stream() {
    let studio = Studio::open().await;
    let _a = studio.publish("a", &main_show()).await;
    let _b = studio.publish("b", &sub_show(Colour::RED, 700.0)).await;
    let mut original = studio.watch("a", &one_plus_one_regions()).await;
    let mut scene = one_plus_one();
    scene["output"]["stream"] = "a_and_b".into();
    // The viewer is there first, and waits.
    let mut mixed = studio.watch("a_and_b", &one_plus_one_regions()).await;
    studio.put("/api/v1/mixes/m", &scene).await;
    advances(&mut mixed, 0, Colour::BLUE, 15).await;
    advances(&mut mixed, 1, Colour::RED, 15).await;
    advances(&mut original, 0, Colour::BLUE, 15).await;
    original.look(|seen| {
        let untouched =
            |s: &linkmic::probe::player::Sighting| s.readings[1].colour.name() == Some("blue");
        assert!(
            seen.sightings.iter().all(untouched),
            "the main's own stream was mixed into"
        );
    });

    let busy = studio
        .api
        .put("/api/v1/mixes/other", &scene)
        .await
        .expect("an answer");
    assert_eq!(busy.status, 409, "one output, two mixes: {}", busy.body);

    studio.end_mix("m").await;
    mixed
        .until("the end of the mix's stream", SOON, |seen| {
            seen.is_over.then_some(())
        })
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    advances(&mut original, 0, Colour::BLUE, 15).await;
}
