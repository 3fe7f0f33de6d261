//! A mix whose encoder truly cannot keep up: it steps down, viewers get every frame all the same, and it steps up again.

use std::ops::RangeInclusive;
use std::time::Duration;

use linkmic::probe::process::{Process, poll};
use linkmic::rtmp::kind;
use serde_json::{Value, json};

use super::reading::Wire;
use super::{is_as_documented, main_show};
use crate::edge::SOON;
use crate::studio::Studio;

/// 1280×720 at 30 in a preset that takes some 300 % of a core for noise, and 20 % for a picture that stands.
const PRESET: &str = "slower";
/// From frame to frame, ms: 33 and a third.
const STEPS: RangeInclusive<i64> = 33..=34;
/// A step up is tried after 20 s in which no frame was left out, and a busy machine leaves some out for other reasons.
const CALM: Duration = Duration::from_secs(150);

/// A mix of 1280×720 of which the main fills the left half, and the noise, where there is some, all.
fn scene(noise: bool) -> Value {
    let mut inputs = vec![json!({"stream": "a", "layer": 1, "width": 640, "height": 720})];
    if noise {
        inputs.push(
            json!({"stream": "noise", "layer": 2, "width": 1280, "height": 720, "fit": "stretch"}),
        );
    }
    json!({
        "app": "live",
        "inputs": inputs,
        "output": {"stream": "out", "width": 1280, "height": 720, "fps": 30, "video_kbps": 2500, "preset": PRESET},
    })
}

/// Small pictures without any likeness between one and the next.
fn noise(studio: &Studio) -> Process {
    let url = studio.urls.push("noise");
    let line = format!(
        "-hide_banner -nostats -loglevel warning -re -f lavfi -i nullsrc=size=160x90:rate=30,geq=random(1)*255:128:128 \
         -pix_fmt yuv420p -c:v libx264 -preset ultrafast -tune zerolatency -qp 26 -g 30 -f flv {url}"
    );
    let line: Vec<&str> = line.split_whitespace().collect();
    Process::spawn("ffmpeg", &line).expect("ffmpeg")
}

/// Steps of all mixes so far, down and up.
async fn steps(studio: &Studio) -> [u64; 2] {
    let page = studio.api.get("/metrics").await.expect("metrics").body;
    ["down", "up"].map(|direction| {
        let line = format!("linkmic_mixer_steps_total{{direction=\"{direction}\"}} ");
        let value = page.lines().find_map(|l| l.strip_prefix(&line));
        value.expect("it is there").parse().expect("a count")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_that_is_too_much_for_its_encoder_steps_down_and_up_and_its_rate_never_changes() {
    // Admission would refuse it: it is to be seen what happens to one that was let in.
    let studio = Studio::open_to_overload("[mixer]\nbudget = 5000\n").await;
    let _a = studio.publish("a", &main_show()).await;
    let mut noisy = noise(&studio);
    let mix = "/api/v1/mixes/m";
    studio.put(mix, &scene(true)).await;
    let wire = Wire::of(&studio.urls.plain("out")).await;
    let live = poll("both live", SOON, || async {
        let mix = studio.get(mix).await;
        let live = (0..2).all(|n| mix["inputs"][n]["state"] == "live");
        (live && mix["state"] == "live").then_some(())
    });
    if let Err(deadline) = live.await {
        panic!("{deadline}: {}", noisy.said());
    }
    let down = poll("a step down", SOON, || async {
        (steps(&studio).await[0] > 0).then_some(())
    });
    down.await.unwrap_or_else(|e| panic!("{e}"));
    let degraded = studio.get(mix).await;
    is_as_documented("mix", &degraded);
    let lower = &degraded["degraded"];
    assert!(lower["steps"].as_u64() > Some(0), "{degraded}");
    assert_ne!(lower["preset"], PRESET, "{degraded}");
    assert!(
        degraded["stats"]["ticks_skipped"].as_u64() > Some(0),
        "{degraded}"
    );

    studio.put(mix, &scene(false)).await;
    noisy.kill().await;
    let up = poll("a step up", CALM, || async {
        (steps(&studio).await[1] > 0).then_some(())
    });
    up.await.unwrap_or_else(|e| panic!("{e}"));
    // Each step is another encoder, whose headers and key frame go on where the one before stopped. One that gave nothing for
    // more than a second, as on a machine that others keep busy, has failed: there is a hole where its successor begins.
    let taken: u64 = steps(&studio).await.iter().sum();
    let restarts = studio.get(mix).await["stats"]["restarts"].as_u64();
    let restarts = restarts.expect("a count");
    println!("{taken} steps, {restarts} encoders that failed");
    let odd = wire.odd_steps(kind::VIDEO, STEPS);
    assert!(
        odd.len() as u64 <= restarts,
        "{odd:?} after {restarts} restarts"
    );
    let headers = wire.headers(kind::VIDEO) as u64;
    let most = 1 + taken + restarts;
    assert!(
        (2..=most).contains(&headers),
        "{headers} headers, of {most}"
    );
    studio.end_mix("m").await;
}
