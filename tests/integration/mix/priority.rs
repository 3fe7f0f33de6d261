//! Who goes first on a machine that is short of processors.

use linkmic::net::Precedence;
use linkmic::net::precedence::NICENESS;
use linkmic::probe::process::poll;
use linkmic::probe::{Colour, Publisher};

use super::{main_show, one_plus_one, sub_show};
use crate::abuse::binary::{Binary, Scheduled};
use crate::edge::SOON;

/// Threads that decode, mix and encode: a mix's own, and those named after the beginnings of its pipelines.
const MIXING: [&str; 5] = ["mix", "video:src", "audio:src", "canvas:src", "sound:src"];
/// Those that every mix has, however its sound is made.
const NEEDED: [&str; 3] = ["mix", "video:src", "canvas:src"];
/// Beginnings of the names of those that read publishers and write to players.
const RELAYING: [&str; 2] = ["linkmic-lane", "linkmic-writer"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_that_decode_and_encode_step_back_behind_those_that_relay() {
    let mut server = Binary::serve("").await;
    let shows = [("a", main_show()), ("b", sub_show(Colour::RED, 600.0))];
    let mut publishers = Vec::new();
    for (name, show) in &shows {
        let publisher = Publisher::start(&server.urls.push(name), show);
        publishers.push(publisher.expect("ffmpeg"));
        let path = format!("/api/v1/streams/live/{name}");
        let on_air = poll("a stream on air", SOON, || async {
            let stream = server.control.get(&path).await.ok()?.json();
            stream["publisher"]["video"].is_object().then_some(())
        });
        on_air.await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let put = server.control.put("/api/v1/mixes/m", &one_plus_one()).await;
    let put = put.expect("an answer");
    assert!(put.is_success(), "{}: {}", put.status, put.body);
    let mixed = poll("frames of the mix", SOON, || async {
        let mix = server.control.get("/api/v1/mixes/m").await.ok()?.json();
        (mix["stats"]["frames_out"].as_i64()? > 0).then_some(())
    });
    mixed.await.unwrap_or_else(|e| panic!("{e}"));

    let threads = server.scheduled();
    let (mixing, others): (Vec<_>, Vec<_>) = threads
        .into_iter()
        .partition(|thread| MIXING.contains(&thread.name.as_str()));
    for wanted in NEEDED {
        let there = mixing.iter().any(|thread| thread.name == wanted);
        assert!(there, "no thread {wanted} in {mixing:?} {others:?}");
    }
    for thread in &mixing {
        assert_eq!((thread.nice, thread.is_realtime), (4, false), "{thread:?}");
    }
    // The runtime's workers, lanes and writer loops among them.
    assert!(others.len() >= 3, "{others:?}");
    let (nice, realtime) = match Precedence::allowed() {
        Some(Precedence::Realtime) => (0, true),
        Some(Precedence::Weight) => (NICENESS, false),
        None => (0, false),
    };
    for thread in &others {
        let relays = RELAYING.iter().any(|name| thread.name.starts_with(name));
        let wanted = if relays { (nice, realtime) } else { (0, false) };
        assert_eq!((thread.nice, thread.is_realtime), wanted, "{thread:?}");
    }

    // Linux before 6.12 has one slice for all.
    let slice = |threads: &[Scheduled], begins: &str| {
        let found = threads.iter().find(|t| t.name.starts_with(begins));
        found
            .unwrap_or_else(|| panic!("no thread {begins}"))
            .slice_ns
    };
    // A real-time thread has no slice that counts.
    let relaying = ["tokio-rt"; 2].map(|name| slice(&others, name));
    let computing = NEEDED.map(|name| slice(&mixing, name));
    let alike = relaying[0] == computing[0];
    if relaying[0].is_some() && !(alike && is_before(6, 12)) {
        assert_eq!(relaying, [Some(100_000); 2]);
        assert_eq!(computing, [Some(20_000_000); 3]);
    }
}

/// Is this kernel older than that?
fn is_before(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    let mut numbers = release.split(['.', '-']).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (major, minor)
}
