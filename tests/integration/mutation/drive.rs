//! Drives the pure half of a connection as its owner does, and holds it to what must be true of any bytes at all.
//!
//! Used by the mutational test and, the same file, by the fuzz targets. Panics when something that must hold does not.

use std::collections::HashMap;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use linkmic::media::payload::MainTrack;
use linkmic::media::repair::Repair;
use linkmic::media::{self, Kind, MediaTime, Timeline};
use linkmic::reason::Reason;
use linkmic::rtmp::chunk::{Limits, Message, Reader};
use linkmic::rtmp::session::{client, server};
use linkmic::rtmp::url::Target;
use linkmic::rtmp::{Framed, command, kind};

/// The application that the driven server knows.
const APP: &str = "live";

/// What one run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Run {
    /// Whole messages that were read.
    pub messages: usize,
    /// Events that a session made of them.
    pub events: usize,
    /// Why it was over before the bytes were; `None`: they were all taken.
    pub end: Option<Reason>,
}

impl Run {
    fn ended(mut self, reason: Reason) -> Self {
        assert_ne!(
            reason,
            Reason::Internal,
            "a stranger's bytes are no fault of ours"
        );
        self.end = Some(reason);
        self
    }
}

/// The messages in `bytes`, read `step` bytes at a time, and why reading ended.
pub fn read(bytes: &[u8], step: usize, limits: Limits) -> (Vec<Message>, Option<Reason>) {
    let mut reader = Reader::new(limits);
    let mut messages = Vec::new();
    let mut taken = 0;
    for part in bytes.chunks(step.max(1)) {
        reader.buffer().extend_from_slice(part);
        taken += part.len() as u64;
        loop {
            match reader.next() {
                Ok(Some(message)) => {
                    assert_within(&message, limits);
                    messages.push(message);
                }
                Ok(None) => break,
                Err(error) => return (messages, Some(error.reason())),
            }
        }
        assert_eq!(reader.received(), taken, "bytes received");
        if let Some(total) = reader.acknowledgement() {
            assert_eq!(total, taken as u32, "bytes acknowledged");
        }
    }
    (messages, None)
}

fn assert_within(message: &Message, limits: Limits) {
    let limit = match message.type_id {
        kind::AUDIO | kind::VIDEO => limits.message_bytes,
        // The body of a tag in an aggregate, which may be as long as media.
        kind::DATA => limits.message_bytes.max(limits.command_bytes),
        _ => limits.command_bytes,
    };
    assert!(
        message.payload.len() <= limit,
        "{message:?} is over the limit of {limit}"
    );
}

/// A message framed by us and read again is the same message.
pub fn assert_frames_again(message: &Message) {
    let consumed_by_reader = matches!(
        message.type_id,
        kind::SET_CHUNK_SIZE | kind::ABORT | kind::WINDOW_ACKNOWLEDGEMENT_SIZE | kind::AGGREGATE
    );
    if consumed_by_reader {
        return;
    }
    let mut wire = BytesMut::new();
    let size = Bytes::from_static(&[0, 1, 0, 0]);
    Framed::new(kind::SET_CHUNK_SIZE, 0, 0, size).write_to(&mut wire);
    let framed = Framed::new(
        message.type_id,
        message.timestamp,
        message.stream_id,
        message.payload.clone(),
    );
    framed.write_to(&mut wire);
    let roomy = Limits {
        command_bytes: Limits::default().message_bytes,
        ..Limits::default()
    };
    let (again, end) = read(&wire, wire.len(), roomy);
    assert_eq!(
        (again.as_slice(), end),
        ([message.clone()].as_slice(), None)
    );
}

/// A server's end of a connection whose handshake is over: `bytes` come `step` at a time, and everything asked for is
/// granted where the name allows it.
pub fn server(bytes: &[u8], step: usize) -> Run {
    let mut reader = Reader::new(Limits::default());
    let mut server = Server::new();
    for part in bytes.chunks(step.max(1)) {
        reader.buffer().extend_from_slice(part);
        loop {
            match reader.next() {
                Ok(Some(message)) => {
                    if let Some(reason) = server.take(message) {
                        return server.finish().ended(reason);
                    }
                }
                Ok(None) => break,
                Err(error) => return server.finish().ended(error.reason()),
            }
        }
        if let Some(total) = reader.acknowledgement() {
            server.session.acknowledge(total);
        }
    }
    server.finish()
}

/// The same with messages that are whole already.
pub fn server_messages(messages: impl IntoIterator<Item = Message>) -> Run {
    let mut server = Server::new();
    for message in messages {
        if let Some(reason) = server.take(message) {
            return server.finish().ended(reason);
        }
    }
    server.finish()
}

struct Server {
    session: server::Session,
    run: Run,
    said: BytesMut,
    repair: Repair,
    main_track: MainTrack,
    timeline: Timeline,
    newest: HashMap<(u8, u8), MediaTime>,
}

