//! Listeners that somebody else opened for us: the service manager's (socket activation, as `sd_listen_fds(3)` says), or those
//! that the process before us hands over.
//!
//! Owns the names that they are known by and the environment they are announced in. Refuses to know what is served on them.
//! Called by `server` once, at the start.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// The lists of addresses in the configuration that a listener can stand for: `FileDescriptorName=` in a socket unit.
pub const NAMES: [&str; 6] = ["rtmp", "rtmps", "http", "https", "control", "compat"];

/// Where the service manager says how the sockets are called, with colons between.
const FDNAMES: &str = "LISTEN_FDNAMES";

/// Why what was passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "a socket was passed that is called {0:?}; name it in its unit (FileDescriptorName=) after what it is for: {known}",
        known = NAMES.join(", ")
    )]
    Name(String),
    #[error("socket {name:?} that was passed cannot be used: {source}")]
    Socket { name: String, source: io::Error },
}

/// One listener, and where it listens.
#[derive(Debug)]
struct Open {
    name: String,
    address: SocketAddr,
    listener: TcpListener,
}

/// Listeners by their names, until they are taken.
#[derive(Debug, Default)]
pub struct Inherited {
    open: Vec<Open>,
    /// Whether they stand for the addresses of the configuration, or only for the same ones.
    instead: bool,
}

impl Inherited {
    /// Nothing: everything is to be opened.
    pub fn none() -> Self {
        Self::default()
    }

    /// What the service manager passed. Without any of its variables, or with those of another process: nothing.
    ///
    /// # Errors
    /// When a socket has a name that we do not know, or is no TCP listener.
    pub fn from_environment() -> Result<Self, Error> {
        let mut passed = ListenFd::from_env();
        let names = std::env::var(FDNAMES).unwrap_or_default();
        let mut names = names.split(':');
        let mut all = Self {
            open: Vec::new(),
            instead: true,
        };
        for at in 0..passed.len() {
            let name = names.next().unwrap_or_default();
            let failed = |source| Error::Socket {
                name: name.to_owned(),
                source,
            };
            let Some(listener) = passed.take_tcp_listener(at).map_err(failed)? else {
                continue;
            };
            all.add(name, listener)?;
        }
        Ok(all)
    }

    /// What another process of ours gives up: each stands for an address of the configuration that is its own, or, with
    /// `instead`, for all those of its name.
    ///
    /// # Errors
    /// As [`Self::from_environment`].
    pub fn handed(
        listeners: impl IntoIterator<Item = (String, TcpListener)>,
        instead: bool,
    ) -> Result<Self, Error> {
        let mut all = Self {
            open: Vec::new(),
            instead,
        };
        for (name, listener) in listeners {
            all.add(&name, listener)?;
        }
        Ok(all)
    }

    fn add(&mut self, name: &str, listener: TcpListener) -> Result<(), Error> {
        if !NAMES.contains(&name) {
            return Err(Error::Name(name.to_owned()));
        }
        let failed = |source| Error::Socket {
            name: name.to_owned(),
            source,
        };
        // The runtime waits for them; one that blocks would take a thread along.
        listener.set_nonblocking(true).map_err(failed)?;
        self.open.push(Open {
            name: name.to_owned(),
            address: listener.local_addr().map_err(failed)?,
            listener,
        });
        Ok(())
    }

    /// Whether there are any, and they stand for the configured addresses whatever these are.
    pub fn stand_instead(&self) -> bool {
        self.instead && !self.open.is_empty()
    }

    /// Those that stand for the whole list of that name, whatever its addresses; empty: there are none.
    pub fn take_list(&mut self, name: &str) -> Vec<TcpListener> {
        if !self.instead {
            return Vec::new();
        }
        let ours = self.open.extract_if(.., |open| open.name == name);
        ours.map(|open| open.listener).collect()
    }

    /// The one of that name that listens where `wanted` says; port 0 is any port.
    pub fn take(&mut self, name: &str, wanted: SocketAddr) -> Option<TcpListener> {
        let at = self.open.iter().position(|open| {
            let there = open.address;
            let same_port = wanted.port() == 0 || there.port() == wanted.port();
            open.name == name && there.ip() == wanted.ip() && same_port
        })?;
        Some(self.open.swap_remove(at).listener)
    }

    /// What nobody took: connections that wait there would wait in vain.
    pub fn left(&self) -> Vec<(&str, SocketAddr)> {
        let left = self.open.iter();
        left.map(|open| (open.name.as_str(), open.address))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn what_is_handed_over_stands_for_its_own_address_and_no_other() {
        let [(one, first), (two, second)] = [bound(), bound()];
        let handed = [("rtmp".to_owned(), one), ("http".to_owned(), two)];
        let mut all = Inherited::handed(handed, false).unwrap();
        assert!(all.take_list("rtmp").is_empty());
        assert!(all.take("rtmp", second).is_none(), "another address");
        assert!(all.take("http", first).is_none(), "another name");
        let taken = all.take("rtmp", first).unwrap();
        assert_eq!(taken.local_addr().unwrap(), first);
        assert!(all.take("rtmp", first).is_none(), "only once");
        let any = SocketAddr::new(second.ip(), 0);
        assert_eq!(all.left(), [("http", second)]);
        assert!(all.take("http", any).is_some());
        assert!(all.left().is_empty());
    }

    #[test]
    fn a_socket_of_another_name_is_refused_with_the_names_that_there_are() {
        let refused = Inherited::handed([("linkmic.socket".to_owned(), bound().0)], true);
        let why = refused.unwrap_err().to_string();
        assert!(why.contains("\"linkmic.socket\""), "{why}");
        assert!(
            why.contains("rtmp, rtmps, http, https, control, compat"),
            "{why}"
        );
    }
}
