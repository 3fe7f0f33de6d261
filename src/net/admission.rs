//! How many connections there may be: in total, and from one client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Block;

/// Bounds on connections; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// At a time, whatever they do.
    pub connections: usize,
    /// At a time from one address (IPv6: from one /64).
    pub per_address: usize,
}

impl Default for Bounds {
    /// Those of config/linkmic.toml.
    fn default() -> Self {
        Self {
            connections: 10_000,
            per_address: 5_000,
        }
    }
}

/// Which bound was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("{0} connections are open, as many as there may be")]
    Total(usize),
    #[error("{limit} connections from {block} are open, as many as there may be from one address")]
    Address { block: Block, limit: usize },
}

/// Counts connections. Clones share the counts, so that several listeners keep one bound.
#[derive(Debug, Clone)]
pub struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connections: AtomicUsize,
    per_address: AtomicUsize,
    open: AtomicUsize,
    blocks: Mutex<HashMap<Block, usize>>,
    refused: [AtomicU64; 2],
}

/// A connection's place, given back when dropped.
#[derive(Debug)]
pub struct Pass {
    shared: Arc<Shared>,
    block: Option<Block>,
}

impl Admission {
    pub fn new(bounds: Bounds) -> Self {
        let admission = Self {
            shared: Arc::new(Shared {
                connections: AtomicUsize::new(0),
                per_address: AtomicUsize::new(0),
                open: AtomicUsize::new(0),
                blocks: Mutex::default(),
                refused: Default::default(),
            }),
        };
        admission.bound(bounds);
        admission
    }

    /// Other bounds from now on. Connections that are open stay.
    pub fn bound(&self, bounds: Bounds) {
        let Bounds {
            connections,
            per_address,
        } = bounds;
        self.shared
            .connections
            .store(connections, Ordering::Relaxed);
        self.shared
            .per_address
            .store(per_address, Ordering::Relaxed);
    }

    /// A place for a connection that was just accepted, before it is known whom it comes from.
    ///
    /// # Errors
    /// [`Full::Total`].
    pub fn enter(&self) -> Result<Pass, Full> {
        let limit = self.shared.connections.load(Ordering::Relaxed);
        let before = self.shared.open.fetch_add(1, Ordering::Relaxed);
        if limit > 0 && before >= limit {
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
            self.shared.refused[0].fetch_add(1, Ordering::Relaxed);
            return Err(Full::Total(limit));
        }
        Ok(Pass {
            shared: self.shared.clone(),
            block: None,
        })
    }

    /// Connections that have a place.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// As many as there may be; 0: any number.
    pub fn most(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Refusals since the start: for the total, and for one address.
    pub fn refused(&self) -> [u64; 2] {
        [0, 1].map(|at| self.shared.refused[at].load(Ordering::Relaxed))
    }
}

impl Pass {
    /// Says whom the connection comes from: the client's own address, also behind a proxy. Once per connection; said
    /// again, the new address counts instead.
    ///
    /// # Errors
    /// [`Full::Address`]; the connection then counts for no address.
    pub fn come_from(&mut self, address: IpAddr) -> Result<(), Full> {
        self.leave_block();
        let block = Block::from(address);
        let limit = self.shared.per_address.load(Ordering::Relaxed);
        let mut blocks = self.shared.lock();
        let count = blocks.entry(block).or_default();
        if limit > 0 && *count >= limit {
            drop(blocks);
            self.shared.refused[1].fetch_add(1, Ordering::Relaxed);
            return Err(Full::Address { block, limit });
        }
        *count += 1;
        self.block = Some(block);
        Ok(())
    }

    fn leave_block(&mut self) {
        let Some(block) = self.block.take() else {
            return;
        };
        let mut blocks = self.shared.lock();
        if let Some(count) = blocks.get_mut(&block) {
            *count -= 1;
            if *count == 0 {
                blocks.remove(&block);
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.leave_block();
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Block, usize>> {
        // Counts are right after every statement.
        self.blocks.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(connections: usize, per_address: usize) -> Admission {
        Admission::new(Bounds {
            connections,
            per_address,
        })
    }

    fn from(admission: &Admission, address: &str) -> Result<Pass, Full> {
        let mut pass = admission.enter()?;
        pass.come_from(address.parse().unwrap())?;
        Ok(pass)
    }

    #[test]
    fn there_are_as_many_connections_as_there_may_be() {
        let door = admission(2, 0);
        let _first = door.enter().unwrap();
        let second = door.enter().unwrap();
        assert_eq!(door.enter().unwrap_err(), Full::Total(2));
        drop(second);
        assert!(door.enter().is_ok());
        assert_eq!((door.open(), door.refused()), (1, [1, 0]));
    }

    #[test]
    fn one_address_does_not_take_the_places_of_others() {
        let door = admission(0, 2);
        let _first = from(&door, "192.0.2.1").unwrap();
        let second = from(&door, "192.0.2.1").unwrap();
        let refused = from(&door, "192.0.2.1").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "2 connections from 192.0.2.1 are open, as many as there may be from one address"
        );
        let _other = from(&door, "192.0.2.2").unwrap();
        drop(second);
        assert!(from(&door, "192.0.2.1").is_ok());
        assert_eq!((door.open(), door.refused()), (2, [0, 1]));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let door = admission(0, 1);
        let _one = from(&door, "2001:db8::1").unwrap();
        assert!(from(&door, "2001:db8::2").is_err());
        assert!(from(&door, "2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn new_bounds_hold_from_then_on_and_nothing_is_kept_of_clients_that_left() {
        let door = admission(1, 1);
        let first = from(&door, "192.0.2.1").unwrap();
        door.bound(Bounds {
            connections: 0,
            per_address: 0,
        });
        let many: Vec<_> = (0..100)
            .map(|_| from(&door, "192.0.2.1").unwrap())
            .collect();
        drop((first, many));
        assert_eq!(door.open(), 0);
        assert!(door.shared.lock().is_empty());
    }
}
