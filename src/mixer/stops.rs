//! Pipelines that are being stopped, and which of them hang.
//!
//! An element that hangs in a call cannot be stopped. Each such pipeline keeps a thread and some MB, and the fault that made
//! one hang makes others; so who makes pipelines asks here first how many there are.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Stopping takes some ms, and as long as one frame takes an encoder that is behind. What takes longer hangs.
pub const PATIENCE: Duration = Duration::from_millis(200);
/// Pipelines of a kind that may hang in this process before no other is made.
pub const MAX_HUNG: usize = 8;

/// Since when pipelines are being stopped.
pub struct Stops(Mutex<Vec<Instant>>);

impl Stops {
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn begun(&self) -> MutexGuard<'_, Vec<Instant>> {
        // Complete after every statement, so readable after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another one is being stopped.
    pub fn begin(&self, now: Instant) {
        self.begun().push(now);
    }

    /// The stop that began then is over.
    pub fn end(&self, begun: Instant) {
        let mut all = self.begun();
        // Of two that began in the same moment one is as good as the other.
        if let Some(at) = all.iter().position(|&other| other == begun) {
            all.swap_remove(at);
        }
    }

    /// How many hang.
    pub fn hung(&self, now: Instant) -> usize {
        let hangs = |begun: &&Instant| now.saturating_duration_since(**begun) > PATIENCE;
        self.begun().iter().filter(hangs).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_its_time_to_stop_does_not_hang() {
        let stops = Stops::new();
        let t0 = Instant::now();
        for _ in 0..2 * MAX_HUNG {
            stops.begin(t0);
        }
        assert_eq!(stops.hung(t0 + PATIENCE), 0);
        let later = t0 + PATIENCE + Duration::from_millis(1);
        assert_eq!(stops.hung(later), 2 * MAX_HUNG);
        stops.end(t0);
        assert_eq!(stops.hung(later), 2 * MAX_HUNG - 1);
    }
}
