//! Every room, made from its part of the configuration and joined to those it needs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Error;
use super::facts;
use super::operations::Operations;
use super::reload::Live;
use super::signer::PolicySigner;
use super::witness::Witness;
use crate::api::{self, KeptMixes, KeptPushes};
use crate::auth::{Authorizer, Gate, GuestLimits, Policy, Rules, Secret};
use crate::capture::Captures;
use crate::compat;
use crate::config::{self, Config};
use crate::hooks::{self, Door, Hooks};
use crate::ingest::{self, Ingest};
use crate::links::{self, Links};
use crate::media::PerApp;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::net::host::{Budget, Host};
use crate::net::tls::{Certificates, Trust};
use crate::net::{Admission, Bounds, Handed, Precedence, descriptors};
use crate::playback::{self, Playback, WaitingLimits};
use crate::push::{self, Pushes};
use crate::relay::{self, Join, OnBusy, Relay};
use crate::store::Store;

/// What the server keeps of the rooms.
pub struct Rooms {
    pub relay: Relay,
    pub ingest: Ingest,
    pub playback: Playback,
    /// The public HTTP side of playback.
    pub http: playback::Http,
    pub readiness: api::Readiness,
    pub live: Arc<Live>,
    pub hooks: Hooks,
    pub pushes: Pushes,
    /// Tell the journal what other rooms tell.
    tellers: Tellers,
    #[cfg(feature = "mixer")]
    pub mixer: Arc<crate::mixer::Mixer>,
    pub links: Links,
    /// Whoever makes mixes, or remembers what becomes of them.
    pub following: CancellationToken,
}

/// The rooms, and what is called over HTTP.
pub struct Built {
    pub rooms: Rooms,
    pub api: api::State,
    /// `None`: the compatible interface has no account.
    pub compat: Option<Arc<compat::State>>,
    pub links: links::Rooms,
    pub operations: Operations,
}

/// What the rooms are given besides the configuration.
pub struct Given {
    pub store: Store,
    /// Cancelled when no process that was taken over has publishers any more.
    pub alone: CancellationToken,
    pub token: Secret,
    /// Where RTMP can be reached on this host.
    pub rtmp: SocketAddr,
    /// Takes connections to the public HTTP listeners that do not ask for media.
    pub elsewhere: mpsc::Sender<Handed>,
    pub certificates: Option<Arc<Certificates>>,
}

