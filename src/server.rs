//! The composition root: opens the listeners, builds every room from the configuration, accepts when all is there, and
//! takes all down again in order.
//!
//! The only place where rooms of one row meet. Called by the command line, by the demo and by tests.

#[cfg(test)]
mod described;
mod doors;
mod facts;
#[cfg(feature = "mixer")]
mod mixes;
mod reload;
mod rooms;
mod signer;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::api;
use crate::compat;
use crate::config::{self, Config, Remark, TokenError};
use crate::links;
use crate::net::descriptors;
use crate::net::tls::{CertificateError, Certificates, TrustError};
use crate::store::{self, Store};
use doors::{Door, Entrances, reachable};

pub use reload::Report;

/// Connections that may wait between the public HTTP listeners and the API, which takes them as fast as they come, up
/// to a limit of its own.
const HANDED: usize = 64;
/// How long everything together may take to end when the server goes down.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

/// Why the server did not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address} ({key}): {source}")]
    Listen {
        key: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
    #[error("{0}")]
    Token(TokenError),
    #[error("rtmps: {0}")]
    Certificate(CertificateError),
    #[error("rtmps: TLS cannot be used: {0}")]
    Tls(rustls::Error),
    #[error("push.ca_file: {0}")]
    Trust(TrustError),
    #[error("hooks.ca_file: {0}")]
    HooksTrust(TrustError),
    #[error("hooks: {0}")]
    Hooks(String),
    #[error(transparent)]
    Store(store::Error),
    #[error("{0}: {1}")]
    Rules(String, crate::push::Error),
    #[cfg(feature = "mixer")]
    #[error("the mixer cannot start: {0}")]
    Mixer(crate::mixer::Error),
    #[error("cannot listen for signals: {0}")]
    Signal(io::Error),
}

/// A running server. Dropping it without [`Server::shutdown`] leaves its tasks to the runtime.
pub struct Server {
    rtmp: Vec<SocketAddr>,
    rtmps: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
    control: Vec<SocketAddr>,
    compat: Vec<SocketAddr>,
    certificates: Option<Arc<Certificates>>,
    rooms: rooms::Rooms,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Server {
    /// Opens the listeners, builds every room, then accepts. A listener that cannot be had is met before anything else
    /// is touched: whoever tries other addresses next finds the state directory free.
    ///
    /// # Errors
    /// When a listener cannot be opened, the control token or the state cannot be read or made, the certificate cannot
    /// be read, a push rule makes no sense, or the mixer lacks a plugin.
    pub async fn start(config: Config) -> Result<Server, Error> {
        let tasks = TaskTracker::new();
        let shutdown = CancellationToken::new();
        descriptors::raise();
        warn_of(&config);
        let token = config.control_token().map_err(Error::Token)?;
        if let Some(path) = &token.path {
            info!(path = %path.display(), created = token.created, "control token");
        }
        let Entrances {
            rtmp,
            rtmps,
            http,
            https,
            certificates,
        } = Entrances::new(&config)?;
        let rtmp = Door::bind("rtmp.listen", &config.rtmp.listen, rtmp)?;
        let rtmps = Door::bind("rtmps.listen", &config.rtmps.listen, rtmps)?;
        let http = Door::bind("http.listen", &config.http.listen, http)?;
        let https = Door::bind("http.tls_listen", &config.http.tls_listen, https)?;
        let control = Door::bind("control.listen", &config.control.listen, Default::default())?;
        let compat_door = Door::bind("compat.listen", &config.compat.listen, Default::default())?;
        let store = open_store(&config).await?;
        let (elsewhere, handed) = mpsc::channel(HANDED);
        let rooms::Built {
            rooms,
            api,
            compat,
            links,
        } = rooms::build(
            &config,
            rooms::Given {
                store,
                token: token.secret,
                rtmp: reachable(rtmp.addresses[0]),
                elsewhere,
                certificates: certificates.clone(),
            },
            &tasks,
            &shutdown,
        )
        .await?;
        let server = Server {
            rtmp: rtmp.addresses,
            rtmps: rtmps.addresses,
            http: http.addresses,
            https: https.addresses,
            control: control.addresses,
            compat: compat_door.addresses,
            certificates,
            rooms,
            tasks,
            shutdown,
        };
        // Until here connections wait in the kernel's queue: nothing is accepted before everything is there.
        for (listeners, entrance) in [
            (rtmp.listeners, rtmp.entrance),
            (rtmps.listeners, rtmps.entrance),
        ] {
            for listener in listeners {
                let ingest = server.rooms.ingest.clone();
                server.tasks.spawn(ingest.serve(listener, entrance.clone()));
            }
        }
        for (listeners, entrance) in [
            (http.listeners, http.entrance),
            (https.listeners, https.entrance),
        ] {
            for listener in listeners {
                let door = server.rooms.http.clone();
                server.tasks.spawn(door.serve(listener, entrance.clone()));
            }
        }
        let stop = || server.shutdown.clone();
        let public = api::public_router(server.rooms.readiness.clone());
        let public = api::serve_handed(handed, server.http[0], public, stop());
        server.tasks.spawn(report(public));
        let mut router = api::control_router(api, links::router(links));
        if let Some(state) = compat {
            router = router.merge(compat::router(state.clone(), compat::Listener::Control));
            let own = compat::router(state, compat::Listener::Own);
            for listener in compat_door.listeners {
                server
                    .tasks
                    .spawn(report(api::serve(listener, own.clone(), stop())));
            }
        }
        for listener in control.listeners {
            let control = api::serve(listener, router.clone(), stop());
            server.tasks.spawn(report(control));
        }
        server.rooms.readiness.set(true);
        info!(
            rtmp = ?server.rtmp, rtmps = ?server.rtmps, http = ?server.http, https = ?server.https,
            control = ?server.control, compat = ?server.compat, version = env!("CARGO_PKG_VERSION"), "listening"
        );
        Ok(server)
    }

    /// Where RTMP is served: in the order of the list.
    pub fn rtmp_addrs(&self) -> &[SocketAddr] {
        &self.rtmp
    }

    /// Where RTMP is served: the first address of the list.
    pub fn rtmp_addr(&self) -> SocketAddr {
        self.rtmp[0]
    }

    /// Where RTMPS is served, if it is: the first address of the list.
    pub fn rtmps_addr(&self) -> Option<SocketAddr> {
        self.rtmps.first().copied()
    }

    /// The public HTTP listener: the first address of the list.
    pub fn http_addr(&self) -> SocketAddr {
        self.http[0]
    }

    /// The public HTTPS listener, if there is one: the first address of the list.
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.https.first().copied()
    }

