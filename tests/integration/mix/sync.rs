//! Picture and sound of each input belong together in the mix as they did at their source, judged by flash and beep.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use linkmic::probe::process::{Process, poll};
use linkmic::probe::sync::{self, Clip};
use linkmic::probe::{Region, Size};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{CANVAS, FPS, LONG};
use crate::abuse::binary::Binary;
use crate::edge::SOON;

/// Flashes that a judgement needs at least.
const EVENTS: usize = 20;
/// The median of an input may be off by so much, ms.
const MEDIAN_MS: f64 = 25.0;
/// How much is recorded for a judgement, s.
const RECORDED: &str = "19";
/// The beginning of a recording is the GOP so far, squeezed into a moment, and is not judged, ms.
const JOINED: f64 = 1_500.0;
/// From frame to frame of the mix, ms.
const FRAME_MS: f64 = 1000.0 / FPS as f64;

/// Who is on stage: the name, the clip, and where the mix shows the middle of it.
struct Anchor {
    name: &'static str,
    clip: Clip,
    seen_at: Region,
}

const fn sub(name: &'static str, fps: u32, tone: f64, seconds: u32, y: usize) -> Anchor {
    Anchor {
        name,
        clip: Clip {
            size: Size::new(160, 240),
            fps,
            tone,
            seconds,
        },
        seen_at: Region {
            x: 320,
            y: y + 30,
            width: 60,
            height: 60,
        },
    }
}

/// The main and three subs at their own frame rates.
const fn stage() -> [Anchor; 4] {
    // Lengths that differ, so that the events of each come at other moments than those of the others.
    [
        Anchor {
            name: "a",
            clip: Clip {
                size: CANVAS,
                fps: 20,
                tone: 1000.0,
                seconds: 41,
            },
            seen_at: Region {
                x: 40,
                y: 40,
                width: 100,
                height: 100,
            },
        },
        sub("b", 15, 2000.0, 43, 480),
        sub("c", 25, 3000.0, 47, 320),
        sub("d", 30, 4000.0, 53, 160),
    ]
}

fn scene() -> Value {
    let place = |stream: &str, layer: u32, y: u32| json!({"stream": stream, "layer": layer, "x": 300, "y": y, "width": 100, "height": 150});
    json!({
        "app": "live",
        "inputs": [
            {"stream": "a", "layer": 1},
            place("b", 2, 480), place("c", 3, 320), place("d", 4, 160),
        ],
        "output": {"stream": "a", "width": CANVAS.width, "height": CANVAS.height, "fps": FPS, "video_kbps": 800},
    })
}

/// A server of its own, whose memory and threads can be counted, and the four anchors.
struct Show {
    server: Binary,
    clips: Vec<PathBuf>,
    /// From flash to beep at each anchor's source, ms.
    own: Vec<f64>,
    senders: Vec<Process>,
    /// How fast each anchor's clock is.
    speeds: [f64; 4],
    folder: TempDir,
}

