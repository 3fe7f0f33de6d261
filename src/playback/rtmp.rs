//! One RTMP player: waits for its stream, answers, joins a writer loop, and listens to what the client says.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};

use super::beside::{self, Playing};
use super::fanout::Line;
use super::reader::Joiner;
use super::waiting::Waited;
use super::wish::Wish;
use super::{ANSWER_DEADLINE, Arrival, Shared};
use crate::logging::refused;
use crate::media::{Class, Feed, StreamKey};
use crate::net::{self, Socket};
use crate::reason::Reason;
use crate::relay::door::{Beside, Handover, Played, Return};
use crate::relay::{Framing, Subscriber};
use crate::rtmp::chatter::{self, Chatter};
use crate::rtmp::chunk;
use crate::rtmp::session::server::{Event, Session};

/// Status codes of a play that cannot be.
const NOT_FOUND: &str = "NetStream.Play.StreamNotFound";
const FAILED: &str = "NetStream.Play.Failed";
/// What a player hears that a ban ends.
pub(super) const BANNED: &str = "banned by the operator";

/// Attaches a reader to its feed, if there is room for one more of its class; the error says why not.
pub(super) fn subscribe(
    shared: &Shared,
    key: &StreamKey,
    feed: Feed,
    class: Class,
) -> Result<Subscriber, String> {
    let limit = shared.config.class(class).readers_per_name;
    let subscriber = shared.relay.subscribe(key, feed, class);
    if limit > 0 && subscriber.readers() > limit {
        shared.metrics.limit_refused("readers_per_name");
        let class = class.as_str();
        return Err(format!(
            "{limit} readers of class {class} already play this stream"
        ));
    }
    Ok(subscriber)
}

/// Serves one player to its end, or until its connection asks for more.
///
/// It lasts for hours, most of them in [`listen`]: what is rare on the way there and from there has room of its own.
pub(super) async fn play(shared: &Arc<Shared>, mut handover: Box<Handover>) -> Played {
    let class = handover.class;
    let subscribed = subscribe(shared, &handover.key, handover.feed, class);
    let subscriber = match subscribed {
        Ok(subscriber) => subscriber,
        Err(why) => {
            let reason = Reason::LimitReached;
            return Played::Over(refuse(handover, FAILED, &why, reason).await);
        }
    };
    match Box::pin(wait_for_stream(shared, &mut handover, &subscriber)).await {
        Ok(Wait::Over) => {}
        Ok(Wait::AsksMore(request)) => return give_back(shared, handover, request),
        Err(Waited::Gone(reason)) => return Played::Over(reason),
        Err(Waited::Refused(why, reason)) => {
            let code = if reason == Reason::NotFound {
                NOT_FOUND
            } else {
                FAILED
            };
            return Played::Over(refuse(handover, code, &why, reason).await);
        }
    }
    serve(shared, handover, subscriber).await
}

/// A player that still waits, whose connection asks for more: it waits on beside.
fn give_back(shared: &Arc<Shared>, handover: Box<Handover>, request: Box<Event>) -> Played {
    let socket = Arc::new(handover.socket);
    let beside = Beside {
        socket: socket.clone(),
        peer: handover.peer,
        stream_id: handover.stream_id,
        key: handover.key,
        feed: handover.feed,
        class: handover.class,
        eviction: handover.eviction,
    };
    Played::AsksMore(Box::new(Return {
        socket,
        session: handover.session,
        reader: handover.reader,
        request,
        stream_id: handover.stream_id,
        name: handover.name,
        guest: beside::play(shared.clone(), beside),
        has_begun: false,
    }))
}

