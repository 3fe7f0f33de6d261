//! One running pipeline of the program: its error, and its end.
//!
//! An element that hangs in a call cannot be stopped, and who waits for it hangs too. So pipelines are stopped on threads
//! of their own, which are waited for a while; as long as too many of them hang, no new pipeline is made. One that takes
//! its time, as all do, does not hang.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::mixer::decode::{Failure, launch, stop};
use crate::mixer::graph;
use crate::mixer::stops::{MAX_HUNG, PATIENCE, Stops};

/// All of this process.
static STOPS: Stops = Stops::new();

/// A pipeline that plays. Dropping it stops it, and waits for that.
pub struct Line {
    pub pipeline: gst::Pipeline,
    failure: Arc<Failure>,
    /// Why it is given up, and where its graph is to be written.
    given_up: Option<(String, PathBuf)>,
    patience: Duration,
    stops: &'static Stops,
}

impl Line {
    /// Builds the pipeline of that description; it does not play yet.
    ///
    /// # Errors
    /// An element could not be made (the text says which), or pipelines of before hang.
    pub fn new(description: &str) -> Result<Self, String> {
        Self::counted(description, &STOPS)
    }

    fn counted(description: &str, stops: &'static Stops) -> Result<Self, String> {
        let hung = stops.hung(Instant::now());
        if hung >= MAX_HUNG {
            return Err(format!(
                "{hung} pipelines that failed cannot be stopped; the limit is {MAX_HUNG}"
            ));
        }
        let pipeline = launch(description)?;
        let failure = Arc::new(Failure::default());
        failure.watch(&pipeline);
        Ok(Self {
            pipeline,
            failure,
            given_up: None,
            patience: PATIENCE,
            stops,
        })
    }

    /// Lets it play, with time 0 at `zero`.
    ///
    /// # Errors
    /// An element does not start.
    pub fn start(&self, zero: Instant) -> Result<(), String> {
        let clock = gst::SystemClock::obtain();
        self.pipeline.use_clock(Some(&clock));
        self.pipeline.set_start_time(gst::ClockTime::NONE);
        let since = gst::ClockTime::from_nseconds(zero.elapsed().as_nanos() as u64);
        self.pipeline
            .set_base_time(clock.time().saturating_sub(since));
        let started = self.pipeline.set_state(gst::State::Playing);
        started.map_err(|e| self.error().unwrap_or_else(|| e.to_string()))?;
        Ok(())
    }

    /// Its graph is written into that folder before it is stopped.
    pub fn give_up(&mut self, why: &str, graphs: &Path) {
        self.given_up = Some((why.to_owned(), graphs.to_owned()));
    }

    /// Stops it without waiting for the end.
    pub fn let_go(mut self) {
        self.patience = Duration::ZERO;
    }

    /// The pipeline's error, if it has one.
    pub fn error(&self) -> Option<String> {
        self.failure.take()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let (pipeline, given_up) = (self.pipeline.clone(), self.given_up.take());
        let (stops, begun) = (self.stops, Instant::now());
        stops.begin(begun);
        let (done, stopped) = mpsc::sync_channel(1);
        let work = move || {
            if let Some((why, graphs)) = given_up {
                match graph::write(&graphs, &pipeline, &why) {
                    Ok(file) => {
                        tracing::info!(file = %file.display(), "graph of a failed pipeline")
                    }
                    Err(error) => tracing::warn!(%error, "no graph of a failed pipeline"),
                }
            }
            stop(&pipeline);
            stops.end(begun);
            // Nobody may be waiting any more.
            let _ = done.try_send(());
        };
        let spawned = std::thread::Builder::new()
            .name("mix-stop".into())
            .spawn(work);
        if spawned.is_err() {
            stop(&self.pipeline);
            stops.end(begun);
        } else if !self.patience.is_zero() && stopped.recv_timeout(self.patience).is_err() {
            let hung = stops.hung(Instant::now());
            tracing::warn!(hung, "a pipeline takes long to stop");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipeline that needs up to 50 ms to stop: its thread sleeps for as long between two buffers.
    fn line(stops: &'static Stops) -> Result<Line, String> {
        gst::init().unwrap();
        let line = Line::counted("fakesrc ! identity sleep-time=50000 ! fakesink", stops)?;
        line.start(Instant::now())?;
        Ok(line)
    }

    #[test]
    fn pipelines_that_stop_together_keep_nobody_from_making_another() {
        static OWN: Stops = Stops::new();
        let lines: Vec<_> = (0..2 * MAX_HUNG).map(|_| line(&OWN).unwrap()).collect();
        lines.into_iter().for_each(Line::let_go);
        assert!(line(&OWN).is_ok());
    }

    #[test]
    fn while_eight_hang_no_other_is_made() {
        static OWN: Stops = Stops::new();
        let (now, patience) = (Instant::now(), PATIENCE);
        let long_ago = now - 2 * patience;
        for n in 0..MAX_HUNG {
            assert!(line(&OWN).is_ok(), "{n} hang");
            OWN.begin(long_ago);
        }
        // Those that were just made and dropped are being stopped too.
        assert_eq!(OWN.hung(now), MAX_HUNG);
        let error = line(&OWN).err().expect("no other");
        assert_eq!(
            error,
            "8 pipelines that failed cannot be stopped; the limit is 8"
        );
        OWN.end(long_ago);
        assert!(line(&OWN).is_ok());
        OWN.begin(now);
        assert_eq!(OWN.hung(now + patience), MAX_HUNG - 1);
        assert!(OWN.hung(now + patience + Duration::from_millis(1)) >= MAX_HUNG);
    }
}
