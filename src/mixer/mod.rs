//! The mixer: turns several streams into one picture and one sound, and publishes it like any other stream.
//!
//! Owns the mixes: their scenes, decoders, beat and encoders. Reads source feeds as a subscriber and publishes as a
//! publisher, in place of a name's program feed or under a new name; what becomes of its messages is the relay's
//! affair. Refuses to know the API, signatures and players. Driven by `api` through [`Mixer`]. The only room that
//! names GStreamer.

mod aac;
mod admit;
mod album;
mod audio;
mod beat;
mod canvas;
mod capacity;
mod cast;
mod clock;
mod codec;
mod cost;
mod decode;
mod encoder;
mod equipment;
mod error;
mod event;
mod feed;
mod fetch;
mod format;
mod governor;
mod graph;
mod info;
mod input;
pub mod layout;
mod letters;
mod observer;
mod outlet;
mod output;
mod pass;
mod picture;
mod preview;
mod priority;
mod program;
mod put;
mod recolour;
mod resample;
mod run;
pub mod scene;
mod sentinel;
mod session;
mod shape;
mod signal;
mod size;
mod slot;
mod snapshot;
mod source;
mod sps;
mod stage;
mod stills;
mod stops;
#[cfg(test)]
mod tests;
mod tick;
mod user_data;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use ipnet::IpNet;
use tokio::sync::{Notify, broadcast};

pub use aac::AudioEncoder;
pub use capacity::Load;
pub use encoder::Choice as EncoderChoice;
pub use equipment::{Equipment, Fitness, equipment};
pub use error::{Clash, Error};
pub use event::{Change, Ending, Event};
pub use info::{DegradedInfo, InputInfo, LatencyInfo, MixInfo, MixState, OutputInfo, Stats};
pub use input::InputState;
pub use layout::{Rect, Size};
pub use observer::{Observer, Stage};
pub use preview::{LayoutInfo, Placed, Preview, Wish};
pub use put::Prepared;
pub use scene::{
    InputRequest, Length, MAX_INPUTS, MixRequest, OutputRequest, PRESETS, Scene, Template,
};
pub use snapshot::{Snapshot, SnapshotError};

use crate::media::Kind;
use crate::media::vitals::Spread;
use crate::relay::Relay;
use encoder::Encoder;
use letters::Fonts;
use output::SharedObserver;
use scene::Draft;
use session::{Context, Session};
use source::Sources;
use stills::Gallery;

/// Longest id of a mix.
pub const MAX_ID_BYTES: usize = 80;
/// Mixes that one stream may be in at once: the vendor's limit, and the pictures of each are scaled in the stream's one
/// decoder thread.
pub const MAX_MIXES_OF_A_STREAM: usize = 20;
/// Mixes that end with a splice get this long at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
/// Elements that the pipelines are made of, by the Debian package that has them.
const ELEMENTS: [(&str, &[&str]); 4] = [
    ("libgstreamer1.0-0", &["capsfilter"]),
    (
        "gstreamer1.0-plugins-base",
        &[
            "appsrc",
            "appsink",
            "audioconvert",
            "audioresample",
            "videoconvert",
            "videoscale",
        ],
    ),
    (
        "gstreamer1.0-libav",
        &["avdec_h264", "avdec_aac", "avenc_aac"],
    ),
    ("gstreamer1.0-plugins-ugly", &["x264enc"]),
];

