//! The back end that is asked: who it refuses hears so, over RTMP and HTTP, and what no answer means is configured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use linkmic::probe::http;
use linkmic::probe::process::poll;
use serde_json::json;
use tokio::sync::Notify;

use super::receiver::{Receiver, Reply, Request};
use super::told::metric;
use crate::edge::SOON;
use crate::edge::client::{Client, No};
use crate::edge::clip::clip;
use crate::edge::house::House;
use crate::edge::programs::{Player, Publisher, recorded};
use crate::home::Home;

fn authorize(url: &str, more: &str) -> String {
    format!("[hooks]\nauthorize = {{ url = \"{url}\", {more} }}\n")
}

/// What the public listener says to a request for a stream.
async fn http_flv(house: &House, name: &str) -> http::Answer {
    let client = http::Client::new(house.server.http_addr(), None);
    let answer = client.get(&format!("/live/{name}.flv")).await;
    answer.expect("an answer")
}

fn is_for(request: &Request, name: &str) -> bool {
    request.json["stream"] == name
}

#[tokio::test]
async fn the_native_form_grants_and_refuses_publishers_and_players() {
    let back_end = Receiver::deciding(None, |request, _| match () {
        () if is_for(request, "refused") => Reply::Says(
            200,
            "{\"allow\": false, \"message\": \"the room is closed\"}",
        ),
        () if is_for(request, "unwanted") => Reply::Says(403, ""),
        () if request.json["action"] == "play" => Reply::Says(200, "{\"allow\": true}"),
        () => Reply::Says(204, ""),
    })
    .await;
    let house = House::open_with(
        "",
        &authorize(&back_end.url("/may"), "secret = \"ask-0123456789abcdef\""),
    )
    .await;
    let _publisher = Client::publish(&house.urls.push("a"))
        .await
        .expect("granted");
    let _player = Client::play(&house.urls.peer("a")).await.expect("granted");
    let asked = back_end.requests();
    let question = &asked[0].json;
    for (field, value) in [
        ("action", json!("publish")),
        ("app", json!("live")),
        ("stream", json!("a")),
        ("address", json!("127.0.0.1")),
        ("key", json!("main")),
        ("feed", json!(null)),
    ] {
        assert_eq!(question[field], value, "{question}");
    }
    assert!(
        question["query"]
            .as_str()
            .is_some_and(|query| query.contains("txSecret="))
    );
    assert_eq!(
        (&asked[1].json["action"], &asked[1].json["feed"]),
        (&json!("play"), &json!("source"))
    );
    assert!(
        asked
            .iter()
            .all(|r| r.headers["webhook-signature"].starts_with("v1,"))
    );

    let refused = Client::publish(&house.urls.push("refused")).await.err();
    let No { code, description } = refused.expect("it is refused");
    assert_eq!(code, "NetStream.Publish.Denied");
    assert!(
        description.contains("the room is closed")
            && description.contains("[hook_denied] (18/503)"),
        "{description}"
    );
    let refused = Client::play(&house.urls.plain("unwanted")).await.err();
    assert!(
        refused
            .expect("it is refused")
            .description
            .contains("hook_denied")
    );
    let answer = http_flv(&house, "unwanted").await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.body.contains("hook_denied"), "{answer:?}");
    for (series, count) in [
        (
            "linkmic_hooks_authorize_total{action=\"publish\",outcome=\"granted\"}",
            1.0,
        ),
        (
            "linkmic_hooks_authorize_total{action=\"publish\",outcome=\"denied\"}",
            1.0,
        ),
        (
            "linkmic_hooks_authorize_total{action=\"play\",outcome=\"denied\"}",
            2.0,
        ),
        (
            "linkmic_hooks_authorize_seconds_count{action=\"play\"}",
            3.0,
        ),
        (
            "linkmic_auth_decisions_total{action=\"play\",outcome=\"hook_denied\"}",
            2.0,
        ),
    ] {
        assert_eq!(metric(&house, series).await, count, "{series}");
    }

    // Who has no signature is refused without a question.
    let before = back_end.requests().len();
    assert!(Client::publish(&house.urls.plain("b")).await.is_err());
    assert_eq!(back_end.requests().len(), before);
}

