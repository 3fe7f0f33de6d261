//! A writer loop: one task that serves a share of one feed's players.
//!
//! Its players are of two kinds. *Followers* have taken everything up to the loop's own cursor: they stand in a
//! compact list, and a batch is one plain write of the same bytes to each, with no look at cursor, pace or queue.
//! *Stragglers* work through a queue of their own from a cursor of their own, judged by their pace: joiners, readers
//! that skip, readers whose socket took less than all. A follower that takes less than a whole batch becomes a
//! straggler with the rest of the batch as its queue; a straggler that has nothing left to write and stands at the
//! loop's cursor becomes a follower. No straggler reads past the loop's cursor, so that it can meet the loop there.
//! Only a straggler whose socket would block waits for it to be writable.
//!
//! A panic while one player is served ends that player, not the loop: all that concerns one goes through
//! [`Writer::serve`].

mod check;
mod command;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

pub use command::Command;

use super::ClassConfig;
use super::backlog::Ledger;
use super::departure::Departure;
use super::reader::{BATCH, Farewell, Reader, Scratch, Surroundings, Turn};
use super::roster::{Place, Roster};
use super::sizing::Sizing;
use crate::metrics::Metrics;
use crate::net::turns::Turns;
use crate::net::{self, Socket};
use crate::reason::Reason;
use crate::relay::{Framing, Item, Read, Subscriber};

/// After this a reader is looked at again that waits for acknowledgements and has got some: half a frame interval.
const RETRY: Duration = Duration::from_millis(15);
/// What a loop keeps of the room in which it lays out a batch: enough for all but the largest key frames.
const KEPT_BYTES: usize = 256 << 10;

/// Followers whose sockets are looked up in one sweep before the first of them is written to: between two writes the
/// kernel throws everything out of the caches, and a look-up by itself then costs 0.4 us of a 7 us write.
const SWEEP: usize = 64;

/// Writing to a player panicked, and what of it went out nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("writing panicked")]
struct Panicked;

/// A player to wait for.
struct Wait {
    id: u64,
    socket: Arc<Socket>,
    /// Where others write to the socket, too.
    turns: Option<Arc<Turns>>,
    /// The player is let go of meanwhile.
    gone: oneshot::Receiver<Farewell>,
}

type Waiting = Vec<Wait>;

/// The loop's state. Runs until it has no players left and its owner agrees.
pub struct Writer {
    tail: Subscriber,
    framing: Framing,
    class: ClassConfig,
    commands: mpsc::Receiver<Command>,
    metrics: Arc<Metrics>,
    roster: Roster,
    scratch: Scratch,
    /// What was read and waits for its departure.
    batch: Vec<Arc<Item>>,
    /// A batch as it goes over the wire.
    wire: Vec<u8>,
    /// The loop's cursor: that of the first item in `batch`, or of the next one when it is empty.
    begin: u64,
    /// What was written to the followers.
    line: Ledger,
    /// What each socket may hold.
    sizing: Sizing,
    /// When to look at readers again that wait for acknowledgements.
    retry: Option<Instant>,
    /// When the batch goes at the latest.
    due: Option<Instant>,
    departure: Departure,
}

