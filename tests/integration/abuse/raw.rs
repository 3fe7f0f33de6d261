//! Bytes as no client would send them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use linkmic::rtmp::amf::Writer;
use linkmic::rtmp::session::client::Session;
use linkmic::rtmp::url::Target;
use linkmic::rtmp::{Framed, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::edge::client::try_shake_hands;

/// A connection and what it is allowed to say.
pub struct Raw {
    socket: TcpStream,
}

impl Raw {
    /// Connected, nothing said.
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("it listens");
        Self { socket }
    }

    /// After the handshake.
    pub async fn shaken(address: SocketAddr) -> Self {
        let shaken = Self::try_shaken(address).await;
        shaken.expect("the connection holds")
    }

    /// As [`shaken`](Self::shaken); `None`: the server's deadline for it came first, as it may on a busy machine.
    pub async fn try_shaken(address: SocketAddr) -> Option<Self> {
        let (socket, _) = try_shake_hands(&target(address)).await.ok()?;
        Some(Self { socket })
    }

    /// After `connect`, which was sent; its answer is left unread.
    pub async fn connected(address: SocketAddr) -> Self {
        let raw = Self::try_connected(address).await;
        raw.expect("the connection holds")
    }

    /// As [`connected`](Self::connected); `None` as of [`try_shaken`](Self::try_shaken).
    pub async fn try_connected(address: SocketAddr) -> Option<Self> {
        let mut raw = Self::try_shaken(address).await?;
        raw.send(&Session::publish(&target(address)).output()).await;
        Some(raw)
    }

    /// Sends as much as the server takes; that it closes meanwhile is no error here.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = timeout(Duration::from_secs(5), self.socket.write_all(bytes)).await;
    }

    /// As [`send`](Self::send), and reads meanwhile, so that a server that answers much is not what waits.
    pub async fn send_and_read(&mut self, bytes: &[u8]) {
        let (mut from, mut to) = self.socket.split();
        let mut sink = vec![0; 64 << 10];
        let reading = async { while matches!(from.read(&mut sink).await, Ok(n) if n > 0) {} };
        let sending = timeout(Duration::from_secs(5), to.write_all(bytes));
        tokio::select! {
            () = reading => {}
            _ = sending => {}
        }
    }

    /// As [`send`](Self::send); `false`: the server has closed, or takes nothing any more.
    pub async fn send_on(&mut self, bytes: &[u8]) -> bool {
        let sent = timeout(Duration::from_secs(5), self.socket.write_all(bytes)).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Says the same again and again, as fast as the server takes it, and reads meanwhile. How long the server bore
    /// it; `None`: longer than `limit`.
    pub async fn flood(&mut self, bytes: &[u8], limit: Duration) -> Option<Duration> {
        flood(&mut self.socket, bytes, limit).await
    }

    /// Has said everything.
    pub async fn finish(&mut self) {
        let _ = self.socket.shutdown().await;
    }

    /// Reads until the server closes; how long that took. `None`: not within `limit`.
    pub async fn closed_within(&mut self, limit: Duration) -> Option<Duration> {
        let begin = Instant::now();
        let mut sink = [0; 4096];
        let closed = async { while matches!(self.socket.read(&mut sink).await, Ok(n) if n > 0) {} };
        timeout(limit, closed).await.ok()?;
        Some(begin.elapsed())
    }
}

/// As [`Raw::flood`].
pub async fn flood(socket: &mut TcpStream, bytes: &[u8], limit: Duration) -> Option<Duration> {
    let begin = Instant::now();
    let (mut from, mut to) = socket.split();
    let mut sink = vec![0; 64 << 10];
    let reading = async { while matches!(from.read(&mut sink).await, Ok(n) if n > 0) {} };
    let flooding = async { while to.write_all(bytes).await.is_ok() {} };
    let over = async {
        tokio::select! {
            () = reading => {}
            () = flooding => {}
        }
    };
    timeout(limit, over).await.ok()?;
    Some(begin.elapsed())
}

fn target(address: SocketAddr) -> Target {
    Target::parse(&format!("rtmp://{address}/live/raw")).expect("a URL")
}

/// C0 and C1 as a simple client sends them.
pub fn c0_c1() -> Vec<u8> {
    let mut bytes = vec![7; 1 + 1536];
    bytes[0] = 3;
    bytes[1..9].fill(0);
    bytes
}

