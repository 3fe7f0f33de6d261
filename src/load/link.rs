//! One connection as a client that never waits: connect, handshake and commands, driven by readiness.
//!
//! Owns a socket and the RTMP conversation on it. Refuses to know what the stream is good for. Players and publishers have
//! one each; the event loop is theirs.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::{Buf, Bytes, BytesMut};
use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::rtmp::session::client::{self, Event, Session};
use crate::rtmp::{Message, chunk, control, handshake, kind};

/// Bytes that may wait for a server that does not read: over a second of the largest streams.
const MAX_WAITING: usize = 8 << 20;

/// What is kept of a message once a talk skims. A stamp is in front of the picture, perhaps behind parameter sets; what
/// servers say to players is shorter.
const KEPT: usize = 2 << 10;

/// C1, S1, C2 and S2.
const PACKET: usize = 1536;

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
    #[error("not HTTP-FLV: {0}")]
    Http(&'static str),
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

/// The plain handshake, as OBS and librtmp begin: no digests, whose computing would be this program's own part of
/// the time to a first picture (0.46 ms instead of 0.39 ms at the median of 1,000 joins).
struct Shake {
    heard: Vec<u8>,
}

impl Shake {
    /// C0 and C1: version, time 0, zeros, and what should be random and is never looked at.
    fn opening() -> [u8; 1 + PACKET] {
        let mut opening = [0x6c; 1 + PACKET];
        opening[0] = 3;
        opening[1..9].fill(0);
        opening
    }

    /// Takes bytes, and puts C2 into `answer` when all of the server's are there. Returns what follows them.
    fn take<'a>(
        &mut self,
        bytes: &'a [u8],
        answer: &mut BytesMut,
    ) -> Result<Option<&'a [u8]>, Failure> {
        let missing = handshake::PEER_BYTES - self.heard.len();
        let (theirs, rest) = bytes.split_at(bytes.len().min(missing));
        self.heard.extend_from_slice(theirs);
        match self.heard.first() {
            Some(&version) if version != 3 => return Err(handshake::Error::Version(version).into()),
            _ if self.heard.len() < handshake::PEER_BYTES => return Ok(None),
            _ => {}
        }
        answer.extend_from_slice(&self.heard[1..1 + PACKET]);
        Ok(Some(rest))
    }
}

/// What a server says that is of interest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// Publishing or playing has begun.
    Ready,
    /// A message of the stream: its type, and at least the first bytes of it.
    Media(u8, &'a [u8]),
}

enum Reading {
    Whole(chunk::Reader),
    Skimming(chunk::Skim),
}

/// The conversation on a link.
pub(super) struct Talk {
    shake: Option<Shake>,
    reading: Reading,
    /// `None` where the peer sends messages without being asked.
    session: Option<Session>,
    /// Has anything been said? On a raw link an acknowledgement of the first bytes is all that ever is.
    ///
    /// Linux takes a connection whose application answers soon for a conversation, and acknowledges less often: over
    /// loopback in the midst of the server's next write, in its time, and not when we read, in ours. RTMP players are
    /// in that state from their handshake on. HTTP players are not, and put into it cost their server a sixth more; so
    /// the floor's are to be in it as well.
    spoken: bool,
}

impl Talk {
    /// A conversation, and what opens it once the link is connected.
    pub fn new(session: Session, link: &mut Link) -> Self {
        link.buffer().extend_from_slice(&Shake::opening());
        Self {
            shake: Some(Shake { heard: Vec::new() }),
            reading: Reading::Whole(chunk::Reader::new(chunk::Limits::default())),
            session: Some(session),
            spoken: true,
        }
    }

    /// For a peer that has messages to send and nothing to say.
    pub fn raw() -> Self {
        Self {
            shake: None,
            reading: Reading::Whole(chunk::Reader::new(chunk::Limits::default())),
            session: None,
            spoken: false,
        }
    }

