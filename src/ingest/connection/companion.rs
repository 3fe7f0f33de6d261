//! Plays on a connection that does more than one thing: the connection's end of them.
//!
//! Owns who has the floor on the socket ([`Guest`]), and what the client hears of its plays. Playback does the rest.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::mpsc::error::TrySendError::{Closed, Full};
use tokio::time::timeout_at;
use tracing::{debug, info};

use super::requests::{PLAY_FAILED, PLAY_NOT_FOUND};
use super::words::words;
use super::{Connection, Next, PlayRequest};
use crate::logging::refused;
use crate::net::turns::Turns;
use crate::net::{MAX_OUTBOX_BYTES, Outbox, Socket};
use crate::reason::Reason;
use crate::relay::door::{Beside, Guest, News, Said};
use crate::rtmp::chatter::{self, Chatter};
use crate::rtmp::session::server::Event;

/// How long the end of a connection waits for its players to end their last messages: a little longer than playback does.
const LAST_MESSAGE: Duration = Duration::from_secs(6);

/// What a client hears that wants more of its plays than they can be told.
const TOO_MANY: &str = "too many commands at once";

/// A play beside whatever else the connection does.
pub(super) struct Companion {
    stream_id: u32,
    /// As the client wrote it, without its query.
    name: String,
    guest: Guest,
    /// It writes to the socket, and the connection does not.
    has_floor: bool,
    /// It was alone, and may not have heard that it no longer is.
    unaware: Option<Arc<Turns>>,
    /// What the connection could not say any more; it goes out when the floor is its own again.
    kept: BytesMut,
}

impl Companion {
    pub(super) fn new(stream_id: u32, name: String, guest: Guest, has_floor: bool) -> Self {
        Self {
            stream_id,
            name,
            guest,
            has_floor,
            unaware: None,
            kept: BytesMut::new(),
        }
    }

    /// Has these bytes written between the player's own.
    ///
    /// # Errors
    /// When the client does not read: more waits than its player takes.
    pub(super) fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.kept.extend_from_slice(bytes);
        if let Some(said) = &self.guest.said
            && !self.kept.is_empty()
        {
            let all = Said::Bytes(self.kept.split().freeze());
            if let Err(Full(Said::Bytes(back)) | Closed(Said::Bytes(back))) = said.try_send(all) {
                self.kept = BytesMut::from(back);
            }
        }
        if self.kept.len() > MAX_OUTBOX_BYTES {
            return Err(io::Error::other(format!(
                "peer does not read: {} bytes of answers wait, the limit is {MAX_OUTBOX_BYTES}",
                self.kept.len()
            )));
        }
        Ok(())
    }
}

/// What a player has to tell, and which; polled with the waker of the connection's calls.
pub(super) fn news(
    companions: &mut [Companion],
    context: &mut Context<'_>,
) -> Option<(usize, News)> {
    let mut companions = companions.iter_mut().enumerate();
    companions.find_map(
        |(at, companion)| match companion.guest.news.poll_recv(context) {
            Poll::Ready(Some(news)) => Some((at, news)),
            // Its task panicked, and what of it went out nobody knows.
            Poll::Ready(None) => Some((at, News::Broken(Reason::Internal))),
            Poll::Pending => None,
        },
    )
}

impl Connection {
    /// A connection that only plays is held to what players may say. `Some` ends the loop.
    pub(super) fn hear_chatter(&mut self) -> Option<Next> {
        if self.companions.is_empty() || !self.publishing.is_empty() {
            self.chatter = None;
            return None;
        }
        let (received, now) = (self.reader.received(), Instant::now());
        let chatter = self
            .chatter
            .get_or_insert_with(|| Chatter::new(received, now));
        if chatter.allows(received, now) {
            return None;
        }
        let limit = chatter::BYTES_PER_SECOND;
        let why = format!("more than {limit} bytes a second of commands");
        Some(self.go(Reason::LimitReached, &why))
    }

    /// Begins the plays that were granted, but for those on a stream whose last play is still about to end.
    pub(super) fn begin_plays(&mut self, socket: &Arc<Socket>) {
        let companions = &self.companions;
        let is_free = |id| companions.iter().all(|c: &Companion| c.stream_id != id);
        let plays = std::mem::take(&mut self.next_plays).into_iter();
        let (begin, later): (Vec<_>, Vec<_>) = plays.partition(|next| is_free(next.stream_id));
        self.next_plays = later;
        for request in begin {
            self.begin_play(socket, request);
        }
    }

    fn begin_play(&mut self, socket: &Arc<Socket>, request: PlayRequest) {
        let stay = request.stay;
        let guest = self.shared.door.play_beside(Beside {
            socket: socket.clone(),
            peer: self.peer,
            stream_id: request.stream_id,
            key: request.key,
            feed: request.feed,
            class: request.class,
            eviction: Box::pin(async move {
                stay.ended().await;
                Reason::Banned
            }),
        });
        let (stream_id, name) = (request.stream_id, request.name);
        let companion = Companion::new(stream_id, name, guest, false);
        self.companions.push(companion);
        self.calls.look_again();
    }

    /// The player through which the connection speaks; `None`: it has the floor itself.
    pub(super) fn speaker(&mut self) -> Option<&mut Companion> {
        let at = |speaks: fn(&Companion) -> bool| self.companions.iter().position(speaks);
        // One that is about to end keeps what is said, and hands it on.
        let speaker = at(|c| c.has_floor && c.guest.said.is_some()).or_else(|| at(|c| c.has_floor));
        self.companions.get_mut(speaker?)
    }

