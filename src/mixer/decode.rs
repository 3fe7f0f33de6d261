//! One input's decoders: access units in, canvas-ready pictures and samples out.
//!
//! Owns a GStreamer pipeline with two branches. Knows nothing of streams, clocks or layouts: what comes out has the
//! media time of what went in and goes to a [`Sink`]. Called by [`input`](super::input) only.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;
use tokio::sync::Notify;

use super::format::AudioFormat;
use super::layout::Size;

/// Canvas colours everywhere. Pads with other ones would cost a conversion per pad and output frame (0.16 core).
pub const PICTURE_CAPS: &str =
    "video/x-raw,format=I420,pixel-aspect-ratio=1/1,colorimetry=bt709,chroma-site=mpeg2";

/// Media that may wait in front of a decoder; more means that it cannot keep up.
pub const MAX_BACKLOG: Duration = Duration::from_secs(1);
/// Units that may wait there while an input catches up.
pub const CATCH_UP_UNITS: u64 = 8;

/// Who gets what was decoded. Called from GStreamer's threads: must not block.
pub trait Sink: Send + Sync + 'static {
    /// The size at which the stream's pictures are meant to be seen, before scaling.
    fn size(&self, size: Size);
    fn picture(&self, pts_us: i64, buffer: gst::Buffer, caps: gst::Caps);
    /// Left and right samples in turn.
    fn sound(&self, pts_us: i64, samples: &[f32]);
}

/// A pipeline's error, for the task that owns the pipeline.
#[derive(Debug, Default)]
pub struct Failure {
    error: Mutex<Option<String>>,
    news: Notify,
}

impl Failure {
    fn report(&self, error: String) {
        // Nothing can panic while holding this lock.
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.news.notify_one();
    }

    /// The error, once.
    pub fn take(&self) -> Option<String> {
        self.error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Resolves with the error when there is one.
    ///
    /// # Cancel safety
    /// Safe: the error stays until it is taken in the last step.
    pub async fn failed(&self) -> String {
        loop {
            if let Some(error) = self.take() {
                return error;
            }
            self.news.notified().await;
        }
    }

    /// Reports the errors of `pipeline` here. No message is queued: nobody runs a main loop.
    pub fn watch(self: &Arc<Self>, pipeline: &gst::Pipeline) {
        let this = self.clone();
        if let Some(bus) = pipeline.bus() {
            bus.set_sync_handler(move |_, message| {
                if let gst::MessageView::Error(error) = message.view() {
                    let source = error.src().map(|s| s.name().to_string());
                    let source = source.unwrap_or_default();
                    this.report(format!("{source}: {}", error.error()));
                }
                gst::BusSyncReply::Drop
            });
        }
    }
}

/// The running pipeline. Dropping it stops it, which takes a few ms.
pub struct Decoder {
    pipeline: gst::Pipeline,
    video: app::AppSrc,
    audio: app::AppSrc,
    picture: gst::Element,
    sound: gst::Element,
    avc: Option<Bytes>,
    aac: Option<Bytes>,
    /// The next unit does not continue the one before.
    discontinuity: bool,
}

impl Decoder {
    /// Builds and starts the pipeline. Takes some ms, more when plugins are loaded for the first time.
    ///
    /// # Errors
    /// An element could not be made or started; the text says which.
    pub fn new(sink: Arc<impl Sink>, failure: &Arc<Failure>) -> Result<Self, String> {
        let description = format!(
            "appsrc name=video is-live=true format=time max-bytes=0 \
             ! avdec_h264 name=decoder max-threads=1 \
             ! videoconvertscale n-threads=1 add-borders=true \
             ! capsfilter name=picture caps={PICTURE_CAPS} \
             ! appsink name=pictures sync=false async=false qos=false max-buffers=8 drop=true \
             appsrc name=audio is-live=true format=time max-bytes=0 \
             ! avdec_aac ! audioconvert ! audioresample ! capsfilter name=sound \
             ! appsink name=sounds sync=false async=false qos=false max-buffers=64 drop=true"
        );
        let pipeline = launch(&description)?;
        failure.watch(&pipeline);
        let decoder = Self {
            video: child(&pipeline, "video")?,
            audio: child(&pipeline, "audio")?,
            picture: child(&pipeline, "picture")?,
            sound: child(&pipeline, "sound")?,
            avc: None,
            aac: None,
            discontinuity: false,
            pipeline,
        };
        decoder.connect(sink)?;
        decoder
            .pipeline
            .set_state(gst::State::Playing)
            .map_err(|e| e.to_string())?;
        Ok(decoder)
    }

