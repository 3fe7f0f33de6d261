//! A connection's way: the handshake, the lanes of publishers, the door of playback and back, until it ends.
//!
//! Owns the order of these and what of the connection is kept meanwhile; what is said on the way is the connection's.

use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Instant;

use tokio::time::timeout_at;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::greeting::shake_hands;
use super::{Calls, Companion, Connection, Next, PlayRequest, Shared};
use crate::logging::ConnectionId;
use crate::net::{self, Socket};
use crate::reason::Reason;
use crate::relay::door::{Handover, Played};
use crate::rtmp::chunk;

/// Serves one connection and says why it ended. The handshake must be done by `deadline`.
///
/// A player stays for hours, beyond the door of playback: what comes before it, and after it, has room of its own, which is
/// given back.
pub(in crate::ingest) async fn run(
    shared: &Arc<Shared>,
    socket: Socket,
    id: ConnectionId,
    peer: SocketAddr,
    deadline: Instant,
) -> Reason {
    if net::tune(socket.tcp()).is_err() {
        return Reason::SocketError;
    }
    let shake = Box::pin(shake_hands(&socket, shared.config.chunks));
    let shaken = tokio::select! {
        shaken = timeout_at(deadline.into(), shake) => shaken,
        () = shared.shutdown.cancelled() => return Reason::Shutdown,
    };
    let reader = match shaken {
        Ok(Ok(reader)) => reader,
        Ok(Err(reason)) => return reason,
        Err(_) => return Reason::Timeout,
    };
    let mut connection = Connection::new(shared, id, peer, reader);
    let mut socket = Arc::new(socket);
    loop {
        let asks = match Box::pin(serve(connection, socket)).await {
            Ok(asks) => asks,
            Err(reason) => return reason,
        };
        let handover;
        (connection, handover) = asks.hand_over();
        let back = match shared.door.play(handover).await {
            Played::Over(reason) => return reason,
            Played::AsksMore(back) => *back,
        };
        socket = back.socket;
        connection.session = back.session;
        connection.reader = back.reader;
        connection.calls.look_again();
        connection.asked = Some(back.request);
        connection.companions.push(Companion::new(
            back.stream_id,
            back.name,
            back.guest,
            back.has_begun,
        ));
    }
}

/// A connection that is to play and does nothing else.
struct Asks {
    connection: Box<Connection>,
    socket: Socket,
    request: PlayRequest,
}

impl Asks {
    /// What goes through the door of playback, and what of the connection stays.
    fn hand_over(self) -> (Box<Connection>, Box<Handover>) {
        let Self {
            mut connection,
            socket,
            request,
        } = self;
        let stay = request.stay;
        let handover = Box::new(Handover {
            socket,
            peer: connection.peer,
            session: std::mem::take(&mut connection.session),
            reader: std::mem::replace(
                &mut connection.reader,
                chunk::Reader::new(connection.shared.config.chunks),
            ),
            stream_id: request.stream_id,
            name: request.name,
            key: request.key,
            feed: request.feed,
            class: request.class,
            eviction: Box::pin(async move {
                stay.ended().await;
                Reason::Banned
            }),
        });
        (connection, handover)
    }
}

/// Serves a connection until it is to play and does nothing else. The error is the end of one that has ended.
async fn serve(mut connection: Box<Connection>, mut socket: Arc<Socket>) -> Result<Asks, Reason> {
    let mut next = connection.serve(&mut socket).await;
    if let Next::Publishes = next {
        (connection, socket, next) = serve_apart(connection, socket).await?;
    }
    let request = match next {
        Next::Over(reason) => {
            let last_words = connection.part(reason);
            // What it held is not kept while it hears them.
            drop(connection);
            // `None`: a player could not let go of it in time.
            if let Some(socket) = Arc::into_inner(socket) {
                net::close(socket, &last_words).await;
            }
            return Err(reason);
        }
        // No answer of those who are apart already.
        Next::Publishes => return Err(Reason::Internal),
        Next::Play(request) => request,
    };
    let Some(Ok(socket)) = Arc::into_inner(socket).map(Socket::settle) else {
        return Err(Reason::SocketError);
    };
    // Nothing waits here unless the client sent commands without reading any answer.
    if !connection.outbox.is_empty() {
        return Err(Reason::TooSlow);
    }
    Ok(Asks {
        connection,
        socket,
        request,
    })
}

/// Goes on serving on a thread that only reads publishers, until the connection ends or wants to play. The error is that
/// of a connection which ended with that.
async fn serve_apart(
    mut connection: Box<Connection>,
    socket: Arc<Socket>,
) -> Result<(Box<Connection>, Arc<Socket>, Next), Reason> {
    let place = connection.shared.lanes.enter();
    connection.is_apart = true;
    connection.calls = Calls::new();
    let serve = Box::pin(async move {
        // Nobody else has it yet.
        let socket = Arc::into_inner(socket).map(Socket::settle);
        let Some(Ok(socket)) = socket else {
            return Err(Reason::SocketError);
        };
        let mut socket = Arc::new(socket);
        let next = connection.serve(&mut socket).await;
        Ok((connection, socket, next))
    });
    let Some(place) = place else {
        return serve.await;
    };
    let task = place.runtime().spawn(serve.in_current_span());
    match AbortOnDropHandle::new(task).await {
        Ok(back) => back,
        // What it held is free; here it is counted.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(Reason::Shutdown),
        },
    }
}
