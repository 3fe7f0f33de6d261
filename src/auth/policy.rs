//! The one decision over the key sets: which feed, which class, or why not.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use super::key::{Access, AppKeys, Config, Key, KeySet, KeyStatus, Phase, Purpose, Role, Usage};
use super::signature::{self, Presented, since_epoch};
use super::{Action, Authorizer, Decision, Grant, Refusal, Request, Secret};
use crate::media::{Class, Feed, PerApp, StreamKey};
use crate::reason::Reason;

/// A URL refused this little after its expiry is counted as a near miss: clocks apart, not a stale link.
const NEAR_MISS: Duration = Duration::from_secs(60);

/// Why a URL cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("no {set} key is configured to sign with")]
    NoKey { set: KeySet },
    #[error("no {set} key is valid now")]
    NoneValid { set: KeySet },
    #[error("{set} key \"{id}\" is not valid now")]
    NotValid { set: KeySet, id: String },
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
    rings: ArcSwap<Rings>,
    forgiven: AtomicU64,
    refused: AtomicU64,
}

/// The keys of one configuration: those that hold for all, and those of each application that has its own.
#[derive(Debug)]
struct Rings {
    shared: Ring,
    apps: PerApp<Ring>,
}

impl Rings {
    fn new(config: &Config, before: Option<&Rings>) -> Self {
        let known = |set, key: &Key| before.and_then(|rings| rings.usage(set, key));
        let shared = Ring::new(config.of(&AppKeys::default()), known);
        // What is not its own an application shares, counters and all.
        let ring = |own: &AppKeys| {
            Ring::new(config.of(own), |set, key| match own.keys(set) {
                Some(_) => known(set, key),
                None => shared.usage(set, key),
            })
        };
        let named = config.apps.named.iter();
        let apps = PerApp {
            named: named.map(|(app, own)| (app.clone(), ring(own))).collect(),
            others: config.apps.others.as_ref().map(ring),
        };
        Self { shared, apps }
    }

    /// What holds in an application.
    fn of(&self, app: &str) -> &Ring {
        self.apps.find(app).unwrap_or(&self.shared)
    }

    /// Those that hold for all, then each application's in the order of names, `*` last.
    fn all(&self) -> impl Iterator<Item = (Option<&str>, &Ring)> {
        let mut named: Vec<_> = self.apps.named.iter().collect();
        named.sort_by_key(|(app, _)| *app);
        let named = named
            .into_iter()
            .map(|(app, ring)| (Some(app.as_str()), ring));
        let others = self.apps.others.iter().map(|ring| (Some("*"), ring));
        std::iter::once((None, &self.shared))
            .chain(named)
            .chain(others)
    }

    fn usage(&self, set: KeySet, key: &Key) -> Option<Arc<Usage>> {
        self.all().find_map(|(_, ring)| ring.usage(set, key))
    }
}

/// The keys that hold in one place, beside the use that was made of each, and that outlives it.
#[derive(Debug)]
struct Ring {
    config: Config,
    /// Per set, in the order of its keys.
    usage: [Vec<Arc<Usage>>; 3],
}

impl Ring {
    fn new(config: Config, known: impl Fn(KeySet, &Key) -> Option<Arc<Usage>>) -> Self {
        let usage = KeySet::ALL.map(|set| {
            let keys = config.keys(set).iter();
            keys.map(|key| known(set, key).unwrap_or_default())
                .collect()
        });
        Self { config, usage }
    }

    fn usage(&self, set: KeySet, key: &Key) -> Option<Arc<Usage>> {
        let keys = self.config.keys(set);
        let at = keys.iter().position(|other| other.id == key.id)?;
        self.usage[set as usize].get(at).cloned()
    }

    /// Which key of a set signs at that time when none is asked for.
    fn signing(&self, set: KeySet, now: SystemTime) -> Option<&Key> {
        let valid = |role| {
            let mut keys = self.config.keys(set).iter();
            keys.find(move |key| key.role == role && key.window.phase(now) == Phase::Valid)
        };
        valid(Role::Primary).or_else(|| valid(Role::Backup))
    }
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
            rings: ArcSwap::from_pointee(Rings::new(&config, None)),
            forgiven: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Other keys from now on. Whoever was let in stays; a key that keeps its set and id keeps its counters.
    pub fn rotate(&self, config: Config) {
        // Not a compare-and-swap: who rotates does so one after the other.
        let before = self.rings.load();
        self.rings
            .store(Arc::new(Rings::new(&config, Some(&before))));
    }

