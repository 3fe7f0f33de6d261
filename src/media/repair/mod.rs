//! Repair of a publisher's timestamps, per track: unwraps the wire's 32 bits and absorbs jumps.
//!
//! A timestamp anomaly never ends a session (lessons, row 5); it is mended here and counted by the caller. Each track
//! has a clock of its own (audio, video, and each track of a multitrack publisher) and is judged against its own last
//! time. What ties them together: a track whose clock jumps first looks whether another track is already where it
//! jumped to, and goes on at that track's offset. So a jump that all tracks make, in whatever order, leaves sound and
//! picture as far apart as the publisher sent them, and one that a single track makes moves that track alone.

use super::message::{Kind, MediaTime};

/// A step ahead of more than this is a jump of the clock, not a pause in the media.
/// A pause of the encoder longer than this does look like a jump; the mended stream then merely
/// skips the silence, which a live viewer would want anyway.
pub const MAX_STEP_MS: i64 = 10_000;
/// A step back of more than this is a reset of the clock, not reordering.
pub const MAX_BACK_MS: i64 = 500;
/// A step ahead up to this needs no second look: whether it is the track's own, or one with another track.
const CALM_STEP_MS: i64 = 500;
/// Tracks are interleaved loosely, but never further apart than this: beyond, their clocks have nothing in common.
const NEAR_MS: i64 = 10_000;
/// What a mended jump advances by where the track's own rhythm is not known: about one frame.
const MENDED_STEP_MS: i64 = 20;
/// The slowest rhythm that a mended jump goes on in: one picture a second.
const MAX_MENDED_STEP_MS: i64 = 1_000;
/// A clock that jumps back to less than this has begun again.
const BEGINNING_MS: i64 = 1_000;
/// Most tracks with a clock of their own; further ones share their kind's first.
const MAX_TRACKS: usize = 32;

/// What was mended, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anomaly {
    /// The clock jumped ahead by that many ms.
    Ahead(i64),
    /// The clock jumped back by that many ms.
    Back(i64),
    /// The clock began again at 0, that many ms back.
    Reset(i64),
    /// A message was that many ms older than its predecessor, which is reordering: it is sent at its predecessor's time.
    Unordered(i64),
    /// A track is that many ms from all others, at its beginning or after a pause: its clock has another zero, or stood
    /// still. It goes on where the others are.
    Apart(i64),
}

impl Anomaly {
    /// The words of [`Anomaly::as_str`], for whoever keeps a counter of each.
    pub const KINDS: [&'static str; 5] = ["ahead", "back", "reset", "unordered", "apart"];

    /// The stable word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Anomaly::Ahead(_) => "ahead",
            Anomaly::Back(_) => "back",
            Anomaly::Reset(_) => "reset",
            Anomaly::Unordered(_) => "unordered",
            Anomaly::Apart(_) => "apart",
        }
    }
}

/// How a track's raw times become repaired ones.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// Last raw time, unwrapped.
    raw: i64,
    /// Added to raw times, in ms.
    correction: i64,
}

impl Clock {
    /// The nearest 64-bit time with those low 32 bits: crosses 2^32 in both directions.
    fn unwrap(&self, wire: u32) -> i64 {
        self.raw + i64::from(wire.wrapping_sub(self.raw as u32) as i32)
    }

    /// The same clock at `wire`.
    fn at(&self, wire: u32) -> Self {
        Self {
            raw: self.unwrap(wire),
            ..*self
        }
    }

    fn out(&self) -> i64 {
        self.raw + self.correction
    }
}

#[derive(Debug)]
struct Track {
    kind: Kind,
    id: u8,
    clock: Clock,
    /// The clock before the last jump: a single wild timestamp is followed by a return.
    before: Option<Clock>,
    /// Last repaired time.
    out: i64,
    /// How far that was behind the newest of all tracks.
    behind: i64,
    /// The track's rhythm: its last calm step.
    step: i64,
}

impl Track {
    /// Whether `out` is further behind the newest of all tracks than the track has ever let on: its clock stood still
    /// while the others went on.
    fn is_left_behind(&self, out: i64, newest: i64) -> bool {
        newest - out > self.behind + NEAR_MS
    }
}

/// Unwraps and mends the timestamps of one publish epoch.
#[derive(Debug, Default)]
pub struct Repair {
    tracks: Vec<Track>,
    /// Latest repaired time over all tracks.
    newest: Option<i64>,
}

impl Repair {
    pub fn new() -> Self {
        Self::default()
    }

    /// The repaired time of a message of that track with the wire timestamp `wire`, and what was mended, if anything.
    /// Zero is wire timestamp 0 of the epoch's first clock. Times of one track never go back, and are never more
    /// than [`MAX_STEP_MS`] ahead of the latest time of all tracks.
    ///
    /// `is_clock` is false for headers and script data: encoders send them with time 0 whatever their clock
    /// says, so they follow the media and never set or move anything.
    pub fn map(
        &mut self,
        kind: Kind,
        track: u8,
        wire: u32,
        is_clock: bool,
    ) -> (MediaTime, Option<Anomaly>) {
        let known = self.position(kind, track);
        if !is_clock {
            return (MediaTime(self.follow(known, wire)), None);
        }
        let (out, anomaly) = match known {
            Some(index) => self.go_on(index, wire),
            None => self.begin(kind, track, wire),
        };
        self.newest = self.newest.max(Some(out));
        (MediaTime(out), anomaly)
    }

    fn position(&self, kind: Kind, id: u8) -> Option<usize> {
        let own = self
            .tracks
            .iter()
            .position(|t| (t.kind, t.id) == (kind, id));
        let full = self.tracks.len() == MAX_TRACKS;
        own.or_else(|| {
            let first = || self.tracks.iter().position(|t| t.kind == kind);
            full.then(first).flatten()
        })
    }

