//! Pushes that are there again after a restart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{Refused, Tag, Turns, When, millis};
use crate::api::body;
use crate::logging;
use crate::push::{Pushes, Put, Spec, Status};
use crate::store::{self, PushRow, Store};

/// The targets, and the store that remembers those that the API made. Cheap to clone.
#[derive(Clone)]
pub struct KeptPushes(Arc<Inner>);

struct Inner {
    pushes: Pushes,
    store: Store,
    tasks: TaskTracker,
    turns: Turns,
    table: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Debug, Clone)]
struct Entry {
    row: PushRow,
    /// Why it could not be made at the start; `None`: it was.
    why: Option<String>,
}

/// What a `PUT` did.
#[derive(Debug, Clone)]
pub struct Change {
    pub put: Put,
    pub push: Value,
    pub tag: Option<Tag>,
}

impl KeptPushes {
    /// Makes the pushes that were kept. What cannot be made, or is no push to this version, is logged, stays as it is, and
    /// is shown with the state `failed`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn load(
        pushes: Pushes,
        store: Store,
        tasks: TaskTracker,
    ) -> Result<Self, store::Error> {
        let mut table = BTreeMap::new();
        for row in store.pushes().await? {
            let made = match body::parse::<Spec>(row.spec.as_bytes()) {
                Ok(spec) => pushes
                    .put(&row.id, spec)
                    .map(drop)
                    .map_err(|e| e.to_string()),
                Err(error) => Err(error.message),
            };
            if let Err(error) = &made {
                warn!(push = row.id, error, "a push that was kept cannot be made");
            }
            let why = made.err();
            table.insert(row.id.clone(), Entry { row, why });
        }
        if !table.is_empty() {
            info!(pushes = table.len(), "pushes were kept");
        }
        Ok(Self(Arc::new(Inner {
            pushes,
            store,
            tasks,
            turns: Turns::default(),
            table: Mutex::new(table),
        })))
    }

    /// The targets themselves.
    pub fn handle(&self) -> &Pushes {
        &self.0.pushes
    }

    /// Makes or changes a target from a request's JSON, under a condition.
    ///
    /// # Errors
    /// When the request is wrong, the condition does not hold, the target is refused, or it cannot be kept: then nothing
    /// has changed.
    ///
    /// # Cancel safety
    /// What has begun is done, also when nobody waits for it any more.
    pub async fn put_when(&self, id: &str, spec: &[u8], when: When) -> Result<Change, Refused> {
        let (inner, id) = (self.0.clone(), id.to_owned());
        let spec = String::from_utf8_lossy(spec).into_owned();
        let change =
            self.0.tasks.spawn(logging::carried(
                async move { inner.put(id, spec, when).await },
            ));
        change.await.unwrap_or(Err(Refused::Internal))
    }

    /// Ends a target, under a condition, and shows its last numbers.
    ///
    /// # Errors
    /// As for [`Self::put_when`], and when there is none, or it is a rule's.
    ///
    /// # Cancel safety
    /// As for [`Self::put_when`].
    pub async fn remove_when(&self, id: &str, when: When) -> Result<Value, Refused> {
        let (inner, id) = (self.0.clone(), id.to_owned());
        let change = self.0.tasks.spawn(logging::carried(
            async move { inner.remove(id, when).await },
        ));
        change.await.unwrap_or(Err(Refused::Internal))
    }

    /// What a push is at; `None` of one that the API did not make.
    pub fn tag(&self, id: &str) -> Option<Tag> {
        self.0.table().get(id).map(Entry::tag)
    }

    /// One target; `None` when there is none.
    pub fn get(&self, id: &str) -> Option<Value> {
        let table = self.0.table();
        let entry = table.get(id);
        match self.0.pushes.get(id) {
            Some(status) => Some(shown(&status, entry)),
            None => entry.and_then(|entry| entry.shown_absent(id)),
        }
    }

    /// All targets by id.
    pub fn list(&self) -> Vec<Value> {
        let table = self.0.table();
        let there = self.0.pushes.list();
        let mut all: Vec<_> = there
            .iter()
            .map(|status| shown(status, table.get(&status.id)))
            .collect();
        all.extend(
            table
                .iter()
                .filter_map(|(id, entry)| entry.shown_absent(id)),
        );
        all.sort_by_cached_key(|push| push["id"].as_str().unwrap_or_default().to_owned());
        all
    }
}

