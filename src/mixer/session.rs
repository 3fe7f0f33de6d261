//! One mix: its inputs, its layout, and the thread that beats time for its output.
//!
//! The thread owns the program pipeline and the publisher, so the mix's life is one straight road: wait for the inputs,
//! produce, end. Control changes the scene under a lock and publishes a [`Snapshot`], which the thread loads once per
//! frame; nothing it does can hold up the other side. No input and no reader can hold up the thread.

mod report;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::aac;
use super::cast::{Snapshot, Stills};

use super::encoder::Encoder;
use super::format::{AudioFormat, DEFAULT_AUDIO, Metadata, default_video_kbps};
use super::governor::{Governor, Rung};
use super::info::MixState;
use super::input::Input;
use super::layout::Size;
use super::letters::Fonts;
use super::output::{Output, SharedObserver, Tally};

use super::program::{Program, Settings};
use super::run::Run;
use super::scene::{Scene, Tracks};
use super::signal::Signal;
use super::source::Sources;
use super::{Config, Error, Observer, priority};
use crate::media::StreamKey;
use crate::reason::Reason;
use crate::relay::{Publisher, Relay, Status};

/// Frame rate of a mix whose lead tells none: the rate of European cameras, and a whole number of ms.
const DEFAULT_FPS: u32 = 25;
/// How long a lead with pictures may leave its frame rate and sound format open.
const FORMAT_GRACE: Duration = Duration::from_secs(1);
/// Longest sleep of the thread: how soon it sees what nobody rings for.
pub(super) const IDLE: Duration = Duration::from_millis(100);
/// What a mix says that cannot end: the relay waits for a key frame of the source, and tells after 10 s.
const OVERDUE: &str =
    "cannot end: no key frame from the main for 10 s; its encoder should send one";
/// First and longest pause before a program pipeline is made anew.
const BACK_OFF: Duration = Duration::from_millis(100);
const MAX_BACK_OFF: Duration = Duration::from_secs(5);

/// What every session is made with.
#[derive(Clone)]
pub(super) struct Context {
    pub relay: Relay,
    pub sources: Sources,
    pub config: Config,
    pub fonts: Arc<Fonts>,
    pub observer: Arc<SharedObserver>,
    pub encoder: Encoder,
    #[cfg(test)]
    pub faults: Arc<super::tests::faults::Faults>,
}

/// What the lead gave when the mix started; kept whatever becomes of the lead.
#[derive(Debug, Clone, Copy)]
struct Base {
    /// `None`: the scene itself said it.
    size: Option<Size>,
    fps: u32,
    audio: AudioFormat,
}

struct Control {
    scene: Scene,
    stills: Stills,
    revision: u64,
    state: MixState,
    error: Option<String>,
    base: Option<Base>,
}

/// One mix. Shared by its thread and the API.
pub(super) struct Session {
    id: String,
    zero: Instant,
    context: Context,
    signal: Arc<Signal>,
    tally: Arc<Tally>,
    control: Mutex<Control>,
    snapshot: ArcSwap<Snapshot>,
    ending: AtomicBool,
    /// End without waiting for a splice.
    stopping: AtomicBool,
}

/// Why a pipeline's run ended.
enum End {
    Done,
    /// The output's format was changed.
    Reformat,
    Failed(String),
}

