//! What is wrong with what a publisher sends: counted as it comes, and told every five seconds in which there was something.
//!
//! | source | covered |
//! |---|---|
//! | the vendor's "push error event notification" document | its types 1 to 4, 6 to 11, 15 and 16, with its thresholds; not 5 (chunk size), 12 (spacing of audio), 13 and 14 (codecs, headers that cannot be read) |
//!
//! Looks at the times of the wire, before they are mended ([`super::repair`]), at when messages arrive, and at what they are. Says nothing
//! while nothing comes: that ends the publish. Pure.

use std::time::{Duration, Instant};

use super::message::{Kind, Message, Role, Slot};
use super::payload::Codec;

/// The document's interval between two reports.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Occurrences of one trouble that a report describes; all are counted.
const MAX_DETAILS: usize = 8;
/// A time stamp this much later than the one before it has jumped.
const AHEAD_MS: i32 = 1_000;
/// No picture for so long.
const VIDEO_PAUSE: Duration = Duration::from_secs(3);
/// No sound for so long.
const AUDIO_PAUSE: Duration = Duration::from_secs(1);
/// A GOP that is longer than this in its own time.
const LONG_GOP_MS: i32 = 10_000;
/// Below this rate nobody means moving pictures, and a change of it says nothing.
const MIN_RATE: f64 = 5.0;

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    VideoBack,
    AudioBack,
    VideoAhead,
    AudioAhead,
    VideoPause,
    AudioPause,
    VideoCodec,
    AudioCodec,
    VideoHeader,
    AudioHeader,
    LowFrameRate,
    LongGop,
}

impl Trouble {
    pub const ALL: [Trouble; 12] = [
        Trouble::VideoBack,
        Trouble::AudioBack,
        Trouble::VideoAhead,
        Trouble::AudioAhead,
        Trouble::VideoPause,
        Trouble::AudioPause,
        Trouble::VideoCodec,
        Trouble::AudioCodec,
        Trouble::VideoHeader,
        Trouble::AudioHeader,
        Trouble::LowFrameRate,
        Trouble::LongGop,
    ];

    /// The document's number.
    pub const fn code(self) -> u8 {
        match self {
            Trouble::VideoBack => 1,
            Trouble::AudioBack => 2,
            Trouble::VideoAhead => 3,
            Trouble::AudioAhead => 4,
            Trouble::VideoPause => 6,
            Trouble::AudioPause => 7,
            Trouble::VideoCodec => 8,
            Trouble::AudioCodec => 9,
            Trouble::VideoHeader => 10,
            Trouble::AudioHeader => 11,
            Trouble::LowFrameRate => 15,
            Trouble::LongGop => 16,
        }
    }

    /// The stable word for the API.
    pub const fn reason(self) -> &'static str {
        match self {
            Trouble::VideoBack => "video_time_back",
            Trouble::AudioBack => "audio_time_back",
            Trouble::VideoAhead => "video_time_ahead",
            Trouble::AudioAhead => "audio_time_ahead",
            Trouble::VideoPause => "video_pause",
            Trouble::AudioPause => "audio_pause",
            Trouble::VideoCodec => "video_codec",
            Trouble::AudioCodec => "audio_codec",
            Trouble::VideoHeader => "video_header",
            Trouble::AudioHeader => "audio_header",
            Trouble::LowFrameRate => "low_frame_rate",
            Trouble::LongGop => "long_gop",
        }
    }

    /// In English and in Chinese, since the document has a field for each.
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Trouble::VideoBack => ("video timestamp goes back", "视频时间戳变小"),
            Trouble::AudioBack => ("audio timestamp goes back", "音频时间戳变小"),
            Trouble::VideoAhead => (
                "video timestamp jumps by more than 1000 ms",
                "视频时间戳跳变超过1000ms",
            ),
            Trouble::AudioAhead => (
                "audio timestamp jumps by more than 1000 ms",
                "音频时间戳跳变超过1000ms",
            ),
            Trouble::VideoPause => (
                "no video frame for more than 3000 ms",
                "超过3000ms没有视频帧",
            ),
            Trouble::AudioPause => (
                "no audio frame for more than 1000 ms",
                "超过1000ms没有音频帧",
            ),
            Trouble::VideoCodec => ("video codec changes", "视频编码改变"),
            Trouble::AudioCodec => ("audio codec changes", "音频编码改变"),
            Trouble::VideoHeader => (
                "video frame before its codec header",
                "视频帧之前没有编码头",
            ),
            Trouble::AudioHeader => (
                "audio frame before its codec header",
                "音频帧之前没有编码头",
            ),
            Trouble::LowFrameRate => ("video frame rate is low", "视频帧率低"),
            Trouble::LongGop => ("GOP is longer than 10 s", "GOP超过10秒"),
        }
    }
}

