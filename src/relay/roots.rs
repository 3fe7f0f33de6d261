//! Where in a ring the video tracks beside the main one can be decoded from.
//!
//! Readers begin, and continue after a skip, at key frames of the main track. What a ring then has of another track is of
//! no use to them before that track's own next key frame: its frames carry the place of the key frame that they build on
//! ([`Item::root`](super::Item::root)), and [`Pace`](super::Pace) leaves those out whose key frame lies before the
//! reader's beginning. Nothing is kept here for a stream with one track.

use std::time::Duration;

use crate::media::{MediaTime, Message, payload};

/// A track that has been silent for so long, in media time, is taken for gone. Until then a viewer that came after its
/// last key frame is weighed message by message, which costs more than following its loop.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The newest key frame of each video track that is, or may come to be, beside the main one.
#[derive(Debug, Default)]
pub(super) struct Roots {
    /// Track ids are bytes, so there are 256 at most.
    tracks: Vec<Track>,
}

#[derive(Debug)]
struct Track {
    id: u8,
    /// Sequence number of its newest key frame.
    key: u64,
    /// Time of its newest message.
    seen: MediaTime,
}

impl Roots {
    /// Takes note of a message with key frames, at that sequence number.
    pub fn note_keys(&mut self, message: &Message, at: u64) {
        let ids = payload::tracks(message.kind, &message.payload);
        for id in ids.iter() {
            let known = self.tracks.iter_mut().find(|track| track.id == id);
            let (key, seen) = (at, message.dts);
            match known {
                Some(track) => *track = Track { id, key, seen },
                None => self.tracks.push(Track { id, key, seen }),
            }
        }
    }

    /// The oldest key frame that frames of other tracks than the main one build on; `None` when one of them has none.
    pub fn root(&self, message: &Message) -> Option<u64> {
        let ids = payload::tracks(message.kind, &message.payload);
        let track = |id| self.tracks.iter().find(|track| track.id == id);
        let mut keys = ids.iter().map(|id| track(id).map(|track| track.key));
        keys.try_fold(u64::MAX, |oldest, key| Some(oldest.min(key?)))
    }

    /// Takes note of frames that build on key frames.
    pub fn note_frames(&mut self, message: &Message) {
        let ids = payload::tracks(message.kind, &message.payload);
        for track in &mut self.tracks {
            if ids.contains(track.id) {
                track.seen = message.dts;
            }
        }
    }

    /// Lets go of tracks that come no more; `now` is the time of the newest message.
    pub fn prune(&mut self, now: MediaTime) {
        self.tracks
            .retain(|track| now.since(track.seen) < FORGOTTEN);
    }

    /// Nothing that comes builds on what was.
    pub fn clear(&mut self) {
        self.tracks.clear();
    }

