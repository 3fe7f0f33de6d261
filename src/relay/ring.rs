//! One feed's ring of messages: publishing appends, readers are cursors, a skip moves a cursor.
//!
//! Bounded by bytes and by media time. Pure but for the memory it keeps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Config;
use super::item::Item;
use super::roots::Roots;
use super::sequence::Sequence;
use crate::media::{Beside, Headers, Kind, MediaTime, Message};

/// Messages that a ring keeps at most, whatever their payloads and times say: 20 s at 800 a second, where an encoder
/// sends some 110. Each costs about 250 bytes besides its payload.
const MAX_MESSAGES: usize = 16_384;

/// While memory is tight, a ring keeps this fraction of the bytes it may keep: of 16 MiB, 1 MiB, which is 4 s of 2 Mbit/s.
const TIGHT: usize = 16;

/// Media time behind its newest key frame that a ring without readers keeps: nobody can be late there, and this much
/// tells the first reader what bitrate to expect ([`Ring::byte_rate`]).
const UNREAD_HISTORY: Duration = Duration::from_millis(1_100);

/// How a reader begins (semantics, "Joining").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Headers and the whole GOP from the newest key frame, as recorded.
    Burst,
    /// Headers, then the GOP's video 1 ms apart ending at the live edge; audio from the live edge only.
    Squeeze,
    /// From the next key frame.
    Wait,
}

/// What reading from a cursor gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Nothing new, or all that was new is in the output now.
    Upto,
    /// The cursor had fallen out of the ring; it was moved to the newest key frame (or the head when
    /// there is none), whose header set is the first thing to send. That many messages were skipped.
    Skipped(u64),
}

/// Messages of one feed with consecutive sequence numbers.
#[derive(Debug)]
pub(super) struct Ring {
    items: VecDeque<Arc<Item>>,
    /// Payload bytes that were pushed before each of `items`: what lies from one of them on is a subtraction, which is asked
    /// for with every read.
    before: VecDeque<u64>,
    /// Payload bytes ever pushed.
    pushed: u64,
    /// Sequence number of `items[0]`.
    front: u64,
    /// Sequence number of the newest item where a reader may begin.
    newest_start: Option<u64>,
    /// Headers as of the newest message.
    headers: Arc<Headers>,
    /// Where video tracks beside the main one can be decoded from.
    pub(super) roots: Roots,
    has_video: bool,
    sequence: Sequence,
    /// Whether anybody reads here or watches.
    is_read: bool,
}

impl Ring {
    pub fn new() -> Self {
        Self {
            items: VecDeque::new(),
            before: VecDeque::new(),
            pushed: 0,
            front: 0,
            newest_start: None,
            headers: Arc::default(),
            roots: Roots::default(),
            has_video: false,
            sequence: Sequence::default(),
            is_read: false,
        }
    }

    /// Says whether anybody reads here from now on. A ring that nobody reads keeps its newest GOP and little more.
    pub fn set_read(&mut self, is_read: bool) {
        self.is_read = is_read;
    }

    /// Sequence number that the next message will get.
    pub fn head(&self) -> u64 {
        self.front + self.items.len() as u64
    }

    pub fn headers(&self) -> &Arc<Headers> {
        &self.headers
    }

    /// Media time of the newest message; zero when empty.
    pub fn head_time(&self) -> MediaTime {
        self.items
            .back()
            .map_or(MediaTime::ZERO, |i| i.message().dts)
    }

    pub fn bytes(&self) -> usize {
        self.bytes_from(self.front)
    }

    pub fn push(&mut self, message: Arc<Message>, config: &Config) -> Arc<Item> {
        let (start, root) = self.note(&message);
        let headers = start.then(|| self.headers.clone());
        let ends = self.sequence.ends(&message);
        let item = Arc::new(Item::new(message, headers).rooted(root).ending(ends));
        self.append(item.clone(), config);
        item
    }

