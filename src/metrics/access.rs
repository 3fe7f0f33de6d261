//! What the doors let in, kept out, and hold: keys, limits, bans, memory.

use std::collections::BTreeSet;
use std::sync::Mutex;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::catalogue::Catalogue;
use super::{Metrics, OTHER, count, known};

/// Limits that keep somebody out before or after he asked for a stream, or send him away.
const LIMITS: [&str; 13] = [
    "connections",
    "connections_per_address",
    "publishers",
    "publishers_per_address",
    "memory",
    "cpu_percent",
    "egress_mbps",
    "waiting_per_name",
    "waiting_per_address",
    "waiting_total",
    "readers_per_name",
    "max_kbps",
    OTHER,
];
const MEMORY: [&str; 2] = ["used", "limit"];

/// The instruments.
pub(super) struct Access {
    key_hits: IntCounterVec,
    /// Set and id of each key that has a series: as many as are configured, which is bounded there.
    keys: Mutex<BTreeSet<(String, String)>>,
    limits: IntCounterVec,
    memory: IntGaugeVec,
    bans: IntGauge,
}

impl Access {
    pub(super) fn new(c: &mut Catalogue) -> Self {
        Self {
            key_hits: c.bounded_counters(
                "linkmic_auth_key_hits_total",
                "Requests that a configured key opened the door for, by set and key.",
                [
                    ("set", "`push`, `peer`, `play`"),
                    ("key", "the key's id; as many as are configured"),
                ],
            ),
            keys: Mutex::default(),
            limits: c.counters(
                "linkmic_limits_refused_total",
                "Connections, publishers and players refused because there were as many as there may be, or sent away for sending more than they may, by limit.",
                [("limit", &LIMITS)],
            ),
            memory: c.gauges(
                "linkmic_memory_bytes",
                "Media and unfinished messages held for clients, and the limit (0: none).",
                [("kind", &MEMORY)],
            ),
            bans: c.gauge("linkmic_auth_bans", "Bans that hold now."),
        }
    }
}

impl Metrics {
    /// At scrape: every configured key as (set, id, hits since start). Keys that are configured no more lose their
    /// series, so that rotation does not add to them for ever.
    pub fn set_key_hits(&self, keys: &[(&str, &str, u64)]) {
        let access = &self.access;
        let mut shown = access.keys.lock().unwrap_or_else(|e| e.into_inner());
        let now: BTreeSet<_> = keys
            .iter()
            .map(|(set, id, _)| ((*set).to_owned(), (*id).to_owned()))
            .collect();
        for (set, id) in shown.difference(&now) {
            // It is there: it was shown.
            let _ = access.key_hits.remove_label_values(&[set, id]);
        }
        *shown = now;
        for (set, id, hits) in keys {
            self.raise(&[(&access.key_hits.with_label_values(&[*set, *id]), *hits)]);
        }
    }

    /// At scrape: refusals since start, by limit, of those limits that count by themselves.
    pub fn set_limits_refused(&self, refused: &[(&str, u64)]) {
        for (limit, total) in refused {
            let limit = known(&LIMITS, limit).unwrap_or(OTHER);
            let counter = self.access.limits.with_label_values(&[limit]);
            self.raise(&[(&counter, *total)]);
        }
    }

    /// Somebody was refused or sent away by a limit of [`LIMITS`] that is not counted elsewhere.
    pub fn limit_refused(&self, limit: &str) {
        let limit = known(&LIMITS, limit).unwrap_or(OTHER);
        self.access.limits.with_label_values(&[limit]).inc();
    }

    /// At scrape: bytes held, and how many may be.
    pub fn set_memory(&self, used: usize, limit: usize) {
        for (kind, bytes) in MEMORY.into_iter().zip([used, limit]) {
            let gauge = self.access.memory.with_label_values(&[kind]);
            gauge.set(count(bytes));
        }
    }

    /// At scrape: bans that hold.
    pub fn set_bans(&self, bans: usize) {
        self.access.bans.set(count(bans));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_rotated_out_takes_its_series_along() {
        let metrics = Metrics::new();
        let page = || String::from_utf8(metrics.encode()).unwrap();
        metrics.set_key_hits(&[("push", "old", 5), ("play", "old", 2)]);
        metrics.set_key_hits(&[("push", "old", 7), ("push", "new", 1)]);
        let page = page();
        for line in [
            "linkmic_auth_key_hits_total{key=\"old\",set=\"push\"} 7",
            "linkmic_auth_key_hits_total{key=\"new\",set=\"push\"} 1",
        ] {
            assert!(page.contains(line), "{line}");
        }
        assert!(!page.contains("set=\"play\""));
    }

    #[test]
    fn limits_read_zero_before_anything_was_refused() {
        let metrics = Metrics::new();
        metrics.set_limits_refused(&[("publishers", 3), ("made up", 9)]);
        metrics.limit_refused("waiting_total");
        metrics.limit_refused("waiting_total");
        let page = String::from_utf8(metrics.encode()).unwrap();
        for line in [
            "linkmic_limits_refused_total{limit=\"connections\"} 0",
            "linkmic_limits_refused_total{limit=\"publishers\"} 3",
            "linkmic_limits_refused_total{limit=\"waiting_total\"} 2",
            "linkmic_limits_refused_total{limit=\"max_kbps\"} 0",
            "linkmic_limits_refused_total{limit=\"other\"} 9",
        ] {
            assert!(page.contains(line), "{line}");
        }
    }
}
