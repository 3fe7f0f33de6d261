//! A server in this process, on ports of its own, and the URLs that open it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use linkmic::auth::{Policy, Purpose};
use linkmic::config::{Config, Env};
use linkmic::media::StreamKey;
use linkmic::probe::http;
use linkmic::probe::process::poll;
use linkmic::relay::Event;
use linkmic::server::Server;
use tempfile::TempDir;
use tokio::sync::broadcast;

use super::SOON;

/// The key that opens publishing and the source feed.
pub const PUSH_KEY: &str = "push-0123456789abcdef";
/// A key that viewers' URLs are signed with, where a test configures it.
pub const PLAY_KEY: &str = "play-0123456789abcdef";
/// What the control listener asks for.
pub const TOKEN: &str = "control-0123456789abcdef";

/// Viewers join by what was recorded: for tests that compare, byte for byte, what somebody got who came late.
pub const BURST: &str = "[classes.viewer]\njoin = \"burst\"";

/// The configuration of a test server: loopback, ports chosen by the system, one push key. `auth` is added to
/// `[auth]`, `more` is further sections.
pub fn configuration(state: &std::path::Path, auth: &str, more: &str) -> String {
    format!(
        "[rtmp]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [control]\nlisten = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\"\n\
         [state]\ndir = \"{}\"\n\
         [auth]\npush_keys = [{{ id = \"main\", secret = \"{PUSH_KEY}\" }}]\n{auth}\n{more}\n",
        state.display()
    )
}

/// Makes URLs for one server.
pub struct Urls {
    rtmp: SocketAddr,
    policy: Policy,
}

impl Urls {
    pub fn new(rtmp: SocketAddr, config: &Config) -> Self {
        Self {
            rtmp,
            policy: Policy::new(config.auth.clone()),
        }
    }

    pub fn rtmp(&self) -> SocketAddr {
        self.rtmp
    }

    /// Unsigned: a viewer's.
    pub fn plain(&self, name: &str) -> String {
        format!("rtmp://{}/live/{name}", self.rtmp)
    }

    pub fn push(&self, name: &str) -> String {
        self.with(name, &self.query(Purpose::Push, name, Hour::Next))
    }

    pub fn peer(&self, name: &str) -> String {
        self.with(name, &self.query(Purpose::Peer, name, Hour::Next))
    }

    /// A query that is, or was, good for `purpose`.
    pub fn query(&self, purpose: Purpose, name: &str, until: Hour) -> String {
        let key = StreamKey::new("live", name).expect("a valid name");
        let query = self
            .policy
            .signed_query(purpose, &key, until.time(), None, SystemTime::now());
        query
            .expect("there is a key")
            .expect("it needs a signature")
    }

    pub fn with(&self, name: &str, query: &str) -> String {
        format!("{}?{query}", self.plain(name))
    }
}

/// When a signature ends.
#[derive(Clone, Copy)]
pub enum Hour {
    /// In an hour.
    Next,
    /// An hour ago.
    Last,
}

impl Hour {
    fn time(self) -> SystemTime {
        const HOUR: Duration = Duration::from_secs(3600);
        match self {
            Hour::Next => SystemTime::now() + HOUR,
            Hour::Last => SystemTime::now() - HOUR,
        }
    }
}

/// The server. Its tasks end with the test's runtime.
pub struct House {
    pub urls: Urls,
    pub control: http::Client,
    pub server: Server,
    _state: TempDir,
}

impl House {
    /// With the defaults.
    pub async fn open() -> Self {
        Self::open_with("", "").await
    }

    /// With additions to `[auth]`, and with further sections.
    pub async fn open_with(auth: &str, more: &str) -> Self {
        Self::open_edited(auth, more, |text| text).await
    }

    /// As [`open_with`](Self::open_with), with the last word about the whole text.
    pub async fn open_edited(auth: &str, more: &str, edit: impl FnOnce(String) -> String) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let text = edit(configuration(state.path(), auth, more));
        let config = Config::parse(&text, "test", &Env::default()).expect("a configuration");
        let server = Server::start(config.clone()).await.expect("it starts");
        Self {
            urls: Urls::new(server.rtmp_addr(), &config),
            control: http::Client::new(server.control_addr(), Some(TOKEN)),
            server,
            _state: state,
        }
    }

    /// Who publishes what, from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.server.events()
    }

    /// The URL of a stream on the public HTTP listener, unsigned.
    pub fn http_flv(&self, name: &str) -> String {
        format!("http://{}/live/{name}.flv", self.server.http_addr())
    }

    /// What the control API answers.
    pub async fn ask(&self, path: &str) -> http::Answer {
        self.control.get(path).await.expect("an answer")
    }

    /// The control listener, with the token.
    pub fn control(&self) -> &http::Client {
        &self.control
    }

    /// Waits until so many readers of the program feed are counted, waiting ones among them.
    pub async fn wait_for_viewers(&self, count: usize) {
        self.wait_for("class=\"viewer\",feed=\"program\"", count)
            .await;
    }

    /// Waits until so many readers of the source feed are counted.
    pub async fn wait_for_peers(&self, count: usize) {
        self.wait_for("class=\"low_latency\",feed=\"source\"", count)
            .await;
    }

    async fn wait_for(&self, labels: &str, count: usize) {
        let line = format!("linkmic_relay_subscribers{{{labels}}} {count}");
        let seen = poll(&line, SOON, || async {
            let metrics = self.control.get("/metrics").await.expect("metrics").body;
            metrics.lines().any(|l| l == line).then_some(())
        });
        seen.await.expect("they are counted");
    }
}
