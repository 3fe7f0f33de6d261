//! The client's side of one connection: publish to, or play from, one stream at another server.
//!
//! Owns the order of commands that CDNs know from ffmpeg and OBS, and what their answers mean. Refuses to know when
//! to try again. Push owns one per attempt; pulls and latency probes use the same with [`Session::play`].

use std::fmt;

use bytes::Bytes;

use super::Outbox;
use crate::reason::Reason;
use crate::rtmp::amf::{self, Value};
use crate::rtmp::command::{self, Command};
use crate::rtmp::control::{self, User};
use crate::rtmp::url::Target;
use crate::rtmp::{Message, kind};

/// What we say we are. Some CDNs only let encoders in whose name begins like Adobe's.
const FLASH_VER: &str = "FMLE/3.0 (compatible; linkmic)";
/// What we tell servers that we buffer when we play, in milliseconds: a hint, which live servers ignore.
const BUFFER_MS: u32 = 100;
/// Longest text of a server's that is passed on.
const MAX_TEXT_BYTES: usize = 200;

/// Transaction numbers: fixed, since each command is sent once.
const CONNECT: f64 = 1.0;
const RELEASE: f64 = 2.0;
const FC_PUBLISH: f64 = 3.0;
const CREATE: f64 = 4.0;
const START: f64 = 5.0;
const FC_UNPUBLISH: f64 = 6.0;
const DELETE: f64 = 7.0;

/// Why the server's side of the conversation made no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Command(#[from] command::Error),
    #[error("server answered createStream without a stream id")]
    NoStreamId,
}

impl Error {
    /// The reason under which this end is counted and reported.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Command(error) => error.reason(),
            Error::NoStreamId => Reason::Protocol,
        }
    }
}

/// What the server did.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Publishing or playing has begun; media goes to, or comes from, [`Session::stream_id`].
    Ready,
    /// The server said no, before [`Event::Ready`]. Both texts are the server's, cut to 200 bytes, our query masked.
    Refused { code: String, description: String },
    /// The server ended it, after [`Event::Ready`], or confirmed [`Session::unpublish`].
    Closed { code: String, description: String },
    /// Audio, video or data of the stream being played.
    Media(Message),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Publish,
    Play,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connecting,
    Creating,
    Starting,
    Live,
    Over,
}

/// The client's side of one connection.
pub struct Session {
    target: Target,
    role: Role,
    step: Step,
    stream_id: Option<u32>,
    out: Outbox,
}

impl Session {
    /// Will publish to `target`, with the query it has (see [`Target::with_query`]). Its first output is `connect`.
    pub fn publish(target: &Target) -> Self {
        Self::new(target, Role::Publish)
    }

    /// Will play `target`. Its first output is `connect`.
    pub fn play(target: &Target) -> Self {
        Self::new(target, Role::Play)
    }

    fn new(target: &Target, role: Role) -> Self {
        let mut session = Self {
            target: target.clone(),
            role,
            step: Step::Connecting,
            stream_id: None,
            out: Outbox::new(),
        };
        let mut body = command::begin("connect", CONNECT);
        body.object().key("app").string(&target.app);
        if role == Role::Publish {
            body.key("type").string("nonprivate");
        }
        body.key("flashVer").string(FLASH_VER);
        body.key("tcUrl").string(&target.tc_url());
        if role == Role::Play {
            // The numbers of ffmpeg's player: all classic codecs.
            body.key("fpad").boolean(false);
            body.key("capabilities").number(15.0);
            body.key("audioCodecs").number(4071.0);
            body.key("videoCodecs").number(252.0);
            body.key("videoFunction").number(1.0);
        }
        body.end();
        session.out.command(0, &mut body);
        session
    }

    /// Takes one message. Write [`Session::output`] before reading more from the socket.
    ///
    /// # Errors
    /// When the message breaks the protocol: close the connection.
    pub fn handle(&mut self, message: Message) -> Result<Option<Event>, Error> {
        match message.type_id {
            kind::COMMAND | kind::COMMAND_AMF3 => {
                let command = Command::parse(&message)?;
                self.command(&command)
            }
            kind::AUDIO | kind::VIDEO | kind::DATA | kind::DATA_AMF3 => Ok(self.media(message)),
            kind::USER_CONTROL => Ok(match User::parse(&message.payload) {
                Some(User::Ping(stamp)) => {
                    self.out.send(&control::pong(stamp));
                    None
                }
                Some(User::StreamEof(id)) if Some(id) == self.stream_id => self.over(
                    "NetStream.Play.Stop",
                    "the server says the stream has ended",
                ),
                _ => None,
            }),
            _ => Ok(None),
        }
    }

    /// Takes all bytes queued to be sent; empty when there are none.
    pub fn output(&mut self) -> Bytes {
        self.out.take()
    }

    /// Queues an acknowledgement of `total` bytes, as [`chunk::Reader::acknowledgement`] asks.
    ///
    /// [`chunk::Reader::acknowledgement`]: crate::rtmp::chunk::Reader::acknowledgement
    pub fn acknowledge(&mut self, total: u32) {
        self.out.send(&control::acknowledgement(total));
    }

