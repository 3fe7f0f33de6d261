//! One RTMP player on a connection that publishes or plays besides: waits for its stream, joins a writer loop, passes on what its
//! connection has to say, and gives the socket back at a message's end.
//!
//! Owns the play and not the conversation: that is read and answered by the connection ([`Guest`]).

use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{Instrument, info};

use super::fanout::Line;
use super::reader::Joiner;
use super::rtmp::{BANNED, subscribe, wish};
use super::waiting::Waited;
use super::{ANSWER_DEADLINE, Arrival, Shared, end_of};
use crate::reason::Reason;
use crate::relay::door::{Beside, Eviction, Guest, News, Said};
use crate::relay::{Framing, Subscriber};

/// What a connection may have said that its player has not heard yet; a client that asks for more is no player.
const SAID: usize = 64;

/// Begins to serve a player.
pub(super) fn play(shared: Arc<Shared>, beside: Beside) -> Guest {
    guest(&shared.clone(), async move |mut said, tell| {
        serve(&shared, beside, &mut said, &tell).await
    })
}

/// Goes on with a player whose connection has come to ask for more.
pub(super) fn go_on(shared: Arc<Shared>, playing: Playing) -> Guest {
    guest(&shared.clone(), async move |mut said, _| {
        follow(&shared, playing, &mut said).await
    })
}

/// Spawns what serves a player, whose end its connection is told.
fn guest<F>(
    shared: &Shared,
    serve: impl FnOnce(mpsc::Receiver<Said>, mpsc::Sender<News>) -> F,
) -> Guest
where
    F: Future<Output = News> + Send + 'static,
{
    let (say, said) = mpsc::channel(SAID);
    // It is told that the stream is there, and the end.
    let (tell, news) = mpsc::channel(2);
    let serve = serve(said, tell.clone());
    let serve = async move {
        // The connection may have gone by itself meanwhile.
        let _ = tell.send(serve.await).await;
    };
    shared.tasks.spawn(serve.in_current_span());
    Guest {
        said: Some(say),
        news,
    }
}

/// A player in its writer loop.
pub(super) struct Playing {
    pub line: Line,
    /// Why it is over.
    pub told: oneshot::Receiver<Reason>,
    /// The loop has let go of its socket.
    pub let_go: oneshot::Receiver<()>,
    pub eviction: Eviction,
}

async fn serve(
    shared: &Shared,
    mut beside: Beside,
    said: &mut mpsc::Receiver<Said>,
    tell: &mpsc::Sender<News>,
) -> News {
    let refused = |reason, words| News::Refused { reason, words };
    let mut subscriber = match subscribe(shared, &beside.key, beside.feed, beside.class) {
        Ok(subscriber) => subscriber,
        Err(why) => return refused(Reason::LimitReached, why),
    };
    let over = |reason| News::Over {
        reason,
        unsent: Bytes::new(),
    };
    match wait_for_stream(shared, &mut beside, &subscriber, said).await {
        Ok(()) => {}
        Err(Waited::Gone(reason)) => return over(reason),
        Err(Waited::Refused(words, reason)) => return refused(reason, words),
    }
    let first = match tell.send(News::Ready).await {
        Ok(()) => said.recv().await,
        Err(_) => None,
    };
    let Some(Said::Begin { first, turns }) = first else {
        return over(Reason::Closed);
    };
    let Beside {
        socket,
        peer,
        stream_id,
        class,
        eviction,
        ..
    } = beside;
    let (outcome, told) = oneshot::channel();
    let (released, let_go) = oneshot::channel();
    info!(stream = %subscriber.key(), feed = subscriber.feed().as_str(), class = class.as_str(), "player joined beside others");
    let private = subscriber.join(shared.config.class(class).join);
    let joined = shared.fanout.join(Joiner {
        id: shared.fanout.next_id(),
        arrival: Arrival {
            door: if socket.is_encrypted() {
                "rtmps"
            } else {
                "rtmp"
            },
            peer,
            since: SystemTime::now(),
        },
        socket,
        turns,
        subscriber,
        class,
        framing: Framing::Rtmp { stream_id },
        first,
        private,
        outcome,
        released,
    });
    // What was to be written first went with the player.
    let Ok(line) = joined else {
        return News::Broken(Reason::LimitReached);
    };
    let playing = Playing {
        line,
        told,
        let_go,
        eviction,
    };
    follow(shared, playing, said).await
}

