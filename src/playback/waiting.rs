//! Players that came before their publisher: counted per name, per address and in total, so that asking
//! for streams that do not exist costs nothing lasting.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::media::StreamKey;
use crate::net::Block;
use crate::reason::Reason;

/// Bounds of the waiting room.
#[derive(Debug, Clone)]
pub struct Limits {
    pub per_name: usize,
    pub per_address: usize,
    pub total: usize,
    /// How long a player waits for its publisher.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_name: 50,
            per_address: 20,
            total: 1_000,
            patience: Duration::from_secs(10),
        }
    }
}

/// Which bound was reached; the words a refused player hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("{0} players already wait for this stream")]
    Name(usize),
    #[error("{0} players from your address already wait")]
    Address(usize),
    #[error("{0} players already wait on this server")]
    Total(usize),
}

impl Full {
    /// The configuration's word for the bound, for metrics.
    pub const fn limit(self) -> &'static str {
        match self {
            Full::Name(_) => "waiting_per_name",
            Full::Address(_) => "waiting_per_address",
            Full::Total(_) => "waiting_total",
        }
    }
}

/// How a wait ended without the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Waited {
    /// The player left or broke off.
    Gone(Reason),
    /// The player must be told why.
    Refused(String, Reason),
}

impl Waited {
    /// The server goes down.
    pub fn going_down() -> Self {
        Self::Refused("the server is going down".to_owned(), Reason::Shutdown)
    }
}

impl From<Full> for Waited {
    fn from(full: Full) -> Self {
        Self::Refused(full.to_string(), Reason::LimitReached)
    }
}

/// The counts.
#[derive(Debug)]
pub struct Room {
    limits: Limits,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    names: HashMap<StreamKey, usize>,
    addresses: HashMap<Block, usize>,
    total: usize,
}

/// A place in the room, given back when dropped.
#[derive(Debug)]
pub struct Place {
    counts: Arc<Mutex<Counts>>,
    name: StreamKey,
    address: Block,
}

impl Room {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            counts: Arc::default(),
        }
    }

    pub fn patience(&self) -> Duration {
        self.limits.patience
    }

    /// What a player hears for whom nobody came.
    pub fn in_vain(&self) -> Waited {
        let waited = self.limits.patience.as_secs();
        let why = format!("nobody publishes this stream; waited {waited} s");
        Waited::Refused(why, Reason::NotFound)
    }

    /// Takes a place.
    ///
    /// # Errors
    /// Which bound is reached.
    pub fn enter(&self, name: &StreamKey, address: IpAddr) -> Result<Place, Full> {
        let address = Block::from(address);
        let mut counts = self.counts.lock().unwrap_or_else(|e| e.into_inner());
        let of = |n: Option<&usize>| n.copied().unwrap_or(0);
        if of(counts.names.get(name)) >= self.limits.per_name {
            return Err(Full::Name(self.limits.per_name));
        }
        if of(counts.addresses.get(&address)) >= self.limits.per_address {
            return Err(Full::Address(self.limits.per_address));
        }
        if counts.total >= self.limits.total {
            return Err(Full::Total(self.limits.total));
        }
        *counts.names.entry(name.clone()).or_default() += 1;
        *counts.addresses.entry(address).or_default() += 1;
        counts.total += 1;
        Ok(Place {
            counts: self.counts.clone(),
            name: name.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(|e| e.into_inner());
        release(&mut counts.names, &self.name);
        release(&mut counts.addresses, &self.address);
        counts.total -= 1;
    }
}

/// One less; an entry at zero goes, or the map would remember every name ever asked for.
fn release<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(n) = counts.get_mut(key) {
        *n -= 1;
        if *n == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> StreamKey {
        StreamKey::new("live", &format!("s{n}")).unwrap()
    }

    fn address(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    #[test]
    fn each_bound_refuses_by_itself_and_a_leaver_makes_room() {
        let room = Room::new(Limits {
            per_name: 2,
            per_address: 3,
            total: 5,
            patience: Duration::ZERO,
        });
        let a = room.enter(&key(1), address(1)).unwrap();
        let _b = room.enter(&key(1), address(2)).unwrap();
        assert_eq!(room.enter(&key(1), address(3)).unwrap_err(), Full::Name(2));
        let _c = room.enter(&key(2), address(1)).unwrap();
        let _d = room.enter(&key(3), address(1)).unwrap();
        assert_eq!(
            room.enter(&key(4), address(1)).unwrap_err(),
            Full::Address(3)
        );
        let _e = room.enter(&key(4), address(4)).unwrap();
        assert_eq!(room.enter(&key(5), address(5)).unwrap_err(), Full::Total(5));
        drop(a);
        room.enter(&key(1), address(1)).unwrap();
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let room = Room::new(Limits {
            per_address: 2,
            ..Limits::default()
        });
        let enter = |n, address: &str| room.enter(&key(n), address.parse().unwrap());
        let _a = enter(1, "2001:db8:1:2::1").unwrap();
        let _b = enter(2, "2001:db8:1:2:ffff::9").unwrap();
        assert_eq!(
            enter(3, "2001:db8:1:2:a:b:c:d").unwrap_err(),
            Full::Address(2)
        );
        enter(3, "2001:db8:1:3::1").unwrap();
    }

    #[test]
    fn nothing_is_remembered_of_names_that_left() {
        let room = Room::new(Limits::default());
        for n in 0..1_000 {
            room.enter(&key(n), address(1)).unwrap();
        }
        let counts = room.counts.lock().unwrap();
        assert!(counts.names.is_empty() && counts.addresses.is_empty() && counts.total == 0);
    }
}
