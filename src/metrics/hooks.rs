//! Callbacks and webhooks on their way, and what the back end that is asked says.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGaugeVec};

use super::catalogue::Catalogue;
use super::words::ACTIONS;
use super::{Metrics, count, known};

const LETTERS: [&str; 2] = ["waiting", "dead"];
const KINDS: [&str; 2] = ["callback", "webhook"];
/// `failed`: a try that is followed by others.
const DELIVERIES: [&str; 3] = ["delivered", "failed", "dead"];
const ANSWERS: [&str; 4] = ["granted", "denied", "timeout", "error"];
/// Up to the usual limit of 2 s.
const ANSWER_BUCKETS: [f64; 11] = [
    0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0,
];

/// The instruments.
pub(super) struct Hooks {
    letters: IntGaugeVec,
    oldest: Gauge,
    deliveries: IntCounterVec,
    lost: IntCounter,
    answers: IntCounterVec,
    /// In the order of [`ACTIONS`].
    answer_times: [Histogram; ACTIONS.len()],
}

impl Hooks {
    pub(super) fn new(c: &mut Catalogue) -> Self {
        Self {
            letters: c.gauges(
                "linkmic_hooks_outbox_letters",
                "Callbacks and webhooks that are kept: waiting to be taken, or dead (given up).",
                [("state", &LETTERS)],
            ),
            oldest: c.real(
                "linkmic_hooks_outbox_oldest_seconds",
                "How long ago the oldest callback or webhook that waits was written; 0 without any.",
            ),
            deliveries: c.counters(
                "linkmic_hooks_deliveries_total",
                "Tries to deliver a callback or webhook, by what came of them: delivered, failed (it is tried again), dead (it is not).",
                [("kind", &KINDS), ("outcome", &DELIVERIES)],
            ),
            lost: c.counter(
                "linkmic_hooks_lost_total",
                "Callbacks and webhooks that were never kept, for want of room or because too much happened at once.",
            ),
            answers: c.counters(
                "linkmic_hooks_authorize_total",
                "Answers of the authorize hook; what a timeout or an error means is configured.",
                [("action", &ACTIONS), ("outcome", &ANSWERS)],
            ),
            answer_times: c.histograms(
                "linkmic_hooks_authorize_seconds",
                "How long who publishes or plays waited for the answer of the authorize hook.",
                &ANSWER_BUCKETS,
                ("action", ACTIONS),
            ),
        }
    }
}

impl Metrics {
    /// A `"callback"` or `"webhook"` was `"delivered"`, has `"failed"` for now, or is `"dead"`.
    pub fn hook_delivery(&self, kind: &str, outcome: &str) {
        if let (Some(kind), Some(outcome)) = (known(&KINDS, kind), known(&DELIVERIES, outcome)) {
            let deliveries = &self.hooks.deliveries;
            deliveries.with_label_values(&[kind, outcome]).inc();
        }
    }

    /// Callbacks or webhooks were not even kept.
    pub fn hooks_lost(&self, letters: u64) {
        self.hooks.lost.inc_by(letters);
    }

    /// The authorize hook was asked whether somebody may `"publish"` or `"play"`, and `"granted"` or `"denied"` it, or there was a
    /// `"timeout"` or `"error"`.
    pub fn hook_asked(&self, action: &str, outcome: &str, took: Duration) {
        let at = ACTIONS.iter().position(|known| *known == action);
        if let (Some(at), Some(outcome)) = (at, known(&ANSWERS, outcome)) {
            let answers = &self.hooks.answers;
            answers.with_label_values(&[ACTIONS[at], outcome]).inc();
            self.hooks.answer_times[at].observe(took.as_secs_f64());
        }
    }

    /// At scrape: letters that wait and those that are dead, and for how long the oldest has waited.
    pub fn set_outbox(&self, waiting: usize, dead: usize, oldest: Duration) {
        for (state, letters) in LETTERS.into_iter().zip([waiting, dead]) {
            let gauge = self.hooks.letters.with_label_values(&[state]);
            gauge.set(count(letters));
        }
        self.hooks.oldest.set(oldest.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_letters_and_questions_is_counted_and_nothing_else_is() {
        let metrics = Metrics::new();
        let page = || String::from_utf8(metrics.encode()).unwrap();
        let before = page().lines().count();
        metrics.hook_delivery("webhook", "dead");
        metrics.hook_delivery("made up", "dead");
        metrics.hooks_lost(3);
        metrics.hook_asked("play", "denied", Duration::from_millis(20));
        metrics.hook_asked("made up", "denied", Duration::ZERO);
        metrics.set_outbox(5, 1, Duration::from_millis(2_500));
        let page = page();
        assert_eq!(page.lines().count(), before);
        for line in [
            "linkmic_hooks_deliveries_total{kind=\"webhook\",outcome=\"dead\"} 1",
            "linkmic_hooks_deliveries_total{kind=\"callback\",outcome=\"delivered\"} 0",
            "linkmic_hooks_lost_total 3",
            "linkmic_hooks_authorize_total{action=\"play\",outcome=\"denied\"} 1",
            "linkmic_hooks_authorize_seconds_bucket{action=\"play\",le=\"0.01\"} 0",
            "linkmic_hooks_authorize_seconds_bucket{action=\"play\",le=\"0.025\"} 1",
            "linkmic_hooks_outbox_letters{state=\"waiting\"} 5",
            "linkmic_hooks_outbox_letters{state=\"dead\"} 1",
            "linkmic_hooks_outbox_oldest_seconds 2.5",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}");
        }
    }
}
