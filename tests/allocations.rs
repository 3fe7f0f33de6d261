//! What players cost the server in allocations, which is none a message, and in memory: counted by the allocator of this
//! process, which holds a real server and real sockets. By itself, because an allocator is one per binary and counts what
//! anybody does.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use linkmic::config::{Config, Env};
use linkmic::rtmp::session::client::{Event, Session};
use linkmic::rtmp::url::Target;
use linkmic::rtmp::{Framed, MEDIA_STREAM_ID, chunk, handshake, kind};
use linkmic::server::Server;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Nothing passes by waiting this long.
const SOON: Duration = Duration::from_secs(60);
/// Turns that are counted: each an audio and a video message.
const TURNS: u32 = 500;
/// Turns before: queues and buffers reach their size.
const WARM_UP: u32 = 100;
/// Below the players from which on there is a second writer loop, whose own cost would be counted as theirs.
const MANY: u64 = 21;
/// Allocations per message and player that still count as none: the server has timers and a clock of its own.
const NONE: f64 = 0.01;
/// Players whose memory is counted, of each kind.
const CROWD: usize = 100;
/// What one may hold, a task, its place in a loop and its share of that: with what allocator and tables add, half of the
/// 20 KB that are promised.
const RTMP_BYTES: usize = 8_000;
const HTTP_BYTES: usize = 5_500;
/// Frames from one key frame to the next.
const GOP: u32 = 30;
/// More media time than a ring keeps: 6 s.
const HISTORY: u32 = 6 * GOP;
const VIDEO_BYTES: usize = 9_000;
/// Pictures where memory is counted: what the ring has more of them than before would count as the players'.
const SMALL: usize = 500;
const AUDIO_BYTES: usize = 300;

/// One test at a time: each counts what anybody does.
static ALONE: Mutex<()> = Mutex::new(());

fn configuration(folder: &std::path::Path) -> Config {
    let text = format!(
        "[rtmp]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [control]\nlisten = \"127.0.0.1:0\"\ntoken = \"control-0123456789abcdef\"\n\
         [state]\ndir = \"{}\"\n[auth]\npush = \"open\"\n",
        folder.display()
    );
    Config::parse(&text, "test", &Env::default()).expect("a configuration")
}

/// A connection whose request was granted, and what came behind the answer.
fn connect(
    server: SocketAddr,
    role: fn(&Target) -> Session,
) -> (TcpStream, chunk::Reader, Session) {
    let target = Target::parse(&format!("rtmp://{server}/live/counted")).expect("a URL");
    let mut socket = TcpStream::connect(server).expect("the server listens");
    socket.set_nodelay(true).expect("no delay");
    socket.set_read_timeout(Some(SOON)).expect("a deadline");
    let mut reader = chunk::Reader::new(chunk::Limits::default());
    let (mut shake, hello) = handshake::Client::new();
    socket.write_all(&hello).expect("the server reads");
    let mut room = vec![0; 16 << 10];
    loop {
        let read = socket.read(&mut room).expect("an answer");
        let progress = shake.receive(&room[..read]).expect("a handshake");
        socket.write_all(&progress.reply).expect("the server reads");
        if let Some(rest) = progress.done {
            reader.buffer().extend_from_slice(&rest);
            break;
        }
    }
    let mut session = role(&target);
    loop {
        socket
            .write_all(&session.output())
            .expect("the server reads");
        let read = socket.read(&mut room).expect("an answer");
        assert_ne!(read, 0, "the server closed");
        reader.buffer().extend_from_slice(&room[..read]);
        while let Some(message) = reader.next().expect("bytes that make sense") {
            match session.handle(message).expect("commands that make sense") {
                Some(Event::Ready) => {
                    socket
                        .write_all(&session.output())
                        .expect("the server reads");
                    return (socket, reader, session);
                }
                Some(Event::Refused { description, .. }) => panic!("refused: {description}"),
                _ => {}
            }
        }
    }
}

/// The last bytes of a turn.
fn mark(turn: u32) -> [u8; 4] {
    (0xaaaa_0000 | turn).to_be_bytes()
}

/// Publishes turns of one audio and one video message and knows when all players have them.
struct Publisher {
    socket: TcpStream,
    /// A turn's bytes, where the two timestamps are written in.
    turn: BytesMut,
    video_at: usize,
    turns: u32,
    /// Bytes that all players have read together.
    read: Arc<AtomicU64>,
}

