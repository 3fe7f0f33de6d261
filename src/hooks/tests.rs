//! Callbacks to a back end on a socket: order, retries, and what a killed server left open.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::relay::Query;

const KEY: &str = "5d41402abc4b2a76b9719d911017c592";

/// Takes letters, and refuses as many as it is told to first.
struct BackEnd {
    address: SocketAddr,
    letters: Arc<Mutex<Vec<Value>>>,
    statuses: Arc<Mutex<VecDeque<u16>>>,
}

impl BackEnd {
    async fn open(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let back_end = Self {
            address: listener.local_addr().unwrap(),
            letters: Arc::default(),
            statuses: Arc::new(Mutex::new(statuses.iter().copied().collect())),
        };
        let (letters, statuses) = (back_end.letters.clone(), back_end.statuses.clone());
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                let body = loop {
                    socket.read_buf(&mut request).await.unwrap();
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else {
                        continue;
                    };
                    let length = head
                        .lines()
                        .find_map(|line| line.strip_prefix("Content-Length: "))
                        .unwrap();
                    if body.len() == length.parse::<usize>().unwrap() {
                        assert!(head.contains("Content-Type: application/json"));
                        break body.to_owned();
                    }
                };
                let status = statuses.lock().unwrap().pop_front().unwrap_or(200);
                if status == 200 {
                    letters
                        .lock()
                        .unwrap()
                        .push(serde_json::from_str(&body).unwrap());
                }
                let answer =
                    format!("HTTP/1.1 {status} x\r\nContent-Length: 10\r\n\r\n{{\"code\":0}}");
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        back_end
    }

    async fn wait(&self, count: usize) -> Vec<Value> {
        let there = async {
            loop {
                let letters = self.letters.lock().unwrap().clone();
                if letters.len() >= count {
                    return letters;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), there)
            .await
            .unwrap()
    }
}

fn hooks(back_end: &BackEnd, store: &Store) -> Hooks {
    let reader = Reader {
        appid: 1_251_000_001,
        app: "live".into(),
        stream_prefix: "8888_".into(),
        address: Address::parse(&format!("http://{}/cb?a=1", back_end.address)).unwrap(),
        key: Secret::new(KEY),
    };
    let config = Config {
        readers: vec![reader],
        node: "192.0.2.1".into(),
        pause: Duration::from_millis(20),
    };
    Hooks::new(config, store.clone())
}

fn run(hooks: &Hooks, relay: &Relay) -> CancellationToken {
    let stop = CancellationToken::new();
    tokio::spawn(hooks.clone().write(relay.clone(), stop.clone()));
    tokio::spawn(hooks.clone().send(stop.clone()));
    stop
}

fn anchor(relay: &Relay, name: &str) -> crate::relay::Publisher {
    let origin = Origin::Anchor {
        address: ([203, 0, 113, 7], 50_412).into(),
        key_id: None,
        query: Query::new("bizid=8888&txSecret=x&live_id=7"),
    };
    let key = StreamKey::new("live", name).unwrap();
    relay.publish(&key, origin).unwrap()
}

async fn store() -> (Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Store::open(folder.path()).unwrap(), folder)
}

