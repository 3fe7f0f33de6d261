//! The targets by id, and the handle through which everybody else reaches them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, broadcast};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::event::Event;
use super::group::{Group, Groups, Seat};
use super::rules::{self, Rule};
use super::status::{Counts, Record, State, Status};
use super::target::{SignWith, Spec, Target, invalid};
use super::task::Task;
use super::{Config, Error, Signer};
use crate::relay::Relay;

/// Longest id in bytes, as for stream names.
const MAX_ID_BYTES: usize = 128;

/// Events kept for whoever listens and is slow.
const MAX_EVENTS: usize = 1_024;

/// What a [`Pushes::put`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    Created,
    /// The target is another one now: its old connection is closed before the new one is opened.
    Changed,
    /// The same as before; nothing was touched.
    Unchanged,
}

/// Numbers of all targets together, for metrics. Counters include targets that are gone.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Every state, in the order of [`State::ALL`].
    pub by_state: [(&'static str, usize); State::ALL.len()],
    /// The longest time without progress among targets that have media to send.
    pub stalled: Duration,
    pub connects: u64,
    pub failures: u64,
    /// Times that a backup took over.
    pub takeovers: u64,
    /// Bytes that targets' TCP acknowledged, framing included.
    pub bytes: u64,
    pub messages: u64,
    pub dropped: u64,
    /// Times that a target had to continue at a later key frame.
    pub skips: u64,
    /// The greatest lag among targets that publish, in media time.
    pub lag: Duration,
}

/// Handle on all targets. Cheap to clone; when the last one is dropped, all targets end.
#[derive(Clone)]
pub struct Pushes {
    shared: Arc<Shared>,
}

struct Shared {
    relay: Relay,
    config: Arc<Config>,
    signer: Arc<dyn Signer>,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Targets are to end at the next place where somebody else can go on.
    leave: CancellationToken,
    _stop_on_drop: DropGuard,
    rule_ended: Arc<Notify>,
    events: broadcast::Sender<Event>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<String, Entry>,
    groups: Groups,
    /// Counts of targets that ended.
    gone: Counts,
}

struct Entry {
    target: Target,
    origin: Origin,
    record: Arc<Record>,
    stop: CancellationToken,
    /// Cancelled when the task is over.
    done: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Api,
    Rule,
}

impl Origin {
    const fn as_str(self) -> &'static str {
        match self {
            Origin::Api => "api",
            Origin::Rule => "rule",
        }
    }
}

impl Pushes {
    /// No targets yet. Needs a tokio runtime when targets are put.
    pub fn new(relay: Relay, config: Config, signer: Arc<dyn Signer>) -> Self {
        let stop = CancellationToken::new();
        Self {
            shared: Arc::new(Shared {
                relay,
                config: Arc::new(config),
                signer,
                tracker: TaskTracker::new(),
                _stop_on_drop: stop.clone().drop_guard(),
                stop,
                leave: CancellationToken::new(),
                rule_ended: Arc::default(),
                events: broadcast::Sender::new(MAX_EVENTS),
                table: Mutex::default(),
            }),
        }
    }

    /// Follows these rules from now on. To be called once, with a runtime running.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a rule names a key that is not known.
    pub fn follow(&self, rules: Vec<Rule>) -> Result<(), Error> {
        for rule in &rules {
            if let Some(id) = rule.key_id() {
                self.check_key(id)?;
            }
        }
        if rules.is_empty() {
            return Ok(());
        }
        let shared = &self.shared;
        // The task holds a handle: rules live until the shutdown, not until the last other handle is gone.
        let following = rules::follow(shared.relay.clone(), rules, self.clone());
        shared.tracker.spawn(following);
        Ok(())
    }

    /// Makes or changes a target. The same target twice is left alone.
    ///
    /// # Errors
    /// When the description is wrong, there are too many targets, the id is a rule's, or the server is going down.
    pub fn put(&self, id: &str, spec: Spec) -> Result<(Put, Status), Error> {
        check_id(id)?;
        let target = self.parse(spec)?;
        self.put_target(id, target, Origin::Api)
    }

    /// What [`Self::put`] of this would do, without doing it.
    ///
    /// # Errors
    /// As for [`Self::put`].
    pub fn check(&self, id: &str, spec: Spec) -> Result<Put, Error> {
        check_id(id)?;
        let target = self.parse(spec)?;
        let table = self.shared.lock();
        self.judge(&table, id, &target)
    }

