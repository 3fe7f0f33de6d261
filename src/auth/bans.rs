//! Bans: who or what may not publish or play, until when. Pure: asking takes a moment as an argument.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::SystemTime;

use ipnet::IpNet;

use super::{Action, KeyId};
use crate::media::{NameError, StreamKey};
use crate::net::network;

/// What a ban is called.
pub type BanId = i64;

/// What a ban holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    Publish,
    Play,
    Both,
}

impl Scope {
    pub const ALL: [Scope; 3] = [Scope::Publish, Scope::Play, Scope::Both];

    /// The word in the API and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Publish => "publish",
            Scope::Play => "play",
            Scope::Both => "both",
        }
    }

    fn covers(self, action: Action) -> bool {
        match self {
            Scope::Publish => action == Action::Publish,
            Scope::Play => action == Action::Play,
            Scope::Both => true,
        }
    }
}

/// One stream, or every stream of an application.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    Stream(StreamKey),
    App(String),
}

/// Why a text names neither a stream nor an application's streams.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("{0:?} is neither app/name nor app/*, which is all streams of an application")]
    Form(String),
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (app, name) = text
            .split_once('/')
            .ok_or_else(|| PatternError::Form(text.to_owned()))?;
        if name == "*" {
            // Any stream name will do: it is the application's that is judged.
            let key = StreamKey::new(app, "x")?;
            return Ok(Pattern::App(key.app().to_owned()));
        }
        Ok(Pattern::Stream(StreamKey::new(app, name)?))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Stream(key) => key.fmt(f),
            Pattern::App(app) => write!(f, "{app}/*"),
        }
    }
}

/// Who or what is banned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    Stream(Pattern),
    /// A network; a single address is one of full length.
    Address(IpNet),
    /// Whoever comes with a URL signed with a key of that id, of whichever set.
    Key(KeyId),
}

/// Why a subject cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    #[error("stream: {0}")]
    Stream(PatternError),
    #[error(
        "address: {0:?} is neither an address nor a network, like 203.0.113.7 or 2001:db8::/32"
    )]
    Address(String),
    #[error("key: is empty")]
    Key,
    #[error("there are no bans of {0}")]
    Kind(String),
}

impl Subject {
    /// Reads a subject as [`Self::kind`] and [`fmt::Display`] write it.
    ///
    /// # Errors
    /// When the kind is none, or the text does not fit it; the message begins with the kind.
    pub fn parse(kind: &str, text: &str) -> Result<Self, SubjectError> {
        match kind {
            "stream" => text
                .parse()
                .map(Subject::Stream)
                .map_err(SubjectError::Stream),
            "address" => network(text)
                .map(Subject::Address)
                .ok_or_else(|| SubjectError::Address(text.to_owned())),
            "key" if text.is_empty() => Err(SubjectError::Key),
            "key" => Ok(Subject::Key(KeyId::new(text))),
            other => Err(SubjectError::Kind(other.to_owned())),
        }
    }

    /// `stream`, `address` or `key`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Subject::Stream(_) => "stream",
            Subject::Address(_) => "address",
            Subject::Key(_) => "key",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Stream(pattern) => pattern.fmt(f),
            Subject::Address(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Subject::Address(net) => net.fmt(f),
            Subject::Key(id) => id.fmt(f),
        }
    }
}

/// One ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    pub id: BanId,
    pub subject: Subject,
    pub scope: Scope,
    pub created_at: SystemTime,
    /// From this moment on it does not hold any more; `None`: it holds until it is deleted.
    pub expires_at: Option<SystemTime>,
    /// For people.
    pub note: String,
}

impl Ban {
    /// Whether it still holds at `now`.
    pub fn holds(&self, now: SystemTime) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether it concerns somebody who does `action`.
    pub fn concerns(&self, who: &Who<'_>) -> bool {
        self.scope.covers(who.action)
            && match &self.subject {
                Subject::Stream(Pattern::Stream(key)) => key == who.key,
                Subject::Stream(Pattern::App(app)) => app == who.key.app(),
                Subject::Address(net) => net.contains(&who.address.to_canonical()),
                Subject::Key(id) => who.key_id == Some(id),
            }
    }
}

