//! What a mix tells of itself: to the API, to previews and to the reckoning of costs.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Session;
use crate::media::StreamKey;
use crate::mixer::cost::Picture;
use crate::mixer::info::{DegradedInfo, InputInfo, MixInfo, MixState, OutputInfo, Stats};
use crate::mixer::input::InputState;
use crate::mixer::layout::Size;
use crate::mixer::preview::Sight;
use crate::mixer::program::Settings;

impl Session {
    /// What the API tells.
    pub fn info(&self) -> MixInfo {
        let now = Instant::now();
        let snapshot = self.snapshot.load_full();
        let settings = self.settings();
        let control = self.control();
        let output = &control.scene.output;
        let layout = snapshot.way.target();
        // What passes has the main's own format.
        let passing = snapshot
            .main()
            .filter(|_| control.state == MixState::Passing);
        let present = snapshot.members.iter().filter(|member| !member.leaving);
        let inputs = present.zip(&control.scene.inputs).map(|(member, asked)| {
            let facts = member.actor.stream().map(|input| input.facts());
            let cell = layout.and_then(|layout| layout.cell(&member.id));
            InputInfo {
                id: member.id.to_string(),
                kind: member.kind(),
                stream: member.source.key().map(|key| key.stream().to_owned()),
                layer: member.layer,
                state: member.state(&snapshot.on_loss, now),
                rect: cell
                    .and_then(|cell| cell.view.as_ref())
                    .map(|view| view.rect),
                gain: asked.loudness(),
                error: facts.and_then(|facts| facts.trouble().map(str::to_owned)),
            }
        });
        MixInfo {
            id: self.id.clone(),
            revision: control.revision,
            state: control.state,
            not_passed: control.not_passed.as_ref().map(ToString::to_string),
            in_place: control.scene.in_place,
            app: output.key.app().to_owned(),
            inputs: inputs.collect(),
            output: OutputInfo {
                stream: output.key.stream().to_owned(),
                size: settings
                    .as_ref()
                    .map(|s| s.size)
                    .or(passing.as_ref().and_then(|main| main.size)),
                fps: settings
                    .as_ref()
                    .map(|s| s.fps)
                    .or(output.fps)
                    .or(passing.and_then(|main| main.fps)),
                video_kbps: settings
                    .as_ref()
                    .map(|s| s.video_kbps)
                    .or(output.video_kbps),
                audio_kbps: output.audio_kbps.unwrap_or(self.context.config.audio_kbps),
            },
            stats: Stats::new(
                &self.tally,
                snapshot.streams().map(|(_, input)| input.losses()),
            ),
            degraded: settings.as_ref().and_then(|s| self.lowered(s)),
            error: control.error.clone(),
        }
    }

    /// What it makes less of than was asked for.
    pub fn degraded(&self) -> Option<DegradedInfo> {
        self.lowered(&self.settings()?)
    }

    fn lowered(&self, settings: &Settings) -> Option<DegradedInfo> {
        let level = self.tally.level.load(Ordering::Relaxed);
        let rung = settings.rung(level);
        (level > 0).then_some(DegradedInfo {
            steps: level,
            preset: rung.preset,
            half_pictures: rung.half,
        })
    }

    /// Size and frame rate that it took over from its lead, once it has.
    pub fn format(&self) -> (Option<Size>, Option<u32>) {
        let control = self.control();
        (control.canvas(), control.base.map(|base| base.fps))
    }

    /// What is known of a stream's pictures; `None` when it takes none, or none has come.
    pub fn pictures(&self, key: &StreamKey) -> Option<Picture> {
        let snapshot = self.snapshot.load();
        let mut streams = snapshot.streams();
        let (_, input) = streams.find(|(_, input)| input.key() == key)?;
        Some(Picture {
            size: input.size()?,
            fps: input.fps()?,
        })
    }

    /// What it sees of a stream; `None` when it takes no pictures of it, or none has come.
    pub fn sight(&self, key: &StreamKey) -> Option<Sight> {
        let snapshot = self.snapshot.load();
        let mut streams = snapshot.streams();
        let (_, input) = streams.find(|(_, input)| input.key() == key)?;
        Some(Sight {
            size: input.size()?,
            raw: input.newest(),
        })
    }

    /// How many of its inputs are in each state.
    pub fn input_states(&self, now: Instant) -> Vec<InputState> {
        let snapshot = self.snapshot.load();
        let streams = snapshot.members.iter().filter(|m| m.source.key().is_some());
        streams.map(|m| m.state(&snapshot.on_loss, now)).collect()
    }
}
