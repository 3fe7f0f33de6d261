//! Replays a log of events and says where it contradicts "exactly one live epoch per name".
//!
//! Owns nothing but what it was shown; the hall does not use it. Tests judge the hall by it.

use std::collections::HashMap;

use super::event::Event;
use crate::media::StreamKey;

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    #[error("event {found} follows event {last}")]
    Order { last: u64, found: u64 },
    #[error("{key}: epoch {epoch} begins while epoch {live} lives")]
    TwoLive {
        key: StreamKey,
        epoch: u64,
        live: u64,
    },
    #[error("{key}: epoch {epoch} begins after epoch {last} of this server")]
    OldEpoch {
        key: StreamKey,
        epoch: u64,
        last: u64,
    },
    #[error("{key}: epoch {epoch} ends while none lives")]
    NoneLive { key: StreamKey, epoch: u64 },
    #[error("{key}: epoch {epoch} ends while epoch {live} lives")]
    OtherLives {
        key: StreamKey,
        epoch: u64,
        live: u64,
    },
}

/// A replay. Show it every event from the start of the log, or from a moment when nothing was published.
#[derive(Debug, Default)]
pub struct Ledger {
    live: HashMap<StreamKey, u64>,
    begun: HashMap<StreamKey, usize>,
    last_sequence: Option<u64>,
    last_epoch: u64,
}

impl Ledger {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// When it cannot be true after those before it.
    pub fn record(&mut self, event: &Event) -> Result<(), Contradiction> {
        let found = event.stamp().sequence;
        if let Some(last) = self.last_sequence
            && found != last + 1
        {
            return Err(Contradiction::Order { last, found });
        }
        self.last_sequence = Some(found);
        let (key, epoch) = (event.key().clone(), event.epoch());
        let live = self.live.get(&key).copied();
        match (event, live) {
            (Event::Published { .. }, Some(live)) => {
                Err(Contradiction::TwoLive { key, epoch, live })
            }
            (Event::Published { .. }, None) if epoch <= self.last_epoch => {
                let last = self.last_epoch;
                Err(Contradiction::OldEpoch { key, epoch, last })
            }
            (Event::Published { .. }, None) => {
                self.last_epoch = epoch;
                *self.begun.entry(key.clone()).or_default() += 1;
                self.live.insert(key, epoch);
                Ok(())
            }
            (Event::Unpublished { .. }, None) => Err(Contradiction::NoneLive { key, epoch }),
            (Event::Unpublished { .. }, Some(live)) if live != epoch => {
                Err(Contradiction::OtherLives { key, epoch, live })
            }
            (Event::Unpublished { .. }, Some(_)) => {
                self.live.remove(&key);
                Ok(())
            }
        }
    }

    /// The live epoch of a name.
    pub fn live(&self, key: &StreamKey) -> Option<u64> {
        self.live.get(key).copied()
    }

    /// How many names have a live epoch.
    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// How many epochs of a name have begun.
    pub fn begun(&self, key: &StreamKey) -> usize {
        self.begun.get(key).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::event::Stamp;
    use super::super::origin::Origin;
    use super::*;
    use crate::reason::Reason;

    /// `(start, name, epoch)`, numbered from 5 on.
    fn replay(log: &[(bool, &str, u64)]) -> Result<Ledger, Contradiction> {
        let mut ledger = Ledger::new();
        for (n, event) in log.iter().enumerate() {
            ledger.record(&of(event, 5 + n as u64))?;
        }
        Ok(ledger)
    }

    fn key(name: &str) -> StreamKey {
        StreamKey::new("live", name).unwrap()
    }

    fn of(&(start, name, epoch): &(bool, &str, u64), sequence: u64) -> Event {
        let stamp = Stamp {
            sequence,
            at: SystemTime::UNIX_EPOCH,
        };
        let key = key(name);
        let origin = Origin::Mix { id: "m".into() };
        match start {
            true => Event::Published {
                key,
                epoch,
                origin,
                stamp,
            },
            false => Event::Unpublished {
                key,
                epoch,
                origin,
                reason: Reason::Closed,
                lasted: Duration::ZERO,
                bytes: 0,
                request: None,
                stamp,
            },
        }
    }

    const START: bool = true;
    const END: bool = false;

    #[test]
    fn a_good_log_replays_and_names_may_interleave() {
        let ledger = replay(&[
            (START, "a", 1),
            (START, "b", 2),
            (END, "a", 1),
            (START, "a", 3),
            (END, "b", 2),
            (END, "a", 3),
            (START, "b", 4),
        ])
        .unwrap();
        assert_eq!(
            (ledger.live(&key("a")), ledger.live(&key("b"))),
            (None, Some(4))
        );
        assert_eq!((ledger.begun(&key("a")), ledger.live_count()), (2, 1));
    }

    #[test]
    fn bad_logs_are_told_from_good_ones() {
        let (a, b) = (|| key("a"), || key("b"));
        for (name, log, found) in [
            (
                "two starts",
                &[(START, "a", 1), (START, "a", 2)][..],
                Contradiction::TwoLive {
                    key: a(),
                    epoch: 2,
                    live: 1,
                },
            ),
            (
                "a start before the end of the one before",
                &[
                    (START, "a", 1),
                    (START, "b", 2),
                    (START, "a", 3),
                    (END, "a", 1),
                ],
                Contradiction::TwoLive {
                    key: a(),
                    epoch: 3,
                    live: 1,
                },
            ),
            (
                "an end before its start",
                &[(END, "a", 1), (START, "a", 1)],
                Contradiction::NoneLive { key: a(), epoch: 1 },
            ),
            (
                "an end twice",
                &[(START, "a", 1), (END, "a", 1), (END, "a", 1)],
                Contradiction::NoneLive { key: a(), epoch: 1 },
            ),
            (
                "the end of an epoch that is not the live one",
                &[
                    (START, "a", 1),
                    (END, "a", 1),
                    (START, "a", 2),
                    (END, "a", 1),
                ],
                Contradiction::OtherLives {
                    key: a(),
                    epoch: 1,
                    live: 2,
                },
            ),
            (
                "the end under another name",
                &[(START, "a", 1), (END, "b", 1)],
                Contradiction::NoneLive { key: b(), epoch: 1 },
            ),
            (
                "an epoch used twice",
                &[(START, "a", 1), (END, "a", 1), (START, "b", 1)],
                Contradiction::OldEpoch {
                    key: b(),
                    epoch: 1,
                    last: 1,
                },
            ),
        ] {
            assert_eq!(replay(log).unwrap_err(), found, "{name}");
        }
    }

    #[test]
    fn a_log_with_a_hole_or_out_of_order_is_no_log() {
        for second in [4, 5, 7] {
            let mut ledger = Ledger::new();
            ledger.record(&of(&(START, "a", 1), 5)).unwrap();
            let found = ledger.record(&of(&(END, "a", 1), second)).unwrap_err();
            let order = Contradiction::Order {
                last: 5,
                found: second,
            };
            assert_eq!(found, order);
        }
    }
}
