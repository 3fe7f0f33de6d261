//! Recorded sessions of real programs, damaged at random for a bounded time: nothing panics, nothing grows, and
//! every connection ends with a reason.
//!
//! Each case has a seed of its own, printed with a failure; the damaged bytes are kept beside it, because what was
//! recorded differs from run to run. `LINKMIC_SEED` sets the first seed, `LINKMIC_MUTATION_SECONDS` the time.

mod damage;
mod doors;
mod drive;
mod recorded;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use linkmic::rtmp::chunk::Limits;
use tokio::task::JoinSet;

use crate::abuse::binary::Binary;
use crate::abuse::healthy::Healthy;
use crate::abuse::raw::{self, Raw};
use crate::random::Random;
use damage::damaged;
use recorded::{HANDSHAKE, recorded};

/// How long cases are made, of each kind.
const TIME: Duration = Duration::from_secs(10);
/// Damaged connections at a time.
const AT_ONCE: u64 = 8;
/// How long allocators and tables grow to their working size.
const WARM_UP: Duration = Duration::from_secs(5);
/// What memory may then grow by, in bytes. Every case is another: the most that some cases at a time ever held (a few
/// unfinished messages of a MB or less) is found late. Over 120,000 connections it was 3.5 MB, and stayed there.
const BOUND: u64 = 4 << 20;
/// From the end of what a stranger says to the close.
const CLOSED: Duration = Duration::from_secs(15);

fn first_seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = match std::env::var("LINKMIC_SEED") {
        Ok(seed) => seed.parse().expect("LINKMIC_SEED is a number"),
        Err(_) => now().map_or(0, |d| d.as_millis() as u64),
    };
    println!("LINKMIC_SEED={seed}");
    seed
}

fn time() -> Duration {
    let seconds = std::env::var("LINKMIC_MUTATION_SECONDS").ok();
    seconds.map_or(TIME, |s| {
        Duration::from_secs(s.parse().expect("LINKMIC_MUTATION_SECONDS is a number"))
    })
}

