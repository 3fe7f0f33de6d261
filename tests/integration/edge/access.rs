//! Who may come in, who has to go, and what a server remembers of it: the real server, over the wire.

use std::path::{Path, PathBuf};
use std::time::Duration;

use linkmic::auth::{Config as Keys, Key, KeyId, Policy, Purpose, Secret};
use linkmic::config::{Config, Env};
use linkmic::probe::http;
use linkmic::probe::process::{Process, poll};
use linkmic::rtmp::kind;
use linkmic::rtmp::session::client::Event;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::SOON;
use super::client::{Client, No};
use super::clip::clip;
use super::house::{House, TOKEN, Urls, configuration};

const DENIED: &str = "NetStream.Publish.Denied";
const FAILED: &str = "NetStream.Play.Failed";

async fn publish(house: &House, name: &str) -> Client {
    let mut publisher = Client::publish(&house.urls.push(name))
        .await
        .expect("granted");
    for tag in clip().await.tags.iter().filter(|t| t.time < 200) {
        publisher.send_tag(tag, 0).await;
    }
    publisher
}

async fn no(result: Result<Client, No>) -> No {
    result.err().expect("refused")
}

async fn ban(house: &House, body: Value) -> Value {
    let answer = house
        .control
        .post("/api/v1/bans", &body)
        .await
        .expect("an answer");
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()
}

/// What the server says before it closes.
async fn last_words(client: &mut Client) -> No {
    loop {
        match client.event().await {
            Some(Event::Closed { code, description }) => return No { code, description },
            Some(_) => {}
            None => panic!("closed without a word"),
        }
    }
}

