//! A new process takes over from the one that runs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use linkmic::probe::http;
use linkmic::probe::process::poll;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::{JoinHandle, JoinSet};

use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::live::{GOP, Live, Watcher};
use crate::home::{Home, Life};
use crate::hooks::receiver::{Receiver, Reply, Request};

const KBIT_350: usize = 350_000;
/// Short, since the old process waits that long for who has connected and said nothing yet.
const DRAIN: &str = "[drain]\ndeadline = \"10m\"\n[limits]\nhandshake = \"1s\"\n";

async fn says(life: &Life, words: &str) {
    let said = poll(words, SOON, || async {
        life.process.said().contains(words).then_some(())
    });
    said.await
        .unwrap_or_else(|e| panic!("{e}\n{}", life.process.said()));
}

/// Sections of configuration that have a back end told of publishes.
fn hooks(back_end: &Receiver) -> String {
    format!(
        "{DRAIN}[[hooks.webhooks]]\nurl = \"{}\"\nsecret = \"0123456789abcdef\"\nevents = [\"publish\", \"unpublish\"]\n",
        back_end.url("/events")
    )
}

/// Finds what a back end was told of a stream.
fn told(kind: &str, name: &str) -> impl Fn(&[Request]) -> Option<Value> + use<> {
    let (kind, stream) = (kind.to_owned(), name.to_owned());
    move |all| {
        let is = |r: &&Request| r.json["type"] == *kind && r.json["stream"] == *stream;
        all.iter().find(is).map(|request| request.json.clone())
    }
}

/// Does the same again and again until it is told to stop, and counts.
struct Loop {
    stop: Arc<AtomicBool>,
    times: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Loop {
    fn of<F>(once: impl Fn(usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, times) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, count) = (stop.clone(), times.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                once(count.load(Ordering::Relaxed)).await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, times, task }
    }

    async fn until(&self, times: usize) {
        let done = poll("more rounds", SOON, || async {
            (self.times.load(Ordering::Relaxed) >= times || self.task.is_finished()).then_some(())
        });
        done.await.unwrap_or_else(|e| panic!("{e}"));
    }

