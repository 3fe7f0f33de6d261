//! The key sets and the one decision: which feed, which class, or why not.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::signature::{self, Presented, since_epoch};
use super::{Action, Authorizer, Decision, Grant, KeyId, Refusal, Request, Secret};
use crate::media::{Class, Feed, StreamKey};
use crate::reason::Reason;

/// A URL refused this little after its expiry is counted as a near miss: clocks apart, not a stale link.
const NEAR_MISS: Duration = Duration::from_secs(60);

/// One signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What the key is called where people see it.
    pub id: KeyId,
    /// What is hashed in front of the stream name.
    pub secret: Secret,
    /// Play keys only: how long after its txTime a URL stays valid. Zero for the other sets.
    pub valid_for: Duration,
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

/// What the policy is made of. The secrets are to be distinct over all three sets; whoever reads the
/// configuration checks that. If they are not, the first set that fits wins, in the order of the fields.
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
}

/// The three sets of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeySet {
    Push,
    Peer,
    Play,
}

impl KeySet {
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

/// Why a URL cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("no {set} key is configured to sign with")]
    NoKey { set: KeySet },
    #[error("no {set} key has the id {id:?}; there are: {known}")]
    UnknownKey {
        set: KeySet,
        id: String,
        known: String,
    },
}

/// How often clocks seem to have been apart, since start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NearMisses {
    /// Expired, but let in within the tolerance.
    pub forgiven: u64,
    /// Refused for being expired by at most a minute more than the tolerance.
    pub refused: u64,
}

/// The signature policy: keys in memory, no other state than its counters.
#[derive(Debug)]
pub struct Policy {
    config: Config,
    forgiven: AtomicU64,
    refused: AtomicU64,
}

/// A decision and how near it was to the other one.
struct Judgement {
    outcome: Result<Grant, Refusal>,
    near_miss: Option<NearMiss>,
}

#[derive(Clone, Copy)]
enum NearMiss {
    Forgiven,
    Refused,
}

impl Policy {
    /// A policy over these keys.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            forgiven: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Decides without counting: to explain a URL, as the command line and the API do.
    ///
    /// # Errors
    /// The refusal a client would hear.
    pub fn decide(&self, request: &Request<'_>) -> Result<Grant, Refusal> {
        self.judge(request).outcome
    }