    /// As [`Self::push`], of an item of another ring: what it is framed for is framed once for both, unless it says
    /// something of its ring: readers begin at it with that one's headers, or it builds on a message there.
    pub fn share(&mut self, item: &Arc<Item>, config: &Config) {
        let (start, root) = self.note(item.shared());
        let ends = self.sequence.ends(item.shared());
        let item = if root.is_some() || item.root().is_some() || ends != item.ends_sequence() {
            let headers = start.then(|| self.headers.clone());
            let own = Item::new(item.shared().clone(), headers);
            Arc::new(own.rooted(root).ending(ends))
        } else {
            item.clone()
        };
        self.append(item, config);
    }

    /// Are these frames of a track beside the main one whose key frame nobody has been given? They are not to be
    /// pushed.
    pub fn lacks_root(&self, message: &Message) -> bool {
        message.beside == Beside::Frames && self.roots.root(message).is_none()
    }

    /// Can a reader that began at `began` decode all tracks in what comes from `cursor` on?
    pub fn is_settled(&self, began: u64, cursor: u64) -> bool {
        self.roots.are_within(began, cursor)
    }

    /// Takes note of the next message. Returns whether a reader may begin at it, and its [`Item::root`].
    fn note(&mut self, message: &Arc<Message>) -> (bool, Option<u64>) {
        let at = self.head();
        let mut start = message.is_video_key();
        if message.is_header() {
            self.headers = Arc::new(self.headers.with(message));
        } else if message.kind == Kind::Video {
            self.has_video = true;
        } else if message.kind == Kind::Audio && !self.has_video {
            // Without video every audio frame is a place to begin.
            start = true;
        }
        if start {
            self.newest_start = Some(at);
            self.roots.prune(message.dts);
        }
        let mut root = start.then_some(at);
        match message.beside {
            // Another track may become the main one; this one's frames go on being decoded.
            Beside::Nothing if message.is_video_key() && message.track != 0 => {
                self.roots.note_keys(message, at);
            }
            Beside::Nothing => {}
            Beside::Keys => {
                self.roots.note_keys(message, at);
                root = Some(at);
            }
            Beside::Frames => {
                root = self.roots.root(message);
                self.roots.note_frames(message);
            }
        }
        (start, root)
    }

    fn append(&mut self, item: Arc<Item>, config: &Config) {
        self.before.push_back(self.pushed);
        self.pushed += item.message().payload.len() as u64;
        self.items.push_back(item);
        self.trim(config);
    }

    /// Ends an epoch: nobody may begin in it any more and the next one shares no headers with it.
    /// Readers that are a little late may still finish it.
    pub fn seal(&mut self) {
        self.newest_start = None;
        self.headers = Arc::default();
        self.roots.clear();
        self.has_video = false;
    }

    /// Begins a segment with the header set of another feeder, which the caller pushes, but for `kept`: a header
    /// that readers have already and that joiners still need.
    pub fn begin_segment(&mut self, kept: Option<Arc<Message>>) {
        self.seal();
        if let Some(kept) = kept {
            self.headers = Arc::new(Headers::default().with(&kept));
        }
    }

    fn trim(&mut self, config: &Config) {
        let head = self.head_time();
        let gop_bytes = if config.memory.is_tight() {
            config.gop_bytes / TIGHT
        } else {
            config.gop_bytes
        };
        let history = match self.is_read {
            true => config.history,
            false => UNREAD_HISTORY.min(config.history),
        };
        while let Some(oldest) = self.items.front() {
            let age = head.since(oldest.message().dts);
            let before_gop = self.newest_start.is_none_or(|start| self.front < start);
            let over = self.bytes() > gop_bytes
                || age > config.gop_time
                || self.items.len() > MAX_MESSAGES;
            if self.items.len() <= 1 || !(over || (before_gop && age > history)) {
                break;
            }
            self.items.pop_front();
            self.before.pop_front();
            if self.newest_start == Some(self.front) {
                self.newest_start = None;
            }
            self.front += 1;
        }
    }