/// A whole message in chunks of 65,536 bytes, after a SetChunkSize that says so.
pub fn message(type_id: u8, stream_id: u32, payload: impl Into<Bytes>) -> BytesMut {
    let mut bytes = set_chunk_size(65_536);
    Framed::new(type_id, 0, stream_id, payload.into()).write_to(&mut bytes);
    bytes
}

pub fn set_chunk_size(bytes: u32) -> BytesMut {
    let mut out = BytesMut::new();
    let body = Bytes::copy_from_slice(&bytes.to_be_bytes());
    Framed::new(kind::SET_CHUNK_SIZE, 0, 0, body).write_to(&mut out);
    out
}

/// The first chunk of a message: a full header that announces `length` bytes, and what comes of them.
pub fn first_chunk(
    chunk_stream: u32,
    type_id: u8,
    stream_id: u32,
    length: u32,
    body: &[u8],
) -> BytesMut {
    let mut out = BytesMut::new();
    match chunk_stream {
        2..64 => out.put_u8(chunk_stream as u8),
        64..320 => out.put_slice(&[0, (chunk_stream - 64) as u8]),
        _ => {
            let [low, high, ..] = (chunk_stream - 64).to_le_bytes();
            out.put_slice(&[1, low, high]);
        }
    }
    out.put_slice(&[0, 0, 0]);
    out.put_slice(&length.to_be_bytes()[1..]);
    out.put_u8(type_id);
    out.put_u32_le(stream_id);
    out.put_slice(body);
    out
}

/// A further chunk (type 3) of the message under way on a chunk stream below 64.
pub fn next_chunk(chunk_stream: u8, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u8(0xc0 | chunk_stream);
    out.put_slice(body);
    out
}

/// A command of 16 MB of nulls, in honest chunks.
pub fn sixteen_megabytes() -> BytesMut {
    let mut bytes = set_chunk_size(65_536);
    let block = vec![5; 65_536];
    bytes.extend_from_slice(&first_chunk(3, kind::COMMAND, 0, 0xff_ffff, &block));
    for _ in 1..256 {
        bytes.extend_from_slice(&next_chunk(3, &block));
    }
    bytes
}

/// Every chunk stream that a header can name, each with one byte of two.
pub fn every_chunk_stream() -> BytesMut {
    let mut bytes = set_chunk_size(1);
    for id in 3..65_600 {
        bytes.extend_from_slice(&first_chunk(id, kind::VIDEO, 1, 2, b"x"));
    }
    bytes
}

/// An acknowledgement of so many bytes, which nobody asked for.
pub fn acknowledgement(bytes: u32) -> BytesMut {
    let mut out = BytesMut::new();
    let body = Bytes::copy_from_slice(&bytes.to_be_bytes());
    Framed::new(kind::ACKNOWLEDGEMENT, 0, 0, body).write_to(&mut out);
    out
}

/// `connect`, `createStream`, and `publish` or `play` of a name, in one breath.
pub fn asking(role: &str, name: &str) -> BytesMut {
    let mut bytes = BytesMut::new();
    let mut command = |stream_id, body: &mut Writer| {
        Framed::new(kind::COMMAND, 0, stream_id, body.finish()).write_to(&mut bytes);
    };
    let mut connect = Writer::new();
    connect.string("connect").number(1.0).object();
    connect.key("app").string("live").end();
    command(0, &mut connect);
    let mut create = Writer::new();
    create.string("createStream").number(2.0).null();
    command(0, &mut create);
    let mut ask = Writer::new();
    ask.string(role).number(3.0).null().string(name);
    command(1, &mut ask);
    bytes
}

/// A `connect` with an array in an array in an array, and so on.
pub fn deep_connect(depth: usize) -> Bytes {
    let mut body = Writer::new();
    body.string("connect").number(1.0);
    nest(&body.finish(), depth)
}

/// Metadata of the same kind.
pub fn deep_metadata(depth: usize) -> Bytes {
    let mut body = Writer::new();
    body.string("@setDataFrame").string("onMetaData");
    nest(&body.finish(), depth)
}

/// Well-formed to the end, and 5 bytes a level: 10,000 levels stay below every limit on size, so that only the depth
/// can be what is refused.
fn nest(front: &[u8], depth: usize) -> Bytes {
    const ARRAY_OF_ONE: [u8; 5] = [10, 0, 0, 0, 1];
    const NULL: u8 = 5;
    let mut body = BytesMut::from(front);
    for _ in 0..depth {
        body.put_slice(&ARRAY_OF_ONE);
    }
    body.put_u8(NULL);
    body.freeze()
}
