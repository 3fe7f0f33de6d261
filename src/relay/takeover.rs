//! Who keeps a name that two want: the decision, pure (semantics.md, "Publishers").
//!
//! Called by the registry when a name is asked for that somebody holds. Refuses to know connections and clocks.

use std::time::{Duration, Instant};

use super::origin::Origin;

/// Takeovers between different hosts within [`FLAP_WINDOW`] that a name may see; beyond them its publisher stays.
const MAX_MOVES: usize = 3;
/// See [`MAX_MOVES`].
const FLAP_WINDOW: Duration = Duration::from_secs(30);

/// What an application does when a name is published that somebody publishes already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBusy {
    /// The newcomer gets it when the incumbent has sent no media for this long, or when the newcomer is the incumbent
    /// by all that can be seen (same host, same query), whose old connection is not known to be dead yet.
    TakeoverIfIdle(Duration),
    /// The newcomer gets it.
    Takeover,
    /// The incumbent keeps it.
    Reject,
}

impl Default for OnBusy {
    fn default() -> Self {
        OnBusy::TakeoverIfIdle(Duration::from_secs(1))
    }
}

/// Why the incumbent keeps the name; the words that the newcomer hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A mix publishes it, or the newcomer is a mix: under every policy.
    #[error("another publisher holds this name")]
    Held,
    #[error("another publisher holds this name, and this application keeps the one it has")]
    Policy,
    #[error(
        "another publisher holds this name and sent media {} ms ago; it can be taken over after {} ms without",
        quiet.as_millis(), limit.as_millis()
    )]
    Active { quiet: Duration, limit: Duration },
    #[error(
        "this name was taken over {MAX_MOVES} times within {} s from different addresses; the publisher it has stays",
        FLAP_WINDOW.as_secs()
    )]
    Flapping,
}

/// The latest takeovers of one name between different hosts.
#[derive(Debug, Default)]
pub(super) struct Moves([Option<Instant>; MAX_MOVES]);

impl Moves {
    /// Notes one, over the oldest.
    pub fn note(&mut self, now: Instant) {
        self.0.rotate_left(1);
        self.0[MAX_MOVES - 1] = Some(now);
    }

    /// Would one more be too many?
    fn are_many(&self, now: Instant) -> bool {
        let recent = |at: &Option<Instant>| {
            at.is_some_and(|at| now.saturating_duration_since(at) < FLAP_WINDOW)
        };
        self.0.iter().all(recent)
    }
}

/// One who holds a name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incumbent<'a> {
    pub origin: &'a Origin,
    /// Since its last media byte, or since it was granted the name.
    pub quiet: Duration,
}

/// A takeover that may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Granted {
    /// From one host to another: to be noted in [`Moves`].
    pub is_move: bool,
}

/// May `newcomer` take the name over?
pub(super) fn decide(
    policy: OnBusy,
    incumbent: Incumbent<'_>,
    newcomer: &Origin,
    moves: &Moves,
    now: Instant,
) -> Result<Granted, Refused> {
    if incumbent.origin.is_mix() || newcomer.is_mix() {
        return Err(Refused::Held);
    }
    match policy {
        OnBusy::Reject => return Err(Refused::Policy),
        OnBusy::TakeoverIfIdle(limit) => {
            let quiet = incumbent.quiet;
            if quiet < limit && !newcomer.is_return_of(incumbent.origin) {
                return Err(Refused::Active { quiet, limit });
            }
        }
        OnBusy::Takeover => {}
    }
    let is_move = !newcomer.same_host(incumbent.origin);
    if is_move && moves.are_many(now) {
        return Err(Refused::Flapping);
    }
    Ok(Granted { is_move })
}

#[cfg(test)]
mod tests {
    use super::super::origin::Query;
    use super::*;

    fn anchor(host: u8, port: u16, query: &str) -> Origin {
        Origin::Anchor {
            connection: crate::logging::ConnectionId::next(),
            address: ([203, 0, 113, host], port).into(),
            key_id: None,
            query: Query::new(query),
        }
    }

    fn mix() -> Origin {
        Origin::Mix { id: "show".into() }
    }