/// Passes on what the connection says until the play is over, and gives the floor back.
async fn follow(shared: &Shared, playing: Playing, said: &mut mpsc::Receiver<Said>) -> News {
    let Playing {
        line,
        mut told,
        let_go,
        mut eviction,
    } = playing;
    let reason = loop {
        tokio::select! {
            heard = said.recv() => {
                let taken = match heard {
                    Some(Said::Begin { first: bytes, .. } | Said::Bytes(bytes)) => {
                        line.control(bytes).await
                    }
                    Some(Said::Share(turns)) => line.share(turns).await,
                    Some(Said::Event(event)) => match wish(event) {
                        Some(wish) => line.wish(wish).await,
                        None => true,
                    },
                    None => break Reason::Closed,
                };
                if !taken {
                    break Reason::TooSlow;
                }
            }
            outcome = &mut told => break end_of(outcome),
            () = shared.shutdown.cancelled() => break Reason::Shutdown,
            reason = &mut eviction => break reason,
        }
    };
    let Some(mut unsent) = leave(&line, reason, let_go, said).await else {
        return News::Broken(reason);
    };
    said.close();
    while let Ok(said) = said.try_recv() {
        if let Said::Bytes(bytes) = said {
            unsent.extend_from_slice(&bytes);
        }
    }
    News::Over {
        reason,
        unsent: unsent.freeze(),
    }
}

/// Has the loop let go of the socket at a message's end. What the connection said meanwhile and was not written; `None`:
/// there was no such end in time, or the loop let go of it by itself.
///
/// The client is to have all of what ended by itself, if its path takes that soon. What waits of all else is taken back: on
/// a path that is slow, or full of what others play, it would take longer than anybody waits, and the message that it is
/// cut in would take the whole connection along.
async fn leave(
    line: &Line,
    reason: Reason,
    mut let_go: oneshot::Receiver<()>,
    said: &mut mpsc::Receiver<Said>,
) -> Option<BytesMut> {
    let mut unsent = BytesMut::new();
    if reason == Reason::StreamEnded {
        line.finish(Bytes::new()).await;
        let deadline = Instant::now() + ANSWER_DEADLINE;
        loop {
            tokio::select! {
                whole = &mut let_go => return whole.is_ok().then_some(unsent),
                () = sleep_until(deadline) => break,
                heard = said.recv() => match heard {
                    Some(Said::Begin { first: bytes, .. } | Said::Bytes(bytes)) => {
                        unsent.extend_from_slice(&bytes);
                    }
                    Some(Said::Share(turns)) => {
                        line.share(turns).await;
                    }
                    Some(Said::Event(_)) => {}
                    // The client has stopped it.
                    None => break,
                }
            }
        }
    }
    line.stop().await;
    let whole = matches!(timeout(ANSWER_DEADLINE, let_go).await, Ok(Ok(())));
    whole.then_some(unsent)
}

/// Holds a player that came before its publisher, within the bounds for those.
async fn wait_for_stream(
    shared: &Shared,
    beside: &mut Beside,
    subscriber: &Subscriber,
    said: &mut mpsc::Receiver<Said>,
) -> Result<(), Waited> {
    if subscriber.is_fed() {
        return Ok(());
    }
    let _place = shared
        .waiting
        .enter(&beside.key, beside.peer.ip())
        .inspect_err(|full| shared.metrics.limit_refused(full.limit()))?;
    let deadline = Instant::now() + shared.waiting.patience();
    loop {
        tokio::select! {
            () = subscriber.fed() => return Ok(()),
            () = sleep_until(deadline) => return Err(shared.waiting.in_vain()),
            () = shared.shutdown.cancelled() => return Err(Waited::going_down()),
            reason = &mut beside.eviction => {
                return Err(Waited::Refused(BANNED.to_owned(), reason));
            }
            // What it wants of its play it may say once that has begun.
            heard = said.recv() => if heard.is_none() {
                return Err(Waited::Gone(Reason::Closed));
            },
        }
    }
}
