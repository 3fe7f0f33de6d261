//! Writes letters: about what the relay tells, of each epoch's beginning and end without exception, and about what the journal is
//! told by others.
//!
//! All letters leave here in the order of the journal's ids, in one commit for all that is known by then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::fact::{Event as Told, Fact, Kind};
use super::journal::Reader;
use super::{Hooks, Inner, LOOK, Trouble, lane, letter, millis};
use crate::logging::RequestId;
use crate::media::StreamKey;
use crate::reason::Reason;
use crate::relay::{Event, Origin, Relay};
use crate::store::{EpochChange, EpochRow, LetterRow};

/// Changes that are kept in one commit.
const TOGETHER: usize = 256;

/// An epoch that was told of.
struct Open {
    epoch: u64,
    origin: Origin,
    sequence: String,
    begun: SystemTime,
}

/// How an epoch ended.
struct End {
    at: SystemTime,
    reason: Reason,
    lasted: Duration,
    /// Media payload bytes; `None`: not known any more.
    bytes: Option<u64>,
    /// The call of an API that brought it about, if it was one.
    request: Option<RequestId>,
}

pub(super) struct Scribe {
    hooks: Arc<Inner>,
    open: HashMap<StreamKey, Open>,
    /// What is to be kept, with the number of the fact that it is about.
    changes: Vec<(u64, EpochChange)>,
    /// The latest epoch that was heard of.
    latest: u64,
}

impl Hooks {
    /// Writes letters, until `stop`. The epochs that the run before left open are ended when that is `gone`: at once, or when
    /// the process that we took over from is.
    pub async fn write(self, relay: Relay, stop: CancellationToken, gone: CancellationToken) {
        let mut events = relay.events();
        let mut facts = self.0.journal.reader();
        let mut troubles = self.0.reported();
        let _written = self.0.written.clone().drop_guard();
        let has_webhooks = !self.0.config.webhooks.is_empty();
        let mut scribe = Scribe::new(self.0);
        let mut is_alone = gone.is_cancelled();
        if is_alone {
            scribe.end_leftovers().await;
        }
        scribe.reconcile(&relay);
        loop {
            scribe.collect(&mut facts);
            scribe.keep(&stop).await;
            tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => scribe.note(event),
                    Err(RecvError::Lagged(missed)) => scribe.make_up(missed, &relay),
                    Err(RecvError::Closed) => break,
                },
                Some(trouble) = troubles.recv() => {
                    // What began or ended before it was noticed is first.
                    scribe.hear(&mut events, &relay, usize::MAX);
                    scribe.trouble(&trouble);
                }
                () = facts.wait(), if has_webhooks => {}
                () = gone.cancelled(), if !is_alone => {
                    is_alone = true;
                    scribe.end_leftovers().await;
                }
                () = stop.cancelled() => break,
            }
            scribe.hear(&mut events, &relay, TOGETHER);
        }
        scribe.hear(&mut events, &relay, usize::MAX);
        // Who is still there goes down with the server; what of that is not taken in time the next run sends.
        scribe.end_all(Reason::Shutdown);
        scribe.collect(&mut facts);
        scribe.keep(&stop).await;
    }
}

impl Scribe {
    pub fn new(hooks: Arc<Inner>) -> Self {
        Self {
            hooks,
            open: HashMap::new(),
            changes: Vec::new(),
            latest: 0,
        }
    }

