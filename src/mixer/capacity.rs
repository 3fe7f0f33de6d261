//! How much the mixes need and may need: the reckoning of [`cost`] over what runs.

use std::collections::HashMap;
use std::sync::Arc;

use super::cost::{self, Picture};
use super::scene::Scene;
use super::sentinel;
use super::session::Session;
use super::{Error, Mixer};
use crate::media::{Feed, StreamKey};

/// How much there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Mixes with a faster preset than asked for, and all pictures.
    pub by_preset: usize,
    /// Mixes with half of their pictures.
    pub by_pictures: usize,
    /// What mixes may cost together, in units: hundredths of a core, about.
    pub budget: u32,
    /// What they are reckoned to cost.
    pub cost: u32,
    /// Is there room for another everyday mix, of four anchors at 540×960 and 20 frames a second?
    pub can_accept: bool,
}

impl Mixer {
    /// What the mixes cost and may cost, and what they make less of.
    pub fn load(&self) -> Load {
        let sessions = self.sessions();
        let demands: Vec<_> = sessions
            .values()
            .map(|session| self.demand(&sessions, &session.scene(), Some(session)))
            .collect();
        let degraded: Vec<_> = sessions
            .values()
            .filter_map(|session| session.degraded())
            .collect();
        drop(sessions);
        let count = |half| degraded.iter().filter(|d| d.half_pictures == half).count();
        let everyday = cost::everyday(self.defaults());
        Load {
            by_preset: count(false),
            by_pictures: count(true),
            budget: self.budget(),
            cost: cost::total(&demands),
            can_accept: cost::can_accept(&demands, None, &everyday, self.budget()).is_ok(),
        }
    }

    fn budget(&self) -> u32 {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let configured = self.shared.context.config.budget;
        configured.unwrap_or_else(|| cost::budget(cores()))
    }

    fn defaults(&self) -> cost::Defaults<'_> {
        cost::Defaults {
            encoder: self.shared.context.encoder.kind,
            preset: &self.shared.context.config.preset,
        }
    }

    /// What `scene` needs, as far as the running mixes know its streams.
    fn demand(
        &self,
        sessions: &HashMap<String, Arc<Session>>,
        scene: &Scene,
        running: Option<&Arc<Session>>,
    ) -> cost::Demand {
        let own = running.map_or((None, None), |session| session.format());
        cost::demand(scene, self.defaults(), own, |key| {
            let seen = sessions.values().find_map(|session| session.pictures(key));
            seen.or_else(|| self.on_air(key))
        })
    }

    /// What the relay has of a stream that no mix decodes: its header's picture, at the pace of its newest GOP. `None` of
    /// one that is not there, or in a codec whose header is not read here.
    fn on_air(&self, key: &StreamKey) -> Option<Picture> {
        let relay = &self.shared.context.relay;
        relay.stream_info(key)?.publisher?;
        let size = sentinel::size(&relay.watch(key, Feed::Source).headers())?;
        let fps = relay.cadence(key).fps().unwrap_or(cost::MAIN.fps);
        Some(Picture { size, fps })
    }

    /// Has the machine room for it?
    pub(super) fn check_cost(
        &self,
        sessions: &HashMap<String, Arc<Session>>,
        id: &str,
        scene: &Scene,
    ) -> Result<(), Error> {
        let others = sessions.iter().filter(|(other, _)| *other != id);
        let others: Vec<_> = others
            .map(|(_, other)| self.demand(sessions, &other.scene(), Some(other)))
            .collect();
        let running = sessions.get(id);
        let old = running.map(|session| self.demand(sessions, &session.scene(), running));
        let new = self.demand(sessions, scene, running);
        cost::can_accept(&others, old.as_ref(), &new, self.budget()).map_err(|overload| {
            let cost::Overload { cost, used, budget } = overload;
            Error::Overloaded { cost, used, budget }
        })
    }
}
