//! Mixes that push URLs ask for, judged by decoded pictures.

use linkmic::probe::player::Watch;
use linkmic::probe::process::poll;
use linkmic::probe::publisher::Show;
use linkmic::probe::{Colour, Player, Publisher, Region, Size};
use serde_json::Value;

use crate::edge::SOON;
use crate::studio::{Studio, advances};

const CANVAS: Size = Size::new(400, 640);
/// Where the small picture is, less what stands around it: a third of the sides, 20 pixels from the corner.
const CORNER: Region = Region {
    x: 252,
    y: 422,
    width: 120,
    height: 180,
};

fn main() -> Show {
    Show {
        size: CANVAS,
        video_kbps: 500,
        ..Show::main(Colour::BLUE, 400.0)
    }
}

async fn mixes(studio: &Studio) -> Vec<Value> {
    let answer = studio.api.get("/api/v1/mixes").await.expect("an answer");
    answer.json()["mixes"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

async fn until_mixes(studio: &Studio, count: usize) -> Vec<Value> {
    let found = poll("as many mixes", SOON, || async {
        let mixes = mixes(studio).await;
        (mixes.len() == count).then_some(mixes)
    });
    found.await.expect("they come and go")
}

/// A push URL that asks to be mixed.
fn push(studio: &Studio, name: &str, wish: &str) -> String {
    format!("{}&{wish}", studio.urls.push(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn section_1_6_push_urls_are_mixed_while_both_publish() {
    let studio = Studio::open_with("[compat]\nurl_mixes = true").await;
    let url = push(&studio, "a", "mix=layer:b;session_id:1234;t_id:1");
    let _a = Publisher::start(&url, &main()).expect("ffmpeg");
    let watch = Watch {
        size: CANVAS,
        regions: vec![CANVAS.whole(), CORNER],
    };
    let mut viewer = Player::start(&studio.urls.plain("a"), watch)
        .await
        .expect("ffmpeg");
    advances(&mut viewer, 0, Colour::BLUE, 10).await;
    assert!(mixes(&studio).await.is_empty(), "one alone is no mix");

    // Twice: what ends when the sub drops begins again when it is back.
    for _ in 0..2 {
        let url = push(&studio, "b", "mix=layer:s;session_id:1234;t_id:1");
        let sub = Publisher::start(&url, &Show::sub(Colour::RED, 700.0)).expect("ffmpeg");
        advances(&mut viewer, 1, Colour::RED, 15).await;
        let mix = until_mixes(&studio, 1).await.remove(0);
        assert_eq!(mix["id"], "url.live.1234");
        assert_eq!(mix["output"]["stream"], "a", "in the main's own stream");
        sub.kill().await;
        until_mixes(&studio, 0).await;
    }
    viewer.look(|seen| assert_eq!(seen.errors, Vec::<String>::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn section_1_6_a_named_session_ends_with_its_main_and_other_sessions_stay_apart() {
    let studio = Studio::open_with("[compat]\nurl_mixes = true").await;
    // The sub is there first.
    let url = push(&studio, "b", "mixv2=t_id:1;session_id:room_1;layer:s");
    let _b = Publisher::start(&url, &Show::sub(Colour::RED, 700.0)).expect("ffmpeg");
    let other = push(&studio, "c", "mixv2=t_id:1;session_id:room_2;layer:s");
    let _c = Publisher::start(&other, &Show::sub(Colour::RED, 500.0)).expect("ffmpeg");
    let url = push(&studio, "a", "mixv2=t_id:1;session_id:room_1;layer:b");
    let a = Publisher::start(&url, &main()).expect("ffmpeg");
    let live = poll("the mix live", SOON, || async {
        let mixes = mixes(&studio).await;
        (mixes.len() == 1 && mixes[0]["state"] == "live").then_some(mixes)
    });
    let mix = live.await.expect("it begins").remove(0);
    let inputs: Vec<_> = mix["inputs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|input| input["stream"].clone())
        .collect();
    assert_eq!(inputs, ["a", "b"]);
    a.kill().await;
    until_mixes(&studio, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn section_1_6_without_the_switch_push_urls_ask_for_nothing() {
    let studio = Studio::open_with("").await;
    let wish = |layer: &str| format!("mix=layer:{layer};session_id:7;t_id:1");
    let url = push(&studio, "a", &wish("b"));
    let _a = Publisher::start(&url, &main()).expect("ffmpeg");
    let url = push(&studio, "b", &wish("s"));
    let _b = Publisher::start(&url, &Show::sub(Colour::RED, 700.0)).expect("ffmpeg");
    let watch = Watch {
        size: CANVAS,
        regions: vec![CANVAS.whole(), CORNER],
    };
    let mut viewer = Player::start(&studio.urls.plain("a"), watch)
        .await
        .expect("ffmpeg");
    let both = poll("both on air", SOON, || async {
        let streams = studio.api.get("/api/v1/streams").await.ok()?.json();
        let streams = streams["streams"].as_array()?.clone();
        let live = streams
            .iter()
            .filter(|stream| stream["publisher"]["video"].is_object());
        (live.count() == 2).then_some(())
    });
    both.await.expect("they publish");
    advances(&mut viewer, 0, Colour::BLUE, 20).await;
    assert!(mixes(&studio).await.is_empty());
}
