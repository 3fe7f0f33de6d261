//! One target's life: wait for media and for its turn, connect, send, and after a failure wait and try again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::backoff;
use super::connection::{Connection, End, Failure, Work};
use super::feeder::Feeder;
use super::group::{Gone, Seat, Turn, until};
use super::status::{Record, State};
use super::target::Target;
use super::{Config, Signer};
use crate::media::{Class, MediaTime};
use crate::relay::{Join, Relay, Subscriber};

/// Messages looked at, and thrown away, at a time while waiting.
const SKIM: usize = 256;
/// How often a backup that stands by looks whether its feed goes on: a few times within the shortest time after which it
/// may take over.
const GLANCE: Duration = Duration::from_millis(200);
/// A backup does not take over a feed that has brought nothing for this long, however short the configured hold is.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);

/// What one target's task works with.
pub(super) struct Task {
    pub id: String,
    pub target: Target,
    pub relay: Relay,
    pub config: Arc<Config>,
    pub signer: Arc<dyn Signer>,
    pub record: Arc<Record>,
    pub stop: CancellationToken,
    /// It is to end where its stream can be continued by somebody else.
    pub leave: CancellationToken,
    /// The task is over when its stream is; else it waits for the stream to come back.
    pub one_run: bool,
}

/// What an attempt came to.
enum Outcome {
    Over(End),
    /// Why, and how long it had published until the target last took something; `None` when it never came to that.
    Failed(Failure, Option<Duration>),
}

/// What waiting for media came to.
enum Wait {
    Media,
    /// The stream is over, and with it a task of one run.
    Over,
    Stopped,
}

/// What standing by came to.
enum Standby {
    /// It is this target's turn.
    Turn,
    /// The feed ended.
    NoMedia,
    /// The feed brought nothing for the configured hold.
    Idle,
    Stopped,
}

