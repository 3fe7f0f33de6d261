//! One target's life: wait for media, connect, send, and after a failure wait and try again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::backoff;
use super::connection::{Connection, End, Failure};
use super::feeder::Feeder;
use super::status::{Record, State};
use super::target::Target;
use super::{Config, Signer};
use crate::media::{Class, MediaTime};
use crate::relay::{Join, Relay, Subscriber};

/// A connection that could publish for this long counts as a success: the next failure is a first one again. A target that grants
/// and then closes at once must not be asked twice a second for ever.
const STABLE: Duration = Duration::from_secs(10);
/// Messages looked at, and thrown away, at a time while waiting.
const SKIM: usize = 256;

/// What one target's task works with.
pub(super) struct Task {
    pub id: String,
    pub target: Target,
    pub relay: Relay,
    pub config: Arc<Config>,
    pub signer: Arc<dyn Signer>,
    pub record: Arc<Record>,
    pub stop: CancellationToken,
    /// The task is over when its stream is; else it waits for the stream to come back.
    pub one_run: bool,
}

/// What an attempt came to.
enum Outcome {
    Over(End),
    /// Why, and since when it had the target's permission to publish; `None` when it never came to that.
    Failed(Failure, Option<Instant>),
}

/// What waiting for media came to.
enum Wait {
    Media,
    /// The stream is over, and with it a task of one run.
    Over,
    Stopped,
}

impl Task {
    /// Runs until stopped, or until the stream is over for a task of one run.
    pub(super) async fn run(self) {
        let mut subscriber = self.subscribe();
        // Latest decode time that was handed to a connection; the feed's own time never goes back.
        let mut newest = None;
        let mut failures = 0;
        let mut fresh_only = false;
        loop {
            self.record.enter(State::Waiting);
            match self.wait(&mut subscriber, fresh_only).await {
                Wait::Media => {}
                Wait::Over | Wait::Stopped => break,
            }
            match self.attempt(&mut subscriber, &mut newest).await {
                Outcome::Over(End::Stopped) => break,
                Outcome::Over(End::Feed) if self.one_run => break,
                Outcome::Over(end) => {
                    failures = 0;
                    fresh_only = end == End::Idle;
                    tracing::info!(push = %self.id, stream = %self.target.key, ?end, "push waits for media");
                }
                Outcome::Failed(failure, live_since) => {
                    if live_since.is_some_and(|since| since.elapsed() >= STABLE) {
                        failures = 0;
                    }
                    failures += 1;
                    fresh_only = false;
                    // Without random bytes the pause is merely not spread.
                    let jitter = getrandom::u32().unwrap_or(u32::MAX);
                    let pause = backoff::delay(failures, jitter, self.config.max_backoff);
                    tracing::warn!(
                        push = %self.id, stream = %self.target.key, target = %self.target.url, failures,
                        retry_in_ms = pause.as_millis() as u64, error = %failure, "push failed"
                    );
                    self.record
                        .failed(failure.to_string(), Instant::now() + pause);
                    tokio::select! {
                        () = self.stop.cancelled() => break,
                        () = sleep(pause) => {}
                    }
                }
            }
        }
        self.record.enter(State::Ended);
        tracing::info!(push = %self.id, stream = %self.target.key, "push ended");
    }

    fn subscribe(&self) -> Subscriber {
        let Target { key, feed, .. } = &self.target;
        self.relay.subscribe(key, *feed, Class::Viewer)
    }

    /// Waits until the feed has a place to begin. `fresh_only`: and a message newer than those seen, since the place
    /// may be in a recorded group of pictures that nobody continues.
    async fn wait(&self, subscriber: &mut Subscriber, mut fresh_only: bool) -> Wait {
        let mut skimmed = Vec::new();
        loop {
            if !fresh_only && subscriber.can_begin() {
                return Wait::Media;
            }
            tokio::select! {
                () = self.stop.cancelled() => return Wait::Stopped,
                reception = subscriber.read(SKIM, &mut skimmed) => {
                    if reception.ended.is_some() && self.one_run && !subscriber.is_fed() {
                        return Wait::Over;
                    }
                    fresh_only &= skimmed.is_empty();
                    skimmed.clear();
                }
                () = sleep(self.config.hold), if self.one_run => {
                    if !subscriber.is_fed() {
                        return Wait::Over;
                    }
                }
            }
        }
    }

    async fn attempt(
        &self,
        subscriber: &mut Subscriber,
        newest: &mut Option<MediaTime>,
    ) -> Outcome {
        self.record.connecting();
        let address = match self.target.address(self.signer.as_ref()) {
            Ok(address) => address,
            Err(error) => return Outcome::Failed(error.into(), None),
        };
        let mut connection = tokio::select! {
            () = self.stop.cancelled() => return Outcome::Over(End::Stopped),
            opened = Connection::open(&address, &self.config) => match opened {
                Ok(connection) => connection,
                Err(failure) => return Outcome::Failed(failure, None),
            },
        };
        let live_since = Instant::now();
        self.record.enter(State::Live);
        tracing::info!(push = %self.id, stream = %self.target.key, target = %self.target.url, "push connected");
        // A new handle has seen all ends until now; the old one is let go only after that, so the stream stays.
        *subscriber = self.subscribe();
        subscriber.join(Join::Burst);
        let mut feeder = Feeder::new(
            connection.stream_id(),
            *newest,
            self.config.max_lag,
            live_since,
        );
        let fed = connection
            .feed(
                subscriber,
                &mut feeder,
                &self.record,
                &self.config,
                &self.stop,
            )
            .await;
        *newest = feeder.newest();
        match fed {
            Ok(end) => {
                connection.finish().await;
                Outcome::Over(end)
            }
            Err(failure) => Outcome::Failed(failure, Some(live_since)),
        }
    }
}
