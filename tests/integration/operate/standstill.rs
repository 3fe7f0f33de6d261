//! A process that stands still for a while, as a virtual machine does that is moved: nobody is lost, and there is no storm.

use std::time::Duration;

use linkmic::probe::process::poll;

use crate::abuse::binary::Binary;
use crate::edge::SOON;
use crate::edge::live::{Live, Seen, Watcher};

/// Of a publisher whose pictures are counted, bits a second.
const BITRATE: usize = 350_000;
const STILL: Duration = Duration::from_secs(5);

/// A reader across a standstill: pictures go on, and where some are missing a key frame is the first of the others.
fn goes_on(pictures: &[Seen], who: &str) {
    let mut holes = 0;
    for pair in pictures.windows(2) {
        if pair[1].number != pair[0].number + 1 {
            holes += 1;
            assert!(
                pair[1].number > pair[0].number,
                "{who}: {} after {}",
                pair[1].number,
                pair[0].number
            );
            assert!(
                pair[1].is_key,
                "{who} went on at {}, which is no key frame",
                pair[1].number
            );
        }
    }
    assert!(holes <= 1, "{who} has {holes} holes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stood_still_for_five_seconds_keeps_all_connections_and_goes_on_at_a_key_frame()
 {
    let server = Binary::serve("").await;
    let live = Live::start(&server.urls.push("a"), BITRATE).await;
    let viewer = Watcher::start(&server.urls.plain("a"), &live.sent).await;
    let peer = Watcher::start(&server.urls.peer("a"), &live.sent).await;
    let readers = [("viewer", &viewer), ("peer", &peer)];
    let until_number = async |number: u32| {
        for (who, reader) in readers {
            let there = poll(who, SOON, || async {
                reader
                    .look(|got| {
                        got.pictures
                            .last()
                            .is_some_and(|last| last.number >= number)
                    })
                    .then_some(())
            });
            there
                .await
                .unwrap_or_else(|e| panic!("picture {number}: {e}"));
        }
    };
    until_number(40).await;
    let state = async || {
        let stream = server
            .control
            .get("/api/v1/streams/live/a")
            .await
            .expect("an answer")
            .json();
        let list = server
            .control
            .get("/api/v1/streams/live/a/readers")
            .await
            .expect("an answer")
            .json();
        let mut ids: Vec<_> = list["readers"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|r| r["id"].clone().to_string())
            .collect();
        ids.sort();
        let total = server
            .metrics()
            .await
            .value("linkmic_ingest_connections_total");
        (stream["publisher"]["epoch"].clone(), ids, total)
    };
    let before = state().await;
    server.signal("STOP").await;
    tokio::time::sleep(STILL).await;
    server.signal("CONT").await;
    // All that was sent meanwhile is over, and two seconds more.
    let newest = live.sent.lock().expect("whole").len() as u32 + 50;
    until_number(newest).await;
    assert_eq!(state().await, before, "epoch, readers and connections");
    for (who, reader) in readers {
        let got = reader.look(Clone::clone);
        assert_eq!(got.ended, None, "{who}");
        goes_on(&got.pictures, who);
        let last = got.pictures.last().expect("some");
        assert!(
            last.late < Duration::from_secs(1),
            "{who} is {:?} late",
            last.late
        );
    }
}

#[cfg(feature = "mixer")]
mod mixing {
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use linkmic::probe::{Size, sync};
    use linkmic::rtmp::kind;
    use linkmic::rtmp::session::client::Event;
    use serde_json::json;

    use super::*;
    use crate::edge::client::{Client, is_frame};
    use crate::studio::place;

    const FPS: u32 = 15;

    /// When each picture of the mix came, and its time.
    type Seen = Arc<Mutex<Vec<(Instant, u32)>>>;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_mix_that_stood_still_repeats_five_seconds_at_most_and_its_viewers_stay() {
        let _permit = place().await;
        let folder = tempfile::tempdir().expect("a folder");
        let server = Binary::serve("").await;
        let mut senders = Vec::new();
        for (name, tone) in [("a", 1000.0), ("b", 2000.0)] {
            let file = folder.path().join(format!("{name}.flv"));
            let clip = sync::Clip {
                size: Size::new(320, 180),
                fps: FPS,
                tone,
                seconds: 10,
            };
            clip.write(&file).await.expect("ffmpeg");
            senders.push(sync::send(&file, &server.urls.push(name), 1.0).expect("ffmpeg"));
        }
        let scene = json!({
            "app": "live",
            "inputs": [{"stream": "a", "layer": 1}, {"stream": "b", "layer": 2, "x": 200, "y": 100, "width": 96, "height": 54}],
            "output": {"stream": "a", "width": 320, "height": 180, "fps": FPS, "video_kbps": 200, "passthrough": "never"},
        });
        let put = server
            .control
            .put("/api/v1/mixes/m", &scene)
            .await
            .expect("an answer");
        assert!(put.is_success(), "{}", put.body);
        let made = async || {
            let mix = server
                .control
                .get("/api/v1/mixes/m")
                .await
                .expect("an answer")
                .json();
            mix["stats"]["frames_out"].as_u64().unwrap_or(0)
        };
        let until_made = async |count: u64| {
            let there = poll("pictures of the mix", SOON, || async {
                (made().await >= count).then_some(())
            });
            there.await.unwrap_or_else(|e| panic!("{e}"));
        };
        until_made(3 * u64::from(FPS)).await;
        let mut viewer = Client::play(&server.urls.plain("a"))
            .await
            .expect("granted");
        let seen = Seen::default();
        let notes = seen.clone();
        let watching = tokio::spawn(async move {
            loop {
                match viewer.event_at_leisure().await {
                    Some(Event::Media(message)) if is_frame(&message, kind::VIDEO) => {
                        notes
                            .lock()
                            .expect("whole")
                            .push((Instant::now(), message.timestamp));
                    }
                    Some(Event::Media(_)) => {}
                    other => return format!("{other:?}"),
                }
            }
        });
        until_made(6 * u64::from(FPS)).await;
        server.signal("STOP").await;
        // Longer than what is made up for.
        tokio::time::sleep(STILL + Duration::from_secs(4)).await;
        server.signal("CONT").await;
        let goes_on = Instant::now();
        let before = made().await;
        until_made(before + 4 * u64::from(FPS)).await;
        tokio::time::sleep_until((goes_on + Duration::from_secs(5)).into()).await;
        let took = goes_on.elapsed();
        assert!(!watching.is_finished(), "the viewer was closed");
        let seen = seen.lock().expect("whole").clone();
        let within = |from: u64, to: u64| {
            let (from, to) = (
                goes_on + Duration::from_secs(from),
                goes_on + Duration::from_secs(to),
            );
            seen.iter()
                .filter(|(at, _)| (from..to).contains(at))
                .count()
        };
        let (burst, then) = (within(0, 2), within(2, 5));
        println!(
            "{burst} pictures in the first 2 s after the standstill, {then} in the next 3, {took:?} in all"
        );
        // The last one stands in for 5 s of those that were left out; two seconds of its own, and one that was in sockets.
        assert!(
            burst <= (5 + 2 + 1) * FPS as usize,
            "{burst} pictures at once"
        );
        assert!(burst >= FPS as usize, "only {burst} pictures");
        // And then at its own rate: 45 in three seconds.
        assert!(
            (30..=60).contains(&then),
            "{then} pictures in three seconds"
        );
        let times: Vec<u32> = seen.iter().map(|(_, time)| *time).collect();
        assert!(times.is_sorted(), "time goes back");
        for sender in &mut senders {
            assert!(sender.ended().is_none(), "{}", sender.said());
        }
    }
}
