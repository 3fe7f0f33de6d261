//! The arguments of `linkmic bench`, and which run each command is.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{Aim, Clip, Crowd, Error, Floor, FloorConfig, Shape, Timing, run};
use crate::auth::Secret;

/// The commands of `linkmic bench`.
#[derive(Debug, clap::Subcommand)]
pub enum Subcommand {
    /// Publish and play at once: how many players does a host carry, and how late are they?
    Run(RunArgs),
    /// Publish a clip in real time, each picture stamped with a number and the time.
    Publish(PublishArgs),
    /// Play with many players what `bench publish` sends.
    Play(PlayArgs),
    /// Serve the same bytes to raw TCP players (`bench play tcp://…`): the least that fan-out can cost.
    Floor(FloorArgs),
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    clip: ClipArgs,
    #[command(flatten)]
    crowd: CrowdArgs,
    #[command(flatten)]
    timing: TimingArgs,
    /// Length of the measured window.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "15s")]
    duration: Duration,
}

#[derive(Debug, Args)]
pub struct PublishArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    clip: ClipArgs,
    #[command(flatten)]
    timing: TimingArgs,
    /// Length of the measured window; without it, until Ctrl-C.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct PlayArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    crowd: CrowdArgs,
    #[command(flatten)]
    timing: TimingArgs,
    /// Length of the measured window.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "15s")]
    duration: Duration,
}

#[derive(Debug, Args)]
pub struct FloorArgs {
    #[command(flatten)]
    clip: ClipArgs,
    /// Where raw players come.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Players to wait for before the clip begins.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    players: usize,
    /// Send audio at once instead of together with the next picture.
    #[arg(long)]
    audio_at_once: bool,
    /// Send what comes in such a span of time in one write.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "0ms")]
    merge_window: Duration,
    /// Threads that write, each to its share of the players.
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = positive)]
    threads: usize,
}

/// `Debug` by hand: the URL may hold a valid signature.
#[derive(Args)]
struct TargetArgs {
    /// rtmp://host[:port]/app/stream[?query]; to play over HTTP-FLV, http://host[:port]/app/stream.flv[?query]; from a
    /// floor, tcp://address:port.
    url: String,
    /// Streams; with more than one, the name gets _1, _2 and so on.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = positive)]
    streams: usize,
    /// Sign every stream name with this key (txSecret and txTime, good for a day).
    #[arg(
        long,
        value_name = "KEY",
        env = "LINKMIC_SIGN_KEY",
        hide_env_values = true
    )]
    sign_key: Option<String>,
}

impl std::fmt::Debug for TargetArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TargetArgs")
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Args)]
struct ClipArgs {
    /// FLV file with H.264 (and AAC) to send in a loop; without one, a clip is made.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fps", "gop", "kbps"])]
    file: Option<PathBuf>,
    /// Frames a second of the made clip.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=240))]
    fps: u32,
    /// Frames from one key frame to the next.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    gop: u32,
    /// Video bitrate in kbit/s; sound adds 128.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(50..=200_000))]
    kbps: u32,
}

#[derive(Debug, Args)]
struct CrowdArgs {
    /// Players to open.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    players: usize,
    /// Players to open a second.
    #[arg(long, value_name = "R", default_value_t = 200.0, value_parser = rate)]
    rate: f64,
    /// Players whose every message is read; the others count bytes, which costs this program little.
    #[arg(long, value_name = "N", default_value_t = 250)]
    sample: usize,
    /// Threads that read; more than one when `client` nears 100 % of a core.
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = positive)]
    threads: usize,
    /// How long the last player may wait for its first video.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "30s")]
    join_timeout: Duration,
}

#[derive(Debug, Args)]
struct TimingArgs {
    /// Time between the last join and the measured window.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "3s")]
    warmup: Duration,
    /// Process ids of the server, if it runs on this machine: their CPU time and memory are measured.
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pid: Vec<u32>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every connection stood to the end.
    Whole,
    /// Players or publishers were refused or lost; the report says how many and why.
    Losses,
}