impl Inner {
    async fn put(&self, id: String, spec: String, when: When) -> Result<Change, Refused> {
        let _turn = self.turns.take(&id).await;
        let old = self.table().get(&id).cloned();
        let known = old.as_ref().map(Entry::tag);
        when.check(known, known.is_some() || self.pushes.get(&id).is_some())?;
        let read = || body::parse::<Spec>(spec.as_bytes());
        let (first, second) = match (read(), read()) {
            (Ok(first), Ok(second)) => (first, second),
            (Err(error), _) | (_, Err(error)) => return Err(Refused::Body(error)),
        };
        let will = self.pushes.check(&id, first)?;
        let now = millis(SystemTime::now());
        let row = PushRow {
            id: id.clone(),
            spec,
            revision: known.map_or(1, |tag| tag.revision + 1),
            created_at: known.map_or(now, |tag| tag.created_at),
        };
        let keep = will != Put::Unchanged || known.is_none();
        if keep {
            self.store.put_push(row.clone()).await?;
        }
        match self.pushes.put(&id, second) {
            Ok((put, status)) => {
                if keep {
                    self.table().insert(id.clone(), Entry { row, why: None });
                }
                let table = self.table();
                let entry = table.get(&id);
                Ok(Change {
                    put,
                    push: shown(&status, entry),
                    tag: entry.map(Entry::tag),
                })
            }
            Err(error) => {
                if keep {
                    self.take_back(id, old).await;
                }
                Err(error.into())
            }
        }
    }

    /// The target could not be made as it was written: something came in between.
    async fn take_back(&self, id: String, before: Option<Entry>) {
        let taken = match before {
            Some(entry) => self.store.put_push(entry.row).await,
            None => self.store.delete_push(id.clone()).await,
        };
        if let Err(error) = taken {
            warn!(push = id, %error, "a change that was not made is kept all the same, and will be tried after a restart");
        }
    }

    async fn remove(&self, id: String, when: When) -> Result<Value, Refused> {
        let _turn = self.turns.take(&id).await;
        let old = self.table().get(&id).cloned();
        let known = old.as_ref().map(Entry::tag);
        when.check(known, known.is_some() || self.pushes.get(&id).is_some())?;
        if known.is_some() {
            self.store.delete_push(id.clone()).await?;
            self.table().remove(&id);
        }
        match self.pushes.remove(&id).await {
            Ok(status) => Ok(shown(&status, old.as_ref())),
            Err(error) => {
                let absent = old.and_then(|entry| entry.shown_absent(&id));
                let ended = |mut push: Value| {
                    push["state"] = "ended".into();
                    push
                };
                absent.map(ended).ok_or_else(|| error.into())
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Complete after every statement, so readable after a panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn tag(&self) -> Tag {
        Tag {
            revision: self.row.revision,
            created_at: self.row.created_at,
        }
    }

    /// What the API tells of a push that is kept and not there. Nothing of its URL: what is in it is a secret, and cannot be
    /// told apart where it makes no sense.
    fn shown_absent(&self, id: &str) -> Option<Value> {
        let why = self.why.as_ref()?;
        Some(json!({
            "id": id,
            "revision": self.row.revision,
            "origin": "api",
            "state": "failed",
            "last_error": format!("kept from before the server's start, and cannot be made: {why}"),
        }))
    }
}

/// A target with its revision; null for one that a rule made.
fn shown(status: &Status, entry: Option<&Entry>) -> Value {
    let mut push = serde_json::to_value(status).unwrap_or_default();
    push["revision"] = entry.map(|entry| entry.row.revision).into();
    push
}
