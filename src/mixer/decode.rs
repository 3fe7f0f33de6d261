//! One track's decoder: access units in, pictures as they were coded or samples out.
//!
//! Owns a GStreamer pipeline with one decoder element. Knows nothing of streams, clocks or layouts: what comes out has the
//! media time of what went in and goes to a [`Sink`]. Called by [`feed`](super::feed) only.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;
use gstreamer_video as video;
use tokio::sync::Notify;

use super::codec::{self, Coding, MAX_SIDE};
use super::graph;
use super::picture::Raw;
use super::priority;
use crate::media::{Codec, Kind};

/// The longest that a unit may wait in front of a decoder, by the wall; longer means that it cannot keep up. By media time
/// what comes at once after a stall was too much, and so was a clock that jumps. How much waits is bounded by the ring that it comes
/// from.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Units that may wait there while an input catches up.
pub const CATCH_UP_UNITS: u64 = 8;

/// Who gets what was decoded. Called from GStreamer's threads: must not block.
pub trait Sink: Send + Sync + 'static {
    fn picture(&self, pts_us: i64, picture: Raw);
    /// Left and right samples in turn, `rate` pairs a second.
    fn sound(&self, pts_us: i64, rate: u32, samples: &[f32]);
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

/// How many decoders there are, by kind.
#[derive(Debug, Default)]
pub struct Count {
    by_kind: [AtomicUsize; 2],
    #[cfg(test)]
    pipelines: Mutex<Vec<(Kind, gst::glib::WeakRef<gst::Pipeline>)>>,
    #[cfg(test)]
    slow: Mutex<Option<Duration>>,
}

/// Each picture takes that decoder so long.
#[cfg(test)]
fn hold(pipeline: &gst::Pipeline, each: Duration) {
    let exit: app::AppSink = child(pipeline, "media").unwrap();
    let entry = exit.static_pad("sink").unwrap();
    entry.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        std::thread::sleep(each);
        gst::PadProbeReturn::Ok
    });
}

impl Count {
    /// Decoders of that kind now.
    pub fn of(&self, kind: Kind) -> usize {
        self.place(kind).load(Ordering::Relaxed)
    }

    fn place(&self, kind: Kind) -> &AtomicUsize {
        &self.by_kind[usize::from(kind == Kind::Video)]
    }

    /// Makes the decoder of that kind that was made last fail as elements do: with an error on the bus, and nothing taken
    /// after it.
    #[cfg(test)]
    pub fn break_newest(&self, kind: Kind) {
        let (pipeline, element) = self.newest(kind);
        let error = gst::message::Error::builder(gst::LibraryError::Failed, "broken by a test")
            .src(&element)
            .build();
        pipeline.bus().unwrap().post(error).unwrap();
        element.set_state(gst::State::Null).unwrap();
    }

    /// Makes the decoder of that kind that was made last give nothing any more, without a word: it swallows all that it is
    /// given, or `hangs` and takes nothing.
    #[cfg(test)]
    pub fn still_newest(&self, kind: Kind, hangs: bool) {
        let (_, element) = self.newest(kind);
        let (mask, answer) = match hangs {
            true => (gst::PadProbeType::BLOCK, gst::PadProbeReturn::Ok),
            false => (gst::PadProbeType::empty(), gst::PadProbeReturn::Drop),
        };
        let exit = element.static_pad("src").unwrap();
        exit.add_probe(mask | gst::PadProbeType::BUFFER, move |_, _| answer);
    }

    /// Makes the decoder of pictures that was made last, and those that are made after it, take that long for each.
    #[cfg(test)]
    pub fn slow_down(&self, each: Duration) {
        *self.slow.lock().unwrap() = Some(each);
        hold(&self.newest(Kind::Video).0, each);
    }

    /// The pipeline of that kind that was made last, and where media goes in.
    #[cfg(test)]
    fn newest(&self, kind: Kind) -> (gst::Pipeline, gst::Element) {
        let pipelines = self.pipelines.lock().unwrap();
        let mut alive = pipelines.iter().rev().filter(|(of, _)| *of == kind);
        let pipeline = alive.find_map(|(_, pipeline)| pipeline.upgrade()).unwrap();
        let name = if kind == Kind::Video {
            "video"
        } else {
            "audio"
        };
        let element = pipeline.by_name(name).unwrap();
        (pipeline, element)
    }
}

/// The running pipeline. Dropping it stops it, which takes a few ms.
pub struct Decoder {
    pipeline: gst::Pipeline,
    entry: app::AppSrc,
    coding: Coding,
    /// The next unit does not continue the one before.
    discontinuity: bool,
    waiting: Waiting,
    given: Arc<AtomicU64>,
    /// What it gives is wanted no more.
    retired: Arc<AtomicBool>,
    count: Arc<Count>,
}

