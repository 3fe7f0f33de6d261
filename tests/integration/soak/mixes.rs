//! The mixes of a soak: what each shows, who changes it, and how its output is judged.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use linkmic::probe::process::poll;
use linkmic::probe::{Region, record, sync};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::account::{GONE, Whose};
use super::plan::{Dice, Mixing, Scale};
use super::world::{Clips, FPS, PATIENCE, SIZE, TONES, World, anchor_name, until};

/// A sub's picture.
const SUB: (usize, usize) = (96, 54);
/// Where subs stand, first and second.
const PLACES: [[(usize, usize); 2]; 3] = [
    [(220, 8), (220, 118)],
    [(4, 8), (4, 118)],
    [(4, 118), (220, 8)],
];
/// Flashes that a judgement needs: most of the 23 that a recording has.
const EVENTS: usize = 16;
/// How far picture and sound may be apart in the median, ms: the mixer's own bound, and half a frame because clips and mix
/// have the same frame rate here, so that all events meet the frames in one phase.
const MEDIAN_MS: f64 = 25.0 + 500.0 / FPS as f64;

/// What one mix is made of.
pub struct Stage {
    pub id: String,
    pub anchors: Vec<String>,
    pub output: String,
    pub in_place: bool,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    places: usize,
    muted: Option<usize>,
    /// Since when it is as asked for; `None` while there is none.
    since: Option<Instant>,
}

/// What was found of a mix.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// Median of each input, ms: positive when its sound is late.
    pub medians: Vec<f64>,
    pub complaints: Vec<String>,
}

impl Stage {
    /// The third of four has a name of its own, the others are in place.
    pub fn new(scale: &Scale, mix: usize) -> Self {
        let anchors: Vec<String> = scale.anchors_of(mix).map(anchor_name).collect();
        let in_place = mix % 4 != 2;
        let output = match in_place {
            true => anchors[0].clone(),
            false => format!("mixed{mix}"),
        };
        Self {
            id: format!("mix{mix}"),
            anchors,
            output,
            in_place,
            shown: Mutex::default(),
        }
    }

    /// Since when it has been there without a break.
    pub fn since(&self) -> Option<Instant> {
        self.shown.lock().expect("whole").since
    }

    fn path(&self) -> String {
        format!("/api/v1/mixes/{}", self.id)
    }

    fn scene(&self) -> Value {
        let shown = self.shown.lock().expect("whole");
        let inputs = self.anchors.iter().enumerate().map(|(n, stream)| {
            let mut input =
                json!({"stream": stream, "layer": n + 1, "mute": shown.muted == Some(n)});
            if n > 0 {
                let (x, y) = PLACES[shown.places][n - 1];
                for (key, value) in [("x", x), ("y", y), ("width", SUB.0), ("height", SUB.1)] {
                    input[key] = json!(value);
                }
            }
            input
        });
        json!({
            "app": "live", "inputs": inputs.collect::<Vec<_>>(),
            "output": {"stream": self.output, "width": SIZE.width, "height": SIZE.height, "fps": FPS, "video_kbps": 200, "passthrough": "never"},
        })
    }

    async fn put(&self, world: &World) {
        let put = world.changes("PUT", &self.path(), Some(self.scene())).await;
        let mut shown = self.shown.lock().expect("whole");
        if put.is_some() && shown.since.is_none() {
            shown.since = Some(Instant::now());
        }
    }

    async fn end(&self, world: &World) {
        self.shown.lock().expect("whole").since = None;
        if !self.in_place {
            world
                .account
                .owes(&self.output, &["closed", "deleted", "stream_ended"]);
            let whose = Whose::Stream(self.output.clone());
            world.account.excuse(whose, GONE, Duration::from_secs(60));
        }
        world.changes("DELETE", &self.path(), None).await;
        let path = self.path();
        let gone = poll("the mix gone", PATIENCE, || async {
            let answer = world.control.get(&path).await.ok()?;
            (answer.status == 404).then_some(())
        });
        if let Err(error) = gone.await {
            world.account.complain(format!("{}: {error}", self.id));
        }
    }

