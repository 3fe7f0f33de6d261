//! The way from an encoder's callbacks to who gets the packets, which can be shut.

use std::sync::{Arc, Mutex, PoisonError};

/// Lets packets through until it is shut; then it lets go of the receiver too, even if the pipeline behind never ends.
#[derive(Debug)]
pub struct Gate<P>(Arc<Mutex<Option<Arc<P>>>>);

impl<P> Clone for Gate<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P> Gate<P> {
    pub fn new(to: Arc<P>) -> Self {
        Self(Arc::new(Mutex::new(Some(to))))
    }

    /// Gives the receiver to `packet`, if it is open. Who shuts it meanwhile waits, so `packet` must not block.
    pub fn pass(&self, packet: impl FnOnce(&P)) {
        // Whoever panicked while holding it has left the receiver as it was.
        let to = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(to) = to.as_deref() {
            packet(to);
        }
    }

    /// After this nothing passes, not even what is just coming.
    pub fn shut(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_the_gate_was_shut_does_not_pass_and_the_receiver_is_free() {
        let to = Arc::new(Mutex::new(0));
        let gate = Gate::new(to.clone());
        let ours = gate.clone();
        ours.pass(|n| *n.lock().unwrap() += 1);
        gate.shut();
        ours.pass(|n| *n.lock().unwrap() += 1);
        assert_eq!(Arc::into_inner(to).unwrap().into_inner().unwrap(), 1);
    }
}