impl Subcommand {
    /// Runs it on this thread, writing one JSON line to `out` and a line a second to `progress`, until it is done or
    /// `stop` is set; what was measured until then is reported.
    ///
    /// # Errors
    /// When nothing could be measured.
    pub fn run(
        self,
        stop: &AtomicBool,
        out: &mut dyn Write,
        progress: &mut dyn Write,
    ) -> Result<Outcome, Error> {
        match self {
            Subcommand::Run(args) => {
                let (aim, clip) = (args.target.aim()?, args.clip.clip()?);
                if !aim.takes_publishers() {
                    return Err(Error::PlayOnly);
                }
                let timing = args.timing.timing(Some(args.duration));
                let crowd = args.crowd.crowd();
                let report = run::play(&aim, Some(clip), &crowd, &timing, stop, progress)?;
                print(out, &report)?;
                Ok(outcome(report.joined == report.players && report.lost == 0))
            }
            Subcommand::Play(args) => {
                let aim = args.target.aim()?;
                let timing = args.timing.timing(Some(args.duration));
                let crowd = args.crowd.crowd();
                let report = run::play(&aim, None, &crowd, &timing, stop, progress)?;
                print(out, &report)?;
                Ok(outcome(report.joined == report.players && report.lost == 0))
            }
            Subcommand::Publish(args) => {
                let (aim, clip) = (args.target.aim()?, args.clip.clip()?);
                if !aim.takes_publishers() {
                    return Err(Error::PlayOnly);
                }
                let timing = args.timing.timing(args.duration);
                let report = run::publish(aim, clip, &timing, stop, progress)?;
                print(out, &report)?;
                Ok(outcome(
                    report.granted == report.streams && report.lost == 0,
                ))
            }
            Subcommand::Floor(args) => {
                let clip = args.clip.clip()?;
                let floor = Floor::bind(FloorConfig {
                    listen: args.listen,
                    players: args.players,
                    hold_audio: !args.audio_at_once,
                    merge_window: args.merge_window,
                    threads: args.threads,
                })?;
                super::usage::allow_sockets(args.players).map_err(|limit| Error::OpenFiles {
                    sockets: args.players,
                    limit,
                })?;
                // Said before it waits: whoever started it on port 0 needs to know.
                writeln!(progress, "listening on tcp://{}", floor.address()?)?;
                let left_out = floor.run(&clip, stop)?;
                print(out, &FloorReport { left_out })?;
                Ok(outcome(left_out == 0))
            }
        }
    }
}

#[derive(Serialize)]
struct FloorReport {
    /// Writes left out for players that did not read.
    left_out: u64,
}

/// A Ctrl-C that ends a run in order, so that it reports what it has seen.
pub(crate) async fn stop_on_interrupt(stop: &AtomicBool) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.store(true, Relaxed);
    }
}

fn outcome(whole: bool) -> Outcome {
    match whole {
        true => Outcome::Whole,
        false => Outcome::Losses,
    }
}

fn print(out: &mut dyn Write, report: &impl Serialize) -> Result<(), Error> {
    let json = serde_json::to_string(report).map_err(std::io::Error::from)?;
    Ok(writeln!(out, "{json}")?)
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number of 1 or more is needed".into()),
        Ok(number) => Ok(number),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.1..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number from 0.1 to 100000 is needed".into()),
    }
}

impl TargetArgs {
    fn aim(&self) -> Result<Aim, Error> {
        let key = self.sign_key.as_deref().map(Secret::new);
        Ok(Aim::new(&self.url, self.streams, key.as_ref())?)
    }
}

impl ClipArgs {
    fn clip(&self) -> Result<Clip, Error> {
        match &self.file {
            Some(path) => Ok(Clip::read(path)?),
            None => Ok(Clip::synthetic(Shape {
                fps: self.fps,
                gop: self.gop,
                kbps: self.kbps,
            })),
        }
    }
}

impl CrowdArgs {
    fn crowd(&self) -> Crowd {
        Crowd {
            players: self.players,
            rate: self.rate,
            sampled: self.sample,
            threads: self.threads,
            join_timeout: self.join_timeout,
        }
    }
}

impl TimingArgs {
    fn timing(self, duration: Option<Duration>) -> Timing {
        Timing {
            warmup: self.warmup,
            duration,
            pids: self.pid,
        }
    }
}
