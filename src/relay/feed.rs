//! One feed of a name: its ring, its timeline, and the splices and ends that its readers see.

use std::sync::Arc;
use std::time::Instant;

use super::Config;
use super::item::Item;
use super::ring::Ring;
use crate::media::{Headers, Kind, MediaTime, Message, Slot, Timeline};
use crate::reason::Reason;
use crate::rtmp::amf;

/// One feed: a ring, its timeline, and how often and where it ended.
#[derive(Debug)]
pub(super) struct FeedState {
    pub ring: Ring,
    pub timeline: Timeline,
    /// The latest end of this feed; subscribers compare `count` with what they have seen.
    pub end: End,
    pub subscribers: [usize; 2],
    /// Everybody attached: those readers, and loops that serve them.
    attached: usize,
    pub messages: u64,
    pub frames: u64,
    pub bytes: u64,
}

/// An end of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub count: u64,
    /// Sequence number of the first message after the end.
    pub at: u64,
    pub reason: Reason,
}

impl FeedState {
    pub fn new() -> Self {
        Self {
            ring: Ring::new(),
            timeline: Timeline::new(),
            end: End {
                count: 0,
                at: 0,
                reason: Reason::StreamEnded,
            },
            subscribers: [0; 2],
            attached: 0,
            messages: 0,
            frames: 0,
            bytes: 0,
        }
    }

    /// Somebody reads or watches from now on.
    pub fn attach(&mut self) {
        self.attached += 1;
        self.ring.set_read(true);
    }

    /// Somebody does not any more.
    pub fn detach(&mut self) {
        self.attached -= 1;
        self.ring.set_read(self.attached > 0);
    }

    /// Is anybody there to be woken?
    pub fn is_attended(&self) -> bool {
        self.attached > 0
    }

    /// Puts a message on this feed's own timeline and into its ring. An unchanged time shares the message. `None`: it
    /// has no place there, or no reader could make use of it.
    pub fn push(
        &mut self,
        message: Arc<Message>,
        now: Instant,
        config: &Config,
    ) -> Option<Arc<Item>> {
        if self.ring.lacks_root(&message) {
            return None;
        }
        let placed = self.timeline.map(&message, now)?;
        let message = match placed.keeps(&message) {
            true => message,
            false => Arc::new(message.timed(placed.dts, placed.pts)),
        };
        self.count(&message);
        Some(self.ring.push(message, config))
    }

    /// As [`Self::push`], of an item of another feed, which is shared where its time is unchanged. Returns the decode
    /// time here.
    pub fn forward(
        &mut self,
        item: &Arc<Item>,
        now: Instant,
        config: &Config,
    ) -> Option<MediaTime> {
        let message = item.shared();
        if self.ring.lacks_root(message) {
            return None;
        }
        let placed = self.timeline.map(message, now)?;
        self.count(message);
        match placed.keeps(message) {
            true => self.ring.share(item, config),
            false => {
                let moved = Arc::new(message.timed(placed.dts, placed.pts));
                self.ring.push(moved, config);
            }
        }
        Some(placed.dts)
    }

    fn count(&mut self, message: &Message) {
        self.messages += 1;
        self.frames += u64::from(message.kind == Kind::Video && !message.is_header());
        self.bytes += message.payload.len() as u64;
    }

    /// A splice: another feeder takes over with its headers, at the decode time `first` of its own timeline.
    ///
    /// Metadata is sent again only when the picture's size differs: players take it as a sign of a new stream.
    ///
    /// `start` says where on this feed's timeline that is; `None`: where wall time is now.
    pub fn splice(
        &mut self,
        headers: &Headers,
        first: MediaTime,
        start: Option<MediaTime>,
        now: Instant,
        config: &Config,
    ) {
        match start {
            Some(start) => self.timeline.begin_segment_at(first, start),
            None => self.timeline.begin_segment(first, now),
        }
        let known = self
            .ring
            .headers()
            .find(Kind::Data, Slot::Metadata)
            .cloned();
        let fresh = headers.find(Kind::Data, Slot::Metadata);
        let kept = known
            .filter(|known| fresh.is_none_or(|fresh| picture_size(known) == picture_size(fresh)));
        self.ring.begin_segment(kept.clone());
        for header in headers.iter() {
            if kept.is_none() || header.kind != Kind::Data {
                self.push(Arc::new(header.at(first)), now, config);
            }
        }
    }

    pub fn end(&mut self, reason: Reason) {
        self.ring.seal();
        self.end = End {
            count: self.end.count + 1,
            at: self.ring.head(),
            reason,
        };
    }
}

/// Width and height that onMetaData tells; `None` for each that it does not.
fn picture_size(metadata: &Message) -> [Option<f64>; 2] {
    // The stranger's AMF goes through the guard; what it refuses says nothing about size.
    let values = amf::decode(&metadata.payload).unwrap_or_default();
    ["width", "height"].map(|key| {
        values
            .iter()
            .find_map(|value| amf::property(value, key))
            .and_then(amf::number)
    })
}
