//! What may last no longer than until a deadline: looking a name up, connecting, and all that is read and written.
//!
//! Called by [`fetch`](super). TLS reads and writes as often as it likes within one call of ours, and looking up knows
//! no deadline at all: so each single call on the socket has what time is left, and names are looked up on threads that
//! are left to themselves when they take too long.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Names that are being looked up at once, those that nobody waits for any more included: a resolver whose servers are
/// silent gives up after half a minute, on a thread of some 20 KB.
pub const MAX_LOOK_UPS: usize = 16;

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// A connection on which nothing lasts beyond its deadline: then reading and writing fail with `TimedOut` or `WouldBlock`.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    deadline: Instant,
}

impl Socket {
    /// Connects to that address, by then.
    pub fn connect(address: &SocketAddr, deadline: Instant) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(address, left(deadline)?)?;
        Ok(Self { stream, deadline })
    }
}

impl Read for Socket {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.deadline)?))?;
        self.stream.read(to)
    }
}

impl Write for Socket {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.deadline)?))?;
        self.stream.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// How many names are being looked up.
#[derive(Debug)]
pub struct LookUps(AtomicUsize);

impl LookUps {
    pub const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// The addresses of that name.
    ///
    /// # Errors
    /// `TimedOut` when it takes until the deadline, `QuotaExceeded` when too many are being looked up, else what the
    /// resolver says.
    pub fn look_up(
        &'static self,
        name: &str,
        port: u16,
        deadline: Instant,
    ) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let name = name.to_owned();
        self.by(deadline, move || {
            Ok((name.as_str(), port).to_socket_addrs()?.collect())
        })
    }

    /// What `work` gives, if it does so by the deadline.
    fn by<T: Send + 'static>(
        &'static self,
        deadline: Instant,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let time = left(deadline)?;
        let place = Place::take(&self.0).ok_or(ErrorKind::QuotaExceeded)?;
        let (done, result) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("look-up".into())
            .spawn(move || {
                let found = work();
                drop(place);
                // Nobody may be waiting any more.
                let _ = done.try_send(found);
            })?;
        result.recv_timeout(time).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => ErrorKind::TimedOut.into(),
                RecvTimeoutError::Disconnected => io::Error::other("the look-up panicked"),
            })
        })
    }
}

/// One of the places; free again when dropped.
struct Place(&'static AtomicUsize);

impl Place {
    fn take(taken: &'static AtomicUsize) -> Option<Self> {
        let one_more = |taken| (taken < MAX_LOOK_UPS).then_some(taken + 1);
        taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .ok()?;
        Some(Self(taken))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_that_hangs_is_left_and_only_so_many_may() {
        static OWN: LookUps = LookUps::new();
        let soon = || Instant::now() + Duration::from_millis(20);
        let later = || Instant::now() + Duration::from_secs(10);
        let mut hung = Vec::new();
        for n in 0..MAX_LOOK_UPS {
            assert_eq!(OWN.by(later(), || Ok(1)).unwrap(), 1, "{n} hang");
            let (free, hang) = mpsc::channel::<()>();
            let found = OWN.by(soon(), move || {
                let _ = hang.recv();
                Ok(())
            });
            assert_eq!(found.unwrap_err().kind(), ErrorKind::TimedOut);
            hung.push(free);
        }
        let refused = OWN.by(later(), || Ok(())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::QuotaExceeded);
        // An address needs no resolver.
        let found = OWN.look_up("::1", 80, later()).unwrap();
        assert_eq!(found, ["[::1]:80".parse().unwrap()]);
        hung.pop();
        let freed = || OWN.by(later(), || Ok(())).is_ok();
        let deadline = later();
        while !freed() {
            assert!(Instant::now() < deadline, "its place is free again");
            std::thread::yield_now();
        }
    }
}
