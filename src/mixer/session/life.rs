//! A mix's road on its thread: it rests while there is nothing to mix, waits for its inputs, produces, and ends.
//!
//! While it rests no codec is at work: [`Sentinel`]s tell whether the inputs come, and the main passes as it is.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{Base, End, Session};
use crate::mixer::aac;
use crate::mixer::cast::Snapshot;
use crate::mixer::event::{Change, Ending};
use crate::mixer::format::{DEFAULT_AUDIO, Metadata};
use crate::mixer::governor::Governor;
use crate::mixer::info::MixState;
use crate::mixer::input::InputState;
use crate::mixer::layout::Size;
use crate::mixer::outlet::Outlet;
use crate::mixer::output::Output;
use crate::mixer::pass::{self, Calm, Obstacle};
use crate::mixer::program::Settings;
use crate::mixer::run::Run;
use crate::reason::Reason;
use crate::relay::Status;

/// Frame rate of a mix whose lead tells none: the rate of European cameras, and a whole number of ms.
const DEFAULT_FPS: u32 = 25;
/// How long a lead with pictures may leave its frame rate and sound format open.
const FORMAT_GRACE: Duration = Duration::from_secs(1);
/// Longest sleep of the thread: how soon it sees what nobody rings for.
pub(in crate::mixer) const IDLE: Duration = Duration::from_millis(100);
/// What a mix says that cannot end: the relay waits for a key frame of the source, and tells after 10 s.
const OVERDUE: &str =
    "cannot end: no key frame from the main for 10 s; its encoder should send one";
/// First and longest pause before a program pipeline is made anew.
const BACK_OFF: Duration = Duration::from_millis(100);
const MAX_BACK_OFF: Duration = Duration::from_secs(5);

impl Session {
    pub(super) fn run(&self, outlet: Outlet) {
        let outlet = Arc::new(outlet);
        let mut back_off = BACK_OFF;
        let mut governor = None;
        while let Some(settings) = self.await_start(&outlet) {
            self.set_state(MixState::Starting, None);
            let since = Instant::now();
            let governing =
                governor.get_or_insert_with(|| Governor::new(self.steps(&settings), since));
            let error = match self.produce(&settings, &outlet, governing) {
                End::Done => break,
                End::Reformat => {
                    // Another format is another load.
                    governor = None;
                    self.tally.level.store(0, Ordering::Relaxed);
                    continue;
                }
                End::Resting => {
                    governor = None;
                    self.tally.level.store(0, Ordering::Relaxed);
                    self.sleep();
                    continue;
                }
                End::Failed(error) => error,
            };
            self.tally.restarts.fetch_add(1, Ordering::Relaxed);
            self.observe(|o| o.restarted());
            tracing::warn!(mix = self.id, error, "program pipeline failed");
            self.set_state(MixState::Starting, None);
            self.control().error = Some(error);
            if since.elapsed() > MAX_BACK_OFF {
                back_off = BACK_OFF;
            }
            let until = Instant::now() + back_off;
            // Inputs ring for their pictures all the time.
            while Instant::now() < until && !self.stopping.load(Ordering::Acquire) {
                self.signal.wait_until(until);
            }
            back_off = (back_off * 2).min(MAX_BACK_OFF);
        }
        outlet.finish(Reason::StreamEnded);
        let why = self.control().why.unwrap_or(Ending::Lost);
        self.tell(Change::Ended(why));
    }

    /// Waits until the inputs needed for a beginning are there; with what settings to begin. `None`: the mix is to end.
    fn await_start(&self, outlet: &Outlet) -> Option<Settings> {
        let mut pictures_since = None;
        let mut calm = Calm::default();
        loop {
            if self.is_ending() && !self.is_awaited(outlet) {
                return None;
            }
            if let Some(settings) = self.settings() {
                return Some(settings);
            }
            let now = Instant::now();
            let snapshot = self.refreshed(now);
            self.attend(&snapshot, now);
            let obstacle = self.obstacle(&snapshot, now);
            let after = self.context.config.passthrough_after;
            if self.is_asleep() {
                // What is not known yet of a stream that has just come will be in a moment.
                let open =
                    matches!(obstacle, Some(Obstacle::Unknown(_))) && snapshot.has_new_lead(now);
                if obstacle.is_some() && !open {
                    self.wake(outlet);
                    calm = Calm::default();
                    continue;
                }
                let lead = snapshot.lead_key();
                if snapshot.main().is_none() {
                    self.set_state(MixState::Waiting, None);
                    outlet.leave_to(lead);
                } else if obstacle.is_none()
                    && let Some(lead) = lead
                {
                    self.set_state(MixState::Passing, None);
                    outlet.rest(lead, now);
                }
            } else if calm.has_lasted(after, obstacle.is_some(), now) {
                self.sleep();
                pictures_since = None;
                continue;
            }
            // One that has been on air, or has nobody's place, shows what is asked of the main alone.
            let may =
                self.tally.frames.load(Ordering::Relaxed) > 0 || !self.control().scene.in_place;
            let alone = !outlet.shows_main()
                || may && obstacle.is_some_and(|found| !matches!(found, Obstacle::Company(_)));
            if let Some(base) = self.base(&snapshot, alone, now, &mut pictures_since) {
                tracing::info!(mix = self.id, ?base, "mix starts");
                self.control().base = Some(base);
                self.arrange();
                continue;
            }
            self.signal.wait_until(now + IDLE);
        }
    }