impl Show {
    /// Anchors on air, mixed.
    async fn start(speeds: [f64; 4]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut clips, mut own) = (Vec::new(), Vec::new());
        for anchor in stage() {
            let file = folder.path().join(format!("{}.flv", anchor.name));
            let written = anchor.clip.write(&file).await;
            written.unwrap_or_else(|e| panic!("{e}"));
            let Size { width, height } = anchor.clip.size;
            let all = Region {
                x: 0,
                y: 0,
                width,
                height,
            };
            let offsets = offsets(&file, all, anchor.clip.tone).await;
            assert!(offsets.len() >= EVENTS, "{}: {offsets:?}", anchor.name);
            own.push(sync::median(&offsets));
            clips.push(file);
        }
        let server = Binary::serve("").await;
        let mut show = Self {
            server,
            clips,
            own,
            senders: Vec::new(),
            speeds,
            folder,
        };
        for n in 0..show.clips.len() {
            let sender = show.send(n).await;
            show.senders.push(sender);
        }
        let put = show.server.control.put("/api/v1/mixes/m", &scene()).await;
        let put = put.expect("an answer");
        assert!(put.is_success(), "{}: {}", put.status, put.body);
        show
    }

    /// Anchor number `n` on air.
    async fn send(&self, n: usize) -> Process {
        let name = stage()[n].name;
        let before = self.epoch(name).await;
        let sender = sync::send(&self.clips[n], &self.server.urls.push(name), self.speeds[n]);
        let sender = sender.expect("ffmpeg");
        let what = format!("{name} on air");
        let on_air = poll(&what, SOON, || async {
            let now = self.epoch(name).await;
            (now.is_some() && now != before).then_some(())
        });
        on_air
            .await
            .unwrap_or_else(|e| panic!("{e}; {}", sender.said()));
        sender
    }

    /// Which publisher that name has, if its video is known.
    async fn epoch(&self, name: &str) -> Option<u64> {
        let path = format!("/api/v1/streams/live/{name}");
        let stream = self.server.control.get(&path).await.ok()?.json();
        stream["publisher"]["video"].as_object()?;
        stream["publisher"]["epoch"].as_u64()
    }

    /// Waits until the mix has made so many frames.
    async fn until_mixed(&self, frames: i64) {
        let mixed = poll("frames of the mix", SOON, || async {
            let mix = self
                .server
                .control
                .get("/api/v1/mixes/m")
                .await
                .ok()?
                .json();
            (mix["stats"]["frames_out"].as_i64()? >= frames).then_some(())
        });
        mixed.await.unwrap_or_else(|e| panic!("{e}"));
    }

    /// Kills a sub's program, at whatever it is doing, and starts it again.
    async fn stop_and_return(&mut self, n: usize) {
        self.senders[n].kill().await;
        self.senders[n] = self.send(n).await;
    }

    /// Judges what viewers of the main get.
    async fn judge(&self, what: &str) {
        let recording = self.folder.path().join("recording.flv");
        let (url, file) = (self.server.urls.plain("a"), recording.display().to_string());
        let before = "-hide_banner -nostats -loglevel warning -y -i";
        let after = format!("-t {RECORDED} -c copy");
        let line: Vec<&str> = before
            .split_whitespace()
            .chain([url.as_str()])
            .chain(after.split_whitespace())
            .chain([file.as_str()])
            .collect();
        let mut recorder = Process::spawn("ffmpeg", &line).expect("ffmpeg");
        let recorded = recorder.success(LONG).await;
        recorded.unwrap_or_else(|e| panic!("{e}"));
        for (anchor, own) in stage().iter().zip(&self.own) {
            let mixed = offsets(&recording, anchor.seen_at, anchor.clip.tone).await;
            let off: Vec<f64> = mixed.iter().map(|offset| offset - own).collect();
            let median = sync::median(&off);
            let name = anchor.name;
            println!(
                "{what}, {name}: {median:+.1} ms in the median of {} events, {off:.0?}",
                off.len()
            );
            assert!(off.len() >= EVENTS, "{what}, {name}: {} events", off.len());
            assert!(
                median.abs() <= MEDIAN_MS,
                "{what}, {name}: off by {median:.1} ms"
            );
            // A machine that is busy with other tests shows a picture late here and there.
            let single = MEDIAN_MS + FRAME_MS;
            let outside = off.iter().filter(|off| off.abs() > single).count();
            assert!(outside * 10 <= off.len(), "{what}, {name}: {off:.0?}");
        }
    }
}

/// From each flash to its beep, ms.
async fn offsets(file: &Path, region: Region, tone: f64) -> Vec<f64> {
    let mut flashes = sync::flashes(file, region)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    flashes.retain(|flash| *flash > JOINED);
    let beeps = sync::beeps(file, tone)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    sync::offsets(&flashes, &beeps)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn picture_and_sound_of_each_input_stay_together_through_a_hundred_stops_and_returns() {
    let mut show = Show::start([1.0; 4]).await;
    show.judge("at the start").await;
    for cycle in 0..20 {
        show.stop_and_return(1 + cycle % 3).await;
    }
    let (resident, threads) = (show.server.resident(), show.server.threads());
    for cycle in 0..100 {
        show.stop_and_return(1 + cycle % 3).await;
    }
    let what = "a hundred stops and returns";
    show.server.assert_flat(resident, what).await;
    assert_eq!(show.server.threads(), threads);
    show.judge("after a hundred stops and returns").await;
}

/// A minute of clocks that are 1 % off, or as many as `LINKMIC_SOAK_MINUTES` says: `./run soak`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_differ_by_one_percent_part_neither_picture_and_sound_nor_anchors() {
    let minutes = std::env::var("LINKMIC_SOAK_MINUTES").ok();
    let minutes = minutes.map(|m| m.parse::<f64>().expect("LINKMIC_SOAK_MINUTES: minutes"));
    let end = Instant::now() + Duration::from_secs_f64(60.0 * minutes.unwrap_or(1.0));
    let mut show = Show::start([1.0, 1.01, 0.99, 1.0]).await;
    // A clock that is slow makes its pictures late, little by little until 5 s are over; the sound comes after.
    show.until_mixed(10 * FPS).await;
    let (mut resident, mut threads) = (0, 0);
    for round in 0.. {
        show.judge(&format!("round {round}")).await;
        if round == 1 {
            (resident, threads) = (show.server.resident(), show.server.threads());
        } else if round > 1 {
            show.server
                .assert_flat(resident, &format!("round {round}"))
                .await;
            assert_eq!(show.server.threads(), threads);
        }
        if Instant::now() > end {
            break;
        }
        if minutes.is_some() {
            // A soak has anchors that come and go besides.
            show.stop_and_return(1 + round % 3).await;
        }
    }
    let mix = show
        .server
        .control
        .get("/api/v1/mixes/m")
        .await
        .expect("an answer")
        .json();
    println!("{}", mix["stats"]);
    assert_eq!(
        mix["stats"]["sound_resyncs"], 0,
        "sound that jumps is heard: {mix}"
    );
}
