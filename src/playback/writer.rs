//! A writer loop: one task that serves a share of one feed's players.
//!
//! A message is offered to each socket by a direct vectored write of the shared bytes; only a player whose
//! socket would block waits for it to be writable, its place being its cursor. What came in since the last
//! turn goes out in one write. Video goes at once; audio rides with the next video message, because most of a
//! player's cost is the write and 43 of 73 messages a second are audio.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::Config;
use super::reader::{BATCH, Joiner, Reader, Scratch, Turn};
use crate::media::{Kind, MediaTime};
use crate::metrics::Metrics;
use crate::net::Socket;
use crate::reason::Reason;
use crate::relay::{Framing, Item, Read, Subscriber};

/// Control answers that may queue for one player; a client that asks for more without reading is no player.
const MAX_QUEUED: usize = 4 * BATCH;

/// What connections tell their writer loop.
pub enum Command {
    Join(Box<Joiner>),
    /// Bytes of the session, to go between messages.
    Control {
        id: u64,
        bytes: Bytes,
    },
    /// Last words, then the loop lets go of the socket.
    Finish {
        id: u64,
        bytes: Bytes,
    },
    /// The connection is gone.
    Leave {
        id: u64,
    },
}

/// The loop's state. Runs until it has no players left and its owner agrees.
pub struct Writer {
    tail: Subscriber,
    commands: mpsc::Receiver<Command>,
    config: Config,
    metrics: Arc<Metrics>,
    readers: Vec<Reader>,
    /// Where each player stands in `readers`.
    places: HashMap<u64, usize>,
    framing: Framing,
    scratch: Scratch,
    /// What was read and not yet written: audio that waits for a ride.
    batch: Vec<Arc<Item>>,
    /// Cursor of the first item in `batch`, or of the next one when it is empty.
    begin: u64,
    /// By when the waiting audio goes by itself.
    departure: Option<Instant>,
    ride: Ride,
}