    /// The control listener: the first address of the list.
    pub fn control_addr(&self) -> SocketAddr {
        self.control[0]
    }

    /// The compatible interface's own listener, if there is one: the first address of the list.
    pub fn compat_addr(&self) -> Option<SocketAddr> {
        self.compat.first().copied()
    }

    /// What RTMPS and HTTPS show, if they are served; to be reloaded when its files have changed.
    pub fn certificates(&self) -> Option<&Arc<Certificates>> {
        self.certificates.as_ref()
    }

    /// Who publishes what, from now on: every start and end, in order.
    pub fn events(&self) -> tokio::sync::broadcast::Receiver<crate::relay::Event> {
        self.rooms.relay.events()
    }

    /// Where facts of all rooms are told and read, with their ids.
    pub fn journal(&self) -> &crate::hooks::Journal {
        self.rooms.hooks.journal()
    }

    /// What becomes of mixes and their inputs, from now on, in order.
    #[cfg(feature = "mixer")]
    pub fn mix_events(&self) -> tokio::sync::broadcast::Receiver<crate::mixer::Event> {
        self.rooms.mixer.events()
    }

    /// What becomes of links, from now on, in order.
    pub fn link_events(&self) -> tokio::sync::broadcast::Receiver<links::Event> {
        self.rooms.links.events()
    }

    /// Makes another configuration hold as far as it can without a restart. Nobody is disconnected.
    pub fn reload(&self, config: Config) -> Report {
        self.rooms.live.apply(config)
    }