    /// The time of what is no media: as it says, when that is near; else where its track is, or all are.
    fn follow(&self, known: Option<usize>, wire: u32) -> i64 {
        let own = known.map(|index| &self.tracks[index]);
        let newest = || self.tracks.iter().max_by_key(|track| track.out);
        let Some(track) = own.or_else(newest) else {
            return 0;
        };
        let out = track.clock.at(wire).out();
        match (out - track.out).abs() <= MAX_BACK_MS {
            true => out,
            false => track.out,
        }
    }

    /// The first message of a track.
    fn begin(&mut self, kind: Kind, id: u8, wire: u32) -> (i64, Option<Anomaly>) {
        let near = |track: &&Track| (track.clock.unwrap(wire) - track.clock.raw).abs();
        let other = self.tracks.iter().min_by_key(near);
        let (clock, anomaly) = match (other, self.newest) {
            (Some(other), Some(newest)) => {
                let shared = other.clock.at(wire);
                let apart = shared.raw - other.clock.raw;
                if apart.abs() <= NEAR_MS && shared.out() <= newest + MAX_STEP_MS {
                    (shared, None)
                } else {
                    let raw = i64::from(wire);
                    let correction = newest - raw;
                    (Clock { raw, correction }, Some(Anomaly::Apart(apart)))
                }
            }
            _ => {
                let raw = i64::from(wire);
                (Clock { raw, correction: 0 }, None)
            }
        };
        let out = clock.out();
        // The limit holds for audio and video together, so that strangers' track ids cannot crowd out either.
        if self.tracks.len() < MAX_TRACKS {
            self.tracks.push(Track {
                kind,
                id,
                clock,
                before: None,
                out,
                behind: self.newest.map_or(0, |newest| (newest - out).max(0)),
                step: MENDED_STEP_MS,
            });
        }
        (out, anomaly)
    }

    /// The next message of a track.
    fn go_on(&mut self, index: usize, wire: u32) -> (i64, Option<Anomaly>) {
        let track = &self.tracks[index];
        let own = track.clock.at(wire);
        let step = own.raw - track.clock.raw;
        let newest = self.newest.unwrap_or(track.out);
        let left_behind = track.is_left_behind(own.out(), newest);
        let is_calm = (0..=CALM_STEP_MS).contains(&(own.out() - track.out)) && step >= 0;
        let is_calm = is_calm && !left_behind;
        let chosen = if is_calm {
            Some(own)
        } else {
            self.likeliest(index, wire)
        };
        let (clock, mut anomaly) = match chosen {
            Some(clock) => (clock, None),
            None => {
                let raw = i64::from(wire);
                let correction = self.resumption(track, newest) - raw;
                let what = match left_behind && (-MAX_BACK_MS..=MAX_STEP_MS).contains(&step) {
                    true => Anomaly::Apart(newest - own.out()),
                    false => jump(step, raw),
                };
                (Clock { raw, correction }, Some(what))
            }
        };
        let track = &mut self.tracks[index];
        if is_calm && step > 0 {
            track.step = step;
        }
        if clock.correction != track.clock.correction {
            track.before = Some(track.clock);
        } else if step < 0 && anomaly.is_none() {
            anomaly = Some(Anomaly::Unordered(-step));
        }
        track.clock = clock;
        track.out = clock.out().max(track.out);
        track.behind = (newest - track.out).max(0);
        (track.out, anomaly)
    }

    /// Which of the clocks that a message may belong to puts it closest to where it is expected: the track's own, that
    /// of another track which is near, or the one that the track had before its last jump. `None`: it belongs to none.
    fn likeliest(&self, index: usize, wire: u32) -> Option<Clock> {
        let track = &self.tracks[index];
        let expected = track.out + track.step;
        let newest = self.newest.unwrap_or(track.out);
        let limit = newest + MAX_STEP_MS;
        let own = Some(track.clock.at(wire)).filter(|clock| {
            let step = clock.raw - track.clock.raw;
            (-MAX_BACK_MS..=MAX_STEP_MS).contains(&step)
                && !track.is_left_behind(clock.out(), newest)
        });
        let others = self
            .tracks
            .iter()
            .filter(|other| !std::ptr::eq(*other, track));
        let others = others.map(|other| &other.clock).chain(&track.before);
        let near = others.filter_map(|other| {
            let clock = other.at(wire);
            // Twice as far back as a track goes alone: another is there, so it is one clock that went back.
            let fits = clock.out() >= track.out - 2 * MAX_BACK_MS && clock.out() <= limit;
            (fits && (clock.raw - other.raw).abs() <= NEAR_MS).then_some(clock)
        });
        // The first of equals: its own before others'.
        own.into_iter()
            .chain(near)
            .min_by_key(|clock| (clock.out() - expected).abs())
    }

    /// Where a track goes on whose clock jumped: a frame after its last, unless the others have gone on without it.
    fn resumption(&self, track: &Track, newest: i64) -> i64 {
        let next = track.out + track.step.min(MAX_MENDED_STEP_MS);
        let usual = newest - track.behind;
        if usual > next + MAX_BACK_MS {
            usual
        } else {
            next
        }
    }
}

/// What to call a step that no clock explains.
fn jump(step: i64, raw: i64) -> Anomaly {
    match step {
        0.. => Anomaly::Ahead(step),
        _ if raw < BEGINNING_MS => Anomaly::Reset(-step),
        _ => Anomaly::Back(-step),
    }
}

#[cfg(test)]
mod tests;
