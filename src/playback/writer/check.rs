//! What a writer loop looks at that is not the next write: who is gone, how late everybody is, what sockets may hold.

use std::io;
use std::time::{Duration, Instant};

use super::super::info::ReaderInfo;
use super::super::reader::Reader;
use super::super::sizing::Sizing;
use super::{Waiting, Writer};
use crate::media::MediaTime;
use crate::net;
use crate::reason::Reason;

/// How much later than the policy the kernel gives a reader up that takes nothing, so that it goes with our reason.
const AFTER_STUCK: Duration = Duration::from_secs(10);

impl Writer {
    /// Once a second: players that are gone, everybody's lag, and what the stream's bitrate has come to be. A follower
    /// whose peer leaves too much unacknowledged falls out, however willingly the kernel takes more.
    pub(super) fn check(&mut self, waiting: &mut Waiting) {
        let now = Instant::now();
        self.resize();
        let head = self.tail.head_time();
        for place in (0..self.roster.followers().len()).rev() {
            let id = self.roster.follower(place).id;
            self.serve(id, |writer| writer.check_follower(place, head, now));
        }
        for place in (0..self.roster.stragglers()).rev() {
            let id = self.roster.straggler(place).id;
            self.serve(id, |writer| {
                writer.check_straggler(place, head, now, waiting)
            });
        }
    }

    fn check_follower(&mut self, place: usize, head: MediaTime, now: Instant) {
        let reader = self.roster.follower(place);
        if reader.is_abandoned() {
            let reader = self.roster.take_follower(place);
            self.dismiss(*reader, Reason::Disconnected);
            return;
        }
        let (unacknowledged, lag) = reader.measure(head, &self.line, now);
        if let Some(lag) = lag {
            self.metrics.lag(reader.class().as_str(), lag);
        }
        if unacknowledged >= self.sizing.share {
            self.fall_out(place, self.begin, now);
        }
    }

    fn check_straggler(
        &mut self,
        place: usize,
        head: MediaTime,
        now: Instant,
        waiting: &mut Waiting,
    ) {
        let reader = self.roster.straggler(place);
        if reader.is_abandoned() || reader.has_lingered(now) {
            let reader = self.roster.take_straggler(place);
            self.dismiss(*reader, Reason::Disconnected);
            return;
        }
        if let (_, Some(lag)) = reader.measure(head, &self.line, now) {
            self.metrics.lag(reader.class().as_str(), lag);
        }
        self.pump(place, now, waiting);
    }

    /// Bounds the sockets anew when the bitrate has changed enough.
    fn resize(&mut self) {
        let sizing = Sizing::of(self.tail.byte_rate(), &self.class.budget);
        if !self.sizing.differs(&sizing) {
            return;
        }
        self.sizing = sizing;
        for reader in self.roster.readers() {
            // A socket that refuses is broken, and shows it with the next write.
            let _ = reader.bound(&sizing);
        }
    }

    /// Bounds the socket of a player that joins.
    pub(super) fn prepare(&mut self, reader: &Reader) -> io::Result<()> {
        self.resize();
        reader.bound(&self.sizing)?;
        net::give_up_after(reader.socket(), self.class.budget.stuck + AFTER_STUCK)
    }

    pub(super) fn report(&mut self, now: Instant) -> Vec<ReaderInfo> {
        let head = self.tail.head_time();
        let mut mistakes = Vec::new();
        let mut report = Vec::new();
        for reader in self.roster.readers() {
            let info = || reader.info(head, &self.line, now);
            match net::contained("asking for a player", info) {
                Some(info) => report.push(info),
                None => mistakes.push(reader.id),
            }
        }
        for id in mistakes {
            self.give_up(id);
        }
        report
    }
}
