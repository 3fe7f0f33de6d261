//! What this process takes of its host, measured, against what it may: processor time, and bytes to players.
//!
//! Owns the two budgets and what is known against them: the last measurement, and what was promised to those who came in
//! and do not show in it yet, so that a crowd that comes within a second does not come in whole, and nobody counts twice. Refuses to know who comes. Asked
//! by `auth` before anybody comes in, told once a second by `server`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Processor time is measured over this long: a second of an encoder's key frames is no load, and a crowd shows within it.
const WINDOW: Duration = Duration::from_secs(3);
/// From the promise to when who got it is attached and shows in what goes to players.
const ATTACHING: Duration = Duration::from_millis(250);
/// Processor time of a byte to a player, where nothing says better: 1.27 CPU-s/GB (docs/performance.md).
const NS_PER_BYTE: f64 = 1.27;

/// What may be taken; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Of the processor time that the process may have, in percent.
    pub cpu_percent: u32,
    /// To players, in megabits per second.
    pub egress_mbps: u32,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    Publisher,
    Player,
}

/// Which budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Exhausted {
    #[error(
        "the server has used {used:.0} % of its processor time, and takes nobody in over {limit} %; try again later"
    )]
    Cpu { used: f64, limit: u32 },
    #[error(
        "the server sends {used:.1} Mbit/s to players, and takes nobody in over {limit} Mbit/s; try again later"
    )]
    Egress { used: f64, limit: u32 },
}

/// The account. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Host(Arc<Mutex<Account>>);

#[derive(Debug)]
struct Account {
    budget: Budget,
    cores: f64,
    /// When, and the processor time of the process by then.
    samples: VecDeque<(Instant, Duration)>,
    /// Bytes a second to players, at the last measurement.
    egress: f64,
    /// Bytes a second that one more player is reckoned to take.
    typical: f64,
    /// When, and the bytes a second that whoever came in then will take.
    promised: VecDeque<(Instant, f64)>,
}

/// What is known, for people.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    pub budget: Budget,
    /// Processors that the process may use.
    pub cores: f64,
    /// Percent of their time used over the last seconds, with what was promised and does not show in that yet.
    pub cpu_percent: f64,
    /// Megabits a second to players, with what was promised and does not show in that yet.
    pub egress_mbps: f64,
    /// What that costs in hundredths of a processor, about.
    pub egress_units: f64,
}

impl Host {
    /// Nothing is measured yet.
    pub fn new(budget: Budget) -> Self {
        Self(Arc::new(Mutex::new(Account {
            budget,
            cores: available_parallelism().map_or(1.0, |cores| cores.get() as f64),
            samples: VecDeque::new(),
            egress: 0.0,
            typical: 0.0,
            promised: VecDeque::new(),
        })))
    }

    /// Other bounds from now on. Whoever is in stays.
    pub fn bound(&self, budget: Budget) {
        self.account().budget = budget;
    }

    /// Notes what the process has used by now, and what goes to players: bytes a second, to all of them and to a usual one.
    pub fn measure(&self, egress: f64, typical: f64) {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let used = Duration::new(
            used.tv_sec.unsigned_abs(),
            used.tv_nsec.unsigned_abs() as u32,
        );
        self.account().note(Instant::now(), used, egress, typical);
    }

    /// A place for somebody who comes in now.
    ///
    /// # Errors
    /// Which budget has none.
    pub fn admit(&self, guest: Guest) -> Result<(), Exhausted> {
        self.account().admit(guest, Instant::now())
    }

    /// Which budget would have no place now.
    pub fn exhausted(&self) -> Option<Exhausted> {
        self.account().exhausted(Instant::now())
    }

