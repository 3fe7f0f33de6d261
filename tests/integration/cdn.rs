//! Pushing to other servers: nginx, which may crash, and others of ours, which may be dead, slow, or inside TLS.

pub mod narrow;

mod groups;
mod secure;
mod stage;
mod trouble;

use linkmic::probe::nginx::Nginx;
use linkmic::probe::player::Watch;
use linkmic::probe::process::poll;
use linkmic::probe::publisher::Show;
use linkmic::probe::{Colour, Player};
use serde_json::{Value, json};

use crate::edge::SOON;
use crate::studio::{Studio, advances, pictures};

const PUSH: &str = "/api/v1/pushes/cdn";

async fn push_until(
    studio: &Studio,
    what: &str,
    path: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let wanted = &wanted;
    poll(what, SOON, || async {
        let push = studio.api.get(path).await.ok()?.json();
        wanted(&push).then_some(push)
    })
    .await
    .unwrap_or_else(|e| panic!("{e}"))
}

async fn pull(nginx: &Nginx, name: &str, show: &Show) -> Player {
    Player::start(&nginx.url(name), Watch::whole(show.size))
        .await
        .expect("ffmpeg")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_survives_the_crash_of_its_target() {
    let studio = Studio::open().await;
    let mut nginx = Nginx::start(studio.folder()).await.expect("nginx");
    let show = Show::sub(Colour::GREEN, 700.0);
    let _publisher = studio.publish("a", &show).await;
    let mut viewer = Player::start(&studio.urls.plain("a"), Watch::whole(show.size))
        .await
        .expect("ffmpeg");
    let target = json!({"app": "live", "stream": "a", "feed": "program", "url": nginx.url("a")});
    studio.put(PUSH, &target).await;
    advances(&mut pull(&nginx, "a", &show).await, 0, show.colour, 15).await;
    let live = push_until(&studio, "the push live", PUSH, |p| p["state"] == "live").await;
    assert!(live["bytes"].as_u64() > Some(0), "{live}");

    nginx.kill().await;
    let down = push_until(&studio, "the crash noticed", PUSH, |p| {
        p["state"] == "backoff"
    })
    .await;
    assert!(down["last_error"].is_string(), "{down}");

    nginx.restart().await.expect("nginx again");
    // Totals go on: they are the target's, not the connection's.
    push_until(&studio, "live again, with more bytes", PUSH, |p| {
        let more = |count: &str| p[count].as_u64() > live[count].as_u64();
        p["state"] == "live" && more("connects") && more("bytes")
    })
    .await;
    advances(&mut pull(&nginx, "a", &show).await, 0, show.colour, 15).await;

    // Whoever watched meanwhile saw nothing of it.
    pictures(&mut viewer, 1).await;
    let seen =
        viewer.look(|seen| seen.advances(0, show.colour, std::time::Instant::now() - SOON * 4, 30));
    assert!(seen.is_some(), "the viewer's pictures never stepped back");
    viewer.look(|seen| assert_eq!(seen.errors, Vec::<String>::new()));
    let gone = studio.api.delete(PUSH).await.expect("an answer");
    assert!(gone.is_success(), "{}", gone.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_rule_pushes_every_stream_of_its_app() {
    let folder = tempfile::tempdir().expect("a folder");
    let nginx = Nginx::start(folder.path()).await.expect("nginx");
    let rule = format!(
        "[[push.rules]]\napp = \"live\"\nmatch = \"8888_*\"\nfeed = \"program\"\nurl = \"{}\"",
        nginx.url("{stream}")
    );
    let studio = Studio::open_with(&rule).await;
    let show = Show::sub(Colour::RED, 700.0);
    let _matching = studio.publish("8888_a", &show).await;
    let _other = studio
        .publish("9999_b", &Show::sub(Colour::YELLOW, 700.0))
        .await;
    advances(&mut pull(&nginx, "8888_a", &show).await, 0, show.colour, 15).await;
    let pushes = studio
        .api
        .get("/api/v1/pushes")
        .await
        .expect("an answer")
        .json();
    let streams: Vec<_> = pushes["pushes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|push| push["stream"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(streams, ["8888_a"], "{pushes}");
}
