//! A mix's hold on a name's program feed: where it stands, and what asking it to rest, to resume or to end makes of that.
//!
//! Pure. What goes onto which feed meanwhile is [`stream`](super::stream)'s matter, which owns it under its lock.

use std::sync::Arc;
use std::time::Instant;

use super::held::Held;
use super::publisher::Status;
use crate::media::{Headers, MediaTime};

/// A mix on the program feed.
#[derive(Debug)]
pub(super) struct Overlay {
    pub id: u64,
    pub state: State,
    pub headers: Arc<Headers>,
    /// Latest decode time of the program feed's pictures (or of anything) before the overlay went on the air, and when
    /// it was given out; `None` when the feed carried nothing.
    pub anchor: Option<(MediaTime, Instant)>,
    /// Up to which of its sound the source was heard before; `None` once the overlay has told of later.
    pub heard: Option<MediaTime>,
    /// Its publisher handle is gone: nothing more will come from it.
    pub gone: bool,
}

/// Where an overlay stands.
#[derive(Debug)]
pub(super) enum State {
    /// The program feed forwards the source until the overlay's first key frame.
    Preparing,
    /// The program feed forwards the source, and what the overlay publishes is left out.
    Resting,
    OnAir,
    /// Asked to give the feed back; waits for the source's next key frame.
    Yielding {
        since: Instant,
        overdue: bool,
        held: Option<Held>,
        then: Then,
    },
}

/// What becomes of an overlay that has given the feed back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// It keeps the name, and may begin again.
    Rest,
    Leave,
}

impl Overlay {
    pub fn new(id: u64) -> Self {
        Self {
            id,
            state: State::Preparing,
            headers: Arc::default(),
            anchor: None,
            heard: None,
            gone: false,
        }
    }

    pub fn status(&self) -> Status {
        match self.state {
            State::Preparing => Status::Preparing,
            State::Resting => Status::Resting,
            State::OnAir => Status::Live,
            State::Yielding { .. } => Status::Ending,
        }
    }

    /// Does the program feed carry the source?
    pub fn forwards_source(&self) -> bool {
        matches!(self.state, State::Preparing | State::Resting)
    }

    /// Is it giving the feed back for good?
    pub fn is_leaving(&self) -> bool {
        let leaves = |then: &Then| *then == Then::Leave;
        matches!(&self.state, State::Yielding { then, .. } if leaves(then))
    }

    pub fn is_overdue(&self) -> bool {
        matches!(self.state, State::Yielding { overdue: true, .. })
    }

    /// Has the splice back begun, so that it has to be finished?
    pub fn is_splicing(&self) -> bool {
        matches!(self.state, State::Yielding { held: Some(_), .. })
    }

    /// It is to give the feed back at the source's next key frame, for `then`. One that leaves does not rest any more.
    pub fn give_back(&mut self, then: Then, now: Instant) {
        match &mut self.state {
            State::Yielding { then: before, .. } => {
                if then == Then::Leave {
                    *before = then;
                }
            }
            State::Preparing | State::Resting if then == Then::Rest => self.rest(),
            State::Preparing | State::Resting | State::OnAir => {
                self.state = State::Yielding {
                    since: now,
                    overdue: false,
                    held: None,
                    then,
                };
            }
        }
    }

    /// From here on it holds the name and nothing else.
    pub fn rest(&mut self) {
        self.state = State::Resting;
        self.headers = Arc::default();
        (self.anchor, self.heard) = (None, None);
    }

    /// It is to begin anew, or does not want to rest after all.
    pub fn resume(&mut self) {
        match self.state {
            State::Resting => self.state = State::Preparing,
            State::Preparing | State::OnAir | State::Yielding { .. } => self.stay(),
        }
    }

    /// One that is about to rest stays on the air. A splice that has begun goes on to its end: of the mix's own
    /// messages some are left out by then.
    pub fn stay(&mut self) {
        if let State::Yielding {
            held: None,
            then: Then::Rest,
            ..
        } = self.state
        {
            self.state = State::OnAir;
        }
    }
}
