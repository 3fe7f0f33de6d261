//! Mixes that are there again after a restart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{AGAIN, Refused, Tag, Turns, When, millis};
use crate::api::{Drawn, Gone, Keep, Made, Mixes, Pending, Wish};
use crate::logging;
use crate::media::StreamKey;
use crate::media::vitals::Spread;
use crate::metrics::MixLoad;
use crate::store::{self, MixRow, Store};

/// How long the start waits for what was kept to be made: all but pictures from slow addresses takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// Mixes with still pictures that are made at once: each may hold a thread for seconds.
const FETCHING: usize = 4;

/// The mixer, and the store that remembers what it was asked for. Cheap to clone.
#[derive(Clone)]
pub struct KeptMixes(Arc<Inner>);

struct Inner {
    mixes: Arc<dyn Mixes>,
    store: Store,
    tasks: TaskTracker,
    turns: Turns,
    table: Mutex<BTreeMap<String, Entry>>,
    /// Since when mixes are without streams, where that is still to be noted; the newest of each.
    company: Mutex<BTreeMap<String, Option<i64>>>,
}

/// What is known of a mix besides the mixer's part.
#[derive(Debug, Clone)]
struct Entry {
    row: MixRow,
    standing: Standing,
}

#[derive(Debug, Clone, PartialEq)]
enum Standing {
    Running,
    /// It is kept, and could not be made at the start, for this reason.
    Absent(String),
    /// It was asked to end and is kept no more.
    Ending,
}

/// What a `PUT` did.
#[derive(Debug, Clone)]
pub struct Change {
    pub made: Made,
    pub mix: Value,
    pub tag: Option<Tag>,
}

impl KeptMixes {
    /// Makes the mixes that were kept. What cannot be made, or is no mix to this version, is logged and stays as it is; it
    /// is tried again once a minute until `stop`, and shown as failed.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn load(
        mixes: Arc<dyn Mixes>,
        store: Store,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, store::Error> {
        let rows = store.mixes().await?;
        let all = Self(Arc::new(Inner {
            mixes,
            store,
            tasks,
            turns: Turns::default(),
            table: Mutex::default(),
            company: Mutex::default(),
        }));
        for row in rows {
            let id = row.id.clone();
            let standing = Standing::Absent("it is being made".to_owned());
            all.0.table().insert(id, Entry { row, standing });
        }
        let (inner, (first, made)) = (all.0.clone(), oneshot::channel());
        all.0.tasks.spawn(async move {
            let mut again = inner.make_absent().await;
            // Nobody may be waiting any more.
            let _ = first.send(());
            while again {
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => again = inner.make_absent().await,
                    () = stop.cancelled() => return,
                }
            }
        });
        if tokio::time::timeout(PATIENCE, made).await.is_err() {
            warn!(
                "some mixes that were kept wait for their pictures; the server does not wait for them"
            );
        }
        Ok(all)
    }

    /// As [`Mixes::put`], under a condition.
    ///
    /// # Errors
    /// When it does not hold, the mixer refuses, or the change cannot be kept: then nothing has changed.
    ///
    /// # Cancel safety
    /// What has begun is done, also when nobody waits for it any more.
    pub async fn put_when(&self, id: &str, scene: &[u8], when: When) -> Result<Change, Refused> {
        let (inner, id) = (self.0.clone(), id.to_owned());
        // What is no text is no JSON either, and was or will be refused as such.
        let scene = String::from_utf8_lossy(scene).into_owned();
        let change =
            self.0.tasks.spawn(logging::carried(
                async move { inner.put(id, scene, when).await },
            ));
        change.await.unwrap_or(Err(Refused::Internal))
    }

    /// As [`Mixes::remove`], under a condition.
    ///
    /// # Errors
    /// As for [`Self::put_when`].
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

    /// What a mix is at; `None` of one that is not kept (any more).
    pub fn tag(&self, id: &str) -> Option<Tag> {
        let table = self.0.table();
        table.get(id).and_then(Entry::kept)
    }

    /// A mix has come to its end: it is not to be made again. `asked`: by us, so that it is kept no more, or by a server
    /// that goes down and is to make it again. Returns at once.
    pub fn ended(&self, id: &str, asked: bool) {
        let (inner, id) = (self.0.clone(), id.to_owned());
        self.0
            .tasks
            .spawn(async move { inner.ended(&id, asked).await });
    }

    /// Mixes may have ended without our hearing of it. Returns at once.
    pub fn look_for_ended(&self) {
        let running = |(id, entry): (&String, &Entry)| {
            (entry.standing == Standing::Running).then(|| id.clone())
        };
        let ids: Vec<_> = self.0.table().iter().filter_map(running).collect();
        for id in ids.iter().filter(|id| self.0.is_gone(id)) {
            self.ended(id, false);
        }
    }

    /// Notes that streams of the mix come now, or that none does. Returns at once; the last call holds.
    pub fn company(&self, id: &str, any: bool) {
        let since = (!any).then(|| millis(SystemTime::now()));
        let (inner, id) = (self.0.clone(), id.to_owned());
        inner.news().insert(id.clone(), since);
        self.0
            .tasks
            .spawn(async move { inner.note_company(&id).await });
    }
}

