//! The players of a soak: each has a place of its own, in which it joins, stalls, goes and comes back, and counts.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use hdrhistogram::Histogram;
use linkmic::load::stamp;
use linkmic::rtmp::kind;
use linkmic::rtmp::session::client::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout};

use super::account::{End, KICKED, STALLED, Whose};
use super::plan::{Dice, Scale, Watching};
use super::world::{World, until};
use crate::edge::SOON;
use crate::edge::client::{Client, is_frame};

/// Of a player's socket: with the kernel's own megabytes nobody would ever fall behind at these bitrates.
const RECEIVE_BUFFER: u32 = 16 << 10;
/// A joiner is given the GOP so far, and one that stalled what its own kernel kept: neither is judged.
const SETTLING: Duration = Duration::from_secs(3);
/// A player that was ended comes back after so many milliseconds, up to this many more.
const BACK_AFTER: u64 = 300;
/// Nobody waits for a picture for longer: a player of an absent stream is told so after 20 s ([`World::build`]), and no act
/// keeps an anchor away or silent for longer.
const SILENT: Duration = Duration::from_secs(25);
/// A player that the operator disconnected is gone by then.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// What players of one class got since it was asked last.
pub struct Class {
    /// From a picture's way into the publisher's socket to its way out of a player's, µs.
    latencies: Mutex<Histogram<u64>>,
    pictures: AtomicU64,
    missed: AtomicU64,
    /// Of the whole soak.
    given: AtomicU64,
    /// How long players read altogether, ms.
    read_ms: AtomicU64,
}

/// The same, once read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    pub pictures: u64,
    pub missed: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub worst_ms: f64,
}

impl Default for Class {
    fn default() -> Self {
        // One microsecond to a minute.
        let latencies =
            Histogram::new_with_bounds(1, 60_000_000, 2).expect("bounds that make sense");
        Self {
            latencies: Mutex::new(latencies),
            pictures: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            given: AtomicU64::new(0),
            read_ms: AtomicU64::new(0),
        }
    }
}

impl Class {
    fn picture(&self, latency: Option<Duration>, missed: u64) {
        self.pictures.fetch_add(1, Relaxed);
        self.given.fetch_add(1, Relaxed);
        self.missed.fetch_add(missed, Relaxed);
        if let Some(latency) = latency {
            let us = latency.as_micros() as u64;
            self.latencies
                .lock()
                .expect("whole")
                .saturating_record(us.max(1));
        }
    }

    /// What came since the last time.
    pub fn take(&self) -> Seen {
        let mut latencies = self.latencies.lock().expect("whole");
        let ms = |us: u64| us as f64 / 1e3;
        let seen = Seen {
            pictures: self.pictures.swap(0, Relaxed),
            missed: self.missed.swap(0, Relaxed),
            p50_ms: ms(latencies.value_at_quantile(0.5)),
            p99_ms: ms(latencies.value_at_quantile(0.99)),
            worst_ms: ms(latencies.max()),
        };
        latencies.reset();
        seen
    }

    /// Pictures that players got in the whole soak, and how many there were while they read, at that rate.
    pub fn given(&self, fps: u32) -> (u64, u64) {
        let expected = self.read_ms.load(Relaxed) * u64::from(fps) / 1000;
        (self.given.load(Relaxed), expected)
    }
}

/// By class: peers first, then viewers.
#[derive(Default)]
pub struct Tally {
    pub classes: [Class; 2],
    /// Players that are being served now.
    pub playing: AtomicU64,
    pub joins: AtomicU64,
    /// Players that the operator was to disconnect, and those that he found.
    pub kicks: AtomicU64,
    pub kicked: AtomicU64,
}

/// How a place plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Peer,
    Viewer,
    Page,
}

impl Way {
    /// Its place in [`Tally::classes`].
    fn class(self) -> usize {
        usize::from(self != Self::Peer)
    }
}

/// What a feed gave.
enum Got {
    Picture(Bytes),
    Other,
    End(End, String),
}

enum Feed {
    Rtmp(Box<Client>),
    Http(Page),
}

impl Feed {
    async fn open(world: &World, way: Way, name: &str) -> Result<Self, (End, String)> {
        let url = match way {
            Way::Page => return Page::open(world.http, name).await.map(Feed::Http),
            Way::Peer => world.urls.peer(name),
            Way::Viewer => world.urls.plain(name),
        };
        let client = Client::play_narrow(&url, RECEIVE_BUFFER).await;
        let client = client.map_err(|no| (end_of(&no.description), no.description))?;
        Ok(Feed::Rtmp(Box::new(client)))
    }

    fn local_addr(&self) -> SocketAddr {
        match self {
            Feed::Rtmp(client) => client.local_addr(),
            Feed::Http(page) => page.socket.local_addr().expect("connected"),
        }
    }

