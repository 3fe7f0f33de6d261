//! Callbacks of a server that is killed again and again: its back end hears of every publish in order, and each that was
//! begun is ended.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use linkmic::config::{Config, Env};
use linkmic::probe::process::{Process, poll};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{API_KEY, APPID};
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::house::{Urls, configuration};

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

/// A state directory that outlives its servers.
struct Place {
    file: String,
    config: Config,
    _folder: TempDir,
}

impl Place {
    fn new(back_end: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let more = format!(
            "[[compat.accounts]]\nappid = {APPID}\napi_key = \"{API_KEY}\"\n\
             callback_url = \"http://{back_end}/cb\"\n[log]\nformat = \"json\"\n"
        );
        let text = configuration(&folder.path().join("state"), "", &more);
        let file = folder.path().join("linkmic.toml");
        std::fs::write(&file, &text).expect("the file");
        Self {
            file: file.display().to_string(),
            config: Config::parse(&text, "test", &Env::default()).expect("a configuration"),
            _folder: folder,
        }
    }

    async fn serve(&self) -> (Process, Urls) {
        let arguments = ["serve", "--config", &self.file];
        let process = Process::spawn(env!("CARGO_BIN_EXE_linkmic"), &arguments).expect("it runs");
        let listening = |line: &str| -> Option<SocketAddr> {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening").then_some(())?;
            let list = line["rtmp"].as_str()?;
            list.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
        };
        let found = poll("the server to listen", SOON, || async {
            process.said().lines().find_map(listening)
        });
        let rtmp = found
            .await
            .unwrap_or_else(|e| panic!("{e}\n{}", process.said()));
        (process, Urls::new(rtmp, &self.config))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn section_4_a_killed_server_owes_no_end_and_tells_nothing_out_of_order() {
    let back_end = BackEnd::open().await;
    let place = Place::new(back_end.address);
    let (mut granted, mut unsure) = (0, 0);
    for life in 0..LIVES {
        let (mut server, urls) = place.serve().await;
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
                    (count >= 2 * (granted - unsure)).then_some(())
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
            // What was granted in the milliseconds before a kill may not be on the disk yet.
            unsure += usize::from(life % 2 == 1) + usize::from((cycle + life) % 3 == 0);
            server.kill().await;
            break;
        }
    }
    // The last life only sends what is owed.
    let (_server, _) = place.serve().await;
    let settled = poll("every start to have its end", SOON, || async {
        let heard = back_end.heard();
        let ends = |list: &Vec<(u64, String)>| list.last().is_some_and(|last| last.0 == 0);
        let count: usize = heard.values().map(Vec::len).sum();
        let all = count >= 2 * (granted - unsure);
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
