//! More than the host may carry: who is refused, and that those who are in do not notice.

use linkmic::probe::process::poll;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::abuse::binary::Binary;
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::live::{GOP, Live, Watcher};

/// Of a stream, and so of a player.
const KBIT_350: usize = 350_000;
/// Players that its budget of 4 Mbit/s has room for, if a player takes 0.35 Mbit/s: 11.4.
const ROOM: usize = 11;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twice_as_many_as_the_host_may_carry_are_refused_with_why_and_who_is_in_misses_nothing() {
    let server = Binary::serve("[limits]\negress_mbps = 4\n").await;
    let live = Live::start(&server.urls.push("a"), KBIT_350).await;
    let first = Watcher::start(&server.urls.plain("a"), &live.sent).await;
    let known = poll("what a player takes is known", SOON, || async {
        let host = server.control.get("/api/v1/host").await.ok()?.json();
        (host["egress_mbps"]["used"].as_f64()? >= 0.3).then_some(())
    });
    known.await.unwrap_or_else(|e| panic!("{e}"));
    let (mut players, mut refused) = (vec![first], Vec::new());
    for _ in 1..2 * ROOM {
        match Client::play(&server.urls.plain("a")).await {
            Ok(client) => players.push(Watcher::watch(client, &live.sent)),
            Err(no) => refused.push(no.description),
        }
    }
    println!(
        "{} players are in, {} were refused",
        players.len(),
        refused.len()
    );
    // A second's bytes differ by a key frame more or less.
    assert!(
        (ROOM - 3..=ROOM + 3).contains(&players.len()),
        "{}",
        players.len()
    );
    for why in &refused {
        assert!(
            why.contains("the server sends") && why.contains("over 4 Mbit/s"),
            "{why}"
        );
        assert!(why.contains("[overloaded]"), "{why}");
    }
    let late = Client::publish(&server.urls.push("b")).await;
    let late = late
        .err()
        .expect("no room for publishers either")
        .description;
    assert!(late.contains("[overloaded]"), "{late}");
    let host = server
        .control
        .get("/api/v1/host")
        .await
        .expect("an answer")
        .json();
    for kind in ["player", "publisher"] {
        let verdict = &host["can_accept"][kind];
        assert_eq!(verdict["accepts"], false, "{host}");
        assert!(
            verdict["reason"]
                .as_str()
                .expect("a reason")
                .contains("4 Mbit/s"),
            "{host}"
        );
    }
    let metrics = server.metrics().await;
    for (series, value) in [
        ("linkmic_host_can_accept{kind=\"player\"}", 0.0),
        ("linkmic_host_can_accept{kind=\"publisher\"}", 0.0),
    ] {
        assert_eq!(metrics.value(series), value, "{series}");
    }
    assert!(
        metrics.value("linkmic_limits_refused_total{limit=\"egress_mbps\"}")
            >= refused.len() as f64
    );
    // Those who are in: every picture, in order, for three GOPs from here.
    for player in &players {
        let seen = player.look(|got| got.pictures.len());
        let more = poll("pictures", SOON, || async {
            player.look(|got| (got.pictures.len() > seen + 3 * GOP as usize).then_some(()))
        });
        more.await.unwrap_or_else(|e| panic!("{e}"));
        player.look(|got| {
            assert_eq!(got.ended, None);
            assert!(
                got.pictures
                    .windows(2)
                    .all(|p| p[1].number == p[0].number + 1)
            );
        });
    }
    // Half of them leave: there is room again.
    players.truncate(players.len() / 2);
    let again = poll("room for a publisher", SOON, || async {
        Client::publish(&server.urls.push("b")).await.ok()
    });
    again.await.unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_its_share_of_the_processor_nobody_else_comes_in_and_below_it_they_do_again() {
    let server = Binary::serve("").await;
    let live = Live::start(&server.urls.push("a"), KBIT_350).await;
    let player = Watcher::start(&server.urls.plain("a"), &live.sent).await;
    // Requests without end for each processor take more than a few hundredths of all of them.
    let stop = CancellationToken::new();
    let mut busy = JoinSet::new();
    for _ in 0..2 * std::thread::available_parallelism().map_or(1, usize::from) {
        let control = server.control.clone();
        busy.spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let _ = control.get("/metrics").await;
            }
        }));
    }
    let answer = server
        .reload_by_api("", "[limits]\ncpu_percent = 5\n")
        .await;
    assert_eq!(answer.json()["applied"], json!(["limits.cpu_percent"]));
    let refused = poll("a refusal", SOON, || async {
        Client::play(&server.urls.plain("a")).await.err()
    });
    let why = refused.await.unwrap_or_else(|e| panic!("{e}")).description;
    assert!(
        why.contains("of its processor time, and takes nobody in over 5 %"),
        "{why}"
    );
    stop.cancel();
    busy.join_all().await;
    // The last seconds are what counts.
    let again = poll("room", SOON, || async {
        Client::play(&server.urls.plain("a")).await.ok()
    });
    again.await.unwrap_or_else(|e| panic!("{e}"));
    player.look(|got| {
        assert_eq!(got.ended, None);
        let mut pairs = got.pictures.windows(2);
        assert!(pairs.all(|p| p[1].number == p[0].number + 1));
    });
}
