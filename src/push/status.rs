//! What is known of one target, as its task notes it and as answers show it.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::broadcast;
use utoipa::ToSchema;

use super::event::Event;
use super::target::{Role, SignWith, Target};
use crate::logging::{self, RequestId};
use crate::media::{Feed, StreamKey};

/// Longest error text kept, in characters. It may hold a stranger's words.
const MAX_ERROR_CHARS: usize = 300;

/// Where a target is; see the table in [`crate::push`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PushState)]
pub enum State {
    Waiting,
    Standby,
    Connecting,
    Live,
    Backoff,
    Ended,
}

impl State {
    pub const ALL: [State; 6] = [
        State::Waiting,
        State::Standby,
        State::Connecting,
        State::Live,
        State::Backoff,
        State::Ended,
    ];

    /// The stable word for the API and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Standby => "standby",
            State::Connecting => "connecting",
            State::Live => "live",
            State::Backoff => "backoff",
            State::Ended => "ended",
        }
    }
}

/// One target as `GET /api/v1/pushes/{id}` shows it. Counters run since the target was put or last changed.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Push)]
pub struct Status {
    pub id: String,
    pub app: String,
    pub stream: String,
    pub feed: &'static str,
    /// With the query masked.
    pub url: String,
    pub sign: Option<SignStatus>,
    pub group: Option<String>,
    /// Only with a group.
    pub role: Option<Role>,
    /// `api` or `rule`: who made it.
    pub origin: &'static str,
    pub state: State,
    /// When the state was entered, RFC 3339.
    pub since: String,
    /// Connections that were begun.
    pub connects: u64,
    /// Connections that failed or broke.
    pub failures: u64,
    /// Of those, since a connection last held for [`steady`](super::Config::steady).
    pub failures_in_a_row: u32,
    /// Times that it took over, as a backup.
    pub takeovers: u64,
    /// Bytes that the target's TCP has acknowledged, framing included.
    pub bytes: u64,
    /// Bytes on their way to it: queued, or not acknowledged yet.
    pub bytes_waiting: u64,
    /// Media time from the last message that it has acknowledged to the newest there is; only in `live`.
    pub lag_ms: Option<u64>,
    /// Media messages handed to the connection.
    pub messages: u64,
    /// Media messages left out because the target was behind.
    pub dropped: u64,
    /// Times that it was so far behind that it had to continue at a later key frame.
    pub skips: u64,
    /// Time since the target last acknowledged bytes; `null` before it ever did.
    pub last_progress_ms: Option<u64>,
    /// Time until the next attempt; only in `backoff`.
    pub retry_in_ms: Option<u64>,
    /// Why the last connection failed. Kept when the next one succeeds.
    pub last_error: Option<String>,
    /// When it failed, RFC 3339.
    pub last_error_at: Option<String>,
}

/// How a target is signed, without what signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PushSign)]
pub struct SignStatus {
    /// The key's id; `null` for a target with a secret of its own.
    pub key: Option<String>,
    /// `***` for a target with a secret of its own.
    pub secret: Option<&'static str>,
    pub expires_in: String,
}

/// The numbers of one target, written by its task and read by whoever asks. Changes of state are told to who listens.
#[derive(Debug)]
pub(super) struct Record {
    id: String,
    key: StreamKey,
    events: broadcast::Sender<Event>,
    numbers: Mutex<Numbers>,
}

/// What [`Record`] holds.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    pub state: State,
    pub since: SystemTime,
    pub counts: Counts,
    pub last_progress: Option<Instant>,
    /// Since when there has been something to send of which the target has taken nothing; `None` where there is nothing to send.
    pub wanted_since: Option<Instant>,
    pub retry_at: Option<Instant>,
    pub last_error: Option<(String, SystemTime)>,
    pub failures_in_a_row: u32,
    pub waiting: Waiting,
    /// The latest call of an API that made or removed it.
    pub request: Option<RequestId>,
}

/// What is on its way to a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    pub bytes: u64,
    pub lag: Duration,
}

/// What only ever grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub connects: u64,
    pub failures: u64,
    pub takeovers: u64,
    pub bytes: u64,
    pub messages: u64,
    pub dropped: u64,
    pub skips: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Counts) {
        self.connects += other.connects;
        self.failures += other.failures;
        self.takeovers += other.takeovers;
        self.bytes += other.bytes;
        self.messages += other.messages;
        self.dropped += other.dropped;
        self.skips += other.skips;
    }
}

