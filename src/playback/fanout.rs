//! Which writer loop serves a player: loops per feed, class and framing, as many as there are cores, made when they are needed,
//! each on one of as many threads that do nothing else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::desks::{Desks, Seat};
use super::info::ReaderInfo;
use super::reader::Joiner;
use super::wish::Wish;
use super::writer::{Command, Writer};
use super::{ANSWER_DEADLINE, Config};
use crate::media::{Class, Feed, StreamKey};
use crate::metrics::Metrics;
use crate::net::turns::Turns;
use crate::relay::{Framing, Relay};

/// A loop with fewer players than this takes the next one before another loop is made: a second loop costs
/// a second wake-up per message, which pays only when there is writing to share.
const PLAYERS_BEFORE_NEXT_LOOP: usize = 32;
/// Commands that may wait for a loop. A thousand players joining at once must fit.
const COMMANDS: usize = 4_096;

/// What the players of one loop have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    key: StreamKey,
    feed: Feed,
    class: Class,
    framing: Framing,
}

type Feeds = HashMap<Place, Vec<Shard>>;

/// Hands players to writer loops, which serve one feed to one class in one framing.
pub struct Fanout {
    relay: Relay,
    config: Config,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    cores: usize,
    desks: Desks,
    ids: AtomicU64,
    feeds: Arc<Mutex<Feeds>>,
}

#[derive(Clone)]
struct Shard {
    number: u64,
    commands: mpsc::Sender<Command>,
    players: Arc<AtomicUsize>,
    /// Which desk it sits at, if any.
    desk: Option<usize>,
}

/// A player's line to its writer loop. Dropping it leaves.
pub struct Line {
    pub id: u64,
    commands: mpsc::Sender<Command>,
    players: Arc<AtomicUsize>,
}

/// The loop's command queue is full, or it is gone.
#[derive(Debug, thiserror::Error)]
#[error("too many players are joining this stream at once")]
pub struct Overrun;

impl Fanout {
    pub fn new(relay: Relay, config: Config, metrics: Arc<Metrics>, tasks: TaskTracker) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            relay,
            desks: Desks::new(cores, config.precedence),
            config,
            metrics,
            tasks,
            cores,
            ids: AtomicU64::new(0),
            feeds: Arc::default(),
        }
    }

    /// The runtimes of the threads on which loops sit.
    pub fn threads(&self) -> Vec<Handle> {
        self.desks.runtimes()
    }

    /// A fresh id for a joiner.
    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives the player to the least loaded loop for its feed, class and framing.
    ///
    /// # Errors
    /// [`Overrun`] when that loop's queue is full.
    pub fn join(&self, joiner: Joiner) -> Result<Line, Overrun> {
        let id = joiner.id;
        let subscriber = &joiner.subscriber;
        let place = Place {
            key: subscriber.key().clone(),
            feed: subscriber.feed(),
            class: joiner.class,
            framing: joiner.framing,
        };
        let mut feeds = self.feeds.lock().unwrap_or_else(|e| e.into_inner());
        let shards = feeds.entry(place.clone()).or_default();
        let least = shards
            .iter()
            .min_by_key(|s| s.players.load(Ordering::Relaxed));
        let shard = match least {
            Some(shard)
                if shards.len() >= self.cores
                    || shard.players.load(Ordering::Relaxed) < PLAYERS_BEFORE_NEXT_LOOP =>
            {
                shard.clone()
            }
            _ => {
                let shard = self.spawn(place, shards);
                shards.push(shard.clone());
                shard
            }
        };
        // Under the lock, so that the loop cannot retire between being chosen and being told.
        shard
            .commands
            .try_send(Command::Join(Box::new(joiner)))
            .map_err(|_| Overrun)?;
        shard.players.fetch_add(1, Ordering::Relaxed);
        Ok(Line {
            id,
            commands: shard.commands,
            players: shard.players,
        })
    }

    /// All players of a name that play now, oldest first. A loop that does not answer soon is left out.
    pub async fn readers(&self, key: &StreamKey) -> Vec<ReaderInfo> {
        let mut readers = Vec::new();
        for shard in self.shards(key) {
            let (answer, report) = oneshot::channel();
            let sent = shard.commands.send(Command::Report { answer });
            let asked = async {
                sent.await.ok()?;
                report.await.ok()
            };
            if let Ok(Some(report)) = timeout(ANSWER_DEADLINE, asked).await {
                readers.extend(report);
            }
        }
        readers.sort_by_key(|reader| reader.id);
        readers
    }

    /// Tells a player of a name to go; `false`: there is no such one.
    pub async fn kick(&self, key: &StreamKey, id: u64) -> bool {
        for shard in self.shards(key) {
            let (answer, found) = oneshot::channel();
            let sent = shard.commands.send(Command::Kick { id, answer });
            let asked = async {
                sent.await.ok()?;
                found.await.ok()
            };
            if let Ok(Some(true)) = timeout(ANSWER_DEADLINE, asked).await {
                return true;
            }
        }
        false
    }

    /// Ends every loop as a panic would.
    #[cfg(test)]
    pub fn clear(&self) {
        self.desks.clear();
    }

    fn shards(&self, key: &StreamKey) -> Vec<Shard> {
        let feeds = self.feeds.lock().unwrap_or_else(|e| e.into_inner());
        let of_name = feeds.iter().filter(|(place, _)| place.key == *key);
        of_name.flat_map(|(_, shards)| shards.clone()).collect()
    }

    /// A loop beside its `siblings`, which serve the same place.
    fn spawn(&self, place: Place, siblings: &[Shard]) -> Shard {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let occupied: Vec<_> = siblings.iter().filter_map(|s| s.desk).collect();
        let seat = self.desks.sit(&occupied);
        let shard = Shard {
            number: self.next_id(),
            commands,
            players: Arc::default(),
            desk: seat.as_ref().map(Seat::desk),
        };
        let tail = self.relay.watch(&place.key, place.feed);
        let class = self.config.class(place.class).clone();
        let writer = Writer::new(tail, place.framing, class, inbox, self.metrics.clone());
        let entry = Entry {
            feeds: self.feeds.clone(),
            place,
            number: shard.number,
            commands: shard.commands.downgrade(),
        };
        let runtime = seat.as_ref().map(|seat| seat.runtime().clone());
        let work = async move {
            // The entry goes before the loop's players: whoever of them comes again finds another loop.
            writer.run(move || entry.retire()).await;
            drop(seat);
        };
        match runtime {
            Some(runtime) => self.tasks.spawn_on(work, &runtime),
            None => self.tasks.spawn(work),
        };
        shard
    }
}

