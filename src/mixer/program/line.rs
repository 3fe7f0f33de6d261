//! One running pipeline of the program: its error, and its end.
//!
//! An element that hangs in a call cannot be stopped, and who waits for it hangs too. So pipelines are stopped on threads
//! of their own, which are waited for a while; as long as too many of them hang, no new pipeline is made.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::mixer::decode::{Failure, launch, stop};
use crate::mixer::graph;

/// Stopping takes some ms, and as long as one frame takes an encoder that is behind.
const PATIENCE: Duration = Duration::from_millis(200);
/// Pipelines of this process that may hang while being stopped. Each keeps a thread and some MB, and the fault that made
/// one hang makes others.
const MAX_HUNG: usize = 8;

static STOPPING: AtomicUsize = AtomicUsize::new(0);

/// A pipeline that plays. Dropping it stops it, and waits for that.
pub struct Line {
    pub pipeline: gst::Pipeline,
    failure: Arc<Failure>,
    /// Why it is given up, and where its graph is to be written.
    given_up: Option<(String, PathBuf)>,
    patience: Duration,
}

impl Line {
    /// Builds the pipeline of that description; it does not play yet.
    ///
    /// # Errors
    /// An element could not be made (the text says which), or pipelines of before hang.
    pub fn new(description: &str) -> Result<Self, String> {
        let hung = STOPPING.load(Ordering::Acquire);
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
        STOPPING.fetch_add(1, Ordering::AcqRel);
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
            STOPPING.fetch_sub(1, Ordering::AcqRel);
            // Nobody may be waiting any more.
            let _ = done.try_send(());
        };
        let spawned = std::thread::Builder::new()
            .name("mix-stop".into())
            .spawn(work);
        if spawned.is_err() {
            STOPPING.fetch_sub(1, Ordering::AcqRel);
            stop(&self.pipeline);
        } else if !self.patience.is_zero() && stopped.recv_timeout(self.patience).is_err() {
            let hung = STOPPING.load(Ordering::Acquire);
            tracing::warn!(hung, "a pipeline takes long to stop");
        }
    }
}