impl Decoder {
    /// Builds and starts the pipeline for what is coded so. Takes some ms, more when a plugin is loaded for the first time.
    ///
    /// # Errors
    /// An element could not be made or started; the text says which.
    pub fn new(
        coding: Coding,
        sink: Arc<impl Sink>,
        failure: &Arc<Failure>,
        count: &Arc<Count>,
    ) -> Result<Self, String> {
        let decoder = codec::decoder(coding.codec)?;
        let (kind, name) = match coding.audio {
            None => (Kind::Video, "video"),
            Some(_) => (Kind::Audio, "audio"),
        };
        let after = match kind {
            // A header may say less than comes.
            Kind::Video => format!(
                "video/x-raw,width=[1,{MAX_SIDE}],height=[1,{MAX_SIDE}] ! appsink name=media max-buffers=8"
            ),
            _ => "audioconvert ! audio/x-raw,format=F32LE,layout=interleaved,channels=2 \
                 ! appsink name=media max-buffers=64"
                .to_owned(),
        };
        let pipeline = launch(&format!(
            "appsrc name={name} is-live=true format=time max-bytes=0 \
             ! {decoder} ! {after} sync=false async=false qos=false drop=true"
        ))?;
        failure.watch(&pipeline);
        let entry = child(&pipeline, name)?;
        count.place(kind).fetch_add(1, Ordering::Relaxed);
        #[cfg(test)]
        count
            .pipelines
            .lock()
            .unwrap()
            .push((kind, pipeline.downgrade()));
        let made = Self {
            entry,
            coding,
            discontinuity: false,
            waiting: Waiting::default(),
            given: Arc::default(),
            retired: Arc::default(),
            count: count.clone(),
            pipeline,
        };
        let exit: app::AppSink = child(&made.pipeline, "media")?;
        let exit = Exit {
            given: made.given.clone(),
            retired: made.retired.clone(),
            from: exit,
        };
        match kind {
            Kind::Video => exit.give_pictures(sink),
            _ => exit.give_sound(sink),
        }
        #[cfg(test)]
        if let (Kind::Video, Some(each)) = (kind, *count.slow.lock().unwrap()) {
            hold(&made.pipeline, each);
        }
        made.entry.set_caps(Some(&made.coding.caps()));
        made.pipeline
            .set_state(gst::State::Playing)
            .map_err(|e| e.to_string())?;
        Ok(made)
    }

    pub fn codec(&self) -> Codec {
        self.coding.codec
    }

    fn kind(&self) -> Kind {
        match self.coding.audio {
            None => Kind::Video,
            Some(_) => Kind::Audio,
        }
    }

    /// How what is pushed from now on is coded: otherwise in the same codec.
    pub fn configure(&mut self, coding: &Coding) {
        if self.coding != *coding {
            self.entry.set_caps(Some(&coding.caps()));
            self.coding = coding.clone();
        }
    }

    /// The next unit begins anew.
    pub fn mark_discontinuity(&mut self) {
        self.discontinuity = true;
    }

    /// Queues an access unit of pictures. `false`: the decoder is too far behind, or failing, and it was not taken.
    pub fn push_video(&mut self, unit: Bytes, key: bool, pts_ms: i64, dts_ms: i64) -> bool {
        let mut buffer = gst::Buffer::from_slice(unit);
        let writable = buffer.make_mut();
        writable.set_dts(gst::ClockTime::from_mseconds(dts_ms.max(0) as u64));
        if !key {
            writable.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        if std::mem::take(&mut self.discontinuity) {
            writable.set_flags(gst::BufferFlags::DISCONT);
        }
        self.push(buffer, pts_ms)
    }

    /// Queues a frame of sound. `false` as above.
    pub fn push_audio(&mut self, frame: Bytes, pts_ms: i64) -> bool {
        self.push(gst::Buffer::from_slice(frame), pts_ms)
    }

    fn push(&mut self, mut buffer: gst::Buffer, pts_ms: i64) -> bool {
        let now = Instant::now();
        if self.behind(now) > MAX_WAIT {
            return false;
        }
        let pts = gst::ClockTime::from_mseconds(pts_ms.max(0) as u64);
        buffer.make_mut().set_pts(pts);
        self.waiting.add(now);
        self.entry.push_buffer(buffer).is_ok()
    }

    /// How long the oldest unit in front of it has waited.
    pub fn behind(&mut self, now: Instant) -> Duration {
        let waiting = self.backlog();
        self.waiting.longest(waiting, now)
    }

    /// Access units waiting for the decoder.
    pub fn backlog(&self) -> u64 {
        self.entry.current_level_buffers()
    }

    /// Pictures, or pieces of sound, that have come out of it.
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// Nothing that it still gives is handed on from here: another decoder goes on.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Leaves its graph in `folder`. Touches the disk.
    pub fn write_graph(&self, folder: &Path, why: &str) {
        match graph::write(folder, &self.pipeline, why) {
            Ok(file) => {
                tracing::info!(file = %file.display(), "graph of the failed decoder written")
            }
            Err(error) => tracing::warn!(%error, "graph of a failed decoder not written"),
        }
    }
}

/// Since when the units in front of a decoder wait.
#[derive(Debug, Default)]
struct Waiting(VecDeque<Instant>);

impl Waiting {
    /// Another one waits.
    fn add(&mut self, now: Instant) {
        self.0.push_back(now);
    }

