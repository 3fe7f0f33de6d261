//! Where the load goes: one URL, made into as many streams as asked for, each signed.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, SystemTime};

use crate::auth::{Secret, signed_query};
use crate::rtmp::url::{self, Target};

/// How long the signatures are good for. A run is shorter.
const SIGNED_FOR: Duration = Duration::from_secs(24 * 3600);
/// The scheme of a `floor` server.
const RAW: &str = "tcp://";
/// The scheme of HTTP-FLV, the end of its names, and the port of a URL that names none.
const HTTP: &str = "http://";
const FLV: &str = ".flv";
const HTTP_PORT: u16 = 80;

/// Why nothing can be aimed at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Url(#[from] url::Error),
    #[error("an http:// URL to play ends in .flv, as in http://127.0.0.1:8080/live/name.flv")]
    Flv,
    #[error("tcp:// is followed by an address and port, as in tcp://127.0.0.1:19350")]
    Raw,
    #[error("cannot look up {host:?}: {source}")]
    Lookup {
        host: String,
        source: std::io::Error,
    },
    #[error("{0:?} has no address")]
    NoAddress(String),
}

/// By which protocol players come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Rtmp,
    Http,
}

/// A server and the streams there.
#[derive(Clone)]
pub struct Aim {
    pub address: SocketAddr,
    pub door: Door,
    /// Empty for a raw server, which has one stream without a name.
    targets: Vec<Target>,
    shown: String,
}

impl Aim {
    /// `rtmp://host/app/name`, `http://host/app/name.flv`, or `tcp://address:port` of a `floor` server. With more than
    /// one stream the names get `_1`, `_2` and so on. A key signs each name; the signature follows the query that the URL has.
    ///
    /// # Errors
    /// When the URL is none, or its host has no address.
    pub fn new(url: &str, streams: usize, key: Option<&Secret>) -> Result<Self, Error> {
        if let Some(address) = url.strip_prefix(RAW) {
            return Ok(Self {
                address: address.parse().map_err(|_| Error::Raw)?,
                door: Door::Rtmp,
                targets: Vec::new(),
                shown: url.to_owned(),
            });
        }
        let (target, door) = match url.strip_prefix(HTTP) {
            Some(rest) => (file(rest)?, Door::Http),
            None => (Target::parse(url)?.plain()?, Door::Rtmp),
        };
        let place = (target.host.as_str(), target.port);
        let mut addresses = place.to_socket_addrs().map_err(|source| Error::Lookup {
            host: target.host.clone(),
            source,
        })?;
        let address = addresses.next();
        let streams = (1..=streams.max(1))
            .map(|number| {
                let mut target = target.clone();
                if streams > 1 {
                    target.name = format!("{}_{number}", target.name);
                }
                if let Some(key) = key {
                    let until = SystemTime::now() + SIGNED_FOR;
                    let signature = signed_query(key, &target.name, until);
                    target.query = match target.query.as_str() {
                        "" => signature,
                        query => format!("{query}&{signature}"),
                    };
                }
                target
            })
            .collect();
        Ok(Self {
            address: address.ok_or_else(|| Error::NoAddress(target.host.clone()))?,
            targets: streams,
            shown: match door {
                Door::Rtmp => target.to_string(),
                Door::Http => shown(&target),
            },
            door,
        })
    }

    /// How many streams there are.
    pub fn streams(&self) -> usize {
        self.targets.len().max(1)
    }

    /// Whether somebody can publish there.
    pub fn takes_publishers(&self) -> bool {
        self.door == Door::Rtmp && !self.targets.is_empty()
    }

    /// Stream number `index`, going round; `None` on a raw server.
    pub fn target(&self, index: usize) -> Option<&Target> {
        match self.targets.len() {
            0 => None,
            count => self.targets.get(index % count),
        }
    }
}

/// What follows `http://`, as a target with the name of the stream in it.
fn file(rest: &str) -> Result<Target, Error> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, place) = rest.split_at(end);
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let port = match has_port {
        true => String::new(),
        false => format!(":{HTTP_PORT}"),
    };
    let mut target = Target::parse(&format!("rtmp://{authority}{port}{place}"))?;
    let name = target.name.strip_suffix(FLV).ok_or(Error::Flv)?;
    target.name = name.to_owned();
    Ok(target)
}

/// An HTTP-FLV URL with its query masked.
fn shown(target: &Target) -> String {
    let mask = if target.query.is_empty() { "" } else { "?***" };
    let authority = match target.host.contains(':') {
        true => format!("[{}]:{}", target.host, target.port),
        false => format!("{}:{}", target.host, target.port),
    };
    format!(
        "{HTTP}{authority}/{}/{}{FLV}{mask}",
        target.app, target.name
    )
}

/// The URL with its query masked.
impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_has_its_name_its_query_and_its_signature() {
        let key = Secret::new("0123456789");
        let aim = Aim::new("rtmp://127.0.0.1/live/a?x=1", 3, Some(&key)).unwrap();
        assert_eq!(aim.streams(), 3);
        let query = &aim.target(0).unwrap().query;
        assert!(query.starts_with("x=1&txSecret="), "{query}");
        assert_ne!(query, &aim.target(1).unwrap().query);
        assert_eq!(aim.target(4).unwrap().name, "a_2");
        assert_eq!(aim.to_string(), "rtmp://127.0.0.1/live/a?***");
    }

    #[test]
    fn a_file_over_http_is_a_stream_and_port_80_its_default() {
        let aim = Aim::new("http://127.0.0.1/live/a.flv?k=v", 2, None).unwrap();
        assert_eq!((aim.door, aim.address.port()), (Door::Http, 80));
        assert_eq!(aim.target(1).unwrap().name, "a_2");
        assert_eq!(aim.to_string(), "http://127.0.0.1:80/live/a.flv?***");
        assert!(!aim.takes_publishers());
        let aim = Aim::new("http://[::1]:8080/live/a.flv", 1, None).unwrap();
        assert_eq!(aim.to_string(), "http://[::1]:8080/live/a.flv");
        let bare = Aim::new("http://[::1]/live/a.flv", 1, None).unwrap();
        assert_eq!(bare.address.port(), 80);
        let none = Aim::new("http://127.0.0.1/live/a", 1, None);
        assert!(matches!(none, Err(Error::Flv)));
    }

    #[test]
    fn one_stream_keeps_its_name_and_a_raw_server_has_none() {
        let aim = Aim::new("rtmp://127.0.0.1:1936/live/a", 1, None).unwrap();
        assert_eq!(aim.target(7).unwrap().name, "a");
        assert_eq!(aim.address.port(), 1936);
        let raw = Aim::new("tcp://127.0.0.1:9", 4, None).unwrap();
        assert_eq!((raw.streams(), raw.target(0)), (1, None));
        assert!(matches!(Aim::new("tcp://here", 1, None), Err(Error::Raw)));
    }
}
