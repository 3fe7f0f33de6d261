//! Links on the real server: from the request to the end, as the main's viewers and the two anchors see them.

use linkmic::probe::player::Watch;
use linkmic::probe::process::poll;
use linkmic::probe::{Colour, Player, Publisher, Region, Size};
use serde_json::{Value, json};

use crate::durable::{main, sub};
use crate::edge::SOON;
use crate::home::{Home, Life};
use crate::studio::{advances, publish};

/// The contract's column for a main that is narrower than 540: 120×180 at the right, 60 above the lower edge; here 240×400.
const FIRST: Region = Region {
    x: 120,
    y: 160,
    width: 120,
    height: 180,
};
const CANVAS: Size = Size::new(240, 400);

impl Life {
    /// A `POST` that has to succeed with this status.
    async fn post(&self, path: &str, body: &Value, status: u16) -> Value {
        let answer = self.api.post(path, body).await.expect("an answer");
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        answer.json()
    }

    async fn act(&self, action: &str, body: Value) -> Value {
        let path = format!("/api/v1/links/show/{action}");
        self.post(&path, &body, 200).await
    }

    async fn link(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.until(what, "/api/v1/links/show", wanted).await
    }
}

/// The party of that stream.
fn party<'a>(link: &'a Value, stream: &str) -> &'a Value {
    let all = link["parties"].as_array().expect("a list");
    let found = all.iter().find(|party| party["stream"] == stream);
    found.unwrap_or_else(|| panic!("{stream} in {link}"))
}

/// The URLs that a party is to play, by stream.
fn plays(link: &Value, stream: &str) -> Vec<(String, String)> {
    let urls = party(link, stream)["play"].as_array().expect("a list");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    urls.iter()
        .map(|play| (text(&play["stream"]), text(&play["url"])))
        .collect()
}

/// Waits until a player sees this colour move over all of its picture.
async fn sees(url: &str, size: Size, colour: Colour) -> Player {
    let mut player = Player::start(url, Watch::whole(size))
        .await
        .expect("ffmpeg");
    advances(&mut player, 0, colour, 10).await;
    player
}

async fn viewer(life: &Life) -> Player {
    let watch = Watch {
        size: CANVAS,
        regions: vec![CANVAS.whole(), FIRST],
    };
    let player = Player::start(&life.urls.plain("a"), watch).await;
    player.expect("ffmpeg")
}

/// Waits until the sub's place shows the main again.
async fn alone(life: &Life) {
    life.until("there is no mix", "/api/v1/mixes", |all| {
        all["mixes"].as_array().is_some_and(Vec::is_empty)
    })
    .await;
}

