//! What concerns more than one key: contradictions, which are mistakes, and what is allowed but risky.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use ipnet::IpNet;

use super::reader::Reader;
use super::{Apps, Config, Remark, TokenSource};
use crate::auth::{self, Access, Key, KeySet, Phase, Secret};
use crate::media::Class;

/// Most keys over all sets. Every one is tried against every signature, and has its own series in the metrics.
const MAX_KEYS: usize = 100;

/// Shorter secrets can be found by trying; the vendor's own have 32 characters.
const SHORT_SECRET: usize = 16;

/// Notes contradictions between keys.
pub(super) fn consistency(config: &Config, reader: &Reader) {
    keys(&config.auth, reader);
    listeners(config, reader);
    doors(config, reader);
    windows(config, reader);
    super::compat::consistency(config, reader);
    super::hooks::consistency(config, reader);
    for (at, rule) in config.push.rules.iter().enumerate() {
        if config.app(&rule.app).is_none() {
            let known: Vec<_> = config.apps.names().collect();
            reader.mistake(
                format!("push.rules[{at}].app"),
                format!(
                    "no application {:?} is configured; there are: {}",
                    rule.app,
                    known.join(", ")
                ),
            );
        }
    }
}

fn windows(config: &Config, reader: &Reader) {
    for class in [Class::LowLatency, Class::Viewer] {
        let limits = config.classes.of(class);
        if 2 * limits.merge_window > limits.max_lag {
            reader.mistake(
                format!("classes.{}.merge_window", class.as_str()),
                format!(
                    "{} is more than half of max_lag, {}; every reader would count as late",
                    humantime::format_duration(limits.merge_window),
                    humantime::format_duration(limits.max_lag)
                ),
            );
        }
    }
}

fn keys(auth: &auth::Config, reader: &Reader) {
    let keys: Vec<_> = all_keys(auth).collect();
    if keys.len() > MAX_KEYS {
        let found = keys.len();
        reader.mistake(
            "auth",
            format!("{found} keys; at most {MAX_KEYS} are allowed over all sets and applications"),
        );
        return;
    }
    for (at, (path, set, key)) in keys.iter().enumerate() {
        for (earlier_path, earlier_set, earlier) in &keys[..at] {
            if key.secret == earlier.secret {
                reader.mistake(
                    format!("{path}.secret"),
                    format!("the same secret as {earlier_path}.secret; each key needs its own"),
                );
            }
            // Over all applications: bans, counters and metrics know a key by set and id.
            if set == earlier_set && key.id == earlier.id {
                reader.mistake(
                    format!("{path}.id"),
                    format!("the same id as {earlier_path}.id"),
                );
            }
        }
    }
}

fn listeners(config: &Config, reader: &Reader) {
    let mut taken: HashMap<SocketAddr, &str> = HashMap::new();
    for (path, listen) in config.listeners() {
        // Port 0 is a different free port each time.
        for &address in listen.iter().filter(|address| address.port() != 0) {
            match taken.get(&address) {
                Some(&other) if other != path => {
                    reader.mistake(path, format!("{address} is taken by {other}"));
                }
                _ => {
                    taken.insert(address, path);
                }
            }
        }
    }
}

/// Listeners that nobody could come through.
fn doors(config: &Config, reader: &Reader) {
    for (path, listen) in [
        ("rtmps.listen", &config.rtmps.listen),
        ("http.tls_listen", &config.http.tls_listen),
    ] {
        if !listen.is_empty() && config.rtmps.certificate.is_none() {
            reader.mistake(path, "needs rtmps.certificate and rtmps.key");
        }
    }
    for (path, expected) in [
        ("rtmp.proxy_protocol", config.rtmp.proxy_protocol),
        ("rtmps.proxy_protocol", config.rtmps.proxy_protocol),
        ("http.proxy_protocol", config.http.proxy_protocol),
    ] {
        if expected && config.access.trusted_proxies.is_empty() {
            reader.mistake(
                path,
                "no proxy is trusted, so nobody could connect; name them in access.trusted_proxies",
            );
        }
    }
}

