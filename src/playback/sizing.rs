//! How many bytes the kernel may hold for a reader: a share of its class's budget at the stream's bitrate. Pure.
//!
//! What the kernel has taken reaches a late reader before anything newer, so it must be worth less time than the
//! budget; but it must hold a round trip of the stream, or a healthy reader far away is throttled. The share is
//!
//! - a third of the budget, 1 s of 3 s for viewers: 250 KB at 2 Mbit/s and 44 KB at 350 kbit/s. Over a round trip of
//!   100 ms that much goes out ten times a second: ten times the stream's rate, for key frames and for catching up;
//! - half the budget of a class of less than a second, 200 ms of 400 ms: 50 KB and 8.75 KB, twice the rate over 100 ms.
//!
//! The kernel enforces it roughly: SO_SNDBUF is doubled and counts overhead, so half the share is asked for, at least
//! [`MIN_SEND_BUFFER`]; TCP_NOTSENT_LOWAT, a quarter, wakes the writer in time; and the packet being filled may grow by
//! up to 64 KB in spite of both. The rest is ours: a reader that is written by itself is given nothing new while the
//! kernel holds its share, and one that follows its loop is looked at once a second.

use std::time::Duration;

use crate::relay::Budget;

/// The kernel's own minimum is 4608 bytes, doubling included.
const MIN_SEND_BUFFER: usize = 4 << 10;
/// A full packet and a little: less would send many small ones.
const MIN_UNSENT: u32 = 2 << 10;
/// Two full packets: a receiver acknowledges every second one at once, and less than that after 40 ms. It is 200 ms of
/// 120 kbit/s; below that, mere sound, the kernel may hold more time than its part.
const MIN_SHARE: usize = 3 << 10;
/// Assumed until the ring has enough of a stream to tell: 2 Mbit/s, a usual one.
const USUAL_RATE: u64 = 250_000;
/// A class whose budget is shorter is there for low latency, and tight.
const TIGHT: Duration = Duration::from_secs(1);

/// What one reader's socket may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizing {
    /// The stream's bytes per second, by which it was made.
    pub rate: u64,
    /// Unacknowledged bytes from which on nothing new is given.
    pub share: usize,
    /// SO_SNDBUF as asked for; the kernel doubles it.
    pub send_buffer: usize,
    /// TCP_NOTSENT_LOWAT.
    pub unsent: u32,
}

impl Sizing {
    /// For a stream of `rate` bytes per second; `None` when that is not known yet.
    pub fn of(rate: Option<u64>, budget: &Budget) -> Self {
        let rate = rate.unwrap_or(USUAL_RATE).max(1);
        let parts = if budget.max_lag < TIGHT { 2 } else { 3 };
        let time = budget.max_lag / parts;
        let bytes = rate.saturating_mul(time.as_micros() as u64) / 1_000_000;
        let share = usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .min(budget.max_bytes / parts as usize)
            .max(MIN_SHARE);
        Self {
            rate,
            share,
            send_buffer: (share / 2).max(MIN_SEND_BUFFER),
            unsent: u32::try_from(share / 4).unwrap_or(u32::MAX).max(MIN_UNSENT),
        }
    }

    /// Is it so far from `other` that the sockets should be told? A quarter is worth two system calls per reader.
    pub fn differs(&self, other: &Self) -> bool {
        self.share.abs_diff(other.share) > self.share / 4
    }

    /// How long the stream takes for so many bytes.
    pub fn time_of(&self, bytes: usize) -> Duration {
        Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 Mbit/s and 350 kbit/s, in bytes per second.
    const RATES: [u64; 2] = [250_000, 43_750];

    #[test]
    fn what_the_kernel_may_hold_is_well_under_the_budget_in_time() {
        for budget in [Budget::low_latency(), Budget::viewer()] {
            for rate in RATES {
                let sizing = Sizing::of(Some(rate), &budget);
                assert!(sizing.time_of(sizing.share) <= budget.max_lag / 2);
                // The kernel doubles what it is asked for.
                assert!(2 * sizing.send_buffer <= sizing.share.max(2 * MIN_SEND_BUFFER));
            }
        }
    }

    #[test]
    fn a_viewer_100_ms_away_gets_several_times_the_rate() {
        for rate in RATES {
            let sizing = Sizing::of(Some(rate), &Budget::viewer());
            // Small packets of their own cost the kernel twice their bytes; a share goes out per round trip.
            let per_second = 2 * sizing.send_buffer / 2 * 10;
            assert!(per_second as u64 >= 4 * rate, "{per_second} of {rate}");
        }
    }

    #[test]
    fn bounds_hold_at_the_edges() {
        let budget = Budget::viewer();
        let tiny = Sizing::of(Some(0), &budget);
        assert_eq!((tiny.share, tiny.send_buffer), (MIN_SHARE, MIN_SEND_BUFFER));
        let huge = Sizing::of(Some(u64::MAX), &budget);
        assert_eq!(huge.share, budget.max_bytes / 3);
        assert_eq!(Sizing::of(None, &budget).rate, USUAL_RATE);
    }

    #[test]
    fn a_change_of_a_quarter_is_told_and_a_smaller_one_is_not() {
        let of = |rate| Sizing::of(Some(rate), &Budget::viewer());
        assert!(!of(250_000).differs(&of(300_000)));
        assert!(of(250_000).differs(&of(350_000)));
        assert!(of(250_000).differs(&of(43_750)));
    }
}
