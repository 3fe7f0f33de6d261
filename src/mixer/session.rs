//! One mix: its inputs, its layout, and the thread that beats time for its output.
//!
//! The thread owns the program pipeline and the outlet, so the mix's life is one straight road: wait for the inputs,
//! produce, end. Control changes the scene under a lock and publishes a [`Snapshot`], which the thread loads once per
//! frame; nothing it does can hold up the other side. No input and no reader can hold up the thread.

mod life;
mod report;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::cast::{Actor, Snapshot, Stills, Turn};
use super::encoder::Encoder;
use super::event::{Change, Ending, Herald, Vigil};
use super::format::{AudioFormat, default_video_kbps};
use super::governor::Rung;
use super::info::MixState;
use super::input::{Input, InputState};
use super::layout::Size;
use super::letters::Fonts;
use super::outlet::Outlet;
use super::output::{Output, SharedObserver, Tally};
use super::pass::Obstacle;
use super::program::{Program, Settings};
use super::scene::{Passthrough, Scene, Tracks};
use super::sentinel::Sentinel;
use super::signal::Signal;
use super::source::Sources;
use super::{Config, Error, Observer, priority};
use crate::logging::{self, RequestId};
use crate::media::StreamKey;
use crate::net::contained;
use crate::relay::Relay;

pub(super) use life::IDLE;

/// What every session is made with.
#[derive(Clone)]
pub(super) struct Context {
    pub relay: Relay,
    pub sources: Sources,
    pub runtime: tokio::runtime::Handle,
    pub config: Config,
    pub fonts: Arc<Fonts>,
    pub observer: Arc<SharedObserver>,
    pub herald: Arc<Herald>,
    pub encoder: Encoder,
    #[cfg(test)]
    pub faults: Arc<super::tests::faults::Faults>,
}

/// What a mix begins with.
pub(super) struct Beginning {
    pub scene: Scene,
    pub stills: Stills,
    pub outlet: Outlet,
    /// The moment of the output's time 0.
    pub zero: Instant,
    /// How long it has been without any of its streams.
    pub idle: Duration,
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
    /// The inputs are not decoded: there is nothing to mix.
    asleep: bool,
    /// What keeps the main from passing as it is.
    not_passed: Option<Obstacle>,
    /// Why it ends, once it does.
    why: Option<Ending>,
    /// The latest call of an API that made, changed or ended it.
    request: Option<RequestId>,
}

/// What was told of the inputs so far.
struct Watch {
    vigil: Vigil,
    states: Vec<(Arc<str>, InputState)>,
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
    watch: Mutex<Watch>,
    ending: AtomicBool,
    /// End without waiting for a splice.
    stopping: AtomicBool,
}

/// Why a pipeline's run ended.
enum End {
    Done,
    /// The output's format was changed.
    Reformat,
    /// The source has the program feed back, for as long as there is nothing to mix.
    Resting,
    Failed(String),
}

impl Session {
    /// Starts the mix and its thread. `ended` is called on the thread as the last thing.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        id: &str,
        beginning: Beginning,
        context: Context,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Arc<Self>, Error> {
        let Beginning {
            scene,
            stills,
            outlet,
            zero,
            idle,
        } = beginning;
        let asleep = scene.output.passthrough == Passthrough::Auto;
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
                asleep,
                not_passed: None,
                why: None,
                request: logging::request(),
            }),
            watch: Mutex::new(Watch {
                vigil: Vigil::new(Instant::now(), idle),
                states: Vec::new(),
            }),
            snapshot: ArcSwap::from_pointee(Snapshot::empty()),
            ending: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        session.arrange();
        let builder = std::thread::Builder::new().name("mix".into());
        #[cfg(test)]
        let builder = session.context.faults.thread(builder);
        let thread = session.clone();
        let control = session.control();
        builder
            .spawn(move || {
                priority::step_back();
                if contained("a mix", || thread.run(outlet)).is_none() {
                    // Its outlet is gone with it, so the name is the source's again.
                    thread.tell(Change::Ended(Ending::Lost));
                }
                drop(thread);
                ended();
            })
            .map_err(|e| Error::Unavailable(format!("no thread for a mix: {e}")))?;
        // Of one without a thread nothing is told; what the thread tells comes after this.
        session.tell_of(&control, Change::Started);
        drop(control);
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
            control.request = logging::request().or(control.request.take());
        }
        self.arrange();
        self.signal.ring();
    }

    /// Asks the mix to end with a clean splice.
    pub fn end(&self, why: Ending) {
        {
            let mut control = self.control();
            control.why.get_or_insert(why);
            control.request = logging::request().or(control.request.take());
        }
        self.set_state(MixState::Ending, Some(why.to_string()));
        self.ending.store(true, Ordering::Release);
        self.signal.ring();
    }

    /// It stands there from now on; one that ends does so until it is gone.
    fn set_state(&self, state: MixState, why: Option<String>) {
        let mut control = self.control();
        if control.state == state || control.state == MixState::Ending {
            return;
        }
        control.state = state;
        self.tell_of(&control, Change::State { state, why });
    }

    fn tell(&self, change: Change) {
        let mut control = self.control();
        if let Change::Ended(_) = change {
            // What is gone stands nowhere else any more, whoever asks it to end now.
            control.state = MixState::Ending;
        }
        self.tell_of(&control, change);
    }

    /// Under the lock, so that changes are told in the order in which they became true. The herald takes none of our locks.
    fn tell_of(&self, control: &Control, change: Change) {
        let output = &control.scene.output.key;
        let request = control.request.clone();
        self.context.herald.tell(&self.id, output, change, request);
    }

    /// Ends the mix at once.
    pub fn stop(&self) {
        self.end(Ending::Asked);
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
            Turn {
                now,
                moves_at: on_air.then(|| self.since_zero(now)),
                awake: !control.asleep,
            },
            |key, tracks, last| match control.asleep {
                true => Actor::Asleep(Arc::new(self.sentinel(key, last))),
                false => Actor::Stream(Arc::new(self.input(key, tracks))),
            },
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

    fn sentinel(&self, key: StreamKey, last: Option<Instant>) -> Sentinel {
        let Context { relay, runtime, .. } = &self.context;
        Sentinel::new(key, last, relay, runtime, self.signal.clone())
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

    /// How many steps of the settings' ladder it may take.
    fn steps(&self, settings: &Settings) -> usize {
        if self.context.config.degrade {
            settings.rungs()
        } else {
            1
        }
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
        if self.control().state == MixState::Starting {
            self.set_state(MixState::Live, None);
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

    /// A video encoder is about to be made in place of another.
    pub(super) fn making(&self, settings: Settings) -> Settings {
        #[cfg(test)]
        let settings = self.context.faults.making(settings);
        settings
    }

    /// A video encoder was made.
    pub(super) fn made(&self, program: &mut Program<Output>) {
        #[cfg(test)]
        self.context
            .faults
            .made(program.pictures(), program.voice());
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
