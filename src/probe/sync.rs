//! Flash and beep: clips whose picture turns white at the very moment when a tone sets in, and where both are found
//! again in a recording.
//!
//! All times are media time, ms: the time stamps of the file that is looked at, whatever their zero.

use std::path::Path;
use std::time::Duration;

use super::Error;
use super::picture::{Region, Size};
use super::process::{self, Process};
use super::tone;

/// From flash to flash, ms. No multiple of any frame interval, so that flashes meet frames and ticks in all phases.
const PERIOD_MS: u32 = 731;
/// How long a flash and its beep are.
const LENGTH_MS: u32 = 120;
/// A grey that is flash and no longer ground; luma of the clip's ground is 16, of the flash 235.
const BRIGHT: f64 = 110.0;
/// Nothing fainter is a beep, dB below full scale. Beeps are at -12 dB, and a mix may turn them down.
const FAINTEST_DB: f64 = -40.0;
/// A tone's loudness is measured over this much sound …
const WINDOW: usize = SAMPLE_RATE as usize / 100;
/// … at each multiple of this much.
const STEP: usize = SAMPLE_RATE as usize / 1000;
const SAMPLE_RATE: u32 = 48_000;
/// How much of an output is recorded to be judged: some 23 flashes, without what [`JOINED_MS`] leaves out.
pub const RECORDED: Duration = Duration::from_secs(19);
/// The beginning of a recording is the GOP so far, squeezed into a moment, and is not judged, ms.
pub const JOINED_MS: f64 = 1_500.0;
/// A decoder has its time: a minute of media takes a second or two, on a busy machine many.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one clip shows and says.
#[derive(Debug, Clone, Copy)]
pub struct Clip {
    pub size: Size,
    /// Frames per second.
    pub fps: u32,
    /// Of the beep, Hz. Clips that are mixed need frequencies 1 kHz apart to be told apart.
    pub tone: f64,
    /// Length, s.
    pub seconds: u32,
}

impl Clip {
    /// Writes the clip as FLV: H.264 with a key frame each second and no B-frames, and AAC.
    ///
    /// # Errors
    /// [`Error::Ended`] with what ffmpeg said when it could not.
    pub async fn write(&self, path: &Path) -> Result<(), Error> {
        let (period, length) = (f64::from(PERIOD_MS) / 1e3, f64::from(LENGTH_MS) / 1e3);
        let on = format!("lt(mod(t\\,{period})\\,{length})");
        let Self {
            size,
            fps,
            tone,
            seconds,
        } = self;
        let picture = format!(
            "color=black:size={}x{}:rate={fps}:duration={seconds},drawbox=color=white:t=fill:enable='{on}'",
            size.width, size.height
        );
        let sound = format!(
            "aevalsrc='0.25*sin(2*PI*{tone}*t)*{on}':sample_rate={SAMPLE_RATE}:duration={seconds}"
        );
        let coded = format!(
            "-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g {fps} -b:v 400k \
             -c:a aac -b:a 64k -ac 1 -f flv"
        );
        let path = path.display().to_string();
        let lavfi = ["-f", "lavfi", "-i"];
        let mut line = vec!["-hide_banner", "-nostats", "-loglevel", "warning", "-y"];
        line.extend(lavfi.iter().chain(&[picture.as_str()]));
        line.extend(lavfi.iter().chain(&[sound.as_str()]));
        line.extend(coded.split_whitespace().chain([path.as_str()]));
        process::output("ffmpeg", &line, PATIENCE).await?;
        Ok(())
    }
}

/// Sends a clip again and again from its beginning, until it is dropped: `speed` seconds of media in each second, as a
/// camera does whose clock is off. 1 is a clock that is right.
///
/// # Errors
/// [`Error::Missing`] without ffmpeg.
pub fn send(clip: &Path, url: &str, speed: f64) -> Result<Process, Error> {
    let before =
        format!("-hide_banner -nostats -loglevel warning -readrate {speed} -stream_loop -1 -i");
    let after = "-c copy -flvflags no_duration_filesize -f flv";
    let clip = clip.display().to_string();
    let line: Vec<&str> = before
        .split_whitespace()
        .chain([clip.as_str()])
        .chain(after.split_whitespace())
        .chain([url])
        .collect();
    Process::spawn("ffmpeg", &line)
}

