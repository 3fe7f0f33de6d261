//! What a mix costs and how late it is, beside ffmpeg's filter graph on the same streams, as a table.
//!
//! `cargo bench --bench mix -- [--rounds N] [--window 12s] [--inputs 1] [--crowd [--two PRESET]] [--beside OTHER-BINARY] [--together] [--log FILE]`
//! starts the server as shipped, publishes four clips ([`clips`]: 1280×720 at 30 frames a second, two of 320×480 at 15, one of
//! 480×270 at 20), mixes them to 720p30 at 2.5 Mbit/s, and watches the program over RTMP. Latency is from a message's way into
//! the server to the first program message with the number burnt into its picture; likeness is to the main's own pictures
//! ([`likeness`]). At the end a sub is moved, and the pictures are counted that come from the API's answer to the first that
//! shows it elsewhere. The server's CPU is all of it, the RTMP of four publishers and a viewer included, and shown as it was
//! before the mix; ffmpeg's is ffmpeg's alone, without that of the server it plays from.
//! With `--inputs 1` there is only the main to be mixed. With `--crowd` it is peers that are watched, beside as many mixes as the
//! machine has room for, or with `--two PRESET` beside two whose encoders work so hard ([`crowd`]).
//! Turns alternate, since numbers drift with the machine: the claim is the ratio within a round. Where the machine changes from one turn
//! to the next, `--together` has both mix at the same time, so that what slows the one slows the other.

mod clips;
mod crowd;
mod likeness;
mod reading;
mod sink;
mod sound;
mod subjects;
mod table;
mod wire;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use linkmic::load::usage::{Baseline, Usage};
use linkmic::net::Precedence;
use linkmic::probe::Error;
use linkmic::probe::flv::Tag;
use linkmic::probe::latency::Latencies;
use linkmic::probe::process::poll;
use serde::{Deserialize, Serialize};
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep, sleep_until};

use clips::{Clip, SOURCES};
use reading::Sent;
use sink::Sink;
use subjects::{CANVAS, MOVED, PLACES, Server};
use wire::{Publisher, Viewer};

/// The binary that cargo built with this bench.
const LINKMIC: &str = env!("CARGO_BIN_EXE_linkmic");
/// Clips are kept here.
const FOLDER: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/mix-clips");
/// Above this share of CPU time taken by the hypervisor a run says nothing: it is discarded.
const MAX_STEAL_PCT: f64 = 5.0;
/// How long the server only relays before it mixes.
const RELAYING: Duration = Duration::from_secs(2);
/// From the first mixed frame to the window.
const SETTLE: Duration = Duration::from_secs(3);
/// From a mix's beginning to its first frame at most.
const SOON: Duration = Duration::from_secs(30);
/// A mix of the main alone that changes nothing has no beginning that could be seen: it is there by then.
const PASSED: Duration = Duration::from_secs(5);
/// Between a window's end and the end of all, so that what was sent in it has come out.
const REST: Duration = Duration::from_millis(500);

/// Compares our mixer with ffmpeg's filter graph.
#[derive(Debug, Parser)]
struct Options {
    /// Valid rounds; 0: none, nothing is measured.
    #[arg(long, default_value_t = 0)]
    rounds: usize,
    /// Length of the measured window.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "12s")]
    window: Duration,
    /// Another build of ours, measured as well.
    #[arg(long)]
    beside: Option<String>,
    /// Sources that are mixed, the main first.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=4))]
    inputs: u8,
    /// Measures what peers of the main notice of mixes, instead.
    #[arg(long)]
    crowd: bool,
    /// Beside two mixes with this preset of x264's, not as many as there is room for.
    #[arg(long, requires = "crowd")]
    two: Option<String>,
    /// Without ffmpeg.
    #[arg(long)]
    alone: bool,
    /// Both at the same time, each with a server and publishers of its own: only CPU is to be compared then.
    #[arg(long, conflicts_with_all = ["crowd", "alone", "beside"])]
    together: bool,
    /// Runs are appended here, one JSON object a line; what is there already is in the table too.
    #[arg(long)]
    log: Option<PathBuf>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Who mixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Who {
    Ours,
    /// Another build of ours.
    Beside,
    Ffmpeg,
}

/// One run.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    who: Who,
    round: usize,
    /// By the names in [`table`].
    figures: BTreeMap<String, f64>,
}