/// Waits for a counter's value.
async fn wait_for(house: &House, line: &str) {
    let seen = poll(line, SOON, || async {
        let metrics = house.control.get("/metrics").await.expect("metrics").body;
        metrics.lines().any(|l| l == line).then_some(())
    });
    seen.await.expect("it is counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_ends_the_publisher_who_hears_why_and_nobody_else() {
    let house = House::open().await;
    let mut banned = publish(&house, "a").await;
    let mut other = publish(&house, "b").await;
    let made = ban(
        &house,
        json!({"stream": "live/a", "action": "publish", "note": "secret"}),
    )
    .await;
    assert_eq!(made["ended"]["publishers"], 1);
    let heard = last_words(&mut banned).await;
    assert_eq!(heard.code, DENIED);
    let why = &heard.description;
    assert!(
        why.contains("banned by the operator [banned] (21/101)"),
        "{why}"
    );
    wait_for(
        &house,
        "linkmic_ingest_disconnects_total{reason=\"banned\"} 1",
    )
    .await;
    let refused = no(Client::publish(&house.urls.push("a")).await).await;
    assert_eq!(
        (refused.code.as_str(), refused.description.as_str()),
        (DENIED, "this stream is forbidden [forbidden] (18/305)")
    );
    wait_for(
        &house,
        "linkmic_auth_decisions_total{action=\"publish\",outcome=\"forbidden\"} 1",
    )
    .await;

    // The other one still publishes, and has readers.
    let mut viewer = Client::play(&house.urls.plain("b")).await.expect("granted");
    other
        .send(kind::VIDEO, 240, vec![0x27, 1, 0, 0, 0, 1])
        .await;
    viewer
        .media_until(|m| m.payload[..] == [0x27, 1, 0, 0, 0, 1])
        .await;

    let path = format!("/api/v1/bans/{}", made["id"]);
    house.control.delete(&path).await.expect("an answer");
    publish(&house, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_of_playing_ends_players_and_waiting_players_and_leaves_the_publisher() {
    let house = House::open().await;
    let mut publisher = publish(&house, "a").await;
    let mut viewer = Client::play(&house.urls.plain("a")).await.expect("granted");
    let mut peer = Client::play(&house.urls.peer("a")).await.expect("granted");
    // A third one waits for a stream that is not there.
    let absent = house.urls.plain("absent");
    let waiting = tokio::spawn(async move { no(Client::play(&absent).await).await });
    wait_for(
        &house,
        "linkmic_auth_decisions_total{action=\"play\",outcome=\"granted\"} 3",
    )
    .await;
    let made = ban(&house, json!({"stream": "live/*", "action": "play"})).await;
    assert_eq!(made["ended"], json!({"publishers": 0, "players": 3}));
    for player in [&mut viewer, &mut peer] {
        let heard = last_words(player).await;
        assert_eq!(
            (heard.code.as_str(), heard.description.as_str()),
            (
                "NetConnection.Connect.Closed",
                "banned by the operator [banned] (21/101)"
            )
        );
        assert_eq!(
            player.event().await,
            None,
            "the word is followed by the close"
        );
    }
    let refused = waiting.await.expect("it waits");
    assert_eq!(
        (refused.code.as_str(), refused.description.as_str()),
        (FAILED, "banned by the operator [banned] (21/101)")
    );
    house.wait_for_viewers(0).await;
    house.wait_for_peers(0).await;
    let refused = no(Client::play(&house.urls.plain("a")).await).await;
    assert_eq!(
        (refused.code.as_str(), refused.description.as_str()),
        (FAILED, "this stream is forbidden [forbidden] (18/305)")
    );
    publisher
        .send(kind::VIDEO, 240, vec![0x27, 1, 0, 0, 0, 1])
        .await;
    let path = format!("/api/v1/bans/{}", made["id"]);
    house.control.delete(&path).await.expect("an answer");
    Client::play(&house.urls.plain("a")).await.expect("granted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_ends_http_players_too_and_answers_403_from_then_on() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let house = House::open().await;
    let _publisher = publish(&house, "a").await;
    let ask = async || {
        let mut socket = tokio::net::TcpStream::connect(house.server.http_addr())
            .await
            .expect("accepted");
        let request = b"GET /live/a.flv HTTP/1.1\r\nHost: x\r\n\r\n";
        socket.write_all(request).await.expect("sent");
        socket
    };
    let mut player = ask().await;
    let mut head = [0; 15];
    player.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let made = ban(&house, json!({"address": "127.0.0.1", "action": "play"})).await;
    assert_eq!(made["ended"]["players"], 1);
    let end = tokio::time::timeout(SOON, async {
        let mut sink = [0; 4096];
        while matches!(player.read(&mut sink).await, Ok(n) if n > 0) {}
    });
    end.await.expect("it is closed");
    let mut refused = String::new();
    ask()
        .await
        .read_to_string(&mut refused)
        .await
        .expect("an answer");
    assert!(refused.starts_with("HTTP/1.1 403 Forbidden"), "{refused}");
    assert!(refused.contains("your address is banned"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_denied_hears_so_whatever_it_signs() {
    let house = House::open_with(
        "",
        "[access]\npublish = { deny = [\"127.0.0.0/8\"] }\nplay = { allow = [\"10.0.0.0/8\"] }",
    )
    .await;
    let refused = no(Client::publish(&house.urls.push("a")).await).await;
    assert_eq!(
        refused.description,
        "your address may not publish here [address_denied] (18/300)"
    );
    let refused = no(Client::play(&house.urls.peer("a")).await).await;
    assert_eq!(
        refused.description,
        "your address may not play here [address_denied] (18/300)"
    );
    wait_for(
        &house,
        "linkmic_auth_decisions_total{action=\"play\",outcome=\"address_denied\"} 1",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_refuse_one_more_and_count_it() {
    let house = House::open_with("", "[limits]\npublishers = 1").await;
    let _first = publish(&house, "a").await;
    let refused = no(Client::publish(&house.urls.push("b")).await).await;
    assert_eq!(
        refused.description,
        "1 publishers are here, as many as there may be [limit_reached] (18/600)"
    );
    wait_for(
        &house,
        "linkmic_limits_refused_total{limit=\"publishers\"} 1",
    )
    .await;
    wait_for(
        &house,
        "linkmic_ingest_disconnects_total{reason=\"limit_reached\"} 1",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_has_only_its_share_of_the_connections() {
    use tokio::io::AsyncReadExt;
    let house = House::open_with("", "[limits]\nconnections_per_address = 2").await;
    let _publisher = publish(&house, "a").await;
    let _viewer = Client::play(&house.urls.plain("a")).await.expect("granted");
    let mut third = tokio::net::TcpStream::connect(house.urls.rtmp())
        .await
        .expect("accepted");
    let end = tokio::time::timeout(SOON, third.read(&mut [0; 1]))
        .await
        .expect("in time");
    assert!(matches!(end, Ok(0) | Err(_)), "closed without a byte");
    wait_for(
        &house,
        "linkmic_limits_refused_total{limit=\"connections_per_address\"} 1",
    )
    .await;
    drop(_viewer);
    house.wait_for_viewers(0).await;
    let mut again = Client::play(&house.urls.plain("a")).await.expect("granted");
    again.media().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_far_over_its_bitrate_is_told_and_closed() {
    let house = House::open_with("", "[apps.live]\nmax_kbps = 800").await;
    let mut publisher = publish(&house, "a").await;
    // Ten seconds' worth of 800 kbit/s are 1,000,000 bytes.
    let mut frame = vec![0x27, 1, 0, 0, 0];
    frame.resize(200_000, 7);
    for n in 0..6 {
        let bytes = publisher.framed(kind::VIDEO, 240 + n, frame.clone().into());
        publisher.send_raw(&bytes).await;
    }
    let heard = loop {
        match publisher.event().await {
            Some(Event::Closed { description, .. }) => break description,
            Some(_) => {}
            None => panic!("closed without a word"),
        }
    };
    assert!(heard.contains("max_kbps"), "{heard}");
    wait_for(
        &house,
        "linkmic_ingest_disconnects_total{reason=\"too_fast\"} 1",
    )
    .await;
    wait_for(&house, "linkmic_limits_refused_total{limit=\"max_kbps\"} 1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_memory_budget_nobody_comes_in_and_whoever_is_in_goes_on() {
    // The GOP of one stream alone may be larger than all memory here; being tight keeps it to 1/16 of 64 MiB.
    let house = House::open_with("", "[limits]\nmemory = \"16MiB\"\ngop_bytes = \"64MiB\"").await;
    let mut publisher = publish(&house, "a").await;
    let mut viewer = Client::play(&house.urls.plain("a")).await.expect("granted");
    let held = async || {
        let metrics = house.control.get("/metrics").await.expect("metrics").body;
        let line = metrics
            .lines()
            .find_map(|l| l.strip_prefix("linkmic_memory_bytes{kind=\"used\"} "));
        line.and_then(|n| n.parse::<usize>().ok())
            .expect("a number")
    };
    // One frame of 700 KB over and over: 23 of them are under the limit, 24 are not.
    let mut frame = vec![0x27, 1, 0, 0, 0];
    frame.resize(700_000, 7);
    let mut most = 0;
    for n in 0..60 {
        let bytes = publisher.framed(kind::VIDEO, 240 + n, frame.clone().into());
        publisher.send_raw(&bytes).await;
        viewer.media_until(|m| m.payload.len() == frame.len()).await;
        most = most.max(held().await);
    }
    assert!(
        most < 20 << 20,
        "{most} bytes held, although the ring gives up what nobody needs"
    );
    drop(viewer);
    // With the limit lowered under what is held, the door is shut; the publisher goes on.
    let text = configuration(
        Path::new("/nonexistent"),
        "",
        "[limits]\nmemory = \"16MiB\"",
    );
    let mut lower = Config::parse(&text, "test", &Env::default()).expect("a configuration");
    lower.limits.memory = 1;
    house.server.reload(lower);
    for url in [house.urls.push("b"), house.urls.plain("a")] {
        let refused = match url.contains("txSecret") {
            true => no(Client::publish(&url).await).await,
            false => no(Client::play(&url).await).await,
        };
        assert_eq!(
            refused.description,
            "the server is full; try again later [overloaded] (18/601)"
        );
    }
    wait_for(&house, "linkmic_limits_refused_total{limit=\"memory\"} 2").await;
    publisher
        .send(kind::VIDEO, 300, vec![0x27, 1, 0, 0, 0, 1])
        .await;
    publisher.unpublish().await;
    // All of it comes back once the stream is gone.
    let seen = poll("memory to be given back", SOON, || async {
        (held().await < 1 << 20).then_some(())
    });
    seen.await.expect("it is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_leaves_who_is_in_and_holds_for_who_comes() {
    let house = House::open().await;
    let mut publisher = publish(&house, "a").await;
    let mut viewer = Client::play(&house.urls.peer("a")).await.expect("granted");
    let old = house.urls.push("b");
    let text = configuration(Path::new("/nonexistent"), "", "")
        .replace("push-0123456789abcdef", "next-0123456789abcdef");
    let next = Config::parse(&text, "test", &Env::default()).expect("a configuration");
    let report = house.server.reload(next);
    assert_eq!(report.applied, ["auth.push_keys"]);

    let refused = no(Client::publish(&old).await).await;
    assert!(
        refused
            .description
            .starts_with("txSecret fits none of the keys"),
        "{refused:?}"
    );
    let keys = Policy::new(Keys {
        push_keys: vec![Key::new(
            KeyId::new("main"),
            Secret::new("next-0123456789abcdef"),
        )],
        ..Keys::default()
    });
    let name = linkmic::media::StreamKey::new("live", "b").expect("a name");
    let now = std::time::SystemTime::now();
    let until = now + Duration::from_secs(600);
    let query = keys
        .signed_query(Purpose::Push, &name, until, None, now)
        .expect("a key")
        .expect("signed");
    let _new = Client::publish(&house.urls.with("b", &query))
        .await
        .expect("granted");
    publisher
        .send(kind::VIDEO, 240, vec![0x27, 1, 0, 0, 0, 1])
        .await;
    viewer
        .media_until(|m| m.payload[..] == [0x27, 1, 0, 0, 0, 1])
        .await;
}

/// The binary, with a state directory that outlives it.
struct Binary {
    process: Process,
    control: http::Client,
    urls: Urls,
}

struct Place {
    folder: TempDir,
    file: PathBuf,
    text: String,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = "[log]\nformat = \"json\"\nlevel = \"info\"";
        let text = configuration(&folder.path().join("state"), "", log);
        let file = folder.path().join("linkmic.toml");
        std::fs::write(&file, &text).expect("the file");
        Self { folder, file, text }
    }

    fn spawn(&self) -> Process {
        let file = self.file.display().to_string();
        let arguments = ["serve", "--config", &file];
        Process::spawn(env!("CARGO_BIN_EXE_linkmic"), &arguments).unwrap_or_else(|e| panic!("{e}"))
    }

    async fn serve(&self) -> Binary {
        let process = self.spawn();
        let listening = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening").then_some(())?;
            let first = |key: &str| {
                line[key]
                    .as_str()?
                    .strip_prefix('[')?
                    .strip_suffix(']')?
                    .parse()
                    .ok()
            };
            Some((first("rtmp")?, first("control")?))
        };
        let found = poll("the server to listen", SOON, || async {
            process.said().lines().find_map(listening)
        });
        let (rtmp, control) = found
            .await
            .unwrap_or_else(|e| panic!("{e}\n{}", process.said()));
        let config = Config::parse(&self.text, "test", &Env::default()).expect("a configuration");
        Binary {
            process,
            control: http::Client::new(control, Some(TOKEN)),
            urls: Urls::new(rtmp, &config),
        }
    }
}

impl Binary {
    /// `KILL`, `HUP`.
    async fn signal(&mut self, name: &str) {
        self.process.signal(name).await.expect("a signal");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_outlives_a_killed_server() {
    let place = Place::new();
    let mut server = place.serve().await;
    let body = json!({"stream": "live/a", "expires_in": "1h", "note": "kept"});
    let made = server
        .control
        .post("/api/v1/bans", &body)
        .await
        .expect("an answer");
    assert_eq!(made.status, 201, "{}", made.body);
    server.signal("KILL").await;
    let status = server.process.end(SOON).await.expect("it ends");
    assert!(!status.success());

    let server = place.serve().await;
    let refused = no(Client::publish(&server.urls.push("a")).await).await;
    assert_eq!(
        refused.description,
        "this stream is forbidden [forbidden] (18/305)"
    );
    Client::publish(&server.urls.push("b"))
        .await
        .expect("granted");
    let listed = server
        .control
        .get("/api/v1/bans")
        .await
        .expect("an answer")
        .json();
    assert_eq!(listed["bans"][0]["id"], made.json()["id"]);
    assert_eq!(listed["bans"][0]["note"], "kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_occupied_state_ends_the_start_with_a_sentence() {
    let place = Place::new();
    let server = place.serve().await;
    let mut second = place.spawn();
    let status = second.end(SOON).await.expect("it ends");
    assert_eq!(status.code(), Some(1));
    let heard = |process: &Process, words: &'static str| {
        let said = process.said();
        assert!(said.contains(words), "{said}");
    };
    heard(&second, "another server uses the state directory");
    drop(server);

    let database = place.folder.path().join("state/linkmic.db");
    let again = poll("the directory to be free", SOON, || async {
        std::fs::write(&database, "no database at all".repeat(100)).ok()?;
        let mut third = place.spawn();
        let status = third.end(SOON).await.expect("it ends");
        assert_eq!(status.code(), Some(1));
        third.said().contains("linkmic.db is damaged").then_some(())
    });
    again.await.expect("it says so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_applies_a_good_file_and_refuses_a_bad_one_in_one_line() {
    let place = Place::new();
    let mut server = place.serve().await;
    let _publisher = Client::publish(&server.urls.push("a"))
        .await
        .expect("granted");

    std::fs::write(
        &place.file,
        format!("{}\n[limits]\npublishers = \"x\"\nwait = 7\n", place.text),
    )
    .expect("written");
    server.signal("HUP").await;
    let line = said(&server, "configuration not reloaded").await;
    assert!(
        line.contains("limits.publishers: ") && line.contains("; limits.wait: "),
        "{line}"
    );
    Client::publish(&server.urls.push("b"))
        .await
        .expect("nothing changed");

    let good = format!(
        "{}\n[limits]\nwait = \"1s\"\n[access]\npublish = {{ deny = [\"127.0.0.1\"] }}\n",
        place.text
    );
    std::fs::write(&place.file, good).expect("written");
    server.signal("HUP").await;
    let line = said(&server, "configuration reloaded").await;
    assert!(line.contains("access") && line.contains("limits"), "{line}");
    let refused = no(Client::publish(&server.urls.push("b")).await).await;
    assert_eq!(
        refused.description,
        "your address may not publish here [address_denied] (18/300)"
    );
    let streams = server
        .control
        .get("/api/v1/streams")
        .await
        .expect("an answer")
        .json();
    assert_eq!(
        streams["streams"][0]["stream"], "a",
        "who is in stays: {streams}"
    );
}

/// The line of the log that has these words.
async fn said(server: &Binary, words: &str) -> String {
    let seen = poll(words, SOON, || async {
        let said = server.process.said();
        said.lines()
            .find(|line| line.contains(words))
            .map(str::to_owned)
    });
    seen.await
        .unwrap_or_else(|e| panic!("{e}\n{}", server.process.said()))
}
