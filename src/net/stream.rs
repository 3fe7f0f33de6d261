//! A socket as tokio's traits want it, with what was already read from it put back in front.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Socket;

/// Taken from the socket at a time, at most.
const READ_BYTES: usize = 4_096;

/// A connection that a listener accepted and that is for somebody else, with its client's address.
#[derive(Debug)]
pub struct Handed {
    pub stream: Stream,
    pub peer: SocketAddr,
}

/// A connection whose beginning somebody read, to find that it is for somebody else.
#[derive(Debug)]
pub struct Stream {
    /// Read from the socket and not yet from here.
    front: BytesMut,
    socket: Socket,
}

impl Stream {
    /// `front` was read from `socket` and comes first.
    pub fn new(socket: Socket, front: BytesMut) -> Self {
        Self { front, socket }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.front.is_empty() {
            this.front.reserve(READ_BYTES);
            match this.socket.try_read_buf(&mut this.front) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready!(this.socket.tcp().poll_read_ready(cx))?;
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        let n = this.front.len().min(buffer.remaining());
        buffer.put_slice(&this.front[..n]);
        this.front.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.try_write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.tcp().poll_write_ready(cx))?;
                }
                other => return Poll::Ready(other),
            }
        }
    }

    /// Nothing that was reported as written waits here.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_shut_down(cx)
    }
}
