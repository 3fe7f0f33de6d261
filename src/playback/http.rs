//! The public HTTP listeners: whoever asks for `/{app}/{stream}.flv` plays it, everybody else is handed on.
//!
//! A player needs the bare socket, for its bytes are written by the same loops as everybody's; so the request's head is
//! read here, and a connection that wants something else leaves with what was read of it put back in front
//! ([`Handed`]), for whoever serves the rest. One request per connection: all answers say `Connection: close`.
//!
//! Owns reading the head, the decision (asked of [`Authorizer`], as RTMP's is) and the words of refusals; the playing
//! itself is [`super::flv`].

mod answer;
pub mod head;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, debug, error_span, field};

use super::{Playback, flv};
use crate::auth::{Action, Authorizer, Grant, Refusal, Stay};
use crate::logging::{ConnectionId, refused};
use crate::media::{Class, Feed, PerApp, StreamKey};
use crate::metrics::Metrics;
use crate::net::{self, Admission, Bounds, Entrance, Handed, Pass, Socket};
use crate::reason::Reason;

pub(super) use answer::{Status, Tracks, refusal, stream_end, stream_head};
use head::{Method, Parsed, Request};

/// Nearly every head fits.
const HEAD_BYTES: usize = 2_048;

/// What the door allows. Defaults are those of config/linkmic.toml.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Counts connections, until they are handed on, and says how many there may be.
    pub admission: Admission,
    /// From accept through TLS and a proxy's header to the end of the request's head.
    pub head_deadline: Duration,
    /// The applications that exist.
    pub apps: PerApp<()>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            admission: Admission::new(Bounds::default()),
            head_deadline: Duration::from_secs(10),
            apps: PerApp::all(()),
        }
    }
}

/// The HTTP side of the room. Cheap to clone.
#[derive(Clone)]
pub struct Http {
    shared: Arc<Shared>,
}

struct Shared {
    playback: Playback,
    config: HttpConfig,
    authorizer: Arc<dyn Authorizer>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    elsewhere: mpsc::Sender<Handed>,
}

impl Http {
    /// Connections are spawned on `tasks`; `shutdown` ends them. Those that do not ask for a stream go to
    /// `elsewhere`, and are closed when it takes no more.
    pub fn new(
        playback: Playback,
        config: HttpConfig,
        authorizer: Arc<dyn Authorizer>,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
        elsewhere: mpsc::Sender<Handed>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                playback,
                config,
                authorizer,
                metrics,
                tasks,
                shutdown,
                elsewhere,
            }),
        }
    }

    /// Accepts until shutdown. Once for each listener, with what its connections have to go through first.
    pub async fn serve(self, listener: TcpListener, entrance: Entrance) {
        loop {
            tokio::select! {
                (tcp, peer) = net::accept(&listener) => {
                    let entrance = entrance.clone();
                    let admit = || self.admit(tcp, peer, entrance);
                    if net::contained("letting a connection in", admit).is_none() {
                        self.shared.metrics.http_turned(Reason::Internal);
                    }
                }
                () = self.shared.shutdown.cancelled() => return,
            }
        }
    }

    fn admit(&self, tcp: TcpStream, peer: SocketAddr, entrance: Entrance) {
        let shared = self.shared.clone();
        let place = match entrance.place(&shared.config.admission, peer) {
            Ok(place) => place,
            Err(full) => {
                shared.metrics.http_turned(Reason::LimitReached);
                debug!(%peer, "connection refused: {full}");
                return;
            }
        };
        let id = ConnectionId::next();
        // Of the highest level: whatever is logged at all says whose it is.
        let span = error_span!("http", connection = %id, peer = field::Empty);
        let tasks = shared.tasks.clone();
        tasks.spawn(
            async move { shared.run(tcp, id, peer, &entrance, place).await }.instrument(span),
        );
    }
}

/// Counts a connection that asked for a stream, while it lives.
struct Counted<'a>(&'a Metrics);

impl<'a> Counted<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.connections_total.inc();
        metrics.connections_open.inc();
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.connections_open.dec();
    }
}

/// A request to play that was granted.
struct Granted {
    key: StreamKey,
    feed: Feed,
    class: Class,
    stay: Stay,
}

