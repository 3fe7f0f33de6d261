//! Publishers and players: who came in and why they left, what was repaired, what they missed.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::catalogue::Catalogue;
use super::words::{
    ACTIONS, ANOMALIES, CLASSES, DROP_CAUSES, GRANTED, LAG_BUCKETS, NEAR_MISSES, OTHER,
};
use super::{Fixed, Metrics, known, of_each};
use crate::reason::Reason;

/// The instruments.
pub(super) struct Clients {
    auth: IntCounterVec,
    near_misses: IntCounterVec,
    /// In the order of [`Reason::ALL`], as the next.
    disconnects: Vec<IntCounter>,
    http_turned: Vec<IntCounter>,
    /// In the order of [`CLASSES`].
    lag: [Histogram; CLASSES.len()],
    playback_drops: Fixed,
    anomalies: Fixed,
}

impl Clients {
    pub(super) fn new(c: &mut Catalogue) -> Self {
        let reasons: Vec<&'static str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        let outcomes = [reasons.as_slice(), &[GRANTED, OTHER]].concat();
        let disconnects = c.counters(
            "linkmic_ingest_disconnects_total",
            "Connections of publishers and players (RTMP, HTTP-FLV) ended, by reason.",
            [("reason", &reasons)],
        );
        let http_turned = c.counters(
            "linkmic_playback_http_turned_total",
            "Connections to the public HTTP listeners that ended before they had asked for anything, by reason.",
            [("reason", &reasons)],
        );
        Self {
            auth: c.counters(
                "linkmic_auth_decisions_total",
                "Requests to publish or play, by outcome: granted, or the reason of the refusal.",
                [("action", &ACTIONS), ("outcome", &outcomes)],
            ),
            near_misses: c.counters(
                "linkmic_auth_near_misses_total",
                "URLs a little after their expiry, by what became of them: a sign of clocks apart.",
                [("outcome", &NEAR_MISSES)],
            ),
            disconnects: of_each(&disconnects, &reasons),
            http_turned: of_each(&http_turned, &reasons),
            lag: c.histograms(
                "linkmic_playback_lag_seconds",
                "Media time from the last byte that a player's TCP has acknowledged to the newest message, once a second for each player, by class.",
                &LAG_BUCKETS,
                ("class", CLASSES),
            ),
            playback_drops: Fixed::new(
                &c.counters(
                    "linkmic_playback_dropped_messages_total",
                    "Video messages that players did not get, by cause: time or bytes (further behind than their class allows), lost (fallen out of the ring).",
                    [("cause", &DROP_CAUSES)],
                ),
                &DROP_CAUSES,
            ),
            anomalies: Fixed::new(
                &c.counters(
                    "linkmic_ingest_timestamp_anomalies_total",
                    "Repaired timestamps of publishers, by kind: ahead and back (the clock jumped), reset (it began again at 0), unordered (older than its predecessor), apart (a track far from all others).",
                    [("kind", &ANOMALIES)],
                ),
                &ANOMALIES,
            ),
        }
    }
}

impl Metrics {
    /// A request to `"publish"` or `"play"` was decided: `"granted"`, or the code of the [`Reason`] of the refusal.
    pub fn auth(&self, action: &str, outcome: &str) {
        let action = known(&ACTIONS, action).unwrap_or("play");
        let outcome = match outcome {
            GRANTED => GRANTED,
            code => Reason::ALL
                .iter()
                .map(|reason| reason.code())
                .find(|known| *known == code)
                .unwrap_or(OTHER),
        };
        self.clients
            .auth
            .with_label_values(&[action, outcome])
            .inc();
    }

    /// A publisher's or player's connection ended.
    pub fn disconnected(&self, reason: Reason) {
        if let Some(at) = Reason::ALL.iter().position(|r| *r == reason) {
            self.clients.disconnects[at].inc();
        }
    }

    /// A connection to a public HTTP listener ended before it had asked for anything.
    pub fn http_turned(&self, reason: Reason) {
        if let Some(at) = Reason::ALL.iter().position(|r| *r == reason) {
            self.clients.http_turned[at].inc();
        }
    }

    /// `n` messages did not reach a player: `"time"` or `"bytes"` (over its budget), or `"lost"` (fallen out of the ring).
    pub fn playback_drops(&self, cause: &str, n: u64) {
        self.clients.playback_drops.get(cause).inc_by(n);
    }

    /// How far a player of that class is behind the newest message, in media time.
    pub fn lag(&self, class: &str, lag: Duration) {
        if let Some(at) = CLASSES.iter().position(|known| *known == class) {
            self.clients.lag[at].observe(lag.as_secs_f64());
        }
    }

    /// A publisher's timestamp was repaired; `kind` is a word of `media::repair::Anomaly::KINDS`.
    pub fn anomalies(&self, kind: &str) {
        self.clients.anomalies.get(kind).inc();
    }

    /// At scrape: how many near misses there were since start, in and out of the tolerance.
    pub fn set_near_misses(&self, forgiven: u64, refused: u64) {
        let counter = |outcome| self.clients.near_misses.with_label_values(&[outcome]);
        self.raise(&[
            (&counter(NEAR_MISSES[0]), forgiven),
            (&counter(NEAR_MISSES[1]), refused),
        ]);
    }
}
