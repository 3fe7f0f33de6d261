//! The sections as values, each with its defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::auth::{AddressList, Secret};
use crate::logging;
use crate::media::{Class, Feed};
use crate::push::Membership;

/// `[rtmp]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rtmp {
    /// At least one.
    pub listen: Vec<SocketAddr>,
    /// Every connection must begin with a PROXY header from one of [`AccessLists::trusted_proxies`].
    pub proxy_protocol: bool,
}

/// `[rtmps]`: RTMP inside TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rtmps {
    /// None: not served.
    pub listen: Vec<SocketAddr>,
    /// The PEM files of the certificate, which `[http] tls_listen` shows too. There wherever either listens.
    pub certificate: Option<CertificateFiles>,
    /// As [`Rtmp::proxy_protocol`].
    pub proxy_protocol: bool,
}

/// A certificate and its private key, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// `[http]`: the public listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// At least one.
    pub listen: Vec<SocketAddr>,
    /// HTTPS; none: not served.
    pub tls_listen: Vec<SocketAddr>,
    /// As [`Rtmp::proxy_protocol`], for both.
    pub proxy_protocol: bool,
}

/// `[access]`: who may connect from where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessLists {
    /// Who may publish.
    pub publish: AddressList,
    /// Who may play, over RTMP and HTTP.
    pub play: AddressList,
    /// Who may call the control API.
    pub control: AddressList,
    /// Load balancers whose PROXY headers are believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// `[control]`: the private listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// At least one.
    pub listen: Vec<SocketAddr>,
    /// Where the API's token is to come from; [`super::Config::control_token`] fetches it.
    pub token: TokenSource,
}

/// Where the API's token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// It stands in the configuration.
    Given(Secret),
    /// It stands in a file of the operator's.
    File(PathBuf),
    /// It is made at the first start, and kept in `state.dir`.
    Generated,
}

/// `[apps]`: which applications there are. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apps(pub(super) BTreeMap<String, App>);

impl Apps {
    /// The section that stands for every application without its own.
    pub const ANY: &str = "*";

    /// What holds for an application; `None` when it is not configured.
    pub fn find(&self, name: &str) -> Option<&App> {
        self.0.get(name).or_else(|| self.0.get(Self::ANY))
    }

    /// The section of that name and no other.
    pub fn named(&self, name: &str) -> Option<&App> {
        self.0.get(name)
    }

    /// Changes sections in place.
    pub fn update(&mut self, mut change: impl FnMut(&str, &mut App)) {
        for (name, app) in &mut self.0 {
            change(name, app);
        }
    }

    /// All sections by name, `*` among them where it stands.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &App)> {
        self.0.iter().map(|(name, app)| (name.as_str(), app))
    }

    /// The configured names, `*` among them where it stands.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// `[apps.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// How long readers wait for a publisher whose connection was lost.
    pub republish_grace: Duration,
    /// Without media for this long, a publisher's epoch ends.
    pub publish_idle: Duration,
    /// A GOP longer than this is reported in the publisher's health.
    pub gop_warning: Duration,
    /// Who keeps a name that is published already when another publisher asks for it.
    pub on_busy: OnBusy,
    /// With [`OnBusy::TakeoverIfIdle`]: how long the publisher that has the name must have sent no media.
    pub takeover_if_idle: Duration,
    /// Most that one publisher may send for long, in kilobits per second; `None`: no limit.
    pub max_kbps: Option<u32>,
    /// Its streams that are pushed without an API call, besides those of [`Push::rules`]; `app` is its name.
    pub push: Vec<Rule>,
}

/// What happens when a name is published that somebody publishes already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBusy {
    /// The newcomer gets it when the other has gone quiet, or comes from the same address with the same query.
    TakeoverIfIdle,
    /// The newcomer gets it.
    Takeover,
    /// The newcomer is refused.
    Reject,
}

/// `[push]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// How long a connection is kept after its stream has ended.
    pub hold: Duration,
    /// Longest pause between two attempts.
    pub max_backoff: Duration,
    /// How long there must have been media and no primary of a group publishing before a backup does.
    pub failover: Duration,
    /// How long a connection must have published to count as good: its back-off begins anew, and a backup hands back.
    pub steady: Duration,
    /// A PEM file of certificate authorities that `rtmps://` targets may come from, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Streams that are pushed without an API call.
    pub rules: Vec<Rule>,
}

/// `[links]`: how long a link may stand where it does, unless its request says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links {
    /// Without an answer to the request.
    pub answer: Duration,
    /// Accepted, and not live.
    pub start: Duration,
    /// Live, with the main or every sub gone.
    pub gone: Duration,
    /// How long a sub that stopped publishing keeps its place in the picture.
    pub hold: Duration,
}

