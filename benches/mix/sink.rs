//! A CDN's end of a push: takes one stream and knows when each message of it came.
//!
//! What goes to a CDN goes message by message, while players' sound rides with the next picture; so this is where a mix's own
//! latency of sound is seen.

use linkmic::probe::Error;
use linkmic::probe::flv::Tag;
use linkmic::rtmp::session::server::{Event, Session};
use linkmic::rtmp::{chunk, handshake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::wire::{Arrival, Log, Task, note};

/// Listens until dropped.
pub struct Sink {
    pub url: String,
    pub seen: Log<Arrival>,
    _task: Task,
}

impl Sink {
    pub async fn start() -> Result<Self, Error> {
        let failed = |e| Error::io("a place to listen", e);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let seen: Log<Arrival> = Log::default();
        let log = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // A connection that ends is opened anew by who pushes.
                let _ = take(socket, &log).await;
            }
        });
        Ok(Self {
            url: format!("rtmp://{address}/live/out"),
            seen,
            _task: Task(task),
        })
    }
}

/// Takes what one connection publishes; `None` when it ends or makes no sense.
async fn take(mut socket: TcpStream, log: &Log<Arrival>) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut shake = handshake::Server::new();
    let mut reader = chunk::Reader::new(chunk::Limits::default());
    let mut session = Session::new();
    let mut bytes = vec![0; 4096];
    loop {
        let n = socket.read(&mut bytes).await.ok().filter(|n| *n > 0)?;
        let progress = shake.receive(&bytes[..n]).ok()?;
        socket.write_all(&progress.reply).await.ok()?;
        if let Some(rest) = progress.done {
            reader.buffer().extend_from_slice(&rest);
            break;
        }
    }
    loop {
        let now = Instant::now();
        while let Some(message) = reader.next().ok()? {
            match session.handle(message).ok()? {
                Some(Event::Connect(_)) => session.accept_connect(),
                Some(Event::Publish {
                    stream_id, name, ..
                }) => session.accept_publish(stream_id, &name),
                Some(Event::Media(message)) => {
                    let tag = Tag {
                        kind: message.type_id,
                        time: message.timestamp,
                        body: message.payload.to_vec(),
                    };
                    note(log, (now, tag));
                }
                _ => {}
            }
        }
        if let Some(total) = reader.acknowledgement() {
            session.acknowledge(total);
        }
        socket.write_all(&session.output()).await.ok()?;
        if socket.read_buf(reader.buffer()).await.ok()? == 0 {
            return None;
        }
    }
}
