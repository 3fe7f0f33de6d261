//! Which keys differ between two configurations, and which of them can change while the server runs. Pure.

use super::reload::{Report, carried};
use crate::auth;
use crate::config::{self, Config};

/// Every key of a section is named, so that a new one cannot be forgotten.
macro_rules! keys {
    ($found:ident, $path:expr, $old:expr, $new:expr, $kind:path { $($key:ident),* $(,)? }) => {
        let $kind { $($key: _),* } = $new;
        $(if $old.$key != $new.$key {
            $found.push(format!("{}.{}", $path, stringify!($key)));
        })*
    };
}

/// Which keys differ: those that hold at once, and those that wait for the next start.
pub(super) fn compare(old: &Config, new: &Config) -> Report {
    // What would hold: it differs from `new` where a change has to wait.
    let left = carried(old, new.clone());
    Report {
        applied: differences(old, &left),
        needs_restart: differences(&left, new),
    }
}

fn differences(old: &Config, new: &Config) -> Vec<String> {
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
        threads,
        drain,
        metrics,
        log,
    } = new;
    let mut found = Vec::new();
    keys!(
        found,
        "rtmp",
        old.rtmp,
        rtmp,
        config::Rtmp {
            listen,
            proxy_protocol
        }
    );
    keys!(
        found,
        "rtmps",
        old.rtmps,
        rtmps,
        config::Rtmps {
            listen,
            certificate,
            proxy_protocol
        }
    );
    keys!(
        found,
        "http",
        old.http,
        http,
        config::Http {
            listen,
            tls_listen,
            proxy_protocol
        }
    );
    keys!(
        found,
        "control",
        old.control,
        control,
        config::Control { listen, token }
    );
    keys!(
        found,
        "compat",
        old.compat,
        compat,
        config::Compat {
            listen,
            pictures,
            url_mixes,
            merge_stream,
            accounts,
        }
    );
    keys!(
        found,
        "hooks",
        old.hooks,
        hooks,
        config::Hooks {
            ca_file,
            webhooks,
            authorize
        }
    );
    keys!(
        found,
        "access",
        old.access,
        access,
        config::AccessLists {
            publish,
            play,
            control,
            trusted_proxies,
        }
    );
    // Those of applications are theirs.
    let old_auth = auth::Config {
        apps: auth.apps.clone(),
        ..old.auth.clone()
    };
    keys!(
        found,
        "auth",
        old_auth,
        auth,
        auth::Config {
            push_keys,
            peer_keys,
            play_keys,
            push,
            peer,
            clock_skew,
            apps,
        }
    );
    differing_apps(old, new, &mut found);
    let _ = apps;
    keys!(
        found,
        "push",
        old.push,
        push,
        config::Push {
            hold,
            max_backoff,
            failover,
            steady,
            ca_file,
            rules,
        }
    );
    keys!(
        found,
        "links",
        old.links,
        links,
        config::Links {
            answer,
            start,
            gone,
            hold
        }
    );
    let config::Classes {
        low_latency,
        viewer,
    } = classes;
    for (path, old, new) in [
        ("classes.low_latency", &old.classes.low_latency, low_latency),
        ("classes.viewer", &old.classes.viewer, viewer),
    ] {
        keys!(
            found,
            path,
            old,
            new,
            config::ClassLimits {
                max_lag,
                max_bytes,
                stuck,
                join,
                readers_per_name,
                merge_window,
            }
        );
    }
    keys!(
        found,
        "limits",
        old.limits,
        limits,
        config::Limits {
            connections,
            connections_per_address,
            publishers,
            publishers_per_address,
            memory,
            cpu_percent,
            egress_mbps,
            waiting_per_name,
            waiting_per_address,
            waiting_total,
            wait,
            handshake,
            gop_bytes,
            gop_time,
        }
    );
    keys!(
        found,
        "mixer",
        old.mixer,
        mixer,
        config::Mixer {
            video_encoder,
            budget,
            degrade,
            preset,
            audio_encoder,
            audio_kbps,
            video_kbps,
            deadline,
            passthrough_after,
            abandoned_after,
            pictures,
            picture_networks,
            fonts,
        }
    );
    keys!(found, "state", old.state, state, config::State { dir });
    keys!(
        found,
        "metrics",
        old.metrics,
        metrics,
        config::Metrics {
            per_stream,
            per_stream_cap
        }
    );
    keys!(
        found,
        "threads",
        old.threads,
        threads,
        config::Threads { realtime }
    );
    keys!(found, "drain", old.drain, drain, config::Drain { deadline });
    keys!(found, "log", old.log, log, config::Log { format, level });
    found
}

