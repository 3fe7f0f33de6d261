//! Going down without haste: who publishes goes when he can, mixes and pushes end whole, and then all goes down.
//!
//! A server is empty when nobody publishes: what plays then has nothing to play. Those who publish are asked to connect anew where
//! their client said that it can be asked; all others have until the deadline.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};
use tracing::info;

use super::Server;
use super::operations::Drain;
use super::pulse;
use crate::relay::Origin;

/// How often it is looked whether somebody publishes.
const LOOK: Duration = Duration::from_millis(100);
/// Before the deadline, mixes and pushes have this long to end at key frames: a usual GOP...
const WIND_DOWN: Duration = Duration::from_secs(5);
/// ...and no more than this part of the time that there is.
const SHARE: u32 = 3;

/// Lets go of who publishes; returns when nobody does, or shortly before the deadline, with the time that there is to end mixes
/// and pushes. A new order moves the deadline.
pub async fn wait(server: &Server, mut orders: watch::Receiver<Option<Drain>>) -> Duration {
    let rooms = &server.rooms;
    let begun = Instant::now();
    let handed = orders.borrow().is_some_and(|drain| drain.is_handed);
    // Whoever asks at this address from now on asks the process that has taken over, which is ready; a few had connected before.
    if !handed {
        rooms.readiness.set(false);
    }
    rooms.pushes.hurry();
    // Who had connected before another process took over is with us, and can be nowhere else.
    let closed = begun
        + if handed {
            2 * server.handshake
        } else {
            Duration::ZERO
        };
    rooms.ingest.drain(closed);
    if !handed {
        pulse::stopping("draining");
    }
    loop {
        let Some(drain) = *orders.borrow_and_update() else {
            return Duration::ZERO;
        };
        let whole = drain.deadline.saturating_duration_since(begun);
        let wind_down = WIND_DOWN.min(whole / SHARE);
        let last = drain.deadline - wind_down;
        tokio::select! {
            () = empty(server, closed) => {
                info!("nobody publishes any more");
                return WIND_DOWN.min(drain.deadline.saturating_duration_since(Instant::now()));
            }
            () = sleep_until(last.into()) => {
                info!("the deadline is near; who is still there is sent away");
                return wind_down;
            }
            changed = orders.changed() => if changed.is_err() { return Duration::ZERO },
        }
    }
}

/// Resolves when nobody publishes, nor may come to.
async fn empty(server: &Server, closed: Instant) {
    loop {
        let streams = server.rooms.relay.streams();
        let publishes = streams.iter().any(|stream| {
            let publisher = stream.publisher.as_ref();
            publisher.is_some_and(|publisher| matches!(publisher.origin, Origin::Anchor { .. }))
        });
        let may_come = Instant::now() < closed && server.rooms.live.admission.open() > 0;
        if !publishes && !may_come {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Ends mixes with a splice back and pushes in front of key frames, as far as there is time.
pub async fn wind_down(server: &Server, within: Duration) {
    let rooms = &server.rooms;
    rooms.following.cancel();
    let begun = Instant::now();
    #[cfg(feature = "mixer")]
    let _ = timeout(within, rooms.mixer.shutdown()).await;
    let left = within.saturating_sub(begun.elapsed());
    let _ = timeout(left, rooms.pushes.wind_down(left)).await;
}