/// A link of `a` with `b`, accepted; and both publish with the URLs that it gave.
async fn begin(life: &Life) -> (Publisher, Publisher) {
    let wish = json!({"id": "show", "app": "live", "main": "a", "sub": "b", "push_urls": true,
        "limits": {"gone": "45s"}});
    let made = life.post("/api/v1/links", &wish, 201).await;
    assert_eq!(made["state"], "requested");
    // A client that did not hear the answer asks again.
    assert_eq!(
        life.post("/api/v1/links", &wish, 200).await["created_at"],
        made["created_at"]
    );
    assert!(plays(&made, "a").is_empty() && plays(&made, "b").is_empty());
    let accepted = life.act("accept", json!({"sub": "b"})).await;
    assert_eq!(accepted["state"], "accepted");
    assert_eq!(party(&accepted, "a")["encoder"]["width"], 540);
    assert_eq!(party(&accepted, "b")["encoder"]["video_kbps_max"], 350);
    let push = |stream: &str| {
        let url = party(&accepted, stream)["push"]["url"].as_str();
        url.expect("a push URL").to_owned()
    };
    let a = Publisher::start(&push("a"), &main()).expect("ffmpeg");
    let b = Publisher::start(&push("b"), &sub()).expect("ffmpeg");
    let live = life
        .link("it is live", |link| link["state"] == "live")
        .await;
    assert_eq!(live["reason"], Value::Null);
    (a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_lives_from_its_request_to_its_end_before_viewers_and_anchors() {
    let home = Home::found("").await;
    let life = home.begin().await;
    let (_a, b) = begin(&life).await;
    let link = life.get("/api/v1/links/show").await;
    // Each anchor plays the other's own stream, by the URLs that it was given: no mix is in it.
    let (to_a, to_b) = (plays(&link, "a"), plays(&link, "b"));
    assert_eq!((to_a[0].0.as_str(), to_b[0].0.as_str()), ("b", "a"));
    drop(sees(&to_a[0].1, sub().size, Colour::RED).await);
    drop(sees(&to_b[0].1, CANVAS, Colour::BLUE).await);
    let mut viewer = viewer(&life).await;
    advances(&mut viewer, 0, Colour::BLUE, 10).await;
    advances(&mut viewer, 1, Colour::RED, 10).await;
    let mix = life
        .link("its mix", |link| link["mix"]["state"] == "live")
        .await;
    assert_eq!(
        mix["mix"],
        json!({"id": "link.show", "state": "live", "error": null})
    );

    // Another sub joins, and has URLs to both.
    life.act("invite", json!({"sub": "c"})).await;
    let three = life.act("accept", json!({"sub": "c"})).await;
    assert_eq!(plays(&three, "c").len(), 2);
    assert_eq!(plays(&three, "b").len(), 2);
    let c = publish(&life.urls, &life.api, "c", &sub()).await;
    let inputs =
        |count: usize| move |mix: &Value| mix["inputs"].as_array().map(Vec::len) == Some(count);
    let path = "/api/v1/mixes/link.show";
    life.until("three in the mix", path, inputs(3)).await;
    life.act("leave", json!({"who": "c"})).await;
    life.until("two in the mix", path, inputs(2)).await;
    c.stop().await;
    advances(&mut viewer, 1, Colour::RED, 10).await;

    // The sub's encoder stops: its place is held, then the viewers have the main alone; it comes back.
    b.stop().await;
    alone(&life).await;
    assert_eq!(life.get("/api/v1/links/show").await["state"], "live");
    let _b = publish(&life.urls, &life.api, "b", &sub()).await;
    advances(&mut viewer, 1, Colour::RED, 10).await;

    let ended = life.act("leave", json!({"who": "b"})).await;
    assert_eq!(
        (&ended["state"], &ended["reason"]),
        (&json!("ended"), &json!("left"))
    );
    assert!(plays(&ended, "a").is_empty());
    alone(&life).await;
    advances(&mut viewer, 0, Colour::BLUE, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_link_is_live_again_after_a_kill_and_ends_when_nobody_comes() {
    let home = Home::found("").await;
    let life = home.begin().await;
    let streams = begin(&life).await;
    life.link("its mix", |link| link["mix"]["state"] == "live")
        .await;
    life.kill().await;
    drop(streams);

    let life = home.begin().await;
    let link = life.get("/api/v1/links/show").await;
    assert_eq!(link["state"], "live", "{link}");
    let _a = publish(&life.urls, &life.api, "a", &main()).await;
    let b = publish(&life.urls, &life.api, "b", &sub()).await;
    let mut viewer = viewer(&life).await;
    advances(&mut viewer, 1, Colour::RED, 10).await;
    // The mix is the one that was kept, not another.
    assert_eq!(life.get("/api/v1/mixes/link.show").await["revision"], 1);

    b.stop().await;
    let over = poll("it ends", SOON * 3, || async {
        let link = life.api.get("/api/v1/links/show").await.ok()?.json();
        (link["state"] == "ended").then_some(link)
    });
    let over = over.await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(over["reason"], "gone");
    alone(&life).await;
    life.kill().await;
    // An end is one after a kill, too.
    let life = home.begin().await;
    assert_eq!(life.get("/api/v1/links/show").await["state"], "ended");
    assert_eq!(life.get("/api/v1/mixes").await["mixes"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pk_shows_both_side_by_side_and_what_makes_no_sense_is_refused() {
    let home = Home::found("").await;
    let life = home.begin().await;
    let wish = |more: Value| {
        let mut wish =
            json!({"id": "show", "app": "live", "main": "a", "sub": "b", "layout": "pk"});
        let more = more.as_object().expect("an object").clone();
        wish.as_object_mut().expect("an object").extend(more);
        wish
    };
    for (more, field) in [
        (json!({"app": "elsewhere"}), "app: no application"),
        (json!({"main": "a b"}), "main: "),
        (json!({"sub": "a"}), "subs[0]: \"a\" stands there twice"),
        (json!({"sub": null}), "subs: say who"),
        (json!({"sub": null, "subs": ["b", "c"]}), "subs: 2 subs"),
        (json!({"id": "a/b"}), "id: "),
        (json!({"limits": {"answer": "0s"}}), "limits.answer: "),
        (
            json!({"limits": {"forever": true}}),
            "limits.forever: unknown field",
        ),
        (json!({"expires_in": "soon"}), "expires_in: "),
        (json!({"base": "rtmp://h/x"}), "base: "),
        (json!({"colour": "red"}), "colour: unknown field"),
    ] {
        let answer = life
            .api
            .post("/api/v1/links", &wish(more))
            .await
            .expect("an answer");
        assert_eq!(answer.status, 400, "{field}: {}", answer.body);
        let message = answer.json()["message"].clone();
        assert!(
            message.as_str().is_some_and(|m| m.starts_with(field)),
            "{message}"
        );
    }
    assert_eq!(life.get("/api/v1/links").await["links"], json!([]));
    life.post("/api/v1/links", &wish(json!({})), 201).await;
    let other = json!({"app": "live", "main": "a", "sub": "c"});
    life.post("/api/v1/links", &other, 409).await;
    life.post("/api/v1/links/show/invite", &json!({"sub": "c"}), 409)
        .await;
    life.post("/api/v1/links/show/leave", &json!({"who": "x"}), 400)
        .await;
    life.post("/api/v1/links/none/cancel", &json!({}), 404)
        .await;
    let accepted = life.act("accept", json!({})).await;
    assert_eq!(party(&accepted, "b")["encoder"]["video_kbps_min"], 800);
    assert_eq!(party(&accepted, "b")["push"], Value::Null);
    let _a = publish(&life.urls, &life.api, "a", &main()).await;
    let _b = publish(&life.urls, &life.api, "b", &sub()).await;
    let mix = life
        .until("it is mixed", "/api/v1/mixes/link.show", |mix| {
            mix["state"] == "live"
        })
        .await;
    assert_eq!(
        (&mix["output"]["width"], &mix["output"]["height"]),
        (&json!(720), &json!(640))
    );
    assert_eq!(
        (&mix["inputs"][1]["x"], &mix["inputs"][1]["width"]),
        (&json!(360), &json!(360))
    );
    let cancelled = life.act("cancel", json!({})).await;
    assert_eq!(cancelled["reason"], "cancelled");
    // Once more is no mistake.
    life.act("cancel", json!({})).await;
    life.post("/api/v1/links/show/accept", &json!({}), 409)
        .await;
    alone(&life).await;
}
