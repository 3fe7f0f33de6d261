//! Who goes first on a machine that is short of processors.

use linkmic::net::Precedence;
use linkmic::net::precedence::NICENESS;
use linkmic::probe::player::Watch;
use linkmic::probe::process::poll;
use linkmic::probe::{Colour, Player, Publisher};

use super::{CANVAS, main_show, one_plus_one, sub_show};
use crate::abuse::binary::{Binary, Scheduled};
use crate::edge::SOON;

/// Threads that decode, mix and encode: a mix's own, and those named after the beginnings of its pipelines.
const MIXING: [&str; 5] = ["mix", "video:src", "audio:src", "canvas:src", "sound:src"];
/// Those that every mix has, however its sound is made.
const NEEDED: [&str; 3] = ["mix", "video:src", "canvas:src"];
/// Those that read publishers and write to players.
const RELAYING: [&str; 2] = ["linkmic-lane", "linkmic-writer"];

/// Threads of a server with that in its configuration, while it mixes for somebody who watches: those of mixes, and the others.
async fn threads(configuration: &str) -> (Vec<Scheduled>, Vec<Scheduled>) {
    let mut server = Binary::serve(configuration).await;
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
    let url = server.urls.plain("a");
    let mut viewer = Player::start(&url, Watch::whole(CANVAS))
        .await
        .expect("ffmpeg");
    let seen = viewer.until("a picture", SOON, |seen| seen.newest_complete().map(drop));
    seen.await.unwrap_or_else(|e| panic!("{e}"));

    let (mixing, others): (Vec<_>, Vec<_>) = server
        .scheduled()
        .into_iter()
        .partition(|thread| MIXING.contains(&thread.name.as_str()));
    for (wanted, among) in [(&NEEDED[..], &mixing), (&RELAYING[..], &others)] {
        for name in wanted {
            let there = among.iter().any(|thread| thread.name == *name);
            assert!(there, "no thread {name} in {among:?}");
        }
    }
    (mixing, others)
}

/// What others than those of mixes are to have: niceness, and whether they are real-time ones.
fn assert_forward(others: &[Scheduled], relaying: (i32, bool)) {
    for thread in others {
        let relays = RELAYING.contains(&thread.name.as_str());
        let wanted = if relays { relaying } else { (0, false) };
        assert_eq!((thread.nice, thread.is_realtime), wanted, "{thread:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_that_decode_and_encode_step_back_behind_those_that_relay() {
    let (mixing, others) = threads("").await;
    for thread in &mixing {
        assert_eq!((thread.nice, thread.is_realtime), (4, false), "{thread:?}");
    }
    let relaying = match Precedence::allowed() {
        Some(Precedence::Realtime) => (0, true),
        Some(Precedence::Weight) => (NICENESS, false),
        None => (0, false),
    };
    assert_forward(&others, relaying);
    assert_slices(&mixing, &others, &["tokio-rt"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_thread_is_a_real_time_one_where_the_configuration_says_so() {
    let (mixing, others) = threads("[threads]\nrealtime = false\n").await;
    let allowed = Precedence::Weight.is_allowed();
    assert_forward(&others, (if allowed { NICENESS } else { 0 }, false));
    assert_slices(&mixing, &others, &["tokio-rt", "linkmic-lane"]);
}

/// Short slices for those that serve, long ones for those that mix. A real-time thread has none that counts.
fn assert_slices(mixing: &[Scheduled], others: &[Scheduled], serving: &[&str]) {
    // Linux before 6.12 has one slice for all.
    let slice = |threads: &[Scheduled], begins: &str| {
        let found = threads.iter().find(|t| t.name.starts_with(begins));
        found
            .unwrap_or_else(|| panic!("no thread {begins}"))
            .slice_ns
    };
    let computing = NEEDED.map(|name| slice(mixing, name));
    for name in serving {
        let short = slice(others, name);
        if short.is_some() && !(short == computing[0] && is_before(6, 12)) {
            assert_eq!(short, Some(100_000), "{name}");
            assert_eq!(computing, [Some(20_000_000); 3]);
        }
    }
}

/// Is this kernel older than that?
fn is_before(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    let mut numbers = release.split(['.', '-']).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (major, minor)
}
