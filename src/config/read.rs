//! Which keys there are: the tree of values becomes a [`Config`].
//!
//! Where a value is a mistake its default stands in, so that reading can go on; the caller throws the result
//! away when there was any mistake.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ::config::Value;

use super::reader::{
    Parsed, Reader, Table, addresses, bytes, choice, duration, flag, moment, networks,
    no_or_addresses, non_empty, number, one_or_many, string,
};
use super::secret::secret;
use super::{
    AccessLists, App, Apps, AudioEncoder, CertificateFiles, ClassLimits, Classes, Config, Control,
    Drain, Env, Http, Join, Limits, Links, Log, Metrics, Mixer, OnBusy, Push, Remark, Rtmp, Rtmps,
    Rule, Sign, State, TargetUrl, Threads, TokenSource, check, compat, hooks,
};
use crate::auth::{self, Access, AddressList, AppKeys, Key, KeyId, Role, Window};
use crate::logging;
use crate::media::{Feed, PerApp, StreamKey};
use crate::push::{self, Membership};

/// Waiting for anything longer than a day is not waiting.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);
/// Longest life of a signature; beyond it the answer is `open`.
const MAX_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Shortest useful wait: below it nothing would ever come in time.
const MIN_WAIT: Duration = Duration::from_millis(1);
/// Backups look at their feeds a few times in it.
const MIN_FAILOVER: Duration = Duration::from_millis(500);
/// As many readers or connections as one host could ever hold.
const MAX_COUNT: usize = 1_000_000;
/// Seven series a stream; more than 70,000 from one host nobody's Prometheus would thank us for.
const MAX_SERIES_STREAMS: usize = 10_000;
/// Ten gigabits: a publisher's network gives no more.
const MAX_APP_KBPS: u32 = 10_000_000;
/// The vendor's own bound for a mix's bitrate.
const MAX_KBPS: u32 = 50_000;

/// Less holds no stream of a usual bitrate.
const MIN_MEMORY: usize = 16 << 20;
/// More than any host has.
const MAX_MEMORY: usize = 1 << 44;

const ACCESS: &[(&str, Access)] = &[("signed", Access::Signed), ("open", Access::Open)];
const TARGET_ROLES: &[(&str, push::Role)] = &[
    ("primary", push::Role::Primary),
    ("backup", push::Role::Backup),
];
const ROLES: &[(&str, Role)] = &[("primary", Role::Primary), ("backup", Role::Backup)];
const FEEDS: &[(&str, Feed)] = &[("program", Feed::Program), ("source", Feed::Source)];
const JOINS: &[(&str, Join)] = &[
    ("squeeze", Join::Squeeze),
    ("burst", Join::Burst),
    ("wait", Join::Wait),
];
const AUDIO_ENCODERS: &[(&str, AudioEncoder)] = &[
    ("auto", AudioEncoder::Auto),
    ("voaacenc", AudioEncoder::Voaacenc),
    ("avenc_aac", AudioEncoder::Avenc),
];
const ON_BUSY: &[(&str, OnBusy)] = &[
    ("takeover_if_idle", OnBusy::TakeoverIfIdle),
    ("takeover", OnBusy::Takeover),
    ("reject", OnBusy::Reject),
];
const FORMATS: &[(&str, logging::Format)] = &[
    ("auto", logging::Format::Auto),
    ("human", logging::Format::Human),
    ("json", logging::Format::Json),
];

/// The configuration in a tree, and every mistake in it.
pub(super) fn config(tree: Value, env: &Env) -> (Config, Vec<Remark>) {
    let reader = Reader::default();
    let config = read(&reader, tree, env);
    check::consistency(&config, &reader);
    (config, reader.mistakes())
}

