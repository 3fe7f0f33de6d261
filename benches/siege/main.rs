//! What a siege costs those who only watch: the transit latency of players while strangers do everything they should not.
//!
//! `cargo bench --bench siege -- [--players N] [--rounds N] [--window 10s]` starts the server as shipped, a publisher and
//! players (`linkmic bench`, of the very binary that is measured) and strangers ([`strangers`]), each in processes of
//! their own. Strangers need processors too, and on few cores that alone makes players late. So each round has three
//! windows, in turn: calm; the siege laid to a second server beside, which shows what the machine makes of that much
//! work; and the siege laid to the server itself. What the third has over the second is the server's doing.

mod strangers;

/// What the bytes of the tests need of the tests' client.
mod edge {
    pub mod client {
        use bytes::BytesMut;
        use linkmic::rtmp::url::Target;
        use linkmic::rtmp::{chunk, handshake};
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        use tokio::net::TcpStream;

        /// A connection whose handshake is over, or which the server has closed meanwhile.
        pub async fn try_shake_hands(
            target: &Target,
        ) -> std::io::Result<(TcpStream, chunk::Reader)> {
            let address = (target.host.as_str(), target.port);
            let mut socket = TcpStream::connect(address)
                .await
                .expect("the server listens");
            let (mut shake, opening) = handshake::Client::new();
            let exchange = async {
                socket.write_all(&opening).await?;
                let mut buffer = BytesMut::with_capacity(4096);
                while socket.read_buf(&mut buffer).await? > 0 {
                    let progress = shake
                        .receive(&buffer.split())
                        .map_err(std::io::Error::other)?;
                    socket.write_all(&progress.reply).await?;
                    if progress.done.is_some() {
                        break;
                    }
                }
                std::io::Result::Ok(())
            };
            // That the server has closed shows with the next write.
            let _ = exchange.await;
            Ok((socket, chunk::Reader::new(chunk::Limits::default())))
        }
    }
}

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use linkmic::load::usage::{self, Baseline, Usage};
use linkmic::probe::Error;
use linkmic::probe::process::{Process, poll};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

/// The binary that cargo built with this bench.
const LINKMIC: &str = env!("CARGO_BIN_EXE_linkmic");
/// How long a server may take to listen, and a publisher to be granted.
const SOON: Duration = Duration::from_secs(20);
/// Between two windows: the strangers of the last one are gone, those of the next one at work.
const PAUSE: Duration = Duration::from_secs(3);
/// Above this share of CPU time taken by the hypervisor a round says nothing: it is discarded.
const MAX_STEAL_PCT: f64 = 5.0;

/// Measures what players notice of a siege.
#[derive(Debug, Parser)]
struct Options {
    #[arg(long, default_value_t = 50)]
    players: usize,
    /// Valid rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of each window.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    window: Duration,
    /// Another binary than the one that cargo built with this bench.
    #[arg(long, default_value = LINKMIC)]
    binary: String,
    /// Be the strangers: RTMP and HTTP address of the server to lay siege to, until killed.
    #[arg(long, hide = true, num_args = 2)]
    assail: Vec<SocketAddr>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the strangers do meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Calm,
    /// They lay siege to another server.
    Beside,
    Siege,
}

impl When {
    const ALL: [When; 3] = [When::Calm, When::Beside, When::Siege];
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            When::Calm => "calm",
            When::Beside => "siege of another server beside",
            When::Siege => "siege",
        })
    }
}

