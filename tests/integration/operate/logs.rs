//! Logs: every line says whose it is, changing calls are audited, and no secret is ever in one.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use linkmic::auth::{Purpose, Secret, digest};
use linkmic::rtmp::kind;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::run::{Answer, Place, Server, command, exchange};
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::house::{Hour, PLAY_KEY, PUSH_KEY, TOKEN};
use crate::hooks::receiver::{Receiver, Reply, Request};

const BEARER: (&str, &str) = ("Authorization", "Bearer control-0123456789abcdef");

/// A reader of the event stream, from its beginning.
struct Events {
    _child: tokio::process::Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    seen: Vec<Value>,
}

impl Events {
    /// `linkmic ctl events follow`.
    async fn of(server: &Server) -> Self {
        let (config, address) = (server.place.config(), server.control.to_string());
        let follow = [
            "ctl",
            "events",
            "follow",
            "--json",
            "--last-event-id",
            "0-0",
        ];
        let mut child = command(&follow)
            .args(["--config", &config, "--address", &address])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let stdout = child.stdout.take().expect("piped");
        Self {
            _child: child,
            lines: BufReader::new(stdout).lines(),
            seen: Vec::new(),
        }
    }

    /// Reads on until an event is it.
    async fn until(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let reading = async {
            loop {
                let line = self.lines.next_line().await.expect("readable");
                let event: Value = serde_json::from_str(&line.expect("no end")).expect("JSON");
                self.seen.push(event.clone());
                if is_it(&event) {
                    return event;
                }
            }
        };
        timeout(SOON, reading)
            .await
            .unwrap_or_else(|_| panic!("no {what}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_has_one_name_in_its_answer_the_log_the_audit_and_the_events_that_it_caused() {
    let server = Place::plain().serve().await;
    let mut events = Events::of(&server).await;
    let mut publisher = Client::publish(&server.urls.push("a"))
        .await
        .expect("granted");
    begin(&mut publisher).await;
    // The connection has one name too, in the log and in the event.
    let line = server
        .line("the publisher", |line| {
            line["message"] == "publisher connected"
        })
        .await;
    let connection = line["span"]["connection"]
        .as_str()
        .expect("a name")
        .to_owned();
    let published = events
        .until("publish", |event| event["type"] == "publish")
        .await;
    assert_eq!(published["data"]["connection"], connection.as_str());
    let shown = server.json(&["streams", "get", "live/a"]).await;
    assert_eq!(shown["publisher"]["connection"], connection.as_str());

    let call = async |method: &str, path: &str, name: &str, body: &str| {
        let headers = [BEARER, ("X-Request-Id", name)];
        exchange(server.control, method, path, &headers, body).await
    };
    // Nobody listens there, so it comes to a state of its own.
    let closed = closed_port().await;
    let target = format!(
        "{{\"app\":\"live\",\"stream\":\"a\",\"feed\":\"source\",\"url\":\"rtmp://{closed}/live/a\"}}"
    );
    let made = call("PUT", "/api/v1/pushes/p", "made-by-me", &target).await;
    assert_eq!(
        (made.status, made.header("x-request-id")),
        (201, Some("made-by-me")),
        "{}",
        made.body
    );
    let pushed = events.until("push", |event| event["type"] == "push").await;
    assert_eq!(pushed["data"]["request_id"], "made-by-me");
    let ended = call("DELETE", "/api/v1/pushes/p", "ended-by-me", "").await;
    assert_eq!(ended.status, 200, "{}", ended.body);
    events
        .until("the push's end", |event| {
            event["data"]["request_id"] == "ended-by-me"
        })
        .await;
    let dropped = call("DELETE", "/api/v1/streams/live/a", "dropped-by-me", "").await;
    assert_eq!(dropped.status, 202, "{}", dropped.body);
    let unpublished = events
        .until("unpublish", |event| event["type"] == "unpublish")
        .await;
    assert_eq!(unpublished["data"]["request_id"], "dropped-by-me");
    assert_eq!(unpublished["data"]["connection"], connection.as_str());
    drop(publisher);

    // The audit says who did what from where, and nothing of the body.
    for (name, method, path, status) in [
        ("made-by-me", "PUT", "/api/v1/pushes/p", 201),
        ("ended-by-me", "DELETE", "/api/v1/pushes/p", 200),
        ("dropped-by-me", "DELETE", "/api/v1/streams/live/a", 202),
    ] {
        let is_it = |line: &Value| line["target"] == "linkmic::audit" && line["request_id"] == name;
        let line = server.line("the audit", is_it).await;
        let fields = (
            &line["who"],
            &line["method"],
            &line["path"],
            &line["status"],
        );
        assert_eq!(
            fields,
            (
                &"token".into(),
                &method.into(),
                &path.into(),
                &status.into()
            ),
            "{line}"
        );
        assert!(
            line["from"]
                .as_str()
                .is_some_and(|from| from.starts_with("127.0.0.1:")),
            "{line}"
        );
        assert!(!line.to_string().contains(&closed), "{line}");
    }
    // What was logged on the way has it in its span.
    server
        .line("the drop", |line| {
            line["message"] == "publisher dropped through the API"
                && line["span"]["request_id"] == "dropped-by-me"
        })
        .await;

    // Whoever sends none, or one that cannot be logged, gets one of ours; and who only asks is not in the audit.
    let asked = exchange(server.control, "GET", "/api/v1/streams", &[BEARER], "").await;
    assert_eq!(asked.header("x-request-id").expect("a name").len(), 16);
    let headers = [BEARER, ("X-Request-Id", "a b\"c")];
    let asked = exchange(server.control, "GET", "/api/v1/streams", &headers, "").await;
    assert_eq!(asked.header("x-request-id").expect("a name").len(), 16);
    let refused = exchange(server.control, "DELETE", "/api/v1/pushes/p", &[], "").await;
    assert_eq!(refused.status, 401);
    assert!(refused.header("x-request-id").is_some());
    let audited = server.lines();
    let audited: Vec<_> = audited
        .iter()
        .filter(|line| line["target"] == "linkmic::audit")
        .collect();
    assert_eq!(audited.len(), 3, "{audited:#?}");
}

/// Sends a header and a key frame: nothing is pushed before there are any.
async fn begin(publisher: &mut Client) {
    for payload in [vec![0x17, 0, 0, 0, 0, 1], vec![0x17, 1, 0, 0, 0, 1]] {
        publisher.send(kind::VIDEO, 0, payload).await;
    }
}

/// An address at which nobody listens.
async fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound").to_string()
}

const PEER_KEY: &str = "peer-0123456789abcdef";
const API_KEY: &str = "0123456789abcdef0123456789abcdef";
const CALLBACK_KEY: &str = "callback-0123456789abcdef";
const SECRET_ID: &str = "AKIDexample0123456789";
const SECRET_KEY: &str = "secret-0123456789abcdef";
const WEBHOOK_SECRET: &str = "webhook-0123456789abcdef";
const QUESTION_SECRET: &str = "question-0123456789abcdef";
const ADDRESS_SECRET: &str = "address-0123456789abcdef";
const TARGET_SECRET: &str = "target-0123456789abcdef";
const TARGET_PASSWORD: &str = "password-0123456789abcdef";
const PICTURE_SECRET: &str = "picture-0123456789abcdef";
const WRONG_TOKEN: &str = "guess-0123456789abcdef";
/// Not secret at all: it is a stream's name. Who looks for secrets must find it.
const PLANTED: &str = "planted-0123456789abcdef";

/// The value of a query's parameter.
fn value(query: &str, name: &str) -> String {
    let pairs = query.rsplit('?').next().expect("a query").split('&');
    let found = pairs
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name);
    found.expect("it is there").1.to_owned()
}

/// Where any of `secrets` stands in `texts`.
fn finds(secrets: &[(&str, String)], texts: &[(String, Vec<u8>)]) -> Vec<String> {
    let mut found = Vec::new();
    for (what, secret) in secrets {
        assert!(secret.len() >= 8, "{what}: too short to be looked for");
        for (place, text) in texts {
            let at = text
                .windows(secret.len())
                .position(|part| part.eq_ignore_ascii_case(secret.as_bytes()));
            if let Some(at) = at {
                let from = at.saturating_sub(120);
                let shown = String::from_utf8_lossy(&text[from..(at + 40).min(text.len())]);
                found.push(format!("{what} in {place}: …{shown}…"));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_life_leaves_no_secret_in_logs_events_letters_files_or_refusals() {
    let says = |request: &Request, _| match request.path.starts_with("/may") {
        true => Reply::Says(200, "{\"allow\": true}"),
        false => Reply::Says(200, "{\"code\":0}"),
    };
    let back_end = Receiver::deciding(None, says).await;
    let auth = format!(
        "peer_keys = [{{ id = \"peer\", secret = \"{PEER_KEY}\" }}]\nplay_keys = [{{ id = \"play\", secret = \"{PLAY_KEY}\" }}]"
    );
    let more = format!(
        "[hooks]\nauthorize = {{ url = \"{}?key={ADDRESS_SECRET}\", secret = \"{QUESTION_SECRET}\" }}\n\
         [[hooks.webhooks]]\nurl = \"{}?key={ADDRESS_SECRET}\"\nsecret = \"{WEBHOOK_SECRET}\"\n\
         events = [\"publish\", \"unpublish\", \"play\", \"mix\", \"input\", \"push\", \"link\"]\n\
         [[hooks.webhooks]]\nurl = \"http://{}/nobody?key={ADDRESS_SECRET}\"\nsecret = \"{WEBHOOK_SECRET}-2\"\n\
         events = [\"publish\", \"unpublish\", \"play\", \"push\"]\n\
         [[compat.accounts]]\nappid = 1251000001\napi_key = \"{API_KEY}\"\nsecret_id = \"{SECRET_ID}\"\nsecret_key = \"{SECRET_KEY}\"\n\
         callback_url = \"{}?key={ADDRESS_SECRET}\"\ncallback_key = \"{CALLBACK_KEY}\"\n",
        back_end.url("/may"),
        back_end.url("/hook"),
        closed_port().await,
        back_end.url("/callback"),
    );
    let server = Place::new(&auth, &more, |text| text).serve().await;
    let urls = &server.urls;
    let mut refusals: Vec<(String, Vec<u8>)> = Vec::new();
    let mut refuse = |what: &str, answer: &Answer| {
        let text = format!("{}\n{}", answer.head, answer.body);
        refusals.push((format!("the answer to {what}"), text.into_bytes()));
    };

    // Publish, play as a peer, as a viewer, over HTTP; with signatures that fit, that are over, and that are wrong.
    let [push, peer] = [urls.push(PLANTED), urls.peer(PLANTED)];
    let view = urls.with(PLANTED, &urls.query(Purpose::View, PLANTED, Hour::Next));
    let over = urls.with(PLANTED, &urls.query(Purpose::Push, PLANTED, Hour::Last));
    let wrong = urls.with(
        PLANTED,
        "txSecret=0badc0de0badc0de0badc0de0badc0de&txTime=7fffffff",
    );
    let mut publisher = Client::publish(&push).await.expect("granted");
    begin(&mut publisher).await;
    let players = [
        Client::play(&peer).await.expect("granted"),
        Client::play(&view).await.expect("granted"),
    ];
    let mut denials = Vec::new();
    for url in [&over, &wrong] {
        for refused in [Client::publish(url).await, Client::play(url).await] {
            let no = refused.err().expect("refused");
            denials.push(("onStatus".to_owned(), no.description.into_bytes()));
        }
    }
    let query = wrong.rsplit('?').next().expect("a query");
    let path = format!("/live/{PLANTED}.flv?{query}");
    let answer = exchange(server.http, "GET", &path, &[], "").await;
    assert_eq!(answer.status, 403, "{}", answer.body);
    refuse("HTTP-FLV with a wrong signature", &answer);

    // The control API: with the token, with another one, and with what opens other people's doors.
    let api = async |method: &str, path: &str, body: &str| {
        exchange(server.control, method, path, &[BEARER], body).await
    };
    let guess = format!("Bearer {WRONG_TOKEN}");
    let guessed = [("Authorization", guess.as_str())];
    let answer = exchange(
        server.control,
        "DELETE",
        "/api/v1/streams/live/x",
        &guessed,
        "",
    )
    .await;
    assert_eq!(answer.status, 401);
    refuse("another token", &answer);
    let answer = api(
        "POST",
        "/api/v1/urls/verify",
        &format!("{{\"url\":\"{wrong}\"}}"),
    )
    .await;
    assert!(answer.status == 200, "{}", answer.body);
    refuse("verify", &answer);
    let answer = api(
        "POST",
        "/api/v1/urls/verify",
        &format!("{{\"url\":\"{wrong}\",\"acton\":\"{WRONG_TOKEN}\"}}"),
    )
    .await;
    assert_eq!(answer.status, 400);
    refuse("a question with a field that is none", &answer);
    let closed = closed_port().await;
    let target = |url: &str| {
        format!(
            "{{\"app\":\"live\",\"stream\":\"{PLANTED}\",\"feed\":\"source\",\"url\":\"{url}\"}}"
        )
    };
    let signed = format!("rtmp://{closed}/live/x?txSecret={TARGET_SECRET}&txTime=7fffffff");
    let answer = api("PUT", "/api/v1/pushes/signed", &target(&signed)).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    refuse("a push", &answer);
    let with_password = format!("rtmp://user:{TARGET_PASSWORD}@{closed}/live/x");
    for url in [with_password.as_str(), "rtmp://x", "ftp://x/y/z?k=1"] {
        let answer = api("PUT", "/api/v1/pushes/wrong", &target(url)).await;
        refuse("a push that makes no sense", &answer);
    }
    #[cfg(feature = "mixer")]
    {
        let scene = format!(
            "{{\"app\":\"live\",\"output\":{{\"stream\":\"mixed\",\"width\":320,\"height\":240}},\"inputs\":[{{\"picture\":{{\"url\":\
             \"http://127.0.0.1:9/p.png?key={PICTURE_SECRET}\"}}}},{{\"stream\":\"{PLANTED}\"}}]}}"
        );
        let answer = api("PUT", "/api/v1/mixes/m", &scene).await;
        assert!(answer.status >= 400, "{}", answer.body);
        refuse("a mix whose picture cannot be had", &answer);
    }

    // The vendor's forms, signed and wrongly signed.
    let t = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a clock")
        .as_secs()
        + 600;
    let sign = digest::hex(&digest::keyed(&Secret::new(API_KEY), &[&t.to_string()]));
    let forged = digest::hex(&digest::keyed(&Secret::new("another"), &[&t.to_string()]));
    let legacy = |sign: &str| {
        format!(
            "/common_access?cmd=1251000001&interface=channel_manager&Param.s.channel_id={PLANTED}&Param.s.action=resume&t={t}&sign={sign}"
        )
    };
    let answer = exchange(server.control, "GET", &legacy(&sign), &[], "").await;
    assert!(answer.body.contains("\"ret\":0"), "{}", answer.body);
    refuse("a legacy call", &answer);
    let answer = exchange(server.control, "GET", &legacy(&forged), &[], "").await;
    assert!(answer.body.contains("sign invalid"), "{}", answer.body);
    refuse("a legacy call with a wrong signature", &answer);
    let signature = "f00df00df00df00df00df00df00df00df00df00df00df00df00df00df00df00d";
    let proof = format!(
        "TC3-HMAC-SHA256 Credential={SECRET_ID}/2026-11-29/live/tc3_request, SignedHeaders=content-type;host, Signature={signature}"
    );
    let headers = [
        ("Authorization", proof.as_str()),
        ("X-TC-Action", "DropLiveStream"),
        ("X-TC-Version", "2018-08-01"),
        ("X-TC-Timestamp", &t.to_string()),
        ("Content-Type", "application/json"),
    ];
    let answer = exchange(server.control, "POST", "/", &headers, "{}").await;
    assert!(answer.body.contains("AuthFailure"), "{}", answer.body);
    refuse("a v3 call with a wrong signature", &answer);

    // Reloaded, everybody leaves, and back ends hear of it.
    let id = server.child.id().expect("it runs").to_string();
    let hung_up = std::process::Command::new("kill")
        .args(["-HUP", &id])
        .status();
    assert!(hung_up.is_ok_and(|status| status.success()));
    server
        .line("the reload", |line| {
            line["message"]
                .as_str()
                .is_some_and(|m| m.contains("configuration"))
        })
        .await;
    drop(players);
    publisher.unpublish().await;
    let mut events = Events::of(&server).await;
    events
        .until("unpublish", |event| event["type"] == "unpublish")
        .await;
    let requests = back_end
        .until("the letters", |requests| {
            let of = |path: &str, kind: &str| {
                requests
                    .iter()
                    .any(|r| r.path.starts_with(path) && r.text.contains(kind))
            };
            (of("/hook", "\"unpublish\"") && of("/callback", "\"event_type\":0"))
                .then(|| requests.to_vec())
        })
        .await;
    let failed = server
        .line("the push's failure", |line| {
            line["push"] == "signed" && line["level"] == "WARN"
        })
        .await;
    assert_eq!(failed["url"], format!("rtmp://{closed}/live/x?***"));

    let secret = |what: &'static str, text: &str| (what, text.to_owned());
    let mut secrets = vec![
        secret("the token", TOKEN),
        secret("another token", WRONG_TOKEN),
        secret("the push key", PUSH_KEY),
        secret("the peer key", PEER_KEY),
        secret("the play key", PLAY_KEY),
        secret("the account's API key", API_KEY),
        secret("the account's callback key", CALLBACK_KEY),
        secret("the account's secret key", SECRET_KEY),
        secret("the webhook's secret", WEBHOOK_SECRET),
        secret("the question's secret", QUESTION_SECRET),
        secret("the key in a back end's address", ADDRESS_SECRET),
        secret("the key in a picture's address", PICTURE_SECRET),
        secret("a password in a target", TARGET_PASSWORD),
        secret("a peer's signature", &value(&peer, "txSecret")),
        secret("a viewer's signature", &value(&view, "txSecret")),
        secret("a signature that is over", &value(&over, "txSecret")),
        secret("a wrong signature", &value(&wrong, "txSecret")),
        secret("a legacy signature", &sign),
        secret("a wrong legacy signature", &forged),
        secret("a wrong v3 signature", signature),
    ];
    for request in &requests {
        if let Some(signature) = request.headers.get("webhook-signature") {
            secrets.push((
                "a webhook's signature",
                signature.trim_start_matches("v1,").to_owned(),
            ));
        }
        if let Some(signature) = request.json["sign"].as_str() {
            secrets.push(("a callback's signature", signature.to_owned()));
        }
    }
    // These two have to be on the disk: a target is dialled again after a restart, and the vendor's callbacks repeat the publisher's
    // query. Nowhere else.
    let kept = [
        secret("a target's signature", TARGET_SECRET),
        secret("the publisher's signature", &value(&push, "txSecret")),
    ];

    let files = files(&server.place.path("state"));
    let mut said = vec![("the log".to_owned(), server.said().into_bytes())];
    let events = serde_json::to_vec(&events.seen).expect("JSON");
    said.push(("the event stream".to_owned(), events));
    for request in requests
        .iter()
        .filter(|request| request.path.starts_with("/hook"))
    {
        said.push(("a webhook".to_owned(), request.text.clone().into_bytes()));
    }
    let dead = api("GET", "/api/v1/hooks/dead", "").await;
    let keys = api("GET", "/api/v1/auth/keys", "").await;
    let pushes = api("GET", "/api/v1/pushes", "").await;
    let metrics = api("GET", "/metrics", "").await;
    for (what, answer) in [
        ("dead letters", dead),
        ("keys", keys),
        ("pushes", pushes),
        ("metrics", metrics),
    ] {
        assert_eq!(answer.status, 200, "{what}");
        said.push((what.to_owned(), answer.body.into_bytes()));
    }
    said.extend(refusals);
    said.extend(denials);

    // First that this finds anything at all: a name that is no secret, in the log, in an event, in a letter and on the disk.
    let planted = [secret("what was planted", PLANTED)];
    let found = finds(&planted, &said).join("\n");
    for place in ["the log", "the event stream", "a webhook"] {
        assert!(
            found.contains(&format!("in {place}")),
            "not found in {place}:\n{found}"
        );
    }
    assert!(!finds(&planted, &files).is_empty(), "not found on the disk");
    assert!(
        !finds(&kept, &files).is_empty(),
        "what is kept is not found on the disk"
    );

    assert_eq!(finds(&secrets, &said), [""; 0]);
    assert_eq!(finds(&kept, &said), [""; 0]);
    // The webhook that nobody takes waits there with its letters.
    assert_eq!(finds(&secrets, &files), [""; 0]);
    for (place, _) in &files {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(place).map(|data| data.permissions().mode() & 0o077);
        assert_eq!(mode.unwrap_or(0), 0, "{place} is open to others");
    }
}

/// Every file of a directory.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    files
        .map(|entry| {
            let path = entry.path();
            (
                path.display().to_string(),
                std::fs::read(&path).unwrap_or_default(),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_gets_lines_for_people_and_a_pipe_gets_json_by_default() {
    let auto = |text: String| text.replace("format = \"json\"\n", "");
    // script(1) gives the program a terminal.
    for (terminal, is_json) in [(false, true), (true, false)] {
        let place = Place::new("", "", auto);
        let serve = format!("{} serve --config {}", super::run::PROGRAM, place.config());
        let out = place.path("out");
        let mut starter = tokio::process::Command::new(if terminal { "script" } else { "sh" });
        match terminal {
            true => starter.args([
                "--quiet",
                "--flush",
                "--command",
                &serve,
                &out.display().to_string(),
            ]),
            false => starter.args(["-c", &format!("exec {serve} 2>{}", out.display())]),
        };
        let mut child = starter
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .expect("it runs");
        let said = linkmic::probe::process::poll("the server to listen", SOON, || async {
            let said = std::fs::read_to_string(&out).ok()?;
            said.contains("listening").then_some(said)
        });
        let said = said.await.expect("it listens");
        let line = said
            .lines()
            .find(|line| line.contains("listening"))
            .expect("a line");
        assert_eq!(
            serde_json::from_str::<Value>(line).is_ok(),
            is_json,
            "{line}"
        );
        let group = format!("-{}", child.id().expect("it runs"));
        let _ = std::process::Command::new("kill")
            .args(["-TERM", "--", &group])
            .status();
        let _ = timeout(Duration::from_secs(5), child.wait()).await;
    }
}
