//! How fast pictures come, from their decode times.

use std::collections::VecDeque;

use super::{Kind, Message};

/// Intervals needed before a frame rate is told.
const MIN: usize = 8;
/// Newest intervals that are looked at: some seconds of frames.
const WINDOW: usize = 64;

/// The frame interval of a stream, from its decode times.
#[derive(Debug, Default)]
pub struct Cadence {
    intervals_ms: VecDeque<i64>,
    last_ms: Option<i64>,
}

impl Cadence {
    /// Of the frames of the main track among messages in their order.
    pub fn of<'a>(messages: impl Iterator<Item = &'a Message>) -> Self {
        let mut cadence = Self::default();
        for message in messages.filter(|m| m.kind == Kind::Video && !m.is_header() && m.track == 0)
        {
            cadence.observe(message.dts.0);
        }
        cadence
    }

    /// Takes note of a frame. Times are decode times in milliseconds, of whatever zero.
    pub fn observe(&mut self, dts_ms: i64) {
        if let Some(last) = self.last_ms
            && (1..=1_000).contains(&(dts_ms - last))
        {
            if self.intervals_ms.len() == WINDOW {
                self.intervals_ms.pop_front();
            }
            self.intervals_ms.push_back(dts_ms - last);
        }
        self.last_ms = Some(dts_ms);
    }

    /// Usual time from frame to frame; `None` until enough frames were seen. Lost frames and pauses do not
    /// count; the mean of what is left undoes the rounding of times to whole milliseconds.
    pub fn interval_us(&self) -> Option<i64> {
        if self.intervals_ms.len() < MIN {
            return None;
        }
        let mut sorted: Vec<_> = self.intervals_ms.iter().copied().collect();
        sorted.sort_unstable();
        let median = sorted[sorted.len() / 2];
        let usual: Vec<_> = sorted
            .into_iter()
            .filter(|&ms| 2 * ms > median && 2 * ms < 3 * median.max(2))
            .collect();
        let sum: i64 = usual.iter().sum();
        (!usual.is_empty()).then(|| sum * 1_000 / usual.len() as i64)
    }

    /// Frames a second, rounded to a whole number from 1 to 60.
    pub fn fps(&self) -> Option<u32> {
        let interval = self.interval_us()?;
        let fps = (1_000_000.0 / interval as f64).round();
        Some(fps.clamp(1.0, 60.0) as u32)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::media::MediaTime;

    #[test]
    fn the_frame_rate_survives_rounding_and_lost_frames() {
        for (fps, expected) in [(15.0, 15), (20.0, 20), (24.0, 24), (29.97, 30), (59.94, 60)] {
            let mut cadence = Cadence::default();
            for n in (0..50).filter(|n| n % 17 != 5) {
                cadence.observe((f64::from(n) * 1_000.0 / fps) as i64);
            }
            assert_eq!(cadence.fps(), Some(expected), "{fps}");
        }
        assert_eq!(Cadence::default().fps(), None);
    }

    #[test]
    fn only_frames_of_the_main_track_count() {
        let message = |kind, ms, payload: &'static [u8]| {
            Message::new(kind, MediaTime(ms), Bytes::from_static(payload))
        };
        let mut messages = Vec::new();
        for n in 0..20 {
            messages.push(message(Kind::Video, n * 50, &[0x27, 1, 0, 0, 0, 1]));
            messages.push(message(Kind::Audio, n * 50 + 20, &[0xaf, 1, 1]));
            messages.push(message(Kind::Video, n * 50 + 30, &[0x17, 0, 0, 0, 0, 1]));
        }
        assert_eq!(Cadence::of(messages.iter()).fps(), Some(20));
        assert_eq!(Cadence::of(messages[..6].iter()).fps(), None, "too few");
    }
}