    /// The snapshot, made anew if something has become of an input.
    fn refreshed(&self, now: Instant) -> Arc<Snapshot> {
        let snapshot = self.snapshot.load_full();
        if !snapshot.is_stale(now, self.since_zero(now)) {
            return snapshot;
        }
        self.arrange();
        self.snapshot.load_full()
    }

    /// Tells what has become of the inputs, and ends a mix whose streams have all been gone for too long.
    fn attend(&self, snapshot: &Snapshot, now: Instant) {
        let streams = snapshot.members.iter();
        let streams = streams.filter(|member| !member.leaving && member.source.key().is_some());
        let mut states: Vec<_> = streams
            .map(|member| (member.id.clone(), member.state(&snapshot.on_loss, now)))
            .collect();
        let live = states.iter().any(|(_, state)| *state == InputState::Live);
        let (over, changed) = {
            let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
            let mut changed = Vec::new();
            for (id, to) in &mut states {
                let old = watch.states.iter().find(|(known, _)| known == id);
                let from = old.map_or(InputState::Waiting, |(_, state)| *state);
                // A stream whose decoder has just been made is not gone for that.
                if *to == InputState::Waiting {
                    *to = from;
                }
                if from != *to {
                    let (id, to) = (id.clone(), *to);
                    changed.push(Change::Input { id, from, to });
                }
            }
            watch.states = states;
            let long = self.context.config.abandoned_after;
            (watch.vigil.is_over(long, live, now), changed)
        };
        changed.into_iter().for_each(|change| self.tell(change));
        if over && !self.is_ending() {
            self.end(Ending::Abandoned);
        }
    }

    /// What keeps the main from passing as it is, now; `None`: nothing.
    fn obstacle(&self, snapshot: &Snapshot, now: Instant) -> Option<Obstacle> {
        let mut control = self.control();
        let present: Vec<_> = snapshot
            .members
            .iter()
            .filter(|member| !member.leaving)
            .map(|member| member.is_present(&snapshot.on_loss, now))
            .collect();
        let found = pass::obstacle(&control.scene, &present, snapshot.main().as_ref());
        control.not_passed.clone_from(&found);
        found
    }

    fn is_asleep(&self) -> bool {
        self.control().asleep
    }

    /// The inputs are decoded no more; what the main gave is to be learnt anew.
    fn sleep(&self) {
        {
            let mut control = self.control();
            (control.asleep, control.base) = (true, None);
        }
        self.arrange();
        tracing::info!(mix = self.id, "mix rests");
    }

    /// The inputs are decoded from now on, and the mix goes on the air when they are far enough.
    fn wake(&self, outlet: &Outlet) {
        self.control().asleep = false;
        self.set_state(MixState::Waiting, None);
        self.arrange();
        outlet.resume();
        tracing::info!(mix = self.id, "mix wakes");
    }

    /// Must a mix that is to end go on until the source takes over? Then it needs a pipeline, even a new one: without it
    /// the viewers' picture would stand still until then.
    fn is_awaited(&self, outlet: &Outlet) -> bool {
        let in_place = self.control().scene.in_place;
        let stopping = self.stopping.load(Ordering::Acquire);
        in_place && !stopping && outlet.request_end(Instant::now()) == Status::Ending
    }

