//! The real binary on a machine that fails it: it goes on, or says what it refuses; nothing that it acknowledged is lost.

use std::collections::HashSet;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use linkmic::auth::Purpose;
use linkmic::probe::http::{Answer, Client as Control};
use linkmic::probe::process::{Process, output, poll};
use serde_json::{Value, json};

use super::disk::Disk;
use crate::abuse::binary::Binary;
use crate::abuse::healthy::Healthy;
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::house::{Hour, configuration};
use crate::hooks::receiver::{Receiver, Reply, Request};

/// A back end that is told of publishes.
fn told(hooks: &Receiver) -> String {
    let url = hooks.url("/hook");
    format!(
        "[[hooks.webhooks]]\nurl = \"{url}\"\nsecret = \"0123456789abcdef\"\nevents = [\"publish\", \"unpublish\"]\n"
    )
}

/// Whether a back end was told that a stream's publish began, or ended.
fn has(requests: &[Request], kind: &str, stream: &str) -> Option<()> {
    let mut all = requests.iter().map(|request| &request.json);
    all.any(|json| json["type"] == kind && json["stream"] == stream)
        .then_some(())
}

async fn post_ban(control: &Control, number: usize) -> Answer {
    let ban = json!({"stream": format!("live/banned{number}"), "note": "n".repeat(400)});
    control.post("/api/v1/bans", &ban).await.expect("an answer")
}

/// The streams that are banned, by the API.
async fn bans(control: &Control) -> Vec<String> {
    let listed = control.get("/api/v1/bans").await.expect("an answer").json();
    let listed = listed["bans"].as_array().expect("a list");
    let mut names: Vec<_> = listed
        .iter()
        .map(|ban| ban["stream"].as_str().expect("a stream").to_owned())
        .collect();
    names.sort();
    names
}

/// Fails unless an answer says that the disk did not take it.
fn is_refused_by_the_disk(answer: &Answer) {
    let json = answer.json();
    assert_eq!(
        (answer.status, &json["code"]),
        (503, &json!("storage")),
        "{}",
        answer.body
    );
    assert!(
        json["message"]
            .as_str()
            .is_some_and(|words| words.contains("state.dir")),
        "{}",
        answer.body
    );
}

/// Asks for a push, a link and, where there is a mixer, a mix, none of which can be kept; none is there afterwards.
async fn all_changes_are_refused(control: &Control) {
    let push = json!({"app": "live", "stream": "a", "url": "rtmp://127.0.0.1:1/live/a"});
    is_refused_by_the_disk(
        &control
            .put("/api/v1/pushes/p", &push)
            .await
            .expect("an answer"),
    );
    let link = json!({"id": "l", "app": "live", "main": "a", "sub": "b"});
    is_refused_by_the_disk(
        &control
            .post("/api/v1/links", &link)
            .await
            .expect("an answer"),
    );
    let mut kinds = vec!["pushes", "links"];
    if cfg!(feature = "mixer") {
        let mix = json!({"app": "live", "inputs": [{"stream": "a", "layer": 1}], "output": {"stream": "a"}});
        is_refused_by_the_disk(
            &control
                .put("/api/v1/mixes/m", &mix)
                .await
                .expect("an answer"),
        );
        kinds.push("mixes");
    }
    for kind in kinds {
        let listed = control
            .get(&format!("/api/v1/{kind}"))
            .await
            .expect("an answer")
            .json();
        assert_eq!(listed[kind], json!([]), "{kind}");
    }
}