/// Builds the rooms, and what the API and, where there is an account of it, the compatible interface call. Bans that were
/// kept hold when it is done, and mixes, pushes and links are there again.
pub async fn build(
    config: &Config,
    given: Given,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<Built, Error> {
    let Given {
        store,
        alone,
        token,
        rtmp,
        elsewhere,
        certificates,
    } = given;
    let (base_url, address) = (format!("rtmp://{rtmp}"), rtmp.ip());
    let metrics = Metrics::new();
    metrics.cap_streams(config.metrics.streams());
    let policy = Arc::new(Policy::new(config.auth.clone()));
    let memory = Memory::new(config.limits.memory);
    let admission = Admission::new(bounds(config));
    let host = Host::new(host_budget(config));
    let gate = Gate::new(policy.clone(), rules(config), memory.clone()).on(host.clone());
    let gate = Arc::new(gate);
    let trust = Trust::load(config.hooks.ca_file.as_deref()).map_err(Error::HooksTrust)?;
    let hooks = hooks::Config {
        accounts: config.compat.accounts.iter().filter_map(account).collect(),
        webhooks: config.hooks.webhooks.clone(),
        node: address.to_string(),
        pause: hooks::PAUSE,
        trust,
    };
    let hooks = Hooks::open(hooks, store.clone(), metrics.clone());
    let hooks = hooks.await.map_err(Error::Hooks)?;
    let bans = api::Bans::load(store.clone(), gate.clone())
        .await
        .map_err(Error::Store)?;
    let relay = Relay::new(relay_config(config, &memory));
    let playback = Playback::new(
        relay.clone(),
        playback_config(config),
        metrics.clone(),
        tasks.clone(),
        shutdown.clone(),
    );
    let ask = config.hooks.authorize.clone();
    let door = Door::new(gate.clone(), hooks.clone(), ask).map_err(Error::Hooks)?;
    let authorizer = Arc::new(Witness {
        authorizer: Arc::new(door),
        journal: hooks.journal().clone(),
    }) as Arc<dyn Authorizer>;
    let http = playback::Http::new(
        playback.clone(),
        playback::HttpConfig {
            admission: admission.clone(),
            head_deadline: config.limits.handshake,
            apps: per_app(config, |_| ()),
        },
        authorizer.clone(),
        metrics.clone(),
        tasks.clone(),
        shutdown.clone(),
        elsewhere,
    );
    let ingest = Ingest::new(
        ingest_config(config, &admission, &memory),
        relay.clone(),
        authorizer,
        Arc::new(playback.clone()),
        metrics.clone(),
        tasks.clone(),
        shutdown.clone(),
    );
    ingest.set_observer(Arc::new(facts::Troubles(hooks.clone())));
    playback.set_observer(Arc::new(facts::Troubles(hooks.clone())));
    let pushes = Pushes::new(
        relay.clone(),
        push::Config {
            hold: config.push.hold,
            max_backoff: config.push.max_backoff,
            failover: config.push.failover,
            steady: config.push.steady,
            trust: Some(Trust::load(config.push.ca_file.as_deref()).map_err(Error::Trust)?),
            ..push::Config::default()
        },
        Arc::new(PolicySigner(policy.clone())),
    );
    pushes
        .follow(push_rules(config)?)
        .map_err(|error| Error::Rules("push.rules".to_owned(), error))?;

    #[cfg(feature = "mixer")]
    let mixer = super::mixes::mixer(
        relay.clone(),
        &config.mixer,
        &config.compat,
        &config.state,
        metrics.clone(),
    )?;
    let following = shutdown.child_token();
    #[cfg(feature = "mixer")]
    let plain = Arc::new(super::mixes::Adapter::new(mixer.clone()));
    #[cfg(feature = "mixer")]
    let mixes = {
        let adapter = plain.clone();
        // Before the first mix is made, so that nothing is missed.
        let events = mixer.events();
        let kept = KeptMixes::load(adapter, store.clone(), tasks.clone(), following.clone()).await;
        let kept = kept.map_err(Error::Store)?;
        tasks.spawn(super::mixes::follow(
            events,
            kept.clone(),
            following.clone(),
        ));
        Some(kept)
    };
    #[cfg(not(feature = "mixer"))]
    let mixes: Option<KeptMixes> = None;
    let kept_pushes = KeptPushes::load(pushes.clone(), store.clone(), tasks.clone())
        .await
        .map_err(Error::Store)?;

    let readiness = api::Readiness::new();
    let live = Arc::new(Live {
        policy: policy.clone(),
        gate: gate.clone(),
        ingest: ingest.clone(),
        admission: admission.clone(),
        memory: memory.clone(),
        metrics: metrics.clone(),
        host: host.clone(),
        certificates: certificates.clone(),
        config: Mutex::new(config.clone()),
    });
    let writing = hooks.clone().write(relay.clone(), shutdown.clone(), alone);
    tasks.spawn(writing);
    tasks.spawn(hooks.clone().send(shutdown.clone()));
    let measuring = shutdown
        .clone()
        .run_until_cancelled_owned(super::host::measure(relay.clone(), host.clone()));
    tasks.spawn(measuring);
    let tellers = Tellers::default();
    tellers.spawn(facts::pushes(
        pushes.events(),
        hooks.journal().clone(),
        tellers.stop(),
    ));
    #[cfg(feature = "mixer")]
    tellers.spawn(facts::mixes(
        mixer.events(),
        hooks.journal().clone(),
        tellers.stop(),
    ));
    let dyn_mixes = || {
        let kept = mixes.clone()?;
        Some(Arc::new(kept) as Arc<dyn api::Mixes>)
    };
    let links = Links::load(
        relay.clone(),
        dyn_mixes(),
        store.clone(),
        tasks.clone(),
        following.clone(),
    );
    let links = links.await.map_err(Error::Store)?;
    tellers.spawn(facts::links(
        links.events(),
        hooks.journal().clone(),
        tellers.stop(),
    ));
    #[cfg(feature = "mixer")]
    if config.compat.url_mixes
        && let Some(kept) = dyn_mixes()
    {
        let follow = compat::by_url::follow(relay.clone(), plain, kept, following.clone());
        tasks.spawn(follow);
    }
    let compat = (!config.compat.accounts.is_empty()).then(|| {
        let seen = compat::Seen::default();
        tasks.spawn(seen.clone().follow(relay.clone(), shutdown.clone()));
        Arc::new(compat::State {
            relay: relay.clone(),
            mixes: dyn_mixes(),
            gate: gate.clone(),
            bans: bans.clone(),
            tasks: tasks.clone(),
            accounts: config.compat.accounts.clone(),
            pictures: config.compat.pictures.clone(),
            seen,
            shape: config.compat.merge_stream,
            address,
        })
    });
    let operations = Operations::new(live.clone(), relay.clone());
    #[cfg(feature = "mixer")]
    let camera = Some(Arc::new(super::camera::Decoding(mixer.clone())) as Arc<dyn api::Camera>);
    #[cfg(not(feature = "mixer"))]
    let camera = None;
    let state = api::State {
        operator: Arc::new(operations.clone()),
        pictures: api::Pictures::new(camera),
        captures: Captures::new(
            relay.clone(),
            config.state.dir.join("captures"),
            tasks.clone(),
            shutdown.clone(),
        ),
        relay: relay.clone(),
        playback: playback.clone(),
        pushes: kept_pushes,
        mixes,
        policy,
        gate,
        bans,
        memory,
        admission,
        host,
        metrics,
        readiness: readiness.clone(),
        certificates,
        store,
        hooks: hooks.clone(),
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
        token,
        apps: per_app(config, |_| ()),
        base_url,
    };
    let rooms = Rooms {
        relay,
        ingest,
        playback,
        http,
        readiness,
        live,
        hooks,
        pushes,
        tellers,
        #[cfg(feature = "mixer")]
        mixer,
        following,
        links: links.clone(),
    };
    let links = links::Rooms {
        links,
        policy: state.policy.clone(),
        limits: link_limits(&config.links),
        apps: per_app(config, |_| ()),
        base_url: state.base_url.clone(),
    };
    Ok(Built {
        rooms,
        api: state,
        compat,
        links,
        operations,
    })
}

impl Rooms {
    /// Ends what makes media or sends it elsewhere, in the order in which media flows.
    pub async fn end(&self) {
        // What ends from now on is to be there again after the next start.
        self.following.cancel();
        #[cfg(feature = "mixer")]
        self.mixer.shutdown().await;
        self.pushes.shutdown().await;
        self.tellers.end().await;
    }
}

/// Tasks that carry facts from one room to another. They end before the rooms that they tell, with all told.
#[derive(Default)]
struct Tellers {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Tellers {
    fn spawn(&self, teller: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(teller);
    }

    fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn link_limits(config: &config::Links) -> links::Limits {
    // At most a day, by the configuration's own bounds.
    let ms = |term: std::time::Duration| i64::try_from(term.as_millis()).unwrap_or(i64::MAX);
    links::Limits {
        answer_ms: ms(config.answer),
        start_ms: ms(config.start),
        gone_ms: ms(config.gone),
        hold_ms: ms(config.hold),
    }
}

/// How an account is called back.
fn account(account: &compat::Account) -> Option<hooks::Account> {
    let callback = account.callback.as_ref()?;
    Some(hooks::Account {
        appid: account.appid,
        app: account.app.clone(),
        stream_prefix: account.stream_prefix.clone(),
        address: callback.address.clone(),
        key: callback.key.clone(),
    })
}

/// The rules of `[push]` and of all applications.
fn push_rules(config: &Config) -> Result<Vec<push::Rule>, Error> {
    let named = || {
        config
            .apps
            .names()
            .filter(|name| *name != config::Apps::ANY)
    };
    let make = |rule: &config::Rule| {
        let sign = rule.sign.as_ref().map(|sign| push::Sign {
            with: push::SignWith::Secret(sign.secret.clone()),
            expires_in: sign.expires_in,
        });
        let apps = match rule.app.as_str() {
            config::Apps::ANY => push::Apps::AllBut(named().map(str::to_owned).collect()),
            app => push::Apps::One(app.to_owned()),
        };
        // The placeholders stay placeholders: the rule fills them in for each stream.
        let url = rule.url.expose("{app}", "{stream}");
        push::Rule::new(apps, &rule.pattern, rule.feed, &url, sign)
            .map(|made| made.in_group(rule.group.clone()))
    };
    let rules = config.push_rules();
    rules
        .map(|(path, rule)| make(rule).map_err(|error| Error::Rules(path, error)))
        .collect()
}

/// Who may come at all, and how many.
pub fn rules(config: &Config) -> Rules {
    Rules {
        publish: config.access.publish.clone(),
        play: config.access.play.clone(),
        control: config.access.control.clone(),
        limits: GuestLimits {
            publishers: config.limits.publishers,
            publishers_per_address: config.limits.publishers_per_address,
        },
    }
}

/// How many connections there may be: as many as are configured, or as the files that we may open leave room for.
pub fn bounds(config: &Config) -> Bounds {
    let room = descriptors::limit().map_or(usize::MAX, descriptors::room);
    Bounds {
        connections: config.limits.connections.min(room),
        per_address: config.limits.connections_per_address,
    }
}

/// What may be taken of the host.
pub fn host_budget(config: &Config) -> Budget {
    Budget {
        cpu_percent: config.limits.cpu_percent,
        egress_mbps: config.limits.egress_mbps,
    }
}

fn relay_config(config: &Config, memory: &Memory) -> relay::Config {
    relay::Config {
        memory: memory.clone(),
        gop_time: config.limits.gop_time,
        gop_bytes: config.limits.gop_bytes,
        history: config.classes.viewer.max_lag + std::time::Duration::from_secs(1),
        republish_grace: per_app(config, |app| app.republish_grace),
        on_busy: per_app(config, |app| match app.on_busy {
            config::OnBusy::TakeoverIfIdle => OnBusy::TakeoverIfIdle(app.takeover_if_idle),
            config::OnBusy::Takeover => OnBusy::Takeover,
            config::OnBusy::Reject => OnBusy::Reject,
        }),
        gop_warning: per_app(config, |app| app.gop_warning),
    }
}

/// What publishers of each application may do.
pub fn ingest_apps(config: &Config) -> PerApp<ingest::AppConfig> {
    per_app(config, |app| ingest::AppConfig {
        publish_idle: app.publish_idle,
        max_kbps: app.max_kbps,
    })
}

fn ingest_config(config: &Config, admission: &Admission, memory: &Memory) -> ingest::Config {
    ingest::Config {
        admission: admission.clone(),
        memory: memory.clone(),
        stage_deadline: config.limits.handshake,
        apps: ingest_apps(config),
        precedence: precedence(config),
        ..ingest::Config::default()
    }
}

/// Of the threads that relay.
fn precedence(config: &Config) -> Precedence {
    match config.threads.realtime {
        true => Precedence::Realtime,
        false => Precedence::Weight,
    }
}

fn playback_config(config: &Config) -> playback::Config {
    let defaults = playback::Config::default();
    let class = |default: playback::ClassConfig, limits: &config::ClassLimits| {
        let mut class = default;
        class.budget = relay::Budget {
            max_lag: limits.max_lag,
            max_bytes: limits.max_bytes,
            stuck: limits.stuck,
        };
        class.join = match limits.join {
            config::Join::Squeeze => Join::Squeeze,
            config::Join::Burst => Join::Burst,
            config::Join::Wait => Join::Wait,
        };
        class.merge_window = limits.merge_window;
        class.readers_per_name = limits.readers_per_name.unwrap_or(0);
        class
    };
    playback::Config {
        low_latency: class(defaults.low_latency, &config.classes.low_latency),
        viewer: class(defaults.viewer, &config.classes.viewer),
        waiting: WaitingLimits {
            per_name: config.limits.waiting_per_name,
            per_address: config.limits.waiting_per_address,
            total: config.limits.waiting_total,
            patience: config.limits.wait,
        },
        precedence: precedence(config),
    }
}

fn per_app<T>(config: &Config, value: impl Fn(&config::App) -> T) -> PerApp<T> {
    let find = |name: &str| config.apps.find(name).map(&value);
    PerApp {
        named: config
            .apps
            .names()
            .filter(|name| *name != config::Apps::ANY)
            .filter_map(|name| Some((name.to_owned(), find(name)?)))
            .collect(),
        // No application can be called that, so this finds only the section for all others.
        others: find(config::Apps::ANY),
    }
}
