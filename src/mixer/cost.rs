//! What a mix is reckoned to cost before it is made, so that one too many is refused instead of harming all.
//!
//! Pure. A unit is a hundredth of a core of the machine of docs/performance.md, where the factors were measured. It is an
//! estimate: what a picture costs depends on what is in it, and the budget leaves room for that.

use std::collections::BTreeMap;

use super::encoder::Kind;
use super::layout::Size;
use super::scene::{PRESETS, Scene, Source, Tracks};
use crate::media::StreamKey;

/// Share of the machine that mixes may take, in units a core: the rest is the relay's, whose readers must not notice.
const UNITS_PER_CORE: u32 = 75;

/// Of x264, per million pixels a second, in the order of [`PRESETS`]: measured up to `fast`, and from there by what
/// x264's own comparisons say of the distance between presets.
const X264: [f64; PRESETS.len()] = [0.6, 1.0, 1.4, 2.2, 5.8, 7.0, 10.0, 18.0, 28.0];
/// Of openh264, for its three complexities: reckoned like x264's presets of about the same speed, not measured.
const OPENH264: [f64; 3] = [1.0, 1.4, 2.0];
/// Of encoders in hardware: frames have to be brought there.
const HARDWARE: f64 = 0.2;
/// Of drawing, and of decoding and scaling: 0.10 of a core for 1280×720 at 30 frames a second.
const DRAWING: f64 = 0.06;
const DECODING: f64 = 0.36;
/// Of encoding sound, and of decoding, resampling and mixing an input's.
const SOUND_OUT: f64 = 1.5;
const SOUND_IN: f64 = 0.8;

/// What a picture source is taken for that has not shown itself: the main, and others.
pub const MAIN: Picture = Picture {
    size: Size {
        width: 540,
        height: 960,
    },
    fps: 25,
};
const SUB: Picture = Picture {
    size: Size {
        width: 320,
        height: 480,
    },
    fps: 15,
};

/// Size and rate of a stream's pictures, or of a mix's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    pub size: Size,
    /// Frames a second.
    pub fps: u32,
}

impl Picture {
    /// Million pixels a second.
    fn rate(self) -> f64 {
        let Size { width, height } = self.size;
        f64::from(width) * f64::from(height) * f64::from(self.fps) / 1e6
    }
}

/// What one mix needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    /// Drawing and encoding.
    program: f64,
    /// Decoding, by stream: one that several mixes show is decoded once.
    inputs: BTreeMap<StreamKey, f64>,
}

/// What mixes are made with where their scenes leave it open.
#[derive(Debug, Clone, Copy)]
pub struct Defaults<'a> {
    pub encoder: Kind,
    pub preset: &'a str,
}

/// What the mix of `scene` needs. `look` tells what is known of a stream's pictures; `size` and `fps` are the running
/// mix's, where the scene leaves them open.
pub fn demand(
    scene: &Scene,
    defaults: Defaults<'_>,
    (size, fps): (Option<Size>, Option<u32>),
    look: impl Fn(&StreamKey) -> Option<Picture>,
) -> Demand {
    let lead = scene.lead_key();
    let main = lead.and_then(&look).unwrap_or(MAIN);
    let output = Picture {
        size: scene.canvas().or(size).unwrap_or(main.size),
        fps: scene.output.fps.or(fps).unwrap_or(main.fps),
    };
    let preset = scene.output.preset.unwrap_or(defaults.preset);
    let mut inputs = BTreeMap::new();
    for input in &scene.inputs {
        let Source::Stream { key, tracks } = &input.source else {
            continue;
        };
        let usual = if Some(key) == lead { MAIN } else { SUB };
        let pictures = match tracks {
            Tracks::Sound => 0.0,
            _ => look(key).unwrap_or(usual).rate() * DECODING,
        };
        inputs.insert(key.clone(), pictures + SOUND_IN);
    }
    Demand {
        program: output.rate() * (DRAWING + encoding(defaults.encoder, preset)) + SOUND_OUT,
        inputs,
    }
}

/// Per million pixels a second.
fn encoding(kind: Kind, preset: &str) -> f64 {
    let at = PRESETS.iter().position(|known| *known == preset);
    let at = at.unwrap_or(PRESETS.len() - 1);
    match kind {
        Kind::X264 => X264[at],
        // Its three complexities stand for three presets each.
        Kind::OpenH264 => OPENH264[at / 3],
        Kind::Nvenc | Kind::Vaapi | Kind::Qsv => HARDWARE,
    }
}

/// What those mixes cost together, in units.
pub fn total<'a>(demands: impl IntoIterator<Item = &'a Demand>) -> u32 {
    let mut programs = 0.0;
    let mut inputs: BTreeMap<&StreamKey, f64> = BTreeMap::new();
    for demand in demands {
        programs += demand.program;
        for (key, cost) in &demand.inputs {
            let known = inputs.entry(key).or_default();
            *known = known.max(*cost);
        }
    }
    (programs + inputs.values().sum::<f64>()).ceil() as u32
}

/// Why a mix is not accepted: what it would add, what the others cost, and what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overload {
    pub cost: u32,
    pub used: u32,
    pub budget: u32,
}

/// May a mix of `new` demand begin, or take the place of `old`, beside `others`? One that becomes no dearer always may.
///
/// # Errors
/// The budget has no room for it.
pub fn can_accept(
    others: &[Demand],
    old: Option<&Demand>,
    new: &Demand,
    budget: u32,
) -> Result<(), Overload> {
    let used = total(others);
    let before = total(others.iter().chain(old));
    let after = total(others.iter().chain([new]));
    if after <= budget || (old.is_some() && after <= before) {
        return Ok(());
    }
    Err(Overload {
        cost: after - used,
        used,
        budget,
    })
}