    /// The newest place to begin, if the ring still has it.
    pub fn newest_start(&self) -> Option<u64> {
        self.newest_start
    }

    /// Payload bytes of the items from `cursor` on.
    pub fn bytes_from(&self, cursor: u64) -> usize {
        let from = cursor.saturating_sub(self.front) as usize;
        let before = self.before.get(from);
        before.map_or(0, |before| (self.pushed - before) as usize)
    }

    /// Payload bytes per second of media time, over what the ring holds; `None` while that is less than a second.
    pub fn byte_rate(&self) -> Option<u64> {
        let oldest = self.items.front()?.message().dts;
        let span = self.head_time().since(oldest).as_millis() as u64;
        (span >= 1_000).then(|| self.bytes() as u64 * 1_000 / span)
    }

    /// Items from `cursor` on, `max` of them at most, appended to `out`; the cursor moves behind them.
    pub fn read(&self, cursor: &mut u64, max: usize, out: &mut Vec<Arc<Item>>) -> Read {
        let mut outcome = Read::Upto;
        if *cursor < self.front {
            let to = self.newest_start.unwrap_or(self.head());
            outcome = Read::Skipped(to - *cursor);
            *cursor = to;
        }
        let from = (*cursor - self.front) as usize;
        let upto = self.items.len().min(from.saturating_add(max));
        if from < upto {
            out.extend(self.items.range(from..upto).cloned());
            *cursor = self.front + upto as u64;
        }
        outcome
    }

    /// The item with that sequence number, if the ring has it.
    pub fn item(&self, sequence: u64) -> Option<&Arc<Item>> {
        let index = sequence.checked_sub(self.front)?;
        self.items.get(usize::try_from(index).ok()?)
    }

    /// Where a reader begins: private messages to send first, and its cursor.
    pub fn join(&self, join: Join) -> (Vec<Arc<Item>>, u64) {
        let Some(start) = self.newest_start else {
            return (Vec::new(), self.head());
        };
        match join {
            Join::Wait => (Vec::new(), self.head()),
            Join::Burst => (Vec::new(), start),
            Join::Squeeze => (self.squeeze(start), self.head()),
        }
    }

