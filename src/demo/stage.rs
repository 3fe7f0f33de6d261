//! What stands on the stage: the server, the programs around it, and the words to ask the API with.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::Error;
use super::cast::{self, APP, Anchor, TOKEN};
use super::report::Report;
use crate::config::{Config, Env};
use crate::probe::http::{Answer, Client};
use crate::probe::nginx::Nginx;
use crate::probe::{self, Player, Publisher};
use crate::server::{self, Server};

/// Everything that runs. Dropping it ends all of it.
pub struct Stage {
    pub anchors: [Anchor; 4],
    pub publishers: Vec<Publisher>,
    /// B watching A, and A watching B.
    pub peers: Vec<Player>,
    /// Somebody watching A's public address from before the mix until its end.
    pub viewer: Option<Player>,
    pub cdn: Option<Nginx>,
    pub api: Client,
    server: Server,
}

impl Stage {
    /// Starts the server in this process.
    pub async fn open(out: &Path, report: &mut Report) -> Result<Self, Error> {
        report.note("linkmic demo: four anchors, two peers, one viewer, one CDN\n");
        let state = std::path::absolute(out.join("state")).map_err(|source| Error::Folder {
            path: out.to_owned(),
            source,
        })?;
        let configured = |ports| {
            let text = cast::configuration(&state.display().to_string(), ports);
            Config::parse(&text, "the demo's configuration", &Env::default())
        };
        let server = match Server::start(configured(cast::USUAL_PORTS)?).await {
            // Somebody has one of the usual ports; any other does as well.
            Err(server::Error::Listen { .. }) => {
                Server::start(configured(cast::ANY_PORTS)?).await?
            }
            started => started?,
        };
        report.pass(
            "server",
            &format!(
                "RTMP {}, HTTP {}, control {}",
                server.rtmp_addr(),
                server.http_addr(),
                server.control_addr()
            ),
        );
        Ok(Self {
            anchors: cast::anchors(),
            publishers: Vec::new(),
            peers: Vec::new(),
            viewer: None,
            cdn: None,
            api: Client::new(server.control_addr(), Some(TOKEN)),
            server,
        })
    }

    /// Ends the programs first, so that none complains about a server that is gone.
    pub async fn close(self) {
        drop((self.viewer, self.peers));
        for publisher in self.publishers {
            publisher.stop().await;
        }
        self.server.shutdown().await;
        drop(self.cdn);
    }

    /// The public address of an anchor: what viewers play.
    pub fn viewer_url(&self, anchor: usize) -> String {
        let stream = self.anchors[anchor].stream;
        format!("rtmp://{}/{APP}/{stream}", self.server.rtmp_addr())
    }

    /// A signed address of a stream, from the API: `action` is `push` or `peer`.
    pub async fn signed_url(&self, action: &str, stream: &str) -> Result<String, probe::Error> {
        let request = json!({
            "action": action,
            "app": APP,
            "stream": stream,
            "expires_in": "12h",
            "base": format!("rtmp://{}", self.server.rtmp_addr()),
        });
        let answer = self.api.post("/api/v1/urls/sign", &request).await?;
        match answer.json()["url"].as_str() {
            Some(url) => Ok(url.to_owned()),
            None => Err(unexpected("signing", &answer)),
        }
    }

    /// Asks for `path` until the answer is as wanted.
    pub async fn api_until<T>(
        &self,
        what: &str,
        path: &str,
        within: Duration,
        wanted: impl Fn(&Answer) -> Option<T>,
    ) -> Result<T, probe::Error> {
        let wanted = &wanted;
        probe::process::poll(what, within, || async {
            self.api.get(path).await.ok().as_ref().and_then(wanted)
        })
        .await
    }

    /// Makes a request that has to succeed.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, probe::Error> {
        let answer = self.api.put(path, body).await?;
        if answer.is_success() {
            Ok(answer.json())
        } else {
            Err(unexpected(&format!("PUT {path}"), &answer))
        }
    }

    /// Where to look at all this with other programs. The signed ones are good for twelve hours, on this machine.
    pub async fn print_addresses(&self, report: &Report) {
        let main = self.anchors[0].stream;
        let viewer = self.viewer_url(0);
        let low_delay = "ffplay -fflags nobuffer -flags low_delay";
        report.note("\nTo look at it yourself:");
        report.note(&format!(
            "  the mix, as viewers see it    {low_delay} {viewer}"
        ));
        report.note(&format!(
            "  the same in VLC               vlc --network-caching=300 {viewer}"
        ));
        if let Some(cdn) = &self.cdn {
            report.note(&format!(
                "  as it arrives at the CDN      {low_delay} {}",
                cdn.url(main)
            ));
        }
        if let Ok(peer) = self.signed_url("peer", main).await {
            report.note(&format!(
                "  A, as a peer sees it          {low_delay} '{peer}'"
            ));
        }
        if let Ok(push) = self.signed_url("push", "8888_streamE").await
            && let Some((server, key)) = push.rsplit_once('/')
        {
            report.note(&format!(
                "  publish with OBS              server {server}  stream key {key}"
            ));
            report.note(&format!(
                "  and watch that                {low_delay} {server}/8888_streamE"
            ));
        }
        report.note(&format!(
            "  ask the API                   curl -H 'Authorization: Bearer {TOKEN}' http://{}/api/v1/streams",
            self.server.control_addr()
        ));
    }
}

/// An answer of the API that should have been another.
pub fn unexpected(what: &str, answer: &Answer) -> probe::Error {
    probe::Error::Answer {
        what: what.to_owned(),
        status: answer.status,
        body: answer.body.clone(),
    }
}
