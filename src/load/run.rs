//! One run from the first connection to the report: joins, warm-up, window, and a progress line a second.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::Error;
use super::aim::Aim;
use super::board::{Board, Phase};
use super::clip::Clip;
use super::player::{self, Orders, Record};
use super::publish::Publishers;
use super::report::{self, Client, Latency, Quantiles, Server, Spread, rounded};
use super::usage::{Baseline, Usage, allow_sockets};

/// How long the publishers of a run have to be granted.
const GRANT: Duration = Duration::from_secs(20);
/// How long frames of the window may take to come after it.
const LATE: Duration = Duration::from_secs(1);
/// How often waiting threads look.
const GLANCE: Duration = Duration::from_millis(20);

/// How long a run takes, and whom it watches.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Between the last join and the window.
    pub warmup: Duration,
    /// The window's length; `None`: until stopped.
    pub duration: Option<Duration>,
    /// The server's processes on this machine; empty: not measured.
    pub pids: Vec<u32>,
}

/// The players of a run.
#[derive(Debug, Clone)]
pub struct Crowd {
    pub players: usize,
    /// Players opened a second.
    pub rate: f64,
    /// Players whose every message is read.
    pub sampled: usize,
    /// Threads that read.
    pub threads: usize,
    /// How long the last player may wait for its first video.
    pub join_timeout: Duration,
}

/// Publishes a clip to every stream and reports.
///
/// # Errors
/// When nothing could be measured at all. That publishers were refused is in the report.
pub fn publish(
    aim: Aim,
    clip: Clip,
    timing: &Timing,
    stop: &AtomicBool,
    progress: &mut dyn Write,
) -> Result<report::Publish, Error> {
    allow(aim.streams())?;
    let (url, streams) = (aim.to_string(), aim.streams());
    let before = usage(&timing.pids)?;
    let publishers = Publishers::start(aim, clip)?;
    let granted = publishers.wait(streams, GRANT);
    say(
        progress,
        format_args!("{granted} of {streams} streams granted"),
    );
    pause(timing.warmup, stop);

    let counts = &publishers.counts;
    let baseline = Baseline::now();
    let (server, client) = (usage(&timing.pids)?, Usage::own());
    let load =
        || [&counts.pictures, &counts.messages, &counts.bytes].map(|count| count.load(Relaxed));
    let first = load();
    counts.late_us.store(0, Relaxed);
    let (mut rss_max_kb, mut last) = (server.rss_kb, first);
    let window = timing.duration.filter(|_| granted > 0);
    each_second(window, stop, |second| {
        let now = load();
        let seen = usage(&timing.pids).unwrap_or_default();
        rss_max_kb = rss_max_kb.max(seen.rss_kb);
        say(
            progress,
            format_args!(
                "{second:4} s  {granted}/{streams} streams, {} lost  {} frames, {:.1} Mbit/s  latest send {:.1} ms late",
                counts.lost.load(Relaxed),
                now[0] - last[0],
                (now[2] - last[2]) as f64 * 8e-6,
                counts.late_us.load(Relaxed) as f64 / 1000.0,
            ),
        );
        last = now;
        counts.lost.load(Relaxed) < streams
    });
    let window_s = baseline.elapsed_s();
    // A server that ended is in the notes as lost streams.
    let server_end = usage(&timing.pids).unwrap_or(server);
    let client_end = Usage::own();
    let [frames, messages, bytes] = {
        let end = load();
        [0, 1, 2].map(|i| end[i] - first[i])
    };
    let report = report::Publish {
        kind: "publish",
        url,
        streams,
        granted,
        lost: counts.lost.load(Relaxed),
        window_s: rounded(window_s),
        frames,
        messages,
        bytes,
        mbit_s: rounded(bytes as f64 * 8e-6 / window_s),
        latest_send_ms: counts.late_us.load(Relaxed) as f64 / 1000.0,
        server: (!timing.pids.is_empty()).then(|| {
            let used = server_end.since(&server);
            Server::of(used, window_s, bytes, granted, before.rss_kb, rss_max_kb)
        }),
        client: client_of(&client_end.since(&client), window_s),
        machine: baseline.machine(),
        notes: counts.errors(),
    };
    publishers.stop()?;
    Ok(report)
}

