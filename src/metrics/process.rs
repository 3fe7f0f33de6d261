//! The process as the kernel sees it, under the names that every Prometheus client has for it.
//!
//! Knows `/proc/self` and nothing of the house. Read at each scrape: three small files, and the number of open files.

use std::fs;
use std::os::unix::fs::MetadataExt;

use prometheus::{Counter, IntGauge};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::catalogue::Catalogue;
use super::count;

/// The instruments.
pub(super) struct Process {
    cpu: Counter,
    resident: IntGauge,
    virtual_: IntGauge,
    open_files: IntGauge,
    max_files: IntGauge,
    threads: IntGauge,
}

impl Process {
    pub(super) fn new(c: &mut Catalogue) -> Self {
        let start = c.gauge("process_start_time_seconds", "When the process started.");
        start.set(started().unwrap_or_default());
        let cores = c.gauge(
            "linkmic_runtime_cores",
            "Processor cores that the process may use, as its affinity and its control group's quota allow at the start.",
        );
        cores.set(std::thread::available_parallelism().map_or(1, |n| count(n.get())));
        Self {
            cpu: c.fractions(
                "process_cpu_seconds_total",
                "Processor time spent, in user and system mode.",
            ),
            resident: c.gauge("process_resident_memory_bytes", "Memory resident in RAM."),
            virtual_: c.gauge("process_virtual_memory_bytes", "Address space in use."),
            open_files: c.gauge(
                "process_open_fds",
                "Open file descriptors; every connection has one.",
            ),
            max_files: c.gauge(
                "process_max_fds",
                "File descriptors that may be open; 0: as many as there is memory for.",
            ),
            threads: c.gauge("process_threads", "Threads."),
        }
    }

    /// Brings all up to date; one at a time, or what a counter lacks is added twice. What cannot be read stays as it was.
    pub(super) fn read(&self) {
        if let Some(stat) = read_stat() {
            self.cpu.inc_by((stat.cpu - self.cpu.get()).max(0.0));
            self.threads.set(stat.threads);
        }
        if let Some([virtual_, resident]) = read_memory() {
            self.virtual_.set(virtual_);
            self.resident.set(resident);
        }
        if let Some(files) = open_files() {
            self.open_files.set(files);
        }
        let most = getrlimit(Resource::Nofile).current;
        let most = most.map_or(0, |most| i64::try_from(most).unwrap_or(i64::MAX));
        self.max_files.set(most);
    }
}

struct Stat {
    /// In seconds.
    cpu: f64,
    threads: i64,
    /// In ticks after the machine's start.
    start: u64,
}

fn read_stat() -> Option<Stat> {
    parse_stat(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// A line of proc_pid_stat(5). The name, in parentheses, may have anything in it.
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, after_name) = line.rsplit_once(')')?;
    // The first is field number 3.
    let fields: Vec<_> = after_name.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu: (field(14)? + field(15)?) as f64 / clock_ticks_per_second() as f64,
        threads: i64::try_from(field(20)?).ok()?,
        start: field(22)?,
    })
}

/// Virtual and resident memory in bytes.
fn read_memory() -> Option<[i64; 2]> {
    let line = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = line.split_ascii_whitespace();
    let mut bytes = || {
        let pages: usize = pages.next()?.parse().ok()?;
        i64::try_from(pages.saturating_mul(page_size())).ok()
    };
    Some([bytes()?, bytes()?])
}

/// Linux from 6.2 on knows the number; before, they are counted.
fn open_files() -> Option<i64> {
    const FILES: &str = "/proc/self/fd";
    let known = fs::metadata(FILES).ok()?.size();
    if known > 0 {
        return i64::try_from(known).ok();
    }
    // The directory itself is open meanwhile.
    Some(count(fs::read_dir(FILES).ok()?.count().saturating_sub(1)))
}

/// In seconds since 1970, to a second or so: the machine's start is known no better.
fn started() -> Option<i64> {
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let machine = machine
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    let after = read_stat()?.start / clock_ticks_per_second();
    Some(machine.trim().parse::<i64>().ok()? + i64::try_from(after).ok()?)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_hides_no_field() {
        let line = "42 (a) S (b) R 1 2 3 4 5 6 7 8 9 10 250 50 13 14 20 0 7 0 9000 18 19";
        let stat = parse_stat(line).unwrap();
        let ticks = clock_ticks_per_second() as f64;
        assert_eq!(stat.cpu, 300.0 / ticks);
        assert_eq!((stat.threads, stat.start), (7, 9_000));
        assert!(parse_stat("42 (a) R 1 2").is_none());
    }

    #[test]
    fn what_is_read_is_this_process() {
        let process = Process::new(&mut Catalogue::default());
        process.read();
        let held = process.open_files.get();
        let more: Vec<_> = [(); 50]
            .map(|()| fs::File::open("/dev/null").unwrap())
            .into();
        let began = Instant::now();
        // Two ticks of work at least, however busy the machine is.
        let before = process.cpu.get();
        while process.cpu.get() < before + 0.02 && began.elapsed() < Duration::from_secs(20) {
            process.read();
        }
        assert!(process.cpu.get() >= before + 0.02);
        // Other tests open and close files meanwhile, but not as many.
        assert!(process.open_files.get() > held + 20, "{held}");
        drop(more);
        assert!(process.max_files.get() > process.open_files.get());
        assert!(process.threads.get() >= 2);
        let [virtual_, resident] = [process.virtual_.get(), process.resident.get()];
        assert!((1 << 20..virtual_).contains(&resident), "{resident}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = i64::try_from(now.as_secs()).unwrap();
        let started = started().unwrap();
        assert!((now - 3_600..=now + 2).contains(&started), "{started}");
    }
}
