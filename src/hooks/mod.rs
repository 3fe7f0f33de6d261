//! Callbacks: back ends are told of each publish that begins and ends, in order, once it was kept on disk.
//!
//! Owns what is told, to whom, and when it is tried again. Refuses to know sockets of publishers, requests and mixes: it
//! hears the relay's facts and writes letters. A letter is kept in the store before it is sent, and until it was taken
//! (HTTP 200); letters of one stream leave one after the other, so a start never overtakes the end before it. Epochs that
//! a killed server left open are ended at the next start. Made by the server.

mod letter;
mod post;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use post::Address;

use crate::auth::Secret;
use crate::media::StreamKey;
use crate::reason::Reason;
use crate::relay::{Event, Origin, Relay};
use crate::store::{EpochChange, EpochRow, LetterRow, Store};

/// The documents' pause between two tries.
pub const PAUSE: Duration = Duration::from_secs(60);
/// Letters on their way at once; each holds a socket.
const AT_ONCE: usize = 32;
/// Changes that are kept in one commit.
const TOGETHER: usize = 256;
/// How often the store is asked for letters that have become due.
const LOOK: Duration = Duration::from_secs(1);

/// Whom to tell of which streams.
#[derive(Debug, Clone)]
pub struct Reader {
    pub appid: u64,
    pub app: String,
    pub stream_prefix: String,
    pub address: Address,
    /// Signs letters.
    pub key: Secret,
}

/// What callbacks are made of.
#[derive(Debug, Clone)]
pub struct Config {
    pub readers: Vec<Reader>,
    /// What is told as the server's address.
    pub node: String,
    /// Between two tries of a letter.
    pub pause: Duration,
}

/// Callbacks of this server.
#[derive(Debug, Clone)]
pub struct Hooks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    store: Store,
    /// There is something new to send.
    news: Notify,
}

/// An epoch that was told of.
struct Open {
    epoch: u64,
    origin: Origin,
    sequence: String,
    begun: SystemTime,
}

impl Hooks {
    pub fn new(config: Config, store: Store) -> Self {
        Self(Arc::new(Inner {
            config,
            store,
            news: Notify::new(),
        }))
    }

    /// Writes letters about what the relay tells, until `stop`. First the epochs that the last run left open are ended.
    pub async fn write(self, relay: Relay, stop: CancellationToken) {
        let mut events = relay.events();
        let mut changes = self.0.leftovers().await;
        let mut open = HashMap::new();
        self.0.reconcile(&relay, &mut open, &mut changes);
        loop {
            self.0.keep(std::mem::take(&mut changes), &stop).await;
            let event = tokio::select! {
                event = events.recv() => event,
                () = stop.cancelled() => break,
            };
            match event {
                Ok(event) => self.0.note(event, &mut open, &mut changes),
                Err(RecvError::Lagged(missed)) => {
                    warn!(
                        missed,
                        "callbacks fell behind; what was missed is made up from what is there"
                    );
                    self.0.reconcile(&relay, &mut open, &mut changes);
                }
                Err(RecvError::Closed) => break,
            }
            // One commit for all that is known by now.
            while changes.len() < TOGETHER
                && let Ok(event) = events.try_recv()
            {
                self.0.note(event, &mut open, &mut changes);
            }
        }
        while let Ok(event) = events.try_recv() {
            self.0.note(event, &mut open, &mut changes);
        }
        // Who is still there goes down with the server; that is sent by the next run if need be.
        for (key, epoch) in open {
            let now = SystemTime::now();
            self.0.end(&key, epoch, now, Reason::Shutdown, &mut changes);
        }
        self.0.keep(changes, &stop).await;
    }

