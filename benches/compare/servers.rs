//! The servers that are compared, each in a process of its own on free ports of loopback, and `linkmic bench` as a
//! process.

use std::path::Path;
use std::thread::available_parallelism;
use std::time::Duration;

use linkmic::probe::Error;
use linkmic::probe::nginx::Nginx;
use linkmic::probe::process::{Process, poll};
use serde_json::Value;

use super::{Subject, Who};

/// The binary that cargo built with this bench.
const LINKMIC: &str = env!("CARGO_BIN_EXE_linkmic");
/// Opens publishing at ours.
const KEY: &str = "compare-0123456789abcdef";
/// How long a server may take to listen, and a publisher to be granted.
const SOON: Duration = Duration::from_secs(20);

/// A server that listens.
pub enum Running {
    Nginx(Nginx, String),
    Floor(Process, String),
    Ours {
        process: Process,
        publish: String,
        play: String,
    },
}

impl Running {
    /// Starts `subject` in `folder`, which is nobody else's.
    pub async fn start(subject: Subject, folder: &Path, clip: &[String]) -> Result<Self, Error> {
        match subject.who {
            Who::Nginx => {
                let nginx = Nginx::start_for(folder, subject.players as u32 + 1024).await?;
                let url = nginx.url("bench");
                Ok(Running::Nginx(nginx, url))
            }
            Who::Ours | Who::Http => {
                let file = write_configuration(subject, folder)?;
                let process = Process::spawn(LINKMIC, &["serve", "--config", &file])?;
                let (rtmp, http) = said(&process, listening).await?;
                let publish = format!("rtmp://{rtmp}/live/bench");
                let play = match subject.who {
                    Who::Http => format!("http://{http}/live/bench.flv"),
                    _ => publish.clone(),
                };
                Ok(Running::Ours {
                    process,
                    publish,
                    play,
                })
            }
            Who::Floor | Who::Floors => {
                let mut line = vec!["bench".to_owned(), "floor".into(), "--players".into()];
                line.push(subject.players.to_string());
                line.push("--merge-window".into());
                line.push(format!("{}ms", subject.merge_ms));
                if subject.who == Who::Floors {
                    let cores = available_parallelism().map_or(1, usize::from);
                    line.push(format!("--threads={cores}"));
                }
                line.extend_from_slice(clip);
                let process = Process::spawn(LINKMIC, &line)?;
                let url = said(&process, |line| {
                    line.strip_prefix("listening on ").map(str::to_owned)
                });
                let url = url.await?;
                Ok(Running::Floor(process, url))
            }
        }
    }

    /// Where publishers go.
    pub fn publish_url(&self) -> &str {
        match self {
            Running::Nginx(_, url) | Running::Floor(_, url) => url,
            Running::Ours { publish, .. } => publish,
        }
    }

    /// Where players go.
    pub fn play_url(&self) -> &str {
        match self {
            Running::Ours { play, .. } => play,
            _ => self.publish_url(),
        }
    }

    /// The process that does the work; 0 when it is gone, which no process is.
    pub fn id(&self) -> u32 {
        match self {
            Running::Nginx(nginx, _) => nginx.id(),
            Running::Floor(process, _) | Running::Ours { process, .. } => process.id(),
        }
        .unwrap_or(0)
    }

    /// What a publisher's URL needs.
    pub fn sign(&self) -> Vec<String> {
        match self {
            Running::Ours { .. } => vec!["--sign-key".into(), KEY.into()],
            _ => Vec::new(),
        }
    }

    /// Publishes the clip there, until dropped; a floor sends it by itself.
    pub async fn publish(&self, clip: &[String]) -> Result<Option<Process>, Error> {
        if let Running::Floor(..) = self {
            return Ok(None);
        }
        let mut line = ["bench", "publish", self.publish_url()]
            .map(str::to_owned)
            .to_vec();
        line.extend_from_slice(clip);
        line.extend(self.sign());
        let process = Process::spawn(LINKMIC, &line)?;
        said(&process, |line| {
            line.starts_with("1 of 1 streams granted").then_some(())
        })
        .await?;
        Ok(Some(process))
    }
}

/// Whether this build takes the configuration that `subject` needs; the error says what it does not.
pub async fn check(subject: Subject) -> Result<(), Error> {
    let folder = tempfile::tempdir().map_err(|e| Error::io("a folder", e))?;
    let file = write_configuration(subject, folder.path())?;
    let line = ["check", "--config", &file];
    linkmic::probe::process::output(LINKMIC, &line, SOON).await?;
    Ok(())
}

/// Runs `linkmic bench` and takes its report, whether it lost connections or not.
pub async fn bench(line: &[String], at_least: Duration) -> Result<Value, Error> {
    let line: Vec<String> = std::iter::once("bench".to_owned())
        .chain(line.iter().cloned())
        .collect();
    let mut process = Process::spawn(LINKMIC, &line)?;
    let Some(mut stdout) = process.stdout() else {
        return Err(Error::Wrong("no report can be read".into()));
    };
    let mut report = String::new();
    let read = tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut report);
    // Joining has a timeout of its own, of 30 s.
    let within = at_least + Duration::from_secs(60);
    let Ok(read) = tokio::time::timeout(within, read).await else {
        return Err(Error::Deadline {
            what: "the report".into(),
            within,
        });
    };
    read.map_err(|e| Error::io("the report", e))?;
    let status = process.end(SOON).await?;
    serde_json::from_str(&report).map_err(|_| process.failure(status))
}

/// Waits for a line that `wanted` takes.
async fn said<T>(process: &Process, wanted: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
    let heard = poll("the first word", SOON, || async {
        process.said().lines().find_map(&wanted)
    });
    heard
        .await
        .map_err(|_| Error::Wrong(format!("not ready; it said:\n{}", process.said())))
}

/// Ours as shipped, but for addresses, the key and the merge window.
fn write_configuration(subject: Subject, folder: &Path) -> Result<String, Error> {
    let merge = match subject.merge_ms {
        0 => String::new(),
        ms => format!("[classes.viewer]\nmerge_window = \"{ms}ms\"\n"),
    };
    let text = format!(
        "[rtmp]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [control]\nlisten = \"127.0.0.1:0\"\ntoken = \"{KEY}-token\"\n\
         [state]\ndir = \"{}\"\n\
         [auth]\npush_keys = [{{ id = \"bench\", secret = \"{KEY}\" }}]\n\
         [log]\nformat = \"json\"\nlevel = \"warn,linkmic::server=info\"\n{merge}",
        folder.display()
    );
    let file = folder.join("linkmic.toml");
    std::fs::write(&file, text).map_err(|e| Error::io("the configuration", e))?;
    Ok(file.display().to_string())
}

/// The RTMP and HTTP addresses in the server's first word.
fn listening(line: &str) -> Option<(String, String)> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "listening").then_some(())?;
    let first = |field: &str| {
        let list = line[field].as_str()?;
        let list = list.strip_prefix('[')?.strip_suffix(']')?;
        Some(list.split(',').next()?.trim().to_owned())
    };
    Some((first("rtmp")?, first("http")?))
}