    /// The GOP's video from `start`, 1 ms apart, so that its last frame keeps its own time. With B-frames the order of
    /// presentation is another one than that of decoding: pictures that are due by the live edge are presented 1 ms
    /// apart up to it, those due later keep their time. Tracks beside the main one come from their own key frames on.
    ///
    /// Headers that came after `start` stand before the picture that they came before.
    fn squeeze(&self, start: u64) -> Vec<Arc<Item>> {
        let from = (start - self.front) as usize;
        let is_picture = |i: &Item| i.message().kind == Kind::Video && !i.message().is_header();
        let is_of_use = |i: &Item| i.root().is_none_or(|root| root >= start);
        let kept: Vec<_> = self
            .items
            .range(from..)
            .filter(|i| i.message().is_header() || (is_picture(i) && is_of_use(i)))
            .collect();
        let Some(last) = kept.iter().rfind(|i| is_picture(i)) else {
            return Vec::new();
        };
        let last_dts = last.message().dts;
        let pictures = || kept.iter().filter(|i| is_picture(i));
        let mut due: Vec<_> = pictures().map(|i| i.message().pts()).collect();
        due.retain(|pts| *pts <= last_dts);
        due.sort_unstable();
        // Pictures from the next one on.
        let mut left = pictures().count() as i64;
        kept.iter()
            .map(|item| {
                let dts = last_dts + (1 - left).min(0);
                if !is_picture(item) {
                    let message = Arc::new(item.message().at(dts));
                    return Arc::new(Item::new(message, None));
                }
                left -= 1;
                let own = item.message().pts();
                let pts = if own <= last_dts {
                    let later = due.len() - due.partition_point(|pts| *pts <= own);
                    last_dts + -(later as i64)
                } else {
                    own
                };
                let message = Arc::new(item.message().timed(dts, pts));
                Arc::new(Item::new(message, item.headers().cloned()).rooted(item.root()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::time::Duration;

    const KEY: &[u8] = &[0x17, 1, 0, 0, 0, 9];
    const INTER: &[u8] = &[0x27, 1, 0, 0, 0, 9];
    const SOUND: &[u8] = &[0xaf, 1, 9];

    fn push(ring: &mut Ring, kind: Kind, dts: i64, payload: &'static [u8]) {
        let message = Message::new(kind, MediaTime(dts), Bytes::from_static(payload));
        ring.push(Arc::new(message), &Config::default());
    }

    /// Two GOPs of 1 s at 25 frames a second with audio 10 ms after each frame.
    fn two_gops() -> Ring {
        let mut ring = Ring::new();
        ring.set_read(true);
        push(&mut ring, Kind::Video, 0, &[0x17, 0, 0, 0, 0, 1]);
        for n in 0..50 {
            let payload = if n % 25 == 0 { KEY } else { INTER };
            push(&mut ring, Kind::Video, n * 40, payload);
            push(&mut ring, Kind::Audio, n * 40 + 10, SOUND);
        }
        ring
    }

    fn read(ring: &Ring, mut cursor: u64) -> Vec<(Kind, i64)> {
        let mut out = Vec::new();
        ring.read(&mut cursor, usize::MAX, &mut out);
        out.iter()
            .map(|i| (i.message().kind, i.message().dts.0))
            .collect()
    }

    #[test]
    fn the_rate_is_bytes_over_media_time_and_unknown_at_first() {
        let ring = two_gops();
        // 50 frames of 6 bytes, 50 sounds of 3 and a header of 6, over 1970 ms.
        assert_eq!(ring.bytes(), 456);
        assert_eq!(ring.byte_rate(), Some(456 * 1_000 / 1_970));
        assert_eq!(ring.bytes_from(ring.head() - 2), 9);
        assert_eq!(ring.bytes_from(0), 456);
        assert_eq!(ring.bytes_from(ring.head()), 0);
        let mut young = Ring::new();
        push(&mut young, Kind::Video, 0, KEY);
        push(&mut young, Kind::Video, 999, INTER);
        assert_eq!(young.byte_rate(), None);
    }

    #[test]
    fn a_ring_that_nobody_reads_keeps_its_newest_gop_and_what_tells_its_rate() {
        let mut ring = Ring::new();
        let oldest = |ring: &Ring| ring.item(ring.front).unwrap().message().dts.0;
        let at = |ring: &mut Ring, frames: std::ops::Range<i64>| {
            for n in frames {
                let payload = if n % 50 == 0 { KEY } else { INTER };
                push(ring, Kind::Video, n * 40, payload);
            }
            oldest(ring)
        };
        // 10 s in GOPs of 2 s: the newest begins at 8,000 ms.
        assert_eq!(at(&mut ring, 0..250), 8_000);
        // Another has just begun at 10,000 ms: 1.1 s are kept, from the next frame on.
        assert_eq!(at(&mut ring, 250..251), 8_920);
        assert!(ring.byte_rate().is_some());
        ring.set_read(true);
        // 16,000 ms and the 4 s before it.
        assert_eq!(at(&mut ring, 251..401), 12_000);
        ring.set_read(false);
        assert_eq!(at(&mut ring, 401..402), 14_960);
    }

    #[test]
    fn rings_share_items_but_those_at_which_readers_begin() {
        let (mut one, mut other) = (Ring::new(), Ring::new());
        push(&mut other, Kind::Data, 0, &[2, 0, 10, b'o']);
        for (n, payload) in [KEY, INTER, INTER].into_iter().enumerate() {
            let message = Message::new(Kind::Video, MediaTime(40 * n as i64), payload.into());
            let item = one.push(Arc::new(message), &Config::default());
            other.share(&item, &Config::default());
        }
        let shared = |n: u64| Arc::ptr_eq(one.item(n).unwrap(), other.item(n + 1).unwrap());
        assert_eq!([shared(0), shared(1), shared(2)], [false, true, true]);
        assert!(other.item(1).unwrap().headers().is_some());
    }

    #[test]
    fn a_burst_joiner_gets_the_newest_gop_as_recorded() {
        let ring = two_gops();
        let (private, cursor) = ring.join(Join::Burst);
        assert!(private.is_empty());
        let got = read(&ring, cursor);
        assert_eq!(got[0], (Kind::Video, 1_000));
        assert_eq!(got.len(), 50);
        assert!(ring.item(cursor).unwrap().headers().is_some());
    }

    #[test]
    fn a_squeezed_joiner_gets_the_gop_at_the_live_edge_and_no_old_audio() {
        let ring = two_gops();
        let (private, cursor) = ring.join(Join::Squeeze);
        assert_eq!(cursor, ring.head());
        let times: Vec<_> = private.iter().map(|i| i.message().dts.0).collect();
        // 25 frames, the last one at its own time 49 × 40 = 1960.
        assert_eq!(times, (1_936..=1_960).collect::<Vec<_>>());
        assert!(private[0].message().is_video_key() && private[0].headers().is_some());
        assert!(private.iter().all(|i| i.message().kind == Kind::Video));
        // The ring's own messages are untouched.
        assert_eq!(read(&ring, ring.newest_start().unwrap())[0].1, 1_000);
    }

    #[test]
    fn a_squeezed_joiner_gets_headers_that_came_in_the_middle_of_the_gop_at_their_place() {
        let mut ring = Ring::new();
        push(&mut ring, Kind::Video, 0, KEY);
        push(&mut ring, Kind::Audio, 0, &[0xaf, 0, 7]);
        push(&mut ring, Kind::Audio, 10, SOUND);
        push(&mut ring, Kind::Video, 40, INTER);
        push(&mut ring, Kind::Video, 80, INTER);
        push(&mut ring, Kind::Video, 120, &[0x17, 0, 0, 0, 0, 2]);
        let (private, _) = ring.join(Join::Squeeze);
        let got: Vec<_> = private.iter().map(|i| i.message()).collect();
        let got: Vec<_> = got.iter().map(|m| (m.dts.0, m.is_header())).collect();
        // The last picture's own time is 80 ms.
        let expected = [
            (78, false),
            (79, true),
            (79, false),
            (80, false),
            (80, true),
        ];
        assert_eq!(got, expected);
        assert!(private[1].headers().is_none());
    }

    #[test]
    fn a_waiting_joiner_begins_at_the_head() {
        let ring = two_gops();
        let (private, cursor) = ring.join(Join::Wait);
        assert!(private.is_empty());
        assert_eq!(cursor, ring.head());
    }

    #[test]
    fn a_squeezed_gop_with_b_frames_keeps_the_order_of_presentation() {
        let mut ring = Ring::new();
        // I P B B P B B … at 25 frames a second, presented one frame later than decoded at the earliest.
        let shown = |n: i64| match (n, n % 3) {
            (0, _) => 0,
            (_, 1) => n + 2,
            _ => n - 1,
        };
        for n in 0..12 {
            let composition = (shown(n) + 1 - n) * 40;
            let first = if n == 0 { 0x17 } else { 0x27 };
            let payload = vec![first, 1, 0, 0, composition as u8, n as u8];
            let message = Message::new(Kind::Video, MediaTime(n * 40), payload.into());
            ring.push(Arc::new(message), &Config::default());
        }
        let edge = MediaTime(11 * 40);
        let (private, _) = ring.join(Join::Squeeze);
        for (n, item) in private.iter().enumerate() {
            let message = item.message();
            let own = MediaTime((shown(n as i64) + 1) * 40);
            assert!(message.pts() >= message.dts, "frame {n}");
            assert!(
                own <= edge || message.pts() == own,
                "frame {n} is due later"
            );
            // What the payload says is what the wire says.
            let read = Message::new(Kind::Video, message.dts, message.payload.clone());
            assert_eq!(read.pts(), message.pts(), "frame {n}");
            assert_eq!(message.payload[5], n as u8);
        }
        let mut order: Vec<_> = (0..private.len()).collect();
        order.sort_by_key(|&n| private[n].message().pts());
        let mut expected: Vec<_> = (0..12).collect();
        expected.sort_by_key(|&n| shown(n as i64));
        assert_eq!(order, expected);
        let mut times: Vec<_> = private.iter().map(|i| i.message().pts()).collect();
        times.sort_unstable();
        times.dedup();
        assert_eq!(times.len(), 12, "two pictures at one time");
    }

    #[test]
    fn a_cursor_that_fell_out_moves_to_the_newest_key_frame() {
        let mut ring = two_gops();
        for n in 50..250 {
            let payload = if n % 25 == 0 { KEY } else { INTER };
            push(&mut ring, Kind::Video, n * 40, payload);
        }
        let mut cursor = 0;
        let mut out = Vec::new();
        let outcome = ring.read(&mut cursor, usize::MAX, &mut out);
        assert!(
            matches!(outcome, Read::Skipped(n) if n > 100),
            "{outcome:?}"
        );
        assert_eq!(out[0].message().dts, MediaTime(225 * 40));
        assert!(out[0].headers().is_some());
    }

    #[test]
    fn a_gop_without_end_is_bounded_by_time_and_bytes() {
        let mut ring = Ring::new();
        let config = Config {
            gop_time: Duration::from_secs(2),
            gop_bytes: 1_000,
            ..Config::default()
        };
        let push = |ring: &mut Ring, dts, payload: &'static [u8]| {
            let message = Message::new(Kind::Video, MediaTime(dts), Bytes::from_static(payload));
            ring.push(Arc::new(message), &config);
        };
        push(&mut ring, 0, KEY);
        for n in 1..500 {
            push(&mut ring, n * 40, INTER);
        }
        assert!(
            ring.bytes() <= 1_000 && ring.items.len() <= 51,
            "{}",
            ring.items.len()
        );
        // The key frame is gone, so nobody may begin in the middle of its GOP.
        let (_, cursor) = ring.join(Join::Burst);
        assert_eq!(cursor, ring.head());
    }

    #[test]
    fn tiny_messages_at_one_time_are_bounded_by_their_number() {
        let mut ring = Ring::new();
        push(&mut ring, Kind::Video, 0, KEY);
        for _ in 0..2 * MAX_MESSAGES {
            push(&mut ring, Kind::Video, 0, INTER);
        }
        assert_eq!(ring.items.len(), MAX_MESSAGES);
        assert_eq!(ring.newest_start(), None);
    }

    #[test]
    fn audio_without_video_lets_a_joiner_begin_anywhere() {
        let mut ring = Ring::new();
        for n in 0..10 {
            push(&mut ring, Kind::Audio, n * 21, SOUND);
        }
        let (_, cursor) = ring.join(Join::Burst);
        assert_eq!(read(&ring, cursor), [(Kind::Audio, 9 * 21)]);
    }

    #[test]
    fn headers_of_a_key_frame_are_those_of_its_time() {
        let mut ring = two_gops();
        let start = ring.newest_start().unwrap();
        push(&mut ring, Kind::Video, 2_000, &[0x17, 0, 0, 0, 0, 2]);
        let headers = ring.item(start).unwrap().headers().unwrap();
        assert_eq!(headers.iter().next().unwrap().payload.last(), Some(&1));
        assert_eq!(
            ring.headers().iter().next().unwrap().payload.last(),
            Some(&2)
        );
    }
}
