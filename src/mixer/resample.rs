//! Sound at another rate: GStreamer's resampler, called like a function.
//!
//! Owns one `audioresample` element between two pads of its own, without pipeline, thread or clock: what is pushed in at
//! one end has come out at the other when the call returns. Called by [`source`](super::source) in the decoder's thread.

use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

/// From one rate to another, stereo.
pub(super) struct Resampler {
    from: u32,
    to: u32,
    element: gst::Element,
    entry: gst::Pad,
    /// The link to a pad does not keep it.
    exit: gst::Pad,
    out: Arc<Mutex<Vec<f32>>>,
    /// Frames put in and got out so far: the difference in time is what the filter still holds.
    taken: u64,
    given: u64,
}

impl Resampler {
    /// # Errors
    /// GStreamer does not take these rates, or has no resampler.
    pub fn new(from: u32, to: u32) -> Result<Self, String> {
        let failed = |what: &str| format!("no resampler from {from} to {to} Hz: {what}");
        let element = gst::ElementFactory::make("audioresample")
            .build()
            .map_err(|e| failed(&e.to_string()))?;
        let template = gst::PadTemplate::new(
            "exit",
            gst::PadDirection::Sink,
            gst::PadPresence::Always,
            &caps(to),
        )
        .map_err(|e| failed(&e.to_string()))?;
        let out = Arc::new(Mutex::new(Vec::new()));
        let to_out = out.clone();
        let exit = gst::Pad::builder_from_template(&template)
            .chain_function(move |_, _, buffer| {
                let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
                let (quads, _) = map.as_chunks::<4>();
                let samples = quads.iter().map(|&quad| f32::from_le_bytes(quad));
                // Nothing can panic while holding this lock.
                let mut out = to_out.lock().unwrap_or_else(PoisonError::into_inner);
                out.extend(samples);
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(|_, _, _| true)
            .build();
        let entry = gst::Pad::builder(gst::PadDirection::Src)
            .name("entry")
            .build();
        let (Some(sink), Some(source)) = (element.static_pad("sink"), element.static_pad("src"))
        else {
            return Err(failed("it has no pads"));
        };
        entry.link(&sink).map_err(|e| failed(&e.to_string()))?;
        source.link(&exit).map_err(|e| failed(&e.to_string()))?;
        exit.set_active(true).map_err(|e| failed(&e.to_string()))?;
        entry.set_active(true).map_err(|e| failed(&e.to_string()))?;
        let resampler = Self {
            from,
            to,
            element,
            entry,
            exit,
            out,
            taken: 0,
            given: 0,
        };
        let element = &resampler.element;
        element
            .set_state(gst::State::Playing)
            .map_err(|e| failed(&e.to_string()))?;
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        for event in [
            gst::event::StreamStart::new("sound"),
            gst::event::Caps::new(&caps(from)),
            gst::event::Segment::new(&segment),
        ] {
            if !resampler.entry.push_event(event) {
                return Err(failed("it does not take the format"));
            }
        }
        Ok(resampler)
    }

    /// Does it go from there to there?
    pub fn is(&self, from: u32, to: u32) -> bool {
        (self.from, self.to) == (from, to)
    }

    /// Left and right samples in turn, which follow those of the last call, at the other rate; and how many µs
    /// earlier than the first put in the first that comes out belongs: the filter looks ahead, so it keeps some.
    pub fn convert(&mut self, samples: &[f32]) -> (i64, Vec<f32>) {
        let micros = |frames: u64, rate: u32| (frames * 1_000_000 / u64::from(rate)) as i64;
        let held_us = micros(self.taken, self.from) - micros(self.given, self.to);
        let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        // Its own time without a gap: ours is for the track to judge.
        let pts = gst::ClockTime::from_useconds(micros(self.taken, self.from) as u64);
        buffer.make_mut().set_pts(pts);
        self.taken += samples.len() as u64 / 2;
        // What it refuses is silence at most.
        let _ = self.entry.push(buffer);
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let converted = std::mem::take(&mut *out);
        self.given += converted.len() as u64 / 2;
        (held_us, converted)
    }
}

impl Drop for Resampler {
    fn drop(&mut self) {
        let _ = self.entry.set_active(false);
        let _ = self.exit.set_active(false);
        let _ = self.element.set_state(gst::State::Null);
    }
}

fn caps(rate: u32) -> gst::Caps {
    gst::Caps::builder("audio/x-raw")
        .field("format", "F32LE")
        .field("layout", "interleaved")
        .field("rate", rate as i32)
        .field("channels", 2i32)
        .field("channel-mask", gst::Bitmask::new(3))
        .build()
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    #[test]
    fn a_tone_keeps_its_pitch_and_its_place_in_time() {
        gst::init().unwrap();
        for (from, to) in [(44_100, 48_000), (48_000, 44_100), (8_000, 48_000)] {
            let mut resampler = Resampler::new(from, to).unwrap();
            let tone = |second: f64| (0.5 * (TAU * 440.0 * second).sin()) as f32;
            let (mut heard, mut worst) = (0, 0.0f32);
            for block in 0..50u32 {
                let first = block * 1_024;
                let samples: Vec<f32> = (first..first + 1_024)
                    .map(|n| tone(f64::from(n) / f64::from(from)))
                    .flat_map(|v| [v, v])
                    .collect();
                let (held_us, out) = resampler.convert(&samples);
                assert!((0..20_000).contains(&held_us), "{held_us} us in the filter");
                let begin = f64::from(first) / f64::from(from) - held_us as f64 / 1e6;
                for (n, pair) in out.as_chunks::<2>().0.iter().enumerate() {
                    let at = begin + n as f64 / f64::from(to);
                    // The filter settles in the first milliseconds.
                    if at > 0.02 {
                        worst = worst.max((pair[0] - tone(at)).abs());
                        heard += 1;
                    }
                }
            }
            let expected = (50.0 * 1_024.0 / f64::from(from) - 0.03) * f64::from(to);
            assert!(f64::from(heard) > expected, "{heard} of {expected}");
            // 20 us, which is a sample at 48 kHz, are 0.028 of a 440 Hz tone of this amplitude.
            assert!(worst < 0.028, "{from} to {to}: off by {worst}");
        }
    }
}