/// One occurrence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    pub words: String,
    pub at: Instant,
}

/// What was found of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub trouble: Trouble,
    pub count: u32,
    /// The first of them.
    pub details: Vec<Occurrence>,
}

/// What was found in an interval: something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// When it was made.
    pub at: Instant,
    /// By their numbers.
    pub found: Vec<Found>,
}

/// What is remembered of a kind of media.
#[derive(Debug, Clone, Copy, Default)]
struct Track {
    /// Which track it is: the lowest that came. Others have rhythms of their own.
    number: Option<u8>,
    /// Time of the wire, and arrival, of the last frame.
    last: Option<(u32, Instant)>,
    codec: Option<Codec>,
    has_header: bool,
    /// A frame without a header was told of.
    is_told: bool,
}

impl Track {
    /// Whether a message is of the track that is watched. A lower one is watched from its first message on.
    fn admits(&mut self, message: &Message) -> bool {
        match self.number {
            Some(number) if message.track > number => return false,
            Some(number) if message.track == number => {}
            _ => {
                *self = Track {
                    number: Some(message.track),
                    ..Track::default()
                };
            }
        }
        true
    }
}

/// Watches one publisher.
#[derive(Debug, Clone)]
pub struct Health {
    since: Instant,
    audio: Track,
    video: Track,
    /// Time of the wire of the last key frame, and whether it was told that its GOP is long.
    key: Option<(u32, bool)>,
    /// Video frames in this interval.
    frames: u32,
    /// The best frame rate of an interval so far.
    best_rate: f64,
    found: Vec<Found>,
}

impl Health {
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            audio: Track::default(),
            video: Track::default(),
            key: None,
            frames: 0,
            best_rate: 0.0,
            found: Vec::new(),
        }
    }

    /// Takes note of a message that came at `now` with that time of the wire. Gives what was found in the interval
    /// before, once that is over and where there was something.
    pub fn note(&mut self, message: &Message, wire: u32, now: Instant) -> Option<Report> {
        let report = self.close(now);
        match message.kind {
            Kind::Audio if self.audio.admits(message) => self.sound(message, wire, now),
            Kind::Video if self.video.admits(message) => self.picture(message, wire, now),
            _ => {}
        }
        report
    }

    fn sound(&mut self, message: &Message, wire: u32, now: Instant) {
        let mut track = self.audio;
        self.coding(&mut track, message, Trouble::AudioCodec, now);
        if !message.is_header() {
            if message.codec == Codec::Aac {
                self.header(&mut track, Trouble::AudioHeader, now);
            }
            let jumps = [Trouble::AudioBack, Trouble::AudioAhead];
            let pause = (AUDIO_PAUSE, Trouble::AudioPause);
            self.frame(&mut track, wire, jumps, pause, now);
        }
        self.audio = track;
    }

    fn picture(&mut self, message: &Message, wire: u32, now: Instant) {
        let mut track = self.video;
        self.coding(&mut track, message, Trouble::VideoCodec, now);
        if !message.is_header() {
            if matches!(message.codec, Codec::H264 | Codec::Hevc | Codec::Av1) {
                self.header(&mut track, Trouble::VideoHeader, now);
            }
            let jumps = [Trouble::VideoBack, Trouble::VideoAhead];
            let pause = (VIDEO_PAUSE, Trouble::VideoPause);
            self.frame(&mut track, wire, jumps, pause, now);
            self.frames += 1;
            match (message.role, self.key) {
                (Role::Key, _) => self.key = Some((wire, false)),
                (_, Some((begun, false))) if step(begun, wire) > LONG_GOP_MS => {
                    let long = step(begun, wire);
                    self.key = Some((begun, true));
                    self.tell(Trouble::LongGop, now, || {
                        format!("no key frame for {long} ms of the stream's time")
                    });
                }
                _ => {}
            }
        }
        self.video = track;
    }

    fn coding(&mut self, track: &mut Track, message: &Message, changed: Trouble, now: Instant) {
        let before = track.codec.replace(message.codec);
        if let Some(before) = before.filter(|before| *before != message.codec) {
            track.has_header = false;
            track.is_told = false;
            self.tell(changed, now, || {
                format!("{} before, {} now", before.as_str(), message.codec.as_str())
            });
        }
        if matches!(message.role, Role::Header(slot) if slot.slot == Slot::Sequence) {
            track.has_header = true;
        }
    }

    /// A frame that needs a header.
    fn header(&mut self, track: &mut Track, missing: Trouble, now: Instant) {
        if !track.has_header && !std::mem::replace(&mut track.is_told, true) {
            self.tell(missing, now, || "no decoder can begin with it".to_owned());
        }
    }

    fn frame(
        &mut self,
        track: &mut Track,
        wire: u32,
        [back, ahead]: [Trouble; 2],
        (most, pause): (Duration, Trouble),
        now: Instant,
    ) {
        if let Some((last, arrived)) = track.last.replace((wire, now)) {
            let moved = step(last, wire);
            if moved < 0 {
                self.tell(back, now, || format!("from {last} to {wire} ms"));
            } else if moved > AHEAD_MS {
                self.tell(ahead, now, || format!("from {last} to {wire} ms"));
            }
            let waited = now.saturating_duration_since(arrived);
            if waited > most {
                self.tell(pause, now, || {
                    format!("{} ms after the one before", waited.as_millis())
                });
            }
        }
    }

    /// Ends an interval that is over.
    fn close(&mut self, now: Instant) -> Option<Report> {
        let lasted = now.saturating_duration_since(self.since);
        if lasted < INTERVAL {
            return None;
        }
        self.since = now;
        let frames = std::mem::take(&mut self.frames);
        // Longer than two of them: nothing came, which has been told of.
        if self.video.last.is_some() && lasted < 2 * INTERVAL {
            let rate = f64::from(frames) / lasted.as_secs_f64();
            if self.best_rate >= MIN_RATE && rate < self.best_rate / 2.0 {
                let best = self.best_rate;
                self.tell(Trouble::LowFrameRate, now, || {
                    format!("{rate:.1} a second, {best:.1} at its best")
                });
            }
            self.best_rate = self.best_rate.max(rate);
        }
        let mut found = std::mem::take(&mut self.found);
        found.sort_by_key(|found| found.trouble.code());
        (!found.is_empty()).then_some(Report { at: now, found })
    }

    /// Words are made for those only that a report describes: a publisher may give reason for one with each message.
    fn tell(&mut self, trouble: Trouble, at: Instant, words: impl FnOnce() -> String) {
        let known = self.found.iter().position(|found| found.trouble == trouble);
        let known = known.unwrap_or_else(|| {
            self.found.push(Found {
                trouble,
                count: 0,
                details: Vec::new(),
            });
            self.found.len() - 1
        });
        let found = &mut self.found[known];
        found.count = found.count.saturating_add(1);
        if found.details.len() < MAX_DETAILS {
            let words = words();
            found.details.push(Occurrence { words, at });
        }
    }
}