    /// Notes what there is of `events` now, until there are `most` changes. That some were missed is said once, to whoever asks
    /// first.
    fn hear(&mut self, events: &mut Receiver<Event>, relay: &Relay, most: usize) {
        while self.changes.len() < most {
            match events.try_recv() {
                Ok(event) => self.note(event),
                Err(TryRecvError::Lagged(missed)) => self.make_up(missed, relay),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn make_up(&mut self, missed: u64, relay: &Relay) {
        warn!(
            missed,
            "callbacks fell behind; what was missed is made up from what is there"
        );
        self.reconcile(relay);
    }

    pub fn note(&mut self, event: Event) {
        match event {
            Event::Published {
                key,
                epoch,
                origin,
                stamp,
            } => self.begin(key, epoch, origin, stamp.at),
            Event::Unpublished {
                key,
                epoch,
                reason,
                lasted,
                bytes,
                request,
                stamp,
                ..
            } => {
                // An epoch that is known by a later one has been told of.
                let known = self
                    .open
                    .get(&key)
                    .is_some_and(|known| known.epoch == epoch);
                if known && let Some(known) = self.open.remove(&key) {
                    let end = End {
                        at: stamp.at,
                        reason,
                        lasted,
                        bytes: Some(bytes),
                        request,
                    };
                    self.end(&key, &known, &end);
                }
            }
        }
    }

    fn begin(&mut self, key: StreamKey, epoch: u64, origin: Origin, at: SystemTime) {
        // What is there was looked up before its events were heard, or after some were missed. Epochs rise.
        if self
            .open
            .get(&key)
            .is_some_and(|known| known.epoch >= epoch)
        {
            return;
        }
        self.latest = self.latest.max(epoch);
        if let Some(before) = self.open.remove(&key) {
            // Its end was missed.
            self.end(&key, &before, &End::after(&before, at, Reason::Internal));
        }
        let known = Open {
            epoch,
            origin,
            sequence: format!("{}{:06}", millis(at), epoch % 1_000_000),
            begun: at,
        };
        let data = known.data();
        let told = self.hooks.journal.tell(Fact {
            kind: Kind::Publish,
            stream: key.clone(),
            at,
            data: data.clone(),
        });
        let number = told.id.number;
        let row = |account: i64, body: String| EpochRow {
            sequence: known.sequence.clone(),
            account,
            lane: lane(account, &key),
            begun_at: millis(at),
            body,
        };
        // The documents do not say that outputs of mixes are told of.
        for account in self.hooks.accounts(&key).filter(|_| !known.origin.is_mix()) {
            let common = letter::common(
                &key,
                &known.origin,
                account.appid,
                &known.sequence,
                &self.hooks.config.node,
            );
            let row = row(account.number(), common.to_string());
            let letter = written(&row.lane, row.account, letter::start(&common, at));
            let begun = EpochChange::Begun(row, Some(letter));
            self.changes.push((number, begun));
        }
        for hook in &self.hooks.config.webhooks {
            if !hook.wants(Kind::Publish) && !hook.wants(Kind::Unpublish) {
                continue;
            }
            let body = json!({ "stream": key.to_string(), "data": data });
            let row = row(hook.account(), body.to_string());
            let letter = hook
                .wants(Kind::Publish)
                .then(|| written(&row.lane, row.account, told.text.clone()));
            self.changes.push((number, EpochChange::Begun(row, letter)));
        }
        self.open.insert(key, known);
    }

    fn end(&mut self, key: &StreamKey, epoch: &Open, end: &End) {
        let told = self.hooks.journal.tell(Fact {
            kind: Kind::Unpublish,
            stream: key.clone(),
            at: end.at,
            data: end.data(epoch.data()),
        });
        let number = told.id.number;
        let ended = |account: i64, body: Option<String>| EpochChange::Ended {
            sequence: epoch.sequence.clone(),
            account,
            letter: body.map(|body| written(&lane(account, key), account, body)),
        };
        for account in self.hooks.accounts(key).filter(|_| !epoch.origin.is_mix()) {
            let common = letter::common(
                key,
                &epoch.origin,
                account.appid,
                &epoch.sequence,
                &self.hooks.config.node,
            );
            let body = letter::end(&common, end.at, end.lasted, end.reason);
            let ended = ended(account.number(), Some(body));
            self.changes.push((number, ended));
        }
        for hook in &self.hooks.config.webhooks {
            let wants = hook.wants(Kind::Unpublish);
            if wants || hook.wants(Kind::Publish) {
                let ended = ended(hook.account(), wants.then(|| told.text.clone()));
                self.changes.push((number, ended));
            }
        }
    }

    /// Letters about what was wrong with a publisher that is still there.
    fn trouble(&mut self, trouble: &Trouble) {
        let Trouble {
            key,
            epoch,
            report,
            at,
        } = trouble;
        let Some(known) = self.open.get(key).filter(|known| known.epoch == *epoch) else {
            return;
        };
        for account in self.hooks.accounts(key) {
            let common = letter::common(
                key,
                &known.origin,
                account.appid,
                &known.sequence,
                &self.hooks.config.node,
            );
            let body = letter::exception(&common, *at, report);
            let lane = lane(account.number(), key);
            let letter = written(&lane, account.number(), body);
            // Behind all that was told until now.
            let number = self.hooks.journal.latest();
            self.changes.push((number, EpochChange::Told(letter)));
        }
    }

    /// Ends what is still there.
    fn end_all(&mut self, reason: Reason) {
        let now = SystemTime::now();
        for (key, epoch) in std::mem::take(&mut self.open) {
            self.end(&key, &epoch, &End::after(&epoch, now, reason));
        }
    }

    /// The ends of what began in another run and is over without a word.
    async fn end_leftovers(&mut self) {
        let rows = match self.hooks.store.open_epochs().await {
            Ok(rows) => rows,
            Err(error) => {
                warn!(%error, "epochs of the last run cannot be read");
                return;
            }
        };
        let ours: HashSet<&str> = self
            .open
            .values()
            .map(|open| open.sequence.as_str())
            .collect();
        let left = |row: &EpochRow| !ours.contains(row.sequence.as_str());
        let rows: Vec<_> = rows.into_iter().filter(left).collect();
        let now = SystemTime::now();
        // One fact for all who are told of it.
        let mut told: HashMap<String, Arc<Told>> = HashMap::new();
        for row in rows {
            let body: Value = serde_json::from_str(&row.body).unwrap_or_default();
            let lasted = u64::try_from(millis(now).saturating_sub(row.begun_at)).unwrap_or(0);
            let end = End {
                at: now,
                reason: Reason::Internal,
                lasted: Duration::from_millis(lasted),
                bytes: None,
                request: None,
            };
            let (number, text) = if row.account >= 0 {
                (0, Some(letter::end(&body, now, end.lasted, end.reason)))
            } else {
                let event = match (told.get(&row.sequence), key(&body["stream"])) {
                    (Some(event), _) => event.clone(),
                    (None, Some(stream)) => self.hooks.journal.tell(Fact {
                        kind: Kind::Unpublish,
                        stream,
                        at: now,
                        data: end.data(body["data"].clone()),
                    }),
                    (None, None) => continue,
                };
                told.insert(row.sequence.clone(), event.clone());
                let hooks = &self.hooks.config.webhooks;
                let hook = hooks.iter().find(|hook| hook.account() == row.account);
                let wants = hook.is_some_and(|hook| hook.wants(Kind::Unpublish));
                (event.id.number, wants.then(|| event.text.clone()))
            };
            let ended = EpochChange::Ended {
                letter: text.map(|text| written(&row.lane, row.account, text)),
                sequence: row.sequence,
                account: row.account,
            };
            self.changes.push((number, ended));
        }
    }

    /// Makes up what is known with what is there.
    pub fn reconcile(&mut self, relay: &Relay) {
        let mut there = HashMap::new();
        for info in relay.streams() {
            if let Some(publisher) = info.publisher {
                there.insert(info.key, publisher);
            }
        }
        let gone = |key: &StreamKey, known: &Open| {
            let publisher = there.get(key);
            publisher.is_none_or(|publisher| publisher.epoch != known.epoch)
        };
        let gone: Vec<StreamKey> = self
            .open
            .iter()
            .filter(|(key, known)| gone(key, known))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            if let Some(known) = self.open.remove(&key) {
                let now = SystemTime::now();
                self.end(&key, &known, &End::after(&known, now, Reason::Disconnected));
            }
        }
        for (key, publisher) in there {
            self.begin(key, publisher.epoch, publisher.origin, publisher.since);
        }
    }

    /// Letters about what others told.
    fn collect(&mut self, facts: &mut Reader) {
        if self.hooks.config.webhooks.is_empty() {
            return;
        }
        let events = loop {
            match facts.take(usize::MAX) {
                Ok(events) => break events,
                Err(missed) => {
                    warn!(missed, "webhooks fell behind the journal");
                    self.hooks.metrics.hooks_lost(missed);
                }
            }
        };
        for event in events {
            // Those were written with what is kept of their epochs.
            if matches!(event.kind, Kind::Publish | Kind::Unpublish) {
                continue;
            }
            for hook in &self.hooks.config.webhooks {
                if hook.wants(event.kind) {
                    let account = hook.account();
                    let lane = lane(account, &event.stream);
                    let letter = written(&lane, account, event.text.clone());
                    let told = EpochChange::Told(letter);
                    self.changes.push((event.id.number, told));
                }
            }
        }
    }

    /// Keeps what there is, however often that has to be tried. What comes meanwhile waits in the relay's channel and the
    /// journal.
    pub async fn keep(&mut self, stop: &CancellationToken) {
        let mut changes = std::mem::take(&mut self.changes);
        changes.sort_by_key(|(number, _)| *number);
        let changes: Vec<_> = changes.into_iter().map(|(_, change)| change).collect();
        while !changes.is_empty() {
            match self.hooks.store.note_epochs(changes.clone()).await {
                Ok(lost) => {
                    if lost > 0 {
                        warn!(lost, "as many letters wait as may; some were not kept");
                        self.hooks.metrics.hooks_lost(lost as u64);
                    }
                    self.hooks.news.notify_one();
                    break;
                }
                Err(error) => {
                    warn!(%error, "letters could not be kept; trying again");
                    tokio::select! {
                        () = tokio::time::sleep(LOOK) => {}
                        () = stop.cancelled() => return,
                    }
                }
            }
        }
        self.hooks.kept.send_replace(self.latest);
    }

    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }
}

impl Open {
    /// What webhooks and event streams are told of it. Of a query only the names.
    fn data(&self) -> Value {
        let mut data = json!({ "epoch": self.epoch, "sequence": self.sequence });
        let more = match &self.origin {
            Origin::Anchor {
                address,
                connection,
                key_id,
                query,
            } => json!({
                "origin": "anchor", "address": address.ip().to_canonical().to_string(),
                "connection": connection.to_string(),
                "key": key_id, "query": query.to_string(),
            }),
            Origin::Mix { id } => json!({ "origin": "mix", "mix": id }),
        };
        join(&mut data, more);
        data
    }
}

impl End {
    fn after(epoch: &Open, at: SystemTime, reason: Reason) -> Self {
        Self {
            at,
            reason,
            lasted: at.duration_since(epoch.begun).unwrap_or_default(),
            bytes: None,
            request: None,
        }
    }

    /// What is told of it, with what was told of the beginning.
    fn data(&self, mut begun: Value) -> Value {
        let more = json!({
            "reason": self.reason.code(),
            "duration_ms": u64::try_from(self.lasted.as_millis()).unwrap_or(u64::MAX),
            "bytes": self.bytes,
            "request_id": self.request.as_ref().map(RequestId::as_str),
        });
        join(&mut begun, more);
        begun
    }
}

fn join(one: &mut Value, more: Value) {
    if let (Value::Object(one), Value::Object(more)) = (one, more) {
        one.extend(more);
    }
}

fn key(text: &Value) -> Option<StreamKey> {
    let (app, stream) = text.as_str()?.split_once('/')?;
    StreamKey::new(app, stream).ok()
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
        created_at: millis(SystemTime::now()),
        error: String::new(),
    }
}
