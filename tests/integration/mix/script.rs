//! Scripts: streams that were encoded once, to be sent by hand with other time stamps, at other times, or damaged.
//!
//! A script is a row of messages, each with the time stamp that it says and the moment at which it leaves. What goes
//! wrong on the way from a camera to us is then a function from script to script. All times are ms, moments since the
//! common beginning of all scripts; an untouched message leaves at its own time.

use std::ops::Range;
use std::time::Duration;

use linkmic::probe::flv::{self, Tag};
use linkmic::probe::picture::Pattern;
use linkmic::probe::process::Process;
use linkmic::probe::{Colour, Size};
use tokio::io::AsyncWriteExt;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::LONG;
use crate::edge::client::Client;

/// Where scripts' time stamps begin, so that there is room to go back.
const BASE: i64 = 20_000;

/// What is encoded. Picture number `n` has time `n / fps`.
#[derive(Debug, Clone)]
pub struct Reel {
    pub size: Size,
    pub fps: u32,
    pub colour: Colour,
    /// Of the sine, Hz.
    pub tone: f64,
    pub rate: u32,
    pub channels: u32,
    pub profile: &'static str,
    /// B-frames in a row.
    pub reordered: u32,
    /// Frames per key frame.
    pub gop: u32,
    /// Filter for the pictures; `null` passes them on.
    pub filter: &'static str,
    pub seconds: u32,
}

impl Reel {
    /// A sub's small picture, a key frame each second.
    pub fn sub(fps: u32, tone: f64, seconds: u32) -> Self {
        Self {
            size: Size::new(160, 240),
            fps,
            colour: Colour::RED,
            tone,
            rate: 48_000,
            channels: 1,
            profile: "baseline",
            reordered: 0,
            gop: fps,
            filter: "null",
            seconds,
        }
    }

    /// Encodes it, as fast as it goes.
    pub async fn script(&self) -> Script {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("reel.flv").display().to_string();
        let text = format!(
            "-hide_banner -nostats -loglevel error -f rawvideo -pixel_format yuv420p -video_size {}x{} -framerate {} \
             -i pipe:0 -f lavfi -i sine=frequency={}:sample_rate={} -map 0:v -map 1:a -t {} -vf {} -fps_mode passthrough \
             -c:v libx264 -preset ultrafast -threads 1 -profile:v {} -bf {} -b_strategy 0 -g {} -sc_threshold 0 \
             -b:v 500k -c:a aac -ac {} -b:a 64k -flvflags no_duration_filesize -f flv {file}",
            self.size.width,
            self.size.height,
            self.fps,
            self.tone,
            self.rate,
            self.seconds,
            self.filter,
            self.profile,
            self.reordered,
            self.gop,
            self.channels,
        );
        let arguments: Vec<&str> = text.split_whitespace().collect();
        let mut ffmpeg = Process::spawn("ffmpeg", &arguments).expect("ffmpeg");
        let mut stdin = ffmpeg.stdin().expect("a pipe");
        let mut pattern = Pattern::new(self.size, self.colour);
        for number in 0..u64::from(self.seconds * self.fps) {
            // It ends early only where it failed, which is told below.
            if stdin.write_all(pattern.draw(number)).await.is_err() {
                break;
            }
        }
        drop(stdin);
        let encoded = ffmpeg.success(LONG).await;
        encoded.unwrap_or_else(|e| panic!("{e}"));
        let tags = flv::tags(&std::fs::read(file).expect("encoded")).expect("FLV");
        let sent = tags.into_iter().filter(|tag| tag.kind != Tag::SCRIPT);
        let cue = |tag: Tag| Cue {
            at: i64::from(tag.time),
            says: BASE + i64::from(tag.time),
            tag,
        };
        Script(sent.map(cue).collect())
    }
}

/// One message: when it leaves, and what time it says it has.
#[derive(Debug, Clone)]
pub struct Cue {
    pub at: i64,
    pub says: i64,
    pub tag: Tag,
}