    async fn next(&mut self) -> Got {
        match self {
            Feed::Rtmp(client) => match client.event_at_leisure().await {
                Some(Event::Media(message)) if is_frame(&message, kind::VIDEO) => {
                    Got::Picture(message.payload)
                }
                Some(Event::Closed { code, description }) => {
                    let end = match code.as_str() {
                        "NetStream.Play.UnpublishNotify" | "NetStream.Play.Stop" => End::Over,
                        _ => end_of(&description),
                    };
                    Got::End(end, format!("{code} {description}"))
                }
                Some(_) => Got::Other,
                None => Got::End(End::Cut, "closed".into()),
            },
            Feed::Http(page) => page.next().await,
        }
    }
}

/// By the word for the reason that ends what the server says.
fn end_of(words: &str) -> End {
    let reason = words
        .rsplit_once('[')
        .and_then(|(_, rest)| rest.split(']').next());
    match reason {
        Some("dropped") => End::Dropped,
        Some("too_slow") => End::TooSlow,
        Some("stream_ended") => End::Over,
        Some("not_found") => End::Absent,
        _ => End::Odd,
    }
}

/// HTTP-FLV, in chunks.
struct Page {
    socket: TcpStream,
    raw: BytesMut,
    /// What is left of the chunk that is being read.
    chunk: usize,
    flv: BytesMut,
    has_header: bool,
}

impl Page {
    async fn open(server: SocketAddr, name: &str) -> Result<Self, (End, String)> {
        let lost = |error: io::Error| (End::Cut, error.to_string());
        let socket = TcpSocket::new_v4().map_err(lost)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER).map_err(lost)?;
        let mut socket = socket.connect(server).await.map_err(lost)?;
        let request = format!("GET /live/{name}.flv HTTP/1.1\r\nHost: {server}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.map_err(lost)?;
        let mut page = Self {
            socket,
            raw: BytesMut::new(),
            chunk: 0,
            flv: BytesMut::new(),
            has_header: false,
        };
        let head = timeout(SOON, page.line_end(b"\r\n\r\n")).await;
        let Some(end) = head.map_err(|_| (End::Odd, "no answer".to_owned()))? else {
            return Err((End::Cut, "closed before an answer".into()));
        };
        let head = page.raw.split_to(end);
        let head = String::from_utf8_lossy(&head);
        let status = head.split(' ').nth(1).unwrap_or_default();
        match status {
            "200" => Ok(page),
            "404" => Err((End::Absent, status.to_owned())),
            _ => Err((End::Odd, head.to_string())),
        }
    }

