//! The registry: names to streams, made when first needed and gone with their last handle.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::{Notify, broadcast};

use super::Config;
use super::info::StreamInfo;
use super::publisher::{Origin, Publisher};
use super::stream::Stream;
use super::subscriber::Subscriber;
use crate::media::{Class, Feed, StreamKey};
use crate::reason::Reason;

/// Events kept for a slow listener. One that falls further behind is told so by the channel and
/// reconciles from [`Relay::streams`].
const EVENTS: usize = 1_024;

/// A fact about a name. For one name they are sent in the order in which they became true.
#[derive(Debug, Clone)]
pub enum Event {
    /// An epoch began.
    Published {
        key: StreamKey,
        epoch: u64,
        origin: Origin,
    },
    /// That epoch ended.
    Unpublished {
        key: StreamKey,
        epoch: u64,
        reason: Reason,
    },
}

/// Why a name could not be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Another publisher holds the name.
    #[error("another publisher holds this name")]
    Busy,
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
    streams: Mutex<HashMap<StreamKey, Arc<Stream>>>,
    events: broadcast::Sender<Event>,
}

impl Relay {
    pub fn new(config: Config) -> Self {
        let (events, _) = broadcast::channel(EVENTS);
        Self {
            shared: Arc::new(Shared {
                config: Arc::new(config),
                streams: Mutex::default(),
                events,
            }),
        }
    }

    /// Takes the name's source feed.
    ///
    /// # Errors
    /// [`PublishError::Busy`] while another publisher (an anchor or a mix of that name) holds it.
    pub fn publish(&self, key: &StreamKey, origin: Origin) -> Result<Publisher, PublishError> {
        let evict = Arc::new(Notify::new());
        // Under the registry's lock, so that the stream cannot be collected in between, and so that
        // events of one name leave in order.
        let mut streams = self.lock();
        let stream = self.stream(&mut streams, key);
        let id = stream
            .begin_source(origin.clone(), evict.clone())
            .ok_or(PublishError::Busy)?;
        let _ = self.shared.events.send(Event::Published {
            key: key.clone(),
            epoch: id,
            origin,
        });
        drop(streams);
        Ok(Publisher::new(
            self.clone(),
            stream,
            Feed::Source,
            id,
            evict,
        ))
    }

    /// Prepares to take the name's program feed over: it goes on forwarding the source until the
    /// returned handle publishes its first key frame.
    ///
    /// # Errors
    /// [`PublishError::Mixed`] while another overlay holds it.
    pub fn overlay(&self, key: &StreamKey) -> Result<Publisher, PublishError> {
        let mut streams = self.lock();
        let stream = self.stream(&mut streams, key);
        let id = stream.begin_overlay().ok_or(PublishError::Mixed)?;
        drop(streams);
        let evict = Arc::new(Notify::new());
        Ok(Publisher::new(
            self.clone(),
            stream,
            Feed::Program,
            id,
            evict,
        ))
    }

    /// Attaches a reader, whether or not anybody publishes. Its cursor is at the head; see [`Subscriber::join`].
    pub fn subscribe(&self, key: &StreamKey, feed: Feed, class: Class) -> Subscriber {
        let mut streams = self.lock();
        let stream = self.stream(&mut streams, key);
        Subscriber::new(self.clone(), stream, feed, Some(class))
    }

    /// Attaches to a feed without being counted as a reader: for a loop that serves readers who are.
    pub fn watch(&self, key: &StreamKey, feed: Feed) -> Subscriber {
        let mut streams = self.lock();
        let stream = self.stream(&mut streams, key);
        Subscriber::new(self.clone(), stream, feed, None)
    }

    /// Asks the publisher of a name to go. `false` when there is none, or when it is a mix.
    pub fn evict(&self, key: &StreamKey) -> bool {
        let Some(stream) = self.lock().get(key).cloned() else {
            return false;
        };
        let inner = stream.lock();
        match &inner.publisher {
            Some(p) if matches!(p.origin, Origin::Anchor { .. }) => {
                p.evict.notify_one();
                true
            }
            _ => false,
        }
    }

    /// One stream's numbers; `None` when the name has neither publisher nor reader.
    pub fn stream_info(&self, key: &StreamKey) -> Option<StreamInfo> {
        let stream = self.lock().get(key).cloned()?;
        Some(stream.info(Instant::now()))
    }

    /// Numbers of all streams that have a publisher or a reader, by name.
    pub fn streams(&self) -> Vec<StreamInfo> {
        let streams: Vec<_> = self.lock().values().cloned().collect();
        let now = Instant::now();
        let mut infos: Vec<_> = streams.iter().map(|s| s.info(now)).collect();
        infos.sort_by(|a, b| a.key.cmp(&b.key));
        infos
    }

    /// Does anybody publish the name (an anchor, or a mix to it)?
    pub fn is_published(&self, key: &StreamKey) -> bool {
        self.lock()
            .get(key)
            .is_some_and(|s| s.lock().publisher.is_some())
    }

    /// Facts from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    pub(super) fn end_epoch(&self, stream: &Arc<Stream>, id: u64, reason: Reason, clean: bool) {
        let streams = self.lock();
        let Some(epoch) = stream.end_source(id, reason, clean) else {
            return;
        };
        let _ = self.shared.events.send(Event::Unpublished {
            key: stream.key.clone(),
            epoch: epoch.id,
            reason,
        });
        drop(streams);
        if clean {
            return;
        }
        // Only readers are kept waiting, and only while somebody holds the stream: nobody to tell otherwise.
        let grace = self
            .shared
            .config
            .republish_grace
            .find(stream.key.app())
            .copied()
            .unwrap_or_default();
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

    /// A handle is gone; the last one takes the stream with it.
    pub(super) fn leave(&self, stream: &Arc<Stream>) {
        let mut streams = self.lock();
        let mut inner = stream.lock();
        inner.handles -= 1;
        // An orphaned overlay may still wait for the source's key frame; then a publisher holds a handle too.
        if inner.handles == 0 {
            streams.remove(&stream.key);
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

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamKey, Arc<Stream>>> {
        // The map is valid after every statement; see `Stream::lock`.
        self.shared
            .streams
            .lock()
            .unwrap_or_else(|e| e.into_inner())
    }
}