/// That a loop takes players. Dropped with the loop, also when that panics: nobody is sent to one that is gone.
struct Entry {
    feeds: Arc<Mutex<Feeds>>,
    place: Place,
    number: u64,
    commands: mpsc::WeakSender<Command>,
}

impl Entry {
    /// Whether the loop, which has nobody left, may go: then no player will be sent to it.
    fn retire(&self) -> bool {
        let mut feeds = self.feeds.lock().unwrap_or_else(|e| e.into_inner());
        // A command may have come while the lock was not held.
        let idle = self
            .commands
            .upgrade()
            .is_none_or(|c| c.capacity() == c.max_capacity());
        if idle {
            self.remove(&mut feeds);
        }
        idle
    }

    fn remove(&self, feeds: &mut Feeds) {
        if let Some(shards) = feeds.get_mut(&self.place) {
            shards.retain(|s| s.number != self.number);
            if shards.is_empty() {
                feeds.remove(&self.place);
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(stream = %self.place.key, "a writer loop panicked, which ends its players; this is a mistake of ours, please report it");
        }
        let mut feeds = self.feeds.lock().unwrap_or_else(|e| e.into_inner());
        self.remove(&mut feeds);
    }
}

impl Line {
    /// Bytes of the session, to go between messages. `false`: the loop has let go of this player.
    pub async fn control(&self, bytes: bytes::Bytes) -> bool {
        self.tell(Command::Control { id: self.id, bytes }).await
    }

    /// The player wants less, or more again. `false`: the loop has let go of this player.
    pub async fn wish(&self, wish: Wish) -> bool {
        self.tell(Command::Wish { id: self.id, wish }).await
    }

    /// Others write to the player's socket from now on. `false`: the loop has let go of this player.
    pub async fn share(&self, turns: Arc<Turns>) -> bool {
        self.tell(Command::Share { id: self.id, turns }).await
    }

    /// The client wants no more: its player ends at a message's end.
    pub async fn stop(&self) {
        self.tell(Command::Stop { id: self.id }).await;
    }

    /// Last words, behind all that waits.
    pub async fn finish(&self, bytes: bytes::Bytes) {
        self.tell(Command::Finish { id: self.id, bytes }).await;
    }

    async fn tell(&self, command: Command) -> bool {
        match self.commands.try_send(command) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            // Seldom, and so in room of its own: a player would hold that for as long as it plays.
            Err(TrySendError::Full(command)) => Box::pin(self.commands.send(command)).await.is_ok(),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.players.fetch_sub(1, Ordering::Relaxed);
        // With a full queue the loop notices by itself within a second that nobody shares the socket.
        let _ = self.commands.try_send(Command::Leave { id: self.id });
    }
}