/// When `region` of the recording's picture turns white, ms, first to last.
///
/// # Errors
/// [`Error::Ended`] with what ffmpeg said when it cannot decode it.
pub async fn flashes(recording: &Path, region: Region) -> Result<Vec<f64>, Error> {
    let Region {
        x,
        y,
        width,
        height,
    } = region;
    let filter = format!("crop={width}:{height}:{x}:{y},signalstats,metadata=mode=print:file=-");
    let told = format!("-map 0:v -vf {filter} -fps_mode passthrough -f null -");
    let told = decode(recording, &told).await?;
    let told = String::from_utf8_lossy(&told);
    let mut found = Vec::new();
    let (mut time, mut was_bright) = (None, true);
    for line in told.lines() {
        if let Some((_, at)) = line.split_once("pts_time:") {
            time = at.trim().parse::<f64>().ok();
        } else if let Some(luma) = line.strip_prefix("lavfi.signalstats.YAVG=") {
            let luma: f64 = luma
                .trim()
                .parse()
                .map_err(|_| Error::Wrong(format!("no luma: {line}")))?;
            let is_bright = luma > BRIGHT;
            if let (true, false, Some(time)) = (is_bright, was_bright, time) {
                found.push(time * 1e3);
            }
            was_bright = is_bright;
        }
    }
    Ok(found)
}

/// When a tone of `frequency` Hz sets in in the recording's sound, ms, first to last.
///
/// # Errors
/// [`Error::Ended`] with what ffmpeg said when it cannot decode it.
pub async fn beeps(recording: &Path, frequency: f64) -> Result<Vec<f64>, Error> {
    let sound = Sound::of(recording).await?;
    Ok(sound.onsets(frequency))
}

/// The recording's sound, mono, and how many samples a second it has.
///
/// # Errors
/// [`Error::Ended`] with what ffmpeg said when it cannot decode it.
pub async fn sound(recording: &Path) -> Result<(Vec<i16>, u32), Error> {
    Ok((Sound::of(recording).await?.samples, SAMPLE_RATE))
}

/// Decoded sound with the time of each of its frames.
struct Sound {
    samples: Vec<i16>,
    /// The first sample's number and the time, ms, of each decoded frame.
    times: Vec<(usize, f64)>,
}

impl Sound {
    async fn of(recording: &Path) -> Result<Self, Error> {
        // One decode for the samples and one for their times: one standard output each.
        let raw = format!("-map 0:a -ac 1 -ar {SAMPLE_RATE} -f s16le -");
        let bytes = decode(recording, &raw).await?;
        let samples: Vec<i16> = bytes
            .chunks_exact(2)
            .map(|b| i16::from_le_bytes([b[0], b[1]]))
            .collect();
        let frames = format!(
            "-map 0:a -ac 1 -ar {SAMPLE_RATE} -af \
             astats=metadata=1:measure_overall=none:measure_perchannel=RMS_level,ametadata=mode=print:file=- -f null -"
        );
        let told = decode(recording, &frames).await?;
        let told = String::from_utf8_lossy(&told);
        let mut times = Vec::new();
        for (index, line) in told
            .lines()
            .filter(|line| line.starts_with("frame:"))
            .enumerate()
        {
            let time = line
                .split_once("pts_time:")
                .and_then(|(_, at)| at.trim().parse::<f64>().ok());
            let time = time.ok_or_else(|| Error::Wrong(format!("no time: {line}")))?;
            times.push((index * AAC_FRAME, time * 1e3));
        }
        if times.len() * AAC_FRAME != samples.len() {
            let what = format!(
                "{} samples in {} frames of sound",
                samples.len(),
                times.len()
            );
            return Err(Error::Wrong(what));
        }
        Ok(Self { samples, times })
    }

