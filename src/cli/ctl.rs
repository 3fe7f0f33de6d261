//! `linkmic ctl`: every operation of the control API as a verb, with the answer as a table or as JSON.
//!
//! Owns how verbs become arguments and answers become text. What verbs there are is a table ([`verbs`]); a new operation of the API is
//! one line there. Refuses to know what an operation does.

mod table;
#[cfg(test)]
mod tests;
mod verbs;

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value};

use super::control::{self, Answer, Ask, Control, Reach};
use super::{Error as CliError, Outcome};
use crate::config::Env;
pub use table::{aligned, cell};
use verbs::{Body, GROUPS, VERBS, Verb};

/// Longest line of an event stream, in bytes: an event has some 300.
const MAX_LINE: usize = 1 << 20;

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    reach: Reach,
    /// Print the answer's JSON instead of a table.
    #[arg(long, global = true, help_heading = "Answer")]
    json: bool,
    /// Write the answer as it comes to a file; - is standard output.
    #[arg(
        long,
        short,
        value_name = "FILE",
        global = true,
        help_heading = "Answer"
    )]
    output: Option<PathBuf>,
    #[command(subcommand)]
    call: Call,
}

/// A verb with its arguments, not yet read.
#[derive(Debug)]
struct Call {
    verb: &'static Verb,
    ask: Ask,
    fields: Vec<String>,
    file: Option<PathBuf>,
}

/// What is wrong with a call before it is made, or with writing its answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Control(#[from] control::Error),
    #[error("{0:?} is not like FIELD=VALUE")]
    Field(String),
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[error("{0}: not JSON: {1}")]
    Json(String, serde_json::Error),
    #[error("the answer is {0}; say with --output to which file it is to go")]
    Binary(String),
}

impl Error {
    /// Whether arguments or configuration must change.
    pub fn is_usage(&self) -> bool {
        match self {
            Error::Control(error) => error.is_usage(),
            _ => true,
        }
    }
}

/// Makes the call and prints its answer.
///
/// # Errors
/// When it cannot be made, or is refused.
///
/// # Cancel safety
/// Dropping the future ends an event stream; a change that was asked for may have been made.
pub async fn run(options: Options, env: &Env, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let Options {
        reach,
        json,
        output,
        call,
    } = options;
    let Call {
        verb,
        mut ask,
        fields,
        file,
    } = call;
    if verb.body == Body::Yes {
        ask.body = body(&fields, file.as_deref())?;
    }
    let control = reach.open(env).map_err(Error::from)?;
    let show = Show {
        columns: verb.columns,
        json,
        output,
    };
    show.answer(&control, &ask, out).await?;
    Ok(Outcome::Done)
}

/// How an answer is shown.
struct Show {
    columns: &'static [&'static str],
    json: bool,
    output: Option<PathBuf>,
}

impl Show {
    async fn answer(
        &self,
        control: &Control,
        ask: &Ask,
        out: &mut dyn Write,
    ) -> Result<(), CliError> {
        let answer = control.ask(ask).await.map_err(Error::from)?;
        let kind = answer.kind();
        if kind == "text/event-stream" {
            return self.follow(answer, out).await;
        }
        let body = answer.body().await.map_err(Error::from)?;
        match self.output.as_deref() {
            Some(path) if path != Path::new("-") => {
                let written = std::fs::write(path, &body);
                written.map_err(|source| Error::File {
                    path: path.display().to_string(),
                    source,
                })?;
                let (path, bytes) = (path.display(), body.len());
                writeln!(out, "{path}: {bytes} bytes of {kind}")?;
            }
            Some(_) => out.write_all(&body)?,
            None if kind == "application/json" => {
                let value = serde_json::from_slice(&body);
                let value: Value = value.map_err(|e| Error::Json("the answer".to_owned(), e))?;
                match self.json {
                    true => writeln!(out, "{value:#}")?,
                    false => write!(out, "{}", table::show(&value, self.columns))?,
                }
            }
            None if kind.starts_with("text/") => out.write_all(&body)?,
            // Whoever sends it elsewhere knows what comes.
            None if !io::stdout().is_terminal() => out.write_all(&body)?,
            None => return Err(Error::Binary(kind).into()),
        }
        out.flush()?;
        Ok(())
    }

    /// Prints events as they come: a line each, with `--json` the event itself.
    async fn follow(&self, mut answer: Answer, out: &mut dyn Write) -> Result<(), CliError> {
        let mut lines = Vec::new();
        while let Some(piece) = answer.piece().await.map_err(Error::from)? {
            lines.extend_from_slice(&piece);
            while let Some(end) = lines.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = lines.drain(..=end).collect();
                // Comments keep the connection alive; ids and kinds stand in the data too.
                if let Some(data) = line.strip_prefix(b"data:") {
                    self.event(data.trim_ascii(), out)?;
                }
            }
            if lines.len() > MAX_LINE {
                lines.clear();
            }
            out.flush()?;
        }
        Ok(())
    }

    fn event(&self, data: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let Ok(event) = serde_json::from_slice::<Value>(data) else {
            return Ok(());
        };
        if self.json {
            return writeln!(out, "{event}");
        }
        let text = |field: &str| table::cell(&event[field]);
        let mut line = format!(
            "{}  {:<9}  {}/{}",
            text("time"),
            text("type"),
            text("app"),
            text("stream")
        );
        for (name, value) in event["data"].as_object().into_iter().flatten() {
            if !value.is_null() {
                line += &format!("  {name}={}", table::cell(value));
            }
        }
        writeln!(out, "{line}")
    }
}