    /// Can a reader that began at sequence number `began` decode all that comes from `cursor` on?
    ///
    /// Each track's newest key frame lies in what it has read since it began; so whatever comes builds on that one or on
    /// one that comes, also where the ring is further than `cursor`.
    pub fn are_within(&self, began: u64, cursor: u64) -> bool {
        let mut tracks = self.tracks.iter();
        tracks.all(|track| (began..cursor).contains(&track.key))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::media::Kind;
    use crate::relay::ring::{Join, Ring};
    use crate::relay::{Behind, Budget, Config, Item, Pace};

    const KEY: &[u8] = b"\x17\x01\0\0\0K";
    const INTER: &[u8] = b"\x27\x01\0\0\0i";
    const KEY_1: &[u8] = b"\x96\x01av01\x01K";
    const INTER_1: &[u8] = b"\xa6\x01av01\x01i";
    const KEY_2: &[u8] = b"\x96\x01av01\x02K";
    const INTER_1_AND_2: &[u8] = b"\xa6\x11av01\x01\0\0\x01i\x02\0\0\x01i";
    const KEY_0_AND_1: &[u8] = b"\x96\x11av01\0\0\0\x01K\x01\0\0\x01K";

    fn message(n: usize, payload: &'static [u8]) -> Arc<Message> {
        let dts = MediaTime(40 * n as i64);
        Arc::new(Message::new(Kind::Video, dts, payload.into()))
    }

    /// A ring of these, 40 ms apart; what no reader could make use of is left out, as feeds do.
    fn ring(payloads: &[&'static [u8]]) -> Ring {
        let mut ring = Ring::new();
        ring.set_read(true);
        extend(&mut ring, payloads);
        ring
    }

    fn extend(ring: &mut Ring, payloads: &[&'static [u8]]) {
        for payload in payloads {
            let message = message(ring.head() as usize, payload);
            if !ring.lacks_root(&message) {
                ring.push(message, &Config::default());
            }
        }
    }

    fn payload(item: &Arc<Item>) -> &[u8] {
        &item.message().payload
    }

    /// What a reader gets that begins at `cursor`, in time.
    fn given(ring: &Ring, mut cursor: u64) -> Vec<Vec<u8>> {
        let (now, budget) = (Instant::now(), Budget::viewer());
        let mut items = Vec::new();
        ring.read(&mut cursor, usize::MAX, &mut items);
        let mut pace = Pace::waiting(now);
        let mut judge = |item: &&Arc<Item>| {
            use crate::relay::Verdict::{Resume, Send};
            let verdict = pace.judge(item, Behind::default(), &budget, now);
            assert_eq!(pace.skipping(), None, "nobody misses it");
            matches!(verdict, Send | Resume)
        };
        let given = items.iter().filter(|item| judge(item));
        given.map(|item| payload(item).to_vec()).collect()
    }

    #[test]
    fn a_reader_gets_each_track_from_its_own_key_frame_on() {
        let ring = ring(&[
            KEY, KEY_1, INTER, INTER_1, KEY, INTER_1, INTER, KEY_1, INTER_1,
        ]);
        let all = given(&ring, 0);
        assert_eq!(all.len(), 9);
        // From the second key frame of the main track on: track 1 waits for its own.
        assert_eq!(given(&ring, 4), [KEY, INTER, KEY_1, INTER_1]);
    }

    #[test]
    fn a_squeezed_burst_has_each_track_from_its_own_key_frame_on() {
        let ring = ring(&[KEY, KEY_1, INTER_1, KEY, INTER_1, INTER, KEY_1, INTER_1]);
        let (private, _) = ring.join(Join::Squeeze);
        let got: Vec<_> = private.iter().map(payload).collect();
        assert_eq!(got, [KEY, INTER, KEY_1, INTER_1]);
        // 280 ms is the last one's own time.
        let times: Vec<_> = private.iter().map(|i| i.message().dts.0).collect();
        assert_eq!(times, [277, 278, 279, 280]);
        assert_eq!(private[3].root(), Some(6));
    }

    #[test]
    fn frames_whose_key_frame_never_came_go_to_nobody() {
        let mut ring = ring(&[
            KEY,
            INTER_1,
            KEY_2,
            INTER_1_AND_2,
            INTER,
            KEY_1,
            INTER_1_AND_2,
        ]);
        let all = [KEY, KEY_2, INTER, KEY_1, INTER_1_AND_2];
        assert_eq!(given(&ring, 0), all);
        // Nor across the end of an epoch, or a splice.
        ring.seal();
        extend(&mut ring, &[KEY, INTER_1, INTER]);
        assert_eq!(given(&ring, 5), [KEY, INTER]);
    }

    #[test]
    fn frames_of_several_tracks_wait_for_the_last_of_their_key_frames() {
        let ring = ring(&[
            KEY,
            KEY_1,
            KEY_2,
            KEY,
            KEY_1,
            INTER_1_AND_2,
            KEY_2,
            INTER_1_AND_2,
        ]);
        assert_eq!(given(&ring, 3), [KEY, KEY_1, KEY_2, INTER_1_AND_2]);
    }

    #[test]
    fn a_key_frame_of_all_tracks_in_one_message_is_a_beginning_for_each() {
        let ring = ring(&[KEY, KEY_1, KEY_0_AND_1, INTER_1, INTER]);
        assert_eq!(given(&ring, 2), [KEY_0_AND_1, INTER_1, INTER]);
    }

    #[test]
    fn a_track_that_was_the_main_one_goes_on_when_track_0_comes_up() {
        use crate::media::payload::MainTrack;
        let mut main = MainTrack::default();
        let mut ring = Ring::new();
        for payload in [KEY_1, INTER_1, KEY, INTER_1] {
            let message = main.read(Kind::Video, MediaTime::ZERO, payload.into());
            assert!(!ring.lacks_root(&message));
            ring.push(Arc::new(message), &Config::default());
        }
        assert_eq!(given(&ring, 0).len(), 4);
        assert_eq!(given(&ring, 2), [KEY]);
    }

    #[test]
    fn a_reader_is_settled_once_it_has_had_a_key_frame_of_each_track() {
        let mut ring = ring(&[KEY, KEY_1, INTER, KEY, INTER_1]);
        assert!(ring.is_settled(0, 2) && ring.is_settled(0, 5));
        assert!(!ring.is_settled(0, 1), "it has not read it yet");
        assert!(!ring.is_settled(3, 5), "it has begun behind it");
        extend(&mut ring, &[INTER, KEY_1]);
        assert!(
            !ring.is_settled(3, 6),
            "what it reads next may build on the older one"
        );
        assert!(ring.is_settled(3, 7));
    }

    #[test]
    fn a_track_that_comes_no_more_is_forgotten() {
        let mut ring = ring(&[KEY, KEY_1]);
        let at = |ms: i64| Arc::new(Message::new(Kind::Video, MediaTime(ms), KEY.into()));
        ring.push(at(60_039), &Config::default());
        assert!(!ring.is_settled(2, 3));
        ring.push(at(60_040), &Config::default());
        assert!(ring.is_settled(2, 3));
        let frame = Message::new(Kind::Video, MediaTime(60_080), INTER_1.into());
        assert!(ring.lacks_root(&frame));
    }

    #[test]
    fn a_stream_of_one_track_keeps_nothing() {
        let ring = ring(&[KEY, INTER, b"\x93avc1K", b"\xa3avc1i", b"\x96\x01av01\0K"]);
        assert_eq!(ring.roots.tracks.capacity(), 0);
        let root = |n| ring.item(n).unwrap().root();
        assert_eq!([root(0), root(1), root(2)], [Some(0), None, Some(2)]);
    }
}
