//! Callbacks of a server that is killed again and again: its back end hears of every publish in order, and each that was
//! begun is ended.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use linkmic::probe::process::poll;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{API_KEY, APPID};
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::home::Home;

/// How often the server is killed, and publishes in each of its lives.
const LIVES: usize = 6;
const CYCLES: usize = 7;

/// Takes every letter.
struct BackEnd {
    address: SocketAddr,
    letters: Arc<Mutex<Vec<Value>>>,
}

impl BackEnd {
    async fn open() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let letters: Arc<Mutex<Vec<Value>>> = Arc::default();
        let taken = letters.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = Vec::new();
                // A server that is killed leaves half a letter.
                while socket
                    .read_buf(&mut request)
                    .await
                    .is_ok_and(|read| read > 0)
                {
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
                    let Some(letter) = body.and_then(|body| serde_json::from_str(body).ok()) else {
                        continue;
                    };
                    taken.lock().expect("whole").push(letter);
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"code\":0}";
                    let _ = socket.write_all(answer).await;
                    break;
                }
            }
        });
        Self { address, letters }
    }

    /// What came, each once: type and sequence by stream, in the order of their first coming.
    fn heard(&self) -> HashMap<String, Vec<(u64, String)>> {
        let mut seen = HashSet::new();
        let mut heard: HashMap<String, Vec<_>> = HashMap::new();
        for letter in self.letters.lock().expect("whole").iter() {
            let text = |field: &str| letter[field].as_str().unwrap_or_default().to_owned();
            let item = (
                letter["event_type"].as_u64().unwrap_or(u64::MAX),
                text("sequence"),
            );
            if seen.insert(item.clone()) {
                heard.entry(text("stream_id")).or_default().push(item);
            }
        }
        heard
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn section_4_a_killed_server_owes_no_end_and_tells_nothing_out_of_order() {
    let back_end = BackEnd::open().await;
    let home = Home::without_mixes(&format!(
        "[[compat.accounts]]\nappid = {APPID}\napi_key = \"{API_KEY}\"\ncallback_url = \"http://{}/cb\"\n",
        back_end.address
    ));
    let mut granted = 0;
    for life in 0..LIVES {
        let server = home.begin().await;
        let urls = &server.urls;
        for cycle in 0..CYCLES {
            // Two names: one always comes back, one now and then.
            let a = Client::publish(&urls.push("a")).await.expect("granted");
            granted += 1;
            if (cycle + life) % 3 == 0 {
                let b = Client::publish(&urls.push("b")).await.expect("granted");
                granted += 1;
                drop(b);
            }
            if cycle + 1 < CYCLES {
                drop(a);
                let told = poll("all of it told", SOON, || async {
                    let heard = back_end.heard();
                    let count: usize = heard.values().map(Vec::len).sum();
                    (count >= 2 * granted).then_some(())
                });
                told.await.expect("it is told");
                continue;
            }
            // Killed while A publishes; in every other life once that was told of.
            if life % 2 == 0 {
                let told = poll("its start told", SOON, || async {
                    let heard = back_end.heard();
                    (heard.get("a")?.last()?.0 == 1).then_some(())
                });
                told.await.expect("it is told");
            }
            server.kill().await;
            break;
        }
    }
    // The last life only sends what is owed.
    let _server = home.begin().await;
    let settled = poll("every start to have its end", SOON, || async {
        let heard = back_end.heard();
        let ends = |list: &Vec<(u64, String)>| list.last().is_some_and(|last| last.0 == 0);
        let count: usize = heard.values().map(Vec::len).sum();
        let all = count >= 2 * granted;
        (all && heard.values().all(ends)).then_some(heard)
    });
    let heard = settled
        .await
        .unwrap_or_else(|e| panic!("{e}; {granted} granted, heard {:?}", back_end.heard()));
    for (stream, letters) in heard {
        for pair in letters.chunks(2) {
            let [(1, begun), (0, ended)] = pair else {
                panic!("{stream}: {pair:?} in {letters:?}");
            };
            assert_eq!(begun, ended, "{stream}: {letters:?}");
        }
    }
}
