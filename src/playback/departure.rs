//! When what came in goes out: video at once with the audio that waited for it, or everything once per window.
//!
//! Pure. Most of a player's cost is the write, and 43 of 73 messages a second are audio: riding with the next
//! video message takes a third off. Called by a writer loop for all its players.

use std::sync::Arc;
use std::time::Duration;

use crate::media::{Kind, MediaTime};
use crate::relay::Item;

/// Decides how long a batch waits.
#[derive(Debug, Default)]
pub struct Departure {
    window: Duration,
    ride: Ride,
}

impl Departure {
    /// With a `window`, what came in goes out together once per window, video too; without one (zero), video goes at
    /// once and audio rides with it.
    pub fn new(window: Duration) -> Self {
        Self {
            window,
            ride: Ride::default(),
        }
    }

    /// Is nothing read before the departure, because nothing that comes could bring it forward?
    pub fn is_windowed(&self) -> bool {
        !self.window.is_zero()
    }

    /// How long a batch may wait from the moment when its first message came; `None`: it goes now. To be asked for
    /// every batch as it grows.
    pub fn wait(&mut self, batch: &[Arc<Item>]) -> Option<Duration> {
        if self.is_windowed() {
            return (!batch.is_empty()).then_some(self.window);
        }
        self.ride.wait(batch)
    }
}

/// Decides whether audio waits for the next video message, and how long at most. Pure.
#[derive(Debug, Default)]
struct Ride {
    last_video: Option<MediaTime>,
    /// The latest interval between two video messages.
    interval: Duration,
}

impl Ride {
    /// Audio never waits longer, whatever the frame rate.
    const LONGEST: Duration = Duration::from_millis(50);
    /// Without video for this long, in media time, audio goes at once.
    const VIDEO_GONE: Duration = Duration::from_secs(1);

    /// How long a batch may wait; `None`: it goes now.
    fn wait(&mut self, batch: &[Arc<Item>]) -> Option<Duration> {
        let mut audio_only = !batch.is_empty();
        for item in batch {
            let message = item.message();
            if message.kind == Kind::Video && !message.is_header() {
                if let Some(last) = self.last_video {
                    self.interval = message.dts.since(last).min(Self::LONGEST);
                }
                self.last_video = Some(message.dts);
            }
            audio_only &= message.kind == Kind::Audio && !message.is_header();
        }
        let newest = batch.last()?.message().dts;
        let has_video = self
            .last_video
            .is_some_and(|last| newest.since(last) < Self::VIDEO_GONE);
        (audio_only && has_video && !self.interval.is_zero()).then_some(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Message;
    use bytes::Bytes;

    fn item(dts: i64, payload: &'static [u8]) -> Arc<Item> {
        let kind = if payload[0] == 0xaf {
            Kind::Audio
        } else {
            Kind::Video
        };
        let message = Message::new(kind, MediaTime(dts), Bytes::from_static(payload));
        Arc::new(Item::new(Arc::new(message), None))
    }

    #[test]
    fn with_a_window_everything_waits_for_its_end() {
        let mut departure = Departure::new(Duration::from_millis(33));
        let window = Some(Duration::from_millis(33));
        assert_eq!(departure.wait(&[item(0, INTER)]), window);
        assert_eq!(departure.wait(&[item(0, INTER), item(33, INTER)]), window);
        assert_eq!(departure.wait(&[item(70, SOUND)]), window);
        assert_eq!(departure.wait(&[]), None, "nothing came");
        assert_eq!(Departure::default().wait(&[item(0, INTER)]), None);
    }

    const INTER: &[u8] = &[0x27, 1, 0, 0, 0];
    const SOUND: &[u8] = &[0xaf, 1];

    #[test]
    fn audio_waits_a_frame_interval_at_most_and_video_goes_at_once() {
        let mut ride = Ride::default();
        assert_eq!(ride.wait(&[item(0, SOUND)]), None, "no video known");
        assert_eq!(ride.wait(&[item(0, INTER)]), None);
        assert_eq!(ride.wait(&[item(33, INTER)]), None);
        let interval = Duration::from_millis(33);
        assert_eq!(ride.wait(&[item(40, SOUND)]), Some(interval));
        assert_eq!(ride.wait(&[item(40, SOUND), item(66, INTER)]), None);
        assert_eq!(ride.wait(&[item(70, &[0xaf, 0])]), None, "a header");
    }

    #[test]
    fn audio_waits_at_most_50_ms_and_not_at_all_once_video_is_gone() {
        let mut ride = Ride::default();
        ride.wait(&[item(0, INTER)]);
        ride.wait(&[item(200, INTER)]);
        let longest = Duration::from_millis(50);
        assert_eq!(ride.wait(&[item(210, SOUND)]), Some(longest));
        assert_eq!(ride.wait(&[item(1_200, SOUND)]), None);
    }
}
