//! Ours beside nginx-rtmp and beside the floor, in turn on the same clip and the same machine, as a table.
//!
//! `cargo bench --bench compare -- --players 1000` (docs/performance.md says what the columns mean). Every figure comes
//! from `linkmic bench` of the very binary that is measured, each time in processes of its own. Numbers drift with the
//! machine: the claim is the ratio within a round.

mod servers;
mod table;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use linkmic::load::usage;
use linkmic::probe::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use servers::Running;

/// Above this share of CPU time taken by the hypervisor a run says nothing: it is discarded.
const MAX_STEAL_PCT: f64 = 5.0;

/// Compares ours, over RTMP and HTTP-FLV, with nginx-rtmp and the bare floor.
#[derive(Debug, Parser)]
struct Options {
    /// Players; several numbers make a table each.
    #[arg(long, value_delimiter = ',')]
    players: Vec<usize>,
    /// Publishers of the ingest comparison (ours checks a signature of each).
    #[arg(long)]
    ingest: Option<usize>,
    /// Valid runs of each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of the measured window.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "15s")]
    duration: Duration,
    /// Players opened a second.
    #[arg(long, default_value_t = 200)]
    rate: usize,
    /// Merge windows of ours, each beside a floor with the same.
    #[arg(long, value_name = "MS", value_delimiter = ',', default_value = "0,33")]
    merge: Vec<u64>,
    /// Only these.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Who>,
    /// H.264/AAC FLV file to send; without one, 2 Mbit/s at 30 frames a second are made.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Runs are appended here, one JSON object a line; what is there already is in the tables too.
    #[arg(long)]
    log: Option<PathBuf>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Who {
    /// One thread that writes.
    Floor,
    /// One for each processor, as ours has them.
    Floors,
    Nginx,
    Ours,
    /// Ours, played over HTTP-FLV.
    Http,
}

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Subject {
    who: Who,
    merge_ms: u64,
    /// Players; 0 when it is publishers that are counted.
    players: usize,
    publishers: usize,
}

/// One run of it.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    subject: Subject,
    round: usize,
    /// The server's memory before anybody came.
    idle_kb: u64,
    /// What `linkmic bench` said.
    report: Value,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.who {
            Who::Floor => "floor",
            Who::Floors => "floor, a thread per core",
            Who::Nginx => "nginx-rtmp",
            Who::Ours => "ours",
            Who::Http => "ours, HTTP-FLV",
        };
        match self.merge_ms {
            0 => f.write_str(who),
            ms => write!(f, "{who}, {ms} ms"),
        }
    }
}

impl Run {
    fn number(&self, pointer: &str) -> Option<f64> {
        self.report.pointer(pointer)?.as_f64()
    }

    fn is_valid(&self) -> bool {
        self.number("/machine/steal_pct")
            .is_some_and(|steal| steal <= MAX_STEAL_PCT)
    }
}

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    if options.players.is_empty() && options.ingest.is_none() {
        eprintln!(
            "compare: nothing asked for; cargo bench --bench compare -- --players 1000 --ingest 100"
        );
        return std::process::ExitCode::SUCCESS;
    }
    let result = tokio::runtime::Runtime::new()
        .map_err(|error| Error::io("the runtime", error))
        .and_then(|runtime| runtime.block_on(compare(&options)));
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn compare(options: &Options) -> Result<(), Error> {
    let most = options.players.iter().copied().max().unwrap_or(0);
    // The servers inherit the limit.
    usage::allow_sockets(2 * most + 1024)
        .map_err(|limit| Error::Wrong(format!("too few open files are allowed: {limit}")))?;
    let mut runs = read_log(options)?;
    let mut subjects = subjects(options);
    let merged = subjects
        .iter()
        .find(|s| s.who == Who::Ours && s.merge_ms > 0);
    if let Some(merged) = merged
        && servers::check(*merged).await.is_err()
    {
        eprintln!("compare: this build knows no [classes.viewer] merge_window; left out");
        subjects.retain(|subject| subject.merge_ms == 0);
    }

    let have = |runs: &[Run], subject: &Subject| {
        let valid = runs
            .iter()
            .filter(|r| r.subject == *subject && r.is_valid());
        valid.count()
    };
    let before = runs.iter().map(|run| run.round + 1).max().unwrap_or(0);
    // Discarded runs are made up for, but not for ever.
    for round in before..before + 2 * options.rounds {
        let turn = (0..subjects.len()).map(|i| subjects[(i + round) % subjects.len()]);
        for subject in turn {
            if have(&runs, &subject) >= options.rounds {
                continue;
            }
            let run = measure(subject, round, options).await?;
            let steal = run.number("/machine/steal_pct").unwrap_or(100.0);
            let verdict = match run.is_valid() {
                true => "",
                false => ", discarded",
            };
            eprintln!(
                "round {}: {}: {}, steal {steal:.1} %{verdict}",
                round + 1,
                table::heading(&subject),
                table::brief(&run),
            );
            append_log(options, &run)?;
            runs.push(run);
        }
    }
    for group in table::groups(&subjects) {
        println!("{}", table::markdown(&group, &runs));
    }
    Ok(())
}

