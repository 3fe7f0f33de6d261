//! One program pipeline at work: what is due is gathered from the inputs, drawn and given to it, sound and pictures
//! each on their own beat.
//!
//! Called in a loop by a mix's thread ([`session`](super::session)), which sleeps in between until the time that
//! [`Run::beat`] names or until a decoder rings. Owns the beat and the pipeline; decides nothing about the mix's life.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::aac;
use super::audio::{self, BLOCK, Span};
use super::beat::Beat;
use super::cast::Snapshot;
use super::governor::{Governor, Load};
use super::output::{Gathered, Journey, Output};
use super::program::{Program, Settings};
use super::session::{IDLE, Session};
use super::stage::Stage;
use super::tick::{Grid, Step};
use super::watch::Watchdog;

/// An output or decoder is waited for this long beyond its usual lateness, and never longer than the second.
const MARGIN_US: i64 = 5_000;
const MAX_PATIENCE_US: i64 = 200_000;
/// Blocks that an encoder of sound may keep: one that looks ahead gives each with the next.
const KEPT_BLOCKS: u64 = 2;

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.session.signal().want_sound(true);
    }
}

/// One program pipeline at work.
pub(super) struct Run<'a> {
    session: &'a Session,
    program: Program<Output>,
    output: Arc<Output>,
    beat: Beat,
    settings: Settings,
    governor: &'a mut Governor,
    fps: u32,
    stage: Stage,
    /// Pictures' beat, from when the sound encoder has shown its header.
    grid: Option<Grid>,
    previous: Option<Arc<Snapshot>>,
    /// Of frames, repeated ones included, and of blocks of sound.
    frames: Watchdog,
    sounds: Watchdog,
    /// It was said already that sound is left out.
    mute: bool,
    /// Was something seen to come out?
    given: bool,
}

impl<'a> Run<'a> {
    /// Starts a pipeline for these settings, on the step of their ladder that the governor stands on.
    ///
    /// # Errors
    /// It does not start; the text says why.
    pub fn start(
        session: &'a Session,
        settings: &Settings,
        voice_encoder: aac::Encoder,
        output: Arc<Output>,
        governor: &'a mut Governor,
    ) -> Result<Self, String> {
        let lowered = settings.at(governor.level());
        let mut program = Program::new(&lowered, voice_encoder, session.zero(), output.clone())?;
        session.made(&mut program);
        let now = Instant::now();
        governor.restart(now);
        let tally = session.tally();
        let frames = tally.frames.load(Ordering::Relaxed);
        let sounds = tally.sounds.load(Ordering::Relaxed);
        tally.forget_encoding();
        let rate = settings.audio.rate;
        // What is due by now is made at once: the encoder gives its header only with its first frames.
        let made_at_once = 3 * BLOCK as i64 * 1_000_000 / i64::from(rate);
        let snapshot = session.snapshot();
        let newest = snapshot.lead().and_then(|lead| lead.newest_sound());
        let delay = program.voice_encoder().delay;
        Ok(Self {
            session,
            program,
            output,
            settings: settings.clone(),
            governor,
            beat: Beat::new(rate, delay, session.now_us(now) - made_at_once, newest),
            fps: settings.fps,
            stage: Stage::new(session.fonts()),
            grid: None,
            previous: None,
            frames: Watchdog::new(frames, 0, now),
            sounds: Watchdog::new(sounds, KEPT_BLOCKS, now),
            mute: false,
            given: false,
        })
    }

    /// The relay wants no more.
    pub fn is_done(&self) -> bool {
        self.output.is_done()
    }

    /// What is wrong with the pipeline, if anything is.
    pub fn error(&mut self, now: Instant) -> Option<String> {
        self.program.error().or_else(|| self.stuck(now))
    }

    /// The pipeline is of no more use: its graph is written while it is stopped.
    pub fn give_up(mut self, why: &str, graphs: Option<&Path>) {
        if let Some(graphs) = graphs {
            self.program.give_up(why, graphs);
        }
    }

    /// Makes all sound and pictures that are due with this layout; when the next are.
    pub fn beat(&mut self, snapshot: Arc<Snapshot>, now: Instant) -> i64 {
        let kept = self.previous.as_ref();
        if kept.is_none_or(|kept| !Arc::ptr_eq(kept, &snapshot)) {
            self.output.tell(snapshot.text().as_deref());
        }
        let next_sound = self.sound(&snapshot, now);
        let next_picture = self.pictures(&snapshot, now);
        self.previous = Some(snapshot);
        next_sound.min(next_picture)
    }

