//! `ctl` and `top` against a running server.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use linkmic::probe::process::poll;
use linkmic::rtmp::kind;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::run::{PROGRAM, Place, Server, command, finished, linkmic, texts};
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::house::TOKEN;

/// The token is made at the first start, as it is for most who run it.
fn generated(text: String) -> String {
    text.replace(&format!("token = \"{TOKEN}\""), "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctl_asks_and_changes_with_the_token_that_the_server_made() {
    let server = Place::new("", "", generated).serve().await;
    let publisher = Client::publish(&server.urls.push("a"))
        .await
        .expect("granted");
    let player = Client::play(&server.urls.peer("a")).await.expect("granted");

    // Tables for people, JSON for programs.
    let (table, errors) = texts(&server.ctl(&["streams", "list"]).await);
    let mut lines = table.lines();
    let head = lines.next().unwrap_or_default();
    assert!(head.starts_with("APP   STREAM"), "{table}{errors}");
    let row = lines.next().unwrap_or_default();
    assert!(
        row.starts_with("live  a") && row.contains("127.0.0.1:"),
        "{table}"
    );
    let json = server.json(&["streams", "list"]).await;
    assert_eq!(json["streams"][0]["stream"], "a");
    let (fields, _) = texts(&server.ctl(&["streams", "get", "live/a"]).await);
    assert!(
        fields
            .lines()
            .any(|line| line.starts_with("publisher.origin") && line.ends_with("anchor")),
        "{fields}"
    );

    // Fields make bodies.
    let ban = [
        "bans",
        "add",
        "stream=live/b",
        "action=publish",
        "note=by ctl",
        "expires_in=1h",
    ];
    let made = server.json(&ban).await;
    let id = made["id"]
        .as_str()
        .map_or_else(|| made["id"].to_string(), str::to_owned);
    assert_eq!(server.json(&["bans", "get", &id]).await["note"], "by ctl");
    server.json(&["bans", "delete", &id]).await;
    let url = [
        "urls",
        "sign",
        "app=live",
        "stream=a",
        "action=push",
        "expires_in=1h",
    ];
    let signed = server.json(&url).await;
    assert!(
        signed["url"]
            .as_str()
            .is_some_and(|url| url.contains("txSecret=")),
        "{signed}"
    );
    let (metrics, _) = texts(&server.ctl(&["metrics"]).await);
    assert!(metrics.contains("\nlinkmic_"), "{metrics}");
    assert_eq!(server.json(&["ready"]).await["status"], "ready");

    // Somebody plays, and is told to go.
    let reader = poll("a reader", SOON, || async {
        let readers = server.json(&["readers", "list", "live/a"]).await;
        readers["readers"][0]["id"].as_u64()
    });
    let reader = reader.await.expect("he plays").to_string();
    server.json(&["readers", "drop", "live/a", &reader]).await;
    let dropped = server.json(&["streams", "drop", "live/a"]).await;
    assert_eq!(dropped["state"], "disconnecting");
    let gone = poll("nobody to publish", SOON, || async {
        let streams = server.json(&["streams", "list"]).await;
        let published = |stream: &Value| !stream["publisher"].is_null();
        let streams = streams["streams"].as_array().cloned().unwrap_or_default();
        (!streams.iter().any(published)).then_some(())
    });
    gone.await.expect("it is gone");
    drop((publisher, player));

    // A refusal is one line with the code and the call's name, and exit code 1.
    let output = server.ctl(&["streams", "drop", "live/a"]).await;
    let (said, errors) = texts(&output);
    assert_eq!((output.status.code(), said.as_str()), (Some(1), ""));
    let line = errors.trim_end();
    assert!(
        line.starts_with("linkmic: ") && line.contains("(404 not_found, request "),
        "{errors}"
    );
    assert_eq!(line.lines().count(), 1, "{errors}");
    let name = line
        .rsplit_once("request ")
        .expect("a name")
        .1
        .trim_end_matches(')');
    server
        .line("the audit of it", |line| {
            line["request_id"] == name && line["status"] == 404
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctl_finds_its_server_and_token_by_flag_variable_or_file_and_says_what_it_does_not_find() {
    let server = Place::plain().serve().await;
    let address = server.control.to_string();
    let token = server.place.path("token");
    std::fs::write(&token, format!("{TOKEN}\n")).expect("a file");
    let token = token.display().to_string();
    let config = server.place.config();
    let call = ["ctl", "streams", "list", "--json"];
    let with = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = command(&call);
        command.args(arguments);
        // Nothing of this machine's own.
        command.env(
            "LINKMIC__STATE__DIR",
            server.place.folder.path().join("nothing"),
        );
        command.envs(variables.iter().copied());
        finished(command)
    };
    for (what, arguments, variables) in [
        (
            "flags",
            vec!["--address", &address, "--token", TOKEN],
            vec![],
        ),
        (
            "a file",
            vec!["--address", &address, "--token-file", &token],
            vec![],
        ),
        (
            "variables",
            vec![],
            vec![
                ("LINKMIC_ADDRESS", address.as_str()),
                ("LINKMIC_TOKEN", TOKEN),
            ],
        ),
        (
            "flags beside variables of another server",
            vec!["--address", &address, "--token-file", &token],
            vec![
                ("LINKMIC_ADDRESS", "127.0.0.1:1"),
                ("LINKMIC_TOKEN", "another"),
            ],
        ),
        (
            "the configuration",
            vec!["--address", &address, "--config", &config],
            vec![("LINKMIC_TOKEN", ""), ("LINKMIC_TOKEN_FILE", "")],
        ),
    ] {
        let output = with(&arguments, &variables).await;
        let (said, errors) = texts(&output);
        assert!(
            output.status.success() && said.contains("\"streams\""),
            "{what}: {errors}"
        );
    }
    for (what, arguments, code, words) in [
        (
            "no token",
            vec!["--address", address.as_str()],
            2,
            "cannot read the control token",
        ),
        (
            "another token",
            vec!["--address", &address, "--token", "guess"],
            1,
            "(401 unauthorized, request ",
        ),
        (
            "no server",
            vec!["--address", "127.0.0.1:1", "--token", TOKEN],
            1,
            "cannot reach the server at 127.0.0.1:1: ",
        ),
        (
            "no address",
            vec!["--address", "rtmp://x", "--token", TOKEN],
            2,
            "is neither host and port nor an http URL",
        ),
        (
            "no configuration",
            vec!["--config", "/nowhere.toml"],
            2,
            "/nowhere.toml",
        ),
    ] {
        let output = with(&arguments, &[]).await;
        let (_, errors) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{what}: {errors}");
        assert!(errors.contains(words), "{what}: {errors}");
        assert!(!errors.contains("guess"), "{errors}");
    }
}

#[cfg(feature = "mixer")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctl_draws_a_preview_into_a_file() {
    let server = Place::plain().serve().await;
    let scene = server.place.path("scene.json");
    std::fs::write(&scene, r#"{"app":"live","output":{"stream":"a","width":320,"height":240},"inputs":[{"stream":"a","layer":1},{"stream":"b","layer":2}]}"#)
        .expect("a file");
    let picture = server.place.path("preview.png");
    let (scene, file) = (scene.display().to_string(), picture.display().to_string());
    let draw = [
        "mixes",
        "preview",
        "--file",
        &scene,
        "output.height=180",
        "--output",
        &file,
    ];
    let output = server.ctl(&draw).await;
    let (said, errors) = texts(&output);
    assert!(output.status.success(), "{errors}");
    assert!(said.ends_with("bytes of image/png\n"), "{said}");
    let bytes = std::fs::read(&picture).expect("a picture");
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
    // The width and height stand behind the first chunk's name; the field went over the file's.
    assert_eq!(bytes[16..24], [0, 0, 1, 64, 0, 0, 0, 180]);
    // A mistake in a scene is told with the field.
    let output = server
        .ctl(&["mixes", "put", "m", "--file", &scene, "output.fps=fast"])
        .await;
    let (_, errors) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("output.fps"), "{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_shows_who_publishes_and_how_many_play() {
    let server = Place::plain().serve().await;
    let mut publisher = Client::publish(&server.urls.push("a"))
        .await
        .expect("granted");
    let _players = [
        Client::play(&server.urls.peer("a")).await.expect("granted"),
        Client::play(&server.urls.plain("a"))
            .await
            .expect("granted"),
    ];
    publisher
        .send(kind::VIDEO, 0, vec![0x17, 1, 0, 0, 0, 1])
        .await;
    let shown = poll("a picture with both players", SOON, || async {
        let output = server.linkmic(&["top", "--once"]).await;
        let (said, errors) = texts(&output);
        assert!(output.status.success(), "{errors}");
        let first = said.lines().next()?;
        first
            .contains("publishers 1  players 2")
            .then_some(said.clone())
    });
    let shown = shown.await.expect("it shows them");
    let row = shown
        .lines()
        .find(|line| line.starts_with("live/a "))
        .expect("a row");
    let cells: Vec<_> = row.split_whitespace().collect();
    assert!(cells[1].starts_with("127.0.0.1:"), "{shown}");
    // Peers, viewers: the heads say which.
    assert_eq!(cells[7..9], ["1", "1"], "{shown}");
    assert!(!shown.contains('\x1b'), "{shown}");

    let output = linkmic(&["top", "--once", "--address", "127.0.0.1:1", "--token", "x"]).await;
    assert_eq!(output.status.code(), Some(1));
}

/// `linkmic top` on a terminal, of which all that is written to it is kept.
struct Screen {
    terminal: Child,
    program: String,
    text: PathBuf,
}

impl Screen {
    /// `name` is of the file that keeps it.
    async fn of(server: &Server, name: &str) -> Self {
        let (config, address) = (server.place.config(), server.control.to_string());
        let top = format!("{PROGRAM} top --interval 100ms --config {config} --address {address}");
        let text = server.place.path(name);
        let terminal = Command::new("script")
            .args(["--quiet", "--flush", "--command", &format!("exec {top}")])
            .arg(&text)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .expect("script(1)");
        let pictures = |text: &str| text.matches("  players ").count();
        let shown = poll("three pictures", SOON, || async {
            let text = std::fs::read_to_string(&text).ok()?;
            (text.contains("\x1b[?1049h") && pictures(&text) >= 3).then_some(())
        });
        shown.await.expect("they come");
        // script(1) has one child, which became the program.
        let id = terminal.id().expect("it runs");
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let program = children.expect("Linux").trim().to_owned();
        Self {
            terminal,
            program,
            text,
        }
    }

    /// Sends it a signal, at which it has to end within seconds and to leave the terminal as it was.
    async fn ends_at(mut self, signal: &str) {
        kill(signal, &self.program);
        let ended = timeout(Duration::from_secs(10), self.terminal.wait()).await;
        ended.expect("it ends").expect("it ran");
        let text = std::fs::read_to_string(&self.text).expect("the screen");
        assert!(
            text.contains("\x1b[?25h\x1b[?1049l"),
            "the screen is not given back"
        );
    }
}

fn kill(signal: &str, process: &str) {
    let sent = std::process::Command::new("kill")
        .args(["-s", signal, process])
        .status();
    assert!(sent.is_ok_and(|status| status.success()));
}

/// Bytes that whoever listens on a port has been sent and has not read.
fn unread(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let of_line = |line: &str| -> Option<u64> {
        let fields: Vec<_> = line.split_whitespace().collect();
        let local = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        let (_, received) = fields.get(4)?.split_once(':')?;
        let is_connection = fields.get(3) == Some(&"01");
        let bytes = u64::from_str_radix(received, 16).ok()?;
        (is_connection && local == port).then_some(bytes)
    };
    table.lines().filter_map(of_line).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_leaves_the_terminal_as_it_was_at_once_even_while_the_server_does_not_answer() {
    let server = Place::plain().serve().await;
    let screen = Screen::of(&server, "unanswered").await;
    let id = server.child.id().expect("it runs").to_string();
    kill("STOP", &id);
    let asked = poll("a question without an answer", SOON, || async {
        (unread(server.control.port()) > 0).then_some(())
    });
    asked.await.expect("it is asked");
    screen.ends_at("INT").await;
    kill("CONT", &id);
    for signal in ["INT", "TERM"] {
        Screen::of(&server, signal).await.ends_at(signal).await;
    }
}
