//! RTMP clients that know when each message left and came.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use linkmic::probe::Error;
use linkmic::probe::flv::Tag;
use linkmic::rtmp::session::client::{Event, Session};
use linkmic::rtmp::url::Target;
use linkmic::rtmp::{Framed, MEDIA_STREAM_ID, chunk, handshake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::clips::Clip;

const SOON: Duration = Duration::from_secs(15);

/// Something that a task adds to while others look.
pub type Log<T> = Arc<Mutex<Vec<T>>>;

/// What was put down so far.
pub fn all<T: Clone>(log: &Log<T>) -> Vec<T> {
    // Complete after every statement, so readable after a panic.
    log.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Puts down one more.
pub fn note<T>(log: &Log<T>, value: T) {
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(value);
}

struct Connection {
    socket: TcpStream,
    session: Session,
    reader: chunk::Reader,
}

impl Connection {
    async fn open(url: &str, role: fn(&Target) -> Session) -> Result<Self, Error> {
        let target = Target::parse(url).map_err(|e| Error::Wrong(e.to_string()))?;
        let broken = |e| Error::io(format!("RTMP to {url}"), e);
        let socket = TcpStream::connect((target.host.as_str(), target.port)).await;
        let mut socket = socket.map_err(broken)?;
        socket.set_nodelay(true).map_err(broken)?;
        let (mut shake, opening) = handshake::Client::new();
        socket.write_all(&opening).await.map_err(broken)?;
        let mut reader = chunk::Reader::new(chunk::Limits::default());
        let mut bytes = BytesMut::with_capacity(4096);
        loop {
            if socket.read_buf(&mut bytes).await.map_err(broken)? == 0 {
                return Err(Error::Wrong(format!("{url}: closed while shaking hands")));
            }
            let progress = shake.receive(&bytes.split());
            let progress = progress.map_err(|e| Error::Wrong(e.to_string()))?;
            socket.write_all(&progress.reply).await.map_err(broken)?;
            if let Some(rest) = progress.done {
                reader.buffer().extend_from_slice(&rest);
                break;
            }
        }
        let session = role(&target);
        let mut connection = Self {
            socket,
            session,
            reader,
        };
        match timeout(SOON, connection.event()).await {
            Ok(Some(Event::Ready)) => Ok(connection),
            Ok(other) => Err(Error::Wrong(format!("{url}: not granted: {other:?}"))),
            Err(_) => Err(Error::Deadline {
                what: format!("the grant of {url}"),
                within: SOON,
            }),
        }
    }

    /// What the server did next; `None`: it is gone, or makes no sense.
    async fn event(&mut self) -> Option<Event> {
        loop {
            while let Some(message) = self.reader.next().ok()? {
                if let Some(event) = self.session.handle(message).ok()? {
                    return Some(event);
                }
            }
            if let Some(total) = self.reader.acknowledgement() {
                self.session.acknowledge(total);
            }
            self.socket.write_all(&self.session.output()).await.ok()?;
            if self.socket.read_buf(self.reader.buffer()).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn send(&mut self, tag: &Tag, time_ms: u64) -> std::io::Result<()> {
        let id = self.session.stream_id().unwrap_or(MEDIA_STREAM_ID);
        // The protocol's time wraps at 2^32.
        let framed = Framed::new(tag.kind, time_ms as u32, id, tag.body.clone().into());
        let mut bytes = BytesMut::with_capacity(framed.len());
        framed.write_to(&mut bytes);
        self.socket.write_all(&bytes).await
    }
}

/// Ends its task when dropped.
pub struct Task(pub JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A clip on air, until dropped.
pub struct Publisher {
    /// When which message of the clip was handed to the kernel: its number through all rounds is its place here.
    pub sent: Log<Instant>,
    _task: Task,
}

impl Publisher {
    /// Publishes `clip`, whose first message is due at `start`.
    pub async fn start(url: &str, clip: Arc<Clip>, start: Instant) -> Result<Self, Error> {
        let mut connection = Connection::open(url, Session::publish).await?;
        for header in &clip.headers {
            let sent = connection.send(header, 0).await;
            sent.map_err(|e| Error::io("headers", e))?;
        }
        let sent = Log::default();
        let log = sent.clone();
        let task = tokio::spawn(async move {
            for n in 0.. {
                let (tag, due_ms, time_ms) = clip.message(n);
                sleep_until(start + Duration::from_millis(due_ms)).await;
                note(&log, Instant::now());
                // That the server is gone shows in what comes out.
                if connection.send(tag, time_ms).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            sent,
            _task: Task(task),
        })
    }
}

/// What came, and when.
pub type Arrival = (Instant, Tag);

/// A viewer that puts down all that comes, until dropped.
pub struct Viewer {
    pub seen: Log<Arrival>,
    _task: Task,
}

impl Viewer {
    pub async fn start(url: &str) -> Result<Self, Error> {
        let mut connection = Connection::open(url, Session::play).await?;
        let seen = Log::default();
        let log = seen.clone();
        let task = tokio::spawn(async move {
            while let Some(event) = connection.event().await {
                let now = Instant::now();
                if let Event::Media(message) = event {
                    let tag = Tag {
                        kind: message.type_id,
                        time: message.timestamp,
                        body: message.payload.to_vec(),
                    };
                    note(&log, (now, tag));
                }
            }
        });
        Ok(Self {
            seen,
            _task: Task(task),
        })
    }
}
