//! What is mixed: four clips whose every frame carries its number, the main's sound a beep each second.
//!
//! Made once by ffmpeg and kept with the build. The pictures move and are noisy, as a camera's are: a clip that is
//! still would make codecs cheap and all else look dear.

use std::path::{Path, PathBuf};
use std::time::Duration;

use linkmic::probe::flv::{self, Tag};
use linkmic::probe::picture::{Colour, Pattern};
use linkmic::probe::process::{self, Process};
use linkmic::probe::{Error, Size};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::sound;

/// Making all four takes a minute on two cores.
const PATIENCE: Duration = Duration::from_secs(300);
/// Frames are told apart within a clip, so no latency may be longer.
const SECONDS: u64 = 20;

/// One source of the mix.
pub struct Source {
    pub name: &'static str,
    pub size: Size,
    pub fps: u64,
    kbps: u32,
    /// As ffmpeg's aevalsrc has it.
    sound: &'static str,
}

/// The main first.
pub const SOURCES: [Source; 4] = [
    Source {
        name: "main",
        size: Size::new(1280, 720),
        fps: 30,
        kbps: 2500,
        sound: r"0.5*sin(2*PI*1000*t)*lt(mod(t\,1)\,0.1)",
    },
    sub("sub1", Size::new(320, 480), 15, "0.02*sin(2*PI*300*t)"),
    sub("sub2", Size::new(480, 270), 20, "0.02*sin(2*PI*440*t)"),
    sub("sub3", Size::new(320, 480), 15, "0.02*sin(2*PI*700*t)"),
];

const fn sub(name: &'static str, size: Size, fps: u64, sound: &'static str) -> Source {
    Source {
        name,
        size,
        fps,
        kbps: 500,
        sound,
    }
}

/// A source, ready to be sent over and over.
pub struct Clip {
    /// Sent once, before all else.
    pub headers: Vec<Tag>,
    /// By rising time, which begins at 0.
    pub tags: Vec<Tag>,
    /// From its beginning to its next, ms.
    pub length_ms: u64,
    /// Which of `tags` begin a beep.
    pub beeps: Vec<usize>,
}

impl Clip {
    /// Message `n`, counted through all rounds: its place in the clip, and when it is due, in ms from the first.
    pub fn due(&self, n: usize) -> (usize, u64) {
        let (round, at) = (n / self.tags.len(), n % self.tags.len());
        let time = u64::from(self.tags[at].time);
        (at, round as u64 * self.length_ms + time)
    }
}

/// Makes or reads all four.
pub async fn all(folder: &Path) -> Result<Vec<Clip>, Error> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io("a folder for clips", e))?;
    let mut clips = Vec::new();
    for source in &SOURCES {
        let file = folder.join(format!("{}.flv", source.name));
        if !file.exists() {
            eprintln!("mix: making {}", file.display());
            make(source, &file).await?;
        }
        clips.push(read(source, &file).await?);
    }
    Ok(clips)
}