impl Task {
    /// Runs until stopped, or until the stream is over for a task of one run. `seat`: its place in its group.
    pub(super) async fn run(self, seat: Seat) {
        let mut subscriber = self.subscribe();
        // Latest decode time that was handed to a connection; the feed's own time never goes back.
        let mut newest = None;
        let mut failures = 0;
        let mut fresh_only = false;
        // Since when there has been media, through failures of its own.
        let mut media_since = None;
        loop {
            match self.wait(&mut subscriber, fresh_only).await {
                Wait::Media => {}
                Wait::Over | Wait::Stopped => break,
            }
            fresh_only = false;
            let since = *media_since.get_or_insert_with(Instant::now);
            match self.stand_by(&seat, &mut subscriber, since).await {
                Standby::Turn => {}
                Standby::NoMedia if self.one_run => break,
                end @ (Standby::NoMedia | Standby::Idle) => {
                    seat.gone(Gone::Over);
                    fresh_only = matches!(end, Standby::Idle);
                    media_since = None;
                    continue;
                }
                Standby::Stopped => break,
            }
            let attempt = self.attempt(&seat, since, &mut subscriber, &mut newest);
            // What it may leave half done goes with its connection; the subscriber is made anew for the next one.
            let attempted = AssertUnwindSafe(attempt).catch_unwind().await;
            match attempted.unwrap_or(Outcome::Failed(Failure::Panicked, None)) {
                Outcome::Over(End::Stopped) => break,
                Outcome::Over(_) if self.leave.is_cancelled() => break,
                Outcome::Over(End::Feed) if self.one_run => break,
                Outcome::Over(end) => {
                    failures = 0;
                    self.record.steady();
                    seat.gone(Gone::Over);
                    if end != End::HandedBack {
                        fresh_only = end == End::Idle;
                        media_since = None;
                    }
                    tracing::info!(push = %self.id, stream = %self.target.key, ?end, "push pauses");
                }
                Outcome::Failed(failure, lived) => {
                    let was_steady = lived.is_some_and(|lived| lived >= self.config.steady);
                    if was_steady {
                        failures = 0;
                    }
                    failures += 1;
                    let pause = self.failed(&failure, failures);
                    seat.gone(match was_steady {
                        true => Gone::Failed,
                        false => Gone::Unsteady,
                    });
                    tokio::select! {
                        () = self.stop.cancelled() => break,
                        () = self.leave.cancelled() => break,
                        () = sleep(pause) => {}
                    }
                }
            }
        }
        drop(seat);
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
            self.record.enter(State::Waiting);
            tokio::select! {
                () = self.stop.cancelled() => return Wait::Stopped,
                () = self.leave.cancelled() => return Wait::Stopped,
                reception = subscriber.read(SKIM, &mut skimmed) => {
                    if reception.ended.is_some() && self.one_run && !subscriber.is_fed() {
                        return Wait::Over;
                    }
                    fresh_only &= skimmed.is_empty();
                    skimmed.clear();
                }
                () = sleep(self.config.hold()), if self.one_run => {
                    if !subscriber.is_fed() {
                        return Wait::Over;
                    }
                }
            }
        }
    }

    /// Follows the feed until it is this target's turn, or there is nothing to take over.
    async fn stand_by(&self, seat: &Seat, subscriber: &mut Subscriber, since: Instant) -> Standby {
        let mut changes = seat.changes();
        let mut skimmed = Vec::new();
        let mut last_media = Instant::now();
        let mut stood_by = false;
        loop {
            let again = match seat.turn(since) {
                Turn::StandBy(again) => again,
                Turn::Publish(_) => {
                    if stood_by {
                        self.record.took_over();
                        tracing::warn!(push = %self.id, stream = %self.target.key, "backup takes over");
                    }
                    return Standby::Turn;
                }
            };
            if !std::mem::replace(&mut stood_by, true) {
                self.record.enter(State::Standby);
            }
            tokio::select! {
                () = self.stop.cancelled() => return Standby::Stopped,
                () = self.leave.cancelled() => return Standby::Stopped,
                () = changes.next() => {}
                () = until(again) => {}
                () = sleep(GLANCE) => {}
            }
            loop {
                let reception = subscriber.try_read(SKIM, &mut skimmed);
                let had = skimmed.len();
                skimmed.clear();
                if had > 0 {
                    last_media = Instant::now();
                }
                if reception.ended.is_some() && !subscriber.is_fed() {
                    return Standby::NoMedia;
                }
                if had < SKIM {
                    break;
                }
            }
            if last_media.elapsed() >= self.config.hold().max(SHORTEST_HOLD) {
                return Standby::Idle;
            }
        }
    }

    /// Notes a failure, and says how long to wait before the next attempt.
    fn failed(&self, failure: &Failure, failures: u32) -> Duration {
        // Without random bytes the pause is merely not spread.
        let jitter = getrandom::u32().unwrap_or(u32::MAX);
        let pause = backoff::delay(failures, jitter, self.config.max_backoff);
        tracing::warn!(
            push = %self.id, stream = %self.target.key, url = %self.target.url, failures,
            retry_in_ms = pause.as_millis() as u64, error = %failure, "push failed"
        );
        self.record
            .failed(failure.to_string(), failures, Instant::now() + pause);
        pause
    }

    async fn attempt(
        &self,
        seat: &Seat,
        media_since: Instant,
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
            () = self.leave.cancelled() => return Outcome::Over(End::Stopped),
            () = seat.lost(media_since) => return Outcome::Over(End::HandedBack),
            opened = Connection::open(&address, &self.config) => match opened {
                Ok(connection) => connection,
                Err(failure) => return Outcome::Failed(failure, None),
            },
        };
        let live_since = Instant::now();
        self.record.enter(State::Live);
        seat.live();
        tracing::info!(push = %self.id, stream = %self.target.key, url = %self.target.url, "push connected");
        // A new handle has seen all ends until now; the old one is let go only after that, so the stream stays.
        *subscriber = self.subscribe();
        subscriber.join(Join::Burst);
        let mut feeder = Feeder::new(
            connection.stream_id(),
            *newest,
            self.config.max_lag,
            live_since,
        );
        let work = Work {
            subscriber,
            feeder: &mut feeder,
            record: &self.record,
            config: &self.config,
            stop: &self.stop,
        };
        let lost = async {
            tokio::select! {
                () = seat.lost(media_since) => {}
                () = self.leave.cancelled() => {}
            }
        };
        let fed = connection.feed(work, lost).await;
        *newest = feeder.newest();
        match fed {
            Ok(end) => {
                connection.finish(&self.record).await;
                Outcome::Over(end)
            }
            Err(failure) => {
                // A target that was stalled for most of its life did not live.
                let lived = connection
                    .last_progress()
                    .saturating_duration_since(live_since);
                connection.abort();
                Outcome::Failed(failure, Some(lived))
            }
        }
    }
}
