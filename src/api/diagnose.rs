//! `GET /api/v1/streams/{app}/{name}/diagnose`: what is wrong with a stream, in sentences with numbers.
//!
//! Puts together what [`findings`] says of the publisher with what readers, pushes, mixes and the chronicle say.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};

use super::body::Path;
use super::streams::{self, ms, tenths};
use super::{Error, Mixes};
use crate::hooks::{Entry, What};
use crate::media::findings::{Finding, Grade, Severity};
use crate::media::{Class, StreamKey};
use crate::playback::ReaderInfo;
use crate::push;
use crate::relay::Lately;

/// A reader that is further behind is worth a word: half of what its class may be by the defaults, or more than that.
const SLOW_VIEWER: Duration = Duration::from_millis(1_500);
const SLOW_PEER: Duration = Duration::from_millis(300);
/// As much for a push.
const SLOW_PUSH_MS: u64 = 2_000;
/// What happened longer ago is history: `…/events` has it.
const LATELY: Duration = Duration::from_secs(60);

#[derive(OpenApi)]
#[openapi(paths(get))]
pub(super) struct Description;

/// How a stream is.
#[derive(Serialize, ToSchema)]
pub(super) struct Diagnosis {
    app: String,
    stream: String,
    /// `good`, `fair` (some will notice) or `poor` (all will): the worst of the findings.
    grade: &'static str,
    /// Worst first.
    findings: Vec<Found>,
    /// What was measured of the publisher; null while there is none.
    publisher: Option<Measured>,
    /// Who reads, of both feeds.
    readers: usize,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DiagnosisFinding)]
struct Found {
    /// Stable, for programs.
    code: &'static str,
    /// `info`, `warning` or `serious`.
    severity: &'static str,
    /// `publisher`, `readers`, `push`, `mix` or `history`.
    about: &'static str,
    message: String,
}

/// Numbers of the last ten seconds, where nothing else is said. Null: not known yet, or not there.
#[derive(Serialize, ToSchema)]
#[schema(as = DiagnosisPublisher)]
struct Measured {
    fps: Option<f64>,
    declared_fps: Option<f64>,
    best_fps: Option<f64>,
    kbps: Option<f64>,
    best_kbps: Option<f64>,
    /// Of the latest eight GOPs the median, and of the running one, in media time.
    gop_ms: Option<u64>,
    running_gop_ms: Option<u64>,
    b_frames_percent: Option<f64>,
    audio_ahead_ms: Option<i64>,
    silent_ms: u64,
    stalls: usize,
}

/// What is wrong with a stream, in sentences with numbers.
#[utoipa::path(get, path = "/api/v1/streams/{app}/{name}/diagnose", operation_id = "diagnose_stream", tag = "streams",
    params(("app" = String, Path, description = "Application", pattern = "^[A-Za-z0-9_-]{1,64}$"), ("name" = String, Path, description = "Stream", pattern = "^[A-Za-z0-9_.-]{1,128}$")),
    responses(
        (status = 200, description = "what was found", body = Diagnosis),
        (status = 404, description = "nobody is there, and nothing is remembered of that name")))]