/// From one time of the wire to another, across the end of its 32 bits.
fn step(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from) as i32
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::message::MediaTime;
    use super::*;

    const VIDEO_HEADER: &[u8] = &[0x17, 0, 0, 0, 0, 1];
    const KEY: &[u8] = &[0x17, 1, 0, 0, 0, 1];
    const PICTURE: &[u8] = &[0x27, 1, 0, 0, 0, 1];
    const AUDIO_HEADER: &[u8] = &[0xaf, 0, 0x11, 0x90];
    const SOUND: &[u8] = &[0xaf, 1, 0x21];

    /// A publisher on a clock of its own.
    struct Show {
        begin: Instant,
        health: Health,
        told: Vec<Report>,
    }

    impl Show {
        fn new() -> Self {
            let begin = Instant::now();
            Self {
                begin,
                health: Health::new(begin),
                told: Vec::new(),
            }
        }

        fn send(&mut self, kind: Kind, payload: &'static [u8], wire: u32, at_ms: u64) {
            let message = Message::new(kind, MediaTime::ZERO, Bytes::from_static(payload));
            let now = self.begin + Duration::from_millis(at_ms);
            self.told.extend(self.health.note(&message, wire, now));
        }

        /// Twenty pictures, a key frame each two seconds, and twenty frames of sound a second, from and to these ms.
        fn well(&mut self, from: u64, to: u64) {
            for at in (from..to).step_by(50) {
                let wire = at as u32;
                if at == 0 {
                    self.send(Kind::Video, VIDEO_HEADER, 0, 0);
                    self.send(Kind::Audio, AUDIO_HEADER, 0, 0);
                }
                let picture = if at % 2_000 == 0 { KEY } else { PICTURE };
                self.send(Kind::Video, picture, wire, at);
                self.send(Kind::Audio, SOUND, wire, at);
            }
        }

        fn codes(&self) -> Vec<(u8, u32)> {
            let found = self.told.iter().flat_map(|report| &report.found);
            found.map(|f| (f.trouble.code(), f.count)).collect()
        }
    }

    #[test]
    fn a_good_publisher_is_not_told_of() {
        let mut show = Show::new();
        show.well(0, 60_000);
        assert_eq!(show.told, []);
    }

    #[test]
    fn each_trouble_is_found_and_told_in_its_interval() {
        for (name, codes, act) in [
            (
                "times go back",
                &[(1, 2), (2, 1)][..],
                (|show| {
                    show.send(Kind::Video, PICTURE, 5_900, 6_001);
                    show.send(Kind::Video, PICTURE, 5_800, 6_002);
                    show.send(Kind::Video, PICTURE, 5_950, 6_003);
                    show.send(Kind::Audio, SOUND, 5_900, 6_003);
                    show.well(6_050, 16_000);
                }) as fn(&mut Show),
            ),
            (
                "times jump ahead",
                &[(1, 1), (2, 1), (3, 1), (4, 1)],
                |show| {
                    show.send(Kind::Video, PICTURE, 7_001, 6_001);
                    show.send(Kind::Audio, SOUND, 7_001, 6_001);
                    show.well(6_050, 16_000);
                },
            ),
            (
                "nothing arrives for 3.5 s",
                &[(6, 1), (7, 1), (15, 1)],
                |show| {
                    for at in (6_000_u64..6_700).step_by(10) {
                        // It comes later, with the times that it had.
                        show.send(Kind::Video, PICTURE, at as u32, at + 3_500);
                        show.send(Kind::Audio, SOUND, at as u32, at + 3_500);
                    }
                },
            ),
            (
                "another codec without a header",
                &[(8, 1), (10, 1)],
                |show| {
                    show.send(Kind::Video, &[0x9c, b'h', b'v', b'c', b'1'], 6_000, 6_000);
                    for at in (6_050..10_900_u64).step_by(50) {
                        show.send(
                            Kind::Video,
                            &[0xa3, b'h', b'v', b'c', b'1', 1],
                            at as u32,
                            at,
                        );
                        show.send(Kind::Audio, SOUND, at as u32, at);
                    }
                },
            ),
            ("half of the pictures and less", &[(15, 1)], |show| {
                for at in (6_000..10_900_u64).step_by(50) {
                    if at % 150 == 0 {
                        show.send(Kind::Video, PICTURE, at as u32, at);
                    }
                    show.send(Kind::Audio, SOUND, at as u32, at);
                }
            }),
            ("no key frame for more than 10 s", &[(16, 1)], |show| {
                for at in (6_000..15_900_u64).step_by(50) {
                    show.send(Kind::Video, PICTURE, at as u32, at);
                    show.send(Kind::Audio, SOUND, at as u32, at);
                }
            }),
        ] {
            let mut show = Show::new();
            show.well(0, 6_000);
            act(&mut show);
            show.well(16_000, 21_000);
            let found: Vec<_> = show.codes();
            let of_interest: Vec<_> = found
                .iter()
                .filter(|(code, _)| codes.iter().any(|(known, _)| known == code))
                .copied()
                .collect();
            assert_eq!(of_interest[..codes.len()], *codes, "{name}: {found:?}");
        }
    }

    #[test]
    fn frames_without_a_header_are_told_once_and_times_may_pass_the_end_of_32_bits() {
        let mut show = Show::new();
        for n in 0..200_u32 {
            let wire = (u32::MAX - 2_000).wrapping_add(n * 50);
            let at = u64::from(n) * 50;
            show.send(
                Kind::Video,
                if n % 40 == 0 { KEY } else { PICTURE },
                wire,
                at,
            );
            show.send(Kind::Audio, SOUND, wire, at);
        }
        assert_eq!(show.codes(), [(10, 1), (11, 1)]);
    }

    #[test]
    fn a_report_counts_all_and_describes_the_first() {
        let mut show = Show::new();
        show.well(0, 1_000);
        for n in 0..100_u64 {
            show.send(Kind::Video, PICTURE, 1_000 - n as u32, 1_000 + n);
        }
        show.well(1_200, 6_000);
        let found = &show.told[0].found[0];
        assert_eq!((found.trouble, found.count), (Trouble::VideoBack, 99));
        assert_eq!(found.details.len(), MAX_DETAILS);
        assert_eq!(found.details[0].words, "from 1000 to 999 ms");
    }

    #[test]
    fn every_trouble_has_a_number_of_its_own() {
        let codes: std::collections::BTreeSet<_> = Trouble::ALL.map(Trouble::code).into();
        assert_eq!(codes.len(), Trouble::ALL.len());
    }
}