    /// Acts on what a player tells. `Some` ends the connection.
    pub(super) fn hear(&mut self, at: usize, news: News) -> Option<Next> {
        match news {
            News::Ready => self.let_begin(at),
            News::Refused { reason, words } => {
                refused!(reason, "play refused: {words}");
                let code = match reason {
                    Reason::NotFound => PLAY_NOT_FOUND,
                    _ => PLAY_FAILED,
                };
                let companion = self.companions.swap_remove(at);
                let stream_id = companion.stream_id;
                self.session.refuse_play(stream_id, code, reason, &words);
                self.over_unless_busy(reason)
            }
            News::Over { reason, unsent } => {
                let companion = self.companions.swap_remove(at);
                self.end_play(&companion, reason);
                if let Err(e) = self.take_floor(companion, &unsent) {
                    debug!(error = %e, "connection broke");
                    return Some(Next::Over(Reason::SocketError));
                }
                match reason {
                    Reason::Closed | Reason::StreamEnded => {
                        self.stage_deadline = Instant::now() + self.shared.config.stage_deadline;
                        None
                    }
                    _ => self.over_unless_busy(reason),
                }
            }
            News::Broken(reason) => {
                self.companions.swap_remove(at);
                self.is_cut = true;
                Some(Next::Over(reason))
            }
        }
    }

    /// A player has something to play.
    fn let_begin(&mut self, at: usize) -> Option<Next> {
        // The client may have stopped it meanwhile; then the play is about to say so.
        self.companions[at].guest.said.as_ref()?;
        let turns = match self.turns() {
            Ok(turns) => turns,
            Err(over) => return Some(over),
        };
        let companion = &mut self.companions[at];
        let stream_id = companion.stream_id;
        self.session.accept_play(stream_id, &companion.name);
        let mut first = std::mem::take(&mut self.outbox).into_inner();
        first.extend_from_slice(&self.session.output());
        companion.has_floor = true;
        if let Some(said) = &companion.guest.said {
            let first = first.freeze();
            // It waits for this alone, or is gone, which it says.
            let _ = said.try_send(Said::Begin { first, turns });
        }
        None
    }

    /// What decides between the players, where there is one already for the next to begin beside: it is told.
    ///
    /// # Errors
    /// The end of the connection, of a client that wants too much.
    fn turns(&mut self) -> Result<Option<Arc<Turns>>, Next> {
        let Some(first) = self.companions.iter_mut().find(|c| c.has_floor) else {
            self.turns = None;
            return Ok(None);
        };
        if self.turns.is_none() {
            let turns = Turns::new();
            first.unaware = Some(turns.clone());
            if let Some(said) = &first.guest.said
                && let Err(Full(_)) = said.try_send(Said::Share(turns.clone()))
            {
                return Err(self.go(Reason::LimitReached, TOO_MANY));
            }
            self.turns = Some(turns);
        }
        Ok(self.turns.clone())
    }

    /// The client hears why its play is over, where it did not end it.
    fn end_play(&mut self, companion: &Companion, reason: Reason) {
        let stream_id = companion.stream_id;
        info!(%reason, "player beside others left");
        match reason {
            Reason::Closed => {}
            Reason::StreamEnded | Reason::Shutdown => {
                self.session.end_play(stream_id, &companion.name, reason);
            }
            _ => {
                let words = words(reason).unwrap_or("the play cannot go on");
                self.session
                    .break_play(stream_id, PLAY_FAILED, reason, words);
            }
        }
    }

    /// What was to be said through a player that is over goes through another, or the connection writes to its socket
    /// again.
    ///
    /// # Errors
    /// When the client does not read.
    fn take_floor(&mut self, companion: Companion, unsent: &[u8]) -> io::Result<()> {
        if let Some(turns) = &companion.unaware {
            turns.leave_first();
        }
        // Where the play never began, it had nothing to say.
        if !companion.has_floor {
            return Ok(());
        }
        let mut rest = BytesMut::from(unsent);
        rest.extend_from_slice(&companion.kept);
        match self.speaker() {
            Some(speaker) => speaker.say(&rest),
            None => {
                self.outbox = Outbox::from(rest);
                Ok(())
            }
        }
    }

    /// The client ends a play.
    pub(super) fn stop_play(&mut self, stream_id: u32) {
        self.next_plays.retain(|next| next.stream_id != stream_id);
        if let Some(companion) = self.playing(stream_id) {
            companion.guest.said = None;
        }
    }

    fn playing(&mut self, stream_id: u32) -> Option<&mut Companion> {
        let mut companions = self.companions.iter_mut();
        companions.find(|companion| companion.stream_id == stream_id)
    }

    /// What the client wants of its play. `Some` ends the connection, of a client that wants too much.
    pub(super) fn pass_on(&mut self, stream_id: u32, event: Event) -> Option<Next> {
        let said = self.playing(stream_id)?.guest.said.as_ref()?;
        match said.try_send(Said::Event(event)) {
            Err(Full(_)) => Some(self.go(Reason::LimitReached, TOO_MANY)),
            // It is about to say why it is gone.
            _ => None,
        }
    }

    /// Ends the plays with their connection, and waits until the socket is at a message's end.
    pub(super) async fn dismiss_companions(&mut self) {
        let end = Instant::now() + LAST_MESSAGE;
        for companion in &mut self.companions {
            companion.guest.said = None;
        }
        while let Some(mut companion) = self.companions.pop() {
            let last = async {
                loop {
                    match companion.guest.news.recv().await {
                        Some(News::Ready) => {}
                        last => return last,
                    }
                }
            };
            match timeout_at(end.into(), last).await {
                Ok(Some(News::Over { unsent, .. })) => {
                    self.is_cut |= self.take_floor(companion, &unsent).is_err();
                }
                Ok(Some(News::Refused { .. })) => {}
                _ => self.is_cut = true,
            }
        }
    }
}