/// Who wants to do what, as far as bans look at it.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    pub action: Action,
    pub key: &'a StreamKey,
    pub address: IpAddr,
    /// The key that the URL is signed with, once that is known.
    pub key_id: Option<&'a KeyId>,
}

/// All bans, found by what they hold for. Made anew for each change and shared as a whole.
#[derive(Debug, Clone, Default)]
pub struct Bans {
    all: BTreeMap<BanId, Ban>,
    streams: HashMap<StreamKey, Vec<BanId>>,
    apps: HashMap<String, Vec<BanId>>,
    keys: HashMap<KeyId, Vec<BanId>>,
    nets: HashMap<IpNet, Vec<BanId>>,
    /// How many bans there are of each prefix length of IPv4 and IPv6: so many networks of an address are looked up.
    lengths: [BTreeMap<u8, usize>; 2],
}

impl Bans {
    /// The index over these bans.
    pub fn new(bans: impl IntoIterator<Item = Ban>) -> Self {
        let mut index = Self::default();
        for ban in bans {
            index.insert(ban);
        }
        index
    }

    /// Adds a ban; one of the same id is replaced.
    pub fn insert(&mut self, ban: Ban) {
        self.remove(ban.id);
        let id = ban.id;
        match &ban.subject {
            Subject::Stream(Pattern::Stream(key)) => {
                self.streams.entry(key.clone()).or_default().push(id);
            }
            Subject::Stream(Pattern::App(app)) => {
                self.apps.entry(app.clone()).or_default().push(id);
            }
            Subject::Key(key) => self.keys.entry(key.clone()).or_default().push(id),
            Subject::Address(net) => {
                self.nets.entry(*net).or_default().push(id);
                *self.lengths[family(net)]
                    .entry(net.prefix_len())
                    .or_default() += 1;
            }
        }
        self.all.insert(id, ban);
    }

    /// Takes a ban out.
    pub fn remove(&mut self, id: BanId) -> Option<Ban> {
        let ban = self.all.remove(&id)?;
        match &ban.subject {
            Subject::Stream(Pattern::Stream(key)) => take(&mut self.streams, key, id),
            Subject::Stream(Pattern::App(app)) => take(&mut self.apps, app, id),
            Subject::Key(key) => take(&mut self.keys, key, id),
            Subject::Address(net) => {
                take(&mut self.nets, net, id);
                let lengths = &mut self.lengths[family(net)];
                if let Some(count) = lengths.get_mut(&net.prefix_len()) {
                    *count -= 1;
                    if *count == 0 {
                        lengths.remove(&net.prefix_len());
                    }
                }
            }
        }
        Some(ban)
    }

    /// One ban, whether it still holds or not.
    pub fn get(&self, id: BanId) -> Option<&Ban> {
        self.all.get(&id)
    }

    /// All bans by id, those that do not hold any more among them.
    pub fn iter(&self) -> impl Iterator<Item = &Ban> {
        self.all.values()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A ban that holds for somebody now. Its cost does not grow with the number of bans.
    pub fn find(&self, who: &Who<'_>, now: SystemTime) -> Option<&Ban> {
        let address = who.address.to_canonical();
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        let nets = lengths.keys().filter_map(|length| {
            let net = IpNet::new(address, *length).ok()?.trunc();
            self.nets.get(&net)
        });
        let stream = self.streams.get(who.key).into_iter();
        let app = self.apps.get(who.key.app()).into_iter();
        let key = who.key_id.and_then(|id| self.keys.get(id)).into_iter();
        stream
            .chain(app)
            .chain(key)
            .chain(nets)
            .flatten()
            .filter_map(|id| self.all.get(id))
            .find(|ban| ban.scope.covers(who.action) && ban.holds(now))
    }
}

fn family(net: &IpNet) -> usize {
    usize::from(matches!(net, IpNet::V6(_)))
}

fn take<K: std::hash::Hash + Eq + Clone>(map: &mut HashMap<K, Vec<BanId>>, key: &K, id: BanId) {
    if let Some(ids) = map.get_mut(key) {
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
