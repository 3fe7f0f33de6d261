//! Mixing, judged by decoded pictures and sound: who is where, moves, is heard, and what viewers notice of changes.

mod codecs;
mod formats;
mod inputs;
mod isolation;
mod losses;
mod misbehaviour;
mod mistakes;
mod overload;
mod passing;
mod priority;
mod reading;
mod scene;
pub mod script;
mod soak;
mod splice;
mod sync;
mod user_data;
mod web;

use std::collections::BTreeSet;

use std::time::Duration;

use linkmic::probe::player::Watch;
use linkmic::probe::process::poll;
use linkmic::probe::publisher::Show;
use linkmic::probe::{Colour, Player, Region, Size};
use serde_json::{Value, json};

use crate::edge::SOON;
use crate::studio::Studio;

/// For files to be decoded and programs to end.
const LONG: Duration = Duration::from_secs(60);

/// The main's picture in tests: portrait, smaller than an anchor's own.
const CANVAS: Size = Size::new(400, 640);
/// The main's frames per second.
const FPS: i64 = 20;

/// The main anchor, blue at 400 Hz.
fn main_show() -> Show {
    Show {
        size: CANVAS,
        video_kbps: 500,
        ..Show::main(Colour::BLUE, 400.0)
    }
}

/// A sub's place in the tests' scenes: 100×150 in a column on the right.
const fn place(y: usize) -> Region {
    Region {
        x: 300,
        y,
        width: 100,
        height: 150,
    }
}

/// Main and one sub in place, the sub at `place(480)`.
fn one_plus_one() -> Value {
    json!({
        "app": "live",
        "inputs": [
            {"stream": "a", "layer": 1},
            {"stream": "b", "layer": 2, "x": 300, "y": 480, "width": 100, "height": 150},
        ],
        "output": {"stream": "a", "width": CANVAS.width, "height": CANVAS.height, "fps": FPS, "video_kbps": 800},
    })
}

fn sub_show(colour: Colour, tone: f64) -> Show {
    Show {
        size: Size::new(320, 480),
        ..Show::sub(colour, tone)
    }
}

/// The regions of [`one_plus_one`].
fn one_plus_one_regions() -> [Region; 2] {
    [main_show().size.whole(), place(480)]
}

impl Studio {
    /// Plays the program feed, reading the given places.
    async fn watch(&self, name: &str, regions: &[Region]) -> Player {
        let watch = Watch {
            size: CANVAS,
            regions: regions.to_vec(),
        };
        Player::start(&self.urls.plain(name), watch)
            .await
            .expect("ffmpeg")
    }

    /// A `GET` that has to succeed.
    async fn get(&self, path: &str) -> Value {
        let answer = self.api.get(path).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// Deletes a mix and waits until it is gone.
    async fn end_mix(&self, id: &str) {
        let path = format!("/api/v1/mixes/{id}");
        let answer = self.api.delete(&path).await.expect("an answer");
        assert_eq!(answer.status, 202, "{}", answer.body);
        assert_eq!(answer.json()["state"], "ending", "{}", answer.body);
        is_as_documented("mix_delete", &answer.json());
        let gone = poll("the mix gone", SOON, || async {
            let answer = self.api.get(&path).await.ok()?;
            (answer.status == 404).then_some(())
        });
        gone.await.expect("it ends");
    }
}

/// Waits until exactly the `heard` ones of all `tones` sound.
async fn hears(player: &mut Player, tones: &[f64], heard: &[f64]) {
    player
        .until(&format!("only the tones {heard:?}"), SOON, |seen| {
            let right = |tone: &f64| seen.hears(*tone) == heard.contains(tone);
            tones.iter().all(right).then_some(())
        })
        .await
        .unwrap_or_else(|e| panic!("{e}"));
}

/// The middle one.
fn median(of: &[i64]) -> i64 {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// Whether a mix's answer has the keys and types that docs/api shows. Null there or here stands for any type.
fn is_as_documented(example: &str, answer: &Value) {
    let path = format!("{}/docs/api/{example}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let shown: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
    same_shape(example, &shown, answer);
}

fn same_shape(at: &str, shown: &Value, real: &Value) {
    match (shown, real) {
        (Value::Object(shown), Value::Object(real)) => {
            let keys = |object: &serde_json::Map<String, Value>| -> BTreeSet<String> {
                object.keys().cloned().collect()
            };
            assert_eq!(keys(real), keys(shown), "keys of {at}");
            for (key, value) in shown {
                same_shape(&format!("{at}.{key}"), value, &real[key]);
            }
        }
        (Value::Array(shown), Value::Array(real)) => {
            assert!(!real.is_empty(), "{at} needs an item to compare");
            for item in real {
                same_shape(&format!("{at}[]"), &shown[0], item);
            }
        }
        (Value::Null, _) | (_, Value::Null) => {}
        _ => assert_eq!(
            std::mem::discriminant(real),
            std::mem::discriminant(shown),
            "{at} is {real}, documented is {shown}"
        ),
    }
}
