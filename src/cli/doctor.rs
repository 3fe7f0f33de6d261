//! `linkmic doctor`: looks at the machine as the server would find it, and says what is wrong and what to do.
//!
//! Owns what is looked at, what is good enough, and the advice. Changes nothing: the one file that it writes is in the state directory,
//! empty, and gone again. What other rooms know better they are asked for: the configuration its mistakes, the server its listeners,
//! the mixer its plugins and encoders.

mod disk;
mod host;
mod ports;
#[cfg(test)]
mod tests;

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::{ConfigArgs, Error, Outcome, certificate_mistake, counted, trust_mistake};
use crate::config::{self, Config, Env};

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON instead of lines.
    #[arg(long)]
    json: bool,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// The server runs, and something is worse than it could be.
    Warn,
    /// The server does not start, or somebody will be turned away.
    Bad,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Bad => "bad",
        }
    }
}

/// What was found when one thing was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about: `plugins`, `ports`, …
    area: &'static str,
    /// What was looked at.
    name: String,
    state: State,
    found: String,
    /// What to do; none where all is well.
    advice: Option<String>,
}

impl Finding {
    fn new(
        area: &'static str,
        name: impl Into<String>,
        state: State,
        found: impl Into<String>,
    ) -> Self {
        Self {
            area,
            name: name.into(),
            state,
            found: found.into(),
            advice: None,
        }
    }

    fn ok(area: &'static str, name: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(area, name, State::Ok, found)
    }

    fn advise(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }
}

/// Looks at everything and prints it. The answer is no when something is bad.
///
/// # Errors
/// When the answer cannot be written.
pub async fn run(options: Options, env: &Env, out: &mut dyn Write) -> Result<Outcome, Error> {
    let (config, mut findings) = configuration(&options.config, env);
    findings.extend(plugins(&config).await);
    findings.extend(host::limits(&config));
    findings.extend(host::clock().await);
    findings.extend(ports::all(&config).await);
    findings.extend(host::kernel(&config));
    findings.extend(disk::all(&config));
    let count = |state| findings.iter().filter(|one| one.state == state).count();
    let [ok, warn, bad] = [State::Ok, State::Warn, State::Bad].map(count);
    if options.json {
        let report = serde_json::json!({"findings": findings, "ok": ok, "warn": warn, "bad": bad});
        writeln!(out, "{report:#}")?;
    } else {
        for finding in &findings {
            write!(out, "{}", shown(finding))?;
        }
        writeln!(out, "{ok} ok, {}, {bad} bad", counted(warn, "warning"))?;
    }
    Ok(match bad {
        0 => Outcome::Done,
        _ => Outcome::Negative,
    })
}

fn shown(finding: &Finding) -> String {
    let Finding {
        area,
        name,
        state,
        found,
        advice,
    } = finding;
    let mut text = format!("{:<5} {area:<8} {name}: {found}\n", state.word());
    if let Some(advice) = advice {
        text += &format!("{:<14} -> {advice}\n", "");
    }
    text
}

/// The configuration, or the defaults where it cannot be used, and what is to be said of it.
fn configuration(args: &ConfigArgs, env: &Env) -> (Config, Vec<Finding>) {
    const AREA: &str = "config";
    let name = match &args.config {
        Some(path) => path.display().to_string(),
        None => "defaults and environment".to_owned(),
    };
    let mistake = |path: &str, message: &str| Finding::new(AREA, path, State::Bad, message);
    let config = match args.load(env) {
        Ok(config) => config,
        Err(error) => {
            let defaults = Config::defaults(env);
            let findings = match error {
                config::Error::Invalid(mistakes) => {
                    let each = mistakes.iter();
                    each.map(|one| mistake(&one.path, &one.message)).collect()
                }
                error => vec![mistake(&name, &error.to_string())],
            };
            return (defaults, findings);
        }
    };
    let mut findings = Vec::new();
    for one in [certificate_mistake(&config), trust_mistake(&config)]
        .into_iter()
        .flatten()
    {
        findings.push(mistake(&one.path, &one.message));
    }
    // Limits of the process are looked at by themselves.
    for one in config.warnings() {
        findings.push(Finding::new(AREA, one.path, State::Warn, one.message));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(AREA, name, "can be used"));
    }
    (config, findings)
}

#[cfg(not(feature = "mixer"))]
async fn plugins(_: &Config) -> Vec<Finding> {
    vec![Finding::ok(
        "plugins",
        "mixer",
        "this linkmic was built without it",
    )]
}

/// GStreamer's plugins, and encoders that have to encode a few frames.
#[cfg(feature = "mixer")]
async fn plugins(config: &Config) -> Vec<Finding> {
    use crate::mixer::{EncoderChoice, Equipment, Fitness, equipment};

    const AREA: &str = "plugins";
    // Words that are none are mistakes of the configuration, and told there.
    let chosen = EncoderChoice::from_word(&config.mixer.video_encoder).unwrap_or_default();
    let looked = tokio::task::spawn_blocking(move || equipment(chosen)).await;
    let parts = match looked {
        Ok(Ok(parts)) => parts,
        Ok(Err(error)) => {
            return vec![Finding::new(
                AREA,
                "GStreamer",
                State::Bad,
                error.to_string(),
            )];
        }
        Err(error) => {
            return vec![Finding::new(
                AREA,
                "GStreamer",
                State::Bad,
                error.to_string(),
            )];
        }
    };
    let finding = |part: Equipment| {
        let Equipment {
            name,
            needed,
            state,
        } = part;
        let need = match needed {
            true => "the server does not start without it",
            false => "mixes do without it",
        };
        match state {
            Fitness::Works(found) => Finding::ok(AREA, name, found),
            Fitness::Missing(why) if needed => {
                Finding::new(AREA, name, State::Bad, why).advise(need)
            }
            // Most machines have no such card.
            Fitness::Missing(why) => Finding::ok(AREA, name, format!("not here ({why})")),
            Fitness::Broken(why) => {
                let state = if needed { State::Bad } else { State::Warn };
                Finding::new(AREA, name, state, why).advise(format!(
                    "{need}; look at its driver, or set mixer.video_encoder to another one"
                ))
            }
        }
    };
    parts.into_iter().map(finding).collect()
}
