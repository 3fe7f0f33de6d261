//! Decides, message by message, what one connection to a target gets. Pure.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::outbox::Outbox;
use super::status::Offered;
use crate::media::{Kind, MediaTime, Message, Role, Slot};
use crate::relay::{self, Budget, Cause, Item, Pace, Verdict};
use crate::rtmp::{Framed, MEDIA_STREAM_ID};

/// AMF0 string `@setDataFrame`: what a publisher says before metadata, so that servers keep it for those who join later.
const SET_DATA_FRAME: &[u8] = b"\x02\x00\x0d@setDataFrame";

/// One connection's place in its feed.
pub(super) struct Feeder {
    budget: Budget,
    pace: Pace,
    /// Latest decode time that an earlier connection of the target handed out: this one begins after it.
    resume_after: Option<MediaTime>,
    /// Nothing was sent yet on this connection.
    before_begin: bool,
    /// The message stream as the target numbered it.
    stream_id: u32,
    newest: Option<MediaTime>,
    /// How far behind the last message was that was judged.
    behind: Duration,
    /// Since the last [`Feeder::take_counts`].
    counts: Offered,
}

/// How far behind a connection is when a message's turn comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind {
    /// Time of the feed's newest message.
    pub head: MediaTime,
    /// What the media is worth that is on its way to the target.
    pub on_the_way: Duration,
}

impl Feeder {
    /// For a connection that may publish since `now`. `max_lag`: see [`super::Config::max_lag`].
    pub(super) fn new(
        stream_id: u32,
        resume_after: Option<MediaTime>,
        max_lag: Duration,
        now: Instant,
    ) -> Self {
        Self {
            budget: Budget {
                max_lag,
                // What waits in the connection's outbox is bounded there.
                max_bytes: usize::MAX,
                // The connection's own watchdog is shorter and knows what the socket took.
                stuck: Duration::MAX,
            },
            pace: Pace::waiting(now),
            resume_after,
            before_begin: true,
            stream_id,
            newest: resume_after,
            behind: Duration::ZERO,
            counts: Offered::default(),
        }
    }

    /// Latest decode time handed out, on this connection or before.
    pub(super) fn newest(&self) -> Option<MediaTime> {
        self.newest
    }

    /// How far behind the target was at the last message.
    pub(super) fn behind(&self) -> Duration {
        self.behind
    }

    /// What became of messages since the last call.
    pub(super) fn take_counts(&mut self) -> Offered {
        std::mem::take(&mut self.counts)
    }

    /// The ring moved the cursor over this many messages.
    pub(super) fn lost(&mut self, messages: u64) {
        self.counts.dropped += messages;
        if !self.before_begin {
            self.counts.skips += u64::from(self.pace.skipping().is_none());
            self.pace.skip(Cause::Lost);
        }
    }

    /// Judges the next item.
    pub(super) fn offer(&mut self, item: &Item, behind: Behind, now: Instant, out: &mut Outbox) {
        let message = item.message();
        let seen = self.resume_after.is_some_and(|last| message.dts <= last);
        if seen && !message.is_header() {
            return;
        }
        let can_begin = item.headers().is_some();
        if self.before_begin {
            // Headers come with the place to begin, as that place needs them.
            if !can_begin {
                self.counts.dropped += u64::from(!message.is_header());
                return;
            }
            self.before_begin = false;
            // The recorded group of pictures lies behind the live edge by design; that is no lag.
            self.pace = Pace::joining(item, None, now);
            return self.begin(item, out);
        }
        let behind = relay::Behind {
            time: behind.head.since(message.dts) + behind.on_the_way,
            bytes: 0,
        };
        self.behind = behind.time;
        let was_skipping = self.pace.skipping().is_some();
        let verdict = self.pace.judge(item, behind, &self.budget, now);
        self.counts.skips += u64::from(!was_skipping && self.pace.skipping().is_some());
        match verdict {
            Verdict::Send => self.send(item, out),
            Verdict::Resume => self.begin(item, out),
            Verdict::Drop | Verdict::Evict => self.counts.dropped += 1,
        }
    }

    /// A place to begin, with what a decoder needs before it.
    fn begin(&mut self, item: &Item, out: &mut Outbox) {
        for header in item.headers().into_iter().flat_map(|set| set.iter()) {
            out.push(self.frame(header, item.message().dts));
            self.counts.messages += 1;
        }
        self.send(item, out);
    }

