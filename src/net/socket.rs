//! A client's connection, whatever carries its bytes: the rooms above read and write it without knowing.
//!
//! One rule makes TLS look like TCP to those who write: **what was not taken is offered again first.** After a short
//! write, or `WouldBlock`, the next write begins with the byte that the last one did not take. Everybody who writes to a
//! socket does that anyway; with TLS it is how ciphertext that the kernel did not take gets out (see [`super::tls`]).

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustix::net::SendFlags;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::tls::{Session, Step, Trust};

/// A socket to which bytes go without a look at the readiness that the runtime has noted. Four bytes: a writer takes
/// a good many in one sweep, whose cache misses then overlap, before it sends to the first.
#[derive(Debug, Clone, Copy)]
pub struct Direct<'a>(BorrowedFd<'a>);

impl Direct<'_> {
    /// Sends as much as the kernel takes now.
    ///
    /// # Errors
    /// `WouldBlock` when that is nothing. The runtime does not know of it: [`Socket::try_write`] before waiting for
    /// [`Socket::writable`].
    pub fn send(self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::io::retry_on_intr(|| {
            rustix::net::send(self.0, bytes, flags)
        })?)
    }
}

/// A connection that is read and written without waiting, or after waiting for it to be ready.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    /// Both directions of TLS share keys and buffers. Held for the microseconds of one read or one record, never
    /// while waiting.
    tls: Option<Box<Mutex<Session>>>,
}

impl Socket {
    /// Bytes travel as they are.
    pub fn plain(tcp: TcpStream) -> Self {
        Self { tcp, tls: None }
    }

    /// Bytes travel through TLS, once its handshake is done. How long that may take is the caller's to bound.
    ///
    /// # Errors
    /// When the connection breaks or the client offers nothing that we take; it has been told why.
    pub async fn encrypted(tcp: TcpStream, config: Arc<rustls::ServerConfig>) -> io::Result<Self> {
        let socket = Self::over(tcp, || Session::new(config))?;
        socket.shake_hands().await
    }

    /// As [`Self::encrypted`], where we are the client of `host`, a name or an address, which must prove that it is.
    ///
    /// # Errors
    /// When the connection breaks, or the certificate shown is for another host, past its time, or of nobody that `trust`
    /// knows.
    pub async fn encrypted_to(tcp: TcpStream, trust: &Trust, host: &str) -> io::Result<Self> {
        let socket = Self::over(tcp, || trust.session(host))?;
        socket.shake_hands().await
    }

    /// The session has a place of its own from the beginning: more than a kilobyte, which would stand in every future that
    /// waits for the handshake, and in all that hold one of those, for as long as they live and without TLS, too.
    fn over(tcp: TcpStream, session: impl FnOnce() -> io::Result<Session>) -> io::Result<Self> {
        let tls = Some(Box::new(Mutex::new(session()?)));
        Ok(Self { tcp, tls })
    }

    async fn shake_hands(self) -> io::Result<Self> {
        let tcp = &self.tcp;
        while let Some(step) = self.session().map(|mut session| session.step(tcp)) {
            match step? {
                Step::Read => tcp.readable().await?,
                Step::Write => tcp.writable().await?,
                Step::Again => {}
                Step::Done => break,
            }
        }
        Ok(self)
    }

    /// The TCP connection underneath, for its options and counters; never for media or commands.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Does TLS protect this connection?
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Waits until something may be read.
    ///
    /// # Cancel safety
    /// Safe: it takes nothing.
    pub async fn readable(&self) -> io::Result<()> {
        if self.session().is_some_and(|mut s| s.has_plaintext()) {
            return Ok(());
        }
        self.tcp.readable().await
    }

    /// Waits until something may be written.
    ///
    /// # Cancel safety
    /// Safe: it takes nothing.
    pub async fn writable(&self) -> io::Result<()> {
        self.tcp.writable().await
    }

    /// Reads what is there; 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    pub fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self.session() {
            Some(mut session) => session.read(&self.tcp, buffer),
            None => self.tcp.try_read_buf(buffer),
        }
    }

    /// Waits for something and reads it; 0 is the end of the stream. For the task that owns the socket: one that reads
    /// what has come and then waits asks the kernel once, not twice.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let Some(tls) = &mut self.tls else {
            return pin!(self.tcp.read_buf(buffer)).poll(cx);
        };
        let session = tls.get_mut().unwrap_or_else(|e| e.into_inner());
        loop {
            match session.read(&self.tcp, buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_read_ready(cx))?;
                }
                other => return Poll::Ready(other),
            }
        }
    }

    /// As [`Self::poll_read`], of a socket that others write to. One task may read.
    pub fn poll_read_shared(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_read_buf(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_read_ready(cx))?;
                }
                other => return Poll::Ready(other),
            }
        }
    }

    /// Has the runtime that this is called in watch the connection from now on, and no longer the one that did.
    ///
    /// # Errors
    /// When the runtime cannot; the connection is closed then.
    pub fn settle(self) -> io::Result<Self> {
        let tcp = TcpStream::from_std(self.tcp.into_std()?)?;
        Ok(Self { tcp, ..self })
    }

    /// Writes as much as is taken now. What was not taken is to be offered again first.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.session() {
            Some(mut session) => session.write(&self.tcp, &[IoSlice::new(bytes)]),
            None => self.tcp.try_write(bytes),
        }
    }

    /// The way past the runtime, for a writer that serves many sockets; `None` where bytes do not travel as they
    /// are.
    pub fn direct(&self) -> Option<Direct<'_>> {
        self.tls.is_none().then(|| Direct(self.tcp.as_fd()))
    }

    /// As [`Self::try_write`], from several places in one go.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.session() {
            Some(mut session) => session.write(&self.tcp, slices),
            None => self.tcp.try_write_vectored(slices),
        }
    }

    /// Writes all of it, waiting as often as needed.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.writable().await?;
            match self.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Says that nothing more will be written, so that the peer can tell an end from a cut.
    pub async fn shut_down(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_shut_down(cx)).await
    }

    /// [`Self::shut_down`] for those who poll.
    pub(super) fn poll_shut_down(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(mut session) = self.session() {
            match session.say_goodbye(&self.tcp) {
                Ok(()) => break,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
            drop(session);
            ready!(self.tcp.poll_write_ready(cx))?;
        }
        Poll::Ready(SockRef::from(&self.tcp).shutdown(Shutdown::Write))
    }

    pub(super) fn session(&self) -> Option<MutexGuard<'_, Session>> {
        let tls = self.tls.as_ref()?;
        // A panic inside TLS leaves a connection that fails by itself at its next record.
        Some(tls.lock().unwrap_or_else(|e| e.into_inner()))
    }
}