impl Publisher {
    fn new(server: SocketAddr, video_bytes: usize) -> Self {
        let (socket, ..) = connect(server, Session::publish);
        let mut turn = BytesMut::new();
        let mut audio = vec![0; AUDIO_BYTES];
        audio[..2].copy_from_slice(&[0xaf, 1]);
        Framed::new(kind::AUDIO, 0, MEDIA_STREAM_ID, audio.into()).write_to(&mut turn);
        let video_at = turn.len();
        let mut video = vec![0; video_bytes];
        // The first frame of every second is a key frame by its first byte, written in as well.
        video[..2].copy_from_slice(&[0x27, 1]);
        Framed::new(kind::VIDEO, 0, MEDIA_STREAM_ID, video.into()).write_to(&mut turn);
        Self {
            socket,
            turn,
            video_at,
            turns: 0,
            read: Arc::default(),
        }
    }

    /// One turn, and it has reached `players`.
    fn publish(&mut self, players: u64) {
        let time = (33 * self.turns).to_be_bytes();
        self.turn[1..4].copy_from_slice(&time[1..]);
        self.turn[self.video_at + 1..self.video_at + 4].copy_from_slice(&time[1..]);
        self.turn[self.video_at + 12] = if self.turns.is_multiple_of(GOP) {
            0x17
        } else {
            0x27
        };
        self.turns += 1;
        let end = self.turn.len() - 4;
        self.turn[end..].copy_from_slice(&mark(self.turns));
        let upto = self.read.load(Ordering::Acquire) + players * self.turn.len() as u64;
        self.socket.write_all(&self.turn).expect("the server reads");
        let deadline = Instant::now() + SOON;
        while self.read.load(Ordering::Acquire) < upto {
            assert!(
                Instant::now() < deadline,
                "not everybody got turn {}",
                self.turns
            );
            std::thread::yield_now();
        }
    }

    /// Allocations per message while `players` play.
    fn count(&mut self, players: u64) -> f64 {
        for _ in 0..WARM_UP {
            self.publish(players);
        }
        let region = Region::new(ALLOCATOR);
        for _ in 0..TURNS {
            self.publish(players);
        }
        let change = region.change();
        let calls = change.allocations + change.reallocations;
        calls as f64 / f64::from(2 * TURNS)
    }
}

