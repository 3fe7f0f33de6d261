//! Who publishes a name, and with which query.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::logging::ConnectionId;

/// Parameters that say nothing worth hiding: which account, and until when.
const SHOWN: [&str; 2] = ["bizid", "txTime"];

/// Who publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A client over the network.
    Anchor {
        address: SocketAddr,
        /// The connection that holds the name, as logs name it.
        connection: ConnectionId,
        /// Which key its URL was signed with, when it was.
        key_id: Option<String>,
        /// What stood behind the `?` of its URL.
        query: Query,
    },
    /// A mix of this server, by its id.
    Mix { id: String },
}

impl Origin {
    /// The peer's address, for anchors.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Origin::Anchor { address, .. } => Some(*address),
            Origin::Mix { .. } => None,
        }
    }

    pub fn is_mix(&self) -> bool {
        matches!(self, Origin::Mix { .. })
    }

    /// Does `other` come from the same host? Mixes come from none.
    pub fn same_host(&self, other: &Origin) -> bool {
        match (self.address(), other.address()) {
            (Some(one), Some(other)) => one.ip() == other.ip(),
            _ => false,
        }
    }

    /// The same host with the same query: most likely one encoder whose connection was lost.
    pub fn is_return_of(&self, other: &Origin) -> bool {
        match (self, other) {
            (Origin::Anchor { query, .. }, Origin::Anchor { query: before, .. }) => {
                self.same_host(other) && query == before
            }
            _ => false,
        }
    }
}

/// The query of a client's URL as it was sent, undecoded; empty when there was none. It opens what the URL opens:
/// prints with the names of its parameters, and `***` for their values. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Query(Arc<str>);

impl Query {
    /// Longest query in bytes that is kept of a publisher; real ones have about 100.
    pub const MAX_BYTES: usize = 2_048;

    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The query itself: for comparing and for callbacks that must repeat it, never for messages or logs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Default for Query {
    fn default() -> Self {
        Self::new("")
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        for (n, part) in self.0.split('&').enumerate() {
            if n > 0 {
                f.write_str("&")?;
            }
            match part.split_once('=') {
                Some((name, value)) if SHOWN.contains(&name) && value.chars().all(plain) => {
                    write!(f, "{name}={value}")?;
                }
                Some((name, _)) if name.chars().all(plain) => write!(f, "{name}=***")?,
                None if part.is_empty() => {}
                _ => f.write_str("***")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_prints_without_what_it_opens() {
        for (query, shown) in [
            (
                "bizid=8888&txSecret=3bc85763&txTime=593B719C&live_id=7",
                "bizid=8888&txSecret=***&txTime=593B719C&live_id=***",
            ),
            ("hunter2", "***"),
            ("a\nb=c&txTime=\u{1b}[2J", "***&txTime=***"),
            ("", ""),
        ] {
            let query = Query::new(query);
            assert_eq!(query.to_string(), shown);
            assert_eq!(format!("{query:?}"), format!("\"{shown}\""));
        }
    }
}
