//! Threads on which writer loops sit: as many as there are cores, opened as they are needed.
//!
//! A loop is woken by every message of its feed and has up to thousands of writes to do; on threads of their own loops are
//! neither handed about nor kept waiting behind what strangers make the rest of the server do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tracing::warn;

use crate::net::{Precedence, Worker};

/// The threads. Dropping them ends them, and the loops there.
#[derive(Debug)]
pub struct Desks {
    desks: Mutex<Vec<Desk>>,
    most: usize,
    precedence: Precedence,
}

#[derive(Debug)]
struct Desk {
    worker: Worker,
    loops: Arc<AtomicUsize>,
}

/// A loop's place at a desk, given back when dropped.
#[derive(Debug)]
pub struct Seat {
    desk: usize,
    runtime: Handle,
    loops: Arc<AtomicUsize>,
}

impl Desks {
    /// `most` of them, that is one for each core.
    pub fn new(most: usize, precedence: Precedence) -> Self {
        Self {
            desks: Mutex::default(),
            most,
            precedence,
        }
    }

    /// A seat where there are fewest loops, and at none of the `occupied` desks if that can be: loops of one feed are made
    /// to share its work among cores. `None` when there is no thread to be had: a loop also runs elsewhere.
    pub fn sit(&self, occupied: &[usize]) -> Option<Seat> {
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        let burden = |(at, desk): &(usize, &Desk)| {
            let siblings = occupied.iter().filter(|o| *o == at).count();
            (siblings, desk.loops.load(Ordering::Relaxed))
        };
        let least = desks.iter().enumerate().min_by_key(burden);
        let free = least.filter(|least| burden(least) == (0, 0));
        let mut at = free.or(least).map(|(at, _)| at);
        if free.is_none() && desks.len() < self.most {
            match Worker::open("linkmic-writer", self.precedence) {
                Ok(worker) => {
                    at = Some(desks.len());
                    desks.push(Desk {
                        worker,
                        loops: Arc::default(),
                    });
                }
                Err(error) => warn!(%error, "no thread for players"),
            }
        }
        let desk = at?;
        let Desk { worker, loops } = &desks[desk];
        loops.fetch_add(1, Ordering::Relaxed);
        Some(Seat {
            desk,
            runtime: worker.runtime().clone(),
            loops: loops.clone(),
        })
    }

    /// The runtimes of those that are open.
    pub fn runtimes(&self) -> Vec<Handle> {
        let desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        desks
            .iter()
            .map(|desk| desk.worker.runtime().clone())
            .collect()
    }

    /// Ends the threads, and every loop in the midst of its work and without a word, as a panic would.
    #[cfg(test)]
    pub fn clear(&self) {
        self.desks.lock().unwrap().clear();
    }
}

impl Seat {
    pub fn desk(&self) -> usize {
        self.desk
    }

    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.loops.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_spread_over_the_desks_and_siblings_sit_apart() {
        let desks = Desks::new(2, Precedence::default());
        let first = desks.sit(&[]).unwrap();
        let other = desks.sit(&[]).unwrap();
        assert_eq!((first.desk(), other.desk()), (0, 1));
        let third = desks.sit(&[]).unwrap();
        assert_eq!(third.desk(), 0);
        // Fewer loops are at the other desk, but a sibling is among them.
        let sibling = desks.sit(&[1]).unwrap();
        assert_eq!(sibling.desk(), 0);
        drop((first, third, sibling));
        assert_eq!(desks.sit(&[]).unwrap().desk(), 0, "seats are given back");
        assert_eq!(desks.desks.lock().unwrap().len(), 2);
    }
}
