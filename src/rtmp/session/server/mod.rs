//! The server's side of one connection: what the client wants, as events, and our answers in its own dialect.
//!
//! Owns the order of commands, the message streams of the connection, and the exact answers that ffmpeg, librtmp, OBS,
//! GStreamer and Flash's descendants wait for. Refuses to know names, keys and feeds: [`Event::Connect`],
//! [`Event::Publish`] and [`Event::Play`] are questions, answered by `accept_…` or `refuse_…` before the next message
//! is handed in. Ingest and playback own one per connection.
//!
//! A connection publishes and plays on as many streams as it likes, one thing on each. What a stream that is at work
//! asks for besides is refused there, and the others go on.
//!
//! Messages that belong to no stream: audio and video for an id that was never created, or for one that does not
//! publish, end the connection (nobody sends those by accident, and they would be bytes without a purpose); media for
//! a stream that has stopped publishing is late, not wrong, and is ignored; stray data messages are ignored, because
//! some encoders send metadata early or on stream 0. Unknown commands are ignored: no known client waits for an error.
//!
//! Every no and every end that is ours carries its [`Reason`] in its description ([`Reason::describe`]).

mod connect;
mod event;

use bytes::Bytes;

pub use self::connect::ConnectInfo;
pub use self::event::{End, Error, Event, PublishKind};
use super::Outbox;
use crate::reason::Reason;
use crate::rtmp::command::{self, Command};
use crate::rtmp::control::{self, User};
use crate::rtmp::{Message, amf, kind, url};

/// Most message streams open at once on one connection. Real clients open one or two.
pub const MAX_STREAMS: usize = 8;

/// The server's side of one connection.
pub struct Session {
    phase: Phase,
    /// The query of `app` or `tcUrl`, for names that have none.
    query: String,
    streams: Vec<Stream>,
    /// Highest id ever given out: media for older ids is late, for newer ones an error.
    newest: u32,
    /// Whether the client can be asked to reconnect.
    can_reconnect: bool,
    out: Outbox,
}

enum Phase {
    Fresh,
    Connecting {
        info: Box<ConnectInfo>,
        transaction: f64,
    },
    Connected,
    Closed,
}

struct Stream {
    id: u32,
    state: State,
    /// The name as the client sent it; `FCUnpublish` repeats it.
    name: String,
}

impl Stream {
    /// Is that its name, queries aside?
    fn is_called(&self, name: &str) -> bool {
        url::split_name(&self.name).0 == name
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    PublishAsked,
    Publishing,
    PlayAsked,
    Playing,
    /// Published or played once; may do so again, and what still comes in is late.
    Ended,
}

impl Session {
    /// A session for a connection whose handshake is over.
    pub fn new() -> Self {
        Self {
            phase: Phase::Fresh,
            query: String::new(),
            streams: Vec::new(),
            newest: 0,
            can_reconnect: false,
            out: Outbox::new(),
        }
    }

