//! Who takes a mix's output, or does not, is nothing to the mix.

use std::time::Duration;

use linkmic::probe::player::Watch;
use linkmic::probe::process::poll;
use linkmic::probe::{Colour, Player};
use serde_json::json;
use tokio::net::TcpListener;

use super::reading::{assert_even, assert_undisturbed, shown};
use super::script::Reel;
use super::{CANVAS, FPS, one_plus_one, one_plus_one_regions};
use crate::cdn::narrow::{Narrow, WIDE};
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::house::House;
use crate::edge::throttle::Flow;
use crate::studio::{Studio, advances};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_targets_and_viewers_that_stop_never_reach_the_mixer() {
    let main = Reel {
        size: CANVAS,
        colour: Colour::BLUE,
        ..Reel::sub(FPS as u32, 400.0, 60)
    };
    let sub = Reel::sub(FPS as u32, 700.0, 60);
    let (main, sub) = tokio::join!(main.script(), sub.script());
    // The healthy viewer is to miss nothing, however late the machine makes it.
    let studio = Studio::open_with("[classes.viewer]\nmax_lag = \"20s\"").await;
    let mut scene = one_plus_one();
    scene["output"]["stream"] = "out".into();
    studio.put("/api/v1/mixes/m", &scene).await;
    let watch = Watch {
        size: CANVAS,
        regions: one_plus_one_regions().to_vec(),
    };
    let url = studio.urls.plain("out");
    let mut viewer = Player::start(&url, watch).await.expect("ffmpeg");
    let _main = main.start(studio.urls.push("a"));
    let _sub = sub.start(studio.urls.push("b"));
    advances(&mut viewer, 0, Colour::BLUE, 20).await;
    let before = studio.get("/api/v1/mixes/m").await["stats"].take();

    // A target that goes silent, one that never says a word, and five viewers that read nothing.
    let target = House::open().await;
    let path = Narrow::before(target.urls.rtmp(), WIDE).await;
    let deaf = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let deaf = format!("rtmp://{}/live/a", deaf.local_addr().expect("an address"));
    let hole = path.through(&target.urls.push("a"), target.urls.rtmp());
    for (id, url) in [("hole", hole), ("deaf", deaf)] {
        let push = json!({"app": "live", "stream": "out", "url": url});
        studio.put(&format!("/api/v1/pushes/{id}"), &push).await;
    }
    let mut stopped = Vec::new();
    for _ in 0..5 {
        stopped.push(Client::play_narrow(&url, 4096).await.expect("granted"));
    }
    let state = |id: &'static str, wanted: &'static str| {
        let path = format!("/api/v1/pushes/{id}");
        let api = &studio.api;
        async move {
            let what = format!("{id} {wanted}");
            let reached = poll(&what, SOON, || async {
                let push = api.get(&path).await.ok()?.json();
                (push["state"] == wanted).then_some(())
            });
            reached.await.unwrap_or_else(|e| panic!("{e}"));
        }
    };
    state("hole", "live").await;
    path.set(Flow::Stopped);
    state("hole", "backoff").await;
    state("deaf", "backoff").await;
    let since = viewer.look(|seen| seen.total);
    viewer
        .until("two more seconds", SOON, |seen| {
            (seen.total >= since + 40).then_some(())
        })
        .await
        .unwrap_or_else(|e| panic!("{e}"));

    let after = studio.get("/api/v1/mixes/m").await["stats"].take();
    println!("before {before}\nafter {after}");
    assert_eq!(after["restarts"], 0);
    viewer.look(|seen| {
        assert_eq!(seen.errors, Vec::<String>::new());
        let shown = shown(seen, &[FPS as u32; 2]);
        assert_even(&shown);
        assert_undisturbed("main", &shown[shown.len() - 100..], 0);
        assert_undisturbed("sub", &shown[shown.len() - 100..], 1);
        let time = Duration::from_millis((shown[shown.len() - 1].pts - shown[0].pts) as u64);
        println!("{} pictures in {time:?} of media", shown.len());
    });
    drop(stopped);
}