    /// Mixes all blocks that are due; when the next one is.
    fn sound(&mut self, snapshot: &Snapshot, now: Instant) -> i64 {
        let now_us = self.session.now_us(now);
        let late = snapshot
            .streams()
            .map(|(_, input)| input.lateness().1)
            .max();
        // Twice as patient as the picture: waiting costs nothing while all is there, and a hole in the sound is heard
        // where a repeated picture is not seen.
        let least = 2 * self.session.deadline_us();
        let wanted = self.beat.end_us() - self.beat.span().start_us + late.unwrap_or(0) + MARGIN_US;
        let patience = wanted.clamp(least, MAX_PATIENCE_US.max(least));
        let signal = self.session.signal();
        signal.want_sound(true);
        loop {
            let (span, end) = (self.beat.span(), self.beat.end_us());
            let start = span.start_us;
            let lead = snapshot.lead();
            let is_lead = |input| lead.is_some_and(|lead| Arc::ptr_eq(lead, input));
            let own = |input| Span {
                lead: span.lead.filter(|_| is_lead(input)),
                ..span
            };
            let early = self.beat.expected_us();
            if now_us < early {
                // Two hundred frames of sound a second come in: none of them is worth a wake-up before its time.
                signal.want_sound(false);
                return early;
            }
            let ready = snapshot
                .streams()
                .all(|(_, input)| input.sound_ready(own(input), now));
            if !ready && now_us < end {
                // It comes before its time as a rule, and is not worth a wake-up even so.
                signal.want_sound(false);
                return end;
            }
            if !ready && now_us < start + patience {
                return start + patience;
            }
            if let Some((rest_us, came)) = lead.and_then(|lead| lead.sound_beyond(own(lead))) {
                self.beat.arrived(self.session.now_us(came), rest_us);
            }
            let mut sum = [[0.0; 2]; BLOCK];
            let layout = snapshot.layout(Duration::from_micros(end.max(0) as u64));
            // As the pictures' beat has it: see `Snapshot::cast`.
            let half_frame_us = 500_000 / i64::from(self.fps);
            let usual_us = |input| if is_lead(input) { 0 } else { half_frame_us };
            for (id, input) in snapshot.streams() {
                let cell = layout.as_ref().and_then(|layout| layout.cell(id));
                let gain = cell.map_or(0.0, |cell| cell.gain);
                input.mix(own(input), usual_us(input), gain, &mut sum);
            }
            // Who has just left fades out over this block instead of being cut.
            let stays = |input| {
                snapshot
                    .streams()
                    .any(|(_, other)| Arc::ptr_eq(other, input))
            };
            let left = self.previous.iter().flat_map(|previous| previous.streams());
            for (_, gone) in left.filter(|(_, input)| !stays(input)) {
                gone.mix(own(gone), usual_us(gone), 0.0, &mut sum);
            }
            audio::soft_clip(&mut sum);
            if self.program.push_sound(self.beat.start_ns(), &sum) {
                self.sounds.took(1);
            } else if !std::mem::replace(&mut self.mute, true) {
                tracing::warn!("the encoder of a mix's sound is far behind: sound is left out");
            }
            let later_us = self.beat.made(lead.and_then(|lead| lead.sound_place()));
            self.output.follow(later_us);
        }
    }

