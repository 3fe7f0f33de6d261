//! One program pipeline at work: the blocks of sound and the output frames that are due, put together and handed over.
//!
//! Runs on the session's thread, which asks it what is due and sleeps until it says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{IDLE, MARGIN_US, MAX_PATIENCE_US, Session, Snapshot, WATCHDOG};
use crate::mixer::audio::{self, BLOCK};
use crate::mixer::info::MixState;
use crate::mixer::output::Output;
use crate::mixer::program::{Layer, Program};
use crate::mixer::tick::{Grid, Step};

/// One program pipeline at work.
pub(super) struct Run<'a> {
    pub(super) session: &'a Session,
    pub(super) program: Program,
    pub(super) output: Arc<Output>,
    pub(super) rate: i64,
    /// Number of the next block of sound since the mix's zero.
    pub(super) block: i64,
    pub(super) fps: u32,
    /// Pictures' beat, from when the sound encoder has shown its header.
    pub(super) grid: Option<Grid>,
    pub(super) previous: Arc<Snapshot>,
    /// Frames that had come out when they were last seen to grow.
    pub(super) given: u64,
    pub(super) given_at: Instant,
}

impl Run<'_> {
    fn block_us(&self, block: i64) -> i64 {
        block * BLOCK as i64 * 1_000_000 / self.rate
    }

    /// Mixes all blocks that are due; when the next one is.
    pub(super) fn sound(&mut self, snapshot: &Snapshot, now: Instant) -> i64 {
        let now_us = self.session.now_us(now);
        let late = snapshot.placed.iter().map(|p| p.input.lateness().1).max();
        let least = self.session.context.config.deadline.as_micros() as i64;
        let wanted = self.block_us(1) + late.unwrap_or(0) + MARGIN_US;
        let patience = wanted.clamp(least, MAX_PATIENCE_US.max(least));
        loop {
            let (start, end) = (self.block_us(self.block), self.block_us(self.block + 1));
            if now_us < end {
                return end;
            }
            let ready = snapshot
                .placed
                .iter()
                .all(|p| p.input.sound_ready(end, now));
            if !ready && now_us < start + patience {
                return start + patience;
            }
            let mut sum = [[0.0; 2]; BLOCK];
            for placed in &snapshot.placed {
                placed.input.mix(start, placed.gain, &mut sum);
            }
            // Who has just left fades out over this block instead of being cut.
            let stays = |input| snapshot.placed.iter().any(|p| Arc::ptr_eq(&p.input, input));
            for gone in self.previous.placed.iter().filter(|p| !stays(&p.input)) {
                gone.input.mix(start, 0.0, &mut sum);
            }
            audio::soft_clip(&mut sum);
            let pts_ns = self.block as u128 * BLOCK as u128 * 1_000_000_000 / self.rate as u128;
            self.program.push_sound(pts_ns as u64, &sum);
            self.block += 1;
        }
    }

    /// Puts all output frames together that are due; when the next one is.
    pub(super) fn pictures(&mut self, snapshot: &Snapshot, now: Instant) -> i64 {
        let now_us = self.session.now_us(now);
        let tally = &self.session.tally;
        let Some(lead_at) = snapshot.placed.get(snapshot.lead) else {
            return now_us + IDLE.as_micros() as i64;
        };
        let lead = lead_at.input.lead();
        if self.grid.is_none() {
            if !self.output.is_sounding() {
                return now_us + IDLE.as_micros() as i64;
            }
            let newest = lead
                .newest_us
                .filter(|&due| (now_us - due).abs() < 1_000_000 / i64::from(self.fps));
            self.grid = Some(Grid::new(newest.unwrap_or(now_us), self.fps));
        }
        // Made just above.
        let Some(grid) = self.grid.as_mut() else {
            return now_us;
        };
        let least = self.session.context.config.deadline.as_micros() as i64;
        let wanted = lead_at.input.lateness().0 + MARGIN_US;
        let patience = wanted.clamp(least, MAX_PATIENCE_US.max(least));
        loop {
            tally
                .skipped
                .fetch_add(grid.skip(now_us), Ordering::Relaxed);
            if let Step::Wait(until) = grid.step(now_us, lead, patience) {
                return until;
            }
            let (pts, next) = (grid.pts_ns(grid.next()), grid.pts_ns(grid.next() + 1));
            let mut fresh = None;
            let mut layers = Vec::with_capacity(snapshot.placed.len());
            for (index, placed) in snapshot.placed.iter().enumerate() {
                let (Some((picture, due, new)), Some(rect)) =
                    (placed.input.picture(grid.until_us()), placed.rect)
                else {
                    continue;
                };
                if index == snapshot.lead && new {
                    fresh = Some((due, picture.arrival));
                }
                layers.push(Layer {
                    pad: placed.pad,
                    picture,
                    rect,
                    order: placed.layer,
                });
            }
            if let Some((_, Some(arrival))) = fresh {
                self.output.expect(pts, arrival);
            }
            if !self.program.push_frame(pts, next, &layers) {
                tally.skipped.fetch_add(1, Ordering::Relaxed);
                self.session.observe_skip();
            }
            grid.emitted(fresh.map(|f| f.0), lead.interval_us);
        }
    }

    /// Tells when the pipeline takes but does not give.
    pub(super) fn stuck(&mut self, now: Instant) -> Option<String> {
        let given = self.session.tally.frames.load(Ordering::Relaxed);
        if given != self.given {
            self.given = given;
            self.given_at = now;
            let mut control = self.session.control();
            if matches!(control.state, MixState::Starting) {
                control.state = MixState::Live;
                control.error = None;
            }
        }
        (now.saturating_duration_since(self.given_at) > WATCHDOG)
            .then(|| format!("no frame for {} s", WATCHDOG.as_secs()))
    }
}
