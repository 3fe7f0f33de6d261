//! The video half of the program pipeline: frames in, H.264 out.
//!
//! Owns how the encoder is set up for latency and which format its frames have. Only text and values: the pipeline is
//! built in the parent.

use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as video;

use super::Settings;
use crate::mixer::encoder::{Encoder, Kind};
use crate::mixer::layout::Size;

/// Id of the mix's parameter sets. Anchors' encoders use 0: with another one a player that keeps sets by id has both,
/// so neither splice leaves it with the wrong ones.
const PARAMETER_SET_ID: u32 = 7;

/// From the appsrc `canvas` to the appsink `pictures`, as GStreamer's launch syntax has it.
pub(super) fn branch(settings: &Settings) -> String {
    format!(
        "appsrc name=canvas is-live=true format=time max-bytes=0 \
         ! {} \
         ! appsink name=pictures sync=false async=false qos=false max-buffers=30 drop=true",
        match settings.encoder.kind {
            Kind::X264 => x264(settings),
            Kind::OpenH264 => other(
                settings.encoder,
                "",
                &openh264(settings),
                "video/x-h264,profile=high"
            ),
            Kind::Nvenc => other(settings.encoder, "", &nvenc(settings), H264),
            Kind::Vaapi => other(settings.encoder, TO_NV12, &vaapi(settings), H264),
            Kind::Qsv => other(settings.encoder, TO_NV12, &qsv(settings), H264),
        }
    )
}

/// What superfast spends on small partitions of predicted pictures (key frames keep theirs) is saved, and its likeness kept by
/// bits that go where they show (`aq-mode=2`, a little weaker than usual): 14 to 19 % less of the encoder's time, and SSIM from
/// 0.0003 below superfast's own to 0.0010 above, by clip (docs/performance.md).
const SUPERFAST: &str = ":partitions=none:aq-mode=2:aq-strength=0.8";

/// No picture is searched for a fade of the whole (`weightp`): some hundredths of the encoder's time at superfast, and
/// the same SSIM to the fourth digit.
fn x264(settings: &Settings) -> String {
    format!(
        "x264enc tune=zerolatency speed-preset={preset} threads=1 bitrate={kbps} \
           vbv-buf-capacity=600 key-int-max={key_frames} bframes=0 aud=false option-string=scenecut=0:weightp=0:sps-id={PARAMETER_SET_ID}{own} \
         ! video/x-h264,profile=high,stream-format=avc,alignment=au",
        own = if settings.preset == "superfast" {
            SUPERFAST
        } else {
            ""
        },
        preset = settings.preset,
        kbps = settings.video_kbps,
        key_frames = frames(settings.key_frame_interval, settings.fps),
    )
}

/// Encoders of VA-API and QSV take no I420.
const TO_NV12: &str = "videoconvert n-threads=1 ! video/x-raw,format=NV12 ! ";
const H264: &str = "video/x-h264";

/// An encoder whose parameter sets are its own affair (all have id 0), made into units with lengths.
fn other(encoder: Encoder, before: &str, wanted: &[(&str, String)], caps: &str) -> String {
    format!(
        "{before}{} {} ! {caps} ! h264parse config-interval=0 ! video/x-h264,stream-format=avc,alignment=au",
        encoder.element,
        known(encoder.element, wanted)
    )
}

fn openh264(settings: &Settings) -> Vec<(&'static str, String)> {
    let complexity = match settings.preset.as_str() {
        "ultrafast" | "superfast" | "veryfast" => "low",
        "faster" | "fast" | "medium" => "medium",
        _ => "high",
    };
    vec![
        ("complexity", complexity.into()),
        ("rate-control", "bitrate".into()),
        (
            "bitrate",
            (u64::from(settings.video_kbps) * 1_000).to_string(),
        ),
        ("gop-size", key_frames(settings)),
        ("multi-thread", "1".into()),
        // A cut of a source must not make a key frame out of turn.
        ("scene-change-detection", "false".into()),
        ("enable-frame-skip", "false".into()),
    ]
}