    /// Puts all output frames together that are due; when the next one is.
    fn pictures(&mut self, snapshot: &Snapshot, now: Instant) -> i64 {
        let now_us = self.session.now_us(now);
        let tally = self.session.tally();
        let Some(lead_at) = snapshot.lead() else {
            return now_us + IDLE.as_micros() as i64;
        };
        let lead = lead_at.lead();
        if self.grid.is_none() {
            if !self.output.is_sounding() {
                return now_us + IDLE.as_micros() as i64;
            }
            let newest = lead
                .newest_us
                .filter(|&due| (now_us - due).abs() < 1_000_000 / i64::from(self.fps));
            // A pipeline that follows another goes on behind its last picture.
            let frame_us = 1_000_000 / i64::from(self.fps);
            let next = match tally.last_picture_us() {
                0 => i64::MIN,
                last => last + frame_us,
            };
            self.grid = Some(Grid::new(newest.unwrap_or(now_us).max(next), self.fps));
            if let Some(due_us) = lead.newest_us {
                // What older pictures had to say is of before the mix's own.
                let _ = lead_at.user_data(due_us - 1);
            }
        }
        // Made just above.
        let Some(grid) = self.grid.as_mut() else {
            return now_us;
        };
        let least = self.session.deadline_us();
        let wanted = lead_at.lateness().0 + MARGIN_US;
        let patience = wanted.clamp(least, MAX_PATIENCE_US.max(least));
        let half = self.settings.rung(self.governor.level()).half;
        let mut load = Load::default();
        let until = loop {
            let skipped = grid.skip(now_us);
            tally.skipped.fetch_add(skipped, Ordering::Relaxed);
            let skipped = u32::try_from(skipped).unwrap_or(u32::MAX);
            load.due = load.due.saturating_add(skipped);
            load.left_out = load.left_out.saturating_add(skipped);
            if let Step::Wait(until) = grid.step(now_us, lead, patience) {
                break until;
            }
            let n = grid.next();
            let mut shown = None;
            let pushed = if half && n % 2 == 1 {
                self.program.repeat_frame(n, |n| grid.pts_ns(n))
            } else {
                let pts = grid.pts_ns(n);
                let observer = &self.session;
                let cast = snapshot.cast(grid.until_us(), (pts / 1_000) as i64, |by| {
                    observer.observe(|o| o.av_offset_us(by));
                });
                let fresh = cast.fresh();
                shown = fresh.map(|(due, ..)| due);
                let journey = fresh.and_then(|(due, arrival, decoded)| {
                    Some(Journey {
                        arrival: arrival?,
                        decoded: decoded?,
                        due: self.session.instant(due),
                    })
                });
                let frame = Gathered {
                    at: Instant::now(),
                    fresh: journey,
                    user_data: cast.user_data(),
                };
                self.output.expect(pts, frame);
                let layout = snapshot.layout(Duration::from_nanos(pts));
                let stage = &mut self.stage;
                layout.and_then(|layout| {
                    self.program.push_frame(
                        n,
                        |n| grid.pts_ns(n),
                        |canvas| stage.draw(canvas, &layout, &cast),
                    )
                })
            };
            load.due += 1;
            if let Some(put) = pushed {
                self.frames.took(put);
            } else {
                load.left_out += 1;
                tally.skipped.fetch_add(1, Ordering::Relaxed);
                self.session.observe(|o| o.skip());
            }
            grid.emitted(shown, lead.interval_us);
        };
        if load.due > 0 {
            self.govern(load, now);
        }
        until
    }

    /// Steps down or up when it is time.
    fn govern(&mut self, load: Load, now: Instant) {
        let tally = self.session.tally();
        let frame = Duration::from_secs(1) / self.fps.max(1);
        let busy = tally.encoding();
        let busy = busy.map(|busy| busy.as_secs_f64() / frame.as_secs_f64());
        let before = self.governor.level();
        if !self.governor.observe(load, busy, now) {
            return;
        }
        let (old, new) = (
            self.settings.rung(before),
            self.settings.rung(self.governor.level()),
        );
        if old.preset != new.preset
            && let Err(error) = self.replace_video()
        {
            // The old one runs on; what is wrong shows when it is made anew.
            tracing::warn!(error, "no other encoder");
            self.governor.take_back();
            return;
        }
        tally.forget_encoding();
        self.session.stepped(before, self.governor.level(), &new);
    }

    /// Goes on with an encoder on the governor's step, at the frame after the last one that came out.
    fn replace_video(&mut self) -> Result<(), String> {
        let lowered = self.settings.at(self.governor.level());
        let lowered = self.session.making(lowered);
        let tally = self.session.tally();
        let (frames, grid) = (&self.frames, self.grid.as_ref());
        let given = || {
            let any = frames.has_given(tally.frames.load(Ordering::Relaxed));
            grid?.number_at(tally.last_picture_ns()).filter(|_| any)
        };
        self.program
            .replace_video(&lowered, self.output.clone(), given)?;
        self.session.made(&mut self.program);
        self.frames.renew(tally.frames.load(Ordering::Relaxed));
        Ok(())
    }

    /// Tells when a pipeline takes but does not give.
    fn stuck(&mut self, now: Instant) -> Option<String> {
        let tally = self.session.tally();
        let frames = tally.frames.load(Ordering::Relaxed);
        let sounds = tally.sounds.load(Ordering::Relaxed);
        if self.frames.has_given(frames) && !std::mem::replace(&mut self.given, true) {
            self.session.live();
        }
        let blind = self.frames.look(frames, now);
        let silent = self.sounds.look(sounds, now);
        if let Some(blind) = blind {
            let level = self.governor.level();
            if self.governor.choked(now) {
                let rung = self.settings.rung(level + 1);
                self.session.stepped(level, level + 1, &rung);
            }
            return Some(format!("no frame for {:.1} s", blind.as_secs_f64()));
        }
        silent.map(|silent| format!("no sound for {:.1} s", silent.as_secs_f64()))
    }
}