    /// One target; `None` when the id is not known.
    pub fn get(&self, id: &str) -> Option<Status> {
        let table = self.shared.lock();
        let entry = table.entries.get(id)?;
        Some(entry.status(id, Instant::now()))
    }

    /// All targets, by id.
    pub fn list(&self) -> Vec<Status> {
        let now = Instant::now();
        let table = self.shared.lock();
        let statuses = table.entries.iter();
        statuses.map(|(id, entry)| entry.status(id, now)).collect()
    }

    /// Ends a target properly and returns its last numbers. Takes as long as the goodbye, at most about 2 s.
    ///
    /// # Errors
    /// When the id is not known, or is a rule's.
    ///
    /// # Cancel safety
    /// The target ends even when nobody waits for it.
    pub async fn remove(&self, id: &str) -> Result<Status, Error> {
        let (target, record, done) = {
            let table = self.shared.lock();
            let entry = table
                .entries
                .get(id)
                .ok_or_else(|| Error::NotFound(id.to_owned()))?;
            if entry.origin == Origin::Rule {
                return Err(Error::MadeByRule(id.to_owned()));
            }
            entry.record.removed();
            entry.stop.cancel();
            (
                entry.target.clone(),
                entry.record.clone(),
                entry.done.clone(),
            )
        };
        done.cancelled().await;
        let numbers = record.numbers();
        Ok(numbers.status(id, &target, Origin::Api.as_str(), Instant::now()))
    }

    /// Streams that end from now on are not waited for: their targets are let go within a second.
    pub fn hurry(&self) {
        self.shared.config.hurried.store(true, Ordering::Relaxed);
    }

    /// Ends all targets, each in front of a key frame of its feed, so that what it was sent is whole. Returns when all have
    /// ended, or after `within`; [`Self::shutdown`] ends the others where they are.
    pub async fn wind_down(&self, within: Duration) {
        let targets: Vec<_> = {
            let table = self.shared.lock();
            self.shared.leave.cancel();
            table
                .entries
                .values()
                .map(|entry| entry.done.clone())
                .collect()
        };
        let all = async {
            for target in targets {
                target.cancelled().await;
            }
        };
        let _ = tokio::time::timeout(within, all).await;
    }

    /// Ends all targets and waits for their goodbyes, at most about 2 s. Nothing can be put afterwards.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
    }

    /// What happens to targets from now on, of all of them. Who is slow to listen loses the oldest, and is told so.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// All targets in numbers.
    pub fn metrics(&self) -> Snapshot {
        let now = Instant::now();
        let table = self.shared.lock();
        let mut by_state = State::ALL.map(|state| (state.as_str(), 0));
        let (mut stalled, mut lag) = (Duration::ZERO, Duration::ZERO);
        let mut counts = table.gone;
        for entry in table.entries.values() {
            let numbers = entry.record.numbers();
            by_state[numbers.state as usize].1 += 1;
            stalled = stalled.max(numbers.stalled(now));
            lag = lag.max(numbers.waiting.lag);
            counts.add(numbers.counts);
        }
        Snapshot {
            by_state,
            stalled,
            connects: counts.connects,
            failures: counts.failures,
            takeovers: counts.takeovers,
            bytes: counts.bytes,
            messages: counts.messages,
            dropped: counts.dropped,
            skips: counts.skips,
            lag,
        }
    }

    /// A rule's target: made when it is not there yet.
    pub(super) fn put_by_rule(&self, rule: usize, target: Target) -> Result<(), Error> {
        // Ids of the API have no colon, names of streams neither.
        let id = format!("rule:{rule}:{}:{}", target.key.app(), target.key.stream());
        self.put_target(&id, target, Origin::Rule).map(drop)
    }

    /// Resolves when the server is going down.
    pub(super) async fn stopped(&self) {
        self.shared.stop.cancelled().await;
    }

    /// Resolves when a rule's target has ended since the last call.
    pub(super) async fn rule_ended(&self) {
        self.shared.rule_ended.notified().await;
    }

    fn put_target(&self, id: &str, target: Target, origin: Origin) -> Result<(Put, Status), Error> {
        let shared = &self.shared;
        let now = Instant::now();
        let mut table = shared.lock();
        let put = self.judge(&table, id, &target)?;
        let old = table.entries.get(id);
        if put == Put::Unchanged
            && let Some(entry) = old
        {
            return Ok((put, entry.status(id, now)));
        }
        let before = old.map(|entry| {
            entry.stop.cancel();
            entry.done.clone()
        });
        let config = &shared.config;
        let group = target.group.as_ref().map(|group| {
            let (failover, steady) = (config.failover, config.steady);
            let groups = &mut table.groups;
            groups.find(&target.key, &group.name, failover, steady)
        });
        let entry = shared.spawn(id, target, origin, group, before);
        let status = entry.status(id, now);
        table.entries.insert(id.to_owned(), entry);
        Ok((put, status))
    }

    /// What putting the target does to the table.
    fn judge(&self, table: &Table, id: &str, target: &Target) -> Result<Put, Error> {
        if self.shared.stop.is_cancelled() || self.shared.leave.is_cancelled() {
            return Err(Error::Closed);
        }
        let limit = self.shared.config.max_targets;
        match table.entries.get(id) {
            Some(entry) if entry.target == *target && !entry.stop.is_cancelled() => {
                Ok(Put::Unchanged)
            }
            Some(_) => Ok(Put::Changed),
            None if table.entries.len() >= limit => Err(Error::Full { limit }),
            None => Ok(Put::Created),
        }
    }

    fn parse(&self, spec: Spec) -> Result<Target, Error> {
        let target = Target::parse(spec)?;
        if let Some(SignWith::Key(key)) = target.sign.as_ref().map(|sign| &sign.with) {
            self.check_key(key)?;
        }
        Ok(target)
    }

    fn check_key(&self, id: &str) -> Result<(), Error> {
        let tried = self.shared.signer.sign(id, "x", Duration::from_secs(1));
        tried.map(drop).map_err(|e| invalid("sign.key", e))
    }
}

