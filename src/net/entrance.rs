//! What a connection goes through between accept and its protocol: a proxy's word, then TLS.
//!
//! One [`Entrance`] per listener. Runs in the connection's own task, under that task's deadline, so that a client which
//! dawdles here holds up nobody. Called by `ingest`, by the HTTP door of `playback`, and for [`accept`] by `api`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};

use super::fold::Fold;
use super::{Admission, Full, Pass, Socket, proxy};
use crate::reason::Reason;

/// After `accept` failed (out of descriptors, say), the listener rests that long instead of spinning.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// That accepting fails is said this often, for all listeners together.
static ACCEPT_FAILS: Fold = Fold::new(Duration::from_secs(10));

/// The next connection of a listener, and the address of its TCP.
///
/// # Cancel safety
/// Safe: a connection is taken only in the last, synchronous step.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(e) => {
                if let Some(times) = ACCEPT_FAILS.happened(Instant::now()) {
                    tracing::warn!(error = %e, times, "cannot accept connections");
                }
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// How connections of one listener come in. The default takes them as they are. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Entrance {
    proxies: Option<proxy::Trusted>,
    tls: Option<Arc<ServerConfig>>,
}

/// Why a connection did not get through.
#[derive(Debug, thiserror::Error)]
pub enum Turned {
    #[error(transparent)]
    Proxy(#[from] proxy::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error(transparent)]
    Full(#[from] Full),
}

impl Turned {
    /// The word for metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Turned::Proxy(proxy::Error::Io(e)) | Turned::Tls(e) => match e.kind() {
                io::ErrorKind::UnexpectedEof => Reason::Disconnected,
                io::ErrorKind::InvalidData => Reason::Protocol,
                _ => Reason::SocketError,
            },
            Turned::Proxy(proxy::Error::Untrusted(_)) => Reason::ProxyUntrusted,
            Turned::Proxy(
                proxy::Error::Missing | proxy::Error::Malformed(_) | proxy::Error::TooLong { .. },
            ) => Reason::ProxyHeader,
            Turned::Full(_) => Reason::LimitReached,
        }
    }
}

impl Entrance {
    /// Every connection must begin with a PROXY header from one of these networks.
    #[must_use]
    pub fn behind(mut self, proxies: proxy::Trusted) -> Self {
        self.proxies = Some(proxies);
        self
    }

    /// Connections speak TLS.
    #[must_use]
    pub fn encrypted(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// A place for a connection that was just accepted. It counts for the address `peer` of its TCP, unless that is a
    /// proxy's: then [`Self::admit`] says whose it is.
    ///
    /// # Errors
    /// Which bound is reached.
    pub fn place(&self, admission: &Admission, peer: SocketAddr) -> Result<Pass, Full> {
        let mut place = admission.enter()?;
        if self.proxies.is_none() {
            place.come_from(peer.ip())?;
        }
        Ok(place)
    }

    /// The connection, ready for its protocol, and the address of the client: the one a trusted proxy announced, or
    /// else that of its TCP. An IPv4 client on a dual-stack listener has its IPv4 address. Behind proxies, `place` counts
    /// for it from then on.
    ///
    /// # Errors
    /// When the connection is not what this listener expects, comes from where too many come from, or breaks.
    pub async fn admit(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        place: &mut Pass,
    ) -> Result<(Socket, SocketAddr), Turned> {
        let mut peer = canonical(peer);
        if let Some(proxies) = &self.proxies {
            peer = proxies.read_header(&tcp, peer).await?;
            place.come_from(peer.ip())?;
        }
        let socket = match &self.tls {
            Some(config) => Socket::encrypted(tcp, config.clone())
                .await
                .map_err(Turned::Tls)?,
            None => Socket::plain(tcp),
        };
        Ok((socket, peer))
    }
}

/// An IPv4 peer on a dual-stack listener is still an IPv4 peer.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip() {
        IpAddr::V6(v6) => SocketAddr::new(v6.to_canonical(), peer.port()),
        IpAddr::V4(_) => peer,
    }
}