    /// Takes one message. Answer the event, if it is a question, before the next message; write
    /// [`Session::output`] before reading more from the socket. After [`Session::close`] everything is ignored.
    ///
    /// # Errors
    /// When the message breaks the protocol: close the connection. What [`Session::output`] holds may still be sent.
    pub fn handle(&mut self, message: Message) -> Result<Option<Event>, Error> {
        if matches!(self.phase, Phase::Closed) {
            return Ok(None);
        }
        match message.type_id {
            kind::COMMAND | kind::COMMAND_AMF3 => {
                let command = Command::parse(&message)?;
                self.command(&command, message.stream_id)
            }
            kind::AUDIO | kind::VIDEO => self.media(message),
            kind::DATA | kind::DATA_AMF3 => self.data(message),
            kind::USER_CONTROL => {
                if let Some(User::Ping(stamp)) = User::parse(&message.payload) {
                    self.out.send(&control::pong(stamp));
                }
                Ok(None)
            }
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

    /// Grants a [`Event::Connect`]. Does nothing unless one is unanswered.
    pub fn accept_connect(&mut self) {
        if let Phase::Connecting { info, transaction } = &self.phase {
            let mut answer = info.success(*transaction);
            self.can_reconnect = info.can_reconnect();
            self.out.announce();
            self.out.command(0, &mut answer);
            self.phase = Phase::Connected;
        }
    }

    /// Refuses a [`Event::Connect`], with a code like `NetConnection.Connect.Rejected`. Send the output, then close.
    pub fn refuse_connect(&mut self, code: &str, reason: Reason, words: &str) {
        if let Phase::Connecting { transaction, .. } = self.phase {
            let mut answer = command::begin("_error", transaction);
            answer.null();
            command::info(&mut answer, "error", code, &reason.describe(words));
            self.out.announce();
            self.out.command(0, &mut answer);
            self.phase = Phase::Closed;
        }
    }

    /// Grants a [`Event::Publish`]: media follows. `name` is shown to the client. Does nothing unless asked.
    pub fn accept_publish(&mut self, stream_id: u32, name: &str) {
        if self.turn(stream_id, State::PublishAsked, State::Publishing) {
            self.out.send(&control::stream_begin(stream_id));
            let text = format!("{name} is now published.");
            self.status(stream_id, "status", "NetStream.Publish.Start", &text);
        }
    }

    /// Refuses a [`Event::Publish`] with `NetStream.Publish.BadName`, `NetStream.Publish.Denied` or the like, and the
    /// reason in words. Send the output, then close: librtmp and GStreamer wait for one or the other.
    pub fn refuse_publish(&mut self, stream_id: u32, code: &str, reason: Reason, words: &str) {
        if self.turn(stream_id, State::PublishAsked, State::Ended) {
            self.status(stream_id, "error", code, &reason.describe(words));
        }
    }

    /// Ends a stream that publishes: the client hears `code` and the reason in words. Send the output, then close.
    pub fn end_publish(&mut self, stream_id: u32, code: &str, reason: Reason, words: &str) {
        if self.turn(stream_id, State::Publishing, State::Ended) {
            self.status(stream_id, "error", code, &reason.describe(words));
        }
    }

    /// Grants a [`Event::Play`]: media may follow the output. `name` is shown to the client. Does nothing unless asked.
    pub fn accept_play(&mut self, stream_id: u32, name: &str) {
        if self.turn(stream_id, State::PlayAsked, State::Playing) {
            self.out.send(&control::stream_begin(stream_id));
            let text = format!("Playing and resetting {name}.");
            self.status(stream_id, "status", "NetStream.Play.Reset", &text);
            let text = format!("Started playing {name}.");
            self.status(stream_id, "status", "NetStream.Play.Start", &text);
            let mut access = amf::Writer::new();
            access
                .string("|RtmpSampleAccess")
                .boolean(true)
                .boolean(true);
            self.out.amf(kind::DATA, stream_id, &mut access);
        }
    }

    /// Refuses a [`Event::Play`] with `NetStream.Play.StreamNotFound`, `NetStream.Play.Failed` or the like, and the
    /// reason in words. Send the output, then close.
    pub fn refuse_play(&mut self, stream_id: u32, code: &str, reason: Reason, words: &str) {
        if self.turn(stream_id, State::PlayAsked, State::Ended) {
            self.status(stream_id, "error", code, &reason.describe(words));
        }
    }

    /// Tells a player that what it plays has ended. Clients then close by themselves; some wait for us to.
    pub fn end_play(&mut self, stream_id: u32, name: &str, reason: Reason) {
        if self.turn(stream_id, State::Playing, State::Ended) {
            self.out.send(&control::stream_eof(stream_id));
            let text = format!("{name} is now unpublished.");
            let code = "NetStream.Play.UnpublishNotify";
            self.status(stream_id, "status", code, &text);
            let text = reason.describe(format_args!("Stopped playing {name}."));
            self.status(stream_id, "status", "NetStream.Play.Stop", &text);
        }
    }

    /// As [`Self::end_play`], of a play that ends by our will: the client hears `code` and the reason in words.
    pub fn break_play(&mut self, stream_id: u32, code: &str, reason: Reason, words: &str) {
        if self.turn(stream_id, State::Playing, State::Ended) {
            self.status(stream_id, "error", code, &reason.describe(words));
        }
    }

    /// Asks the client to connect again, to the same URL, at its next good moment (Enhanced RTMP v2). False, and nothing
    /// queued, when it has not said in `connect` that it can be asked, or has been asked already.
    ///
    /// It goes on publishing or playing until it leaves: serve it until then, or for as long as there is time.
    pub fn request_reconnect(&mut self, reason: Reason, words: &str) -> bool {
        let asks = self.can_reconnect && matches!(self.phase, Phase::Connected);
        if asks {
            self.can_reconnect = false;
            let code = "NetConnection.Connect.ReconnectRequest";
            self.status(0, "status", code, &reason.describe(words));
        }
        asks
    }

    /// Says goodbye with the reason in words and ignores whatever comes. Send the output, then close.
    pub fn close(&mut self, reason: Reason, words: &str) {
        if matches!(self.phase, Phase::Connected) {
            let code = "NetConnection.Connect.Closed";
            self.status(0, "error", code, &reason.describe(words));
        }
        self.phase = Phase::Closed;
    }

    fn command(&mut self, command: &Command, stream_id: u32) -> Result<Option<Event>, Error> {
        match (&self.phase, command.name.as_str()) {
            (Phase::Fresh, "connect") => {
                let info = ConnectInfo::parse(command);
                self.query = info.query.clone();
                self.phase = Phase::Connecting {
                    info: Box::new(info.clone()),
                    transaction: command.transaction,
                };
                return Ok(Some(Event::Connect(info)));
            }
            (Phase::Fresh, _) => return Err(Error::BeforeConnect { what: "command" }),
            (_, "connect") => return Err(Error::ConnectedTwice),
            (Phase::Connecting { .. }, _) => {
                return Err(Error::Unanswered {
                    what: "command",
                    question: "connect",
                });
            }
            (Phase::Connected | Phase::Closed, _) => {}
        }

        match command.name.as_str() {
            "createStream" => self.create_stream(command.transaction)?,
            "publish" => return self.publish(command, stream_id),
            "play" => return self.play(command, stream_id),
            "closeStream" => return Ok(self.end_of(stream_id, End::Closed)),
            "deleteStream" => {
                let id = self.deleted(command, stream_id);
                let event = self.end_of(id, End::Deleted);
                self.streams.retain(|stream| stream.id != id);
                return Ok(event);
            }
            "FCUnpublish" => return Ok(self.fc_unpublish(command)),
            "pause" | "pauseRaw" => return Ok(self.pause(command, stream_id)),
            "receiveAudio" | "receiveVideo" => {
                let on = command.flag(0).unwrap_or(true);
                return Ok(self
                    .playing(stream_id)
                    .then(|| match command.name.as_str() {
                        "receiveAudio" => Event::ReceiveAudio { stream_id, on },
                        _ => Event::ReceiveVideo { stream_id, on },
                    }));
            }
            "seek" => self.seek(command, stream_id),
            "releaseStream" | "_checkbw" | "checkBandwidth" => self.courtesy(command.transaction),
            // Live streams have no length. ffmpeg asks before it plays.
            "getStreamLength" | "getMovLen" => self.result(command.transaction, Some(0.0)),
            // Flash Media Live Encoder waits for the second part before it goes on to createStream. That is no
            // permission yet: the answer to publish is.
            "FCPublish" => {
                self.courtesy(command.transaction);
                let name = url::split_name(command.text(0).unwrap_or_default()).0;
                self.notice("onFCPublish", "NetStream.Publish.Start", name);
            }
            "FCSubscribe" => {
                let name = url::split_name(command.text(0).unwrap_or_default()).0;
                self.notice("onFCSubscribe", "NetStream.Play.Start", name);
            }
            // Playing ends with closeStream or deleteStream; this ends what FCSubscribe began, which was nothing.
            "FCUnsubscribe" => {
                self.courtesy(command.transaction);
                let name = url::split_name(command.text(0).unwrap_or_default()).0;
                self.notice("onFCUnsubscribe", "NetStream.Play.Stop", name);
            }
            _ => {}
        }
        Ok(None)
    }

    fn create_stream(&mut self, transaction: f64) -> Result<(), Error> {
        // The lowest free id, so that the first stream is always the one shared media is framed for.
        let id = (1..=MAX_STREAMS as u32).find(|id| self.stream(*id).is_none());
        let id = id.ok_or(Error::TooManyStreams { limit: MAX_STREAMS })?;
        self.streams.push(Stream {
            id,
            state: State::Idle,
            name: String::new(),
        });
        self.newest = self.newest.max(id);
        self.result(transaction, Some(id.into()));
        Ok(())
    }

    fn publish(&mut self, command: &Command, stream_id: u32) -> Result<Option<Event>, Error> {
        let asked = self.ask("publish", command, stream_id, State::PublishAsked)?;
        Ok(asked.map(|(name, query)| Event::Publish {
            stream_id,
            name,
            query,
            kind: match command.text(1) {
                Some("record") => PublishKind::Record,
                Some("append") => PublishKind::Append,
                _ => PublishKind::Live,
            },
        }))
    }

    fn play(&mut self, command: &Command, stream_id: u32) -> Result<Option<Event>, Error> {
        let asked = self.ask("play", command, stream_id, State::PlayAsked)?;
        Ok(asked.map(|(name, query)| Event::Play {
            stream_id,
            name,
            query,
            start: command.number(1).unwrap_or(-2.0),
        }))
    }

    /// Notes that a stream asks for something; returns its name and the query that counts. `None`: it has been told
    /// that it cannot, and everything else on the connection goes on.
    fn ask(
        &mut self,
        what: &'static str,
        command: &Command,
        stream_id: u32,
        asked: State,
    ) -> Result<Option<(String, String)>, Error> {
        let full = command.text(0).ok_or(Error::Missing {
            command: what,
            argument: "a stream name",
        })?;
        let stream = self
            .streams
            .iter_mut()
            .find(|stream| stream.id == stream_id)
            .ok_or(Error::NoStream { what, stream_id })?;
        let why = match stream.state {
            State::PublishAsked => return Err(Error::StreamInUse { what, stream_id }),
            State::Publishing => format!("stream {stream_id} publishes already"),
            State::PlayAsked | State::Playing => format!("stream {stream_id} plays already"),
            State::Idle | State::Ended => String::new(),
        };
        if !why.is_empty() {
            let code = match asked {
                State::PublishAsked => "NetStream.Publish.Denied",
                _ => "NetStream.Play.Failed",
            };
            let why = Reason::LimitReached.describe(why);
            self.status(stream_id, "error", code, &why);
            return Ok(None);
        }
        stream.state = asked;
        stream.name = full.to_owned();
        let (name, own) = url::split_name(full);
        let query = if own.is_empty() { &self.query } else { own };
        Ok(Some((name.to_owned(), query.to_owned())))
    }

    fn fc_unpublish(&mut self, command: &Command) -> Option<Event> {
        self.courtesy(command.transaction);
        let name = url::split_name(command.text(0).unwrap_or_default()).0;
        self.notice("onFCUnpublish", "NetStream.Unpublish.Success", name);
        let mut publishing = self
            .streams
            .iter()
            .filter(|stream| stream.state == State::Publishing);
        // By name, with or without the query that it was published with. A client that names none means the only one.
        let id = match publishing.clone().find(|stream| stream.is_called(name)) {
            Some(stream) => stream.id,
            None => match (publishing.next(), publishing.next()) {
                (Some(only), None) if name.is_empty() => only.id,
                _ => return None,
            },
        };
        self.end_of(id, End::Deleted)
    }

    /// Which stream `deleteStream` means: its number as argument, except that GStreamer gives the name instead, and
    /// the stream the command came on when there is no argument.
    fn deleted(&self, command: &Command, stream_id: u32) -> u32 {
        if let Some(id) = command.number(0) {
            return id as u32;
        }
        let named = command
            .text(0)
            .map(|name| url::split_name(name).0)
            .and_then(|name| self.streams.iter().find(|stream| stream.is_called(name)));
        named.map_or(stream_id, |stream| stream.id)
    }

    /// Ends whatever the stream does; it may be used again.
    fn end_of(&mut self, stream_id: u32, how: End) -> Option<Event> {
        let stream = self.streams.iter_mut().find(|s| s.id == stream_id)?;
        match std::mem::replace(&mut stream.state, State::Ended) {
            State::Publishing | State::PublishAsked => {
                let text = "Stopped publishing.";
                self.status(stream_id, "status", "NetStream.Unpublish.Success", text);
                Some(Event::Unpublish { stream_id, how })
            }
            State::Playing | State::PlayAsked => Some(Event::StopPlay { stream_id }),
            State::Idle | State::Ended => None,
        }
    }

    fn pause(&mut self, command: &Command, stream_id: u32) -> Option<Event> {
        let on = command.flag(0).unwrap_or(true);
        if !self.playing(stream_id) {
            return None;
        }
        let (code, text) = match on {
            true => ("NetStream.Pause.Notify", "Paused."),
            false => ("NetStream.Unpause.Notify", "Resumed."),
        };
        self.status(stream_id, "status", code, text);
        Some(Event::Pause { stream_id, on })
    }

    /// Live is played from where it is: the player goes on there. A refusal would end ffmpeg and librtmp, which take
    /// errors on a stream for its end.
    fn seek(&mut self, command: &Command, stream_id: u32) {
        if self.playing(stream_id) {
            let text = format!(
                "Live streams cannot be sought; {} ms is ignored.",
                command.number(0).unwrap_or_default()
            );
            self.status(stream_id, "status", "NetStream.Seek.Notify", &text);
        }
    }

    fn media(&mut self, message: Message) -> Result<Option<Event>, Error> {
        if !matches!(self.phase, Phase::Connected) {
            return Err(Error::BeforeConnect { what: "media" });
        }
        let stream_id = message.stream_id;
        match self.stream(stream_id).map(|stream| stream.state) {
            Some(State::Publishing) => Ok(Some(Event::Media(message))),
            Some(State::Ended) => Ok(None),
            Some(State::PublishAsked) => Err(Error::Unanswered {
                what: "media",
                question: "publish",
            }),
            Some(State::Idle | State::PlayAsked | State::Playing) => {
                Err(Error::NotPublishing { stream_id })
            }
            None if (1..=self.newest).contains(&stream_id) => Ok(None),
            None => Err(Error::NoStream {
                what: "media",
                stream_id,
            }),
        }
    }

    fn data(&mut self, mut message: Message) -> Result<Option<Event>, Error> {
        let state = self.stream(message.stream_id).map(|stream| stream.state);
        if state != Some(State::Publishing) {
            return Ok(None);
        }
        // It will be repeated to players, so nothing nested a thousand deep goes on, nor AMF3, which few of them read;
        // what is merely odd does.
        let plain = match message.type_id {
            kind::DATA_AMF3 => amf::plain3(&message.payload),
            _ => amf::plain(&message.payload),
        };
        let Ok(plain) = plain else { return Ok(None) };
        let start = match command::leading_string(&plain) {
            Some((b"@setDataFrame", length)) => length,
            Some((b"@clearDataFrame", _)) | None => return Ok(None),
            Some(_) => 0,
        };
        message.payload = plain.slice(start..);
        message.type_id = kind::DATA;
        Ok(Some(Event::Media(message)))
    }

    fn stream(&self, id: u32) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.id == id)
    }

