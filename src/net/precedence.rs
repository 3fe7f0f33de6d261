//! How far threads that relay go before others, where the host allows it.
//!
//! Nobody comes forward without leave: limits (`RLIMIT_RTPRIO` and `RLIMIT_NICE`, systemd's `LimitRTPRIO` and `LimitNICE`) or
//! `CAP_SYS_NICE`. Without, all stays as it was.
//!
//! A thread that wakes goes before one that computes only if it has had no more than its share of late (Linux's EEVDF scheduler calls
//! that eligible); else it waits for the next tick, up to 4 ms at 250 Hz. That is so whatever the two weigh: weight decides how soon it
//! is eligible again, and nobody looks before the tick. A real-time thread goes at once. Peers beside two mixes that kept two cores
//! busy to the last: 99th percentile 0.8 ms alone, 4.5 beside with weight, 0.6 as real-time threads (docs/performance.md).

use super::scheduler;

/// How nice a thread that relays is, where it may be no more. It works for microseconds at a time; what it takes from others is what
/// it waits less.
pub const NICENESS: i32 = -10;
/// The least of 99: it is enough to go before all that compute, and lets go first who runs the host's own real-time threads.
const PRIORITY: u32 = 1;

/// How far a thread may come forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precedence {
    /// With [`NICENESS`]: more of the cores than others when these are short, but not always at once.
    #[default]
    Weight,
    /// Before every thread that is no real-time one, with the least priority of 99 and in turn with its like; else as above. The kernel keeps
    /// a twentieth of each core for the others (before Linux 6.12 by `kernel.sched_rt_runtime_us`).
    Realtime,
}

impl Precedence {
    /// Brings the calling thread forward so far, or as far as is allowed. What a real-time thread starts is ordinary, its slice too;
    /// what another one starts is as forward as itself. Slices are asked for before, not after.
    pub fn claim(self) {
        if self == Self::Realtime && scheduler::set_realtime(PRIORITY).is_ok() {
            return;
        }
        // Not being allowed is the ordinary case.
        let _ = rustix::process::setpriority_process(None, NICENESS);
    }

    /// May a thread of this process be a real-time one, or at least less nice than others? Tried on one that does nothing else.
    /// `None`: neither, or there is no thread to be had.
    pub fn allowed() -> Option<Self> {
        [Self::Realtime, Self::Weight]
            .into_iter()
            .find(|precedence| precedence.is_allowed())
    }

    /// May a thread of this process come so far forward? As above.
    pub fn is_allowed(self) -> bool {
        let trial = move || match self {
            Self::Realtime => scheduler::set_realtime(PRIORITY).is_ok(),
            Self::Weight => rustix::process::setpriority_process(None, NICENESS).is_ok(),
        };
        let trial = std::thread::Builder::new().spawn(trial);
        trial.is_ok_and(|trial| trial.join().unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Policy and niceness of the calling thread.
    fn scheduled() -> (u32, i32) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        // proc(5): the 19th and the 41st, and the first after the name is the third.
        (
            fields[41 - 3].parse().unwrap(),
            fields[19 - 3].parse().unwrap(),
        )
    }

    #[test]
    fn a_thread_comes_forward_as_far_as_it_may_and_what_it_starts_stays_behind() {
        let of = |claimed: Precedence| {
            let thread = thread::spawn(move || {
                claimed.claim();
                let started = thread::spawn(scheduled).join().unwrap();
                (scheduled(), started)
            });
            thread.join().unwrap()
        };
        let other = libc::SCHED_OTHER as u32;
        let weight = match Precedence::Weight.is_allowed() {
            true => (other, NICENESS),
            false => scheduled(),
        };
        assert_eq!(of(Precedence::Weight), (weight, weight));
        let (itself, started) = of(Precedence::Realtime);
        if Precedence::Realtime.is_allowed() {
            assert_eq!(itself.0, libc::SCHED_RR as u32);
            assert_eq!(started.0, other);
            // Resetting takes negative niceness away, and leaves another as it was or at 0.
            assert!(started.1 >= 0, "{started:?}");
        } else {
            assert_eq!((itself, started), (weight, weight));
        }
    }
}
