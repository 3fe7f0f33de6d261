//! Picture and sound of each input belong together in the mix as they did at their source, judged by flash and beep.

use std::path::{Path, PathBuf};
use std::time::Duration;

use linkmic::probe::flv::{self, Tag};
use linkmic::probe::process::{Process, poll};
use linkmic::probe::sync::{self, Clip, JOINED_MS, RECORDED};
use linkmic::probe::{Region, Size, record};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::SemaphorePermit;

use super::{CANVAS, FPS, LONG};
use crate::abuse::binary::Binary;
use crate::edge::SOON;
use crate::studio::{self, alone};

/// Flashes that a judgement needs at least.
const EVENTS: usize = 20;
/// The median of an input may be off by so much, ms.
const MEDIAN_MS: f64 = 25.0;
/// From frame to frame of the mix, ms.
const FRAME_MS: f64 = 1000.0 / FPS as f64;

/// Who is on stage: the name, the clip, and where the mix shows the middle of it.
struct Anchor {
    name: &'static str,
    clip: Clip,
    seen_at: Region,
}

const fn sub(name: &'static str, fps: u32, tone: f64, seconds: u32, y: usize) -> Anchor {
    Anchor {
        name,
        clip: Clip {
            size: Size::new(160, 240),
            fps,
            tone,
            seconds,
        },
        seen_at: Region {
            x: 320,
            y: y + 30,
            width: 60,
            height: 60,
        },
    }
}

/// The main and three subs at their own frame rates.
const fn stage() -> [Anchor; 4] {
    // Lengths that differ, so that the events of each come at other moments than those of the others.
    [
        Anchor {
            name: "a",
            clip: Clip {
                size: CANVAS,
                fps: 20,
                tone: 1000.0,
                seconds: 41,
            },
            seen_at: Region {
                x: 40,
                y: 40,
                width: 100,
                height: 100,
            },
        },
        sub("b", 15, 2000.0, 43, 480),
        sub("c", 25, 3000.0, 47, 320),
        sub("d", 30, 4000.0, 53, 160),
    ]
}

fn scene() -> Value {
    let place = |stream: &str, layer: u32, y: u32| json!({"stream": stream, "layer": layer, "x": 300, "y": y, "width": 100, "height": 150});
    json!({
        "app": "live",
        "inputs": [
            {"stream": "a", "layer": 1},
            place("b", 2, 480), place("c", 3, 320), place("d", 4, 160),
        ],
        "output": {"stream": "a", "width": CANVAS.width, "height": CANVAS.height, "fps": FPS, "video_kbps": 800},
    })
}

/// A server of its own, whose memory, threads and elements can be counted, and the four anchors.
pub(super) struct Show {
    pub server: Binary,
    clips: Vec<PathBuf>,
    /// From flash to beep at each anchor's source, ms.
    own: Vec<f64>,
    senders: Vec<Process>,
    /// How fast each anchor's clock is.
    speeds: [f64; 4],
    folder: TempDir,
    _permit: SemaphorePermit<'static>,
}

impl Show {
    /// Anchors on air, mixed.
    pub async fn start(speeds: [f64; 4]) -> Self {
        let permit = alone().await;
        let folder = tempfile::tempdir().expect("a folder");
        let (mut clips, mut own) = (Vec::new(), Vec::new());
        for anchor in stage() {
            let file = folder.path().join(format!("{}.flv", anchor.name));
            let written = anchor.clip.write(&file).await;
            written.unwrap_or_else(|e| panic!("{e}"));
            let Size { width, height } = anchor.clip.size;
            let all = Region {
                x: 0,
                y: 0,
                width,
                height,
            };
            let offsets = offsets(&file, all, anchor.clip.tone).await;
            assert!(offsets.len() >= EVENTS, "{}: {offsets:?}", anchor.name);
            own.push(sync::median(&offsets));
            clips.push(file);
        }
        let server = Binary::serve_counting_elements().await;
        let mut show = Self {
            server,
            clips,
            own,
            senders: Vec::new(),
            speeds,
            folder,
            _permit: permit,
        };
        for n in 0..show.clips.len() {
            let sender = show.send(n).await;
            show.senders.push(sender);
        }
        show.mix().await;
        show
    }

