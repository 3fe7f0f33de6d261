//! One RTMP connection from accept to its end, or to the door of playback.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::{sleep_until, timeout_at};
use tracing::{debug, info};

use super::Shared;
use super::publishing::Publishing;
use crate::auth::{Action, Grant, Refusal, Request, Stay};
use crate::media::StreamKey;
use crate::memory::Charge;
use crate::net::{self, Outbox, Socket};
use crate::reason::Reason;
use crate::relay::door::Handover;
use crate::relay::{Bell, Origin, Query};
use crate::rtmp::session::server::{ConnectInfo, Event, Session};
use crate::rtmp::{chunk, handshake};

/// Status codes of refusals.
const CONNECT_REJECTED: &str = "NetConnection.Connect.Rejected";
const PUBLISH_BAD_NAME: &str = "NetStream.Publish.BadName";
const PUBLISH_DENIED: &str = "NetStream.Publish.Denied";
const PLAY_FAILED: &str = "NetStream.Play.Failed";
const PLAY_NOT_FOUND: &str = "NetStream.Play.StreamNotFound";
/// How long a publisher that was asked to reconnect is still listened to when the server goes down: until its next key
/// frame, says Enhanced RTMP; this is what a shutdown has time for.
const RECONNECT_GRACE: Duration = Duration::from_secs(2);

/// Whoever holds this much before he publishes sends large messages, which nobody needs to do.
const HEAVY: usize = 64 << 10;

/// Serves one connection and says why it ended. The handshake must be done by `deadline`.
pub(super) async fn run(
    shared: &Shared,
    socket: Socket,
    peer: SocketAddr,
    deadline: Instant,
) -> Reason {
    if net::tune(socket.tcp()).is_err() {
        return Reason::SocketError;
    }
    let mut reader = chunk::Reader::new(shared.config.chunks);
    let shaken = timeout_at(deadline.into(), shake_hands(&socket, &mut reader));
    let shaken = tokio::select! {
        shaken = shaken => shaken,
        () = shared.shutdown.cancelled() => return Reason::Shutdown,
    };
    match shaken {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => return reason,
        Err(_) => return Reason::Timeout,
    }
    let mut connection = Connection {
        shared,
        peer,
        reader,
        session: Session::new(),
        outbox: Outbox::default(),
        connected: None,
        publishing: Vec::new(),
        bell: Bell::new(),
        held: shared.config.memory.open(),
        stage_deadline: Instant::now() + shared.config.stage_deadline,
        leaving: None,
    };
    match connection.serve(&socket).await {
        Next::Over(reason) => {
            let last_words = connection.part(reason);
            net::close(socket, &last_words).await;
            reason
        }
        Next::Play(request) => {
            let outbox = std::mem::take(&mut connection.outbox);
            let Connection {
                reader, session, ..
            } = connection;
            // Nothing waits here unless the client sent commands without reading any answer.
            if !outbox.is_empty() {
                return Reason::TooSlow;
            }
            let played = shared.door.play(Handover {
                socket,
                peer,
                session,
                reader,
                stream_id: request.stream_id,
                name: request.name,
                key: request.key,
                feed: request.feed,
                class: request.class,
            });
            // Dropping it takes the player out of wherever it is.
            tokio::select! {
                reason = played => reason,
                () = request.stay.ended() => Reason::Banned,
            }
        }
    }
}

async fn shake_hands(socket: &Socket, reader: &mut chunk::Reader) -> Result<(), Reason> {
    let mut shake = handshake::Server::new();
    let mut outbox = Outbox::default();
    let mut buffer = bytes::BytesMut::with_capacity(4096);
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
            reader.buffer().extend_from_slice(&rest);
            return Ok(());
        }
    }
}

struct Connection<'a> {
    shared: &'a Shared,
    peer: SocketAddr,
    reader: chunk::Reader,
    session: Session,
    outbox: Outbox,
    connected: Option<ConnectInfo>,
    /// The epochs that it holds, one per message stream that publishes.
    publishing: Vec<Publishing>,
    /// Rung when one of them is to go.
    bell: Bell,
    /// What its unfinished messages take of the memory for all.
    held: Charge,
    /// By when the client must publish or play, while it does neither.
    stage_deadline: Instant,
    /// The server goes down, and the client was asked to reconnect by then.
    leaving: Option<Instant>,
}

/// What comes after the loop.
enum Next {
    Over(Reason),
    Play(PlayRequest),
}

