//! The handshake of a connection.

use bytes::BytesMut;
use tracing::debug;

use crate::net::{self, Outbox, Socket};
use crate::reason::Reason;
use crate::rtmp::{chunk, handshake};

/// Shakes hands; what the client sent behind that is in the reader.
pub(super) async fn shake_hands(
    socket: &Socket,
    limits: chunk::Limits,
) -> Result<chunk::Reader, Reason> {
    let mut shake = handshake::Server::new();
    let mut outbox = Outbox::default();
    let mut buffer = BytesMut::with_capacity(4096);
    loop {
        match net::read_some(socket, &mut buffer).await {
            Ok(0) => return Err(Reason::Disconnected),
            Ok(_) => {}
            Err(_) => return Err(Reason::SocketError),
        }
        let progress = shake.receive(&buffer).map_err(|e| {
            debug!(error = %e, "handshake refused");
            e.reason()
        })?;
        buffer.clear();
        outbox
            .send(socket, &progress.reply)
            .map_err(|_| Reason::SocketError)?;
        while !outbox.is_empty() {
            socket.writable().await.map_err(|_| Reason::SocketError)?;
            outbox.flush(socket).map_err(|_| Reason::SocketError)?;
        }
        if let Some(rest) = progress.done {
            let mut reader = chunk::Reader::new(limits);
            reader.buffer().extend_from_slice(&rest);
            return Ok(reader);
        }
    }
}
