//! Keys and the sets they stand in: what is configured, and how often each was used.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::signature::since_epoch;
use super::{KeyId, Secret};
use crate::media::PerApp;

/// One signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What the key is called where people see it.
    pub id: KeyId,
    /// What is hashed in front of the stream name.
    pub secret: Secret,
    /// Play keys only: how long after its txTime a URL stays valid. Zero for the other sets.
    pub valid_for: Duration,
    /// When the key is valid, whatever the URLs signed with it say.
    pub window: Window,
    /// Whether URLs are signed with it, or only checked.
    pub role: Role,
}

impl Key {
    /// A primary key that is always valid, for URLs that end at their txTime.
    pub fn new(id: KeyId, secret: Secret) -> Self {
        Self {
            id,
            secret,
            valid_for: Duration::ZERO,
            window: Window::default(),
            role: Role::default(),
        }
    }
}

/// The time a key is valid; looked at when a client connects, and not while it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// The first moment; `None`: since ever.
    pub not_before: Option<SystemTime>,
    /// The last moment; `None`: for ever.
    pub not_after: Option<SystemTime>,
}

/// Where a moment is, seen from a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The window has not begun.
    Upcoming,
    /// Within the window.
    Valid,
    /// The window is over.
    Retired,
}

impl Phase {
    /// The word for the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Upcoming => "upcoming",
            Phase::Valid => "valid",
            Phase::Retired => "retired",
        }
    }
}

impl Window {
    /// Where `now` is.
    pub fn phase(&self, now: SystemTime) -> Phase {
        if self.not_before.is_some_and(|begin| now < begin) {
            Phase::Upcoming
        } else if self.not_after.is_some_and(|end| now > end) {
            Phase::Retired
        } else {
            Phase::Valid
        }
    }
}

/// What a key is for. Both kinds open the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// The first that is valid signs.
    #[default]
    Primary,
    /// Signs only while no primary key of its set is valid.
    Backup,
}

impl Role {
    /// The word in the configuration and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Backup => "backup",
        }
    }
}

/// Whether an action needs a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Only a URL with a fitting signature is let in.
    #[default]
    Signed,
    /// Everybody is let in. For development and closed networks.
    Open,
}

/// What the policy is made of. The secrets are to be distinct over all sets, applications' own included, and so are
/// the ids within a kind of set; whoever reads the configuration checks that. If they are not, the first set that fits wins, in the order of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// Open publishing, and the source feed while `peer_keys` is empty. All are valid at once.
    pub push_keys: Vec<Key>,
    /// Open the source feed; when there are any, push keys no longer do.
    pub peer_keys: Vec<Key>,
    /// Open the program feed; when there are any, unsigned viewers are refused.
    pub play_keys: Vec<Key>,
    /// `Open`: anybody may publish.
    pub push: Access,
    /// `Open`: an unsigned URL with `feed=source` plays the source feed.
    pub peer: Access,
    /// How long after its expiry a URL is still taken, for clocks that are apart.
    pub clock_skew: Duration,
    /// Applications with keys of their own. One that is not among them has the sets above.
    pub apps: PerApp<AppKeys>,
}

/// The sets of one application in place of those that hold for all; `None`: that one holds here too. An empty set is
/// a set: no key of it holds here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppKeys {
    pub push_keys: Option<Vec<Key>>,
    pub peer_keys: Option<Vec<Key>>,
    pub play_keys: Option<Vec<Key>>,
}

impl AppKeys {
    /// The keys of a set, if it is the application's own.
    pub fn keys(&self, set: KeySet) -> Option<&[Key]> {
        match set {
            KeySet::Push => self.push_keys.as_deref(),
            KeySet::Peer => self.peer_keys.as_deref(),
            KeySet::Play => self.play_keys.as_deref(),
        }
    }
}

impl Config {
    /// What holds in an application, with none below it.
    pub fn of(&self, own: &AppKeys) -> Self {
        let keys = |set| own.keys(set).unwrap_or(self.keys(set)).to_vec();
        Self {
            push_keys: keys(KeySet::Push),
            peer_keys: keys(KeySet::Peer),
            play_keys: keys(KeySet::Play),
            apps: PerApp::default(),
            ..self.clone()
        }
    }

    /// The keys of a set.
    pub fn keys(&self, set: KeySet) -> &[Key] {
        match set {
            KeySet::Push => &self.push_keys,
            KeySet::Peer => &self.peer_keys,
            KeySet::Play => &self.play_keys,
        }
    }
}

/// The three sets of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeySet {
    Push,
    Peer,
    Play,
}

impl KeySet {
    /// All of them, in the order in which they are tried.
    pub const ALL: [KeySet; 3] = [KeySet::Push, KeySet::Peer, KeySet::Play];

    /// The word for messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            KeySet::Push => "push",
            KeySet::Peer => "peer",
            KeySet::Play => "play",
        }
    }
}

impl fmt::Display for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a signed URL is to be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Publishing.
    Push,
    /// Playing the source feed at low latency.
    Peer,
    /// Playing the program feed.
    View,
}

/// How often a key opened the door. Kept over a rotation that keeps the key's id.
#[derive(Debug, Default)]
pub(super) struct Usage {
    hits: AtomicU64,
    /// UNIX milliseconds; 0: never.
    last: AtomicU64,
}

impl Usage {
    pub(super) fn hit(&self, now: SystemTime) {
        self.hits.fetch_add(1, Ordering::Relaxed);
        let now = u64::try_from(since_epoch(now).as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    pub(super) fn last(&self) -> Option<SystemTime> {
        match self.last.load(Ordering::Relaxed) {
            0 => None,
            ms => UNIX_EPOCH.checked_add(Duration::from_millis(ms)),
        }
    }
}

/// One key as it may be shown: everything but its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatus {
    /// The application whose own it is, `*` for all those without a section; `None`: it holds wherever an application
    /// has none of its own.
    pub app: Option<String>,
    pub set: KeySet,
    pub id: KeyId,
    pub role: Role,
    pub window: Window,
    pub phase: Phase,
    pub valid_for: Duration,
    /// Whether a URL that is signed now, and names no key, is signed with this one.
    pub signs: bool,
    /// Requests that it opened the door for, since the start.
    pub hits: u64,
    /// The latest of them.
    pub last_used: Option<SystemTime>,
}