    /// Starts the mix.
    async fn mix(&self) {
        let put = self.server.control.put("/api/v1/mixes/m", &scene()).await;
        let put = put.expect("an answer");
        assert!(put.is_success(), "{}: {}", put.status, put.body);
    }

    /// Ends the mix and waits until the main has its program feed back.
    async fn end_mix(&self) {
        let ended = self.server.control.delete("/api/v1/mixes/m").await;
        assert!(ended.expect("an answer").is_success());
        let gone = poll("the mix gone", SOON, || async {
            let answer = self.server.control.get("/api/v1/mixes/m").await.ok()?;
            (answer.status == 404).then_some(())
        });
        gone.await.unwrap_or_else(|e| panic!("{e}"));
    }

    /// Anchor number `n` on air.
    async fn send(&self, n: usize) -> Process {
        let name = stage()[n].name;
        let before = self.epoch(name).await;
        let sender = sync::send(&self.clips[n], &self.server.urls.push(name), self.speeds[n]);
        let sender = sender.expect("ffmpeg");
        let what = format!("{name} on air");
        let on_air = poll(&what, SOON, || async {
            let now = self.epoch(name).await;
            (now.is_some() && now != before).then_some(())
        });
        on_air
            .await
            .unwrap_or_else(|e| panic!("{e}; {}", sender.said()));
        sender
    }

    /// Which publisher that name has, if its video is known.
    async fn epoch(&self, name: &str) -> Option<u64> {
        studio::epoch(&self.server.control, name).await
    }

    /// The mix's counters.
    pub async fn stats(&self) -> Value {
        let mix = self.server.control.get("/api/v1/mixes/m").await;
        mix.expect("an answer").json()["stats"].take()
    }

    /// Waits until the mix has made so many frames.
    pub async fn until_mixed(&self, frames: i64) {
        let mixed = poll("frames of the mix", SOON, || async {
            (self.stats().await["frames_out"].as_i64()? >= frames).then_some(())
        });
        mixed.await.unwrap_or_else(|e| panic!("{e}"));
    }

    /// Kills a sub's program, at whatever it is doing, and starts it again.
    pub async fn stop_and_return(&mut self, n: usize) {
        self.senders[n].kill().await;
        self.senders[n] = self.send(n).await;
    }

    /// Judges what viewers of the main get.
    ///
    /// # Panics
    /// When picture and sound of an anchor are not together, or the output's pace is not its own.
    pub async fn judge(&self, what: &str) {
        let complaints = self.complaints(what).await;
        assert_eq!(complaints, Vec::<String>::new());
    }

    /// What is wrong with what viewers of the main get.
    pub async fn complaints(&self, what: &str) -> Vec<String> {
        let recording = self.folder.path().join("recording.flv");
        let recorded = record::recording(&self.server.urls.plain("a"), RECORDED, &recording).await;
        let tags = recorded.unwrap_or_else(|e| panic!("{e}"));
        let mut complaints: Vec<String> = uneven(&tags).into_iter().collect();
        for (anchor, own) in stage().iter().zip(&self.own) {
            let mixed = offsets(&recording, anchor.seen_at, anchor.clip.tone).await;
            let off: Vec<f64> = mixed.iter().map(|offset| offset - own).collect();
            let median = sync::median(&off);
            let name = anchor.name;
            println!(
                "{what}, {name}: {median:+.1} ms in the median of {} events, {off:.0?}",
                off.len()
            );
            // A machine that is busy with other tests shows a picture late here and there.
            let single = MEDIAN_MS + FRAME_MS;
            let outside = off.iter().filter(|off| off.abs() > single).count();
            if off.len() < EVENTS || median.abs() > MEDIAN_MS || outside * 10 > off.len() {
                complaints.push(format!("{what}, {name}: off by {median:.1} ms, {off:.0?}"));
            }
        }
        complaints
    }
}

