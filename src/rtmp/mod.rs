//! RTMP as values: bytes go in, messages and events come out, and nothing here touches a socket or a clock.
//!
//! Owns the handshake, the chunk stream in both directions, AMF0, the commands of one connection seen from
//! either end, and RTMP URLs. Refuses to know who may publish, what a stream is, or how bytes travel.
//! Ingest, playback, push and the mixer's output call it; a connection is driven like this:
//!
//! 1. feed the socket's bytes to [`handshake::Server`] until it is done, sending each reply;
//! 2. put what it left over, and everything read from then on, into [`chunk::Reader`];
//! 3. hand every [`Message`] to a session ([`session::server`] or [`session::client`]), act on its event, and
//!    write what `output()` returns before reading on;
//! 4. write media as [`frame::Framed`], encoded once for all readers.
//!
//! | source | covered |
//! |---|---|
//! | Adobe RTMP specification 1.0 | chunk stream, protocol control, user control, commands of NetConnection and NetStream, aggregates |
//! | handshake with digests (undocumented by Adobe) | by the crate `rml_rtmp` |
//! | AMF0 specification (2006) | every type but references, read; what our own commands need, written |
//! | Enhanced RTMP v2 | capability exchange in `connect`; media payloads pass through untouched |
//! | ffmpeg, librtmp (rtmpdump, OBS), GStreamer rtmp2 | order and form of commands, and the quirks named beside the code |

pub mod amf;
pub mod chatter;
pub mod chunk;
pub mod command;
pub mod control;
pub mod frame;
pub mod handshake;
pub mod session;
pub mod url;

pub use chunk::Message;
pub use frame::{CHUNK_BYTES, Framed, MEDIA_STREAM_ID};

/// Message type ids (RTMP 1.0, sections 5.4 and 7.1) that this crate gives a meaning.
pub mod kind {
    /// Protocol control: the sender's chunk size from now on.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Protocol control: the unfinished message of one chunk stream is given up.
    pub const ABORT: u8 = 2;
    /// Protocol control: bytes received so far.
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User control: stream begin and end, ping and pong.
    pub const USER_CONTROL: u8 = 4;
    /// Protocol control: how often the peer wants an acknowledgement.
    pub const WINDOW_ACKNOWLEDGEMENT_SIZE: u8 = 5;
    /// Protocol control: how much the peer may send unacknowledged.
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// An FLV audio tag's body.
    pub const AUDIO: u8 = 8;
    /// An FLV video tag's body.
    pub const VIDEO: u8 = 9;
    /// Data (metadata, cue points) that says it is AMF3.
    pub const DATA_AMF3: u8 = 15;
    /// A command that says it is AMF3.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data (metadata, cue points) in AMF0.
    pub const DATA: u8 = 18;
    /// A command in AMF0.
    pub const COMMAND: u8 = 20;
    /// Several FLV tags in one message.
    pub const AGGREGATE: u8 = 22;
}
