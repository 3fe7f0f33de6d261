//! A play on a connection that publishes: the connection's end of it.
//!
//! Owns who has the floor on the socket ([`Guest`]), and what the client hears of its play. Playback does the rest.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::mpsc::error::TrySendError::{Closed, Full};
use tokio::time::timeout;
use tracing::info;

use super::requests::{PLAY_FAILED, PLAY_NOT_FOUND};
use super::words::words;
use super::{Connection, Next};
use crate::logging::refused;
use crate::net::{MAX_OUTBOX_BYTES, Outbox, Socket};
use crate::reason::Reason;
use crate::relay::door::{Beside, Guest, News, Said};
use crate::rtmp::session::server::Event;

/// How long the end of a connection waits for a player to end its last message: a little longer than playback does.
const LAST_MESSAGE: Duration = Duration::from_secs(6);

/// A play beside what the connection publishes.
pub(super) struct Companion {
    stream_id: u32,
    /// As the client wrote it, without its query.
    name: String,
    guest: Guest,
    /// It writes to the socket, and nobody else does.
    has_floor: bool,
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
            kept: BytesMut::new(),
        }
    }

    pub(super) fn has_floor(&self) -> bool {
        self.has_floor
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

/// What a player has to tell; polled with the waker of the connection's calls.
pub(super) fn news(companion: &mut Option<Companion>, context: &mut Context<'_>) -> Option<News> {
    let companion = companion.as_mut()?;
    match companion.guest.news.poll_recv(context) {
        Poll::Ready(Some(news)) => Some(news),
        // Its task panicked, and what of it went out nobody knows.
        Poll::Ready(None) => Some(News::Broken(Reason::Internal)),
        Poll::Pending => None,
    }
}

impl Connection {
    /// Begins a play that was granted, unless another is still about to end.
    pub(super) fn begin_play(&mut self, socket: &Arc<Socket>) {
        if self.companion.is_some() {
            return;
        }
        let Some(request) = self.next_play.take() else {
            return;
        };
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
        self.companion = Some(Companion::new(stream_id, name, guest, false));
        self.calls.look_again();
    }

    /// Acts on what the player tells. `Some` ends the connection.
    pub(super) fn hear(&mut self, news: News) -> Option<Next> {
        let companion = self.companion.as_mut()?;
        let stream_id = companion.stream_id;
        match news {
            News::Ready => {
                // The client may have stopped it meanwhile; then the play is about to say so.
                if let Some(said) = &companion.guest.said {
                    self.session.accept_play(stream_id, &companion.name);
                    let mut first = std::mem::take(&mut self.outbox).into_inner();
                    first.extend_from_slice(&self.session.output());
                    companion.has_floor = true;
                    // It waits for this alone, or is gone, which it says.
                    let _ = said.try_send(Said::Begin(first.freeze()));
                }
                None
            }
            News::Refused { reason, words } => {
                refused!(reason, "play refused: {words}");
                let code = match reason {
                    Reason::NotFound => PLAY_NOT_FOUND,
                    _ => PLAY_FAILED,
                };
                self.session.refuse_play(stream_id, code, reason, &words);
                self.companion = None;
                self.over_unless_busy(reason)
            }
            News::Over { reason, unsent } => {
                self.end_play(reason);
                self.take_floor(&unsent);
                match reason {
                    Reason::Closed | Reason::StreamEnded => {
                        self.stage_deadline = Instant::now() + self.shared.config.stage_deadline;
                        None
                    }
                    _ => self.over_unless_busy(reason),
                }
            }
            News::Broken(reason) => {
                self.companion = None;
                self.is_cut = true;
                Some(Next::Over(reason))
            }
        }
    }

    /// The client hears why its play is over, where it did not end it.
    fn end_play(&mut self, reason: Reason) {
        let Some(companion) = &self.companion else {
            return;
        };
        let stream_id = companion.stream_id;
        info!(%reason, "player beside a publisher left");
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

    /// The connection writes to its socket again.
    fn take_floor(&mut self, unsent: &[u8]) {
        // Where the play never began, the floor was the connection's all along.
        if let Some(companion) = self.companion.take_if(|c| c.has_floor) {
            let mut rest = BytesMut::from(unsent);
            rest.extend_from_slice(&companion.kept);
            self.outbox = Outbox::from(rest);
        }
        self.companion = None;
    }

    /// The client ends a play.
    pub(super) fn stop_play(&mut self, stream_id: u32) {
        self.next_play.take_if(|next| next.stream_id == stream_id);
        if let Some(companion) = &mut self.companion
            && companion.stream_id == stream_id
        {
            companion.guest.said = None;
        }
    }

    /// What the client wants of its play. `Some` ends the connection, of a client that wants too much.
    pub(super) fn pass_on(&mut self, event: Event) -> Option<Next> {
        let said = self.companion.as_ref()?.guest.said.as_ref()?;
        match said.try_send(Said::Event(event)) {
            Err(Full(_)) => Some(self.go(Reason::LimitReached, "too many commands at once")),
            // It is about to say why it is gone.
            _ => None,
        }
    }

    /// Ends the play with its connection, and waits until the socket is at a message's end.
    pub(super) async fn dismiss_companion(&mut self) {
        let Some(companion) = &mut self.companion else {
            return;
        };
        companion.guest.said = None;
        let last = async {
            loop {
                match companion.guest.news.recv().await {
                    Some(News::Ready) => {}
                    last => return last,
                }
            }
        };
        match timeout(LAST_MESSAGE, last).await {
            Ok(Some(News::Over { unsent, .. })) => self.take_floor(&unsent),
            Ok(Some(News::Refused { .. })) => self.companion = None,
            _ => {
                self.companion = None;
                self.is_cut = true;
            }
        }
    }
}