impl Writer {
    pub fn new(
        tail: Subscriber,
        framing: Framing,
        commands: mpsc::Receiver<Command>,
        config: Config,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            begin: tail.cursor(),
            tail,
            commands,
            config,
            metrics,
            readers: Vec::new(),
            places: HashMap::new(),
            framing,
            scratch: Scratch::default(),
            batch: Vec::with_capacity(BATCH),
            departure: None,
            ride: Ride::default(),
        }
    }

    /// Serves until there is nobody left; `retire` is asked then and answers whether the loop may go
    /// (nobody can send to it any more) or must look at its commands again.
    pub async fn run(mut self, retire: impl Fn() -> bool) {
        let mut blocked = FuturesUnordered::new();
        let mut check = tokio::time::interval(Duration::from_secs(1));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut waiting = Vec::new();
            let departure = self.departure;
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command, &mut waiting),
                    None => return,
                },
                () = self.tail.ready() => self.receive(&mut waiting),
                () = depart(departure) => self.deliver(true, &mut waiting),
                Some(id) = blocked.next(), if !blocked.is_empty() => self.unblock(id, &mut waiting),
                _ = check.tick() => self.check(&mut waiting),
            }
            for (id, socket) in waiting {
                blocked.push(writable(id, socket));
            }
            if self.readers.is_empty() && self.commands.is_empty() && retire() {
                return;
            }
        }
    }

    fn obey(&mut self, command: Command, waiting: &mut Vec<(u64, Arc<Socket>)>) {
        let now = Instant::now();
        let id = match command {
            Command::Join(joiner) => {
                let id = joiner.id;
                let budget = self.config.class(joiner.class).budget.clone();
                self.places.insert(id, self.readers.len());
                self.readers.push(Reader::new(*joiner, budget, now));
                id
            }
            Command::Control { id, bytes } => {
                let Some(&place) = self.places.get(&id) else {
                    return;
                };
                if self.readers[place].queued() > MAX_QUEUED {
                    self.remove(place, Reason::TooSlow);
                    return;
                }
                self.readers[place].control(bytes);
                id
            }
            Command::Finish { id, bytes } => {
                let Some(&place) = self.places.get(&id) else {
                    return;
                };
                self.readers[place].finish(bytes);
                id
            }
            Command::Leave { id } => {
                if let Some(&place) = self.places.get(&id)
                    && !self.readers[place].is_finishing()
                {
                    self.remove(place, Reason::Disconnected);
                }
                return;
            }
        };
        let place = self.places[&id];
        if !self.readers[place].is_blocked() {
            self.pump(place, now, waiting);
        }
    }

    /// New messages: one read for all. Audio alone waits for video, where there is any.
    fn receive(&mut self, waiting: &mut Vec<(u64, Arc<Socket>)>) {
        let reception = self.tail.try_read(BATCH, &mut self.batch);
        let whole = reception.read == Read::Upto && reception.ended.is_none();
        if whole && let Some(wait) = self.ride.wait(&self.batch) {
            self.departure.get_or_insert_with(|| Instant::now() + wait);
            return;
        }
        self.deliver(whole, waiting);
    }

    /// Writes the batch: one write for each player. Not `whole`: something ended or was lost on the way, and
    /// each player looks for itself.
    fn deliver(&mut self, whole: bool, waiting: &mut Vec<(u64, Arc<Socket>)>) {
        let now = Instant::now();
        self.departure = None;
        let batch = std::mem::take(&mut self.batch);
        let begin = std::mem::replace(&mut self.begin, self.tail.cursor());
        let upto = self.begin;
        let span = match (batch.first(), batch.last()) {
            (Some(first), Some(last)) => last.message().dts.since(first.message().dts),
            _ => Duration::ZERO,
        };
        let shared = whole && span <= self.config.low_latency.budget.max_lag;
        let mut bytes = std::mem::take(&mut self.scratch.bytes);
        bytes.clear();
        for item in &batch {
            item.write_in(self.framing, 0, usize::MAX, &mut bytes);
        }
        let total = bytes.len();
        let mut written = 0;
        // Backwards, because removal moves the last reader into the gap.
        for place in (0..self.readers.len()).rev() {
            let reader = &mut self.readers[place];
            if reader.is_blocked() {
                continue;
            }
            if shared && reader.follows(begin) {
                match reader.write_batch(&batch, &bytes, upto, &self.metrics, now) {
                    Turn::Idle => written += 1,
                    Turn::Blocked => self.block(place, waiting),
                    Turn::Over(reason) => self.remove(place, reason),
                }
            } else {
                self.pump(place, now, waiting);
            }
        }
        self.metrics.playback_bytes.inc_by((written * total) as u64);
        self.metrics
            .playback_messages
            .inc_by((written * batch.len()) as u64);
        self.scratch.bytes = bytes;
        // Its room is used again; the items go.
        self.batch = batch;
        self.batch.clear();
    }

    fn unblock(&mut self, id: u64, waiting: &mut Vec<(u64, Arc<Socket>)>) {
        if let Some(&place) = self.places.get(&id) {
            self.readers[place].set_blocked(false);
            self.pump(place, Instant::now(), waiting);
        }
    }

    /// Once a second: players that take nothing at all, and everybody's lag.
    fn check(&mut self, waiting: &mut Vec<(u64, Arc<Socket>)>) {
        let now = Instant::now();
        for place in (0..self.readers.len()).rev() {
            if self.readers[place].is_abandoned() {
                self.remove(place, Reason::Disconnected);
                continue;
            }
            self.metrics
                .lag
                .observe(self.readers[place].lag().as_secs_f64());
            if self.readers[place].is_blocked() {
                // Its own wake-up stays armed; this only notices that the wait has been too long.
                let mut scratch = std::mem::take(&mut self.scratch);
                let turn = self.readers[place].pump(&mut scratch, &self.metrics, now);
                self.scratch = scratch;
                if let Turn::Over(reason) = turn {
                    self.remove(place, reason);
                }
            } else {
                self.pump(place, now, waiting);
            }
        }
    }

    fn pump(&mut self, place: usize, now: Instant, waiting: &mut Vec<(u64, Arc<Socket>)>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let turn = self.readers[place].pump(&mut scratch, &self.metrics, now);
        self.scratch = scratch;
        match turn {
            Turn::Idle => {}
            Turn::Blocked => self.block(place, waiting),
            Turn::Over(reason) => self.remove(place, reason),
        }
    }

    fn block(&mut self, place: usize, waiting: &mut Vec<(u64, Arc<Socket>)>) {
        let reader = &mut self.readers[place];
        reader.set_blocked(true);
        waiting.push((reader.id, reader.socket.clone()));
    }

    fn remove(&mut self, place: usize, reason: Reason) {
        let mut reader = self.readers.swap_remove(place);
        self.places.remove(&reader.id);
        if let Some(moved) = self.readers.get(place) {
            self.places.insert(moved.id, place);
        }
        tracing::debug!(stream = %self.tail.key(), class = reader.class().as_str(), %reason, "player left its writer");
        reader.tell(reason);
    }
}

