//! A client that shows every message: our client session on a socket.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use linkmic::probe::flv::Tag;
use linkmic::rtmp::session::client::{Event, Session};
use linkmic::rtmp::url::Target;
use linkmic::rtmp::{Framed, Message, chunk, handshake, kind};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};

use super::SOON;
use crate::abuse::raw;

/// What the server said no with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct No {
    pub code: String,
    pub description: String,
}

/// A client whose publish or play was granted.
pub struct Client {
    socket: TcpStream,
    session: Session,
    reader: chunk::Reader,
    events: VecDeque<Event>,
}

impl Client {
    /// # Errors
    /// The server's refusal.
    pub async fn publish(url: &str) -> Result<Self, No> {
        Self::ask(url, Session::publish, None, None).await
    }

    /// As [`publish`](Self::publish), of a server that may die at any moment. `None`: it was gone before it granted anything.
    pub async fn publish_if_there(url: &str) -> Option<Self> {
        let target = Target::parse(url).expect("a URL");
        let (socket, reader) = try_shake_hands(&target).await.ok()?;
        let mut client = Self {
            socket,
            session: Session::publish(&target),
            reader,
            events: VecDeque::new(),
        };
        client.flush().await;
        match client.event().await {
            Some(Event::Ready) => Some(client),
            None => None,
            other => panic!("neither granted nor gone: {other:?}"),
        }
    }

    /// As [`publish`](Self::publish), from a loopback address of the caller's choice.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn publish_from(from: Ipv4Addr, url: &str) -> Result<Self, No> {
        Self::ask(url, Session::publish, None, Some(from)).await
    }

    /// # Errors
    /// The server's refusal.
    pub async fn play(url: &str) -> Result<Self, No> {
        Self::ask(url, Session::play, None, None).await
    }

    /// As [`play`](Self::play), with a small receive buffer: for players that are to fall behind.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn play_narrow(url: &str, receive_buffer: u32) -> Result<Self, No> {
        Self::ask(url, Session::play, Some(receive_buffer), None).await
    }

    async fn ask(
        url: &str,
        role: fn(&Target) -> Session,
        buffer: Option<u32>,
        from: Option<Ipv4Addr>,
    ) -> Result<Self, No> {
        let target = Target::parse(url).expect("a URL");
        let (socket, reader) = dial(&target, buffer, from).await;
        let mut client = Self {
            socket,
            session: role(&target),
            reader,
            events: VecDeque::new(),
        };
        client.flush().await;
        match client.event().await {
            Some(Event::Ready) => Ok(client),
            Some(Event::Refused { code, description }) => {
                assert_eq!(
                    client.event().await,
                    None,
                    "a refusal is followed by the close"
                );
                Err(No { code, description })
            }
            other => panic!("neither granted nor refused: {other:?}"),
        }
    }

    /// Where it connects from.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr().expect("connected")
    }

    /// Its connection.
    #[cfg(feature = "mixer")]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The next thing the server did; `None`: it closed.
    ///
    /// # Panics
    /// When nothing happens for [`SOON`].
    pub async fn event(&mut self) -> Option<Event> {
        let event = timeout(SOON, self.next_event()).await;
        event.expect("the server says something")
    }

    /// As [`event`](Self::event), however long it takes.
    pub async fn event_at_leisure(&mut self) -> Option<Event> {
        self.next_event().await
    }

    /// Sends a command of a player, like `pause`, with a flag.
    pub async fn command(&mut self, name: &str, flag: bool) {
        let mut body = vec![2];
        body.extend((name.len() as u16).to_be_bytes());
        body.extend(name.as_bytes());
        // Transaction 0, a null, the flag.
        body.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 1, flag.into()]);
        self.send(kind::COMMAND, 0, body).await;
    }

    /// The next media message.
    ///
    /// # Panics
    /// When the server ends the stream.
    pub async fn media(&mut self) -> Message {
        match self.event().await {
            Some(Event::Media(message)) => message,
            other => panic!("media was to come, not {other:?}"),
        }
    }

    /// Media up to and including the first message for which `is_last`.
    pub async fn media_until(&mut self, is_last: impl Fn(&Message) -> bool) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            let message = self.media().await;
            let last = is_last(&message);
            all.push(message);
            if last {
                return all;
            }
        }
    }

    async fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            while let Some(message) = self.reader.next().expect("the server's bytes make sense") {
                let event = self.session.handle(message);
                self.events
                    .extend(event.expect("the server's commands make sense"));
            }
            if let Some(total) = self.reader.acknowledgement() {
                self.session.acknowledge(total);
            }
            self.flush().await;
            if !self.events.is_empty() {
                continue;
            }
            match self.socket.read_buf(self.reader.buffer()).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Sends what the session has to say. That the server has closed shows when reading.
    async fn flush(&mut self) {
        let _ = self.socket.write_all(&self.session.output()).await;
    }

    /// Sends one message of the stream.
    pub async fn send(&mut self, type_id: u8, timestamp: u32, payload: impl Into<Bytes>) {
        let bytes = self.framed(type_id, timestamp, payload.into());
        self.send_raw(&bytes).await;
    }

    /// The same on a connection that may be gone. `false`: it is.
    pub async fn try_send(
        &mut self,
        type_id: u8,
        timestamp: u32,
        payload: impl Into<Bytes>,
    ) -> bool {
        let bytes = self.framed(type_id, timestamp, payload.into());
        let sent = timeout(SOON, self.socket.write_all(&bytes)).await;
        sent.expect("the server reads").is_ok()
    }

    /// Sends a tag of a file, later by `shift` ms than it says.
    pub async fn send_tag(&mut self, tag: &Tag, shift: u32) {
        let time = tag.time.wrapping_add(shift);
        match tag.kind {
            Tag::AUDIO => self.send(kind::AUDIO, time, tag.body.clone()).await,
            Tag::VIDEO => self.send(kind::VIDEO, time, tag.body.clone()).await,
            _ => self.send(kind::DATA, time, tag.body.clone()).await,
        }
    }

    /// Sends tags at the pace of their own clock: faster would make slow readers of good ones.
    pub async fn send_in_real_time<'a>(
        &mut self,
        tags: impl IntoIterator<Item = &'a Tag>,
        shift: u32,
    ) {
        let mut begin = None;
        for tag in tags {
            let (at, time) = *begin.get_or_insert((Instant::now(), tag.time));
            let due = u64::from(tag.time.saturating_sub(time));
            sleep_until(at + Duration::from_millis(due)).await;
            self.send_tag(tag, shift).await;
        }
    }

    /// One message of the stream as it goes over the wire.
    pub fn framed(&self, type_id: u8, timestamp: u32, payload: Bytes) -> BytesMut {
        let stream_id = self.session.stream_id().expect("granted");
        let mut bytes = BytesMut::new();
        Framed::new(type_id, timestamp, stream_id, payload).write_to(&mut bytes);
        bytes
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        timeout(SOON, self.socket.write_all(bytes))
            .await
            .expect("the server reads")
            .expect("the connection holds");
    }

    /// Says the same again and again, as fast as the server takes it, and reads meanwhile. How long the server bore
    /// it; `None`: longer than `limit`.
    pub async fn flood(mut self, bytes: &[u8], limit: Duration) -> Option<Duration> {
        raw::flood(&mut self.socket, bytes, limit).await
    }

    /// Sends bytes as they are and hears what the server says meanwhile: its last words, where it has some before all
    /// is sent or within a second after.
    pub async fn send_while_listening(&mut self, bytes: &[u8]) -> Option<No> {
        let mut rest = bytes;
        loop {
            while let Some(message) = self.reader.next().expect("the server's bytes make sense") {
                let event = self.session.handle(message);
                if let Some(Event::Closed { code, description }) = event.expect("they make sense") {
                    return Some(No { code, description });
                }
            }
            let (mut from, mut to) = self.socket.split();
            tokio::select! {
                biased;
                read = from.read_buf(self.reader.buffer()) => if !matches!(read, Ok(n) if n > 0) {
                    return None;
                },
                sent = to.write(rest), if !rest.is_empty() => match sent {
                    Ok(n) => rest = &rest[n..],
                    // It has closed; what it said may be there still.
                    Err(_) => rest = &[],
                },
                () = tokio::time::sleep(Duration::from_secs(1)), if rest.is_empty() => return None,
            }
        }
    }

    /// Ends in order and waits for the server's word.
    pub async fn unpublish(mut self) {
        self.session.unpublish();
        self.flush().await;
        loop {
            match self.event().await {
                Some(Event::Closed { .. }) | None => return,
                Some(_) => {}
            }
        }
    }

    /// Vanishes: the server's next read fails, without a word before.
    pub fn abort(self) {
        let socket = SockRef::from(&self.socket);
        socket
            .set_linger(Some(Duration::ZERO))
            .expect("a reset instead of an end");
    }
}

