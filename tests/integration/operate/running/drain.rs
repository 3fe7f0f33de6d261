//! Going down without haste: SIGTERM and the API.

use std::time::Duration;

use linkmic::probe::process::poll;
use serde_json::Value;

use crate::abuse::binary::Binary;
use crate::edge::SOON;
use crate::edge::client::{Client, No};
use crate::edge::house::House;
use crate::edge::live::{GOP, Live, Watcher};

const KBIT_350: usize = 350_000;

async fn until_pictures(reader: &Watcher, count: usize) {
    let seen = poll("pictures", SOON, || async {
        reader.look(|got| (got.pictures.len() >= count).then_some(()))
    });
    seen.await.unwrap_or_else(|e| panic!("{e}"));
}

async fn ready(server: &Binary) -> u16 {
    let open = linkmic::probe::http::Client::new(server.http, None);
    open.get("/readyz").await.expect("an answer").status
}

async fn until_draining(server: &Binary) {
    let draining = poll("not ready any more", SOON, || async {
        (ready(server).await == 503).then_some(())
    });
    draining.await.unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_takes_no_new_publisher_serves_who_is_there_and_ends_when_they_have_gone() {
    let mut server = Binary::serve("[drain]\ndeadline = \"10m\"\n").await;
    let live = Live::start(&server.urls.push("a"), KBIT_350).await;
    let reader = Watcher::start(&server.urls.plain("a"), &live.sent).await;
    until_pictures(&reader, 1).await;
    assert_eq!(ready(&server).await, 200);
    server.signal("TERM").await;
    until_draining(&server).await;
    let refused = Client::publish(&server.urls.push("b")).await;
    let No { description, .. } = refused.err().expect("it is going down");
    assert!(
        description.contains("takes no new publishers"),
        "{description}"
    );
    assert!(description.ends_with("[shutdown]"), "{description}");
    let host = server
        .control
        .get("/api/v1/host")
        .await
        .expect("an answer")
        .json();
    assert_eq!(host["state"], "draining");
    assert_eq!(host["can_accept"]["publisher"]["accepts"], false);
    // What is here goes on for who sees it, and for who comes to see it.
    let late = Watcher::start(&server.urls.plain("a"), &live.sent).await;
    let seen = reader.look(|got| got.pictures.len());
    until_pictures(&reader, seen + 2 * GOP as usize).await;
    until_pictures(&late, GOP as usize).await;
    server.assert_alive();
    drop(live);
    server.ended_within(SOON).await;
    reader.look(|got| {
        assert!(
            got.pictures
                .windows(2)
                .all(|p| p[1].number == p[0].number + 1)
        )
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_drain_at_once() {
    let mut server = Binary::serve("[drain]\ndeadline = \"10m\"\n").await;
    let _live = Live::start(&server.urls.push("a"), KBIT_350).await;
    server.signal("TERM").await;
    until_draining(&server).await;
    server.assert_alive();
    server.signal("TERM").await;
    server.ended_within(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_deadline_a_push_ends_in_front_of_a_key_frame_and_the_server_is_gone() {
    let target = House::open_with("push = \"open\"", "").await;
    let rule = format!(
        "[[push.rules]]\napp = \"live\"\nmatch = \"a\"\nurl = \"{}\"\n",
        target.urls.plain("copy")
    );
    let mut server = Binary::serve(&rule).await;
    let live = Live::start(&server.urls.push("a"), KBIT_350).await;
    let copy = Watcher::start(&target.urls.plain("copy"), &live.sent).await;
    until_pictures(&copy, GOP as usize).await;
    let asked = server
        .control
        .post("/api/v1/drain?deadline=6s", &Value::Null)
        .await;
    let asked = asked.expect("an answer");
    assert_eq!(asked.status, 202, "{}", asked.body);
    assert_eq!(asked.json()["publishers"], 1, "{}", asked.body);
    // Nobody goes by himself.
    server.ended_within(Duration::from_secs(6) + SOON).await;
    let ended = poll("the end of the copy", SOON, || async {
        copy.look(|got| got.ended.clone())
    });
    ended.await.unwrap_or_else(|e| panic!("{e}"));
    copy.look(|got| {
        let last = got.pictures.last().expect("some").number;
        assert_eq!((last + 1) % GOP, 0, "picture {last} is the last of its GOP");
    });
}
