//! A handful of latencies, and what to say about them.

use std::fmt;
use std::time::Duration;

/// Latencies of one path, in the order seen.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    pub fn push(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The latency that `percent` of all do not exceed (nearest rank); `None` without any.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }
}

impl FromIterator<Duration> for Latencies {
    fn from_iter<I: IntoIterator<Item = Duration>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.percentile(50), self.percentile(95)) {
            (Some(p50), Some(p95)) => write!(
                f,
                "p50 {} ms, p95 {} ms ({} frames)",
                p50.as_millis(),
                p95.as_millis(),
                self.0.len()
            ),
            _ => f.write_str("nothing seen"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let all: Latencies = (1..=20).rev().map(Duration::from_millis).collect();
        assert_eq!(all.percentile(50), Some(Duration::from_millis(10)));
        assert_eq!(all.percentile(95), Some(Duration::from_millis(19)));
        assert_eq!(all.percentile(100), Some(Duration::from_millis(20)));
        assert_eq!(all.to_string(), "p50 10 ms, p95 19 ms (20 frames)");
    }

    #[test]
    fn nothing_seen_is_no_figure() {
        assert_eq!(Latencies::default().percentile(50), None);
        assert_eq!(Latencies::default().to_string(), "nothing seen");
    }
}