    fn connect(&self, sink: Arc<impl Sink>) -> Result<(), String> {
        let codec: gst::Element = child(&self.pipeline, "decoder")?;
        let sizes = sink.clone();
        if let Some(pad) = codec.static_pad("src") {
            pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
                if let Some(gst::EventView::Caps(caps)) = info.event().map(|e| e.view())
                    && let Some(size) = display_size(caps.caps())
                {
                    sizes.size(size);
                }
                gst::PadProbeReturn::Ok
            });
        }
        let pictures: app::AppSink = child(&self.pipeline, "pictures")?;
        let to = sink.clone();
        pictures.set_callbacks(
            app::AppSinkCallbacks::builder()
                .new_sample(move |from| {
                    let sample = from.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    if let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps_owned())
                        && let Some(pts) = buffer.pts()
                    {
                        to.picture(pts.useconds() as i64, buffer, caps);
                    }
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        let sounds: app::AppSink = child(&self.pipeline, "sounds")?;
        sounds.set_callbacks(
            app::AppSinkCallbacks::builder()
                .new_sample(move |from| {
                    let sample = from.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    if let Some(buffer) = sample.buffer()
                        && let Some(pts) = buffer.pts()
                        && let Ok(map) = buffer.map_readable()
                    {
                        let (quads, _) = map.as_chunks::<4>();
                        let samples: Vec<f32> =
                            quads.iter().map(|&q| f32::from_le_bytes(q)).collect();
                        sink.sound(pts.useconds() as i64, &samples);
                    }
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        Ok(())
    }

    /// The filters that [`set_picture_size`] and [`set_sound_rate`] act on.
    pub fn filters(&self) -> (gst::Element, gst::Element) {
        (self.picture.clone(), self.sound.clone())
    }

    /// An AVCDecoderConfigurationRecord that holds from the next unit on.
    pub fn configure_video(&mut self, record: Bytes) {
        if self.avc.as_ref() == Some(&record) {
            return;
        }
        let caps = gst::Caps::builder("video/x-h264")
            .field("stream-format", "avc")
            .field("alignment", "au")
            .field("codec_data", gst::Buffer::from_slice(record.clone()))
            .build();
        self.video.set_caps(Some(&caps));
        self.avc = Some(record);
    }

    /// An AudioSpecificConfig that holds from the next frame on.
    pub fn configure_audio(&mut self, config: Bytes, format: AudioFormat) {
        if self.aac.as_ref() == Some(&config) {
            return;
        }
        let mut caps = gst::Caps::builder("audio/mpeg")
            .field("mpegversion", 4i32)
            .field("stream-format", "raw")
            .field("framed", true)
            .field("codec_data", gst::Buffer::from_slice(config.clone()))
            .field("rate", format.rate as i32);
        if format.channels > 0 {
            caps = caps.field("channels", format.channels as i32);
        }
        self.audio.set_caps(Some(&caps.build()));
        self.aac = Some(config);
    }

    /// The next unit begins anew.
    pub fn mark_discontinuity(&mut self) {
        self.discontinuity = true;
    }

    /// Queues an access unit. `false`: the decoder is too far behind and it was not taken.
    pub fn push_video(&mut self, unit: Bytes, key: bool, pts_ms: i64, dts_ms: i64) -> bool {
        if self.avc.is_none() || self.video.current_level_time() > clock_time(MAX_BACKLOG) {
            return false;
        }
        let mut buffer = gst::Buffer::from_slice(unit);
        let writable = buffer.make_mut();
        writable.set_pts(gst::ClockTime::from_mseconds(pts_ms.max(0) as u64));
        writable.set_dts(gst::ClockTime::from_mseconds(dts_ms.max(0) as u64));
        if !key {
            writable.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        if std::mem::take(&mut self.discontinuity) {
            writable.set_flags(gst::BufferFlags::DISCONT);
        }
        self.video.push_buffer(buffer).is_ok()
    }

    /// Queues a raw AAC frame. `false`: the decoder is too far behind and it was not taken.
    pub fn push_audio(&mut self, frame: Bytes, pts_ms: i64) -> bool {
        if self.aac.is_none() || self.audio.current_level_time() > clock_time(MAX_BACKLOG) {
            return false;
        }
        let mut buffer = gst::Buffer::from_slice(frame);
        buffer
            .make_mut()
            .set_pts(gst::ClockTime::from_mseconds(pts_ms.max(0) as u64));
        self.audio.push_buffer(buffer).is_ok()
    }

    /// Access units waiting for the decoder.
    pub fn backlog(&self) -> u64 {
        self.video.current_level_buffers()
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        stop(&self.pipeline);
    }
}

/// Pictures are scaled to `size` from now on, with black bars where their aspect is another; `None` leaves them as
/// they are.
pub fn set_picture_size(filter: &gst::Element, size: Option<Size>) {
    let text = match size {
        Some(size) => format!("{PICTURE_CAPS},width={},height={}", size.width, size.height),
        None => PICTURE_CAPS.to_owned(),
    };
    set_caps(filter, &text);
}

/// Samples come at that rate from now on.
pub fn set_sound_rate(filter: &gst::Element, rate: u32) {
    set_caps(
        filter,
        &format!("audio/x-raw,format=F32LE,layout=interleaved,channels=2,rate={rate}"),
    );
}

fn set_caps(filter: &gst::Element, text: &str) {
    // The text is made above of literals and numbers.
    if let Ok(caps) = text.parse::<gst::Caps>() {
        filter.set_property("caps", caps);
    }
}

/// Width and height with the pixels' own aspect applied to the width.
fn display_size(caps: &gst::CapsRef) -> Option<Size> {
    let structure = caps.structure(0)?;
    let width = u32::try_from(structure.get::<i32>("width").ok()?).ok()?;
    let height = u32::try_from(structure.get::<i32>("height").ok()?).ok()?;
    let aspect = structure.get::<gst::Fraction>("pixel-aspect-ratio").ok();
    let (numer, denom) = aspect.map_or((1, 1), |a| (a.numer().max(1), a.denom().max(1)));
    let width = u64::from(width) * numer as u64 / denom as u64;
    Some(Size {
        width: u32::try_from(width).ok()?,
        height,
    })
}

fn clock_time(duration: Duration) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(duration.as_nanos() as u64)
}

/// Builds a pipeline from its description.
pub fn launch(description: &str) -> Result<gst::Pipeline, String> {
    gst::parse::launch(description)
        .map_err(|e| e.to_string())?
        .downcast()
        .map_err(|_| "the description is of a single element".to_owned())
}

/// An element of a pipeline by its name.
pub fn child<T: IsA<gst::Element>>(pipeline: &gst::Pipeline, name: &str) -> Result<T, String> {
    pipeline
        .by_name(name)
        .and_then(|e| e.downcast().ok())
        .ok_or_else(|| format!("no element {name} of the expected type"))
}

/// Stops a pipeline and lets go of its bus. Waits for its threads.
pub fn stop(pipeline: &gst::Pipeline) {
    let _ = pipeline.set_state(gst::State::Null);
    if let Some(bus) = pipeline.bus() {
        bus.unset_sync_handler();
    }
}
