//! The program pipeline: layers of pictures and blocks of sound in, H.264 and AAC out.
//!
//! Owns one GStreamer pipeline: a compositor with a fixed number of pads, each of which gets a buffer for every output
//! frame, an x264 encoder tuned for latency, and an AAC encoder. Never waits for anything: it is told what to show and
//! when. Called by one mix's thread; what comes out goes to [`Packets`] from GStreamer's threads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;

use super::audio::Frame;
use super::decode::{Failure, PICTURE_CAPS, child, launch, stop};
use super::format::AudioFormat;
use super::input::Picture;
use super::layout::{Rect, Size};

/// Id of the mix's parameter sets. Anchors' encoders use 0: with another one a player that keeps sets by id has both,
/// so neither splice leaves it with the wrong ones.
const PARAMETER_SET_ID: u32 = 7;

/// Inputs that one pipeline takes: one main and three subs, the everyday case. Each pad costs a blank buffer per frame
/// while nothing is on it.
pub(super) const PADS: usize = 4;

/// The compositor gives pads this long before it composes without them. It never does wait, since every pad is fed for
/// every frame; but with a shorter time it would throw away as late what was put together at the deadline.
const COMPOSITOR_PATIENCE: Duration = Duration::from_millis(300);
/// Frames that may wait in front of the compositor: more means that the encoder cannot keep up.
const MAX_BACKLOG: u64 = 3;
/// Side of what an empty pad gets.
const BLANK: u32 = 16;

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

/// One pad's picture in one output frame.
pub(super) struct Layer {
    pub pad: usize,
    pub picture: Picture,
    pub rect: Rect,
    /// Higher ones cover lower ones.
    pub order: u32,
}

/// The running pipeline. Dropping it stops it.
pub(super) struct Program {
    pipeline: gst::Pipeline,
    pads: Vec<Pad>,
    sound: app::AppSrc,
    channels: u32,
    blank: (gst::Buffer, gst::Caps),
    failure: Arc<Failure>,
}

struct Pad {
    source: app::AppSrc,
    pad: gst::Pad,
    /// What the pad's properties say; `None` for hidden.
    shown: Option<(Rect, u32)>,
    caps: Option<gst::Caps>,
}