    /// The session; `None` on a raw link.
    pub fn session(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// Bytes of the chunk stream so far: what an acknowledgement counts.
    pub fn received(&self) -> u64 {
        match &self.reading {
            Reading::Whole(reader) => reader.received(),
            Reading::Skimming(skim) => skim.received(),
        }
    }

    /// From now on only the beginnings of messages are read, which costs a fraction: of a picture of 9 KB, 0.5 us where
    /// putting it together first costs 4 us, most of it memory that 250 such players do not find in the caches.
    pub fn skim(mut self) -> Self {
        if let Reading::Whole(reader) = self.reading {
            self.reading = Reading::Skimming(chunk::Skim::after(reader, KEPT));
        }
        self
    }

    /// Takes bytes, answers them, and hands out what happened.
    pub fn take(
        &mut self,
        link: &mut Link,
        bytes: &[u8],
        mut each: impl FnMut(Said<'_>),
    ) -> Result<(), Failure> {
        let rest = match &mut self.shake {
            Some(shake) => shake.take(bytes, link.buffer())?,
            None => Some(bytes),
        };
        let Some(rest) = rest else {
            return link.flush();
        };
        self.shake = None;
        if !std::mem::replace(&mut self.spoken, true) {
            control::acknowledgement(rest.len() as u32).write_to(link.buffer());
        }
        let session = &mut self.session;
        let owed = match &mut self.reading {
            Reading::Whole(reader) => {
                reader.buffer().extend_from_slice(rest);
                while let Some(message) = reader.next()? {
                    hear(session, message, &mut each)?;
                }
                reader.acknowledgement()
            }
            Reading::Skimming(skim) => {
                let ours = session.as_ref().map(|session| session.stream_id());
                let mut heard = Ok(());
                skim.take(rest, |type_id, stream_id, head| match type_id {
                    kind::AUDIO | kind::VIDEO if ours.is_none_or(|id| id == Some(stream_id)) => {
                        each(Said::Media(type_id, head));
                    }
                    kind::AUDIO | kind::VIDEO => {}
                    _ if heard.is_ok() => {
                        let message = Message {
                            type_id,
                            stream_id,
                            timestamp: 0,
                            payload: Bytes::copy_from_slice(head),
                        };
                        heard = hear(session, message, &mut each);
                    }
                    _ => {}
                })?;
                heard?;
                skim.acknowledgement()
            }
        };
        if let Some(session) = &mut self.session {
            if let Some(total) = owed {
                session.acknowledge(total);
            }
            link.buffer().extend_from_slice(&session.output());
        }
        link.flush()
    }
}

/// Hands a whole message to the session, and what it makes of it to `each`.
fn hear(
    session: &mut Option<Session>,
    message: Message,
    each: &mut impl FnMut(Said<'_>),
) -> Result<(), Failure> {
    let event = match session {
        None => Some(Event::Media(message)),
        Some(session) => session.handle(message)?,
    };
    match event {
        Some(Event::Refused { code, description }) => Err(Failure::Refused { code, description }),
        Some(Event::Closed { code, .. }) => Err(Failure::Ended(code)),
        Some(Event::Ready) => {
            each(Said::Ready);
            Ok(())
        }
        Some(Event::Media(message)) => {
            each(Said::Media(message.type_id, &message.payload));
            Ok(())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_handshake_suits_the_server_however_it_is_split() {
        let mut server = handshake::Server::new();
        let said = server.receive(&Shake::opening()).unwrap().reply;
        for at in [1, 1000, PACKET + 1, handshake::PEER_BYTES] {
            let bytes = [&said[..], b"more"].concat();
            let mut shake = Shake { heard: Vec::new() };
            let mut answer = BytesMut::new();
            let early = shake.take(&bytes[..at], &mut answer).unwrap();
            let rest = match early {
                Some(rest) => rest,
                None => shake.take(&bytes[at..], &mut answer).unwrap().unwrap(),
            };
            assert!(b"more".ends_with(rest), "split at {at}");
            assert_eq!(&answer[..], &said[1..1 + PACKET]);
        }
        let mut answer = BytesMut::new();
        server.receive(&said[1..1 + PACKET]).unwrap();
        let mut shake = Shake { heard: Vec::new() };
        assert!(matches!(
            shake.take(&[6], &mut answer),
            Err(Failure::Handshake(handshake::Error::Version(6)))
        ));
    }
}
