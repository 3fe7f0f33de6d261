//! The publisher's handle on a name: an anchor's or a mix's epoch, ended by dropping it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::epoch::Hold;
use super::registry::Relay;
use super::stream::Stream;
use crate::media::{Feed, MediaTime, Message, StreamKey};
use crate::reason::Reason;

/// What became of a published message, and what the publisher should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// An overlay before its first key frame: the message was noted or dropped, the source still plays.
    Preparing,
    /// An overlay that holds the name and nothing else: the message was dropped, the source plays.
    Resting,
    /// On the feed.
    Live,
    /// On the feed; the source will take over at its next key frame. Keep publishing.
    Ending,
    /// The handle's hold has ended; stop.
    Done,
}

/// Holds one feed of a name. Dropping it ends the epoch as a vanished publisher (or, for an overlay,
/// hands the program feed back at the source's next key frame).
pub struct Publisher {
    relay: Relay,
    stream: Arc<Stream>,
    feed: Feed,
    /// Epoch or overlay id within the stream.
    id: u64,
    hold: Arc<Hold>,
    finished: bool,
}

impl Publisher {
    pub(super) fn new(
        relay: Relay,
        stream: Arc<Stream>,
        feed: Feed,
        id: u64,
        hold: Arc<Hold>,
    ) -> Self {
        Self {
            relay,
            stream,
            feed,
            id,
            hold,
            finished: false,
        }
    }

    pub fn key(&self) -> &StreamKey {
        &self.stream.key
    }

    /// The number of the epoch that it holds, as in [`Event`](super::Event); of a mix in place that of its overlay.
    pub fn epoch(&self) -> u64 {
        self.id
    }

    /// Hands a message to the feed. Never blocks on a subscriber. The message's time is on this
    /// publisher's own timeline, whose zero may be anything.
    pub fn publish(&self, message: Message, now: Instant) -> Status {
        self.publish_of(message, None, now)
    }

    /// As [`Self::publish`], of a mix that knows what of the source that it stands for the message tells: what the
    /// source's feed calls `of`. By that a splice neither repeats nor leaves out a frame of sound.
    pub fn publish_of(&self, mut message: Message, of: Option<MediaTime>, now: Instant) -> Status {
        message.payload = self.stream.config.memory.hold(message.payload);
        match self.feed {
            Feed::Source => self.stream.publish_source(self.id, message, now),
            Feed::Program => self.stream.publish_overlay(self.id, message, of, now),
        }
    }

    /// One of its messages took so long from the socket to here; for its reading. An overlay has none.
    pub fn handled(&self, took: Duration) {
        let mut inner = self.stream.lock();
        let ours = inner.publisher.as_mut().filter(|p| p.id == self.id);
        if let Some(publisher) = ours.filter(|_| self.feed == Feed::Source) {
            publisher.vitals.handled(took);
        }
    }

    /// Where a decode time of this source lands on its feed, clamps aside; `None` before its first message, of one whose hold
    /// has ended, and of an overlay.
    pub fn locate(&self, dts: MediaTime) -> Option<MediaTime> {
        let inner = self.stream.lock();
        let own =
            self.feed == Feed::Source && inner.publisher.as_ref().is_some_and(|p| p.id == self.id);
        own.then(|| inner.source.timeline.locate(dts))?
    }

    /// Where this handle stands without publishing anything.
    pub fn status(&self) -> Status {
        match self.feed {
            Feed::Source => {
                let inner = self.stream.lock();
                match inner.publisher.as_ref() {
                    Some(p) if p.id == self.id => Status::Live,
                    _ => Status::Done,
                }
            }
            Feed::Program => self.stream.overlay_status(self.id),
        }
    }

    /// An overlay asks to end: keep publishing while this and [`Self::publish`] answer [`Status::Ending`].
    /// For a source it is the same as [`Self::finish`] without giving up the handle.
    pub fn request_end(&self, now: Instant) -> Status {
        match self.feed {
            Feed::Source => Status::Done,
            Feed::Program => self.stream.end_overlay(self.id, now),
        }
    }

    /// An overlay gives the program feed back to the source and keeps the name: publish on while this and
    /// [`Self::publish`] answer [`Status::Ending`], and nothing more from [`Status::Resting`] on. Without a source it
    /// stays on the air. Nothing of this concerns a source.
    pub fn rest(&self, now: Instant) -> Status {
        match self.feed {
            Feed::Source => self.status(),
            Feed::Program => self.stream.rest_overlay(self.id, now),
        }
    }

    /// An overlay that rests, or is about to, is to go on the air: again with its next key frame, or as it is. A
    /// splice that has begun goes on to its end ([`Status::Ending`]). For one whose encoder is made anew: what follows has to
    /// begin with headers.
    pub fn resume(&self) -> Status {
        match self.feed {
            Feed::Source => self.status(),
            Feed::Program => self.stream.resume_overlay(self.id),
        }
    }

    /// An overlay that is about to rest is to stay on the air, unless its splice has begun. One that rests already goes on
    /// resting: what it published before knows nothing of a new beginning.
    pub fn stay(&self) -> Status {
        match self.feed {
            Feed::Source => self.status(),
            Feed::Program => self.stream.stay_overlay(self.id),
        }
    }

    /// An overlay that wants to end has waited for the source's key frame for longer than 10 s.
    pub fn is_overdue(&self) -> bool {
        self.feed == Feed::Program && self.stream.overlay_is_overdue(self.id)
    }

    /// Resolves when the overlay's status may have changed, or at once for a source.
    ///
    /// # Cancel safety
    /// Safe: it holds nothing.
    pub async fn done(&self) {
        if self.feed == Feed::Source {
            return;
        }
        loop {
            let news = self.stream.news.overlay.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if self.stream.overlay_status(self.id) == Status::Done {
                return;
            }
            news.await;
        }
    }

    /// Resolves when this publisher is to go, and says why: its name was taken over, or it was dropped.
    ///
    /// # Cancel safety
    /// Safe: it holds nothing.
    pub async fn evicted(&self) -> Reason {
        loop {
            // The bell keeps a ring for later, so looking first loses none.
            if let Some(reason) = self.eviction() {
                return reason;
            }
            self.hold.bell().rung().await;
        }
    }

    /// Why this publisher is to go; `None` while it may stay. Told at the [`Bell`](super::Bell).
    pub fn eviction(&self) -> Option<Reason> {
        self.hold.eviction()
    }

    /// Media bytes came that make no whole message yet: also that is progress, on a slow line.
    pub fn progress(&self, now: Instant) {
        self.hold.progress(now);
    }

    /// A clean end: readers of the feeds that this epoch fed are told at once.
    pub fn finish(mut self, reason: Reason) {
        self.end(reason, true);
    }

    /// The publisher vanished: readers wait for the next one, up to the configured grace.
    pub fn vanish(mut self, reason: Reason) {
        self.end(reason, false);
    }

    fn end(&mut self, reason: Reason, clean: bool) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        match self.feed {
            Feed::Source => self.relay.end_epoch(&self.stream, self.id, reason, clean),
            Feed::Program => self.stream.drop_overlay(self.id, Instant::now()),
        }
        self.relay.leave(&self.stream);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.end(Reason::Disconnected, false);
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("key", &self.stream.key)
            .field("feed", &self.feed)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