    /// Every key as it may be shown, as of `now`: those that hold for all in the order of the configuration, then each
    /// application's own.
    pub fn keys(&self, now: SystemTime) -> Vec<KeyStatus> {
        let rings = self.rings.load();
        let mut shown = Vec::new();
        let mut told = HashSet::new();
        for (app, ring) in rings.all() {
            for set in KeySet::ALL {
                let signing = ring.signing(set, now).map(|key| &key.id);
                let keys = ring.config.keys(set).iter().zip(&ring.usage[set as usize]);
                // What an application shares was told already: an id stands once in all sets of a kind.
                let new = keys.filter(|(key, _)| told.insert((set, key.id.clone())));
                shown.extend(new.map(|(key, usage)| KeyStatus {
                    app: app.map(str::to_owned),
                    set,
                    id: key.id.clone(),
                    role: key.role,
                    window: key.window,
                    phase: key.window.phase(now),
                    valid_for: key.valid_for,
                    signs: signing == Some(&key.id),
                    hits: usage.hits(),
                    last_used: usage.last(),
                }));
            }
        }
        shown
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
    pub fn push_secret(&self, id: &str) -> Option<Secret> {
        let rings = self.rings.load();
        let mut keys = rings.all().flat_map(|(_, ring)| &ring.config.push_keys);
        let key = keys.find(|key| key.id.as_str() == id)?;
        Some(key.secret.clone())
    }

    /// The query that makes a URL for `stream` good for `purpose` until `expires_at`, signed with a key that is valid
    /// at `now`.
    ///
    /// `key` picks a key by id; else the set's first valid primary key signs, and the first valid backup key while no
    /// primary one is valid. `None`: a plain URL does, nothing needs signing.
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
        now: SystemTime,
    ) -> Result<Option<String>, SignError> {
        let rings = self.rings.load();
        let ring = rings.of(stream.app());
        let config = &ring.config;
        let set = match purpose {
            Purpose::Push => KeySet::Push,
            Purpose::Peer if config.peer_keys.is_empty() => KeySet::Push,
            Purpose::Peer => KeySet::Peer,
            Purpose::View => KeySet::Play,
        };
        let keys = config.keys(set);
        let chosen = match key {
            Some(id) => {
                let found = keys.iter().find(|key| key.id.as_str() == id);
                let found = found.ok_or_else(|| unknown_key(set, id, keys))?;
                if found.window.phase(now) != Phase::Valid {
                    let id = id.to_owned();
                    return Err(SignError::NotValid { set, id });
                }
                Some(found)
            }
            None => ring.signing(set, now),
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
            (None, Purpose::Push) if config.push == Access::Open => Ok(None),
            (None, Purpose::Peer) if config.peer == Access::Open => {
                Ok(Some("feed=source".to_owned()))
            }
            (None, _) if !keys.is_empty() => Err(SignError::NoneValid { set }),
            (None, Purpose::View) => Ok(None),
            (None, Purpose::Push | Purpose::Peer) => Err(SignError::NoKey { set }),
        }
    }

    fn judge(&self, request: &Request<'_>) -> Judgement {
        self.rings.load().of(request.key.app()).judge(request)
    }
}

impl Ring {
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
            Some((set @ KeySet::Push, key)) => {
                self.in_time(presented, key, request.now, near_miss)?;
                in_window(set, key, request.now)?;
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
        in_window(set, key, request.now)?;
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
        let mut signer = None;
        for set in KeySet::ALL {
            for key in self.config.keys(set) {
                let fits = presented.fits(&key.secret, stream.stream());
                if fits && signer.is_none() {
                    signer = Some((set, key));
                }
            }
        }
        signer
    }

    /// A grant names its key but not the set, which follows from what was granted.
    fn count(&self, grant: &Grant, now: SystemTime) {
        let Some(id) = grant.key() else { return };
        let set = match grant {
            Grant::Publish { .. } => KeySet::Push,
            Grant::Play {
                feed: Feed::Program,
                ..
            } => KeySet::Play,
            Grant::Play { .. } if self.config.peer_keys.is_empty() => KeySet::Push,
            Grant::Play { .. } => KeySet::Peer,
        };
        let keys = self.config.keys(set);
        let at = keys.iter().position(|key| key.id == *id);
        if let Some(usage) = at.and_then(|at| self.usage[set as usize].get(at)) {
            usage.hit(now);
        }
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
        let rings = self.rings.load();
        let ring = rings.of(request.key.app());
        let judgement = ring.judge(request);
        if let Ok(grant) = &judgement.outcome {
            ring.count(grant, request.now);
        }
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

fn in_window(set: KeySet, key: &Key, now: SystemTime) -> Result<(), Refusal> {
    let said = match key.window.phase(now) {
        Phase::Valid => return Ok(()),
        Phase::Upcoming => "is not valid yet",
        Phase::Retired => "is not valid any more",
    };
    Err(Refusal::new(
        Reason::KeyNotValid,
        format!("the {set} key that the URL is signed with {said}"),
    ))
}

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