/// Shows what a failure was about.
struct Case<'a> {
    what: &'a str,
    seed: u64,
    bytes: &'a [u8],
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
                .join(format!("{}-{}.bin", self.what, self.seed));
            let kept = std::fs::write(&file, self.bytes);
            eprintln!("seed {}: {} ({kept:?})", self.seed, file.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_sessions_are_read_or_refused_and_never_panic() {
    let recorded = recorded().await;
    let seed = first_seed();
    let judged = tokio::task::spawn_blocking(move || {
        let begin = Instant::now();
        let (mut cases, mut whole, mut messages, mut events) = (0_u64, 0, 0, 0);
        while begin.elapsed() < time() {
            let mut random = Random::new(seed.wrapping_add(cases));
            let step = random.pick(&[16_usize, 128, 4_096, 1 << 20]);
            // By single bytes costs a hundred other cases.
            let step = if random.one_in(100) { 1 } else { step };
            for (what, recordings) in [
                ("server", &recorded.from_clients),
                ("client", &recorded.from_servers),
            ] {
                let bytes = damaged(&mut random, recordings);
                let case = Case {
                    what,
                    seed: seed.wrapping_add(cases),
                    bytes: &bytes,
                };
                let run = match what {
                    "server" => drive::server(&bytes, step),
                    _ => drive::client(&bytes, step),
                };
                if cases % 8 == 0 {
                    let (read, _) = drive::read(&bytes, step, Limits::default());
                    read.iter().for_each(drive::assert_frames_again);
                    drive::server_messages(read.into_iter().rev());
                }
                drop(case);
                whole += usize::from(run.end.is_none());
                messages += run.messages;
                events += run.events;
            }
            cases += 1;
        }
        println!(
            "2 × {cases} cases, {whole} taken to their end; {messages} messages, {events} events"
        );
        (cases, whole, events)
    });
    let (cases, whole, events) = judged.await.expect("no case panics");
    // Damage that always ended a session at its first byte would show nothing.
    assert!(
        cases > 50 && whole > 0 && events as u64 > cases,
        "{cases}, {whole}, {events}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_connections_each_end_with_a_reason_and_disturb_nobody() {
    let recorded = recorded().await;
    let seed = first_seed();
    // Damaged players mostly ask for streams that are not there.
    let mut server = Binary::serve("[limits]\nwait = \"200ms\"").await;
    let healthy = Healthy::start(&server.urls).await;
    let address = server.urls.rtmp();
    let next = Arc::new(AtomicU64::new(0));
    let cases = damage_connections(address, &recorded.from_clients, seed, &next, WARM_UP).await;
    server.wait_for_connections(2).await;
    let before = server.resident();
    let more = damage_connections(address, &recorded.from_clients, seed, &next, time()).await;
    server.wait_for_connections(2).await;
    server
        .assert_grown_at_most(BOUND, before, "damaged connections")
        .await;
    healthy.assert_nothing_missed().await;
    server.wait_for_connections(0).await;
    println!("{cases} and {more} damaged connections");
    let ends = server.ends().await;
    println!("{ends:?}");
    let total: u64 = ends.iter().map(|(_, count)| count).sum();
    // The healthy publisher and its player end, too.
    assert_eq!(
        total,
        cases + more + 2,
        "connections that ended with a reason"
    );
    let internal = ends.iter().find(|(reason, _)| reason == "internal");
    assert_eq!(internal, None, "ends that are a fault of ours");
    assert!(!server.said().contains("panicked"), "{}", server.said());
}

/// Connects with damaged sessions for that long; how many there were.
async fn damage_connections(
    address: SocketAddr,
    recordings: &'static [Vec<u8>],
    seed: u64,
    next: &Arc<AtomicU64>,
    time: Duration,
) -> u64 {
    let begin = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let next = next.clone();
        workers.spawn(async move {
            let mut done = 0;
            loop {
                if begin.elapsed() >= time {
                    return done;
                }
                let number = next.fetch_add(1, Ordering::Relaxed);
                connect_damaged(address, recordings, seed.wrapping_add(number)).await;
                done += 1;
            }
        });
    }
    let mut all = 0;
    while let Some(done) = workers.join_next().await {
        all += done.expect("every connection is closed");
    }
    all
}

async fn connect_damaged(address: SocketAddr, recordings: &[Vec<u8>], seed: u64) {
    let mut random = Random::new(seed);
    let session = damaged(&mut random, recordings);
    let mut bytes = raw::c0_c1();
    bytes.resize(HANDSHAKE, 9);
    if random.one_in(20) {
        let at = random.below(HANDSHAKE);
        bytes[at] ^= 0x55;
    }
    if random.one_in(20) {
        bytes.truncate(random.below(HANDSHAKE));
    }
    bytes.extend_from_slice(&session);
    let case = Case {
        what: "connection",
        seed,
        bytes: &bytes,
    };
    let mut raw = Raw::connect(address).await;
    raw.send_and_read(&bytes).await;
    raw.finish().await;
    let closed = raw.closed_within(CLOSED).await;
    assert!(
        closed.is_some(),
        "not closed {CLOSED:?} after its last byte"
    );
    drop(case);
}

/// What fuzzing found, or began with, stays right.
#[test]
fn seeds_of_the_fuzz_targets_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut count = 0;
    type Target = (&'static str, fn(&[u8], usize));
    let targets: [Target; 5] = [
        ("chunk_reader", |bytes, step| {
            let whole = drive::read(bytes, bytes.len(), Limits::default());
            let parts = drive::read(bytes, step, Limits::default());
            assert_eq!(parts, whole, "{step} bytes at a time");
        }),
        ("server_session", |bytes, step| {
            let run = drive::server(bytes, step);
            assert!(run.events > 1, "not understood: {run:?}");
        }),
        ("client_session", |bytes, step| {
            let run = drive::client(bytes, step);
            assert!(run.messages > 3, "not understood: {run:?}");
        }),
        ("proxy", |bytes, _| assert!(doors::proxy_header(bytes))),
        ("http_head", |bytes, step| {
            let asks = doors::request(bytes, step);
            assert_ne!(asks, bytes.starts_with(b"GET /healthz"));
        }),
    ];
    for (target, run) in targets {
        for entry in std::fs::read_dir(folder.join(target)).expect("seeds") {
            let seed = std::fs::read(entry.expect("a seed").path()).expect("a seed");
            // The first byte says how the rest is split; with 0 the rest is no stream of chunks.
            if let Some((&step @ 1.., bytes)) = seed.split_first() {
                run(bytes, step.into());
                count += 1;
            }
        }
    }
    assert!(count > 10, "{count} seeds");
}

#[test]
fn damaged_beginnings_of_connections_are_read_or_refused_and_never_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let seed = first_seed();
    for (target, cases) in [("proxy", 20_000), ("http_head", 5_000)] {
        let entries = std::fs::read_dir(folder.join(target)).expect("seeds");
        let seeds = entries.map(|entry| {
            let seed = std::fs::read(entry.expect("a seed").path()).expect("a seed");
            seed[1..].to_vec()
        });
        let seeds = Vec::from_iter(seeds);
        let mut understood = 0;
        for n in 0..cases {
            let seed = seed.wrapping_add(n);
            let mut random = Random::new(seed);
            let bytes = damaged(&mut random, &seeds);
            let step = 1 + random.below(32);
            let case = Case {
                what: target,
                seed,
                bytes: &bytes,
            };
            understood += u64::from(match target {
                "proxy" => doors::proxy_header(&bytes),
                _ => doors::request(&bytes, step),
            });
            drop(case);
        }
        println!("{target}: {understood} of {cases} understood");
        // Damage that always, or never, did harm would show nothing.
        assert!((1..cases).contains(&understood), "{target}: {understood}");
    }
}
