//! Folds a fault that repeats into one line an interval, with a count.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Counts what is not said. A static can hold one.
#[derive(Debug)]
pub struct Fold {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    said: Option<Instant>,
    unsaid: u64,
}

impl Fold {
    pub const fn new(interval: Duration) -> Self {
        Self {
            interval,
            state: Mutex::new(State {
                said: None,
                unsaid: 0,
            }),
        }
    }

    /// It happened. When it is to be said: how often since it was said last, this time included.
    pub fn happened(&self, now: Instant) -> Option<u64> {
        // Counts are right after every statement.
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        state.unsaid += 1;
        let said = state.said;
        if said.is_some_and(|said| now.saturating_duration_since(said) < self.interval) {
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_the_others_once_an_interval_with_their_number() {
        let fold = Fold::new(Duration::from_secs(10));
        let begin = Instant::now();
        let at = |ms| fold.happened(begin + Duration::from_millis(ms));
        assert_eq!(at(0), Some(1));
        assert_eq!(at(100), None);
        assert_eq!(at(9_999), None);
        assert_eq!(at(10_000), Some(3));
        assert_eq!(at(10_001), None);
        assert_eq!(at(60_000), Some(2));
        assert_eq!(at(90_000), Some(1));
    }
}