/// Plays with a crowd and reports; with a clip, publishes it first and as long.
///
/// # Errors
/// When nothing could be measured at all. That players were refused or lost is in the report.
pub fn play(
    aim: &Aim,
    clip: Option<Clip>,
    crowd: &Crowd,
    timing: &Timing,
    stop: &AtomicBool,
    progress: &mut dyn Write,
) -> Result<report::Play, Error> {
    let own = clip.as_ref().map_or(0, |_| aim.streams());
    allow(crowd.players + own)?;
    let before = usage(&timing.pids)?;
    let mut notes = Vec::new();
    let publishers = match clip {
        None => None,
        Some(clip) => {
            let publishers = Publishers::start(aim.clone(), clip)?;
            if publishers.wait(own, GRANT) < own {
                notes.extend(publishers.counts.errors());
            }
            Some(publishers)
        }
    };
    let threads = crowd.threads.clamp(1, crowd.players.max(1));
    let board = Board::new(aim.streams(), threads);
    let (seen, records) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let orders = Orders {
                    aim,
                    board: &board,
                    thread,
                    threads,
                    players: crowd.players,
                    sampled: crowd.sampled,
                    rate: crowd.rate.max(0.1),
                };
                scope.spawn(move || player::run(&orders))
            })
            .collect();
        let seen = watch(&board, crowd, timing, before.rss_kb, stop, progress);
        board.enter(Phase::Over, || ());
        let mut records = Vec::new();
        for worker in workers {
            let result = worker.join();
            records.extend(result.map_err(|_| io::Error::other("a player thread panicked"))??);
        }
        Ok::<_, Error>((seen?, records))
    })?;
    if let Some(publishers) = publishers {
        notes.extend(publishers.counts.errors());
        publishers.stop()?;
    }
    Ok(report_of(aim, crowd, timing, &board, seen, &records, notes))
}

/// What the watching thread measured.
struct Seen {
    joined: usize,
    join_s: f64,
    window_s: f64,
    server: Usage,
    client: Usage,
    baseline: Baseline,
    rss_before_kb: u64,
    rss_max_kb: u64,
}

fn watch(
    board: &Board,
    crowd: &Crowd,
    timing: &Timing,
    rss_before_kb: u64,
    stop: &AtomicBool,
    progress: &mut dyn Write,
) -> Result<Seen, Error> {
    let begin = Instant::now();
    let limit = Duration::from_secs_f64(crowd.players as f64 / crowd.rate) + crowd.join_timeout;
    let mut said = 0;
    let players = crowd.players;
    while begin.elapsed() < limit && !stop.load(Relaxed) {
        let (joined, lost) = (board.joined.load(Relaxed), board.lost.load(Relaxed));
        if joined + board.failed.load(Relaxed) >= players {
            break;
        }
        let second = begin.elapsed().as_secs();
        if second > said {
            said = second;
            say(
                progress,
                format_args!("{second:4} s  joining: {joined}/{players} have video, {lost} lost"),
            );
        }
        std::thread::sleep(GLANCE);
    }
    let (joined, join_s) = (board.joined.load(Relaxed), begin.elapsed().as_secs_f64());
    pause(timing.warmup, stop);
    board.take_recent();

    let (baseline, server, client) = board.enter(Phase::Measuring, || {
        (Baseline::now(), usage(&timing.pids), Usage::own())
    });
    let server = server?;
    let mut rss_max_kb = server.rss_kb;
    let mut last = (server, client);
    each_second(timing.duration, stop, |second| {
        let now = (usage(&timing.pids).unwrap_or_default(), Usage::own());
        rss_max_kb = rss_max_kb.max(now.0.rss_kb);
        let (recent, bytes) = board.take_recent();
        let quantile = |share| recent.value_at_quantile(share) as f64 / 1000.0;
        let lost = board.lost.load(Relaxed);
        let mut line = format!(
            "{second:4} s  {} players, {lost} lost  {:.1} Mbit/s  latency p50 {:.1} p99 {:.1} ms  client {:.0} %",
            board.joined.load(Relaxed),
            bytes as f64 * 8e-6,
            quantile(0.5),
            quantile(0.99),
            100.0 * now.1.since(&last.1).cpu_s(),
        );
        if !timing.pids.is_empty() {
            line += &format!(
                "  server {:.0} % {:.1} MB",
                100.0 * now.0.since(&last.0).cpu_s(),
                now.0.rss_kb as f64 / 1024.0
            );
        }
        say(progress, format_args!("{line}"));
        last = now;
        lost < players
    });
    let (window_s, server_end, client_end) = board.enter(Phase::Closing, || {
        (baseline.elapsed_s(), usage(&timing.pids), Usage::own())
    });
    // What was on its way when the window ended still counts, for a while.
    let late = Instant::now();
    let mut frames = u64::MAX;
    while late.elapsed() < LATE && frames != board.sum().frames {
        frames = board.sum().frames;
        std::thread::sleep(LATE / 4);
    }
    Ok(Seen {
        joined,
        join_s,
        window_s,
        server: server_end.unwrap_or(server).since(&server),
        client: client_end.since(&client),
        baseline,
        rss_before_kb,
        rss_max_kb,
    })
}

