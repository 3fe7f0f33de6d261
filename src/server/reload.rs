//! What of a new configuration holds at once, and what waits for the next start.
//!
//! A configuration with a mistake never comes here: whoever reads it says so and changes nothing. Whoever publishes or
//! plays stays, whatever changes.

use std::sync::{Arc, Mutex};

use tracing::{error, info, warn};

use super::rooms;
use crate::auth::{self, AppKeys, Gate, Policy};
use crate::config::{self, Config};
use crate::ingest::Ingest;
use crate::media::PerApp;
use crate::memory::Memory;
use crate::net::Admission;
use crate::net::tls::Certificates;

/// What became of a configuration that was read again. Keys are paths, `auth` for all below it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Changed, and holds now.
    pub applied: Vec<&'static str>,
    /// Changed, and holds from the next start on.
    pub needs_restart: Vec<&'static str>,
}

/// The handles through which a running server changes.
pub(super) struct Live {
    pub policy: Arc<Policy>,
    pub gate: Arc<Gate>,
    pub ingest: Ingest,
    pub admission: Admission,
    pub memory: Memory,
    /// Files are read again although the configuration names the same ones.
    pub certificates: Option<Arc<Certificates>>,
    /// What the last configuration said; held while another one is applied.
    pub config: Mutex<Config>,
}

impl Live {
    /// Makes `new` hold as far as it can.
    pub(super) fn apply(&self, new: Config) -> Report {
        let mut held = self.config.lock().unwrap_or_else(|e| e.into_inner());
        let report = compare(&held, &new);
        self.gate.set_rules(rooms::rules(&new));
        self.admission.bound(rooms::bounds(&new));
        self.memory.limit_to(new.limits.memory);
        *held = carried(&held, new);
        self.policy.rotate(held.auth.clone());
        self.ingest.set_apps(rooms::ingest_apps(&held));
        report
    }
}

