//! How much one publisher may send: so many bits a second, and for a while more.

use std::time::{Duration, Instant};

/// How far ahead of the limit a publisher may be: a key frame is many times the bytes of its share of time, an
/// encoder's rate swings over seconds, and after a stall of the network what waited comes at once.
const AHEAD: Duration = Duration::from_secs(10);

/// What a publisher may still send: fills with time, up to ten seconds' worth.
#[derive(Debug, Clone)]
pub struct Allowance {
    bytes_per_second: f64,
    left: f64,
    at: Instant,
}

impl Allowance {
    /// Full.
    pub fn new(kbps: u32, now: Instant) -> Self {
        let bytes_per_second = f64::from(kbps) * 1000.0 / 8.0;
        Self {
            bytes_per_second,
            left: bytes_per_second * AHEAD.as_secs_f64(),
            at: now,
        }
    }

    /// Takes the bytes of one message. `false`: more has come than may.
    pub fn spend(&mut self, bytes: usize, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let most = self.bytes_per_second * AHEAD.as_secs_f64();
        self.left = (self.left + since * self.bytes_per_second).min(most);
        // Payloads are far below the 2^52 up to which this is exact.
        self.left -= bytes as f64;
        self.left >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `kbps` in 40 messages a second, a fortieth each; the second in which it was too much.
    fn too_much_after(limit: u32, kbps: u32) -> Option<u32> {
        let begin = Instant::now();
        let mut allowance = Allowance::new(limit, begin);
        (0..120 * 40).find_map(|n| {
            let now = begin + Duration::from_millis(25) * n;
            (!allowance.spend(kbps as usize * 1000 / 8 / 40, now)).then_some(n / 40)
        })
    }

    #[test]
    fn whoever_keeps_to_the_limit_stays_and_whoever_does_not_goes_the_sooner_the_faster() {
        assert_eq!(too_much_after(1_000, 900), None);
        assert_eq!(too_much_after(1_000, 1_000), None);
        // Twice the limit: a second's worth of the ten is used up each second; the tenth second is the last.
        assert_eq!(too_much_after(1_000, 2_000), Some(9));
        assert_eq!(too_much_after(1_000, 11_000), Some(0));
        assert_eq!(too_much_after(1_000, 1_200), Some(49));
    }

    #[test]
    fn a_burst_of_less_than_ten_seconds_worth_is_forgiven_once_it_is_over() {
        let begin = Instant::now();
        let mut allowance = Allowance::new(800, begin);
        // 800 kbit/s are 100,000 bytes a second.
        assert!(allowance.spend(900_000, begin));
        assert!(allowance.spend(100_000, begin));
        let later = begin + Duration::from_secs(60);
        assert!(allowance.spend(1_000_000, later), "full again");
        assert!(!allowance.spend(1, later), "and no fuller than at first");
    }
}
