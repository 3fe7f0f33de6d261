//! What concerns more than one key: contradictions, which are mistakes, and what is allowed but risky.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use ipnet::IpNet;

use super::reader::Reader;
use super::{Config, Remark, TokenSource};
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
            format!("{found} keys; at most {MAX_KEYS} are allowed over all sets"),
        );
        return;
    }
    for (at, (path, key)) in keys.iter().enumerate() {
        for (earlier_path, earlier) in &keys[..at] {
            if key.secret == earlier.secret {
                reader.mistake(
                    format!("{path}.secret"),
                    format!("the same secret as {earlier_path}.secret; each key needs its own"),
                );
            }
            let same_set = set_of(path) == set_of(earlier_path);
            if same_set && key.id == earlier.id {
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
    for (path, listen) in [
        ("rtmp.listen", &config.rtmp.listen),
        ("rtmps.listen", &config.rtmps.listen),
        ("http.listen", &config.http.listen),
        ("http.tls_listen", &config.http.tls_listen),
        ("control.listen", &config.control.listen),
    ] {
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
        Access::Signed if auth.push_keys.is_empty() => warn(
            "auth.push_keys".to_owned(),
            "no push key is configured, so nobody can publish; add one, or write push = \"open\" in [auth]",
        ),
        Access::Signed => {}
    }
    if auth.peer == Access::Open {
        warn(
            "auth.peer".to_owned(),
            "open: unsigned URLs with feed=source play the source feed; for development only",
        );
    }
    let keys: Vec<_> = all_keys(auth).collect();
    for set in KeySet::ALL {
        let keys = auth.keys(set);
        let valid = |key: &Key| key.window.phase(now) == Phase::Valid;
        if !keys.is_empty() && !keys.iter().any(valid) {
            warn(
                format!("auth.{set}_keys"),
                "none of them is valid now, so no URL that is signed with one is let in",
            );
        }
    }
    for (path, key) in &keys {
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
        let begins_with = |other: &&(String, &Key)| {
            other.1 != *key && key.secret.expose().starts_with(other.1.secret.expose())
        };
        if let Some((other, _)) = keys.iter().find(begins_with) {
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
    for (at, rule) in config.push.rules.iter().enumerate() {
        if rule.pattern.contains('*') && !rule.url.names_stream() {
            warn(
                format!("push.rules[{at}].url"),
                "the same for every stream that matches; put {stream} in it",
            );
        }
    }
    found.sort();
    found
}

fn is_short(secret: &Secret) -> bool {
    secret.expose().len() < SHORT_SECRET
}

fn all_keys(auth: &auth::Config) -> impl Iterator<Item = (String, &Key)> {
    let sets = [
        ("push_keys", &auth.push_keys),
        ("peer_keys", &auth.peer_keys),
        ("play_keys", &auth.play_keys),
    ];
    sets.into_iter().flat_map(|(set, keys)| {
        let keys = keys.iter().enumerate();
        keys.map(move |(at, key)| (format!("auth.{set}[{at}]"), key))
    })
}

fn set_of(path: &str) -> &str {
    path.split('[').next().unwrap_or(path)
}
