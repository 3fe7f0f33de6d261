//! Clocks that differ, for as long as asked: `./run soak --drift`, and a minute of it in every test run.
//!
//! Anchors replay clips that were encoded once, so that an hour costs little besides the mix itself. At the end stands
//! what a server may not gain with time, and what a mix may not lose.

use std::time::{Duration, Instant};

use super::FPS;
use super::sync::Show;
use crate::abuse::binary::{Binary, FLAT};

/// Stops and returns before anything is counted.
const WARM_UP: usize = 20;
/// From round to round of a soak; the mix runs on meanwhile.
const PAUSE: Duration = Duration::from_secs(60);
/// The output's rate over a whole run may be off by so much: a few frames stand between the moments of counting.
const RATE_WITHIN: f64 = 0.01;
/// More dropouts than this, per minute and beside those that an anchor's going and coming makes, are heard.
const DROPOUTS_A_MINUTE: f64 = 2.0;

/// What is counted at the beginning and at the end.
#[derive(Debug)]
struct Figures {
    at: Instant,
    resident: u64,
    threads: usize,
    descriptors: usize,
    elements: usize,
    frames: u64,
    skipped: u64,
    underruns: u64,
    resyncs: u64,
}

impl Figures {
    async fn of(show: &mut Show) -> Self {
        let elements = show.server.elements().await;
        let server: &mut Binary = &mut show.server;
        let (resident, threads) = (server.resident(), server.threads());
        let descriptors = server.descriptors();
        let stats = show.stats().await;
        let count = |name: &str| stats[name].as_u64().expect("a count");
        Self {
            at: Instant::now(),
            resident,
            threads,
            descriptors,
            elements,
            frames: count("frames_out"),
            skipped: count("ticks_skipped"),
            underruns: count("sound_underruns"),
            resyncs: count("sound_resyncs"),
        }
    }

    /// Says what has become of `before`, and what of it is wrong. `returns`: how often an anchor went and came.
    fn compare(&self, before: &Self, returns: usize) -> Vec<String> {
        let seconds = (self.at - before.at).as_secs_f64();
        let rate = (self.frames - before.frames) as f64 / seconds;
        let underruns = self.underruns - before.underruns;
        println!(
            "in {:.1} min with {returns} stops and returns:\n\
             resident {} -> {} KiB\nthreads {} -> {}\ndescriptors {} -> {}\nelements {} -> {}\n\
             output {rate:.3} frames a second, {} ticks skipped\n\
             sound: {underruns} underruns, {} resyncs",
            seconds / 60.0,
            before.resident / 1024,
            self.resident / 1024,
            before.threads,
            self.threads,
            before.descriptors,
            self.descriptors,
            before.elements,
            self.elements,
            self.skipped - before.skipped,
            self.resyncs,
        );
        let dropouts = DROPOUTS_A_MINUTE * (seconds / 60.0 + 1.0) + 4.0 * returns as f64;
        let wrong = [
            (self.resident > before.resident + FLAT, "memory grew"),
            (self.threads != before.threads, "threads grew"),
            (self.descriptors != before.descriptors, "descriptors grew"),
            (self.elements != before.elements, "elements grew"),
            (
                (rate / FPS as f64 - 1.0).abs() > RATE_WITHIN,
                "the output's rate is another",
            ),
            (underruns as f64 > dropouts, "sound has holes"),
            (self.resyncs > 0, "sound that jumps is heard"),
        ];
        let wrong = wrong.into_iter().filter(|(is_so, _)| *is_so);
        wrong.map(|(_, what)| what.to_owned()).collect()
    }
}

/// A minute of clocks that are 1 % off, or as many as `LINKMIC_SOAK_MINUTES` says: `./run soak --drift`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_differ_by_one_percent_part_neither_picture_and_sound_nor_anchors() {
    let minutes = std::env::var("LINKMIC_SOAK_MINUTES").ok();
    let minutes = minutes.map(|m| m.parse::<f64>().expect("LINKMIC_SOAK_MINUTES: minutes"));
    let end = Instant::now() + Duration::from_secs_f64(60.0 * minutes.unwrap_or(1.0));
    let mut show = Show::start([1.0, 1.01, 0.99, 1.0]).await;
    // A clock that is slow makes its pictures late, little by little until 5 s are over; the sound comes after.
    show.until_mixed(10 * FPS).await;
    let mut complaints = show.complaints("round 0").await;
    if minutes.is_some() {
        // What the first of them leave is the working size of the allocator's heaps, and nobody's.
        for cycle in 0..WARM_UP {
            show.stop_and_return(1 + cycle % 3).await;
        }
        show.until_mixed(60 * FPS).await;
    }
    let begun = Figures::of(&mut show).await;
    let mut returns = 0;
    for round in 1.. {
        complaints.extend(show.complaints(&format!("round {round}")).await);
        if Instant::now() > end {
            break;
        }
        if minutes.is_some() {
            // A soak has anchors that come and go besides.
            show.stop_and_return(1 + round % 3).await;
            returns += 1;
            tokio::time::sleep(PAUSE).await;
            let resident = show.server.resident() / 1024;
            println!("{resident} KiB resident; {}", show.stats().await);
        }
    }
    let ended = Figures::of(&mut show).await;
    complaints.extend(ended.compare(&begun, returns));
    assert_eq!(complaints, Vec::<String>::new());
}