    /// # Panics
    /// With the loop, when that did.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("no refusal");
        self.times.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_all_the_time_sees_no_refusal_through_an_upgrade_and_viewers_stay() {
    let home = Home::without_mixes(DRAIN);
    let mut old = home.begin().await;
    let live = Live::start(&old.urls.push("a"), KBIT_350).await;
    let reader = Watcher::start(&old.urls.plain("a"), &live.sent).await;
    let urls: Arc<[String]> = (0..8).map(|n| old.urls.push(&format!("p{n}"))).collect();
    let publish = Loop::of(move |round| {
        let urls = urls.clone();
        async move {
            let published = Client::publish(&urls[round % urls.len()]).await;
            published.expect("granted").unpublish().await;
        }
    });
    let (public, control) = (http::Client::new(old.http, None), old.api.clone());
    let health = Loop::of(move |_| {
        let public = public.clone();
        async move { assert_eq!(public.get("/readyz").await.expect("an answer").status, 200) }
    });
    let calls = Loop::of(move |_| {
        let control = control.clone();
        async move {
            assert_eq!(
                control
                    .get("/api/v1/streams")
                    .await
                    .expect("an answer")
                    .status,
                200
            )
        }
    });
    for each in [&publish, &health, &calls] {
        each.until(20).await;
    }
    let new = home.take_over().await;
    assert_eq!((new.urls.rtmp(), new.http), (old.urls.rtmp(), old.http));
    says(&old, "another process has taken over").await;
    for each in [&publish, &health, &calls] {
        each.until(each.times.load(Ordering::Relaxed) + 50).await;
    }
    let counts = [publish.end().await, health.end().await, calls.end().await];
    println!("publishes, health checks and API calls, none refused: {counts:?}");
    // The stream is still where it was, for who sees it.
    let streams = new
        .api
        .get("/api/v1/streams")
        .await
        .expect("an answer")
        .json();
    let named = |name: &str| {
        streams["streams"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|s| s["name"] == name)
    };
    assert!(!named("a"), "{streams}");
    let seen = reader.look(|got| got.pictures.len());
    let more = poll("pictures", SOON, || async {
        reader.look(|got| (got.pictures.len() > seen + 2 * GOP as usize).then_some(()))
    });
    more.await.unwrap_or_else(|e| panic!("{e}"));
    assert!(old.process.ended().is_none(), "{}", old.process.said());
    drop(live);
    let ended = old.process.end(SOON).await.expect("its end");
    assert!(ended.success(), "{}", old.process.said());
    reader.look(|got| {
        assert!(
            got.pictures
                .windows(2)
                .all(|p| p[1].number == p[0].number + 1)
        )
    });
    says(&new, "the process that was taken over is gone").await;
    let back = Client::publish(&new.urls.push("a")).await;
    back.expect("the name is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_of_the_old_process_holds_in_the_new_one_and_publishes_are_told_once_from_start_to_end()
 {
    let back_end = Receiver::open().await;
    let home = Home::without_mixes(&hooks(&back_end));
    let mut old = home.begin().await;
    let ban = json!({"stream": "live/forbidden"});
    let banned = old.api.post("/api/v1/bans", &ban).await.expect("an answer");
    assert!(banned.is_success(), "{}", banned.body);
    let push = json!({"app": "live", "stream": "a", "url": "rtmp://127.0.0.1:9/live/x"});
    let pushed = old
        .api
        .put("/api/v1/pushes/cdn", &push)
        .await
        .expect("an answer");
    assert!(pushed.is_success(), "{}", pushed.body);
    let publisher = Client::publish(&old.urls.push("a")).await.expect("granted");
    let began = back_end.until("the beginning", told("publish", "a")).await;
    let new = home.take_over().await;
    says(&old, "another process has taken over").await;
    let kept = new
        .api
        .get("/api/v1/pushes/cdn")
        .await
        .expect("an answer")
        .json();
    assert_eq!(
        kept["state"], "waiting",
        "its stream is at the old process: {kept}"
    );
    let refused = Client::publish(&new.urls.push("forbidden")).await;
    assert!(
        refused
            .err()
            .expect("banned")
            .description
            .contains("forbidden")
    );
    // A change, which only the owner of the state can keep.
    let changed = new
        .api
        .delete("/api/v1/pushes/cdn")
        .await
        .expect("an answer");
    assert!(changed.is_success(), "{}", changed.body);
    let here = Client::publish(&new.urls.push("b")).await.expect("granted");
    back_end
        .until("another beginning", told("publish", "b"))
        .await;
    let early = told("unpublish", "a")(&back_end.requests());
    assert_eq!(early, None, "it still publishes");
    publisher.unpublish().await;
    let ended = back_end.until("the end", told("unpublish", "a")).await;
    assert_eq!(ended["data"]["sequence"], began["data"]["sequence"]);
    assert_eq!(ended["data"]["reason"], "deleted", "{ended}");
    old.process.end(SOON).await.expect("its end");
    says(&new, "the process that was taken over is gone").await;
    here.unpublish().await;
    back_end
        .until("the other end", told("unpublish", "b"))
        .await;
    let all = back_end.requests();
    for (kind, name) in [
        ("publish", "a"),
        ("unpublish", "a"),
        ("publish", "b"),
        ("unpublish", "b"),
    ] {
        let count = all
            .iter()
            .filter(|r| r.json["type"] == kind && r.json["stream"] == name);
        let ids: std::collections::HashSet<_> =
            count.map(|r| r.headers["webhook-id"].clone()).collect();
        assert_eq!(ids.len(), 1, "{kind} {name}");
    }
    assert!(
        new.api
            .get("/api/v1/pushes/cdn")
            .await
            .expect("an answer")
            .status
            == 404
    );
}

/// Says what a new process says, up to where the old one is to let go. What it hears then, and the line, whose end is its death.
async fn takes(socket: &std::path::Path) -> (String, BufReader<UnixStream>) {
    let mut stream = UnixStream::connect(socket).await.expect("it listens");
    stream
        .write_all(b"{\"take_over\":1,\"process\":1}\n")
        .await
        .expect("it reads");
    // The descriptors go with what is not received as such.
    let mut offer = [0; 4096];
    let length = stream.read(&mut offer).await.expect("an offer");
    let offer: Value = serde_json::from_slice(&offer[..length]).expect("JSON");
    assert_eq!(
        offer["listeners"],
        json!(["rtmp", "http", "control"]),
        "{offer}"
    );
    stream.write_all(b"\"ready\"\n").await.expect("it reads");
    let (mut word, mut line) = (String::new(), BufReader::new(stream));
    line.read_line(&mut word).await.expect("a word");
    (word, line)
}

/// The same, and dies as soon as the state is its own.
async fn takes_and_dies(socket: &std::path::Path) {
    assert_eq!(takes(socket).await.0, "\"yours\"\n");
}

/// Waits until a change can be kept.
async fn has_the_state(life: &Life) {
    let push = json!({"app": "live", "stream": "x", "url": "rtmp://127.0.0.1:9/live/x"});
    let kept = poll("the state is its own again", SOON, || async {
        let put = life.api.put("/api/v1/pushes/cdn", &push).await.ok()?;
        put.is_success().then_some(())
    });
    kept.await
        .unwrap_or_else(|e| panic!("{e}\n{}", life.process.said()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_while_it_takes_over_leaves_the_old_one_as_it_was() {
    let home = Home::without_mixes(DRAIN);
    let old = home.begin().await;
    let live = Live::start(&old.urls.push("a"), KBIT_350).await;
    let reader = Watcher::start(&old.urls.plain("a"), &live.sent).await;
    for _ in 0..3 {
        takes_and_dies(&home.state().join("takeover.sock")).await;
        let granted = Client::publish(&old.urls.push("b")).await;
        granted.expect("it accepts again").unpublish().await;
        let ready = http::Client::new(old.http, None).get("/readyz").await;
        assert_eq!(ready.expect("an answer").status, 200);
        has_the_state(&old).await;
    }
    // And the next one can take over for good.
    let new = home.take_over().await;
    says(&old, "another process has taken over").await;
    let kept = new.api.get("/api/v1/pushes/cdn").await.expect("an answer");
    assert_eq!(kept.status, 200, "{}", kept.body);
    let seen = reader.look(|got| got.pictures.len());
    let more = poll("pictures", SOON, || async {
        reader.look(|got| (got.pictures.len() > seen + GOP as usize).then_some(()))
    });
    more.await.unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_die_while_they_take_over_leave_one_who_sends_letters() {
    let back_end = Receiver::deciding(None, |request, _| match &request.json["stream"] {
        stream if stream == "slow" => Reply::Silence,
        _ => Reply::Says(200, ""),
    })
    .await;
    let home = Home::without_mixes(&hooks(&back_end));
    let old = home.begin().await;
    for _ in 0..2 {
        takes_and_dies(&home.state().join("takeover.sock")).await;
        has_the_state(&old).await;
    }
    // One is on its way for long, and others are sent meanwhile.
    let mut publishers = Vec::new();
    for name in ["slow", "a", "b", "c"] {
        let granted = Client::publish(&old.urls.push(name)).await;
        publishers.push(granted.expect("granted"));
        back_end.until(name, told("publish", name)).await;
    }
    let mut times: HashMap<String, u32> = HashMap::new();
    for request in back_end.requests() {
        *times
            .entry(request.headers["webhook-id"].clone())
            .or_default() += 1;
    }
    let all: Vec<u32> = times.into_values().collect();
    assert_eq!(all, [1; 4], "times that each letter was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_cannot_let_go_of_the_state_is_not_taken_over_and_accepts_again() {
    let home = Home::without_mixes(DRAIN);
    let old = home.begin().await;
    let other = rusqlite::Connection::open(home.state().join("linkmic.db")).expect("it is there");
    other
        .execute_batch("BEGIN IMMEDIATE")
        .expect("nobody writes");
    // Each waits 5 s for its turn, one after the other.
    let mut changes = JoinSet::new();
    for n in 0..6 {
        let api = old.api.clone();
        changes.spawn(async move {
            let name = format!("n{n}");
            let push = json!({"app": "live", "stream": name, "url": "rtmp://127.0.0.1:9/live/x"});
            api.put(&format!("/api/v1/pushes/{name}"), &push).await
        });
    }
    // By now all of them wait.
    let first = changes.join_next().await.expect("one of them");
    let first = first.expect("no panic").expect("an answer");
    assert!(!first.is_success(), "{}", first.body);
    let (word, _line) = takes(&home.state().join("takeover.sock")).await;
    assert_eq!(word, "\"its state is still being written\"\n");
    let granted = Client::publish(&old.urls.push("b")).await;
    granted.expect("it accepts again").unpublish().await;
    other.execute_batch("ROLLBACK").expect("it is ours");
    has_the_state(&old).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_process_that_failed_holds_the_state_the_old_one_accepts_and_has_it_back_when_it_is_let_go()
 {
    let home = Home::without_mixes(DRAIN);
    let old = home.begin().await;
    let (word, line) = takes(&home.state().join("takeover.sock")).await;
    assert_eq!(word, "\"yours\"\n");
    let lock = std::fs::File::open(home.state().join("linkmic.lock")).expect("it is there");
    lock.try_lock().expect("nobody has it");
    drop(line);
    let granted = Client::publish(&old.urls.push("b")).await;
    granted.expect("it accepts again").unpublish().await;
    drop(lock);
    has_the_state(&old).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_old_process_is_killed_the_new_one_tells_the_ends_that_it_owes_and_none_of_its_own()
 {
    let back_end = Receiver::open().await;
    let home = Home::without_mixes(&hooks(&back_end));
    let old = home.begin().await;
    let _there = Client::publish(&old.urls.push("a")).await.expect("granted");
    let began = back_end.until("the beginning", told("publish", "a")).await;
    let new = home.take_over().await;
    says(&old, "another process has taken over").await;
    let here = Client::publish(&new.urls.push("b")).await.expect("granted");
    back_end
        .until("another beginning", told("publish", "b"))
        .await;
    old.kill().await;
    let ended = back_end.until("the end", told("unpublish", "a")).await;
    assert_eq!(ended["data"]["sequence"], began["data"]["sequence"]);
    assert_eq!(ended["data"]["reason"], "internal", "{ended}");
    here.unpublish().await;
    let ended = back_end
        .until("the other end", told("unpublish", "b"))
        .await;
    assert_eq!(ended["data"]["reason"], "deleted", "{ended}");
    let ids: HashSet<String> = back_end
        .requests()
        .iter()
        .map(|request| request.headers["webhook-id"].clone())
        .collect();
    assert_eq!(ids.len(), 4, "two beginnings and two ends");
}

#[cfg(feature = "mixer")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_goes_on_in_the_old_process_while_its_publishers_are_there_and_waits_in_the_new_one()
{
    use crate::durable::{main, sub};
    use crate::studio::{advances, publish};
    use linkmic::probe::Colour;

    let home = Home::found(DRAIN).await;
    let mut old = home.begin().await;
    let scene = json!({
        "app": "live",
        "inputs": [
            {"stream": "a", "layer": 1},
            {"stream": "b", "layer": 2, "x": 140, "y": 180, "width": 100, "height": 150},
        ],
        "output": {"stream": "a", "video_kbps": 400},
    });
    old.put("/api/v1/mixes/show", &scene).await;
    let a = publish(&old.urls, &old.api, "a", &main()).await;
    let b = publish(&old.urls, &old.api, "b", &sub()).await;
    let mut viewer = old.viewer().await;
    advances(&mut viewer, 1, Colour::RED, 10).await;
    let new = home.take_over().await;
    says(&old, "another process has taken over").await;
    let waiting = new.get("/api/v1/mixes/show").await;
    assert_eq!(
        (&waiting["state"], &waiting["revision"]),
        (&json!("waiting"), &json!(1))
    );
    advances(&mut viewer, 1, Colour::RED, 20).await;
    drop((a, b));
    old.process.end(SOON).await.expect("its end");
    // What ended there with its process has not ended for who asked for it.
    let _a = publish(&new.urls, &new.api, "a", &main()).await;
    let _b = publish(&new.urls, &new.api, "b", &sub()).await;
    let mut viewer = new.viewer().await;
    advances(&mut viewer, 1, Colour::RED, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_process_to_take_over_from_a_server_starts_as_usual() {
    let home = Home::without_mixes("");
    let life = home.take_over().await;
    Client::publish(&life.urls.push("a"))
        .await
        .expect("granted");
}
