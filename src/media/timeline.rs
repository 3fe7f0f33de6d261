//! A feed's own timeline: a row of segments, each with one offset common to audio and video.
//!
//! The source feed has a segment per publish epoch; the program feed has one per splice. Pure: the
//! caller says what time it is.

use std::time::Instant;

use super::message::{Kind, MediaTime, Message};

/// A presentation time before any: the first pictures of a feed may be shown before its zero.
const NEVER: MediaTime = MediaTime(i64::MIN / 2);
/// Most tracks whose own decode times are remembered; further ones of a kind count as one.
const MAX_TRACKS: usize = 32;

/// Maps the times of whatever is feeding now onto one timeline that never goes back.
///
/// Zero is the first message ever mapped.
#[derive(Debug)]
pub struct Timeline {
    /// Added to the input's times, in ms; `None` until the next message begins a segment.
    offset: Option<i64>,
    /// Latest decode time given out, and when.
    newest: Option<(MediaTime, Instant)>,
    /// Latest presentation time given out; [`NEVER`] before the first.
    newest_pts: MediaTime,
    /// Latest decode time given out per kind, and when.
    per_kind: [Option<(MediaTime, Instant)>; 3],
    /// Latest decode time given out per track, of publishers with several: no track waits for another's.
    per_track: Vec<(Kind, u8, MediaTime)>,
    /// Where the running segment began.
    segment_start: MediaTime,
    /// Latest presentation time of the segments before the running one, moved on by what was squeezed behind it.
    pts_floor: MediaTime,
}

/// Where a message lands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub dts: MediaTime,
    pub pts: MediaTime,
}

impl Placed {
    /// Does the message land at the times that it has?
    pub fn keeps(&self, message: &Message) -> bool {
        (self.dts, self.pts) == (message.dts, message.pts())
    }
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new()
    }
}

impl Timeline {
    pub fn new() -> Self {
        Self {
            offset: None,
            newest: None,
            newest_pts: NEVER,
            per_kind: [None; 3],
            per_track: Vec::new(),
            segment_start: MediaTime::ZERO,
            pts_floor: NEVER,
        }
    }

    /// Begins a segment whose first message has the decode time `first` on the input's timeline.
    ///
    /// It lands at the last decode time given out plus the wall time passed since (at least 1 ms).
    ///
    /// After a feeder that reorders frames, presentation times already given out may be later than that. Pictures of
    /// the new segment that would be shown before are then presented right behind them, a millisecond apart: decode
    /// times run on without a hole, sound stays with its pictures, and no picture is shown out of order.
    pub fn begin_segment(&mut self, first: MediaTime, now: Instant) {
        self.begin_at(first, self.next_start(now));
    }

    /// Begins a segment like [`Self::begin_segment`], but at `start` of this timeline. Each track stays behind what was
    /// given out of it all the same.
    pub fn begin_segment_at(&mut self, first: MediaTime, start: MediaTime) {
        self.begin_at(first, start);
    }

    fn begin_at(&mut self, first: MediaTime, start: MediaTime) {
        self.segment_start = start;
        self.offset = Some(start - first);
        self.pts_floor = self.newest_pts;
    }

    /// Nothing of the running segment was heard before: also what belongs before its beginning has a place, behind what
    /// was given out.
    pub fn keep_early(&mut self) {
        self.segment_start = NEVER;
    }

    /// Where a segment that began now would begin.
    pub fn next_start(&self, now: Instant) -> MediaTime {
        match self.newest {
            None => MediaTime::ZERO,
            Some((newest, at)) => {
                newest + now.saturating_duration_since(at).as_millis().max(1) as i64
            }
        }
    }

    /// Where a decode time of the running segment's feeder lands, clamps aside; `None` between segments.
    pub fn locate(&self, dts: MediaTime) -> Option<MediaTime> {
        self.offset.map(|offset| dts + offset)
    }

    /// Another feeder takes over with a clock of its own: the next message mapped begins a segment.
    pub fn new_feeder(&mut self) {
        self.offset = None;
    }

