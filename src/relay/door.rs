//! The door between the RTMP listener and playback, which may not know each other: the listener hands a
//! connection that wants to play through this trait; the server puts playback behind it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::media::{Class, Feed, StreamKey};
use crate::net::Socket;
use crate::net::turns::Turns;
use crate::reason::Reason;
use crate::rtmp::chunk;
use crate::rtmp::session::server::{Event, Session};

/// A connection whose request to play was authorised and not answered yet.
pub struct Handover {
    pub socket: Socket,
    pub peer: SocketAddr,
    pub session: Session,
    /// May hold bytes that came after the request.
    pub reader: chunk::Reader,
    /// The message stream that the client wants to play on.
    pub stream_id: u32,
    /// The name as the client wrote it, without its query, for the answer.
    pub name: String,
    pub key: StreamKey,
    pub feed: Feed,
    pub class: Class,
    /// Resolves when the player is to go, whatever it is at, and says why. To be kept for as long as the player is
    /// served: with it goes the player's place among those that are counted.
    pub eviction: Eviction,
}

/// Why a player is to go, once it is.
pub type Eviction = Pin<Box<dyn Future<Output = Reason> + Send>>;

/// Takes over connections that want to play.
pub trait PlayDoor: Send + Sync {
    /// Serves the connection to its end, or until it wants to publish or play besides.
    fn play(&self, handover: Box<Handover>) -> Pin<Box<dyn Future<Output = Played> + Send + '_>>;

    /// Serves a play on a connection that its owner goes on reading, because it publishes or plays besides.
    fn play_beside(&self, beside: Beside) -> Guest;
}

/// How serving a connection that plays ended.
pub enum Played {
    /// It is closed, for that reason.
    Over(Reason),
    /// It asks to publish, or to play another name: it goes back to the listener, and plays on beside.
    AsksMore(Box<Return>),
}

/// A connection that plays and asks for more.
pub struct Return {
    pub socket: Arc<Socket>,
    pub session: Session,
    pub reader: chunk::Reader,
    /// The request, which the session waits to have answered.
    pub request: Box<Event>,
    pub stream_id: u32,
    pub name: String,
    pub guest: Guest,
    /// The player has the floor; else it waits for its stream, and the connection has it.
    pub has_begun: bool,
}

/// A play beside whatever else its connection does, authorised and not answered yet.
pub struct Beside {
    /// Read by the connection alone. Written by whoever has the floor: see [`Guest`].
    pub socket: Arc<Socket>,
    pub peer: SocketAddr,
    pub stream_id: u32,
    pub key: StreamKey,
    pub feed: Feed,
    pub class: Class,
    /// As in [`Handover`].
    pub eviction: Eviction,
}

/// A connection's line to its player.
///
/// One of the two has the floor, and writes whole messages to the socket: the connection, until it says
/// [`Said::Begin`]; then the player, until it tells [`News::Over`]. Meanwhile what the connection has to say goes
/// through the player.
///
/// With several players on a connection, each of them has it as soon as it has begun, and [`Turns`] decides between
/// them; the connection has it when all are over.
pub struct Guest {
    /// Dropping it ends the play.
    pub said: Option<mpsc::Sender<Said>>,
    pub news: mpsc::Receiver<News>,
}

/// What a connection says to its player.
pub enum Said {
    /// The answer to [`News::Ready`].
    Begin {
        /// Goes out first: what waits to be written, and the answer to `play`.
        first: Bytes,
        /// Where others play on the connection already.
        turns: Option<Arc<Turns>>,
    },
    /// Another player begins on the connection.
    Share(Arc<Turns>),
    /// Whole messages, to go between the player's own.
    Bytes(Bytes),
    /// What the client wants of its play.
    Event(Event),
}

/// What a player tells its connection. All but the first are the last.
pub enum News {
    /// There is something to play: to be answered with [`Said::Begin`].
    Ready,
    /// It will not begin, for that reason, in words for the client.
    Refused { reason: Reason, words: String },
    /// It is over, for that reason, and the connection has the floor again, to write these first.
    Over { reason: Reason, unsent: Bytes },
    /// It is over in the middle of a message: nothing that is written behind it would make sense.
    Broken(Reason),
}