/// Reads all sections; mistakes are left in the reader.
pub(super) fn read(reader: &Reader, tree: Value, env: &Env) -> Config {
    let default = Config::defaults(env);
    let mut own_keys = PerApp::default();
    let mut config = reader.root(tree, |root| Config {
        rtmp: root.section("rtmp", |t| Rtmp {
            listen: t.value("listen", default.rtmp.listen, addresses),
            proxy_protocol: t.value("proxy_protocol", default.rtmp.proxy_protocol, flag),
        }),
        rtmps: root.section("rtmps", |t| rtmps(t, default.rtmps)),
        http: root.section("http", |t| Http {
            listen: t.value("listen", default.http.listen, addresses),
            tls_listen: t.value("tls_listen", default.http.tls_listen, no_or_addresses),
            proxy_protocol: t.value("proxy_protocol", default.http.proxy_protocol, flag),
        }),
        control: root.section("control", |t| control(t, default.control)),
        compat: root.section("compat", compat::compat),
        hooks: root.section("hooks", hooks::hooks),
        access: root.section("access", |t| AccessLists {
            publish: t.section("publish", address_list),
            play: t.section("play", address_list),
            control: t.section("control", address_list),
            trusted_proxies: t.value("trusted_proxies", default.access.trusted_proxies, networks),
        }),
        auth: root.section("auth", auth),
        apps: root
            .optional_section("apps", |t| apps(t, &mut own_keys))
            .unwrap_or_default(),
        push: root.section("push", |t| push(t, default.push)),
        links: root.section("links", |t| links(t, default.links)),
        classes: root.section("classes", |t| Classes {
            low_latency: t.section("low_latency", |t| class(t, default.classes.low_latency)),
            viewer: t.section("viewer", |t| class(t, default.classes.viewer)),
        }),
        limits: root.section("limits", |t| limits(t, default.limits)),
        mixer: root.section("mixer", |t| mixer(t, default.mixer)),
        state: root.section("state", |t| State {
            dir: t.value("dir", default.state.dir, absolute),
        }),
        metrics: root.section("metrics", |t| Metrics {
            per_stream: t.value("per_stream", default.metrics.per_stream, flag),
            per_stream_cap: t.value(
                "per_stream_cap",
                default.metrics.per_stream_cap,
                number(1..=MAX_SERIES_STREAMS),
            ),
        }),
        threads: root.section("threads", |t| Threads {
            realtime: t.value("realtime", default.threads.realtime, flag),
        }),
        drain: root.section("drain", |t| Drain {
            deadline: t.value(
                "deadline",
                default.drain.deadline,
                duration(Duration::ZERO..=MAX_WAIT),
            ),
        }),
        log: root.section("log", |t| Log {
            format: t.value("format", default.log.format, choice(FORMATS)),
            level: t.value("level", default.log.level, level),
        }),
    });
    config.auth.apps = own_keys;
    config
}

fn rtmps(t: &mut Table<'_>, default: Rtmps) -> Rtmps {
    let listen = t.value("listen", default.listen, no_or_addresses);
    let certificate = t.optional("certificate", absolute);
    let key = t.optional("key", absolute);
    let certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
        (Some(_), None) => {
            t.mistake("key", "is missing; a certificate needs its private key");
            None
        }
        (None, Some(_)) => {
            t.mistake(
                "certificate",
                "is missing; a private key needs its certificate",
            );
            None
        }
        (None, None) => None,
    };
    Rtmps {
        listen,
        certificate,
        proxy_protocol: t.value("proxy_protocol", default.proxy_protocol, flag),
    }
}

fn control(t: &mut Table<'_>, default: Control) -> Control {
    let listen = t.value("listen", default.listen, addresses);
    let token = t.optional("token", secret);
    let file = t.optional("token_file", absolute);
    if token.is_some() && file.is_some() {
        t.mistake(
            "token_file",
            "stands beside token; only one of them can hold",
        );
    }
    let token = match (token, file) {
        (Some(token), _) => TokenSource::Given(token),
        (None, Some(file)) => TokenSource::File(file),
        (None, None) => TokenSource::Generated,
    };
    Control { listen, token }
}

fn address_list(t: &mut Table<'_>) -> AddressList {
    AddressList {
        allow: t.value("allow", Vec::new(), networks),
        deny: t.value("deny", Vec::new(), networks),
    }
}

fn auth(t: &mut Table<'_>) -> auth::Config {
    auth::Config {
        push_keys: t.list("push_keys", |t| key(t, false)),
        peer_keys: t.list("peer_keys", |t| key(t, false)),
        play_keys: t.list("play_keys", |t| key(t, true)),
        push: t.value("push", Access::default(), choice(ACCESS)),
        peer: t.value("peer", Access::default(), choice(ACCESS)),
        clock_skew: t.value(
            "clock_skew",
            Duration::ZERO,
            duration(Duration::ZERO..=MAX_WAIT),
        ),
        // In the sections of the applications.
        apps: PerApp::default(),
    }
}