fn nvenc(settings: &Settings) -> Vec<(&'static str, String)> {
    vec![
        ("preset", "low-latency-hq".into()),
        ("zerolatency", "true".into()),
        ("rc-mode", "cbr".into()),
        ("bitrate", settings.video_kbps.to_string()),
        ("gop-size", key_frames(settings)),
        ("strict-gop", "true".into()),
        ("bframes", "0".into()),
        ("rc-lookahead", "0".into()),
        ("i-adapt", "false".into()),
        ("aud", "false".into()),
    ]
}

/// For both elements: `va` names the properties one way, `vaapi` the other.
fn vaapi(settings: &Settings) -> Vec<(&'static str, String)> {
    vec![
        ("rate-control", "cbr".into()),
        ("bitrate", settings.video_kbps.to_string()),
        ("key-int-max", key_frames(settings)),
        ("keyframe-period", key_frames(settings)),
        ("b-frames", "0".into()),
        ("max-bframes", "0".into()),
        ("ref-frames", "1".into()),
        ("aud", "false".into()),
    ]
}

fn qsv(settings: &Settings) -> Vec<(&'static str, String)> {
    vec![
        ("low-latency", "true".into()),
        ("rate-control", "cbr".into()),
        ("bitrate", settings.video_kbps.to_string()),
        ("gop-size", key_frames(settings)),
        ("b-frames", "0".into()),
        ("ref-frames", "1".into()),
    ]
}

fn key_frames(settings: &Settings) -> String {
    frames(settings.key_frame_interval, settings.fps).to_string()
}

/// Those of the properties that this version of the element has, in launch syntax.
fn known(element: &str, wanted: &[(&str, String)]) -> String {
    let Ok(made) = gst::ElementFactory::make(element).build() else {
        // Launching will say so.
        return String::new();
    };
    let there = wanted.iter().filter(|(name, _)| made.has_property(name));
    let each = there.map(|(name, value)| format!("{name}={value}"));
    each.collect::<Vec<_>>().join(" ")
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

#[cfg(test)]
mod tests {
    use gstreamer_app as app;

    use super::super::tests::square;
    use super::*;
    use crate::mixer::decode::{child, launch, stop};

    /// What x264 says in its first packet of how it was set up. Options that it does not know it leaves out without an error.
    fn options(preset: &str) -> String {
        let settings = Settings {
            preset: preset.into(),
            encoder: Encoder::X264,
            ..square(64, 25)
        };
        let pipeline = launch(&branch(&settings)).unwrap();
        let canvas: app::AppSrc = child(&pipeline, "canvas").unwrap();
        let pictures: app::AppSink = child(&pipeline, "pictures").unwrap();
        let info = frame_info(settings.size, settings.fps).unwrap();
        canvas.set_caps(Some(&info.to_caps().unwrap()));
        pipeline.set_state(gst::State::Playing).unwrap();
        let mut frame = gst::Buffer::with_size(info.size()).unwrap();
        frame.get_mut().unwrap().set_pts(gst::ClockTime::ZERO);
        canvas.push_buffer(frame).unwrap();
        let sample = pictures.try_pull_sample(gst::ClockTime::from_seconds(10));
        let sample = sample.expect("a packet within 10 s");
        let packet = sample.buffer().unwrap().map_readable().unwrap();
        let text = String::from_utf8_lossy(&packet).into_owned();
        drop(packet);
        stop(&pipeline);
        let at = text.find("options: ").expect("its options");
        text[at..].split('\0').next().unwrap_or_default().to_owned()
    }

    #[test]
    fn x264_searches_fewer_partitions_at_superfast_and_for_fades_at_no_preset() {
        gst::init().unwrap();
        for (preset, wanted) in [
            // Partitions of intra pictures, and of predicted ones.
            ("superfast", ["analyse=0x3:0 ", "weightp=0 ", "aq=2:0.80"]),
            ("ultrafast", ["analyse=0:0 ", "weightp=0 ", "aq=0"]),
            (
                "veryfast",
                ["analyse=0x3:0x113 ", "weightp=0 ", "aq=1:1.00"],
            ),
        ] {
            let options = options(preset);
            for wanted in wanted {
                assert!(
                    options.contains(wanted),
                    "{preset}: no {wanted} in {options}"
                );
            }
        }
    }
}
