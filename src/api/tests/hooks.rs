//! Dead letters and event streams.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::examples::is_as_documented;
use super::*;
use crate::hooks::{Fact, Kind as Fact_};
use crate::store::{EpochChange, LetterRow};

/// One account and one webhook, of which nobody listens.
pub(super) async fn open_nobody(store: Store, metrics: Arc<Metrics>) -> Hooks {
    let address = |text: &str| crate::hooks::Address::parse(text).unwrap();
    let config = crate::hooks::Config {
        accounts: vec![crate::hooks::Account {
            appid: 1_251_000_001,
            app: "live".into(),
            stream_prefix: "8888_".into(),
            address: address("http://127.0.0.1:1/cb"),
            key: Secret::new("x"),
        }],
        webhooks: vec![crate::hooks::Webhook {
            address: address("http://127.0.0.1:1/hook?token=hunter2"),
            secret: Secret::new("x"),
            kinds: crate::hooks::Kind::ALL.to_vec(),
        }],
        node: "192.0.2.1".into(),
        pause: Duration::from_millis(1),
        trust: crate::net::tls::Trust::load(None).unwrap(),
    };
    Hooks::open(config, store, metrics).await.unwrap()
}

/// Dead letters of the webhook, and one of the account, which comes last.
async fn dead_letters(house: &House, webhooks: usize) {
    let fact = |n: usize| Fact {
        kind: Fact_::Publish,
        stream: key(),
        at: std::time::SystemTime::now(),
        data: json!({
            "epoch": n, "sequence": "1", "origin": "anchor", "address": "203.0.113.7",
            "connection": "5f3a9c21-17", "key": "main", "query": "",
        }),
    };
    let letter = |account: i64, body: String| {
        EpochChange::Told(LetterRow {
            id: 0,
            lane: format!("{account} {}", key()),
            account,
            body,
            attempts: 0,
            due_at: 0,
            created_at: 1_795_942_045_621,
            error: String::new(),
        })
    };
    let webhook = house.hooks.webhook_accounts()[0];
    let told = |n| house.hooks.journal().tell(fact(n)).text.clone();
    let mut letters: Vec<_> = (0..webhooks).map(|n| letter(webhook, told(n))).collect();
    let callback = json!({"event_type": 1, "stream_param": "txSecret=hunter2"});
    letters.push(letter(1_251_000_001, callback.to_string()));
    house.store.note_epochs(letters).await.unwrap();
    for id in 1..=webhooks as i64 + 1 {
        house
            .store
            .letter_refused(id, None, "HTTP 500")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn dead_letters_answer_as_documented_page_by_page_and_without_secrets() {
    let (house, client) = open(None).await;
    dead_letters(&house, 2).await;
    let mut after = 0;
    let mut found = Vec::new();
    loop {
        let path = format!("/api/v1/hooks/dead?limit=1&after={after}");
        let page = client.call("GET", &path, "").await;
        assert!(!page.body.contains("hunter2"), "{}", page.body);
        let page = page.json();
        let dead = page["dead"].as_array().unwrap();
        if dead[0]["kind"] == "webhook" {
            is_as_documented("hooks_dead", &page);
            assert_eq!(dead[0]["addressee"], "http://127.0.0.1:1/hook?***");
        }
        found.extend(dead.iter().map(|one| one["id"].as_i64().unwrap()));
        match page["next"].as_i64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(found, [1, 2, 3]);
    let all = client.call("GET", "/api/v1/hooks/dead", "").await.json();
    let last = &all["dead"][2];
    assert_eq!(
        (&last["kind"], &last["addressee"]),
        (&json!("callback"), &json!("1251000001"))
    );
    assert_eq!(all["next"], Value::Null);

    let retried = client.call("POST", "/api/v1/hooks/dead/1/retry", "").await;
    assert_eq!(retried.status, 202);
    is_as_documented("hook_dead", &retried.json());
    let forgotten = client.call("DELETE", "/api/v1/hooks/dead/2", "").await;
    assert_eq!(forgotten.status, 200);
    is_as_documented("hook_dead", &forgotten.json());
    for (method, path) in [
        ("POST", "/api/v1/hooks/dead/1/retry"),
        ("DELETE", "/api/v1/hooks/dead/1"),
        ("DELETE", "/api/v1/hooks/dead/2"),
    ] {
        is_error(&client.call(method, path, "").await, 404, "not_found");
    }
    for (method, path) in [
        ("DELETE", "/api/v1/hooks/dead/x"),
        ("GET", "/api/v1/hooks/dead?limit=0"),
        ("GET", "/api/v1/hooks/dead?limit=101"),
        ("GET", "/api/v1/hooks/dead?page=2"),
    ] {
        is_error(&client.call(method, path, "").await, 400, "invalid");
    }
    let page = client.call("GET", "/metrics", "").await.body;
    for line in [
        "linkmic_hooks_outbox_letters{state=\"dead\"} 1",
        "linkmic_hooks_outbox_letters{state=\"waiting\"} 1",
    ] {
        assert!(page.contains(line), "{line}");
    }
}

async fn listen_to_events(client: &Client) -> TcpStream {
    let mut socket = TcpStream::connect(client.address).await.unwrap();
    let request =
        format!("GET /api/v1/events HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    socket.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.0 200");
    socket
}

#[tokio::test]
async fn a_listener_that_does_not_read_is_cut_and_costs_no_more_than_the_ring() {
    let (house, client) = open(None).await;
    let mut slow = listen_to_events(&client).await;
    let fact = || Fact {
        kind: Fact_::Mix,
        stream: key(),
        at: std::time::SystemTime::now(),
        data: json!({ "why": "x".repeat(60_000) }),
    };
    // More than the kernel takes and the journal keeps.
    let told = 400;
    for _ in 0..told {
        house.hooks.journal().tell(fact());
        tokio::task::yield_now().await;
    }
    let mut text = String::new();
    let read = tokio::time::timeout(Duration::from_secs(30), slow.read_to_string(&mut text));
    read.await.expect("it is cut").unwrap();
    let heard = text.matches("event: mix").count();
    assert!((1..told).contains(&heard), "{heard}");
}

#[tokio::test]
async fn no_more_than_sixty_four_listen_and_all_are_let_go_at_the_end() {
    let (house, client) = open(None).await;
    // Who tells what happens says when nothing more does.
    let telling = house.hooks.clone();
    let alone = CancellationToken::new();
    alone.cancel();
    tokio::spawn(telling.write(house.relay.clone(), house.shutdown.clone(), alone));
    let mut listeners = Vec::new();
    for _ in 0..64 {
        listeners.push(listen_to_events(&client).await);
    }
    let refused = client.call("GET", "/api/v1/events", "").await;
    is_error(&refused, 503, "limit_reached");
    house.shutdown.cancel();
    for mut listener in listeners {
        let mut rest = Vec::new();
        listener.read_to_end(&mut rest).await.unwrap();
    }
    // There is room again.
    let (_, again) = (house, listen_to_events(&client).await);
    drop(again);
}