#[tokio::test]
async fn section_4_a_start_and_an_end_share_a_sequence_and_are_signed() {
    let (store, _folder) = store().await;
    let back_end = BackEnd::open(&[]).await;
    let relay = Relay::new(crate::relay::Config::default());
    let _stop = run(&hooks(&back_end, &store), &relay);
    tokio::task::yield_now().await;
    let publisher = anchor(&relay, "8888_a");
    // Nobody's, and a mix's.
    let _other = anchor(&relay, "9999_a");
    let key = StreamKey::new("live", "8888_mix").unwrap();
    let _mix = relay.publish(&key, Origin::Mix { id: "m".into() }).unwrap();
    back_end.wait(1).await;
    publisher.finish(Reason::Deleted);
    let letters = back_end.wait(2).await;
    let [start, end] = &letters[..] else {
        panic!("{letters:?}");
    };
    for letter in [start, end] {
        let t = letter["t"].as_u64().unwrap();
        let signed = letter::signed(
            "{}",
            &Secret::new(KEY),
            UNIX_EPOCH + Duration::from_secs(t - 600),
        );
        let signed: Value = serde_json::from_str(&signed.unwrap()).unwrap();
        assert_eq!(letter["sign"], signed["sign"]);
        for (field, value) in [
            ("stream_id", json!("8888_a")),
            ("channel_id", json!("8888_a")),
            ("appid", json!(1_251_000_001)),
            ("appname", json!("live")),
            ("user_ip", json!("203.0.113.7")),
            ("node", json!("192.0.2.1")),
            ("stream_param", json!("bizid=8888&txSecret=x&live_id=7")),
        ] {
            assert_eq!(letter[field], value, "{field}");
        }
    }
    assert_eq!(
        (&start["event_type"], &start["errcode"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(
        (&end["event_type"], &end["errcode"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(start["sequence"], end["sequence"]);
    assert!(
        end["push_duration"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .is_ok()
    );
}

#[test]
fn section_4_the_signature_of_the_documents() {
    let at = UNIX_EPOCH + Duration::from_secs(1_471_256_100 - 600);
    let letter = letter::signed("{}", &Secret::new(KEY), at).unwrap();
    let letter: Value = serde_json::from_str(&letter).unwrap();
    assert_eq!(letter["t"], 1_471_256_100);
    assert_eq!(letter["sign"], "952be57ae58a75680db704f49c857b3d");
}

#[tokio::test]
async fn a_back_end_that_fails_gets_all_of_it_in_order_later() {
    let (store, _folder) = store().await;
    let back_end = BackEnd::open(&[500, 302, 404, 503]).await;
    let relay = Relay::new(crate::relay::Config::default());
    let _stop = run(&hooks(&back_end, &store), &relay);
    tokio::task::yield_now().await;
    for _ in 0..3 {
        anchor(&relay, "8888_a").finish(Reason::Deleted);
    }
    let letters = back_end.wait(6).await;
    let types: Vec<_> = letters
        .iter()
        .map(|l| l["event_type"].as_u64().unwrap())
        .collect();
    assert_eq!(types, [1, 0, 1, 0, 1, 0]);
    for pair in letters.chunks(2) {
        assert_eq!(pair[0]["sequence"], pair[1]["sequence"]);
    }
}

#[tokio::test]
async fn what_a_killed_server_left_open_is_ended_by_the_next() {
    let (store, _folder) = store().await;
    let back_end = BackEnd::open(&[]).await;
    let relay = Relay::new(crate::relay::Config::default());
    let writing = {
        let hooks = hooks(&back_end, &store);
        tokio::spawn(hooks.write(relay.clone(), CancellationToken::new()))
    };
    tokio::task::yield_now().await;
    let publisher = anchor(&relay, "8888_a");
    while store.open_epochs().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    writing.abort();
    drop(publisher);
    // Nothing was sent yet. The next run has a relay of its own.
    let relay = Relay::new(crate::relay::Config::default());
    let _stop = run(&hooks(&back_end, &store), &relay);
    let letters = back_end.wait(2).await;
    assert_eq!(letters[0]["event_type"], 1);
    assert_eq!(letters[1]["event_type"], 0);
    assert_eq!(letters[0]["sequence"], letters[1]["sequence"]);
    assert!(store.open_epochs().await.unwrap().is_empty());
}

#[test]
fn a_letter_is_tried_twelve_times_more() {
    let now = UNIX_EPOCH;
    for attempts in 0..12 {
        assert_eq!(letter::again(attempts, now, PAUSE), Some(now + PAUSE));
    }
    assert_eq!(letter::again(12, now, PAUSE), None);
}

#[test]
fn addresses_are_of_plain_http() {
    for (text, ok) in [
        ("http://backend/cb", true),
        ("http://[::1]:8080/", true),
        ("https://backend/cb", false),
        ("http://user@backend/", false),
        ("backend", false),
    ] {
        assert_eq!(Address::parse(text).is_ok(), ok, "{text}");
    }
}

#[tokio::test]
async fn what_is_there_before_its_event_is_heard_is_told_once() {
    let (store, _folder) = store().await;
    let back_end = BackEnd::open(&[]).await;
    let relay = Relay::new(crate::relay::Config::default());
    let hooks = hooks(&back_end, &store);
    let mut events = relay.events();
    let publisher = anchor(&relay, "8888_a");
    let (mut open, mut changes) = (HashMap::new(), Vec::new());
    hooks.0.reconcile(&relay, &mut open, &mut changes);
    // An older epoch of the same name, whose events come late.
    let late = Event::Published {
        key: StreamKey::new("live", "8888_a").unwrap(),
        epoch: 0,
        origin: Origin::Anchor {
            address: ([203, 0, 113, 7], 1).into(),
            key_id: None,
            query: Query::default(),
        },
        stamp: crate::relay::Stamp {
            sequence: 1,
            at: SystemTime::now(),
        },
    };
    hooks.0.note(late, &mut open, &mut changes);
    publisher.finish(Reason::Deleted);
    while let Ok(event) = events.try_recv() {
        hooks.0.note(event, &mut open, &mut changes);
    }
    assert!(open.is_empty());
    hooks.0.keep(changes, &CancellationToken::new()).await;
    let due = store.due_letters(i64::MAX, 10).await.unwrap();
    assert_eq!(due.len(), 1, "one lane");
    store.letter_taken(due[0].id).await.unwrap();
    let due = store.due_letters(i64::MAX, 10).await.unwrap();
    assert!(due[0].body.contains("\"event_type\":0"), "{due:?}");
    store.letter_taken(due[0].id).await.unwrap();
    assert!(store.due_letters(i64::MAX, 10).await.unwrap().is_empty());
}