    /// Sends letters, until `stop`.
    pub async fn send(self, stop: CancellationToken) {
        let mut going: JoinSet<i64> = JoinSet::new();
        let mut on_their_way = HashSet::new();
        loop {
            if going.len() < AT_ONCE {
                let due = self
                    .0
                    .store
                    .due_letters(millis(SystemTime::now()), 2 * AT_ONCE);
                match due.await {
                    Ok(letters) => {
                        for letter in letters {
                            if going.len() >= AT_ONCE || !on_their_way.insert(letter.id) {
                                continue;
                            }
                            let inner = self.0.clone();
                            going.spawn(async move {
                                let id = letter.id;
                                inner.deliver(letter).await;
                                id
                            });
                        }
                    }
                    Err(error) => warn!(%error, "letters cannot be read"),
                }
            }
            tokio::select! {
                Some(done) = going.join_next() => {
                    match done {
                        Ok(id) => drop(on_their_way.remove(&id)),
                        // A panic: which one it was is not known.
                        Err(_) => on_their_way.clear(),
                    }
                }
                () = self.0.news.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

impl Inner {
    fn readers<'a>(&'a self, key: &'a StreamKey) -> impl Iterator<Item = &'a Reader> {
        let all = self.config.readers.iter();
        all.filter(|one| one.app == key.app() && key.stream().starts_with(&one.stream_prefix))
    }

    fn note(
        &self,
        event: Event,
        open: &mut HashMap<StreamKey, Open>,
        changes: &mut Vec<EpochChange>,
    ) {
        match event {
            Event::Published {
                key,
                epoch,
                origin,
                stamp,
            } => self.begin(key, epoch, origin, stamp.at, open, changes),
            Event::Unpublished {
                key,
                epoch,
                reason,
                stamp,
                ..
            } => {
                // An epoch that is known by a later one has been told of.
                let known = open.get(&key).is_some_and(|known| known.epoch == epoch);
                if known && let Some(known) = open.remove(&key) {
                    self.end(&key, known, stamp.at, reason, changes);
                }
            }
        }
    }

    fn begin(
        &self,
        key: StreamKey,
        epoch: u64,
        origin: Origin,
        at: SystemTime,
        open: &mut HashMap<StreamKey, Open>,
        changes: &mut Vec<EpochChange>,
    ) {
        // The documents do not say that outputs of mixes are told of.
        if origin.is_mix() || self.readers(&key).next().is_none() {
            return;
        }
        // What is there was looked up before its events were heard, or after some were missed. Epochs rise.
        if open.get(&key).is_some_and(|known| known.epoch >= epoch) {
            return;
        }
        let sequence = format!("{}{:06}", millis(at), epoch % 1_000_000);
        let known = Open {
            epoch,
            origin,
            sequence,
            begun: at,
        };
        if let Some(before) = open.remove(&key) {
            // Its end was missed.
            self.end(&key, before, at, Reason::Internal, changes);
        }
        for reader in self.readers(&key) {
            let common = self.common(reader, &key, &known);
            let row = EpochRow {
                sequence: known.sequence.clone(),
                account: account(reader),
                lane: lane(reader, &key),
                begun_at: millis(at),
                body: common.to_string(),
            };
            let letter = written(&row.lane, row.account, letter::start(&common, at));
            changes.push(EpochChange::Begun(row, letter));
        }
        open.insert(key, known);
    }

    fn end(
        &self,
        key: &StreamKey,
        epoch: Open,
        at: SystemTime,
        reason: Reason,
        changes: &mut Vec<EpochChange>,
    ) {
        let lasted = at.duration_since(epoch.begun).unwrap_or_default();
        for reader in self.readers(key) {
            let body = letter::end(&self.common(reader, key, &epoch), at, lasted, reason);
            changes.push(EpochChange::Ended {
                sequence: epoch.sequence.clone(),
                letter: written(&lane(reader, key), account(reader), body),
            });
        }
    }

    fn common(&self, reader: &Reader, key: &StreamKey, epoch: &Open) -> Value {
        let Open {
            origin, sequence, ..
        } = epoch;
        letter::common(key, origin, reader.appid, sequence, &self.config.node)
    }

    /// Keeps changes, however often that has to be tried. What comes meanwhile waits in the relay's channel.
    async fn keep(&self, changes: Vec<EpochChange>, stop: &CancellationToken) {
        if changes.is_empty() {
            return;
        }
        loop {
            match self.store.note_epochs(changes.clone()).await {
                Ok(0) => {}
                Ok(lost) => warn!(lost, "as many letters wait as may; some were not kept"),
                Err(error) => {
                    warn!(%error, "letters could not be kept; trying again");
                    tokio::select! {
                        () = tokio::time::sleep(LOOK) => continue,
                        () = stop.cancelled() => return,
                    }
                }
            }
            self.news.notify_one();
            return;
        }
    }

    /// The ends of what began in a run that was killed.
    async fn leftovers(&self) -> Vec<EpochChange> {
        let rows = match self.store.open_epochs().await {
            Ok(rows) => rows,
            Err(error) => {
                warn!(%error, "epochs of the last run cannot be read");
                return Vec::new();
            }
        };
        let now = SystemTime::now();
        let ends = rows.into_iter().map(|row| {
            let common = serde_json::from_str(&row.body).unwrap_or_default();
            let lasted = millis(now).saturating_sub(row.begun_at);
            let lasted = Duration::from_millis(u64::try_from(lasted).unwrap_or(0));
            let body = letter::end(&common, now, lasted, Reason::Internal);
            EpochChange::Ended {
                letter: written(&row.lane, row.account, body),
                sequence: row.sequence,
            }
        });
        ends.collect()
    }

    /// Makes up what is known with what is there.
    fn reconcile(
        &self,
        relay: &Relay,
        open: &mut HashMap<StreamKey, Open>,
        changes: &mut Vec<EpochChange>,
    ) {
        let mut there = HashMap::new();
        for info in relay.streams() {
            if let Some(publisher) = info.publisher {
                there.insert(info.key, publisher);
            }
        }
        let gone: Vec<StreamKey> = open
            .iter()
            .filter(|(key, known)| there.get(*key).is_none_or(|p| p.epoch != known.epoch))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            if let Some(known) = open.remove(&key) {
                let now = SystemTime::now();
                self.end(&key, known, now, Reason::Disconnected, changes);
            }
        }
        for (key, publisher) in there {
            let (epoch, origin, since) = (publisher.epoch, publisher.origin, publisher.since);
            self.begin(key, epoch, origin, since, open, changes);
        }
    }

    async fn deliver(&self, letter: LetterRow) {
        let reader = self.config.readers.iter();
        let reader = reader.clone().find(|one| account(one) == letter.account);
        let now = SystemTime::now();
        let sent = match reader {
            // The account was taken out of the configuration.
            None => None,
            Some(reader) => match letter::signed(&letter.body, &reader.key, now) {
                None => None,
                Some(body) => Some(post::post(&reader.address, &body).await),
            },
        };
        let done = match sent {
            Some(Ok(200)) => self.store.letter_taken(letter.id).await,
            None => self.store.letter_refused(letter.id, None).await,
            Some(other) => {
                let again = letter::again(letter.attempts, SystemTime::now(), self.config.pause);
                let why = match other {
                    Ok(status) => format!("HTTP {status}"),
                    Err(error) => error.to_string(),
                };
                let (lane, attempts) = (&letter.lane, letter.attempts + 1);
                match again {
                    Some(_) => info!(lane, attempts, why, "callback not taken"),
                    None => warn!(
                        lane,
                        attempts, why, "callback given up; it stays in the outbox"
                    ),
                }
                self.store
                    .letter_refused(letter.id, again.map(millis))
                    .await
            }
        };
        if let Err(error) = done {
            warn!(%error, "what became of a letter could not be kept; it may come twice");
            // Not at once again, while the disk is full.
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A letter as it is kept first.
fn written(lane: &str, account: i64, body: String) -> LetterRow {
    LetterRow {
        id: 0,
        lane: lane.to_owned(),
        account,
        body,
        attempts: 0,
        due_at: 0,
    }
}

fn account(reader: &Reader) -> i64 {
    // An appid has ten digits.
    i64::try_from(reader.appid).unwrap_or(i64::MAX)
}

fn lane(reader: &Reader, key: &StreamKey) -> String {
    format!("{} {key}", reader.appid)
}

fn millis(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