/// Begins to play; returns once the joiner's burst is read. Its thread reads and counts, and allocates nothing.
fn play(server: SocketAddr, burst: usize, read: Arc<AtomicU64>, over: Arc<AtomicBool>) {
    let (mut socket, mut reader, mut session) = connect(server, Session::play);
    let mut room = vec![0; 64 << 10];
    let mut begun = 0;
    loop {
        while let Some(message) = reader.next().expect("bytes that make sense") {
            if message.type_id == kind::VIDEO {
                begun += 1;
            }
            session.handle(message).expect("commands that make sense");
        }
        if begun == burst {
            break;
        }
        assert!(begun < burst, "{begun} frames of {burst}");
        let n = socket.read(&mut room).expect("media");
        assert_ne!(n, 0, "the server closed");
        reader.buffer().extend_from_slice(&room[..n]);
    }
    std::thread::spawn(move || {
        while let Ok(n @ 1..) = socket.read(&mut room) {
            read.fetch_add(n as u64, Ordering::Release);
        }
        over.store(true, Ordering::Release);
    });
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn start(runtime: &Runtime, folder: &std::path::Path) -> Server {
    runtime
        .block_on(Server::start(configuration(folder)))
        .expect("it starts")
}

/// Asks for the stream over HTTP; returns once it is answered.
fn watch(server: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(server).expect("the server listens");
    socket.set_read_timeout(Some(SOON)).expect("a deadline");
    socket
        .write_all(b"GET /live/counted.flv HTTP/1.1\r\nHost: here\r\n\r\n")
        .expect("the server reads");
    let mut status = [0; 15];
    socket.read_exact(&mut status).expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 200 OK");
    socket
}

/// Players whose bytes go nowhere, so that whatever is allocated for them is the server's: a socket and the newest bytes
/// of each.
struct Crowd(Vec<(TcpStream, [u8; 16])>);

impl Crowd {
    fn join(&mut self, socket: TcpStream) {
        socket.set_nonblocking(true).expect("a socket");
        self.0.push((socket, [0; 16]));
    }

    /// Everybody reads until that turn's picture has come.
    fn read_to(&mut self, turn: u32, room: &mut [u8]) {
        let deadline = Instant::now() + SOON;
        for (socket, newest) in &mut self.0 {
            // Behind it there is the end of a tag and of a chunk at most.
            while !newest.windows(4).any(|bytes| bytes == mark(turn)) {
                assert!(Instant::now() < deadline, "turn {turn} does not come");
                let Ok(n) = socket.read(&mut room[16..]) else {
                    std::thread::yield_now();
                    continue;
                };
                assert_ne!(n, 0, "the server closed");
                room[..16].copy_from_slice(newest);
                newest.copy_from_slice(&room[n..n + 16]);
            }
        }
    }
}

/// Bytes of memory that the server holds for each of [`CROWD`] players that `join` while it serves one already, once
/// that is no more than `limit`.
fn memory_of_each(limit: usize, join: impl Fn(&Server) -> TcpStream) -> usize {
    let runtime = runtime();
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&runtime, folder.path());
    let mut publisher = Publisher::new(server.rtmp_addr(), SMALL);
    let mut room = vec![0; 64 << 10];
    let mut crowd = Crowd(Vec::with_capacity(1 + CROWD));
    publisher.publish(0);
    crowd.join(join(&server));
    // Always to the end of a group of pictures, where the ring is as long as it was.
    let mut publish = |crowd: &mut Crowd, turns: u32| {
        loop {
            publisher.publish(0);
            crowd.read_to(publisher.turns, &mut room);
            if publisher.turns.is_multiple_of(GOP) && publisher.turns >= turns {
                return publisher.turns;
            }
        }
    };
    let mut turns = publish(&mut crowd, HISTORY);
    let region = Region::new(ALLOCATOR);
    for _ in 0..CROWD {
        crowd.join(join(&server));
    }
    let deadline = Instant::now() + SOON / 2;
    loop {
        turns = publish(&mut crowd, turns + 1);
        let change = region.change();
        let held = change.bytes_allocated as i64 - change.bytes_deallocated as i64;
        let each = usize::try_from(held).unwrap_or(0) / CROWD;
        // What is looked at once a second only is let go of then.
        if each <= limit || Instant::now() >= deadline {
            return each;
        }
    }
}

#[test]
fn a_player_holds_little_memory() {
    let _alone = ALONE.lock();
    let rtmp = |server: &Server| connect(server.rtmp_addr(), Session::play).0;
    let http = |server: &Server| watch(server.http_addr());
    let rtmp = memory_of_each(RTMP_BYTES, rtmp);
    let http = memory_of_each(HTTP_BYTES, http);
    println!("bytes held for each player: {rtmp} over RTMP, {http} over HTTP-FLV");
    assert!(rtmp <= RTMP_BYTES, "{rtmp} bytes over RTMP");
    assert!(http <= HTTP_BYTES, "{http} bytes over HTTP-FLV");
}

#[test]
fn a_message_costs_the_server_no_allocation_per_player() {
    let _alone = ALONE.lock();
    let runtime = runtime();
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&runtime, folder.path());
    let address = server.rtmp_addr();
    let mut publisher = Publisher::new(address, VIDEO_BYTES);
    let over = Arc::new(AtomicBool::new(false));
    publisher.publish(0);

    let join = |publisher: &Publisher| {
        // The GOP so far.
        let burst = (publisher.turns - 1) % GOP + 1;
        play(
            address,
            burst as usize,
            publisher.read.clone(),
            over.clone(),
        );
    };
    join(&publisher);
    let one = publisher.count(1);
    for _ in 1..MANY {
        join(&publisher);
    }
    let many = publisher.count(MANY);
    let each = (many - one) / (MANY - 1) as f64;
    println!(
        "allocations per message: {one:.3} with 1 player, {many:.3} with {MANY}; {each:.4} for each more"
    );
    assert!(!over.load(Ordering::Acquire), "a player was closed");
    assert!(each <= NONE, "{each:.4} allocations per message and player");
}
