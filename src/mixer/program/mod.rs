//! The program pipeline: drawn frames and blocks of sound in, H.264 and AAC out.
//!
//! Owns one GStreamer pipeline, made of what [`video_encoder`] and [`audio_encoder`] describe, and the memory that frames
//! are drawn in. Never waits for anything: it is told what to encode and when. Called by one mix's thread; what comes out
//! goes to [`Packets`] from GStreamer's threads.

mod audio_encoder;
mod video_encoder;

use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;
use gstreamer_video as video;

use super::aac::Encoder;
use super::audio::Frame;
use super::canvas::Canvas;
use super::decode::{Failure, child, launch, stop};
use super::format::AudioFormat;
use super::layout::Size;
use super::picture::Pool;
use video_encoder::frame_info;

/// Frames that may wait in front of the encoder: more means that it cannot keep up.
const MAX_BACKLOG: u64 = 3;
/// A picture is repeated for frames that were left out, so that the output keeps its rate, but not for longer than this.
const MAX_REPEATED: Duration = Duration::from_secs(1);

/// Everything that makes the output's format. Another one needs another pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub size: Size,
    pub fps: u32,
    pub video_kbps: u32,
    pub audio: AudioFormat,
    pub audio_kbps: u32,
    pub preset: String,
    pub key_frame_interval: Duration,
}

/// Who gets what was encoded. Called from GStreamer's threads: must not block.
pub(super) trait Packets: Send + Sync + 'static {
    /// `time_ns` is since the mix's zero; `header` is the decoder configuration in force.
    fn video(&self, time_ns: u64, key: bool, header: &[u8], unit: &[u8]);
    /// As above. The time is that of the first sample put in; the encoder's own delay is the receiver's matter.
    fn audio(&self, time_ns: u64, header: &[u8], frame: &[u8]);
}

/// The running pipeline. Dropping it stops it.
pub(super) struct Program {
    pipeline: gst::Pipeline,
    pictures: app::AppSrc,
    info: video::VideoInfo,
    pool: Pool,
    /// The latest frame, and its number.
    last: Option<(u64, gst::Buffer)>,
    sound: app::AppSrc,
    channels: u32,
    encoder: Encoder,
    failure: Arc<Failure>,
}

impl Program {
    /// Builds and starts the pipeline. `zero` is the moment of time 0.
    ///
    /// # Errors
    /// An element could not be made or started; the text says which.
    pub fn new(
        settings: &Settings,
        encoder: Encoder,
        zero: Instant,
        packets: Arc<impl Packets>,
    ) -> Result<Self, String> {
        let info = frame_info(settings.size, settings.fps).map_err(|e| e.to_string())?;
        let pipeline = launch(&format!(
            "{} {}",
            video_encoder::branch(settings),
            audio_encoder::branch(settings, encoder)
        ))?;
        let failure = Arc::new(Failure::default());
        failure.watch(&pipeline);
        let program = Self {
            pictures: child(&pipeline, "canvas")?,
            sound: child(&pipeline, "sound")?,
            channels: settings.audio.channels,
            encoder,
            pool: Pool::new(&info).map_err(|e| e.to_string())?,
            last: None,
            info,
            failure,
            pipeline,
        };
        let caps = program.info.to_caps().map_err(|e| e.to_string())?;
        program.pictures.set_caps(Some(&caps));
        program.connect(packets)?;
        program.start(zero)?;
        Ok(program)
    }

    fn connect(&self, packets: Arc<impl Packets>) -> Result<(), String> {
        let to = packets.clone();
        on_packets(
            &self.pipeline,
            "pictures",
            move |time, key, header, unit| {
                to.video(time, key, header, unit);
            },
        )?;
        on_packets(&self.pipeline, "sounds", move |time, _, header, frame| {
            packets.audio(time, header, frame);
        })
    }