    fn playing(&self, id: u32) -> bool {
        self.stream(id)
            .is_some_and(|stream| stream.state == State::Playing)
    }

    /// Moves the stream from one state to another; false when it is not in the first.
    fn turn(&mut self, id: u32, from: State, to: State) -> bool {
        let stream = self
            .streams
            .iter_mut()
            .find(|stream| stream.id == id && stream.state == from);
        match stream {
            Some(stream) => {
                stream.state = to;
                true
            }
            None => false,
        }
    }

    fn result(&mut self, transaction: f64, value: Option<f64>) {
        let mut body = command::begin("_result", transaction);
        body.null();
        if let Some(value) = value {
            body.number(value);
        }
        self.out.command(0, &mut body);
    }

    /// A result that says nothing, for clients that asked for one: GStreamer sends such commands as transaction 0.
    fn courtesy(&mut self, transaction: f64) {
        if transaction != 0.0 {
            self.result(transaction, None);
        }
    }

    fn notice(&mut self, command: &str, code: &str, description: &str) {
        let mut body = command::begin(command, 0.0);
        body.null();
        command::info(&mut body, "status", code, description);
        self.out.command(0, &mut body);
    }

    fn status(&mut self, stream_id: u32, level: &str, code: &str, description: &str) {
        let mut body = command::begin("onStatus", 0.0);
        body.null();
        command::info(&mut body, level, code, description);
        self.out.command(stream_id, &mut body);
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
