//! CDN targets.

use std::time::Duration;

use prometheus::{Gauge, IntCounter, IntGaugeVec};

use super::catalogue::Catalogue;
use super::words::PUSH_STATES;
use super::{Metrics, set_states};

/// All CDN targets in numbers, as the push room tells them. Counters are totals since start.
#[derive(Debug, Clone, Copy)]
pub struct Push<'a> {
    /// Targets per state.
    pub by_state: &'a [(&'a str, usize)],
    /// The longest time without progress among targets that have media to send.
    pub stalled: Duration,
    pub connects: u64,
    pub failures: u64,
    pub bytes: u64,
    pub messages: u64,
    pub dropped: u64,
    /// Times that a target continued at a later key frame.
    pub skips: u64,
    /// Times that a backup took over.
    pub takeovers: u64,
    /// The greatest lag among targets that publish.
    pub lag: Duration,
}

/// The instruments.
pub(super) struct Instruments {
    targets: IntGaugeVec,
    stalled: Gauge,
    connects: IntCounter,
    failures: IntCounter,
    bytes: IntCounter,
    messages: IntCounter,
    dropped: IntCounter,
    skips: IntCounter,
    takeovers: IntCounter,
    lag: Gauge,
}

impl Instruments {
    pub(super) fn new(c: &mut Catalogue) -> Self {
        Self {
            targets: c.gauges(
                "linkmic_push_targets",
                "CDN targets, by state.",
                [("state", &PUSH_STATES)],
            ),
            stalled: c.real(
                "linkmic_push_last_progress_seconds",
                "Time since a CDN target last took bytes, the worst of those that have media to send; 0 without any.",
            ),
            connects: c.counter(
                "linkmic_push_connects_total",
                "Connections to CDN targets begun.",
            ),
            failures: c.counter(
                "linkmic_push_failures_total",
                "Connections to CDN targets that failed or broke.",
            ),
            bytes: c.counter(
                "linkmic_push_bytes_total",
                "Bytes that CDN targets acknowledged, framing included.",
            ),
            messages: c.counter(
                "linkmic_push_messages_total",
                "Media messages written to CDN targets.",
            ),
            dropped: c.counter(
                "linkmic_push_dropped_messages_total",
                "Media messages left out for CDN targets that were behind.",
            ),
            skips: c.counter(
                "linkmic_push_skips_total",
                "Times that a CDN target was so far behind that it continued at a later key frame.",
            ),
            takeovers: c.counter(
                "linkmic_push_takeovers_total",
                "Times that a backup target took over from the primaries of its group.",
            ),
            lag: c.real(
                "linkmic_push_lag_seconds",
                "Media time that the CDN target furthest behind has yet to acknowledge; 0 without any.",
            ),
        }
    }
}

impl Metrics {
    /// At scrape: CDN targets.
    pub fn set_push(&self, push: &Push<'_>) {
        set_states(&self.push.targets, &PUSH_STATES, push.by_state);
        self.push.stalled.set(push.stalled.as_secs_f64());
        self.push.lag.set(push.lag.as_secs_f64());
        self.raise(&[
            (&self.push.connects, push.connects),
            (&self.push.failures, push.failures),
            (&self.push.bytes, push.bytes),
            (&self.push.messages, push.messages),
            (&self.push.dropped, push.dropped),
            (&self.push.skips, push.skips),
            (&self.push.takeovers, push.takeovers),
        ]);
    }
}
