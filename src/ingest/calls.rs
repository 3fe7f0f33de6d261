//! What may call a connection away from reading: looked at only after one of them has called.
//!
//! A publisher's connection wakes up for every message. What else it waits for (the end of the server, of its epoch,
//! of a deadline) comes once in its life; asking each of them at each turn costs locks and timers, and was a sixth of
//! the CPU time of 100 publishers. So they are polled with a waker of their own, which leaves a note.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake};

use futures_util::task::AtomicWaker;

/// The note, and whom to wake.
#[derive(Debug)]
pub struct Calls {
    called: AtomicBool,
    task: AtomicWaker,
}

impl Calls {
    /// Somebody has called: what is waited for is to be polled a first time.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            called: AtomicBool::new(true),
            task: AtomicWaker::new(),
        })
    }

    /// There is something new to wait for, or something came of which there may be more.
    pub fn look_again(&self) {
        self.called.store(true, Ordering::Release);
    }

    /// Has anybody called since the last time? From now on calls wake the task of `context`. When so, poll everything
    /// with the waker that this is.
    pub fn answer(&self, context: &Context<'_>) -> bool {
        self.task.register(context.waker());
        self.called.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.called.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn whoever_calls_is_heard_once_and_wakes_the_task() {
        let (task, calls) = (Calls::new(), Calls::new());
        let waker = Waker::from(task.clone());
        let context = Context::from_waker(&waker);
        assert!(calls.answer(&context), "first of all, everything is polled");
        assert!(!calls.answer(&context));
        assert!(task.called.swap(false, Ordering::AcqRel));
        Waker::from(calls.clone()).wake();
        assert!(task.called.load(Ordering::Acquire), "woken");
        assert!(calls.answer(&context));
        assert!(!calls.answer(&context));
        calls.look_again();
        assert!(calls.answer(&context));
    }
}