struct PlayRequest {
    stream_id: u32,
    name: String,
    key: StreamKey,
    feed: crate::media::Feed,
    class: crate::media::Class,
    stay: Stay,
}

impl Connection<'_> {
    async fn serve(&mut self, socket: &Socket) -> Next {
        loop {
            if let Some(next) = self.take_messages().await {
                return next;
            }
            if !self.may_hold() {
                return Next::Over(Reason::Overloaded);
            }
            if let Err(e) = self.answer(socket) {
                debug!(error = %e, "connection broke");
                return Next::Over(Reason::SocketError);
            }
            let idle = self.publishing.iter().map(Publishing::idle_at).min();
            let deadline = self.leaving.or(idle).unwrap_or(self.stage_deadline);
            // What came before the deadline has been taken by now, also when we were late to read it. A client that
            // never stops talking would keep the timer below from being asked.
            if Instant::now() >= deadline {
                if let Some(over) = self.expire() {
                    return over;
                }
                continue;
            }
            tokio::select! {
                biased;
                () = self.shared.shutdown.cancelled(), if self.leaving.is_none() => {
                    let asked = !self.publishing.is_empty()
                        && self.session.request_reconnect("the server is going down");
                    if !asked {
                        return Next::Over(Reason::Shutdown);
                    }
                    self.leaving = Some(Instant::now() + RECONNECT_GRACE);
                }
                () = self.bell.rung() => {
                    if let Some(over) = self.end_each(|p, _| p.publisher().eviction()) {
                        return over;
                    }
                }
                at = banned(&mut self.publishing) => {
                    if let Some(over) = self.end(at, Reason::Banned) {
                        return over;
                    }
                }
                read = net::read_some(socket, self.reader.buffer()) => match read {
                    Ok(0) => return Next::Over(Reason::Disconnected),
                    Ok(_) => {}
                    Err(e) => {
                        debug!(error = %e, "connection broke");
                        return Next::Over(Reason::SocketError);
                    }
                },
                _ = socket.writable(), if !self.outbox.is_empty() => {}
                // The deadline is read anew each turn; this only wakes a connection that says nothing.
                () = sleep_until(deadline.into()) => {}
            }
        }
    }

    /// The deadline has passed: of the whole connection, or of those of its epochs that brought no media. `Some` ends
    /// the loop.
    fn expire(&mut self) -> Option<Next> {
        if self.leaving.is_some() {
            return Some(Next::Over(Reason::Shutdown));
        }
        if self.publishing.is_empty() {
            return Some(Next::Over(Reason::Timeout));
        }
        self.end_each(|p, now| (p.idle_at() <= now).then_some(Reason::Idle))
    }

    /// Accounts for what the reader holds. `false`: a stranger holds much of what there is too little of.
    fn may_hold(&mut self) -> bool {
        let held = self.reader.held();
        self.held.set(held);
        !self.publishing.is_empty() || held < HEAVY || !self.shared.config.memory.is_full()
    }

    /// Sends what the session has to say and the acknowledgement that is due.
    fn answer(&mut self, socket: &Socket) -> io::Result<()> {
        if let Some(total) = self.reader.acknowledgement() {
            self.session.acknowledge(total);
        }
        let output = self.session.output();
        if output.is_empty() && self.outbox.is_empty() {
            return Ok(());
        }
        self.outbox.send(socket, &output)
    }

    /// Acts on every whole message received. `Some` ends the loop.
    async fn take_messages(&mut self) -> Option<Next> {
        let now = Instant::now();
        loop {
            let message = match self.reader.next() {
                Ok(Some(message)) => message,
                Ok(None) => {
                    for publishing in &self.publishing {
                        if self.reader.is_inside_media(publishing.stream_id) {
                            publishing.publisher().progress(now);
                        }
                    }
                    return None;
                }
                Err(e) => {
                    info!(error = %e, "bytes make no sense");
                    return Some(Next::Over(e.reason()));
                }
            };
            let event = match self.session.handle(message) {
                Ok(Some(event)) => event,
                Ok(None) => continue,
                Err(e) => {
                    info!(error = %e, "command refused");
                    return Some(Next::Over(e.reason()));
                }
            };
            if let Some(next) = self.act(event, now).await {
                return Some(next);
            }
        }
    }

    async fn act(&mut self, event: Event, now: Instant) -> Option<Next> {
        match event {
            Event::Media(message) => {
                let stream_id = message.stream_id;
                let ours = |p: &Publishing| p.stream_id == stream_id;
                let at = self.publishing.iter().position(ours)?;
                let bytes = message.payload.len();
                if !self.publishing[at].is_within_bitrate(bytes, now) {
                    return self.end(at, Reason::TooFast);
                }
                if self.publishing[at].accept(message, &self.shared.metrics, now) {
                    return None;
                }
                // Taken over or dropped; the bell rings too, but its media came first.
                let told = self.publishing[at].publisher().eviction();
                self.end(at, told.unwrap_or(Reason::Dropped))
            }
            Event::Connect(info) => self.connect(info),
            Event::Publish {
                stream_id,
                name,
                query,
                ..
            } => self.publish(stream_id, &name, &query).await,
            Event::Play {
                stream_id,
                name,
                query,
                ..
            } => self.play(stream_id, name, &query).await,
            Event::Unpublish { stream_id, how } => {
                let reason = how.reason();
                let at = self
                    .publishing
                    .iter()
                    .position(|p| p.stream_id == stream_id)?;
                let ours = self.publishing.swap_remove(at);
                info!(stream = %ours.publisher().key(), %reason, "publisher ended");
                ours.finish(reason);
                self.stage_deadline = Instant::now() + self.shared.config.stage_deadline;
                None
            }
            _ => None,
        }
    }

    fn connect(&mut self, info: ConnectInfo) -> Option<Next> {
        if self.shared.app(&info.app).is_none() {
            // The name is the client's; it is shown only as far as a valid one could be.
            let shown: String = info.app.chars().take(64).collect();
            info!(app = ?shown, "application not configured");
            let why = "this application is not configured here";
            self.session.refuse_connect(CONNECT_REJECTED, why);
            return Some(Next::Over(Reason::UnknownApp));
        }
        self.session.accept_connect();
        self.connected = Some(info);
        None
    }

    async fn publish(&mut self, stream_id: u32, name: &str, query: &str) -> Option<Next> {
        let key = match self.key(name) {
            Ok(key) => key,
            Err(refusal) => return self.refuse_publish(stream_id, PUBLISH_BAD_NAME, refusal),
        };
        if query.len() > Query::MAX_BYTES {
            let message = format!(
                "query of {} bytes exceeds the limit of {}",
                query.len(),
                Query::MAX_BYTES
            );
            let refusal = Refusal::new(Reason::TooLarge, message);
            return self.refuse_publish(stream_id, PUBLISH_DENIED, refusal);
        }
        let (key_id, stay) = match self.authorize(Action::Publish, &key, query).await {
            Ok((grant, stay)) => (grant.key().map(ToString::to_string), stay),
            Err(refusal) => return self.refuse_publish(stream_id, PUBLISH_DENIED, refusal),
        };
        let origin = Origin::Anchor {
            address: self.peer,
            key_id,
            query: Query::new(query),
        };
        let (bell, now) = (self.bell.clone(), Instant::now());
        match self.shared.relay.publish_with(&key, origin, bell, now) {
            Ok(publisher) => {
                info!(stream = %key, "publisher connected");
                self.session.accept_publish(stream_id, name);
                let app = self.shared.app(key.app()).unwrap_or_default();
                let publishing = Publishing::new(stream_id, publisher, &app, stay, now);
                self.publishing.push(publishing);
                None
            }
            Err(e) => {
                let refusal = Refusal::new(Reason::NameBusy, e.to_string());
                self.refuse_publish(stream_id, PUBLISH_BAD_NAME, refusal)
            }
        }
    }

    /// The client hears why, and the connection ends, unless it publishes something else.
    fn refuse_publish(&mut self, stream_id: u32, code: &str, refusal: Refusal) -> Option<Next> {
        info!(reason = %refusal.reason, "publish refused: {}", refusal.message);
        self.session
            .refuse_publish(stream_id, code, &refusal.message);
        self.over_unless_publishing(refusal.reason)
    }

    fn over_unless_publishing(&self, reason: Reason) -> Option<Next> {
        self.publishing.is_empty().then_some(Next::Over(reason))
    }

    async fn play(&mut self, stream_id: u32, name: String, query: &str) -> Option<Next> {
        if !self.publishing.is_empty() {
            // Behind the door nobody would take its media, or notice when it stops. What it publishes goes on.
            let why = "this connection publishes; open another to play";
            info!(reason = %Reason::LimitReached, "play refused: {why}");
            self.session.refuse_play(stream_id, PLAY_FAILED, why);
            return None;
        }
        let decided = match self.key(&name) {
            Ok(key) => self
                .authorize(Action::Play, &key, query)
                .await
                .map(|(grant, stay)| (key, grant, stay)),
            Err(refusal) => Err(refusal),
        };
        Some(match decided {
            Ok((key, Grant::Play { feed, class, .. }, stay)) => Next::Play(PlayRequest {
                stream_id,
                name,
                key,
                feed,
                class,
                stay,
            }),
            Ok((_, Grant::Publish { .. }, _)) => Next::Over(Reason::Internal),
            Err(refusal) => {
                info!(reason = %refusal.reason, "play refused: {}", refusal.message);
                let code = if refusal.reason == Reason::BadName {
                    PLAY_NOT_FOUND
                } else {
                    PLAY_FAILED
                };
                self.session.refuse_play(stream_id, code, &refusal.message);
                Next::Over(refusal.reason)
            }
        })
    }

    fn key(&self, name: &str) -> Result<StreamKey, Refusal> {
        let app = self.connected.as_ref().map_or("", |c| c.app.as_str());
        StreamKey::new(app, name).map_err(|e| Refusal::new(Reason::BadName, e.to_string()))
    }

    async fn authorize(
        &self,
        action: Action,
        key: &StreamKey,
        query: &str,
    ) -> Result<(Grant, Stay), Refusal> {
        let request = Request {
            action,
            key,
            query,
            peer: self.peer,
            now: SystemTime::now(),
        };
        let authorizer = &self.shared.authorizer;
        let decision = authorizer.authorize(&request).await;
        let decision = decision.and_then(|grant| {
            let stay = authorizer.admit(&request, &grant)?;
            Ok((grant, stay))
        });
        let outcome = decision
            .as_ref()
            .map_or_else(|refusal| refusal.reason.code(), |_| "granted");
        let action = match action {
            Action::Publish => "publish",
            Action::Play => "play",
        };
        self.shared.metrics.auth(action, outcome);
        decision
    }

    /// Ends each epoch for which there is a reason. `Some` when none is left.
    fn end_each(
        &mut self,
        reason: impl Fn(&Publishing, Instant) -> Option<Reason>,
    ) -> Option<Next> {
        let now = Instant::now();
        let mut at = 0;
        while let Some(publishing) = self.publishing.get(at) {
            match reason(publishing, now) {
                Some(reason) => {
                    if let Some(over) = self.end(at, reason) {
                        return Some(over);
                    }
                }
                None => at += 1,
            }
        }
        None
    }

    /// Ends one epoch and tells the client why. `Some` when it was the last.
    fn end(&mut self, at: usize, reason: Reason) -> Option<Next> {
        let ours = self.publishing.swap_remove(at);
        if let Some(why) = words(reason) {
            let (code, detail) = reason.errcode();
            let why = format!("{why} ({code}/{detail})");
            self.session
                .end_publish(ours.stream_id, PUBLISH_DENIED, &why);
        }
        info!(stream = %ours.publisher().key(), %reason, "publisher ended");
        match reason {
            // Told to go, by us or by an operator: nobody need wait for their return.
            Reason::Dropped | Reason::Banned | Reason::TooFast | Reason::Shutdown => {
                ours.finish(reason);
            }
            _ => ours.vanish(reason),
        }
        self.over_unless_publishing(reason)
    }

    /// Ends what epochs there are and gives the bytes that still go out.
    fn part(&mut self, reason: Reason) -> bytes::BytesMut {
        while !self.publishing.is_empty() {
            self.end(0, reason);
        }
        let mut bytes = std::mem::take(&mut self.outbox).into_inner();
        bytes.extend_from_slice(&self.session.output());
        bytes
    }
}

/// What a publisher hears that is told to go; `None` where there is nobody to hear it.
fn words(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::Dropped => Some("dropped by the operator"),
        Reason::Banned => Some("banned by the operator"),
        Reason::TooFast => Some("more than this application's max_kbps for too long"),
        Reason::TakenOver => Some("another publisher has taken this name over"),
        Reason::Idle => Some("no media came for too long"),
        Reason::Shutdown => Some("the server is going down"),
        _ => None,
    }
}

/// Which publisher a ban ends; never resolves while it concerns none.
///
/// # Cancel safety
/// Safe: a ban that was made stays made.
async fn banned(publishing: &mut [Publishing]) -> usize {
    poll_fn(|context| {
        let ended = publishing
            .iter_mut()
            .position(|p| p.poll_banned(context).is_ready());
        ended.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}
