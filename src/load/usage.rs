//! What a run cost: CPU time and memory of processes, and how busy the machine was, from /proc.

use std::fs::read_to_string;
use std::time::Instant;

use serde::Serialize;

use crate::net::descriptors;

/// Files open besides the sockets of a run.
const OTHER_FILES: u64 = 64;

/// What processes have used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// CPU time of all threads, ended ones included, in user space and in the kernel, s.
    pub user_s: f64,
    pub system_s: f64,
    /// Resident memory, KiB.
    pub rss_kb: u64,
}

impl Usage {
    /// The sum over processes.
    ///
    /// # Errors
    /// The first process of them that is not there.
    pub fn of(pids: &[u32]) -> Result<Self, u32> {
        let mut sum = Self::default();
        for &pid in pids {
            let one = Self::of_one(pid).ok_or(pid)?;
            sum.user_s += one.user_s;
            sum.system_s += one.system_s;
            sum.rss_kb += one.rss_kb;
        }
        Ok(sum)
    }

    /// This process.
    pub fn own() -> Self {
        Self::of(&[std::process::id()]).unwrap_or_default()
    }

    /// CPU time in user space and in the kernel, s.
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }

    /// What was used since `earlier`; memory is that of now.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            user_s: self.user_s - earlier.user_s,
            system_s: self.system_s - earlier.system_s,
            rss_kb: self.rss_kb,
        }
    }

    fn of_one(pid: u32) -> Option<Self> {
        parse(&read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
}

/// One line of /proc/PID/stat. The program's name, in brackets, may hold anything.
fn parse(stat: &str) -> Option<Usage> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    // proc(5) counts from 1 and the name is the second: the first here is its third.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let seconds = |ticks: u64| ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Some(Usage {
        user_s: seconds(field(14)?),
        system_s: seconds(field(15)?),
        rss_kb: field(24)? * (rustix::param::page_size() as u64 / 1024),
    })
}

/// A moment to measure the machine from.
#[derive(Debug, Clone, Copy)]
pub struct Baseline {
    steal: u64,
    busy: u64,
    all: u64,
    at: Instant,
}

/// The machine during a run.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor's own name.
    pub cpu: String,
    pub cores: usize,
    /// Average number of runnable tasks over the last minute.
    pub load_1m: f64,
    /// Share of all cores that did something, %.
    pub busy_pct: f64,
    /// Share of all cores that the hypervisor gave to others, %: over 5, throw the run away.
    pub steal_pct: f64,
}

impl Baseline {
    pub fn now() -> Self {
        let stat = read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let fields: Vec<u64> = line
            .split_ascii_whitespace()
            .skip(1)
            // What comes after steal is counted in user and nice already.
            .take(8)
            .filter_map(|field| field.parse().ok())
            .collect();
        let all = fields.iter().sum();
        let at = |index: usize| fields.get(index).copied().unwrap_or(0);
        Self {
            steal: at(7),
            busy: all - at(3) - at(4),
            all,
            at: Instant::now(),
        }
    }

    /// Since this moment.
    pub fn machine(&self) -> Machine {
        let now = Self::now();
        let all = (now.all - self.all).max(1) as f64;
        let load = read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split_ascii_whitespace().next().map(str::parse);
        let cpus = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown", |(_, name)| name.trim());
        Machine {
            cpu: cpu.to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_1m: load.and_then(Result::ok).unwrap_or(0.0),
            busy_pct: 100.0 * (now.busy - self.busy) as f64 / all,
            steal_pct: 100.0 * (now.steal - self.steal) as f64 / all,
        }
    }

    /// Time since this moment, s.
    pub fn elapsed_s(&self) -> f64 {
        self.at.elapsed().as_secs_f64()
    }
}

/// Lets this process, and those it starts, open `sockets` of them.
///
/// # Errors
/// The limit that holds, when it is too low and we may not raise it.
pub fn allow_sockets(sockets: usize) -> Result<(), u64> {
    descriptors::allow(sockets as u64 + OTHER_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let mut line = "7 (a) b (c) S".to_owned();
        for field in 4..=52 {
            line += &format!(" {field}");
        }
        let usage = parse(&line).unwrap();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(usage.user_s, 14.0 / ticks);
        assert_eq!(usage.system_s, 15.0 / ticks);
        assert_eq!(
            usage.rss_kb,
            24 * (rustix::param::page_size() as u64 / 1024)
        );
        assert_eq!(parse("7 (a"), None);
    }

    #[test]
    fn this_process_is_measured_and_an_absent_one_is_named() {
        assert!(Usage::own().rss_kb > 0);
        // Above the kernel's largest process id.
        assert_eq!(Usage::of(&[std::process::id(), 1 << 23]), Err(1 << 23));
    }

    #[test]
    fn the_machine_has_a_share_of_everything() {
        let machine = Baseline::now().machine();
        assert!(machine.cores > 0);
        assert!((0.0..=100.0).contains(&machine.steal_pct));
        assert!((0.0..=100.0).contains(&machine.busy_pct));
    }
}
