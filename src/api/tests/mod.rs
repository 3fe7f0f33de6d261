//! The API over real HTTP, and every answer against the examples in docs/api.

mod access;
mod bans;
mod client;
pub(crate) mod durable;
pub(crate) mod examples;
mod health;
mod hooks;
mod insight;
mod mixes;
mod operate;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use self::client::{Answer, Client};
use self::mixes::Scenes;
use super::*;
use crate::auth::{self, Key, KeyId, Rules};
use crate::media::{Class, Feed, Kind, MediaTime, Message, StreamKey};
use crate::metrics::MixLoad;
use crate::net::Bounds;
use crate::push::{self, Pushes, SignError, Signer};
use crate::reason::Reason;
use crate::relay::{Origin, Publisher, Query};
use crate::store::Store;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PUSH_KEY: &str = "f3313e36c611150119f5d04ff1225b3e";
const PLAY_KEY: &str = "69e0daf7234b01f257a7adb9f807ae9f";

struct NoKeys;

impl Signer for NoKeys {
    fn sign(&self, id: &str, _: &str, _: Duration) -> Result<String, SignError> {
        match id {
            "main" => Ok("txSecret=0&txTime=0".into()),
            _ => Err(SignError(format!("no key has the id {id:?}"))),
        }
    }
}

fn nothing_beside() -> Beside {
    Beside {
        paths: Router::new(),
        description: utoipa::openapi::OpenApi::default(),
    }
}

struct House {
    hooks: Hooks,
    shutdown: CancellationToken,
    relay: Relay,
    gate: Arc<Gate>,
    policy: Arc<Policy>,
    store: Store,
    folder: Arc<tempfile::TempDir>,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    router: Router,
    mixes: Option<KeptMixes>,
    tasks: TaskTracker,
}

impl House {
    /// Waits until all changes that were begun are made.
    async fn settled(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

async fn house(mixes: Option<Arc<dyn Mixes>>) -> House {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    house_at(Arc::new(folder), store, mixes).await
}

/// A house with what another has kept.
async fn house_at(
    folder: Arc<tempfile::TempDir>,
    store: Store,
    mixes: Option<Arc<dyn Mixes>>,
) -> House {
    house_of(folder, store, mixes, Arc::new(operate::Still)).await
}

/// A house with an operator of the test's.
async fn house_run_by(operator: Arc<dyn Operator>) -> House {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let store = Store::open(folder.path()).unwrap();
    house_of(folder, store, None, operator).await
}

async fn house_of(
    folder: Arc<tempfile::TempDir>,
    store: Store,
    mixes: Option<Arc<dyn Mixes>>,
    operator: Arc<dyn Operator>,
) -> House {
    let key = |id, secret| Key::new(KeyId::new(id), Secret::new(secret));
    let relay = Relay::new(crate::relay::Config::default());
    let metrics = Metrics::new();
    let readiness = Readiness::new();
    let playback = Playback::new(
        relay.clone(),
        crate::playback::Config::default(),
        metrics.clone(),
        tokio_util::task::TaskTracker::new(),
        CancellationToken::new(),
    );
    let policy = Arc::new(Policy::new(auth::Config {
        push_keys: vec![key("main", PUSH_KEY)],
        play_keys: vec![key("viewers", PLAY_KEY)],
        ..auth::Config::default()
    }));
    let memory = Memory::new(1 << 30);
    let gate = Arc::new(Gate::new(policy.clone(), Rules::default(), memory.clone()));
    let bans = Bans::load(store.clone(), gate.clone()).await.unwrap();
    let hooks = hooks::open_nobody(store.clone(), metrics.clone()).await;
    let shutdown = CancellationToken::new();
    let tasks = TaskTracker::new();
    let mixes = match mixes {
        Some(mixes) => {
            let stop = CancellationToken::new();
            let kept = KeptMixes::load(mixes, store.clone(), tasks.clone(), stop);
            Some(kept.await.unwrap())
        }
        None => None,
    };
    let camera = mixes
        .is_some()
        .then(|| Arc::new(insight::Still) as Arc<dyn Camera>);
    let pushes = Pushes::new(relay.clone(), push::Config::default(), Arc::new(NoKeys));
    let pushes = KeptPushes::load(pushes, store.clone(), tasks.clone())
        .await
        .unwrap();
    let state = State {
        certificates: None,
        store: store.clone(),
        hooks: hooks.clone(),
        shutdown: shutdown.clone(),
        gate: gate.clone(),
        bans,
        memory,
        admission: Admission::new(Bounds {
            connections: 0,
            per_address: 0,
        }),
        host: crate::net::host::Host::new(crate::net::host::Budget::default()),
        operator,
        relay: relay.clone(),
        playback,
        pushes,
        mixes: mixes.clone(),
        pictures: Pictures::new(camera),
        captures: Captures::new(
            relay.clone(),
            folder.path().join("captures"),
            tasks.clone(),
            shutdown.clone(),
        ),
        policy: policy.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        tasks: tasks.clone(),
        token: Secret::new(TOKEN),
        apps: PerApp {
            named: [("live".to_owned(), ())].into(),
            others: None,
        },
        base_url: "rtmp://live.example".to_owned(),
    };
    House {
        hooks,
        shutdown,
        relay,
        gate,
        policy,
        store,
        folder,
        readiness,
        metrics,
        router: control_router(state, nothing_beside()),
        mixes,
        tasks,
    }
}

/// A house with a listener, and a client that knows the token.
async fn open(mixes: Option<Arc<dyn Mixes>>) -> (House, Client) {
    let house = house(mixes).await;
    let client = Client::new(listen(house.router.clone()).await, Some(TOKEN));
    (house, client)
}

async fn listen(router: Router) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, router, CancellationToken::new()));
    address
}