async fn on(disk: &Disk, more: &str) -> Binary {
    let [env, state] = disk.state();
    Binary::serve_under(&[&env, &state], more).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_that_was_acknowledged_and_refuses_the_rest_until_there_is_room()
{
    let Some(disk) = Disk::in_memory("a full disk").await else {
        return;
    };
    let hooks = Receiver::open().await;
    let more = told(&hooks);
    let mut server = on(&disk, &more).await;
    let healthy = Healthy::start_with(&server.urls, 2).await;
    assert_eq!(post_ban(&server.control, 0).await.status, 201);
    let mut kept = vec!["live/banned0".to_owned()];
    disk.fill();
    // What was written once can be written again, so the first few may be kept.
    let refused = loop {
        let answer = post_ban(&server.control, kept.len()).await;
        if answer.status != 201 {
            break answer;
        }
        kept.push(format!("live/banned{}", kept.len()));
        assert!(kept.len() < 10_000, "a full disk takes everything");
    };
    kept.sort();
    println!("{} kept on a full disk", kept.len() - 1);
    is_refused_by_the_disk(&refused);
    all_changes_are_refused(&server.control).await;
    // A ban that was not kept does not hold either.
    let name = format!("banned{}", kept.len());
    let publisher = Client::publish(&server.urls.push(&name)).await;
    publisher.expect("nobody banned it").unpublish().await;
    assert_eq!(bans(&server.control).await, kept);
    healthy.assert_nothing_missed().await;
    server.kill().await;

    // The next one starts on a disk that is as full.
    let mut server = on(&disk, &more).await;
    assert_eq!(bans(&server.control).await, kept);
    let refused = loop {
        let answer = post_ban(&server.control, kept.len()).await;
        if answer.status != 201 {
            break answer;
        }
        kept.push(format!("live/banned{}", kept.len()));
        kept.sort();
    };
    is_refused_by_the_disk(&refused);
    let publisher = Client::publish(&server.urls.push("second"))
        .await
        .expect("granted");
    disk.free();
    let taken = poll("a ban kept", SOON, || async {
        (post_ban(&server.control, kept.len()).await.status == 201).then_some(())
    });
    taken.await.expect("there is room");
    publisher.unpublish().await;
    for kind in ["publish", "unpublish"] {
        hooks
            .until(&format!("{kind} told"), |all| has(all, kind, "second"))
            .await;
    }
    kept.push(format!("live/banned{}", kept.len()));
    kept.sort();
    server.kill().await;
    let server = on(&disk, &more).await;
    assert_eq!(bans(&server.control).await, kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_becomes_read_only_stops_no_stream_and_what_was_acknowledged_is_there_when_it_is_mended()
 {
    const WHAT: &str = "a disk that becomes read-only";
    let Some(disk) = Disk::of_ext4(WHAT).await else {
        return;
    };
    let mut server = on(&disk, "").await;
    let healthy = Healthy::start_with(&server.urls, 2).await;
    for number in 0..3 {
        assert_eq!(post_ban(&server.control, number).await.status, 201);
    }
    let kept = ["live/banned0", "live/banned1", "live/banned2"];
    disk.break_down().await;
    is_refused_by_the_disk(&post_ban(&server.control, 3).await);
    all_changes_are_refused(&server.control).await;
    assert_eq!(bans(&server.control).await, kept);
    let no = Client::publish(&server.urls.push("banned1")).await.err();
    assert!(
        no.is_some_and(|no| no.description.contains("forbidden")),
        "a ban that was kept holds"
    );
    let publisher = Client::publish(&server.urls.push("more")).await;
    publisher
        .expect("publishing needs no disk")
        .unpublish()
        .await;
    healthy.assert_nothing_missed().await;
    assert!(
        server.said().contains("could not be kept"),
        "{}",
        server.said()
    );
    server.kill().await;

    let (line, code) = refusal(disk.path()).await;
    assert_eq!(code, Some(1), "{line}");
    assert!(
        line.contains("need to be writable") || line.contains("cannot use the state directory"),
        "{line}"
    );
    assert_eq!(line.lines().count(), 1, "{line}");

    let disk = disk.mend(WHAT).await;
    let server = on(&disk, "").await;
    assert_eq!(bans(&server.control).await, kept);
    assert_eq!(post_ban(&server.control, 3).await.status, 201);
}

/// What a server says, and its exit code, that cannot start with this state directory.
async fn refusal(state: &Path) -> (String, Option<i32>) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("linkmic.toml");
    std::fs::write(&file, configuration(state, "", "")).expect("a file");
    let file = file.display().to_string();
    let mut process = Process::spawn(env!("CARGO_BIN_EXE_linkmic"), &["serve", "--config", &file])
        .expect("it runs");
    let status = process.end(SOON).await.expect("it ends");
    (process.said(), status.code())
}

/// What sets another wall clock, and leaves the monotonic one alone.
struct Clock {
    offset: std::fs::File,
    words: [String; 3],
    _folder: tempfile::TempDir,
}

impl Clock {
    /// # Panics
    /// Without a C compiler.
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (library, file) = (path("clock.so"), path("offset"));
        let source = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/integration/operate/clock.c"
        );
        let build = ["-shared", "-fPIC", "-O1", "-o", &library, source];
        output("cc", &build, SOON).await.expect("it compiles");
        let clock = Self {
            offset: std::fs::File::create(&file).expect("a file"),
            words: [
                "env".into(),
                format!("LD_PRELOAD={library}"),
                format!("LINKMIC_TEST_CLOCK={file}"),
            ],
            _folder: folder,
        };
        clock.step(0);
        clock
    }

    /// The wall clock is so many seconds before or behind the true one from now on.
    fn step(&self, seconds: i64) {
        let written = self.offset.write_all_at(&seconds.to_ne_bytes(), 0);
        written.expect("written");
    }

    fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }
}