    /// Where a message lands, or `None` when it belongs before this segment's beginning: after a splice
    /// the new feeder's audio may lag its first key frame, and what it lags by was already heard.
    ///
    /// The first message ever begins the first segment, and the first after [`Self::new_feeder`] the next;
    /// headers and script data before it land where it would begin now.
    pub fn map(&mut self, message: &Message, now: Instant) -> Option<Placed> {
        let offset = match self.offset {
            Some(offset) => offset,
            // Headers and metadata often carry time 0 whatever the media's clock says: they begin nothing.
            None if message.is_header() || message.kind == Kind::Data => {
                let dts = self.next_start(now);
                return Some(Placed { dts, pts: dts });
            }
            None => {
                self.begin_segment(message.dts, now);
                self.segment_start - message.dts
            }
        };
        let mapped = message.dts + offset;
        let last = self.last_of(message);
        let dts = match last {
            Some(last) if mapped <= last && message.is_header() => last,
            Some(last) if mapped <= last && mapped < self.segment_start => return None,
            Some(last) if mapped <= last => last + 1,
            _ => mapped.max(MediaTime::ZERO),
        };
        if !message.is_header() {
            self.note(message, dts, now);
        }
        if self.newest.is_none_or(|(newest, _)| dts >= newest) {
            self.newest = Some((dts, now));
        }
        // What is moved to stay behind its predecessor is not shown before it is decoded; what comes as it was sent
        // may be: composition times below zero are how some encoders say "reordered".
        let sent = mapped + i64::from(message.composition_ms);
        let mut pts = if dts == mapped { sent } else { sent.max(dts) };
        if message.kind == Kind::Video && !message.is_header() {
            if pts <= self.pts_floor {
                self.pts_floor = self.pts_floor + 1;
                pts = self.pts_floor;
            }
            self.newest_pts = self.newest_pts.max(pts);
        }
        Some(Placed { dts, pts })
    }

    /// What the next decode time of the message's track must lie behind.
    fn last_of(&self, message: &Message) -> Option<MediaTime> {
        let track = (message.kind, message.track);
        match self.per_track.iter().find(|(k, t, _)| (*k, *t) == track) {
            Some((_, _, dts)) => Some(*dts),
            None if self.per_track.len() < MAX_TRACKS => None,
            None => self.newest_of(message.kind).map(|(dts, _)| dts),
        }
    }

    fn note(&mut self, message: &Message, dts: MediaTime, now: Instant) {
        let full = self.per_track.len() == MAX_TRACKS;
        let (kind, track) = (message.kind, message.track);
        let known = self
            .per_track
            .iter_mut()
            .find(|(k, t, _)| (*k, *t) == (kind, track));
        match known {
            Some((_, _, last)) => *last = dts,
            None if !full => self.per_track.push((kind, track, dts)),
            None => {}
        }
        let newest = &mut self.per_kind[kind.index()];
        if newest.is_none_or(|(newest, _)| dts >= newest) {
            *newest = Some((dts, now));
        }
    }

    /// Latest decode time given out of one kind, and when; `None` before its first.
    pub fn newest_of(&self, kind: Kind) -> Option<(MediaTime, Instant)> {
        self.per_kind[kind.index()]
    }

