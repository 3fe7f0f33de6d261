//! Both ends of a push for tests: an anchor that publishes into the relay, and an RTMP server on a real socket that
//! tells what it gets and can be told to behave badly.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::media::{Kind, MediaTime, Message, StreamKey};
use crate::reason::Reason;
use crate::relay::{Origin, Query, Relay};
use crate::rtmp::session::server::{Event, Session};
use crate::rtmp::{chunk, handshake};

/// Generous, because the machine may be busy; nothing waits this long when things work.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Milliseconds between pictures on the anchor's timeline.
pub const FRAME: i64 = 40;
/// Pictures between key frames.
pub const GOP: i64 = 10;

/// How the server treats whoever connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Accept,
    Refuse,
    /// Grants publishing and never reads again.
    BlackHole,
}

/// What the server saw. `connection` counts accepted connections from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    Publish {
        connection: usize,
        name: String,
        query: String,
    },
    Media {
        connection: usize,
        kind: Kind,
        timestamp: u32,
        key: bool,
        header: bool,
    },
    Unpublish {
        connection: usize,
    },
}

/// An RTMP server on loopback.
pub struct Sink {
    pub port: u16,
    reports: mpsc::UnboundedReceiver<Report>,
    sender: mpsc::UnboundedSender<Report>,
    manner: Arc<Mutex<Manner>>,
    accepted: Arc<Mutex<usize>>,
    running: Option<DropGuard>,
    ended: CancellationToken,
}

impl Sink {
    pub async fn start(manner: Manner) -> Self {
        let (sender, reports) = mpsc::unbounded_channel();
        let mut sink = Self {
            port: 0,
            reports,
            sender,
            manner: Arc::new(Mutex::new(manner)),
            accepted: Arc::default(),
            running: None,
            ended: CancellationToken::new(),
        };
        sink.listen().await;
        sink
    }

    pub fn url(&self, name: &str) -> String {
        format!("rtmp://127.0.0.1:{}/live/{name}", self.port)
    }

    pub fn become_(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Drops the listener and every connection, as a killed process would.
    pub async fn kill(&mut self) {
        self.running = None;
        self.ended.cancelled().await;
    }

    /// Listens, on the same port as before if there was one.
    pub async fn listen(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        self.running = Some(stop.clone().drop_guard());
        self.ended = CancellationToken::new();
        let (sender, manner) = (self.sender.clone(), self.manner.clone());
        let (accepted, ended) = (self.accepted.clone(), self.ended.clone());
        tokio::spawn(async move {
            let _ended = ended.drop_guard();
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = tokio::select! {
                    () = stop.cancelled() => break,
                    accepted = listener.accept() => accepted.unwrap(),
                };
                let connection = {
                    let mut accepted = accepted.lock().unwrap();
                    *accepted += 1;
                    *accepted
                };
                let manner = *manner.lock().unwrap();
                connections.spawn(serve(socket, connection, manner, sender.clone()));
            }
            connections.shutdown().await;
        });
    }

    pub async fn next(&mut self) -> Report {
        tokio::time::timeout(DEADLINE, self.reports.recv())
            .await
            .expect("the sink hears something in time")
            .unwrap()
    }

    /// A report that is there already.
    pub fn try_next(&mut self) -> Option<Report> {
        self.reports.try_recv().ok()
    }

    /// The next report of the sort that `wanted` picks.
    pub async fn until<T>(&mut self, wanted: impl Fn(&Report) -> Option<T>) -> T {
        loop {
            let report = self.next().await;
            if let Some(found) = wanted(&report) {
                return found;
            }
        }
    }

    /// The next publish: connection, name and query.
    pub async fn publish(&mut self) -> (usize, String, String) {
        self.until(|report| match report {
            Report::Publish {
                connection,
                name,
                query,
            } => Some((*connection, name.clone(), query.clone())),
            _ => None,
        })
        .await
    }

    /// The next goodbye.
    pub async fn unpublish(&mut self) -> usize {
        self.until(|report| match report {
            Report::Unpublish { connection } => Some(*connection),
            _ => None,
        })
        .await
    }

    /// The next `n` media messages: kind, timestamp, key frame, header.
    pub async fn media(&mut self, n: usize) -> Vec<(Kind, u32, bool, bool)> {
        let mut got = Vec::new();
        while got.len() < n {
            let one = self.until(|report| match report {
                Report::Media {
                    kind,
                    timestamp,
                    key,
                    header,
                    ..
                } => Some((*kind, *timestamp, *key, *header)),
                _ => None,
            });
            got.push(one.await);
        }
        got
    }
}