impl Cue {
    pub fn is_picture(&self) -> bool {
        self.tag.kind == Tag::VIDEO
    }
}

/// Messages in the order in which they leave.
#[derive(Debug, Clone)]
pub struct Script(pub Vec<Cue>);

impl Script {
    /// Every cue, changed.
    pub fn each(mut self, change: impl FnMut(&mut Cue)) -> Self {
        self.0.iter_mut().for_each(change);
        self
    }

    /// Without those that are not kept.
    pub fn keep(mut self, keep: impl FnMut(&Cue) -> bool) -> Self {
        self.0.retain(keep);
        self
    }

    /// Time stamps are so much further from `from` on.
    pub fn jump(self, from: i64, by: i64) -> Self {
        self.each(|cue| {
            if cue.at >= from {
                cue.says += by;
            }
        })
    }

    /// The clock begins again at 0.
    pub fn reset(self, from: i64) -> Self {
        self.jump(from, -BASE - from)
    }

    /// All say the same time for a while.
    pub fn stand_still(self, while_: Range<i64>) -> Self {
        self.each(|cue| {
            if while_.contains(&cue.at) {
                cue.says -= cue.at - while_.start;
            }
        })
    }

    /// Nothing for a while, then all of it at once.
    pub fn hold_up(self, while_: Range<i64>) -> Self {
        self.each(|cue| {
            if while_.contains(&cue.at) {
                cue.at = while_.end;
            }
        })
    }

    /// Each message up to `most` late, by a fixed row of chances; their order stays.
    pub fn jitter(self, while_: Range<i64>, most: i64) -> Self {
        let (mut state, mut newest) = (0x2545_f491u32, 0);
        self.each(|cue| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if while_.contains(&cue.at) {
                cue.at += i64::from(state >> 16) % (most + 1);
            }
            newest = cue.at.max(newest);
            cue.at = newest;
        })
    }

    /// Of the pictures in that while every third is damaged, key frames among them: one in the midst of its slices, one
    /// in the lengths of its units, one cut short.
    pub fn damage(self, while_: Range<i64>) -> Self {
        let mut pictures = 0;
        self.each(|cue| {
            let body = &mut cue.tag.body;
            if cue.tag.kind != Tag::VIDEO || body[1] != 1 || !while_.contains(&cue.at) {
                return;
            }
            pictures += 1;
            // Five bytes of FLV, then a length and a unit.
            match pictures % 9 {
                0 => body[9..]
                    .iter_mut()
                    .skip(6)
                    .step_by(7)
                    .for_each(|b| *b ^= 0x5a),
                3 => body[5..9].fill(0xff),
                6 => body.truncate(body.len() / 2),
                _ => {}
            }
        })
    }

    /// Another script behind this one, on the same clock.
    pub fn then(mut self, next: Script) -> Self {
        let end = self.0.iter().map(|cue| cue.at).max().unwrap_or(0) + 50;
        let late = |mut cue: Cue| {
            (cue.at, cue.says) = (cue.at + end, cue.says + end);
            cue
        };
        self.0.extend(next.0.into_iter().map(late));
        self
    }

    /// On air from now on, in a task of its own.
    pub fn start(self, url: String) -> Sender {
        let task = tokio::spawn(self.send(url, Instant::now()));
        Sender(task.abort_handle())
    }

    /// Sends all of it, then ends in order. `begin` is everybody's moment 0.
    pub async fn send(self, url: String, begin: Instant) {
        let mut client = Client::publish(&url).await.expect("granted");
        for cue in self.0 {
            sleep_until(begin + Duration::from_millis(cue.at.max(0) as u64)).await;
            let shift = cue.says as u32;
            let shift = shift.wrapping_sub(cue.tag.time);
            client.send_tag(&cue.tag, shift).await;
        }
        client.unpublish().await;
    }
}

/// A script that is being sent. Dropping it closes the connection without a word, as a program does that dies.
pub struct Sender(AbortHandle);

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.abort();
    }
}