/// Serves a player whose stream is there.
async fn serve(
    shared: &Arc<Shared>,
    mut handover: Box<Handover>,
    mut subscriber: Subscriber,
) -> Played {
    let class = shared.config.class(handover.class);
    let stream_id = handover.stream_id;
    handover.session.accept_play(stream_id, &handover.name);
    let private = subscriber.join(class.join);
    let socket = Arc::new(handover.socket);
    let (outcome, mut over) = oneshot::channel();
    let (released, let_go) = oneshot::channel();
    info!(stream = %subscriber.key(), feed = subscriber.feed().as_str(), class = handover.class.as_str(), "player joined");
    let joined = shared.fanout.join(Joiner {
        id: shared.fanout.next_id(),
        socket: socket.clone(),
        turns: None,
        arrival: Arrival {
            door: if socket.is_encrypted() {
                "rtmps"
            } else {
                "rtmp"
            },
            peer: handover.peer,
            since: SystemTime::now(),
        },
        subscriber,
        class: handover.class,
        framing: Framing::Rtmp { stream_id },
        first: handover.session.output(),
        private,
        outcome,
        released,
    });
    let (session, reader) = (&mut handover.session, &mut handover.reader);
    let line = match joined {
        Ok(line) => line,
        Err(overrun) => {
            session.close(Reason::LimitReached, &overrun.to_string());
            // The loop that could not take the player let go of its share.
            if let Some(socket) = Arc::into_inner(socket) {
                net::close(socket, &session.output()).await;
            }
            return Played::Over(Reason::LimitReached);
        }
    };
    let heard = listen(shared, &socket, session, reader, &line, &mut over);
    let reason = tokio::select! {
        heard = heard => match heard {
            Heard::Over(reason) => reason,
            Heard::AsksMore(request) => {
                let eviction = handover.eviction;
                let playing = Playing { line, told: over, let_go, eviction };
                return Played::AsksMore(Box::new(Return {
                    socket,
                    session: handover.session,
                    reader: handover.reader,
                    request,
                    stream_id,
                    name: handover.name,
                    guest: beside::go_on(shared.clone(), playing),
                    has_begun: true,
                }));
            }
        },
        reason = &mut handover.eviction => reason,
    };
    let (session, name) = (&mut handover.session, &handover.name);
    match reason {
        Reason::StreamEnded => session.end_play(stream_id, name, reason),
        Reason::Shutdown => {
            // Before the end: a client that is told to come back takes the end for what it is.
            session.request_reconnect(reason, "the server is going down");
            session.end_play(stream_id, name, reason);
        }
        Reason::TooSlow => {
            let stuck = class.budget.stuck.as_secs();
            let why = format!("too slow: nothing was taken for {stuck} s");
            session.close(reason, &why);
        }
        Reason::Dropped => session.close(reason, "dropped by the operator"),
        Reason::Banned => session.close(reason, BANNED),
        // What it said was too much or made no sense; the session has the words for it already.
        Reason::LimitReached | Reason::Protocol | Reason::Amf | Reason::TooLarge => {}
        _ => return Played::Over(reason),
    }
    super::part(line, session.output(), let_go, socket).await;
    Played::Over(reason)
}

/// What ends the hearing of a player.
enum Heard {
    Over(Reason),
    /// It asks to publish or to play besides.
    AsksMore(Box<Event>),
}

/// Hears the client out while the writer loop serves it. [`Reason::StreamEnded`], [`Reason::Shutdown`],
/// [`Reason::TooSlow`] and [`Reason::Dropped`] are ends that the client is still to be told of; what is wrong with
/// what it says, the session has words for.
async fn listen(
    shared: &Shared,
    socket: &Socket,
    session: &mut Session,
    reader: &mut chunk::Reader,
    line: &Line,
    over: &mut oneshot::Receiver<Reason>,
) -> Heard {
    let mut chatter = Chatter::new(reader.received(), std::time::Instant::now());
    loop {
        if !chatter.allows(reader.received(), std::time::Instant::now()) {
            let limit = chatter::BYTES_PER_SECOND;
            debug!(limit, "player closed: it says more a second than the limit");
            let why = format!("more than {limit} bytes a second of commands");
            session.close(Reason::LimitReached, &why);
            return Heard::Over(Reason::LimitReached);
        }
        // What the client said comes first: bytes that arrived with the request are in the buffer already.
        while let Some(said) = next(session, reader) {
            match said {
                Ok(wish) if line.wish(wish).await => {}
                Ok(_) => return Heard::Over(Reason::TooSlow),
                Err(heard) => return heard,
            }
        }
        if let Some(total) = reader.acknowledgement() {
            session.acknowledge(total);
        }
        let answer = session.output();
        if !answer.is_empty() && !line.control(answer).await {
            return Heard::Over(Reason::TooSlow);
        }
        tokio::select! {
            outcome = &mut *over => return Heard::Over(super::end_of(outcome)),
            () = shared.shutdown.cancelled() => return Heard::Over(Reason::Shutdown),
            read = read_more(socket, reader) => match read {
                Ok(0) => return Heard::Over(Reason::Disconnected),
                Ok(_) => {}
                Err(_) => return Heard::Over(Reason::SocketError),
            },
        }
    }
}

