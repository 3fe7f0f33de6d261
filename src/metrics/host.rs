//! Whether the host has room for more.

use prometheus::IntGaugeVec;

use super::Metrics;
use super::catalogue::Catalogue;

/// Who could come.
const KINDS: [&str; 3] = ["publisher", "player", "mix"];

/// The instruments.
pub(super) struct Host {
    can_accept: IntGaugeVec,
}

impl Host {
    pub(super) fn new(c: &mut Catalogue) -> Self {
        Self {
            can_accept: c.gauges(
                "linkmic_host_can_accept",
                "Whether another one would be taken in now: 1 or 0, by kind.",
                [("kind", &KINDS)],
            ),
        }
    }
}

impl Metrics {
    /// At scrape: whether another publisher, player and mix would be taken in, in this order.
    pub fn set_can_accept(&self, can: [bool; 3]) {
        for (kind, can) in KINDS.iter().zip(can) {
            self.host
                .can_accept
                .with_label_values(&[*kind])
                .set(i64::from(can));
        }
    }
}