/// `[[push.rules]]` and `[[apps.NAME.push]]`: every published stream of `app` whose name matches goes to `url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// A configured application; [`Apps::ANY`] for all those that have no section of their own.
    pub app: String,
    /// Stream names, `*` standing for any characters (also none).
    pub pattern: String,
    /// Which feed is pushed.
    pub feed: Feed,
    /// Where to.
    pub url: TargetUrl,
    /// How the URL is signed at each connect, when the target wants that.
    pub sign: Option<Sign>,
    /// The part of its targets in a group of targets of their stream; `None`: they publish whatever the others do.
    pub group: Option<Membership>,
}

/// How a target's URL is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// The target's push key (theirs, not one of ours).
    pub secret: Secret,
    /// How long after each connect the signature is good.
    pub expires_in: Duration,
}

/// A target's URL, with `{app}` and `{stream}` still in it. Prints with `***` for its query: there may be a key in it.
#[derive(Clone, PartialEq, Eq)]
pub struct TargetUrl(pub(super) String);

impl TargetUrl {
    /// The URL for one stream, query and all. For connecting, never for messages or logs.
    pub fn expose(&self, app: &str, stream: &str) -> String {
        self.0.replace("{app}", app).replace("{stream}", stream)
    }

    /// Whether different streams get different URLs.
    pub fn names_stream(&self) -> bool {
        self.0.contains("{stream}")
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once('?') {
            Some((front, _)) => write!(f, "{front}?***"),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// `[classes]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// Peers in a conversation.
    pub low_latency: ClassLimits,
    /// Everybody else.
    pub viewer: ClassLimits,
}

impl Classes {
    /// What holds for a class.
    pub fn of(&self, class: Class) -> &ClassLimits {
        match class {
            Class::LowLatency => &self.low_latency,
            Class::Viewer => &self.viewer,
        }
    }
}

/// `[classes.low_latency]`, `[classes.viewer]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassLimits {
    /// Further behind the live edge than this, in media time, video skips to the next key frame.
    pub max_lag: Duration,
    /// Further behind than this in bytes, the same.
    pub max_bytes: usize,
    /// A reader that takes nothing at all for this long is closed.
    pub stuck: Duration,
    /// Where a reader starts.
    pub join: Join,
    /// Most readers of this class for one name; `None`: no limit.
    pub readers_per_name: Option<usize>,
    /// What came in goes out together once per this long; zero: video at once, audio with the next video.
    pub merge_window: Duration,
}

/// Where a reader starts that comes in the middle of a GOP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// The current GOP at once, its timestamps squeezed to end at the live edge.
    Squeeze,
    /// The current GOP at once, as recorded.
    Burst,
    /// The next key frame.
    Wait,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// RTMP and HTTP-FLV connections in total.
    pub connections: usize,
    /// Connections from one IPv4 address or one IPv6 /64; 0 is no limit.
    pub connections_per_address: usize,
    /// Publishers in total; 0 is no limit.
    pub publishers: usize,
    /// Publishers from one address; 0 is no limit.
    pub publishers_per_address: usize,
    /// Bytes held for clients in total; 0 is no limit.
    pub memory: usize,
    /// Of the processor time that the process may have, in percent; 0 is no limit.
    pub cpu_percent: u32,
    /// To players in total; 0 is no limit.
    pub egress_mbps: u32,
    /// Players waiting for one absent name.
    pub waiting_per_name: usize,
    /// Players waiting from one address.
    pub waiting_per_address: usize,
    /// Players waiting altogether.
    pub waiting_total: usize,
    /// How long a player waits for an absent stream.
    pub wait: Duration,
    /// For the handshake, and again from there (and from the end of a publish) to publish or play.
    pub handshake: Duration,
    /// Most that is kept of one feed's GOP.
    pub gop_bytes: usize,
    /// Longest GOP that is kept, in media time.
    pub gop_time: Duration,
}

/// `[mixer]`: defaults for what a mix does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mixer {
    /// What the pictures are encoded with, one of [`Mixer::ENCODERS`].
    pub video_encoder: String,
    /// What mixes may cost together, in units: hundredths of a core, about; `None`: by the number of cores.
    pub budget: Option<u32>,
    /// May mixes step down when their encoder cannot keep up?
    pub degrade: bool,
    /// x264's speed preset, one of [`Mixer::PRESETS`].
    pub preset: String,
    /// What encodes the output's audio, where it can.
    pub audio_encoder: AudioEncoder,
    /// Kilobits per second of the output's audio.
    pub audio_kbps: u32,
    /// Kilobits per second of the output's video; `None`: by picture size and frame rate.
    pub video_kbps: Option<u32>,
    /// How long an output picture waits for its inputs.
    pub deadline: Duration,
    /// A mix in which there has been nothing to mix for this long lets the main pass as it is.
    pub passthrough_after: Duration,
    /// A mix whose streams have all been gone for this long ends.
    pub abandoned_after: Duration,
    /// Files of still pictures by the ids that mixes name them by.
    pub pictures: BTreeMap<String, PathBuf>,
    /// Internal networks from which mixes may fetch pictures.
    pub picture_networks: Vec<IpNet>,
    /// Font files for names, in the order in which they are asked for a letter; none: the usual ones that are there.
    pub fonts: Vec<PathBuf>,
}