impl Shared {
    /// Serves one connection, or hands it on.
    async fn run(
        &self,
        tcp: TcpStream,
        id: ConnectionId,
        hop: SocketAddr,
        entrance: &Entrance,
        mut place: Pass,
    ) {
        let deadline = Instant::now() + self.config.head_deadline;
        let beginning = async {
            if let Err(e) = net::tune(&tcp) {
                debug!(peer = %hop, error = %e, "socket options refused");
                return Err(Reason::SocketError);
            }
            let (socket, peer) = match entrance.admit(tcp, hop, &mut place).await {
                Ok(admitted) => admitted,
                Err(turned) => {
                    refused!(turned.reason(), peer = %hop, "connection turned away: {turned}");
                    return Err(turned.reason());
                }
            };
            Span::current().record("peer", field::display(peer));
            let mut front = BytesMut::with_capacity(HEAD_BYTES);
            let parsed = read_head(&socket, &mut front).await?;
            Ok((socket, peer, front, parsed))
        };
        let begun = tokio::select! {
            begun = timeout_at(deadline.into(), beginning) => begun.unwrap_or(Err(Reason::Timeout)),
            () = self.shutdown.cancelled() => Err(Reason::Shutdown),
        };
        // Who says nothing in time, or leaves, is not told anything: browsers open connections to have them.
        let (socket, peer, front, parsed) = match begun {
            Ok(begun) => begun,
            Err(reason) => return self.metrics.http_turned(reason),
        };
        match parsed {
            Parsed::Media(request) => {
                // A player stays for hours.
                drop(front);
                let counted = Counted::new(&self.metrics);
                let reason = self.answer(socket, id, peer, &request).await;
                debug!(%reason, "connection ended");
                self.metrics.disconnected(reason);
                drop((counted, place));
            }
            Parsed::Other => {
                drop(place);
                let handed = Handed {
                    stream: net::Stream::new(socket, front),
                    peer,
                };
                if self.elsewhere.try_send(handed).is_err() {
                    self.metrics.http_turned(Reason::LimitReached);
                    debug!("nobody takes this connection");
                }
            }
            Parsed::TooLong { limit } => {
                self.metrics.http_turned(Reason::TooLarge);
                let why = format!("the request's head exceeds the limit of {limit} bytes");
                let words = refusal(Status::HeadTooLarge, Reason::TooLarge, &why, true);
                net::close(socket, &words).await;
            }
        }
    }

    /// Answers a request for a stream and says why it was over.
    async fn answer(
        &self,
        socket: Socket,
        id: ConnectionId,
        peer: SocketAddr,
        request: &Request,
    ) -> Reason {
        let (status, refused) = match request.method {
            Method::Options => {
                net::close(socket, &answer::preflight()).await;
                return Reason::Closed;
            }
            Method::Other => {
                let refused = Refusal::new(Reason::Protocol, "streams take GET, HEAD and OPTIONS");
                (Status::MethodNotAllowed, refused)
            }
            Method::Get | Method::Head => match self.authorize(id, peer, request).await {
                Ok(granted) => return self.play(socket, peer, request, granted).await,
                Err(refused) => (Status::of(refused.reason), refused),
            },
        };
        refused!(refused.reason, "play refused: {}", refused.message);
        let with_body = request.method != Method::Head;
        let words = refusal(status, refused.reason, &refused.message, with_body);
        net::close(socket, &words).await;
        refused.reason
    }

    async fn play(
        &self,
        socket: Socket,
        peer: SocketAddr,
        request: &Request,
        granted: Granted,
    ) -> Reason {
        let Granted {
            key,
            feed,
            class,
            stay,
        } = granted;
        let visit = flv::Visit {
            socket,
            peer,
            key,
            feed,
            class,
            chunked: request.chunked,
        };
        let room = &self.playback.shared;
        if let Method::Head = request.method {
            return flv::describe(room, visit).await;
        }
        let key = visit.key.clone();
        // Dropping it takes the player out of wherever it is; over HTTP an end says no more than a close.
        let reason = tokio::select! {
            reason = flv::play(room, visit) => reason,
            () = stay.ended() => Reason::Banned,
        };
        room.ended(&key, peer, reason);
        reason
    }

    async fn authorize(
        &self,
        id: ConnectionId,
        peer: SocketAddr,
        request: &Request,
    ) -> Result<Granted, Refusal> {
        let key = StreamKey::new(&request.app, &request.stream)
            .map_err(|e| Refusal::new(Reason::BadName, e.to_string()))?;
        if self.config.apps.find(key.app()).is_none() {
            let why = "this application is not configured here";
            return Err(Refusal::new(Reason::UnknownApp, why));
        }
        let asked = crate::auth::Request {
            action: Action::Play,
            key: &key,
            query: &request.query,
            peer,
            connection: Some(id),
            now: SystemTime::now(),
        };
        let decision = self.authorizer.authorize(&asked).await;
        let decision = decision.and_then(|grant| {
            let stay = self.authorizer.admit(&asked, &grant)?;
            Ok((grant, stay))
        });
        let outcome = decision
            .as_ref()
            .map_or_else(|refusal| refusal.reason.code(), |_| "granted");
        self.metrics.auth("play", outcome);
        match decision? {
            (Grant::Play { feed, class, .. }, stay) => Ok(Granted {
                key,
                feed,
                class,
                stay,
            }),
            (Grant::Publish { .. }, _) => Err(Refusal::new(Reason::Internal, "no grant to play")),
        }
    }
}

/// Reads until the head is whole, leaving it, and whatever came with it, in `front`.
async fn read_head(socket: &Socket, front: &mut BytesMut) -> Result<Parsed, Reason> {
    loop {
        match net::read_some(socket, front).await {
            Ok(0) => return Err(Reason::Disconnected),
            Err(_) => return Err(Reason::SocketError),
            Ok(_) => {}
        }
        if let Some(parsed) = head::parse(front) {
            return Ok(parsed);
        }
    }
}
