//! The front door: accepts RTMP connections, authorises them, and turns what anchors send into a source feed.
//!
//! Owns the listeners, one task per connection, and the publish loop. Connections that want to play leave
//! through [`crate::relay::door::PlayDoor`]. Refuses to know who reads.

mod bitrate;
mod calls;
mod connection;
mod lanes;
mod publishing;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, debug, error, error_span, field};

use self::lanes::Lanes;
use crate::auth::{Authorizer, Refusal};
use crate::logging::{ConnectionId, refused};
use crate::media::health::Report;
use crate::media::{PerApp, StreamKey};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::net::{self, Admission, Bounds, Entrance, Pass, Precedence};
use crate::reason::Reason;
use crate::relay::Relay;
use crate::relay::door::PlayDoor;
use crate::rtmp::chunk;

/// What the door allows. Defaults are those of config/linkmic.toml.
#[derive(Debug, Clone)]
pub struct Config {
    /// Counts connections, here and wherever else they come in, and says how many there may be.
    pub admission: Admission,
    /// The account that unfinished messages count in.
    pub memory: Memory,
    /// From accept through TLS and a proxy's header to the end of the handshake, and again from there (and from each
    /// end of a publish) to publish or play.
    pub stage_deadline: Duration,
    pub chunks: chunk::Limits,
    /// The applications that exist.
    pub apps: PerApp<AppConfig>,
    /// Of the threads that read publishers.
    pub precedence: Precedence,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            admission: Admission::new(Bounds::default()),
            memory: Memory::default(),
            stage_deadline: Duration::from_secs(10),
            chunks: chunk::Limits::default(),
            apps: PerApp::all(AppConfig::default()),
            precedence: Precedence::default(),
        }
    }
}

/// What holds for one application.
#[derive(Debug, Clone)]
pub struct AppConfig {
    /// A publisher that sends no media for this long is disconnected.
    pub publish_idle: Duration,
    /// Most that a publisher may send for long, in kilobits per second; `None`: no limit.
    pub max_kbps: Option<u32>,
}

impl Default for AppConfig {
    fn default() -> Self {
        Self {
            publish_idle: Duration::from_secs(15),
            max_kbps: None,
        }
    }
}

/// Hears what is wrong with publishers and what they send. Called on the threads that serve them: never blocks.
pub trait Observer: Send + Sync {
    /// That was found of an epoch of the name within some seconds.
    fn trouble(&self, key: &StreamKey, epoch: u64, report: Report);

    /// Somebody who might publish the name does not get it, because another has it.
    fn refused(&self, key: &StreamKey, peer: SocketAddr, refusal: &Refusal);
}

/// The room's handle. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    /// As in the configuration, until that is read again.
    apps: ArcSwap<PerApp<AppConfig>>,
    relay: Relay,
    authorizer: Arc<dyn Authorizer>,
    door: Arc<dyn PlayDoor>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    lanes: Lanes,
    /// Nobody is to begin to publish from then on.
    closing: OnceLock<Instant>,
    /// Publishers are to go elsewhere, if they can be asked.
    leave: CancellationToken,
    observer: OnceLock<Arc<dyn Observer>>,
}

