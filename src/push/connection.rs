//! One connection to a target, from the name look-up to the goodbye.
//!
//! One owner of the socket for reading and writing: what the target says is read and answered while media waits, so
//! that a target which talks much and reads little cannot block itself.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::feeder::Feeder;
use super::outbox::Outbox;
use super::status::{Record, presentable};
use super::{Config, SignError};
use crate::media::MediaTime;
use crate::net;
use crate::relay::{Read, Subscriber};
use crate::rtmp::session::client::{self, Event, Session};
use crate::rtmp::url::Target;
use crate::rtmp::{MEDIA_STREAM_ID, chunk, handshake};

/// Messages taken from the feed at a time, and so the most that wait for the socket. Their payloads are the ring's.
const BATCH: usize = 64;
/// Reads in a row before media gets its turn again.
const MAX_READS: usize = 16;
/// For the last bytes to leave, and again for the target to close.
const GOODBYE: Duration = Duration::from_secs(1);

/// The kernel's send buffer before the bitrate is known.
const FIRST_SEND_BUFFER: usize = 128 << 10;
/// Below this a single key frame of a low bitrate stream takes several turns.
const MIN_SEND_BUFFER: usize = 64 << 10;
/// One second at 16 Mbit/s.
const MAX_SEND_BUFFER: usize = 2 << 20;
/// Media time over which the bitrate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// Why a connection failed. Masked: fit for answers and logs.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("cannot sign the URL: {0}")]
    Sign(#[from] SignError),
    #[error("cannot look up {host:?}: {source}")]
    Lookup { host: String, source: io::Error },
    #[error("cannot connect: {0}")]
    Connect(io::Error),
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
    #[error("target took no byte for {0:?} while there was media to send")]
    Stalled(Duration),
}

/// Why a healthy connection is no longer needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The feed ended.
    Feed,
    /// The feed brought nothing for the configured hold.
    Idle,
    /// The target was removed, or the server is going down.
    Stopped,
}

/// A connection that may publish.
pub(super) struct Connection {
    socket: TcpStream,
    reader: chunk::Reader,
    session: Session,
    outbox: Outbox,
    /// What to mask in the target's own words.
    query: String,
    rate: Rate,
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
        let limit = config.connect_timeout;
        let socket = timeout(limit, dial(target, limit))
            .await
            .map_err(|_| Failure::ConnectTimeout(limit))??;
        net::tune(&socket)?;
        let raw = SockRef::from(&socket);
        raw.set_send_buffer_size(FIRST_SEND_BUFFER)?;
        // For a peer that vanished: our own watchdog sees one that is there and does not read.
        raw.set_tcp_user_timeout(Some(config.stall * 2))?;

