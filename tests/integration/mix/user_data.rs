//! What a main's pictures say in SEI messages, as ffmpeg finds it in the mix.

use linkmic::probe::{Colour, process};
use serde_json::json;

use super::script::{Cue, Reel};
use super::{CANVAS, FPS, LONG};
use crate::studio::{Studio, advances};

/// Whose messages they are.
const ID: &[u8; 16] = b"a page's signals";

/// As long as the test takes on a busy machine; it is cut off when all was seen.
const SECONDS: u32 = 40;

/// Gives each picture a message with its number, in front of its slices.
fn signal(cue: &mut Cue) {
    if !cue.is_picture() || cue.tag.is_header() {
        return;
    }
    let number = cue.at * FPS / 1000;
    let text = format!("{number:08}");
    let mut unit = vec![6, 5, 16 + text.len() as u8];
    unit.extend_from_slice(ID);
    unit.extend_from_slice(text.as_bytes());
    unit.push(0x80);
    let mut all = (unit.len() as u32).to_be_bytes().to_vec();
    all.append(&mut unit);
    // Behind the five bytes of FLV's own head.
    cue.tag.body.splice(5..5, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_finds_a_mains_own_messages_in_the_mix_one_of_each_picture() {
    let reel = Reel {
        size: CANVAS,
        colour: Colour::BLUE,
        reordered: 2,
        profile: "main",
        ..Reel::sub(FPS as u32, 400.0, SECONDS)
    };
    let script = reel.script().await.each(signal);
    let studio = Studio::open().await;
    let _on_air = script.start(studio.urls.push("a"));
    let scene = json!({
        "app": "live",
        "inputs": [{"stream": "a", "layer": 1}],
        "output": {"stream": "out", "width": CANVAS.width, "height": CANVAS.height, "fps": FPS, "gop": 0.5,
            "mix_sei": "the mix's", "pass_sei": true},
    });
    studio.put("/api/v1/mixes/m", &scene).await;
    let mut viewer = studio.watch("out", &[CANVAS.whole()]).await;
    advances(&mut viewer, 0, Colour::BLUE, 20).await;
    let line = format!(
        "exec ffmpeg -hide_banner -nostats -nostdin -copyts -i {} -frames:v 60 -map 0:v -vf showinfo=checksum=0 -f null - 2>&1",
        studio.urls.plain("out")
    );
    let said = process::output("sh", &["-c", &line], LONG).await;
    let said = String::from_utf8_lossy(&said.expect("ffmpeg plays 60 pictures")).into_owned();
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    // Ids are printed with dashes.
    let plain: String = said.chars().filter(|c| *c != '-').collect();
    let own = plain.matches(&hex(ID)).count();
    let numbers: Vec<i64> = (0..i64::from(SECONDS) * FPS)
        .filter(|n| plain.contains(&hex(format!("{n:08}").as_bytes())))
        .collect();
    println!("{own} messages, numbers {numbers:?}");
    assert!(numbers.len() >= 40, "{numbers:?}: {said}");
    assert_eq!(own, numbers.len(), "each once");
    // Numbered as they are decoded: of those shown first and last, some neighbours are shown outside.
    let inside = &numbers[4..numbers.len() - 4];
    assert!(
        inside.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "none left out: {numbers:?}"
    );
    assert!(plain.contains(&hex(b"the mix's")), "{said}");
}