pub(super) async fn get(
    State(state): State<Arc<super::State>>,
    path: Path<(String, String)>,
) -> Result<Json<Diagnosis>, Error> {
    let key = streams::key(path)?;
    let history = state.hooks.journal().chronicle().of(&key);
    let survey = state.relay.survey(&key);
    if survey.is_none() && history.is_none() {
        return Err(streams::absent(&key));
    }
    let history = history.unwrap_or_default();
    let since = survey
        .as_ref()
        .and_then(|s| Some(s.stream.publisher.as_ref()?.since));
    let lately = survey.and_then(|survey| survey.lately);
    let readers = state.playback.readers(&key).await;
    let now = SystemTime::now();
    let mut found: Vec<(&'static str, Finding)> = Vec::new();
    match &lately {
        Some(lately) => {
            let of_it = streams::findings(lately).into_iter();
            found.extend(of_it.map(|finding| ("publisher", finding)));
        }
        None => found.push(("publisher", unpublished(&history, now))),
    }
    found.extend(of_readers(&readers).into_iter().map(|f| ("readers", f)));
    let pushes = state.pushes.handle().list();
    let ours = pushes
        .iter()
        .filter(|push| push.app == key.app() && push.stream == key.stream());
    found.extend(ours.filter_map(of_push).map(|f| ("push", f)));
    if let Some(mixes) = &state.mixes {
        for mix in mixes.list() {
            found.extend(of_mix(&mix, &key).into_iter().map(|f| ("mix", f)));
        }
    }
    let of_late = of_history(&history, since, now);
    found.extend(of_late.into_iter().map(|f| ("history", f)));
    found.sort_by_key(|(_, finding)| std::cmp::Reverse(finding.severity));
    Ok(Json(Diagnosis {
        app: key.app().to_owned(),
        stream: key.stream().to_owned(),
        grade: Grade::of(found.iter().map(|(_, finding)| finding)).word(),
        findings: found.into_iter().map(Found::from).collect(),
        publisher: lately.map(Measured::from),
        readers: readers.len(),
    }))
}

fn unpublished(history: &[Entry], now: SystemTime) -> Finding {
    let last = history.iter().find_map(|entry| match &entry.what {
        What::Fact { kind, data, .. } if *kind == "unpublish" => Some((entry.at, data)),
        _ => None,
    });
    let text = match last {
        Some((at, data)) => format!(
            "nobody publishes it; the last publisher left {} ago ({})",
            ago(at, now),
            data["reason"].as_str().unwrap_or("no reason")
        ),
        None => "nobody publishes it".to_owned(),
    };
    Finding::new("not_published", Severity::Serious, text)
}

fn of_readers(readers: &[ReaderInfo]) -> Vec<Finding> {
    let mut found = Vec::new();
    for class in [Class::LowLatency, Class::Viewer] {
        let most = match class {
            Class::LowLatency => SLOW_PEER,
            Class::Viewer => SLOW_VIEWER,
        };
        let of_class = || readers.iter().filter(|reader| reader.class == class);
        let late = |reader: &&ReaderInfo| reader.lag.is_some_and(|lag| lag > most);
        let slow = of_class().filter(late).count();
        let slowest = of_class().max_by_key(|reader| reader.lag);
        let Some((reader, lag)) = slowest.filter(late).and_then(|r| Some((r, r.lag?))) else {
            continue;
        };
        let text = format!(
            "the slowest subscriber of the class {} is {:.1} s behind ({} {}, {}, {} video messages left out so far); {slow} of {} are over {:.1} s",
            class.as_str(),
            lag.as_secs_f64(),
            reader.arrival.door,
            reader.arrival.peer,
            reader.state,
            reader.skipped,
            of_class().count(),
            most.as_secs_f64(),
        );
        found.push(Finding::new("slow_subscriber", Severity::Warning, text));
    }
    found
}

fn of_push(push: &push::Status) -> Option<Finding> {
    if push.state == push::State::Backoff {
        let text = format!(
            "the push {:?} fails ({} in a row): {}",
            push.id,
            push.failures_in_a_row,
            push.last_error.as_deref().unwrap_or("no reason known")
        );
        return Some(Finding::new("push_failing", Severity::Serious, text));
    }
    let lag = push.lag_ms.filter(|lag| *lag > SLOW_PUSH_MS)?;
    let text = format!(
        "the push {:?} is {:.1} s behind, with {} bytes on their way",
        push.id,
        lag as f64 / 1e3,
        push.bytes_waiting
    );
    Some(Finding::new("push_behind", Severity::Warning, text))
}

/// Whether a mix reads or makes that stream, as the mixer describes it.
pub(super) fn is_of(mix: &Value, key: &StreamKey) -> bool {
    let inputs = mix["inputs"].as_array().into_iter().flatten();
    let mut streams = inputs.map(|input| &input["stream"]);
    mix["app"] == key.app()
        && (mix["output"]["stream"] == key.stream() || streams.any(|s| s == key.stream()))
}

fn of_mix(mix: &Value, key: &StreamKey) -> Vec<Finding> {
    let mut found = Vec::new();
    if !is_of(mix, key) {
        return found;
    }
    let id = mix["id"].as_str().unwrap_or_default();
    if mix["state"] == "failed" {
        let why = mix["error"].as_str().unwrap_or("no reason known");
        let text = format!("the mix {id:?} has failed: {why}");
        found.push(Finding::new("mix_failed", Severity::Serious, text));
    }
    for input in mix["inputs"].as_array().into_iter().flatten() {
        let state = input["state"].as_str().unwrap_or_default();
        if input["stream"] == key.stream() && !matches!(state, "live" | "") {
            let text = format!("in the mix {id:?} it is {state}, and not live");
            found.push(Finding::new("mix_input_lost", Severity::Warning, text));
        }
    }
    if !mix["degraded"].is_null() {
        let text = format!(
            "the mix {id:?} makes less than it was asked for: {} steps down, preset {}",
            mix["degraded"]["steps"],
            mix["degraded"]["preset"].as_str().unwrap_or("unknown")
        );
        found.push(Finding::new("mix_degraded", Severity::Warning, text));
    }
    found
}

/// What was remarked in the last minute: of this publisher what it sent, of others that they were refused.
fn of_history(history: &[Entry], since: Option<SystemTime>, now: SystemTime) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for entry in history {
        let What::Remark(remark) = &entry.what else {
            continue;
        };
        let late = now.duration_since(entry.at).is_ok_and(|ago| ago > LATELY);
        // These are told better by what is measured.
        let is_measured = matches!(
            remark.reason,
            "low_frame_rate" | "long_gop" | "video_pause" | "audio_pause"
        );
        let is_told = |f: &Finding| f.code == remark.reason || f.code == remark.kind;
        if late || is_measured || found.iter().any(is_told) {
            continue;
        }
        let at = ago(entry.at, now);
        match remark.kind {
            "trouble" if since.is_some_and(|since| entry.at >= since) => {
                let text = format!("{}, {at} ago", remark.words);
                found.push(Finding::new(remark.reason, Severity::Warning, text));
            }
            "trouble" => {}
            kind => {
                let what = match kind {
                    "publish_refused" => "somebody was refused to publish it: ",
                    "play_refused" => "somebody was refused to play it: ",
                    _ => "",
                };
                let text = format!(
                    "{what}{}, {at} ago ({} in a row)",
                    remark.words, entry.count
                );
                found.push(Finding::new(kind, Severity::Info, text));
            }
        }
    }
    found
}

