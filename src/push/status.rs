//! What is known of one target, as its task notes it and as answers show it.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::target::{SignWith, Target};
use crate::media::Feed;

/// Longest error text kept, in characters. It may hold a stranger's words.
const MAX_ERROR_CHARS: usize = 300;

/// Where a target is; see the table in [`crate::push`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Waiting,
    Connecting,
    Live,
    Backoff,
    Ended,
}

impl State {
    pub const ALL: [State; 5] = [
        State::Waiting,
        State::Connecting,
        State::Live,
        State::Backoff,
        State::Ended,
    ];

    /// The stable word for the API and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Connecting => "connecting",
            State::Live => "live",
            State::Backoff => "backoff",
            State::Ended => "ended",
        }
    }
}

/// One target as `GET /api/v1/pushes/{id}` shows it. Counters run since the target was put or last changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    pub id: String,
    pub app: String,
    pub stream: String,
    pub feed: &'static str,
    /// With the query masked.
    pub url: String,
    pub sign: Option<SignStatus>,
    /// `api` or `rule`: who made it.
    pub origin: &'static str,
    pub state: State,
    /// When the state was entered, RFC 3339.
    pub since: String,
    /// Connections that were begun.
    pub connects: u64,
    /// Connections that failed or broke.
    pub failures: u64,
    /// Bytes that the target's TCP took, framing included.
    pub bytes: u64,
    /// Media messages handed to the connection.
    pub messages: u64,
    /// Media messages left out because the target was behind.
    pub dropped: u64,
    /// Time since the target last took bytes; `null` before it ever did.
    pub last_progress_ms: Option<u64>,
    /// Time until the next attempt; only in `backoff`.
    pub retry_in_ms: Option<u64>,
    /// Why the last connection failed. Kept when the next one succeeds.
    pub last_error: Option<String>,
}

/// How a target is signed, without what signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignStatus {
    /// The key's id; `null` for a target with a secret of its own.
    pub key: Option<String>,
    /// `***` for a target with a secret of its own.
    pub secret: Option<&'static str>,
    pub expires_in: String,
}

/// The numbers of one target, written by its task and read by whoever asks.
#[derive(Debug)]
pub(super) struct Record(Mutex<Numbers>);

/// What [`Record`] holds.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    pub state: State,
    pub since: SystemTime,
    /// `since` on the monotonic clock.
    pub entered: Instant,
    pub counts: Counts,
    pub last_progress: Option<Instant>,
    pub retry_at: Option<Instant>,
    pub last_error: Option<String>,
}

/// What only ever grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub connects: u64,
    pub failures: u64,
    pub bytes: u64,
    pub messages: u64,
    pub dropped: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Counts) {
        self.connects += other.connects;
        self.failures += other.failures;
        self.bytes += other.bytes;
        self.messages += other.messages;
        self.dropped += other.dropped;
    }
}

