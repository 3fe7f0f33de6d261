//! Inputs that go and come: the output never stops, and never changes its pace.

use std::time::Instant;

use linkmic::probe::Colour;
use linkmic::probe::player::Seen;

use super::{FPS, hears, main_show, one_plus_one, one_plus_one_regions, sub_show};
use crate::edge::SOON;
use crate::studio::{Studio, advances, pictures};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sub_that_dies_is_held_and_silent_and_rejoins_when_it_returns() {
    let studio = Studio::open().await;
    let _a = studio.publish("a", &main_show()).await;
    let show = sub_show(Colour::RED, 700.0);
    let b = studio.publish("b", &show).await;
    let mut viewer = studio.watch("a", &one_plus_one_regions()).await;
    studio.put("/api/v1/mixes/m", &one_plus_one()).await;
    advances(&mut viewer, 1, Colour::RED, 15).await;
    hears(&mut viewer, &[400.0, 700.0], &[400.0, 700.0]).await;
    let mixed_since = Instant::now();

    b.kill().await;
    hears(&mut viewer, &[400.0, 700.0], &[400.0]).await;
    // Two more seconds of output: the main moves, the sub's last picture stands.
    pictures(&mut viewer, 10).await;
    let held_since = Instant::now();
    advances(&mut viewer, 0, Colour::BLUE, 40).await;
    viewer.look(|seen| {
        let held: Vec<_> = seen
            .sightings
            .iter()
            .filter(|s| s.at >= held_since)
            .map(|s| s.readings[1])
            .collect();
        assert!(
            held.iter().all(|r| r.colour.name() == Some("red")),
            "{held:?}"
        );
        let mut numbers: Vec<_> = held.iter().filter_map(|r| r.counter).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), 1, "the held picture moved");
    });

    let _again = studio.publish("b", &show).await;
    advances(&mut viewer, 1, Colour::RED, 15).await;
    hears(&mut viewer, &[400.0, 700.0], &[400.0, 700.0]).await;
    viewer.look(|seen| assert_steady(seen, mixed_since));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_inputs_are_waited_for_and_the_mix_outlives_its_main() {
    let studio = Studio::open().await;
    let a = studio.publish("a", &main_show()).await;
    let mut viewer = studio.watch("a", &one_plus_one_regions()).await;
    advances(&mut viewer, 0, Colour::BLUE, 10).await;
    // B is not there yet: the main must not be hidden meanwhile.
    studio.put("/api/v1/mixes/m", &one_plus_one()).await;
    advances(&mut viewer, 0, Colour::BLUE, 20).await;
    let _b = studio.publish("b", &sub_show(Colour::RED, 700.0)).await;
    advances(&mut viewer, 1, Colour::RED, 15).await;
    let mixed_since = Instant::now();

    // The main crashes and comes back: its viewers keep their connection and B goes on meanwhile.
    a.kill().await;
    advances(&mut viewer, 1, Colour::RED, 30).await;
    let _again = studio.publish("a", &main_show()).await;
    advances(&mut viewer, 0, Colour::BLUE, 20).await;
    viewer.look(|seen| {
        assert_steady(seen, mixed_since);
        assert_eq!(seen.errors, Vec::<String>::new());
    });
    viewer
        .until("everything seen", SOON, |seen| {
            (!seen.is_over).then_some(())
        })
        .await
        .unwrap_or_else(|e| panic!("{e}"));
}

/// The output's own pace, by its timestamps: 20 pictures per second of media time within 5 %, and never a hole of
/// more than a fifth of a second (a machine that is behind skips ticks; it does not stretch them).
fn assert_steady(seen: &Seen, since: Instant) {
    let times: Vec<i64> = seen
        .sightings
        .iter()
        .filter(|s| s.at >= since)
        .filter_map(|s| s.pts)
        .collect();
    let (first, last) = (times[0], times[times.len() - 1]);
    let largest = times
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap_or(0);
    let smallest = times
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .min()
        .unwrap_or(0);
    println!(
        "{} pictures in {} ms, steps of {smallest} to {largest} ms",
        times.len(),
        last - first
    );
    assert!(smallest > 0, "time stood still or ran back");
    assert!(largest <= 200, "a hole of {largest} ms");
    let expected = (last - first) * FPS / 1000;
    let got = times.len() as i64 - 1;
    assert!(
        (got - expected).abs() * 20 <= expected,
        "{got} pictures where {expected} belong"
    );
}
