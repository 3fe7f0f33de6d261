use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

mod access;
mod compat;
mod hooks;
use crate::auth::Access;
use crate::media::{Class, Feed};

const FILE: &str = include_str!("../../config/linkmic.toml");
const SECRET: &str = "f3313e36c611150119f5d04ff1225b3e";

fn none() -> Env {
    Env::default()
}

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(text, "test.toml", &none())
}

fn mistakes(text: &str, env: &Env) -> Vec<String> {
    match Config::parse(text, "test.toml", env).unwrap_err() {
        Error::Invalid(mistakes) => mistakes.iter().map(Remark::to_string).collect(),
        other => panic!("not mistakes but {other}"),
    }
}

/// The file with its commented-out keys made real.
fn uncommented() -> String {
    let is_key = |text: &str| {
        text.starts_with("[[")
            || text
                .split_once(" = ")
                .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let lines = FILE.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if is_key(rest) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn leaves(path: &str, value: &toml::Value, found: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                leaves(&path, value, found);
            }
        }
        toml::Value::Array(items) if items.first().is_some_and(toml::Value::is_table) => {
            for (at, item) in items.iter().enumerate() {
                leaves(&format!("{path}[{at}]"), item, found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn the_file_that_is_shipped_says_exactly_the_defaults() {
    assert_eq!(parse(FILE).unwrap(), Config::defaults(&none()));
    assert_eq!(parse("").unwrap(), Config::defaults(&none()));
}

#[test]
fn the_file_that_is_shipped_has_every_key_and_no_other() {
    let text = uncommented();
    let reader = reader::Reader::default();
    read::read(
        &reader,
        source::merge(&text, "test.toml", &none()).unwrap(),
        &none(),
    );
    let complaints: Vec<_> = reader.mistakes().iter().map(Remark::to_string).collect();
    let expected = "control.token_file: stands beside token; only one of them can hold";
    assert_eq!(complaints, [expected]);

    let mut in_file = BTreeSet::new();
    leaves("", &toml::from_str(&text).unwrap(), &mut in_file);
    let known = reader.known();
    let is_section = |path: &String| {
        let inside = |other: &String| {
            other
                .strip_prefix(path.as_str())
                .is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        known.iter().any(inside)
    };
    let known: BTreeSet<_> = known.iter().filter(|p| !is_section(p)).cloned().collect();
    assert_eq!(in_file, known);
    for key in ["id =", "secret =", "valid_for ="] {
        assert!(FILE.contains(key), "the form of a key is shown: {key}");
    }
}

#[test]
fn every_default_in_the_file_is_read_and_not_ignored() {
    // Each value changed to another valid one must change the configuration.
    for (from, to) in [
        ("\"0.0.0.0:1935\"   ", "[\"127.0.0.1:1\", \"[::1]:1\"]"),
        ("\"0.0.0.0:8080\"", "\"127.0.0.1:1\""),
        ("\"127.0.0.1:1985\"", "\"127.0.0.1:1\""),
        ("push = \"signed\"", "push = \"open\""),
        ("peer = \"signed\"", "peer = \"open\""),
        ("clock_skew = \"0s\"", "clock_skew = \"5s\""),
        (
            "publish = { allow = [], deny = [] }",
            "publish = { allow = [\"10.0.0.0/8\"], deny = [] }",
        ),
        (
            "play = { allow = [], deny = [] }",
            "play = { allow = [], deny = [\"10.0.0.1\"] }",
        ),
        (
            "control = { allow = [], deny = [] }",
            "control = { allow = \"::1\", deny = [] }",
        ),
        ("max_kbps = 0", "max_kbps = 11"),
        (
            "connections_per_address = 5000",
            "connections_per_address = 11",
        ),
        ("publishers = 1000", "publishers = 11"),
        ("publishers_per_address = 0", "publishers_per_address = 11"),
        ("memory = \"2GiB\"", "memory = \"1GiB\""),
        ("republish_grace = \"10s\"", "republish_grace = \"11s\""),
        ("publish_idle = \"15s\"", "publish_idle = \"11s\""),
        ("gop_warning = \"10s\"", "gop_warning = \"11s\""),
        ("on_busy = \"takeover_if_idle\"", "on_busy = \"reject\""),
        ("takeover_if_idle = \"1s\"", "takeover_if_idle = \"11s\""),
        ("[push]\nhold = \"10s\"", "[push]\nhold = \"11s\""),
        ("answer = \"60s\"", "answer = \"11s\""),
        ("start = \"5m\"", "start = \"11s\""),
        ("gone = \"60s\"", "gone = \"11s\""),
        (
            "hold = \"10s\"                    # a sub",
            "hold = \"1s\" #",
        ),
        ("max_backoff = \"30s\"", "max_backoff = \"11s\""),
        ("max_lag = \"400ms\"", "max_lag = \"11s\""),
        ("max_bytes = \"2MiB\"", "max_bytes = \"3MiB\""),
        ("stuck = \"10s\"", "stuck = \"11s\""),
        (
            "join = \"squeeze\"                # \"squeeze\"",
            "join = \"wait\" #",
        ),
        ("readers_per_name = 10", "readers_per_name = 11"),
        ("max_lag = \"3s\"", "max_lag = \"11s\""),
        ("max_bytes = \"8MiB\"", "max_bytes = \"3MiB\""),
        ("stuck = \"20s\"", "stuck = \"11s\""),
        (
            "join = \"squeeze\"                # \"burst\"",
            "join = \"wait\" #",
        ),
        ("readers_per_name = 0\n", "readers_per_name = 11\n"),
        ("merge_window = \"0s\"   ", "merge_window = \"11ms\""),
        ("merge_window = \"0s\"\n", "merge_window = \"11ms\"\n"),
        ("connections = 10000", "connections = 11"),
        ("waiting_per_name = 50", "waiting_per_name = 11"),
        ("waiting_per_address = 20", "waiting_per_address = 11"),
        ("waiting_total = 1000", "waiting_total = 11"),
        ("\nwait = \"10s\"", "\nwait = \"11s\""),
        ("handshake = \"10s\"", "handshake = \"11s\""),
        ("gop_bytes = \"16MiB\"", "gop_bytes = 100000"),
        ("gop_time = \"20s\"", "gop_time = \"11s\""),
        ("preset = \"superfast\"", "preset = \"fast\""),
        ("audio_encoder = \"auto\"", "audio_encoder = \"voaacenc\""),
        ("audio_kbps = 96", "audio_kbps = 11"),
        ("# video_kbps", "video_kbps"),
        ("deadline = \"40ms\"", "deadline = \"11ms\""),
        ("passthrough_after = \"10s\"", "passthrough_after = \"11s\""),
        ("abandoned_after = \"15m\"", "abandoned_after = \"11s\""),
        (
            "# pictures = { logo = \"/etc/linkmic/logo.png\" }",
            "pictures = { logo = \"/etc/linkmic/logo.png\" }",
        ),
        ("picture_networks = []", "picture_networks = \"10.0.0.0/8\""),
        ("\nfonts = []", "\nfonts = [\"/usr/share/fonts/a.ttf\"]"),
        ("# dir = \"/var/lib/linkmic\"", "dir = \"/srv/linkmic\""),
        ("format = \"auto\"", "format = \"json\""),
        ("level = \"info\"", "level = \"debug\""),
        ("# token = \"…\"", "token = \"sesame\""),
        ("# token_file", "token_file"),
        ("# pictures = { 10 =", "pictures = { 10 ="),
        (
            "# [[compat.accounts]]",
            "[[compat.accounts]]\nappid = 1\napi_key = \"a\"\n#",
        ),
        (
            "# [[hooks.webhooks]]",
            "[[hooks.webhooks]]\nurl = \"http://a/\"\nsecret = \"a\"\nevents = \"play\"\n#",
        ),
        ("# authorize = {", "authorize = {"),
        (
            "# ca_file = \"/etc/linkmic/ca.pem\"   # certificate authorities for https",
            "ca_file = \"/etc/linkmic/ca.pem\" #",
        ),
    ] {
        assert_eq!(FILE.matches(from).count(), 1, "{from}");
        let changed = parse(&FILE.replace(from, to)).unwrap();
        assert_ne!(changed, Config::defaults(&none()), "{to}");
    }
}

#[test]
fn all_mistakes_are_found_at_once_each_with_its_path() {
    let text = format!(
        r#"
        colour = "blue"
        [rtmp]
        listen = "0.0.0.0"
        lisen = "0.0.0.0:1935"
        [http]
        listen = []
        [control]
        listen = ["127.0.0.1:1", 7]
        [auth]
        push = "maybe"
        push_keys = [{{ id = "main", secret = "{SECRET}" }}, {{ id = "main", secret = "other-secret-here" }}, {{ id = "x y" }}]
        peer_keys = [{{ id = "peer", secret = "{SECRET}", valid_for = "1h" }}]
        play_keys = "none"
        clock_skew = 5
        [apps."li ve"]
        [apps.live]
        publish_idle = "0s"
        gop_warning = "soon"
        [[push.rules]]
        app = "film"
        match = "a?b"
        feed = "raw"
        url = "https://cdn.example/live/x?key=topsecret"
        [classes.viewer]
        join = "late"
        readers_per_name = -1
        max_lag = "60ms"
        merge_window = "33ms"
        [classes.low_latency]
        merge_window = "2s"
        [limits]
        connections = "many"
        waiting_total = 1.5
        gop_bytes = "16MB"
        [mixer]
        preset = "placebo"
        audio_encoder = "fdkaacenc"
        audio_kbps = 5000000000
        video_encoder = "h265"
        budget = 0
        [state]
        dir = "state"
        [log]
        level = "inof"
        "#
    );
    let found = mistakes(&text, &none());
    let expected = [
        "apps.\"li ve\": application name has the character ' ' at byte 2; allowed are A-Z a-z 0-9 _ -, or \"*\" for all applications",
        "apps.live.gop_warning: \"soon\" is not a duration (expected number at 0); write a duration like \"400ms\", \"10s\" or \"12h\"",
        "apps.live.publish_idle: 0s is not within 1ms to 1day",
        "auth.clock_skew: expected a duration, found a whole number; write a duration like \"400ms\", \"10s\" or \"12h\"",
        "auth.peer_keys[0].secret: the same secret as auth.push_keys[0].secret; each key needs its own",
        "auth.peer_keys[0].valid_for: unknown key; known here: id, secret, role, not_before, not_after",
        "auth.play_keys: expected a list of tables, found a string",
        "auth.push: \"maybe\" is none of \"signed\", \"open\"",
        "auth.push_keys[1].id: the same id as auth.push_keys[0].id",
        "auth.push_keys[2].id: \"x y\" is not an id of up to 64 characters of A-Z a-z 0-9 _ . -",
        "auth.push_keys[2].secret: is missing",
        "classes.low_latency.merge_window: 2s is not within 0s to 1s",
        "classes.viewer.join: \"late\" is none of \"squeeze\", \"burst\", \"wait\"",
        "classes.viewer.merge_window: 33ms is more than half of max_lag, 60ms; every reader would count as late",
        "classes.viewer.readers_per_name: -1 is not within 0 to 1000000",
        "colour: unknown key; known here: rtmp, rtmps, http, control, compat, hooks, access, auth, apps, push, links, classes, limits, mixer, state, metrics, threads, drain, log",
        "control.listen: expected a string, found a whole number",
        "http.listen: the list is empty; at least one address is needed",
        "limits.connections: expected a whole number, found a string",
        "limits.gop_bytes: not a size; write a number of bytes or a size like \"64KiB\" or \"16MiB\"",
        "limits.waiting_total: expected a whole number, found a number with a fraction",
        "log.level: \"inof\" is no log level: \"inof\" is not a level; write error, warn, info, debug, trace, or a list by module",
        "mixer.audio_encoder: \"fdkaacenc\" is none of \"auto\", \"voaacenc\", \"avenc_aac\"",
        "mixer.audio_kbps: 5000000000 is not within 8 to 500",
        "mixer.budget: 0 is not within 1 to 10000",
        "mixer.preset: \"placebo\" is none of ultrafast, superfast, veryfast, faster, fast, medium",
        "mixer.video_encoder: \"h265\" is none of auto, x264, openh264, nvenc, vaapi, qsv",
        "push.rules[0].feed: \"raw\" is none of \"program\", \"source\"",
        "push.rules[0].match: \"a?b\" has the character '?'; allowed are those of stream names, A-Z a-z 0-9 _ . -, and *",
        "push.rules[0].url: scheme \"https\" is neither rtmp nor rtmps; expected rtmp[s]://host[:port]/app/name, with {stream} and {app} filled in for each stream",
        "rtmp.lisen: unknown key; known here: listen, proxy_protocol",
        "rtmp.listen: \"0.0.0.0\" is not an address with port, like \"0.0.0.0:1935\" or \"[::]:1935\"",
        "state.dir: state is not an absolute path",
    ];
    assert_eq!(found, expected);
}

#[test]
fn keys_that_contradict_each_other_are_mistakes() {
    for (text, expected) in [
        (
            "control = { listen = [\"127.0.0.1:1\", \"0.0.0.0:8080\"] }",
            "control.listen: 0.0.0.0:8080 is taken by http.listen",
        ),
        (
            "rtmp.listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
            "rtmp.listen: 127.0.0.1:1 stands twice",
        ),
        (
            "push.rules = [{ app = \"film\", match = \"*\", url = \"rtmp://h/a/{stream}\" }]",
            "push.rules[0].app: no application \"film\" is configured; there are: live",
        ),
        (
            "push.rules = [{ app = \"live\", match = \"*\", url = \"rtmp://h/a/{name}\" }]",
            "push.rules[0].url: has braces other than {app} and {stream}; expected rtmp[s]://host[:port]/app/name, \
             with {stream} and {app} filled in for each stream",
        ),
        (
            "push.rules = [{ app = \"live\", match = \"*\", url = \"rtmp://h/a\" }]",
            "push.rules[0].url: has no host, application or name; expected rtmp[s]://host[:port]/app/name, \
             with {stream} and {app} filled in for each stream",
        ),
        (
            "push.rules = [{ app = \"live\", match = \"*\", url = \"rtmp://h/a/b\", sign = { secret = \"\" } }]",
            "push.rules[0].sign.expires_in: is missing\npush.rules[0].sign.secret: is empty",
        ),
        (
            "push.rules = [{ app = \"live\", match = \"*\", url = \"rtmps://h/a/b\", role = \"backup\" }]",
            "push.rules[0].role: needs the group that it is for",
        ),
        (
            "push.rules = [{ app = \"live\", match = \"*\", url = \"rtmps://h/a/b\", group = \"a/b\", role = \"spare\" }]",
            "push.rules[0].group: is no name of 1 to 64 characters of A-Z a-z 0-9 _ . -\n\
             push.rules[0].role: \"spare\" is none of \"primary\", \"backup\"",
        ),
    ] {
        assert_eq!(mistakes(text, &none()).join("\n"), expected, "{text}");
    }
    let anywhere = "rtmp.listen = \"127.0.0.1:0\"\nhttp.listen = \"127.0.0.1:0\"";
    assert!(parse(anywhere).is_ok(), "port 0 is another one each time");
}

#[test]
fn the_environment_overrides_the_file() {
    let env = Env::from_iter([
        ("LINKMIC__RTMP__LISTEN", "[::1]:1936"),
        ("LINKMIC__HTTP__LISTEN", "[\"127.0.0.1:1\", \"[::1]:1\"]"),
        ("LINKMIC__LIMITS__CONNECTIONS", "7"),
        (
            "LINKMIC__AUTH__PUSH_KEYS",
            "[{ id = \"env\", secret = \"0123456789abcdef\" }]",
        ),
        ("LINKMIC__CONTROL__TOKEN", "123456"),
        ("LINKMIC__APPS__LIVE__PUBLISH_IDLE", "20s"),
        ("LINKMIC__LOG__LEVEL", ""),
        ("LINKMIC_CONFIG", "/elsewhere"),
        ("PATH", "/bin"),
    ]);
    let config = Config::parse("limits.connections = 5\nlog.level = \"warn\"", "t", &env).unwrap();
    assert_eq!(config.rtmp.listen, ["[::1]:1936".parse().unwrap()]);
    assert_eq!(config.http.listen.len(), 2);
    assert_eq!(config.limits.connections, 7);
    assert_eq!(config.auth.push_keys[0].id.as_str(), "env");
    assert_eq!(
        config.control.token,
        TokenSource::Given(crate::auth::Secret::new("123456")),
        "a token of digits stays text"
    );
    assert_eq!(
        config.app("live").unwrap().publish_idle,
        Duration::from_secs(20)
    );
    assert_eq!(
        config.log.level, "warn",
        "an empty variable counts as unset"
    );
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    let env = Env::from_iter([
        ("LINKMIC__RTMP__LISTNE", "127.0.0.1:1"),
        ("LINKMIC__LIMITS__CONNECTIONS", "many"),
        ("LINKMIC__HTTP", "8080"),
    ]);
    assert_eq!(
        mistakes("", &env),
        [
            "http: expected a table, found a string",
            "limits.connections: expected a whole number, found a string (in the environment, LINKMIC__LIMITS__CONNECTIONS)",
            "rtmp.listne: unknown key (in the environment, LINKMIC__RTMP__LISTNE); known here: listen, proxy_protocol",
        ]
    );
}

#[test]
fn doors_that_nobody_could_come_through_are_mistakes() {
    let found = mistakes(
        r#"
        [rtmp]
        proxy_protocol = "yes"
        [rtmps]
        listen = "[::]:1936"
        certificate = "/etc/linkmic/cert.pem"
        proxy_protocol = true
        [http]
        tls_listen = ["0.0.0.0:8443"]
        [access]
        trusted_proxies = ["10.0.0.0/33"]
        "#,
        &none(),
    );
    let expected = [
        "access.trusted_proxies: \"10.0.0.0/33\" is neither a network, like \"10.0.0.0/8\" or \"fd00::/8\", nor an address",
        "http.tls_listen: needs rtmps.certificate and rtmps.key",
        "rtmp.proxy_protocol: expected true or false, found a string",
        "rtmps.key: is missing; a certificate needs its private key",
        "rtmps.listen: needs rtmps.certificate and rtmps.key",
        "rtmps.proxy_protocol: no proxy is trusted, so nobody could connect; name them in access.trusted_proxies",
    ];
    assert_eq!(found, expected);
}

#[test]
fn text_that_is_not_toml_is_located_without_showing_the_line() {
    let text = "[rtmp]\nlisten = \"0.0.0.0:1935\"\n[control]\ntoken = \"topsecret\n";
    let error = parse(text).unwrap_err().to_string();
    assert!(
        error.starts_with("test.toml: TOML parse error at line 4, column "),
        "{error}"
    );
    assert!(!error.contains("topsecret"), "{error}");
    let twice = parse("[rtmp]\n[rtmp]\n").unwrap_err().to_string();
    assert!(
        twice.contains("line 2") && twice.contains("duplicate key"),
        "{twice}"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing.toml");
    let error = Config::load(Some(&path), &none()).unwrap_err().to_string();
    let expected = format!("cannot read {}: No such file or directory", path.display());
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn no_secret_is_ever_printed() {
    let text = format!(
        r#"
        control.token = "topsecret-token"
        [auth]
        push_keys = [{{ id = "a", secret = "topsecret-push" }}]
        play_keys = [{{ id = "b", secret = "topsecret-play", valid_for = "1h" }}]
        [[push.rules]]
        app = "live"
        match = "*"
        url = "rtmp://cdn.example/live/{{stream}}?key=topsecret-url"
        sign = {{ secret = "topsecret-sign", expires_in = "{}" }}
        "#,
        "12h"
    );
    let config = parse(&text).unwrap();
    let warnings: Vec<_> = config.warnings().iter().map(Remark::to_string).collect();
    let printed = format!("{config:?} {}", warnings.join(" "));
    assert!(!printed.contains("topsecret"), "{printed}");
    let rule = &config.push.rules[0];
    assert_eq!(rule.url.to_string(), "rtmp://cdn.example/live/{stream}?***");
    assert_eq!(
        rule.url.expose("live", "a"),
        "rtmp://cdn.example/live/a?key=topsecret-url"
    );
    assert_eq!((rule.feed, rule.app.as_str()), (Feed::Program, "live"));

    // Mistakes around secrets do not show them either.
    let broken = "control.token = \" topsecret\"\n\
        auth.push_keys = [{ id = \"a\", secret = \"topsecret \" }, \"topsecret\"]\n\
        push.rules = [{ app = \"live\", match = \"*\", url = \"topsecret\" }, { url = \"rtmp://topsecret@h/a/b\" }]";
    let found = mistakes(broken, &none()).join("\n");
    assert!(!found.contains("topsecret"), "{found}");
    assert!(
        found.contains("control.token: begins or ends with white space"),
        "{found}"
    );
}

#[test]
fn what_is_allowed_but_risky_is_warned_about() {
    let warnings = |text: &str| {
        let found = parse(text).unwrap().warnings();
        found.iter().map(Remark::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        warnings(""),
        [
            "auth.push_keys: no push key is configured, so nobody can publish; add one, or write push = \"open\" in [auth]"
        ]
    );
    let key = format!("auth.push_keys = [{{ id = \"a\", secret = \"{SECRET}\" }}]\n");
    assert_eq!(warnings(&key), Vec::<String>::new());
    assert_eq!(
        warnings("auth = { push = \"open\", peer = \"open\" }"),
        [
            "auth.peer: open: unsigned URLs with feed=source play the source feed; for development only",
            "auth.push: open: anybody who reaches the RTMP port can publish under any name",
        ]
    );
    let risky = format!(
        r#"
        control = {{ listen = ["127.0.0.1:1", "192.0.2.1:1985"], token = "short" }}
        push.rules = [{{ app = "live", match = "a*", url = "rtmp://h/a/b" }}]
        [auth]
        push_keys = [{{ id = "a", secret = "ngoeiq03" }}]
        peer_keys = [{{ id = "b", secret = "ngoeiq03{SECRET}" }}]
        "#
    );
    assert_eq!(
        warnings(&risky),
        [
            "auth.peer_keys[0].secret: begins with auth.push_keys[0].secret; signatures of one can be taken for the other's",
            "auth.push_keys[0].secret: shorter than 16 characters; can be found by trying",
            "control.listen: 192.0.2.1:1985 can be reached from other hosts; only the token protects the API",
            "control.token: shorter than 16 characters; can be found by trying",
            "push.rules[0].url: the same for every stream that matches; put {stream} in it",
        ]
    );
}

#[test]
fn applications_are_those_named_or_live_when_none_is() {
    let has = |text: &str, name: &str| parse(text).unwrap().app(name).is_some();
    assert!(has("", "live") && !has("", "film"));
    assert!(has("[apps]", "live"));
    assert!(has("[apps.film]", "film") && !has("[apps.film]", "live"));
    let any = parse("[apps.film]\nhold = 1").unwrap_err().to_string();
    assert!(any.starts_with("apps.film.hold: unknown key"), "{any}");
    let any = parse("[apps.\"*\"]\npublish_idle = \"1s\"\n[apps.film]").unwrap();
    let idle = |name: &str| any.app(name).unwrap().publish_idle.as_secs();
    assert_eq!((idle("film"), idle("whatever")), (15, 1));
}

#[test]
fn values_arrive_typed() {
    let config = parse(
        r#"
        auth.play_keys = [{ id = "v", secret = "0123456789abcdef", valid_for = "1h 30m" }]
        auth.peer = "open"
        classes.low_latency.readers_per_name = 0
        limits.gop_bytes = "64KiB"
        mixer.video_kbps = 1200
        "#,
    )
    .unwrap();
    assert_eq!(
        config.auth.play_keys[0].valid_for,
        Duration::from_secs(5400)
    );
    assert_eq!(config.auth.peer, Access::Open);
    assert_eq!(config.classes.of(Class::LowLatency).readers_per_name, None);
    assert_eq!(config.classes.of(Class::Viewer).join, Join::Squeeze);
    assert_eq!(config.limits.gop_bytes, 65_536);
    assert_eq!(config.mixer.video_kbps, Some(1200));
}

#[test]
fn state_goes_where_systemd_or_the_user_keeps_it() {
    for (variables, expected) in [
        (
            vec![
                ("STATE_DIRECTORY", "/var/lib/linkmic:/var/lib/other"),
                ("HOME", "/home/a"),
            ],
            "/var/lib/linkmic",
        ),
        (
            vec![("XDG_STATE_HOME", "/home/a/state"), ("HOME", "/home/a")],
            "/home/a/state/linkmic",
        ),
        (
            vec![("XDG_STATE_HOME", "state"), ("HOME", "/home/a")],
            "/home/a/.local/state/linkmic",
        ),
        (
            vec![("XDG_STATE_HOME", ""), ("HOME", "/home/a")],
            "/home/a/.local/state/linkmic",
        ),
        (vec![], "/var/lib/linkmic"),
    ] {
        let env: Env = variables.into_iter().collect();
        assert_eq!(Config::defaults(&env).state.dir, Path::new(expected));
    }
}