/// Which AAC encoder mixes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AudioEncoder {
    /// The one with the least delay of those that are there and can.
    #[default]
    Auto,
    /// VisualOn's.
    Voaacenc,
    /// libavcodec's.
    Avenc,
}

impl Mixer {
    /// Families of encoders, and `auto` for what there is.
    pub const ENCODERS: [&str; 6] = ["auto", "x264", "openh264", "nvenc", "vaapi", "qsv"];

    /// The presets that keep up with live pictures, fastest first.
    pub const PRESETS: [&str; 6] = [
        "ultrafast",
        "superfast",
        "veryfast",
        "faster",
        "fast",
        "medium",
    ];
}

/// `[state]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Where the server keeps what outlives it. Need not exist yet.
    pub dir: PathBuf,
}

/// `[metrics]`: what the metrics page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Series of single streams too.
    pub per_stream: bool,
    /// Of so many streams at most.
    pub per_stream_cap: usize,
}

impl Metrics {
    /// Of how many streams there are series; `None`: of none.
    pub fn streams(&self) -> Option<usize> {
        self.per_stream.then_some(self.per_stream_cap)
    }
}

/// `[threads]`: how far those that relay go before others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// Before all that compute, where the host allows it.
    pub realtime: bool,
}

/// `[drain]`: how the server goes down when it is asked to by SIGTERM, the API or a process that takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long publishers have to go elsewhere.
    pub deadline: Duration,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// For people or for machines.
    pub format: logging::Format,
    /// A level, or a list of levels by module; accepted by [`logging::init`].
    pub level: String,
}

fn any_host(port: u16) -> Vec<SocketAddr> {
    vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))]
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Default for Rtmp {
    fn default() -> Self {
        Self {
            listen: any_host(1935),
            proxy_protocol: false,
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: any_host(8080),
            tls_listen: Vec::new(),
            proxy_protocol: false,
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 1985))],
            token: TokenSource::Generated,
        }
    }
}

impl Default for Apps {
    fn default() -> Self {
        Self(BTreeMap::from([("live".to_owned(), App::default())]))
    }
}

impl Default for App {
    fn default() -> Self {
        Self {
            republish_grace: seconds(10),
            publish_idle: seconds(15),
            gop_warning: seconds(10),
            on_busy: OnBusy::TakeoverIfIdle,
            takeover_if_idle: seconds(1),
            max_kbps: None,
            push: Vec::new(),
        }
    }
}

impl Default for Push {
    fn default() -> Self {
        Self {
            hold: seconds(10),
            max_backoff: seconds(30),
            failover: seconds(2),
            steady: seconds(10),
            ca_file: None,
            rules: Vec::new(),
        }
    }
}

impl Default for Links {
    fn default() -> Self {
        Self {
            answer: seconds(60),
            start: seconds(5 * 60),
            gone: seconds(60),
            hold: seconds(10),
        }
    }
}

impl Default for Classes {
    fn default() -> Self {
        Self {
            low_latency: ClassLimits {
                max_lag: Duration::from_millis(400),
                max_bytes: 2 << 20,
                stuck: seconds(10),
                join: Join::Squeeze,
                readers_per_name: Some(10),
                merge_window: Duration::ZERO,
            },
            viewer: ClassLimits {
                max_lag: seconds(3),
                max_bytes: 8 << 20,
                stuck: seconds(20),
                join: Join::Squeeze,
                readers_per_name: None,
                merge_window: Duration::ZERO,
            },
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 5_000,
            publishers: 1_000,
            publishers_per_address: 0,
            memory: 2 << 30,
            cpu_percent: 0,
            egress_mbps: 0,
            waiting_per_name: 50,
            waiting_per_address: 20,
            waiting_total: 1_000,
            wait: seconds(10),
            handshake: seconds(10),
            gop_bytes: 16 * 1024 * 1024,
            gop_time: seconds(20),
        }
    }
}

impl Default for Mixer {
    fn default() -> Self {
        Self {
            video_encoder: "auto".to_owned(),
            budget: None,
            degrade: true,
            preset: "superfast".to_owned(),
            audio_encoder: AudioEncoder::Auto,
            audio_kbps: 96,
            video_kbps: None,
            deadline: Duration::from_millis(40),
            passthrough_after: Duration::from_secs(10),
            abandoned_after: Duration::from_secs(15 * 60),
            pictures: BTreeMap::new(),
            picture_networks: Vec::new(),
            fonts: Vec::new(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            per_stream: false,
            per_stream_cap: 200,
        }
    }
}

impl Default for Threads {
    fn default() -> Self {
        Self { realtime: true }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            deadline: seconds(30),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: logging::Format::Auto,
            level: "info".to_owned(),
        }
    }
}