impl Ingest {
    /// Connections are spawned on `tasks`; `shutdown` ends them.
    pub fn new(
        config: Config,
        relay: Relay,
        authorizer: Arc<dyn Authorizer>,
        door: Arc<dyn PlayDoor>,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                apps: ArcSwap::from_pointee(config.apps.clone()),
                lanes: Lanes::new(config.precedence),
                config,
                relay,
                authorizer,
                door,
                metrics,
                tasks,
                shutdown,
                closing: OnceLock::new(),
                leave: CancellationToken::new(),
                observer: OnceLock::new(),
            }),
        }
    }

    /// Who hears of troubles; the first who is set.
    pub fn set_observer(&self, observer: Arc<dyn Observer>) {
        let _ = self.shared.observer.set(observer);
    }

    /// Other values for applications from now on, for those who publish after this.
    pub fn set_apps(&self, apps: PerApp<AppConfig>) {
        self.shared.apps.store(Arc::new(apps));
    }

    /// Refuses who would begin to publish at `from` or later, and asks those who publish to connect anew, where their clients
    /// said that they can be asked. Whoever stays is served. Once; later calls change nothing.
    pub fn drain(&self, from: Instant) {
        let _ = self.shared.closing.set(from);
        self.shared.leave.cancel();
    }

    /// The runtimes of the threads that read publishers, as many as there are by now.
    pub fn threads(&self) -> Vec<Handle> {
        self.shared.lanes.runtimes()
    }

    /// Accepts until shutdown. Once for each listener, with what its connections have to go through first.
    pub async fn serve(self, listener: TcpListener, entrance: Entrance) {
        loop {
            tokio::select! {
                (tcp, peer) = net::accept(&listener) => {
                    let entrance = entrance.clone();
                    let admit = || self.admit(tcp, peer, entrance);
                    if net::contained("letting a connection in", admit).is_none() {
                        self.shared.metrics.disconnected(Reason::Internal);
                    }
                }
                () = self.shared.shutdown.cancelled() => return,
            }
        }
    }

    fn admit(&self, tcp: TcpStream, peer: SocketAddr, entrance: Entrance) {
        let shared = self.shared.clone();
        let metrics = &shared.metrics;
        metrics.connections_total.inc();
        let mut guard = match entrance.place(&shared.config.admission, peer) {
            Ok(place) => Open::new(shared.clone(), place),
            Err(full) => {
                metrics.disconnected(Reason::LimitReached);
                debug!(%peer, "connection refused: {full}");
                return;
            }
        };
        let id = ConnectionId::next();
        // Of the highest level: whatever is logged at all says whose it is.
        let span = error_span!("rtmp", connection = %id, peer = field::Empty);
        let tasks = shared.tasks.clone();
        tasks.spawn(
            async move {
                let metrics = guard.0.metrics.clone();
                let mut end = End::unknown(&metrics);
                end.reason = run(&mut guard, tcp, id, peer, &entrance).await;
                debug!(reason = %end.reason, "connection ended");
            }
            .instrument(span),
        );
    }
}

/// Lets a connection in, which makes known whose it is, and serves it.
async fn run(
    open: &mut Open,
    tcp: TcpStream,
    id: ConnectionId,
    hop: SocketAddr,
    entrance: &Entrance,
) -> Reason {
    let Open(shared, place) = open;
    let deadline = Instant::now() + shared.config.stage_deadline;
    let admitted = tokio::select! {
        admitted = timeout_at(deadline.into(), entrance.admit(tcp, hop, place)) => admitted,
        () = shared.shutdown.cancelled() => return Reason::Shutdown,
    };
    match admitted {
        Ok(Ok((socket, peer))) => {
            Span::current().record("peer", field::display(peer));
            connection::run(shared, socket, id, peer, deadline).await
        }
        Ok(Err(turned)) => {
            refused!(turned.reason(), peer = %hop, "connection turned away: {turned}");
            turned.reason()
        }
        Err(_) => {
            debug!(peer = %hop, "connection said nothing in time");
            Reason::Timeout
        }
    }
}

/// Counts a connection while it lives.
struct Open(Arc<Shared>, Pass);

impl Open {
    fn new(shared: Arc<Shared>, place: Pass) -> Self {
        shared.metrics.connections_open.inc();
        Self(shared, place)
    }
}

impl Shared {
    /// Those who publish are on their way elsewhere: nobody returns here.
    fn is_draining(&self) -> bool {
        self.leave.is_cancelled()
    }

    /// Whether nobody may begin to publish any more.
    fn is_closed(&self, now: Instant) -> bool {
        self.closing.get().is_some_and(|from| now >= *from)
    }

    fn app(&self, name: &str) -> Option<AppConfig> {
        self.apps.load().find(name).cloned()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.connections_open.dec();
    }
}

/// Counts the end of a connection, also of one whose task panics: that ends this connection, frees its place, and
/// touches no other.
struct End<'a> {
    metrics: &'a Metrics,
    reason: Reason,
}

impl<'a> End<'a> {
    fn unknown(metrics: &'a Metrics) -> Self {
        Self {
            metrics,
            reason: Reason::Internal,
        }
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!("the connection's task panicked; this is a mistake of ours, please report it");
        }
        self.metrics.disconnected(self.reason);
    }
}
