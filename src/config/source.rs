//! Where configuration text comes from: one TOML file, and the environment on top of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::config::{Environment, File, FileFormat, Value};

use super::Error;

/// What stands in front of every variable that overrides a key.
const PREFIX: &str = "LINKMIC";
/// What stands between the parts of a key's path. Two characters, because keys have single ones in them.
const SEPARATOR: &str = "__";
/// What the `config` crate writes as the origin of values from the environment.
pub(super) const ENV_ORIGIN: &str = "the environment";
/// `StateDirectory=` of the unit that comes with the package.
pub(super) const SERVICE_STATE: &str = "/var/lib/linkmic";

/// The environment as a value, so that what follows from it can be tested.
#[derive(Clone, Default)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// This process's variables; those that are not Unicode are left out.
    pub fn process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// A variable; `None` where it is not set, or empty, which shells make of what was never set.
    pub fn text(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name).filter(|value| !value.is_empty())?;
        Some(value)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let variables = variables.into_iter();
        Self(variables.map(|(k, v)| (k.into(), v.into())).collect())
    }
}

/// The variable that overrides a key, for messages.
pub(super) fn variable(path: &str) -> String {
    let path = path.to_uppercase().replace('.', SEPARATOR);
    format!("{PREFIX}{SEPARATOR}{path}")
}

/// The tree of what the text says, with what the environment says laid over it.
pub(super) fn merge(text: &str, origin: &str, env: &Env) -> Result<Value, Error> {
    // Parsed alone first: once sources are merged, nobody can tell whose mistake it was.
    let file = File::from_str(text, FileFormat::Toml);
    ::config::Config::builder()
        .add_source(file.clone())
        .build()
        .map_err(|error| Error::Syntax {
            origin: origin.to_owned(),
            message: without_source_lines(&error.to_string()),
        })?;
    let overrides = Environment::with_prefix(PREFIX)
        .prefix_separator(SEPARATOR)
        .separator(SEPARATOR)
        .ignore_empty(true)
        .source(Some(env.0.clone().into_iter().collect()));
    let merged = ::config::Config::builder()
        .add_source(file)
        .add_source(overrides)
        .build()
        .map_err(|error| Error::Syntax {
            origin: ENV_ORIGIN.to_owned(),
            message: error.to_string(),
        })?;
    Ok(merged.cache)
}

/// A TOML array or inline table out of a variable's text; `None` when it is neither.
pub(super) fn inline(text: &str) -> Option<Value> {
    if !text.trim_start().starts_with(['[', '{']) {
        return None;
    }
    let file = File::from_str(&format!("value = {text}"), FileFormat::Toml);
    let parsed = ::config::Config::builder().add_source(file).build().ok()?;
    let mut table = parsed.cache.into_table().ok()?;
    table.remove("value")
}

/// The parser shows the line that it cannot read. It may be the one with the secret, so it goes;
/// line number, column and the sentence stay.
fn without_source_lines(message: &str) -> String {
    let kept: Vec<_> = message
        .lines()
        .filter(|line| !line.contains('|'))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    kept.join(": ")
}

/// Where state goes when nobody says: systemd's directory for the unit (`/var/lib/linkmic`), else the user's.
pub(super) fn state_dir(env: &Env) -> PathBuf {
    // systemd gives a list when the unit names several; the first is the unit's main one.
    let unit = env.path("STATE_DIRECTORY").map(|list| {
        let list = list.to_string_lossy();
        PathBuf::from(list.split(':').next().unwrap_or(&list))
    });
    // The XDG rules: a relative path in XDG_STATE_HOME is to be ignored.
    let xdg = || {
        env.path("XDG_STATE_HOME")
            .filter(|path| path.is_absolute())
            .map(|path| path.join("linkmic"))
    };
    let home = || {
        env.path("HOME")
            .map(|path| path.join(".local/state/linkmic"))
    };
    unit.or_else(xdg)
        .or_else(home)
        .unwrap_or_else(|| Path::new(SERVICE_STATE).to_owned())
}
