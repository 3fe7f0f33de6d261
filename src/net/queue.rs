//! What the kernel holds of a connection's output: how much it may, and how much the peer has not acknowledged.
//!
//! A byte that the kernel has taken can be neither dropped nor overtaken, so a late peer gets it first. Knows
//! bytes; what they are worth in time is the reader's room's business.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::Socket;

/// `SIOCOUTQ` of `linux/sockios.h`, by its other name `TIOCOUTQ` of `asm-generic/ioctls.h`.
const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;

// Architectures with an `asm/ioctls.h` of their own number it differently, and would ask for something else.
#[cfg(any(
    target_arch = "mips",
    target_arch = "mips64",
    target_arch = "powerpc",
    target_arch = "powerpc64",
    target_arch = "sparc64"
))]
compile_error!("SIOCOUTQ has another number on this architecture");

/// Bounds what the kernel queues for a peer, so that the policy decides what a late one gets: about `send_buffer`
/// bytes in all (0 leaves the kernel's own choice), `unsent` of them not yet sent.
///
/// The kernel doubles `send_buffer` and counts its own overhead into it: a message of 1.5 KB in a packet of its own
/// costs 2.3 to 2.8 KB of it, large ones next to nothing. Neither bound stops the packet being filled, which may
/// grow to 64 KB, so the queue ends up to that much later; [`unacknowledged`] says where it stands.
///
/// # Errors
/// When the socket refuses an option.
pub fn bound_queue(socket: &Socket, send_buffer: usize, unsent: u32) -> io::Result<()> {
    let socket = SockRef::from(socket.tcp());
    if send_buffer > 0 {
        socket.set_send_buffer_size(send_buffer)?;
    }
    socket.set_tcp_notsent_lowat(unsent)
}

/// Gives a connection up when data stays unacknowledged for `limit`, instead of after
/// [`USER_TIMEOUT`](super::USER_TIMEOUT); zero leaves it to the kernel, which takes many minutes.
///
/// # Errors
/// When the socket refuses the option.
pub fn give_up_after(socket: &Socket, limit: Duration) -> io::Result<()> {
    SockRef::from(socket.tcp()).set_tcp_user_timeout(Some(limit))
}

/// Bytes that were written and not acknowledged by the peer's TCP, sent or not. One system call of 0.2 µs, beside some
/// 3 µs for a write.
///
/// Inside TLS these are bytes of ciphertext, some 22 more for each record, that is for each write of up to 16 KiB, than
/// what the caller wrote. What is encrypted and waits for the kernel is among them: a record may be 0.37 s of a stream.
///
/// Acknowledged is not read: what lies in the receive buffer of an application that has stopped is out of reach.
///
/// # Errors
/// When the socket is no longer one.
pub fn unacknowledged(socket: &Socket) -> io::Result<usize> {
    let waiting = socket.session().map_or(0, |session| session.pending());
    Ok(waiting + usize::try_from(outstanding(socket.tcp())?).unwrap_or(0))
}

// Neither the standard library, tokio, socket2 nor rustix wraps this number; the safe
// way, asking over a netlink socket (sock_diag), costs two system calls and a lookup among all connections per reader.
#[allow(unsafe_code)]
fn outstanding(socket: &TcpStream) -> io::Result<i32> {
    // SAFETY: for a TCP socket, which `TcpStream` always is, SIOCOUTQ writes one C `int` to the address it is given
    // and does nothing else; `Getter` gives it the address of an `i32` of its own, and reads it only after success.
    let bytes =
        unsafe { rustix::ioctl::ioctl(socket, rustix::ioctl::Getter::<SIOCOUTQ, i32>::new()) };
    Ok(bytes?)
}

#[cfg(test)]
mod tests {
    use super::super::tests::pair;
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn bounds_reach_the_socket() {
        let (_client, server) = pair().await;
        bound_queue(&server, 65_536, 16_384).unwrap();
        let socket = SockRef::from(server.tcp());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 16_384);
        assert_eq!(socket.send_buffer_size().unwrap(), 2 * 65_536);
    }

    #[tokio::test]
    async fn what_the_peer_has_not_acknowledged_is_counted_until_it_has() {
        let (mut client, server) = pair().await;
        assert_eq!(unacknowledged(&server).unwrap(), 0);
        // More than the peer's receive buffer: part of it must stay here.
        let mut written = 0;
        loop {
            match server.try_write(&[7; 10_000]) {
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
        }
        let waiting = unacknowledged(&server).unwrap();
        assert!(waiting > 0 && waiting < written, "{waiting} of {written}");
        let mut heard = vec![0; written];
        client.read_exact(&mut heard).await.unwrap();
        // All of it has arrived; the last acknowledgement may be on its way.
        while unacknowledged(&server).unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
