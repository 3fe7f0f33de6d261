//! One connection as a client that never waits: connect, handshake and commands, driven by readiness.
//!
//! Owns a socket and the conversation on it. Refuses to know what the stream is good for. Players and publishers have
//! one each; the event loop is theirs.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::{Buf, BytesMut};
use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::rtmp::session::client::{self, Event, Session};
use crate::rtmp::{chunk, handshake};

/// Bytes that may wait for a server that does not read: over a second of the largest streams.
const MAX_WAITING: usize = 8 << 20;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Handshake(#[from] handshake::Error),
    #[error(transparent)]
    Chunk(#[from] chunk::Error),
    #[error(transparent)]
    Session(#[from] client::Error),
    #[error("refused: {code} {description}")]
    Refused { code: String, description: String },
    #[error("ended by the server: {0}")]
    Ended(String),
    #[error("closed by the server")]
    Closed,
    #[error("the server does not read: {bytes} bytes wait, the limit is {MAX_WAITING}")]
    Stuck { bytes: usize },
}

/// The socket, and what waits to be written to it.
pub(super) struct Link {
    socket: TcpStream,
    waiting: BytesMut,
}

impl Link {
    /// Begins to connect; the socket is writable when that is done.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Err(error)
                if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
            {
                return Err(error);
            }
            _ => {}
        }
        Ok(Self {
            socket: socket.into(),
            waiting: BytesMut::new(),
        })
    }

    /// # Errors
    /// Why connecting failed.
    pub fn check(&self) -> io::Result<()> {
        match self.socket.take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Where to put bytes for [`Link::flush`].
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.waiting
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self) -> Result<(), Failure> {
        while !self.waiting.is_empty() {
            match self.socket.write(&self.waiting) {
                Ok(0) => return Err(Failure::Closed),
                Ok(n) => self.waiting.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        match self.waiting.len() {
            bytes @ MAX_WAITING.. => Err(Failure::Stuck { bytes }),
            _ => Ok(()),
        }
    }

    /// Ends the connection; what the other end says is no longer of interest.
    pub fn shut(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Reads into `scratch`; `None` when there is nothing.
    pub fn read(&mut self, scratch: &mut [u8]) -> Result<Option<usize>, Failure> {
        loop {
            return match self.socket.read(scratch) {
                Ok(0) => Err(Failure::Closed),
                Ok(n) => Ok(Some(n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Has the kernel throw away up to `scratch.len()` bytes, without copying them; `None` when there is nothing.
    pub fn discard(&mut self, scratch: &mut [u8]) -> Result<Option<usize>, Failure> {
        loop {
            return match rustix::net::recv(&self.socket, &mut *scratch, RecvFlags::TRUNC) {
                Ok((_, 0)) => Err(Failure::Closed),
                Ok((_, n)) => Ok(Some(n)),
                Err(rustix::io::Errno::AGAIN) => Ok(None),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => Err(io::Error::from(error).into()),
            };
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The conversation on a link.
pub(super) struct Talk {
    shake: Option<handshake::Client>,
    reader: chunk::Reader,
    /// `None` where the peer sends messages without being asked.
    session: Option<Session>,
}

impl Talk {
    /// A conversation, and what opens it once the link is connected.
    pub fn new(session: Session, link: &mut Link) -> Self {
        let (shake, opening) = handshake::Client::new();
        link.buffer().extend_from_slice(&opening);
        Self {
            shake: Some(shake),
            reader: chunk::Reader::new(chunk::Limits::default()),
            session: Some(session),
        }
    }

    /// For a peer that has messages to send and nothing to say.
    pub fn raw() -> Self {
        Self {
            shake: None,
            reader: chunk::Reader::new(chunk::Limits::default()),
            session: None,
        }
    }

    /// The session; `None` on a raw link.
    pub fn session(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// Bytes of the chunk stream so far: what an acknowledgement counts.
    pub fn received(&self) -> u64 {
        self.reader.received()
    }

    /// Takes bytes, answers them, and hands out what happened.
    pub fn take(
        &mut self,
        link: &mut Link,
        bytes: &[u8],
        mut each: impl FnMut(Event),
    ) -> Result<(), Failure> {
        match &mut self.shake {
            Some(shake) => {
                let progress = shake.receive(bytes)?;
                link.buffer().extend_from_slice(&progress.reply);
                if let Some(rest) = progress.done {
                    self.shake = None;
                    self.reader.buffer().extend_from_slice(&rest);
                }
            }
            None => self.reader.buffer().extend_from_slice(bytes),
        }
        if self.shake.is_none() {
            while let Some(message) = self.reader.next()? {
                match &mut self.session {
                    None => each(Event::Media(message)),
                    Some(session) => match session.handle(message)? {
                        Some(Event::Refused { code, description }) => {
                            return Err(Failure::Refused { code, description });
                        }
                        Some(Event::Closed { code, .. }) => return Err(Failure::Ended(code)),
                        Some(event) => each(event),
                        None => {}
                    },
                }
            }
            if let Some(session) = &mut self.session {
                if let Some(total) = self.reader.acknowledgement() {
                    session.acknowledge(total);
                }
                link.buffer().extend_from_slice(&session.output());
            }
        }
        link.flush()
    }
}
