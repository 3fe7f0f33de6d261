//! Readers over the network: RTMP play and HTTP-FLV on the relay's feeds, served by a few writer loops.
//!
//! Owns the waiting room for players that come before their publisher, the writer loops, what a class costs, and the
//! public HTTP listeners ([`Http`]). Refuses to know how an RTMP connection was accepted or authorised: those come in
//! through [`crate::relay::door::PlayDoor`].

mod backlog;
mod beside;
mod delivery;
mod departure;
mod desks;
mod fanout;
mod flv;
mod http;
mod info;
mod outbound;
mod reader;
mod roster;
mod rtmp;
mod sizing;
mod waiting;
mod wish;
mod writer;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use fanout::Line;

use crate::media::{Class, StreamKey};
use crate::metrics::Metrics;
use crate::net::{self, Precedence, Socket};
use crate::reason::Reason;
use crate::relay::door::{Beside, Guest, Handover, PlayDoor, Played};
use crate::relay::{Budget, Join, Relay};

pub use http::{Http, HttpConfig, head as request_head};
pub use info::{Arrival, ReaderInfo};
pub use waiting::Limits as WaitingLimits;

/// What playback may do. Defaults are those of config/linkmic.toml.
#[derive(Debug, Clone)]
pub struct Config {
    pub low_latency: ClassConfig,
    pub viewer: ClassConfig,
    /// Players of absent streams.
    pub waiting: WaitingLimits,
    /// Of the threads that write.
    pub precedence: Precedence,
}

/// What one class of readers gets.
#[derive(Debug, Clone)]
pub struct ClassConfig {
    pub budget: Budget,
    pub join: Join,
    /// Readers of one name at a time; 0 is no limit.
    pub readers_per_name: usize,
    /// What came in goes out together once per this long, video too; zero: video goes at once and audio rides with it.
    pub merge_window: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            low_latency: ClassConfig {
                budget: Budget::low_latency(),
                join: Join::Squeeze,
                readers_per_name: 10,
                merge_window: Duration::ZERO,
            },
            viewer: ClassConfig {
                budget: Budget::viewer(),
                join: Join::Squeeze,
                readers_per_name: 0,
                merge_window: Duration::ZERO,
            },
            waiting: WaitingLimits::default(),
            precedence: Precedence::default(),
        }
    }
}

impl Config {
    fn class(&self, class: Class) -> &ClassConfig {
        match class {
            Class::LowLatency => &self.low_latency,
            Class::Viewer => &self.viewer,
        }
    }
}

/// Hears of players that did not end by themselves. Called on the tasks that serve them: never blocks.
pub trait Observer: Send + Sync {
    /// A player of the name was closed, or was never let begin, for that reason: [`Reason::TooSlow`], [`Reason::NotFound`] (it waited in
    /// vain), [`Reason::LimitReached`], [`Reason::Dropped`], [`Reason::Banned`] or [`Reason::Internal`].
    fn closed(&self, key: &StreamKey, peer: SocketAddr, reason: Reason);
}

/// The room's handle. Cheap to clone.
#[derive(Clone)]
pub struct Playback {
    shared: Arc<Shared>,
}

struct Shared {
    relay: Relay,
    config: Config,
    waiting: waiting::Room,
    fanout: fanout::Fanout,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    observer: OnceLock<Arc<dyn Observer>>,
}

impl Shared {
    /// Tells of a player's end, if it is one to tell of.
    fn ended(&self, key: &StreamKey, peer: SocketAddr, reason: Reason) {
        let is_told = matches!(
            reason,
            Reason::TooSlow
                | Reason::NotFound
                | Reason::LimitReached
                | Reason::Dropped
                | Reason::Banned
                | Reason::Internal
        );
        if let Some(observer) = self.observer.get().filter(|_| is_told) {
            observer.closed(key, peer, reason);
        }
    }
}

impl Playback {
    /// Writer loops are spawned on `tasks` as they are needed; `shutdown` ends every player.
    pub fn new(
        relay: Relay,
        config: Config,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let fanout = fanout::Fanout::new(
            relay.clone(),
            config.clone(),
            metrics.clone(),
            tasks.clone(),
        );
        Self {
            shared: Arc::new(Shared {
                waiting: waiting::Room::new(config.waiting.clone()),
                relay,
                config,
                fanout,
                metrics,
                tasks,
                shutdown,
                observer: OnceLock::new(),
            }),
        }
    }

    /// Who hears of players; the first who is set.
    pub fn set_observer(&self, observer: Arc<dyn Observer>) {
        let _ = self.shared.observer.set(observer);
    }
}

impl Playback {
    /// The runtimes of the threads that write to players, as many as there are by now.
    pub fn threads(&self) -> Vec<Handle> {
        self.shared.fanout.threads()
    }

    /// All players of a name that play now, both feeds, oldest first; those that wait for it are not among them.
    pub async fn readers(&self, key: &StreamKey) -> Vec<ReaderInfo> {
        self.shared.fanout.readers(key).await
    }

    /// Tells a player of a name to go, which hears the reason `dropped`; `false`: there is no such one.
    pub async fn kick(&self, key: &StreamKey, id: u64) -> bool {
        self.shared.fanout.kick(key, id).await
    }
}

impl PlayDoor for Playback {
    fn play(&self, handover: Box<Handover>) -> Pin<Box<dyn Future<Output = Played> + Send + '_>> {
        Box::pin(async move {
            let (key, peer) = (handover.key.clone(), handover.peer);
            let played = rtmp::play(&self.shared, handover).await;
            if let Played::Over(reason) = played {
                self.shared.ended(&key, peer, reason);
            }
            played
        })
    }

    fn play_beside(&self, beside: Beside) -> Guest {
        beside::play(self.shared.clone(), beside)
    }
}

/// Why a player is over that its writer loop, or the loop's own end, says is over.
fn end_of(outcome: Result<Reason, oneshot::error::RecvError>) -> Reason {
    match outcome {
        Ok(
            lost @ (Reason::TooSlow
            | Reason::Dropped
            | Reason::Internal
            | Reason::SocketError
            | Reason::Disconnected),
        ) => lost,
        Ok(_) => Reason::StreamEnded,
        Err(_) => Reason::Internal,
    }
}

/// Writing an answer to a peer that does not read it ends after this.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Parts with a player: its last words go through its loop, then the connection is closed.
async fn part(line: Line, words: Bytes, let_go: oneshot::Receiver<()>, socket: Arc<Socket>) {
    line.finish(words).await;
    // The loop may have to wait for the socket to take them; then the close must not overtake it.
    let _ = timeout(ANSWER_DEADLINE, let_go).await;
    if let Some(socket) = Arc::into_inner(socket) {
        net::close(socket, b"").await;
    }
}