/// What is wrong with the pace of a recording's pictures: each comes one frame after the one before, whatever becomes of
/// the inputs.
fn uneven(tags: &[Tag]) -> Option<String> {
    let times: Vec<f64> = tags
        .iter()
        .filter(|tag| tag.kind == Tag::VIDEO && tag.is_media())
        .map(|tag| f64::from(tag.time))
        .filter(|time| *time > JOINED_MS)
        .collect();
    let steps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let odd = steps.iter().filter(|step| **step != FRAME_MS).count();
    (steps.is_empty() || odd > 0).then(|| format!("{odd} steps of {steps:?} are no frame"))
}

/// From each flash to its beep, ms.
async fn offsets(file: &Path, region: Region, tone: f64) -> Vec<f64> {
    let offsets = sync::judged_offsets(file, region, tone).await;
    offsets.unwrap_or_else(|e| panic!("{e}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn picture_and_sound_of_each_input_stay_together_through_a_hundred_stops_and_returns() {
    let mut show = Show::start([1.0; 4]).await;
    show.judge("at the start").await;
    for cycle in 0..20 {
        show.stop_and_return(1 + cycle % 3).await;
    }
    let elements = show.server.elements().await;
    let (resident, threads) = (show.server.resident(), show.server.threads());
    for cycle in 0..100 {
        show.stop_and_return(1 + cycle % 3).await;
    }
    let what = "a hundred stops and returns";
    show.server.assert_flat(resident, what).await;
    assert_eq!(show.server.threads(), threads);
    assert_eq!(
        show.server.elements().await,
        elements,
        "GStreamer's elements"
    );
    show.judge("after a hundred stops and returns").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn picture_and_sound_of_the_main_are_as_far_apart_after_every_splice_as_before() {
    /// Four flashes: what a segment is judged by.
    const SEGMENT: Duration = Duration::from_millis(3_300);
    const MIXES: usize = 3;
    let show = Show::start([1.0; 4]).await;
    show.end_mix().await;
    let recording = show.folder.path().join("splices.flv");
    let (url, file) = (show.server.urls.plain("a"), recording.display().to_string());
    let line = ["--quiet", "--live", "--rtmp", &url, "--flv", &file];
    let mut recorder = Process::spawn("rtmpdump", &line).expect("rtmpdump");
    // What is judged is media time; it passes as fast as this.
    tokio::time::sleep(SEGMENT + Duration::from_millis(JOINED_MS as u64)).await;
    for _ in 0..MIXES {
        show.mix().await;
        show.until_mixed(1).await;
        tokio::time::sleep(SEGMENT).await;
        show.end_mix().await;
        tokio::time::sleep(SEGMENT).await;
    }
    recorder.interrupt(LONG).await;
    let tags = flv::tags(&std::fs::read(&recording).expect("recorded")).expect("FLV");
    let headers = tags
        .iter()
        .filter(|tag| tag.kind == Tag::VIDEO && tag.is_header());
    let begins: Vec<f64> = headers.map(|tag| f64::from(tag.time)).collect();
    assert_eq!(begins.len(), 1 + 2 * MIXES, "a header at each splice");
    let [main, ..] = stage();
    let mut flashes = sync::flashes(&recording, main.seen_at)
        .await
        .expect("pictures");
    flashes.retain(|flash| *flash > begins[0] + JOINED_MS);
    let beeps = sync::beeps(&recording, main.clip.tone)
        .await
        .expect("sound");
    for (n, begin) in begins.iter().enumerate() {
        let end = begins.get(n + 1).copied().unwrap_or(f64::MAX);
        let own: Vec<f64> = flashes
            .iter()
            .copied()
            .filter(|at| (*begin..end).contains(at))
            .collect();
        let off: Vec<f64> = sync::offsets(&own, &beeps)
            .iter()
            .map(|offset| offset - show.own[0])
            .collect();
        let median = sync::median(&off);
        println!("segment {n}: {median:+.1} ms in the median of {off:.0?}");
        assert!(off.len() >= 3, "segment {n}: {off:?}");
        // Of four events that meet the frames in four phases, the median is no better than half a frame.
        assert!(
            median.abs() <= MEDIAN_MS + FRAME_MS / 2.0,
            "segment {n}: {off:?}"
        );
    }
}
