//! How late the machine itself is, which complaints about lag and frame rates are to be read with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// From look to look.
const STEP: Duration = Duration::from_millis(20);

/// Asks a thread of its own how late it is woken, until this is dropped.
pub struct Machine {
    late_ms: Arc<AtomicU64>,
}

impl Machine {
    pub fn watch() -> Self {
        let late_ms: Arc<AtomicU64> = Arc::default();
        let shared = Arc::downgrade(&late_ms);
        thread::spawn(move || {
            while let Some(late_ms) = shared.upgrade() {
                let due = Instant::now() + STEP;
                thread::sleep(STEP);
                late_ms.fetch_max(due.elapsed().as_millis() as u64, Relaxed);
            }
        });
        Self { late_ms }
    }

    /// How late it was at the worst since this was asked last, ms.
    pub fn take(&self) -> u64 {
        self.late_ms.swap(0, Relaxed)
    }
}
