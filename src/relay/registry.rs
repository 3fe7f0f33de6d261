//! The registry: names to streams, made when first needed and gone with their last handle.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Instant, SystemTime};

use tokio::sync::broadcast;

use super::Config;
use super::epoch::{Bell, Epoch, Hold, Tenure};
use super::event::{Event, Stamp};
use super::info::{StreamInfo, Survey};
use super::origin::Origin;
use super::publisher::Publisher;
use super::stream::Stream;
use super::subscriber::Subscriber;
use super::takeover::Refused;
use crate::media::{Cadence, Class, Feed, StreamKey};
use crate::memory::Memory;
use crate::reason::Reason;

/// Events kept for a slow listener. One that falls further behind is told so by the channel and
/// reconciles from [`Relay::streams`].
const EVENTS: usize = 1_024;
/// A ring in a hall [apart](Relay::apart) keeps this fraction of the bytes that others may: what is read there is read at
/// once, and the most that comes at once is what a splice held back.
const APART: usize = 4;

/// Newest messages that a rate is reckoned from: over a second of pictures and sound.
const PACE_MESSAGES: u64 = 256;

/// Why a name could not be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Another publisher holds the name, and keeps it.
    #[error(transparent)]
    Busy(#[from] Refused),
    /// A mix already holds the name's program feed.
    #[error("another mix holds this name's program feed")]
    Mixed,
}

/// Handle on the hall. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Relay {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Arc<Config>,
    registry: Mutex<Registry>,
    events: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct Registry {
    streams: HashMap<StreamKey, Arc<Stream>>,
    /// Epochs begun.
    epochs: u64,
    /// Events sent.
    events: u64,
}

impl Registry {
    fn stamp(&mut self) -> Stamp {
        self.events += 1;
        Stamp {
            sequence: self.events,
            at: SystemTime::now(),
        }
    }
}

impl Relay {
    pub fn new(config: Config) -> Self {
        Self::with(config, EVENTS)
    }

    fn with(config: Config, events: usize) -> Self {
        let (events, _) = broadcast::channel(events);
        Self {
            shared: Arc::new(Shared {
                config: Arc::new(config),
                registry: Mutex::default(),
                events,
            }),
        }
    }

    /// Another hall, with the same rules and names of its own, of which nobody hears: for one who makes a stream of several
    /// feeds before it is published here. What passes through it is in no account, and its rings keep less, since nobody joins
    /// there.
    pub fn apart(&self) -> Self {
        let config = &*self.shared.config;
        let config = Config {
            gop_bytes: config.gop_bytes / APART,
            memory: Memory::default(),
            ..config.clone()
        };
        Self::with(config, 1)
    }

    /// Takes the name's source feed.
    ///
    /// # Errors
    /// [`PublishError::Busy`] where another publisher (an anchor or a mix to that name) keeps it.
    pub fn publish(&self, key: &StreamKey, origin: Origin) -> Result<Publisher, PublishError> {
        self.publish_with(key, origin, Bell::new(), Instant::now())
    }

    /// As [`Self::publish`], for one that holds several names: `bell` is rung when any of them is lost
    /// ([`Publisher::eviction`]).
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn publish_with(
        &self,
        key: &StreamKey,
        origin: Origin,
        bell: Bell,
        now: Instant,
    ) -> Result<Publisher, PublishError> {
        let policy = self.shared.config.on_busy.find(key.app());
        let policy = policy.copied().unwrap_or_default();
        let hold = Arc::new(Hold::new(bell, now));
        // Under the registry's lock, so that the stream cannot be collected in between, and so that
        // events leave in the order in which they became true.
        let mut registry = self.lock();
        let id = registry.epochs + 1;
        let epoch = Epoch::new(id, origin.clone(), hold.clone());
        let stream = self.stream(&mut registry.streams, key);
        let ended = stream.begin_source(epoch, policy, now)?;
        registry.epochs = id;
        if let Some(ended) = ended {
            self.tell_end(&mut registry, key, ended, Reason::TakenOver);
        }
        let stamp = registry.stamp();
        let _ = self.shared.events.send(Event::Published {
            key: key.clone(),
            epoch: id,
            origin,
            stamp,
        });
        drop(registry);
        Ok(Publisher::new(self.clone(), stream, Feed::Source, id, hold))
    }

    /// Prepares to take the name's program feed over: it goes on forwarding the source until the
    /// returned handle publishes its first key frame.
    ///
    /// # Errors
    /// [`PublishError::Mixed`] while another overlay holds it.
    pub fn overlay(&self, key: &StreamKey) -> Result<Publisher, PublishError> {
        let mut registry = self.lock();
        let stream = self.stream(&mut registry.streams, key);
        let id = stream.begin_overlay().ok_or(PublishError::Mixed)?;
        drop(registry);
        let hold = Arc::new(Hold::new(Bell::new(), Instant::now()));
        Ok(Publisher::new(
            self.clone(),
            stream,
            Feed::Program,
            id,
            hold,
        ))
    }

    /// Attaches a reader, whether or not anybody publishes. Its cursor is at the head; see [`Subscriber::join`].
    pub fn subscribe(&self, key: &StreamKey, feed: Feed, class: Class) -> Subscriber {
        let mut registry = self.lock();
        let stream = self.stream(&mut registry.streams, key);
        Subscriber::new(self.clone(), stream, feed, Some(class))
    }

    /// Attaches to a feed without being counted as a reader: for a loop that serves readers who are.
    pub fn watch(&self, key: &StreamKey, feed: Feed) -> Subscriber {
        let mut registry = self.lock();
        let stream = self.stream(&mut registry.streams, key);
        Subscriber::new(self.clone(), stream, feed, None)
    }

