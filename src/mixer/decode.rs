//! One input's decoders: access units in, pictures as they were coded and samples out.
//!
//! Owns a GStreamer pipeline with two branches. Knows nothing of streams, clocks or layouts: what comes out has the
//! media time of what went in and goes to a [`Sink`]. Called by [`input`](super::input) only.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;
use gstreamer_video as video;
use tokio::sync::Notify;

use super::format::AudioFormat;
use super::picture::Raw;
use super::priority;

/// Media that may wait in front of a decoder; more means that it cannot keep up.
pub const MAX_BACKLOG: Duration = Duration::from_secs(1);
/// Units that may wait there while an input catches up.
pub const CATCH_UP_UNITS: u64 = 8;

/// Who gets what was decoded. Called from GStreamer's threads: must not block.
pub trait Sink: Send + Sync + 'static {
    fn picture(&self, pts_us: i64, picture: Raw);
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

    /// Reports the errors of `pipeline` here, and has its threads step back behind the relay's. No message is queued:
    /// nobody runs a main loop.
    pub fn watch(self: &Arc<Self>, pipeline: &gst::Pipeline) {
        let this = self.clone();
        if let Some(bus) = pipeline.bus() {
            bus.set_sync_handler(move |_, message| {
                priority::observe(message);
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
        let description = "appsrc name=video is-live=true format=time max-bytes=0 \
             ! avdec_h264 max-threads=1 ! video/x-raw \
             ! appsink name=pictures sync=false async=false qos=false max-buffers=8 drop=true \
             appsrc name=audio is-live=true format=time max-bytes=0 \
             ! avdec_aac ! audioconvert ! audioresample ! capsfilter name=sound \
             ! appsink name=sounds sync=false async=false qos=false max-buffers=64 drop=true";
        let pipeline = launch(description)?;
        failure.watch(&pipeline);
        let decoder = Self {
            video: child(&pipeline, "video")?,
            audio: child(&pipeline, "audio")?,
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
        let pictures: app::AppSink = child(&self.pipeline, "pictures")?;
        if let Some(pad) = pictures.static_pad("sink") {
            // With this the decoder writes into the very memory that we get; else it copies each picture there.
            pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
                match info.query_mut().map(gst::QueryRef::view_mut) {
                    Some(gst::QueryViewMut::Allocation(query)) => {
                        query.add_allocation_meta::<video::VideoMeta>(None);
                        gst::PadProbeReturn::Handled
                    }
                    _ => gst::PadProbeReturn::Ok,
                }
            });
        }
        let to = sink.clone();
        let mut format: Option<(gst::Caps, Arc<video::VideoInfo>)> = None;
        pictures.set_callbacks(
            app::AppSinkCallbacks::builder()
                .new_sample(move |from| {
                    let sample = from.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps_owned())
                    else {
                        return Ok(gst::FlowSuccess::Ok);
                    };
                    let kept = format.take().filter(|(kept, _)| *kept == caps);
                    format = kept.or_else(|| {
                        let info = video::VideoInfo::from_caps(&caps).ok()?;
                        Some((caps, Arc::new(info)))
                    });
                    if let (Some((_, info)), Some(pts)) = (&format, buffer.pts()) {
                        to.picture(pts.useconds() as i64, Raw::new(buffer, info.clone()));
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

    /// The filter that [`set_sound_rate`] acts on.
    pub fn sound_filter(&self) -> gst::Element {
        self.sound.clone()
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

/// Samples come at that rate from now on.
pub fn set_sound_rate(filter: &gst::Element, rate: u32) {
    let caps = format!("audio/x-raw,format=F32LE,layout=interleaved,channels=2,rate={rate}");
    // Made of literals and a number.
    if let Ok(caps) = caps.parse::<gst::Caps>() {
        filter.set_property("caps", caps);
    }
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