/// One window.
#[derive(Debug, Clone, Copy)]
struct Window {
    p50_ms: f64,
    p99_ms: f64,
    missed: u64,
    /// Of one core.
    server_pct: f64,
    strangers_pct: f64,
    /// Of all cores.
    machine_pct: f64,
    steal_pct: f64,
    resident_kb: u64,
}

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    let run = async {
        match options.assail[..] {
            [rtmp, http] => strangers::assail(rtmp, http).await,
            _ => measure(&options).await,
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = runtime
        .map_err(|error| Error::io("the runtime", error))
        .and_then(|runtime| runtime.block_on(run));
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("siege: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn measure(options: &Options) -> Result<(), Error> {
    usage::allow_sockets(2 * options.players + 4_096)
        .map_err(|limit| Error::Wrong(format!("too few open files are allowed: {limit}")))?;
    let server = Server::start(&options.binary).await?;
    let beside = Server::start(&options.binary).await?;
    let url = format!("rtmp://{}/live/bench", server.rtmp);
    let _publisher = publish(&options.binary, &url).await?;
    let mut rounds: Vec<[Window; 3]> = Vec::new();
    for round in 0..2 * options.rounds {
        if rounds.len() == options.rounds {
            break;
        }
        let mut windows = [None; 3];
        for turn in 0..3 {
            let at = (turn + round) % 3;
            let window = look(When::ALL[at], options, &url, &server, &beside).await?;
            eprintln!("round {}: {}: {window:.1?}", round + 1, When::ALL[at]);
            windows[at] = Some(window);
        }
        if let [Some(calm), Some(beside), Some(siege)] = windows {
            let windows = [calm, beside, siege];
            if windows.iter().all(|w| w.steal_pct <= MAX_STEAL_PCT) {
                rounds.push(windows);
            }
        }
    }
    print(options, &rounds);
    Ok(())
}

/// One window of players.
async fn look(
    when: When,
    options: &Options,
    url: &str,
    server: &Server,
    beside: &Server,
) -> Result<Window, Error> {
    let strangers = match when {
        When::Calm => None,
        When::Beside => Some(lay_siege(beside)?),
        When::Siege => Some(lay_siege(server)?),
    };
    sleep(PAUSE).await;
    let pids = [
        Some(server.id()),
        strangers.as_ref().and_then(|strangers| strangers.id()),
    ];
    let begun = pids.map(|pid| used(pid).unwrap_or_default());
    let baseline = Baseline::now();
    let report = play(options, url).await?;
    let (seconds, machine) = (baseline.elapsed_s(), baseline.machine());
    let spent = |at: usize| used(pids[at]).map_or(0.0, |now| now.since(&begun[at]).cpu_s());
    let number = |pointer: &str| {
        let value = report.pointer(pointer).and_then(Value::as_f64);
        value.ok_or_else(|| Error::Wrong(format!("no {pointer} in {report}")))
    };
    let window = Window {
        p50_ms: number("/latency_ms/p50")?,
        p99_ms: number("/latency_ms/p99")?,
        missed: number("/missed_frames")? as u64 + number("/lost")? as u64,
        server_pct: 100.0 * spent(0) / seconds,
        strangers_pct: 100.0 * spent(1) / seconds,
        machine_pct: machine.busy_pct,
        steal_pct: machine.steal_pct,
        resident_kb: used(pids[0]).map_or(0, |now| now.rss_kb),
    };
    if let Some(mut strangers) = strangers {
        if let Some(status) = strangers.ended() {
            return Err(strangers.failure(status));
        }
        if let Some(line) = strangers.said().lines().last() {
            eprintln!("strangers: {line}");
        }
        strangers.kill().await;
        sleep(PAUSE).await;
    }
    Ok(window)
}

fn used(pid: Option<u32>) -> Option<Usage> {
    Usage::of(&[pid?]).ok()
}

fn print(options: &Options, rounds: &[[Window; 3]]) {
    println!(
        "{} players, {} rounds of {} s each; median (least to most)",
        options.players,
        rounds.len(),
        options.window.as_secs()
    );
    println!(
        "| | p50 ms | p99 ms | p99 ÷ calm | p99 ÷ beside | frames missed | server CPU % | strangers CPU % | machine busy % | server RSS MB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (at, when) in When::ALL.iter().enumerate() {
        let column = |figure: &dyn Fn(&[Window; 3]) -> f64, digits: usize| {
            let mut all: Vec<f64> = rounds.iter().map(figure).collect();
            all.sort_unstable_by(f64::total_cmp);
            match (all.first(), all.get(all.len() / 2), all.last()) {
                (Some(least), Some(median), Some(most)) => {
                    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
                }
                _ => "–".to_owned(),
            }
        };
        let missed: u64 = rounds.iter().map(|round| round[at].missed).sum();
        println!(
            "| {when} | {} | {} | {} | {} | {missed} | {} | {} | {} | {} |",
            column(&|r| r[at].p50_ms, 2),
            column(&|r| r[at].p99_ms, 2),
            column(&|r| r[at].p99_ms / r[0].p99_ms, 2),
            column(&|r| r[at].p99_ms / r[1].p99_ms, 2),
            column(&|r| r[at].server_pct, 0),
            column(&|r| r[at].strangers_pct, 0),
            column(&|r| r[at].machine_pct, 0),
            column(&|r| r[at].resident_kb as f64 / 1024.0, 1),
        );
    }
}

/// A server of ours, as shipped but for addresses and an open door for publishers.
struct Server {
    process: Process,
    rtmp: SocketAddr,
    http: SocketAddr,
    _folder: TempDir,
}

impl Server {
    async fn start(binary: &str) -> Result<Self, Error> {
        let folder = tempfile::tempdir().map_err(|e| Error::io("a folder", e))?;
        let file = write_configuration(folder.path())?;
        let process = Process::spawn(binary, &["serve", "--config", &file])?;
        let [rtmp, http] = said(&process, listening).await?;
        Ok(Self {
            process,
            rtmp,
            http,
            _folder: folder,
        })
    }

    /// 0 when it is gone, which no process is.
    fn id(&self) -> u32 {
        self.process.id().unwrap_or(0)
    }
}

fn write_configuration(folder: &Path) -> Result<String, Error> {
    let text = format!(
        "[rtmp]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [control]\nlisten = \"127.0.0.1:0\"\ntoken = \"control-0123456789abcdef\"\n\
         [state]\ndir = \"{}\"\n[auth]\npush = \"open\"\n\
         [log]\nformat = \"json\"\nlevel = \"warn,linkmic::server=info\"\n",
        folder.display()
    );
    let file = folder.join("linkmic.toml");
    std::fs::write(&file, text).map_err(|e| Error::io("the configuration", e))?;
    Ok(file.display().to_string())
}

/// The RTMP and HTTP addresses in the server's first word.
fn listening(line: &str) -> Option<[SocketAddr; 2]> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "listening").then_some(())?;
    let first = |key: &str| {
        let list = line[key].as_str()?.strip_prefix('[')?.strip_suffix(']')?;
        list.split(',').next()?.trim().parse().ok()
    };
    Some([first("rtmp")?, first("http")?])
}