/// A little over an hour, so that what is good for an hour is over.
const STEP: i64 = 3_700;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_steps_by_an_hour_disturbs_no_stream_and_signatures_are_judged_by_it() {
    let clock = Clock::new().await;
    let (hooks, patience) = Patience::open().await;
    let server = Binary::serve_under(&clock.words(), &told(&hooks)).await;
    let healthy = Healthy::start_with(&server.urls, 3).await;
    let epoch = async || {
        let stream = server
            .control
            .get("/api/v1/streams/live/healthy")
            .await
            .expect("an answer")
            .json();
        stream["publisher"]["epoch"].clone()
    };
    let begun = epoch().await;
    let (good, over) = (
        server
            .urls
            .with("b", &server.urls.query(Purpose::Push, "b", Hour::Next)),
        server
            .urls
            .with("b", &server.urls.query(Purpose::Push, "b", Hour::Last)),
    );
    let publishes = async |url: &str| -> Result<(), String> {
        let publisher = Client::publish(url).await.map_err(|no| no.description)?;
        publisher.unpublish().await;
        Ok(())
    };
    let call = async |path: &str, body: Value| {
        let answer = server.control.post(path, &body).await.expect("an answer");
        assert!(answer.is_success(), "{path}: {}", answer.body);
        answer.json()
    };
    call(
        "/api/v1/bans",
        json!({"stream": "live/banned", "expires_in": "30m"}),
    )
    .await;
    // Longer than the ban, wherever the clock steps to.
    let signed = call(
        "/api/v1/urls/sign",
        json!({"action": "push", "app": "live", "stream": "banned", "expires_in": "12h"}),
    )
    .await;
    let query = signed["query"].as_str().expect("it needs a signature");
    let banned = server.urls.with("banned", query);
    let forbidden =
        |refused: Result<(), String>| refused.is_err_and(|words| words.contains("forbidden"));
    let expired = |refused: Result<(), String>| {
        refused.is_err_and(|words| words.contains("signature_expired"))
    };
    assert_eq!(publishes(&good).await, Ok(()));
    assert!(expired(publishes(&over).await));
    // Whether the ban holds; one that was over may be forgotten.
    let steps = [
        (-STEP, Some(true)),
        (0, Some(true)),
        (STEP, Some(false)),
        (0, None),
    ];
    for (seconds, holds) in steps {
        clock.step(seconds);
        let told_at = server
            .control
            .get("/api/v1/streams/live/healthy")
            .await
            .expect("an answer");
        assert_eq!(told_at.status, 200);
        match seconds {
            STEP => {
                assert!(expired(publishes(&good).await), "an hour later it is over");
                assert!(expired(publishes(&over).await));
            }
            0 => {
                assert_eq!(publishes(&good).await, Ok(()));
                assert!(expired(publishes(&over).await));
            }
            _ => {
                assert_eq!(publishes(&good).await, Ok(()));
                assert_eq!(publishes(&over).await, Ok(()), "an hour earlier it is good");
            }
        }
        assert_eq!(epoch().await, begun);
        let heard = publishes(&banned).await;
        match holds {
            Some(true) => assert!(forbidden(heard), "it holds at {seconds:+} s"),
            Some(false) => assert_eq!(heard, Ok(()), "it is over at {seconds:+} s"),
            None => {}
        }
    }
    // A letter that is put off before a step in either direction comes soon after it.
    let failed = async || -> f64 {
        let numbers = server.metrics().await;
        let tries = numbers.series("linkmic_hooks_deliveries_total").into_iter();
        let failed = tries.filter(|(labels, _)| labels.contains("outcome=\"failed\""));
        failed.map(|(_, count)| count).sum()
    };
    for (seconds, stream) in [(-STEP, "patient-back"), (STEP, "patient-ahead")] {
        let publisher = Client::publish(&server.urls.push(stream)).await;
        let publisher = publisher.expect("granted");
        hooks
            .until("its begin told", |all| has(all, "publish", stream))
            .await;
        let before = failed().await;
        patience.refuse(true);
        publisher.unpublish().await;
        let put_off = poll("its end put off", SOON, || async {
            (failed().await > before).then_some(())
        });
        let put_off = put_off.await;
        put_off.unwrap_or_else(|e| panic!("{stream}: {e}"));
        clock.step(seconds);
        patience.refuse(false);
        let told = poll("its end told", SOON, || async {
            patience.took_end_of(stream)
        });
        told.await.unwrap_or_else(|e| panic!("{stream}: {e}"));
        clock.step(0);
    }
    healthy.assert_nothing_missed().await;
}

