//! Publishers on clocks of their own, second by second, and what is found of each.

use bytes::Bytes;

use super::super::message::{Kind, MediaTime, Message};
use super::super::vitals::Vitals;
use super::*;

/// How a publisher sends from one second to another.
#[derive(Clone, Copy)]
struct Way {
    fps: i64,
    /// Of each picture.
    bytes: usize,
    gop_ms: i64,
    /// Added to the times of sound.
    audio_ms: i64,
    /// Each third picture is shown before the one in front of it.
    b_frames: bool,
    /// Late by that much, in turn.
    jitter_ms: [i64; 2],
    /// Millionths that its clock is fast.
    ppm: i64,
}

const WELL: Way = Way {
    fps: 25,
    bytes: 10_000,
    gop_ms: 2_000,
    audio_ms: 0,
    b_frames: false,
    jitter_ms: [0, 0],
    ppm: 0,
};

struct Show {
    begin: Instant,
    vitals: Vitals,
    now_ms: i64,
}

impl Show {
    fn new() -> Self {
        Self {
            begin: Instant::now(),
            vitals: Vitals::default(),
            now_ms: 0,
        }
    }

    fn at(&self, ms: i64) -> Instant {
        self.begin + Duration::from_millis(ms as u64)
    }

    fn message(kind: Kind, key: bool, ms: i64, composition: u8, bytes: usize) -> Message {
        let mut payload = match kind {
            Kind::Video if key => vec![0x17, 1, 0, 0, composition],
            Kind::Video => vec![0x27, 1, 0, 0, composition],
            _ => vec![0xaf, 1],
        };
        payload.resize(bytes.max(8), 1);
        Message::new(kind, MediaTime(ms), Bytes::from(payload))
    }

    /// Sends so for as long; what falls into `held` (ms) comes at its end.
    fn send(&mut self, way: Way, seconds: i64, held: Option<(i64, i64)>) {
        let end = self.now_ms + seconds * 1_000;
        let step = 1_000 / way.fps;
        for (n, ms) in (self.now_ms..end).step_by(step as usize).enumerate() {
            let arrives = match held {
                Some((from, to)) if (from..to).contains(&ms) => to,
                _ => ms + way.jitter_ms[n % 2],
            };
            let now = self.at(arrives);
            let media = ms + ms * way.ppm / 1_000_000;
            let key = ms % way.gop_ms < step;
            let composition = match (way.b_frames, n % 3) {
                (false, _) | (true, 2) => 0,
                _ => 80,
            };
            let picture = Self::message(Kind::Video, key, media, composition, way.bytes);
            self.vitals.note(&picture, now);
            let sound = Self::message(Kind::Audio, false, media + way.audio_ms, 0, 200);
            self.vitals.note(&sound, now);
        }
        self.now_ms = end;
    }

    fn found(&self, declared: Option<f64>) -> Vec<Finding> {
        let now = self.at(self.now_ms);
        of_publisher(&self.vitals.clone().reading(now), declared, now)
    }

    fn told(&self, declared: Option<f64>) -> Vec<(&'static str, Severity, String)> {
        let found = self.found(declared).into_iter();
        found.map(|f| (f.code, f.severity, f.text)).collect()
    }
}

#[test]
fn a_good_publisher_has_no_findings_at_any_time_and_is_graded_good() {
    let mut show = Show::new();
    for _ in 0..90 {
        show.send(WELL, 1, None);
        assert_eq!(show.found(Some(25.0)), [], "after {} ms", show.now_ms);
        assert_eq!(show.found(None), []);
    }
    assert_eq!(Grade::of(&show.found(None)), Grade::Good);
    let reading = show.vitals.clone().reading(show.at(show.now_ms));
    let rates = reading.rates.unwrap();
    assert_eq!(rates.fps, 25.0);
    // 25 × 10,000 + 25 × 200 bytes.
    assert_eq!(rates.kbps, 2_040.0);
    assert_eq!(reading.usual_gop, Some(Duration::from_secs(2)));
    assert_eq!(reading.audio_ahead_ms, Some(0));
    assert_eq!(reading.clock_ppm, Some(0));
}

#[test]
fn each_way_to_send_badly_is_found_with_its_numbers_and_nothing_else() {
    use Severity::{Info, Serious, Warning};
    let table: [(&str, Way, &str, Severity, &str); 9] = [
        (
            "few pictures",
            Way { fps: 20, ..WELL },
            "low_fps",
            Warning,
            "sends 20.0 pictures a second of the 25.0 that it announced",
        ),
        (
            "far fewer",
            Way { fps: 10, ..WELL },
            "low_fps",
            Serious,
            "sends 10.0 pictures a second of the 25.0 that it announced",
        ),
        (
            "long GOPs",
            Way {
                gop_ms: 8_000,
                ..WELL
            },
            "long_gop",
            Warning,
            "a key frame comes every 8.0 s",
        ),
        (
            "very long GOPs",
            Way {
                gop_ms: 12_000,
                ..WELL
            },
            "long_gop",
            Serious,
            "a key frame comes every 12.0 s",
        ),
        (
            "sound ahead",
            Way {
                audio_ms: 600,
                ..WELL
            },
            "audio_ahead",
            Warning,
            "audio is 600 ms ahead of the pictures that arrive with it",
        ),
        (
            "sound behind",
            Way {
                audio_ms: -1_200,
                ..WELL
            },
            "audio_behind",
            Serious,
            "audio is 1200 ms behind the pictures that arrive with it",
        ),
        (
            "B-frames",
            Way {
                b_frames: true,
                ..WELL
            },
            "b_frames",
            Info,
            "(33 % of its pictures): each picture is shown up to 80 ms",
        ),
        (
            "jitter",
            Way {
                jitter_ms: [0, 200],
                ..WELL
            },
            "jitter",
            Warning,
            "half of the last 128 came 200 ms or more",
        ),
        (
            "a fast clock",
            Way {
                ppm: 10_000,
                ..WELL
            },
            "clock_off",
            Info,
            "the publisher's clock is 1.0",
        ),
    ];
    for (name, way, code, severity, words) in table {
        let mut show = Show::new();
        show.send(way, 80, None);
        let told = show.told(Some(25.0));
        let [(found, how_bad, text)] = &told[..] else {
            panic!("{name}: {told:?}");
        };
        assert_eq!((*found, *how_bad), (code, severity), "{name}: {text}");
        assert!(text.contains(words), "{name}: {text}");
    }
}