impl std::fmt::Debug for Pushes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pushes").finish_non_exhaustive()
    }
}

impl Shared {
    /// Starts a target's task, which begins when `before` (the task of the target that it replaces) is over.
    fn spawn(
        self: &Arc<Self>,
        id: &str,
        target: Target,
        origin: Origin,
        group: Option<Arc<Group>>,
        before: Option<CancellationToken>,
    ) -> Entry {
        let record = Arc::new(Record::new(id, &target.key, self.events.clone()));
        let stop = self.stop.child_token();
        let done = CancellationToken::new();
        let task = Task {
            id: id.to_owned(),
            target: target.clone(),
            relay: self.relay.clone(),
            config: self.config.clone(),
            signer: self.signer.clone(),
            record: record.clone(),
            stop: stop.clone(),
            leave: self.leave.clone(),
            one_run: origin == Origin::Rule,
        };
        let over = done.clone().drop_guard();
        // Weak: tasks must not keep alive what ends them when it is dropped.
        let shared = Arc::downgrade(self);
        self.tracker.spawn(async move {
            if let Some(before) = before {
                before.cancelled().await;
            }
            let (id, record) = (task.id.clone(), task.record.clone());
            // Not before: the one it replaces leaves its place under the same id.
            let seat = Seat::take(&id, task.target.role(), group);
            task.run(seat).await;
            if let Some(shared) = Weak::upgrade(&shared) {
                shared.ended(&id, &record, origin);
            }
            drop(over);
        });
        Entry {
            target,
            origin,
            record,
            stop,
            done,
        }
    }

    /// A task is over: its entry goes, unless another target has taken the id.
    fn ended(&self, id: &str, record: &Arc<Record>, origin: Origin) {
        let mut table = self.lock();
        table.gone.add(record.numbers().counts);
        if let Some(entry) = table.entries.get(id)
            && Arc::ptr_eq(&entry.record, record)
        {
            table.entries.remove(id);
        }
        if origin == Origin::Rule {
            self.rule_ended.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The table is valid after every statement.
        self.table.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Entry {
    fn status(&self, id: &str, now: Instant) -> Status {
        self.record
            .numbers()
            .status(id, &self.target, self.origin.as_str(), now)
    }
}

fn check_id(id: &str) -> Result<(), Error> {
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return Err(invalid(
            "id",
            format!("of {} bytes is outside 1 to {MAX_ID_BYTES}", id.len()),
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match id.chars().find(|&c| !allowed(c)) {
        Some(c) => Err(invalid(
            "id",
            format!("has the character {c:?}; allowed are A-Z a-z 0-9 _ . -"),
        )),
        None => Ok(()),
    }
}
