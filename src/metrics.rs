//! The instruments of the whole house in one registry, made once and handed to the rooms.
//!
//! Owns names, help texts, labels and buckets; [`Metrics::catalogue`] lists them, and docs/metrics.md is made from that. Refuses to know any
//! room: a room either counts on the handles here as things happen, or tells its numbers when asked, and the API sets the gauges at scrape time
//! (`linkmic_relay_*`, `linkmic_push_targets`, `linkmic_mixer_inputs`). No series is named after a client, and after a stream only where an operator
//! asked for it ([`streams`]); every other label value is registered at start, so the number of series never grows.
//!
//! Names are `linkmic_<room>_<thing>_<unit>[_total]`, and `process_*` for what every Prometheus client tells; seconds and bytes, as Prometheus wants them.

mod access;
mod catalogue;
mod clients;
mod grades;
mod hooks;
mod host;
mod mixer;
#[cfg(test)]
mod page;
mod process;
mod push;
mod relay;
mod server;
mod streams;
mod words;

use std::sync::{Arc, Mutex};

use prometheus::{
    Encoder, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, TextEncoder,
};

use catalogue::Catalogue;
use words::OTHER;

pub use catalogue::{Family, Kind, Values};
pub use mixer::MixLoad;
pub use push::Push;
pub use streams::StreamNumbers;

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Every instrument. The public handles are resolved once: using one is an atomic addition, no lookup.
pub struct Metrics {
    catalogue: Catalogue,

    /// Connections of publishers and players open now: RTMP, and HTTP once it asked for a stream.
    pub connections_open: IntGauge,
    /// Such connections since start.
    pub connections_total: IntCounter,
    /// Media payload bytes received from publishers.
    pub ingest_bytes: IntCounter,
    /// Media messages received from publishers.
    pub ingest_messages: IntCounter,
    /// Bytes written to players, framing included.
    pub playback_bytes: IntCounter,
    /// Media messages written to players.
    pub playback_messages: IntCounter,
    /// From a frame's arrival to its place in an encoded output picture, in seconds.
    pub mix_added_latency: Histogram,
    /// Pictures that mixes put out.
    pub mix_frames: IntCounter,
    /// Pictures that mixes should have put out and did not.
    pub mix_skips: IntCounter,

    clients: clients::Clients,
    relay: relay::Relay,
    push: push::Instruments,
    mixer: mixer::Mixer,
    access: access::Access,
    host: host::Host,
    hooks: hooks::Hooks,
    server: server::Server,
    process: process::Process,
    streams: streams::Streams,
    grades: grades::Grades,
    /// Held while counters are brought up to totals, so that two scrapes at a time do not both add the difference.
    raising: Mutex<()>,
}

impl Metrics {
    /// Registers everything, all label values included, so that a counter reads 0 before its first event.
    pub fn new() -> Arc<Self> {
        let mut catalogue = Catalogue::default();
        let c = &mut catalogue;
        let metrics = Self {
            connections_open: c.gauge(
                "linkmic_ingest_connections",
                "Connections of publishers and players (RTMP, HTTP-FLV) open now.",
            ),
            connections_total: c.counter(
                "linkmic_ingest_connections_total",
                "Connections of publishers and players (RTMP, HTTP-FLV) accepted since start.",
            ),
            ingest_bytes: c.counter(
                "linkmic_ingest_bytes_total",
                "Media payload bytes received from publishers.",
            ),
            ingest_messages: c.counter(
                "linkmic_ingest_messages_total",
                "Media messages received from publishers.",
            ),
            playback_bytes: c.counter(
                "linkmic_playback_bytes_total",
                "Bytes written to players, framing included.",
            ),
            playback_messages: c.counter(
                "linkmic_playback_messages_total",
                "Media messages written to players.",
            ),
            mix_added_latency: c.histogram(
                "linkmic_mixer_added_latency_seconds",
                "From a frame's arrival to its place in an encoded output picture.",
                &words::MIX_LATENCY_BUCKETS,
            ),
            mix_frames: c.counter("linkmic_mixer_frames_total", "Pictures that mixes put out."),
            mix_skips: c.counter(
                "linkmic_mixer_skipped_frames_total",
                "Pictures that mixes should have put out and did not.",
            ),
            clients: clients::Clients::new(c),
            relay: relay::Relay::new(c),
            push: push::Instruments::new(c),
            mixer: mixer::Mixer::new(c),
            access: access::Access::new(c),
            host: host::Host::new(c),
            hooks: hooks::Hooks::new(c),
            grades: grades::Grades::new(c),
            server: server::Server::new(c),
            process: process::Process::new(c),
            streams: streams::Streams::new(c),
            raising: Mutex::default(),
            catalogue: Catalogue::default(),
        };
        catalogue.sort();
        Arc::new(Self {
            catalogue,
            ..metrics
        })
    }

    /// Every family that there can be, by name.
    pub fn catalogue(&self) -> &[Family] {
        self.catalogue.families()
    }

    /// Brings counters up to totals that are counted elsewhere.
    fn raise(&self, counters: &[(&IntCounter, u64)]) {
        let _one_at_a_time = self.raising.lock().unwrap_or_else(|e| e.into_inner());
        for (counter, total) in counters {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// All series in the text format, for [`CONTENT_TYPE`].
    pub fn encode(&self) -> Vec<u8> {
        {
            let _one_at_a_time = self.raising.lock().unwrap_or_else(|e| e.into_inner());
            self.process.read();
        }
        let mut families = self.catalogue.gather();
        families.extend(self.streams.gather());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        // Writing to memory does not fail; a family that the encoder refuses (none: a test encodes them all) costs
        // itself and those after it, not the process.
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            tracing::error!(%error, "metrics could not be encoded");
        }
        text
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Counters of one label whose values are known; the last is for whatever is not.
struct Fixed(Vec<(&'static str, IntCounter)>);

impl Fixed {
    fn new(vec: &IntCounterVec, values: &[&'static str]) -> Self {
        debug_assert!(values.last() == Some(&OTHER));
        let resolve = |value: &&'static str| (*value, vec.with_label_values(&[*value]));
        Self(values.iter().map(resolve).collect())
    }

    fn get(&self, value: &str) -> &IntCounter {
        let found = self.0.iter().position(|(known, _)| *known == value);
        &self.0[found.unwrap_or(self.0.len() - 1)].1
    }
}

/// The counter of each label value, in their order.
fn of_each(vec: &IntCounterVec, values: &[&str]) -> Vec<IntCounter> {
    let each = values.iter();
    each.map(|value| vec.with_label_values(&[*value])).collect()
}

fn known(list: &[&'static str], value: &str) -> Option<&'static str> {
    list.iter().copied().find(|known| *known == value)
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn set_states(vec: &IntGaugeVec, states: &[&'static str], by_state: &[(&str, usize)]) {
    for state in states {
        let n = by_state.iter().filter(|(word, _)| {
            word == state || (*state == OTHER && known(states, word).is_none())
        });
        vec.with_label_values(&[*state])
            .set(count(n.map(|(_, n)| n).sum()));
    }
}

#[cfg(test)]
mod tests;
