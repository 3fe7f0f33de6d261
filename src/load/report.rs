//! What a run found, as it is printed: one JSON object, units in the names of its fields.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::usage::{Machine, Usage};

/// What players saw.
#[derive(Debug, Clone, Serialize)]
pub struct Play {
    pub kind: &'static str,
    /// Query masked.
    pub url: String,
    pub streams: usize,
    pub players: usize,
    /// Players whose every message was read: frames, latency and gaps are theirs.
    pub sampled: usize,
    /// Players that had video, and those whose connection ended.
    pub joined: usize,
    pub lost: usize,
    /// From the first connection to the last player's first video.
    pub join_s: f64,
    pub window_s: f64,
    /// In the window, by all players.
    pub bytes: u64,
    pub mbit_s: f64,
    /// Pictures that publishers sent in the window, over all streams; and those that sampled players got and missed.
    pub published_frames: u64,
    pub frames: u64,
    pub missed_frames: u64,
    /// Frames got of those that should have been; `null` when nothing was published.
    pub delivered_ratio: Option<f64>,
    pub player_bytes: Option<Spread>,
    /// From the publisher's write to a player's read of the last byte; `null` without stamps of this machine's clock.
    pub latency_ms: Option<Latency>,
    /// From a player's connect to its first picture.
    pub first_video_ms: Option<Quantiles>,
    /// How old that picture was.
    pub first_frame_age_ms: Option<Quantiles>,
    pub server: Option<Server>,
    pub client: Client,
    pub machine: Machine,
    /// The first few reasons why players were lost, and what else is odd.
    pub notes: Vec<String>,
}

/// What publishers did.
#[derive(Debug, Clone, Serialize)]
pub struct Publish {
    pub kind: &'static str,
    pub url: String,
    pub streams: usize,
    pub granted: usize,
    pub lost: usize,
    pub window_s: f64,
    pub frames: u64,
    pub messages: u64,
    pub bytes: u64,
    pub mbit_s: f64,
    /// How late the latest message was sent: large when this machine is the bottleneck.
    pub latest_send_ms: f64,
    pub server: Option<Server>,
    pub client: Client,
    pub machine: Machine,
    pub notes: Vec<String>,
}

/// The server's processes in the window.
#[derive(Debug, Clone, Serialize)]
pub struct Server {
    pub user_s: f64,
    pub system_s: f64,
    /// Of one core.
    pub cpu_pct: f64,
    /// Per 10^9 bytes that players received, or publishers sent.
    pub cpu_s_per_gb: Option<f64>,
    /// Of one core, per player, or per published stream.
    pub cpu_pct_each: f64,
    /// Before the first connection of this run.
    pub rss_before_kb: u64,
    pub rss_max_kb: u64,
    /// What a player, or a published stream, added.
    pub rss_each_kb: f64,
}

/// This process in the window.
#[derive(Debug, Clone, Serialize)]
pub struct Client {
    pub cpu_pct: f64,
    pub rss_kb: u64,
}

/// How unlike players were.
#[derive(Debug, Clone, Serialize)]
pub struct Spread {
    pub min: u64,
    pub p50: u64,
    pub max: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    pub count: u64,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        Some(Self {
            min: *values.first()?,
            p50: values[(values.len() - 1) / 2],
            max: *values.last()?,
        })
    }
}

impl Quantiles {
    /// The smallest value that as many are at most; `None` of nothing.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (values.len() as f64 * share).ceil() as usize;
            values[rank.clamp(1, values.len()) - 1]
        };
        match values.is_empty() {
            true => None,
            false => Some(Self {
                p50: rounded(at(0.5)),
                p99: rounded(at(0.99)),
                max: rounded(at(1.0)),
            }),
        }
    }
}

impl Latency {
    /// Of a histogram of µs; `None` when it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let ms = |us: u64| us as f64 / 1000.0;
        let at = |share| ms(histogram.value_at_quantile(share));
        match histogram.is_empty() {
            true => None,
            false => Some(Self {
                count: histogram.len(),
                min: ms(histogram.min()),
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: ms(histogram.max()),
            }),
        }
    }
}

impl Server {
    /// `used` in `window_s` seconds for `bytes` to or from `count` connections.
    pub fn of(
        used: Usage,
        window_s: f64,
        bytes: u64,
        count: usize,
        rss_before_kb: u64,
        rss_max_kb: u64,
    ) -> Self {
        let cpu_pct = 100.0 * used.cpu_s() / window_s;
        let count = count.max(1) as f64;
        Self {
            user_s: rounded(used.user_s),
            system_s: rounded(used.system_s),
            cpu_pct: rounded(cpu_pct),
            cpu_s_per_gb: (bytes > 0).then(|| rounded(used.cpu_s() * 1e9 / bytes as f64)),
            cpu_pct_each: (1e5 * cpu_pct / count).round() / 1e5,
            rss_before_kb,
            rss_max_kb,
            rss_each_kb: rounded((rss_max_kb as f64 - rss_before_kb as f64) / count),
        }
    }
}

/// Three digits after the point: more are noise.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let quantiles = Quantiles::of(values).unwrap();
        assert_eq!(
            (quantiles.p50, quantiles.p99, quantiles.max),
            (100.0, 198.0, 200.0)
        );
        assert!(Quantiles::of(Vec::new()).is_none());
    }

    #[test]
    fn cost_is_per_gigabyte_and_per_player() {
        let used = Usage {
            user_s: 1.0,
            system_s: 2.0,
            rss_kb: 0,
        };
        let server = Server::of(used, 10.0, 2_000_000_000, 100, 10_000, 12_000);
        assert_eq!(server.cpu_s_per_gb, Some(1.5));
        assert_eq!(server.cpu_pct, 30.0);
        assert_eq!(server.cpu_pct_each, 0.3);
        assert_eq!(server.rss_each_kb, 20.0);
        assert_eq!(Server::of(used, 1.0, 0, 0, 0, 0).cpu_s_per_gb, None);
    }
}