/// What deserves a second look in a configuration without mistakes.
pub(super) fn warnings(config: &Config, now: SystemTime) -> Vec<Remark> {
    let mut found = Vec::new();
    let mut warn = |path: String, message: &str| {
        found.push(Remark {
            path,
            message: message.to_owned(),
        });
    };
    let auth = &config.auth;
    match auth.push {
        Access::Open => warn(
            "auth.push".to_owned(),
            "open: anybody who reaches the RTMP port can publish under any name",
        ),
        Access::Signed => {
            let without: Vec<_> = config
                .apps
                .names()
                .filter(|app| !is_opened(auth, app))
                .collect();
            if without.len() == config.apps.names().count() {
                warn(
                    "auth.push_keys".to_owned(),
                    "no push key is configured, so nobody can publish; add one, or write push = \"open\" in [auth]",
                );
            } else {
                for app in without {
                    warn(
                        format!("{}.push_keys", section(app)),
                        "no push key holds for this application, so nobody can publish in it",
                    );
                }
            }
        }
    }
    if auth.peer == Access::Open {
        warn(
            "auth.peer".to_owned(),
            "open: unsigned URLs with feed=source play the source feed; for development only",
        );
    }
    let keys: Vec<_> = all_keys(auth).collect();
    for (path, _, keys) in key_sets(auth) {
        let valid = |key: &Key| key.window.phase(now) == Phase::Valid;
        if !keys.is_empty() && !keys.iter().any(valid) {
            warn(
                path,
                "none of them is valid now, so no URL that is signed with one is let in",
            );
        }
    }
    for (path, _, key) in &keys {
        if key.window.phase(now) == Phase::Retired {
            warn(
                format!("{path}.not_after"),
                "is past; the key opens nothing any more",
            );
        }
        if is_short(&key.secret) {
            warn(
                format!("{path}.secret"),
                "shorter than 16 characters; can be found by trying",
            );
        }
        let begins_with = |(_, _, other): &&(String, KeySet, &Key)| {
            other != key && key.secret.expose().starts_with(other.secret.expose())
        };
        if let Some((other, ..)) = keys.iter().find(begins_with) {
            warn(
                format!("{path}.secret"),
                &format!(
                    "begins with {other}.secret; signatures of one can be taken for the other's"
                ),
            );
        }
    }
    let lists = [
        ("publish", &config.access.publish),
        ("play", &config.access.play),
        ("control", &config.access.control),
    ];
    for (action, list) in lists {
        let covered = |net: &&IpNet| list.deny.iter().any(|deny| deny.contains(*net));
        for net in list.allow.iter().filter(covered) {
            warn(
                format!("access.{action}.allow"),
                &format!(
                    "{net} is within a network that access.{action}.deny names; it stays denied"
                ),
            );
        }
    }
    let limits = &config.limits;
    if limits.memory > 0 && limits.memory < 2 * limits.gop_bytes {
        warn(
            "limits.memory".to_owned(),
            "less than the two feeds of one stream may keep (twice limits.gop_bytes)",
        );
    }
    if let Some(address) = config.control.listen.iter().find(|a| !a.ip().is_loopback()) {
        warn(
            "control.listen".to_owned(),
            &format!("{address} can be reached from other hosts; only the token protects the API"),
        );
    }
    let proxied = [
        config.rtmp.proxy_protocol,
        config.rtmps.proxy_protocol,
        config.http.proxy_protocol,
    ];
    if !config.access.trusted_proxies.is_empty() && !proxied.contains(&true) {
        warn(
            "access.trusted_proxies".to_owned(),
            "no listener has proxy_protocol = true, so no header is looked for",
        );
    }
    if let TokenSource::Given(token) = &config.control.token
        && is_short(token)
    {
        warn(
            "control.token".to_owned(),
            "shorter than 16 characters; can be found by trying",
        );
    }
    for (path, rule) in config.push_rules() {
        if rule.pattern.contains('*') && !rule.url.names_stream() {
            warn(
                format!("{path}.url"),
                "the same for every stream that matches; put {stream} in it",
            );
        }
    }
    found.extend(super::compat::warnings(config));
    found.extend(super::hooks::warnings(config));
    found.sort();
    found
}

/// The path of an application's section.
pub(super) fn section(app: &str) -> String {
    if app == Apps::ANY {
        return format!("apps.{app:?}");
    }
    format!("apps.{app}")
}

pub(super) fn is_short(secret: &Secret) -> bool {
    secret.expose().len() < SHORT_SECRET
}

/// Every set there is with its path: those that hold for all, then each application's own.
fn key_sets(auth: &auth::Config) -> Vec<(String, KeySet, &[Key])> {
    let shared = KeySet::ALL.map(|set| (format!("auth.{set}_keys"), set, auth.keys(set)));
    let mut apps: Vec<_> = auth.apps.named.iter().collect();
    apps.sort_by_key(|(name, _)| *name);
    let apps = apps.into_iter().map(|(name, own)| (name.as_str(), own));
    let others = auth.apps.others.iter().map(|own| (Apps::ANY, own));
    let own = apps.chain(others).flat_map(|(app, own)| {
        KeySet::ALL.into_iter().filter_map(move |set| {
            Some((format!("{}.{set}_keys", section(app)), set, own.keys(set)?))
        })
    });
    shared.into_iter().chain(own).collect()
}

fn all_keys(auth: &auth::Config) -> impl Iterator<Item = (String, KeySet, &Key)> {
    key_sets(auth).into_iter().flat_map(|(path, set, keys)| {
        let keys = keys.iter().enumerate();
        keys.map(move |(at, key)| (format!("{path}[{at}]"), set, key))
    })
}

/// Whether there is a key that opens publishing in an application.
fn is_opened(auth: &auth::Config, app: &str) -> bool {
    let own = match app {
        Apps::ANY => auth.apps.others.as_ref(),
        _ => auth.apps.named.get(app),
    };
    let own = own.and_then(|own| own.keys(KeySet::Push));
    !own.unwrap_or(&auth.push_keys).is_empty()
}