    pub fn view(&self) -> View {
        self.account().view(Instant::now())
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        // It is whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn note(&mut self, now: Instant, used: Duration, egress: f64, typical: f64) {
        self.samples.push_back((now, used));
        // The oldest that is kept is the newest of those that are older than the window.
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| now - *at >= WINDOW)
        {
            self.samples.pop_front();
        }
        self.egress = egress;
        self.typical = typical;
    }

    fn admit(&mut self, guest: Guest, now: Instant) -> Result<(), Exhausted> {
        if let Some(exhausted) = self.exhausted(now) {
            return Err(exhausted);
        }
        if guest == Guest::Player && self.budget != Budget::default() {
            self.promised.push_back((now, self.typical));
        }
        Ok(())
    }

    fn exhausted(&mut self, now: Instant) -> Option<Exhausted> {
        while self
            .promised
            .front()
            .is_some_and(|(at, _)| now - *at >= WINDOW)
        {
            self.promised.pop_front();
        }
        let view = self.view(now);
        let Budget {
            cpu_percent,
            egress_mbps,
        } = self.budget;
        if cpu_percent > 0 && view.cpu_percent >= f64::from(cpu_percent) {
            return Some(Exhausted::Cpu {
                used: view.cpu_percent,
                limit: cpu_percent,
            });
        }
        // The next one has to fit as well.
        let next = megabits(self.typical);
        (egress_mbps > 0 && view.egress_mbps + next > f64::from(egress_mbps)).then_some(
            Exhausted::Egress {
                used: view.egress_mbps,
                limit: egress_mbps,
            },
        )
    }

    fn view(&self, now: Instant) -> View {
        let recent = || self.promised.iter().filter(|(at, _)| now - *at < WINDOW);
        let (front, back) = (self.samples.front(), self.samples.back());
        // The last measurement has whole whoever was attached by then.
        let missed = |at: Instant| back.is_none_or(|(to, _)| at + ATTACHING > *to);
        let promised = recent().filter(|(at, _)| missed(*at));
        let egress = self.egress + promised.map(|(_, bytes)| bytes).sum::<f64>();
        // Of processor time it has as much of each as he was there of its window.
        let (measured, unseen) = match (front, back) {
            (Some((from, before)), Some((to, used))) if to > from => {
                let window = (*to - *from).as_secs_f64();
                let unseen = |(at, bytes): &(Instant, f64)| {
                    let there = to.saturating_duration_since(*at + ATTACHING);
                    bytes * (1.0 - there.as_secs_f64() / window).max(0.0)
                };
                let used = used.saturating_sub(*before).as_secs_f64();
                (used / window, recent().map(unseen).sum())
            }
            _ => (0.0, recent().map(|(_, bytes)| bytes).sum::<f64>()),
        };
        View {
            budget: self.budget,
            cores: self.cores,
            cpu_percent: 100.0 * (measured + cores(unseen)) / self.cores,
            egress_mbps: megabits(egress),
            egress_units: 100.0 * cores(egress),
        }
    }
}

/// What sending so many bytes a second takes of a core.
fn cores(bytes: f64) -> f64 {
    bytes * NS_PER_BYTE / 1e9
}

