//! The composition root: opens the listeners, builds every room from the configuration, accepts when all is there, and
//! takes all down again in order.
//!
//! The only place where rooms of one row meet. Called by the command line, by the demo and by tests.

mod accepting;
#[cfg(feature = "mixer")]
mod camera;
#[cfg(test)]
mod described;
mod differences;
mod doors;
mod drain;
mod facts;
mod host;
#[cfg(feature = "mixer")]
mod mixes;
mod operations;
mod pulse;
mod reload;
mod rooms;
mod signer;
mod takeover;
mod witness;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::api;
use crate::compat;
use crate::config::{self, Config, Remark, TokenError};
use crate::links;
use crate::net::descriptors;
use crate::net::inherited::{self, Inherited};
use crate::net::tls::{CertificateError, Certificates, TrustError};
use crate::store::{self, Store};
use accepting::Accepting;
use doors::{Doors, reachable};

pub use doors::try_listeners;
pub use operations::Operations;
pub use reload::{Rejected, Report};
pub use takeover::Error as TakeoverError;

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
    #[error(transparent)]
    Inherited(inherited::Error),
    #[error("a socket for {name} was passed ({address}), but {lacks}")]
    Given {
        name: &'static str,
        address: SocketAddr,
        lacks: &'static str,
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
    #[error(transparent)]
    Takeover(takeover::Error),
    #[error("cannot accept connections: {0}")]
    Accept(io::Error),
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
    operations: Operations,
    /// How long a connection may take until it publishes or plays, twice.
    handshake: Duration,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Server {
    /// Starts with listeners of its own; see [`Self::start_with`].
    ///
    /// # Errors
    /// As [`Self::start_with`].
    pub async fn start(config: Config) -> Result<Server, Error> {
        Self::start_with(config, Before::nothing()).await
    }

    /// Opens the listeners but for those that are there already, builds every room, then accepts. A listener that cannot be had is met before anything else
    /// is touched: whoever tries other addresses next finds the state directory free.
    ///
    /// # Errors
    /// When a listener cannot be opened, the control token or the state cannot be read or made, the certificate cannot
    /// be read, a push rule makes no sense, or the mixer lacks a plugin.
    pub async fn start_with(config: Config, before: Before) -> Result<Server, Error> {
        let Before {
            mut inherited,
            mut claim,
        } = before;
        let instead = inherited.stand_instead();
        let tasks = TaskTracker::new();
        let shutdown = CancellationToken::new();
        descriptors::raise();
        warn_of(&config);
        let token = config.control_token().map_err(Error::Token)?;
        if let Some(path) = &token.path {
            info!(path = %path.display(), created = token.created, "control token");
        }
        let Doors {
            rtmp,
            rtmps,
            http,
            https,
            control,
            compat: compat_door,
            certificates,
        } = doors::open_all(&config, &mut inherited)?;
        for (name, address) in inherited.left() {
            warn!(name, %address, "nothing is served on this listener any more; it is closed");
        }
        drop(inherited);
        if let Some(claim) = &mut claim {
            claim.take().await.map_err(Error::Takeover)?;
        }
        let store = open_store(&config).await?;
        // Cancelled when nobody else has publishers of this state.
        let alone = CancellationToken::new();
        if claim.is_none() {
            alone.cancel();
        }
        let (elsewhere, handed) = mpsc::channel(HANDED);
        let rooms::Built {
            rooms,
            api,
            compat,
            links,
            operations,
        } = rooms::build(
            &config,
            rooms::Given {
                store: store.clone(),
                alone: alone.clone(),
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
            rtmp: rtmp.addresses.clone(),
            rtmps: rtmps.addresses.clone(),
            http: http.addresses.clone(),
            https: https.addresses.clone(),
            control: control.addresses.clone(),
            compat: compat_door.addresses.clone(),
            certificates,
            rooms,
            operations,
            handshake: config.limits.handshake,
            tasks,
            shutdown,
        };
        let stop = || server.shutdown.clone();
        let public = api::named(api::public_router(server.rooms.readiness.clone()));
        let public = api::serve_handed(handed, server.http[0], public, stop());
        server.tasks.spawn(report(public));
        let mut router = api::control_router(api, links::router(links));
        let accepting = Accepting::new(server.tasks.clone(), stop());
        if let Some(state) = compat {
            router = router.merge(compat::router(state.clone(), compat::Listener::Control));
            let own = api::named(compat::router(state, compat::Listener::Own));
            accepting.add_api("compat", compat_door, own);
        }
        accepting.add_ingest("rtmp", rtmp, &server.rooms.ingest);
        accepting.add_ingest("rtmps", rtmps, &server.rooms.ingest);
        accepting.add_players("http", http, &server.rooms.http);
        accepting.add_players("https", https, &server.rooms.http);
        accepting.add_api("control", control, api::named(router));
        // Until here connections wait in the kernel's queue: nothing is accepted before everything is there. Whoever asks first is
        // told so: of a process that takes over, health checks are not to hear a pause.
        server.rooms.readiness.set(true);
        accepting.begin().map_err(Error::Accept)?;
        if let Some(claim) = claim {
            pulse::succeeded_by(std::process::id());
            let listening = claim.done(server.rooms.hooks.clone(), alone);
            let over = stop();
            server.tasks.spawn(async move {
                if let Some(Err(error)) = over.run_until_cancelled(listening).await {
                    warn!(%error, "the process that was taken over is not heard any more");
                }
            });
        }
        let giver = takeover::Giver {
            accepting,
            instead,
            store,
            dir: config.state.dir,
            hooks: server.rooms.hooks.clone(),
            operations: server.operations.clone(),
            following: server.rooms.following.clone(),
            shutdown: stop(),
        };
        // Before anybody is told that it listens.
        if let Some(listener) = giver.listen() {
            server.tasks.spawn(giver.serve(listener));
        }
        pulse::ready("serving");
        let (ingest, playback) = (server.rooms.ingest.clone(), server.rooms.playback.clone());
        let relay = server.rooms.relay.clone();
        let threads = move || [ingest.threads(), playback.threads()].concat();
        let beat = pulse::beat(threads, move || pulse::status(&relay));
        let over = server.shutdown.clone();
        server.tasks.spawn(async move {
            over.run_until_cancelled(beat).await;
        });
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

    /// What operators ask for: to reload, to drain.
    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Runs until it has drained, which SIGTERM and the API ask for and a process that takes over, or until SIGINT, which does not
    /// wait for anybody; then shuts down. A further SIGTERM or SIGINT ends it at once. At each SIGHUP the configuration is read anew
    /// with `read` and applied as far as it can be; one that cannot be read or has mistakes changes nothing.
    pub async fn run_until_signal<R>(self, mut signals: Signals, read: R)
    where
        R: Fn() -> Result<Config, config::Error> + Send + Sync + 'static,
    {
        self.operations.read_with(read);
        let mut orders = self.operations.orders();
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => {
                    let operations = &self.operations;
                    operations.drain(operations.patience(), false);
                    break;
                }
                _ = signals.interrupt.recv() => {
                    info!("SIGINT: going down");
                    break;
                }
                () = asked(&mut orders) => break,
                _ = signals.hangup.recv() => {
                    let operations = self.operations.clone();
                    // It reads files. A panic in there is logged as one and changes nothing.
                    let _ = tokio::task::spawn_blocking(move || operations.reload().is_ok()).await;
                }
            }
        }
        let hurry = self.shutdown.clone();
        let down = async {
            if self.operations.is_draining() {
                let within = drain::wait(&self, self.operations.orders()).await;
                drain::wind_down(&self, within).await;
            }
            self.shutdown().await;
        };
        tokio::select! {
            () = pulse::patiently(down) => {}
            () = signals.end() => {
                warn!("told again: going down at once");
                hurry.cancel();
            }
        }
    }

    /// Not ready any more, mixes and pushes end, connections are told; returns when all is down, or at the
    /// deadline (5 s) at the latest.
    pub async fn shutdown(self) {
        self.rooms.readiness.set(false);
        // The service goes on in the process that has taken over.
        if !self.operations.is_handed() {
            pulse::stopping("going down");
        }
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

/// What there is before a server: listeners that somebody else opened, and the process that is taken over.
#[derive(Debug)]
pub struct Before {
    inherited: Inherited,
    claim: Option<takeover::Claim>,
}

impl Before {
    /// A server that opens everything itself.
    pub fn nothing() -> Self {
        Self {
            inherited: Inherited::none(),
            claim: None,
        }
    }

    /// What the service manager opened.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn environment() -> Result<Self, Error> {
        Ok(Self {
            inherited: Inherited::from_environment().map_err(Error::Inherited)?,
            claim: None,
        })
    }

    /// What the server that uses the configured state directory has; where none runs, as [`Self::environment`].
    ///
    /// # Errors
    /// When it refuses.
    pub async fn taken_over(config: &Config) -> Result<Self, Error> {
        let claim = takeover::Claim::ask(&config.state.dir).await;
        match claim.map_err(Error::Takeover)? {
            Some((claim, inherited)) => Ok(Self {
                inherited,
                claim: Some(claim),
            }),
            None => {
                info!("there is no server to take over from");
                Self::environment()
            }
        }
    }
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
    /// SIGTERM or SIGINT.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

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

/// Resolves when the server is to drain.
async fn asked(orders: &mut watch::Receiver<Option<operations::Drain>>) {
    // An error: nobody is left who could ask, which cannot be while the server is there.
    let _ = orders.wait_for(Option::is_some).await;
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

    /// With its state there, and the control API at that address.
    fn configuration(state: &std::path::Path, control: std::net::SocketAddr) -> Config {
        let text = format!(
            "[rtmp]\nlisten = '127.0.0.1:0'\n[http]\nlisten = '127.0.0.1:0'\n\
             [control]\nlisten = '{control}'\ntoken = 'only for this test'\n\
             [state]\ndir = '{}'",
            state.display()
        );
        Config::parse(&text, "test", &config::Env::default()).unwrap()
    }

    #[tokio::test]
    async fn a_start_that_finds_a_listener_taken_leaves_the_state_directory_free() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let control = taken.local_addr().unwrap();
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let refused = Server::start(configuration(folder.path(), control)).await;
            assert!(matches!(refused, Err(Error::Listen { .. })));
            // What the next server does first.
            Store::open(folder.path()).unwrap();
        }
    }

    #[tokio::test]
    async fn a_server_that_has_started_can_be_taken_over_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let config = configuration(folder.path(), ([127, 0, 0, 1], 0).into());
        let server = Server::start(config).await.unwrap();
        // None of its tasks has run since.
        let socket = folder.path().join("takeover.sock");
        std::os::unix::net::UnixStream::connect(socket).unwrap();
        server.shutdown().await;
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