fn key(t: &mut Table<'_>, has_validity: bool) -> Option<Key> {
    let id = t.required("id", key_id);
    let secret = t.required("secret", secret);
    let valid_for = if has_validity {
        let bounds = Duration::ZERO..=MAX_VALIDITY;
        t.value("valid_for", Duration::ZERO, duration(bounds))
    } else {
        Duration::ZERO
    };
    let role = t.value("role", Role::default(), choice(ROLES));
    let window = Window {
        not_before: t.optional("not_before", moment),
        not_after: t.optional("not_after", moment),
    };
    if let (Some(begin), Some(end)) = (window.not_before, window.not_after)
        && end <= begin
    {
        t.mistake(
            "not_after",
            "is not later than not_before; the key would never be valid",
        );
    }
    Some(Key {
        id: id?,
        secret: secret?,
        valid_for,
        window,
        role,
    })
}

/// The applications; their own keys go to `own_keys`.
fn apps(t: &mut Table<'_>, own_keys: &mut PerApp<AppKeys>) -> Apps {
    let mut named = t.named(|name, t| (app_keys(t), app(name, t)));
    named.retain(|(name, _)| match app_name(name) {
        Ok(()) => true,
        Err(message) => {
            t.mistake(name, message);
            false
        }
    });
    if named.is_empty() {
        // Also when `[apps]` stands there with nothing in it: then no application is named.
        return Apps::default();
    }
    let mut apps = BTreeMap::new();
    for (name, (keys, app)) in named {
        match name.as_str() {
            Apps::ANY => own_keys.others = Some(keys),
            _ => drop(own_keys.named.insert(name.clone(), keys)),
        }
        apps.insert(name, app);
    }
    // All of them or none: one that has a section without keys is not one of the others.
    let mut all = own_keys.named.values().chain(&own_keys.others);
    if all.all(|keys| *keys == AppKeys::default()) {
        *own_keys = PerApp::default();
    }
    Apps(apps)
}

fn app_keys(t: &mut Table<'_>) -> AppKeys {
    AppKeys {
        push_keys: t.optional_list("push_keys", |t| key(t, false)),
        peer_keys: t.optional_list("peer_keys", |t| key(t, false)),
        play_keys: t.optional_list("play_keys", |t| key(t, true)),
    }
}

fn app(name: &str, t: &mut Table<'_>) -> App {
    let default = App::default();
    App {
        republish_grace: t.value(
            "republish_grace",
            default.republish_grace,
            duration(Duration::ZERO..=MAX_WAIT),
        ),
        publish_idle: t.value("publish_idle", default.publish_idle, wait()),
        gop_warning: t.value("gop_warning", default.gop_warning, wait()),
        on_busy: t.value("on_busy", default.on_busy, choice(ON_BUSY)),
        takeover_if_idle: t.value("takeover_if_idle", default.takeover_if_idle, wait()),
        max_kbps: Some(t.value(
            "max_kbps",
            default.max_kbps.unwrap_or(0),
            number(0..=MAX_APP_KBPS),
        ))
        .filter(|kbps| *kbps > 0),
        push: t.list("push", |t| rule_of(Some(name.to_owned()), t)),
    }
}

fn push(t: &mut Table<'_>, default: Push) -> Push {
    Push {
        hold: t.value("hold", default.hold, duration(Duration::ZERO..=MAX_WAIT)),
        max_backoff: t.value("max_backoff", default.max_backoff, wait()),
        failover: t.value(
            "failover",
            default.failover,
            duration(MIN_FAILOVER..=MAX_WAIT),
        ),
        steady: t.value(
            "steady",
            default.steady,
            duration(Duration::ZERO..=MAX_WAIT),
        ),
        ca_file: t.optional("ca_file", absolute),
        rules: t.list("rules", rule),
    }
}

fn links(t: &mut Table<'_>, default: Links) -> Links {
    let limit = || duration(Duration::from_secs(1)..=MAX_WAIT);
    Links {
        answer: t.value("answer", default.answer, limit()),
        start: t.value("start", default.start, limit()),
        gone: t.value("gone", default.gone, limit()),
        hold: t.value("hold", default.hold, duration(Duration::ZERO..=MAX_WAIT)),
    }
}

fn rule(t: &mut Table<'_>) -> Option<Rule> {
    let app = t.required("app", non_empty);
    rule_of(app, t)
}

