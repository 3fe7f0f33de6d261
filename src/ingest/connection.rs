//! One RTMP connection from accept to its end, or to the door of playback.

mod companion;
mod greeting;
mod passage;
mod requests;
mod words;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use tracing::{debug, info};

use self::companion::{Companion, news};
pub(super) use self::passage::run;
use self::words::{GOING_DOWN, words};
use super::Shared;
use super::calls::Calls;
use super::publishing::Publishing;
use crate::auth::Stay;
use crate::logging::{ConnectionId, refused};
use crate::media::StreamKey;
use crate::memory::Charge;
use crate::net::turns::Turns;
use crate::net::{Outbox, Socket};
use crate::reason::Reason;
use crate::relay::Bell;
use crate::relay::door::News;
use crate::rtmp::chatter::Chatter;
use crate::rtmp::chunk;
use crate::rtmp::session::server::{ConnectInfo, Event, Session};

/// The status code of a publisher who is refused or told to go.
const PUBLISH_DENIED: &str = "NetStream.Publish.Denied";
/// How long a publisher that was asked to reconnect is still listened to when the server goes down: until its next key
/// frame, says Enhanced RTMP; this is what a shutdown has time for.
const RECONNECT_GRACE: Duration = Duration::from_secs(2);

/// Whoever holds this much before he publishes sends large messages, which nobody needs to do.
const HEAVY: usize = 64 << 10;
/// What a publisher may hold while memory is full: an ordinary message, whole but for its last byte. A key frame of a
/// 20 Mbit/s stream has about 800 KB; those of more have to wait for better times, so that publishers together stay
/// within this much each of the budget.
const ORDINARY: usize = 1 << 20;

struct Connection {
    shared: Arc<Shared>,
    id: ConnectionId,
    peer: SocketAddr,
    reader: chunk::Reader,
    session: Session,
    outbox: Outbox,
    connected: Option<ConnectInfo>,
    /// The epochs that it holds, one per message stream that publishes.
    publishing: Vec<Publishing>,
    /// Rung when one of them is to go.
    bell: Bell,
    /// Says when to look for anything else than bytes.
    calls: Arc<Calls>,
    /// Whether it is served among publishers.
    is_apart: bool,
    /// What plays on it beside its epochs and each other.
    companions: Vec<Companion>,
    /// What decides between them, once there have been two.
    turns: Option<Arc<Turns>>,
    /// Plays that were granted and are to begin when there is nobody in their way. One at most for each stream.
    next_plays: Vec<PlayRequest>,
    /// What it says while it does nothing but play.
    chatter: Option<Chatter>,
    /// What it asked for while it was elsewhere.
    asked: Option<Box<Event>>,
    /// Nothing that is written would make sense: a player's message was cut.
    is_cut: bool,
    /// What its unfinished messages take of the memory for all.
    held: Charge,
    /// By when the client must publish or play, while it does neither.
    stage_deadline: Instant,
    /// It was asked to connect elsewhere while it publishes here, or could not be asked.
    is_leaving: bool,
    /// The server goes down, and the client was asked to reconnect by then.
    leaving: Option<Instant>,
    /// The client has been told why what it asked for, or did last, is over.
    has_heard: bool,
}

/// What comes after the loop.
enum Next {
    Over(Reason),
    Play(PlayRequest),
    /// It publishes now: to be served among those who do.
    Publishes,
}

struct PlayRequest {
    stream_id: u32,
    name: String,
    key: StreamKey,
    feed: crate::media::Feed,
    class: crate::media::Class,
    stay: Stay,
}

/// What there is to do.
enum Turn {
    Read(io::Result<usize>),
    Write,
    Shutdown,
    /// To ask the client to go elsewhere.
    Leave,
    Bell,
    News(usize, News),
    Banned(usize),
    /// To look at the clock.
    Timer,
}

impl Connection {
    fn new(
        shared: &Arc<Shared>,
        id: ConnectionId,
        peer: SocketAddr,
        reader: chunk::Reader,
    ) -> Box<Self> {
        Box::new(Self {
            shared: shared.clone(),
            id,
            peer,
            reader,
            session: Session::new(),
            outbox: Outbox::default(),
            connected: None,
            publishing: Vec::new(),
            bell: Bell::new(),
            calls: Calls::new(),
            is_apart: false,
            companions: Vec::new(),
            turns: None,
            next_plays: Vec::new(),
            chatter: None,
            asked: None,
            is_cut: false,
            held: shared.config.memory.open(),
            stage_deadline: Instant::now() + shared.config.stage_deadline,
            is_leaving: false,
            leaving: None,
            has_heard: false,
        })
    }

    async fn serve(&mut self, socket: &mut Arc<Socket>) -> Next {
        let next = self.converse(socket).await;
        if let Next::Over(reason) = next {
            self.end_all(reason);
            self.dismiss_companions().await;
        }
        next
    }

