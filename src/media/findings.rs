//! What is worth a word about a publisher: a stable code, how bad it is, and a sentence with its numbers.
//!
//! Judges a [`Reading`]; measures nothing. Thresholds are constants here and told in docs/diagnosing.md. Called by the API
//! for what it shows and counts. Pure.

use std::time::{Duration, Instant};

use super::vitals::Reading;

/// Less of the pictures that it means to send.
const FEW: f64 = 0.85;
/// So few that nobody can miss it.
const VERY_FEW: f64 = 0.6;
/// Below this motion is not smooth, whatever is meant.
const SMOOTH: f64 = 14.5;
/// A GOP longer than this makes joiners and readers that skip wait.
const LONG_GOP: Duration = Duration::from_millis(4_500);
/// A clip without key frames: nobody can begin.
const NO_KEY: Duration = Duration::from_secs(5);
/// Stalls are told for so long.
const LATELY: Duration = Duration::from_secs(60);
/// So much of the last minute in stalls is bad.
const MUCH_STALLED: Duration = Duration::from_secs(3);
/// Nothing came for so long.
const SILENT: Duration = Duration::from_millis(1_500);
/// Sound and pictures that arrive together are further apart in their times.
const APART_MS: i64 = 300;
const FAR_APART_MS: i64 = 1_000;
/// A bitrate below this share of the best of the last minutes has fallen.
const FALLEN: f64 = 0.4;
/// A picture that waits longer than this to be shown costs a co-host's answer.
const LONG_COMPOSITION: Duration = Duration::from_millis(150);
/// Half of the pictures are later than the earliest by more than this.
const JITTERY: Duration = Duration::from_millis(150);
/// A clock that is further off than this, in millionths, is no quartz.
const CLOCK_PPM: i64 = 1_000;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Some will notice.
    Warning,
    /// All will.
    Serious,
}

impl Severity {
    /// The stable word for the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Serious => "serious",
        }
    }
}

/// How a stream is, in one word: the worst of what was found of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    Good,
    Fair,
    Poor,
}

impl Grade {
    pub const ALL: [Self; 3] = [Self::Good, Self::Fair, Self::Poor];

    /// Of what was found: fair with a warning, poor with something serious.
    pub fn of<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Self {
        let worst = findings.into_iter().map(|found| found.severity).max();
        match worst {
            None | Some(Severity::Info) => Self::Good,
            Some(Severity::Warning) => Self::Fair,
            Some(Severity::Serious) => Self::Poor,
        }
    }

    /// The stable word for the API and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Fair => "fair",
            Self::Poor => "poor",
        }
    }
}

/// Something to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable, for programs.
    pub code: &'static str,
    pub severity: Severity,
    /// A sentence with its numbers, without a full stop.
    pub text: String,
}

impl Finding {
    pub fn new(code: &'static str, severity: Severity, text: impl Into<String>) -> Self {
        Self {
            code,
            severity,
            text: text.into(),
        }
    }
}