    fn send(&mut self, item: &Item, out: &mut Outbox) {
        let message = item.message();
        let shared = self.stream_id == MEDIA_STREAM_ID && !is_metadata(message);
        out.push(if shared {
            item.rtmp().clone()
        } else {
            self.frame(message, message.dts)
        });
        self.counts.messages += 1;
        self.newest = self.newest.max(Some(message.dts));
    }

    /// A framing of this connection's own, around the same payload.
    fn frame(&self, message: &Message, dts: MediaTime) -> Framed {
        let payload = if is_metadata(message) {
            set_data_frame(&message.payload)
        } else {
            message.payload.clone()
        };
        Framed::new(message.kind.type_id(), dts.wire(), self.stream_id, payload)
    }
}

fn is_metadata(message: &Message) -> bool {
    message.kind == Kind::Data
        && matches!(message.role, Role::Header(slot) if slot.slot == Slot::Metadata)
}

fn set_data_frame(payload: &Bytes) -> Bytes {
    let mut whole = BytesMut::with_capacity(SET_DATA_FRAME.len() + payload.len());
    whole.extend_from_slice(SET_DATA_FRAME);
    whole.extend_from_slice(payload);
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Headers;
    use std::sync::Arc;

    const KEY: &[u8] = &[0x17, 1, 0, 0, 0, 9];
    const INTER: &[u8] = &[0x27, 1, 0, 0, 0, 9];
    const VIDEO_HEADER: &[u8] = &[0x17, 0, 0, 0, 0, 1];
    const METADATA: &[u8] = b"\x02\0\x0aonMetaData\x05";
    const SOUND: &[u8] = &[0xaf, 1, 9];
    const MAX_LAG: Duration = Duration::from_secs(3);

    fn message(kind: Kind, dts: i64, payload: &'static [u8]) -> Arc<Message> {
        Arc::new(Message::new(
            kind,
            MediaTime(dts),
            Bytes::from_static(payload),
        ))
    }

    fn headers() -> Arc<Headers> {
        Arc::new(
            Headers::default()
                .with(&message(Kind::Video, 0, VIDEO_HEADER))
                .with(&message(Kind::Data, 0, METADATA)),
        )
    }

    fn video(dts: i64, key: bool) -> Item {
        let payload = if key { KEY } else { INTER };
        Item::new(message(Kind::Video, dts, payload), key.then(headers))
    }

    fn sound(dts: i64) -> Item {
        Item::new(message(Kind::Audio, dts, SOUND), None)
    }

    fn at(head: i64) -> Behind {
        Behind {
            head: MediaTime(head),
            on_the_way: Duration::ZERO,
        }
    }

    /// Offers, and says how many messages came out of it.
    fn offer(feeder: &mut Feeder, item: &Item, head: i64, now: Instant) -> u64 {
        let mut out = Outbox::default();
        feeder.offer(item, at(head), now, &mut out);
        let messages = feeder.take_counts().messages;
        assert_eq!(out.is_empty(), messages == 0);
        messages
    }

    #[test]
    fn a_connection_begins_with_headers_and_a_key_frame() {
        let now = Instant::now();
        let mut feeder = Feeder::new(1, None, MAX_LAG, now);
        assert_eq!(offer(&mut feeder, &sound(0), 0, now), 0);
        assert_eq!(offer(&mut feeder, &video(40, false), 40, now), 0);
        // Metadata, decoder configuration, key frame.
        assert_eq!(offer(&mut feeder, &video(80, true), 80, now), 3);
        assert_eq!(offer(&mut feeder, &sound(90), 90, now), 1);
        assert_eq!(offer(&mut feeder, &video(120, false), 120, now), 1);
        assert_eq!(feeder.newest(), Some(MediaTime(120)));
    }

    #[test]
    fn a_reconnection_begins_at_a_key_frame_after_all_that_was_sent_before() {
        let now = Instant::now();
        let mut feeder = Feeder::new(1, Some(MediaTime(100)), MAX_LAG, now);
        assert_eq!(offer(&mut feeder, &video(0, true), 200, now), 0);
        assert_eq!(offer(&mut feeder, &video(100, true), 200, now), 0);
        assert_eq!(offer(&mut feeder, &video(140, false), 200, now), 0);
        assert_eq!(offer(&mut feeder, &video(180, true), 200, now), 3);
        // Interleaved a little behind the picture, but heard before.
        assert_eq!(offer(&mut feeder, &sound(99), 200, now), 0);
        assert_eq!(offer(&mut feeder, &sound(101), 200, now), 1);
    }

    #[test]
    fn a_long_recorded_group_of_pictures_is_not_lag() {
        let now = Instant::now();
        let mut feeder = Feeder::new(1, None, MAX_LAG, now);
        // The newest key frame is 8 s behind the head: all of it goes out.
        assert_eq!(offer(&mut feeder, &video(0, true), 8_000, now), 3);
        for dts in (40..=8_000).step_by(40) {
            assert_eq!(
                offer(&mut feeder, &video(dts, false), 8_000, now),
                1,
                "{dts}"
            );
        }
    }

    #[test]
    fn a_target_that_falls_behind_continues_at_a_key_frame_in_time() {
        let now = Instant::now();
        let mut feeder = Feeder::new(1, None, MAX_LAG, now);
        assert_eq!(offer(&mut feeder, &video(0, true), 0, now), 3);
        // It has caught up; from now on lag counts.
        assert_eq!(offer(&mut feeder, &video(20, false), 20, now), 1);
        assert_eq!(offer(&mut feeder, &video(40, false), 3_041, now), 0);
        assert_eq!(offer(&mut feeder, &video(80, false), 80, now), 0);
        assert_eq!(offer(&mut feeder, &sound(80), 80, now), 1);
        assert_eq!(offer(&mut feeder, &video(120, true), 120, now), 3);
        feeder.lost(500);
        assert_eq!(offer(&mut feeder, &video(20_000, false), 20_000, now), 0);
        assert_eq!(offer(&mut feeder, &video(20_040, true), 20_040, now), 3);
        let mut out = Outbox::default();
        feeder.lost(5);
        feeder.offer(&video(20_080, false), at(20_080), now, &mut out);
        assert!(out.is_empty());
        let counts = feeder.take_counts();
        assert_eq!((counts.messages, counts.dropped, counts.skips), (0, 6, 1));
    }

    #[test]
    fn what_the_target_has_yet_to_receive_counts_as_lag() {
        let now = Instant::now();
        let mut feeder = Feeder::new(1, None, MAX_LAG, now);
        let mut out = Outbox::default();
        let mut offer = |item: &Item, head, on_the_way| {
            let behind = Behind {
                head: MediaTime(head),
                on_the_way: Duration::from_millis(on_the_way),
            };
            feeder.offer(item, behind, now, &mut out);
            feeder.take_counts()
        };
        offer(&video(0, true), 0, 0);
        assert_eq!(offer(&video(40, false), 40, 3_000).messages, 1);
        let skipped = offer(&video(80, false), 80, 3_001);
        assert_eq!((skipped.dropped, skipped.skips), (1, 1));
        let skipped = offer(&video(120, false), 120, 2_000);
        assert_eq!((skipped.dropped, skipped.skips), (1, 0));
        assert_eq!(offer(&video(160, true), 160, 2_000).messages, 3);
    }

    #[test]
    fn metadata_is_sent_as_a_publisher_sends_it() {
        let framed = |stream_id| {
            let feeder = Feeder::new(stream_id, None, MAX_LAG, Instant::now());
            feeder.frame(&message(Kind::Data, 0, METADATA), MediaTime(7))
        };
        assert_eq!(
            framed(1).payload().as_ref(),
            b"\x02\x00\x0d@setDataFrame\x02\0\x0aonMetaData\x05"
        );
    }

    #[test]
    fn a_target_that_numbers_its_stream_otherwise_gets_its_own_number() {
        for stream_id in [1, 5] {
            let now = Instant::now();
            let mut feeder = Feeder::new(stream_id, None, MAX_LAG, now);
            let mut out = Outbox::default();
            feeder.offer(&video(0, true), at(0), now, &mut out);
            let mut ids = Vec::new();
            for framed in out.framed() {
                let mut bytes = BytesMut::new();
                framed.write_to(&mut bytes);
                // The message stream id is the one little-endian field of the header.
                ids.push(u32::from_le_bytes(bytes[8..12].try_into().unwrap()));
            }
            assert_eq!(ids, [stream_id; 3]);
        }
    }
}