#[test]
fn a_rate_and_a_bitrate_that_fall_are_told_against_what_they_were() {
    let mut show = Show::new();
    show.send(WELL, 20, None);
    let half = Way {
        fps: 12,
        bytes: 5_000,
        ..WELL
    };
    show.send(half, 12, None);
    let told = show.told(None);
    let codes: Vec<_> = told
        .iter()
        .map(|(code, severity, _)| (*code, *severity))
        .collect();
    assert_eq!(
        codes,
        [
            ("low_fps", Severity::Serious),
            ("bitrate_fallen", Severity::Warning)
        ]
    );
    assert!(
        told[0]
            .2
            .contains("sends 12.0 pictures a second of the 23."),
        "{told:?}"
    );
    // 12 × 5,200 bytes and some; 2,040 fade by half a percent a second.
    assert!(
        told[1].2.contains("fallen to 499 kbit/s from 19"),
        "{told:?}"
    );
    assert_eq!(Grade::of(&show.found(None)), Grade::Poor);
}

#[test]
fn stalls_of_the_uplink_are_told_from_pauses_of_the_publisher_and_forgotten_after_a_minute() {
    let mut show = Show::new();
    show.send(WELL, 5, None);
    for _ in 0..3 {
        let from = show.now_ms + 1_000;
        show.send(WELL, 5, Some((from, from + 1_200)));
    }
    let told = show.told(Some(25.0));
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (told[0].0, told[0].1),
        ("uplink_stalled", Severity::Serious)
    );
    assert!(
        told[0].2.contains("stalled 3 × 1.2 s in the last minute"),
        "{told:?}"
    );
    show.send(WELL, 70, None);
    assert_eq!(show.told(Some(25.0)), []);

    // Its clock goes on, and nothing is sent.
    show.now_ms += 2_000;
    show.send(WELL, 12, None);
    let told = show.told(Some(25.0));
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, "publisher_paused");
    assert!(told[0].2.contains("paused for 2.0 s"), "{told:?}");

    // And it stops.
    show.now_ms += 2_300;
    let told = show.told(Some(25.0));
    assert_eq!((told[0].0, told[0].1), ("silent", Severity::Serious));
    assert!(told[0].2.contains("for 2.3 s"), "{told:?}");
}

#[test]
fn what_is_not_there_is_said() {
    let mut show = Show::new();
    assert_eq!(show.told(None)[0].0, "no_media");
    for n in 0..200 {
        let picture = Show::message(Kind::Video, false, n * 40, 0, 1_000);
        show.vitals.note(&picture, show.at(n * 40));
        show.now_ms = n * 40;
    }
    let told = show.told(None);
    let codes: Vec<_> = told.iter().map(|(code, ..)| *code).collect();
    assert_eq!(codes, ["no_key_frame", "no_audio"]);
    assert!(told[0].2.contains("in 8.0 s"), "{told:?}");
}

#[test]
fn sound_that_comes_before_the_first_picture_says_nothing_of_clocks_and_of_jitter() {
    let mut show = Show::new();
    // Sound on times 600 ms ahead, and no picture yet.
    for ms in (0..1_000).step_by(40) {
        let sound = Show::message(Kind::Audio, false, ms + 600, 0, 200);
        show.vitals.note(&sound, show.at(ms));
    }
    show.now_ms = 1_000;
    let ahead = Way {
        audio_ms: 600,
        ..WELL
    };
    show.send(ahead, 69, None);
    let codes: Vec<_> = show.told(None).into_iter().map(|told| told.0).collect();
    assert_eq!(codes, ["audio_ahead"]);
    let reading = show.vitals.clone().reading(show.at(show.now_ms));
    assert_eq!(reading.clock_ppm, Some(0));
}

#[test]
fn an_hour_of_silence_costs_nothing_and_leaves_nothing_behind() {
    let mut show = Show::new();
    show.send(WELL, 20, None);
    show.now_ms += 3_600_000;
    let reading = show.vitals.clone().reading(show.at(show.now_ms));
    assert_eq!(reading.rates.unwrap().fps, 0.0);
    show.send(WELL, 20, None);
    let reading = show.vitals.clone().reading(show.at(show.now_ms));
    assert_eq!(reading.rates.unwrap().fps, 25.0);
}