impl Mixes for KeptMixes {
    fn put<'a>(&'a self, id: &'a str, scene: &'a [u8]) -> Pending<'a, (Made, Value)> {
        Box::pin(async move {
            let change = self.put_when(id, scene, When::ALWAYS).await?;
            Ok((change.made, change.mix))
        })
    }

    fn preview<'a>(&'a self, scene: &'a [u8], wish: Wish) -> Pending<'a, Drawn> {
        self.0.mixes.preview(scene, wish)
    }

    fn get(&self, id: &str) -> Option<Value> {
        let table = self.0.table();
        let entry = table.get(id);
        match (self.0.mixes.get(id), entry) {
            (Some(mix), entry) => Some(shown(mix, entry)),
            (None, entry) => entry.and_then(|entry| entry.shown_absent(id)),
        }
    }

    fn list(&self) -> Vec<Value> {
        let table = self.0.table();
        let id = |mix: &Value| mix["id"].as_str().unwrap_or_default().to_owned();
        let mut all = self.0.mixes.list();
        for mix in &mut all {
            let entry = table.get(&id(mix));
            *mix = shown(mix.take(), entry);
        }
        all.extend(
            table
                .iter()
                .filter_map(|(id, entry)| entry.shown_absent(id)),
        );
        all.sort_by_cached_key(id);
        all
    }

    fn stages(&self, id: &str) -> Vec<(&'static str, Spread)> {
        self.0.mixes.stages(id)
    }

    fn decoders(&self) -> [(&'static str, usize); 2] {
        self.0.mixes.decoders()
    }

    fn load(&self) -> MixLoad {
        self.0.mixes.load()
    }

    fn picture_size(&self, stream: &StreamKey) -> Option<(u32, u32)> {
        self.0.mixes.picture_size(stream)
    }

    fn gone(&self) -> Gone<'_> {
        self.0.mixes.gone()
    }

    fn remove<'a>(&'a self, id: &'a str) -> Pending<'a, Value> {
        Box::pin(async move { Ok(self.remove_when(id, When::ALWAYS).await?) })
    }
}

