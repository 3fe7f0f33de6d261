//! What mixes cost those who only relay: how late a main's own messages reach its peers, without mixes and beside as many as
//! take nine tenths of the machine.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use linkmic::load::usage::Baseline;
use linkmic::probe::flv::Tag;
use linkmic::probe::latency::Latencies;
use linkmic::probe::{Error, Region};
use tokio::time::{Instant, sleep};

use super::clips::Clip;
use super::reading::Sent;
use super::subjects::Server;
use super::wire::{self, Arrival, Publisher, Viewer};
use super::{milliseconds, on_air};

/// Who reads the main's source feed: as many as its cap has room for, with one to spare.
const PEERS: usize = 9;
/// Mixes are added until so much of the machine is busy, %, the last of them smaller ones.
const BUSY: f64 = 88.0;
const NEARLY: f64 = 62.0;
const MOST: usize = 24;
/// How long a machine is looked at before the next mix.
const LOOK: Duration = Duration::from_secs(2);

/// One run: peers' latencies alone and in company: of two mixes with a preset, or of as many as there is room for.
pub async fn measure(
    binary: &str,
    clips: &[Arc<Clip>],
    window: Duration,
    two: Option<&str>,
) -> Result<BTreeMap<String, f64>, Error> {
    let server = Server::start(binary).await?;
    let publishers = on_air(&server, clips).await?;
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        let url = format!("{}?feed=source", server.url(super::SOURCES[0].name));
        peers.push(Viewer::start(&url).await?);
    }
    sleep(LOOK).await;
    let mut figures = BTreeMap::new();
    let alone = relayed(&peers, &publishers[0], &clips[0], window).await;
    let count = match two {
        Some(preset) => mix_two(&server, preset).await?,
        None => fill(&server).await?,
    };
    let baseline = Baseline::now();
    let beside = relayed(&peers, &publishers[0], &clips[0], window).await;
    let machine = baseline.machine();
    let mut figure = |name: &str, value: f64| figures.insert(name.to_owned(), value);
    figure("mixes", count as f64);
    figure("busy", machine.busy_pct);
    figure("steal", machine.steal_pct);
    for (percent, name) in [(50, "p50"), (99, "p99")] {
        let (alone, beside) = (
            milliseconds(&alone, percent),
            milliseconds(&beside, percent),
        );
        figure(&format!("alone {name}"), alone);
        figure(&format!("beside {name}"), beside);
        figure(&format!("peers {name}"), beside / alone);
    }
    Ok(figures)
}

/// Two mixes with that preset.
async fn mix_two(server: &Server, preset: &str) -> Result<usize, Error> {
    for name in ["mix1", "mix2"] {
        server.mix_hard(name, preset).await?;
        // Their beginning is not what is measured.
        sleep(LOOK).await;
    }
    Ok(2)
}

/// As many as there is room for; how many these are.
async fn fill(server: &Server) -> Result<usize, Error> {
    for count in 0..MOST {
        let baseline = Baseline::now();
        sleep(LOOK).await;
        let busy = baseline.machine().busy_pct;
        if busy >= BUSY {
            return Ok(count);
        }
        let name = format!("mix{}", count + 1);
        server.mix_aside(&name, busy >= NEARLY).await?;
        // Their beginning is not what is measured.
        sleep(LOOK).await;
    }
    Ok(MOST)
}

/// From a picture's way into the server to its way out to each peer, for a while from now on.
async fn relayed(
    peers: &[Viewer],
    publisher: &Publisher,
    clip: &Clip,
    window: Duration,
) -> Latencies {
    let from = Instant::now();
    sleep(window).await;
    // What came before what was sent: a picture that is sent in between would be taken for the one of a round before.
    let came: Vec<Vec<Arrival>> = peers.iter().map(|peer| wire::all(&peer.seen)).collect();
    let sent = Sent {
        clip,
        times: wire::all(&publisher.sent),
        region: Region {
            x: 0,
            y: 0,
            width: 0,
            height: 0,
        },
    };
    // Pictures are noisy: no two of them are the same bytes.
    let pieces = clip.positions(Tag::VIDEO).into_iter();
    let known: HashMap<&[u8], usize> = pieces
        .map(|at| (clip.pieces[at].tag.body.as_slice(), at))
        .collect();
    let mut latencies = Latencies::default();
    for seen in &came {
        for (arrival, tag) in seen.iter().filter(|(at, _)| *at >= from) {
            let at = known.get(tag.body.as_slice());
            if let Some(left) = at.and_then(|&at| sent.newest(at, *arrival)) {
                latencies.push(*arrival - left);
            }
        }
    }
    latencies
}