    /// The message stream to frame media for, as the server numbered it; `None` until it has.
    pub fn stream_id(&self) -> Option<u32> {
        self.stream_id
    }

    /// Queues a proper end (`FCUnpublish`, then `deleteStream`). Send it and close; the server's answer may be awaited.
    pub fn unpublish(&mut self) {
        let Some(id) = self.stream_id else { return };
        if self.role == Role::Publish {
            let name = self.target.name_with_query();
            let mut body = command::begin("FCUnpublish", FC_UNPUBLISH);
            self.out.command(0, body.null().string(&name));
        }
        let mut body = command::begin("deleteStream", DELETE);
        self.out.command(0, body.null().number(id.into()));
    }

    fn command(&mut self, command: &Command) -> Result<Option<Event>, Error> {
        // The object that says what happened is an argument; some servers put it in the command object's place.
        let info = match command.arguments.first() {
            Some(info @ Value::Object(_)) => info,
            _ => &command.object,
        };
        let field = |key| {
            amf::property(info, key)
                .and_then(amf::text)
                .unwrap_or_default()
        };
        let (code, description) = (field("code"), field("description"));
        let failed = field("level") == "error";

        Ok(match command.name.as_str() {
            "_result" if command.transaction == CONNECT && self.step == Step::Connecting => {
                if failed {
                    return Ok(self.over(code, description));
                }
                self.connected();
                None
            }
            "_result" if command.transaction == CREATE && self.step == Step::Creating => {
                let id = command.number(0).ok_or(Error::NoStreamId)?;
                self.start(id as u32);
                None
            }
            // releaseStream and FCPublish are courtesies; servers that don't know them say so.
            "_error" if [CONNECT, CREATE, START].contains(&command.transaction) => {
                self.over(code, description)
            }
            "onFCPublish" if failed => self.over(code, description),
            "onStatus" => self.status(code, description, failed),
            "close" => self.over("NetConnection.Connect.Closed", "the server closed"),
            _ => None,
        })
    }

    /// The server let us in: announce our chunk size and ask for a stream.
    fn connected(&mut self) {
        self.step = Step::Creating;
        self.out.announced = true;
        if self.role == Role::Play {
            self.out.send(&control::window());
        }
        self.out.send(&control::chunk_size());
        if self.role == Role::Publish {
            let name = self.target.name_with_query();
            let mut body = command::begin("releaseStream", RELEASE);
            self.out.command(0, body.null().string(&name));
            let mut body = command::begin("FCPublish", FC_PUBLISH);
            self.out.command(0, body.null().string(&name));
        }
        let mut body = command::begin("createStream", CREATE);
        self.out.command(0, body.null());
    }

    /// The server gave us a stream: use it.
    fn start(&mut self, id: u32) {
        self.step = Step::Starting;
        self.stream_id = Some(id);
        let name = self.target.name_with_query();
        match self.role {
            Role::Publish => {
                let mut body = command::begin("publish", START);
                let body = body.null().string(&name).string("live");
                self.out.command(id, body);
            }
            Role::Play => {
                self.out.send(&control::buffer_length(id, BUFFER_MS));
                let mut body = command::begin("play", START);
                // -2000: live if there is such a stream, as ffmpeg asks.
                let body = body.null().string(&name).number(-2000.0);
                self.out.command(id, body);
            }
        }
    }

    fn status(&mut self, code: &str, description: &str, failed: bool) -> Option<Event> {
        let begun = match self.role {
            Role::Publish => "NetStream.Publish.Start",
            Role::Play => "NetStream.Play.Start",
        };
        if self.step == Step::Starting && code == begun && !failed {
            self.step = Step::Live;
            return Some(Event::Ready);
        }
        let ended = matches!(
            code,
            "NetStream.Play.UnpublishNotify"
                | "NetStream.Play.Stop"
                | "NetStream.Play.Complete"
                | "NetStream.Unpublish.Success"
                | "NetConnection.Connect.Closed"
        );
        match failed || (ended && self.step == Step::Live) {
            true => self.over(code, description),
            false => None,
        }
    }

    fn media(&mut self, message: Message) -> Option<Event> {
        let wanted = self.role == Role::Play
            && matches!(self.step, Step::Starting | Step::Live)
            && Some(message.stream_id) == self.stream_id;
        if !wanted {
            return None;
        }
        if matches!(message.type_id, kind::DATA | kind::DATA_AMF3) {
            // What servers say about playing, not part of what is played.
            let name = command::leading_string(command::amf0_of(&message))?.0;
            if matches!(name, b"|RtmpSampleAccess" | b"onStatus") {
                return None;
            }
        }
        Some(Event::Media(message))
    }

    /// Reports the end, once.
    fn over(&mut self, code: &str, description: &str) -> Option<Event> {
        let (code, description) = (self.brief(code), self.brief(description));
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Over => None,
            Step::Live => Some(Event::Closed { code, description }),
            _ => Some(Event::Refused { code, description }),
        }
    }

    /// A server's text, short enough for a log line and a status page, and without the signature that some quote.
    fn brief(&self, text: &str) -> String {
        let text = match self.target.query.as_str() {
            "" => text.to_owned(),
            query => text.replace(query, "***"),
        };
        text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("target", &self.target)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
