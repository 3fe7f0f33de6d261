//! The program's pipelines: drawn frames and blocks of sound in, H.264 and AAC out.
//!
//! Owns one GStreamer pipeline for pictures and one for sound, made of what [`video_encoder`] and [`audio_encoder`] describe,
//! so that the one can be replaced while the other runs on. Never waits for anything: it is told what to encode and when.
//! Called by one mix's thread; what comes out goes to [`Packets`] from GStreamer's threads.

mod audio_encoder;
mod frames;
mod gate;
mod line;
pub(super) mod trial;
pub(super) mod video_encoder;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as app;

use super::aac;
use super::audio::Frame;
use super::canvas::Canvas;
use super::decode::child;
use super::encoder::Encoder;
use super::format::AudioFormat;
use super::governor::{self, Rung};
use super::layout::Size;
use frames::Frames;
use gate::Gate;
use line::Line;

/// Blocks that may wait in front of the encoder of sound: 1.4 s at 48 kHz, more than the watchdog lets pass, and half a
/// MB. More would be heard too late to be of use.
const MAX_BLOCKS: u64 = 64;

/// Everything that makes the output's format. Another one needs other pipelines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub size: Size,
    pub fps: u32,
    pub video_kbps: u32,
    pub audio: AudioFormat,
    pub audio_kbps: u32,
    pub encoder: Encoder,
    /// x264's; other encoders are set by whether it is a fast one.
    pub preset: String,
    pub key_frame_interval: Duration,
}

impl Settings {
    /// The step of their ladder with that number, 0 for what was asked for.
    pub fn rung(&self, level: usize) -> Rung {
        let mut rungs = governor::ladder(self.encoder.kind, &self.preset);
        rungs.swap_remove(level.min(rungs.len() - 1))
    }

    /// How many steps they have.
    pub fn rungs(&self) -> usize {
        governor::ladder(self.encoder.kind, &self.preset).len()
    }

    /// The same on another step.
    pub fn at(&self, level: usize) -> Self {
        Self {
            preset: self.rung(level).preset,
            ..self.clone()
        }
    }
}

/// What an encoder gave.
pub(super) struct Packet<'a> {
    /// Since the mix's zero.
    pub time_ns: u64,
    pub key: bool,
    /// The decoder configuration in force.
    pub header: &'a [u8],
    pub bytes: &'a [u8],
}

