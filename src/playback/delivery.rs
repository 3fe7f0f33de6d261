//! The way to one player: what is queued for it, its socket, and how much of what was written its peer has acknowledged.
//!
//! Owns the bytes and their account. Refuses to know why a message goes out or stays away: its reader decides that.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backlog::{Backlog, Ledger};
use super::outbound::Outbound;
use super::sizing::Sizing;
use crate::media::MediaTime;
use crate::metrics::Metrics;
use crate::net::{self, Socket, turns};
use crate::relay::Framing;

/// Bytes per write of a reader that works through its own queue: all of a frame, a share of a long burst.
const WRITE_BYTES: usize = 64 << 10;

/// How far the peer is.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    /// Bytes that it has not acknowledged.
    pub unacknowledged: usize,
    /// Media time of the last byte that it has; `None` when nothing was written.
    pub time: Option<MediaTime>,
    /// It has acknowledged something since it was asked before, or has all there is.
    pub progress: bool,
}

/// A queue, a socket, and the account of what went from one to the other.
pub struct Delivery {
    pub socket: Arc<Socket>,
    /// Where others write to the socket, too.
    shared: Option<turns::Writer>,
    /// What is still to be written.
    pub out: Outbound,
    backlog: Backlog,
    /// Bytes that the peer had acknowledged when it was last asked.
    acknowledged: u64,
    /// When it was last seen to have acknowledged all that it had been given.
    drained: Option<Instant>,
}

impl Delivery {
    /// `shared`: where others write to the socket, too.
    pub fn new(socket: Arc<Socket>, framing: Framing, shared: Option<turns::Writer>) -> Self {
        Self {
            socket,
            shared,
            out: Outbound::new(framing),
            backlog: Backlog::default(),
            acknowledged: 0,
            drained: None,
        }
    }

    /// Others write to the socket from now on, and this one has numbers of its own there.
    pub fn share(&mut self, turns: &Arc<turns::Turns>, number: u64, line: &Ledger) {
        let unacknowledged = net::unacknowledged(&self.socket).unwrap_or(0);
        // What it is to write first may be the rest of what its connection had begun.
        let is_new = self.total(line) == 0 && !self.out.is_empty();
        let begun = self.out.has_begun() || is_new;
        self.shared = Some(turns.enter_first(number, unacknowledged, begun));
    }

    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Where others write to the socket, too: to wait for one's turn.
    pub fn turns(&self) -> Option<Arc<turns::Turns>> {
        self.shared.as_ref().map(|shared| shared.turns().clone())
    }

    /// Bounds what the kernel holds.
    ///
    /// # Errors
    /// When the socket refuses an option.
    pub fn bound(&self, sizing: &Sizing) -> io::Result<()> {
        let (socket, send_buffer, unsent) = (&self.socket, sizing.send_buffer, sizing.unsent);
        match &self.shared {
            Some(shared) => shared.bound(socket, send_buffer, unsent),
            None => net::bound_queue(socket, send_buffer, unsent),
        }
    }

    /// Writes the queue. `true`: it is empty; `false`: the socket takes no more, or it is another's turn.
    ///
    /// # Errors
    /// Those of the socket, but for one that would block.
    pub fn flush(&mut self, bytes: &mut Vec<u8>, metrics: &Metrics) -> io::Result<bool> {
        if self.out.is_empty() {
            if let Some(shared) = &self.shared {
                shared.withdraw();
            }
            return Ok(true);
        }
        if let Some(shared) = &self.shared
            && !shared.begin()
        {
            return Ok(false);
        }
        let is_empty = self.write(bytes, metrics)?;
        if let Some(shared) = &self.shared
            && !self.out.has_begun()
        {
            shared.end();
        }
        Ok(is_empty)
    }

    fn write(&mut self, bytes: &mut Vec<u8>, metrics: &Metrics) -> io::Result<bool> {
        while !self.out.is_empty() {
            bytes.clear();
            // Others may wait for the message's end.
            let limit = match &self.shared {
                Some(_) => self.out.rest_of_first().min(WRITE_BYTES),
                None => WRITE_BYTES,
            };
            self.out.fill(limit, bytes);
            match self.socket.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.consume(written, metrics);
                    let more = !self.out.is_empty() && !self.out.has_begun();
                    if more && self.shared.as_ref().is_some_and(turns::Writer::give_way) {
                        return Ok(false);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.pin();
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// The first `written` bytes of the queue were written by somebody else, and the socket took no more.
    pub fn was_written(&mut self, written: usize, metrics: &Metrics) {
        self.consume(written, metrics);
        self.pin();
    }

    /// Takes written bytes off the front of the queue.
    fn consume(&mut self, mut written: usize, metrics: &Metrics) {
        metrics.playback_bytes.inc_by(written as u64);
        if let Some(shared) = &self.shared {
            shared.wrote(written);
        }
        while let Some(part) = self.out.consume(written) {
            written -= part.bytes;
            self.backlog.wrote(part.bytes, part.time);
            if part.whole_message {
                metrics.playback_messages.inc();
            }
        }
    }

    /// The socket took less than it was offered.
    fn pin(&mut self) {
        if self.socket.is_encrypted() {
            self.out.pin();
        }
    }

    /// From now on the player is written what its loop writes.
    pub fn follow(&mut self, line: &Ledger) {
        self.backlog.follow(line);
    }

    /// From now on the player is written by itself.
    pub fn leave(&mut self, line: &Ledger) {
        let unacknowledged = net::unacknowledged(&self.socket).unwrap_or(usize::MAX);
        self.backlog.leave(unacknowledged, line);
    }

    /// Asks the kernel how far the peer is, at the price of a system call.
    pub fn look(&mut self, line: &Ledger, now: Instant) -> Heard {
        // A socket that is none any more fails at the next write, with its cause.
        let in_all = net::unacknowledged(&self.socket).unwrap_or(0);
        let shared = self.shared.as_ref();
        let unacknowledged = shared.map_or(in_all, |shared| shared.unacknowledged(in_all));
        let total = self.backlog.total(line);
        let acknowledged = total.saturating_sub(unacknowledged as u64);
        let progress =
            acknowledged > self.acknowledged || (unacknowledged == 0 && self.out.is_empty());
        self.acknowledged = acknowledged;
        if unacknowledged == 0 {
            self.drained = Some(now);
        }
        Heard {
            unacknowledged,
            time: self.backlog.acknowledged(unacknowledged, line),
            progress,
        }
    }

    /// Bytes written in all.
    pub fn total(&self, line: &Ledger) -> u64 {
        self.backlog.total(line)
    }

    /// What the bytes are worth that the peer has yet to acknowledge, for a message of `dts` behind them: the media time
    /// that they span, or less where the reader skipped, then what the stream takes for so many; and no more than the
    /// time since there were none.
    pub fn on_the_way(
        &self,
        dts: MediaTime,
        heard: Heard,
        sizing: &Sizing,
        now: Instant,
    ) -> Duration {
        let span = heard.time.map_or(Duration::ZERO, |time| dts.since(time));
        let since_drained = self
            .drained
            .map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        span.min(sizing.time_of(heard.unacknowledged))
            .min(since_drained)
    }
}
