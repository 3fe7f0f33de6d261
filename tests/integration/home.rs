//! A state directory that outlives its servers: the binary is killed, and the next one over the same directory goes on.

use std::net::SocketAddr;
use std::path::PathBuf;

use linkmic::config::{Config, Env};
use linkmic::probe::http::Client;
use linkmic::probe::process::{Process, poll};
use serde_json::Value;
use tempfile::TempDir;
#[cfg(feature = "mixer")]
use tokio::sync::SemaphorePermit;

use super::edge::SOON;
use super::edge::house::{TOKEN, Urls, configuration};
#[cfg(feature = "mixer")]
use super::studio::{place, succeeded};

/// The directory, and what its servers are configured with.
pub struct Home {
    file: String,
    config: Config,
    /// Removed with this.
    folder: TempDir,
    #[cfg(feature = "mixer")]
    _permit: Option<SemaphorePermit<'static>>,
}

/// One of its servers.
pub struct Life {
    pub process: Process,
    pub urls: Urls,
    /// The public HTTP listener.
    pub http: SocketAddr,
    pub api: Client,
}

impl Home {
    /// Of servers that mix, with further sections of configuration; counts as a studio.
    #[cfg(feature = "mixer")]
    pub async fn found(more: &str) -> Self {
        let permit = place().await;
        Self {
            _permit: Some(permit),
            ..Self::without_mixes(more)
        }
    }

    /// Of servers that do not mix.
    pub fn without_mixes(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let more = format!("[log]\nformat = \"json\"\n{more}\n");
        let text = configuration(&folder.path().join("state"), "", &more);
        let file = folder.path().join("linkmic.toml");
        std::fs::write(&file, &text).expect("the file");
        Self {
            file: file.display().to_string(),
            config: Config::parse(&text, "test", &Env::default()).expect("a configuration"),
            folder,
            #[cfg(feature = "mixer")]
            _permit: None,
        }
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Starts a server, and waits until it listens.
    pub async fn begin(&self) -> Life {
        self.run(&[], &[]).await
    }

    /// As [`begin`](Self::begin), started by another program whose words are `under`.
    pub async fn begin_under(&self, under: &[&str]) -> Life {
        self.run(under, &[]).await
    }

    /// Starts the next server, which takes over from the one that runs.
    pub async fn take_over(&self) -> Life {
        self.run(&[], &["--take-over"]).await
    }

    async fn run(&self, under: &[&str], more: &[&str]) -> Life {
        let serve = [
            env!("CARGO_BIN_EXE_linkmic"),
            "serve",
            "--config",
            &self.file,
        ];
        let words = [under, &serve, more].concat();
        let process = Process::spawn(words[0], &words[1..]).expect("it runs");
        let listening = |line: &str| -> Option<[SocketAddr; 3]> {
            let line: Value = serde_json::from_str(line).ok()?;
            let first = |name: &str| -> Option<SocketAddr> {
                let list = line[name].as_str()?;
                list.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
            };
            (line["message"] == "listening").then_some([
                first("rtmp")?,
                first("http")?,
                first("control")?,
            ])
        };
        let found = poll("the server to listen", SOON, || async {
            process.said().lines().find_map(listening)
        });
        let [rtmp, http, control] = found
            .await
            .unwrap_or_else(|e| panic!("{e}\n{}", process.said()));
        Life {
            urls: Urls::new(rtmp, &self.config),
            http,
            api: Client::new(control, Some(TOKEN)),
            process,
        }
    }
}

impl Life {
    /// SIGKILL.
    pub async fn kill(mut self) {
        self.process.kill().await;
    }

    #[cfg(feature = "mixer")]
    pub async fn get(&self, path: &str) -> Value {
        succeeded(self.api.get(path).await.expect("an answer"))
    }

    #[cfg(feature = "mixer")]
    pub async fn put(&self, path: &str, body: &Value) -> Value {
        succeeded(self.api.put(path, body).await.expect("an answer"))
    }

    /// Waits until what is at a path is as wanted.
    #[cfg(feature = "mixer")]
    pub async fn until(&self, what: &str, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let wanted = &wanted;
        let seen = poll(what, SOON, || async {
            let value = self.api.get(path).await.ok()?.json();
            wanted(&value).then_some(value)
        });
        match seen.await {
            Ok(value) => value,
            Err(late) => panic!("{late}: {:?}", self.api.get(path).await),
        }
    }
}
