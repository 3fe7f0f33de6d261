//! The video half of the program pipeline: frames in, H.264 out.
//!
//! Owns how the encoder is set up for latency and which format its frames have. Only text and values: the pipeline is
//! built in the parent.

use std::time::Duration;

use gstreamer as gst;
use gstreamer_video as video;

use super::Settings;
use crate::mixer::layout::Size;

/// Id of the mix's parameter sets. Anchors' encoders use 0: with another one a player that keeps sets by id has both,
/// so neither splice leaves it with the wrong ones.
const PARAMETER_SET_ID: u32 = 7;

/// From the appsrc `canvas` to the appsink `pictures`, as GStreamer's launch syntax has it. No picture is searched for a fade of the
/// whole (`weightp`): that takes a tenth of the encoder's time at superfast, and gave the same SSIM to the fourth digit.
pub(super) fn branch(settings: &Settings) -> String {
    format!(
        "appsrc name=canvas is-live=true format=time max-bytes=0 \
         ! x264enc tune=zerolatency speed-preset={preset} threads=1 bitrate={kbps} \
           vbv-buf-capacity=600 key-int-max={key_frames} bframes=0 aud=false option-string=scenecut=0:weightp=0:sps-id={PARAMETER_SET_ID} \
         ! video/x-h264,profile=high,stream-format=avc,alignment=au \
         ! appsink name=pictures sync=false async=false qos=false max-buffers=30 drop=true",
        preset = settings.preset,
        kbps = settings.video_kbps,
        key_frames = frames(settings.key_frame_interval, settings.fps),
    )
}

/// Frames in that time, one at least.
fn frames(interval: Duration, fps: u32) -> u32 {
    ((interval.as_secs_f64() * f64::from(fps)).round() as u32).max(1)
}

/// The format of frames.
pub(super) fn frame_info(size: Size, fps: u32) -> Result<video::VideoInfo, gst::glib::BoolError> {
    video::VideoInfo::builder(video::VideoFormat::I420, size.width, size.height)
        .fps(gst::Fraction::new(i32::try_from(fps).unwrap_or(1), 1))
        .colorimetry(&"bt709".parse()?)
        .chroma_site(video::VideoChromaSite::MPEG2)
        .build()
}
