//! One program pipeline at work: what is due is gathered from the inputs, drawn and given to it, sound and pictures
//! each on their own beat.
//!
//! Called in a loop by a mix's thread ([`session`](super::session)), which sleeps in between until the time that
//! [`Run::beat`] names or until a decoder rings. Owns the beat and the pipeline; decides nothing about the mix's life.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::audio::{self, BLOCK, Span};
use super::beat::Beat;
use super::cast::Snapshot;
use super::output::Output;
use super::program::{Program, Settings};
use super::session::{IDLE, Session};
use super::stage::Stage;
use super::tick::{Grid, Step};

/// An output or decoder is waited for this long beyond its usual lateness, and never longer than the second.
const MARGIN_US: i64 = 5_000;
const MAX_PATIENCE_US: i64 = 200_000;
/// A pipeline that takes frames but gives none for this long is dead, whatever it says.
const WATCHDOG: Duration = Duration::from_secs(2);

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.session.signal().want_sound(true);
    }
}

/// One program pipeline at work.
pub(super) struct Run<'a> {
    session: &'a Session,
    program: Program,
    output: Arc<Output>,
    beat: Beat,
    fps: u32,
    stage: Stage,
    /// Pictures' beat, from when the sound encoder has shown its header.
    grid: Option<Grid>,
    previous: Option<Arc<Snapshot>>,
    /// Frames that had come out when they were last seen to grow.
    given: u64,
    given_at: Instant,
}

impl<'a> Run<'a> {
    /// Takes over a pipeline that was just started.
    pub fn new(
        session: &'a Session,
        settings: &Settings,
        program: Program,
        output: Arc<Output>,
    ) -> Self {
        let now = Instant::now();
        let rate = settings.audio.rate;
        // What is due by now is made at once: the encoder gives its header only with its first frames.
        let made_at_once = 3 * BLOCK as i64 * 1_000_000 / i64::from(rate);
        let snapshot = session.snapshot();
        let newest = snapshot.lead().and_then(|lead| lead.newest_sound());
        let delay = program.encoder().delay;
        Self {
            session,
            program,
            output,
            beat: Beat::new(rate, delay, session.now_us(now) - made_at_once, newest),
            fps: settings.fps,
            stage: Stage::new(session.fonts()),
            grid: None,
            previous: None,
            given: session.tally().frames.load(Ordering::Relaxed),
            given_at: now,
        }
    }

    /// The relay wants no more.
    pub fn is_done(&self) -> bool {
        self.output.is_done()
    }

    /// What is wrong with the pipeline, if anything is.
    pub fn error(&mut self, now: Instant) -> Option<String> {
        self.program.error().or_else(|| self.stuck(now))
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
            if now_us < end {
                // Two hundred frames of sound a second come in: none of them is worth a wake-up before its time.
                signal.want_sound(false);
                return end;
            }
            let ready = snapshot
                .streams()
                .all(|(_, input)| input.sound_ready(own(input), now));
            if !ready && now_us < start + patience {
                return start + patience;
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
            self.program.push_sound(self.beat.start_ns(), &sum);
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
        }
        // Made just above.
        let Some(grid) = self.grid.as_mut() else {
            return now_us;
        };
        let least = self.session.deadline_us();
        let wanted = lead_at.lateness().0 + MARGIN_US;
        let patience = wanted.clamp(least, MAX_PATIENCE_US.max(least));
        loop {
            tally
                .skipped
                .fetch_add(grid.skip(now_us), Ordering::Relaxed);
            if let Step::Wait(until) = grid.step(now_us, lead, patience) {
                return until;
            }
            let n = grid.next();
            let pts = grid.pts_ns(n);
            let cast = snapshot.cast(grid.until_us(), (pts / 1_000) as i64);
            let fresh = cast.fresh();
            if let Some((_, Some(arrival))) = fresh {
                self.output.expect(pts, arrival);
            }
            let layout = snapshot.layout(Duration::from_nanos(pts));
            let stage = &mut self.stage;
            let pushed = layout.is_some_and(|layout| {
                self.program.push_frame(
                    n,
                    |n| grid.pts_ns(n),
                    |canvas| stage.draw(canvas, &layout, &cast),
                )
            });
            if !pushed {
                tally.skipped.fetch_add(1, Ordering::Relaxed);
                self.session.observe_skip();
            }
            grid.emitted(fresh.map(|f| f.0), lead.interval_us);
        }
    }

    /// Tells when the pipeline takes but does not give.
    fn stuck(&mut self, now: Instant) -> Option<String> {
        let given = self.session.tally().frames.load(Ordering::Relaxed);
        if given != self.given {
            self.given = given;
            self.given_at = now;
            self.session.live();
        }
        (now.saturating_duration_since(self.given_at) > WATCHDOG)
            .then(|| format!("no frame for {} s", WATCHDOG.as_secs()))
    }
}
