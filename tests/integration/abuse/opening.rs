//! A server that starts: nobody comes in before everything that judges is there, and the control plane is nobody's.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::{Duration, Instant};

use linkmic::config::{Config, Env};
use linkmic::probe::http;
use linkmic::probe::process::{Process, poll};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::raw::{self, asking};
use crate::edge::SOON;
use crate::edge::house::configuration;

/// Starts whose very first client is looked at.
const STARTS: usize = 3;

/// Addresses that are free now.
fn free<const N: usize>() -> [SocketAddr; N] {
    let held = [(); N].map(|()| StdListener::bind("127.0.0.1:0").expect("a port"));
    held.map(|listener| listener.local_addr().expect("a port"))
}

fn serve(folder: &std::path::Path, text: &str) -> Process {
    let file = folder.join("linkmic.toml");
    std::fs::write(&file, text).expect("the configuration file");
    let file = file.display().to_string();
    Process::spawn(env!("CARGO_BIN_EXE_linkmic"), &["serve", "--config", &file])
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Everything the server says to a client that asks to publish without a signature, as soon as it listens.
async fn first_words(address: SocketAddr) -> Vec<u8> {
    let begin = Instant::now();
    let mut socket = loop {
        match TcpStream::connect(address).await {
            Ok(socket) => break socket,
            Err(_) => assert!(begin.elapsed() < SOON, "nobody listens"),
        }
        sleep(Duration::from_millis(1)).await;
    };
    let mut bytes = raw::c0_c1();
    bytes.resize(2 * 1536 + 1, 0);
    bytes.extend_from_slice(&asking("publish", "a"));
    tokio::io::AsyncWriteExt::write_all(&mut socket, &bytes)
        .await
        .expect("it takes them");
    let mut said = Vec::new();
    let read = tokio::time::timeout(SOON, socket.read_to_end(&mut said)).await;
    read.expect("it closes").expect("in order");
    said
}

fn says(said: &[u8], words: &str) -> bool {
    said.windows(words.len()).any(|w| w == words.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_client_after_a_start_is_judged_and_never_told_success_before() {
    for start in 0..STARTS {
        let folder = tempfile::tempdir().expect("a folder");
        let [rtmp] = free();
        let text =
            configuration(folder.path(), "", "").replacen("127.0.0.1:0", &rtmp.to_string(), 1);
        let server = serve(folder.path(), &text);
        let said = first_words(rtmp).await;
        assert!(
            says(&said, "NetStream.Publish.Denied"),
            "start {start}: {}",
            server.said()
        );
        assert!(
            !says(&said, "NetStream.Publish.Start"),
            "start {start}: success, then a refusal"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_start_opens_no_door() {
    let folder = tempfile::tempdir().expect("a folder");
    let [rtmp, http] = free();
    // The last listener of all is the one that is taken.
    let taken = StdListener::bind("127.0.0.1:0").expect("a port");
    let control = taken.local_addr().expect("a port");
    let mut text = configuration(folder.path(), "", "");
    for address in [rtmp, http, control] {
        text = text.replacen("127.0.0.1:0", &address.to_string(), 1);
    }
    let mut server = serve(folder.path(), &text);
    // Whoever connects meanwhile may wait in the kernel's queue, but hears nothing.
    let watch = tokio::spawn(async move {
        loop {
            if let Ok(mut socket) = TcpStream::connect(rtmp).await {
                let hello = tokio::io::AsyncWriteExt::write_all(&mut socket, &raw::c0_c1()).await;
                let mut byte = [0];
                if hello.is_ok() && matches!(socket.read(&mut byte).await, Ok(1)) {
                    return;
                }
            }
            sleep(Duration::from_millis(1)).await;
        }
    });
    let status = server.end(SOON).await.expect("it ends");
    assert!(!status.success(), "{status}");
    // What it said last may be read a moment after its end.
    let named = poll("the listener that failed", SOON, || async {
        server.said().contains("control.listen").then_some(())
    });
    named
        .await
        .unwrap_or_else(|e| panic!("{e}: {}", server.said()));
    assert!(!watch.is_finished(), "somebody was served");
    watch.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_the_control_plane_is_on_loopback_and_asks_for_a_token() {
    let config = Config::parse("", "nothing", &Env::default()).expect("the defaults");
    assert!(config.control.listen.iter().all(|a| a.ip().is_loopback()));

    let folder = tempfile::tempdir().expect("a folder");
    let [control] = free();
    let text = configuration(folder.path(), "", "");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.retain(|line| !line.starts_with("token"));
    let at = lines
        .iter()
        .position(|line| line == "[control]")
        .expect("its section");
    lines[at + 1] = format!("listen = \"{control}\"");
    let server = serve(folder.path(), &lines.join("\n"));
    let client = http::Client::new(control, None);
    let answer = poll("an answer", SOON, || async {
        client.get("/api/v1/streams").await.ok()
    });
    let answer = answer
        .await
        .unwrap_or_else(|e| panic!("{e}: {}", server.said()));
    assert_eq!(answer.status, 401, "{}", answer.body);
    let token = std::fs::read_to_string(folder.path().join("control.token")).expect("a token");
    let client = http::Client::new(control, Some(token.trim()));
    let answer = client.get("/api/v1/streams").await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
}
