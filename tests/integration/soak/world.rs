//! What a soak is played on: the binary in a process of its own, a CDN, two back ends of which one is dead, and clips.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
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
        let dead = Receiver::deciding(None, |_, count| match count % 2 {
            0 => Reply::Says(503, "never"),
            _ => Reply::Silence,
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
        match self.control.request(method, path, body).await {
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

    /// Disconnects the player of a stream that comes from there.
    pub async fn kick(&self, name: &str, from: SocketAddr) {
        let path = format!("/api/v1/streams/live/{name}/readers");
        // A stream that is not there, or a player that is gone, is no mistake.
        let Ok(answer) = self.control.get(&path).await else {
            return;
        };
        let from = from.to_string();
        let readers = answer.json();
        let mut readers = readers["readers"].as_array().into_iter().flatten();
        if let Some(reader) = readers.find(|reader| reader["address"] == from.as_str()) {
            let _ = self
                .control
                .delete(&format!("{path}/{}", reader["id"]))
                .await;
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

    /// Numbers of `/metrics`.
    pub async fn metrics(&self) -> Option<String> {
        Some(self.control.get("/metrics").await.ok()?.body)
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

/// The sum of a metric's values that have all of `labels`.
pub fn sum(metrics: &str, name: &str, labels: &str) -> f64 {
    let lines = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(labels))
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn a_metric_is_summed_over_what_is_asked_for() {
    let page = "a_total{x=\"1\",y=\"2\"} 3\na_total{x=\"2\"} 4\na_total_of 9\nb 1\n";
    assert_eq!(sum(page, "a_total", ""), 7.0);
    assert_eq!(sum(page, "a_total", "x=\"1\""), 3.0);
    assert_eq!(sum(page, "b", ""), 1.0);
}

/// For what takes its time on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
