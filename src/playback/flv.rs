//! One HTTP-FLV player: waits for its stream, answers, joins a writer loop, and watches whether the client is there.
//!
//! A client has nothing to say after its request; what it sends is thrown away. The end of what it sends is taken for
//! its leaving, as hyper and nginx take it: players close both directions at once, none that we know closes only its
//! own, and a waiting room full of those who left would turn others away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::info;

use super::http::{Status, Tracks, refusal, stream_end, stream_head};
use super::reader::Joiner;
use super::waiting::Waited;
use super::{Arrival, Shared};
use crate::logging::refused;
use crate::media::{Class, Feed, Headers, Kind, Slot, StreamKey};
use crate::net::{self, Socket};
use crate::reason::Reason;
use crate::relay::{Framing, Subscriber};
use crate::rtmp::amf;
use crate::rtmp::chatter::Chatter;

/// From when on a track that has not come, and that metadata does not announce, is taken for one that will not.
/// Encoders send the first of both within a few hundred milliseconds.
const SETTLED: Duration = Duration::from_secs(2);

/// A request to play that was granted and not answered yet.
pub struct Visit {
    pub socket: Socket,
    pub peer: SocketAddr,
    pub key: StreamKey,
    pub feed: Feed,
    pub class: Class,
    /// In HTTP chunks, or bare until the connection ends.
    pub chunked: bool,
}

/// Answers HEAD: what GET would be answered now, without taking a place.
pub async fn describe(shared: &Shared, visit: Visit) -> Reason {
    let limit = shared.config.class(visit.class).readers_per_name;
    let readers = shared.relay.stream_info(&visit.key).map_or(0, |info| {
        let feed = match visit.feed {
            Feed::Source => info.source,
            Feed::Program => info.program,
        };
        match visit.class {
            Class::LowLatency => feed.low_latency,
            Class::Viewer => feed.viewers,
        }
    });
    let is_fed = shared.relay.watch(&visit.key, visit.feed).is_fed();
    let (words, reason) = if limit > 0 && readers >= limit {
        let words = refusal(Status::Unavailable, Reason::LimitReached, "", false);
        (words, Reason::LimitReached)
    } else if is_fed {
        (stream_head(visit.chunked, None), Reason::Closed)
    } else {
        let words = refusal(Status::NotFound, Reason::NotFound, "", false);
        (words, Reason::NotFound)
    };
    net::close(visit.socket, &words).await;
    reason
}

/// Serves one player to its end.
pub async fn play(shared: &Shared, visit: Visit) -> Reason {
    let class = shared.config.class(visit.class);
    let mut subscriber = shared.relay.subscribe(&visit.key, visit.feed, visit.class);
    if class.readers_per_name > 0 && subscriber.readers() > class.readers_per_name {
        drop(subscriber);
        shared.metrics.limit_refused("readers_per_name");
        let why = format!(
            "{} readers of class {} already play this stream",
            class.readers_per_name,
            visit.class.as_str()
        );
        return refuse(visit, Reason::LimitReached, &why).await;
    }
    match Box::pin(wait_for_stream(shared, &visit, &subscriber)).await {
        Ok(()) => {}
        Err(Waited::Gone(reason)) => return reason,
        Err(Waited::Refused(why, reason)) => return refuse(visit, reason, &why).await,
    }
    let tracks = tracks(shared, &subscriber);
    let private = subscriber.join(class.join);
    let socket = Arc::new(visit.socket);
    let (outcome, mut over) = oneshot::channel();
    let (released, let_go) = oneshot::channel();
    info!(stream = %visit.key, feed = visit.feed.as_str(), class = visit.class.as_str(), "player joined");
    let joined = shared.fanout.join(Joiner {
        id: shared.fanout.next_id(),
        arrival: Arrival {
            door: if socket.is_encrypted() {
                "https_flv"
            } else {
                "http_flv"
            },
            peer: visit.peer,
            since: SystemTime::now(),
        },
        socket: socket.clone(),
        turns: None,
        subscriber,
        class: visit.class,
        framing: if visit.chunked {
            Framing::Flv
        } else {
            Framing::BareFlv
        },
        first: stream_head(visit.chunked, Some(tracks)),
        private,
        outcome,
        released,
    });
    let line = match joined {
        Ok(line) => line,
        Err(overrun) => {
            // The loop that could not take the player let go of its share.
            if let Some(socket) = Arc::into_inner(socket) {
                let why = overrun.to_string();
                let words = refusal(Status::Unavailable, Reason::LimitReached, &why, true);
                net::close(socket, &words).await;
            }
            return Reason::LimitReached;
        }
    };
    let reason = watch(shared, &socket, &mut over).await;
    if !matches!(reason, Reason::StreamEnded | Reason::Shutdown) {
        return reason;
    }
    super::part(line, stream_end(visit.chunked), let_go, socket).await;
    reason
}