    /// Where what is read next ends with `mark`; `None`: the server has closed.
    async fn line_end(&mut self, mark: &[u8]) -> Option<usize> {
        loop {
            let at = self.raw.windows(mark.len()).position(|w| w == mark);
            if let Some(at) = at {
                return Some(at + mark.len());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn more(&mut self) -> bool {
        matches!(self.socket.read_buf(&mut self.raw).await, Ok(1..))
    }

    /// Nothing is lost when this is dropped: what was read stays.
    async fn next(&mut self) -> Got {
        loop {
            if let Some(got) = self.tag() {
                return got;
            }
            if self.chunk == 0 {
                let Some(end) = self.line_end(b"\r\n").await else {
                    return Got::End(End::Cut, "closed within the answer".into());
                };
                let line = self.raw.split_to(end);
                let digits = std::str::from_utf8(&line[..end - 2]).unwrap_or_default();
                let Ok(length) = usize::from_str_radix(digits, 16) else {
                    return Got::End(End::Odd, format!("no chunk: {digits:?}"));
                };
                if length == 0 {
                    return Got::End(End::Over, "the last chunk".into());
                }
                // With the line end behind it.
                self.chunk = length + 2;
            }
            if self.raw.is_empty() && !self.more().await {
                return Got::End(End::Cut, "closed within a chunk".into());
            }
            let here = self.raw.len().min(self.chunk);
            let part = self.raw.split_to(here);
            self.chunk -= here;
            // The line end may have come in part.
            let media = here.saturating_sub(2_usize.saturating_sub(self.chunk));
            self.flv.extend_from_slice(&part[..media]);
        }
    }

    fn tag(&mut self) -> Option<Got> {
        const FILE_HEADER: usize = 9 + 4;
        const TAG_HEADER: usize = 11;
        if !self.has_header {
            if self.flv.len() < FILE_HEADER {
                return None;
            }
            self.flv.advance(FILE_HEADER);
            self.has_header = true;
        }
        let head = self.flv.get(..TAG_HEADER)?;
        let length = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
        let is_video = head[0] == 9;
        if self.flv.len() < TAG_HEADER + length + 4 {
            return None;
        }
        self.flv.advance(TAG_HEADER);
        let body = self.flv.split_to(length).freeze();
        self.flv.advance(4);
        Some(match is_video && body.get(1) == Some(&1) {
            true => Got::Picture(body),
            false => Got::Other,
        })
    }
}

/// One place, for as long as the soak lasts.
pub async fn place(slot: usize, world: Arc<World>, mut orders: mpsc::Receiver<Watching>) {
    let mut dice = Dice::new(world.scale.seed.rotate_left(17) ^ slot as u64);
    let way = match slot % Scale::WAYS {
        0 => Way::Peer,
        1 | 2 => Way::Page,
        _ => Way::Viewer,
    };
    let mut open = world.open.subscribe();
    loop {
        if !until(&mut open, true).await {
            return;
        }
        let name = world.some_stream(&mut dice, way == Way::Peer);
        world.tally.joins.fetch_add(1, Relaxed);
        match Feed::open(&world, way, &name).await {
            Ok(mut feed) => {
                let begun = Instant::now();
                world.tally.playing.fetch_add(1, Relaxed);
                let stalled = play(slot, way, &name, &mut feed, &world, &mut orders).await;
                world.tally.playing.fetch_sub(1, Relaxed);
                let read = begun.elapsed().saturating_sub(stalled).as_millis();
                let class = &world.tally.classes[way.class()];
                class.read_ms.fetch_add(read as u64, Relaxed);
            }
            Err((end, words)) => world.account.player_ended(slot, &name, end, words),
        }
        sleep(Duration::from_millis(BACK_AFTER + dice.roll(BACK_AFTER))).await;
    }
}

/// Plays until something ends it. How long nothing was read on purpose.
async fn play(
    slot: usize,
    way: Way,
    name: &str,
    feed: &mut Feed,
    world: &World,
    orders: &mut mpsc::Receiver<Watching>,
) -> Duration {
    let class = &world.tally.classes[way.class()];
    let mut judged_from = Instant::now() + SETTLING;
    let mut stalled = Duration::ZERO;
    let mut silent_at = Instant::now() + SILENT;
    let mut gone_by = None;
    let mut last: Option<u64> = None;
    let mut open = world.open.subscribe();
    loop {
        tokio::select! {
            got = feed.next() => match got {
                Got::Other => {}
                Got::Picture(payload) => {
                    let now = Instant::now();
                    silent_at = now + SILENT;
                    let is_judged = now >= judged_from;
                    let stamp = stamp::read(&payload);
                    let missed = match (last, &stamp) {
                        (Some(last), Some(stamp)) if is_judged => missed(last, stamp.sequence),
                        _ => 0,
                    };
                    last = stamp.as_ref().map(|stamp| stamp.sequence);
                    let latency = stamp.filter(|_| is_judged).map(|stamp| {
                        Duration::from_nanos(stamp::now_ns().saturating_sub(stamp.sent_ns))
                    });
                    class.picture(latency, missed);
                }
                Got::End(end, words) => {
                    world.account.player_ended(slot, name, end, words);
                    return stalled;
                }
            },
            order = orders.recv() => match order {
                None | Some(Watching::Leave) => return stalled,
                Some(Watching::Vanish) => {
                    // A reset instead of an end.
                    let socket = match feed {
                        Feed::Rtmp(client) => client.socket(),
                        Feed::Http(page) => &page.socket,
                    };
                    let socket = socket2::SockRef::from(socket);
                    let _ = socket.set_linger(Some(Duration::ZERO));
                    return stalled;
                }
                Some(Watching::Stall(lasts)) => {
                    world.account.excuse(Whose::Slot(slot), STALLED, lasts + SOON);
                    sleep(lasts).await;
                    stalled += lasts;
                    judged_from = Instant::now() + SETTLING;
                    silent_at = Instant::now() + SILENT;
                }
                Some(Watching::Kicked) => {
                    world.account.excuse(Whose::Slot(slot), KICKED, SOON);
                    world.tally.kicks.fetch_add(1, Relaxed);
                    if world.kick(name, feed.local_addr()).await {
                        world.tally.kicked.fetch_add(1, Relaxed);
                        gone_by = Some(Instant::now() + GONE_WITHIN);
                    }
                }
            },
            () = sleep_until(gone_by.unwrap_or(silent_at).into()) => {
                let what = match gone_by {
                    Some(_) => format!("was disconnected by the operator, and plays after {GONE_WITHIN:?}"),
                    None => format!("was given no picture for {SILENT:?}, and not told why"),
                };
                world.account.complain(format!("player {slot} of {name} ({way:?}) {what}"));
                return stalled;
            }
            _ = until(&mut open, false) => return stalled,
        }
    }
}

/// Pictures between two of one connection. Numbers of another connection say nothing about each other.
fn missed(last: u64, now: u64) -> u64 {
    match last / super::anchors::PER_EPOCH == now / super::anchors::PER_EPOCH {
        true => now.saturating_sub(last + 1),
        false => 0,
    }
}

#[test]
fn what_a_player_misses_is_counted_within_a_connection_only() {
    const EPOCH: u64 = super::anchors::PER_EPOCH;
    assert_eq!(missed(EPOCH + 5, EPOCH + 6), 0);
    assert_eq!(missed(EPOCH + 5, EPOCH + 9), 3);
    assert_eq!(missed(EPOCH + 5, 2 * EPOCH + 9), 0);
}