/// The everyday mix: a main of 540×960 at 20 frames a second and three others.
pub fn everyday(defaults: Defaults<'_>) -> Demand {
    let main = Picture { fps: 20, ..MAIN };
    let inputs = main.rate() + 3.0 * SUB.rate();
    let encoding = encoding(defaults.encoder, defaults.preset);
    Demand {
        program: main.rate() * (DRAWING + encoding)
            + SOUND_OUT
            + inputs * DECODING
            + 4.0 * SOUND_IN,
        inputs: BTreeMap::new(),
    }
}

/// The budget where none is configured.
pub fn budget(cores: usize) -> u32 {
    u32::try_from(cores)
        .unwrap_or(u32::MAX)
        .saturating_mul(UNITS_PER_CORE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const DEFAULTS: Defaults<'_> = Defaults {
        encoder: Kind::X264,
        preset: "superfast",
    };

    fn scene(inputs: &[&str], output: serde_json::Value) -> Scene {
        let inputs: Vec<_> = inputs
            .iter()
            .zip(1..)
            .map(|(stream, layer)| json!({"stream": stream, "layer": layer}))
            .collect();
        let request = json!({"app": "live", "inputs": inputs, "output": output});
        Scene::new(&serde_json::from_value(request).unwrap()).unwrap()
    }

    fn hd(_: &StreamKey) -> Option<Picture> {
        let size = Size {
            width: 1_280,
            height: 720,
        };
        Some(Picture { size, fps: 30 })
    }

    fn cost(scene: &Scene) -> u32 {
        total([&demand(scene, DEFAULTS, (None, None), |_| None)])
    }

    #[test]
    fn what_is_asked_for_is_what_costs() {
        let plain = scene(&["a", "b"], json!({"stream": "a"}));
        let size = |preset| {
            let output =
                json!({"stream": "a", "width": 1280, "height": 720, "fps": 30, "preset": preset});
            cost(&scene(&["a", "b"], output))
        };
        let everyday = total([&everyday(DEFAULTS)]);
        assert!((12..=30).contains(&everyday), "{everyday}");
        assert!(cost(&plain) < size("superfast"));
        assert!(size("ultrafast") < size("superfast") && size("superfast") < size("medium"));
        assert!(size("medium") < size("veryslow"));
        let known = demand(&plain, DEFAULTS, (None, None), hd);
        let shown = total([&known]);
        assert!(shown > cost(&plain), "{shown}");
        // A running mix keeps its size whatever its main sends now.
        let small = Size {
            width: 320,
            height: 240,
        };
        let kept = demand(&plain, DEFAULTS, (Some(small), Some(10)), hd);
        assert!(total([&kept]) < shown);
    }

    #[test]
    fn a_stream_in_several_mixes_is_decoded_once() {
        let one = demand(
            &scene(&["a", "b"], json!({"stream": "x"})),
            DEFAULTS,
            (None, None),
            hd,
        );
        let two = demand(
            &scene(&["a", "c"], json!({"stream": "y"})),
            DEFAULTS,
            (None, None),
            hd,
        );
        let shared = 27.648 * DECODING + SOUND_IN;
        let apart = f64::from(total([&one])) + f64::from(total([&two]));
        let together = f64::from(total([&one, &two]));
        assert!(
            (apart - together - shared).abs() <= 2.0,
            "{apart} {together}"
        );
    }

    #[test]
    fn one_too_many_is_refused_and_one_no_dearer_never() {
        let of = |output| demand(&scene(&["a"], output), DEFAULTS, (None, None), |_| None);
        let small = of(json!({"stream": "x"}));
        let large = of(json!({"stream": "x", "width": 1920, "height": 1080, "fps": 30}));
        let (cheap, dear) = (total([&small]), total([&large]));
        let others = [of(json!({"stream": "y"}))];
        let accepts = |old: Option<&Demand>, new, budget| can_accept(&others, old, new, budget);
        assert_eq!(accepts(None, &small, 1_000), Ok(()));
        let refused = accepts(None, &large, dear).unwrap_err();
        assert_eq!((refused.budget, refused.used), (dear, cheap));
        assert!(refused.used + refused.cost > dear);
        assert!(accepts(Some(&small), &large, dear).is_err());
        // The budget was lowered, or the machine is full by other means.
        assert_eq!(accepts(Some(&large), &small, 1), Ok(()));
        assert_eq!(accepts(Some(&small), &small, 1), Ok(()));
        assert!(accepts(None, &small, 1).is_err());
        assert_eq!(budget(2), 150);
    }

    proptest! {
        /// What was accepted one by one fits the budget together, in any order of coming and changing.
        #[test]
        fn the_budget_is_never_overrun(
            budget in 1u32..400,
            wishes in prop::collection::vec((0usize..4, 1u32..20, 1u32..60, 0usize..9), 1..40),
        ) {
            let mut mixes: BTreeMap<usize, Demand> = BTreeMap::new();
            for (id, side, fps, preset) in wishes {
                let output = json!({"stream": format!("out{id}"), "width": 96 * side, "height": 54 * side,
                    "fps": fps, "preset": PRESETS[preset]});
                let new = demand(&scene(&["a", "b"], output), DEFAULTS, (None, None), |_| None);
                let old = mixes.remove(&id);
                let others: Vec<_> = mixes.values().cloned().collect();
                let verdict = can_accept(&others, old.as_ref(), &new, budget);
                let mix = if verdict.is_ok() { Some(new) } else { old };
                mixes.extend(mix.map(|mix| (id, mix)));
                prop_assert!(total(mixes.values()) <= budget);
            }
        }
    }
}