    fn start(&self, zero: Instant) -> Result<(), String> {
        let clock = gst::SystemClock::obtain();
        self.pipeline.use_clock(Some(&clock));
        self.pipeline.set_start_time(gst::ClockTime::NONE);
        let since = gst::ClockTime::from_nseconds(zero.elapsed().as_nanos() as u64);
        self.pipeline
            .set_base_time(clock.time().saturating_sub(since));
        self.pipeline
            .set_state(gst::State::Playing)
            .map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Encodes frame number `n` as `draw` makes it; `pts_ns` gives each frame's time. For frames left out before it the
    /// one before them is repeated. `false`: the encoder is behind and this one was left out.
    pub fn push_frame(
        &mut self,
        n: u64,
        pts_ns: impl Fn(u64) -> u64,
        draw: impl FnOnce(&mut Canvas<'_>),
    ) -> bool {
        if self.pictures.current_level_buffers() >= MAX_BACKLOG {
            return false;
        }
        let Ok(mut buffer) = self.pool.take() else {
            return false;
        };
        if !self.drawn(&mut buffer, draw) {
            return false;
        }
        if let Some((last, picture)) = self.last.take() {
            let most = u64::from(u32::try_from(self.info.fps().numer()).unwrap_or(0))
                * MAX_REPEATED.as_secs();
            for missing in (last + 1).max(n.saturating_sub(most))..n {
                // The memory is shared; only the times are the repetition's own.
                self.push(picture.copy(), pts_ns(missing), pts_ns(missing + 1));
            }
        }
        self.last = Some((n, self.push(buffer, pts_ns(n), pts_ns(n + 1))));
        true
    }

    fn drawn(&self, buffer: &mut gst::Buffer, draw: impl FnOnce(&mut Canvas<'_>)) -> bool {
        let stride = |n: usize| usize::try_from(self.info.stride()[n]).unwrap_or(0);
        let size = Size {
            width: self.info.width(),
            height: self.info.height(),
        };
        let Ok(mut memory) = buffer.make_mut().map_writable() else {
            return false;
        };
        let strides = [stride(0), stride(1), stride(2)];
        let canvas = Canvas::packed(size, &mut memory, strides);
        canvas.map(|mut canvas| draw(&mut canvas)).is_some()
    }

    fn push(&self, mut buffer: gst::Buffer, pts_ns: u64, next_ns: u64) -> gst::Buffer {
        let writable = buffer.make_mut();
        writable.set_pts(gst::ClockTime::from_nseconds(pts_ns));
        writable.set_duration(gst::ClockTime::from_nseconds(next_ns - pts_ns));
        // It can fail only while the pipeline is failing, which is reported by itself.
        let _ = self.pictures.push_buffer(buffer.clone());
        buffer
    }

    /// The encoder of its sound.
    pub fn encoder(&self) -> Encoder {
        self.encoder
    }

    /// Encodes one block of sound.
    pub fn push_sound(&mut self, pts_ns: u64, block: &[Frame]) {
        let bytes = audio_encoder::samples(block, self.channels);
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        buffer
            .make_mut()
            .set_pts(gst::ClockTime::from_nseconds(pts_ns));
        // It can fail only while the pipeline is failing, which is reported by itself.
        let _ = self.sound.push_buffer(buffer);
    }

    /// The pipeline's error, if it has one.
    pub fn error(&self) -> Option<String> {
        self.failure.take()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        stop(&self.pipeline);
    }
}

/// Hands what an appsink gets to `packet`: time since zero, key frame?, codec_data, bytes.
fn on_packets(
    pipeline: &gst::Pipeline,
    name: &str,
    packet: impl Fn(u64, bool, &[u8], &[u8]) + Send + 'static,
) -> Result<(), String> {
    let sink: app::AppSink = child(pipeline, name)?;
    sink.set_callbacks(
        app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                // x264enc adds 1000 hours to its times and takes them away again in its segment.
                let segment = sample
                    .segment()
                    .and_then(|s| s.downcast_ref::<gst::ClockTime>());
                let header = sample
                    .caps()
                    .and_then(|caps| caps.structure(0))
                    .and_then(|s| s.get::<gst::Buffer>("codec_data").ok());
                if let (Some(buffer), Some(segment), Some(header)) =
                    (sample.buffer(), segment, header)
                    && let Some(time) = buffer.pts().and_then(|pts| segment.to_running_time(pts))
                    && let (Ok(unit), Ok(header)) = (buffer.map_readable(), header.map_readable())
                {
                    let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
                    packet(time.nseconds(), key, &header, &unit);
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    Ok(())
}