/// Watches over a player that its writer loop serves. [`Reason::StreamEnded`] and [`Reason::Shutdown`] are ends that
/// the client is still to be told of.
async fn watch(shared: &Shared, socket: &Socket, over: &mut oneshot::Receiver<Reason>) -> Reason {
    tokio::select! {
        // HTTP has no words for it in the middle of an answer: a body without its end says that it was cut.
        outcome = over => super::end_of(outcome),
        () = shared.shutdown.cancelled() => Reason::Shutdown,
        reason = gone(socket) => reason,
    }
}

/// Holds a player that came before its publisher, within bounds.
async fn wait_for_stream(
    shared: &Shared,
    visit: &Visit,
    subscriber: &Subscriber,
) -> Result<(), Waited> {
    if subscriber.is_fed() {
        return Ok(());
    }
    let _place = shared
        .waiting
        .enter(&visit.key, visit.peer.ip())
        .inspect_err(|full| shared.metrics.limit_refused(full.limit()))?;
    tokio::select! {
        () = subscriber.fed() => Ok(()),
        () = tokio::time::sleep(shared.waiting.patience()) => Err(shared.waiting.in_vain()),
        () = shared.shutdown.cancelled() => Err(Waited::going_down()),
        reason = gone(&visit.socket) => Err(Waited::Gone(reason)),
    }
}

/// Resolves when the client leaves, or says more than it may. What it says until then goes nowhere.
async fn gone(socket: &Socket) -> Reason {
    let mut sink = BytesMut::new();
    let mut said = 0;
    let mut chatter = Chatter::new(said, Instant::now().into_std());
    loop {
        match net::read_some(socket, &mut sink).await {
            Ok(0) => return Reason::Disconnected,
            Ok(bytes) => {
                said += bytes as u64;
                if !chatter.allows(said, Instant::now().into_std()) {
                    return Reason::LimitReached;
                }
                sink.clear();
            }
            Err(_) => return Reason::SocketError,
        }
    }
}

async fn refuse(visit: Visit, reason: Reason, why: &str) -> Reason {
    refused!(reason, stream = %visit.key, "play refused: {why}");
    let words = refusal(Status::of(reason), reason, why, true);
    net::close(visit.socket, &words).await;
    reason
}

/// What the FLV header says: the tracks that came or are announced. While that may still change: both.
fn tracks(shared: &Shared, subscriber: &Subscriber) -> Tracks {
    let Some(info) = shared.relay.stream_info(subscriber.key()) else {
        return Tracks::BOTH;
    };
    let Some(publisher) = info.publisher.filter(|_| !info.mixed) else {
        return Tracks::BOTH;
    };
    let announced = announced(&subscriber.headers());
    let tracks = Tracks {
        audio: publisher.audio.is_some() || announced.is_some_and(|a| a.audio),
        video: publisher.video.is_some() || announced.is_some_and(|a| a.video),
    };
    let settled = announced.is_some() || publisher.since.elapsed().is_ok_and(|age| age > SETTLED);
    if settled && (tracks.audio || tracks.video) {
        tracks
    } else {
        Tracks::BOTH
    }
}

/// The tracks that onMetaData tells of; `None` when it tells of none.
fn announced(headers: &Headers) -> Option<Tracks> {
    let metadata = headers.find(Kind::Data, Slot::Metadata)?;
    // The stranger's AMF goes through the guard; what it refuses announces nothing.
    let values = amf::decode(&metadata.payload).ok()?;
    let tells = |key| {
        values
            .iter()
            .any(|value| amf::property(value, key).is_some())
    };
    let tracks = Tracks {
        audio: tells("audiocodecid"),
        video: tells("videocodecid"),
    };
    (tracks.audio || tracks.video).then_some(tracks)
}
