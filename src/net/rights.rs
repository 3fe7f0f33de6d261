//! Descriptors through a Unix socket: how listeners go from one process to the next.
//!
//! A socket that two processes have is one socket with one queue: who connects while one stops accepting and the other has not
//! begun waits there. `SO_REUSEPORT` would give each process a queue of its own, and what waits in the queue of the one that
//! closes is reset.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Descriptors of one message. The kernel's own limit is 253.
pub const MOST: usize = 64;

/// Sends bytes, of which there is at least one, and descriptors along with them.
///
/// # Errors
/// When the socket breaks, takes only a part, or there are more than [`MOST`].
pub async fn send(socket: &UnixStream, bytes: &[u8], rights: &[BorrowedFd<'_>]) -> io::Result<()> {
    let sent = socket.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !rights.is_empty() && !control.push(SendAncillaryMessage::ScmRights(rights)) {
            let many = format!(
                "{} descriptors, and {MOST} may be sent at once",
                rights.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, many));
        }
        let bytes = [IoSlice::new(bytes)];
        let sent = rustix::net::sendmsg(socket.as_fd(), &bytes, &mut control, SendFlags::NOSIGNAL);
        Ok(sent?)
    });
    match sent.await? {
        all if all == bytes.len() => Ok(()),
        // Some kilobytes to somebody who reads fit.
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Receives bytes, at most as many as there is room for, and the descriptors that came with them. No bytes: the other side is gone.
///
/// # Errors
/// When the socket breaks.
pub async fn receive(socket: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    socket
        .async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [IoSliceMut::new(&mut *bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let got = rustix::net::recvmsg(socket.as_fd(), &mut bytes, &mut control, flags)?;
            let rights = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(rights) => Some(rights),
                _ => None,
            });
            Ok((got.bytes, rights.flatten().collect()))
        })
        .await
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_listener_arrives_with_the_queue_that_it_had() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let early = std::net::TcpStream::connect(address).unwrap();
        send(&ours, b"one", &[listener.as_fd()]).await.unwrap();
        drop((ours, listener));
        let mut bytes = [0; 16];
        let (length, mut rights) = receive(&theirs, &mut bytes).await.unwrap();
        assert_eq!((&bytes[..length], rights.len()), (&b"one"[..], 1));
        let arrived = TcpListener::from(rights.remove(0));
        let (_, peer) = arrived.accept().unwrap();
        assert_eq!(peer, early.local_addr().unwrap());
        assert_eq!(receive(&theirs, &mut bytes).await.unwrap().0, 0);
    }
}
