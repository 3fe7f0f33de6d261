//! `linkmic demo`: the whole main job on one machine, with real programs as anchors, peers, viewer and CDN.
//!
//! Owns the play and what counts as having seen it work. Refuses to trust the server's own figures: all that is
//! claimed was read from decoded pictures and sound. Called by the command line only.

mod acts;
mod cast;
mod report;
mod stage;

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use report::Report;
use stage::Stage;

use crate::{config, logging, probe, server};

/// What `linkmic demo` can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// End by itself; exit code 0 only when every step was seen to work.
    #[arg(long)]
    once: bool,
    /// Folder for the picture, the recording, and what the programs need.
    #[arg(long, value_name = "FOLDER", default_value = "demo-out")]
    out: PathBuf,
}

/// Why the demo could not even begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Server(#[from] server::Error),
    #[error(transparent)]
    Probe(#[from] probe::Error),
    #[error(transparent)]
    Logging(#[from] logging::Error),
    #[error("cannot use the folder {}: {source}", path.display())]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// The whole play takes less than a minute; on a machine where it takes this long it has failed.
const DEADLINE: Duration = Duration::from_secs(240);

/// Plays the demo. True: every step was seen to work.
///
/// # Errors
/// When the server does not start, or ffmpeg is not installed. A step that fails is printed and makes the result
/// false.
pub async fn run(options: Options) -> Result<bool, Error> {
    let mut report = Report::new();
    // One listener for the whole run: a Ctrl-C between two would be lost.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(server::Error::Signal)?;
    // A Ctrl-C before the end is no success, but ends everything in order: what was started lives in the stage.
    let (stage, good) = tokio::select! {
        played = play(&options, &mut report) => played?,
        _ = interrupt.recv() => {
            report.note("Ctrl-C: ending everything");
            return Ok(false);
        }
    };
    if !options.once {
        report.note("all of it keeps running; Ctrl-C ends it");
        interrupt.recv().await;
        report.note("Ctrl-C: ending everything");
    }
    stage.close().await;
    Ok(good)
}

/// The play without its end: the stage with everything on it, and whether every step was seen to work.
async fn play(options: &Options, report: &mut Report) -> Result<(Stage, bool), Error> {
    let Options { once, out } = options;
    std::fs::create_dir_all(out).map_err(|source| Error::Folder {
        path: out.clone(),
        source,
    })?;
    let mut stage = Stage::open(out, report).await?;
    let played = timeout(DEADLINE, acts::play(&mut stage, out, report)).await;
    if played.is_err() {
        report.fail(
            "the whole demo",
            &format!("not done after {} s", DEADLINE.as_secs()),
        );
    }
    if *once {
        timeout(DEADLINE, acts::end_of_mix(&mut stage, report))
            .await
            .unwrap_or_else(|_| report.fail("the end of the mix", "took too long"));
    }
    stage.print_addresses(report).await;
    let good = report.verdict();
    Ok((stage, good))
}