impl Run {
    fn is_valid(&self) -> bool {
        self.figures["steal"] <= MAX_STEAL_PCT
    }
}

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    if options.rounds == 0 {
        eprintln!("mix: nothing asked for; cargo bench --bench mix -- --rounds 5");
        return std::process::ExitCode::SUCCESS;
    }
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // What is measured is how long the server's threads wait for a core, not ours: these go first, as a clock would.
        .on_thread_start(|| {
            linkmic::net::slice::short();
            Precedence::Realtime.claim();
        })
        .build()
        .map_err(|error| Error::io("the runtime", error))
        .and_then(|runtime| runtime.block_on(compare(&options)));
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mix: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn compare(options: &Options) -> Result<(), Error> {
    if Precedence::allowed() != Some(Precedence::Realtime) {
        eprintln!(
            "mix: threads may be no real-time ones here: ours wait for cores like any other, and so do the server's"
        );
    }
    let clips = clips::all(Path::new(FOLDER)).await?;
    let clips: Vec<Arc<Clip>> = clips.into_iter().map(Arc::new).collect();
    let mut subjects = vec![Who::Ours];
    subjects.extend(options.beside.as_ref().map(|_| Who::Beside));
    if !options.alone && !options.crowd {
        subjects.push(Who::Ffmpeg);
    }
    let mut runs = read_log(options)?;
    let before = runs.iter().map(|run| run.round + 1).max().unwrap_or(0);
    // Discarded runs are made up for, but not for ever.
    for round in before..before + 2 * options.rounds {
        let counted = |runs: &[Run], who: Who| {
            let valid = runs.iter().filter(|run| run.who == who && run.is_valid());
            valid.count() >= options.rounds
        };
        if options.together {
            if counted(&runs, Who::Ours) && counted(&runs, Who::Ffmpeg) {
                break;
            }
            let both = Barrier::new(2);
            let (ours, theirs) = tokio::try_join!(
                measure(Who::Ours, LINKMIC, &clips, options, &both),
                measure(Who::Ffmpeg, LINKMIC, &clips, options, &both)
            )?;
            for (who, figures) in [(Who::Ours, ours), (Who::Ffmpeg, theirs)] {
                note(options, &mut runs, (who, round), figures)?;
            }
            continue;
        }
        for turn in 0..subjects.len() {
            let who = subjects[(turn + round) % subjects.len()];
            if counted(&runs, who) {
                continue;
            }
            let binary = match (who, &options.beside) {
                (Who::Beside, Some(binary)) => binary,
                _ => LINKMIC,
            };
            let figures = if options.crowd {
                crowd::measure(binary, &clips, options.window, options.two.as_deref()).await?
            } else {
                measure(who, binary, &clips, options, &Barrier::new(1)).await?
            };
            note(options, &mut runs, (who, round), figures)?;
        }
    }
    let inputs = usize::from(options.inputs);
    println!(
        "{}",
        table::markdown(&runs, &format!("1+{}, 720p30", inputs - 1))
    );
    Ok(())
}

/// A run is over.
fn note(
    options: &Options,
    runs: &mut Vec<Run>,
    (who, round): (Who, usize),
    figures: BTreeMap<String, f64>,
) -> Result<(), Error> {
    let run = Run {
        who,
        round,
        figures,
    };
    eprintln!("round {}: {}", round + 1, table::brief(&run));
    append_log(options, &run)?;
    runs.push(run);
    Ok(())
}

/// All clips on air.
async fn on_air(server: &Server, clips: &[Arc<Clip>]) -> Result<Vec<Publisher>, Error> {
    // Not all in the same millisecond.
    let start = Instant::now() + Duration::from_millis(300);
    let mut publishers = Vec::new();
    for (n, (source, clip)) in (0u32..).zip(SOURCES.iter().zip(clips)) {
        let start = start + Duration::from_millis(7) * n;
        publishers.push(Publisher::start(&server.url(source.name), clip.clone(), start).await?);
    }
    for source in &SOURCES[..clips.len()] {
        server.on_air(source.name).await?;
    }
    Ok(publishers)
}

fn milliseconds(latencies: &Latencies, percent: usize) -> f64 {
    let latency = latencies.percentile(percent);
    latency.map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
}

