//! What was asked for outlives a kill: the binary is killed, and the next one over the same state directory goes on.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use linkmic::probe::player::Watch;
use linkmic::probe::process::poll;
use linkmic::probe::publisher::Show;
use linkmic::probe::{Colour, Player, Region, Size};
use serde_json::{Value, json};

use crate::compat::{Legacy, account, legacy};
use crate::edge::SOON;
use crate::edge::house::House;
use crate::home::{Home, Life};
use crate::studio::{advances, publish};

pub const CANVAS: Size = Size::new(240, 400);
/// Right of where the main's colour is read, and under its number.
pub const SUB: Region = Region {
    x: 140,
    y: 180,
    width: 100,
    height: 150,
};

impl Life {
    /// Who watches stream `a`.
    pub async fn viewer(&self) -> Player {
        let watch = Watch {
            size: CANVAS,
            regions: vec![CANVAS.whole(), SUB],
        };
        let viewer = Player::start(&self.urls.plain("a"), watch).await;
        viewer.expect("ffmpeg")
    }
}

pub fn main() -> Show {
    Show {
        size: CANVAS,
        video_kbps: 400,
        ..Show::main(Colour::BLUE, 400.0)
    }
}

pub fn sub() -> Show {
    Show::sub(Colour::RED, 700.0)
}

