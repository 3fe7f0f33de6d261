//! Callbacks to a back end on a socket: order, retries, and what a killed server left open.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::scribe::Scribe;
use super::*;
use crate::reason::Reason;
use crate::relay::{Event, Origin, Query, Relay};
use crate::store::EpochChange;

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
                        .find_map(|line| line.strip_prefix("content-length: "))
                        .unwrap();
                    if body.len() == length.parse::<usize>().unwrap() {
                        assert!(head.contains("content-type: application/json"));
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

async fn hooks(back_end: &BackEnd, store: &Store) -> Hooks {
    let account = Account {
        appid: 1_251_000_001,
        app: "live".into(),
        stream_prefix: "8888_".into(),
        address: Address::parse(&format!("http://{}/cb?a=1", back_end.address)).unwrap(),
        key: Secret::new(KEY),
    };
    let config = Config {
        accounts: vec![account],
        webhooks: Vec::new(),
        node: "192.0.2.1".into(),
        pause: Duration::from_millis(20),
        trust: Trust::load(None).unwrap(),
    };
    let opened = Hooks::open(config, store.clone(), Metrics::new());
    opened.await.unwrap()
}

/// Hooks as [`hooks`] makes them, with as many webhooks whose back ends take connections and never answer.
async fn with_silent_webhooks(
    back_end: &BackEnd,
    store: &Store,
    count: usize,
) -> (Hooks, Vec<TcpListener>) {
    let mut config = hooks(back_end, store).await.0.config.clone();
    let mut silent = Vec::new();
    for _ in 0..count {
        // The kernel accepts for it.
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        config.webhooks.push(Webhook {
            address: Address::parse(&address).unwrap(),
            secret: Secret::new("x"),
            kinds: vec![Kind::Publish, Kind::Unpublish],
        });
        silent.push(listener);
    }
    let opened = Hooks::open(config, store.clone(), Metrics::new());
    (opened.await.unwrap(), silent)
}

/// The run before is over.
fn alone() -> CancellationToken {
    let gone = CancellationToken::new();
    gone.cancel();
    gone
}

fn run(hooks: &Hooks, relay: &Relay) -> CancellationToken {
    let stop = CancellationToken::new();
    tokio::spawn(hooks.clone().write(relay.clone(), stop.clone(), alone()));
    tokio::spawn(hooks.clone().send(stop.clone()));
    stop
}

fn anchor(relay: &Relay, name: &str) -> crate::relay::Publisher {
    let origin = Origin::Anchor {
        connection: crate::logging::ConnectionId::next(),
        address: ([203, 0, 113, 7], 50_412).into(),
        key_id: None,
        query: Query::new("bizid=8888&txSecret=x&live_id=7"),
    };
    let key = StreamKey::new("live", name).unwrap();
    relay.publish(&key, origin).unwrap()
}

/// As it is kept first.
fn told(lane: &str, account: i64, due_at: i64) -> EpochChange {
    EpochChange::Told(LetterRow {
        id: 0,
        lane: lane.to_owned(),
        account,
        body: json!({ "id": "1-1" }).to_string(),
        attempts: 0,
        due_at,
        created_at: 5,
        error: String::new(),
    })
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
    let _stop = run(&hooks(&back_end, &store).await, &relay);
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
    let _stop = run(&hooks(&back_end, &store).await, &relay);
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
        let hooks = hooks(&back_end, &store).await;
        tokio::spawn(hooks.write(relay.clone(), CancellationToken::new(), alone()))
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
    let _stop = run(&hooks(&back_end, &store).await, &relay);
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

#[tokio::test]
async fn what_is_there_before_its_event_is_heard_is_told_once() {
    let (store, _folder) = store().await;
    let back_end = BackEnd::open(&[]).await;
    let relay = Relay::new(crate::relay::Config::default());
    let hooks = hooks(&back_end, &store).await;
    let mut events = relay.events();
    let publisher = anchor(&relay, "8888_a");
    let mut scribe = Scribe::new(hooks.0.clone());
    scribe.reconcile(&relay);
    // An older epoch of the same name, whose events come late.
    let late = Event::Published {
        key: StreamKey::new("live", "8888_a").unwrap(),
        epoch: 0,
        origin: Origin::Anchor {
            connection: crate::logging::ConnectionId::next(),
            address: ([203, 0, 113, 7], 1).into(),
            key_id: None,
            query: Query::default(),
        },
        stamp: crate::relay::Stamp {
            sequence: 1,
            at: SystemTime::now(),
        },
    };
    scribe.note(late);
    publisher.finish(Reason::Deleted);
    while let Ok(event) = events.try_recv() {
        scribe.note(event);
    }
    assert!(scribe.is_idle());
    scribe.keep(&CancellationToken::new()).await;
    let due = || async {
        store
            .due_letters(i64::MAX, vec![], 10)
            .await
            .unwrap()
            .letters
    };
    let letters = due().await;
    assert_eq!(letters.len(), 1, "one lane");
    store.letter_taken(letters[0].id).await.unwrap();
    let letters = due().await;
    assert!(letters[0].body.contains("\"event_type\":0"), "{letters:?}");
    store.letter_taken(letters[0].id).await.unwrap();
    assert!(due().await.is_empty());
}

#[tokio::test]
async fn what_is_never_taken_is_dead_and_may_be_sent_again_or_forgotten() {
    let (store, _folder) = store().await;
    // Two letters of thirteen tries each.
    let back_end = BackEnd::open(&[500; 26]).await;
    let relay = Relay::new(crate::relay::Config::default());
    let hooks = hooks(&back_end, &store).await;
    let _stop = run(&hooks, &relay);
    tokio::task::yield_now().await;
    anchor(&relay, "8888_a").finish(Reason::Deleted);
    let dead = loop {
        let dead = hooks.dead(0, 10).await.unwrap();
        if dead.len() == 2 {
            break dead;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let [first, second] = &dead[..] else {
        panic!("{dead:?}");
    };
    assert_eq!((first.kind, first.row.attempts), ("callback", 13));
    assert_eq!(first.addressee.as_deref(), Some("1251000001"));
    assert_eq!(
        (first.stream.as_str(), first.row.error.as_str()),
        ("live/8888_a", "HTTP 500")
    );
    assert_eq!(hooks.dead(first.row.id, 10).await.unwrap(), dead[1..]);
    let state = hooks.outbox().await.unwrap();
    assert_eq!((state.waiting, state.dead, state.oldest_at), (0, 2, None));
    assert_eq!(
        hooks.forget(first.row.id).await.unwrap().as_ref(),
        Some(first)
    );
    assert_eq!(hooks.retry(first.row.id).await.unwrap(), None);
    assert!(hooks.retry(second.row.id).await.unwrap().is_some());
    let taken = back_end.wait(1).await;
    assert_eq!(taken[0]["event_type"], 0);
}

#[tokio::test]
async fn letters_of_many_lanes_are_due_each_lane_by_its_first() {
    let (store, _folder) = store().await;
    let letters = [
        ("b", 1, 0),
        ("a", 1, 0),
        ("b", 1, 0),
        ("c", 2, 0),
        ("d", 1, 70),
        ("e", 1, 60),
        ("d", 1, 0),
    ];
    let changes = letters.map(|(lane, account, due_at)| told(lane, account, due_at));
    assert_eq!(store.note_epochs(changes.to_vec()).await.unwrap(), 0);
    for (now, but, lanes, next_at) in [
        (50, vec![], &["b", "a", "c"][..], Some(60)),
        (50, vec![2], &["b", "a"], Some(60)),
        (65, vec![1, 2], &[], Some(70)),
        (70, vec![], &["b", "a", "c", "d", "e"], None),
    ] {
        let due = store.due_letters(now, but, 10).await.unwrap();
        let found: Vec<_> = due.letters.iter().map(|l| l.lane.as_str()).collect();
        assert_eq!((&found[..], due.next_at), (lanes, next_at), "{now}");
    }
}

#[tokio::test]
async fn runs_rise_also_when_the_clock_steps_back() {
    let (store, _folder) = store().await;
    let mut runs = Vec::new();
    for now in [1_000, 500, 500, 2_000] {
        runs.push(store.begin_run(now).await.unwrap());
    }
    assert_eq!(runs, [1_000, 1_001, 1_002, 2_000]);
}

#[tokio::test]
async fn the_outbox_is_bounded_and_the_dead_make_room_first() {
    let (store, _folder) = store().await;
    let letters = |count: usize| vec![told("a", 1, 0); count];
    assert_eq!(store.note_epochs(letters(100_003)).await.unwrap(), 3);
    assert_eq!(store.note_epochs(letters(1)).await.unwrap(), 1);
    store.letter_refused(1, None, "").await.unwrap();
    assert_eq!(store.note_epochs(letters(2)).await.unwrap(), 1);
    let state = store.outbox().await.unwrap();
    assert_eq!((state.waiting, state.dead), (100_000, 0));
}

#[tokio::test]
async fn back_ends_that_never_answer_hold_up_nobody_else_however_many_they_are() {
    let (store, _folder) = store().await;
    let back_end = BackEnd::open(&[]).await;
    let relay = Relay::new(crate::relay::Config::default());
    let (hooks, _silent) = with_silent_webhooks(&back_end, &store, 6).await;
    let _stop = run(&hooks, &relay);
    tokio::task::yield_now().await;
    let publishers: Vec<_> = (0..20)
        .map(|n| anchor(&relay, &format!("8888_{n}")))
        .collect();
    let begun = std::time::Instant::now();
    back_end.wait(publishers.len()).await;
    // Long before any of the silent ones is given up.
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn who_never_answers_holds_up_nobody_whose_letters_are_behind_all_of_his() {
    let (store, _folder) = store().await;
    let back_end = BackEnd::open(&[]).await;
    let (hooks, _silent) = with_silent_webhooks(&back_end, &store, 1).await;
    let silent = hooks.webhook_accounts()[0];
    let mut letters: Vec<_> = (0..500)
        .map(|n| told(&format!("a{n}"), silent, 0))
        .collect();
    letters.push(told("b", 1_251_000_001, 0));
    assert_eq!(store.note_epochs(letters).await.unwrap(), 0);
    let begun = std::time::Instant::now();
    tokio::spawn(hooks.send(CancellationToken::new()));
    back_end.wait(1).await;
    assert!(begun.elapsed() < Duration::from_secs(15));
}

/// Twice as many facts are more than the relay keeps for those who are behind.
const MISSED: usize = 600;

#[tokio::test]
async fn what_is_missed_of_the_relay_is_made_up_also_while_other_facts_are_told() {
    let (store, _folder) = store().await;
    let back_end = BackEnd::open(&[]).await;
    let relay = Relay::new(crate::relay::Config::default());
    let (hooks, _silent) = with_silent_webhooks(&back_end, &store, 1).await;
    let _stop = run(&hooks, &relay);
    tokio::task::yield_now().await;
    let mut publishers = Vec::new();
    // Who asks first is a matter of chance, each time.
    for round in 0..8 {
        publishers.push(anchor(&relay, &format!("8888_{round}")));
        for _ in 0..MISSED {
            anchor(&relay, "nobodys").finish(Reason::Deleted);
        }
        hooks.journal().tell(Fact {
            kind: Kind::Mix,
            stream: StreamKey::new("live", "m").unwrap(),
            at: SystemTime::now(),
            data: Value::Null,
        });
        back_end.wait(publishers.len()).await;
    }
}

#[tokio::test]
async fn a_letter_that_was_put_off_before_the_clock_was_set_back_is_due() {
    let (store, _folder) = store().await;
    let hour = 3_600_000;
    let letters = vec![told("a", 1, 2 * hour), told("b", 1, hour + 60_000)];
    assert_eq!(store.note_epochs(letters).await.unwrap(), 0);
    for (now, lanes, next_at) in [
        (2 * hour, &["a", "b"][..], None),
        (2 * hour - 60_000, &["b"], Some(2 * hour)),
        // It is an hour earlier than it was.
        (hour, &["a"], Some(hour + 60_000)),
        (0, &["a", "b"], None),
    ] {
        let due = store.due_letters(now, vec![], 10).await.unwrap();
        let found: Vec<_> = due.letters.iter().map(|l| l.lane.as_str()).collect();
        assert_eq!((&found[..], due.next_at), (lanes, next_at), "{now}");
    }
}

#[tokio::test]
async fn what_was_taken_while_that_could_not_be_kept_does_not_come_again() {
    let (store, _folder) = store().await;
    let back_end = BackEnd::open(&[]).await;
    let hooks = hooks(&back_end, &store).await;
    // Fails as a full disk does, at once.
    let full = "CREATE TRIGGER full BEFORE DELETE ON outbox BEGIN SELECT raise(FAIL, 'full'); END";
    store.execute(full).await.unwrap();
    let letters = vec![told("a", 1_251_000_001, 0)];
    assert_eq!(store.note_epochs(letters).await.unwrap(), 0);
    tokio::spawn(hooks.clone().send(CancellationToken::new()));
    let tried = "hooks_deliveries_total{kind=\"callback\",outcome=\"delivered\"} 1";
    while !String::from_utf8(hooks.0.metrics.encode())
        .unwrap()
        .contains(tried)
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.execute("DROP TRIGGER full").await.unwrap();
    while store.outbox().await.unwrap().waiting > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(back_end.wait(1).await.len(), 1);
}

#[tokio::test]
async fn a_server_that_ends_still_sends_the_ends_of_its_publishes_and_waits_for_no_silent_one() {
    let (store, _folder) = store().await;
    let back_end = BackEnd::open(&[]).await;
    let relay = Relay::new(crate::relay::Config::default());
    let (hooks, _silent) = with_silent_webhooks(&back_end, &store, 1).await;
    let stop = CancellationToken::new();
    tokio::spawn(hooks.clone().write(relay.clone(), stop.clone(), alone()));
    let sending = tokio::spawn(hooks.send(stop.clone()));
    tokio::task::yield_now().await;
    let publishers: Vec<_> = (0..20)
        .map(|n| anchor(&relay, &format!("8888_{n}")))
        .collect();
    back_end.wait(publishers.len()).await;
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(15), sending).await;
    ended.unwrap().unwrap();
    let letters = back_end.wait(2 * publishers.len()).await;
    let ends = letters.iter().filter(|letter| letter["event_type"] == 0);
    assert_eq!(ends.count(), publishers.len());
}

#[tokio::test]
async fn a_letter_on_its_way_when_the_state_is_handed_over_is_let_go_and_sent_again_when_it_is_back()
 {
    let (store, folder) = store().await;
    let back_end = BackEnd::open(&[]).await;
    let (hooks, silent) = with_silent_webhooks(&back_end, &store, 1).await;
    let account = hooks.webhook_accounts()[0];
    assert_eq!(
        store
            .note_epochs(vec![told("a", account, 0)])
            .await
            .unwrap(),
        0
    );
    let sending = tokio::spawn(hooks.clone().send(CancellationToken::new()));
    for _ in 0..3 {
        let (mut socket, _) = silent[0].accept().await.unwrap();
        store.hand_over().await;
        hooks.look();
        // Long before anybody loses patience with a back end that does not answer.
        let let_go = async { while socket.read(&mut [0; 4096]).await.unwrap() > 0 {} };
        let within = tokio::time::timeout(Duration::from_secs(10), let_go);
        within.await.expect("the connection ends");
        store.take_back(folder.path()).unwrap();
        hooks.look();
    }
    let _again = silent[0].accept().await.unwrap();
    assert!(!sending.is_finished());
}
