//! Who publishes and plays now, so that limits can count them and a new ban can show them out.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::bans::{Ban, Who};
use super::{Action, KeyId};
use crate::media::StreamKey;
use crate::net::Block;

/// Everybody who was let in.
#[derive(Debug, Default)]
pub(super) struct Guests {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    guests: HashMap<u64, Guest>,
    next: u64,
    publishers: usize,
    by_block: HashMap<Block, usize>,
}

/// One who was let in.
#[derive(Debug)]
pub(super) struct Guest {
    pub action: Action,
    pub key: StreamKey,
    pub address: IpAddr,
    pub key_id: Option<KeyId>,
    pub end: CancellationToken,
}

impl Guest {
    pub(super) fn who(&self) -> Who<'_> {
        Who {
            action: self.action,
            key: &self.key,
            address: self.address,
            key_id: self.key_id.as_ref(),
        }
    }
}

/// How many a ban ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    pub publishers: usize,
    pub players: usize,
}

/// Which bound on publishers was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crowded {
    Total,
    Address,
}

impl Guests {
    /// Takes somebody in. Bounds are for publishers; 0 is no limit.
    pub(super) fn enter(
        self: &Arc<Self>,
        guest: Guest,
        publishers: usize,
        publishers_per_address: usize,
    ) -> Result<Stay, Crowded> {
        let end = guest.end.clone();
        let mut inner = self.lock();
        if guest.action == Action::Publish {
            let block = Block::from(guest.address);
            let here = inner.by_block.get(&block).copied().unwrap_or(0);
            if publishers > 0 && inner.publishers >= publishers {
                return Err(Crowded::Total);
            }
            if publishers_per_address > 0 && here >= publishers_per_address {
                return Err(Crowded::Address);
            }
            inner.publishers += 1;
            *inner.by_block.entry(block).or_default() += 1;
        }
        let id = inner.next;
        inner.next += 1;
        inner.guests.insert(id, guest);
        Ok(Stay {
            end,
            wait: None,
            place: Some((self.clone(), id)),
        })
    }

    /// Asks everybody whom the ban concerns to go.
    pub(super) fn show_out(&self, ban: &Ban) -> Ended {
        let mut ended = Ended::default();
        for guest in self.lock().guests.values() {
            if !guest.end.is_cancelled() && ban.concerns(&guest.who()) {
                guest.end.cancel();
                match guest.action {
                    Action::Publish => ended.publishers += 1,
                    Action::Play => ended.players += 1,
                }
            }
        }
        ended
    }

    fn leave(&self, id: u64) {
        let mut inner = self.lock();
        let Some(guest) = inner.guests.remove(&id) else {
            return;
        };
        if guest.action == Action::Publish {
            inner.publishers -= 1;
            let block = Block::from(guest.address);
            if let Some(count) = inner.by_block.get_mut(&block) {
                *count -= 1;
                if *count == 0 {
                    inner.by_block.remove(&block);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Counts and map are right whenever the lock is given back.
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A place among those who publish or play, given back when dropped.
#[must_use = "dropping it gives the place back"]
pub struct Stay {
    end: CancellationToken,
    /// Made by the first poll.
    wait: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    place: Option<(Arc<Guests>, u64)>,
}

impl Stay {
    /// A place that nobody counts and nothing ends.
    pub fn unwatched() -> Self {
        Self {
            end: CancellationToken::new(),
            wait: None,
            place: None,
        }
    }

    /// Resolves when whoever holds this is to go, with [`Reason::Banned`](crate::reason::Reason::Banned).
    ///
    /// # Cancel safety
    /// Safe: an end is for ever.
    pub async fn ended(&self) {
        self.end.cancelled().await;
    }

    /// As [`Self::ended`], for who watches several.
    pub fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let end = &self.end;
        let wait = self
            .wait
            .get_or_insert_with(|| Box::pin(end.clone().cancelled_owned()));
        wait.as_mut().poll(context)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if let Some((guests, id)) = self.place.take() {
            guests.leave(id);
        }
    }
}

impl fmt::Debug for Stay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stay")
            .field("ended", &self.end.is_cancelled())
            .finish_non_exhaustive()
    }
}