impl Record {
    pub(super) fn new(id: &str, key: &StreamKey, events: broadcast::Sender<Event>) -> Self {
        Self {
            id: id.to_owned(),
            key: key.clone(),
            events,
            numbers: Mutex::new(Numbers {
                state: State::Waiting,
                since: SystemTime::now(),
                counts: Counts::default(),
                last_progress: None,
                wanted_since: None,
                retry_at: None,
                last_error: None,
                failures_in_a_row: 0,
                waiting: Waiting::default(),
                request: logging::request(),
            }),
        }
    }

    /// Removed by the call that is being worked on, if it is one.
    pub(super) fn removed(&self) {
        if let Some(request) = logging::request() {
            self.lock().request = Some(request);
        }
    }

    pub(super) fn enter(&self, state: State) {
        self.change(state, |_| {});
    }

    pub(super) fn connecting(&self) {
        self.change(State::Connecting, |numbers| numbers.counts.connects += 1);
    }

    /// A connection has held, or ended well.
    pub(super) fn steady(&self) {
        self.lock().failures_in_a_row = 0;
    }

    /// A connection failed, the `in_a_row`th time.
    pub(super) fn failed(&self, error: String, in_a_row: u32, retry_at: Instant) {
        self.change(State::Backoff, |numbers| {
            numbers.counts.failures += 1;
            numbers.failures_in_a_row = in_a_row;
            numbers.last_error = Some((error, SystemTime::now()));
            numbers.retry_at = Some(retry_at);
        });
    }

    /// A backup takes over.
    pub(super) fn took_over(&self) {
        self.lock().counts.takeovers += 1;
    }

    /// So many bytes more were acknowledged.
    pub(super) fn acknowledged(&self, bytes: u64, now: Instant) {
        let mut numbers = self.lock();
        numbers.counts.bytes += bytes;
        numbers.last_progress = Some(now);
        numbers.wanted_since = Some(now);
    }

    /// What is on its way on a connection, of which the first began to wait at `since` or later.
    pub(super) fn waits(&self, waiting: Waiting, since: Instant) {
        let mut numbers = self.lock();
        numbers.waiting = waiting;
        numbers.wanted_since = match waiting.bytes {
            0 => None,
            // A target that a connection before this one stalled on still does.
            _ => Some(numbers.wanted_since.unwrap_or(since)),
        };
    }

    /// The log is to hear that the target is so far behind that it skips to a key frame.
    pub(super) fn tell_behind(&self, behind: Duration) {
        tracing::warn!(
            push = %self.id, stream = %self.key, behind_ms = behind.as_millis() as u64,
            "push target is behind; video continues at a later key frame"
        );
    }

    pub(super) fn offered(&self, offered: Offered) {
        let mut numbers = self.lock();
        numbers.counts.messages += offered.messages;
        numbers.counts.dropped += offered.dropped;
        numbers.counts.skips += offered.skips;
    }

    pub(super) fn numbers(&self) -> Numbers {
        self.lock().clone()
    }