/// The body of a call: a file's JSON with fields laid over it; `None` when there is neither.
fn body(fields: &[String], file: Option<&Path>) -> Result<Option<Vec<u8>>, Error> {
    let base = match file {
        None => None,
        Some(path) => {
            let name = match path == Path::new("-") {
                true => "standard input".to_owned(),
                false => path.display().to_string(),
            };
            let read = match path == Path::new("-") {
                true => {
                    let mut text = Vec::new();
                    io::stdin().read_to_end(&mut text).map(|_| text)
                }
                false => std::fs::read(path),
            };
            let text = read.map_err(|source| Error::File {
                path: name.clone(),
                source,
            })?;
            let value = serde_json::from_slice::<Value>(&text);
            Some(value.map_err(|error| Error::Json(name, error))?)
        }
    };
    if fields.is_empty() {
        return Ok(base.map(|value| value.to_string().into_bytes()));
    }
    let mut value = base.unwrap_or_else(|| Value::Object(Map::new()));
    for field in fields {
        lay(&mut value, field)?;
    }
    Ok(Some(value.to_string().into_bytes()))
}

/// Puts `a.b=value` into an object. A value that is JSON is that; anything else is a text.
fn lay(object: &mut Value, field: &str) -> Result<(), Error> {
    let wrong = || Error::Field(field.to_owned());
    let (path, text) = field.split_once('=').ok_or_else(wrong)?;
    if path.split('.').any(str::is_empty) {
        return Err(wrong());
    }
    let mut place = object;
    for name in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[name];
    }
    *place = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    Ok(())
}

impl Subcommand for Call {
    fn augment_subcommands(command: Command) -> Command {
        let groups = GROUPS.iter().map(|(name, about)| {
            let verbs = VERBS.iter().filter(|verb| verb.split().0 == Some(name));
            Command::new(*name)
                .about(*about)
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommands(verbs.map(command_of))
        });
        let alone = VERBS.iter().filter(|verb| verb.split().0.is_none());
        command
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommands(groups)
            .subcommands(alone.map(command_of))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        VERBS
            .iter()
            .any(|verb| verb.split().0.unwrap_or(verb.words) == name)
    }
}

impl FromArgMatches for Call {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (first, matches) = matches.subcommand().ok_or_else(missing)?;
        let (words, matches) = match matches.subcommand() {
            Some((second, matches)) => (format!("{first} {second}"), matches),
            None => (first.to_owned(), matches),
        };
        let verb = VERBS.iter().find(|verb| verb.words == words);
        Ok(Self::of(verb.ok_or_else(missing)?, matches))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A verb's arguments: what stands in its path, in order, then options, then the body's fields.
fn command_of(verb: &'static Verb) -> Command {
    let mut command = Command::new(verb.split().1).about(verb.about);
    for name in places(verb.path) {
        let arg = match name {
            "app/name" => Arg::new(name)
                .value_name("APP/STREAM")
                .help("The stream, as in live/8888_a")
                .value_parser(stream),
            _ => Arg::new(name)
                .value_name(name.to_ascii_uppercase())
                .help("Its id"),
        };
        command = command.arg(arg.required(true));
    }
    for &name in verb.query.iter().chain(verb.headers) {
        command = command.arg(
            Arg::new(name)
                .long(name.to_ascii_lowercase())
                .value_name("VALUE")
                .help(match verb.query.contains(&name) {
                    true => format!("{name}, as docs/api.md has it"),
                    false => format!("The header {name}, as docs/api.md has it"),
                }),
        );
    }
    if verb.body == Body::Yes {
        let file = Arg::new("file")
            .long("file")
            .short('f')
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("JSON to send; - is standard input");
        let fields = Arg::new("field")
            .value_name("FIELD=VALUE")
            .action(ArgAction::Append)
            .num_args(0..)
            .help("Fields to send, over those of the file; a.b=1 is a field in a field, and a value may be JSON");
        command = command.arg(file).arg(fields);
    }
    command
}

/// What a path has to be given: a stream's two parts together, everything else by itself.
fn places(path: &'static str) -> Vec<&'static str> {
    let mut places = Vec::new();
    if path.contains("{app}/{name}") {
        places.push("app/name");
    }
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    places.extend(names.filter(|name| !matches!(*name, "app" | "name")));
    places
}

fn stream(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((app, name)) if !app.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(text.to_owned())
        }
        _ => Err("it is to be like live/8888_a".to_owned()),
    }
}

impl Call {
    fn of(verb: &'static Verb, matches: &ArgMatches) -> Self {
        let given = |name: &str| matches.get_one::<String>(name).cloned();
        let mut parts = Vec::new();
        for part in verb.path.trim_start_matches('/').split('/') {
            match part
                .strip_prefix('{')
                .and_then(|part| part.strip_suffix('}'))
            {
                Some("app") => parts.extend(
                    given("app/name")
                        .iter()
                        .flat_map(|both| both.split('/'))
                        .map(str::to_owned),
                ),
                Some("name") => {}
                Some(name) => parts.extend(given(name)),
                None => parts.push(part.to_owned()),
            }
        }
        let query = verb.query.iter();
        let headers = verb.headers.iter();
        let has_body = verb.body == Body::Yes;
        Self {
            verb,
            ask: Ask {
                // The table has nothing else.
                method: Method::from_bytes(verb.method.as_bytes()).unwrap_or(Method::GET),
                path: parts,
                query: query
                    .filter_map(|&name| Some((name.to_owned(), given(name)?)))
                    .collect(),
                headers: headers
                    .filter_map(|&name| Some((name, given(name)?)))
                    .collect(),
                body: None,
            },
            fields: match has_body.then(|| matches.get_many::<String>("field")) {
                Some(Some(fields)) => fields.cloned().collect(),
                _ => Vec::new(),
            },
            file: match has_body {
                true => matches.get_one::<PathBuf>("file").cloned(),
                false => None,
            },
        }
    }
}