async fn publish(binary: &str, url: &str) -> Result<Process, Error> {
    let process = Process::spawn(binary, &["bench", "publish", url])?;
    let granted = |line: &str| line.starts_with("1 of 1 streams granted").then_some(());
    said(&process, granted).await?;
    Ok(process)
}

/// Strangers, in a process of their own.
fn lay_siege(server: &Server) -> Result<Process, Error> {
    let ours = std::env::current_exe().map_err(|e| Error::io("this program", e))?;
    let (rtmp, http) = (server.rtmp.to_string(), server.http.to_string());
    let ours = ours.display().to_string();
    // Strangers have processors of their own; the server's are to do no more of their work than can be helped.
    Process::spawn("nice", &["-n", "19", &ours, "--assail", &rtmp, &http])
}

/// The report of `linkmic bench play`.
async fn play(options: &Options, url: &str) -> Result<Value, Error> {
    let (players, window) = (
        options.players.to_string(),
        format!("{}ms", options.window.as_millis()),
    );
    let line = [
        "bench",
        "play",
        url,
        "--players",
        &players,
        "--duration",
        &window,
        "--warmup",
        "2s",
    ];
    let mut process = Process::spawn(&options.binary, &line)?;
    let Some(mut stdout) = process.stdout() else {
        return Err(Error::Wrong("no report can be read".into()));
    };
    let mut report = String::new();
    let within = options.window + Duration::from_secs(60);
    let Ok(read) = timeout(within, stdout.read_to_string(&mut report)).await else {
        let what = "the report".into();
        return Err(Error::Deadline { what, within });
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
