//! What a soak is played on: the binary in a process of its own, a CDN, two back ends of which one is dead, and clips.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use linkmic::load::{Clip, Shape};
use linkmic::probe::Size;
use linkmic::probe::http;
use linkmic::probe::sync;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Mutex, watch};

use super::account::Account;
use super::crowd::Tally;
use super::mixes::Stage;
use super::plan::{Dice, Scale};
use crate::abuse::binary::Binary;
use crate::edge::house::Urls;
use crate::hooks::receiver::{Receiver, Reply};
use crate::numbers::Numbers;

/// Every picture is of this size.
pub const SIZE: Size = Size::new(320, 180);
pub const FPS: u32 = 15;
/// Seconds of each clip that flashes and beeps.
const CLIP_SECONDS: u32 = 41;
/// Beeps of the anchors of a mix, its main first: 1 kHz apart.
pub const TONES: [f64; Scale::FIRST] = [1000.0, 2000.0, 3000.0];
/// Video of anchors whose pictures nobody decodes.
const PLAIN: Shape = Shape {
    fps: FPS,
    gop: FPS,
    kbps: 150,
};

/// What everybody in a soak shares.
pub struct World {
    pub scale: Scale,
    pub urls: Arc<Urls>,
    pub http: SocketAddr,
    pub control: http::Client,
    pub server: Mutex<Binary>,
    pub account: Arc<Account>,
    pub tally: Tally,
    /// Whether there are to be players.
    pub open: watch::Sender<bool>,
    /// Whether there are to be anchors and mixes.
    pub on_air: watch::Sender<bool>,
    pub stages: Vec<Stage>,
    /// A back end that takes everything.
    pub hooks: Receiver,
    /// One that takes nothing.
    _dead: Receiver,
    /// Whether it says so at once, and leaves no connection open without a word: for moments in which those are counted.
    pub hushed: Arc<AtomicBool>,
    /// Names of all that can be played: the anchors first, then what mixes make.
    pub names: Vec<String>,
    reloads: AtomicUsize,
    more: String,
}

/// The clips, in a folder that goes with them.
pub struct Clips {
    pub folder: TempDir,
    /// One for each tone, as a file.
    pub files: Vec<PathBuf>,
    /// The same, ready to be sent.
    pub sent: Vec<Arc<Clip>>,
    /// From flash to beep in each, ms.
    pub own: Vec<f64>,
    /// What anchors send that nobody mixes.
    pub plain: Arc<Clip>,
}

impl Clips {
    pub async fn make() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut files, mut sent, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for (n, tone) in TONES.into_iter().enumerate() {
            let file = folder.path().join(format!("{n}.flv"));
            let clip = sync::Clip {
                size: SIZE,
                fps: FPS,
                tone,
                // Lengths that differ, so that the events of each come at other moments than those of the others.
                seconds: CLIP_SECONDS + 2 * n as u32,
            };
            clip.write(&file).await.expect("ffmpeg makes the clip");
            let flashes = sync::flashes(&file, SIZE.whole()).await.expect("pictures");
            let beeps = sync::beeps(&file, tone).await.expect("sound");
            own.push(sync::median(&sync::offsets(&flashes, &beeps)));
            sent.push(Arc::new(Clip::read(&file).expect("a clip")));
            files.push(file);
        }
        Self {
            folder,
            files,
            sent,
            own,
            plain: Arc::new(Clip::synthetic(PLAIN)),
        }
    }
}

impl World {
    pub async fn build(scale: Scale) -> Self {
        let hooks = Receiver::open().await;
        let hushed = Arc::new(AtomicBool::new(false));
        let is_hushed = hushed.clone();
        let dead = Receiver::deciding(None, move |_, count| {
            match is_hushed.load(Relaxed) || count.is_multiple_of(2) {
                true => Reply::Says(503, "never"),
                false => Reply::Silence,
            }
        });
        let dead = dead.await;
        let hook = |url: String| {
            format!(
                "[[hooks.webhooks]]\nurl = \"{url}\"\nsecret = \"soak-0123456789abcdef\"\n\
                 events = [\"publish\", \"unpublish\", \"mix\", \"input\", \"push\", \"link\"]\n"
            )
        };
        let more = format!(
            "[classes.low_latency]\nreaders_per_name = 0\n\
             [limits]\nwait = \"20s\"\nwaiting_per_name = 1000\nwaiting_per_address = 1000\n\
             [mixer]\nbudget = 10000\n{}{}",
            hook(hooks.url("/hook")),
            hook(dead.url("/dead")),
        );
        let server = Binary::serve(&more).await;
        let stages: Vec<Stage> = (0..scale.mixes)
            .map(|mix| Stage::new(&scale, mix))
            .collect();
        let mut names: Vec<String> = (0..scale.publishers).map(anchor_name).collect();
        let made = stages.iter().filter(|stage| !stage.in_place);
        names.extend(made.map(|stage| stage.output.clone()));
        Self {
            urls: server.urls(),
            http: server.http,
            control: server.control.clone(),
            server: Mutex::new(server),
            account: Arc::default(),
            tally: Tally::default(),
            open: watch::channel(false).0,
            on_air: watch::channel(false).0,
            stages,
            hooks,
            _dead: dead,
            hushed,
            names,
            reloads: AtomicUsize::new(0),
            more,
            scale,
        }
    }