        let limit = config.publish_timeout;
        timeout(limit, Self::publish(socket, target))
            .await
            .map_err(|_| Failure::PublishTimeout(limit))?
    }

    async fn publish(mut socket: TcpStream, target: &Target) -> Result<Self, Failure> {
        let mut reader = chunk::Reader::new(chunk::Limits::default());
        let (mut handshake, opening) = handshake::Client::new();
        socket.write_all(&opening).await?;
        let mut buffer = [0; 4096];
        loop {
            let n = socket.read(&mut buffer).await?;
            if n == 0 {
                return Err(Failure::Closed);
            }
            let progress = handshake.receive(&buffer[..n])?;
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
            query: target.query.clone(),
            rate: Rate::default(),
        };
        loop {
            let ready = connection.take_messages()?;
            let output = connection.session.output();
            connection.socket.write_all(&output).await?;
            if ready {
                return Ok(connection);
            }
            let Self { socket, reader, .. } = &mut connection;
            if socket.read_buf(reader.buffer()).await? == 0 {
                return Err(Failure::Closed);
            }
        }
    }

    /// The message stream as the target numbered it.
    pub(super) fn stream_id(&self) -> u32 {
        // A session that may publish has one.
        self.session.stream_id().unwrap_or(MEDIA_STREAM_ID)
    }

    /// Sends the feed until there is a reason not to. Call [`Connection::finish`] after an `Ok`.
    ///
    /// # Errors
    /// When the target broke, ended or stalled the connection, which is of no use then.
    pub(super) async fn feed(
        &mut self,
        subscriber: &mut Subscriber,
        feeder: &mut Feeder,
        record: &Record,
        config: &Config,
        stop: &CancellationToken,
    ) -> Result<End, Failure> {
        let mut last_media = Instant::now();
        let mut last_progress = last_media;
        loop {
            if self.outbox.is_empty() {
                let (items, ended) = self.refill(subscriber, feeder, record);
                if items > 0 {
                    last_media = Instant::now();
                }
                if ended {
                    return Ok(End::Feed);
                }
                if items == BATCH && self.outbox.is_empty() {
                    // All of it was left out: there may be more.
                    tokio::task::yield_now().await;
                    continue;
                }
                last_progress = Instant::now();
            }
            let writing = !self.outbox.is_empty();
            let (interest, deadline) = if !writing {
                (Interest::READABLE, last_media + config.hold)
            } else if self.outbox.control_bytes() < net::MAX_OUTBOX_BYTES {
                let both = Interest::READABLE | Interest::WRITABLE;
                (both, last_progress + config.stall)
            } else {
                // It asks and does not read: no more questions until it has taken some answers.
                (Interest::WRITABLE, last_progress + config.stall)
            };
            // Cancel safe: nothing is taken from the socket or the feed before an arm has won.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(End::Stopped),
                ready = self.socket.ready(interest) => {
                    let ready = ready?;
                    if ready.is_readable() {
                        self.drain()?;
                    }
                    if ready.is_writable() && writing {
                        match self.outbox.write(&self.socket) {
                            Ok(bytes) => {
                                last_progress = Instant::now();
                                record.wrote(bytes, last_progress.into_std());
                            }
                            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                            Err(e) => return Err(e.into()),
                        }
                    }
                }
                () = subscriber.ready(), if !writing => {}
                () = sleep_until(deadline) => {
                    return if writing { Err(Failure::Stalled(config.stall)) } else { Ok(End::Idle) };
                }
            }
        }
    }

    /// Says goodbye properly, within [`GOODBYE`] for each half.
    pub(super) async fn finish(mut self) {
        self.session.unpublish();
        self.outbox.push_bytes(self.session.output());
        let flushed = timeout(GOODBYE, async {
            while !self.outbox.is_empty() {
                self.socket.writable().await?;
                match self.outbox.write(&self.socket) {
                    Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
                    _ => {}
                }
            }
            self.socket.shutdown().await
        });
        if !matches!(flushed.await, Ok(Ok(()))) {
            return;
        }
        // Closing with unread bytes resets the connection, and the reset may overtake the goodbye.
        let _ = timeout(GOODBYE, async {
            let mut sink = [0; 4096];
            while matches!(self.socket.read(&mut sink).await, Ok(1..)) {}
        })
        .await;
    }

    /// Takes what the feed has, and whether it ended.
    fn refill(
        &mut self,
        subscriber: &mut Subscriber,
        feeder: &mut Feeder,
        record: &Record,
    ) -> (usize, bool) {
        let mut items = Vec::with_capacity(BATCH);
        let reception = subscriber.try_read(BATCH, &mut items);
        if let Read::Skipped(messages) = reception.read {
            feeder.lost(messages);
        }
        let now = std::time::Instant::now();
        for item in &items {
            feeder.offer(item, reception.head, now, &mut self.outbox);
            let message = item.message();
            if let Some(rate) = self.rate.note(message.dts, message.payload.len()) {
                // A refusal leaves the old size, which is no reason to end a connection.
                let _ = SockRef::from(&self.socket).set_send_buffer_size(send_buffer(rate));
            }
        }
        let (messages, dropped) = feeder.take_counts();
        if messages + dropped > 0 {
            record.offered(messages, dropped);
        }
        (items.len(), reception.ended.is_some())
    }

    /// Reads what the target sent, and queues the answers.
    fn drain(&mut self) -> Result<(), Failure> {
        for _ in 0..MAX_READS {
            match self.socket.try_read_buf(self.reader.buffer()) {
                Ok(0) => return Err(Failure::Closed),
                Ok(_) => {
                    self.take_messages()?;
                    self.outbox.push_bytes(self.session.output());
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

/// Connects to the first address that answers; each has its share of `limit`.
async fn dial(target: &Target, limit: Duration) -> Result<TcpStream, Failure> {
    let lookup = |source| Failure::Lookup {
        host: target.host.clone(),
        source,
    };
    let addresses: Vec<_> = lookup_host((target.host.as_str(), target.port))
        .await
        .map_err(lookup)?
        .collect();
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut failure = lookup(io::Error::other("the name has no address"));
    for address in addresses {
        failure = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(e)) => Failure::Connect(e),
            Err(_) => Failure::ConnectTimeout(share),
        };
    }
    Err(failure)
}

/// About a second of media: a target that stops reading is noticed when this and its own receive buffer are full, and a
/// round trip of up to a second does not slow a healthy one down. The kernel allows twice this, for its overhead.
fn send_buffer(bytes_per_second: u64) -> usize {
    usize::try_from(bytes_per_second)
        .unwrap_or(MAX_SEND_BUFFER)
        .clamp(MIN_SEND_BUFFER, MAX_SEND_BUFFER)
}

/// Bytes per second of media, over windows of [`RATE_WINDOW`].
#[derive(Default)]
struct Rate {
    from: Option<MediaTime>,
    bytes: u64,
}

impl Rate {
    /// Counts a message; `Some` when a window is complete.
    fn note(&mut self, dts: MediaTime, bytes: usize) -> Option<u64> {
        let from = *self.from.get_or_insert(dts);
        let span = dts.since(from);
        if span < RATE_WINDOW {
            self.bytes += bytes as u64;
            return None;
        }
        let rate = self.bytes * 1_000 / span.as_millis() as u64;
        (self.from, self.bytes) = (Some(dts), bytes as u64);
        Some(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_send_buffer_follows_the_bitrate() {
        // 350 kbit/s, 2 Mbit/s and 100 Mbit/s: 44 KB, 250 KB and 12.5 MB a second.
        assert_eq!(send_buffer(43_750), MIN_SEND_BUFFER);
        assert_eq!(send_buffer(250_000), 250_000);
        assert_eq!(send_buffer(12_500_000), MAX_SEND_BUFFER);
    }

    #[test]
    fn the_rate_is_that_of_the_media_and_not_of_the_burst() {
        let mut rate = Rate::default();
        // 25 frames of 10 000 bytes a second, all handed over at once.
        let rates: Vec<_> = (0..=100)
            .filter_map(|n| rate.note(MediaTime(n * 40), 10_000))
            .collect();
        assert_eq!(rates, [250_000, 250_000]);
    }
}
