//! How loud a refusal is in the log: bounded, because a stranger can be refused a thousand times a second.
//!
//! Pure but for the clock that callers bring. Rooms write their refusals with [`refused`]; exact numbers are in the
//! metrics.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::reason::Reason;

/// Of each reason so many refusals are told in an [`INTERVAL`]: enough to see who it is and whether there is one or
/// there are many.
const FIRST: u64 = 10;
/// With [`FIRST`], and floods for all 15 reasons at once: 8 lines a second, some 150 MB a day.
const INTERVAL: Duration = Duration::from_secs(20);

/// How a refusal is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volume {
    /// As `INFO`. So many of this reason were not told since the last that was.
    Aloud { unsaid: u64 },
    /// As `DEBUG`.
    Aside,
}

/// What has been told, by reason.
#[derive(Debug)]
pub struct Refusals(Mutex<[Told; Reason::ALL.len()]>);

#[derive(Debug, Clone, Copy)]
struct Told {
    /// When the interval began; `None`: never.
    since: Option<Instant>,
    /// In this interval.
    told: u64,
    unsaid: u64,
}

impl Refusals {
    /// Nothing told yet.
    pub const fn new() -> Self {
        let none = Told {
            since: None,
            told: 0,
            unsaid: 0,
        };
        Self(Mutex::new([none; Reason::ALL.len()]))
    }

    /// There was a refusal for that reason: how is it to be told?
    pub fn weigh(&self, reason: Reason, now: Instant) -> Volume {
        let at = Reason::ALL.iter().position(|known| *known == reason);
        let Some(at) = at.filter(|_| concerns_operators(reason)) else {
            return Volume::Aside;
        };
        // Counts are right after every statement.
        let mut all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let state = &mut all[at];
        let is_over = |since: Instant| now.saturating_duration_since(since) >= INTERVAL;
        if state.since.is_none_or(is_over) {
            state.since = Some(now);
            state.told = 0;
        }
        if state.told == FIRST {
            state.unsaid += 1;
            return Volume::Aside;
        }
        state.told += 1;
        Volume::Aloud {
            unsaid: std::mem::take(&mut state.unsaid),
        }
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether an operator may have something to put right, or somebody to keep out: keys, clocks, bans, lists, proxies,
/// memory. Everything else is what strangers do.
const fn concerns_operators(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ProxyUntrusted
            | Reason::ProxyHeader
            | Reason::UnknownApp
            | Reason::SignatureMissing
            | Reason::TxTimeMissing
            | Reason::TxTimeMalformed
            | Reason::SignatureExpired
            | Reason::SignatureWrong
            | Reason::KeyNotValid
            | Reason::AddressDenied
            | Reason::HookFailed
            | Reason::Forbidden
            | Reason::Banned
            | Reason::NameBusy
            | Reason::Overloaded
            | Reason::Internal
    )
}

/// Logs a refusal as loud as it may be: `refused!(reason, peer = %peer, "play refused: {why}")`. The reason is a field
/// of the line.
macro_rules! refused {
    ($reason:expr, $($rest:tt)+) => {{
        use $crate::logging::{REFUSALS, Volume};
        let reason = $reason;
        match REFUSALS.weigh(reason, std::time::Instant::now()) {
            Volume::Aloud { unsaid } => {
                if unsaid > 0 {
                    tracing::info!(%reason, unsaid, "refusals for this reason were not told");
                }
                tracing::info!(%reason, $($rest)+);
            }
            Volume::Aside => tracing::debug!(%reason, $($rest)+),
        }
    }};
}
pub(crate) use refused;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_the_first_of_each_interval_are_told_and_the_others_counted() {
        let refusals = Refusals::new();
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        // 1,000 a second for a minute: three intervals.
        let mut told = Vec::new();
        for ms in 0..60_000 {
            if let Volume::Aloud { unsaid } = refusals.weigh(Reason::SignatureWrong, at(ms)) {
                told.push((ms, unsaid));
            }
        }
        let mut expected = Vec::new();
        for begin in [0, 20_000, 40_000] {
            // 20,000 of the interval before, but for the ten that were told.
            let unsaid = if begin == 0 { 0 } else { 19_990 };
            expected.push((begin, unsaid));
            expected.extend((begin + 1..begin + 10).map(|ms| (ms, 0)));
        }
        assert_eq!(told, expected);
    }

    #[test]
    fn a_flood_for_one_reason_hides_no_other() {
        let refusals = Refusals::new();
        let now = Instant::now();
        for _ in 0..1_000 {
            refusals.weigh(Reason::SignatureWrong, now);
        }
        let aloud = Volume::Aloud { unsaid: 0 };
        assert_eq!(refusals.weigh(Reason::SignatureWrong, now), Volume::Aside);
        assert_eq!(refusals.weigh(Reason::Forbidden, now), aloud);
    }

    #[test]
    fn what_strangers_bring_about_at_will_is_never_told_aloud() {
        let refusals = Refusals::new();
        for reason in [
            Reason::LimitReached,
            Reason::NotFound,
            Reason::Protocol,
            Reason::Amf,
            Reason::TooLarge,
            Reason::Timeout,
            Reason::BadName,
            Reason::Disconnected,
        ] {
            assert_eq!(refusals.weigh(reason, Instant::now()), Volume::Aside);
        }
    }
}
