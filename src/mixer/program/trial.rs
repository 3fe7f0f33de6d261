//! Does an encoder work on this machine? It is tried once, with a few frames in a pipeline that is thrown away.

use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::frames::Frames;
use super::{Packet, Packets, Settings};
use crate::mixer::encoder::Encoder;
use crate::mixer::format::DEFAULT_AUDIO;
use crate::mixer::layout::Size;

/// Drivers that hang are waited for no longer; those that work need some 100 ms.
const LIMIT: Duration = Duration::from_secs(5);
/// Frames that go in, and that must come out of an encoder without delay.
const FRAMES: u64 = 5;
const FPS: u32 = 25;
/// As small as the encoders in hardware take.
const SIZE: Size = Size {
    width: 320,
    height: 240,
};

#[derive(Default)]
struct Count {
    /// Packets so far; whether the first was a key frame with a header.
    seen: Mutex<(u64, bool)>,
    news: Condvar,
}

impl Packets for Count {
    fn video(&self, packet: Packet<'_>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 == 0 {
            seen.1 = packet.key && !packet.header.is_empty();
        }
        seen.0 += 1;
        self.news.notify_one();
    }

    fn audio(&self, _: Packet<'_>) {}
}

/// Encodes a few frames.
///
/// # Errors
/// What is wrong with the encoder.
pub fn run(encoder: Encoder) -> Result<(), String> {
    let (done, verdict) = mpsc::sync_channel(1);
    // A driver may hang in any call: then this thread is left to it.
    let work = move || {
        // Nobody waits any more when it took too long.
        let _ = done.try_send(encode(encoder));
    };
    std::thread::Builder::new()
        .name("encoder-trial".into())
        .spawn(work)
        .map_err(|e| e.to_string())?;
    verdict
        .recv_timeout(LIMIT + Duration::from_secs(1))
        .unwrap_or_else(|_| Err(format!("it hangs for {} s", LIMIT.as_secs())))
}

fn encode(encoder: Encoder) -> Result<(), String> {
    let settings = Settings {
        size: SIZE,
        fps: FPS,
        video_kbps: 500,
        audio: DEFAULT_AUDIO,
        audio_kbps: 96,
        encoder,
        preset: "superfast".into(),
        key_frame_interval: Duration::from_secs(2),
    };
    let count = Arc::new(Count::default());
    let mut frames = Frames::new(&settings, Instant::now(), count.clone())?;
    let frame_ns = 1_000_000_000 / u64::from(FPS);
    let deadline = Instant::now() + LIMIT;
    let mut pushed = 0;
    let mut seen = count.seen.lock().unwrap_or_else(PoisonError::into_inner);
    while seen.0 < FRAMES {
        drop(seen);
        if let Some(error) = frames.error() {
            return Err(error);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let so_far = count.seen.lock().unwrap_or_else(PoisonError::into_inner).0;
        if left.is_zero() {
            return Err(format!("{so_far} of {pushed} frames within {LIMIT:?}"));
        }
        if pushed < FRAMES
            && let Some(put) = frames.push(pushed, |n| n * frame_ns, |_| {})
        {
            pushed += put;
        }
        seen = count.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 < FRAMES {
            let step = left.min(Duration::from_millis(10));
            seen = count
                .news
                .wait_timeout(seen, step)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
    if seen.1 {
        Ok(())
    } else {
        Err("it does not begin with a key frame and its header".into())
    }
}