    /// Runs until SIGTERM or SIGINT, then shuts down. At each SIGHUP the configuration is read anew with `read` and
    /// applied as far as it can be; one that cannot be read or has mistakes changes nothing.
    pub async fn run_until_signal<R>(self, mut signals: Signals, read: R)
    where
        R: Fn() -> Result<Config, config::Error> + Clone + Send + 'static,
    {
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => info!("SIGTERM: going down"),
                _ = signals.interrupt.recv() => info!("SIGINT: going down"),
                _ = signals.hangup.recv() => {
                    let (live, read) = (self.rooms.live.clone(), read.clone());
                    // It reads files. A panic in there is logged as one and changes nothing.
                    let _ = tokio::task::spawn_blocking(move || reload::reload(&live, read())).await;
                    continue;
                }
            }
            break;
        }
        self.shutdown().await;
    }

    /// Not ready any more, mixes and pushes end, connections are told; returns when all is down, or at the
    /// deadline (5 s) at the latest.
    pub async fn shutdown(self) {
        self.rooms.readiness.set(false);
        let down = async {
            self.rooms.end().await;
            self.shutdown.cancel();
            self.tasks.close();
            self.tasks.wait().await;
        };
        if tokio::time::timeout(SHUTDOWN_DEADLINE, down).await.is_err() {
            self.shutdown.cancel();
            warn!(
                tasks = self.tasks.len(),
                "some connections did not end in time"
            );
        }
        info!("down");
    }
}

/// What is allowed but deserves a second look, in the configuration and in the limits that this process has from
/// outside; in the order of the keys' paths.
pub fn remarks(config: &Config) -> Vec<Remark> {
    let mut remarks = config.warnings();
    let limits = descriptors::most().and_then(|files| too_few_files(config, files));
    remarks.extend(limits);
    remarks.sort();
    remarks
}

fn warn_of(config: &Config) {
    for remark in remarks(config) {
        warn!(key = %remark.path, "{}", remark.message);
    }
}

/// What there is to say when no more than `files` may be open.
fn too_few_files(config: &Config, files: u64) -> Option<Remark> {
    let wanted = config.limits.connections;
    let room = descriptors::room(files);
    (room < wanted).then(|| Remark {
        path: "limits.connections".to_owned(),
        message: format!(
            "{wanted} connections need {} open files, and this process may have {files}: there will be {room} connections at \
             most; raise the hard limit (ulimit -Hn, or LimitNOFILE in the service unit)",
            descriptors::needed(wanted)
        ),
    })
}

/// Runs a listener's service to its end, which is the server's.
async fn report(service: impl Future<Output = io::Result<()>>) {
    if let Err(e) = service.await {
        warn!(error = %e, "HTTP service ended");
    }
}

/// The signals that a server listens to; from when this is made on, so that none comes too early and ends the process.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When signals cannot be listened for.
    pub fn listen() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(Error::Signal);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

async fn open_store(config: &Config) -> Result<Store, Error> {
    let dir = config.state.dir.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&dir)).await;
    match opened.unwrap_or(Err(store::Error::Ended)) {
        Ok(store) => Ok(store),
        Err(error) => Err(Error::Store(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_start_that_finds_a_listener_taken_leaves_the_state_directory_free() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let control = taken.local_addr().unwrap();
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let text = format!(
                "[rtmp]\nlisten = '127.0.0.1:0'\n[http]\nlisten = '127.0.0.1:0'\n\
                 [control]\nlisten = '{control}'\ntoken = 'only for this test'\n\
                 [state]\ndir = '{}'",
                folder.path().display()
            );
            let config = Config::parse(&text, "test", &config::Env::default()).unwrap();
            let refused = Server::start(config).await;
            assert!(matches!(refused, Err(Error::Listen { .. })));
            // What the next server does first.
            Store::open(folder.path()).unwrap();
        }
    }

    #[test]
    fn too_few_files_for_the_connections_are_remarked_with_what_is_needed() {
        let text = "[limits]\nconnections = 1000";
        let config = Config::parse(text, "test", &config::Env::default()).unwrap();
        for files in [1_334, 1 << 20] {
            assert_eq!(too_few_files(&config, files), None, "{files}");
        }
        let remark = too_few_files(&config, 1_024).unwrap();
        assert_eq!(
            remark.to_string(),
            "limits.connections: 1000 connections need 1334 open files, and this process may have 1024: there will be 768 \
             connections at most; raise the hard limit (ulimit -Hn, or LimitNOFILE in the service unit)"
        );
    }
}