    /// Attaches to a source feed as [`Self::watch`] does, for who wants to know where the messages of that epoch end. `None`: it is
    /// over.
    pub fn watch_epoch(&self, key: &StreamKey, epoch: u64) -> Option<(Subscriber, Tenure)> {
        let reader = self.watch(key, Feed::Source);
        let tenure = reader.tenure(epoch)?;
        Some((reader, tenure))
    }

    /// Asks the anchor that publishes a name to go, for that reason. `false` when there is none, or when it is a mix.
    pub fn evict(&self, key: &StreamKey, reason: Reason) -> bool {
        let Some(stream) = self.lock().streams.get(key).cloned() else {
            return false;
        };
        let inner = stream.lock();
        match &inner.publisher {
            Some(epoch) if !epoch.origin.is_mix() => {
                epoch.hold.evict(reason);
                true
            }
            _ => false,
        }
    }

    /// One stream's numbers; `None` when the name has neither publisher nor reader.
    pub fn stream_info(&self, key: &StreamKey) -> Option<StreamInfo> {
        let stream = self.lock().streams.get(key).cloned()?;
        Some(stream.info(Instant::now()))
    }

    /// Numbers of all streams that have a publisher or a reader, by name.
    pub fn streams(&self) -> Vec<StreamInfo> {
        let now = Instant::now();
        self.sorted()
            .iter()
            .map(|stream| stream.info(now))
            .collect()
    }

    /// As [`Self::stream_info`], with how its publisher does.
    pub fn survey(&self, key: &StreamKey) -> Option<Survey> {
        let stream = self.lock().streams.get(key).cloned()?;
        Some(stream.survey(Instant::now()))
    }

    /// As [`Self::streams`], with how their publishers do.
    pub fn surveys(&self) -> Vec<Survey> {
        let now = Instant::now();
        let streams = self.sorted();
        streams.iter().map(|stream| stream.survey(now)).collect()
    }

    fn sorted(&self) -> Vec<Arc<Stream>> {
        let mut streams: Vec<_> = self.lock().streams.values().cloned().collect();
        streams.sort_by(|a, b| a.key.cmp(&b.key));
        streams
    }

    /// Does anybody publish the name (an anchor, or a mix to it)?
    pub fn is_published(&self, key: &StreamKey) -> bool {
        self.lock()
            .streams
            .get(key)
            .is_some_and(|s| s.lock().publisher.is_some())
    }

    /// How fast the pictures of a stream's source come, by what its ring has: tells nothing of one that has just begun, or
    /// that is not there.
    pub fn cadence(&self, key: &StreamKey) -> Cadence {
        let Some(stream) = self.lock().streams.get(key).cloned() else {
            return Cadence::default();
        };
        let inner = stream.lock();
        let ring = &inner.feed(Feed::Source).ring;
        let newest = ring.head().saturating_sub(PACE_MESSAGES)..ring.head();
        let items = newest.filter_map(|sequence| ring.item(sequence));
        Cadence::of(items.map(|item| item.message()))
    }

    /// Facts from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    pub(super) fn end_epoch(&self, stream: &Arc<Stream>, id: u64, reason: Reason, clean: bool) {
        let mut registry = self.lock();
        let Some(ended) = stream.end_source(id, reason, clean) else {
            return;
        };
        self.tell_end(&mut registry, &stream.key, ended, reason);
        drop(registry);
        // Only readers are kept waiting; the handle that is ending here is still counted.
        if clean || stream.lock().handles <= 1 {
            return;
        }
        let grace = self.shared.config.republish_grace.find(stream.key.app());
        let grace = grace.copied().unwrap_or_default();
        let stream = Arc::downgrade(stream);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    tokio::time::sleep(grace).await;
                    if let Some(stream) = stream.upgrade() {
                        stream.end_feeds_if_offline(id, reason);
                    }
                });
            }
            // The runtime is being torn down: there is nobody left to wait.
            Err(_) => {
                if let Some(stream) = stream.upgrade() {
                    stream.end_feeds_if_offline(id, reason);
                }
            }
        }
    }

    /// Tells of an epoch's end while the registry is locked, so that nothing comes between.
    fn tell_end(&self, registry: &mut Registry, key: &StreamKey, ended: Epoch, reason: Reason) {
        let stamp = registry.stamp();
        let _ = self.shared.events.send(Event::Unpublished {
            key: key.clone(),
            epoch: ended.id,
            lasted: ended.hold.age(Instant::now()),
            bytes: ended.bytes,
            request: ended.hold.evicted_by(),
            origin: ended.origin,
            reason,
            stamp,
        });
    }

    /// A handle is gone; the last one takes the stream with it.
    pub(super) fn leave(&self, stream: &Arc<Stream>) {
        let mut registry = self.lock();
        let mut inner = stream.lock();
        inner.handles -= 1;
        // An orphaned overlay may still wait for the source's key frame; then a publisher holds a handle too.
        if inner.handles == 0 {
            registry.streams.remove(&stream.key);
        }
    }

    fn stream(
        &self,
        streams: &mut HashMap<StreamKey, Arc<Stream>>,
        key: &StreamKey,
    ) -> Arc<Stream> {
        streams
            .entry(key.clone())
            .or_insert_with(|| Arc::new(Stream::new(key.clone(), self.shared.config.clone())))
            .clone()
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // The map is valid after every statement; see `Stream::lock`.
        self.shared
            .registry
            .lock()
            .unwrap_or_else(|e| e.into_inner())
    }
}