fn scene(output: &str) -> Value {
    json!({
        "app": "live",
        "inputs": [
            {"stream": "a", "layer": 1},
            {"stream": "b", "layer": 2, "x": SUB.x, "y": SUB.y, "width": SUB.width, "height": SUB.height},
        ],
        "output": {"stream": output, "video_kbps": 400},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixes_and_pushes_are_on_air_again_after_a_kill() {
    let home = Home::found("").await;
    let target = House::open_with("push = \"open\"", "").await;
    let push = json!({"app": "live", "stream": "a", "url": target.urls.plain("copy"),
        "sign": {"secret": "their-own-secret", "expires_in": "1h"}});
    let life = home.begin().await;
    life.put("/api/v1/mixes/show", &scene("a")).await;
    life.put("/api/v1/mixes/gone", &scene("other")).await;
    life.put("/api/v1/pushes/cdn", &push).await;
    life.put("/api/v1/pushes/gone", &push).await;
    for path in ["/api/v1/mixes/gone", "/api/v1/pushes/gone"] {
        let answer = life.api.delete(path).await.expect("an answer");
        assert!(answer.is_success(), "{}", answer.body);
    }
    let on_air = async |life: &Life| {
        let a = publish(&life.urls, &life.api, "a", &main()).await;
        let b = publish(&life.urls, &life.api, "b", &sub()).await;
        let mut viewer = life.viewer().await;
        advances(&mut viewer, 0, Colour::BLUE, 10).await;
        advances(&mut viewer, 1, Colour::RED, 10).await;
        life.until("the push live", "/api/v1/pushes/cdn", |p| {
            p["state"] == "live"
        })
        .await;
        (a, b, viewer)
    };
    let before = on_air(&life).await;
    // A last change, which is on the disk when it is answered.
    let mut moved = scene("a");
    moved["inputs"][1]["gain"] = json!(0.5);
    let changed = life.put("/api/v1/mixes/show", &moved).await;
    assert_eq!(changed["revision"], 2);
    life.kill().await;
    drop(before);
    for file in ["linkmic.db", "linkmic.db-wal"] {
        let mode = std::fs::metadata(home.state().join(file)).expect("it is there");
        assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{file}");
    }

    let life = home.begin().await;
    let mixes = life.get("/api/v1/mixes").await;
    assert_eq!(mixes["mixes"].as_array().map(Vec::len), Some(1), "{mixes}");
    let mix = life.get("/api/v1/mixes/show").await;
    assert_eq!(
        (&mix["state"], &mix["revision"]),
        (&json!("waiting"), &json!(2))
    );
    assert_eq!(mix["inputs"][1]["gain"], 0.5);
    let pushes = life.get("/api/v1/pushes").await;
    assert_eq!(
        pushes["pushes"].as_array().map(Vec::len),
        Some(1),
        "{pushes}"
    );
    assert_eq!(pushes["pushes"][0]["state"], "waiting");
    let _again = on_air(&life).await;
    let mut copy = Player::start(
        &target.urls.plain("copy"),
        Watch {
            size: CANVAS,
            regions: vec![SUB],
        },
    )
    .await
    .expect("ffmpeg");
    advances(&mut copy, 0, Colour::RED, 10).await;
    // The same again is nothing new.
    assert_eq!(life.put("/api/v1/mixes/show", &moved).await["revision"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_that_was_abandoned_or_deleted_stays_gone_after_a_kill_and_others_after_a_shutdown_do_not()
 {
    let home = Home::found("[mixer]\nabandoned_after = \"1s\"").await;
    let mut life = home.begin().await;
    life.put("/api/v1/mixes/alone", &scene("alone")).await;
    life.until("it is abandoned", "/api/v1/mixes", |all| {
        all["mixes"].as_array().is_some_and(Vec::is_empty)
    })
    .await;
    // What follows it on the disk was written after it.
    life.put("/api/v1/mixes/other", &scene("other")).await;
    let _ = life
        .api
        .delete("/api/v1/mixes/other")
        .await
        .expect("an answer");
    life.process.kill().await;
    let mut life = home.begin().await;
    let mixes = life.get("/api/v1/mixes").await;
    assert_eq!(mixes["mixes"], json!([]));

    let _a = publish(&life.urls, &life.api, "a", &main()).await;
    life.put("/api/v1/mixes/show", &scene("a")).await;
    // SIGINT: the mix ends with the server, and is asked for still.
    life.process.interrupt(SOON).await;
    let life = home.begin().await;
    assert_eq!(life.get("/api/v1/mixes/show").await["revision"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_the_compatible_interface_goes_on_after_a_kill() {
    let home = Home::found(&account()).await;
    let place = json!({"location_x": SUB.x, "location_y": SUB.y, "image_width": SUB.width, "image_height": SUB.height});
    let both = legacy::start(json!([legacy::main(), legacy::sub(place)]));
    let taken = async |life: &Life, request: &Value| {
        let legacy = Legacy::new(&life.api);
        let taken = poll("the mix taken", SOON, || async {
            let code = legacy.mix(request.clone()).await["code"].clone();
            assert!(code == 0 || code == -505, "{code}");
            (code == 0).then_some(())
        });
        taken.await.expect("it is taken");
    };
    let life = home.begin().await;
    let streams = (
        publish(&life.urls, &life.api, "a", &main()).await,
        publish(&life.urls, &life.api, "b", &sub()).await,
    );
    taken(&life, &both).await;
    let id = life.get("/api/v1/mixes").await["mixes"][0]["id"].clone();
    life.kill().await;
    drop(streams);

    let life = home.begin().await;
    assert_eq!(life.get("/api/v1/mixes").await["mixes"][0]["id"], id);
    let _a = publish(&life.urls, &life.api, "a", &main()).await;
    let _b = publish(&life.urls, &life.api, "b", &sub()).await;
    let mut viewer = life.viewer().await;
    advances(&mut viewer, 1, Colour::RED, 10).await;
    // Updated, not begun: another session could not have the output, and the revision counts on.
    let above = json!({"location_x": SUB.x, "location_y": 20, "image_width": SUB.width, "image_height": SUB.height});
    taken(
        &life,
        &legacy::start(json!([legacy::main(), legacy::sub(above)])),
    )
    .await;
    let mixes = life.get("/api/v1/mixes").await;
    assert_eq!(
        (&mixes["mixes"][0]["id"], &mixes["mixes"][0]["revision"]),
        (&id, &json!(2))
    );
    let cancel = json!({
        "app_id": 1, "interface": "mix_streamv2.cancel_mix_stream", "mix_stream_session_id": "a", "output_stream_id": "a",
    });
    let legacy = Legacy::new(&life.api);
    assert_eq!(legacy.mix(cancel.clone()).await["code"], 0);
    assert_eq!(legacy.mix(cancel).await["code"], -30_300);
    life.kill().await;
    let life = home.begin().await;
    assert_eq!(life.get("/api/v1/mixes").await["mixes"], json!([]));
}

/// Makes a mix and a push another one each, and tells their revisions.
async fn change(life: &Life, number: u64) -> [u64; 2] {
    let mut scene = scene("a");
    scene["inputs"][1]["id"] = json!(format!("sub{number}"));
    let url = format!("rtmp://127.0.0.1:1/live/{number}");
    let push = json!({"app": "live", "stream": "a", "url": url});
    let (mix, push) = tokio::join!(
        life.put("/api/v1/mixes/show", &scene),
        life.put("/api/v1/pushes/cdn", &push),
    );
    [mix, push].map(|made| made["revision"].as_u64().expect("a number"))
}

/// How often it is killed while changes come as fast as they are answered.
const KILLS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_before_a_kill_at_any_moment_is_there_after_it() {
    let home = Home::found("").await;
    let seed = std::env::var("LINKMIC_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let mut random: u64 = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.expect("a clock").as_nanos() as u64 | 1
    });
    println!("LINKMIC_SEED={random}");
    // What was answered last: the number in it, and its revision.
    let mut answered = [(0, 0), (0, 0)];
    let mut sent = 0_u64;
    for life in 0..KILLS {
        let mut life = match life {
            0 => home.begin().await,
            _ => {
                let life = home.begin().await;
                let mix = life.get("/api/v1/mixes/show").await;
                let push = life.get("/api/v1/pushes/cdn").await;
                let number = |text: &Value| -> u64 {
                    let text = text.as_str().expect("a text");
                    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
                    digits.parse().expect("a number")
                };
                let url = push["url"].as_str().expect("a URL");
                let there = [
                    (number(&mix["inputs"][1]["id"]), mix["revision"].as_u64()),
                    (
                        number(&url[url.rfind('/').expect("a path")..].into()),
                        push["revision"].as_u64(),
                    ),
                ];
                for ((number, revision), (last, at)) in there.into_iter().zip(answered) {
                    let revision = revision.expect("a number");
                    // One more may have been written, and its answer lost.
                    assert!(
                        (number == last && revision == at) || (number > last && revision == at + 1),
                        "{number} at revision {revision} after {last} at {at} was answered"
                    );
                }
                answered = there.map(|(number, revision)| (number, revision.expect("a number")));
                life
            }
        };
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if sent == 0 {
            // So that there is something to ask for in the next life.
            sent += 1;
            answered = change(&life, sent).await.map(|revision| (sent, revision));
        }
        let wait = Duration::from_micros(5_000 + random % 120_000);
        let until = tokio::time::sleep(wait);
        tokio::pin!(until);
        loop {
            sent += 1;
            let both = change(&life, sent);
            tokio::select! {
                biased;
                () = &mut until => {
                    life.process.kill().await;
                    break;
                }
                revisions = both => answered = revisions.map(|revision| (sent, revision)),
            }
        }
    }
    assert!(
        sent > KILLS as u64,
        "{sent} changes are too few to tell anything"
    );
}
