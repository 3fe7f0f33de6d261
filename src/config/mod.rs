//! The configuration: one file and the environment, read once, checked whole, and typed.
//!
//! Owns the keys' names, their defaults (`config/linkmic.toml` shows them all and is tested to be equal), and the
//! sentences about mistakes. A mistake never hides another: reading goes on, and all are reported with their key's
//! path. Refuses to know what the values are used for; a room that has its own `Config` gets it from here ready
//! made. Called by the command line and the server, passed by value, never looked up from below.

mod check;
mod compat;
mod hooks;
mod read;
mod reader;
mod secret;
mod source;
mod token;
mod types;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use compat::Compat;
pub use hooks::Hooks;
pub use source::Env;
pub use token::{Token, TokenError};
pub use types::{
    AccessLists, App, Apps, AudioEncoder, CertificateFiles, ClassLimits, Classes, Control, Drain,
    Http, Join, Limits, Links, Log, Metrics, Mixer, OnBusy, Push, Rtmp, Rtmps, Rule, Sign, State,
    TargetUrl, Threads, TokenSource,
};

use crate::auth;

/// Everything an operator can say, checked. Secrets in it print as `***`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[rtmp]`
    pub rtmp: Rtmp,
    /// `[rtmps]`
    pub rtmps: Rtmps,
    /// `[http]`
    pub http: Http,
    /// `[control]`
    pub control: Control,
    /// `[compat]`
    pub compat: Compat,
    /// `[hooks]`
    pub hooks: Hooks,
    /// `[access]`
    pub access: AccessLists,
    /// `[auth]`: no secret stands twice, no id twice in a set.
    pub auth: auth::Config,
    /// `[apps]`
    pub apps: Apps,
    /// `[push]`
    pub push: Push,
    /// `[links]`
    pub links: Links,
    /// `[classes]`
    pub classes: Classes,
    /// `[limits]`
    pub limits: Limits,
    /// `[mixer]`
    pub mixer: Mixer,
    /// `[state]`
    pub state: State,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[threads]`
    pub threads: Threads,
    /// `[drain]`
    pub drain: Drain,
    /// `[log]`
    pub log: Log,
}

/// One thing in the configuration that is wrong, or worth a second look.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// The key's path, as in `auth.push_keys[0].secret`.
    pub path: String,
    /// What about it, and what to do. Never has a secret in it.
    pub message: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The text is not TOML. Without the line itself, which may hold a secret.
    #[error("{origin}: {message}")]
    Syntax { origin: String, message: String },
    /// Every mistake there is, in the order of the keys' paths.
    #[error("{}", lines(.0))]
    Invalid(Vec<Remark>),
}

impl Config {
    /// Every list of addresses to listen on, by its path.
    pub fn listeners(&self) -> [(&'static str, &[SocketAddr]); 6] {
        [
            ("rtmp.listen", &self.rtmp.listen),
            ("rtmps.listen", &self.rtmps.listen),
            ("http.listen", &self.http.listen),
            ("http.tls_listen", &self.http.tls_listen),
            ("control.listen", &self.control.listen),
            ("compat.listen", &self.compat.listen),
        ]
    }

    /// Reads a file (`None`: defaults only) under the overrides in `env`.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, or has mistakes: then all of them.
    pub fn load(file: Option<&Path>, env: &Env) -> Result<Self, Error> {
        let text = match file {
            Some(path) => std::fs::read_to_string(path).map_err(|source| Error::Read {
                path: path.to_owned(),
                source,
            })?,
            None => String::new(),
        };
        let origin = file.map_or_else(String::new, |path| path.display().to_string());
        Self::parse(&text, &origin, env)
    }

    /// Reads TOML text under the overrides in `env`; `origin` names the text in messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, origin: &str, env: &Env) -> Result<Self, Error> {
        let tree = source::merge(text, origin, env)?;
        let (config, mistakes) = read::config(tree, env);
        if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(Error::Invalid(mistakes))
        }
    }

    /// What `config/linkmic.toml` says, with the state directory this environment suggests.
    pub fn defaults(env: &Env) -> Self {
        Self {
            rtmp: Rtmp::default(),
            rtmps: Rtmps::default(),
            http: Http::default(),
            control: Control::default(),
            compat: Compat::default(),
            hooks: Hooks::default(),
            access: AccessLists::default(),
            auth: auth::Config::default(),
            apps: Apps::default(),
            push: Push::default(),
            links: Links::default(),
            classes: Classes::default(),
            limits: Limits::default(),
            mixer: Mixer::default(),
            state: State {
                dir: source::state_dir(env),
            },
            metrics: Metrics::default(),
            threads: Threads::default(),
            drain: Drain::default(),
            log: Log::default(),
        }
    }

    /// What holds for an application: its own section, else that of `*`. `None`: it is not configured, refuse it.
    pub fn app(&self, name: &str) -> Option<&App> {
        self.apps.find(name)
    }

    /// Every push rule with its key's path: those of `[push]`, then those of each application.
    pub fn push_rules(&self) -> impl Iterator<Item = (String, &Rule)> {
        let own = self.apps.iter().flat_map(|(name, app)| {
            let rules = app.push.iter().enumerate();
            rules.map(move |(at, rule)| (format!("{}.push[{at}]", check::section(name)), rule))
        });
        let all = self.push.rules.iter().enumerate();
        all.map(|(at, rule)| (format!("push.rules[{at}]"), rule))
            .chain(own)
    }

    /// What is allowed but deserves a second look, in the order of the keys' paths.
    pub fn warnings(&self) -> Vec<Remark> {
        check::warnings(self, SystemTime::now())
    }
}

impl Default for Config {
    /// [`Config::defaults`] in this process's environment.
    fn default() -> Self {
        Self::defaults(&Env::process())
    }
}

fn lines(remarks: &[Remark]) -> String {
    let lines: Vec<_> = remarks.iter().map(Remark::to_string).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests;
