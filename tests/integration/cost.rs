//! What the server asks of the kernel for its players, counted by strace around the real binary.

use std::collections::HashMap;

use linkmic::probe::process::poll;
use linkmic::rtmp::kind;

use crate::abuse::binary::Binary;
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::clip::{clip, number_of, numbered};

const PLAYERS: u32 = 10;
const FRAMES: u32 = 300;
/// Every system call that writes to a socket here. `write` does not: by it one thread wakes another, once a message
/// however many players there are.
const WRITES: [&str; 5] = ["writev", "sendto", "sendmsg", "sendmmsg", "sendfile"];

/// Calls by name, of `strace -c`.
fn calls(summary: &str) -> HashMap<&str, u64> {
    let lines = summary
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>());
    lines
        .filter_map(|words| Some((*words.last()?, words.get(3)?.parse().ok()?)))
        .collect()
}

#[test]
fn a_summary_is_read_with_and_without_errors() {
    let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
                   ------ ----------- ----------- --------- --------- ------------------\n \
                   70.31    0.045000          11      4000         3 sendto\n \
                   29.69    0.019000          19      1000           write\n\
                   ------ ----------- ----------- --------- --------- ------------------\n\
                   100.00    0.064000          12      5000         3 total\n";
    let calls = calls(summary);
    assert_eq!(calls.get("sendto"), Some(&4_000));
    assert_eq!(calls.get("write"), Some(&1_000));
}

/// Frames go one at a time, each when every player has the one before, so that no two of them share a write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_video_frame_with_its_audio_is_one_write_for_each_player() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("summary");
    let report = file.display().to_string();
    // -D keeps the server our child, so that it is the server that is told to end.
    let mut strace = vec!["strace", "-D", "-f", "-c", "-o", &report];
    let filter = format!("trace={}", WRITES.join(","));
    strace.extend(["-e", &filter]);
    let mut server = Binary::serve_under(&strace, "").await;

    let mut publisher = Client::publish(&server.urls.push("cost"))
        .await
        .expect("granted");
    for header in clip().await.headers() {
        publisher.send_tag(header, 0).await;
    }
    publisher
        .send(kind::VIDEO, 0, numbered(0, true, 8_000))
        .await;
    let mut players = Vec::new();
    for _ in 0..PLAYERS {
        let player = Client::play(&server.urls.plain("cost")).await;
        players.push(player.expect("granted"));
    }
    for n in 0..=FRAMES {
        if n > 0 {
            // Together, so that the audio never waits longer for its ride than it may.
            let mut both = publisher.framed(kind::AUDIO, 33 * n - 10, vec![0xaf, 1, 0, 0].into());
            both.extend(publisher.framed(kind::VIDEO, 33 * n, numbered(n, false, 8_000).into()));
            publisher.send_raw(&both).await;
        }
        for player in &mut players {
            player
                .media_until(|m| number_of(&m.payload) == Some(n))
                .await;
        }
    }
    server.end().await;
    let summary = poll("strace to report", SOON, || async {
        let text = std::fs::read_to_string(&file).ok()?;
        text.trim_end().ends_with("total").then_some(text)
    });
    let summary = summary.await.expect("a summary");
    let calls = calls(&summary);
    let writes: u64 = WRITES.iter().filter_map(|name| calls.get(name)).sum();
    let each = writes as f64 / f64::from(PLAYERS * FRAMES);
    println!("{each:.3} writes per player and video frame, connecting included");
    // Below 1 something was not counted; a handshake, its answers and the joining burst are some 6 writes a player.
    assert!(
        (1.0..=1.1).contains(&each),
        "{each:.3} writes per player and video frame\n{summary}"
    );
}