    /// Latest decode time given out, and when; `None` before the first.
    pub fn newest(&self) -> Option<(MediaTime, Instant)> {
        self.newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::time::Duration;

    fn video(dts: i64, composition: u8) -> Message {
        Message::new(
            Kind::Video,
            MediaTime(dts),
            Bytes::copy_from_slice(&[0x27, 1, 0, 0, composition]),
        )
    }

    fn audio(dts: i64) -> Message {
        Message::new(
            Kind::Audio,
            MediaTime(dts),
            Bytes::from_static(&[0xaf, 1, 0]),
        )
    }

    /// Where a message's decode time lands.
    fn at(line: &mut Timeline, message: &Message, now: Instant) -> Option<MediaTime> {
        line.map(message, now).map(|placed| placed.dts)
    }

    #[test]
    fn a_new_segment_continues_at_last_dts_plus_wall_time() {
        let t0 = Instant::now();
        let mut line = Timeline::new();
        assert_eq!(at(&mut line, &video(90_000, 0), t0), Some(MediaTime(0)));
        assert_eq!(
            at(&mut line, &video(90_040, 0), t0 + Duration::from_millis(40)),
            Some(MediaTime(40))
        );
        // 2 s of silence, then another encoder whose clock starts at 7.
        line.begin_segment(MediaTime(7), t0 + Duration::from_millis(2_040));
        assert_eq!(
            at(&mut line, &video(7, 0), t0 + Duration::from_millis(2_040)),
            Some(MediaTime(2_040))
        );
        assert_eq!(
            at(&mut line, &audio(17), t0 + Duration::from_millis(2_050)),
            Some(MediaTime(2_050))
        );
    }

    #[test]
    fn headers_with_time_zero_do_not_set_the_clock() {
        let t0 = Instant::now();
        let mut line = Timeline::new();
        let header = Message::new(
            Kind::Video,
            MediaTime(0),
            Bytes::from_static(&[0x17, 0, 0, 0, 0]),
        );
        assert_eq!(at(&mut line, &header, t0), Some(MediaTime(0)));
        assert_eq!(at(&mut line, &video(9_000, 0), t0), Some(MediaTime(0)));
        assert_eq!(at(&mut line, &video(9_040, 0), t0), Some(MediaTime(40)));
    }

    #[test]
    fn a_segment_begins_at_least_a_millisecond_later() {
        let t0 = Instant::now();
        let mut line = Timeline::new();
        line.map(&video(0, 0), t0);
        line.begin_segment(MediaTime(500), t0);
        assert_eq!(at(&mut line, &video(500, 0), t0), Some(MediaTime(1)));
    }

    #[test]
    fn pictures_behind_reordered_ones_are_squeezed_until_time_has_caught_up() {
        let t0 = Instant::now();
        let mut line = Timeline::new();
        // A feeder with frames shown 80 ms after they are decoded, then one without reordering.
        line.map(&video(0, 80), t0);
        line.begin_segment(MediaTime(7_000), t0 + Duration::from_millis(40));
        let placed: Vec<_> = [7_000, 7_040, 7_080, 7_120]
            .map(|dts| line.map(&video(dts, 0), t0).unwrap())
            .iter()
            .map(|p| (p.dts.0, p.pts.0))
            .collect();
        assert_eq!(placed, [(40, 81), (80, 82), (120, 120), (160, 160)]);
        // Sound keeps the offset of the decode times.
        assert_eq!(at(&mut line, &audio(7_100), t0), Some(MediaTime(140)));
    }

    #[test]
    fn pictures_shown_before_their_decode_time_stay_as_sent() {
        let t0 = Instant::now();
        let mut line = Timeline::new();
        let mut place = |dts, composition: i8| {
            let sign = if composition < 0 { 0xff } else { 0 };
            let payload = [0x27, 1, sign, sign, composition as u8];
            let payload = Bytes::copy_from_slice(&payload);
            let message = Message::new(Kind::Video, MediaTime(dts), payload);
            let placed = line.map(&message, t0).unwrap();
            (placed.dts.0, placed.pts.0)
        };
        // Decoded I P B B, shown I B B P, with the B-frames' times below zero.
        let placed = [(0, 0), (40, 80), (80, -40), (120, -40)].map(|(d, c)| place(d, c));
        assert_eq!(placed, [(0, 0), (40, 120), (80, 40), (120, 80)]);
        // One whose decode time has to move is not shown before it.
        assert_eq!(place(120, -40), (121, 121));
    }

    #[test]
    fn tracks_of_one_kind_share_times() {
        let t0 = Instant::now();
        let mut line = Timeline::new();
        let mut place = |dts, track| {
            let payload = [&b"\xa6\x03avc1"[..], &[track]].concat();
            let message = Message::new(Kind::Video, MediaTime(dts), payload.into());
            at(&mut line, &message, t0).unwrap().0
        };
        for frame in [0, 40, 80] {
            assert_eq!([0, 1, 2].map(|track| place(frame, track)), [frame; 3]);
        }
        assert_eq!(place(80, 1), 81);
        assert_eq!(place(120, 1), 120);
        assert_eq!(line.newest_of(Kind::Video).map(|(dts, _)| dts.0), Some(120));
        // Beyond the bound, tracks of a kind count as one.
        let mut place = |dts, track| {
            let payload = [&b"\xa6\x03avc1"[..], &[track]].concat();
            let message = Message::new(Kind::Video, MediaTime(dts), payload.into());
            at(&mut line, &message, t0).unwrap().0
        };
        let times: Vec<_> = (3..=255).map(|track| place(120, track)).collect();
        assert_eq!(times.iter().filter(|t| **t == 120).count(), MAX_TRACKS - 3);
        assert!(times.windows(2).all(|t| t[0] <= t[1]));
    }

    #[test]
    fn audio_from_before_the_splice_is_left_out_and_later_audio_keeps_the_common_offset() {
        let t0 = Instant::now();
        let mut line = Timeline::new();
        line.map(&video(0, 0), t0);
        line.map(&audio(10), t0);
        let splice = t0 + Duration::from_millis(20);
        line.begin_segment(MediaTime(1_000), splice);
        // last dts 10 + 20 ms of wall time = 30; audio 40 ms behind its picture maps to −10: already heard.
        assert_eq!(at(&mut line, &video(1_000, 0), splice), Some(MediaTime(30)));
        assert_eq!(at(&mut line, &audio(960), splice), None);
        assert_eq!(at(&mut line, &audio(981), splice), Some(MediaTime(11)));
        assert_eq!(at(&mut line, &audio(1_002), splice), Some(MediaTime(32)));
    }

    #[test]
    fn a_step_back_inside_a_segment_is_clamped_per_track() {
        let t0 = Instant::now();
        let mut line = Timeline::new();
        line.map(&video(0, 0), t0);
        line.map(&audio(100), t0);
        line.map(&video(40, 0), t0);
        assert_eq!(at(&mut line, &video(20, 0), t0), Some(MediaTime(41)));
        assert_eq!(at(&mut line, &audio(120), t0), Some(MediaTime(120)));
    }
}