/// What a reading says at `now`, worst first. `declared_fps` is what the publisher's metadata promise.
pub fn of_publisher(reading: &Reading, declared_fps: Option<f64>, now: Instant) -> Vec<Finding> {
    let mut found = Vec::new();
    silence(reading, &mut found);
    pictures(reading, declared_fps, &mut found);
    gops(reading, &mut found);
    stalls(reading, now, &mut found);
    times(reading, &mut found);
    bitrate(reading, &mut found);
    // Stable: what is alike stays in this order.
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

fn silence(reading: &Reading, found: &mut Vec<Finding>) {
    if reading.media_for.is_zero() && !reading.has_video && !reading.has_audio {
        let text = "the publisher has sent no media yet";
        found.push(Finding::new("no_media", Severity::Serious, text));
        return;
    }
    if reading.silent >= SILENT {
        let text = format!(
            "nothing has come from the publisher for {}",
            s(reading.silent)
        );
        found.push(Finding::new("silent", Severity::Serious, text));
    }
    if reading.rates.is_none() {
        return;
    }
    if !reading.has_video {
        let text = "the publisher sends sound without pictures";
        found.push(Finding::new("no_video", Severity::Info, text));
    } else if !reading.has_audio {
        let text = "the publisher sends pictures without sound";
        found.push(Finding::new("no_audio", Severity::Info, text));
    }
}

fn pictures(reading: &Reading, declared: Option<f64>, found: &mut Vec<Finding>) {
    let Some(rates) = reading.rates.filter(|_| reading.has_video) else {
        return;
    };
    let declared = declared.filter(|fps| (1.0..=240.0).contains(fps));
    let (meant, whose) = match declared {
        Some(fps) => (fps, "that it announced"),
        None => (rates.best_fps, "that it had"),
    };
    if rates.fps < meant * FEW {
        let severity = match rates.fps < meant * VERY_FEW {
            true => Severity::Serious,
            false => Severity::Warning,
        };
        let text = format!(
            "the publisher sends {:.1} pictures a second of the {meant:.1} {whose}: its encoder or its uplink cannot keep up",
            rates.fps
        );
        found.push(Finding::new("low_fps", severity, text));
    } else if rates.fps < SMOOTH {
        let text = format!(
            "the publisher sends {:.1} pictures a second; below 15 motion is not smooth",
            rates.fps
        );
        found.push(Finding::new("few_pictures", Severity::Warning, text));
    }
    if rates.reordered > 0.0 {
        let severity = match reading.composition > LONG_COMPOSITION {
            true => Severity::Warning,
            false => Severity::Info,
        };
        let text = format!(
            "the publisher sends B-frames ({:.0} % of its pictures): each picture is shown up to {} ms after it is decoded",
            rates.reordered * 100.0,
            reading.composition.as_millis()
        );
        found.push(Finding::new("b_frames", severity, text));
    }
}

fn gops(reading: &Reading, found: &mut Vec<Finding>) {
    if !reading.has_video {
        return;
    }
    let Some(running) = reading.running_gop else {
        if reading.media_for > NO_KEY {
            let text = format!(
                "no key frame has come in {}: no player can begin",
                s(reading.media_for)
            );
            found.push(Finding::new("no_key_frame", Severity::Serious, text));
        }
        return;
    };
    // A GOP that has already become longer than the usual one counts as far as it has come.
    let usual = reading.usual_gop.unwrap_or_default().max(running);
    if usual > LONG_GOP {
        let severity = match usual > 2 * LONG_GOP {
            true => Severity::Serious,
            false => Severity::Warning,
        };
        let text = format!(
            "a key frame comes every {}: players that begin or have fallen behind wait for one; 2 s are usual",
            s(usual)
        );
        found.push(Finding::new("long_gop", severity, text));
    }
}

fn stalls(reading: &Reading, now: Instant, found: &mut Vec<Finding>) {
    let lately = |at: Instant| now.saturating_duration_since(at) <= LATELY;
    let of = |is_pause: bool| {
        let all = reading.stalls.iter().filter(|stall| lately(stall.at));
        let mut lasted: Vec<_> = all
            .filter(|stall| stall.is_pause == is_pause)
            .map(|stall| stall.lasted)
            .collect();
        lasted.sort_unstable();
        lasted
    };
    let told = |lasted: &[Duration]| match lasted {
        [one] => format!("for {}", s(*one)),
        more => format!("{} × {}", more.len(), s(more[more.len() / 2])),
    };
    let stalled = of(false);
    if !stalled.is_empty() {
        let sum: Duration = stalled.iter().sum();
        let severity = match sum > MUCH_STALLED {
            true => Severity::Serious,
            false => Severity::Warning,
        };
        let text = format!(
            "the uplink stalled {} in the last minute: what was sent meanwhile came at once afterwards",
            told(&stalled)
        );
        found.push(Finding::new("uplink_stalled", severity, text));
    }
    let paused = of(true);
    if !paused.is_empty() {
        let text = format!(
            "the publisher paused {} in the last minute: its clock went on, and it sent nothing",
            told(&paused)
        );
        found.push(Finding::new("publisher_paused", Severity::Warning, text));
    }
}

fn times(reading: &Reading, found: &mut Vec<Finding>) {
    if let Some(ahead) = reading.audio_ahead_ms.filter(|ms| ms.abs() >= APART_MS) {
        let severity = match ahead.abs() >= FAR_APART_MS {
            true => Severity::Serious,
            false => Severity::Warning,
        };
        let (code, word) = match ahead > 0 {
            true => ("audio_ahead", "ahead of"),
            false => ("audio_behind", "behind"),
        };
        let text = format!(
            "audio is {} ms {word} the pictures that arrive with it",
            ahead.abs()
        );
        found.push(Finding::new(code, severity, text));
    }
    if let Some(jitter) = reading.jitter.filter(|jitter| jitter.median >= JITTERY) {
        let text = format!(
            "pictures arrive unevenly: half of the last {} came {} ms or more after the earliest of them would have, the latest {} ms",
            jitter.count,
            jitter.median.as_millis(),
            jitter.max.as_millis()
        );
        found.push(Finding::new("jitter", Severity::Warning, text));
    }
    if let Some(ppm) = reading.clock_ppm.filter(|ppm| ppm.abs() >= CLOCK_PPM) {
        let word = if ppm > 0 { "fast" } else { "slow" };
        let text = format!(
            "the publisher's clock is {:.2} % {word}",
            ppm.abs() as f64 / 1e4
        );
        found.push(Finding::new("clock_off", Severity::Info, text));
    }
}

fn bitrate(reading: &Reading, found: &mut Vec<Finding>) {
    let Some(rates) = reading.rates.filter(|rates| rates.best_kbps > 0.0) else {
        return;
    };
    if rates.kbps < rates.best_kbps * FALLEN {
        let text = format!(
            "the bitrate has fallen to {:.0} kbit/s from {:.0}: a poor uplink, or a picture that hardly moves",
            rates.kbps, rates.best_kbps
        );
        found.push(Finding::new("bitrate_fallen", Severity::Warning, text));
    }
}

/// Seconds with one digit.
fn s(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests;
