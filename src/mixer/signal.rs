//! A bell for a thread that waits for a time or for news, whichever comes first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Rung by decoders and by control, heard by one mix's thread. Rings that nobody waits for are kept as one.
#[derive(Debug)]
pub struct Signal {
    rung: Mutex<bool>,
    bell: Condvar,
    wants_sound: AtomicBool,
}

impl Default for Signal {
    fn default() -> Self {
        Self {
            rung: Mutex::default(),
            bell: Condvar::new(),
            wants_sound: AtomicBool::new(true),
        }
    }
}

impl Signal {
    /// From here on sound is worth waking up for, or not. Who says that it is looks for sound after that, so that none
    /// slips in between.
    pub fn want_sound(&self, wanted: bool) {
        self.wants_sound.store(wanted, Ordering::SeqCst);
    }

    /// Rings if sound is waited for.
    pub fn ring_for_sound(&self) {
        if self.wants_sound.load(Ordering::SeqCst) {
            self.ring();
        }
    }

    pub fn ring(&self) {
        // Nothing can panic while holding this lock.
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_one();
    }

    /// Returns at `deadline`, or earlier when rung.
    pub fn wait_until(&self, deadline: Instant) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            rung = self
                .bell
                .wait_timeout(rung, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *rung = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_ring_before_the_wait_is_not_lost() {
        let signal = Signal::default();
        signal.ring();
        signal.wait_until(Instant::now() + Duration::from_secs(3_600));
    }

    #[test]
    fn sound_that_nobody_waits_for_wakes_nobody() {
        let signal = Signal::default();
        signal.want_sound(false);
        signal.ring_for_sound();
        let deadline = Instant::now() + Duration::from_millis(20);
        signal.wait_until(deadline);
        assert!(Instant::now() >= deadline);
        signal.want_sound(true);
        signal.ring_for_sound();
        signal.wait_until(Instant::now() + Duration::from_secs(3_600));
    }

    #[test]
    fn without_a_ring_the_deadline_ends_the_wait() {
        let deadline = Instant::now() + Duration::from_millis(20);
        Signal::default().wait_until(deadline);
        assert!(Instant::now() >= deadline);
    }
}
