//! What viewers notice of a mix's start and end: nothing but the picture.

use std::path::Path;
use std::time::Duration;

use linkmic::probe::flv::{self, Tag};
use linkmic::probe::picture::{COUNTER_MODULUS, distance};
use linkmic::probe::player::{Player, Seen, Sighting, Watch};
use linkmic::probe::process::Process;
use linkmic::probe::publisher::Show;

use linkmic::probe::{Colour, sync, tone};
use serde_json::{Value, json};

use super::web::WebViewer;
use super::{
    CANVAS, FPS, LONG, main_show, median, one_plus_one, one_plus_one_regions, place, sub_show,
};
use crate::edge::SOON;
use crate::home::Home;
use crate::studio::{Studio, advances, publish};

/// One frame of the main, ms.
const FRAME: i64 = 1000 / FPS;
/// Longer than the mix waits for it, and than its last picture counts as live.
const STALL: Duration = Duration::from_millis(1_500);

/// ffmpeg and librtmp as viewers of a stream, and the files that they write.
pub(super) struct Recorders {
    programs: [Process; 2],
    pub by_ffmpeg: String,
    pub by_rtmpdump: String,
}

impl Recorders {
    pub fn start(studio: &Studio, name: &str) -> Self {
        let url = studio.urls.plain(name);
        let file = |name: &str| studio.folder().join(name).display().to_string();
        let (by_ffmpeg, by_rtmpdump) = (file("ffmpeg.flv"), file("rtmpdump.flv"));
        let ffmpeg = "-hide_banner -nostats -loglevel warning -i";
        let copy = "-c copy -copyts -y";
        let ffmpeg: Vec<&str> = ffmpeg
            .split_whitespace()
            .chain([url.as_str()])
            .chain(copy.split_whitespace())
            .chain([by_ffmpeg.as_str()])
            .collect();
        let rtmpdump = ["--quiet", "--live", "--rtmp", &url, "--flv", &by_rtmpdump];
        let programs = [
            Process::spawn("ffmpeg", &ffmpeg),
            Process::spawn("rtmpdump", &rtmpdump),
        ];
        Self {
            programs: programs.map(|process| process.expect("installed")),
            by_ffmpeg,
            by_rtmpdump,
        }
    }

