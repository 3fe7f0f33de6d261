//! The command line: which commands there are, and what each prints.
//!
//! Owns arguments, the words on stdout and the exit codes. Does nothing itself that a room can do: it reads the
//! configuration, asks `auth`, starts the `server`. Called by `main` only. What a command was asked for goes to
//! stdout; logs and errors go to stderr.

mod control;
mod ctl;
mod doctor;
mod pages;
mod top;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::auth::{self, Action, Address, AddressError, Policy, Purpose};
use crate::config::{self, Config, Env};
#[cfg(feature = "mixer")]
use crate::demo;
use crate::load;
use crate::logging;
use crate::media::{NameError, StreamKey};
use crate::net::tls::{CertificateError, Certificates, Trust};
use crate::reason::Reason;
use crate::server::{self, Server};

/// Self-hosted, low-latency RTMP edge and mixing server for live co-hosting.
#[derive(Debug, Parser)]
#[command(name = "linkmic", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server until a signal ends it.
    Serve(ServeArgs),
    /// Name every mistake in the configuration, and what deserves a second look.
    Check(ConfigArgs),
    /// Show the whole job on this machine: real programs publish, play and judge.
    #[cfg(feature = "mixer")]
    Demo(demo::Options),
    /// Sign a URL, or explain what one opens.
    #[command(subcommand)]
    Url(UrlCommand),
    /// Load a server, ours or another, and measure its latency and cost: to size a host.
    ///
    /// One line a second on standard error, one line of JSON on standard output at the end or at Ctrl-C.
    #[command(subcommand)]
    Bench(load::Subcommand),
    /// Ask a running server over its control API, or have it do something: a verb for each operation.
    Ctl(Box<ctl::Options>),
    /// Show streams, players, mixes and pushes of a running server, again and again.
    Top(top::Options),
    /// Look at this machine as the server would find it, and say what is wrong and what to do.
    Doctor(doctor::Options),
    /// Print completions for a shell.
    Completions(pages::CompletionsArgs),
    /// Write man pages, one for each command, into a directory.
    Man(pages::ManArgs),
}

#[derive(Debug, Subcommand)]
enum UrlCommand {
    /// Print a URL for publishing, for a peer, or for a viewer.
    Sign(SignArgs),
    /// Say what a URL is granted, or why not.
    Verify(VerifyArgs),
}

#[derive(Debug, Clone, Args)]
struct ConfigArgs {
    /// Configuration file; without one, defaults and LINKMIC__… variables hold.
    #[arg(long, value_name = "FILE", env = "LINKMIC_CONFIG", global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Take the listeners and the state from the server that uses the same state directory, which then drains; without one, start as
    /// usual.
    #[arg(long)]
    take_over: bool,
}

#[derive(Debug, Args)]
struct SignArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// What the URL is for: publishing, a peer's low-latency feed, or a viewer.
    #[arg(long, value_enum)]
    action: SignFor,
    /// Application: the first part of the URL's path.
    #[arg(long, default_value = "live")]
    app: String,
    /// Stream name, with its bizid prefix where the app uses one.
    #[arg(long)]
    stream: String,
    /// How long the URL is good for, as in 30m, 12h or 7days.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "12h")]
    expires_in: Duration,
    /// Id of the key to sign with; without it, the first of its set.
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// Scheme, host and port of the URL; without it, this host and the configured RTMP port.
    #[arg(long, value_name = "URL")]
    base: Option<String>,
}

/// `Debug` by hand: the URL may hold a valid signature.
#[derive(Args)]
struct VerifyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The URL, in quotes.
    url: String,
    /// Only for this action; without it, both are explained.
    #[arg(long, value_enum)]
    action: Option<AskFor>,
}