impl Session {
    /// Starts the mix and its thread. `zero` is the moment of the publisher's time 0. `ended` is called on the thread
    /// as the last thing.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        id: &str,
        scene: Scene,
        stills: Stills,
        publisher: Publisher,
        zero: Instant,
        context: Context,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Arc<Self>, Error> {
        let session = Arc::new(Self {
            id: id.to_owned(),
            zero,
            context,
            signal: Arc::default(),
            tally: Arc::default(),
            control: Mutex::new(Control {
                scene,
                stills,
                revision: 1,
                state: MixState::Waiting,
                error: None,
                base: None,
            }),
            snapshot: ArcSwap::from_pointee(Snapshot::empty()),
            ending: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        session.arrange();
        let thread = session.clone();
        std::thread::Builder::new()
            .name("mix".into())
            .spawn(move || {
                priority::step_back();
                thread.run(publisher);
                drop(thread);
                ended();
            })
            .map_err(|e| Error::Unavailable(format!("no thread for a mix: {e}")))?;
        Ok(session)
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        // Complete after every statement, so readable after a panic.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn scene(&self) -> Scene {
        self.control().scene.clone()
    }

    /// Is that what it shows, and going to go on showing?
    pub fn has(&self, scene: &Scene) -> bool {
        !self.is_ending() && self.control().scene == *scene
    }

    pub fn stills(&self) -> Stills {
        self.control().stills.clone()
    }

    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Replaces the scene. The output keeps running; a change of its format makes new headers and a key frame.
    pub fn change(&self, scene: Scene, stills: Stills) {
        {
            let mut control = self.control();
            (control.scene, control.stills) = (scene, stills);
            control.revision += 1;
        }
        self.arrange();
        self.signal.ring();
    }

    /// Asks the mix to end with a clean splice.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
        self.control().state = MixState::Ending;
        self.signal.ring();
    }

    /// Ends the mix at once.
    pub fn stop(&self) {
        self.end();
        self.stopping.store(true, Ordering::Release);
        self.signal.ring();
    }

    /// Makes the snapshot of the scene as it is now.
    fn arrange(&self) {
        let control = self.control();
        let now = Instant::now();
        let on_air = matches!(control.state, MixState::Live | MixState::Ending);
        let snapshot = self.snapshot.load().next(
            &control.scene,
            &control.stills,
            control.canvas(),
            now,
            on_air.then(|| self.since_zero(now)),
            |key, tracks| self.input(key, tracks),
        );
        snapshot.direct(control.audio().map(|audio| audio.rate));
        self.snapshot.store(Arc::new(snapshot));
    }

    fn since_zero(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.zero)
    }

    fn input(&self, key: StreamKey, tracks: Tracks) -> Input {
        let sources = &self.context.sources;
        Input::new(key, tracks, sources, self.zero, self.signal.clone())
    }

