//! How much a player may say: acknowledgements, pings and a command now and then, and no flood of them.
//!
//! Pure; whoever hears a player asks it after every read.

use std::time::Instant;

/// What a player may say for as long as it likes. Clients that acknowledge every single message of a 60 fps stream
/// come to 4 KB a second.
pub const BYTES_PER_SECOND: u64 = 64 << 10;
/// What it may say at once: a join's burst, acknowledged message by message, and what piled up while we were busy.
const BURST_BYTES: u64 = 256 << 10;

/// A bucket that drains at [`BYTES_PER_SECOND`].
pub struct Chatter {
    seen: u64,
    since: Instant,
    /// Bytes said and not yet forgotten.
    level: u64,
}

impl Chatter {
    /// From now on, `received` bytes into the connection.
    pub fn new(received: u64, now: Instant) -> Self {
        Self {
            seen: received,
            since: now,
            level: 0,
        }
    }

    /// Whether a player that has said `received` bytes since its connection began may go on.
    pub fn allows(&mut self, received: u64, now: Instant) -> bool {
        let passed = now.duration_since(self.since).as_millis() as u64;
        let drained = passed * BYTES_PER_SECOND / 1_000;
        // Less than a byte's time stays on the clock, or many calls would drain nothing.
        if drained > 0 {
            self.level = self.level.saturating_sub(drained);
            self.since = now;
        }
        self.level += received - self.seen;
        self.seen = received;
        self.level <= BURST_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_client_that_acknowledges_every_message_may_do_so_for_ever() {
        let start = Instant::now();
        let mut chatter = Chatter::new(3_073, start);
        for message in 1..100_000_u64 {
            let now = start + Duration::from_micros(message * 8_333);
            assert!(chatter.allows(3_073 + message * 16, now), "{message}");
        }
    }

    #[test]
    fn a_flood_ends_at_the_burst_and_its_leak() {
        let start = Instant::now();
        let mut chatter = Chatter::new(0, start);
        // A megabyte a second: 256 KiB are full when (1,000,000 - 65,536) × t = 262,144, which is 281 ms.
        let stopped =
            (1..).find(|ms| !chatter.allows(ms * 1_000, start + Duration::from_millis(*ms)));
        assert_eq!(stopped, Some(281));
    }

    #[test]
    fn calls_closer_than_a_byte_apart_still_let_time_pass() {
        let start = Instant::now();
        let mut chatter = Chatter::new(0, start);
        assert!(chatter.allows(BURST_BYTES, start));
        let mut now = start;
        for _ in 0..100_000 {
            now += Duration::from_micros(100);
            assert!(chatter.allows(BURST_BYTES, now));
        }
        // 10 s have passed, so the burst is forgotten.
        assert!(chatter.allows(2 * BURST_BYTES, now));
    }
}
