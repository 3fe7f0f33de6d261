//! The links that there are: each change judged, written, told and followed by its mix.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::event::Event;
use super::link::{Link, State, Wish};
use super::machine::{self, Input, Refused};
use super::scene;
use crate::api::{MixError, Mixes};
use crate::logging;
use crate::media::StreamKey;
use crate::relay::Relay;
use crate::store::{self, LinkRow, Store};

/// Most links, ended ones among them. Each costs some KB.
const MAX_LINKS: usize = 1_000;
/// How long an ended link can be asked for.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// How often limits are looked at, and what could not be done is tried again.
const LOOK: Duration = Duration::from_secs(1);
/// Events kept for whoever listens and is slow.
const MAX_EVENTS: usize = 1_024;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no link has the id {0:?}")]
    NotFound(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Conflict(String),
    #[error("there are {MAX_LINKS} links; end some")]
    Full,
    #[error("the change could not be written to state.dir, and does not hold; the log says why")]
    NotKept,
    #[error("the change failed half way")]
    Internal,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid(message) => Error::Invalid(message),
            Refused::Conflict(message) => Error::Conflict(message),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        warn!(%error, "a change of a link could not be kept");
        Error::NotKept
    }
}

/// Handle on all links. Cheap to clone.
#[derive(Clone)]
pub struct Links(Arc<Inner>);

struct Inner {
    relay: Relay,
    /// `None`: built without the mixer; links live without a mix then.
    mixes: Option<Arc<dyn Mixes>>,
    store: Store,
    tasks: TaskTracker,
    table: Mutex<BTreeMap<String, Entry>>,
    /// Changes come one after the other, so that memory, disk and listeners see them in one order.
    changing: tokio::sync::Mutex<()>,
    /// Something has changed that the mixes are to follow.
    news: Notify,
    events: broadcast::Sender<Event>,
}

#[derive(Debug, Clone)]
struct Entry {
    link: Link,
    /// The disk has an older one.
    unwritten: bool,
    /// The scene that its mix was last made to show, and the mix's revision then.
    shown: Option<(Value, Value)>,
    /// Why its mix is not as it should be.
    trouble: Option<String>,
}

/// A link, and what its mix says.
#[derive(Debug, Clone)]
pub struct Seat {
    pub link: Link,
    /// The mixer's own description; `None` while there is no mix.
    pub mix: Option<Value>,
    pub trouble: Option<String>,
}

impl Links {
    /// Brings the links that were kept back, and follows them until `stop`. A row that is no link to this version is logged,
    /// and stays on the disk.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn load(
        relay: Relay,
        mixes: Option<Arc<dyn Mixes>>,
        store: Store,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, store::Error> {
        let mut table = BTreeMap::new();
        for row in store.links().await? {
            match serde_json::from_str::<Link>(&row.body) {
                Ok(link) if link.id == row.id => {
                    if !link.is_over() {
                        info!(
                            link = link.id,
                            state = link.state.as_str(),
                            "link is there again"
                        );
                    }
                    table.insert(row.id, Entry::new(link));
                }
                Ok(_) => warn!(link = row.id, "a link that was kept has another id within"),
                Err(error) => {
                    warn!(link = row.id, %error, "a link that was kept makes no sense to this version");
                }
            }
        }
        let links = Self(Arc::new(Inner {
            relay,
            mixes,
            store,
            tasks: tasks.clone(),
            table: Mutex::new(table),
            changing: tokio::sync::Mutex::default(),
            news: Notify::new(),
            events: broadcast::Sender::new(MAX_EVENTS),
        }));
        let following = links.0.clone();
        tasks.spawn(async move { following.follow(stop).await });
        Ok(links)
    }

    /// What becomes of links from now on, of all of them. Who is slow to listen loses the oldest, and is told so.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// Makes a link. The same wish under the same id gives the one that is there; `true`: it is new.
    ///
    /// # Errors
    /// When the id is another link's, the main is in another link, there are too many, or it cannot be kept.
    ///
    /// # Cancel safety
    /// What has begun is done, also when nobody waits for it any more.
    pub async fn request(&self, id: String, wish: Wish) -> Result<(Seat, bool), Error> {
        let inner = self.0.clone();
        let made = self.0.tasks.spawn(logging::carried(
            async move { inner.request(id, wish).await },
        ));
        made.await.unwrap_or(Err(Error::Internal))
    }

    /// Does what somebody wants of a link.
    ///
    /// # Errors
    /// When there is no such link, it does not stand where this can be, or the change cannot be kept.
    ///
    /// # Cancel safety
    /// As [`Self::request`].
    pub async fn act(&self, id: &str, input: Input) -> Result<Seat, Error> {
        let (inner, id) = (self.0.clone(), id.to_owned());
        let done = self.0.tasks.spawn(logging::carried(
            async move { inner.act(&id, &input).await },
        ));
        done.await.unwrap_or(Err(Error::Internal))
    }

