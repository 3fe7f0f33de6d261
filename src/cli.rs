//! The command line: which commands there are, and what each prints.
//!
//! Owns arguments, the words on stdout and the exit codes. Does nothing itself that a room can do: it reads the
//! configuration, asks `auth`, starts the `server`. Called by `main` only. What a command was asked for goes to
//! stdout; logs and errors go to stderr.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing::warn;

use crate::auth::{self, Action, Address, AddressError, Policy, Purpose};
use crate::config::{self, Config, Env};
use crate::logging;
use crate::media::{NameError, StreamKey};
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
    Serve(ConfigArgs),
    /// Name every mistake in the configuration, and what deserves a second look.
    Check(ConfigArgs),
    /// Sign a URL, or explain what one opens.
    #[command(subcommand)]
    Url(UrlCommand),
}

#[derive(Debug, Subcommand)]
enum UrlCommand {
    /// Print a URL for publishing, for a peer, or for a viewer.
    Sign(SignArgs),
    /// Say what a URL is granted, or why not.
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file; without one, defaults and LINKMIC__… variables hold.
    #[arg(long, value_name = "FILE", env = "LINKMIC_CONFIG")]
    config: Option<PathBuf>,
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
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    /// 2 when arguments or configuration must change, 1 when something failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Server(_) | Error::Output(_) => 1,
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
            Command::Serve(args) => serve(args.load(env)?).await,
            Command::Check(args) => check(&args, env, out),
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

async fn serve(config: Config) -> Result<Outcome, Error> {
    logging::init(config.log.format, &config.log.level)?;
    for warning in config.warnings() {
        warn!(key = %warning.path, "{}", warning.message);
    }
    Server::start(config).await?.run_until_signal().await?;
    Ok(Outcome::Done)
}

fn check(args: &ConfigArgs, env: &Env, out: &mut dyn Write) -> Result<Outcome, Error> {
    let name = match &args.config {
        Some(path) => path.display().to_string(),
        None => "defaults and environment".to_owned(),
    };
    match args.load(env) {
        Ok(config) => {
            let warnings = config.warnings();
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
        let query = policy.signed_query(purpose, &key, expires_at, self.key.as_deref())?;
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
    let mut address = match config.rtmp.listen.first() {
        Some(&address) => address,
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, 1935)),
    };
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
mod tests {
    use super::*;

    const KEYS: &str = r#"
        [auth]
        push_keys = [{ id = "main", secret = "f3313e36c611150119f5d04ff1225b3e" },
                     { id = "backup", secret = "e12c46f2612d5106e2034781ab261ca3" }]
    "#;

    struct Ran {
        result: Result<Outcome, Error>,
        out: String,
    }

    /// Runs a command line in which FILE stands for a file with `config`.
    async fn run(config: &str, line: &[&str]) -> Ran {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("linkmic.toml");
        std::fs::write(&file, config).unwrap();
        let file = file.to_str().unwrap();
        let line = line
            .iter()
            .map(|&arg| if arg == "FILE" { file } else { arg });
        let cli = Cli::try_parse_from(std::iter::once("linkmic").chain(line)).unwrap();
        let mut out = Vec::new();
        let result = cli.run(&Env::default(), &mut out).await;
        let out = String::from_utf8(out).unwrap().replace(file, "FILE");
        Ran { result, out }
    }

    async fn signed(config: &str, more: &[&str]) -> Result<String, Error> {
        let line = [
            "url",
            "sign",
            "--config",
            "FILE",
            "--stream",
            "8888_streamA",
        ];
        let ran = run(config, &[&line, more].concat()).await;
        ran.result.map(|_| ran.out.trim_end().to_owned())
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[tokio::test]
    async fn check_names_every_mistake_and_fails() {
        let ran = run(
            "[rtmp]\nlisten = \"here\"\n[auth]\npush = 1\n",
            &["check", "--config", "FILE"],
        )
        .await;
        assert_eq!(ran.result.unwrap(), Outcome::Negative);
        assert_eq!(
            ran.out,
            "mistake: auth.push: expected a string, found a whole number\n\
             mistake: rtmp.listen: \"here\" is not an address with port, like \"0.0.0.0:1935\" or \"[::]:1935\"\n\
             FILE: 2 mistakes\n"
        );
        let ran = run("[rtmp\n", &["check", "--config", "FILE"]).await;
        assert_eq!(ran.result.unwrap(), Outcome::Negative);
        assert!(
            ran.out
                .starts_with("mistake: FILE: TOML parse error at line 1"),
            "{}",
            ran.out
        );
    }

    #[tokio::test]
    async fn check_passes_with_its_warnings() {
        let ran = run("", &["check", "--config", "FILE"]).await;
        assert_eq!(ran.result.unwrap(), Outcome::Done);
        assert!(
            ran.out.starts_with("warning: auth.push_keys: no push key"),
            "{}",
            ran.out
        );
        assert!(ran.out.ends_with("\nFILE: ok, 1 warning\n"), "{}", ran.out);
        let ran = run(KEYS, &["check", "--config", "FILE"]).await;
        assert_eq!(ran.out, "FILE: ok, no warnings\n");
    }

    #[tokio::test]
    async fn a_configuration_that_cannot_be_used_ends_other_commands_with_code_2() {
        let missing = ["check", "--config", "/nonexistent/linkmic.toml"];
        let error = run("", &missing).await.result.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error
                .to_string()
                .contains("cannot read /nonexistent/linkmic.toml"),
            "{error}"
        );
        let error = run("colour = 1", &["serve", "--config", "FILE"]).await;
        let error = error.result.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error.to_string().contains("\ncolour: unknown key"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_signed_url_opens_what_it_was_signed_for() {
        let push = signed(KEYS, &["--action", "push"]).await.unwrap();
        assert!(
            push.starts_with("rtmp://127.0.0.1:1935/live/8888_streamA?txSecret="),
            "{push}"
        );
        let ran = run(KEYS, &["url", "verify", "--config", "FILE", &push]).await;
        assert_eq!(ran.result.unwrap(), Outcome::Done);
        assert_eq!(
            ran.out,
            "publish: granted: publish, signed with key \"main\"\n\
             play: granted: play the source feed, class low_latency, signed with key \"main\"\n"
        );

        let peers =
            format!("{KEYS}\npeer_keys = [{{ id = \"p\", secret = \"0123456789abcdef\" }}]");
        let peer = signed(
            &peers,
            &["--action", "peer", "--base", "rtmp://edge.example:1940/"],
        )
        .await;
        let peer = peer.unwrap();
        assert!(
            peer.starts_with("rtmp://edge.example:1940/live/8888_streamA?"),
            "{peer}"
        );
        let ran = run(&peers, &["url", "verify", "--config", "FILE", &peer]).await;
        assert_eq!(
            ran.out,
            "publish: refused (signature_wrong): the URL is signed with a peer key, which does not open publishing\n\
             play: granted: play the source feed, class low_latency, signed with key \"p\"\n"
        );

        let view = signed(KEYS, &["--action", "view"]).await.unwrap();
        assert_eq!(view, "rtmp://127.0.0.1:1935/live/8888_streamA");
        let ran = run(
            KEYS,
            &[
                "url", "verify", "--config", "FILE", &view, "--action", "play",
            ],
        )
        .await;
        assert_eq!(
            ran.out,
            "play: granted: play the program feed, class viewer, no signature needed\n"
        );
        let line = [
            "url", "verify", "--config", "FILE", &view, "--action", "publish",
        ];
        let ran = run(KEYS, &line).await;
        assert_eq!(ran.result.unwrap(), Outcome::Negative);
    }

    #[tokio::test]
    async fn verify_says_why_not() {
        // The vendor's printed sample, long expired.
        let old = "rtmp://h/live/8888_streamA?bizid=8888&txSecret=3bc85763bddab40be60c838174f53e03&txTime=593B719C";
        let ran = run(KEYS, &["url", "verify", "--config", "FILE", old]).await;
        assert_eq!(ran.result.unwrap(), Outcome::Negative);
        let lines: Vec<_> = ran.out.lines().collect();
        assert_eq!(lines.len(), 2);
        for (line, verb) in lines.iter().zip(["publish", "play"]) {
            let front = format!("{verb}: refused (signature_expired): txTime expired ");
            assert!(
                line.starts_with(&front) && line.ends_with(" s ago"),
                "{line}"
            );
        }
        let elsewhere = ["url", "verify", "--config", "FILE", "rtmp://h/film/a"];
        let ran = run(KEYS, &elsewhere).await;
        assert_eq!(ran.result.unwrap(), Outcome::Negative);
        assert_eq!(
            ran.out,
            "refused (unknown_app): no application \"film\" is configured; there are: live\n"
        );
        let ran = run(
            KEYS,
            &["url", "verify", "--config", "FILE", "live/a?txSecret=x"],
        )
        .await;
        let error = ran.result.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(!error.to_string().contains("txSecret"), "{error}");
    }

    #[tokio::test]
    async fn what_cannot_be_signed_is_said() {
        for (config, more, expected) in [
            (
                "",
                &["--action", "push"][..],
                "no push key is configured to sign with",
            ),
            (
                KEYS,
                &["--action", "push", "--key", "x"],
                "no push key has the id \"x\"; there are: main, backup",
            ),
            (
                KEYS,
                &["--action", "push", "--app", "film"],
                "no application \"film\" is configured; there are: live",
            ),
            (
                KEYS,
                &["--action", "push", "--base", "http://h"],
                "--base does not begin with rtmp:// or rtmps://",
            ),
            (
                KEYS,
                &["--action", "push", "--base", "rtmp://h/live"],
                "--base is to be scheme, host and port only; --app and --stream give the rest",
            ),
        ] {
            let error = signed(config, more).await.unwrap_err();
            assert_eq!(
                (error.to_string().as_str(), error.exit_code()),
                (expected, 2)
            );
        }
    }

    #[test]
    fn the_local_address_follows_the_listener() {
        for (listen, expected) in [
            ("0.0.0.0:1940", "127.0.0.1:1940"),
            ("[::]:1940", "[::1]:1940"),
            ("192.0.2.7:1935", "192.0.2.7:1935"),
        ] {
            let mut config = Config::defaults(&Env::default());
            config.rtmp.listen = vec![listen.parse().unwrap()];
            assert_eq!(local_address(&config).to_string(), expected);
        }
    }
}
