//! Limits of the process, the clock, and settings of the kernel.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Finding, State};
use crate::config::Config;
use crate::net::{Precedence, descriptors};

/// Fewer open files than that leave no room for a working day.
const FEW_FILES: u64 = 1_024;
/// A server without mixes has some 20 threads, and each mix and its sources bring up to 20.
const FEW_THREADS: u64 = 512;
/// Below that not even the server's own threads have room.
const TOO_FEW_THREADS: u64 = 64;
/// What drivers of cards pin at the most, by their documents.
const LOCKED: u64 = 8 << 20;
/// Listeners ask for queues as long as that.
const BACKLOG: u64 = 1_024;
/// Debian's default, under which no send buffer of ours is cut.
const SOCKET_BUFFER: u64 = 212_992;
/// Each connection to a push target or back end takes one.
const FEW_PORTS: u64 = 10_000;
/// The first kernel that gives threads slices of their own.
const SLICES: (u64, u64) = (6, 12);
/// A service manager that does not answer says nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Open files, threads and pinned memory.
pub fn limits(config: &Config) -> Vec<Finding> {
    vec![
        files(config, descriptors::most()),
        threads(most_threads()),
        locked(getrlimit(Resource::Memlock).current),
    ]
}

pub(super) fn files(config: &Config, most: Option<u64>) -> Finding {
    const NAME: &str = "open files";
    let Some(most) = most else {
        return Finding::ok("limits", NAME, "without a limit");
    };
    let wanted = config.limits.connections;
    let room = descriptors::room(most);
    let found = format!("{most}, room for {room} connections");
    if room >= wanted && most >= FEW_FILES {
        return Finding::ok("limits", NAME, found);
    }
    let state = if most < FEW_FILES {
        State::Bad
    } else {
        State::Warn
    };
    let needed = descriptors::needed(wanted).max(FEW_FILES);
    Finding::new("limits", NAME, state, found).advise(format!(
        "limits.connections = {wanted} needs {needed}: raise the hard limit (ulimit -Hn {needed}, or LimitNOFILE={needed} in the \
         service unit)"
    ))
}

/// How many threads there may be, and what says so.
fn most_threads() -> Option<(u64, &'static str)> {
    let number = |path: &str| -> Option<u64> {
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().parse().ok()
    };
    let own = getrlimit(Resource::Nproc)
        .current
        .map(|n| (n, "ulimit -u, or LimitNPROC"));
    let group = cgroup_threads().map(|n| (n, "the control group's pids.max, or TasksMax"));
    let all = number("/proc/sys/kernel/threads-max").map(|n| (n, "kernel.threads-max"));
    [own, group, all].into_iter().flatten().min()
}

fn cgroup_threads() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit = std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(path).join("pids.max"));
    limit.ok()?.trim().parse().ok()
}

pub(super) fn threads(most: Option<(u64, &str)>) -> Finding {
    const NAME: &str = "threads";
    let Some((most, by)) = most else {
        return Finding::ok("limits", NAME, "without a limit");
    };
    let found = format!("{most} by {by}");
    let state = match most {
        0..TOO_FEW_THREADS => State::Bad,
        TOO_FEW_THREADS..FEW_THREADS => State::Warn,
        _ => return Finding::ok("limits", NAME, found),
    };
    Finding::new("limits", NAME, state, found).advise(format!(
        "a mix and its sources take up to 20 each: raise it to {FEW_THREADS} or more"
    ))
}

pub(super) fn locked(most: Option<u64>) -> Finding {
    const NAME: &str = "locked memory";
    match most {
        None => Finding::ok("limits", NAME, "without a limit"),
        Some(most) => {
            let found = format!("{} KiB", most >> 10);
            let small = most < LOCKED;
            let finding = Finding::ok("limits", NAME, found);
            match small {
                true => finding.advise("only encoders in hardware lock memory; for one raise it (LimitMEMLOCK=infinity)"),
                false => finding,
            }
        }
    }
}

/// Whether something keeps the clock right: signatures of URLs end by it.
pub async fn clock() -> Vec<Finding> {
    let asked = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let told = match timeout(PATIENCE, asked).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => String::new(),
    };
    // systemd-timesyncd leaves this behind where nobody answers for it.
    let synchronised = Path::new("/run/systemd/timesync/synchronized").exists();
    vec![synchronisation(&told, synchronised)]
}

pub(super) fn synchronisation(told: &str, file: bool) -> Finding {
    const ADVICE: &str = "signed URLs end by this clock, and callbacks carry its time: run chrony or systemd-timesyncd";
    let finding = |state, found| Finding::new("clock", "synchronised", state, found);
    match (told, file) {
        ("yes", _) | (_, true) => finding(State::Ok, "by NTP"),
        ("no", false) => finding(State::Bad, "no").advise(ADVICE),
        (_, false) => finding(State::Warn, "cannot tell: timedatectl does not answer")
            .advise(format!("in a container the host's clock counts; {ADVICE}")),
    }
}

