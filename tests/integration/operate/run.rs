//! The program itself, with all that it says kept, and commands of it beside.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use linkmic::config::{Config, Env};
use linkmic::probe::process::poll;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::edge::SOON;
use crate::edge::house::{Urls, configuration};
use crate::needs;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_linkmic");

/// A directory with a configuration in it.
pub struct Place {
    pub folder: TempDir,
    text: String,
}

impl Place {
    /// `auth` is added to `[auth]`, `more` is further sections, `edit` has the last word.
    pub fn new(auth: &str, more: &str, edit: impl FnOnce(String) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let more = format!("[log]\nformat = \"json\"\nlevel = \"info,linkmic=trace\"\n{more}\n");
        let text = edit(configuration(&folder.path().join("state"), auth, &more));
        std::fs::write(folder.path().join("linkmic.toml"), &text).expect("the file");
        Self { folder, text }
    }

    pub fn plain() -> Self {
        Self::new("", "", |text| text)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self) -> String {
        self.path("linkmic.toml").display().to_string()
    }

    /// Starts the server, and waits until it listens.
    pub async fn serve(self) -> Server {
        let log = self.path("log");
        let file = std::fs::File::create(&log).expect("a log");
        let child = command(&["serve", "--config", &self.config()])
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("it runs");
        let listening = || async {
            let said = std::fs::read_to_string(&log).ok()?;
            said.lines().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["message"] == "listening").then_some(line)
            })
        };
        let line = poll("the server to listen", SOON, listening).await;
        let line = line.unwrap_or_else(|e| panic!("{e}: {:?}", std::fs::read_to_string(&log)));
        let first = |name: &str| {
            let list = line[name].as_str().expect("a list");
            let list = list.trim_start_matches('[').trim_end_matches(']');
            list.split(',').next()?.parse::<SocketAddr>().ok()
        };
        let config = Config::parse(&self.text, "test", &Env::default()).expect("a configuration");
        Server {
            urls: Urls::new(first("rtmp").expect("an address"), &config),
            http: first("http").expect("an address"),
            control: first("control").expect("an address"),
            child,
            log,
            place: self,
        }
    }
}

/// A running server.
pub struct Server {
    pub urls: Urls,
    pub http: SocketAddr,
    pub control: SocketAddr,
    pub place: Place,
    pub child: Child,
    log: PathBuf,
}

impl Server {
    /// All that it has said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log")
    }

    /// The lines of its log.
    pub fn lines(&self) -> Vec<Value> {
        let said = self.said();
        let whole = said.rsplit_once('\n').map_or("", |(lines, _)| lines);
        whole
            .lines()
            .map(|line| {
                // A field of ours under a name of the logger's own would be there twice, and one of them lost.
                for name in ["timestamp", "level", "message", "target"] {
                    let times = line.matches(&format!("\"{name}\":")).count();
                    assert_eq!(times, 1, "{name}: {line}");
                }
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
            })
            .collect()
    }

    /// Waits for a line of its log.
    pub async fn line(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let is_it = &is_it;
        let seen = poll(what, SOON, || async {
            self.lines().into_iter().find(is_it)
        })
        .await;
        seen.unwrap_or_else(|late| panic!("{late}\n{}", self.said()))
    }

    /// `linkmic ctl` with these arguments, against this server and with its configuration's token.
    pub async fn ctl(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["ctl"];
        all.extend(arguments);
        self.linkmic(&all).await
    }

    /// Any command that asks a server.
    pub async fn linkmic(&self, arguments: &[&str]) -> Output {
        let mut all = arguments.to_vec();
        let (config, address) = (self.place.config(), self.control.to_string());
        all.extend(["--config", &config, "--address", &address]);
        linkmic(&all).await
    }

    /// What a verb answers, which must be JSON.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        let output = self.ctl(&all).await;
        let (said, errors) = texts(&output);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {said}"))
    }
}

/// An answer over HTTP, head and all.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// A header's value; names are compared without their case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }
}