/// Resolves at the departure of waiting audio; never without one.
async fn depart(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Decides whether audio waits for the next video message, and how long at most. Pure.
#[derive(Debug, Default)]
struct Ride {
    last_video: Option<MediaTime>,
    /// The latest interval between two video messages.
    interval: Duration,
}

impl Ride {
    /// Audio never waits longer, whatever the frame rate.
    const LONGEST: Duration = Duration::from_millis(50);
    /// Without video for this long, in media time, audio goes at once.
    const VIDEO_GONE: Duration = Duration::from_secs(1);

    /// How long a batch may wait; `None`: it goes now.
    fn wait(&mut self, batch: &[Arc<Item>]) -> Option<Duration> {
        let mut audio_only = !batch.is_empty();
        for item in batch {
            let message = item.message();
            if message.kind == Kind::Video && !message.is_header() {
                if let Some(last) = self.last_video {
                    self.interval = message.dts.since(last).min(Self::LONGEST);
                }
                self.last_video = Some(message.dts);
            }
            audio_only &= message.kind == Kind::Audio && !message.is_header();
        }
        let newest = batch.last()?.message().dts;
        let has_video = self
            .last_video
            .is_some_and(|last| newest.since(last) < Self::VIDEO_GONE);
        (audio_only && has_video && !self.interval.is_zero()).then_some(self.interval)
    }
}

async fn writable(id: u64, socket: Arc<Socket>) -> u64 {
    // An error shows again, with its cause, at the next write.
    let _ = socket.writable().await;
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Message;

    fn item(dts: i64, payload: &'static [u8]) -> Arc<Item> {
        let kind = if payload[0] == 0xaf {
            Kind::Audio
        } else {
            Kind::Video
        };
        let message = Message::new(kind, MediaTime(dts), Bytes::from_static(payload));
        Arc::new(Item::new(Arc::new(message), None))
    }

    const INTER: &[u8] = &[0x27, 1, 0, 0, 0];
    const SOUND: &[u8] = &[0xaf, 1];

    #[test]
    fn audio_waits_a_frame_interval_at_most_and_video_goes_at_once() {
        let mut ride = Ride::default();
        assert_eq!(ride.wait(&[item(0, SOUND)]), None, "no video known");
        assert_eq!(ride.wait(&[item(0, INTER)]), None);
        assert_eq!(ride.wait(&[item(33, INTER)]), None);
        let interval = Duration::from_millis(33);
        assert_eq!(ride.wait(&[item(40, SOUND)]), Some(interval));
        assert_eq!(ride.wait(&[item(40, SOUND), item(66, INTER)]), None);
        assert_eq!(ride.wait(&[item(70, &[0xaf, 0])]), None, "a header");
    }

    #[test]
    fn audio_waits_at_most_50_ms_and_not_at_all_once_video_is_gone() {
        let mut ride = Ride::default();
        ride.wait(&[item(0, INTER)]);
        ride.wait(&[item(200, INTER)]);
        let longest = Duration::from_millis(50);
        assert_eq!(ride.wait(&[item(210, SOUND)]), Some(longest));
        assert_eq!(ride.wait(&[item(1_200, SOUND)]), None);
    }
}
