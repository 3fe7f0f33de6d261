//! Names that the relay knows: published ones, read ones, and by whom.

use prometheus::{IntGauge, IntGaugeVec};

use super::catalogue::Catalogue;
use super::words::{CLASSES, FEEDS};
use super::{Metrics, count, known};

/// The instruments.
pub(super) struct Relay {
    publishers: IntGauge,
    long_gops: IntGauge,
    streams: IntGauge,
    subscribers: IntGaugeVec,
}

impl Relay {
    pub(super) fn new(c: &mut Catalogue) -> Self {
        Self {
            publishers: c.gauge(
                "linkmic_relay_publishers",
                "Names that are published now, by anchors or mixes.",
            ),
            long_gops: c.gauge(
                "linkmic_relay_long_gop_publishers",
                "Publishers now whose key frames were further apart than their application's gop_warning.",
            ),
            streams: c.gauge(
                "linkmic_relay_streams",
                "Names with a publisher or a reader now.",
            ),
            subscribers: c.gauges(
                "linkmic_relay_subscribers",
                "Readers attached now, by feed and class.",
                [("feed", &FEEDS), ("class", &CLASSES)],
            ),
        }
    }
}

impl Metrics {
    /// At scrape: names known to the relay, and how many of them are published.
    pub fn set_streams(&self, streams: usize, publishers: usize) {
        self.relay.streams.set(count(streams));
        self.relay.publishers.set(count(publishers));
    }

    /// At scrape: publishers whose GOP is or was longer than the warning.
    pub fn set_long_gops(&self, publishers: usize) {
        self.relay.long_gops.set(count(publishers));
    }

    /// At scrape: readers of one feed (`"source"`, `"program"`) in one class (`"low_latency"`, `"viewer"`).
    pub fn set_subscribers(&self, feed: &str, class: &str, n: usize) {
        if let (Some(feed), Some(class)) = (known(&FEEDS, feed), known(&CLASSES, class)) {
            self.relay
                .subscribers
                .with_label_values(&[feed, class])
                .set(count(n));
        }
    }
}