async fn make(source: &Source, file: &Path) -> Result<(), Error> {
    let Source { size, fps, .. } = source;
    let unfinished = PathBuf::from(format!("{}.part", file.display()));
    let (wide, high) = (size.width, size.height);
    let mut camera = ffmpeg(
        &format!(
            "-f lavfi -i testsrc2=size={wide}x{high}:rate={fps},noise=alls=8:allf=t -t {SECONDS} \
             -pix_fmt yuv420p -f rawvideo pipe:1"
        ),
        &[],
    )?;
    let mut encoder = ffmpeg(
        &format!(
            "-y -f rawvideo -pixel_format yuv420p -video_size {wide}x{high} -framerate {fps} -i pipe:0 \
             -f lavfi -i aevalsrc={sound}:s=48000:c=stereo:d={SECONDS} -map 0:v -map 1:a \
             -c:v libx264 -preset fast -profile:v high -bf 0 -g {fps} -sc_threshold 0 \
             -b:v {kbps}k -maxrate {kbps}k -bufsize {kbps}k -c:a aac -b:a 96k -f flv",
            // The same on both channels.
            sound = [source.sound; 2].join("|"),
            kbps = source.kbps,
        ),
        &[&unfinished.display().to_string()],
    )?;
    drop(camera.stdin());
    let pipe = || Error::io("a pipe of ffmpeg", std::io::ErrorKind::BrokenPipe.into());
    let mut pictures = camera.stdout().ok_or_else(pipe)?;
    let mut sink = encoder.stdin().ok_or_else(pipe)?;
    let mut pattern = Pattern::new(*size, Colour::GREY);
    let mut frame = vec![0; size.frame_bytes()];
    // Two rows of blocks, each a tenth of the width high or an eighth of the height.
    let numbered = 2 * (wide / 10).min(high / 8) * wide;
    for number in 0..SECONDS * fps {
        let read = pictures.read_exact(&mut frame).await;
        read.map_err(|e| Error::io("pictures from ffmpeg", e))?;
        frame[..numbered].copy_from_slice(&pattern.draw(number)[..numbered]);
        let written = sink.write_all(&frame).await;
        written.map_err(|e| Error::io("pictures for ffmpeg", e))?;
    }
    drop(sink);
    encoder.success(PATIENCE).await?;
    std::fs::rename(&unfinished, file).map_err(|e| Error::io("a finished clip", e))
}

async fn read(source: &Source, file: &Path) -> Result<Clip, Error> {
    let name = file.display().to_string();
    let bytes = std::fs::read(file).map_err(|e| Error::io(&name, e))?;
    let length_ms = SECONDS * 1000;
    let (headers, mut tags): (Vec<Tag>, Vec<Tag>) = flv::tags(&bytes)?
        .into_iter()
        .filter(|tag| tag.is_header() || tag.is_media())
        .partition(Tag::is_header);
    let onsets = sound::onsets(&name).await?;
    let sounds = tags.iter().enumerate();
    let sounds: Vec<usize> = sounds
        .filter(|(_, tag)| tag.kind == Tag::AUDIO)
        .map(|(at, _)| at)
        .collect();
    let beeps = onsets.iter().filter_map(|&n| sounds.get(n).copied());
    let beeps = beeps
        .filter(|&at| u64::from(tags[at].time) < length_ms)
        .collect();
    // What comes by decode time is in order already; what is past the end is at the end.
    tags.retain(|tag| u64::from(tag.time) < length_ms);
    let frames = tags.iter().filter(|tag| tag.kind == Tag::VIDEO).count() as u64;
    if headers.len() != 2 || frames != SECONDS * source.fps {
        return Err(Error::Wrong(format!(
            "{name} has {} headers and {frames} frames; delete it to have it made anew",
            headers.len()
        )));
    }
    Ok(Clip {
        headers,
        tags,
        length_ms,
        beeps,
    })
}

fn ffmpeg(line: &str, rest: &[&str]) -> Result<Process, Error> {
    let line = ["-hide_banner", "-nostats", "-loglevel", "warning"]
        .into_iter()
        .chain(line.split_whitespace())
        .chain(rest.iter().copied());
    Process::spawn("ffmpeg", &line.collect::<Vec<_>>())
}

/// The sound of a file as 16-bit mono samples.
pub async fn samples(file: &str) -> Result<Vec<i16>, Error> {
    let line = ["-loglevel", "error", "-i", file, "-map", "0:a", "-ac", "1"];
    let line: Vec<&str> = line.into_iter().chain(["-f", "s16le", "pipe:1"]).collect();
    let bytes = process::output("ffmpeg", &line, PATIENCE).await?;
    let (pairs, _) = bytes.as_chunks::<2>();
    Ok(pairs.iter().map(|&pair| i16::from_le_bytes(pair)).collect())
}
