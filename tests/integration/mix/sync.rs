//! Picture and sound of each input belong together in the mix as they did at their source, judged by flash and beep.

use std::path::{Path, PathBuf};
use std::time::Duration;

use linkmic::probe::process::Process;
use linkmic::probe::sync::{self, Clip};
use linkmic::probe::{Region, Size};
use serde_json::{Value, json};

use super::{CANVAS, FPS, LONG};
use crate::studio::Studio;

/// Flashes that a judgement needs at least.
const EVENTS: usize = 20;
/// The median of an input may be off by so much, ms.
const MEDIAN_MS: f64 = 25.0;
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

/// Records `seconds` of what viewers of the main get.
async fn record(studio: &Studio, seconds: u32, file: &Path) {
    let (url, file) = (studio.urls.plain("a"), file.display().to_string());
    let seconds = seconds.to_string();
    let line = [
        "-hide_banner",
        "-nostats",
        "-loglevel",
        "warning",
        "-y",
        "-i",
        &url,
        "-t",
        &seconds,
        "-c",
        "copy",
        &file,
    ];
    let mut recorder = Process::spawn("ffmpeg", &line).expect("ffmpeg");
    recorder
        .success(LONG + Duration::from_secs(60))
        .await
        .unwrap_or_else(|e| panic!("{e}"));
}

/// From each flash to its beep, ms.
async fn offsets(file: &Path, region: Region, tone: f64) -> Vec<f64> {
    let flashes = sync::flashes(file, region)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    let beeps = sync::beeps(file, tone)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    sync::offsets(&flashes, &beeps)
}

/// What an input's offset is at its source: the median over its clip.
async fn own(clip: &Clip, file: &Path) -> f64 {
    let Size { width, height } = clip.size;
    let offsets = offsets(
        file,
        Region {
            x: 0,
            y: 0,
            width,
            height,
        },
        clip.tone,
    )
    .await;
    assert!(offsets.len() >= EVENTS, "{}: {offsets:?}", file.display());
    sync::median(&offsets)
}

/// Judges `recording` for each anchor against its own offset.
async fn judge(what: &str, recording: &Path, own: &[f64]) {
    for (anchor, own) in stage().iter().zip(own) {
        let mixed = offsets(recording, anchor.seen_at, anchor.clip.tone).await;
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
        let single = MEDIAN_MS + FRAME_MS;
        assert!(
            off.iter().all(|off| off.abs() <= single),
            "{what}, {name}: {off:.0?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn picture_and_sound_of_each_input_stay_together_also_after_stops_and_returns() {
    let studio = Studio::open().await;
    let mut clips: Vec<(PathBuf, f64)> = Vec::new();
    for anchor in stage() {
        let file = studio.folder().join(format!("{}.flv", anchor.name));
        anchor
            .clip
            .write(&file)
            .await
            .unwrap_or_else(|e| panic!("{e}"));
        let own = own(&anchor.clip, &file).await;
        clips.push((file, own));
    }
    let own: Vec<f64> = clips.iter().map(|(_, own)| *own).collect();
    let mut senders = Vec::new();
    for (anchor, (file, _)) in stage().iter().zip(&clips) {
        senders.push(sync::send(file, &studio.urls.push(anchor.name)).expect("ffmpeg"));
        let on_air = studio.until_on_air(anchor.name).await;
        on_air.unwrap_or_else(|e| panic!("{e}"));
    }
    studio.put("/api/v1/mixes/m", &scene()).await;
    let recording = studio.folder().join("start.flv");
    record(&studio, 18, &recording).await;
    judge("at the start", &recording, &own).await;
}
