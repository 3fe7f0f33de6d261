//! What operators ask of a running server, by signals or through the API: to read its configuration again, and to drain.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::info;

use super::pulse;
use super::reload::{self, Live, Rejected, Report};
use crate::api;
use crate::config::{self, Config};
use crate::relay::Relay;

type Read = Box<dyn Fn() -> Result<Config, config::Error> + Send + Sync>;

/// How the server is to go down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// By then it is down, whoever is still there.
    pub deadline: Instant,
    /// Another process has the listeners and the state.
    pub is_handed: bool,
}

/// Handle on what is asked. Cheap to clone.
#[derive(Clone)]
pub struct Operations(Arc<Inner>);

struct Inner {
    live: Arc<Live>,
    relay: Relay,
    /// How the configuration is read again; absent where there is nothing to read.
    read: OnceLock<Read>,
    /// One reload at a time, so that the last one that was asked for is the one that holds.
    reloading: Mutex<()>,
    drain: watch::Sender<Option<Drain>>,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

impl Operations {
    pub(super) fn new(live: Arc<Live>, relay: Relay) -> Self {
        Self(Arc::new(Inner {
            live,
            relay,
            read: OnceLock::new(),
            reloading: Mutex::new(()),
            drain: watch::Sender::new(None),
        }))
    }

    /// How the configuration is read from now on; the first who says so.
    pub fn read_with(
        &self,
        read: impl Fn() -> Result<Config, config::Error> + Send + Sync + 'static,
    ) {
        let _ = self.0.read.set(Box::new(read));
    }

    /// Has the configuration read and applied as far as it can be. Blocks on files.
    ///
    /// # Errors
    /// What is wrong with it: then nothing has changed.
    pub fn reload(&self) -> Result<Report, Rejected> {
        let read = self.0.read.get().ok_or(Rejected::Nothing)?;
        let _one = self
            .0
            .reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        pulse::reloading();
        let outcome = reload::reload(&self.0.live, read());
        pulse::ready(&pulse::status(&self.0.relay));
        outcome
    }

    /// The default of the configuration, as it is now.
    pub fn patience(&self) -> Duration {
        self.0.live.held().drain.deadline
    }

    /// Has the server drain, or changes by when it is down. One that was handed over stays so.
    pub fn drain(&self, within: Duration, is_handed: bool) -> Drain {
        let mut order = Drain {
            deadline: Instant::now() + within,
            is_handed,
        };
        self.0.drain.send_modify(|drain| {
            order.is_handed |= drain.is_some_and(|before| before.is_handed);
            *drain = Some(order);
        });
        info!(
            within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            is_handed, "draining"
        );
        order
    }

    /// Hears what was last asked for.
    pub fn orders(&self) -> watch::Receiver<Option<Drain>> {
        self.0.drain.subscribe()
    }

    pub fn is_draining(&self) -> bool {
        self.0.drain.borrow().is_some()
    }

    /// Whether another process has taken over.
    pub(super) fn is_handed(&self) -> bool {
        self.0.drain.borrow().is_some_and(|drain| drain.is_handed)
    }
}

impl api::Operator for Operations {
    fn reload(&self) -> Result<api::Reloaded, api::NotReloaded> {
        match self.reload() {
            Ok(report) => Ok(api::Reloaded {
                applied: report.applied,
                needs_restart: report.needs_restart,
            }),
            Err(Rejected::Nothing) => Err(api::NotReloaded::Nothing),
            Err(Rejected::Mistakes(mistakes)) => {
                let mistakes = mistakes
                    .into_iter()
                    .map(|remark| (remark.path, remark.message));
                Err(api::NotReloaded::Mistakes(mistakes.collect()))
            }
        }
    }

    fn drain(&self, within: Option<Duration>) -> Duration {
        let within = within.unwrap_or_else(|| self.patience());
        self.drain(within, false);
        within
    }

    fn drains_until(&self) -> Option<Instant> {
        self.0.drain.borrow().map(|drain| drain.deadline)
    }
}