    /// Waits for their end, which the clean end of the stream is.
    pub async fn end(&mut self) {
        for recorder in &mut self.programs {
            let ended = recorder.success(LONG).await;
            ended.unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_stay_through_start_and_end_of_a_mix_in_place() {
    let studio = Studio::open().await;
    let a = studio.publish("a", &main_show()).await;
    let _b = studio.publish("b", &sub_show(Colour::RED, 700.0)).await;
    let mut recorders = Recorders::start(&studio, "a");
    let mut viewer = studio.watch("a", &one_plus_one_regions()).await;
    advances(&mut viewer, 0, Colour::BLUE, 40).await;
    studio.put("/api/v1/mixes/m", &one_plus_one()).await;
    advances(&mut viewer, 1, Colour::RED, 45).await;
    studio.end_mix("m").await;
    advances(&mut viewer, 0, Colour::BLUE, 40).await;
    a.stop().await;
    recorders.end().await;
    for file in [&recorders.by_ffmpeg, &recorders.by_rtmpdump] {
        assert_seamless(file, &decode(file).await, &[true; 3]);
    }
    assert_spliced(&tags(&recorders.by_rtmpdump), 2);
    pictures_were_whole(&viewer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_deadline_of_a_drain_a_mix_ends_with_a_splice_back_to_the_main() {
    // Mixes have 5 s of it.
    const DEADLINE: Duration = Duration::from_secs(15);
    let home = Home::found("[mixer]\ndegrade = false\n").await;
    let mut life = home.begin().await;
    let _a = publish(&life.urls, &life.api, "a", &main_show()).await;
    let _b = publish(&life.urls, &life.api, "b", &sub_show(Colour::RED, 700.0)).await;
    let file = home.state().join("rtmpdump.flv").display().to_string();
    let url = life.urls.plain("a");
    let dump = ["--quiet", "--live", "--rtmp", &url, "--flv", &file];
    let mut recorder = Process::spawn("rtmpdump", &dump).expect("installed");
    let watch = Watch {
        size: CANVAS,
        regions: one_plus_one_regions().to_vec(),
    };
    let mut viewer = Player::start(&url, watch).await.expect("ffmpeg");
    advances(&mut viewer, 0, Colour::BLUE, 10).await;
    life.put("/api/v1/mixes/m", &one_plus_one()).await;
    advances(&mut viewer, 1, Colour::RED, 25).await;
    let drain = format!("/api/v1/drain?deadline={}s", DEADLINE.as_secs());
    let asked = life
        .api
        .post(&drain, &Value::Null)
        .await
        .expect("an answer");
    assert_eq!(asked.status, 202, "{}", asked.body);
    let ended = life.process.end(DEADLINE + SOON).await.expect("its end");
    assert!(ended.success(), "{}", life.process.said());
    recorder.end(LONG).await.expect("its end");
    let tags = tags(&file);
    // Once to the mix, once back.
    assert_spliced(&tags, 2);
    let headers = |t: &&Tag| t.kind == Tag::VIDEO && t.is_header();
    let last = tags
        .iter()
        .rposition(|t| headers(&t))
        .expect("the main's own");
    let after = tags[last..].iter().filter(|t| t.kind == Tag::VIDEO);
    assert!(after.count() > 1, "the main goes on behind the splice");
    pictures_were_whole(&viewer);
}

/// Mixes in a row, and what the main does while one is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Nothing,
    /// It sends nothing for longer than anybody waits for it, and then all at once.
    Stalls,
    /// Its program dies, and another publishes in its place.
    Replaced,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_splices_in_a_row_are_noticed_by_nobody() {
    const MIXES: [Trouble; 5] = [
        Trouble::Nothing,
        Trouble::Nothing,
        Trouble::Nothing,
        Trouble::Stalls,
        Trouble::Replaced,
    ];
    let studio = Studio::open().await;
    // Its clock is 1 % fast.
    let main = Show {
        speed: 1.01,
        ..main_show()
    };
    let mut a = studio.publish("a", &main).await;
    let _b = studio.publish("b", &sub_show(Colour::RED, 700.0)).await;
    let mut recorders = Recorders::start(&studio, "a");
    let mut viewer = studio.watch("a", &one_plus_one_regions()).await;
    advances(&mut viewer, 0, Colour::BLUE, 40).await;
    // Which segments have the main's own pictures without a break.
    let mut steady = vec![true];
    for trouble in MIXES {
        studio.put("/api/v1/mixes/m", &one_plus_one()).await;
        advances(&mut viewer, 1, Colour::RED, 30).await;
        match trouble {
            Trouble::Nothing => {}
            Trouble::Stalls => a.stall(STALL).await.expect("it stalls"),
            Trouble::Replaced => {
                a.kill().await;
                a = studio.publish("a", &main).await;
            }
        }
        advances(&mut viewer, 0, Colour::BLUE, 20).await;
        studio.end_mix("m").await;
        advances(&mut viewer, 0, Colour::BLUE, 30).await;
        steady.extend([trouble == Trouble::Nothing, true]);
    }
    a.stop().await;
    recorders.end().await;
    for file in [&recorders.by_ffmpeg, &recorders.by_rtmpdump] {
        let seen = decode(file).await;
        assert_seamless(file, &seen, &steady);
        // Up to the fourth mix the main speaks without a break.
        let until = segments(&seen)[7][0].pts.expect("a time");
        let from = seen.sightings[0].pts.expect("a time");
        let (sound, rate) = sync::sound(Path::new(file)).await.expect("sound");
        let spoken = (until - from) as usize * rate as usize / 1000;
        // It begins a little behind the first picture, and is done a little before the last.
        let spoken = &sound[rate as usize..spoken.min(sound.len()) - rate as usize / 2];
        let dips = tone::dips(spoken, rate);
        println!("{file}: dips at {dips:?} of {}", spoken.len());
        assert_eq!(dips, Vec::<usize>::new(), "{file}: of {}", spoken.len());
    }
    assert_spliced(&tags(&recorders.by_rtmpdump), 2 * MIXES.len());
    pictures_were_whole(&viewer);
}

/// What a live page asks of mpegts.js: no stash, or it shows each picture later by a chunk, and to catch up when it has more
/// than 1.5 s in hand.
fn live_page() -> Value {
    json!({
        "enableStashBuffer": false,
        "liveBufferLatencyChasing": true,
        "liveBufferLatencyMaxLatency": 1.5,
        "liveBufferLatencyMinRemain": 0.5,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_page_and_gstreamer_play_across_ten_splices_in_a_row() {
    const MIXES: usize = 5;
    let studio = Studio::open_alone("").await;
    let a = studio.publish("a", &main_show()).await;
    let _b = studio.publish("b", &sub_show(Colour::RED, 700.0)).await;
    let watch = Watch {
        size: CANVAS,
        regions: one_plus_one_regions().to_vec(),
    };
    let mut player = Player::start_gstreamer(&studio.urls.plain("a"), watch).expect("installed");
    let (url, file) = (studio.http_flv("a"), studio.folder().join("curl.flv"));
    let file = file.display().to_string();
    let mut curl = Process::spawn("curl", &["-sS", "-o", &file, &url]).expect("curl");
    let page = WebViewer::open(&url, &live_page(), place(480)).await;
    advances(&mut player, 0, Colour::BLUE, 20).await;
    page.plays("the main", 1.5, false).await;
    for n in 1..=MIXES {
        studio.put("/api/v1/mixes/m", &one_plus_one()).await;
        advances(&mut player, 1, Colour::RED, 20).await;
        page.plays(&format!("mix {n}"), 1.5, true).await;
        studio.end_mix("m").await;
        advances(&mut player, 0, Colour::BLUE, 20).await;
        page.plays(&format!("the main after mix {n}"), 1.5, false)
            .await;
    }
    pictures_were_whole(&player);
    assert!(player.is_playing());
    page.assert_whole();
    a.stop().await;
    // What the page got, as other programs see it.
    curl.success(LONG).await.unwrap_or_else(|e| panic!("{e}"));
    let tags = tags(&file);
    assert_spliced(&tags, 2 * MIXES);
    let ends = tags
        .iter()
        .filter(|tag| tag.body.ends_with(&[0, 0, 0, 1, 10]));
    assert_eq!(ends.count(), 2 * 2 * MIXES, "two in front of each header");
    assert_seamless(&file, &decode(&file).await, &[true; 2 * MIXES + 1]);
}

/// A file's pictures.
pub(super) async fn decode(file: &str) -> Seen {
    let watch = Watch {
        size: CANVAS,
        regions: one_plus_one_regions().to_vec(),
    };
    let seen = Player::decode(file, watch, LONG).await;
    seen.unwrap_or_else(|e| panic!("{e}"))
}

pub(super) fn tags(file: &str) -> Vec<Tag> {
    flv::tags(&std::fs::read(file).expect("recorded")).expect("FLV")
}

pub(super) fn pictures_were_whole(viewer: &Player) {
    viewer.look(|seen| assert_eq!(seen.errors, Vec::<String>::new()));
}

/// By turns the main and the mix, from where the join's beginning is over.
fn segments(seen: &Seen) -> Vec<Vec<&Sighting>> {
    let all: Vec<&Sighting> = seen.sightings.iter().collect();
    // The GOP so far, which a viewer gets squeezed into a moment at its join, runs faster than its numbers.
    let squeezed = |pair: &&[&Sighting]| pair[1].pts < pair[0].pts.map(|pts| pts + FRAME / 2);
    let joined = all.windows(2).take_while(squeezed).count();
    let segments = all[joined..].chunk_by(|a, b| is_mixed(a) == is_mixed(b));
    segments.map(<[&Sighting]>::to_vec).collect()
}

fn is_mixed(sighting: &Sighting) -> bool {
    sighting.readings[1].colour.name() == Some("red")
}

/// By turns the main and the mix, decoded without an error, time always forward, and in those segments that are
/// `steady` the main's number bound to the time within one frame.
fn assert_seamless(file: &str, seen: &Seen, steady: &[bool]) {
    assert_eq!(seen.errors, Vec::<String>::new(), "{file}");
    let times: Vec<_> = seen.sightings.iter().map(|s| s.pts).collect();
    for pair in times.windows(2) {
        assert!(
            pair[1] > pair[0],
            "{file}: {:?} then {:?}",
            pair[0],
            pair[1]
        );
    }
    let segments = segments(seen);
    let shape: Vec<_> = segments.iter().map(|s| (is_mixed(s[0]), s.len())).collect();
    let mixed = shape.iter().map(|(mixed, _)| *mixed);
    let turns = (0..steady.len()).map(|n| n % 2 == 1);
    assert!(mixed.eq(turns), "{file}: {shape:?}");
    for (segment, _) in segments.iter().zip(steady).filter(|(_, steady)| **steady) {
        // Where number 0 would be, by each picture.
        let first = segment
            .iter()
            .find_map(|s| s.readings[0].counter)
            .expect("a number");
        let zeros: Vec<i64> = segment
            .iter()
            .filter_map(|s| {
                let ahead = distance(first, s.readings[0].counter?) as i64;
                // A picture just before the first readable one counts backwards.
                let ahead = if ahead > COUNTER_MODULUS as i64 / 2 {
                    ahead - COUNTER_MODULUS as i64
                } else {
                    ahead
                };
                Some(s.pts? - ahead * FRAME)
            })
            .collect();
        assert!(
            zeros.len() * 10 >= segment.len() * 9,
            "{file}: numbers unreadable"
        );
        let middle = median(&zeros);
        let off = |zero: &&i64| (**zero - middle).abs() > FRAME;
        let outside = zeros.iter().filter(off).count();
        println!(
            "{file}: {} pictures, {outside} more than a frame from where their number belongs",
            zeros.len()
        );
        // A machine that is busy with other tests repeats a picture here and there, which puts the number behind
        // for that long. What it may not do is stay there, or be ahead.
        assert!(
            outside * 10 <= zeros.len(),
            "{file}: number and time part: {zeros:?}"
        );
        assert!(
            zeros.iter().all(|zero| *zero >= middle - FRAME),
            "{file}: {zeros:?}"
        );
        let quarter = zeros.len() / 4;
        let drift = median(&zeros[zeros.len() - quarter..]) - median(&zeros[..quarter]);
        assert!(
            drift.abs() <= FRAME,
            "{file}: number and time drift by {drift} ms"
        );
    }
}

/// On the wire: the headers of the beginning and one set per splice, each followed by a key frame; no media out of
/// order, and no hole that a player would stumble over.
pub(super) fn assert_spliced(tags: &[Tag], splices: usize) {
    let video: Vec<&Tag> = tags.iter().filter(|t| t.kind == Tag::VIDEO).collect();
    let headers: Vec<usize> = (0..video.len())
        .filter(|at| video[*at].is_header())
        .collect();
    assert_eq!(
        headers.len(),
        1 + splices,
        "video headers: one at the beginning, one per splice"
    );
    for at in &headers {
        assert!(
            video[at + 1].is_key_frame(),
            "a header is followed by a key frame"
        );
    }
    let bodies: Vec<_> = headers.iter().map(|at| &video[*at].body).collect();
    for own in bodies.iter().step_by(2) {
        assert_eq!(bodies[0], *own, "the main's own header comes back");
    }
    for (kind, frame) in [(Tag::VIDEO, FRAME), (Tag::AUDIO, 22)] {
        let times: Vec<i64> = tags
            .iter()
            .filter(|t| t.kind == kind && t.is_media())
            .map(|t| i64::from(t.time))
            .collect();
        let steps = || times.windows(2).map(|pair| pair[1] - pair[0]);
        println!(
            "kind {kind}: {} tags, steps {:?} to {:?} ms",
            times.len(),
            steps().min(),
            steps().max()
        );
        assert!(steps().all(|step| step >= 0), "kind {kind}: out of order");
        // One interval at a splice on a quiet machine; a busy one may add a few.
        let largest = steps().max().expect("more than one");
        assert!(
            largest <= 100 + frame,
            "kind {kind}: a hole of {largest} ms"
        );
    }
}
