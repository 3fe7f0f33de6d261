//! A feed's own timeline: a row of segments, each with one offset common to audio and video.
//!
//! The source feed has a segment per publish epoch; the program feed has one per splice. Pure: the
//! caller says what time it is.

use std::time::Instant;

use super::message::{Kind, MediaTime, Message};

/// Maps the times of whatever is feeding now onto one timeline that never goes back.
///
/// Zero is the first message ever mapped.
#[derive(Debug, Default)]
pub struct Timeline {
    /// Added to the input's times, in ms; `None` until the next message begins a segment.
    offset: Option<i64>,
    /// Latest decode time given out, and when.
    newest: Option<(MediaTime, Instant)>,
    /// Latest presentation time given out.
    newest_pts: MediaTime,
    /// Latest decode time given out per kind, for the per-track clamp.
    per_kind: [Option<MediaTime>; 3],
    /// Where the running segment began.
    segment_start: MediaTime,
}

impl Timeline {
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a segment whose first message has the decode time `first` on the input's timeline.
    ///
    /// It lands at the last decode time given out plus the wall time passed since (at least 1 ms), and
    /// after every presentation time given out, so that a cut after B-frames shows no frame twice.
    pub fn begin_segment(&mut self, first: MediaTime, now: Instant) {
        let start = self.next_start(now);
        self.segment_start = start;
        self.offset = Some(start - first);
    }

    /// Begins a segment like [`Self::begin_segment`], but at `start` of this timeline, or right behind what was given
    /// out where that is later.
    pub fn begin_segment_at(&mut self, first: MediaTime, start: MediaTime) {
        let start = match self.newest {
            None => start,
            Some((newest, _)) => start.max(newest + 1).max(self.newest_pts + 1),
        };
        self.segment_start = start;
        self.offset = Some(start - first);
    }

    fn next_start(&self, now: Instant) -> MediaTime {
        match self.newest {
            None => MediaTime::ZERO,
            Some((newest, at)) => {
                let elapsed = now.saturating_duration_since(at).as_millis().max(1) as i64;
                (newest + elapsed).max(self.newest_pts + 1)
            }
        }
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
    pub fn map(&mut self, message: &Message, now: Instant) -> Option<MediaTime> {
        let offset = match self.offset {
            Some(offset) => offset,
            // Headers and metadata often carry time 0 whatever the media's clock says: they begin nothing.
            None if message.is_header() || message.kind == Kind::Data => {
                return Some(self.next_start(now));
            }
            None => {
                self.begin_segment(message.dts, now);
                self.segment_start - message.dts
            }
        };
        let mapped = message.dts + offset;
        let last = self.per_kind[message.kind.index()];
        let heard = mapped < self.segment_start && last.is_some_and(|l| mapped <= l);
        if heard && !message.is_header() {
            return None;
        }
        let dts = mapped.max(last.unwrap_or(MediaTime::ZERO));
        self.per_kind[message.kind.index()] = Some(dts);
        if self.newest.is_none_or(|(newest, _)| dts >= newest) {
            self.newest = Some((dts, now));
        }
        if message.kind == Kind::Video && !message.is_header() {
            self.newest_pts = self.newest_pts.max(dts + i64::from(message.composition_ms));
        }
        Some(dts)
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

    #[test]
    fn a_new_segment_continues_at_last_dts_plus_wall_time() {
        let t0 = Instant::now();
        let mut line = Timeline::new();
        assert_eq!(line.map(&video(90_000, 0), t0), Some(MediaTime(0)));
        assert_eq!(
            line.map(&video(90_040, 0), t0 + Duration::from_millis(40)),
            Some(MediaTime(40))
        );
        // 2 s of silence, then another encoder whose clock starts at 7.
        line.begin_segment(MediaTime(7), t0 + Duration::from_millis(2_040));
        assert_eq!(
            line.map(&video(7, 0), t0 + Duration::from_millis(2_040)),
            Some(MediaTime(2_040))
        );
        assert_eq!(
            line.map(&audio(17), t0 + Duration::from_millis(2_050)),
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
        assert_eq!(line.map(&header, t0), Some(MediaTime(0)));
        assert_eq!(line.map(&video(9_000, 0), t0), Some(MediaTime(0)));
        assert_eq!(line.map(&video(9_040, 0), t0), Some(MediaTime(40)));
    }

    #[test]
    fn a_segment_begins_at_least_a_millisecond_later() {
        let t0 = Instant::now();
        let mut line = Timeline::new();
        line.map(&video(0, 0), t0);
        line.begin_segment(MediaTime(500), t0);
        assert_eq!(line.map(&video(500, 0), t0), Some(MediaTime(1)));
    }

    #[test]
    fn no_presentation_time_already_sent_exceeds_the_cut() {
        let t0 = Instant::now();
        let mut line = Timeline::new();
        line.map(&video(0, 80), t0);
        line.begin_segment(MediaTime(0), t0 + Duration::from_millis(40));
        assert_eq!(
            line.map(&video(0, 0), t0 + Duration::from_millis(40)),
            Some(MediaTime(81))
        );
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
        assert_eq!(line.map(&video(1_000, 0), splice), Some(MediaTime(30)));
        assert_eq!(line.map(&audio(960), splice), None);
        assert_eq!(line.map(&audio(981), splice), Some(MediaTime(11)));
        assert_eq!(line.map(&audio(1_002), splice), Some(MediaTime(32)));
    }

    #[test]
    fn a_step_back_inside_a_segment_is_clamped_per_track() {
        let t0 = Instant::now();
        let mut line = Timeline::new();
        line.map(&video(0, 0), t0);
        line.map(&audio(100), t0);
        line.map(&video(40, 0), t0);
        assert_eq!(line.map(&video(20, 0), t0), Some(MediaTime(40)));
        assert_eq!(line.map(&audio(120), t0), Some(MediaTime(120)));
    }
}
