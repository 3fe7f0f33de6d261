//! Threads that read publishers: few, so that what has come on many sockets is taken in one turn.
//!
//! A lane is a [`Worker`], where nothing is handed from thread to thread. Connections come here when they begin to publish, and only
//! those; a second lane opens when the first has enough to do.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::runtime::Handle;
use tracing::warn;

use crate::net::{Precedence, Worker};

/// Publishers in a lane before another is opened: at 2 Mbit/s each that is a tenth of a core.
const COMFORTABLE: usize = 128;

/// The lanes, opened as they are needed: one for each core at most. Dropping them ends their threads.
#[derive(Debug)]
pub struct Lanes {
    lanes: Mutex<Vec<Lane>>,
    most: usize,
    precedence: Precedence,
}

#[derive(Debug)]
struct Lane {
    worker: Worker,
    users: Arc<AtomicUsize>,
}

/// A publisher's place in a lane, given back when dropped.
#[derive(Debug)]
pub struct Place {
    runtime: Handle,
    users: Arc<AtomicUsize>,
}

impl Lanes {
    pub fn new(precedence: Precedence) -> Self {
        Self {
            lanes: Mutex::default(),
            most: thread::available_parallelism().map_or(1, usize::from),
            precedence,
        }
    }

    /// A place in the first lane that has room, else where there are fewest. `None` when there is no thread to be had:
    /// publishing works without.
    pub fn enter(&self) -> Option<Place> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let users = |lane: &Lane| lane.users.load(Ordering::Relaxed);
        let roomy = lanes.iter().position(|lane| users(lane) < COMFORTABLE);
        let at = match roomy {
            Some(at) => at,
            None if lanes.len() < self.most => match Lane::open(self.precedence) {
                Ok(lane) => {
                    lanes.push(lane);
                    lanes.len() - 1
                }
                Err(error) => {
                    warn!(%error, "no thread for publishers");
                    return None;
                }
            },
            None => (0..lanes.len()).min_by_key(|at| users(&lanes[*at]))?,
        };
        let Lane { worker, users } = &lanes[at];
        // Counted under the lock, so that no two take the same room.
        users.fetch_add(1, Ordering::Relaxed);
        Some(Place {
            runtime: worker.runtime().clone(),
            users: users.clone(),
        })
    }
}

impl Lanes {
    /// The runtimes of those that are open.
    pub fn runtimes(&self) -> Vec<Handle> {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes
            .iter()
            .map(|lane| lane.worker.runtime().clone())
            .collect()
    }
}

impl Lane {
    fn open(precedence: Precedence) -> io::Result<Self> {
        Ok(Self {
            worker: Worker::open("linkmic-lane", precedence)?,
            users: Arc::default(),
        })
    }
}

impl Place {
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.users.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_second_lane_opens_when_the_first_is_full_and_places_are_given_back() {
        let lanes = Lanes {
            most: 2,
            ..Lanes::new(Precedence::default())
        };
        let counts = || -> Vec<usize> {
            let lanes = lanes.lanes.lock().unwrap();
            lanes
                .iter()
                .map(|l| l.users.load(Ordering::Relaxed))
                .collect()
        };
        let mut places: Vec<_> = (0..COMFORTABLE).map(|_| lanes.enter().unwrap()).collect();
        assert_eq!(counts(), [COMFORTABLE]);
        places.extend((0..COMFORTABLE + 2).map(|_| lanes.enter().unwrap()));
        assert_eq!(counts(), [COMFORTABLE + 1, COMFORTABLE + 1]);
        places.truncate(1);
        places.push(lanes.enter().unwrap());
        assert_eq!(counts(), [2, 0]);
    }

    #[test]
    fn a_lane_serves_until_the_lanes_are_gone() {
        let lanes = Lanes::new(Precedence::default());
        let place = lanes.enter().unwrap();
        let name = place
            .runtime()
            .spawn(async { thread::current().name().map(str::to_owned) });
        let waiting = place.runtime().spawn(std::future::pending::<()>());
        let here = Builder::new_current_thread().build().unwrap();
        assert_eq!(
            here.block_on(name).unwrap().as_deref(),
            Some("linkmic-lane")
        );
        drop(lanes);
        assert!(here.block_on(waiting).unwrap_err().is_cancelled());
    }
}
