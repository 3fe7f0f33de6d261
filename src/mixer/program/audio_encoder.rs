//! The audio half of the program pipeline: blocks of samples in, AAC out.
//!
//! Owns how the encoder is set up and how samples are laid out for it. Only text and values: the pipeline is built in
//! the parent.

use super::Settings;
use crate::mixer::aac::Encoder;
use crate::mixer::audio::Frame;
use crate::mixer::format::AudioFormat;

/// From the appsrc `sound` to the appsink `sounds`, as GStreamer's launch syntax has it.
pub(super) fn branch(settings: &Settings, encoder: Encoder) -> String {
    let AudioFormat { rate, channels } = settings.audio;
    format!(
        "appsrc name=sound is-live=true format=time max-bytes=0 \
           caps=audio/x-raw,format=F32LE,layout=interleaved,rate={rate},channels={channels} \
         ! audioconvert ! {encoding} \
         ! audio/mpeg,mpegversion=4,stream-format=raw \
         ! appsink name=sounds sync=false async=false qos=false max-buffers=60 drop=true",
        encoding = encoder.description(settings.audio_kbps),
    )
}

/// A block of sound as the pipeline takes it: interleaved F32LE, one channel being the mean of both.
pub(super) fn samples(block: &[Frame], channels: u32) -> Vec<u8> {
    if channels == 1 {
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
    }
}
