//! The instruments of the whole house in one registry, made once and handed to the rooms.
//!
//! Owns names, help texts, labels and buckets. Refuses to know any room: a room either counts on the handles
//! here as things happen, or tells its numbers when asked, and the API sets the gauges at scrape time
//! (`linkmic_relay_*`, `linkmic_push_targets`, `linkmic_mixer_inputs`). No series is named after a client or a
//! stream, and every label value is registered at start, so the number of series never grows.
//!
//! Names are `linkmic_<room>_<thing>_<unit>[_total]`; seconds and bytes, as Prometheus wants them.

mod access;
mod hooks;
mod mixer;
mod words;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::reason::Reason;
use words::{
    ACTIONS, ANOMALIES, CLASSES, DROP_CAUSES, FEEDS, GRANTED, LAG_BUCKETS, MIX_DECODERS,
    MIX_INPUT_STATES, MIX_LATENCY_BUCKETS, MIX_STATES, NEAR_MISSES, OTHER, PUSH_STATES,
};

pub use mixer::MixLoad;

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Every instrument. The public handles are resolved once: using one is an atomic addition, no lookup.
pub struct Metrics {
    registry: Registry,

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

    auth: IntCounterVec,
    disconnects: Vec<IntCounter>,
    http_turned: Vec<IntCounter>,
    /// In the order of [`CLASSES`].
    lag: [Histogram; CLASSES.len()],
    playback_drops: Fixed,
    anomalies: Fixed,

    tasks: IntGauge,
    publishers: IntGauge,
    long_gops: IntGauge,
    streams: IntGauge,
    subscribers: IntGaugeVec,
    near_misses: IntCounterVec,
    push_targets: IntGaugeVec,
    push_stalled: Gauge,
    push_connects: IntCounter,
    push_failures: IntCounter,
    push_bytes: IntCounter,
    push_messages: IntCounter,
    push_dropped: IntCounter,
    push_skips: IntCounter,
    push_takeovers: IntCounter,
    push_lag: Gauge,
    mixes: IntGauge,
    mix_states: IntGaugeVec,
    mix_inputs: IntGaugeVec,
    mix_decoders: IntGaugeVec,
    mixer: mixer::Mixer,
    access: access::Access,
    hooks: hooks::Hooks,
    /// Held while counters are brought up to totals, so that two scrapes at a time do not both add the difference.
    raising: Mutex<()>,
}

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