/// The next wish among what has come, or what ends the hearing; `None`: there is nothing more.
fn next(session: &mut Session, reader: &mut chunk::Reader) -> Option<Result<Wish, Heard>> {
    loop {
        let message = match reader.next() {
            Ok(message) => message?,
            Err(e) => {
                debug!(error = %e, "player's bytes make no sense");
                session.close(e.reason(), &e.to_string());
                return Some(Err(Heard::Over(e.reason())));
            }
        };
        match session.handle(message) {
            Ok(Some(Event::StopPlay { .. })) => return Some(Err(Heard::Over(Reason::Closed))),
            Ok(Some(request @ (Event::Publish { .. } | Event::Play { .. }))) => {
                return Some(Err(Heard::AsksMore(Box::new(request))));
            }
            Ok(event) => {
                if let Some(wish) = event.and_then(wish) {
                    return Some(Ok(wish));
                }
            }
            Err(e) => {
                debug!(error = %e, "player's command refused");
                session.close(e.reason(), &e.to_string());
                return Some(Err(Heard::Over(e.reason())));
            }
        }
    }
}

/// Waits for more from a client that seldom says anything: room to read it to is made when there is something to read.
async fn read_more(socket: &Socket, reader: &mut chunk::Reader) -> io::Result<usize> {
    loop {
        reader.rest();
        socket.readable().await?;
        match socket.try_read_buf(reader.buffer()) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// What an event of the session asks of the writer loop.
pub(super) fn wish(event: Event) -> Option<Wish> {
    match event {
        Event::Pause { on, .. } => Some(Wish::Pause(on)),
        Event::ReceiveAudio { on, .. } => Some(Wish::Audio(on)),
        Event::ReceiveVideo { on, .. } => Some(Wish::Video(on)),
        _ => None,
    }
}

/// What ends a wait.
enum Wait {
    /// The stream is there.
    Over,
    /// The connection asks to publish or to play besides.
    AsksMore(Box<Event>),
}

/// Holds a player that came before its publisher, within bounds.
async fn wait_for_stream(
    shared: &Shared,
    handover: &mut Handover,
    subscriber: &Subscriber,
) -> Result<Wait, Waited> {
    if subscriber.is_fed() {
        return Ok(Wait::Over);
    }
    let _place = shared
        .waiting
        .enter(&handover.key, handover.peer.ip())
        .inspect_err(|full| shared.metrics.limit_refused(full.limit()))?;
    let deadline = Instant::now() + shared.waiting.patience();
    loop {
        loop {
            match handover.reader.next() {
                Ok(Some(message)) => match handover.session.handle(message) {
                    Ok(Some(Event::StopPlay { .. })) => return Err(Waited::Gone(Reason::Closed)),
                    Ok(Some(request @ (Event::Publish { .. } | Event::Play { .. }))) => {
                        return Ok(Wait::AsksMore(Box::new(request)));
                    }
                    Ok(_) => {}
                    Err(e) => return Err(Waited::Refused(e.to_string(), e.reason())),
                },
                Ok(None) => break,
                Err(e) => return Err(Waited::Refused(e.to_string(), e.reason())),
            }
        }
        let answer = handover.session.output();
        if !answer.is_empty() {
            send(&handover.socket, &answer)
                .await
                .map_err(Waited::Gone)?;
        }
        tokio::select! {
            () = subscriber.fed() => return Ok(Wait::Over),
            () = tokio::time::sleep_until(deadline) => return Err(shared.waiting.in_vain()),
            () = shared.shutdown.cancelled() => return Err(Waited::going_down()),
            reason = &mut handover.eviction => {
                return Err(Waited::Refused(BANNED.to_owned(), reason));
            }
            read = read_more(&handover.socket, &mut handover.reader) => match read {
                Ok(0) => return Err(Waited::Gone(Reason::Disconnected)),
                Ok(_) => {}
                Err(_) => return Err(Waited::Gone(Reason::SocketError)),
            },
        }
    }
}

/// Writes an answer while nothing else writes to the socket.
async fn send(socket: &Socket, bytes: &[u8]) -> Result<(), Reason> {
    let deadline = Instant::now() + ANSWER_DEADLINE;
    let mut rest = bytes;
    while !rest.is_empty() {
        match timeout_at(deadline, socket.writable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Reason::SocketError),
            Err(_) => return Err(Reason::TooSlow),
        }
        match socket.try_write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Reason::SocketError),
        }
    }
    Ok(())
}

async fn refuse(mut handover: Box<Handover>, code: &str, why: &str, reason: Reason) -> Reason {
    refused!(reason, stream = %handover.key, peer = %handover.peer, "play refused: {why}");
    let stream_id = handover.stream_id;
    handover.session.refuse_play(stream_id, code, reason, why);
    net::close(handover.socket, &handover.session.output()).await;
    reason
}
