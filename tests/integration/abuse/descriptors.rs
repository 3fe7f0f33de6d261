//! More connections than this process may have files open.

use std::time::Duration;

use linkmic::probe::process::poll;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::binary::Binary;
use super::healthy::Healthy;
use crate::edge::SOON;
use crate::edge::client::Client;

/// Starts a program with few files, of which it may not have more.
const FEW: [&str; 4] = ["sh", "-c", "ulimit -n 100; exec \"$@\"", "sh"];
/// The same, of which it may have as many as the shell.
const LOW: [&str; 4] = ["sh", "-c", "ulimit -Sn 100; exec \"$@\"", "sh"];

/// Connections that say nothing: the server waits for them to begin.
async fn crowd(server: &Binary, count: usize) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for n in 0..count {
        let door = if n % 2 == 0 {
            server.urls.rtmp()
        } else {
            server.http
        };
        let socket = TcpStream::connect(door).await.expect("the kernel takes it");
        crowd.push(socket);
    }
    crowd
}

/// How many of these the server has not closed.
async fn open(crowd: &mut [TcpStream]) -> usize {
    let mut open = 0;
    for socket in crowd {
        let read = timeout(Duration::from_millis(1), socket.read(&mut [0; 16])).await;
        open += usize::from(read.is_err());
    }
    open
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_plane_answers_when_connections_have_used_up_the_files() {
    let mut server = Binary::serve_under(&FEW, "[limits]\nhandshake = \"1h\"").await;
    let mut crowd = crowd(&server, 150).await;
    // 100 files, of which 64 are kept back.
    let refused = poll("all but 36 to be refused", SOON, || async {
        let numbers = server.control.get("/metrics").await.ok()?.body;
        numbers
            .contains("linkmic_limits_refused_total{limit=\"connections\"} 114\n")
            .then_some(())
    });
    refused.await.expect("they are refused and counted");
    assert_eq!(open(&mut crowd).await, 36);
    let health = server.control.get("/healthz").await.expect("an answer");
    assert_eq!(health.status, 200);
    let said = server.said();
    let warned = said
        .matches("this process may have 100: there will be 36")
        .count();
    assert_eq!(warned, 1, "{said}");
    assert!(!said.contains("cannot accept connections"), "{said}");
    server.assert_alive();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_streams_miss_nothing_when_the_files_are_used_up_and_others_come_in_when_there_are_some_again()
 {
    let server = Binary::serve_under(&FEW, "[limits]\nhandshake = \"1h\"").await;
    let healthy = Healthy::start_with(&server.urls, 2).await;
    let mut crowd = crowd(&server, 150).await;
    let places = 36 - healthy.connections();
    let full = poll("the rest to be refused", SOON, || async {
        let numbers = server.control.get("/metrics").await.ok()?.body;
        let refused = 150 - places;
        let line = format!("linkmic_limits_refused_total{{limit=\"connections\"}} {refused}\n");
        numbers.contains(&line).then_some(())
    });
    full.await.expect("they are refused and counted");
    assert_eq!(open(&mut crowd).await, places);
    let late = Client::publish_if_there(&server.urls.push("late")).await;
    assert!(late.is_none(), "there is no place for it");
    drop(crowd);
    let late = poll("a place", SOON, || async {
        Client::publish_if_there(&server.urls.push("late")).await
    });
    late.await.expect("there is a place").unpublish().await;
    healthy.assert_nothing_missed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_low_limit_that_may_be_raised_is_raised() {
    let server = Binary::serve_under(&LOW, "[limits]\nhandshake = \"1h\"").await;
    let mut crowd = crowd(&server, 150).await;
    let accepted = poll("all to be accepted", SOON, || async {
        let health = server.control.get("/healthz").await.ok()?;
        assert_eq!(health.status, 200);
        (server.metrics().await.value("linkmic_ingest_connections") >= 75.0).then_some(())
    });
    accepted.await.expect("they are accepted");
    assert_eq!(open(&mut crowd).await, 150);
    assert!(!server.said().contains("open files"), "{}", server.said());
}
