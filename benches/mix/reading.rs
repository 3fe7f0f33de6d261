//! What a viewer got, read back: how long each picture and beep was under way.

use std::path::Path;
use std::time::Duration;

use linkmic::probe::flv::Tag;
use linkmic::probe::latency::Latencies;
use linkmic::probe::picture;
use linkmic::probe::process::Process;
use linkmic::probe::{Error, Region, Size};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};

use super::clips::Clip;
use super::likeness::Source;
use super::sound;
use super::wire::Arrival;

/// Decoding some seconds of 720p.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same message comes to viewers and to a CDN within this.
const SAME: Duration = Duration::from_millis(500);

/// What was sent of one source.
pub struct Sent<'a> {
    pub clip: &'a Clip,
    /// When which message left, through all rounds.
    pub times: Vec<Instant>,
    /// Where its picture is.
    pub region: Region,
}

/// What was read.
#[derive(Default)]
pub struct Reading {
    /// From a frame's way into the server to the first picture with its number on its way out, source by source.
    pub pictures: Vec<Latencies>,
    /// From the AAC frame in which the main's beep begins to the one in which it comes out.
    pub sound: Latencies,
    /// The same of what is pushed, message by message.
    pub pushed_sound: Latencies,
    /// Pictures that came, and how many of them showed no new frame of the main.
    pub frames: usize,
    pub repeated: usize,
    /// Bytes of video.
    pub bytes: usize,
    /// From the first picture's arrival to the last one's, s.
    pub seconds: f64,
    /// Likeness of the pictures to the main's own, in the mean.
    pub likeness: f64,
}

impl Sent<'_> {
    /// When piece `at` of the clip last left, no later than `by`.
    pub fn newest(&self, at: usize, by: Instant) -> Option<Instant> {
        let count = self.clip.pieces.len();
        let rounds = self.times.iter().skip(at).step_by(count);
        rounds.copied().take_while(|&time| time <= by).last()
    }
}

