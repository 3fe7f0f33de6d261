//! Sets up logging once per process: for people on a terminal, JSON for machines.
//!
//! Owns the subscriber and the meaning of `[log]`, names for connections and calls, and how often a refusal is told ([`Refusals`]): strangers bring
//! refusals about at will. Refuses to know what else is logged; every room uses `tracing` directly. Called by the command line before anything else happens. Logs go to stderr, so that what a command
//! prints can be piped.

mod id;
mod refusals;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

pub use id::{ConnectionId, RequestId, carried, carried_blocking, on_behalf, request};
pub(crate) use refusals::refused;
pub use refusals::{Refusals, Volume};

/// Of the whole process: what strangers can make it write is bounded for all doors together.
pub(crate) static REFUSALS: Refusals = Refusals::new();

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Human on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{text:?} is no log level: {message}; write error, warn, info, debug, trace, or a list by module"
    )]
    Level { text: String, message: String },
    #[error("RUST_LOG: {0}")]
    Variable(Box<Error>),
    #[error("logging is already set up in this process")]
    Already(#[from] TryInitError),
}

/// Starts logging to stderr. `level` is one of the five levels, or a list by module; `RUST_LOG`, where set, goes first.
///
/// # Errors
/// When a level is not one, or the process logs already.
pub fn init(format: Format, level: &str) -> Result<(), Error> {
    use tracing_subscriber::util::SubscriberInitExt;

    let variable = std::env::var("RUST_LOG").ok();
    let filter = choose(variable.as_deref(), level)?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if is_json(format, terminal) {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .finish()
            .try_init()?;
    } else {
        builder.with_ansi(terminal).finish().try_init()?;
    }
    Ok(())
}

/// Whether [`init`] would take this level.
///
/// # Errors
/// When it would not.
pub fn check_level(level: &str) -> Result<(), Error> {
    filter(level).map(drop)
}

fn choose(variable: Option<&str>, level: &str) -> Result<EnvFilter, Error> {
    match variable.filter(|text| !text.is_empty()) {
        Some(text) => filter(text).map_err(|error| Error::Variable(Box::new(error))),
        None => filter(level),
    }
}

fn filter(text: &str) -> Result<EnvFilter, Error> {
    let wrong = |message: String| Error::Level {
        text: text.to_owned(),
        message,
    };
    // The filter takes any bare word for a module's name; a misspelt level would silence everything.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let parts: Vec<_> = text.split(',').map(str::trim).collect();
    for part in &parts {
        let bare = part.bytes().all(|b| b.is_ascii_alphanumeric());
        if bare && !levels.contains(&part.to_ascii_lowercase().as_str()) {
            return Err(wrong(format!("{part:?} is not a level")));
        }
    }
    EnvFilter::builder()
        .parse(parts.join(","))
        .map_err(|error| wrong(error.to_string()))
}

fn is_json(format: Format, terminal: bool) -> bool {
    match format {
        Format::Auto => !terminal,
        Format::Human => false,
        Format::Json => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_lines_for_people_and_a_pipe_gets_json_unless_told() {
        assert!(!is_json(Format::Auto, true));
        assert!(is_json(Format::Auto, false));
        assert!(is_json(Format::Json, true));
        assert!(!is_json(Format::Human, false));
    }

    #[test]
    fn levels_and_lists_by_module_are_taken() {
        for level in [
            "info",
            "TRACE",
            "off",
            "info,linkmic::push=debug",
            "warn, linkmic=trace",
        ] {
            assert!(check_level(level).is_ok(), "{level}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused_and_does_not_silence_everything() {
        for level in ["inof", "", "verbose", "info,linkmic=loud", "info,"] {
            let error = check_level(level).unwrap_err().to_string();
            assert!(error.contains("is no log level"), "{error}");
        }
    }

    #[test]
    fn the_variable_goes_before_the_configuration_unless_it_is_empty() {
        let shown = |variable, level| choose(variable, level).map(|filter| filter.to_string());
        assert_eq!(shown(Some("debug"), "info").unwrap(), "debug");
        assert_eq!(shown(Some(""), "info").unwrap(), "info");
        assert_eq!(shown(None, "warn").unwrap(), "warn");
        let error = shown(Some("loud"), "info").unwrap_err().to_string();
        assert!(
            error.starts_with("RUST_LOG: \"loud\" is no log level"),
            "{error}"
        );
    }
}