    async fn converse(&mut self, socket: &mut Arc<Socket>) -> Next {
        let (shared, bell, calls) = (self.shared.clone(), self.bell.clone(), self.calls.clone());
        let caller = Waker::from(calls.clone());
        let mut shutdown = pin!(shared.shutdown.cancelled());
        let mut leave = pin!(shared.leave.cancelled());
        let mut rung = pin!(bell.rung());
        let mut timer = pin!(sleep_until(self.deadline().into()));
        loop {
            if let Some(next) = self.take_messages().await {
                return next;
            }
            if !self.may_hold() {
                return Next::Over(Reason::Overloaded);
            }
            if let Some(over) = self.hear_chatter() {
                return over;
            }
            self.begin_plays(socket);
            if let Err(e) = self.answer(socket) {
                debug!(error = %e, "connection broke");
                return Next::Over(Reason::SocketError);
            }
            let deadline = self.deadline();
            // What came before the deadline has been taken by now, also when we were late to read it. A client that
            // never stops talking would keep the timer from being asked.
            if Instant::now() >= deadline {
                if let Some(over) = self.expire() {
                    return over;
                }
                continue;
            }
            // Media moves the deadline on; the timer follows when it has run out.
            if timer.is_elapsed() || timer.deadline() > deadline.into() {
                timer.as_mut().reset(deadline.into());
                calls.look_again();
            }
            let turn = poll_fn(|context| {
                if calls.answer(context) {
                    let mut caller = Context::from_waker(&caller);
                    let called = if self.leaving.is_none()
                        && shutdown.as_mut().poll(&mut caller).is_ready()
                    {
                        Some(Turn::Shutdown)
                    } else if !self.is_leaving
                        && !self.publishing.is_empty()
                        && leave.as_mut().poll(&mut caller).is_ready()
                    {
                        Some(Turn::Leave)
                    } else if rung.as_mut().poll(&mut caller).is_ready() {
                        rung.set(bell.rung());
                        Some(Turn::Bell)
                    } else if let Some((at, news)) = news(&mut self.companions, &mut caller) {
                        Some(Turn::News(at, news))
                    } else if let Some(at) = banned(&mut self.publishing, &mut caller) {
                        Some(Turn::Banned(at))
                    } else {
                        let timer = timer.as_mut().poll(&mut caller);
                        timer.is_ready().then_some(Turn::Timer)
                    };
                    if let Some(called) = called {
                        // Those behind it have not been asked.
                        calls.look_again();
                        return Poll::Ready(called);
                    }
                }
                if !self.outbox.is_empty() && socket.tcp().poll_write_ready(context).is_ready() {
                    return Poll::Ready(Turn::Write);
                }
                let buffer = self.reader.buffer();
                let read = match Arc::get_mut(socket) {
                    Some(socket) => socket.poll_read(context, buffer),
                    None => socket.poll_read_shared(context, buffer),
                };
                read.map(Turn::Read)
            });
            match turn.await {
                Turn::Read(Ok(0)) => return Next::Over(Reason::Disconnected),
                Turn::Read(Ok(_)) | Turn::Write | Turn::Timer => {}
                Turn::Read(Err(e)) => {
                    debug!(error = %e, "connection broke");
                    return Next::Over(Reason::SocketError);
                }
                Turn::Shutdown => {
                    let asked = !self.publishing.is_empty()
                        && self.session.request_reconnect(Reason::Shutdown, GOING_DOWN);
                    if !asked {
                        return Next::Over(Reason::Shutdown);
                    }
                    self.leaving = Some(Instant::now() + RECONNECT_GRACE);
                }
                Turn::Leave => {
                    self.is_leaving = true;
                    self.session.request_reconnect(Reason::Shutdown, GOING_DOWN);
                }
                Turn::Bell => {
                    if let Some(over) = self.end_each(|p, _| p.publisher().eviction()) {
                        return over;
                    }
                }
                Turn::News(at, news) => {
                    if let Some(over) = self.hear(at, news) {
                        return over;
                    }
                }
                Turn::Banned(at) => {
                    if let Some(over) = self.end(at, Reason::Banned) {
                        return over;
                    }
                }
            }
        }
    }

    /// By when something must have come: media of every epoch, or else publish or play.
    fn deadline(&self) -> Instant {
        let idle = self.publishing.iter().map(Publishing::idle_at).min();
        self.leaving.or(idle).unwrap_or(self.stage_deadline)
    }