#[tokio::test]
async fn a_back_end_that_was_written_for_srs_is_asked_as_srs_asks() {
    let back_end = Receiver::deciding(None, |request, _| match request.json["stream"].as_str() {
        Some("zero") => Reply::Says(200, "0"),
        Some("code") => Reply::Says(200, "{\"code\": 0, \"data\": null}"),
        _ => Reply::Says(200, "{\"code\": 1}"),
    })
    .await;
    let house = House::open_with("", &authorize(&back_end.url("/srs"), "style = \"srs\"")).await;
    for name in ["zero", "code"] {
        let url = format!("{}&room=7", house.urls.push(name));
        let _publisher = Client::publish(&url).await.expect("granted");
        let _player = Client::play(&house.urls.plain(name))
            .await
            .expect("granted");
    }
    let asked = back_end.requests();
    assert_eq!(asked.len(), 4);
    for (request, action) in asked.iter().zip(["on_publish", "on_play"].repeat(2)) {
        let question = &request.json;
        assert_eq!(question["action"], action);
        for field in [
            "server_id",
            "client_id",
            "ip",
            "vhost",
            "app",
            "tcUrl",
            "stream",
            "param",
            "stream_url",
            "stream_id",
        ] {
            assert!(question[field].is_string(), "{field}: {question}");
        }
        assert_eq!(
            (&question["ip"], &question["app"]),
            (&json!("127.0.0.1"), &json!("live"))
        );
    }
    let param = asked[0].json["param"].as_str().expect("a text");
    assert!(
        param.starts_with("?txSecret=") && param.ends_with("&room=7"),
        "{param}"
    );
    let refused = Client::publish(&house.urls.push("other")).await.err();
    assert_eq!(
        refused.expect("it is refused").code,
        "NetStream.Publish.Denied"
    );
    assert_eq!(http_flv(&house, "other").await.status, 403);
}

#[tokio::test]
async fn without_an_answer_in_time_the_configuration_decides() {
    let silent = Receiver::deciding(None, |_, _| Reply::Silence).await;
    let short = |more: &str| format!("timeout = \"200ms\", {more}");
    let house = House::open_with(
        "",
        &authorize(&silent.url("/"), &short("on_failure = \"deny\"")),
    )
    .await;
    let begin = Instant::now();
    let refused = Client::publish(&house.urls.push("a"))
        .await
        .err()
        .expect("it is refused");
    assert!(begin.elapsed() >= Duration::from_millis(200));
    assert!(refused.description.contains("hook_failed"), "{refused:?}");
    assert_eq!(http_flv(&house, "a").await.status, 503);
    assert_eq!(
        metric(
            &house,
            "linkmic_hooks_authorize_total{action=\"publish\",outcome=\"timeout\"}"
        )
        .await,
        1.0
    );

    let house = House::open_with(
        "",
        &authorize(&silent.url("/"), &short("on_failure = \"allow\"")),
    )
    .await;
    let _publisher = Client::publish(&house.urls.push("a"))
        .await
        .expect("granted");
    let _player = Client::play(&house.urls.plain("a")).await.expect("granted");

    // Nobody listens there, so there is no waiting.
    let house = House::open_with("", &authorize("http://127.0.0.1:1/", "timeout = \"8s\"")).await;
    let begin = Instant::now();
    assert!(Client::publish(&house.urls.push("a")).await.is_err());
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(
        metric(
            &house,
            "linkmic_hooks_authorize_total{action=\"publish\",outcome=\"error\"}"
        )
        .await,
        1.0
    );
}