fn key() -> StreamKey {
    StreamKey::new("live", "8888_streamA").unwrap()
}

fn anchor(relay: &Relay) -> Publisher {
    let origin = Origin::Anchor {
        connection: crate::logging::ConnectionId::next(),
        address: ([203, 0, 113, 7], 50_412).into(),
        key_id: Some("main".into()),
        query: Query::default(),
    };
    let publisher = relay.publish(&key(), origin).unwrap();
    for (kind, payload) in [
        (Kind::Video, &[0x17, 0, 0, 0, 0, 1][..]),
        (Kind::Audio, &[0xaf, 0, 0x11, 0x90]),
        (Kind::Video, &[0x17, 1, 0, 0, 0, 1]),
    ] {
        let message = Message::new(kind, MediaTime(0), Bytes::copy_from_slice(payload));
        publisher.publish(message, Instant::now());
    }
    publisher
}

fn is_error(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["code"], code, "{answer:?}");
    assert!(!body["message"].as_str().unwrap().is_empty());
    assert_eq!(body.as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_in_json() {
    let (_house, client) = open(None).await;
    for path in [
        "/",
        "/api/v1",
        "/api/v1/nothing",
        "/api/v2/streams",
        "/api/v1/streams/live",
    ] {
        is_error(&client.call("GET", path, "").await, 404, "not_found");
    }
    for (method, path) in [
        ("POST", "/api/v1/streams"),
        ("PATCH", "/api/v1/pushes/a"),
        ("GET", "/api/v1/urls/sign"),
        ("PUT", "/api/v1/streams/live/a"),
    ] {
        let answer = client.call(method, path, "{}").await;
        is_error(&answer, 405, "method_not_allowed");
        assert!(answer.header("allow").is_some(), "{answer:?}");
    }
    is_error(
        &client.call("GET", "/api/v1/streams/live/%ff", "").await,
        400,
        "invalid",
    );
}

#[tokio::test]
async fn bad_bodies_are_refused_with_the_field() {
    let (_house, client) = open(None).await;
    let target = "/api/v1/pushes/a";
    for (body, code, message) in [
        ("", "malformed_json", "body is not JSON"),
        ("{\"app\": ", "malformed_json", "body is not JSON"),
        ("[]", "invalid", "invalid"),
        (r#"{"app": 5}"#, "invalid", "app: invalid type"),
        (r#"{"apps": 5}"#, "invalid", "apps: unknown field"),
        (r#"{"app": "live"}"#, "invalid", "missing field"),
        (
            r#"{"app": "live", "stream": "a", "url": "rtmp://h/a/b", "sign": {"key": "k", "expires_in": "soon"}}"#,
            "invalid",
            "sign.expires_in: ",
        ),
        (
            r#"{"app": "live", "stream": "a", "url": "rtmp://h/a/b", "sign": {"key": "k", "expires_in": "11y"}}"#,
            "invalid",
            "sign.expires_in: 11years is not within 1s to 10years",
        ),
        (
            r#"{"app": "live", "stream": "a", "url": "rtmp://h/a/b", "sign": ["k", "12h"]}"#,
            "invalid",
            "sign: invalid type: sequence, expected an object",
        ),
        (
            r#"{"app": "live", "stream": "a", "url": "rtmp://h/a/b", "role": "backup"}"#,
            "invalid",
            "role: needs the group that it is for",
        ),
        (
            r#"{"app": "other", "stream": "a", "url": "rtmp://h/a/b"}"#,
            "invalid",
            "app: no application \"other\" is configured",
        ),
    ] {
        let answer = client.call("PUT", target, body).await;
        is_error(&answer, 400, code);
        let text = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(text.contains(message), "{body}: {text}");
    }
    let long = format!("{{\"app\": \"{}\"}}", "a".repeat(MAX_BODY_BYTES));
    is_error(&client.call("PUT", target, &long).await, 413, "too_large");
    let listed = client.call("GET", "/api/v1/pushes", "").await.json();
    assert_eq!(listed, json!({"pushes": []}));
}

#[tokio::test]
async fn a_publisher_is_dropped_on_request() {
    let (house, client) = open(None).await;
    let path = "/api/v1/streams/live/8888_streamA";
    for method in ["GET", "DELETE"] {
        is_error(&client.call(method, path, "").await, 404, "not_found");
    }
    let publisher = anchor(&house.relay);
    assert_eq!(client.call("DELETE", path, "").await.status, 202);
    publisher.evicted().await;
    publisher.finish(Reason::Dropped);
    is_error(&client.call("DELETE", path, "").await, 404, "not_found");

    // A mix is not a publisher to be dropped.
    let origin = Origin::Mix { id: "m".into() };
    let _mix = house.relay.publish(&key(), origin).unwrap();
    is_error(&client.call("DELETE", path, "").await, 409, "conflict");
    let shown = client.call("GET", path, "").await.json();
    assert_eq!(shown["publisher"]["mix"], "m");
}

#[tokio::test]
async fn a_signed_url_is_one_that_verifies() {
    let (_house, client) = open(None).await;
    for (action, publishes, feed) in [
        // Without peer keys the push key opens both.
        ("push", true, json!("source")),
        ("peer", true, json!("source")),
        ("view", false, json!("program")),
    ] {
        let body =
            json!({"action": action, "app": "live", "stream": "8888_streamA", "expires_in": "12h"});
        let signed = client.post("/api/v1/urls/sign", &body).await.json();
        let url = signed["url"].as_str().unwrap();
        assert!(url.starts_with("rtmp://live.example/live/8888_streamA?txSecret="));
        let verified = client
            .post("/api/v1/urls/verify", &json!({"url": url}))
            .await
            .json();
        assert_eq!(verified["publish"]["granted"], publishes, "{action}");
        assert_eq!(verified["play"]["feed"], feed, "{action}");
    }
}

#[tokio::test]
async fn urls_that_cannot_be_signed_or_read_are_refused_with_the_field() {
    let (_house, client) = open(None).await;
    let good = json!({"action": "push", "app": "live", "stream": "a", "expires_in": "12h"});
    for (field, value, message) in [
        ("action", json!("steal"), "action: unknown variant"),
        ("app", json!("other"), "app: no application"),
        ("app", json!("li ve"), "app: "),
        ("stream", json!("a b"), "stream: "),
        ("expires_in", json!("0s"), "expires_in: "),
        ("expires_in", json!(12), "expires_in: invalid type"),
        ("key", json!("nobody"), "key: no push key has the id"),
        ("base", json!("http://h"), "base: "),
        ("base", json!("rtmp://h/more"), "base: has more than"),
        ("base", json!("rtmp://h?k=v"), "base: "),
        ("more", json!(1), "more: unknown field"),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let answer = client.post("/api/v1/urls/sign", &body).await;
        is_error(&answer, 400, "invalid");
        let text = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(text.starts_with(message), "{field}: {text}");
    }
    for url in ["", "http://h/live/a", "rtmp://h/live", "rtmp://h/li%20ve/a"] {
        let answer = client
            .post("/api/v1/urls/verify", &json!({"url": url}))
            .await;
        is_error(&answer, 400, "invalid");
    }
    let unknown = json!({"url": "rtmp://h/other/a"});
    let answer = client.post("/api/v1/urls/verify", &unknown).await.json();
    assert_eq!(answer["publish"]["reason"], "unknown_app");
}

#[tokio::test]
async fn a_stream_without_players_has_an_empty_list_and_nobody_to_drop() {
    let (house, client) = open(None).await;
    let path = "/api/v1/streams/live/8888_streamA/readers";
    is_error(&client.call("GET", path, "").await, 404, "not_found");
    let _publisher = anchor(&house.relay);
    let answer = client.call("GET", path, "").await;
    assert_eq!(answer.json(), json!({"readers": []}));
    for (id, status, code) in [("17", 404, "not_found"), ("x", 400, "invalid")] {
        let path = format!("{path}/{id}");
        is_error(&client.call("DELETE", &path, "").await, status, code);
    }
}
