//! `linkmic bench` against the server: what it reports is what was there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use linkmic::cli::{Cli, Outcome};
use linkmic::config::Env;
use linkmic::load::{self, Clip, Crowd, Shape, Timing, stamp};
use linkmic::probe::{flv, process};
use linkmic::rtmp::kind;
use serde_json::Value;

use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::house::{House, PUSH_KEY};

/// Runs `linkmic bench …` in this process; the answer is its JSON.
async fn bench(arguments: &[&str]) -> (Outcome, Value) {
    let line = ["linkmic", "bench"].iter().chain(arguments);
    let cli = Cli::try_parse_from(line).expect("arguments");
    let mut out = Vec::new();
    let outcome = cli.run(&Env::default(), &mut out).await.expect("a report");
    (outcome, serde_json::from_slice(&out).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_frame_reaches_every_player_and_has_an_age() {
    let house = House::open().await;
    let pid = std::process::id().to_string();
    let (outcome, report) = bench(&[
        "run",
        &house.urls.plain("bench"),
        "--sign-key",
        PUSH_KEY,
        "--streams=2",
        "--players=20",
        "--sample=10",
        "--kbps=500",
        "--warmup=200ms",
        "--duration=2s",
        "--pid",
        &pid,
    ])
    .await;
    println!("{report}");
    assert_eq!(outcome, Outcome::Done, "{report}");
    assert_eq!(report["joined"], 20);
    assert_eq!(report["sampled"], 10);
    assert_eq!(report["lost"], 0);
    assert_eq!(report["missed_frames"], 0);
    assert_eq!(report["delivered_ratio"], 1.0);
    // Two streams of 30 pictures a second for two seconds, seen by five players each.
    let published = report["published_frames"].as_u64().expect("frames");
    assert!((80..=160).contains(&published), "{report}");
    assert_eq!(report["frames"].as_u64(), Some(published * 5));
    let number = |pointer: &str| {
        report
            .pointer(pointer)
            .and_then(Value::as_f64)
            .expect(pointer)
    };
    assert!(number("/latency_ms/min") > 0.0, "{report}");
    assert!(number("/latency_ms/p50") <= number("/latency_ms/p99"));
    assert!(number("/first_video_ms/p50") > 0.0);
    assert!(number("/player_bytes/min") > 0.0);
    assert!(number("/server/rss_before_kb") > 0.0);
    assert!(!report.to_string().contains("txSecret"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn players_over_http_flv_are_measured_as_those_over_rtmp() {
    let house = House::open().await;
    let (push, file) = (house.urls.push("bench"), house.http_flv("bench"));
    let publish = [
        "publish",
        &push,
        "--kbps=500",
        "--warmup=0s",
        "--duration=8s",
    ];
    let play = [
        "play",
        &file,
        "--players=20",
        "--sample=10",
        "--warmup=200ms",
        "--duration=2s",
    ];
    let ((published, _), (outcome, report)) = tokio::join!(bench(&publish), bench(&play));
    assert_eq!(published, Outcome::Done);
    assert_eq!(outcome, Outcome::Done, "{report}");
    assert_eq!(report["joined"], 20);
    assert_eq!(report["missed_frames"], 0);
    assert_eq!(report["delivered_ratio"], 1.0);
    let frames = report["frames"].as_u64().expect("frames");
    assert!(frames > 10 * 30, "{report}");
    assert!(report["latency_ms"]["p50"].as_f64() > Some(0.0), "{report}");
    assert_eq!(report["url"], file);

    let (outcome, report) = bench(&["play", &house.http_flv("no/such"), "--players=2"]).await;
    assert_ne!(outcome, Outcome::Done, "{report}");
    assert!(
        report["notes"][0]
            .as_str()
            .is_some_and(|note| note.contains("refused")),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_never_come_are_seen_as_missed() {
    let house = House::open().await;
    let clip = Clip::synthetic(Shape {
        kbps: 200,
        ..Shape::default()
    });
    let mut publisher = Client::publish(&house.urls.push("gaps"))
        .await
        .expect("granted");
    for (type_id, payload) in &clip.headers {
        publisher.send(*type_id, 0, payload.clone()).await;
    }
    let stop = AtomicBool::new(false);
    let aim = load::Aim::new(&house.urls.plain("gaps"), 1, None).expect("a URL");
    let crowd = Crowd {
        players: 3,
        rate: 1000.0,
        sampled: 3,
        threads: 2,
        join_timeout: SOON,
    };
    let timing = Timing {
        warmup: Duration::from_millis(300),
        duration: Some(Duration::from_secs(2)),
        pids: Vec::new(),
    };
    let report = std::thread::scope(|scope| {
        let playing =
            scope.spawn(|| load::play(&aim, None, &crowd, &timing, &stop, &mut std::io::sink()));
        // Every tenth number is never sent, as a server would leave out a frame.
        let sending = async {
            let mut pictures = (0..)
                .map(|i| clip.frame(i))
                .filter(|f| f.stamp_at.is_some());
            let mut beat = tokio::time::interval(Duration::from_millis(20));
            for sequence in 0_u64.. {
                if playing.is_finished() {
                    return;
                }
                beat.tick().await;
                let frame = pictures.next().expect("clips go round");
                if sequence % 10 == 9 {
                    continue;
                }
                let mut payload = frame.payload.to_vec();
                let now = stamp::Stamp {
                    sequence,
                    sent_ns: stamp::now_ns(),
                    clock: stamp::clock(),
                };
                stamp::write(&mut payload, frame.stamp_at.expect("a picture"), now);
                let time = sequence as u32 * 20;
                publisher
                    .send(kind::VIDEO, time, Bytes::from(payload))
                    .await;
            }
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(sending));
        playing.join().expect("no panic").expect("a report")
    });
    assert!(!stop.load(Relaxed));
    let per_player = report.published_frames as f64;
    let missed = report.missed_frames as f64 / 3.0 / per_player;
    assert!((0.08..=0.12).contains(&missed), "{report:?}");
    let ratio = report.delivered_ratio.expect("frames");
    assert!((ratio + missed - 1.0).abs() < 0.02, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_without_a_signature_are_counted_as_lost_with_the_reason() {
    let house = House::open().await;
    let url = house.urls.plain("nobody");
    let (outcome, report) = bench(&[
        "publish",
        &url,
        "--warmup=0s",
        "--duration=200ms",
        "--streams=2",
    ])
    .await;
    assert_eq!(outcome, Outcome::Negative);
    assert_eq!(report["granted"], 0);
    assert_eq!(report["lost"], 2);
    assert!(report["notes"].to_string().contains("refused"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floor_delivers_its_clip_to_raw_players() {
    let floor = load::Floor::bind(load::FloorConfig {
        listen: "127.0.0.1:0".parse().expect("an address"),
        players: 4,
        hold_audio: true,
        merge_window: Duration::ZERO,
        threads: 2,
    })
    .expect("it listens");
    let url = format!("tcp://{}", floor.address().expect("an address"));
    let stop = AtomicBool::new(false);
    let clip = Clip::synthetic(Shape::default());
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| floor.run(&clip, &stop).expect("players come"));
        let aim = load::Aim::new(&url, 1, None).expect("a URL");
        let crowd = Crowd {
            players: 4,
            rate: 1000.0,
            sampled: 2,
            threads: 1,
            join_timeout: SOON,
        };
        let timing = Timing {
            warmup: Duration::from_millis(100),
            duration: Some(Duration::from_secs(1)),
            pids: Vec::new(),
        };
        let report = load::play(&aim, None, &crowd, &timing, &stop, &mut std::io::sink());
        stop.store(true, Relaxed);
        assert_eq!(sending.join().expect("no panic"), 0, "nothing left out");
        let report = report.expect("a report");
        assert_eq!(report.delivered_ratio, Some(1.0), "{report:?}");
        // All got the same, whether they read it or had it thrown away; a moment apart.
        let bytes = report.player_bytes.expect("players");
        assert!(bytes.min * 10 >= bytes.max * 8, "{bytes:?}");
    });
}

#[tokio::test]
async fn a_made_up_clip_with_stamps_decodes_without_a_complaint() {
    for shape in [
        Shape::default(),
        Shape {
            fps: 25,
            gop: 300,
            kbps: 6000,
        },
    ] {
        let clip = Clip::synthetic(shape);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("clip.flv");
        write_flv(&clip, &file);
        let file = file.display().to_string();
        let arguments = [
            "-v", "warning", "-xerror", "-i", &file, "-f", "framecrc", "-",
        ];
        let mut ffmpeg = process::Process::spawn("ffmpeg", &arguments).expect("ffmpeg");
        let mut frames = String::new();
        let mut stdout = ffmpeg.stdout().expect("its output");
        tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut frames)
            .await
            .expect("text");
        ffmpeg.success(SOON).await.expect("it decodes");
        assert_eq!(ffmpeg.said(), "", "no complaint");
        let count = |stream: &str| frames.lines().filter(|l| l.starts_with(stream)).count();
        let pictures = clip.frames.iter().filter(|f| f.stamp_at.is_some()).count();
        assert_eq!(count("0,"), pictures);
        assert_eq!(count("1,"), clip.frames.len() - pictures);
        // And it is taken for a clip again.
        let again = Clip::read(Path::new(&file)).expect("a clip");
        // Times in a file are whole milliseconds.
        assert!(again.length_ms.abs_diff(clip.length_ms) <= 1);
    }
}

fn write_flv(clip: &Clip, file: &Path) {
    let mut out = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    let headers = clip.headers.iter().map(|(kind, body)| (*kind, 0, body));
    let frames = clip
        .frames
        .iter()
        .map(|f| (f.type_id, f.time_ms, &f.payload));
    for (kind, time, body) in headers.chain(frames) {
        let [_, l0, l1, l2] = (body.len() as u32).to_be_bytes();
        let [t3, t0, t1, t2] = time.to_be_bytes();
        out.extend([kind, l0, l1, l2, t0, t1, t2, t3, 0, 0, 0]);
        out.extend(body.iter());
        out.extend((11 + body.len() as u32).to_be_bytes());
    }
    assert!(flv::tags(&out).is_ok());
    std::fs::write(file, out).expect("the file");
}