/// Applications that are there in one only are named whole.
fn differing_apps(old: &Config, new: &Config, found: &mut Vec<String>) {
    let gone = old
        .apps
        .names()
        .filter(|name| new.apps.named(name).is_none());
    found.extend(gone.map(path));
    for (name, app) in new.apps.iter() {
        let Some(before) = old.apps.named(name) else {
            found.push(path(name));
            continue;
        };
        let path = path(name);
        keys!(
            found,
            path,
            before,
            app,
            config::App {
                republish_grace,
                publish_idle,
                gop_warning,
                on_busy,
                takeover_if_idle,
                max_kbps,
                push,
            }
        );
        let none = auth::AppKeys::default();
        let keys = |config: &Config| {
            let own = &config.auth.apps;
            let own = match name {
                config::Apps::ANY => own.others.clone(),
                name => own.named.get(name).cloned(),
            };
            own.unwrap_or_else(|| none.clone())
        };
        let (before, own) = (keys(old), keys(new));
        let own = &own;
        keys!(
            found,
            path,
            before,
            own,
            auth::AppKeys {
                push_keys,
                peer_keys,
                play_keys
            }
        );
    }
}

fn path(app: &str) -> String {
    format!("apps.{app}")
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
                &["apps.live.max_kbps"],
                &[],
            ),
            (
                "[apps.live]\npublish_idle = \"1s\"\nrepublish_grace = \"1s\"\n[apps.film]",
                &["apps.live.publish_idle"],
                &["apps.live.republish_grace"],
            ),
            ("[apps.live]", &[], &["apps.film"]),
            (
                "[apps.live]\n[apps.film]\n[threads]\nrealtime = false",
                &[],
                &["threads.realtime"],
            ),
            ("[apps.live]\n[apps.film]\n[apps.more]", &[], &["apps.more"]),
            (
                "[apps.live]\n[apps.film]\n[limits]\npublishers = 5\nmemory = 0\nwait = \"1s\"",
                &["limits.publishers", "limits.memory"],
                &["limits.wait"],
            ),
            (
                "[apps.live]\n[apps.film]\n[auth]\npush = \"open\"\n[access]\nplay = { deny = [\"192.0.2.1\"] }\n[rtmp]\nlisten = \"127.0.0.1:1\"",
                &["access.play", "auth.push"],
                &["rtmp.listen"],
            ),
            (
                "[apps.live]\n[apps.film]\n[metrics]\nper_stream = true",
                &["metrics.per_stream"],
                &[],
            ),
            (
                "[apps.live]\nplay_keys = [{ id = \"a\", secret = \"0123456789abcdef\" }]\n[apps.film]",
                &["apps.live.play_keys"],
                &[],
            ),
            (
                "[apps.live]\npush = [{ match = \"*\", url = \"rtmp://h/a/{stream}\" }]\n[apps.film]",
                &[],
                &["apps.live.push"],
            ),
            (
                "[apps.live]\n[apps.film]\n[drain]\ndeadline = \"1s\"\n[classes.viewer]\nmax_lag = \"9s\"\n[access]\ntrusted_proxies = [\"10.0.0.0/8\"]",
                &["drain.deadline"],
                &["access.trusted_proxies", "classes.viewer.max_lag"],
            ),
        ] {
            let report = compare(&old, &parse(text));
            assert_eq!(
                (&report.applied[..], &report.needs_restart[..]),
                (
                    &applied.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()[..],
                    &needs_restart
                        .iter()
                        .map(|p| (*p).to_owned())
                        .collect::<Vec<_>>()[..]
                ),
                "{text}"
            );
        }
    }
}