/// How mixes are made. Defaults are those of config/linkmic.toml.
#[derive(Debug, Clone)]
pub struct Config {
    pub video_encoder: encoder::Choice,
    /// What mixes may cost together, in units of `cost`; `None`: three quarters of the machine's cores.
    pub budget: Option<u32>,
    /// May mixes step down when their encoder cannot keep up?
    pub degrade: bool,
    /// x264's speed preset.
    pub preset: String,
    /// What encodes the sound, where it can.
    pub audio_encoder: AudioEncoder,
    /// AAC bitrate where the request names none.
    pub audio_kbps: u32,
    /// Video bitrate where the request names none; `None`: 0.1 bit per pixel, 200 to 8000.
    pub video_kbps: Option<u32>,
    /// How long an output frame waits for a late input, at least; a mix whose inputs are usually later waits longer,
    /// up to 200 ms.
    pub deadline: Duration,
    pub key_frame_interval: Duration,
    /// A mix in which there has been nothing to mix for this long lets the main pass as it is.
    pub passthrough_after: Duration,
    /// A mix whose inputs have all been gone for this long ends.
    pub abandoned_after: Duration,
    /// Files of still pictures (PNG, JPEG) by the ids that requests name them by.
    pub pictures: BTreeMap<String, PathBuf>,
    /// Internal networks from which pictures may be fetched; all others are refused.
    pub picture_networks: Vec<IpNet>,
    /// Font files for names, in the order in which they are asked for a letter; none: the usual ones that are there.
    pub fonts: Vec<PathBuf>,
    /// Folder for the graphs of pipelines that failed, the newest 16; `None`: none are written.
    pub graphs: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            video_encoder: encoder::Choice::Auto,
            budget: None,
            degrade: true,
            preset: "superfast".into(),
            audio_encoder: AudioEncoder::Auto,
            audio_kbps: 96,
            video_kbps: None,
            deadline: Duration::from_millis(40),
            key_frame_interval: Duration::from_secs(2),
            passthrough_after: Duration::from_secs(10),
            abandoned_after: Duration::from_secs(15 * 60),
            pictures: BTreeMap::new(),
            picture_networks: Vec::new(),
            fonts: Vec::new(),
            graphs: None,
        }
    }
}

/// What a PUT did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Changed,
    /// The scene is the one that was there.
    Unchanged,
}

/// All mixes of this server. Cheap to clone.
#[derive(Clone)]
pub struct Mixer {
    shared: Arc<Shared>,
}

struct Shared {
    context: Context,
    gallery: Gallery,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    /// Woken when a mix is gone.
    gone: Notify,
}