    /// The mix as it is arranged now.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub(super) fn signal(&self) -> &Signal {
        &self.signal
    }

    pub(super) fn now_us(&self, now: Instant) -> i64 {
        self.since_zero(now).as_micros() as i64
    }

    fn run(&self, publisher: Publisher) {
        let publisher = Arc::new(publisher);
        let mut back_off = BACK_OFF;
        let mut governor = None;
        while let Some(settings) = self.await_start(&publisher) {
            self.set_state(MixState::Starting);
            let since = Instant::now();
            let governing =
                governor.get_or_insert_with(|| Governor::new(self.steps(&settings), since));
            let error = match self.produce(&settings, &publisher, governing) {
                End::Done => break,
                End::Reformat => {
                    // Another format is another load.
                    governor = None;
                    self.tally.level.store(0, Ordering::Relaxed);
                    continue;
                }
                End::Failed(error) => error,
            };
            self.tally.restarts.fetch_add(1, Ordering::Relaxed);
            self.observe(|o| o.restarted());
            tracing::warn!(mix = self.id, error, "program pipeline failed");
            self.set_state(MixState::Starting);
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
        let in_place = self.control().scene.in_place;
        // The output that shared it is gone with its pipeline.
        if let Some(publisher) = Arc::into_inner(publisher)
            && !in_place
        {
            publisher.finish(Reason::StreamEnded);
        }
        tracing::info!(mix = self.id, "mix ended");
    }

    /// How many steps of the settings' ladder it may take.
    fn steps(&self, settings: &Settings) -> usize {
        if self.context.config.degrade {
            settings.rungs()
        } else {
            1
        }
    }

    fn set_state(&self, state: MixState) {
        let mut control = self.control();
        if control.state != MixState::Ending {
            control.state = state;
        }
    }

    /// Waits until the inputs needed for a beginning are there; with what settings to begin. `None`: the mix is to end.
    fn await_start(&self, publisher: &Publisher) -> Option<Settings> {
        let mut pictures_since = None;
        loop {
            if self.is_ending() && !self.is_awaited(publisher) {
                return None;
            }
            if let Some(settings) = self.settings() {
                return Some(settings);
            }
            let now = Instant::now();
            let snapshot = self.snapshot.load_full();
            if let Some(base) = self.base(&snapshot, now, &mut pictures_since) {
                tracing::info!(mix = self.id, ?base, "mix starts");
                self.control().base = Some(base);
                self.arrange();
                continue;
            }
            self.signal.wait_until(now + IDLE);
        }
    }

    /// Must a mix that is to end go on until the source takes over? Then it needs a pipeline, even a new one: without it
    /// the viewers' picture would stand still until then.
    fn is_awaited(&self, publisher: &Publisher) -> bool {
        let in_place = self.control().scene.in_place;
        let stopping = self.stopping.load(Ordering::Acquire);
        in_place && !stopping && publisher.request_end(Instant::now()) == Status::Ending
    }

    /// What the lead gives, once it and the others are far enough to begin.
    fn base(
        &self,
        snapshot: &Snapshot,
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
            let mut control = self.control();
            control.state = MixState::Failed;
            control.error = Some(format!(
                "{} is in {codec}, which a mix in place would change; set output.codec_change to allow it",
                lead.key()
            ));
            return None;
        }
        let mut others = snapshot.members.iter().enumerate();
        // In place nothing changes for the viewers before there is something to see or hear besides the main.
        let company = !in_place
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

    /// The output's format as of now; `None` until the lead has told what the scene leaves open.
    fn settings(&self) -> Option<Settings> {
        let control = self.control();
        let base = control.base?;
        let size = control.canvas()?;
        let output = &control.scene.output;
        let config = &self.context.config;
        let fps = output.fps.unwrap_or(base.fps);
        Some(Settings {
            size,
            fps,
            video_kbps: output
                .video_kbps
                .or(config.video_kbps)
                .unwrap_or_else(|| default_video_kbps(size, fps)),
            audio: control.audio()?,
            audio_kbps: output.audio_kbps.unwrap_or(config.audio_kbps),
            encoder: self.context.encoder,
            preset: output.preset.unwrap_or(&config.preset).to_owned(),
            key_frame_interval: output.gop.unwrap_or(config.key_frame_interval),
        })
    }

    /// Runs one program pipeline for as long as it is the right one.
    fn produce(
        &self,
        settings: &Settings,
        publisher: &Arc<Publisher>,
        governor: &mut Governor,
    ) -> End {
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
            publisher.clone(),
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
        let mut lasting = false;
        loop {
            let now = Instant::now();
            if self.stopping.load(Ordering::Acquire) || run.is_done() {
                return End::Done;
            }
            if self.is_ending() {
                if !std::mem::replace(&mut asked, true) {
                    tracing::info!(mix = self.id, "mix ends");
                    publisher.request_end(now);
                }
                if publisher.is_overdue() {
                    self.control().error.get_or_insert_with(|| OVERDUE.into());
                }
                if !self.control().scene.in_place || publisher.status() == Status::Done {
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
            let mut snapshot = self.snapshot.load_full();
            if snapshot.is_stale(now, self.since_zero(now)) {
                self.arrange();
                snapshot = self.snapshot.load_full();
            }
            let next = run.beat(snapshot, now);
            let wake = self.zero + Duration::from_micros(next.max(0) as u64);
            self.signal.wait_until(wake.min(now + IDLE));
        }
    }

    pub(super) fn fonts(&self) -> Arc<Fonts> {
        self.context.fonts.clone()
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The least patience with a late input.
    pub(super) fn deadline_us(&self) -> i64 {
        self.context.config.deadline.as_micros() as i64
    }

    /// Frames come out.
    pub(super) fn live(&self) {
        let mut control = self.control();
        if control.state == MixState::Starting {
            control.state = MixState::Live;
        }
    }

    pub(super) fn observe(&self, tell: impl Fn(&dyn Observer)) {
        let observer = &self.context.observer;
        let observer = observer.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(observer) = observer.as_deref() {
            tell(observer);
        }
    }

    /// The program has taken a step of its ladder, down to or up to `rung`.
    pub(super) fn stepped(&self, before: usize, after: usize, rung: &Rung) {
        self.tally.level.store(after, Ordering::Relaxed);
        let (preset, half) = (&rung.preset, rung.half);
        if after > before {
            tracing::warn!(
                mix = self.id,
                preset,
                half,
                "too much for the encoder: mix degraded"
            );
        } else {
            tracing::info!(mix = self.id, preset, half, "there is room: mix upgraded");
        }
        self.observe(|o| o.stepped(after > before));
    }

    /// A video encoder was made.
    pub(super) fn made(&self, program: &mut Program<Output>) {
        #[cfg(test)]
        self.context.faults.made(program.pictures());
        let _ = program;
    }

    pub(super) fn zero(&self) -> Instant {
        self.zero
    }

    /// The moment of that time since the mix's zero, in µs.
    pub(super) fn instant(&self, us: i64) -> Instant {
        self.zero + Duration::from_micros(us.max(0) as u64)
    }
}

impl Control {
    fn canvas(&self) -> Option<Size> {
        self.scene.canvas().or(self.base?.size)
    }

    fn audio(&self) -> Option<AudioFormat> {
        let base = self.base?.audio;
        let output = &self.scene.output;
        Some(AudioFormat {
            rate: output.sample_rate.unwrap_or(base.rate),
            channels: output.channels.unwrap_or(base.channels),
        })
    }
}