    /// What somebody plays who comes now. Only anchors have a source feed.
    pub fn some_stream(&self, dice: &mut Dice, anchors_only: bool) -> String {
        let among = match anchors_only {
            true => self.scale.publishers,
            false => self.names.len(),
        };
        self.names[dice.roll(among as u64) as usize].clone()
    }

    /// A call that has to succeed: what it answers. `None`, and a complaint, when it does not.
    pub async fn changes(&self, method: &str, path: &str, body: Option<Value>) -> Option<Value> {
        let body = body.map(|body| body.to_string());
        let answer = self.control.request(method, path, body).await;
        self.succeeded(method, path, answer)
    }

    fn succeeded(
        &self,
        method: &str,
        path: &str,
        answer: Result<http::Answer, linkmic::probe::Error>,
    ) -> Option<Value> {
        match answer {
            Ok(answer) if answer.is_success() => Some(answer.json()),
            Ok(answer) => {
                let what = format!("{method} {path}: {} {}", answer.status, answer.body);
                self.account.complain(what);
                None
            }
            Err(error) => {
                self.account.complain(format!("{method} {path}: {error}"));
                None
            }
        }
    }

    /// Disconnects the player of a stream that comes from there. `false`: the server has none, which is no mistake of a stream
    /// or a player that has gone meanwhile, or waits for its stream.
    pub async fn kick(&self, name: &str, from: SocketAddr) -> bool {
        let path = format!("/api/v1/streams/live/{name}/readers");
        let Some(readers) = self.asked("GET", &path).await else {
            return false;
        };
        let from = from.to_string();
        let mut readers = readers["readers"].as_array().into_iter().flatten();
        let Some(reader) = readers.find(|reader| reader["address"] == from.as_str()) else {
            return false;
        };
        let path = format!("{path}/{}", reader["id"]);
        self.asked("DELETE", &path).await.is_some()
    }

    /// A call about something that may be gone: what it answers. `None` when it is gone, and, with a complaint, when there is
    /// no such answer.
    async fn asked(&self, method: &str, path: &str) -> Option<Value> {
        let answer = self.control.request(method, path, None).await;
        match answer {
            Ok(answer) if answer.status == 404 => None,
            answer => self.succeeded(method, path, answer),
        }
    }

    /// Has the configuration read again, with a mistake in it or without.
    pub async fn reload(&self, mistake: bool) {
        let count = self.reloads.fetch_add(1, Relaxed);
        let (skew, wanted) = match mistake {
            true => ("soon".to_owned(), "not reloaded, nothing changed"),
            false => (format!("{}s", count % 5), "configuration reloaded"),
        };
        let auth = format!("clock_skew = \"{skew}\"");
        let line = self.server.lock().await.reload(&auth, &self.more).await;
        if !line.contains(wanted) {
            let what = format!("a reload with clock_skew = {skew:?}: {line}");
            self.account.complain(what);
        }
    }

    /// # Errors
    /// Why there are no numbers.
    pub async fn metrics(&self) -> Result<Numbers, String> {
        Numbers::of(&self.control).await
    }
}

/// Waits until a gate is open, or shut. `false`: it will never be.
pub async fn until(gate: &mut watch::Receiver<bool>, open: bool) -> bool {
    gate.wait_for(|now| *now == open).await.is_ok()
}

/// Anchor number `n`'s stream.
pub fn anchor_name(n: usize) -> String {
    format!("anchor{n}")
}

/// For what takes its time on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
