//! What connections tell their writer loop, and what it does about it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::info::ReaderInfo;
use super::super::reader::{BATCH, Joiner, Reader};
use super::super::roster::Place;
use super::super::wish::Wish;
use super::{Waiting, Writer};
use crate::net::turns::Turns;
use crate::reason::Reason;

/// Control answers that may queue for one player; a client that asks for more without reading is no player.
const MAX_QUEUED: usize = 4 * BATCH;

/// What connections tell their writer loop.
pub enum Command {
    Join(Box<Joiner>),
    /// Bytes of the session, to go between messages.
    Control {
        id: u64,
        bytes: Bytes,
    },
    /// Last words, then the loop lets go of the socket.
    Finish {
        id: u64,
        bytes: Bytes,
    },
    /// The client wants no more of it: what has begun goes to its end, then the loop lets go of the socket.
    Stop {
        id: u64,
    },
    /// The connection is gone.
    Leave {
        id: u64,
    },
    /// The player wants less, or more again.
    Wish {
        id: u64,
        wish: Wish,
    },
    /// Others write to the player's socket from now on.
    Share {
        id: u64,
        turns: Arc<Turns>,
    },
    /// The player must go. Answers whether it was there.
    Kick {
        id: u64,
        answer: oneshot::Sender<bool>,
    },
    /// Answers with all players of the loop.
    Report {
        answer: oneshot::Sender<Vec<ReaderInfo>>,
    },
}

impl Writer {
    pub(super) fn obey(&mut self, command: Command, waiting: &mut Waiting) {
        let id = match &command {
            Command::Join(joiner) => joiner.id,
            Command::Control { id, .. }
            | Command::Finish { id, .. }
            | Command::Stop { id }
            | Command::Leave { id }
            | Command::Wish { id, .. }
            | Command::Share { id, .. }
            | Command::Kick { id, .. } => *id,
            Command::Report { .. } => {
                if let Command::Report { answer } = command {
                    // Whoever asked may have gone.
                    let _ = answer.send(self.report(Instant::now()));
                }
                return;
            }
        };
        self.serve(id, |writer| writer.obey_one(command, waiting));
    }

    fn obey_one(&mut self, command: Command, waiting: &mut Waiting) {
        let now = Instant::now();
        let place = match command {
            Command::Join(joiner) => {
                let reader = Reader::new(*joiner, &self.class.budget, now);
                if let Err(e) = self.prepare(&reader) {
                    tracing::debug!(error = %e, "socket options refused");
                    self.dismiss(reader, Reason::SocketError);
                    return;
                }
                self.roster.straggle(Box::new(reader))
            }
            Command::Control { id, bytes } => {
                let Some(place) = self.straggler(id, now) else {
                    return;
                };
                if self.roster.straggler(place).queued() > MAX_QUEUED {
                    let reader = self.roster.take_straggler(place);
                    self.dismiss(*reader, Reason::TooSlow);
                    return;
                }
                self.roster.straggler(place).control(bytes);
                place
            }
            Command::Finish { id, bytes } => {
                let Some(place) = self.straggler(id, now) else {
                    return;
                };
                self.roster.straggler(place).finish(bytes);
                place
            }
            Command::Stop { id } => {
                let Some(place) = self.straggler(id, now) else {
                    return;
                };
                self.roster.straggler(place).stop();
                // Blocked or not: there may be nothing left that waits for the socket.
                self.pump(place, now, waiting);
                return;
            }
            Command::Wish { id, wish } => {
                let Some(place) = self.straggler(id, now) else {
                    return;
                };
                self.roster.straggler(place).wish(wish);
                place
            }
            Command::Share { id, turns } => {
                let Some(place) = self.straggler(id, now) else {
                    return;
                };
                let reader = self.roster.straggler(place);
                reader.share(&turns, &self.line);
                // A socket that refuses is broken, and shows it with the next write.
                let _ = reader.bound(&self.sizing);
                place
            }
            Command::Kick { id, answer } => {
                let place = self.straggler(id, now);
                // Whoever asked may have gone.
                let _ = answer.send(place.is_some());
                if let Some(place) = place {
                    self.end(place, Reason::Dropped, now);
                }
                return;
            }
            // Concerns all.
            Command::Report { .. } => return,
            Command::Leave { id } => {
                let reader = match self.roster.find(id) {
                    Some(Place::Follower(place)) => self.roster.take_follower(place),
                    Some(Place::Straggler(place))
                        if !self.roster.straggler(place).is_finishing() =>
                    {
                        self.roster.take_straggler(place)
                    }
                    _ => return,
                };
                self.dismiss(*reader, Reason::Disconnected);
                return;
            }
        };
        if !self.roster.straggler(place).is_blocked() {
            self.pump(place, now, waiting);
        }
    }
}