/// One request, as it is written.
pub async fn exchange(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {to}\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    request += body;
    let exchange = async {
        let mut stream = TcpStream::connect(to).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = timeout(SOON, exchange).await.expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    Answer {
        status: head
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .expect("a status"),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// The program, in an environment without anything that it would listen to.
pub fn command(arguments: &[&str]) -> Command {
    under(&[], arguments)
}

/// As [`command`], started by another program.
pub fn under(starter: &[&str], arguments: &[&str]) -> Command {
    let mut words = starter.iter().copied().chain([PROGRAM]);
    let mut command = Command::new(words.next().expect("a program"));
    command
        .args(words)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for name in ["CONFIG", "ADDRESS", "TOKEN", "TOKEN_FILE"] {
        command.env_remove(format!("LINKMIC_{name}"));
    }
    command.env_remove("RUST_LOG");
    command
}

/// Runs a command to its end.
pub async fn linkmic(arguments: &[&str]) -> Output {
    finished(command(arguments)).await
}

pub async fn finished(mut command: Command) -> Output {
    let output = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output();
    let output = timeout(SOON, output).await;
    output.expect("it ends in time").expect("it runs")
}

/// What a command said, and what it complained of.
pub fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// A folder of GStreamer plugins that has those of the system but for these, and the environment that makes it the only one.
#[cfg(feature = "mixer")]
pub fn plugins_without(missing: &[&str], folder: &Path) -> Vec<(&'static str, String)> {
    // All that a start asks for, so that no more are read than have to be.
    const NEEDED: [&str; 8] = [
        "coreelements",
        "app",
        "audioconvert",
        "audioresample",
        "videoconvertscale",
        "libav",
        "x264",
        "voaacenc",
    ];
    let asked = std::process::Command::new("pkg-config")
        .args(["--variable=pluginsdir", "gstreamer-1.0"])
        .output()
        .expect("pkg-config, which builds with GStreamer need");
    let system = String::from_utf8(asked.stdout).expect("a path");
    let own = folder.join("plugins");
    std::fs::create_dir(&own).expect("a folder");
    for name in NEEDED.iter().filter(|name| !missing.contains(name)) {
        let file = format!("libgst{name}.so");
        let from = Path::new(system.trim()).join(&file);
        std::os::unix::fs::symlink(from, own.join(&file)).expect("a link");
    }
    let registry = folder.join("registry.bin").display().to_string();
    vec![
        ("GST_PLUGIN_SYSTEM_PATH_1_0", own.display().to_string()),
        ("GST_PLUGIN_PATH_1_0", String::new()),
        ("GST_REGISTRY_1_0", registry),
        ("GST_REGISTRY_FORK", "no".to_owned()),
    ]
}

/// The words that start a program which sees a directory as one that cannot be written, root or not; `None` where this user may not
/// arrange that.
pub fn read_only(directory: &Path) -> Option<Vec<String>> {
    arranged(&format!(
        "mount --bind {0} {0} && mount -o remount,ro,bind {0}",
        directory.display()
    ))
}

/// The words that start a program which has a directory on a disk of so many KiB of its own.
pub fn small_disk(directory: &Path, kib: u32) -> Option<Vec<String>> {
    arranged(&format!(
        "mount -t tmpfs -o size={kib}k none {}",
        directory.display()
    ))
}

fn arranged(mounting: &str) -> Option<Vec<String>> {
    let words = ["unshare", "--mount", "--map-root-user", "sh", "-c"].map(str::to_owned);
    let mut words = words.to_vec();
    words.push(format!("{mounting} && exec \"$@\""));
    words.push("sh".to_owned());
    let tried = std::process::Command::new(&words[0])
        .args(&words[1..])
        .arg("true")
        .output();
    let may = match tried {
        Ok(tried) if tried.status.success() => Ok(words),
        Ok(tried) => Err(String::from_utf8_lossy(&tried.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    };
    needs::given(
        may,
        needs::ROOT,
        mounting,
        "this user may mount nothing in a namespace of his own",
    )
}