    #[test]
    fn who_keeps_the_name() {
        let ms = Duration::from_millis;
        let idle = OnBusy::TakeoverIfIdle(ms(1_000));
        let a = anchor(1, 5_000, "txTime=1");
        let granted = |is_move| Ok(Granted { is_move });
        let active = |quiet| {
            Err(Refused::Active {
                quiet: ms(quiet),
                limit: ms(1_000),
            })
        };
        // Name, policy, incumbent quiet for ms, newcomer, moves so many ms ago, outcome.
        type Case = (
            &'static str,
            OnBusy,
            u64,
            Origin,
            &'static [u64],
            Result<Granted, Refused>,
        );
        let table: &[Case] = &[
            (
                "active, other host",
                idle,
                999,
                anchor(2, 1, "txTime=1"),
                &[],
                active(999),
            ),
            (
                "idle, other host",
                idle,
                1_000,
                anchor(2, 1, "txTime=2"),
                &[],
                granted(true),
            ),
            (
                "active, returned",
                idle,
                0,
                anchor(1, 9, "txTime=1"),
                &[],
                granted(false),
            ),
            (
                "active, same host, other query",
                idle,
                0,
                anchor(1, 9, "txTime=2"),
                &[],
                active(0),
            ),
            (
                "idle, same host, other query",
                idle,
                1_000,
                anchor(1, 9, "txTime=2"),
                &[],
                granted(false),
            ),
            (
                "takeover of an active one",
                OnBusy::Takeover,
                0,
                anchor(2, 1, ""),
                &[],
                granted(true),
            ),
            (
                "rejected though idle",
                OnBusy::Reject,
                9_000,
                anchor(2, 1, ""),
                &[],
                Err(Refused::Policy),
            ),
            (
                "rejected though returned",
                OnBusy::Reject,
                9_000,
                a.clone(),
                &[],
                Err(Refused::Policy),
            ),
            (
                "a mix never takes over",
                OnBusy::Takeover,
                9_000,
                mix(),
                &[],
                Err(Refused::Held),
            ),
            (
                "third move",
                idle,
                2_000,
                anchor(2, 1, ""),
                &[20_000, 10_000],
                granted(true),
            ),
            (
                "fourth move",
                idle,
                2_000,
                anchor(2, 1, ""),
                &[29_999, 20_000, 10_000],
                Err(Refused::Flapping),
            ),
            (
                "fourth move, forced",
                OnBusy::Takeover,
                0,
                anchor(2, 1, ""),
                &[9_000, 6_000, 3_000],
                Err(Refused::Flapping),
            ),
            (
                "fourth move, later",
                idle,
                2_000,
                anchor(2, 1, ""),
                &[30_000, 20_000, 10_000],
                granted(true),
            ),
            (
                "a return is no move",
                idle,
                0,
                anchor(1, 1, "txTime=1"),
                &[9_000, 6_000, 3_000],
                granted(false),
            ),
        ];
        let now = Instant::now() + Duration::from_secs(3_600);
        for (name, policy, quiet, newcomer, moved, outcome) in table {
            let mut moves = Moves::default();
            for ago in *moved {
                moves.note(now - ms(*ago));
            }
            let incumbent = Incumbent {
                origin: &a,
                quiet: ms(*quiet),
            };
            let decided = decide(*policy, incumbent, newcomer, &moves, now);
            assert_eq!(decided, *outcome, "{name}");
        }
    }

    #[test]
    fn a_mix_is_never_taken_over() {
        let incumbent = Incumbent {
            origin: &mix(),
            quiet: Duration::from_secs(60),
        };
        for policy in [OnBusy::default(), OnBusy::Takeover, OnBusy::Reject] {
            let decided = decide(policy, incumbent, &mix(), &Moves::default(), Instant::now());
            assert_eq!(decided, Err(Refused::Held));
            let newcomer = anchor(1, 1, "");
            let decided = decide(
                policy,
                incumbent,
                &newcomer,
                &Moves::default(),
                Instant::now(),
            );
            assert_eq!(decided, Err(Refused::Held));
        }
    }

    #[test]
    fn the_words_say_who_and_how_long() {
        let refused = Refused::Active {
            quiet: Duration::from_millis(40),
            limit: Duration::from_secs(1),
        };
        assert!(refused.to_string().contains("40 ms ago"), "{refused}");
        assert!(refused.to_string().contains("after 1000 ms"), "{refused}");
    }
}