impl Record {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Numbers {
            state: State::Waiting,
            since: SystemTime::now(),
            entered: Instant::now(),
            counts: Counts::default(),
            last_progress: None,
            retry_at: None,
            last_error: None,
        }))
    }

    pub(super) fn enter(&self, state: State) {
        let mut numbers = self.lock();
        if numbers.state != state {
            numbers.state = state;
            numbers.since = SystemTime::now();
            numbers.entered = Instant::now();
        }
        numbers.retry_at = None;
    }

    pub(super) fn connecting(&self) {
        self.enter(State::Connecting);
        self.lock().counts.connects += 1;
    }

    pub(super) fn failed(&self, error: String, retry_at: Instant) {
        self.enter(State::Backoff);
        let mut numbers = self.lock();
        numbers.counts.failures += 1;
        numbers.last_error = Some(error);
        numbers.retry_at = Some(retry_at);
    }

    pub(super) fn wrote(&self, bytes: usize, now: Instant) {
        let mut numbers = self.lock();
        numbers.counts.bytes += bytes as u64;
        numbers.last_progress = Some(now);
    }

    pub(super) fn offered(&self, messages: u64, dropped: u64) {
        let mut numbers = self.lock();
        numbers.counts.messages += messages;
        numbers.counts.dropped += dropped;
    }

    pub(super) fn numbers(&self) -> Numbers {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        // Plain numbers, valid after every statement.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Numbers {
    /// Time without progress while there is media to send: in `live` since bytes were last taken, in `connecting` and
    /// `backoff` since the target last took any, or since the state was entered if it never did.
    pub(super) fn stalled(&self, now: Instant) -> Duration {
        match self.state {
            State::Waiting | State::Ended => Duration::ZERO,
            _ => now.saturating_duration_since(self.last_progress.unwrap_or(self.entered)),
        }
    }

    pub(super) fn status(
        &self,
        id: &str,
        target: &Target,
        origin: &'static str,
        now: Instant,
    ) -> Status {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Status {
            id: id.to_owned(),
            app: target.key.app().to_owned(),
            stream: target.key.stream().to_owned(),
            feed: match target.feed {
                Feed::Source => "source",
                Feed::Program => "program",
            },
            url: target.url.to_string(),
            sign: target.sign.as_ref().map(|sign| SignStatus {
                key: match &sign.with {
                    SignWith::Key(id) => Some(id.clone()),
                    SignWith::Secret(_) => None,
                },
                secret: match &sign.with {
                    SignWith::Key(_) => None,
                    SignWith::Secret(_) => Some("***"),
                },
                expires_in: humantime::format_duration(sign.expires_in).to_string(),
            }),
            origin,
            state: self.state,
            since: humantime::format_rfc3339_millis(self.since).to_string(),
            connects: self.counts.connects,
            failures: self.counts.failures,
            bytes: self.counts.bytes,
            messages: self.counts.messages,
            dropped: self.counts.dropped,
            last_progress_ms: self
                .last_progress
                .map(|at| ms(now.saturating_duration_since(at))),
            retry_in_ms: self
                .retry_at
                .map(|at| ms(at.saturating_duration_since(now))),
            last_error: self.last_error.clone(),
        }
    }
}

/// A text that may repeat what we sent (servers quote URLs in their refusals), fit to be shown: queries masked, one
/// line, of bounded length.
pub(super) fn presentable(text: &str, query: &str) -> String {
    let text = match query {
        "" => text.to_owned(),
        query => text.replace(query, "***"),
    };
    let mut shown = String::new();
    let mut masking = false;
    for c in text.chars().take(MAX_ERROR_CHARS) {
        let ends_word = c.is_whitespace() || matches!(c, '"' | '\'' | ')' | ']' | '>' | ',' | ';');
        if masking && ends_word {
            masking = false;
        }
        if masking {
            continue;
        }
        shown.push(if c.is_control() { ' ' } else { c });
        if c == '?' {
            shown.push_str("***");
            masking = true;
        }
    }
    // "really?" is no URL: nothing was hidden behind a mark at the end of a word, and nothing is lost by saying so.
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_quotes_is_masked() {
        let query = "txSecret=0123&txTime=5F";
        for (text, expected) in [
            ("stream is busy", "stream is busy"),
            (
                "no such name: a?txSecret=0123&txTime=5F",
                "no such name: a?***",
            ),
            (
                "'rtmp://h/live/a?k=v' refused\r\nbye",
                "'rtmp://h/live/a?***' refused  bye",
            ),
            ("txSecret=0123&txTime=5F is bad", "*** is bad"),
            ("(a?txSecret=0123) and (b?x)", "(a?***) and (b?***)"),
        ] {
            assert_eq!(presentable(text, query), expected);
        }
        assert!(presentable(&"x".repeat(10_000), query).len() <= MAX_ERROR_CHARS);
    }

    #[test]
    fn a_target_without_media_is_not_stalled() {
        let record = Record::new();
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(record.numbers().stalled(later), Duration::ZERO);
        record.enter(State::Live);
        assert!(record.numbers().stalled(later) > Duration::from_secs(59));
        record.wrote(10, later);
        assert_eq!(record.numbers().stalled(later), Duration::ZERO);
    }
}