    fn time_of(&self, sample: usize) -> f64 {
        let at = self
            .times
            .partition_point(|(first, _)| *first <= sample)
            .saturating_sub(1);
        let (first, time) = self.times[at];
        time + (sample - first) as f64 * 1e3 / f64::from(SAMPLE_RATE)
    }

    /// Where the tone comes to half the loudness that it has at its loudest.
    fn onsets(&self, frequency: f64) -> Vec<f64> {
        let windows = self.samples.windows(WINDOW).step_by(STEP);
        let levels: Vec<f64> = windows
            .map(|window| tone::level(window, SAMPLE_RATE, frequency))
            .collect();
        let half = levels.iter().copied().fold(FAINTEST_DB, f64::max) - 6.0;
        let sets_in = |(_, pair): &(usize, &[f64])| pair[0] <= half && pair[1] > half;
        let onsets = levels.windows(2).enumerate().filter(sets_in);
        onsets
            .map(|(step, _)| self.time_of((step + 1) * STEP + WINDOW / 2))
            .collect()
    }
}

/// Samples in a frame of AAC-LC.
const AAC_FRAME: usize = 1024;

async fn decode(recording: &Path, rest: &str) -> Result<Vec<u8>, Error> {
    let before = "-hide_banner -nostats -nostdin -loglevel error -copyts -i";
    let recording = recording.display().to_string();
    let line: Vec<&str> = before
        .split_whitespace()
        .chain([recording.as_str()])
        .chain(rest.split_whitespace())
        .collect();
    process::output("ffmpeg", &line, PATIENCE).await
}

/// From each flash to its beep, ms: positive when the sound is late. Each flash has the beep that is nearest, if that is
/// less than half a period away.
pub fn offsets(flashes: &[f64], beeps: &[f64]) -> Vec<f64> {
    let near = |flash: &f64| {
        let nearest = beeps
            .iter()
            .map(|beep| beep - flash)
            .min_by(|a, b| a.abs().total_cmp(&b.abs()))?;
        (nearest.abs() < f64::from(PERIOD_MS) / 2.0).then_some(nearest)
    };
    flashes.iter().filter_map(near).collect()
}

/// From each flash of a recording's `region` to its beep of `tone` Hz, ms: as [`offsets`], of all after [`JOINED_MS`].
///
/// # Errors
/// [`Error::Ended`] with what ffmpeg said when it cannot decode it.
pub async fn judged_offsets(
    recording: &Path,
    region: Region,
    tone: f64,
) -> Result<Vec<f64>, Error> {
    let mut flashes = flashes(recording, region).await?;
    flashes.retain(|flash| *flash > JOINED_MS);
    let beeps = beeps(recording, tone).await?;
    Ok(offsets(&flashes, &beeps))
}

/// The middle one; NaN of nothing.
pub fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flash_has_its_nearest_beep_and_a_lost_one_has_none() {
        let flashes = [1000.0, 1731.0, 2462.0];
        let beeps = [1012.0, 1720.0];
        assert_eq!(offsets(&flashes, &beeps), [12.0, -11.0]);
    }

    #[test]
    fn a_beep_sets_in_where_its_frame_says_even_after_a_hole() {
        let mut samples = vec![0i16; 3 * AAC_FRAME];
        for (at, sample) in samples.iter_mut().enumerate().skip(2 * AAC_FRAME) {
            let t = at as f64 / f64::from(SAMPLE_RATE);
            *sample = ((std::f64::consts::TAU * 1000.0 * t).sin() * 8000.0) as i16;
        }
        // The third frame is 50 ms later than the samples before it would have it.
        let times = vec![(0, 0.0), (AAC_FRAME, 21.33), (2 * AAC_FRAME, 92.66)];
        let onsets = Sound { samples, times }.onsets(1000.0);
        assert_eq!(onsets.len(), 1);
        assert!((onsets[0] - 92.66).abs() < 3.0, "{onsets:?}");
    }
}
