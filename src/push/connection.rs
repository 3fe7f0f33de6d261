//! One connection to a target, from the handshake to the goodbye.
//!
//! One owner of the socket for reading and writing: what the target says is read and answered while media waits, so
//! that a target which talks much and reads little cannot block itself.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::dial::dial;
use super::feeder::{Behind, Feeder};
use super::outbox::Outbox;
use super::progress::Progress;
use super::status::{Offered, Record, Waiting, presentable};
use super::{Config, SignError};
use crate::net::{self, Socket};
use crate::relay::{Item, Read, Subscriber};
use crate::rtmp::session::client::{self, Event, Session};
use crate::rtmp::url::Target;
use crate::rtmp::{MEDIA_STREAM_ID, chunk, handshake};

/// Messages taken from the feed before the socket gets its turn. Their payloads are the ring's.
const BATCH: usize = 64;
/// Queued bytes from which on nothing more is taken from the feed. With the message that goes over it, all that waits
/// here; what the kernel holds comes to it (see [`send_buffer`]).
const QUEUE_BYTES: u64 = 64 << 10;
/// Reads in a row before media gets its turn again.
const MAX_READS: usize = 16;
/// For the last bytes to leave, and again for the target to close.
const GOODBYE: Duration = Duration::from_secs(1);
/// How often the kernel is asked what the target has acknowledged, while there is something that it has not.
const LOOK: Duration = Duration::from_millis(250);
/// How often the send buffer is measured against the stream.
const RESIZE: Duration = Duration::from_secs(2);
/// How long a backup waits for the key frame before which it ends: longer than any group of pictures that a player can
/// bear.
const HAND_BACK: Duration = Duration::from_secs(10);
/// Skips are told in the log no more often.
const TELL: Duration = Duration::from_secs(10);

/// The kernel's send buffer before the bitrate is known.
const FIRST_SEND_BUFFER: usize = 64 << 10;
/// Below this a single key frame of a low bitrate stream takes several turns.
const MIN_SEND_BUFFER: usize = 16 << 10;
/// Half a second at 16 Mbit/s; the kernel doubles it.
const MAX_SEND_BUFFER: usize = 1 << 20;

