//! A real ffmpeg that publishes our pictures and a tone; we know when each frame was handed to it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::task::JoinHandle;

use super::Error;
use super::picture::{self, Colour, Pattern, Size};
use super::process::{Log, Process};

/// What a publisher sends.
#[derive(Debug, Clone)]
pub struct Show {
    pub size: Size,
    /// Frames per second.
    pub fps: u32,
    pub colour: Colour,
    /// The frequency of the sine, in Hz.
    pub tone: f64,
    /// Seconds from key frame to key frame.
    pub gop_seconds: u32,
    pub video_kbps: u32,
    /// Seconds of media in each second: 1 but for a camera whose clock is off.
    pub speed: f64,
}

impl Show {
    /// The main anchor of the vendor's presets, at a bitrate that two cores can encode beside all else.
    pub const fn main(colour: Colour, tone: f64) -> Self {
        Self {
            size: Size::new(540, 960),
            fps: 20,
            colour,
            tone,
            gop_seconds: 1,
            video_kbps: 600,
            speed: 1.0,
        }
    }

    /// A sub anchor of the vendor's presets.
    pub const fn sub(colour: Colour, tone: f64) -> Self {
        Self {
            size: Size::new(320, 480),
            fps: 15,
            colour,
            tone,
            gop_seconds: 1,
            video_kbps: 350,
            speed: 1.0,
        }
    }
}

/// Audio sampling of all that we publish, Hz, one channel: the only value that the linkmic presets allow.
pub const SAMPLE_RATE: u32 = 48_000;

/// Feeding times that are kept: more than the burnt-in number can tell apart is of no use.
const KEPT: usize = picture::COUNTER_MODULUS as usize;

/// When which frame was handed to the encoder.
#[derive(Debug, Default)]
struct Fed {
    next: u64,
    times: VecDeque<Instant>,
}

/// An ffmpeg that publishes until it is dropped or stopped.
#[derive(Debug)]
pub struct Publisher {
    process: Process,
    fed: Log<Fed>,
    feeder: JoinHandle<()>,
}

impl Publisher {
    /// Starts to publish `show` to `url`. Returns before the server has said anything to it.
    ///
    /// # Errors
    /// [`Error::Missing`] without ffmpeg.
    pub fn start(url: &str, show: &Show) -> Result<Self, Error> {
        let mut process = Process::spawn("ffmpeg", &arguments(url, show))?;
        let stdin = process.stdin().ok_or_else(|| {
            Error::io(
                "standard input of ffmpeg",
                std::io::ErrorKind::BrokenPipe.into(),
            )
        })?;
        let fed = Log::default();
        let feeder = tokio::spawn(feed(stdin, show.clone(), fed.clone()));
        Ok(Self {
            process,
            fed,
            feeder,
        })
    }

    /// When the frame with burnt-in number `counter` was handed to the encoder: the newest such frame.
    /// `None` when there was none yet, or it is too long ago.
    pub fn fed_at(&self, counter: u16) -> Option<Instant> {
        let fed = self.fed.lock();
        let number = picture::unwrap(counter, fed.next.checked_sub(1)?)?;
        let first = fed.next - fed.times.len() as u64;
        fed.times.get(number.checked_sub(first)? as usize).copied()
    }

    /// Frames handed to the encoder so far.
    pub fn frames(&self) -> u64 {
        self.fed.lock().next
    }

    /// Whether ffmpeg is still at work; else the error that says why not.
    ///
    /// # Errors
    /// [`Error::Ended`] when it has ended.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.process.ended() {
            None => Ok(()),
            Some(status) => Err(self.process.failure(status)),
        }
    }

    /// Waits until ffmpeg has ended by itself, because the server refused or dropped it, and returns
    /// what it said.
    ///
    /// # Errors
    /// [`Error::Deadline`] when it still publishes after `within`.
    pub async fn refused(&mut self, within: Duration) -> Result<String, Error> {
        self.process.end(within).await?;
        Ok(self.process.said())
    }

    /// Sends nothing for so long, and then all that it has from meanwhile at once.
    ///
    /// # Errors
    /// When it cannot be stopped.
    pub async fn stall(&self, pause: Duration) -> Result<(), Error> {
        for (signal, then) in [("STOP", pause), ("CONT", Duration::ZERO)] {
            self.process.signal(signal).await?;
            tokio::time::sleep(then).await;
        }
        Ok(())
    }

    /// Ends in order: the last frames are sent, and the server hears FCUnpublish and deleteStream.
    pub async fn stop(mut self) {
        self.feeder.abort();
        // Without its writing end ffmpeg sees the end of the pictures; the tone alone would go on.
        self.process.interrupt(Duration::from_secs(5)).await;
    }

    /// Ends as a crash would: no goodbye, only the kernel closes the connection.
    pub async fn kill(mut self) {
        self.feeder.abort();
        self.process.kill().await;
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.feeder.abort();
    }
}

async fn feed(mut stdin: ChildStdin, show: Show, fed: Log<Fed>) {
    let mut pattern = Pattern::new(show.size, show.colour);
    let begin = tokio::time::Instant::now();
    for number in 0.. {
        let due = begin + Duration::from_secs_f64(number as f64 / f64::from(show.fps) / show.speed);
        tokio::time::sleep_until(due).await;
        let frame = pattern.draw(number);
        fed.change(|fed| {
            fed.next = number + 1;
            fed.times.push_back(Instant::now());
            if fed.times.len() > KEPT {
                fed.times.pop_front();
            }
        });
        if stdin.write_all(frame).await.is_err() {
            // ffmpeg is gone; `check` says why.
            return;
        }
    }
}

fn arguments(url: &str, show: &Show) -> Vec<String> {
    let Show { size, fps, .. } = show;
    let text = format!(
        "-hide_banner -nostats -loglevel warning -fflags nobuffer -probesize 32 -analyzeduration 0 \
         -f rawvideo -pixel_format yuv420p -video_size {}x{} -framerate {fps} -i pipe:0 \
         -f lavfi -i sine=frequency={}:sample_rate={SAMPLE_RATE}:samples_per_frame=1024 \
         -map 0:v -map 1:a -c:v libx264 -preset ultrafast -tune zerolatency -threads 1 \
         -g {} -sc_threshold 0 -b:v {kbps}k -maxrate {kbps}k -bufsize {kbps}k \
         -c:a aac -ac 1 -b:a 64k -flags +global_header -flush_packets 1 \
         -flvflags no_duration_filesize -f flv",
        size.width,
        size.height,
        show.tone,
        fps * show.gop_seconds,
        kbps = show.video_kbps,
    );
    let mut arguments: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    arguments.push(url.to_owned());
    arguments
}
