//! The listeners: bound from the configuration, each with what its connections have to go through first.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, Type};

use super::Error;
use crate::config::Config;
use crate::net::Entrance;
use crate::net::inherited::Inherited;
use crate::net::proxy::Trusted;
use crate::net::tls::Certificates;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1_024;
/// Stands for the address of a socket that has none.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// What HTTPS answers to in ALPN.
const HTTP: &[&str] = &["http/1.1"];

/// The listeners of one section, and where they are.
pub struct Door {
    pub listeners: Vec<TcpListener>,
    pub addresses: Vec<SocketAddr>,
    pub entrance: Entrance,
}

impl Door {
    /// Binds them all, but for those that are there already. Nothing is accepted yet: connections wait in the kernel's queue.
    ///
    /// # Errors
    /// When one cannot be bound; `list` says whose it is.
    pub fn open(
        list: &List<'_>,
        inherited: &mut Inherited,
        entrance: Entrance,
    ) -> Result<Self, Error> {
        let mut door = Self {
            listeners: Vec::with_capacity(list.addresses.len()),
            addresses: Vec::with_capacity(list.addresses.len()),
            entrance,
        };
        for given in inherited.take_list(list.name) {
            let address = given.local_addr().unwrap_or(NOWHERE);
            if let Some(lacks) = list.lacks {
                return Err(Error::Given {
                    name: list.name,
                    address,
                    lacks,
                });
            }
            door.listeners.push(given);
            door.addresses.push(address);
        }
        // What the service manager opened stands for the whole list.
        if !door.listeners.is_empty() {
            return Ok(door);
        }
        for &address in list.addresses {
            let failed = list.failed(address);
            let opened = match inherited.take(list.name, address) {
                Some(given) => Ok(given),
                None => listen(address, is_v6_only(address, list.addresses)),
            };
            let listener = opened.map_err(&failed)?;
            door.addresses.push(listener.local_addr().map_err(&failed)?);
            door.listeners.push(listener);
        }
        Ok(door)
    }
}

/// Addresses of the configuration.
pub struct List<'a> {
    /// Their path there.
    pub key: &'static str,
    /// What a listener for them is called that somebody else opened.
    pub name: &'static str,
    pub addresses: &'a [SocketAddr],
    /// What the configuration would have to say for it to be served, where it does not.
    pub lacks: Option<&'static str>,
}

impl List<'_> {
    fn failed(&self, address: SocketAddr) -> impl Fn(io::Error) -> Error + use<> {
        let key = self.key;
        move |source| Error::Listen {
            key,
            address,
            source,
        }
    }
}

/// Opens every listener of the configuration by itself and closes it again: its key, its address, and whether it could be had.
/// Needs a tokio runtime.
pub fn try_listeners(config: &Config) -> Vec<(&'static str, SocketAddr, io::Result<()>)> {
    let all = config.listeners().into_iter().flat_map(|(key, addresses)| {
        let tried = addresses.iter();
        tried.map(move |&address| {
            let opened = listen(address, is_v6_only(address, addresses));
            (key, address, opened.map(drop))
        })
    });
    all.collect()
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
    Ok(socket.into())
}

/// All of them, open.
pub struct Doors {
    pub rtmp: Door,
    pub rtmps: Door,
    pub http: Door,
    pub https: Door,
    pub control: Door,
    pub compat: Door,
    /// There when the configuration names them.
    pub certificates: Option<Arc<Certificates>>,
}

/// Opens what the configuration names, but for what is there already.
///
/// # Errors
/// When a listener or the certificate cannot be had.
pub fn open_all(config: &Config, inherited: &mut Inherited) -> Result<Doors, Error> {
    const NO_CERTIFICATE: &str = "there is no certificate (rtmps.certificate and rtmps.key)";
    const NO_ACCOUNT: &str = "nobody could call (compat.accounts)";
    let Entrances {
        rtmp,
        rtmps,
        http,
        https,
        certificates,
    } = Entrances::new(config)?;
    let lacks = |there: bool, what| (!there).then_some(what);
    let no_certificate = lacks(certificates.is_some(), NO_CERTIFICATE);
    let no_account = lacks(!config.compat.accounts.is_empty(), NO_ACCOUNT);
    let mut open = |key, name, addresses: &[SocketAddr], lacks, entrance| {
        let list = List {
            key,
            name,
            addresses,
            lacks,
        };
        Door::open(&list, inherited, entrance)
    };
    Ok(Doors {
        rtmp: open("rtmp.listen", "rtmp", &config.rtmp.listen, None, rtmp)?,
        rtmps: open(
            "rtmps.listen",
            "rtmps",
            &config.rtmps.listen,
            no_certificate,
            rtmps,
        )?,
        http: open("http.listen", "http", &config.http.listen, None, http)?,
        https: open(
            "http.tls_listen",
            "https",
            &config.http.tls_listen,
            no_certificate,
            https,
        )?,
        control: open(
            "control.listen",
            "control",
            &config.control.listen,
            None,
            Entrance::default(),
        )?,
        compat: open(
            "compat.listen",
            "compat",
            &config.compat.listen,
            no_account,
            Entrance::default(),
        )?,
        certificates,
    })
}

/// What the connections of each kind of listener have to go through.
struct Entrances {
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
        let open = |addresses: &[SocketAddr]| {
            let list = List {
                key: "x",
                name: "x",
                addresses,
                lacks: None,
            };
            let door = Door::open(&list, &mut Inherited::none(), Entrance::default());
            door.ok().unwrap().addresses
        };
        let port = open(&["127.0.0.1:0".parse().unwrap()])[0].port();
        let both = [
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        ];
        assert_eq!(open(&both), both);
    }
}