fn ago(at: SystemTime, now: SystemTime) -> String {
    let ago = now.duration_since(at).unwrap_or_default();
    format!("{:.0} s", ago.as_secs_f64())
}

impl From<(&'static str, Finding)> for Found {
    fn from((about, finding): (&'static str, Finding)) -> Self {
        Self {
            code: finding.code,
            severity: finding.severity.word(),
            about,
            message: finding.text,
        }
    }
}

impl From<Lately> for Measured {
    fn from(lately: Lately) -> Self {
        let Lately {
            reading,
            declared_fps,
        } = lately;
        let rates = reading.rates;
        let now = Instant::now();
        let lately = |at: Instant| now.saturating_duration_since(at) <= LATELY;
        Self {
            fps: rates.map(|rates| tenths(rates.fps)),
            declared_fps: declared_fps.map(tenths),
            best_fps: rates.map(|rates| tenths(rates.best_fps)),
            kbps: rates.map(|rates| tenths(rates.kbps)),
            best_kbps: rates.map(|rates| tenths(rates.best_kbps)),
            gop_ms: reading.usual_gop.map(ms),
            running_gop_ms: reading.running_gop.map(ms),
            b_frames_percent: rates.map(|rates| tenths(rates.reordered * 100.0)),
            audio_ahead_ms: reading.audio_ahead_ms,
            silent_ms: ms(reading.silent),
            stalls: reading.stalls.iter().filter(|s| lately(s.at)).count(),
        }
    }
}
