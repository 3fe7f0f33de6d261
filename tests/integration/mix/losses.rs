//! The main is lost: whatever the policy, its picture is what was asked for, and nothing else stops.

use std::time::Instant;

use linkmic::probe::player::Watch;
use linkmic::probe::process;
use linkmic::probe::{Colour, Player, Region, Size};
use serde_json::{Value, json};

use super::reading::{assert_even, shown};
use super::script::Reel;
use super::{FPS, LONG};
use crate::edge::SOON;
use crate::studio::{Studio, advances};

const CANVAS: Size = Size::new(240, 400);
/// Right of where the main's colour is read, and under its number.
const SUB: Region = Region {
    x: 140,
    y: 180,
    width: 100,
    height: 150,
};

fn scene(policy: &str, on_loss: &Value) -> Value {
    json!({
        "app": "live", "background": "#14b428", "on_loss": on_loss,
        "inputs": [
            {"stream": "a", "layer": 1},
            {"stream": "b", "layer": 2, "x": SUB.x, "y": SUB.y, "width": SUB.width, "height": SUB.height},
        ],
        "output": {"stream": policy, "width": CANVAS.width, "height": CANVAS.height, "fps": FPS, "video_kbps": 400},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_main_freezes_no_output_whatever_the_policy() {
    let main = Reel {
        size: CANVAS,
        colour: Colour::BLUE,
        ..Reel::sub(FPS as u32, 400.0, 60)
    };
    let sub = Reel::sub(FPS as u32, 700.0, 60);
    let (main, sub) = tokio::join!(main.script(), sub.script());
    let folder = tempfile::tempdir().expect("a folder");
    let away = folder.path().join("away.png").display().to_string();
    let yellow = "-hide_banner -loglevel error -f lavfi -i color=0xe6d214:size=240x400 -frames:v 1";
    let line: Vec<&str> = yellow.split_whitespace().chain([away.as_str()]).collect();
    process::output("ffmpeg", &line, LONG)
        .await
        .expect("a picture");
    let pictures = format!("[mixer]\npictures = {{ away = \"{away}\" }}");
    let studio = Studio::open_with(&pictures).await;
    let policies = [
        ("freeze", json!({"policy": "freeze"}), "blue"),
        ("hide", json!({"policy": "hide", "after_ms": 500}), "green"),
        (
            "placeholder",
            json!({"policy": "placeholder", "after_ms": 500, "picture": {"file": "away"}}),
            "yellow",
        ),
    ];
    let mut viewers = Vec::new();
    for (policy, on_loss, _) in &policies {
        let watch = Watch {
            size: CANVAS,
            regions: vec![CANVAS.whole(), SUB],
        };
        let url = studio.urls.plain(policy);
        viewers.push(Player::start(&url, watch).await.expect("ffmpeg"));
        let path = format!("/api/v1/mixes/{policy}");
        studio.put(&path, &scene(policy, on_loss)).await;
    }
    let on_air = main.clone().start(studio.urls.push("a"));
    let _sub = sub.start(studio.urls.push("b"));
    for viewer in &mut viewers {
        advances(viewer, 0, Colour::BLUE, 10).await;
        advances(viewer, 1, Colour::RED, 10).await;
    }

    drop(on_air);
    for ((policy, _, left), viewer) in policies.iter().zip(&mut viewers) {
        let what = format!("{policy}: {left} where the main was");
        let replaced = viewer.until(&what, SOON, |seen| {
            let newest: Vec<_> = seen
                .sightings
                .iter()
                .rev()
                .take(20)
                .map(|s| s.readings[0])
                .collect();
            let still = newest
                .windows(2)
                .all(|pair| pair[0].counter == pair[1].counter);
            let all = newest.iter().all(|main| main.colour.name() == Some(*left));
            (newest.len() == 20 && still && all).then_some(())
        });
        replaced.await.unwrap_or_else(|e| panic!("{e}"));
        let since = Instant::now();
        advances(viewer, 1, Colour::RED, 20).await;
        viewer.look(|seen| {
            let mut since = seen.sightings.iter().filter(|s| s.at >= since);
            assert!(
                since.all(|s| s.readings[0].colour.name() == Some(*left)),
                "{what}"
            );
        });
    }
    let _again = main.start(studio.urls.push("a"));
    for viewer in &mut viewers {
        advances(viewer, 0, Colour::BLUE, 10).await;
        viewer.look(|seen| {
            assert_eq!(seen.errors, Vec::<String>::new());
            assert_even(&shown(seen, &[FPS as u32]));
        });
    }
}
