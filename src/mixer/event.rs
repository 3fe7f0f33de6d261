//! What becomes of mixes and their inputs, as it leaves this room: one event per change.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::broadcast;

use super::info::MixState;
use super::input::InputState;
use crate::logging::RequestId;
use crate::media::StreamKey;

/// Events kept for a slow listener; a mix of sixteen has some twenty changes in its busiest second. One that falls further
/// behind is told by the channel how many it has missed, and reconciles from [`Mixer::list`](super::Mixer::list).
const EVENTS: usize = 1_024;

/// Something became of a mix. Sent in the order in which it became true, over all mixes.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The mix's id.
    pub mix: String,
    /// Its output.
    pub output: StreamKey,
    pub change: Change,
    /// The latest call of an API that made, changed or ended the mix; `None` for one that was kept.
    pub request: Option<RequestId>,
    /// Counts this mixer's events from 1, without a gap.
    pub sequence: u64,
    /// Wall time; it may step where the host's clock does, `sequence` does not.
    pub at: SystemTime,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Started,
    /// It stands there now; `why` of [`MixState::Failed`], and of [`MixState::Ending`] the [`Ending`] in words.
    State {
        state: MixState,
        why: Option<String>,
    },
    Input {
        /// The scene's id of the input.
        id: Arc<str>,
        from: InputState,
        to: InputState,
    },
    /// It is gone.
    Ended(Ending),
}

/// Why a mix ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    #[error("it was asked to")]
    Asked,
    /// All its streams were gone for too long.
    #[error("all its streams were gone for too long")]
    Abandoned,
    /// Its output was taken from it.
    #[error("its output is gone")]
    Lost,
}

/// Who tells of changes.
#[derive(Debug)]
pub(super) struct Herald {
    events: broadcast::Sender<Event>,
    /// Events sent. Held while one is, so that they leave in order.
    sent: Mutex<u64>,
}

impl Herald {
    pub fn new() -> Self {
        Self {
            events: broadcast::channel(EVENTS).0,
            sent: Mutex::new(0),
        }
    }

    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    pub fn tell(&self, mix: &str, output: &StreamKey, change: Change, request: Option<RequestId>) {
        match &change {
            Change::Started => tracing::info!(mix, %output, "mix started"),
            Change::State { state, why } => {
                tracing::info!(mix, state = state.word(), why, "mix changes its state");
            }
            Change::Input { id, from, to } => {
                tracing::info!(mix, input = %id, from = from.word(), to = to.word(), "input changes its state");
            }
            Change::Ended(why) => tracing::info!(mix, %why, "mix ended"),
        }
        // A number is complete after every statement.
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        *sent += 1;
        // Nobody may be listening.
        let _ = self.events.send(Event {
            mix: mix.to_owned(),
            output: output.clone(),
            change,
            request,
            sequence: *sent,
            at: SystemTime::now(),
        });
    }
}

/// How long nothing has come of any of a mix's streams. Counts from the mix's beginning; pure.
#[derive(Debug)]
pub(super) struct Vigil {
    heard: Instant,
    /// What had passed by then without any.
    before: Duration,
}

impl Vigil {
    /// Begins now, when nothing has come for `before`.
    pub fn new(now: Instant, before: Duration) -> Self {
        Self { heard: now, before }
    }

    /// Takes note of whether any stream comes now; has none for `long`?
    pub fn is_over(&mut self, long: Duration, any: bool, now: Instant) -> bool {
        if any {
            (self.heard, self.before) = (now, Duration::ZERO);
        }
        self.before + now.saturating_duration_since(self.heard) >= long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vigil_ends_when_nothing_has_come_for_that_long_since_the_beginning_or_the_latest() {
        let long = Duration::from_secs(900);
        let start = Instant::now();
        for (name, before, heard, over_at) in [
            ("never", 0, None, 900),
            ("for a while", 0, Some(500), 1_400),
            ("before it began", 700, None, 200),
            ("before and after", 700, Some(500), 1_400),
        ] {
            let mut vigil = Vigil::new(start, Duration::from_secs(before));
            let over = (0..2_000).find(|&second| {
                let now = start + Duration::from_secs(second);
                vigil.is_over(long, heard.is_some_and(|until| second <= until), now)
            });
            assert_eq!(over, Some(over_at), "{name}");
        }
        let mut vigil = Vigil::new(start, Duration::ZERO);
        let comes_back = (1..100).any(|n| {
            let now = start + Duration::from_secs(n * 899);
            vigil.is_over(long, true, now)
        });
        assert!(!comes_back);
    }

    #[test]
    fn events_leave_in_order_and_a_slow_listener_hears_how_many_it_missed() {
        let herald = Herald::new();
        let mut slow = herald.listen();
        let key = StreamKey::new("live", "a").unwrap();
        for _ in 0..EVENTS + 5 {
            herald.tell("m", &key, Change::Started, None);
        }
        let missed = slow.try_recv();
        assert!(matches!(
            missed,
            Err(broadcast::error::TryRecvError::Lagged(5))
        ));
        let sequence = slow.try_recv().map(|event| event.sequence);
        assert_eq!(sequence.ok(), Some(6));
    }
}
