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

/// An AAC frame at 48 kHz, rounded.
const SOUND_MS: u64 = 21;

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

/// One message of a clip.
pub struct Piece {
    /// When it is sent, ms from the clip's beginning.
    due: u64,
    /// Its timestamp, from there as well; below 0 it belongs to the round before.
    time: i64,
    pub tag: Tag,
}

/// A source, ready to be sent over and over.
pub struct Clip {
    pub file: String,
    /// Sent once, before all else.
    pub headers: Vec<Tag>,
    /// In the order in which they are sent.
    pub pieces: Vec<Piece>,
    /// From its beginning to its next, ms.
    pub length_ms: u64,
    /// Which of `pieces` begin a beep.
    pub beeps: Vec<usize>,
}

impl Clip {
    /// Message `n`, counted through all rounds: what it is, when it is due, and its timestamp, both in ms.
    pub fn message(&self, n: usize) -> (&Tag, u64, u64) {
        let (round, at) = (n / self.pieces.len(), n % self.pieces.len());
        let (before, piece) = (round as u64 * self.length_ms, &self.pieces[at]);
        let time = before.saturating_add_signed(piece.time);
        (&piece.tag, before + piece.due, time)
    }

    /// Where its messages of one kind are, in the order of the file.
    pub fn positions(&self, kind: u8) -> Vec<usize> {
        let pieces = self.pieces.iter().enumerate();
        let mut all: Vec<_> = pieces.filter(|(_, piece)| piece.tag.kind == kind).collect();
        all.sort_by_key(|(_, piece)| piece.tag.time);
        all.into_iter().map(|(at, _)| at).collect()
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
    tags.retain(|tag| u64::from(tag.time) < length_ms);
    let frames = tags.iter().filter(|tag| tag.kind == Tag::VIDEO).count() as u64;
    if headers.len() != 2 || frames != SECONDS * source.fps {
        return Err(Error::Wrong(format!(
            "{name} has {} headers and {frames} frames; delete it to have it made anew",
            headers.len()
        )));
    }
    let mut pieces: Vec<Piece> = tags.into_iter().map(|tag| piece(tag, length_ms)).collect();
    pieces.sort_by_key(|piece| piece.due);
    let mut clip = Clip {
        file: name.clone(),
        headers,
        pieces,
        length_ms,
        beeps: Vec::new(),
    };
    let sounds = clip.positions(Tag::AUDIO);
    let onsets = sound::onsets(&name).await?;
    clip.beeps = onsets
        .iter()
        .filter_map(|&n| sounds.get(n).copied())
        .collect();
    Ok(clip)
}

/// A picture leaves at its time, sound when the last sample of its frame has been heard: what of the clip's end is late
/// by that comes at the beginning of the next round.
fn piece(tag: Tag, length_ms: u64) -> Piece {
    let time = u64::from(tag.time);
    let due = match tag.kind {
        Tag::AUDIO => time + SOUND_MS,
        _ => time,
    };
    match due.checked_sub(length_ms) {
        Some(due) => Piece {
            due,
            time: i64::from(tag.time) - length_ms as i64,
            tag,
        },
        None => Piece {
            due,
            time: i64::from(tag.time),
            tag,
        },
    }
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