    /// One link; `None` when there is none of that id.
    pub fn get(&self, id: &str) -> Option<Seat> {
        let entry = self.0.table().get(id).cloned();
        entry.map(|entry| self.0.seat(entry))
    }

    /// All links by id, those that ended within the hour among them.
    pub fn list(&self) -> Vec<Seat> {
        let entries: Vec<_> = self.0.table().values().cloned().collect();
        let seats = entries.into_iter().map(|entry| self.0.seat(entry));
        seats.collect()
    }

    /// Whether somebody publishes a stream of the link's application now.
    pub fn publishes(&self, link: &Link, stream: &str) -> bool {
        self.0.publishes(link, stream)
    }
}

impl Inner {
    async fn request(&self, id: String, wish: Wish) -> Result<(Seat, bool), Error> {
        let _one_at_a_time = self.changing.lock().await;
        let there = self.table().get(&id).cloned();
        if let Some(entry) = there {
            if entry.link.wish == wish {
                return Ok((self.seat(entry), false));
            }
            return Err(Error::Conflict(format!(
                "id: {id:?} is another link's, which asked for something else"
            )));
        }
        {
            let table = self.table();
            let open = || table.values().filter(|entry| !entry.link.is_over());
            let same = |entry: &&Entry| {
                let other = &entry.link.wish;
                (&other.app, &other.main) == (&wish.app, &wish.main)
            };
            if let Some(entry) = open().find(same) {
                return Err(Error::Conflict(format!(
                    "main: {:?} is the main of link {:?}; invite the sub there",
                    wish.main, entry.link.id
                )));
            }
            if open().count() >= MAX_LINKS {
                return Err(Error::Full);
            }
        }
        self.make_room().await?;
        let link = Link::new(id, wish, now());
        self.store.put_link(row(&link)?).await?;
        info!(
            link = link.id,
            app = link.wish.app,
            main = link.wish.main,
            "link requested"
        );
        let entry = Entry::new(link);
        self.table().insert(entry.link.id.clone(), entry.clone());
        self.tell(None, &entry.link);
        self.news.notify_one();
        Ok((self.seat(entry), true))
    }

    /// The oldest of those that ended, and whose mix has too, makes room for another.
    async fn make_room(&self) -> Result<(), Error> {
        let mut over: Vec<_> = {
            let table = self.table();
            if table.len() < MAX_LINKS {
                return Ok(());
            }
            let over = table.values().filter(|entry| entry.link.is_over());
            over.map(|entry| (entry.link.since, entry.link.id.clone()))
                .collect()
        };
        over.sort();
        let oldest = over.into_iter().find(|(_, id)| !self.has_mix(id));
        let (_, id) = oldest.ok_or(Error::Full)?;
        self.store.delete_link(id.clone()).await?;
        self.table().remove(&id);
        Ok(())
    }

    async fn act(&self, id: &str, input: &Input) -> Result<Seat, Error> {
        let _one_at_a_time = self.changing.lock().await;
        let entry = self.table().get(id).cloned();
        let old = entry.ok_or_else(|| Error::NotFound(id.to_owned()))?.link;
        let link = machine::step(&old, input, |stream| self.publishes(&old, stream), now())?;
        if link != old {
            self.store.put_link(row(&link)?).await?;
            self.put(&old, link, false);
        }
        let entry = self.table().get(id).cloned();
        let entry = entry.ok_or(Error::Internal)?;
        self.news.notify_one();
        Ok(self.seat(entry))
    }

    /// Holds from now on.
    fn put(&self, old: &Link, link: Link, unwritten: bool) {
        if let Some(entry) = self.table().get_mut(&link.id) {
            (entry.link, entry.unwritten) = (link.clone(), unwritten);
        }
        if link.state != old.state {
            let (from, to) = (old.state.as_str(), link.state.as_str());
            let reason = link.reason.map(|why| why.as_str());
            info!(link = link.id, from, to, reason, "link changes its state");
            self.tell(Some(old.state), &link);
        }
    }

    fn tell(&self, from: Option<State>, link: &Link) {
        // Names were checked when it was made.
        let Ok(key) = StreamKey::new(&link.wish.app, &link.wish.main) else {
            return;
        };
        // Nobody may be listening.
        let _ = self.events.send(Event {
            id: link.id.clone(),
            key,
            from,
            to: link.state,
            reason: link.reason,
            request: logging::request(),
            at: SystemTime::now(),
        });
    }

