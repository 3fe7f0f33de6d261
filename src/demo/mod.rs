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
    // A Ctrl-C at any time ends everything in order: what was started lives in the stage, which ends with us.
    tokio::select! {
        result = play(&options, &mut report) => result,
        _ = tokio::signal::ctrl_c() => {
            report.note("Ctrl-C: ending everything");
            Ok(false)
        }
    }
}

async fn play(options: &Options, report: &mut Report) -> Result<bool, Error> {
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
    if !once {
        stage.print_addresses(report).await;
        report.verdict();
        report.note("all of it keeps running; Ctrl-C ends it");
        let _ = tokio::signal::ctrl_c().await;
        report.note("Ctrl-C: ending everything");
    } else {
        timeout(DEADLINE, acts::end_of_mix(&mut stage, report))
            .await
            .unwrap_or_else(|_| report.fail("the end of the mix", "took too long"));
        stage.print_addresses(report).await;
    }
    stage.close().await;
    Ok(if *once {
        report.verdict()
    } else {
        report.is_good()
    })
}