    /// What the lead gives, once it and the others are far enough to begin; `alone`: others are not waited for.
    fn base(
        &self,
        snapshot: &Snapshot,
        alone: bool,
        now: Instant,
        pictures_since: &mut Option<Instant>,
    ) -> Option<Base> {
        let lead = snapshot.lead()?;
        let facts = lead.facts();
        let (in_place, output, canvas, sizing) = {
            let control = self.control();
            let scene = &control.scene;
            (
                scene.in_place,
                scene.output.clone(),
                scene.canvas(),
                scene.sizing(),
            )
        };
        if let Some(codec) = facts.foreign()
            && in_place
            && !output.codec_change
        {
            let error = format!(
                "{} is in {codec}, which a mix in place would change; set output.codec_change to allow it",
                lead.key()
            );
            self.control().error = Some(error.clone());
            self.set_state(MixState::Failed, Some(error));
            return None;
        }
        let mut others = snapshot.members.iter().enumerate();
        // Nothing changes for those who see the main before there is something to see or hear besides it.
        let company = alone
            || snapshot.members.len() == 1
            || others.any(|(n, member)| n != snapshot.lead && member.is_ready());
        if !(lead.has_shown() && company) {
            return None;
        }
        let size = match canvas {
            Some(_) => None,
            // 4:2:0 has no odd sides; a stranger's pixel aspect may give one.
            None => {
                let size = snapshot.members.get(sizing?)?.size()?;
                Some(Size::even(size.width.into(), size.height.into()))
            }
        };
        let since = *pictures_since.get_or_insert(now);
        let waited = now.saturating_duration_since(since) > FORMAT_GRACE;
        let fps = match output.fps.or_else(|| lead.fps()) {
            Some(fps) => fps,
            None if waited => DEFAULT_FPS,
            None => return None,
        };
        let audio = match facts.audio {
            Some(audio) => audio.format.encodable(),
            None if waited => DEFAULT_AUDIO,
            None => return None,
        };
        Some(Base { size, fps, audio })
    }

    /// Runs one program pipeline for as long as it is the right one.
    fn produce(&self, settings: &Settings, outlet: &Arc<Outlet>, governor: &mut Governor) -> End {
        let choice = self.context.config.audio_encoder;
        let (encoder, objection) =
            aac::Encoder::choose(choice, settings.audio, settings.audio_kbps);
        if let Some(reason) = objection {
            let instead = encoder.element;
            tracing::warn!(
                mix = self.id,
                reason,
                instead,
                "sound is encoded by another encoder"
            );
        }
        let output = Arc::new(Output::new(
            outlet.clone(),
            self.signal.clone(),
            self.tally.clone(),
            self.context.observer.clone(),
            Metadata {
                size: settings.size,
                fps: settings.fps,
                video_kbps: settings.video_kbps,
                audio_kbps: settings.audio_kbps,
                audio: settings.audio,
            },
            encoder,
        ));
        let mut run = match Run::start(self, settings, encoder, output, governor) {
            Ok(run) => run,
            Err(error) => return End::Failed(error),
        };
        let since = Instant::now();
        let mut asked = false;
        let mut pause = Pause::default();
        let mut lasting = false;
        loop {
            let now = Instant::now();
            if self.stopping.load(Ordering::Acquire) {
                return End::Done;
            }
            if run.is_done() {
                return match outlet.status() {
                    Status::Done => End::Done,
                    _ => End::Resting,
                };
            }
            if self.is_ending() {
                if !self.control().scene.in_place {
                    return End::Done;
                }
                if !std::mem::replace(&mut asked, true) {
                    outlet.request_end(now);
                }
                if outlet.is_overdue() {
                    self.control().error.get_or_insert_with(|| OVERDUE.into());
                }
                if outlet.status() == Status::Done {
                    return End::Done;
                }
            }
            if self.settings().as_ref() != Some(settings) {
                return End::Reformat;
            }
            if let Some(error) = run.error(now) {
                run.give_up(&error, self.context.config.graphs.as_deref());
                return End::Failed(error);
            }
            if now.saturating_duration_since(since) > MAX_BACK_OFF
                && !std::mem::replace(&mut lasting, true)
            {
                // What made the pipeline before it fail is over.
                self.control().error = None;
            }
            let snapshot = self.refreshed(now);
            if pause.is_due(now) {
                self.attend(&snapshot, now);
                if !asked {
                    self.pause(&mut pause, &snapshot, outlet, now);
                }
            }
            let next = run.beat(snapshot, now);
            let wake = self.zero + Duration::from_micros(next.max(0) as u64);
            self.signal.wait_until(wake.min(now + IDLE));
        }
    }

    /// Lets the main pass once there has been nothing to mix for long enough, or goes on with the mix.
    fn pause(&self, pause: &mut Pause, snapshot: &Snapshot, outlet: &Outlet, now: Instant) {
        let in_the_way = self.obstacle(snapshot, now).is_some();
        let after = self.context.config.passthrough_after;
        if pause.calm.has_lasted(after, in_the_way, now) {
            if let Some(lead) = snapshot.lead_key() {
                outlet.rest(lead, now);
            }
        } else if in_the_way {
            outlet.stay();
        }
    }
}

/// When a mix on the air last looked whether there is anything to mix.
#[derive(Default)]
struct Pause {
    calm: Calm,
    looked: Option<Instant>,
}

impl Pause {
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self
            .looked
            .is_none_or(|looked| now.saturating_duration_since(looked) >= IDLE);
        if due {
            self.looked = Some(now);
        }
        due
    }
}
