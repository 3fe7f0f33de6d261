//! A client's connection, whatever carries its bytes: the rooms above read and write it without knowing.

use std::io::{self, IoSlice};
use std::net::Shutdown;

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::SockRef;
use tokio::net::TcpStream;

/// A connection that is read and written without waiting, or after waiting for it to be ready.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
}

impl Socket {
    /// Bytes travel as they are.
    pub fn plain(tcp: TcpStream) -> Self {
        Self { tcp }
    }

    /// The TCP connection underneath, for its options and counters; never for media or commands.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Waits until something may be read.
    ///
    /// # Cancel safety
    /// Safe: it takes nothing.
    pub async fn readable(&self) -> io::Result<()> {
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
        self.tcp.try_read_buf(buffer)
    }

    /// Writes as much as is taken now.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.try_write(bytes)
    }

    /// As [`Self::try_write`], for a writer that expects the socket to take it: asks the kernel first and the
    /// readiness that the runtime has noted only where the kernel would block. Afterwards [`Self::writable`] waits.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is taken.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match rustix::net::send(&self.tcp, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(written) => Ok(written),
            Err(Errno::AGAIN | Errno::INTR) => self.tcp.try_write(bytes),
            Err(e) => Err(e.into()),
        }
    }

    /// As [`Self::try_write`], from several places in one go.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.tcp.try_write_vectored(slices)
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

    /// Says that nothing more will be written.
    pub fn shut_down(&self) -> io::Result<()> {
        SockRef::from(&self.tcp).shutdown(Shutdown::Write)
    }
}