fn report_of(
    aim: &Aim,
    crowd: &Crowd,
    timing: &Timing,
    board: &Board,
    seen: Seen,
    records: &[Record],
    mut notes: Vec<String>,
) -> report::Play {
    let sum = board.sum();
    notes.extend(sum.errors);
    if sum.foreign > 0 {
        notes.push(format!(
            "{} frames were stamped on another machine, whose clock says nothing here",
            sum.foreign
        ));
    }
    let published = board.published();
    let sampled = || records.iter().filter(|record| record.sampled);
    let expected: u64 = sampled()
        .filter(|record| record.first_video.is_some())
        .map(|record| published[record.stream])
        .sum();
    let joined = || records.iter().filter(|record| record.first_video.is_some());
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let first_video = joined().filter_map(|record| record.first_video).map(ms);
    let first_age = joined().filter_map(|record| record.first_age_ns);
    report::Play {
        kind: "play",
        url: aim.to_string(),
        streams: aim.streams(),
        players: crowd.players,
        sampled: sampled().count(),
        joined: seen.joined,
        lost: records.iter().filter(|record| record.lost).count(),
        join_s: rounded(seen.join_s),
        window_s: rounded(seen.window_s),
        bytes: sum.bytes,
        mbit_s: rounded(sum.bytes as f64 * 8e-6 / seen.window_s),
        published_frames: published.iter().sum(),
        frames: sum.frames,
        missed_frames: sum.missed,
        delivered_ratio: (expected > 0).then(|| {
            let ratio = sum.frames as f64 / expected as f64;
            // Rounded down: 1 is all of them.
            (ratio * 1e6).floor() / 1e6
        }),
        player_bytes: Spread::of(joined().map(|record| record.bytes).collect()),
        latency_ms: Latency::of(&sum.latency),
        first_video_ms: Quantiles::of(first_video.collect()),
        first_frame_age_ms: Quantiles::of(first_age.map(|ns| ns as f64 / 1e6).collect()),
        server: (!timing.pids.is_empty()).then(|| {
            Server::of(
                seen.server,
                seen.window_s,
                sum.bytes,
                seen.joined,
                seen.rss_before_kb,
                seen.rss_max_kb,
            )
        }),
        client: client_of(&seen.client, seen.window_s),
        machine: seen.baseline.machine(),
        notes,
    }
}

fn client_of(used: &Usage, window_s: f64) -> Client {
    Client {
        cpu_pct: rounded(100.0 * used.cpu_s() / window_s),
        rss_kb: used.rss_kb,
    }
}

fn usage(pids: &[u32]) -> Result<Usage, Error> {
    Usage::of(pids).map_err(Error::NoProcess)
}

fn allow(sockets: usize) -> Result<(), Error> {
    allow_sockets(sockets).map_err(|limit| Error::OpenFiles { sockets, limit })
}

fn pause(time: Duration, stop: &AtomicBool) {
    let end = Instant::now() + time;
    while Instant::now() < end && !stop.load(Relaxed) {
        std::thread::sleep(GLANCE.min(end.saturating_duration_since(Instant::now())));
    }
}

/// Calls `each` once a second, and at the end, until `duration` has passed, `stop` is set or `each` says false.
fn each_second(duration: Option<Duration>, stop: &AtomicBool, mut each: impl FnMut(u64) -> bool) {
    let begin = Instant::now();
    for second in 1.. {
        let next = Duration::from_secs(second);
        let next = duration.map_or(next, |duration| next.min(duration));
        pause(next.saturating_sub(begin.elapsed()), stop);
        let over = duration.is_some_and(|duration| begin.elapsed() >= duration);
        if !each(second) || over || stop.load(Relaxed) {
            return;
        }
    }
}

/// A progress line. A terminal that has gone away does not end a measurement.
fn say(progress: &mut dyn Write, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(progress, "{line}");
}