/// A connection whose handshake is over.
pub async fn shake_hands(target: &Target, buffer: Option<u32>) -> (TcpStream, chunk::Reader) {
    dial(target, buffer, None).await
}

/// As [`shake_hands`], for clients that may come too late.
///
/// # Errors
/// When nobody listens, or the server closes before the handshake is over.
pub async fn try_shake_hands(target: &Target) -> io::Result<(TcpStream, chunk::Reader)> {
    try_dial(target, None, None).await
}

async fn dial(
    target: &Target,
    buffer: Option<u32>,
    from: Option<Ipv4Addr>,
) -> (TcpStream, chunk::Reader) {
    let dialled = try_dial(target, buffer, from).await;
    dialled.expect("the connection holds")
}

async fn try_dial(
    target: &Target,
    buffer: Option<u32>,
    from: Option<Ipv4Addr>,
) -> io::Result<(TcpStream, chunk::Reader)> {
    let address = format!("{}:{}", target.host, target.port);
    let socket = TcpSocket::new_v4().expect("a socket");
    if let Some(from) = from {
        socket
            .bind((from, 0).into())
            .expect("an address of loopback");
    }
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes).expect("a small buffer");
    }
    let address = address.parse().expect("an address");
    let mut socket = socket.connect(address).await?;
    socket.set_nodelay(true).expect("no delay");
    let mut reader = chunk::Reader::new(chunk::Limits::default());
    let (mut shake, opening) = handshake::Client::new();
    let exchange = async {
        socket.write_all(&opening).await?;
        let mut buffer = BytesMut::with_capacity(4096);
        loop {
            if socket.read_buf(&mut buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let progress = shake.receive(&buffer.split()).expect("a handshake");
            socket.write_all(&progress.reply).await?;
            if let Some(rest) = progress.done {
                reader.buffer().extend_from_slice(&rest);
                return Ok(());
            }
        }
    };
    timeout(SOON, exchange)
        .await
        .expect("the server shakes hands")?;
    Ok((socket, reader))
}

/// Whether a media message is a coded frame of that kind, and no configuration.
pub fn is_frame(message: &Message, type_id: u8) -> bool {
    message.type_id == type_id && message.payload.get(1) == Some(&1)
}

/// Whether a media message is a key frame.
pub fn is_key_frame(message: &Message) -> bool {
    is_frame(message, kind::VIDEO) && message.payload[0] == 0x17
}

/// Whether a media message is a decoder configuration of that kind.
pub fn is_header(message: &Message, type_id: u8) -> bool {
    message.type_id == type_id && message.payload.get(1) == Some(&0)
}
