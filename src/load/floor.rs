//! The least that fan-out can cost here: the same bytes written to raw TCP players, with nothing around it.
//!
//! No handshake, no commands, no policy: a message is framed once, what is to go together is laid end to end once, and
//! every socket gets it in one write, from one thread or from several that share the players out. What a server costs
//! above this, with as many threads that write, is its own. Players come with a
//! `tcp://` URL and read the bytes as they would an RTMP server's.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};

use super::clip::Clip;
use crate::rtmp::{Framed, MEDIA_STREAM_ID, control, kind};

/// Bytes kept for a player whose socket is full; what is beyond is left out, as a server would.
const MAX_WAITING: usize = 4 << 20;

/// How often it looks for players.
const GLANCE: Duration = Duration::from_millis(2);

/// How to send.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub listen: SocketAddr,
    /// Players to wait for before the clip begins; one that comes later is not served.
    pub players: usize,
    /// Whether audio waits for the next picture, at most one picture's time.
    pub hold_audio: bool,
    /// What comes within this span of the last write goes out in the next one, audio and pictures; 0 for none.
    pub merge_window: Duration,
    /// Threads that write, each to its share of the players: processors that write at once cost each other time.
    pub threads: usize,
}

/// A floor that waits for its players.
pub struct Floor {
    listener: TcpListener,
    config: Config,
}

struct Player {
    socket: TcpStream,
    waiting: BytesMut,
    left_out: u64,
    gone: bool,
}

impl Floor {
    /// # Errors
    /// When the address cannot be listened on.
    pub fn bind(config: Config) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen)?;
        // So that an order to stop is heard while it waits.
        listener.set_nonblocking(true)?;
        Ok(Self { listener, config })
    }

    /// Where players come.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for the players, then sends the clip in a loop until `stop` or until all have left. Returns how many
    /// messages were left out for players that did not read.
    ///
    /// # Errors
    /// When no player can be accepted.
    pub fn run(self, clip: &Clip, stop: &AtomicBool) -> io::Result<u64> {
        let mut players = Vec::with_capacity(self.config.players);
        let mut hello = BytesMut::new();
        control::chunk_size().write_to(&mut hello);
        while players.len() < self.config.players && !stop.load(Relaxed) {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(GLANCE);
                    continue;
                }
                Err(error) => return Err(error),
            };
            socket.set_nonblocking(false)?;
            socket.set_nodelay(true)?;
            socket.write_all(&hello)?;
            socket.set_nonblocking(true)?;
            players.push(Player {
                socket,
                waiting: BytesMut::new(),
                left_out: 0,
                gone: false,
            });
        }
        for (type_id, payload) in &clip.headers {
            let mut bytes = BytesMut::new();
            Framed::new(*type_id, 0, MEDIA_STREAM_ID, payload.clone()).write_to(&mut bytes);
            players.iter_mut().for_each(|player| player.send(&bytes));
        }
        let mut shares: Vec<_> = (0..self.config.threads.max(1))
            .map(|_| Vec::new())
            .collect();
        let threads = shares.len();
        for (index, player) in players.into_iter().enumerate() {
            shares[index % threads].push(player);
        }
        let began = Instant::now();
        std::thread::scope(|scope| {
            for share in &mut shares {
                scope.spawn(|| self.pace(clip, share, began, stop));
            }
        });
        Ok(shares.iter().flatten().map(|player| player.left_out).sum())
    }

    fn pace(&self, clip: &Clip, players: &mut [Player], began: Instant, stop: &AtomicBool) {
        let mut flushed = began;
        let mut batch = BytesMut::new();
        let mut sequence = 0;
        for index in 0.. {
            let (frame, due_ms) = (clip.frame(index), clip.due_ms(index));
            let due = began + Duration::from_millis(due_ms);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let payload = frame.stamped(sequence);
            sequence += u64::from(frame.is_picture());
            Framed::new(frame.type_id, due_ms as u32, MEDIA_STREAM_ID, payload)
                .write_to(&mut batch);
            let held = match self.config.merge_window {
                Duration::ZERO => self.config.hold_audio && frame.type_id != kind::VIDEO,
                window => flushed.elapsed() < window,
            };
            if held {
                continue;
            }
            flushed = Instant::now();
            players.iter_mut().for_each(|player| player.send(&batch));
            batch.clear();
            if stop.load(Relaxed) || players.iter().all(|player| player.gone) {
                return;
            }
        }
    }
}

impl Player {
    fn send(&mut self, bytes: &[u8]) {
        if self.gone {
            return;
        }
        if !self.waiting.is_empty() {
            let sent = self.write(None);
            self.waiting.advance(sent);
        }
        let sent = match self.waiting.is_empty() {
            true => self.write(Some(bytes)),
            false => 0,
        };
        match self.waiting.len() + bytes.len() - sent {
            // Only whole batches may be left out, or the player loses its place in the chunk stream.
            MAX_WAITING.. if sent == 0 => self.left_out += 1,
            _ => self.waiting.extend_from_slice(&bytes[sent..]),
        }
    }

    /// Writes `bytes`, or what waits; 0 when the socket takes nothing.
    fn write(&mut self, bytes: Option<&[u8]>) -> usize {
        match self.socket.write(bytes.unwrap_or(&self.waiting)) {
            Ok(sent) => sent,
            Err(error) => {
                self.gone = error.kind() != io::ErrorKind::WouldBlock;
                0
            }
        }
    }
}