impl Server {
    fn new() -> Self {
        Self {
            session: server::Session::new(),
            run: Run::default(),
            said: BytesMut::new(),
            repair: Repair::new(),
            main_track: MainTrack::default(),
            timeline: Timeline::new(),
            newest: HashMap::new(),
        }
    }

    /// Acts on one message. `Some`: the connection is over.
    fn take(&mut self, message: Message) -> Option<Reason> {
        self.run.messages += 1;
        let event = match self.session.handle(message) {
            Ok(event) => event,
            Err(error) => return Some(error.reason()),
        };
        self.said.extend_from_slice(&self.session.output());
        let event = event?;
        self.run.events += 1;
        // What is logged of an event must be there for any bytes.
        let _ = format!("{event:?}");
        match event {
            server::Event::Connect(info) if info.app == APP => self.session.accept_connect(),
            server::Event::Connect(_) => {
                self.session.refuse_connect(
                    "NetConnection.Connect.Rejected",
                    Reason::UnknownApp,
                    "no such application",
                );
                return Some(Reason::UnknownApp);
            }
            server::Event::Publish {
                stream_id, name, ..
            } => match media::StreamKey::new(APP, &name) {
                Ok(_) => self.session.accept_publish(stream_id, &name),
                Err(error) => {
                    let why = error.to_string();
                    self.session.refuse_publish(
                        stream_id,
                        "NetStream.Publish.BadName",
                        Reason::NameBusy,
                        &why,
                    );
                }
            },
            server::Event::Play {
                stream_id, name, ..
            } => match media::StreamKey::new(APP, &name) {
                Ok(_) => self.session.accept_play(stream_id, &name),
                Err(error) => {
                    let why = error.to_string();
                    self.session.refuse_play(
                        stream_id,
                        "NetStream.Play.StreamNotFound",
                        Reason::NotFound,
                        &why,
                    );
                }
            },
            server::Event::Media(message) => self.media(message),
            _ => {}
        }
        None
    }

    /// What the publish loop and the relay do with a message, as far as it is pure.
    fn media(&mut self, message: Message) {
        let Some(kind) = Kind::from_type_id(message.type_id) else {
            return;
        };
        let mut read = self.main_track.read(kind, MediaTime::ZERO, message.payload);
        let is_clock = kind != Kind::Data && !read.is_header();
        (read.dts, _) = self
            .repair
            .map(kind, read.track, message.timestamp, is_clock);
        let pts = read.pts();
        let moved = read.timed(read.dts + 1, pts + 7);
        // A packet that left its composition time out may have to say it.
        let longer = moved.payload.len() - read.payload.len();
        assert!(matches!(longer, 0 | 3), "{longer} bytes more of {read:?}");
        if let Some(placed) = self.timeline.map(&read, Instant::now()) {
            if read.is_header() {
                // It may stand up to half a second beside the media around it, and begins nothing.
                return;
            }
            // Decode times of a track's media never go back.
            let newest = self
                .newest
                .insert((kind as u8, read.track), placed.dts)
                .unwrap_or(placed.dts);
            assert!(
                kind == Kind::Data || placed.dts >= newest,
                "{newest:?} was before {:?} of {read:?}",
                placed.dts
            );
        }
    }

    /// What was said makes sense to a client.
    fn finish(mut self) -> Run {
        self.said.extend_from_slice(&self.session.output());
        let (messages, end) = read(&self.said, 1 << 16, Limits::default());
        assert_eq!(end, None, "the answers' chunks");
        for message in messages {
            if message.type_id == kind::COMMAND {
                command::Command::parse(&message).expect("an answer is a command");
            }
        }
        self.run
    }
}

/// A player's end of a connection whose handshake is over: `bytes` are what a server says, `step` at a time.
pub fn client(bytes: &[u8], step: usize) -> Run {
    let target = Target::parse("rtmp://127.0.0.1/live/a?txSecret=0f").expect("a URL");
    let roles: [fn(&Target) -> client::Session; 2] =
        [client::Session::play, client::Session::publish];
    let mut last = Run::default();
    for role in roles {
        let mut session = role(&target);
        last = client_in_role(&mut session, bytes, step);
        let (_, end) = read(&session.output(), 1 << 16, Limits::default());
        assert_eq!(end, None, "what the client says");
    }
    last
}

fn client_in_role(session: &mut client::Session, bytes: &[u8], step: usize) -> Run {
    let mut run = Run::default();
    let mut reader = Reader::new(Limits::default());
    for part in bytes.chunks(step.max(1)) {
        reader.buffer().extend_from_slice(part);
        loop {
            let message = match reader.next() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => return run.ended(error.reason()),
            };
            run.messages += 1;
            match session.handle(message) {
                Ok(Some(event)) => {
                    run.events += 1;
                    if let client::Event::Refused { code, description }
                    | client::Event::Closed { code, description } = &event
                    {
                        assert!(code.len() + description.len() <= 400, "{event:?}");
                    }
                }
                Ok(None) => {}
                Err(error) => return run.ended(error.reason()),
            }
        }
        if let Some(total) = reader.acknowledgement() {
            session.acknowledge(total);
        }
    }
    run
}