async fn serve(
    mut socket: TcpStream,
    connection: usize,
    manner: Manner,
    reports: mpsc::UnboundedSender<Report>,
) {
    let mut handshake = handshake::Server::new();
    let mut reader = chunk::Reader::new(chunk::Limits::default());
    let mut session = Session::new();
    let mut buffer = vec![0; 4096];
    loop {
        let n = socket.read(&mut buffer).await.unwrap_or(0);
        if n == 0 {
            return;
        }
        let progress = handshake.receive(&buffer[..n]).unwrap();
        socket.write_all(&progress.reply).await.unwrap();
        if let Some(rest) = progress.done {
            reader.buffer().extend_from_slice(&rest);
            break;
        }
    }
    let report = |report| {
        // The test may be over.
        let _ = reports.send(report);
    };
    loop {
        while let Some(message) = reader.next().unwrap() {
            match session.handle(message).unwrap() {
                Some(Event::Connect(_)) => session.accept_connect(),
                Some(Event::Publish {
                    stream_id,
                    name,
                    query,
                    ..
                }) => {
                    if manner == Manner::Refuse {
                        let description = format!("no room for {name}?{query}");
                        session.refuse_publish(
                            stream_id,
                            "NetStream.Publish.BadName",
                            Reason::NameBusy,
                            &description,
                        );
                        let _ = socket.write_all(&session.output()).await;
                        return;
                    }
                    session.accept_publish(stream_id, &name);
                    report(Report::Publish {
                        connection,
                        name,
                        query,
                    });
                    if manner == Manner::BlackHole {
                        let _ = socket.write_all(&session.output()).await;
                        // Until the test kills the server.
                        std::future::pending::<()>().await;
                    }
                }
                Some(Event::Media(message)) => {
                    let kind = Kind::from_type_id(message.type_id).unwrap();
                    let timestamp = message.timestamp;
                    let message = Message::new(kind, MediaTime::ZERO, message.payload);
                    report(Report::Media {
                        connection,
                        kind,
                        timestamp,
                        key: message.is_video_key(),
                        header: message.is_header(),
                    });
                }
                Some(Event::Unpublish { .. }) => report(Report::Unpublish { connection }),
                _ => {}
            }
        }
        if let Some(total) = reader.acknowledgement() {
            session.acknowledge(total);
        }
        if socket.write_all(&session.output()).await.is_err() {
            return;
        }
        if !matches!(socket.read_buf(reader.buffer()).await, Ok(1..)) {
            return;
        }
    }
}

/// Publishes pictures and sound, a picture every few milliseconds, until told otherwise.
pub struct Anchor {
    paused: Arc<Mutex<bool>>,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Anchor {
    /// `frame_bytes`: size of each picture. `pace`: wall time between pictures; on their own timeline they are
    /// [`FRAME`] apart.
    pub fn start(relay: &Relay, key: &StreamKey, frame_bytes: usize, pace: Duration) -> Self {
        let origin = Origin::Anchor {
            connection: crate::logging::ConnectionId::next(),
            address: ([127, 0, 0, 1], 5_000).into(),
            key_id: None,
            query: Query::default(),
        };
        let publisher = relay.publish(key, origin).unwrap();
        let anchor = Self {
            paused: Arc::default(),
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let (paused, stop) = (anchor.paused.clone(), anchor.stop.clone());
        let ended = anchor.ended.clone().drop_guard();
        tokio::spawn(async move {
            let _ended = ended;
            let send = |kind, dts, payload: Vec<u8>| {
                let message = Message::new(kind, MediaTime(dts), payload.into());
                publisher.publish(message, Instant::now());
            };
            send(Kind::Data, 0, b"\x02\0\x0aonMetaData\x05".to_vec());
            send(Kind::Video, 0, vec![0x17, 0, 0, 0, 0, 1]);
            send(Kind::Audio, 0, vec![0xaf, 0, 0x11, 0x90]);
            let mut clock = tokio::time::interval(pace);
            for n in 0.. {
                tokio::select! {
                    () = stop.cancelled() => break,
                    _ = clock.tick() => {}
                }
                if *paused.lock().unwrap() {
                    continue;
                }
                let mut picture = vec![9; frame_bytes.max(6)];
                let first = if n % GOP == 0 { 0x17 } else { 0x27 };
                picture[..5].copy_from_slice(&[first, 1, 0, 0, 0]);
                send(Kind::Video, n * FRAME, picture);
                send(Kind::Audio, n * FRAME, vec![0xaf, 1, 7]);
            }
            publisher.finish(Reason::Deleted);
        });
        anchor
    }

    pub fn pause(&self, paused: bool) {
        *self.paused.lock().unwrap() = paused;
    }

    /// Ends the epoch cleanly.
    pub async fn finish(self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