impl Writer {
    pub fn new(
        tail: Subscriber,
        framing: Framing,
        class: ClassConfig,
        commands: mpsc::Receiver<Command>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            begin: tail.cursor(),
            line: Ledger::of_a_loop(),
            sizing: Sizing::of(tail.byte_rate(), &class.budget),
            retry: None,
            tail,
            framing,
            departure: Departure::new(class.merge_window),
            class,
            commands,
            metrics,
            roster: Roster::default(),
            scratch: Scratch::default(),
            batch: Vec::with_capacity(BATCH),
            wire: Vec::new(),
            due: None,
        }
    }

    /// Serves until there is nobody left; `retire` is asked then and answers whether the loop may go
    /// (nobody can send to it any more) or must look at its commands again.
    pub async fn run(mut self, retire: impl Fn() -> bool) {
        let mut blocked = FuturesUnordered::new();
        let mut check = tokio::time::interval(Duration::from_secs(1));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut waiting = Waiting::new();
            let due = self.due;
            let retry = self.retry;
            let idle = due.is_some() && self.departure.is_windowed();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command, &mut waiting),
                    None => return,
                },
                () = self.tail.ready(), if !idle => self.receive(&mut waiting),
                () = sleep_until(due) => self.depart(&mut waiting),
                () = sleep_until(retry) => self.retry(&mut waiting),
                Some(id) = blocked.next(), if !blocked.is_empty() => self.unblock(id, &mut waiting),
                _ = check.tick() => self.check(&mut waiting),
            }
            blocked.extend(waiting.into_iter().map(writable));
            let is_empty = self.roster.is_empty() && blocked.is_empty();
            if is_empty && self.commands.is_empty() && retire() {
                return;
            }
        }
    }

    /// Does what concerns one player only. A panic meanwhile is a mistake of ours, and ends that player.
    fn serve(&mut self, id: u64, serve: impl FnOnce(&mut Self)) {
        if net::contained("serving a player", || serve(self)).is_none() {
            self.give_up(id);
        }
    }

    /// Lets go of a player whose state may be half changed.
    fn give_up(&mut self, id: u64) {
        self.scratch = Scratch::default();
        let reader = match self.roster.find(id) {
            Some(Place::Follower(place)) => self.roster.take_follower(place),
            Some(Place::Straggler(place)) => self.roster.take_straggler(place),
            // It was on its way from one list to the other, and is gone.
            None => return,
        };
        // What it holds may be what panics.
        net::contained("letting go of a player", || {
            self.dismiss(*reader, Reason::Internal);
        });
    }

    /// New messages: one read for all. They may have to wait.
    fn receive(&mut self, waiting: &mut Waiting) {
        let reception = self.tail.try_read(BATCH, &mut self.batch);
        let whole = reception.read == Read::Upto && reception.ended.is_none();
        if whole && let Some(wait) = self.departure.wait(&self.batch) {
            self.due.get_or_insert_with(|| Instant::now() + wait);
            return;
        }
        self.deliver(whole, waiting);
    }

    /// The batch has waited long enough.
    fn depart(&mut self, waiting: &mut Waiting) {
        let mut whole = true;
        if self.departure.is_windowed() {
            // Nothing was read since the window began.
            let reception = self.tail.try_read(BATCH, &mut self.batch);
            whole = reception.read == Read::Upto && reception.ended.is_none();
        }
        self.deliver(whole, waiting);
    }

    /// Writes the batch: one write for each follower. Not `whole`: something ended or was lost on the way, and each
    /// player looks for itself.
    fn deliver(&mut self, whole: bool, waiting: &mut Waiting) {
        let now = Instant::now();
        self.due = None;
        let mut batch = std::mem::take(&mut self.batch);
        let from = std::mem::replace(&mut self.begin, self.tail.cursor());
        let span = match (batch.first(), batch.last()) {
            (Some(first), Some(last)) => last.message().dts.since(first.message().dts),
            _ => Duration::ZERO,
        };
        if whole && span <= self.class.budget.max_lag {
            self.lead(&batch, now);
        } else {
            for place in (0..self.roster.followers().len()).rev() {
                let id = self.roster.follower(place).id;
                self.serve(id, |writer| {
                    writer.fall_out(place, from, now);
                });
            }
        }
        // Backwards, because a straggler that goes is replaced by the last one.
        for place in (0..self.roster.stragglers()).rev() {
            let reader = self.roster.straggler(place);
            if !reader.is_blocked() {
                let id = reader.id;
                self.serve(id, |writer| {
                    writer.roster.straggler(place).meet(from, now);
                    writer.pump(place, now, waiting);
                });
            }
        }
        // Its room is used again; the items go.
        batch.clear();
        self.batch = batch;
    }

    /// The same bytes to every follower.
    fn lead(&mut self, batch: &[Arc<Item>], now: Instant) {
        if self.roster.followers().is_empty() || batch.is_empty() {
            return;
        }
        let mut wire = std::mem::take(&mut self.wire);
        wire.clear();
        for item in batch {
            item.write_in(self.framing, 0, usize::MAX, &mut wire);
        }
        let mut served = 0;
        // Backwards: whoever falls out is replaced by one that was served, and comes back behind.
        let mut end = self.roster.followers().len();
        while end > 0 {
            let begin = end.saturating_sub(SWEEP);
            let mut short = Vec::new();
            {
                let mut lines = [const { None }; SWEEP];
                let sweep = &self.roster.followers()[begin..end];
                for (line, follower) in lines.iter_mut().zip(sweep) {
                    *line = follower.socket.direct();
                }
                for (place, line) in lines[..sweep.len()].iter().enumerate().rev() {
                    let sent = match line {
                        Some(direct) => direct.send(&wire),
                        // More than a system call: encryption is somebody's code.
                        None => net::contained("writing to a player", || {
                            sweep[place].socket.try_write(&wire)
                        })
                        .unwrap_or_else(|| Err(io::Error::other(Panicked))),
                    };
                    match sent {
                        Ok(written) if written == wire.len() => served += 1,
                        sent => short.push((begin + place, sent)),
                    }
                }
            }
            for (place, sent) in short {
                let id = self.roster.follower(place).id;
                self.serve(id, |writer| writer.part(place, sent, batch, now));
            }
            end = begin;
        }
        // Behind all writes: whoever fell out in between was not written it as a follower.
        if let Some(newest) = batch.last() {
            self.line.wrote_batch(wire.len(), newest.message().dts);
        }
        let (bytes, messages) = (wire.len() as u64, batch.len() as u64);
        self.metrics.playback_bytes.inc_by(served * bytes);
        self.metrics.playback_messages.inc_by(served * messages);
        wire.shrink_to(KEPT_BYTES);
        self.wire = wire;
    }

    /// A follower did not take the whole batch.
    fn part(&mut self, place: usize, sent: io::Result<usize>, batch: &[Arc<Item>], now: Instant) {
        let written = match sent {
            Ok(written) => written,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(e) => {
                let reader = self.roster.take_follower(place);
                let panicked = e.get_ref().is_some_and(|e| e.is::<Panicked>());
                let reason = if panicked {
                    Reason::Internal
                } else {
                    Reason::SocketError
                };
                self.dismiss(*reader, reason);
                return;
            }
        };
        let place = self.fall_out(place, self.begin, now);
        // Its turn among the stragglers comes with this batch: only a write through the runtime makes that know that
        // there is something to wait for, and only behind the batch may it follow again.
        self.roster
            .straggler(place)
            .keep_rest(batch, written, &self.metrics);
    }

    fn unblock(&mut self, id: u64, waiting: &mut Waiting) {
        // A blocked reader is a straggler until this wake-up, unless it has left.
        if let Some(Place::Straggler(place)) = self.roster.find(id) {
            self.roster.straggler(place).unblock();
            self.serve(id, |writer| writer.pump(place, Instant::now(), waiting));
        }
    }

    /// Looks at the readers again that wait for acknowledgements.
    fn retry(&mut self, waiting: &mut Waiting) {
        self.retry = None;
        let now = Instant::now();
        for place in (0..self.roster.stragglers()).rev() {
            let reader = self.roster.straggler(place);
            if reader.is_gated() {
                let id = reader.id;
                self.serve(id, |writer| writer.pump(place, now, waiting));
            }
        }
    }

    /// A straggler's turn: it writes what it can, and follows if that was all.
    fn pump(&mut self, place: usize, now: Instant, waiting: &mut Waiting) {
        let reader = self.roster.straggler(place);
        let around = Surroundings {
            upto: self.begin,
            budget: &self.class.budget,
            sizing: &self.sizing,
            line: &self.line,
            metrics: &self.metrics,
            now,
        };
        match reader.pump(&around, &mut self.scratch) {
            Turn::Over(Reason::TooSlow) => self.end(place, Reason::TooSlow, now),
            Turn::Over(reason) => {
                let reader = self.roster.take_straggler(place);
                self.dismiss(*reader, reason);
            }
            // Its wake-up is armed; this turn only noticed that the wait has not been too long.
            _ if reader.is_blocked() => {}
            Turn::Blocked => {
                let gone = reader.block();
                waiting.push(Wait {
                    id: reader.id,
                    socket: reader.socket().clone(),
                    turns: reader.turns(),
                    gone,
                });
            }
            Turn::Gated { soon: true } => {
                self.retry.get_or_insert(now + RETRY);
            }
            // The next batch, or the next check, looks again.
            Turn::Gated { soon: false } => {}
            Turn::Idle if reader.may_follow(self.begin) => {
                let mut reader = self.roster.take_straggler(place);
                reader.follow(&self.line);
                self.roster.follow(reader);
            }
            Turn::Idle => {}
        }
    }

    /// A straggler must go, and may hear why if it takes the words soon.
    fn end(&mut self, place: usize, reason: Reason, now: Instant) {
        let reader = self.roster.straggler(place);
        if reader.is_finishing() || reader.is_leaving() || reader.is_abandoned() {
            let reader = self.roster.take_straggler(place);
            self.dismiss(*reader, reason);
        } else {
            reader.dismiss(reason, now);
        }
    }

    /// Where the player stands among the stragglers, after it has become one if need be.
    fn straggler(&mut self, id: u64, now: Instant) -> Option<usize> {
        match self.roster.find(id)? {
            Place::Follower(place) => Some(self.fall_out(place, self.begin, now)),
            Place::Straggler(place) => Some(place),
        }
    }

    /// Makes a straggler, with its cursor at `cursor`, of a follower.
    fn fall_out(&mut self, place: usize, cursor: u64, now: Instant) -> usize {
        let mut reader = self.roster.take_follower(place);
        reader.followed_to(cursor, &self.line, now);
        self.roster.straggle(reader)
    }

    fn dismiss(&self, mut reader: Reader, reason: Reason) {
        tracing::debug!(stream = %self.tail.key(), class = reader.class().as_str(), %reason, "player left its writer");
        reader.tell(reason);
        reader.release();
    }
}

/// Resolves when a batch is due; never without one.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Resolves when the player may be written to again, or is gone: then nobody holds its socket here before that is said.
async fn writable(wait: Wait) -> u64 {
    let Wait {
        id,
        socket,
        turns,
        gone,
    } = wait;
    let free = async {
        if let Some(turns) = turns {
            turns.until_free(id).await;
        }
        // An error shows again, with its cause, at the next write.
        let _ = socket.writable().await;
    };
    let farewell = tokio::select! {
        // First, or the farewell would be lost.
        biased;
        farewell = gone => farewell.ok(),
        () = free => None,
    };
    if let Some(farewell) = farewell {
        drop(socket);
        farewell.say();
    }
    id
}

#[cfg(test)]
mod tests;