    /// The middle of an input in the output, where a flash is seen.
    fn seen_at(&self, input: usize) -> Region {
        let (x, y, width, height) = match input {
            // Between the subs.
            0 => (120, 70, 80, 40),
            n => {
                let (x, y) = PLACES[self.shown.lock().expect("whole").places][n - 1];
                (x + 20, y + 12, SUB.0 - 40, SUB.1 - 24)
            }
        };
        Region {
            x,
            y,
            width,
            height,
        }
    }

    /// Records what viewers get, which takes [`sync::RECORDED`] and some, and says what is wrong with it.
    pub async fn judge(&self, world: &World, clips: &Clips) -> Judgement {
        let file = clips.folder.path().join(format!("{}.flv", self.id));
        let mut complaints = Vec::new();
        let url = world.urls.plain(&self.output);
        if let Err(error) = record::recording(&url, sync::RECORDED, &file).await {
            complaints.push(format!("{}: nothing recorded: {error}", self.id));
            return Judgement {
                medians: Vec::new(),
                complaints,
            };
        }
        let mut medians = Vec::new();
        for (n, name) in self.anchors.iter().enumerate() {
            let off = match sync::judged_offsets(&file, self.seen_at(n), TONES[n]).await {
                Ok(offsets) => offsets,
                Err(error) => {
                    complaints.push(format!("{}, {name}: {error}", self.id));
                    continue;
                }
            };
            let off: Vec<f64> = off.iter().map(|offset| offset - clips.own[n]).collect();
            let median = sync::median(&off);
            medians.push(median);
            complaints.extend(apart(&off).map(|what| format!("{}, {name}: {what}", self.id)));
        }
        Judgement {
            medians,
            complaints,
        }
    }
}

/// What is wrong with the distances from picture to sound of one input.
fn apart(off: &[f64]) -> Option<String> {
    let median = sync::median(off);
    if off.len() < EVENTS {
        return Some(format!(
            "{} flashes with their beeps, {EVENTS} are the least",
            off.len()
        ));
    }
    (median.abs() > MEDIAN_MS)
        .then(|| format!("sound is {median:+.1} ms after its picture, in the median of {off:.0?}"))
}

/// Keeps one mix, for as long as the soak lasts.
pub async fn keep(mix: usize, world: Arc<World>, mut orders: mpsc::Receiver<Mixing>) {
    let stage = &world.stages[mix];
    let mut dice = Dice::new(world.scale.seed.rotate_left(31) ^ mix as u64);
    let mut on_air = world.on_air.subscribe();
    loop {
        if !until(&mut on_air, true).await {
            return;
        }
        stage.put(&world).await;
        loop {
            let order = tokio::select! {
                order = orders.recv() => order,
                _ = until(&mut on_air, false) => break,
            };
            match order {
                None => return,
                Some(Mixing::Move) => {
                    let step = 1 + dice.roll(PLACES.len() as u64 - 1) as usize;
                    {
                        let mut shown = stage.shown.lock().expect("whole");
                        shown.places = (shown.places + step) % PLACES.len();
                    }
                    stage.put(&world).await;
                }
                Some(Mixing::Mute(lasts)) => {
                    let muted = dice.roll(stage.anchors.len() as u64) as usize;
                    stage.shown.lock().expect("whole").muted = Some(muted);
                    stage.put(&world).await;
                    sleep(lasts).await;
                    stage.shown.lock().expect("whole").muted = None;
                    stage.put(&world).await;
                }
                Some(Mixing::Off(away)) => {
                    stage.end(&world).await;
                    sleep(away).await;
                    stage.put(&world).await;
                }
            }
        }
        stage.end(&world).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_that_is_late_and_flashes_that_stay_away_are_told() {
        assert_eq!(apart(&[10.0; 20]), None);
        assert!(apart(&[90.0; 20]).expect("late").contains("+90.0 ms"));
        assert!(apart(&[-90.0; 20]).is_some());
        assert!(apart(&[0.0; 5]).expect("too few").contains("5 flashes"));
        assert!(apart(&[]).is_some());
    }
}
