//! Anchors in other codecs than H.264 and AAC, sent by a program that speaks Enhanced RTMP.

use linkmic::probe::process::{Process, poll};
use linkmic::probe::{Colour, Region};
use serde_json::json;

use super::{CANVAS, FPS, hears, main_show, one_plus_one_regions, place};
use crate::edge::SOON;
use crate::edge::breadth::programs::ffmpeg;
use crate::studio::{Studio, advances};

/// How a sub is coded, and in what colour and tone it comes.
const SUBS: [(&str, &str, f64); 3] = [
    (
        "-c:v libx265 -preset ultrafast -tune zerolatency -x265-params keyint=15:open-gop=0:pools=none:log-level=error -c:a libopus",
        "0x14b428",
        700.0,
    ),
    (
        "-c:v libaom-av1 -usage realtime -cpu-used 8 -lag-in-frames 0 -g 15 -threads 1 -c:a libmp3lame -ar 44100",
        "0xdc1e1e",
        900.0,
    ),
    (
        "-c:v libx264 -preset ultrafast -tune zerolatency -g 15 -c:a pcm_alaw -ar 8000 -ac 1",
        "0x14b428",
        1100.0,
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subs_in_hevc_av1_opus_mp3_and_g711_are_seen_and_heard_one_after_the_other() {
    let studio = Studio::open().await;
    let _a = studio.publish("a", &main_show()).await;
    let regions: [Region; 2] = one_plus_one_regions();
    let Region {
        x,
        y,
        width,
        height,
    } = place(480);
    let scene = json!({
        "app": "live",
        "inputs": [
            {"stream": "a", "layer": 1},
            {"stream": "b", "layer": 2, "x": x, "y": y, "width": width, "height": height},
        ],
        "output": {"stream": "mixed", "width": CANVAS.width, "height": CANVAS.height, "fps": FPS, "video_kbps": 800},
    });
    studio.put("/api/v1/mixes/m", &scene).await;
    let mut viewer = studio.watch("mixed", &regions).await;
    advances(&mut viewer, 0, Colour::BLUE, 5).await;
    for (codecs, colour, tone) in SUBS {
        let line = format!(
            "-hide_banner -nostats -loglevel warning -re -f lavfi -i color={colour}:size=160x240:rate=15 \
             -re -f lavfi -i sine=frequency={tone}:sample_rate=48000 -pix_fmt yuv420p {codecs} \
             -flush_packets 1 -flvflags no_duration_filesize -f flv {}",
            studio.urls.push("b")
        );
        let line: Vec<&str> = line.split_whitespace().collect();
        let program = ffmpeg().display().to_string();
        let mut sub = Process::spawn(&program, &line).expect("ffmpeg");
        let live = poll("the sub live", SOON, || async {
            let mix = studio.get("/api/v1/mixes/m").await;
            let sub = &mix["inputs"][1];
            (sub["state"] == "live" && sub["error"].is_null()).then_some(())
        });
        live.await.unwrap_or_else(|e| panic!("{e}: {}", sub.said()));
        let wanted = if colour == "0xdc1e1e" { "red" } else { "green" };
        viewer
            .until(&format!("{codecs} in {wanted}"), SOON, |seen| {
                let last = seen.sightings.back()?;
                (last.readings[1].colour.name() == Some(wanted)).then_some(())
            })
            .await
            .unwrap_or_else(|e| panic!("{e}: {}", sub.said()));
        let tones = [400.0, 700.0, 900.0, 1100.0];
        hears(&mut viewer, &tones, &[400.0, tone]).await;
        sub.kill().await;
    }
}
