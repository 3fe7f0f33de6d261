//! The composition root: builds every room from the configuration, opens the listeners last, and takes all
//! down again in order.
//!
//! The only place where rooms of one row meet. Called by the command line, by the demo and by tests.

#[cfg(feature = "mixer")]
mod mixes;
mod rooms;
mod signer;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::api;
use crate::config::{Config, TokenError};

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
    #[error("push.rules: {0}")]
    Rules(crate::push::Error),
    #[cfg(feature = "mixer")]
    #[error("the mixer cannot start: {0}")]
    Mixer(crate::mixer::Error),
    #[error("cannot listen for signals: {0}")]
    Signal(io::Error),
}

/// A running server. Dropping it without [`Server::shutdown`] leaves its tasks to the runtime.
pub struct Server {
    rtmp: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    control: Vec<SocketAddr>,
    rooms: rooms::Rooms,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Server {
    /// Builds every room, then opens the listeners.
    ///
    /// # Errors
    /// When a listener cannot be opened, the control token cannot be read or made, a push rule makes no sense,
    /// or the mixer lacks a plugin.
    pub async fn start(config: Config) -> Result<Server, Error> {
        let tasks = TaskTracker::new();
        let shutdown = CancellationToken::new();
        for remark in config.warnings() {
            warn!("{remark}");
        }
        let token = config.control_token().map_err(Error::Token)?;
        if let Some(path) = &token.path {
            info!(path = %path.display(), created = token.created, "control token");
        }
        let (rtmp, rtmp_addresses) = bind("rtmp.listen", &config.rtmp.listen).await?;
        let base_url = format!("rtmp://{}", reachable(rtmp_addresses[0]));
        let (rooms, api) = rooms::build(&config, token.secret, base_url, &tasks, &shutdown)?;
        let (http, http_addresses) = bind("http.listen", &config.http.listen).await?;
        let (control, control_addresses) = bind("control.listen", &config.control.listen).await?;
        // Until here connections wait in the kernel's queue: nothing is accepted before everything is there.
        for listener in rtmp {
            tasks.spawn(rooms.ingest.clone().serve(listener));
        }
        let public = api::public_router(rooms.readiness.clone());
        for (listeners, router) in [(http, public), (control, api::control_router(api))] {
            for listener in listeners {
                tasks.spawn(serve_http(listener, router.clone(), shutdown.clone()));
            }
        }
        rooms.readiness.set(true);
        info!(
            rtmp = ?rtmp_addresses, http = ?http_addresses, control = ?control_addresses,
            version = env!("CARGO_PKG_VERSION"), "listening"
        );
        Ok(Server {
            rtmp: rtmp_addresses,
            http: http_addresses,
            control: control_addresses,
            rooms,
            tasks,
            shutdown,
        })
    }

    /// Where RTMP is served: the first address of the list.
    pub fn rtmp_addr(&self) -> SocketAddr {
        self.rtmp[0]
    }

    /// The public HTTP listener: the first address of the list.
    pub fn http_addr(&self) -> SocketAddr {
        self.http[0]
    }

    /// The control listener: the first address of the list.
    pub fn control_addr(&self) -> SocketAddr {
        self.control[0]
    }

    /// Runs until SIGTERM or SIGINT, then shuts down.
    ///
    /// # Errors
    /// When signals cannot be listened for.
    pub async fn run_until_signal(self) -> Result<(), Error> {
        let mut term = signal(SignalKind::terminate()).map_err(Error::Signal)?;
        let mut int = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
        tokio::select! {
            _ = term.recv() => info!("SIGTERM: going down"),
            _ = int.recv() => info!("SIGINT: going down"),
        }
        self.shutdown().await;
        Ok(())
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

/// An address that a client on this host can use, where a listener's is "any".
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn bind(
    key: &'static str,
    addresses: &[SocketAddr],
) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), Error> {
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut bound = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let failed = |source| Error::Listen {
            key,
            address,
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        bound.push(listener.local_addr().map_err(failed)?);
        listeners.push(listener);
    }
    Ok((listeners, bound))
}

async fn serve_http(listener: TcpListener, router: axum::Router, shutdown: CancellationToken) {
    if let Err(e) = api::serve(listener, router, shutdown).await {
        warn!(error = %e, "HTTP listener ended");
    }
}