/// Why a connection failed. Masked: fit for answers and logs.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("cannot sign the URL: {0}")]
    Sign(#[from] SignError),
    #[error("cannot look up {host:?}: {source}")]
    Lookup { host: String, source: io::Error },
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    #[error("this server is not set up for TLS to targets")]
    NoTls,
    #[error("no connection after {0:?}")]
    ConnectTimeout(Duration),
    #[error("no permission to publish after {0:?}")]
    PublishTimeout(Duration),
    #[error(transparent)]
    Handshake(#[from] handshake::Error),
    #[error(transparent)]
    Chunk(#[from] chunk::Error),
    #[error(transparent)]
    Session(#[from] client::Error),
    #[error("target refused: {0}")]
    Refused(String),
    #[error("target ended the publishing: {0}")]
    Ended(String),
    #[error("target closed the connection")]
    Closed,
    #[error("connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("a mistake of ours; please report it")]
    Panicked,
    #[error("target acknowledged no byte for {0:?} while there was something to send")]
    Stalled(Duration),
}

/// Why a healthy connection is no longer needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The feed ended.
    Feed,
    /// The feed brought nothing for the configured hold.
    Idle,
    /// It is not its turn in its group any more.
    HandedBack,
    /// The target was removed, or the server is going down.
    Stopped,
}

/// What a connection works with, all of it the task's.
pub(super) struct Work<'a> {
    pub subscriber: &'a mut Subscriber,
    pub feeder: &'a mut Feeder,
    pub record: &'a Record,
    pub config: &'a Config,
    pub stop: &'a CancellationToken,
}

/// A connection that may publish.
pub(super) struct Connection {
    socket: Socket,
    reader: chunk::Reader,
    session: Session,
    outbox: Outbox,
    progress: Progress,
    /// What to mask in the target's own words.
    query: String,
    /// The feed's bytes per second, as of late.
    rate: Option<u64>,
    /// When the log last heard that the target is behind.
    told: Option<std::time::Instant>,
    /// For [`Connection::refill`], so that it is not made anew.
    items: Vec<Arc<Item>>,
}

/// What the feed had.
enum Refill {
    /// So many items; `more`: there may be others.
    Took { items: usize, more: bool },
    /// It is over.
    Ended,
    /// A place to begin, at which somebody else goes on.
    Left,
}

impl Connection {
    /// Connects and asks to publish.
    ///
    /// # Errors
    /// When any step fails, is refused, or takes longer than the configuration allows.
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub(super) async fn open(target: &Target, config: &Config) -> Result<Self, Failure> {
        let socket = dial(target, config).await?;
        net::bound_queue(&socket, FIRST_SEND_BUFFER, unsent(FIRST_SEND_BUFFER))?;
        let limit = config.publish_timeout;
        timeout(limit, Self::publish(socket, target))
            .await
            .map_err(|_| Failure::PublishTimeout(limit))?
    }

    async fn publish(socket: Socket, target: &Target) -> Result<Self, Failure> {
        let mut reader = chunk::Reader::new(chunk::Limits::default());
        let (mut handshake, opening) = handshake::Client::new();
        socket.write_all(&opening).await?;
        let mut received = BytesMut::with_capacity(4096);
        loop {
            if net::read_some(&socket, &mut received).await? == 0 {
                return Err(Failure::Closed);
            }
            let progress = handshake.receive(&received)?;
            received.clear();
            socket.write_all(&progress.reply).await?;
            if let Some(rest) = progress.done {
                reader.buffer().extend_from_slice(&rest);
                break;
            }
        }
        let mut connection = Self {
            socket,
            reader,
            session: Session::publish(target),
            outbox: Outbox::default(),
            progress: Progress::new(std::time::Instant::now()),
            query: target.query.clone(),
            rate: None,
            told: None,
            items: Vec::with_capacity(1),
        };
        loop {
            let ready = connection.take_messages()?;
            let output = connection.session.output();
            connection.socket.write_all(&output).await?;
            if ready {
                return Ok(connection);
            }
            let Self { socket, reader, .. } = &mut connection;
            if net::read_some(socket, reader.buffer()).await? == 0 {
                return Err(Failure::Closed);
            }
        }
    }

    /// The message stream as the target numbered it.
    pub(super) fn stream_id(&self) -> u32 {
        // A session that may publish has one.
        self.session.stream_id().unwrap_or(MEDIA_STREAM_ID)
    }

    /// When the target last took something, or something began to wait for it.
    pub(super) fn last_progress(&self) -> std::time::Instant {
        self.progress.moved()
    }

    /// Sends the feed until there is a reason not to, or, once `lost` resolves, until the next place where somebody else
    /// can begin. Call [`Connection::finish`] after an `Ok`.
    ///
    /// # Errors
    /// When the target broke, ended or stalled the connection, which is of no use then.
    pub(super) async fn feed(
        &mut self,
        mut work: Work<'_>,
        lost: impl Future<Output = ()>,
    ) -> Result<End, Failure> {
        let mut lost = pin!(lost);
        let mut leave_by = None;
        let mut last_media = Instant::now();
        let mut last_resize = None;
        loop {
            let now = Instant::now();
            self.look(&work, now);
            if self.progress.is_outstanding()
                && now.into_std() - self.progress.moved() >= work.config.stall
            {
                return Err(Failure::Stalled(work.config.stall));
            }
            if leave_by.is_some_and(|limit| now >= limit) {
                return Ok(End::HandedBack);
            }
            if last_resize.is_none_or(|last| now - last >= RESIZE) {
                last_resize = Some(now);
                self.resize(work.subscriber.byte_rate());
            }
            let lag = self.progress.lag(work.subscriber.head_time());
            let room = self.progress.room(lag).min(QUEUE_BYTES);
            let wants = self.outbox.is_empty() && room > 0;
            if wants {
                match self.refill(&mut work, room, leave_by.is_some(), now) {
                    Refill::Ended => return Ok(End::Feed),
                    Refill::Left => return Ok(End::HandedBack),
                    Refill::Took { items, more } => {
                        if items > 0 {
                            last_media = now;
                        }
                        if more && self.outbox.is_empty() {
                            // All of it was left out.
                            tokio::task::yield_now().await;
                            continue;
                        }
                    }
                }
            }
            let writing = !self.outbox.is_empty();
            // It asks and does not read: no more questions until it has taken some answers.
            let reading = self.outbox.control_bytes() < net::MAX_OUTBOX_BYTES;
            let mut deadline = if self.progress.is_outstanding() {
                now + LOOK
            } else {
                last_media + work.config.hold()
            };
            if let Some(limit) = leave_by {
                deadline = deadline.min(limit);
            }
            // Cancel safe: nothing is taken from the socket or the feed before an arm has won.
            tokio::select! {
                biased;
                () = work.stop.cancelled() => return Ok(End::Stopped),
                () = &mut lost, if leave_by.is_none() => leave_by = Some(now + HAND_BACK),
                ready = self.socket.readable(), if reading => {
                    ready?;
                    self.drain()?;
                    // What it says all the time must not keep media waiting.
                    self.write()?;
                }
                ready = self.socket.writable(), if writing => {
                    ready?;
                    self.write()?;
                }
                () = work.subscriber.ready(), if wants && !writing => {}
                () = sleep_until(deadline) => {
                    if !self.progress.is_outstanding() && last_media + work.config.hold() <= Instant::now() {
                        return Ok(End::Idle);
                    }
                }
            }
        }
    }

    /// Ends it at once, for one that failed: what the kernel still has for the target would reach it late, when the next
    /// connection is there, and keep the name busy for that one until then.
    pub(super) fn abort(self) {
        // A refusal leaves a slower end.
        let _ = SockRef::from(self.socket.tcp()).set_linger(Some(Duration::ZERO));
    }

    /// Says goodbye properly, within [`GOODBYE`] for each half.
    pub(super) async fn finish(mut self, record: &Record) {
        self.session.unpublish();
        let words = self.session.output();
        let now = std::time::Instant::now();
        self.progress.queued(words.len() as u64, None, now);
        self.outbox.push_bytes(words);
        let flushed = timeout(GOODBYE, async {
            while !self.outbox.is_empty() {
                self.socket.writable().await?;
                self.write()?;
            }
            self.socket.shut_down().await?;
            Ok::<_, Failure>(())
        });
        if matches!(flushed.await, Ok(Ok(()))) {
            // Closing with unread bytes resets the connection, and the reset may overtake the goodbye.
            let _ = timeout(GOODBYE, async {
                let mut sink = BytesMut::with_capacity(4096);
                while matches!(net::read_some(&self.socket, &mut sink).await, Ok(1..)) {
                    sink.clear();
                }
            })
            .await;
        }
        self.count(record, Instant::now());
    }

    /// Asks the kernel how far the target is, and notes it.
    fn look(&mut self, work: &Work<'_>, now: Instant) {
        if !self.progress.is_outstanding() {
            return;
        }
        self.count(work.record, now);
        let waiting = Waiting {
            bytes: self.progress.outstanding(),
            lag: self.progress.lag(work.subscriber.head_time()),
        };
        work.record.waits(waiting, self.progress.moved());
    }

    fn count(&mut self, record: &Record, now: Instant) {
        // A socket that is none any more fails at the next write, with its cause.
        let unacknowledged = net::unacknowledged(&self.socket).unwrap_or(usize::MAX);
        let more = self.progress.look(unacknowledged, now.into_std());
        if more > 0 {
            record.acknowledged(more, now.into_std());
        }
    }

    /// About a second of the stream is on its way at most, whatever the target's distance.
    fn resize(&mut self, rate: Option<u64>) {
        self.rate = rate;
        if let Some(rate) = rate {
            let bytes = send_buffer(rate);
            // A refusal leaves the old size, which is no reason to end a connection.
            let _ = net::bound_queue(&self.socket, bytes, unsent(bytes));
        }
    }

    /// Takes what the feed has, until `room` bytes wait here.
    fn refill(&mut self, work: &mut Work<'_>, room: u64, is_leaving: bool, now: Instant) -> Refill {
        let now = now.into_std();
        let mut took = 0;
        let mut more = true;
        let mut ending = None;
        while took < BATCH && self.outbox.bytes() < room {
            let mut items = std::mem::take(&mut self.items);
            let reception = work.subscriber.try_read(1, &mut items);
            if let Read::Skipped(messages) = reception.read {
                work.feeder.lost(messages);
            }
            if reception.ended.is_some() {
                ending = Some(Refill::Ended);
            }
            let item = items.pop();
            self.items = items;
            let Some(item) = item else {
                more = false;
                break;
            };
            if is_leaving && item.headers().is_some() {
                ending = Some(Refill::Left);
                break;
            }
            took += 1;
            let behind = Behind {
                head: reception.head,
                on_the_way: self.progress.on_the_way(self.rate),
            };
            let before = self.outbox.pushed();
            work.feeder.offer(&item, behind, now, &mut self.outbox);
            let bytes = self.outbox.pushed() - before;
            let time = item.message().dts;
            self.progress.queued(bytes, Some(time), now);
        }
        let offered = work.feeder.take_counts();
        if offered != Offered::default() {
            work.record.offered(offered);
        }
        let is_news = self.told.is_none_or(|told| now - told >= TELL);
        if offered.skips > 0 && is_news {
            self.told = Some(now);
            work.record.tell_behind(work.feeder.behind());
        }
        ending.unwrap_or(Refill::Took { items: took, more })
    }

    /// One write of what waits.
    fn write(&mut self) -> Result<(), Failure> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        match self.outbox.write(&self.socket) {
            Ok(bytes) => self.progress.wrote(bytes),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }
    /// Reads what the target sent, and queues the answers.
    fn drain(&mut self) -> Result<(), Failure> {
        for _ in 0..MAX_READS {
            match self.socket.try_read_buf(self.reader.buffer()) {
                Ok(0) => return Err(Failure::Closed),
                Ok(_) => {
                    self.take_messages()?;
                    let answers = self.session.output();
                    let now = std::time::Instant::now();
                    self.progress.queued(answers.len() as u64, None, now);
                    self.outbox.push_bytes(answers);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Hands what was read to the session. `true`: the target lets us publish from now on.
    fn take_messages(&mut self) -> Result<bool, Failure> {
        let mut ready = false;
        while let Some(message) = self.reader.next()? {
            match self.session.handle(message)? {
                Some(Event::Ready) => ready = true,
                Some(Event::Refused { code, description }) => {
                    return Err(Failure::Refused(self.words(&code, &description)));
                }
                Some(Event::Closed { code, description }) => {
                    return Err(Failure::Ended(self.words(&code, &description)));
                }
                Some(Event::Media(_)) | None => {}
            }
        }
        if let Some(total) = self.reader.acknowledgement() {
            self.session.acknowledge(total);
        }
        Ok(ready)
    }

    fn words(&self, code: &str, description: &str) -> String {
        let text = match (code, description) {
            ("", "") => "without a reason".to_owned(),
            (code, "") => code.to_owned(),
            ("", description) => description.to_owned(),
            (code, description) => format!("{code} ({description})"),
        };
        presentable(&text, &self.query)
    }
}

/// Half of a second of the stream; the kernel allows twice what it is told, for its overhead. A round trip of half a
/// second does not slow a healthy target down then, and a stalled one holds no more than that.
fn send_buffer(bytes_per_second: u64) -> usize {
    usize::try_from(bytes_per_second / 2)
        .unwrap_or(MAX_SEND_BUFFER)
        .clamp(MIN_SEND_BUFFER, MAX_SEND_BUFFER)
}

/// How much of it may wait to be sent, so that we are woken before it has run dry.
fn unsent(send_buffer: usize) -> u32 {
    u32::try_from(send_buffer / 2).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_send_buffer_follows_the_bitrate() {
        // 100 kbit/s, 2 Mbit/s and 100 Mbit/s: 12.5 KB, 250 KB and 12.5 MB a second.
        assert_eq!(send_buffer(12_500), MIN_SEND_BUFFER);
        assert_eq!(send_buffer(250_000), 125_000);
        assert_eq!(send_buffer(12_500_000), MAX_SEND_BUFFER);
    }
}