impl Program {
    /// Builds and starts the pipeline. `zero` is the moment of time 0.
    ///
    /// # Errors
    /// An element could not be made or started; the text says which.
    pub fn new(
        settings: &Settings,
        zero: Instant,
        packets: Arc<impl Packets>,
    ) -> Result<Self, String> {
        let Settings {
            size,
            fps,
            video_kbps,
            audio,
            audio_kbps,
            preset,
            key_frame_interval,
        } = settings;
        let key_frames = (key_frame_interval.as_secs_f64() * f64::from(*fps)).round() as u32;
        let description = format!(
            "compositor name=compositor background=black max-threads=1 latency={patience} \
             start-time-selection=first \
             ! {PICTURE_CAPS},width={width},height={height},framerate={fps}/1 \
             ! x264enc tune=zerolatency speed-preset={preset} threads=1 bitrate={video_kbps} \
               vbv-buf-capacity=600 key-int-max={key_frames} bframes=0 aud=false option-string=scenecut=0:sps-id={PARAMETER_SET_ID} \
             ! video/x-h264,profile=high,stream-format=avc,alignment=au \
             ! appsink name=pictures sync=false async=false qos=false max-buffers=30 drop=true \
             appsrc name=sound is-live=true format=time max-bytes=0 caps={sound_caps} \
             ! audioconvert ! avenc_aac aac-coder=fast bitrate={audio_bps} \
             ! audio/mpeg,mpegversion=4,stream-format=raw \
             ! appsink name=sounds sync=false async=false qos=false max-buffers=60 drop=true",
            patience = COMPOSITOR_PATIENCE.as_nanos(),
            width = size.width,
            height = size.height,
            key_frames = key_frames.max(1),
            sound_caps = sound_caps(*audio),
            audio_bps = audio_kbps * 1_000,
        );
        let pipeline = launch(&description)?;
        let failure = Arc::new(Failure::default());
        failure.watch(&pipeline);
        let compositor: gst::Element = child(&pipeline, "compositor")?;
        let pads = (0..PADS)
            .map(|_| Pad::new(&pipeline, &compositor))
            .collect::<Result<_, _>>()?;
        let program = Self {
            pads,
            sound: child(&pipeline, "sound")?,
            channels: audio.channels,
            blank: blank(),
            failure,
            pipeline,
        };
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

    /// Shows `layers` for one output frame. Pads without a layer get a blank one, since a pad that is not fed would make
    /// the compositor wait. `false`: the encoder is behind, the frame was left out and the last one will be repeated.
    pub fn push_frame(&mut self, pts_ns: u64, next_ns: u64, layers: &[Layer]) -> bool {
        if self.pads[0].source.current_level_buffers() >= MAX_BACKLOG {
            return false;
        }
        let (pts, duration) = (
            gst::ClockTime::from_nseconds(pts_ns),
            gst::ClockTime::from_nseconds(next_ns - pts_ns),
        );
        for (index, pad) in self.pads.iter_mut().enumerate() {
            let layer = layers.iter().find(|layer| layer.pad == index);
            pad.show(layer.map(|layer| (layer.rect, layer.order)));
            let (buffer, caps) = match layer {
                Some(layer) => (&layer.picture.buffer, &layer.picture.caps),
                None => (&self.blank.0, &self.blank.1),
            };
            pad.push(buffer, caps, pts, duration);
        }
        true
    }

    /// Encodes one block of sound.
    pub fn push_sound(&mut self, pts_ns: u64, block: &[Frame]) {
        let bytes: Vec<u8> = if self.channels == 1 {
            block
                .iter()
                .flat_map(|f| (0.5 * (f[0] + f[1])).to_le_bytes())
                .collect()
        } else {
            block
                .as_flattened()
                .iter()
                .flat_map(|s| s.to_le_bytes())
                .collect()
        };
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

impl Pad {
    fn new(pipeline: &gst::Pipeline, compositor: &gst::Element) -> Result<Self, String> {
        let source = app::AppSrc::builder()
            .is_live(true)
            .format(gst::Format::Time)
            .max_bytes(0)
            .build();
        pipeline.add(&source).map_err(|e| e.to_string())?;
        let pad = compositor
            .request_pad_simple("sink_%u")
            .ok_or("the compositor gives no pad")?;
        source
            .static_pad("src")
            .ok_or("appsrc has no pad")?
            .link(&pad)
            .map_err(|e| e.to_string())?;
        pad.set_property("alpha", 0.0);
        Ok(Self {
            source,
            pad,
            shown: None,
            caps: None,
        })
    }

    fn show(&mut self, shown: Option<(Rect, u32)>) {
        if self.shown == shown {
            return;
        }
        match shown {
            Some((rect, order)) => {
                self.pad.set_property("xpos", rect.x as i32);
                self.pad.set_property("ypos", rect.y as i32);
                // Pictures come in this size; one still of the old size is scaled here for its one frame.
                self.pad.set_property("width", rect.width as i32);
                self.pad.set_property("height", rect.height as i32);
                self.pad.set_property("zorder", order);
                self.pad.set_property("alpha", 1.0);
            }
            None => {
                self.pad.set_property("alpha", 0.0);
                self.pad.set_property("width", BLANK as i32);
                self.pad.set_property("height", BLANK as i32);
            }
        }
        self.shown = shown;
    }

    fn push(
        &mut self,
        picture: &gst::Buffer,
        caps: &gst::Caps,
        pts: gst::ClockTime,
        duration: gst::ClockTime,
    ) {
        if self.caps.as_ref() != Some(caps) {
            self.source.set_caps(Some(caps));
            self.caps = Some(caps.clone());
        }
        // The memory is shared; only the times are this frame's own.
        let mut buffer = picture.copy();
        let writable = buffer.make_mut();
        writable.set_pts(pts);
        writable.set_dts(gst::ClockTime::NONE);
        writable.set_duration(duration);
        let _ = self.source.push_buffer(buffer);
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

fn sound_caps(format: AudioFormat) -> String {
    let AudioFormat { rate, channels } = format;
    format!("audio/x-raw,format=F32LE,layout=interleaved,rate={rate},channels={channels}")
}

/// A small black picture.
fn blank() -> (gst::Buffer, gst::Caps) {
    let luma = (BLANK * BLANK) as usize;
    let mut planes = vec![16u8; luma];
    planes.resize(luma * 3 / 2, 128);
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", BLANK as i32)
        .field("height", BLANK as i32)
        .field("framerate", gst::Fraction::new(0, 1))
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
        .field("colorimetry", "bt709")
        .field("chroma-site", "mpeg2")
        .build();
    (gst::Buffer::from_mut_slice(planes), caps)
}
