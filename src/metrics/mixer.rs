//! What mixes cost, how long their pictures take, and what they make less of.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec};

use super::catalogue::Catalogue;
use super::words::{MIX_DECODERS, MIX_INPUT_STATES, MIX_LATENCY_BUCKETS, MIX_STATES, OTHER};
use super::{Fixed, Metrics, count, set_states};

/// Stages of a picture's way through a mix.
const STAGES: [&str; 4] = ["decode", "hold", "beat", "encode"];
/// Dense around the 25 ms either way that sound may be off.
const OFFSET_BUCKETS: [f64; 13] = [
    -0.2, -0.1, -0.05, -0.025, -0.01, -0.005, 0.0, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2,
];
/// What a mix makes less of than it was asked for.
const DEGRADED: [&str; 2] = ["preset", "pictures"];
const STEPS: [&str; 3] = ["down", "up", OTHER];

/// How much the mixer has to do, as its room tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MixLoad {
    /// Mixes with a faster preset than asked for, and all pictures.
    pub by_preset: usize,
    /// Mixes with half of their pictures.
    pub by_pictures: usize,
    /// What mixes may cost together, in units.
    pub budget: u32,
    /// What they are reckoned to cost, in units.
    pub cost: u32,
    /// Is there room for another everyday mix?
    pub can_accept: bool,
}

/// The instruments.
pub(super) struct Mixer {
    mixes: IntGauge,
    states: IntGaugeVec,
    inputs: IntGaugeVec,
    decoders: IntGaugeVec,
    /// In the order of [`STAGES`].
    stages: [Histogram; STAGES.len()],
    av_offset: Histogram,
    degraded: IntGaugeVec,
    steps: Fixed,
    restarts: IntCounter,
    budget: IntGauge,
    cost: IntGauge,
    can_accept: IntGauge,
}

impl Mixer {
    pub(super) fn new(c: &mut Catalogue) -> Self {
        Self {
            mixes: c.gauge("linkmic_mixer_mixes", "Mixes that exist now."),
            states: c.gauges(
                "linkmic_mixer_states",
                "Mixes that exist now, by state.",
                [("state", &MIX_STATES)],
            ),
            inputs: c.gauges(
                "linkmic_mixer_inputs",
                "Inputs of all mixes, by state.",
                [("state", &MIX_INPUT_STATES)],
            ),
            decoders: c.gauges(
                "linkmic_mixer_decoders",
                "Decoders at work; a stream has one of each kind, however many mixes use it.",
                [("kind", &MIX_DECODERS)],
            ),
            stages: c.histograms(
                "linkmic_mixer_stage_seconds",
                "How long a new picture of a mix's main was in each stage: decode (arrival to decoded and scaled), hold (until it is due: jitter), beat (until the output's next frame), encode (drawing, encoding, publishing). Together they are the added latency.",
                &MIX_LATENCY_BUCKETS,
                ("stage", STAGES),
            ),
            av_offset: c.histogram(
                "linkmic_mixer_av_offset_seconds",
                "How much later than its picture the sound of a mix's input leaves, compared with the source, once for each new picture; below 0: earlier.",
                &OFFSET_BUCKETS,
            ),
            degraded: c.gauges(
                "linkmic_mixer_degraded",
                "Mixes whose encoder cannot carry what was asked for, by what they make less of: preset (a faster one), pictures (every second frame repeats the one before, with the fastest preset).",
                [("by", &DEGRADED)],
            ),
            steps: Fixed::new(
                &c.counters(
                    "linkmic_mixer_steps_total",
                    "Steps of degradation that mixes took, by direction.",
                    [("direction", &STEPS)],
                ),
                &STEPS,
            ),
            restarts: c.counter(
                "linkmic_mixer_restarts_total",
                "Program pipelines of mixes that failed and were made anew.",
            ),
            budget: c.gauge(
                "linkmic_mixer_budget_units",
                "What mixes may cost together, in units: hundredths of a core, about.",
            ),
            cost: c.gauge(
                "linkmic_mixer_cost_units",
                "What the mixes that exist now are reckoned to cost, in units: hundredths of a core, about.",
            ),
            can_accept: c.gauge(
                "linkmic_mixer_can_accept",
                "1 when the budget has room for another everyday mix (four anchors, 540x960 at 20 frames a second), else 0.",
            ),
        }
    }
}

impl Metrics {
    /// At scrape: mixes and their inputs per state (words of the mixer's states).
    pub fn set_mixes(&self, by_state: &[(&str, usize)], inputs_by_state: &[(&str, usize)]) {
        let mixer = &self.mixer;
        mixer
            .mixes
            .set(count(by_state.iter().map(|(_, n)| n).sum()));
        set_states(&mixer.states, &MIX_STATES, by_state);
        set_states(&mixer.inputs, &MIX_INPUT_STATES, inputs_by_state);
    }

    /// At scrape: decoders of all mixes per kind (`audio`, `video`).
    pub fn set_mix_decoders(&self, by_kind: &[(&str, usize)]) {
        set_states(&self.mixer.decoders, &MIX_DECODERS, by_kind);
    }

    /// A new picture of a mix's main was that long in a stage (`"decode"`, `"hold"`, `"beat"`, `"encode"`).
    pub fn mix_stage(&self, stage: &str, took: Duration) {
        if let Some(at) = STAGES.iter().position(|known| *known == stage) {
            self.mixer.stages[at].observe(took.as_secs_f64());
        }
    }

    /// The sound of a mix's input leaves by so much later than its new picture, in seconds; below 0: earlier.
    pub fn mix_av_offset(&self, seconds: f64) {
        self.mixer.av_offset.observe(seconds);
    }

    /// A mix took a step of degradation, down or up.
    pub fn mix_stepped(&self, down: bool) {
        let direction = if down { STEPS[0] } else { STEPS[1] };
        self.mixer.steps.get(direction).inc();
    }

    /// A mix's program pipeline failed and is made anew.
    pub fn mix_restarted(&self) {
        self.mixer.restarts.inc();
    }

    /// At scrape: what mixes cost and may cost, and what they make less of.
    pub fn set_mix_load(&self, load: &MixLoad) {
        let mixer = &self.mixer;
        let by = [
            (DEGRADED[0], load.by_preset),
            (DEGRADED[1], load.by_pictures),
        ];
        set_states(&mixer.degraded, &DEGRADED, &by);
        mixer.budget.set(i64::from(load.budget));
        mixer.cost.set(i64::from(load.cost));
        mixer.can_accept.set(i64::from(load.can_accept));
    }
}