impl Mixer {
    /// Prepares GStreamer. Call it inside the runtime that the mixes' reading shall run on.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when GStreamer does not start or an element is missing (named, with its Debian package);
    /// [`Error::Invalid`] for a configuration that makes no sense.
    pub fn new(relay: Relay, config: Config) -> Result<Self, Error> {
        if !PRESETS.contains(&config.preset.as_str()) {
            return Err(Error::Invalid {
                path: "preset".into(),
                message: format!("{:?} is none of {}", config.preset, PRESETS.join(", ")),
            });
        }
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|_| Error::Unavailable("the mixer needs a tokio runtime".into()))?;
        gst::init().map_err(|e| Error::Unavailable(format!("GStreamer does not start: {e}")))?;
        for (package, elements) in ELEMENTS {
            for element in elements {
                if gst::ElementFactory::find(element).is_none() {
                    return Err(Error::Unavailable(format!(
                        "GStreamer element {element} is missing; on Debian and Ubuntu: apt-get install {package}"
                    )));
                }
            }
        }
        let fonts = Fonts::new(&config.fonts).map_err(|error| Error::Invalid {
            path: "fonts".into(),
            message: error.to_string(),
        })?;
        let encoder = Encoder::find(config.video_encoder).map_err(Error::Unavailable)?;
        tracing::info!(%encoder, "mixes are encoded");
        let gallery = Gallery::new(config.pictures.clone(), config.picture_networks.clone());
        let context = Context {
            sources: Sources::new(relay.clone(), runtime.clone(), config.graphs.clone()),
            runtime,
            relay,
            config,
            fonts: Arc::new(fonts),
            observer: Arc::default(),
            encoder,
            #[cfg(test)]
            faults: Arc::default(),
            herald: Arc::new(event::Herald::new()),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                context,
                gallery,
                sessions: Mutex::default(),
                gone: Notify::new(),
            }),
        })
    }

    /// Who is told about output frames from now on.
    pub fn set_observer(&self, observer: Arc<dyn Observer>) {
        let slot: &SharedObserver = &self.shared.context.observer;
        *slot.write().unwrap_or_else(PoisonError::into_inner) = Some(observer);
    }

    /// What becomes of mixes and their inputs, from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.context.herald.listen()
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.shared.sessions()
    }

    /// The scene of a request as an image, drawn as a mix would draw it. What a mix refuses and can be drawn, like a box
    /// that leaves the canvas, is warned of. Fetches still pictures as [`Self::put`] does, and blocks for that long.
    ///
    /// # Errors
    /// [`Error::Invalid`] and [`Error::Picture`] as for [`Self::put`], and the former for a width outside 16 to 3000.
    pub fn preview(&self, request: &MixRequest, wish: Wish) -> Result<Preview, Error> {
        let sides = scene::MIN_SIDE..=scene::MAX_SIDE;
        if let Some(width) = wish.width.filter(|width| !sides.contains(width)) {
            let (least, most) = (sides.start(), sides.end());
            return Err(Error::Invalid {
                path: "width".into(),
                message: format!("{width} is outside {least} to {most} pixels"),
            });
        }
        let draft = Scene::draft(request)?;
        self.check_engine(&draft)?;
        let sessions: Vec<_> = self.sessions().values().cloned().collect();
        let kept = sessions
            .iter()
            .flat_map(|session| session.stills())
            .collect();
        let stills = self.stills(&draft.scene, &draft.order, &kept)?;
        let sights: Vec<_> = draft
            .scene
            .inputs
            .iter()
            .map(|input| {
                let key = input.key()?;
                sessions.iter().find_map(|session| session.sight(key))
            })
            .collect();
        let fonts = self.shared.context.fonts.clone();
        preview::draw(&draft, &stills, &sights, fonts, wish)
            .map_err(|error| Error::Unavailable(format!("the preview cannot be drawn: {error}")))
    }

    /// Refuses what can be said and not be shown, for want of letters.
    fn check_engine(&self, draft: &Draft) -> Result<(), Error> {
        for (input, index) in draft.scene.inputs.iter().zip(&draft.order) {
            let Some(name) = &input.name else { continue };
            let fonts = &self.shared.context.fonts;
            fonts.check(&name.text).map_err(|error| Error::Invalid {
                path: format!("inputs[{index}].name.text"),
                message: error.to_string(),
            })?;
        }
        Ok(())
    }

    /// The mix as it stands.
    pub fn get(&self, id: &str) -> Option<MixInfo> {
        let session = self.sessions().get(id).cloned()?;
        Some(session.info())
    }

    /// All mixes by id.
    pub fn list(&self) -> Vec<MixInfo> {
        let sessions: Vec<_> = self.sessions().values().cloned().collect();
        let mut infos: Vec<_> = sessions.iter().map(|s| s.info()).collect();
        infos.sort_by(|a, b| a.id.cmp(&b.id));
        infos
    }

    /// How long the latest pictures of a mix's main were in each stage, by its word, and in all of them (`added`).
    pub fn stages(&self, id: &str) -> Vec<(&'static str, Spread)> {
        let session = self.sessions().get(id).cloned();
        session.map_or_else(Vec::new, |session| session.tally().spreads())
    }

    /// How many inputs of all mixes are in each state; only streams count.
    pub fn input_states(&self) -> [(InputState, usize); 5] {
        let sessions: Vec<_> = self.sessions().values().cloned().collect();
        let now = Instant::now();
        let states: Vec<_> = sessions.iter().flat_map(|s| s.input_states(now)).collect();
        InputState::ALL.map(|state| (state, states.iter().filter(|&&s| s == state).count()))
    }

    /// Decoders at work, of pictures or of sound: one for each stream, however many mixes use it.
    pub fn decoders(&self, kind: Kind) -> usize {
        self.shared.context.sources.decoders(kind)
    }

    /// Resolves when a mix is gone after this call, which is to say before the future is first polled too.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + '_ {
        self.shared.gone.notified()
    }

    /// Asks the mix to end. In place it goes on until the source takes over at its next key frame; the mix is gone from
    /// [`Self::list`] when it has ended.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn remove(&self, id: &str) -> Result<MixInfo, Error> {
        let session = self.sessions().get(id).cloned().ok_or(Error::NotFound)?;
        session.end(Ending::Asked);
        Ok(session.info())
    }

    /// Ends all mixes and returns when they are gone, which takes a few seconds at most.
    ///
    /// # Cancel safety
    /// When dropped, the mixes go on ending.
    pub async fn shutdown(&self) {
        for session in self.sessions().values() {
            session.end(Ending::Asked);
        }
        if tokio::time::timeout(SHUTDOWN_GRACE, self.empty())
            .await
            .is_err()
        {
            for session in self.sessions().values() {
                session.stop();
            }
            self.empty().await;
        }
    }

    async fn empty(&self) {
        loop {
            let gone = self.shared.gone.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            if self.sessions().is_empty() {
                return;
            }
            gone.await;
        }
    }
}

impl fmt::Debug for Mixer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.sessions().keys().cloned().collect();
        f.debug_struct("Mixer")
            .field("mixes", &ids)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        // The map is valid after every statement.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
