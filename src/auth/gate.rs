//! The gate: address lists, then bans, then signatures, then limits; and who is in.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::bans::{Ban, BanId, Bans, Subject, Who};
use super::guests::{Crowded, Ended, Guest, Guests, Stay};
use super::lists::AddressList;
use super::policy::Policy;
use super::{Action, Authorizer, Decision, Grant, Refusal, Request};
use crate::media::StreamKey;
use crate::memory::Memory;
use crate::net::host::{self, Budget, Exhausted, Host};
use crate::reason::Reason;

/// What limits refused, as metrics call them, in the order of [`Gate::refused`].
pub const LIMITS: [&str; 5] = [
    "publishers",
    "publishers_per_address",
    "memory",
    "cpu_percent",
    "egress_mbps",
];

/// What the gate is told by the configuration, and told anew when that is read again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Who may publish.
    pub publish: AddressList,
    /// Who may play, over whatever protocol.
    pub play: AddressList,
    /// Who may call the control API and see metrics.
    pub control: AddressList,
    pub limits: GuestLimits,
}

/// Bounds on publishers; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuestLimits {
    pub publishers: usize,
    /// From one IPv4 address or one IPv6 /64.
    pub publishers_per_address: usize,
}

/// Decides who comes in, remembers who is in, and shows out whom a new ban concerns.
#[derive(Debug)]
pub struct Gate {
    policy: Arc<Policy>,
    rules: ArcSwap<Rules>,
    bans: ArcSwap<Bans>,
    guests: Arc<Guests>,
    memory: Memory,
    host: Host,
    refused: [AtomicU64; LIMITS.len()],
}

impl Gate {
    /// A gate in front of `policy`, without bans.
    pub fn new(policy: Arc<Policy>, rules: Rules, memory: Memory) -> Self {
        Self {
            policy,
            rules: ArcSwap::from_pointee(rules),
            bans: ArcSwap::default(),
            guests: Arc::default(),
            memory,
            host: Host::new(Budget::default()),
            refused: Default::default(),
        }
    }

    /// A gate that also asks whether the host has room.
    #[must_use]
    pub fn on(mut self, host: Host) -> Self {
        self.host = host;
        self
    }

    /// As many publishers as there may be; 0: any number.
    pub fn most_publishers(&self) -> usize {
        self.rules.load().limits.publishers
    }

    /// Other lists and limits from now on. Whoever is in stays.
    pub fn set_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// Whether that address may call the control API.
    pub fn admits_control(&self, address: IpAddr) -> bool {
        self.rules.load().control.admits(address)
    }

    /// All bans, as of now.
    pub fn bans(&self) -> Arc<Bans> {
        self.bans.load_full()
    }

    /// These bans and no others from now on, as they were kept: at the start.
    pub fn set_bans(&self, bans: Bans) {
        self.bans.store(Arc::new(bans));
    }

    /// A ban holds from now on, one of the same id does not any more, and whoever is in and concerned is asked to go.
    ///
    /// Nobody slips between the two: who comes in is counted first and then asked whether there is a ban.
    pub fn ban(&self, ban: Ban) -> Ended {
        self.bans.rcu(|bans| {
            let mut bans = Bans::clone(bans);
            bans.insert(ban.clone());
            bans
        });
        self.guests.show_out(&ban)
    }

    /// A ban does not hold any more.
    pub fn pardon(&self, id: BanId) -> Option<Ban> {
        let before = self.bans.rcu(|bans| {
            let mut bans = Bans::clone(bans);
            bans.remove(id);
            bans
        });
        before.get(id).cloned()
    }

    /// Decides as for a client whose address is not known: to explain a URL. Address lists and bans of addresses, limits
    /// and counters stay out of it.
    ///
    /// # Errors
    /// The refusal that such a client would hear.
    pub fn explain(&self, request: &Request<'_>) -> Result<Grant, Refusal> {
        self.banned(request, None)?;
        let grant = self.policy.decide(request)?;
        self.banned(request, Some(&grant))?;
        Ok(grant)
    }