    /// Enters a state, after `with` has noted what goes with it.
    fn change(&self, state: State, with: impl FnOnce(&mut Numbers)) {
        let mut numbers = self.lock();
        numbers.retry_at = None;
        numbers.waiting = Waiting::default();
        numbers.wanted_since = match state {
            State::Waiting | State::Standby | State::Ended => None,
            State::Connecting | State::Live | State::Backoff => {
                Some(numbers.wanted_since.unwrap_or_else(Instant::now))
            }
        };
        with(&mut numbers);
        if numbers.state == state {
            return;
        }
        numbers.state = state;
        numbers.since = SystemTime::now();
        let error = numbers.last_error.as_ref().map(|(error, _)| error.clone());
        // Under the lock, so that events are in order. Nobody may be listening.
        let _ = self.events.send(Event {
            id: self.id.clone(),
            key: self.key.clone(),
            state,
            error: error.filter(|_| state == State::Backoff),
            failures_in_a_row: numbers.failures_in_a_row,
            request: numbers.request.clone(),
            at: numbers.since,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        // Plain numbers, valid after every statement.
        self.numbers.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// What became of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Offered {
    /// Handed out.
    pub messages: u64,
    /// Left out.
    pub dropped: u64,
    /// Times that leaving out began.
    pub skips: u64,
}

impl Numbers {
    /// Time without progress while there is something to send: since the target last acknowledged bytes, or since there was something
    /// for it if that is later. It runs on through failed connections. Zero where there is nothing to send, and in `live` where
    /// nothing waits.
    pub(super) fn stalled(&self, now: Instant) -> Duration {
        let idle = self.state == State::Live && self.waiting.bytes == 0;
        match self.wanted_since {
            Some(since) if !idle => now.saturating_duration_since(since),
            _ => Duration::ZERO,
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
            group: target.group.as_ref().map(|group| group.name.clone()),
            role: target.group.as_ref().map(|group| group.role),
            origin,
            state: self.state,
            since: humantime::format_rfc3339_millis(self.since).to_string(),
            connects: self.counts.connects,
            failures: self.counts.failures,
            failures_in_a_row: self.failures_in_a_row,
            takeovers: self.counts.takeovers,
            bytes: self.counts.bytes,
            bytes_waiting: self.waiting.bytes,
            lag_ms: (self.state == State::Live).then(|| ms(self.waiting.lag)),
            messages: self.counts.messages,
            dropped: self.counts.dropped,
            skips: self.counts.skips,
            last_progress_ms: self
                .last_progress
                .map(|at| ms(now.saturating_duration_since(at))),
            retry_in_ms: self
                .retry_at
                .map(|at| ms(at.saturating_duration_since(now))),
            last_error: self.last_error.as_ref().map(|(error, _)| error.clone()),
            last_error_at: self
                .last_error
                .as_ref()
                .map(|(_, at)| humantime::format_rfc3339_millis(*at).to_string()),
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
    fn a_target_is_stalled_from_when_there_was_something_for_it_until_it_takes_some() {
        let record = record().0;
        let zero = Instant::now();
        let at = |s: u64| zero + Duration::from_secs(s);
        let stalled = |s| record.numbers().stalled(at(s)).as_secs_f64().round();
        let waits = |bytes, since| {
            let lag = Duration::ZERO;
            record.waits(Waiting { bytes, lag }, at(since));
        };
        assert_eq!(stalled(60), 0.0);
        // Failures do not begin it anew.
        record.connecting();
        record.failed("refused".to_owned(), 1, at(1));
        record.connecting();
        assert_eq!(stalled(60), 60.0);
        // Connected, and nothing to send as yet; then something, of which it takes nothing, and then some.
        record.enter(State::Live);
        assert_eq!(stalled(60), 0.0);
        waits(10, 60);
        assert_eq!(stalled(70), 70.0);
        record.acknowledged(6, at(70));
        waits(4, 70);
        assert_eq!(stalled(75), 5.0);
        // All that there was. The feed rests; what comes next counts from when it came.
        record.acknowledged(4, at(75));
        waits(0, 70);
        assert_eq!(stalled(900), 0.0);
        waits(10, 900);
        assert_eq!(stalled(902), 2.0);
        // The connection is given up, and the next one takes nothing either.
        record.failed("stalled".to_owned(), 1, at(906));
        assert_eq!(stalled(906), 6.0);
        record.connecting();
        record.enter(State::Live);
        waits(10, 910);
        assert_eq!(stalled(911), 11.0);
    }

    #[test]
    fn a_target_that_has_nothing_to_send_is_not_stalled_by_what_was_before() {
        for state in [State::Waiting, State::Standby, State::Ended] {
            let record = record().0;
            let now = Instant::now();
            let before = now.checked_sub(Duration::from_secs(30));
            record.connecting();
            record.enter(State::Live);
            record.acknowledged(10, before.expect("a machine that is up for longer"));
            record.enter(state);
            assert_eq!(record.numbers().stalled(now), Duration::ZERO, "{state:?}");
            record.connecting();
            assert_eq!(record.numbers().stalled(now), Duration::ZERO, "{state:?}");
        }
    }

    #[test]
    fn each_change_of_state_is_told_once_with_its_cause() {
        let (record, mut events) = record();
        record.enter(State::Waiting);
        record.connecting();
        record.failed("no room".to_owned(), 1, Instant::now());
        record.connecting();
        record.enter(State::Live);
        record.enter(State::Live);
        let mut told = Vec::new();
        while let Ok(event) = events.try_recv() {
            assert_eq!((event.id.as_str(), event.key.stream()), ("cdn", "a"));
            told.push((event.state, event.error, event.failures_in_a_row));
        }
        let backoff = (State::Backoff, Some("no room".to_owned()), 1);
        assert_eq!(
            told,
            [
                (State::Connecting, None, 0),
                backoff,
                (State::Connecting, None, 1),
                (State::Live, None, 1)
            ]
        );
    }

    fn record() -> (Record, broadcast::Receiver<Event>) {
        let (sender, events) = broadcast::channel(16);
        let key = StreamKey::new("live", "a").unwrap();
        (Record::new("cdn", &key, sender), events)
    }
}