#[tokio::test]
async fn who_waits_for_an_answer_holds_up_no_other_publisher_of_his_lane() {
    let back_end = Receiver::deciding(None, |request, _| match is_for(request, "slow") {
        true => Reply::Silence,
        false => Reply::Says(200, ""),
    })
    .await;
    let house = House::open_with("", &authorize(&back_end.url("/"), "timeout = \"5s\"")).await;
    let slow = house.urls.push("slow");
    let slow = tokio::spawn(async move { Client::publish(&slow).await.err() });
    back_end.wait(1).await;
    let begin = Instant::now();
    for n in 0..10 {
        let name = format!("s{n}");
        Client::publish(&house.urls.push(&name))
            .await
            .expect("granted")
            .unpublish()
            .await;
    }
    assert!(
        !slow.is_finished() && begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    assert!(slow.await.expect("no panic").is_some());
}

#[tokio::test]
async fn who_is_granted_after_a_drain_has_begun_does_not_begin_to_publish() {
    let answer = Arc::<Notify>::default();
    let when = answer.clone();
    let back_end = Receiver::deciding(None, move |request, _| match is_for(request, "late") {
        true => Reply::Later(when.clone(), 200),
        false => Reply::Says(200, ""),
    })
    .await;
    let asked = authorize(&back_end.url("/"), "timeout = \"8s\"");
    let home = Home::without_mixes(&format!("{asked}[drain]\ndeadline = \"10m\"\n"));
    let life = home.begin().await;
    // Somebody for whom it is waited.
    let _there = Client::publish(&life.urls.push("a"))
        .await
        .expect("granted");
    let late = life.urls.push("late");
    let late = tokio::spawn(async move { Client::publish(&late).await.err() });
    let for_late = |all: &[Request]| all.iter().any(|one| is_for(one, "late")).then_some(());
    back_end.until("the question", for_late).await;
    let drained = life.api.post("/api/v1/drain", &json!(null)).await;
    assert_eq!(drained.expect("an answer").status, 202);
    let closed = poll("nobody else may publish", SOON, || async {
        Client::publish(&life.urls.push("b")).await.err()
    });
    closed.await.unwrap_or_else(|e| panic!("{e}"));
    answer.notify_one();
    let No { description, .. } = late.await.expect("no panic").expect("it is refused");
    assert!(
        description.contains("takes no new publishers") && description.contains("[shutdown]"),
        "{description}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_of_the_field_hear_what_the_back_end_says() {
    let back_end = Receiver::deciding(None, |request, _| match is_for(request, "refused") {
        true => Reply::Says(
            200,
            "{\"allow\": false, \"message\": \"the room is closed\"}",
        ),
        false => Reply::Says(200, ""),
    })
    .await;
    let house = House::open_with("", &authorize(&back_end.url("/"), "timeout = \"8s\"")).await;
    let file = clip().await.path();
    let folder = tempfile::tempdir().expect("a folder");
    let nothing = folder.path().join("nothing.flv");
    let refused = [
        Publisher::Ffmpeg.start(file, &house.urls.push("refused")),
        Publisher::Rtmp2Sink.start(file, &house.urls.push("refused")),
        Player::Rtmpdump.start(&house.urls.plain("refused"), &nothing),
    ];
    for mut program in refused {
        let ended = program.end(SOON).await.expect("it ends by itself");
        assert!(!ended.success(), "{}", program.said());
        // What it said may be read a moment after its end.
        let heard = poll("its last words", SOON, || async {
            program.said().contains("the room is closed").then_some(())
        });
        let heard = heard.await;
        heard.unwrap_or_else(|e| panic!("{e}: {}", program.said()));
    }
    let recording = folder.path().join("good.flv");
    let mut player = Player::Ffmpeg.start(&house.http_flv("good"), &recording);
    let mut publisher = Publisher::Ffmpeg.start(file, &house.urls.push("good"));
    publisher
        .success(SOON)
        .await
        .expect("it publishes all of it");
    player.success(SOON).await.expect("it plays to the end");
    assert!(!recorded(&recording).is_empty());
}
