//! How long to wait before the next attempt: doubling, capped, spread.

use std::time::Duration;

/// Pause after the first failure: long enough for a server's restart of a worker, short enough to go unnoticed.
const FIRST: Duration = Duration::from_millis(500);

/// Pause before the next attempt after `failures` failures in a row (1 after the first).
///
/// Half of the doubling pause is certain and half is spread by `jitter`, so that many targets of a server that
/// came back do not all knock at once; 0 gives the shortest, [`u32::MAX`] the longest pause. Never over `cap`.
pub(super) fn delay(failures: u32, jitter: u32, cap: Duration) -> Duration {
    // 2^16 × 0.5 s is 9 hours: beyond any cap, and far from overflow.
    let doublings = failures.saturating_sub(1).min(16);
    let whole = (FIRST * (1 << doublings)).min(cap);
    let spread = whole.mul_f64(0.5 * f64::from(jitter) / f64::from(u32::MAX));
    (whole / 2 + spread).min(cap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAP: Duration = Duration::from_secs(30);

    #[test]
    fn the_pause_doubles_up_to_the_cap() {
        let longest: Vec<_> = (1..=9)
            .map(|failures| delay(failures, u32::MAX, CAP).as_millis())
            .collect();
        // 500 × 2^n until 30 000.
        assert_eq!(
            longest,
            [
                500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000
            ]
        );
        assert_eq!(delay(1, 0, CAP), Duration::from_millis(250));
        assert_eq!(delay(7, 0, CAP), Duration::from_secs(15));
    }

    proptest! {
        #[test]
        fn the_pause_is_between_half_and_all_of_its_step(failures: u32, jitter: u32, cap_ms in 1u64..100_000) {
            let cap = Duration::from_millis(cap_ms);
            let pause = delay(failures, jitter, cap);
            let whole = delay(failures, u32::MAX, cap);
            prop_assert!(pause <= cap);
            prop_assert!(pause >= whole / 2 && pause <= whole);
        }
    }
}