fn subjects(options: &Options) -> Vec<Subject> {
    let wanted = |who| options.only.is_empty() || options.only.contains(&who);
    let mut all = Vec::new();
    for &players in &options.players {
        let mut add = |who, merge_ms| {
            all.push(Subject {
                who,
                merge_ms,
                players,
                publishers: 1,
            });
        };
        for &merge_ms in &options.merge {
            add(Who::Floor, merge_ms);
            add(Who::Floors, merge_ms);
            add(Who::Ours, merge_ms);
        }
        add(Who::Http, 0);
        add(Who::Nginx, 0);
    }
    if let Some(publishers) = options.ingest {
        for who in [Who::Nginx, Who::Ours] {
            all.push(Subject {
                who,
                merge_ms: 0,
                players: 0,
                publishers,
            });
        }
    }
    all.retain(|subject| wanted(subject.who));
    all
}

async fn measure(subject: Subject, round: usize, options: &Options) -> Result<Run, Error> {
    let folder = tempfile::tempdir().map_err(|e| Error::io("a folder", e))?;
    let clip: Vec<String> = match &options.file {
        Some(file) => vec!["--file".into(), file.display().to_string()],
        None => Vec::new(),
    };
    let server = Running::start(subject, folder.path(), &clip).await?;
    let idle = usage::Usage::of(&[server.id()]).unwrap_or_default();
    let (pid, duration) = (
        server.id().to_string(),
        format!("{}ms", options.duration.as_millis()),
    );
    let mut line = Vec::new();
    let publisher = match subject {
        Subject { players: 0, .. } => {
            line.extend(["publish", server.publish_url(), "--streams"].map(str::to_owned));
            line.push(subject.publishers.to_string());
            line.extend(clip);
            line.extend(server.sign());
            None
        }
        _ => {
            line.extend(["play", server.play_url(), "--players"].map(str::to_owned));
            line.push(subject.players.to_string());
            line.extend(["--rate".to_owned(), options.rate.to_string()]);
            server.publish(&clip).await?
        }
    };
    let rest = ["--pid", &pid, "--duration", &duration, "--warmup", "3s"];
    line.extend(rest.map(str::to_owned));
    let joins = Duration::from_secs((subject.players / options.rate.max(1)) as u64);
    let report = servers::bench(&line, options.duration + joins).await?;
    drop(publisher);
    Ok(Run {
        subject,
        round,
        idle_kb: idle.rss_kb,
        report,
    })
}

fn read_log(options: &Options) -> Result<Vec<Run>, Error> {
    let Some(path) = options.log.as_ref().filter(|path| path.exists()) else {
        return Ok(Vec::new());
    };
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(&name, e))?;
    let runs = text.lines().map(serde_json::from_str);
    runs.collect::<Result<_, _>>()
        .map_err(|e| Error::Wrong(format!("{name}: {e}")))
}

fn append_log(options: &Options, run: &Run) -> Result<(), Error> {
    let Some(path) = &options.log else {
        return Ok(());
    };
    let name = path.display().to_string();
    let append = || {
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)?;
        writeln!(file, "{}", serde_json::to_string(run)?)
    };
    append().map_err(|e| Error::io(name, e))
}
