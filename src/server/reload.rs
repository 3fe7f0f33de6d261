//! What of a new configuration holds at once, and what waits for the next start.
//!
//! A configuration with a mistake never comes here: whoever reads it says so and changes nothing. Whoever publishes or
//! plays stays, whatever changes.

use std::sync::{Arc, Mutex};

use tracing::{error, info, warn};

use super::differences::compare;
use super::rooms;
use crate::auth::{self, AppKeys, Gate, Policy};
use crate::config::{self, Config, Remark};
use crate::ingest::Ingest;
use crate::media::PerApp;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::net::Admission;
use crate::net::host::Host;
use crate::net::tls::Certificates;

/// What became of a configuration that was read again. Keys are paths, like `apps.live.max_kbps`; a list or a table of names
/// (`auth.push_keys`, `mixer.pictures`) is one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Changed, and holds now.
    pub applied: Vec<String>,
    /// Changed, and holds from the next start on.
    pub needs_restart: Vec<String>,
}

/// Why nothing has changed.
#[derive(Debug)]
pub enum Rejected {
    /// There is nothing to read.
    Nothing,
    /// What is wrong, by keys.
    Mistakes(Vec<Remark>),
}

/// The handles through which a running server changes.
pub(super) struct Live {
    pub policy: Arc<Policy>,
    pub gate: Arc<Gate>,
    pub ingest: Ingest,
    pub admission: Admission,
    pub memory: Memory,
    pub metrics: Arc<Metrics>,
    pub host: Host,
    /// Files are read again although the configuration names the same ones.
    pub certificates: Option<Arc<Certificates>>,
    /// What the last configuration said; held while another one is applied.
    pub config: Mutex<Config>,
}

impl Live {
    /// What the last configuration said that could be applied.
    pub(super) fn held(&self) -> Config {
        let held = self.config.lock().unwrap_or_else(|e| e.into_inner());
        held.clone()
    }

    /// Makes `new` hold as far as it can.
    pub(super) fn apply(&self, new: Config) -> Report {
        let mut held = self.config.lock().unwrap_or_else(|e| e.into_inner());
        let report = compare(&held, &new);
        self.gate.set_rules(rooms::rules(&new));
        self.admission.bound(rooms::bounds(&new));
        self.memory.limit_to(new.limits.memory);
        self.metrics.cap_streams(new.metrics.streams());
        self.host.bound(rooms::host_budget(&new));
        *held = carried(&held, new);
        self.policy.rotate(held.auth.clone());
        self.ingest.set_apps(rooms::ingest_apps(&held));
        report
    }
}

/// Has the configuration read and applied. One line in the log tells what came of it.
pub(super) fn reload(live: &Live, read: Result<Config, config::Error>) -> Result<Report, Rejected> {
    let config = match read {
        Ok(config) => config,
        Err(error) => {
            let mistakes = error.to_string().replace('\n', "; ");
            error!("configuration not reloaded, nothing changed: {mistakes}");
            let remark = |path: &str, message: String| Remark {
                path: path.to_owned(),
                message,
            };
            return Err(Rejected::Mistakes(match error {
                config::Error::Invalid(remarks) => remarks,
                // Of neither a key is known. The file's name is the operator's own.
                config::Error::Syntax { message, .. } => vec![remark("", message)],
                read @ config::Error::Read { .. } => vec![remark("", read.to_string())],
            }));
        }
    };
    if let Some(certificates) = &live.certificates
        && let Err(why) = certificates.reload()
    {
        error!("configuration not reloaded, nothing changed: rtmps: {why}");
        return Err(Rejected::Mistakes(vec![Remark {
            path: "rtmps.certificate".to_owned(),
            message: why.to_string(),
        }]));
    }
    super::warn_of(&config);
    let report = live.apply(config);
    let Report {
        applied,
        needs_restart,
    } = &report;
    let certificate = live.certificates.is_some();
    if needs_restart.is_empty() {
        info!(?applied, certificate, "configuration reloaded");
    } else {
        warn!(
            ?applied,
            ?needs_restart,
            certificate,
            "configuration reloaded, but not all of it holds before a restart"
        );
    }
    Ok(report)
}

/// What holds after `new` was applied to `old`: what cannot change is as it was.
pub(super) fn carried(old: &Config, new: Config) -> Config {
    let mut apps = old.apps.clone();
    apps.update(|name, app| {
        if let Some(new) = new.apps.named(name) {
            app.publish_idle = new.publish_idle;
            app.max_kbps = new.max_kbps;
        }
    });
    let auth = auth::Config {
        apps: carried_keys(old, &new),
        ..new.auth
    };
    Config {
        access: config::AccessLists {
            trusted_proxies: old.access.trusted_proxies.clone(),
            ..new.access
        },
        auth,
        apps,
        limits: config::Limits {
            connections: new.limits.connections,
            connections_per_address: new.limits.connections_per_address,
            publishers: new.limits.publishers,
            publishers_per_address: new.limits.publishers_per_address,
            memory: new.limits.memory,
            cpu_percent: new.limits.cpu_percent,
            egress_mbps: new.limits.egress_mbps,
            ..old.limits.clone()
        },
        metrics: new.metrics,
        drain: new.drain,
        ..old.clone()
    }
}

/// Keys of applications' own: what `new` says of those that it still has; one that it has no more is there until the
/// next start, and what opened it until then does.
fn carried_keys(old: &Config, new: &Config) -> PerApp<AppKeys> {
    let mut keys = new.auth.apps.clone();
    for app in old.apps.names().filter(|app| new.apps.named(app).is_none()) {
        if app == config::Apps::ANY {
            keys.others = old.auth.apps.others.clone();
        } else if let Some(own) = old.auth.apps.named.get(app) {
            keys.named.insert(app.to_owned(), own.clone());
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Env;

    fn parse(text: &str) -> Config {
        Config::parse(text, "test", &Env::default()).unwrap()
    }

    #[test]
    fn what_waits_for_a_restart_is_said_again_until_then() {
        let old = parse("");
        let new = parse("[limits]\nwait = \"1s\"\npublishers = 5");
        let held = carried(&old, new.clone());
        assert_eq!(compare(&held, &new).needs_restart, ["limits.wait"]);
        assert_eq!(compare(&held, &new).applied, [""; 0]);
        assert_eq!(compare(&held, &old).applied, ["limits.publishers"]);
    }

    #[test]
    fn an_application_that_is_there_until_a_restart_keeps_its_own_keys_until_then() {
        let keys =
            |id: &str| format!("push_keys = [{{ id = \"{id}\", secret = \"0123456789-{id}\" }}]");
        let old = format!("[apps.live]\n{}\n[apps.film]\n{}", keys("a"), keys("b"));
        let new = parse(&format!("[apps.live]\n{}", keys("c")));
        let held = carried(&parse(&old), new).auth.apps;
        let ids = |app| {
            let own = held.named.get(app)?.push_keys.as_ref()?;
            Some(own.iter().map(|key| key.id.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(ids("live"), Some(vec!["c".to_owned()]));
        assert_eq!(ids("film"), Some(vec!["b".to_owned()]));
    }
}
