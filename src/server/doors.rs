//! The listeners: bound from the configuration, each with what its connections have to go through first.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use socket2::{Domain, Protocol, Type};
use tokio::net::TcpListener;

use super::Error;
use crate::config::Config;
use crate::net::Entrance;
use crate::net::proxy::Trusted;
use crate::net::tls::Certificates;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1_024;
/// What HTTPS answers to in ALPN.
const HTTP: &[&str] = &["http/1.1"];

/// The listeners of one section, and where they are.
pub struct Door {
    pub listeners: Vec<TcpListener>,
    pub addresses: Vec<SocketAddr>,
    pub entrance: Entrance,
}

impl Door {
    /// Binds them all. Nothing is accepted yet: connections wait in the kernel's queue.
    ///
    /// # Errors
    /// When one cannot be bound; `key` says whose it is.
    pub fn bind(
        key: &'static str,
        addresses: &[SocketAddr],
        entrance: Entrance,
    ) -> Result<Self, Error> {
        let mut door = Self {
            listeners: Vec::with_capacity(addresses.len()),
            addresses: Vec::with_capacity(addresses.len()),
            entrance,
        };
        for &address in addresses {
            let failed = |source| Error::Listen {
                key,
                address,
                source,
            };
            let listener = listen(address, is_v6_only(address, addresses)).map_err(failed)?;
            door.addresses.push(listener.local_addr().map_err(failed)?);
            door.listeners.push(listener);
        }
        Ok(door)
    }
}

/// `[::]` takes IPv4 too, unless an address of the list does that on the same port.
fn is_v6_only(address: SocketAddr, all: &[SocketAddr]) -> bool {
    let same_port = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
    address.ip() == Ipv6Addr::UNSPECIFIED && address.port() != 0 && all.iter().any(same_port)
}

fn listen(address: SocketAddr, v6_only: bool) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(v6_only)?;
    }
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// What the connections of each kind of listener have to go through.
pub struct Entrances {
    pub rtmp: Entrance,
    pub rtmps: Entrance,
    pub http: Entrance,
    pub https: Entrance,
    /// There when the configuration names them.
    pub certificates: Option<Arc<Certificates>>,
}

impl Entrances {
    /// Reads the certificate, where there is one.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let trusted = Trusted::new(config.access.trusted_proxies.iter().copied());
        let plain = |behind_proxies: bool| {
            if behind_proxies {
                Entrance::default().behind(trusted.clone())
            } else {
                Entrance::default()
            }
        };
        let mut entrances = Self {
            rtmp: plain(config.rtmp.proxy_protocol),
            rtmps: plain(config.rtmps.proxy_protocol),
            http: plain(config.http.proxy_protocol),
            https: plain(config.http.proxy_protocol),
            certificates: None,
        };
        if let Some(files) = &config.rtmps.certificate {
            let certificates = Certificates::load(files.certificate.clone(), files.key.clone())
                .map_err(Error::Certificate)?;
            let tls = |protocols| certificates.server_config(protocols).map_err(Error::Tls);
            entrances.rtmps = entrances.rtmps.encrypted(tls(&[])?);
            entrances.https = entrances.https.encrypted(tls(HTTP)?);
            entrances.certificates = Some(certificates);
        }
        Ok(entrances)
    }
}

/// An address that a client on this host can use, where a listener's is "any".
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_any_addresses_may_share_a_port() {
        let any = |text: &str| text.parse::<SocketAddr>().unwrap();
        let [four, six] = [any("0.0.0.0:1935"), any("[::]:1935")];
        assert!(is_v6_only(six, &[four, six]));
        assert!(!is_v6_only(six, &[six]));
        assert!(!is_v6_only(six, &[any("0.0.0.0:1936"), six]));
        assert!(!is_v6_only(four, &[four, six]));
    }

    #[tokio::test]
    async fn both_any_addresses_are_bound_to_one_port() {
        let free = Door::bind("x", &["127.0.0.1:0".parse().unwrap()], Entrance::default());
        let port = free.map(|door| door.addresses[0].port()).ok().unwrap();
        let both = [
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        ];
        let door = Door::bind("x", &both, Entrance::default()).ok().unwrap();
        assert_eq!(door.addresses, both);
    }
}