/// Who gets what was encoded. Called from GStreamer's threads: must not block.
pub(super) trait Packets: Send + Sync + 'static {
    /// An access unit.
    fn video(&self, packet: Packet<'_>);
    /// A raw frame of AAC. The time is that of the first sample put in; the encoder's own delay is the receiver's matter.
    fn audio(&self, packet: Packet<'_>);
}

/// The running pipelines. Dropping it stops them.
pub(super) struct Program<P: Packets> {
    zero: Instant,
    frames: Frames<P>,
    voice: Line,
    sound: app::AppSrc,
    sounds: Gate<P>,
    channels: u32,
    voice_encoder: aac::Encoder,
}

impl<P: Packets> Program<P> {
    /// Builds and starts the pipelines. `zero` is the moment of time 0.
    ///
    /// # Errors
    /// An element could not be made or started; the text says which.
    pub fn new(
        settings: &Settings,
        voice_encoder: aac::Encoder,
        zero: Instant,
        packets: Arc<P>,
    ) -> Result<Self, String> {
        let voice = Line::new(&audio_encoder::branch(settings, voice_encoder))?;
        let sounds = Gate::new(packets.clone());
        let to = sounds.clone();
        on_packets(&voice.pipeline, "sounds", move |packet| {
            to.pass(|packets| packets.audio(packet));
        })?;
        let program = Self {
            zero,
            frames: Frames::new(settings, zero, packets)?,
            sound: child(&voice.pipeline, "sound")?,
            voice,
            sounds,
            channels: settings.audio.channels,
            voice_encoder,
        };
        program.voice.start(zero)?;
        Ok(program)
    }

    /// Goes on with another video encoder of the same size and rate, without a frame missing: `given` tells the number of
    /// the frame that came out last, asked when no more can come of the old one. Takes some ms.
    ///
    /// # Errors
    /// The new one does not start; the old one stays.
    pub fn replace_video(
        &mut self,
        settings: &Settings,
        packets: Arc<P>,
        given: impl FnOnce() -> Option<u64>,
    ) -> Result<(), String> {
        self.frames.replace(settings, self.zero, packets, given)
    }

    /// Encodes frame number `n` as `draw` makes it; `pts_ns` gives each frame's time. For frames left out before it the
    /// one before them is repeated. How many frames went in by that; `None`: the encoder is behind and this one was left out.
    pub fn push_frame(
        &mut self,
        n: u64,
        pts_ns: impl Fn(u64) -> u64,
        draw: impl FnOnce(&mut Canvas<'_>),
    ) -> Option<u64> {
        self.frames.push(n, pts_ns, draw)
    }

    /// Encodes the latest picture once more as frame `n`, and as those left out before it. Answers like
    /// [`Self::push_frame`].
    pub fn repeat_frame(&mut self, n: u64, pts_ns: impl Fn(u64) -> u64) -> Option<u64> {
        self.frames.repeat(n, pts_ns)
    }

    /// The encoder of its sound.
    pub fn voice_encoder(&self) -> aac::Encoder {
        self.voice_encoder
    }

    /// Encodes one block of sound. `false`: the encoder is far behind, and it was left out.
    pub fn push_sound(&mut self, pts_ns: u64, block: &[Frame]) -> bool {
        if self.sound.current_level_buffers() >= MAX_BLOCKS {
            return false;
        }
        let bytes = audio_encoder::samples(block, self.channels);
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        buffer
            .make_mut()
            .set_pts(gst::ClockTime::from_nseconds(pts_ns));
        // It can fail only while the pipeline is failing, which is reported by itself.
        let _ = self.sound.push_buffer(buffer);
        true
    }

    /// The error of one of the pipelines, if it has one.
    pub fn error(&self) -> Option<String> {
        self.frames.error().or_else(|| self.voice.error())
    }

    /// The pipelines' graphs are written into that folder when they are stopped.
    pub fn give_up(&mut self, why: &str, graphs: &Path) {
        self.frames.line().give_up(why, graphs);
        self.voice.give_up(why, graphs);
    }

    /// The pipeline of the pictures.
    #[cfg(test)]
    pub fn pictures(&mut self) -> gst::Pipeline {
        self.frames.line().pipeline.clone()
    }

    /// The pipeline of the sound.
    #[cfg(test)]
    pub fn voice(&self) -> gst::Pipeline {
        self.voice.pipeline.clone()
    }
}

impl<P: Packets> Drop for Program<P> {
    fn drop(&mut self) {
        self.frames.shut();
        self.sounds.shut();
    }
}

/// Hands what an appsink gets to `take`.
fn on_packets(
    pipeline: &gst::Pipeline,
    name: &str,
    take: impl Fn(Packet<'_>) + Send + 'static,
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
                    && let (Ok(bytes), Ok(header)) = (buffer.map_readable(), header.map_readable())
                {
                    take(Packet {
                        time_ns: time.nseconds(),
                        key: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
                        header: &header,
                        bytes: &bytes,
                    });
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use gst::prelude::*;

    use super::super::format::DEFAULT_AUDIO;
    use super::*;

    pub(in crate::mixer::program) struct Nobody;

    impl Packets for Nobody {
        fn video(&self, _: Packet<'_>) {}
        fn audio(&self, _: Packet<'_>) {}
    }

    /// A square with sides of so many pixels.
    pub(in crate::mixer::program) fn square(side: u32, fps: u32) -> Settings {
        Settings {
            size: Size {
                width: side,
                height: side,
            },
            fps,
            video_kbps: 200,
            audio: DEFAULT_AUDIO,
            audio_kbps: 96,
            encoder: Encoder::find(Default::default()).unwrap(),
            preset: "ultrafast".into(),
            key_frame_interval: Duration::from_secs(2),
        }
    }

    #[test]
    fn an_encoder_of_sound_that_hangs_is_given_no_more_than_it_may_have_waiting() {
        gst::init().unwrap();
        let settings = square(16, 25);
        let (encoder, _) = aac::Encoder::choose(Default::default(), settings.audio, 96);
        let mut program =
            Program::new(&settings, encoder, Instant::now(), Arc::new(Nobody)).unwrap();
        // Its thread waits with the first block until nobody can let it go on any more.
        let (free, hang) = mpsc::channel::<()>();
        let pad = program.sound.static_pad("src").unwrap();
        let hang = std::sync::Mutex::new(hang);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            let _ = hang.lock().unwrap().recv();
            gst::PadProbeReturn::Ok
        });
        let block = [[0.0; 2]; super::super::audio::BLOCK];
        let taken = (0..1_000u64).filter(|n| program.push_sound(n * 21_333_333, &block));
        // One may have left the queue.
        let taken = taken.count() as u64;
        assert!((MAX_BLOCKS..=MAX_BLOCKS + 1).contains(&taken), "{taken}");
        drop(free);
    }
}