/// Reads what came from `from` to `to`, and decodes it in `folder`. `source` has the main's own pictures.
pub async fn read(
    (seen, pushed): (&[Arrival], &[Arrival]),
    sent: &[Sent<'_>],
    (from, to): (Instant, Instant),
    (canvas, mut source): (Size, Source),
    folder: &Path,
) -> Result<Reading, Error> {
    let begins = seen
        .iter()
        .position(|(at, tag)| *at >= from && tag.is_key_frame() && !tag.is_header());
    let begins = begins.ok_or_else(|| Error::Wrong("no key frame came".into()))?;
    let window: Vec<&Arrival> = media(&seen[begins..], to);
    let file = recording(&seen[..begins], &window, folder)?;
    let regions: Vec<Region> = sent.iter().map(|sent| sent.region).collect();
    let (counters, likeness) = within(pictures(&file, canvas, &regions, Some(&mut source))).await?;
    let of = |kind| window.iter().filter(move |(_, tag)| tag.kind == kind);
    let videos: Vec<&&Arrival> = of(Tag::VIDEO).collect();
    if counters.len() != videos.len() {
        let (came, out) = (videos.len(), counters.len());
        return Err(Error::Wrong(format!(
            "{came} pictures came and {out} were decoded"
        )));
    }
    let mut reading = Reading {
        frames: videos.len(),
        bytes: videos.iter().map(|(_, tag)| tag.body.len()).sum(),
        seconds: match (videos.first(), videos.last()) {
            (Some((first, _)), Some((last, _))) => (*last - *first).as_secs_f64(),
            _ => f64::NAN,
        },
        likeness: likeness.iter().sum::<f64>() / likeness.len() as f64,
        ..Reading::default()
    };
    for (source, sent) in sent.iter().enumerate() {
        let frames = sent.clip.positions(Tag::VIDEO);
        let (mut latencies, mut last) = (Latencies::default(), None);
        for (counters, (arrival, _)) in counters.iter().zip(&videos) {
            let Some(counter) = counters[source] else {
                continue;
            };
            match last.replace(counter) {
                None => continue,
                Some(last) if last == counter => {
                    reading.repeated += usize::from(source == 0);
                    continue;
                }
                Some(_) => {}
            }
            let at = frames.get(usize::from(counter));
            if let Some(left) = at.and_then(|&at| sent.newest(at, *arrival)) {
                latencies.push(*arrival - left);
            }
        }
        reading.pictures.push(latencies);
    }
    let main = &sent[0];
    // The picture tells which of the beeps it can be.
    let about = reading.pictures[0].percentile(50).unwrap_or_default();
    let sounds: Vec<&&Arrival> = of(Tag::AUDIO).collect();
    for frame in sound::onsets(&file).await? {
        let Some((arrival, tag)) = sounds.get(frame) else {
            continue;
        };
        let left = main.clip.beeps.iter().flat_map(|&at| {
            let rounds = main.times.iter().skip(at);
            rounds.step_by(main.clip.pieces.len())
        });
        let latency = left
            .filter_map(|&left| arrival.checked_duration_since(left))
            .min_by_key(|latency| latency.abs_diff(about));
        let Some(latency) = latency else { continue };
        reading.sound.push(latency);
        // The same frame on its other way; that of another beep may be the same bytes, but not at the same time.
        let same = pushed
            .iter()
            .filter(|(_, other)| other.kind == Tag::AUDIO && other.body == tag.body);
        let apart = |at: Instant| at.max(*arrival).duration_since(at.min(*arrival));
        let there = same.map(|(at, _)| *at).min_by_key(|at| apart(*at));
        if let Some(there) = there.filter(|at| apart(*at) < SAME) {
            let left = *arrival - latency;
            reading
                .pushed_sound
                .push(there.saturating_duration_since(left));
        }
    }
    Ok(reading)
}

/// How many pictures had come since `since`, up to `to`, when the first of them had a number in `region`.
pub async fn until_shown(
    seen: &[Arrival],
    (since, to): (Instant, Instant),
    canvas: Size,
    region: Region,
    folder: &Path,
) -> Result<usize, Error> {
    let is_key = |(at, tag): &Arrival| *at <= since && tag.is_key_frame() && !tag.is_header();
    let begins = seen.iter().rposition(is_key);
    let begins = begins.ok_or_else(|| Error::Wrong("no key frame came".into()))?;
    let window = media(&seen[begins..], to);
    let file = recording(&seen[..begins], &window, folder)?;
    let (counters, _) = within(pictures(&file, canvas, &[region], None)).await?;
    let videos = window.iter().filter(|(_, tag)| tag.kind == Tag::VIDEO);
    let since = videos.zip(counters).filter(|((at, _), _)| *at > since);
    let mut since = since.map(|(_, counters)| counters);
    let before = since.position(|counters| counters[0].is_some());
    let before = before.ok_or_else(|| Error::Wrong("the change never showed".into()))?;
    Ok(before + 1)
}

/// Media messages that came by `to`.
fn media(seen: &[Arrival], to: Instant) -> Vec<&Arrival> {
    let window = seen.iter().take_while(|(at, _)| *at <= to);
    window.filter(|(_, tag)| tag.is_media()).collect()
}

/// A file of `window`, with the headers that were in force.
fn recording(before: &[Arrival], window: &[&Arrival], folder: &Path) -> Result<String, Error> {
    let newest = |kind| {
        let mut headers = before.iter().rev().map(|(_, tag)| tag);
        headers.find(|t| t.kind == kind && t.is_header())
    };
    let headers = [newest(Tag::VIDEO), newest(Tag::AUDIO)];
    let file = folder.join("program.flv");
    let tags = headers.into_iter().flatten();
    std::fs::write(&file, flv(tags.chain(window.iter().map(|(_, tag)| tag))))
        .map_err(|e| Error::io("the recording", e))?;
    Ok(file.display().to_string())
}

async fn within<T>(read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(PATIENCE, read).await.map_err(|_| Error::Deadline {
        what: "the decoded recording".into(),
        within: PATIENCE,
    })?
}

/// The numbers in all regions of all pictures of a file, and how like `source` each picture is by the first of them.
async fn pictures(
    file: &str,
    size: Size,
    regions: &[Region],
    mut source: Option<&mut Source>,
) -> Result<(Vec<Vec<Option<u16>>>, Vec<f64>), Error> {
    let line = format!(
        "-loglevel error -i {file} -map 0:v -fps_mode passthrough -pix_fmt yuv420p -f rawvideo pipe:1"
    );
    let mut ffmpeg = Process::spawn("ffmpeg", &line.split(' ').collect::<Vec<_>>())?;
    drop(ffmpeg.stdin());
    let pictures = ffmpeg.stdout();
    let mut pictures = pictures.ok_or_else(|| Error::Wrong("no pictures can be read".into()))?;
    let mut frame = vec![0; size.frame_bytes()];
    let (mut all, mut likeness) = (Vec::new(), Vec::new());
    while pictures.read_exact(&mut frame).await.is_ok() {
        let read = |region| picture::read(&frame, size, region).counter;
        let counters: Vec<Option<u16>> = regions.iter().copied().map(read).collect();
        if let (Some(source), Some(Some(number))) = (source.as_mut(), counters.first()) {
            likeness.push(source.compare(&frame, *number).await?);
        }
        all.push(counters);
    }
    ffmpeg.success(PATIENCE).await?;
    Ok((all, likeness))
}

fn flv<'a>(tags: impl Iterator<Item = &'a Tag>) -> Vec<u8> {
    let mut out = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    for Tag { kind, time, body } in tags {
        let [_, l0, l1, l2] = (body.len() as u32).to_be_bytes();
        let [t3, t0, t1, t2] = time.to_be_bytes();
        out.extend([*kind, l0, l1, l2, t0, t1, t2, t3, 0, 0, 0]);
        out.extend(body);
        out.extend((11 + body.len() as u32).to_be_bytes());
    }
    out
}
