//! Sockets as every room above wants them: options, bounded writes, and a close that lets the peer hear why.
//!
//! Knows TCP, TLS and the PROXY protocol, and nothing of what travels over them. Used by `ingest`, `playback` and
//! `push`.

mod admission;
mod block;
mod contain;
pub mod descriptors;
mod entrance;
mod fold;
pub mod host;
pub mod inherited;
mod network;
pub mod precedence;
pub mod proxy;
mod queue;
pub mod rights;
mod scheduler;
pub mod slice;
mod socket;
mod stream;
pub mod tls;
pub mod turns;
mod worker;

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

pub use admission::{Admission, Bounds, Full, Pass};
pub use block::Block;
pub use contain::contained;
pub use entrance::{Entrance, Turned, accept};
pub use fold::Fold;
pub use network::network;
pub use precedence::Precedence;
pub use queue::{bound_queue, give_up_after, unacknowledged};
pub use socket::{Direct, Socket};
pub use stream::{Handed, Stream};
pub use worker::Worker;

use entrance::canonical;

/// Unacknowledged data this old means that the peer is gone, whatever its TCP last said.
pub const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// Control bytes that may wait for a peer that does not read. Our answers are a few hundred bytes each.
pub const MAX_OUTBOX_BYTES: usize = 64 << 10;
/// How long a closing connection may take to hear the reason.
const LINGER: Duration = Duration::from_secs(1);

/// What every RTMP connection gets: no Nagle delay, keep-alive, and an end for peers that vanished.
pub fn tune(socket: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5)),
    )?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Bytes waiting for a peer that may read slowly: written when the socket takes them, never awaited.
#[derive(Debug, Default)]
pub struct Outbox(BytesMut);

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends and writes what the socket takes now.
    ///
    /// # Errors
    /// When the socket fails, or more than [`MAX_OUTBOX_BYTES`] wait.
    pub fn send(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        self.flush(socket)
    }

    /// Writes what the socket takes now.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        while !self.0.is_empty() {
            match socket.try_write(&self.0) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.0.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        if self.0.is_empty() {
            // Answers are few, and the room for them would be kept as long as the connection.
            self.0 = BytesMut::new();
        }
        if self.0.len() > MAX_OUTBOX_BYTES {
            return Err(io::Error::other(format!(
                "peer does not read: {} bytes of answers wait, the limit is {MAX_OUTBOX_BYTES}",
                self.0.len()
            )));
        }
        Ok(())
    }

    /// What waited elsewhere.
    pub fn from(bytes: BytesMut) -> Self {
        Self(bytes)
    }

    /// What still waits.
    pub fn into_inner(self) -> BytesMut {
        self.0
    }
}

/// Reads what has come, without waiting longer than for the first byte. 0 is the end of the stream.
///
/// # Cancel safety
/// Safe: bytes are taken only in the last, synchronous step.
pub async fn read_some(socket: &Socket, buffer: &mut BytesMut) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        match socket.try_read_buf(buffer) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// Sends last words and closes so that they arrive: a close with unread input would turn into a reset
/// that makes the peer's kernel throw them away.
pub async fn close(socket: Socket, last_words: &[u8]) {
    let closing = tokio::time::timeout(LINGER, async move {
        socket.write_all(last_words).await?;
        socket.shut_down().await?;
        let mut sink = BytesMut::with_capacity(4096);
        while read_some(&socket, &mut sink).await? > 0 {
            sink.clear();
        }
        io::Result::Ok(())
    });
    // In room of its own: what serves a connection would hold that as long as it lives, for its last second.
    let _ = Box::pin(closing).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A client and what the server has of it.
    pub(super) async fn pair() -> (TcpStream, Socket) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (ours, theirs) = tokio::join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        (ours.unwrap(), Socket::plain(theirs.unwrap().0))
    }

    #[tokio::test]
    async fn last_words_arrive_although_input_was_not_read() {
        let (mut client, server) = pair().await;
        client.write_all(&[7; 100_000]).await.unwrap();
        let closing = tokio::spawn(async move { close(server, b"why").await });
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"why");
        drop(client);
        closing.await.unwrap();
    }

    #[tokio::test]
    async fn answers_to_a_peer_that_does_not_read_are_bounded() {
        let (_client, server) = pair().await;
        let mut outbox = Outbox::default();
        let failed = (0..10_000).find_map(|_| outbox.send(&server, &[0; 4096]).err());
        assert!(failed.unwrap().to_string().contains("does not read"));
        assert!(outbox.into_inner().len() <= MAX_OUTBOX_BYTES + 4096);
    }

    #[tokio::test]
    async fn options_reach_the_socket() {
        let (_client, server) = pair().await;
        tune(server.tcp()).unwrap();
        let socket = SockRef::from(server.tcp());
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }
}