    /// How long the oldest has waited, if `count` of them still do.
    fn longest(&mut self, count: u64, now: Instant) -> Duration {
        let gone = (self.0.len() as u64).saturating_sub(count);
        self.0.drain(..gone as usize);
        let since = self.0.front().copied();
        since.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.count
            .place(self.kind())
            .fetch_sub(1, Ordering::Relaxed);
        stop(&self.pipeline);
    }
}

/// Where what was decoded leaves the pipeline.
struct Exit {
    from: app::AppSink,
    given: Arc<AtomicU64>,
    retired: Arc<AtomicBool>,
}

impl Exit {
    /// Calls `give` with each sample, on the pipeline's thread.
    fn each(self, mut give: impl FnMut(gst::Sample) + Send + 'static) {
        let Self {
            from,
            given,
            retired,
        } = self;
        let take = move |from: &app::AppSink| {
            let sample = from.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            given.fetch_add(1, Ordering::Relaxed);
            if !retired.load(Ordering::Acquire) {
                give(sample);
            }
            Ok(gst::FlowSuccess::Ok)
        };
        from.set_callbacks(app::AppSinkCallbacks::builder().new_sample(take).build());
    }

    fn give_pictures(self, to: Arc<impl Sink>) {
        if let Some(pad) = self.from.static_pad("sink") {
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
        let mut format: Option<(gst::Caps, Arc<video::VideoInfo>)> = None;
        self.each(move |sample| {
            let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps_owned()) else {
                return;
            };
            let kept = format.take().filter(|(kept, _)| *kept == caps);
            format = kept.or_else(|| {
                let info = video::VideoInfo::from_caps(&caps).ok()?;
                Some((caps, Arc::new(info)))
            });
            if let (Some((_, info)), Some(pts)) = (&format, buffer.pts()) {
                to.picture(pts.useconds() as i64, Raw::new(buffer, info.clone()));
            }
        });
    }

    fn give_sound(self, to: Arc<impl Sink>) {
        self.each(move |sample| {
            let rate = sample
                .caps()
                .and_then(|caps| caps.structure(0)?.get::<i32>("rate").ok());
            if let Some(buffer) = sample.buffer()
                && let Some(rate) = rate.and_then(|rate| u32::try_from(rate).ok())
                && let Some(pts) = buffer.pts()
                && let Ok(map) = buffer.map_readable()
            {
                let (quads, _) = map.as_chunks::<4>();
                let samples: Vec<f32> = quads.iter().map(|&q| f32::from_le_bytes(q)).collect();
                to.sound(pts.useconds() as i64, rate, &samples);
            }
        });
    }
}

/// Builds a pipeline from its description.
pub fn launch(description: &str) -> Result<gst::Pipeline, String> {
    let pipeline = gst::parse::launch(description)
        .map_err(|e| e.to_string())?
        .downcast()
        .map_err(|_| "the description is of a single element".to_owned())?;
    #[cfg(test)]
    count::note(&pipeline);
    Ok(pipeline)
}

#[cfg(test)]
pub use count::programs;

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

/// How many pipelines with encoders there are, for tests of when there is none.
#[cfg(test)]
mod count {
    use std::sync::Mutex;

    use gstreamer as gst;
    use gstreamer::prelude::*;

    static MADE: Mutex<Vec<gst::glib::WeakRef<gst::Pipeline>>> = Mutex::new(Vec::new());

    pub fn note(pipeline: &gst::Pipeline) {
        // The canvas is where a program's pictures come in.
        if pipeline.by_name("canvas").is_some() {
            MADE.lock().unwrap().push(pipeline.downgrade());
        }
    }

    /// Those that are still there.
    pub fn programs() -> usize {
        let mut made = MADE.lock().unwrap();
        made.retain(|pipeline| pipeline.upgrade().is_some());
        made.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_units_at_once_wait_no_longer_than_one() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let mut waiting = Waiting::default();
        assert_eq!(waiting.longest(0, at(0)), Duration::ZERO);
        for _ in 0..200 {
            waiting.add(at(0));
        }
        assert_eq!(waiting.longest(200, at(5)), Duration::from_millis(5));
        waiting.add(at(300));
        assert_eq!(waiting.longest(2, at(900)), Duration::from_millis(900));
        assert_eq!(waiting.longest(1, at(900)), Duration::from_millis(600));
        assert_eq!(waiting.longest(0, at(900)), Duration::ZERO);
    }
}