impl std::fmt::Debug for VerifyArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyArgs")
            .field("config", &self.config)
            .field("action", &self.action)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SignFor {
    Push,
    Peer,
    View,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AskFor {
    Publish,
    Play,
}

/// How a command ended that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is well: exit code 0.
    Done,
    /// The answer is no (a refused URL, a configuration with mistakes): exit code 1.
    Negative,
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the configuration cannot be used\n{0}")]
    Config(#[from] config::Error),
    #[error(transparent)]
    Logging(#[from] logging::Error),
    #[error(transparent)]
    Server(#[from] server::Error),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Sign(#[from] auth::SignError),
    #[error("--base {0}")]
    Base(&'static str),
    #[error("no application {app:?} is configured; there are: {known}")]
    UnknownApp { app: String, known: String },
    #[cfg(feature = "mixer")]
    #[error(transparent)]
    Demo(#[from] demo::Error),
    #[error(transparent)]
    Load(#[from] load::Error),
    #[error(transparent)]
    Ctl(#[from] ctl::Error),
    #[error(transparent)]
    Control(#[from] control::Error),
    #[error("cannot write man pages to {}: {source}", path.display())]
    Man { path: PathBuf, source: io::Error },
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    /// 2 when arguments or configuration must change, 1 when something failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Server(_) | Error::Output(_) | Error::Load(load::Error::Io(_)) => 1,
            Error::Ctl(error) if !error.is_usage() => 1,
            Error::Control(error) if !error.is_usage() => 1,
            _ => 2,
        }
    }
}

impl Cli {
    /// Does what was asked for, writing the answer to `out`.
    ///
    /// # Errors
    /// When it cannot be done. That the answer is no is not an error but [`Outcome::Negative`].
    ///
    /// # Cancel safety
    /// Dropping the future of `serve` ends the server at once, without a drain.
    pub async fn run(self, env: &Env, out: &mut dyn Write) -> Result<Outcome, Error> {
        match self.command {
            Command::Serve(args) => serve(args, env).await,
            #[cfg(feature = "mixer")]
            Command::Demo(options) => Ok(match demo::run(options).await? {
                true => Outcome::Done,
                false => Outcome::Negative,
            }),
            Command::Check(args) => check(&args, env, out),
            Command::Bench(command) => bench(command, out).await,
            Command::Ctl(options) => ctl::run(*options, env, out).await,
            Command::Top(options) => top::run(options, env, out).await,
            Command::Doctor(options) => doctor::run(options, env, out).await,
            Command::Completions(args) => pages::completions(&args, out),
            Command::Man(args) => pages::man(&args, out),
            Command::Url(UrlCommand::Sign(args)) => {
                let config = args.config.load(env)?;
                writeln!(out, "{}", args.signed_url(config, SystemTime::now())?)?;
                Ok(Outcome::Done)
            }
            Command::Url(UrlCommand::Verify(args)) => {
                let config = args.config.load(env)?;
                args.explain(config, SystemTime::now(), out)
            }
        }
    }
}

async fn serve(args: ServeArgs, env: &Env) -> Result<Outcome, Error> {
    let ServeArgs {
        config: args,
        take_over,
    } = args;
    let config = args.load(env)?;
    logging::init(config.log.format, &config.log.level)?;
    let signals = server::Signals::listen()?;
    let before = match take_over {
        true => server::Before::taken_over(&config).await?,
        false => server::Before::environment()?,
    };
    let server = Server::start_with(config, before).await?;
    let env = env.clone();
    server
        .run_until_signal(signals, move || args.load(&env))
        .await;
    Ok(Outcome::Done)
}

/// Players and publishers have threads of their own; this one only waits, and hears Ctrl-C.
async fn bench(command: load::Subcommand, out: &mut dyn Write) -> Result<Outcome, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let run = tokio::task::spawn_blocking(move || {
        let mut report = Vec::new();
        let outcome = command.run(&told, &mut report, &mut io::stderr());
        outcome.map(|outcome| (outcome, report))
    });
    tokio::pin!(run);
    let ended = tokio::select! {
        ended = &mut run => ended,
        () = load::stop_on_interrupt(&stop) => run.await,
    };
    let (outcome, report) = ended.map_err(io::Error::from)??;
    out.write_all(&report)?;
    Ok(match outcome {
        load::Outcome::Whole => Outcome::Done,
        load::Outcome::Losses => Outcome::Negative,
    })
}

fn check(args: &ConfigArgs, env: &Env, out: &mut dyn Write) -> Result<Outcome, Error> {
    let name = match &args.config {
        Some(path) => path.display().to_string(),
        None => "defaults and environment".to_owned(),
    };
    let checked = args.load(env).and_then(|config| {
        // What a start would stumble over next: files that the configuration only names.
        let mistake = certificate_mistake(&config).or_else(|| trust_mistake(&config));
        mistake.map_or(Ok(config), |m| Err(config::Error::Invalid(vec![m])))
    });
    match checked {
        Ok(config) => {
            let warnings = server::remarks(&config);
            for warning in &warnings {
                writeln!(out, "warning: {warning}")?;
            }
            writeln!(out, "{name}: ok, {}", counted(warnings.len(), "warning"))?;
            Ok(Outcome::Done)
        }
        Err(config::Error::Invalid(mistakes)) => {
            for mistake in &mistakes {
                writeln!(out, "mistake: {mistake}")?;
            }
            writeln!(out, "{name}: {}", counted(mistakes.len(), "mistake"))?;
            Ok(Outcome::Negative)
        }
        Err(error @ config::Error::Syntax { .. }) => {
            writeln!(out, "mistake: {error}")?;
            Ok(Outcome::Negative)
        }
        Err(error @ config::Error::Read { .. }) => Err(error.into()),
    }
}

/// What is wrong with the certificate's files, if there are any to be read.
fn certificate_mistake(config: &Config) -> Option<config::Remark> {
    let files = config.rtmps.certificate.as_ref()?;
    let error = Certificates::load(files.certificate.clone(), files.key.clone()).err()?;
    let key = match error {
        CertificateError::Certificate { .. } | CertificateError::Empty(_) => "certificate",
        CertificateError::Key { .. } | CertificateError::Pair { .. } => "key",
    };
    Some(config::Remark {
        path: format!("rtmps.{key}"),
        message: error.to_string(),
    })
}

/// What is wrong with the file of certificate authorities, if there is any to be read.
fn trust_mistake(config: &Config) -> Option<config::Remark> {
    let error = Trust::load(config.push.ca_file.as_deref()).err()?;
    Some(config::Remark {
        path: "push.ca_file".to_owned(),
        message: error.to_string(),
    })
}

impl ConfigArgs {
    fn load(&self, env: &Env) -> Result<Config, config::Error> {
        Config::load(self.config.as_deref().map(Path::new), env)
    }
}

impl SignArgs {
    fn signed_url(&self, config: Config, now: SystemTime) -> Result<String, Error> {
        let key = StreamKey::new(&self.app, &self.stream)?;
        if config.app(key.app()).is_none() {
            return Err(unknown_app(&config, key.app()));
        }
        let base = match &self.base {
            Some(base) => checked_base(base)?.to_owned(),
            None => format!("rtmp://{}", local_address(&config)),
        };
        let purpose = match self.action {
            SignFor::Push => Purpose::Push,
            SignFor::Peer => Purpose::Peer,
            SignFor::View => Purpose::View,
        };
        // Beyond what the clock can express, txTime ends anyway.
        let expires_at = now.checked_add(self.expires_in).unwrap_or(now);
        let policy = Policy::new(config.auth);
        let query = policy.signed_query(purpose, &key, expires_at, self.key.as_deref(), now)?;
        Ok(match query {
            Some(query) => format!("{base}/{key}?{query}"),
            None => format!("{base}/{key}"),
        })
    }
}

impl VerifyArgs {
    fn explain(
        &self,
        config: Config,
        now: SystemTime,
        out: &mut dyn Write,
    ) -> Result<Outcome, Error> {
        let address = Address::parse(&self.url)?;
        if config.app(address.key.app()).is_none() {
            let error = unknown_app(&config, address.key.app());
            writeln!(out, "refused ({}): {error}", Reason::UnknownApp)?;
            return Ok(Outcome::Negative);
        }
        let policy = Policy::new(config.auth);
        let actions = match self.action {
            Some(AskFor::Publish) => &[Action::Publish][..],
            Some(AskFor::Play) => &[Action::Play],
            None => &[Action::Publish, Action::Play],
        };
        let mut outcome = Outcome::Negative;
        for &action in actions {
            let verb = match action {
                Action::Publish => "publish",
                Action::Play => "play",
            };
            let request = auth::Request {
                connection: None,
                action,
                key: &address.key,
                query: &address.query,
                // The policy does not look at it; there is no peer.
                peer: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                now,
            };
            match policy.decide(&request) {
                Ok(grant) => {
                    writeln!(out, "{verb}: granted: {grant}")?;
                    outcome = Outcome::Done;
                }
                Err(refusal) => writeln!(out, "{verb}: refused ({}): {refusal}", refusal.reason)?,
            }
        }
        Ok(outcome)
    }
}

fn unknown_app(config: &Config, app: &str) -> Error {
    let known: Vec<_> = config.apps.names().collect();
    Error::UnknownApp {
        app: app.to_owned(),
        known: known.join(", "),
    }
}

/// The base without a slash at its end.
fn checked_base(base: &str) -> Result<&str, Error> {
    let base = base.strip_suffix('/').unwrap_or(base);
    let Ok(url) = url::Url::parse(base) else {
        return Err(Error::Base("is not a URL like rtmp://host:1935"));
    };
    if !matches!(url.scheme(), "rtmp" | "rtmps") {
        return Err(Error::Base("does not begin with rtmp:// or rtmps://"));
    }
    let more = !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some();
    if url.host_str().is_none_or(str::is_empty) || more {
        return Err(Error::Base(
            "is to be scheme, host and port only; --app and --stream give the rest",
        ));
    }
    Ok(base)
}

/// Where a client on this host reaches the RTMP listener.
fn local_address(config: &Config) -> SocketAddr {
    let first = config.rtmp.listen.first().copied();
    local(first.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 1935))))
}

/// A listener's address as a client on this host dials it.
fn local(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn counted(count: usize, what: &str) -> String {
    match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests;
