//! A snapshot: the newest key frame of a feed as a JPEG, decoded by itself.
//!
//! Owns a pipeline of its own for each picture, so that nothing of what is on the air is touched. Blocking: some ten
//! milliseconds, five seconds at most; called while a request is answered, never from a mix's thread.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;

use super::codec::{self, Coding, MAX_SIDE};
use super::decode::{Failure, child, launch, stop};
use super::{Mixer, format};
use crate::media::{Feed, Kind, Slot, StreamKey};
use crate::relay::{Item, Join};

/// For a picture to be decoded and encoded.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of the JPEG, of a hundred: good for looking, a tenth of the bytes of the best.
const QUALITY: u32 = 85;
const ENCODER: &str = "jpegenc";

/// A picture, as it came out.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub jpeg: Bytes,
    /// Media time from the key frame to the feed's newest message.
    pub age: Duration,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("{0} has no key frame of pictures now")]
    None(StreamKey),
    #[error("{0}")]
    Undecodable(String),
}

impl Mixer {
    /// The feed's newest key frame, `width` pixels wide where it would be wider; the pixels' aspect is applied to the height.
    ///
    /// # Errors
    /// There is none, or it cannot be decoded.
    pub fn snapshot(
        &self,
        key: &StreamKey,
        feed: Feed,
        width: Option<u32>,
    ) -> Result<Snapshot, SnapshotError> {
        let none = || SnapshotError::None(key.clone());
        let mut reader = self.shared.context.relay.watch(key, feed);
        reader.join(Join::Burst);
        let newest = reader.head_time();
        let mut items = Vec::new();
        // The key frame stands at the front, behind its headers at most.
        reader.try_read(64, &mut items);
        let is_key = |item: &&Arc<Item>| item.message().is_video_key();
        let item = items.iter().find(is_key).ok_or_else(none)?;
        let message = item.message();
        let headers = match item.headers() {
            Some(headers) => headers.clone(),
            None => reader.headers(),
        };
        let header = headers.find(Kind::Video, Slot::Sequence);
        let coding = header.and_then(|header| Coding::of_header(header));
        let coding = coding.ok_or_else(none)?;
        let coding = coding.map_err(SnapshotError::Undecodable)?;
        let unit = format::body(message).ok_or_else(none)?;
        let jpeg = jpeg(&coding, unit, width).map_err(SnapshotError::Undecodable)?;
        Ok(Snapshot {
            jpeg,
            age: newest.since(message.dts),
        })
    }
}

fn jpeg(coding: &Coding, unit: Bytes, width: Option<u32>) -> Result<Bytes, String> {
    let decoder = codec::decoder(coding.codec)?;
    if gst::ElementFactory::find(ENCODER).is_none() {
        return Err(format!(
            "GStreamer has no {ENCODER} here; on Debian and Ubuntu: apt-get install gstreamer1.0-plugins-good"
        ));
    }
    let width = width.unwrap_or(MAX_SIDE).clamp(1, MAX_SIDE);
    let pipeline = launch(&format!(
        "appsrc name=unit format=time ! {decoder} ! video/x-raw,width=[1,{MAX_SIDE}],height=[1,{MAX_SIDE}] \
         ! videoconvert ! videoscale add-borders=false \
         ! video/x-raw,width=[1,{width}],height=[1,{MAX_SIDE}],pixel-aspect-ratio=1/1 \
         ! {ENCODER} quality={QUALITY} ! appsink name=picture sync=false max-buffers=1"
    ))?;
    let failure = Arc::new(Failure::default());
    failure.watch(&pipeline);
    let made = first(&pipeline, coding, unit);
    stop(&pipeline);
    match (made, failure.take()) {
        (Ok(Some(jpeg)), _) => Ok(jpeg),
        (Err(error), _) | (Ok(None), Some(error)) => Err(error),
        (Ok(None), None) => Err(format!(
            "the key frame gives no picture within {} s",
            PATIENCE.as_secs()
        )),
    }
}

fn first(pipeline: &gst::Pipeline, coding: &Coding, unit: Bytes) -> Result<Option<Bytes>, String> {
    let source: app::AppSrc = child(pipeline, "unit")?;
    let sink: app::AppSink = child(pipeline, "picture")?;
    source.set_caps(Some(&coding.caps()));
    pipeline
        .set_state(gst::State::Playing)
        .map_err(|e| e.to_string())?;
    let mut buffer = gst::Buffer::from_slice(unit);
    let times = buffer.make_mut();
    times.set_pts(gst::ClockTime::ZERO);
    times.set_dts(gst::ClockTime::ZERO);
    source.push_buffer(buffer).map_err(|e| e.to_string())?;
    // A decoder that waits for more gives what it has.
    source.end_of_stream().map_err(|e| e.to_string())?;
    let patience = gst::ClockTime::from_nseconds(PATIENCE.as_nanos() as u64);
    let Some(sample) = sink.try_pull_sample(patience) else {
        return Ok(None);
    };
    let map = sample
        .buffer()
        .and_then(|buffer| buffer.map_readable().ok());
    Ok(map.map(|map| Bytes::copy_from_slice(&map)))
}