fn megabits(bytes: f64) -> f64 {
    bytes * 8.0 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(cpu_percent: u32, egress_mbps: u32) -> Account {
        let host = Host::new(Budget {
            cpu_percent,
            egress_mbps,
        });
        let account = Arc::into_inner(host.0).unwrap().into_inner().unwrap();
        Account {
            cores: 2.0,
            ..account
        }
    }

    #[test]
    fn nobody_comes_in_while_the_process_has_used_its_share_of_the_last_seconds() {
        let begin = Instant::now();
        let at = |s| begin + Duration::from_secs(s);
        let mut host = account(50, 0);
        assert_eq!(
            host.admit(Guest::Publisher, begin),
            Ok(()),
            "nothing is known yet"
        );
        // Half a core of two for 3 s, then one and a half.
        for (s, used_ms) in [(0, 0), (1, 500), (2, 1_000), (3, 1_500)] {
            host.note(at(s), Duration::from_millis(used_ms), 0.0, 0.0);
        }
        assert_eq!(host.view(at(3)).cpu_percent, 25.0);
        assert_eq!(host.admit(Guest::Player, at(3)), Ok(()));
        for (s, used_ms) in [(4, 3_000), (5, 4_500), (6, 6_000)] {
            host.note(at(s), Duration::from_millis(used_ms), 0.0, 0.0);
        }
        let refused = host.admit(Guest::Player, at(6)).unwrap_err();
        assert_eq!(
            refused,
            Exhausted::Cpu {
                used: 75.0,
                limit: 50
            }
        );
        host.budget.cpu_percent = 0;
        assert_eq!(host.admit(Guest::Player, at(6)), Ok(()));
    }

    #[test]
    fn a_crowd_within_a_second_is_let_in_as_far_as_the_bytes_go_that_it_will_take() {
        let begin = Instant::now();
        let mut host = account(0, 10);
        // 4 Mbit/s go out, and a player takes 1.
        host.note(begin, Duration::ZERO, 500_000.0, 125_000.0);
        let came = (0..20)
            .filter(|_| host.admit(Guest::Player, begin).is_ok())
            .count();
        assert_eq!(came, 6);
        let refused = host.admit(Guest::Publisher, begin).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("the server sends 10.0 Mbit/s"),
            "{refused}"
        );
        // They show in what is measured by then; those who left make room.
        let later = begin + WINDOW;
        host.note(later, Duration::ZERO, 1_250_000.0, 125_000.0);
        assert!(host.admit(Guest::Player, later).is_err());
        host.note(later, Duration::ZERO, 1_000_000.0, 125_000.0);
        assert_eq!(host.admit(Guest::Player, later), Ok(()));
    }

    #[test]
    fn who_shows_in_a_measurement_is_not_counted_as_promised_as_well() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut host = account(0, 100);
        let second = |host: &mut Account, s: u64, players: f64| {
            // Each takes 1 Mbit/s.
            let egress = players * 125_000.0;
            host.note(at(s * 1_000), Duration::ZERO, egress, 125_000.0);
        };
        second(&mut host, 0, 4.0);
        second(&mut host, 1, 4.0);
        for ms in [1_100, 1_500, 1_900] {
            assert_eq!(host.admit(Guest::Player, at(ms)), Ok(()));
        }
        let mbps = |host: &Account, ms| host.view(at(ms)).egress_mbps;
        assert_eq!(mbps(&host, 1_950), 7.0);
        // The last of them was not attached yet, maybe.
        second(&mut host, 2, 6.0);
        assert_eq!(mbps(&host, 2_000), 7.0);
        second(&mut host, 3, 7.0);
        assert_eq!(mbps(&host, 3_000), 7.0);
    }

    #[test]
    fn processor_time_of_who_came_in_is_reckoned_for_as_much_of_the_window_as_he_was_not_there() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut host = account(90, 0);
        // A player takes a fifth of a core, a tenth of both.
        let bytes = 0.2e9 / NS_PER_BYTE;
        let note = |host: &mut Account, s, used| {
            host.note(at(s * 1_000), Duration::from_millis(used), 0.0, bytes);
        };
        for s in 0..=3 {
            note(&mut host, s, 0);
        }
        // He is there from 3 s on.
        let came = at(3_000) - ATTACHING;
        assert_eq!(host.admit(Guest::Player, came), Ok(()));
        for (s, used) in [(4, 200), (5, 400)] {
            note(&mut host, s, used);
            let percent = host.view(at(s * 1_000)).cpu_percent;
            assert!((percent - 10.0).abs() < 1e-6, "after {s} s: {percent} %");
        }
    }

    #[test]
    fn the_processor_time_of_this_process_is_measured() {
        let host = Host::new(Budget::default());
        host.measure(0.0, 0.0);
        let until = Instant::now() + Duration::from_millis(50);
        while Instant::now() < until {}
        host.measure(0.0, 0.0);
        assert!(host.view().cpu_percent > 0.0);
    }
}
