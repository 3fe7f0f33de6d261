//! The server itself: its tasks, its disk, its certificate, and what it was built as.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{IntCounter, IntGauge};

use super::catalogue::Catalogue;
use super::{Metrics, count};

/// The instruments.
pub(super) struct Server {
    tasks: IntGauge,
    store_failures: IntCounter,
    certificate: IntGauge,
}

impl Server {
    pub(super) fn new(c: &mut Catalogue) -> Self {
        let mixer = if cfg!(feature = "mixer") {
            "true"
        } else {
            "false"
        };
        c.info(
            "linkmic_build_info",
            "Always 1; what was built is in the labels.",
            [
                ("version", env!("CARGO_PKG_VERSION"), "the version"),
                ("mixer", mixer, "`true`, or `false` where it was left out"),
            ],
        );
        Self {
            tasks: c.gauge(
                "linkmic_runtime_tasks",
                "Asynchronous tasks alive now: a few for the server itself, and about one per connection.",
            ),
            store_failures: c.counter(
                "linkmic_store_failures_total",
                "Jobs of the state directory that failed, and changed nothing: a full disk or one that cannot be written, or too many at once.",
            ),
            certificate: c.gauge(
                "linkmic_tls_certificate_expiry_timestamp_seconds",
                "When the certificate that RTMPS and HTTPS show ends; 0: none is shown.",
            ),
        }
    }
}

impl Metrics {
    /// At scrape: tasks alive in the runtime.
    pub fn set_tasks(&self, tasks: usize) {
        self.server.tasks.set(count(tasks));
    }

    /// At scrape: jobs of the store that failed since start.
    pub fn set_store_failures(&self, failures: u64) {
        self.raise(&[(&self.server.store_failures, failures)]);
    }

    /// At scrape: when the certificate ends; `None`: there is none.
    pub fn set_certificate_expiry(&self, expiry: Option<SystemTime>) {
        let seconds = expiry.map_or(0, |at| {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        });
        self.server.certificate.set(seconds);
    }
}