async fn measure(
    who: Who,
    binary: &str,
    clips: &[Arc<Clip>],
    options: &Options,
    begin: &Barrier,
) -> Result<BTreeMap<String, f64>, Error> {
    let count = usize::from(options.inputs);
    let (window, clips) = (options.window, &clips[..count]);
    let server = Server::start(binary).await?;
    let publishers = on_air(&server, clips).await?;
    let used = |pid| Usage::of(&[pid]).unwrap_or_default();
    // Every source has had its key frame, and the server is warm as a relay.
    sleep(RELAYING / 2).await;
    let warm = used(server.id());
    sleep(RELAYING).await;
    let idle = used(server.id());
    let relay = idle.since(&warm).cpu_s() / RELAYING.as_secs_f64();
    let (viewer, graph, began);
    let sink = Sink::start().await?;
    match who {
        Who::Ours | Who::Beside => {
            server.push(&sink.url).await?;
            viewer = Viewer::start(&server.url(SOURCES[0].name)).await?;
            sleep(Duration::from_millis(500)).await;
            began = Instant::now();
            server.mix(count, &PLACES).await?;
            graph = None;
        }
        Who::Ffmpeg => {
            began = Instant::now();
            graph = Some(subjects::ffmpeg(&server, "out", count)?);
            server.on_air("out").await?;
            viewer = Viewer::start(&server.url("out")).await?;
        }
    }
    let mixed = poll("the first mixed frame", SOON, || async {
        let seen = wire::all(&viewer.seen);
        // Passed through, the main begins with nothing.
        if count == 1 && who != Who::Ffmpeg && began.elapsed() > PASSED {
            return Some(began);
        }
        // Ours begins, for a viewer of the main, with a new header.
        let old = |at: Instant| who != Who::Ffmpeg && at < began;
        let mut rest = seen
            .iter()
            .skip_while(|(at, tag)| old(*at) || !(tag.kind == 9 && tag.is_header()));
        rest.find(|(_, tag)| tag.is_key_frame()).map(|(at, _)| *at)
    });
    let mixed = mixed.await?;
    sleep_until(mixed + SETTLE).await;
    begin.wait().await;

    let pid = graph
        .as_ref()
        .map_or(server.id(), |graph| graph.id().unwrap_or(0));
    let (baseline, from, begun) = (Baseline::now(), Instant::now(), used(pid));
    sleep(window).await;
    let (to, ended) = (Instant::now(), used(pid));
    let (seconds, machine) = (baseline.elapsed_s(), baseline.machine());
    sleep(REST).await;
    let skipped = match who {
        Who::Ffmpeg => 0.0,
        _ => server.mixed().await?["stats"]["ticks_skipped"]
            .as_f64()
            .unwrap_or(0.0),
    };
    let moved = if who == Who::Ffmpeg || count == 1 {
        None
    } else {
        let mut places = PLACES;
        places[1] = MOVED;
        server.mix(count, &places).await?;
        let answered = Instant::now();
        sleep(REST).await;
        let (seen, times) = (wire::all(&viewer.seen), (answered, Instant::now()));
        Some(reading::until_shown(&seen, times, CANVAS, MOVED, server.folder()).await?)
    };
    let (seen, pushed) = (wire::all(&viewer.seen), wire::all(&sink.seen));
    drop((viewer, graph, sink));
    let sent: Vec<Sent<'_>> = publishers
        .iter()
        .zip(clips)
        .zip(PLACES)
        .map(|((publisher, clip), region)| Sent {
            clip,
            times: wire::all(&publisher.sent),
            region,
        })
        .collect();
    drop(publishers);
    let pictures = clips[0].positions(Tag::VIDEO).len() as u64;
    let source = likeness::Source::new(&clips[0].file, CANVAS, pictures, &PLACES[1..count])?;
    let reading = reading::read(
        (&seen, &pushed),
        &sent,
        (from, to),
        (CANVAS, source),
        server.folder(),
    )
    .await?;

    let rss = |usage: &Usage| usage.rss_kb as f64 / 1024.0;
    let mut figures = BTreeMap::new();
    let mut figure = |name: &str, value: f64| {
        // What was not there is left out.
        if value.is_finite() {
            figures.insert(name.to_owned(), value);
        }
    };
    figure("cpu", ended.since(&begun).cpu_s() / seconds);
    figure("relay", relay);
    figure("main p50", milliseconds(&reading.pictures[0], 50));
    figure("main p99", milliseconds(&reading.pictures[0], 99));
    for (n, latencies) in reading.pictures.iter().enumerate().skip(1) {
        figure(&format!("sub{n} p50"), milliseconds(latencies, 50));
        figure(&format!("sub{n} p99"), milliseconds(latencies, 99));
    }
    figure("sound p50", milliseconds(&reading.sound, 50));
    figure("sound max", milliseconds(&reading.sound, 100));
    figure("pushed sound p50", milliseconds(&reading.pushed_sound, 50));
    let before = if who == Who::Ffmpeg { 0.0 } else { rss(&idle) };
    figure("rss", rss(&ended) - before);
    if mixed > began {
        figure("start", (mixed - began).as_secs_f64() * 1e3);
    }
    figure("likeness", reading.likeness);
    if let Some(pictures) = moved {
        figure("moved", pictures as f64);
    }
    figure("fps", (reading.frames.max(1) - 1) as f64 / reading.seconds);
    figure("repeated", reading.repeated as f64);
    figure("skipped", skipped);
    figure("kbps", reading.bytes as f64 * 8.0 / 1e3 / reading.seconds);
    figure("busy", machine.busy_pct);
    figure("steal", machine.steal_pct);
    Ok(figures)
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
    let append = || {
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)?;
        writeln!(file, "{}", serde_json::to_string(run)?)
    };
    append().map_err(|e: std::io::Error| Error::io(path.display().to_string(), e))
}
