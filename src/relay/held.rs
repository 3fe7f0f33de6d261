//! What a source has sent since the key frame at which it takes its program feed back, while the mix still has
//! earlier moments to tell of.

use std::sync::Arc;
use std::time::Instant;

use super::stream::SAME_SOUND_MS;
use crate::media::{Headers, Kind, MediaTime, Message};

/// How far the source's clock and the server's may have come apart during a mix, in ms, for the source to return to
/// its own place on the program's timeline. What is missing up to there the mix fills; what was sent of later makes
/// the source's first times follow each other by a millisecond.
const MAX_DRIFT_MS: i64 = 250;

/// Source messages from the key frame at which the source takes over again.
#[derive(Debug)]
pub(super) struct Held {
    pub since: Instant,
    /// Where the key frame lands on the program's timeline.
    pub start: MediaTime,
    /// What the mix's pictures say of this moment and later is left out; what they say of before is awaited.
    pictures_until: MediaTime,
    /// The same for sound, and what the source itself calls that time; `None` until the source's sound after the key
    /// frame has come.
    sound_until: Option<(MediaTime, MediaTime)>,
    pub headers: Arc<Headers>,
    pub messages: Vec<Arc<Message>>,
    pub video_passed: bool,
    pub audio_passed: bool,
}

impl Held {
    /// `key` is the message at which the source takes over. It lands where it would have without a mix (`home`), so
    /// that the timeline runs neither ahead nor behind, switch after switch; only where the clocks of source and
    /// server have drifted apart too far for that, it lands where wall time is (`wall`). A source without sound leaves
    /// the mix's to itself up to the key frame.
    pub fn begin(
        key: Arc<Message>,
        home: Option<MediaTime>,
        wall: MediaTime,
        headers: Arc<Headers>,
        has_sound: bool,
        now: Instant,
    ) -> Self {
        let start = home
            .filter(|home| (*home - wall).abs() <= MAX_DRIFT_MS)
            .unwrap_or(wall);
        Self {
            since: now,
            start,
            pictures_until: start + i64::from(key.composition_ms),
            sound_until: (!has_sound).then_some((start, key.dts)),
            headers,
            messages: vec![key],
            video_passed: false,
            audio_passed: false,
        }
    }

    pub fn push(&mut self, message: Arc<Message>) {
        if self.sound_until.is_none()
            && message.kind == Kind::Audio
            && !message.is_header()
            && let Some(key) = self.messages.first()
        {
            let lands = self.start + (message.dts - key.dts);
            self.sound_until = Some((lands, message.dts));
        }
        self.messages.push(message);
    }

    /// Whether a message of the mix that would land there is of a time that the source tells of, and takes note. `of`:
    /// what the source calls that time, where the mix knows.
    pub fn passes(&mut self, message: &Message, lands: MediaTime, of: Option<MediaTime>) -> bool {
        let passed = match message.kind {
            Kind::Video => lands >= self.pictures_until,
            Kind::Audio => self.sound_until.is_some_and(|(until, source)| match of {
                Some(of) => of + SAME_SOUND_MS >= source,
                None => lands >= until,
            }),
            Kind::Data => false,
        };
        if passed && !message.is_header() {
            match message.kind {
                Kind::Video => self.video_passed = true,
                Kind::Audio => self.audio_passed = true,
                Kind::Data => {}
            }
        }
        passed && !message.is_header()
    }
}
