//! Tells the service manager how we are, and that we live: `sd_notify(3)`, for units of `Type=notify`.
//!
//! The watchdog is fed from a task of the runtime that serves everything, and only after each thread that has a runtime of its
//! own (those that read publishers and those that write to players) has run a task too: a thread that hangs there hangs
//! everybody on it, and nothing but a restart would help. Without a service manager nothing is said to anybody.

use std::future::Future;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::time::{Instant, interval, timeout_at};
use tracing::{debug, warn};

use crate::relay::Relay;

/// How often the status line is written anew where no watchdog asks for more.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// The watchdog is fed this many times in its time, so that one late answer is not the end.
const BEATS: u32 = 3;

/// The listeners are open, or a reload is over.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again; [`ready`] follows, whatever comes of it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "no monotonic time"),
    }
}

/// The server is on its way out.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Somebody else is the service's main process from now on.
pub fn succeeded_by(process: u32) {
    tell(&[NotifyState::MainPid(process)]);
}

/// What there is to be done, in a line.
pub fn status(relay: &Relay) -> String {
    let streams = relay.streams();
    let published = streams.iter().filter(|stream| stream.publisher.is_some());
    let readers = streams.iter().map(|stream| {
        let feeds = [&stream.source, &stream.program];
        feeds
            .map(|feed| feed.low_latency + feed.viewers)
            .iter()
            .sum::<usize>()
    });
    format!(
        "serving: {} published streams, {} readers",
        published.count(),
        readers.sum::<usize>()
    )
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the service manager cannot be told");
    }
}

/// Feeds the watchdog, where there is one, and keeps the status line; for as long as it is polled.
pub async fn beat(threads: impl Fn() -> Vec<Handle>, status: impl Fn() -> String) {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(STATUS_EVERY, |limit| (limit / BEATS).min(STATUS_EVERY));
    let mut beats = interval(every.max(Duration::from_millis(1)));
    let mut said = String::new();
    loop {
        beats.tick().await;
        let now = status();
        if now != said {
            tell(&[NotifyState::Status(&now)]);
            said = now;
        }
        if watchdog.is_none() {
            continue;
        }
        match all_run(threads(), Instant::now() + every).await {
            Ok(()) => tell(&[NotifyState::Watchdog]),
            Err(hung) => warn!(hung, "threads do not run; the watchdog is not fed"),
        }
    }
}

/// Whether each of the threads takes a task and runs it by then.
///
/// # Errors
/// How many did not.
async fn all_run(threads: Vec<Handle>, by: Instant) -> Result<(), usize> {
    let asked: Vec<_> = threads
        .iter()
        .map(|thread| thread.spawn(async {}))
        .collect();
    let mut hung = 0;
    for task in asked {
        let abort = task.abort_handle();
        // One that was closed meanwhile cancels its tasks: nobody is on it any more.
        if timeout_at(by, task).await.is_err() {
            abort.abort();
            hung += 1;
        }
    }
    if hung == 0 { Ok(()) } else { Err(hung) }
}

/// Waits for `work` and has the service manager wait, too: more time is asked for as it goes on.
pub async fn patiently<T>(work: impl Future<Output = T>) -> T {
    /// Asked for again at half of it.
    const MORE: Duration = Duration::from_secs(10);
    let mut again = interval(MORE / 2);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = again.tick() => {
                let more = u32::try_from(MORE.as_micros()).unwrap_or(u32::MAX);
                tell(&[NotifyState::ExtendTimeoutUsec(more)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::net::{Precedence, Worker};

    #[tokio::test]
    async fn one_thread_that_hangs_is_found_among_those_that_run() {
        let workers =
            [(); 3].map(|()| Worker::open("linkmic-test", Precedence::default()).unwrap());
        let all = || workers.iter().map(|w| w.runtime().clone()).collect();
        let soon = || Instant::now() + Duration::from_secs(10);
        assert_eq!(all_run(all(), soon()).await, Ok(()));
        let (release, held) = mpsc::channel::<()>();
        let (entered, inside) = tokio::sync::oneshot::channel();
        workers[1].runtime().spawn(async move {
            let _ = entered.send(());
            let _ = held.recv();
        });
        inside.await.unwrap();
        let shortly = Instant::now() + Duration::from_millis(100);
        assert_eq!(all_run(all(), shortly).await, Err(1));
        drop(release);
        assert_eq!(all_run(all(), soon()).await, Ok(()));
    }
}