/// Settings that sockets and threads depend on.
pub fn kernel(config: &Config) -> Vec<Finding> {
    let read = |name: &str| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        std::fs::read_to_string(path).ok()
    };
    let mut findings: Vec<_> = [
        "net.core.somaxconn",
        "net.core.rmem_max",
        "net.core.wmem_max",
    ]
    .into_iter()
    .map(|name| least(name, read(name).as_deref()))
    .collect();
    findings.push(local_ports(read("net.ipv4.ip_local_port_range").as_deref()));
    // In its own words: every socket of ours sets its own.
    if let Some(unsent) = read("net.ipv4.tcp_notsent_lowat") {
        let found = format!("{}; each player's socket has its own", unsent.trim());
        findings.push(Finding::ok("kernel", "net.ipv4.tcp_notsent_lowat", found));
    }
    findings.push(slices(
        read("kernel.osrelease").as_deref().unwrap_or_default(),
    ));
    findings.push(precedence(config.threads.realtime, Precedence::allowed()));
    findings
}

pub(super) fn least(name: &str, value: Option<&str>) -> Finding {
    let (least, why) = match name {
        "net.core.somaxconn" => (
            BACKLOG,
            "more than that many who come at once are turned away by the kernel",
        ),
        _ => (
            SOCKET_BUFFER,
            "the kernel cuts socket buffers to it, and distant viewers fall behind",
        ),
    };
    let number = value.and_then(|text| text.trim().parse::<u64>().ok());
    let Some(number) = number else {
        return Finding::ok("kernel", name, "not shown here");
    };
    if number >= least {
        return Finding::ok("kernel", name, number.to_string());
    }
    Finding::new(
        "kernel",
        name,
        State::Warn,
        format!("{number}, below {least}"),
    )
    .advise(format!("{why}: sysctl -w {name}={least}"))
}

pub(super) fn local_ports(value: Option<&str>) -> Finding {
    const NAME: &str = "net.ipv4.ip_local_port_range";
    let numbers = value.unwrap_or_default().split_whitespace();
    let numbers: Vec<u64> = numbers.filter_map(|text| text.parse().ok()).collect();
    let [first, last] = numbers[..] else {
        return Finding::ok("kernel", NAME, "not shown here");
    };
    let ports = (last + 1).saturating_sub(first);
    let found = format!("{first} to {last}, {ports} ports");
    if ports >= FEW_PORTS {
        return Finding::ok("kernel", NAME, found);
    }
    Finding::new("kernel", NAME, State::Warn, found).advise(format!(
        "each connection to a push target or back end takes one: sysctl -w {NAME}='32768 60999'"
    ))
}

/// What who asks may do, a service may do with other limits.
pub(super) fn precedence(realtime: bool, allowed: Option<Precedence>) -> Finding {
    const NAME: &str = "precedence";
    let found = match (realtime, allowed) {
        (true, Some(Precedence::Realtime)) => "threads may be real-time ones",
        (false, Some(_)) => "threads may come forward; threads.realtime is off",
        (true, Some(Precedence::Weight)) => "threads may come forward, but be no real-time ones",
        (_, None) => "threads may not come forward",
    };
    let advice = match (realtime, allowed) {
        (true, Some(Precedence::Realtime)) | (false, Some(_)) => {
            return Finding::ok("kernel", NAME, found);
        }
        (true, _) => {
            "LimitRTPRIO=1 for a service, ulimits: rtprio: 1 for a container (some kernels refuse it to both)"
        }
        (false, None) => "LimitNICE=-10 for a service",
    };
    Finding::new("kernel", NAME, State::Warn, found.to_owned()).advise(format!(
        "beside mixes that keep the cores busy, players wait some ms longer: {advice}"
    ))
}

pub(super) fn slices(release: &str) -> Finding {
    const NAME: &str = "scheduler";
    let mut numbers = release
        .split(['.', '-'])
        .map(|n| n.trim().parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let release = release.trim();
    if version >= SLICES {
        return Finding::ok(
            "kernel",
            NAME,
            format!("Linux {release}: threads have slices of their own"),
        );
    }
    Finding::new("kernel", NAME, State::Warn, format!("Linux {release} gives threads no slices of their own")).advise(format!(
        "beside mixes that keep the cores busy, players wait some ms longer; Linux {}.{} or later does not have that",
        SLICES.0, SLICES.1
    ))
}
