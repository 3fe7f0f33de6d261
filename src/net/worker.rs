//! A thread with a runtime of its own, for work on sockets that is to be woken by nothing else and handed to nobody.
//!
//! It asks for short slices of a core ([`slice`](super::slice)) and to go first ([`Precedence`]), since what it passes on
//! is waited for.
//!
//! On a runtime of several threads each wake-up from outside goes to a common queue, wakes one thread to look into it, and
//! that one wakes the next to look for more: half the CPU time of 100 publishers went there. Which work goes to which thread, whoever opens them decides.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::Precedence;

/// Such a thread. Dropping it ends the thread, and with it what runs there.
#[derive(Debug)]
pub struct Worker {
    runtime: Handle,
    /// The thread runs for as long as this is there.
    _open: oneshot::Sender<Infallible>,
}

impl Worker {
    /// # Errors
    /// When there is no thread, or no descriptors for a runtime, to be had.
    pub fn open(name: &str, precedence: Precedence) -> io::Result<Self> {
        let (open, closed) = oneshot::channel();
        let (tell, told) = mpsc::sync_channel(1);
        thread::Builder::new().name(name.into()).spawn(move || {
            super::slice::short();
            precedence.claim();
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let _ = tell.send(Ok(runtime.handle().clone()));
                    // An error: the sender is gone, which is all it ever does.
                    let _ = runtime.block_on(closed);
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                }
            }
        })?;
        let gone = |_| io::Error::other("the thread ended at once");
        Ok(Self {
            runtime: told.recv().map_err(gone)??,
            _open: open,
        })
    }

    /// Where to spawn what is to run on this thread.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spawned_runs_on_the_named_thread_until_the_worker_is_dropped() {
        let worker = Worker::open("linkmic-test", Precedence::default()).unwrap();
        let name = worker
            .runtime()
            .spawn(async { thread::current().name().map(str::to_owned) });
        let waiting = worker.runtime().spawn(std::future::pending::<()>());
        let here = Builder::new_current_thread().build().unwrap();
        let name = here.block_on(name).unwrap();
        assert_eq!(name.as_deref(), Some("linkmic-test"));
        drop(worker);
        assert!(here.block_on(waiting).unwrap_err().is_cancelled());
    }
}