    /// Follows who publishes, and how late it is.
    async fn follow(&self, stop: CancellationToken) {
        let mut published = self.relay.events();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.news.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
                // A look sees all that was missed.
                event = published.recv() => {
                    if matches!(event, Err(broadcast::error::RecvError::Closed)) {
                        return;
                    }
                }
            }
            let ids: Vec<_> = self.table().keys().cloned().collect();
            for id in ids {
                self.look(&id).await;
                self.mix(&id).await;
            }
        }
    }

    /// What who publishes and the time make of one link. What the disk does not take holds all the same, and is tried again:
    /// nobody waits for an answer.
    async fn look(&self, id: &str) {
        let _one_at_a_time = self.changing.lock().await;
        let Some(entry) = self.table().get(id).cloned() else {
            return;
        };
        let (old, now) = (entry.link, now());
        if old.is_over() {
            let age = u64::try_from(now.saturating_sub(old.since)).unwrap_or(0);
            let forgotten = Duration::from_millis(age) >= REMEMBERED;
            // Whoever forgets it before its mix is gone leaves that to nobody.
            if forgotten && !entry.unwritten && !self.has_mix(id) {
                let deleted = self.store.delete_link(id.to_owned()).await;
                if deleted.is_ok() {
                    self.table().remove(id);
                }
                return;
            }
        }
        let looked = machine::step(&old, &Input::Look, |s| self.publishes(&old, s), now);
        let link = looked.unwrap_or_else(|_| old.clone());
        if link == old && !entry.unwritten {
            return;
        }
        let kept = match row(&link) {
            Ok(row) => self.store.put_link(row).await,
            Err(_) => return,
        };
        if let Err(error) = &kept
            && !entry.unwritten
        {
            warn!(link = id, %error, "what has become of a link could not be kept; it is tried again");
        }
        self.put(&old, link, kept.is_err());
    }

    /// Makes the mix of one link what the link is.
    async fn mix(&self, id: &str) {
        let Some(mixes) = &self.mixes else { return };
        let Some(entry) = self.table().get(id).cloned() else {
            return;
        };
        let mix = mix_id(id);
        let subs = machine::mixed(&entry.link, now());
        let there = mixes.get(&mix).filter(|mix| mix["state"] != "ending");
        let done: Result<_, MixError> = if subs.is_empty() {
            match there {
                Some(_) => mixes.remove(&mix).await.map(|_| None),
                None => Ok(None),
            }
        } else {
            let scene = scene::scene(&entry.link, &subs);
            let revision = |mix: &Value| mix["revision"].clone();
            let as_left = there.map(|mix| (scene.clone(), revision(&mix)));
            match as_left.is_some() && entry.shown == as_left {
                true => Ok(as_left),
                false => {
                    let put = mixes.put(&mix, scene.to_string().as_bytes()).await;
                    put.map(|(_, mix)| Some((scene, revision(&mix))))
                }
            }
        };
        let mut table = self.table();
        let Some(entry) = table.get_mut(id) else {
            return;
        };
        let trouble = match done {
            Ok(shown) => {
                entry.shown = shown;
                None
            }
            // It has ended meanwhile.
            Err(MixError::NotFound(_)) => None,
            Err(error) => Some(error.to_string()),
        };
        if trouble != entry.trouble
            && let Some(error) = &trouble
        {
            warn!(link = id, error, "the mix of a link is not as it should be");
        }
        entry.trouble = trouble;
    }

    fn seat(&self, entry: Entry) -> Seat {
        let mixes = self.mixes.as_deref();
        Seat {
            mix: mixes.and_then(|mixes| mixes.get(&mix_id(&entry.link.id))),
            link: entry.link,
            trouble: entry.trouble,
        }
    }

    fn has_mix(&self, id: &str) -> bool {
        let mixes = self.mixes.as_ref();
        mixes.is_some_and(|mixes| mixes.get(&mix_id(id)).is_some())
    }

    fn publishes(&self, link: &Link, stream: &str) -> bool {
        let key = StreamKey::new(&link.wish.app, stream);
        key.is_ok_and(|key| self.relay.is_published(&key))
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Complete after every statement, so readable after a panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(link: Link) -> Self {
        Self {
            link,
            unwritten: false,
            shown: None,
            trouble: None,
        }
    }
}

/// The mix of a link; its owner is the link.
pub fn mix_id(link: &str) -> String {
    format!("link.{link}")
}

fn row(link: &Link) -> Result<LinkRow, Error> {
    let body = serde_json::to_string(link).map_err(|_| Error::Internal)?;
    Ok(LinkRow {
        id: link.id.clone(),
        body,
    })
}

/// UNIX milliseconds.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
