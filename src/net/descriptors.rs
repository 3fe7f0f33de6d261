//! How many files this process may have open, of which every connection is one.
//!
//! The kernel gives a process a low limit that it may raise by itself, up to a high one (`ulimit -Sn` and `-Hn`; systemd:
//! `LimitNOFILE`). Called by the server, which takes what it can get and lets in no more connections than fit, and by the
//! load generator, which needs as many as it was told.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept back from connections that bring or take media: for the log, the state, the listeners, the control API (so that
/// health and metrics answer when all else is taken), push targets and mixes.
const RESERVE: u64 = 512;
/// Of a low limit, no more than this share is kept back: a quarter.
const SHARE: u64 = 4;
/// What a server without any connection needs, with some for the control API. It has 21 open when it listens.
const LEAST: u64 = 64;

/// How many files may be open; `None`: as many as there is memory for.
type Files = Option<u64>;

/// How many may be open now.
pub fn limit() -> Files {
    getrlimit(Resource::Nofile).current
}

/// How many are open; 0 where the kernel does not tell.
pub fn open() -> u64 {
    let open = std::fs::read_dir("/proc/self/fd");
    // One of them is the folder itself.
    open.map_or(0, |open| open.count().saturating_sub(1) as u64)
}

/// How many may be open once [`raise`] was called.
pub fn most() -> Files {
    getrlimit(Resource::Nofile).maximum
}

/// Lets this process, and those it starts, open as many files as it may, and gives that limit.
pub fn raise() -> Files {
    let maximum = most();
    let limits = Rlimit {
        current: maximum,
        maximum,
    };
    // Everybody may do that; where something forbids it nevertheless, what holds is what comes back.
    let _ = setrlimit(Resource::Nofile, limits);
    limit()
}

/// Lets this process, and those it starts, open `wanted` files.
///
/// # Errors
/// The limit that holds, when it is too low and we may not raise it.
pub fn allow(wanted: u64) -> Result<(), u64> {
    let enough = |limit: Files| limit.is_none_or(|limit| limit >= wanted);
    if enough(limit()) || enough(raise()) {
        return Ok(());
    }
    // Over the hard limit only root may go.
    let higher = Rlimit {
        current: Some(wanted),
        maximum: Some(wanted),
    };
    let _ = setrlimit(Resource::Nofile, higher);
    match limit() {
        Some(limit) if limit < wanted => Err(limit),
        _ => Ok(()),
    }
}

/// For how many connections a limit has room, besides what the server needs itself. At least one.
pub fn room(files: u64) -> usize {
    let reserve = (files / SHARE).clamp(LEAST, RESERVE);
    usize::try_from(files.saturating_sub(reserve).max(1)).unwrap_or(usize::MAX)
}

/// The limit that has room for so many connections.
pub fn needed(connections: usize) -> u64 {
    let connections = connections as u64;
    // Where the share decides, files - files / SHARE = connections.
    let share = (connections / (SHARE - 1)).saturating_add(1);
    connections.saturating_add(share.clamp(LEAST, RESERVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_leaves_room_for_the_server_itself_and_for_a_connection() {
        for (files, connections) in [
            (0, 1),
            (64, 1),
            (100, 36),
            (256, 192),
            (1_024, 768),
            (2_048, 1_536),
            (4_096, 3_584),
            (1 << 20, (1 << 20) - 512),
        ] {
            assert_eq!(room(files), connections, "{files}");
        }
    }

    #[test]
    fn what_is_said_to_be_needed_is_enough_and_not_much_too_much() {
        for connections in (2..5_000).chain([10_000, 1_000_000]) {
            let needed = needed(connections);
            assert!(room(needed) >= connections, "{connections}: {needed}");
            assert!(room(needed - 3) < connections, "{connections}: {needed}");
        }
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        assert_eq!(raise(), most());
        assert_eq!(limit(), most());
        assert_eq!(allow(16), Ok(()));
    }
}