/// Has the configuration read and applied. One line in the log tells what came of it.
pub(super) fn reload(live: &Live, read: Result<Config, config::Error>) -> Option<Report> {
    let config = match read {
        Ok(config) => config,
        Err(error) => {
            let mistakes = error.to_string().replace('\n', "; ");
            error!("configuration not reloaded, nothing changed: {mistakes}");
            return None;
        }
    };
    if let Some(certificates) = &live.certificates
        && let Err(why) = certificates.reload()
    {
        error!("configuration not reloaded, nothing changed: rtmps: {why}");
        return None;
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
    Some(report)
}

/// Which parts differ. Every section is named, so that a new one cannot be forgotten here.
fn compare(old: &Config, new: &Config) -> Report {
    let Config {
        rtmp,
        rtmps,
        http,
        control,
        compat,
        hooks,
        access,
        auth,
        apps,
        push,
        links,
        classes,
        limits,
        mixer,
        state,
        log,
    } = new;
    let config::Limits {
        connections,
        connections_per_address,
        publishers,
        publishers_per_address,
        memory,
        waiting_per_name: _,
        waiting_per_address: _,
        waiting_total: _,
        wait: _,
        handshake: _,
        gop_bytes: _,
        gop_time: _,
    } = limits;
    // What would hold: it differs from `new` where a change has to wait.
    let left = carried(old, new.clone());
    let live = [
        (
            "access",
            config::AccessLists {
                trusted_proxies: access.trusted_proxies.clone(),
                ..old.access.clone()
            } != *access,
        ),
        (
            "auth",
            auth::Config {
                apps: auth.apps.clone(),
                ..old.auth.clone()
            } != *auth,
        ),
        ("apps.*.keys", old.auth.apps != left.auth.apps),
        (
            "apps.*.publish_idle",
            differ(&old.apps, apps, |app| app.publish_idle),
        ),
        (
            "apps.*.max_kbps",
            differ(&old.apps, apps, |app| app.max_kbps),
        ),
        ("limits.connections", old.limits.connections != *connections),
        (
            "limits.connections_per_address",
            old.limits.connections_per_address != *connections_per_address,
        ),
        ("limits.publishers", old.limits.publishers != *publishers),
        (
            "limits.publishers_per_address",
            old.limits.publishers_per_address != *publishers_per_address,
        ),
        ("limits.memory", old.limits.memory != *memory),
    ];
    let fixed = [
        ("rtmp", old.rtmp != *rtmp),
        ("rtmps", old.rtmps != *rtmps),
        ("http", old.http != *http),
        ("control", old.control != *control),
        ("compat", old.compat != *compat),
        ("hooks", old.hooks != *hooks),
        (
            "access.trusted_proxies",
            old.access.trusted_proxies != access.trusted_proxies,
        ),
        ("apps", left.apps != *apps),
        ("push", old.push != *push),
        ("links", old.links != *links),
        ("classes", old.classes != *classes),
        ("limits", left.limits != *limits),
        ("mixer", old.mixer != *mixer),
        ("state", old.state != *state),
        ("log", old.log != *log),
    ];
    let changed = |parts: &[(&'static str, bool)]| {
        let changed = parts.iter().filter(|(_, changed)| *changed);
        changed.map(|(path, _)| *path).collect()
    };
    Report {
        applied: changed(&live),
        needs_restart: changed(&fixed),
    }
}

/// What holds after `new` was applied to `old`: what cannot change is as it was.
fn carried(old: &Config, new: Config) -> Config {
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
            ..old.limits.clone()
        },
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

/// Whether an application that is there in both has another value.
fn differ<T: PartialEq>(
    old: &config::Apps,
    new: &config::Apps,
    value: impl Fn(&config::App) -> T,
) -> bool {
    old.names()
        .any(|name| match (old.named(name), new.named(name)) {
            (Some(old), Some(new)) => value(old) != value(new),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Env;

    fn parse(text: &str) -> Config {
        Config::parse(text, "test", &Env::default()).unwrap()
    }

    #[test]
    fn each_change_is_said_to_hold_now_or_after_a_restart() {
        let old = parse("[apps.live]\n[apps.film]");
        for (text, applied, needs_restart) in [
            ("[apps.live]\n[apps.film]", &[][..], &[][..]),
            (
                "[apps.live]\nmax_kbps = 5000\n[apps.film]",
                &["apps.*.max_kbps"],
                &[],
            ),
            (
                "[apps.live]\npublish_idle = \"1s\"\nrepublish_grace = \"1s\"\n[apps.film]",
                &["apps.*.publish_idle"],
                &["apps"],
            ),
            ("[apps.live]", &[], &["apps"]),
            ("[apps.live]\n[apps.film]\n[apps.more]", &[], &["apps"]),
            (
                "[apps.live]\n[apps.film]\n[limits]\npublishers = 5\nmemory = 0\nwait = \"1s\"",
                &["limits.publishers", "limits.memory"],
                &["limits"],
            ),
            (
                "[apps.live]\n[apps.film]\n[auth]\npush = \"open\"\n[access]\nplay = { deny = [\"192.0.2.1\"] }\n[rtmp]\nlisten = \"127.0.0.1:1\"",
                &["access", "auth"],
                &["rtmp"],
            ),
            (
                "[apps.live]\nplay_keys = [{ id = \"a\", secret = \"0123456789abcdef\" }]\n[apps.film]",
                &["apps.*.keys"],
                &[],
            ),
            (
                "[apps.live]\npush = [{ match = \"*\", url = \"rtmp://h/a/{stream}\" }]\n[apps.film]",
                &[],
                &["apps"],
            ),
        ] {
            let report = compare(&old, &parse(text));
            assert_eq!(
                (&report.applied[..], &report.needs_restart[..]),
                (applied, needs_restart),
                "{text}"
            );
        }
    }

    #[test]
    fn what_waits_for_a_restart_is_said_again_until_then() {
        let old = parse("");
        let new = parse("[limits]\nwait = \"1s\"\npublishers = 5");
        let held = carried(&old, new.clone());
        assert_eq!(compare(&held, &new).needs_restart, ["limits"]);
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
