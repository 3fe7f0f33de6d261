//! Frames on their way to the video encoder: the memory that they are drawn in, and what stands in for those left out.
//!
//! The encoder behind can be replaced between two frames: the new one begins with a key frame where the last packet of
//! the old one ended, and frames that the old one had taken and not given are made up for by the picture before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as app;
use gstreamer_video as video;

use super::gate::Gate;
use super::line::Line;
use super::video_encoder::{self, frame_info};
use super::{Packets, Settings, on_packets};
use crate::mixer::canvas::Canvas;
use crate::mixer::decode::child;
use crate::mixer::layout::Size;
use crate::mixer::picture::Pool;

/// Frames that may wait in front of the encoder: more means that it cannot keep up.
const MAX_BACKLOG: u64 = 3;
/// A picture is repeated for frames that were left out, so that the output keeps its rate, but not for longer than this. An
/// encoder that is truly too slow owes some 2 s by the time it is replaced, and a repetition costs the next one a few ms.
const MAX_REPEATED: Duration = Duration::from_secs(5);

/// The video encoder and what is in front of it.
pub struct Frames<P: Packets> {
    coder: Coder<P>,
    info: video::VideoInfo,
    pool: Pool,
    /// The latest frame, and its number.
    last: Option<(u64, gst::Buffer)>,
}

/// One encoder's pipeline.
struct Coder<P> {
    line: Line,
    pictures: app::AppSrc,
    gate: Gate<P>,
}

impl<P: Packets> Coder<P> {
    fn new(
        settings: &Settings,
        info: &video::VideoInfo,
        zero: Instant,
        packets: Arc<P>,
    ) -> Result<Self, String> {
        let line = Line::new(&video_encoder::branch(settings))?;
        let pictures: app::AppSrc = child(&line.pipeline, "canvas")?;
        let caps = info.to_caps().map_err(|e| e.to_string())?;
        pictures.set_caps(Some(&caps));
        let gate = Gate::new(packets);
        let to = gate.clone();
        on_packets(&line.pipeline, "pictures", move |packet| {
            to.pass(|packets| packets.video(packet));
        })?;
        line.start(zero)?;
        Ok(Self {
            line,
            pictures,
            gate,
        })
    }
}

impl<P: Packets> Frames<P> {
    pub fn new(settings: &Settings, zero: Instant, packets: Arc<P>) -> Result<Self, String> {
        let info = frame_info(settings.size, settings.fps).map_err(|e| e.to_string())?;
        Ok(Self {
            coder: Coder::new(settings, &info, zero, packets)?,
            pool: Pool::new(&info).map_err(|e| e.to_string())?,
            last: None,
            info,
        })
    }

    /// Goes on with another encoder of the same size and rate. `given` tells the number of the frame that came out last,
    /// asked when no more can come of the old one.
    ///
    /// # Errors
    /// The new one does not start; the old one stays.
    pub fn replace(
        &mut self,
        settings: &Settings,
        zero: Instant,
        packets: Arc<P>,
        given: impl FnOnce() -> Option<u64>,
    ) -> Result<(), String> {
        let coder = Coder::new(settings, &self.info, zero, packets)?;
        self.coder.gate.shut();
        let old = std::mem::replace(&mut self.coder, coder);
        // It may be in the middle of a frame, and the beat must not wait for that.
        old.line.let_go();
        // What was taken and not given is made up for by the latest picture.
        self.last = match (self.last.take(), given()) {
            (Some((_, picture)), Some(given)) => Some((given, picture)),
            _ => None,
        };
        Ok(())
    }

    /// See [`super::Program::push_frame`].
    pub fn push(
        &mut self,
        n: u64,
        pts_ns: impl Fn(u64) -> u64,
        draw: impl FnOnce(&mut Canvas<'_>),
    ) -> Option<u64> {
        if self.coder.pictures.current_level_buffers() >= MAX_BACKLOG {
            return None;
        }
        let mut buffer = self.pool.take().ok()?;
        if !self.drawn(&mut buffer, draw) {
            return None;
        }
        let repeated = self.fill(n, &pts_ns);
        self.last = Some((n, self.put(buffer, pts_ns(n), pts_ns(n + 1))));
        Some(repeated + 1)
    }

    /// See [`super::Program::repeat_frame`].
    pub fn repeat(&mut self, n: u64, pts_ns: impl Fn(u64) -> u64) -> Option<u64> {
        if self.coder.pictures.current_level_buffers() >= MAX_BACKLOG {
            return None;
        }
        let repeated = self.fill(n + 1, &pts_ns);
        if let Some(last) = &mut self.last {
            last.0 = last.0.max(n);
        }
        Some(repeated)
    }

    /// The latest frame stands in for those left out before `n`; how often.
    fn fill(&self, n: u64, pts_ns: &impl Fn(u64) -> u64) -> u64 {
        let Some((last, picture)) = &self.last else {
            return 0;
        };
        let rate = u64::from(u32::try_from(self.info.fps().numer()).unwrap_or(0));
        let most = rate * MAX_REPEATED.as_secs();
        let missing = (last + 1).max(n.saturating_sub(most))..n;
        for missing in missing.clone() {
            // The memory is shared; only the times are the repetition's own.
            self.put(picture.copy(), pts_ns(missing), pts_ns(missing + 1));
        }
        missing.end.saturating_sub(missing.start)
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

    fn put(&self, mut buffer: gst::Buffer, pts_ns: u64, next_ns: u64) -> gst::Buffer {
        let writable = buffer.make_mut();
        writable.set_pts(gst::ClockTime::from_nseconds(pts_ns));
        writable.set_duration(gst::ClockTime::from_nseconds(next_ns - pts_ns));
        // It can fail only while the pipeline is failing, which is reported by itself.
        let _ = self.coder.pictures.push_buffer(buffer.clone());
        buffer
    }

    pub fn error(&self) -> Option<String> {
        self.coder.line.error()
    }

    /// Nothing comes out from here on.
    pub fn shut(&self) {
        self.coder.gate.shut();
    }

    pub fn line(&mut self) -> &mut Line {
        &mut self.coder.line
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Nobody, square};
    use super::*;

    #[test]
    fn what_a_replaced_encoder_owes_is_made_up_for_to_the_last_frame() {
        gst::init().unwrap();
        let settings = square(64, 30);
        let (zero, nobody) = (Instant::now(), Arc::new(Nobody));
        let mut frames = Frames::new(&settings, zero, nobody.clone()).unwrap();
        let pts = |n| n * 1_000_000_000 / 30;
        assert_eq!(frames.push(0, pts, |_| {}), Some(1));
        frames.replace(&settings, zero, nobody, || Some(0)).unwrap();
        // Two seconds: 59 repetitions and the frame itself.
        assert_eq!(frames.push(60, pts, |_| {}), Some(60));
        // Of a minute, in which the process stood still, five seconds.
        let put = loop {
            match frames.push(1_860, pts, |_| {}) {
                None => assert!(zero.elapsed() < Duration::from_secs(30)),
                Some(put) => break put,
            }
        };
        assert_eq!(put, 151);
    }
}