    /// Whether a ban of the stream, or of its application, keeps everybody from publishing it now.
    pub fn is_forbidden(&self, key: &StreamKey, now: SystemTime) -> bool {
        let who = Who {
            action: Action::Publish,
            key,
            address: Ipv4Addr::UNSPECIFIED.into(),
            key_id: None,
        };
        let bans = self.bans.load();
        let of_streams = |ban: &&Ban| matches!(ban.subject, Subject::Stream(_));
        let mut of_streams = bans.iter().filter(of_streams);
        of_streams.any(|ban| ban.concerns(&who) && ban.holds(now))
    }

    /// What [`LIMITS`] refused since the start.
    pub fn refused(&self) -> [u64; LIMITS.len()] {
        std::array::from_fn(|at| self.refused[at].load(Ordering::Relaxed))
    }

    /// What stands before any signature, and cannot be got round by one.
    fn before(&self, request: &Request<'_>) -> Result<(), Refusal> {
        let rules = self.rules.load();
        let (list, verb) = match request.action {
            Action::Publish => (&rules.publish, "publish"),
            Action::Play => (&rules.play, "play"),
        };
        if !list.admits(request.peer.ip()) {
            return Err(Refusal::new(
                Reason::AddressDenied,
                format!("your address may not {verb} here"),
            ));
        }
        self.banned(request, None)
    }

    /// Refuses whom a ban concerns. Says what is banned, and neither the note nor for how long.
    fn banned(&self, request: &Request<'_>, grant: Option<&Grant>) -> Result<(), Refusal> {
        let who = Who {
            action: request.action,
            key: request.key,
            address: request.peer.ip(),
            key_id: grant.and_then(Grant::key),
        };
        let bans = self.bans.load();
        let Some(ban) = bans.find(&who, request.now) else {
            return Ok(());
        };
        let (reason, message) = match ban.subject {
            Subject::Address(_) => (Reason::AddressDenied, "your address is banned"),
            Subject::Stream(_) => (Reason::Forbidden, "this stream is forbidden"),
            Subject::Key(_) => (
                Reason::Forbidden,
                "the key that the URL is signed with is banned",
            ),
        };
        Err(Refusal::new(reason, message))
    }

    fn full(&self, limit: usize, reason: Reason, message: impl Into<String>) -> Refusal {
        self.refused[limit].fetch_add(1, Ordering::Relaxed);
        Refusal::new(reason, message)
    }
}

impl Authorizer for Gate {
    fn authorize<'a>(&'a self, request: &'a Request<'a>) -> Decision<'a> {
        Box::pin(async move {
            self.before(request)?;
            let grant = self.policy.authorize(request).await?;
            self.banned(request, Some(&grant))?;
            Ok(grant)
        })
    }

    fn admit(&self, request: &Request<'_>, grant: &Grant) -> Result<Stay, Refusal> {
        if self.memory.is_full() {
            return Err(self.full(2, Reason::Overloaded, "the server is full; try again later"));
        }
        let guest = match request.action {
            Action::Publish => host::Guest::Publisher,
            Action::Play => host::Guest::Player,
        };
        if let Err(exhausted) = self.host.admit(guest) {
            let limit = match exhausted {
                Exhausted::Cpu { .. } => 3,
                Exhausted::Egress { .. } => 4,
            };
            return Err(self.full(limit, Reason::Overloaded, exhausted.to_string()));
        }
        let GuestLimits {
            publishers,
            publishers_per_address,
        } = self.rules.load().limits;
        let guest = Guest {
            action: request.action,
            key: request.key.clone(),
            address: request.peer.ip(),
            key_id: grant.key().cloned(),
            end: CancellationToken::new(),
        };
        let stay = self
            .guests
            .enter(guest, publishers, publishers_per_address)
            .map_err(|crowded| match crowded {
                Crowded::Total => self.full(
                    0,
                    Reason::LimitReached,
                    format!("{publishers} publishers are here, as many as there may be"),
                ),
                Crowded::Address => self.full(
                    1,
                    Reason::LimitReached,
                    format!("{publishers_per_address} publishers from your address are here, as many as there may be"),
                ),
            })?;
        // A ban made since the request was decided found nobody to show out.
        self.banned(request, Some(grant))?;
        Ok(stay)
    }
}

#[cfg(test)]
mod tests;