/// What a rule says besides its application.
fn rule_of(app: Option<String>, t: &mut Table<'_>) -> Option<Rule> {
    let pattern = t.required("match", pattern);
    let feed = t.value("feed", Feed::Program, choice(FEEDS));
    let url = t.required("url", target_url);
    let sign = t.optional_section("sign", |t| {
        let own = t.required("secret", secret);
        let expires_in = t.required(
            "expires_in",
            duration(Duration::from_secs(1)..=MAX_VALIDITY),
        );
        Some(Sign {
            secret: own?,
            expires_in: expires_in?,
        })
    });
    let group = group(t);
    Some(Rule {
        app: app?,
        pattern: pattern?,
        feed,
        url: url?,
        sign: match sign {
            Some(sign) => Some(sign?),
            None => None,
        },
        group: group?,
    })
}

/// A rule's part in a group; the outer `None` is a mistake.
fn group(t: &mut Table<'_>) -> Option<Option<Membership>> {
    let name = t.optional("group", non_empty);
    let role = t.optional("role", choice(TARGET_ROLES));
    match Membership::new(name, role) {
        Ok(group) => Some(group),
        Err(push::Error::Invalid { field, message }) => {
            t.mistake(field, message);
            None
        }
        Err(_) => None,
    }
}

fn class(t: &mut Table<'_>, default: ClassLimits) -> ClassLimits {
    let readers = default.readers_per_name.unwrap_or(0);
    let readers = t.value("readers_per_name", readers, number(0..=MAX_COUNT));
    ClassLimits {
        max_lag: t.value("max_lag", default.max_lag, wait()),
        max_bytes: t.value(
            "max_bytes",
            default.max_bytes,
            bytes(64 * 1024..=1024 * 1024 * 1024),
        ),
        stuck: t.value("stuck", default.stuck, wait()),
        join: t.value("join", default.join, choice(JOINS)),
        readers_per_name: (readers > 0).then_some(readers),
        merge_window: t.value("merge_window", default.merge_window, window()),
    }
}

fn limits(t: &mut Table<'_>, default: Limits) -> Limits {
    let count = || number(1..=MAX_COUNT);
    let waiting = || number(0..=MAX_COUNT);
    Limits {
        connections: t.value("connections", default.connections, count()),
        connections_per_address: t.value(
            "connections_per_address",
            default.connections_per_address,
            waiting(),
        ),
        publishers: t.value("publishers", default.publishers, waiting()),
        publishers_per_address: t.value(
            "publishers_per_address",
            default.publishers_per_address,
            waiting(),
        ),
        memory: t.value("memory", default.memory, memory),
        cpu_percent: t.value("cpu_percent", default.cpu_percent, number(0..=100)),
        egress_mbps: t.value("egress_mbps", default.egress_mbps, number(0..=MAX_APP_KBPS)),
        waiting_per_name: t.value("waiting_per_name", default.waiting_per_name, waiting()),
        waiting_per_address: t.value(
            "waiting_per_address",
            default.waiting_per_address,
            waiting(),
        ),
        waiting_total: t.value("waiting_total", default.waiting_total, waiting()),
        wait: t.value("wait", default.wait, duration(Duration::ZERO..=MAX_WAIT)),
        handshake: t.value("handshake", default.handshake, wait()),
        gop_bytes: t.value(
            "gop_bytes",
            default.gop_bytes,
            bytes(64 * 1024..=1024 * 1024 * 1024),
        ),
        gop_time: t.value("gop_time", default.gop_time, wait()),
    }
}

fn mixer(t: &mut Table<'_>, default: Mixer) -> Mixer {
    Mixer {
        video_encoder: t.value(
            "video_encoder",
            default.video_encoder,
            word(&Mixer::ENCODERS),
        ),
        // A hundred cores.
        budget: t.optional("budget", number(1..=10_000)).or(default.budget),
        degrade: t.value("degrade", default.degrade, flag),
        preset: t.value("preset", default.preset, word(&Mixer::PRESETS)),
        audio_encoder: t.value(
            "audio_encoder",
            default.audio_encoder,
            choice(AUDIO_ENCODERS),
        ),
        // The vendor's own bound for a mix's audio.
        audio_kbps: t.value("audio_kbps", default.audio_kbps, number(8..=500)),
        video_kbps: t
            .optional("video_kbps", number(1..=MAX_KBPS))
            .or(default.video_kbps),
        // Beyond a second the output would no longer be a conversation.
        deadline: t.value(
            "deadline",
            default.deadline,
            duration(MIN_WAIT..=Duration::from_secs(1)),
        ),
        passthrough_after: t.value("passthrough_after", default.passthrough_after, wait()),
        // A day is as good as never.
        abandoned_after: t.value(
            "abandoned_after",
            default.abandoned_after,
            duration(MIN_WAIT..=Duration::from_secs(86_400)),
        ),
        pictures: t.section("pictures", |t| t.entries(absolute).into_iter().collect()),
        picture_networks: t.value("picture_networks", default.picture_networks, networks),
        fonts: t.value("fonts", default.fonts, paths),
    }
}

