//! The state directory: whether it can be written, how much room there is, and how long the disk takes to keep something.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, access, statvfs};

use super::{Finding, State};
use crate::config::Config;

/// What waits for a back end that is down for a day, and the room a database takes to be put in order.
const LITTLE: u64 = 1 << 30;
/// Below that the next change may be refused.
const TOO_LITTLE: u64 = 64 << 20;
/// Each publish that somebody is told of waits for one.
const SLOW: Duration = Duration::from_millis(50);
/// After that long a publish is granted without.
const TOO_SLOW: Duration = Duration::from_millis(500);
/// So many are timed; what counts is the one in the middle.
const TIMES: usize = 5;

/// All that there is to say of it.
pub fn all(config: &Config) -> Vec<Finding> {
    let dir = &config.state.dir;
    let mut findings = vec![match try_it(dir) {
        Ok(Some(took)) => speed(dir, took),
        Ok(None) => Finding::ok("disk", name(dir), "is not there yet and can be made"),
        Err(error) => Finding::new("disk", name(dir), State::Bad, format!("cannot be written: {error}"))
            .advise("the server does not start without it: give it to the user that the server runs as, or set state.dir to another directory"),
    }];
    if let Ok(space) = statvfs(nearest(dir)) {
        findings.push(room(space.f_bavail.saturating_mul(space.f_frsize)));
    }
    findings
}

fn name(dir: &Path) -> String {
    format!("state.dir {}", dir.display())
}

/// Writes a file there and times how long the disk takes to have it. `None`: the directory is yet to be made, and could be.
fn try_it(dir: &Path) -> io::Result<Option<Duration>> {
    if !dir.try_exists()? {
        let above = nearest(dir);
        if !fs::metadata(&above)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        access(&above, Access::WRITE_OK | Access::EXEC_OK)?;
        return Ok(None);
    }
    let path = dir.join(format!("doctor.{}", std::process::id()));
    let timed = time(&path);
    let removed = fs::remove_file(&path);
    let timed = timed?;
    removed?;
    Ok(Some(timed))
}

fn time(path: &Path) -> io::Result<Duration> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let begun = Instant::now();
        file.write_all(b"a line of what a commit writes\n")?;
        file.sync_all()?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times[TIMES / 2])
}

/// The directory itself, or the nearest above it that is there.
fn nearest(dir: &Path) -> PathBuf {
    let there = dir.ancestors().find(|dir| dir.exists());
    match there {
        Some(there) if !there.as_os_str().is_empty() => there.to_owned(),
        _ => PathBuf::from("."),
    }
}

pub(super) fn speed(dir: &Path, took: Duration) -> Finding {
    let found = format!(
        "can be written; the disk keeps a line in {:.1} ms",
        took.as_secs_f64() * 1_000.0
    );
    let state = match took {
        took if took >= TOO_SLOW => State::Bad,
        took if took >= SLOW => State::Warn,
        _ => return Finding::ok("disk", name(dir), found),
    };
    Finding::new("disk", name(dir), state, found)
        .advise("publishers whose back end is told of them wait for it, 500 ms at most: put state.dir on a faster disk")
}

pub(super) fn room(free: u64) -> Finding {
    let found = match free {
        0..LITTLE => format!("{} MiB free", free >> 20),
        _ => format!("{} GiB free", free >> 30),
    };
    let state = match free {
        0..TOO_LITTLE => State::Bad,
        TOO_LITTLE..LITTLE => State::Warn,
        _ => return Finding::ok("disk", "room", found),
    };
    Finding::new("disk", "room", state, found)
        .advise("mixes, bans, links and letters to back ends are kept there; when it is full, changes are refused")
}