    /// Near misses among the requests that came through [`Authorizer`].
    pub fn near_misses(&self) -> NearMisses {
        NearMisses {
            forgiven: self.forgiven.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// The secret of a push key, by id: for signing URLs of other servers that share it.
    pub fn push_secret(&self, id: &str) -> Option<&Secret> {
        let keys = &self.config.push_keys;
        let key = keys.iter().find(|key| key.id.as_str() == id)?;
        Some(&key.secret)
    }

    /// The query that makes a URL for `stream` good for `purpose` until `expires_at`.
    ///
    /// `key` picks a key by id; else the set's first signs. `None`: a plain URL does, nothing needs signing.
    /// For a play key the txTime is `expires_at` minus the key's `valid_for`, so that the URL ends when asked.
    ///
    /// # Errors
    /// When a signature is needed and there is no such key.
    pub fn signed_query(
        &self,
        purpose: Purpose,
        stream: &StreamKey,
        expires_at: SystemTime,
        key: Option<&str>,
    ) -> Result<Option<String>, SignError> {
        let config = &self.config;
        let (set, keys) = match purpose {
            Purpose::Push => (KeySet::Push, &config.push_keys),
            Purpose::Peer if config.peer_keys.is_empty() => (KeySet::Push, &config.push_keys),
            Purpose::Peer => (KeySet::Peer, &config.peer_keys),
            Purpose::View => (KeySet::Play, &config.play_keys),
        };
        let chosen = match key {
            Some(id) => {
                let found = keys.iter().find(|key| key.id.as_str() == id);
                Some(found.ok_or_else(|| unknown_key(set, id, keys))?)
            }
            None => keys.first(),
        };
        match (chosen, purpose) {
            (Some(key), _) => {
                let signed_for = expires_at
                    .checked_sub(key.valid_for)
                    .unwrap_or(SystemTime::UNIX_EPOCH);
                Ok(Some(signature::signed_query(
                    &key.secret,
                    stream.stream(),
                    signed_for,
                )))
            }
            (None, Purpose::View) => Ok(None),
            (None, Purpose::Push) if config.push == Access::Open => Ok(None),
            (None, Purpose::Peer) if config.peer == Access::Open => {
                Ok(Some("feed=source".to_owned()))
            }
            (None, Purpose::Push | Purpose::Peer) => Err(SignError::NoKey { set }),
        }
    }

    fn judge(&self, request: &Request<'_>) -> Judgement {
        let mut near_miss = None;
        let outcome = match request.action {
            Action::Publish => self.publish(request, &mut near_miss),
            Action::Play => self.play(request, &mut near_miss),
        };
        Judgement { outcome, near_miss }
    }

    fn publish(
        &self,
        request: &Request<'_>,
        near_miss: &mut Option<NearMiss>,
    ) -> Result<Grant, Refusal> {
        let signed = match Presented::read(request.query) {
            Some(Ok(presented)) => self.publish_signed(request, &presented, near_miss),
            Some(Err(refusal)) => Err(refusal),
            None => Err(Refusal::new(
                Reason::SignatureMissing,
                if self.config.push_keys.is_empty() {
                    "no push key is configured here, so nobody can publish"
                } else {
                    "publishing needs a signed URL; it has neither txSecret nor txTime"
                },
            )),
        };
        match signed {
            Err(_) if self.config.push == Access::Open => {
                *near_miss = None;
                Ok(Grant::Publish { key: None })
            }
            decided => decided,
        }
    }

    fn publish_signed(
        &self,
        request: &Request<'_>,
        presented: &Presented,
        near_miss: &mut Option<NearMiss>,
    ) -> Result<Grant, Refusal> {
        match self.signer(presented, request.key) {
            Some((KeySet::Push, key)) => {
                self.in_time(presented, key, request.now, near_miss)?;
                Ok(Grant::Publish {
                    key: Some(key.id.clone()),
                })
            }
            Some((set, _)) => Err(wrong(format!(
                "the URL is signed with a {set} key, which does not open publishing"
            ))),
            None if self.config.push_keys.is_empty() => Err(wrong(
                "no push key is configured here, so nobody can publish",
            )),
            None => Err(wrong(FITS_NONE)),
        }
    }

    fn play(
        &self,
        request: &Request<'_>,
        near_miss: &mut Option<NearMiss>,
    ) -> Result<Grant, Refusal> {
        match Presented::read(request.query) {
            Some(presented) => self.play_signed(request, &presented?, near_miss),
            None => self.play_unsigned(request),
        }
    }

    fn play_signed(
        &self,
        request: &Request<'_>,
        presented: &Presented,
        near_miss: &mut Option<NearMiss>,
    ) -> Result<Grant, Refusal> {
        let (set, key) = self
            .signer(presented, request.key)
            .ok_or_else(|| wrong(FITS_NONE))?;
        let (feed, class) = match set {
            KeySet::Push if !self.config.peer_keys.is_empty() => {
                return Err(wrong(
                    "the URL is signed with a push key, but here only peer keys open the source feed",
                ));
            }
            KeySet::Push | KeySet::Peer => (Feed::Source, Class::LowLatency),
            KeySet::Play => (Feed::Program, Class::Viewer),
        };
        self.in_time(presented, key, request.now, near_miss)?;
        Ok(Grant::Play {
            feed,
            class,
            key: Some(key.id.clone()),
        })
    }

    /// `feed=source` is looked at only here: a URL that carries a signature is judged by its signature.
    fn play_unsigned(&self, request: &Request<'_>) -> Result<Grant, Refusal> {
        let wants_source = || signature::values(request.query, "feed").any(|feed| feed == "source");
        if self.config.peer == Access::Open && wants_source() {
            return Ok(Grant::Play {
                feed: Feed::Source,
                class: Class::LowLatency,
                key: None,
            });
        }
        if self.config.play_keys.is_empty() {
            return Ok(Grant::Play {
                feed: Feed::Program,
                class: Class::Viewer,
                key: None,
            });
        }
        Err(Refusal::new(
            Reason::SignatureMissing,
            "playing needs a signed URL; it has neither txSecret nor txTime",
        ))
    }

    /// The key a signature was made with. Looks at every key, so that the time taken does not tell which.
    fn signer(&self, presented: &Presented, stream: &StreamKey) -> Option<(KeySet, &Key)> {
        let Config {
            push_keys,
            peer_keys,
            play_keys,
            ..
        } = &self.config;
        let mut signer = None;
        for (set, keys) in [
            (KeySet::Push, push_keys),
            (KeySet::Peer, peer_keys),
            (KeySet::Play, play_keys),
        ] {
            for key in keys {
                let fits = presented.fits(&key.secret, stream.stream());
                if fits && signer.is_none() {
                    signer = Some((set, key));
                }
            }
        }
        signer
    }

    fn in_time(
        &self,
        presented: &Presented,
        key: &Key,
        now: SystemTime,
        near_miss: &mut Option<NearMiss>,
    ) -> Result<(), Refusal> {
        let expiry = presented.time.saturating_add(key.valid_for);
        let Some(late) = since_epoch(now)
            .checked_sub(expiry)
            .filter(|late| !late.is_zero())
        else {
            return Ok(());
        };
        let skew = self.config.clock_skew;
        if late <= skew {
            *near_miss = Some(NearMiss::Forgiven);
            return Ok(());
        }
        if late <= skew.saturating_add(NEAR_MISS) {
            *near_miss = Some(NearMiss::Refused);
        }
        let seconds = late.as_secs().max(1);
        let what = if key.valid_for.is_zero() {
            "txTime expired".to_owned()
        } else {
            let valid_for = humantime::format_duration(key.valid_for);
            format!("txTime plus the key's {valid_for} expired")
        };
        Err(Refusal::new(
            Reason::SignatureExpired,
            format!("{what} {seconds} s ago"),
        ))
    }
}

impl Authorizer for Policy {
    fn authorize<'a>(&'a self, request: &'a Request<'a>) -> Decision<'a> {
        let judgement = self.judge(request);
        match judgement.near_miss {
            Some(NearMiss::Forgiven) => self.forgiven.fetch_add(1, Ordering::Relaxed),
            Some(NearMiss::Refused) => self.refused.fetch_add(1, Ordering::Relaxed),
            None => 0,
        };
        Box::pin(std::future::ready(judgement.outcome))
    }
}

/// Said to a client whose signature was made with no key of ours, or for another name or txTime.
const FITS_NONE: &str =
    "txSecret fits none of the keys for this stream name and this exact text of txTime";

fn wrong(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::SignatureWrong, message)
}

fn unknown_key(set: KeySet, id: &str, keys: &[Key]) -> SignError {
    let known: Vec<_> = keys.iter().map(|key| key.id.as_str()).collect();
    SignError::UnknownKey {
        set,
        id: id.to_owned(),
        known: match known.as_slice() {
            [] => "none".to_owned(),
            ids => ids.join(", "),
        },
    }
}