/// Longer than this, players with a small buffer run dry between two windows.
const MAX_MERGE_WINDOW: Duration = Duration::from_secs(1);

fn window() -> impl Fn(&Value) -> Parsed<Duration> {
    duration(Duration::ZERO..=MAX_MERGE_WINDOW)
}

fn wait() -> impl Fn(&Value) -> Parsed<Duration> {
    duration(MIN_WAIT..=MAX_WAIT)
}

fn key_id(value: &Value) -> Parsed<KeyId> {
    let text = non_empty(value)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if text.len() > 64 || !text.chars().all(plain) {
        return Err(format!(
            "{text:?} is not an id of up to 64 characters of A-Z a-z 0-9 _ . -"
        ));
    }
    Ok(KeyId::new(text))
}

fn app_name(name: &str) -> Parsed<()> {
    if name == Apps::ANY {
        return Ok(());
    }
    // Any stream name will do: it is the application's that is judged.
    StreamKey::new(name, "x")
        .map(drop)
        .map_err(|error| format!("{error}, or \"*\" for all applications"))
}

fn pattern(value: &Value) -> Parsed<String> {
    let text = non_empty(value)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '*');
    match text.chars().find(|&c| !allowed(c)) {
        Some(found) => Err(format!(
            "{text:?} has the character {found:?}; allowed are those of stream names, A-Z a-z 0-9 _ . -, and *"
        )),
        None => Ok(text),
    }
}

fn target_url(value: &Value) -> Parsed<TargetUrl> {
    let form = "expected rtmp[s]://host[:port]/app/name, with {stream} and {app} filled in for each stream";
    let target = TargetUrl(string(value)?);
    let filled = target.expose("app", "stream");
    if filled.contains(['{', '}']) {
        return Err(format!(
            "has braces other than {{app}} and {{stream}}; {form}"
        ));
    }
    let url = url::Url::parse(&filled).map_err(|error| format!("not a URL ({error}); {form}"))?;
    if !matches!(url.scheme(), "rtmp" | "rtmps") {
        return Err(format!(
            "scheme {:?} is neither rtmp nor rtmps; {form}",
            url.scheme()
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("has a user name or password; {form}"));
    }
    let parts = url.path().split('/').filter(|part| !part.is_empty());
    let parts = parts.count();
    if url.host_str().is_none_or(str::is_empty) || parts < 2 {
        return Err(format!("has no host, application or name; {form}"));
    }
    Ok(target)
}

/// A size that at least one stream fits into, or 0.
fn memory(value: &Value) -> Parsed<usize> {
    match bytes(0..=usize::MAX)(value)? {
        0 => Ok(0),
        _ => bytes(MIN_MEMORY..=MAX_MEMORY)(value)
            .map_err(|message| format!("{message}; 0 is no limit")),
    }
}

/// One of these words.
fn word(words: &'static [&'static str]) -> impl Fn(&Value) -> Parsed<String> {
    move |value| {
        let text = string(value)?;
        if words.contains(&text.as_str()) {
            return Ok(text);
        }
        Err(format!("{text:?} is none of {}", words.join(", ")))
    }
}

fn level(value: &Value) -> Parsed<String> {
    let text = non_empty(value)?;
    logging::check_level(&text).map_err(|error| error.to_string())?;
    Ok(text)
}

fn paths(value: &Value) -> Parsed<Vec<PathBuf>> {
    one_or_many(value).iter().map(absolute).collect()
}

pub(super) fn absolute(value: &Value) -> Parsed<PathBuf> {
    let path = PathBuf::from(non_empty(value)?);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("{} is not an absolute path", path.display()))
    }
}
