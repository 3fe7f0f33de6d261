//! The door between the RTMP listener and playback, which may not know each other: the listener hands a
//! connection that wants to play through this trait; the server puts playback behind it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use crate::media::{Class, Feed, StreamKey};
use crate::net::Socket;
use crate::reason::Reason;
use crate::rtmp::chunk;
use crate::rtmp::session::server::Session;

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
    /// Serves the connection to its end and says why it ended.
    fn play(&self, handover: Handover) -> Pin<Box<dyn Future<Output = Reason> + Send + '_>>;
}