impl Metrics {
    /// Registers everything, all label values included, so that a counter reads 0 before its first event.
    pub fn new() -> Arc<Self> {
        let r = Registry::new();
        let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        let disconnects = counters(
            &r,
            "linkmic_ingest_disconnects_total",
            "Connections of publishers and players (RTMP, HTTP-FLV) ended, by reason.",
            "reason",
        );
        let http_turned = counters(
            &r,
            "linkmic_playback_http_turned_total",
            "Connections to the public HTTP listeners that ended before they had asked for anything, by reason.",
            "reason",
        );
        let auth = register(
            &r,
            IntCounterVec::new(
                Opts::new(
                    "linkmic_auth_decisions_total",
                    "Requests to publish or play, by outcome: granted, or the reason of the refusal.",
                ),
                &["action", "outcome"],
            ),
        );
        for action in ACTIONS {
            for outcome in reasons.iter().copied().chain([GRANTED, OTHER]) {
                auth.with_label_values(&[action, outcome]);
            }
        }
        let subscribers = register(
            &r,
            IntGaugeVec::new(
                Opts::new(
                    "linkmic_relay_subscribers",
                    "Readers attached now, by feed and class.",
                ),
                &["feed", "class"],
            ),
        );
        for feed in FEEDS {
            for class in CLASSES {
                subscribers.with_label_values(&[feed, class]);
            }
        }
        let build = gauges(
            &r,
            "linkmic_build_info",
            "Always 1; the version is in the label.",
            "version",
            &[env!("CARGO_PKG_VERSION")],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);

        Arc::new(Self {
            connections_open: gauge(
                &r,
                "linkmic_ingest_connections",
                "Connections of publishers and players (RTMP, HTTP-FLV) open now.",
            ),
            connections_total: counter(
                &r,
                "linkmic_ingest_connections_total",
                "Connections of publishers and players (RTMP, HTTP-FLV) accepted since start.",
            ),
            ingest_bytes: counter(
                &r,
                "linkmic_ingest_bytes_total",
                "Media payload bytes received from publishers.",
            ),
            ingest_messages: counter(
                &r,
                "linkmic_ingest_messages_total",
                "Media messages received from publishers.",
            ),
            playback_bytes: counter(
                &r,
                "linkmic_playback_bytes_total",
                "Bytes written to players, framing included.",
            ),
            playback_messages: counter(
                &r,
                "linkmic_playback_messages_total",
                "Media messages written to players.",
            ),
            lag: {
                let vec = register(
                    &r,
                    HistogramVec::new(
                        HistogramOpts::new(
                            "linkmic_playback_lag_seconds",
                            "Media time from the last byte that a player's TCP has acknowledged to the newest message, once a second for each player, by class.",
                        )
                        .buckets(LAG_BUCKETS.to_vec()),
                        &["class"],
                    ),
                );
                CLASSES.map(|class| vec.with_label_values(&[class]))
            },
            push_bytes: counter(
                &r,
                "linkmic_push_bytes_total",
                "Bytes that CDN targets acknowledged, framing included.",
            ),
            push_messages: counter(
                &r,
                "linkmic_push_messages_total",
                "Media messages written to CDN targets.",
            ),
            push_dropped: counter(
                &r,
                "linkmic_push_dropped_messages_total",
                "Media messages left out for CDN targets that were behind.",
            ),
            push_skips: counter(
                &r,
                "linkmic_push_skips_total",
                "Times that a CDN target was so far behind that it continued at a later key frame.",
            ),
            push_takeovers: counter(
                &r,
                "linkmic_push_takeovers_total",
                "Times that a backup target took over from the primaries of its group.",
            ),
            push_connects: counter(
                &r,
                "linkmic_push_connects_total",
                "Connections to CDN targets begun.",
            ),
            push_failures: counter(
                &r,
                "linkmic_push_failures_total",
                "Connections to CDN targets that failed or broke.",
            ),
            mix_added_latency: histogram(
                &r,
                "linkmic_mixer_added_latency_seconds",
                "From a frame's arrival to its place in an encoded output picture.",
                &MIX_LATENCY_BUCKETS,
            ),
            mix_frames: counter(
                &r,
                "linkmic_mixer_frames_total",
                "Pictures that mixes put out.",
            ),
            mix_skips: counter(
                &r,
                "linkmic_mixer_skipped_frames_total",
                "Pictures that mixes should have put out and did not.",
            ),
            auth,
            disconnects: of_each(&disconnects, &reasons),
            http_turned: of_each(&http_turned, &reasons),
            playback_drops: Fixed::new(
                &counters(
                    &r,
                    "linkmic_playback_dropped_messages_total",
                    "Video messages that players did not get, by cause: time or bytes (further behind than their class allows), lost (fallen out of the ring).",
                    "cause",
                ),
                &DROP_CAUSES,
            ),
            anomalies: Fixed::new(
                &counters(
                    &r,
                    "linkmic_ingest_timestamp_anomalies_total",
                    "Repaired timestamps of publishers, by kind: ahead and back (the clock jumped), reset (it began again at 0), unordered (older than its predecessor), apart (a track far from all others).",
                    "kind",
                ),
                &ANOMALIES,
            ),
            tasks: gauge(
                &r,
                "linkmic_runtime_tasks",
                "Asynchronous tasks alive now: a few for the server itself, and about one per connection.",
            ),
            publishers: gauge(
                &r,
                "linkmic_relay_publishers",
                "Names that are published now, by anchors or mixes.",
            ),
            long_gops: gauge(
                &r,
                "linkmic_relay_long_gop_publishers",
                "Publishers now whose key frames were further apart than their application's gop_warning.",
            ),
            streams: gauge(
                &r,
                "linkmic_relay_streams",
                "Names with a publisher or a reader now.",
            ),
            subscribers,
            near_misses: {
                let vec = counters(
                    &r,
                    "linkmic_auth_near_misses_total",
                    "URLs a little after their expiry, by what became of them: a sign of clocks apart.",
                    "outcome",
                );
                for outcome in NEAR_MISSES {
                    vec.with_label_values(&[outcome]);
                }
                vec
            },
            push_targets: gauges(
                &r,
                "linkmic_push_targets",
                "CDN targets, by state.",
                "state",
                &PUSH_STATES,
            ),
            push_stalled: register(
                &r,
                Gauge::new(
                    "linkmic_push_last_progress_seconds",
                    "Time since a CDN target last took bytes, the worst of those that have media to send; 0 without any.",
                ),
            ),
            push_lag: register(
                &r,
                Gauge::new(
                    "linkmic_push_lag_seconds",
                    "Media time that the CDN target furthest behind has yet to acknowledge; 0 without any.",
                ),
            ),
            mixes: gauge(&r, "linkmic_mixer_mixes", "Mixes that exist now."),
            mix_states: gauges(
                &r,
                "linkmic_mixer_states",
                "Mixes that exist now, by state.",
                "state",
                &MIX_STATES,
            ),
            mix_inputs: gauges(
                &r,
                "linkmic_mixer_inputs",
                "Inputs of all mixes, by state.",
                "state",
                &MIX_INPUT_STATES,
            ),
            mix_decoders: gauges(
                &r,
                "linkmic_mixer_decoders",
                "Decoders at work; a stream has one of each kind, however many mixes use it.",
                "kind",
                &MIX_DECODERS,
            ),
            mixer: mixer::Mixer::new(&r),
            access: access::Access::new(&r),
            hooks: hooks::Hooks::new(&r),
            raising: Mutex::default(),
            registry: r,
        })
    }

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
        self.auth.with_label_values(&[action, outcome]).inc();
    }

    /// A publisher's or player's connection ended.
    pub fn disconnected(&self, reason: Reason) {
        if let Some(at) = Reason::ALL.iter().position(|r| *r == reason) {
            self.disconnects[at].inc();
        }
    }

    /// A connection to a public HTTP listener ended before it had asked for anything.
    pub fn http_turned(&self, reason: Reason) {
        if let Some(at) = Reason::ALL.iter().position(|r| *r == reason) {
            self.http_turned[at].inc();
        }
    }

    /// `n` messages did not reach a player: `"time"` or `"bytes"` (over its budget), or `"lost"` (fallen out of the ring).
    pub fn playback_drops(&self, cause: &str, n: u64) {
        self.playback_drops.get(cause).inc_by(n);
    }

    /// How far a player of that class is behind the newest message, in media time.
    pub fn lag(&self, class: &str, lag: Duration) {
        if let Some(at) = CLASSES.iter().position(|known| *known == class) {
            self.lag[at].observe(lag.as_secs_f64());
        }
    }

    /// A publisher's timestamp was repaired; `kind` is a word of `media::repair::Anomaly::KINDS`.
    pub fn anomalies(&self, kind: &str) {
        self.anomalies.get(kind).inc();
    }

    /// At scrape: tasks alive in the runtime.
    pub fn set_tasks(&self, tasks: usize) {
        self.tasks.set(count(tasks));
    }

    /// At scrape: names known to the relay, and how many of them are published.
    pub fn set_streams(&self, streams: usize, publishers: usize) {
        self.streams.set(count(streams));
        self.publishers.set(count(publishers));
    }

    /// At scrape: publishers whose GOP is or was longer than the warning.
    pub fn set_long_gops(&self, publishers: usize) {
        self.long_gops.set(count(publishers));
    }

    /// At scrape: readers of one feed (`"source"`, `"program"`) in one class (`"low_latency"`, `"viewer"`).
    pub fn set_subscribers(&self, feed: &str, class: &str, n: usize) {
        if let (Some(feed), Some(class)) = (known(&FEEDS, feed), known(&CLASSES, class)) {
            self.subscribers
                .with_label_values(&[feed, class])
                .set(count(n));
        }
    }

    /// At scrape: how many near misses there were since start, in and out of the tolerance.
    pub fn set_near_misses(&self, forgiven: u64, refused: u64) {
        let counter = |outcome| self.near_misses.with_label_values(&[outcome]);
        self.raise(&[
            (&counter(NEAR_MISSES[0]), forgiven),
            (&counter(NEAR_MISSES[1]), refused),
        ]);
    }

    /// At scrape: CDN targets.
    pub fn set_push(&self, push: &Push<'_>) {
        set_states(&self.push_targets, &PUSH_STATES, push.by_state);
        self.push_stalled.set(push.stalled.as_secs_f64());
        self.push_lag.set(push.lag.as_secs_f64());
        self.raise(&[
            (&self.push_connects, push.connects),
            (&self.push_failures, push.failures),
            (&self.push_bytes, push.bytes),
            (&self.push_messages, push.messages),
            (&self.push_dropped, push.dropped),
            (&self.push_skips, push.skips),
            (&self.push_takeovers, push.takeovers),
        ]);
    }

    /// At scrape: decoders of all mixes per kind (`audio`, `video`).
    pub fn set_mix_decoders(&self, by_kind: &[(&str, usize)]) {
        set_states(&self.mix_decoders, &MIX_DECODERS, by_kind);
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
        let mut text = Vec::new();
        // Writing to memory does not fail; a family that the encoder refuses (none: a test encodes them all) costs
        // itself and those after it, not the process.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
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

/// Names, labels and buckets are literals of this file, each used once; what `prometheus` could object to is a typing
/// mistake, which the tests below would meet at once.
fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("metric names and labels are valid literals");
    registry
        .register(Box::new(collector.clone()))
        .expect("each metric name is registered once");
    collector
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> IntCounterVec {
    register(
        registry,
        IntCounterVec::new(Opts::new(name, help), &[label]),
    )
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: &[&str],
) -> IntGaugeVec {
    let vec = register(registry, IntGaugeVec::new(Opts::new(name, help), &[label]));
    for value in values {
        vec.with_label_values(&[*value]);
    }
    vec
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, Histogram::with_opts(opts))
}

#[cfg(test)]
mod tests;