impl Inner {
    async fn put(&self, id: String, scene: String, when: When) -> Result<Change, Refused> {
        let _turn = self.turns.take(&id).await;
        let old = self.table().get(&id).cloned();
        let known = old.as_ref().and_then(Entry::kept);
        when.check(known, known.is_some() || self.mixes.get(&id).is_some())?;
        let now = millis(SystemTime::now());
        let row = MixRow {
            id: id.clone(),
            scene,
            revision: known.map_or(1, |tag| tag.revision + 1),
            created_at: known.map_or(now, |tag| tag.created_at),
            idle_since: Some(now),
        };
        // Whether it was written, once that was tried.
        let written: Arc<Mutex<Option<bool>>> = Arc::default();
        let (store, new, note) = (self.store.clone(), row.clone(), written.clone());
        let keep: Keep<'_> = Box::new(move |made| {
            Box::pin(async move {
                if made == Made::Unchanged && known.is_some() {
                    return Ok(());
                }
                let kept = store.put_mix(new).await;
                *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept.is_ok());
                Ok(kept.map_err(Refused::from)?)
            })
        });
        let put = self.mixes.put_kept(&id, row.scene.as_bytes(), keep).await;
        let written = *written.lock().unwrap_or_else(PoisonError::into_inner);
        match put {
            Ok((made, mix)) => {
                if made == Made::Created && known.is_some() {
                    // Kept until now, and not there.
                    self.note_idle(&id, Some(now)).await;
                }
                if written == Some(true) {
                    let standing = Standing::Running;
                    self.table().insert(id.clone(), Entry { row, standing });
                }
                let table = self.table();
                let entry = table.get(&id);
                Ok(Change {
                    made,
                    mix: shown(mix, entry),
                    tag: entry.and_then(Entry::kept),
                })
            }
            Err(error) => match written {
                Some(true) => {
                    let before = old.filter(|_| known.is_some());
                    self.take_back(id.clone(), before).await;
                    Err(error.into())
                }
                Some(false) => Err(Refused::NotKept),
                None => Err(error.into()),
            },
        }
    }

    /// The mixer could not do what was written: something came in between.
    async fn take_back(&self, id: String, before: Option<Entry>) {
        let taken = match before {
            Some(entry) => self.store.put_mix(entry.row).await,
            None => self.store.delete_mix(id.clone()).await,
        };
        if let Err(error) = taken {
            warn!(mix = id, %error, "a change that was not made is kept all the same, and will be tried after a restart");
        }
    }

    async fn remove(&self, id: String, when: When) -> Result<Value, Refused> {
        let _turn = self.turns.take(&id).await;
        let old = self.table().get(&id).cloned();
        let known = old.as_ref().and_then(Entry::kept);
        when.check(known, known.is_some() || self.mixes.get(&id).is_some())?;
        if known.is_some() {
            self.store.delete_mix(id.clone()).await?;
        }
        let removed = self.mixes.remove(&id).await;
        let mut table = self.table();
        match (removed, old) {
            (Ok(mix), Some(mut entry)) => {
                entry.standing = Standing::Ending;
                let mix = shown(mix, Some(&entry));
                table.insert(id, entry);
                Ok(mix)
            }
            (Ok(mix), None) => Ok(mix),
            (Err(error), entry) => {
                // Nothing of it runs, so nothing of it is left.
                table.remove(&id);
                let absent = entry.and_then(|entry| entry.shown_absent(&id));
                absent.map(ended_value).ok_or_else(|| error.into())
            }
        }
    }

    async fn ended(&self, id: &str, asked: bool) {
        let _turn = self.turns.take(id).await;
        let standing = self.table().get(id).map(|entry| entry.standing.clone());
        // A mix of this id that was made since stays.
        match standing {
            Some(Standing::Ending) => drop(self.table().remove(id)),
            Some(Standing::Running) if !asked && self.is_gone(id) => {
                if let Err(error) = self.store.delete_mix(id.to_owned()).await {
                    warn!(mix = id, %error, "a mix that has ended is kept still, and will be made after a restart");
                }
                self.table().remove(id);
            }
            _ => {}
        }
    }

    /// Tasks run in any order, so each notes the newest there is.
    async fn note_company(&self, id: &str) {
        let _turn = self.turns.take(id).await;
        let newest = self.news().remove(id);
        if let Some(since) = newest {
            self.note_idle(id, since).await;
        }
    }

    async fn note_idle(&self, id: &str, since: Option<i64>) {
        if let Err(error) = self.store.note_idle_mix(id.to_owned(), since).await {
            warn!(mix = id, %error, "since when a mix is without its streams could not be kept");
        }
    }

    fn is_gone(&self, id: &str) -> bool {
        self.mixes
            .get(id)
            .is_none_or(|mix| mix["state"] == "ending")
    }

    /// Makes what is kept and not there. Are there any that could not be made?
    async fn make_absent(&self) -> bool {
        let absent = |(id, entry): (&String, &Entry)| {
            let kept = || (id.clone(), entry.row.scene.clone());
            matches!(entry.standing, Standing::Absent(_)).then(kept)
        };
        let all: Vec<_> = self.table().iter().filter_map(absent).collect();
        let places = Semaphore::new(FETCHING);
        let makings = all.iter().map(async |(id, scene)| {
            // Each is tried each time, however long those before it take, and nobody else's request waits for them.
            let _place = match self.mixes.gets_pictures(id, scene.as_bytes()) {
                true => places.acquire().await.ok(),
                false => None,
            };
            self.make(id).await
        });
        let made = futures_util::future::join_all(makings).await;
        made.contains(&false)
    }

    /// Makes one of them; `false`: it could not be made.
    async fn make(&self, id: &str) -> bool {
        let _turn = self.turns.take(id).await;
        let entry = self.table().get(id).cloned();
        let Some(Entry {
            row,
            standing: Standing::Absent(why),
        }) = entry
        else {
            // Put or deleted meanwhile.
            return true;
        };
        let now = millis(SystemTime::now());
        let idle = row.idle_since.map_or(0, |since| now.saturating_sub(since));
        let idle = Duration::from_millis(u64::try_from(idle).unwrap_or(0));
        let made = self.mixes.restore(id, row.scene.as_bytes(), idle).await;
        let standing = match made {
            Ok(_) => {
                info!(
                    mix = id,
                    revision = row.revision,
                    ?idle,
                    "mix is there again"
                );
                if row.idle_since.is_none() {
                    // None of its streams can be here yet.
                    self.note_idle(id, Some(now)).await;
                }
                Standing::Running
            }
            Err(error) => {
                let error = error.to_string();
                if error != why {
                    warn!(mix = id, error, "a mix that was kept cannot be made");
                }
                Standing::Absent(error)
            }
        };
        let made = standing == Standing::Running;
        self.table().insert(id.to_owned(), Entry { row, standing });
        made
    }

    fn news(&self) -> MutexGuard<'_, BTreeMap<String, Option<i64>>> {
        // As the table.
        self.company.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// What it is at, as long as it is kept.
    fn kept(&self) -> Option<Tag> {
        (self.standing != Standing::Ending).then(|| self.tag())
    }

    /// What the API tells of a mix that is kept and not there.
    fn shown_absent(&self, id: &str) -> Option<Value> {
        let Standing::Absent(why) = &self.standing else {
            return None;
        };
        let scene: Value = serde_json::from_str(&self.row.scene).unwrap_or(Value::Null);
        Some(json!({
            "id": id,
            "revision": self.row.revision,
            "state": "failed",
            "app": scene["app"].as_str(),
            "inputs": [],
            // It holds no name.
            "output": {"stream": null},
            "error": format!("kept from before the server's start, and cannot be made: {why}"),
            "scene": scene,
        }))
    }
}

/// A mix that was kept, not there, and is forgotten.
fn ended_value(mut absent: Value) -> Value {
    absent["state"] = "ending".into();
    absent
}

/// A mix with its revision: the mixer counts from the start of the process.
fn shown(mut mix: Value, entry: Option<&Entry>) -> Value {
    if let (Some(object), Some(entry)) = (mix.as_object_mut(), entry) {
        object.insert("revision".into(), entry.row.revision.into());
    }
    mix
}
