//! Waiting for many sockets in one thread: edge-triggered epoll, addressed by slot.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// Sockets told of in one turn: the rest come in the next.
const TURN: usize = 1024;

/// What happened to which slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub slot: usize,
    /// Something may be written, or connecting is over. Reading is always worth a try.
    pub writable: bool,
    /// The other end has closed; there may be bytes before that.
    pub ended: bool,
}

pub(super) struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(TURN),
        })
    }

    /// Watches a socket until it is closed.
    pub fn add(&self, slot: usize, socket: impl AsFd) -> io::Result<()> {
        let data = epoll::EventData::new_u64(slot as u64);
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, data, flags)?)
    }

    /// What has happened, at the latest after `limit`, rounded up to milliseconds.
    pub fn wait(&mut self, limit: Duration) -> io::Result<impl Iterator<Item = Ready> + '_> {
        let milliseconds = limit.as_nanos().div_ceil(1_000_000).min(60_000) as i64;
        let limit = Timespec {
            tv_sec: milliseconds / 1000,
            tv_nsec: milliseconds % 1000 * 1_000_000,
        };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.events.iter().map(|event| {
            let flags = event.flags;
            Ready {
                slot: event.data.u64() as usize,
                writable: flags.intersects(epoll::EventFlags::OUT | epoll::EventFlags::ERR),
                ended: flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP),
            }
        }))
    }
}