/// What a back end is to do with the ends of streams, and did.
#[derive(Default)]
struct Patience {
    refuses: AtomicBool,
    taken: Mutex<HashSet<String>>,
}

impl Patience {
    /// The back end.
    async fn open() -> (Receiver, Arc<Self>) {
        let patience: Arc<Self> = Arc::default();
        let shared = patience.clone();
        let hooks = Receiver::deciding(None, move |request, _| shared.decide(&request.json));
        (hooks.await, patience)
    }

    fn decide(&self, json: &Value) -> Reply {
        if json["type"] != "unpublish" {
            return Reply::Says(200, "ok");
        }
        if self.refuses.load(SeqCst) {
            return Reply::Says(503, "later");
        }
        let stream = json["stream"].as_str().expect("a stream").to_owned();
        self.taken.lock().expect("whole").insert(stream);
        Reply::Says(200, "ok")
    }

    fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, SeqCst);
    }

    fn took_end_of(&self, stream: &str) -> Option<()> {
        let taken = self.taken.lock().expect("whole");
        taken.contains(stream).then_some(())
    }
}

/// Not only what the server tells of itself: what is in its answers is JSON.
#[test]
fn an_answer_that_is_no_refusal_by_the_disk_is_told_from_one() {
    let answer = |status, body: Value| Answer {
        status,
        body: body.to_string(),
    };
    is_refused_by_the_disk(&answer(
        503,
        json!({"code": "storage", "message": "not written to state.dir"}),
    ));
    for wrong in [
        answer(500, json!({"code": "storage", "message": "state.dir"})),
        answer(503, json!({"code": "busy", "message": "state.dir"})),
        answer(201, json!({})),
    ] {
        let told = std::panic::catch_unwind(|| is_refused_by_the_disk(&wrong));
        assert!(told.is_err(), "{wrong:?}");
    }
}
