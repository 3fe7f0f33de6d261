//! Mixes with nothing to mix, as real viewers see them: they stay, and notice nothing but the picture.

use linkmic::probe::Colour;
use linkmic::probe::process::poll;
use serde_json::{Value, json};

use super::splice::{Recorders, assert_spliced, decode, pictures_were_whole, tags};
use super::{is_as_documented, main_show, one_plus_one_regions, sub_show};
use crate::edge::SOON;
use crate::studio::{Studio, advances};

/// Main and one sub, with nothing asked that needs an encoder when the sub is away.
fn idle_mix(output: &str) -> Value {
    json!({
        "app": "live",
        "on_loss": {"policy": "hide", "after_ms": 500},
        "inputs": [
            {"stream": "a", "layer": 1},
            {"stream": "b", "layer": 2, "x": 300, "y": 480, "width": 100, "height": 150},
        ],
        "output": {"stream": output},
    })
}

async fn is(studio: &Studio, wanted: &str) {
    let mix = poll(wanted, SOON, || async {
        let answer = studio.api.get("/api/v1/mixes/m").await.ok()?;
        let mix = answer.json();
        (mix["state"] == wanted).then_some(mix)
    });
    is_as_documented("mix", &mix.await.unwrap_or_else(|e| panic!("{e}")));
}

/// Decoders of pictures and of sound, as the metrics page has them.
async fn decoders(studio: &Studio) -> [bool; 2] {
    let page = studio.api.get("/metrics").await.expect("metrics").body;
    ["video", "audio"].map(|kind| {
        let line = format!("linkmic_mixer_decoders{{kind=\"{kind}\"}} ");
        let value = page.lines().find_map(|l| l.strip_prefix(&line));
        value.expect("it is there") != "0"
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_stay_while_a_mix_passes_mixes_and_passes_again() {
    viewers_stay("a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_of_a_new_name_stay_while_its_mix_passes_mixes_and_passes_again() {
    viewers_stay("n").await;
}

/// Of a mix with that output: the main's name, or a new one.
async fn viewers_stay(output: &str) {
    let studio = Studio::open_with("[mixer]\npassthrough_after = \"1s\"\n").await;
    let a = studio.publish("a", &main_show()).await;
    let in_place = output == "a";
    if !in_place {
        studio.put("/api/v1/mixes/m", &idle_mix(output)).await;
    }
    let mut recorders = Recorders::start(&studio, output);
    let mut viewer = studio.watch(output, &one_plus_one_regions()).await;
    advances(&mut viewer, 0, Colour::BLUE, 40).await;
    if in_place {
        studio.put("/api/v1/mixes/m", &idle_mix(output)).await;
    }
    is(&studio, "passing").await;
    let page = studio.api.get("/metrics").await.expect("metrics").body;
    assert!(
        page.contains("linkmic_mixer_states{state=\"passing\"} 1"),
        "{page}"
    );
    assert_eq!(decoders(&studio).await, [false, false]);
    for _ in 0..2 {
        let b = studio.publish("b", &sub_show(Colour::RED, 700.0)).await;
        advances(&mut viewer, 1, Colour::RED, 30).await;
        is(&studio, "live").await;
        assert_eq!(decoders(&studio).await, [true, true]);
        b.kill().await;
        is(&studio, "passing").await;
        advances(&mut viewer, 0, Colour::BLUE, 30).await;
        let gone = poll("the decoders gone", SOON, || async {
            (decoders(&studio).await == [false, false]).then_some(())
        });
        gone.await.unwrap_or_else(|e| panic!("{e}"));
    }
    studio.end_mix("m").await;
    if in_place {
        advances(&mut viewer, 0, Colour::BLUE, 10).await;
        a.stop().await;
    }
    recorders.end().await;
    for file in [&recorders.by_ffmpeg, &recorders.by_rtmpdump] {
        // While the mix is on the sub comes and goes in its picture, so only its beginning is told by colour.
        let seen = decode(file).await;
        assert_eq!(seen.errors, Vec::<String>::new(), "{file}");
        let times: Vec<_> = seen.sightings.iter().map(|s| s.pts).collect();
        assert!(times.windows(2).all(|pair| pair[1] > pair[0]), "{file}");
    }
    assert_spliced(&tags(&recorders.by_rtmpdump), 4);
    pictures_were_whole(&viewer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_whose_streams_are_all_gone_ends_by_itself() {
    let studio = Studio::open_with("[mixer]\nabandoned_after = \"3s\"\n").await;
    let a = studio.publish("a", &main_show()).await;
    let b = studio.publish("b", &sub_show(Colour::RED, 700.0)).await;
    let mut viewer = studio.watch("a", &one_plus_one_regions()).await;
    studio.put("/api/v1/mixes/m", &idle_mix("a")).await;
    advances(&mut viewer, 1, Colour::RED, 20).await;
    a.kill().await;
    b.kill().await;
    let gone = poll("the mix gone", SOON, || async {
        let answer = studio.api.get("/api/v1/mixes/m").await.ok()?;
        (answer.status == 404).then_some(())
    });
    gone.await.unwrap_or_else(|e| panic!("{e}"));
}