    /// The deadline has passed: of the whole connection, or of those of its epochs that brought no media. `Some` ends
    /// the loop.
    fn expire(&mut self) -> Option<Next> {
        if self.leaving.is_some() {
            return Some(Next::Over(Reason::Shutdown));
        }
        if !self.companions.is_empty() && self.publishing.is_empty() {
            self.stage_deadline = Instant::now() + self.shared.config.stage_deadline;
            return None;
        }
        if self.publishing.is_empty() {
            let limit = self.shared.config.stage_deadline.as_secs_f64();
            let why = format!("neither publish nor play came within {limit} s");
            return Some(self.go(Reason::Timeout, &why));
        }
        self.end_each(|p, now| (p.idle_at() <= now).then_some(Reason::Idle))
    }

    /// Accounts for what the reader holds. `false`: it is much of what there is too little of.
    fn may_hold(&mut self) -> bool {
        let held = self.reader.held();
        self.held.set(held);
        let most = match self.publishing.is_empty() {
            true => HEAVY,
            false => ORDINARY,
        };
        held < most || !self.shared.config.memory.is_full()
    }

    /// Sends what the session has to say and the acknowledgement that is due.
    fn answer(&mut self, socket: &Socket) -> io::Result<()> {
        if let Some(total) = self.reader.acknowledgement() {
            self.session.acknowledge(total);
        }
        let output = self.session.output();
        if let Some(speaker) = self.speaker() {
            return speaker.say(&output);
        }
        if output.is_empty() && self.outbox.is_empty() {
            return Ok(());
        }
        self.outbox.send(socket, &output)
    }

    /// Acts on every whole message received. `Some` ends the loop.
    async fn take_messages(&mut self) -> Option<Next> {
        let now = Instant::now();
        if let Some(asked) = self.asked.take()
            && let Some(next) = self.act(*asked, now).await
        {
            return Some(next);
        }
        loop {
            let message = match self.reader.next() {
                Ok(Some(message)) => message,
                Ok(None) => {
                    for publishing in &mut self.publishing {
                        let bytes = self.reader.unfinished_media(publishing.stream_id);
                        publishing.unfinished(bytes, now);
                    }
                    return None;
                }
                Err(e) => {
                    refused!(e.reason(), error = %e, "bytes make no sense");
                    return Some(self.go(e.reason(), &e.to_string()));
                }
            };
            let event = match self.session.handle(message) {
                Ok(Some(event)) => event,
                Ok(None) => continue,
                Err(e) => {
                    refused!(e.reason(), error = %e, "command refused");
                    return Some(self.go(e.reason(), &e.to_string()));
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
                    self.shared.metrics.limit_refused("max_kbps");
                    return self.end(at, Reason::TooFast);
                }
                let ours = self.publishing[at].accept(message, &self.shared.metrics, now);
                if let Some(report) = self.publishing[at].take_report()
                    && let Some(observer) = self.shared.observer.get()
                {
                    let publisher = self.publishing[at].publisher();
                    observer.trouble(publisher.key(), publisher.epoch(), report);
                }
                if ours {
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
            Event::StopPlay { stream_id } => {
                self.stop_play(stream_id);
                None
            }
            Event::Pause { stream_id, .. }
            | Event::ReceiveAudio { stream_id, .. }
            | Event::ReceiveVideo { stream_id, .. } => self.pass_on(stream_id, event),
        }
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
        if let Some(words) = words(reason) {
            self.session
                .end_publish(ours.stream_id, PUBLISH_DENIED, reason, words);
            self.has_heard = true;
        }
        info!(stream = %ours.publisher().key(), %reason, "publisher ended");
        match reason {
            // Told to go, by us or by an operator: nobody need wait for their return.
            Reason::Dropped | Reason::Banned | Reason::TooFast | Reason::Shutdown => {
                ours.finish(reason);
            }
            _ if self.shared.is_draining() => ours.finish(reason),
            _ => ours.vanish(reason),
        }
        self.over_unless_busy(reason)
    }

    /// Says goodbye to a client that has said `connect`; to others there are no words.
    fn go(&mut self, reason: Reason, why: &str) -> Next {
        self.session.close(reason, why);
        self.has_heard = true;
        Next::Over(reason)
    }

    fn end_all(&mut self, reason: Reason) {
        while !self.publishing.is_empty() {
            self.end(0, reason);
        }
    }

    /// Ends what epochs there are and gives the bytes that still go out. Nobody leaves without having heard why.
    fn part(&mut self, reason: Reason) -> bytes::BytesMut {
        self.end_all(reason);
        if self.is_cut {
            return bytes::BytesMut::new();
        }
        if !self.has_heard
            && let Some(words) = words(reason)
        {
            self.session.close(reason, words);
        }
        let mut bytes = std::mem::take(&mut self.outbox).into_inner();
        bytes.extend_from_slice(&self.session.output());
        bytes
    }
}

/// Which publisher a ban ends, if any.
fn banned(publishing: &mut [Publishing], context: &mut Context<'_>) -> Option<usize> {
    publishing
        .iter_mut()
        .position(|p| p.poll_banned(context).is_ready())
}
