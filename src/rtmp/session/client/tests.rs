use super::*;
use crate::rtmp::amf::Writer;
use crate::rtmp::session::server;
use crate::rtmp::{chunk, command};

fn target() -> Target {
    Target::parse("rtmp://cdn.example/live/a?txSecret=s3").unwrap()
}

/// A server that answers by script: what it hears is kept as command names.
struct Script {
    session: Session,
    reader: chunk::Reader,
}

impl Script {
    fn new(session: Session) -> Self {
        let reader = chunk::Reader::new(chunk::Limits::default());
        Self { session, reader }
    }

    fn hears(&mut self) -> Vec<(u32, Command)> {
        let output = self.session.output();
        self.reader.buffer().extend_from_slice(&output);
        let mut heard = Vec::new();
        while let Some(message) = self.reader.next().unwrap() {
            if message.type_id == kind::COMMAND {
                heard.push((message.stream_id, Command::parse(&message).unwrap()));
            }
        }
        heard
    }

    fn hears_names(&mut self) -> Vec<String> {
        self.hears()
            .into_iter()
            .map(|(_, command)| command.name)
            .collect()
    }

    fn says(&mut self, stream_id: u32, body: &mut Writer) -> Result<Option<Event>, Error> {
        self.raw(kind::COMMAND, stream_id, body.finish())
    }

    fn raw(&mut self, type_id: u8, stream_id: u32, payload: Bytes) -> Result<Option<Event>, Error> {
        self.session.handle(Message {
            type_id,
            stream_id,
            timestamp: 0,
            payload,
        })
    }

    fn connects(&mut self) {
        assert_eq!(self.hears_names(), ["connect"]);
        assert_eq!(
            self.says(0, command::begin("_result", 1.0).null()),
            Ok(None)
        );
    }
}

fn status(level: &str, code: &str, text: &str) -> Writer {
    let mut body = command::begin("onStatus", 0.0);
    body.null();
    command::info(&mut body, level, code, text);
    body
}

fn refused(code: &str, description: &str) -> Result<Option<Event>, Error> {
    Ok(Some(Event::Refused {
        code: code.into(),
        description: description.into(),
    }))
}

fn closed(code: &str, description: &str) -> Result<Option<Event>, Error> {
    Ok(Some(Event::Closed {
        code: code.into(),
        description: description.into(),
    }))
}

/// Both of our sessions, talking to each other; returns what each saw until nothing more is said.
fn converse(
    client: &mut Session,
    server: &mut server::Session,
) -> (Vec<Event>, Vec<server::Event>) {
    let mut to_server = chunk::Reader::new(chunk::Limits::default());
    let mut to_client = chunk::Reader::new(chunk::Limits::default());
    let (mut client_saw, mut server_saw) = (Vec::new(), Vec::new());
    loop {
        let (up, down) = (client.output(), server.output());
        if up.is_empty() && down.is_empty() {
            return (client_saw, server_saw);
        }
        to_server.buffer().extend_from_slice(&up);
        while let Some(message) = to_server.next().unwrap() {
            let event = server.handle(message).unwrap();
            match &event {
                Some(server::Event::Connect(_)) => server.accept_connect(),
                Some(server::Event::Publish {
                    stream_id, name, ..
                }) => server.accept_publish(*stream_id, name),
                Some(server::Event::Play {
                    stream_id, name, ..
                }) => server.accept_play(*stream_id, name),
                _ => {}
            }
            server_saw.extend(event);
        }
        to_client.buffer().extend_from_slice(&down);
        while let Some(message) = to_client.next().unwrap() {
            client_saw.extend(client.handle(message).unwrap());
        }
    }
}

#[test]
fn our_two_ends_publish_and_unpublish() {
    let (mut client, mut server) = (Session::publish(&target()), server::Session::new());
    let (client_saw, server_saw) = converse(&mut client, &mut server);
    assert_eq!(client_saw, [Event::Ready]);
    assert_eq!(client.stream_id(), Some(1));
    match &server_saw[..] {
        [
            server::Event::Connect(info),
            server::Event::Publish { name, query, .. },
        ] => {
            assert_eq!(
                (info.app.as_str(), info.tc_url.as_str()),
                ("live", "rtmp://cdn.example/live")
            );
            assert_eq!((name.as_str(), query.as_str()), ("a", "txSecret=s3"));
        }
        other => panic!("{other:?}"),
    }
    client.unpublish();
    let (client_saw, server_saw) = converse(&mut client, &mut server);
    let how = server::End::Deleted;
    assert_eq!(server_saw, [server::Event::Unpublish { stream_id: 1, how }]);
    assert!(
        matches!(&client_saw[..], [Event::Closed { .. }]),
        "{client_saw:?}"
    );
}

#[test]
fn our_two_ends_play_until_the_stream_ends() {
    let (mut client, mut server) = (Session::play(&target()), server::Session::new());
    let (client_saw, server_saw) = converse(&mut client, &mut server);
    assert_eq!(client_saw, [Event::Ready]);
    assert!(matches!(&server_saw[1], server::Event::Play { start, .. } if *start == -2000.0));
    server.end_play(1, "a", Reason::StreamEnded);
    let (client_saw, _) = converse(&mut client, &mut server);
    assert!(
        matches!(&client_saw[..], [Event::Closed { code, .. }] if code == "NetStream.Play.Stop")
    );
}

#[test]
fn publishing_goes_in_the_order_of_ffmpeg_and_takes_the_servers_stream_id() {
    let mut script = Script::new(Session::publish(&target()));
    script.connects();
    let heard = script.hears();
    let names: Vec<_> = heard
        .iter()
        .map(|(id, command)| (*id, command.name.as_str()))
        .collect();
    assert_eq!(
        names,
        [(0, "releaseStream"), (0, "FCPublish"), (0, "createStream")]
    );
    assert_eq!(heard[0].1.text(0), Some("a?txSecret=s3"));

    // A server that knows neither courtesy, and one that says so much that it must be ignored.
    for transaction in [2.0, 3.0] {
        let mut body = command::begin("_error", transaction);
        body.null();
        command::info(&mut body, "error", "NetConnection.Call.Failed", "not found");
        assert_eq!(script.says(0, &mut body), Ok(None));
    }
    for name in ["onBWDone", "onFCPublish", "|RtmpSampleAccess", "ping"] {
        assert_eq!(script.says(0, command::begin(name, 0.0).null()), Ok(None));
    }
    assert_eq!(
        script.says(0, command::begin("_result", 4.0).null().number(7.0)),
        Ok(None)
    );
    assert_eq!(script.session.stream_id(), Some(7));
    let heard = script.hears();
    let (id, publish) = &heard[0];
    assert_eq!((*id, publish.name.as_str()), (7, "publish"));
    assert_eq!(
        (publish.text(0), publish.text(1)),
        (Some("a?txSecret=s3"), Some("live"))
    );
    let started = script.says(7, &mut status("status", "NetStream.Publish.Start", ""));
    assert_eq!(started, Ok(Some(Event::Ready)));

    script.session.unpublish();
    let heard = script.hears();
    assert_eq!(heard[0].1.name, "FCUnpublish");
    assert_eq!(
        (heard[1].1.name.as_str(), heard[1].1.number(0)),
        ("deleteStream", Some(7.0))
    );
}

#[test]
fn connect_is_sent_in_the_initial_chunk_size() {
    let mut session = Session::publish(&target());
    let output = session.output();
    // 12 bytes of header, 128 of payload, then a type 3 header on chunk stream 3.
    assert!(output.len() > 140);
    assert_eq!((output[0], output[140]), (3, 0xc3));
}

#[test]
fn every_way_to_say_no_is_a_refusal() {
    let error = |name: &str, transaction| {
        let mut body = command::begin(name, transaction);
        body.null();
        command::info(&mut body, "error", "Some.Code", "why");
        body
    };
    let mut at_connect = Script::new(Session::publish(&target()));
    assert_eq!(
        at_connect.says(0, &mut error("_error", 1.0)),
        refused("Some.Code", "why")
    );
    assert_eq!(
        at_connect.says(0, &mut error("_error", 1.0)),
        Ok(None),
        "once is enough"
    );

    let mut as_result = Script::new(Session::publish(&target()));
    assert_eq!(
        as_result.says(0, &mut error("_result", 1.0)),
        refused("Some.Code", "why")
    );

    let mut at_create = Script::new(Session::publish(&target()));
    at_create.connects();
    assert_eq!(
        at_create.says(0, &mut error("_error", 4.0)),
        refused("Some.Code", "why")
    );

    let mut at_fc = Script::new(Session::publish(&target()));
    at_fc.connects();
    assert_eq!(
        at_fc.says(0, &mut error("onFCPublish", 0.0)),
        refused("Some.Code", "why")
    );

    let mut at_publish = Script::new(Session::publish(&target()));
    at_publish.connects();
    at_publish
        .says(0, command::begin("_result", 4.0).null().number(1.0))
        .unwrap();
    let got = at_publish.says(
        1,
        &mut status(
            "error",
            "NetStream.Publish.BadName",
            "a?txSecret=s3 is busy",
        ),
    );
    assert_eq!(got, refused("NetStream.Publish.BadName", "a?*** is busy"));

    let mut by_close = Script::new(Session::play(&target()));
    assert!(matches!(
        by_close.says(0, command::begin("close", 0.0).null()),
        Ok(Some(Event::Refused { .. }))
    ));
}

#[test]
fn a_server_without_a_stream_id_is_an_error() {
    let mut script = Script::new(Session::publish(&target()));
    script.connects();
    assert_eq!(
        script.says(0, command::begin("_result", 4.0).null()),
        Err(Error::NoStreamId)
    );
    let broken = script.raw(kind::COMMAND, 0, Bytes::from_static(&[2, 0]));
    assert!(matches!(broken, Err(Error::Command(_))));
}

fn playing() -> Script {
    let mut script = Script::new(Session::play(&target()));
    script.connects();
    assert_eq!(script.hears_names(), ["createStream"]);
    script
        .says(0, command::begin("_result", 4.0).null().number(1.0))
        .unwrap();
    assert_eq!(script.hears_names(), ["play"]);
    let reset = script.says(1, &mut status("status", "NetStream.Play.Reset", ""));
    assert_eq!(reset, Ok(None));
    let start = script.says(1, &mut status("status", "NetStream.Play.Start", ""));
    assert_eq!(start, Ok(Some(Event::Ready)));
    script
}

#[test]
fn a_player_gets_its_own_media_and_no_housekeeping() {
    let mut script = playing();
    let body = Bytes::from_static(b"\xaf\x01");
    for (type_id, stream_id, wanted) in [(8, 1, true), (9, 1, true), (8, 2, false)] {
        let got = script.raw(type_id, stream_id, body.clone()).unwrap();
        assert_eq!(got.is_some(), wanted);
    }
    for (name, wanted) in [
        ("onMetaData", true),
        ("|RtmpSampleAccess", false),
        ("onStatus", false),
    ] {
        let got = script
            .raw(kind::DATA, 1, Writer::new().string(name).null().finish())
            .unwrap();
        assert_eq!(got.is_some(), wanted, "{name}");
    }
    let mut publisher = Script::new(Session::publish(&target()));
    assert_eq!(publisher.raw(8, 1, body), Ok(None));
}

#[test]
fn the_end_of_what_is_played_is_reported_once() {
    let eof = Bytes::from_static(&[0, 1, 0, 0, 0, 1]);
    let mut script = playing();
    assert!(matches!(
        script.raw(kind::USER_CONTROL, 0, eof),
        Ok(Some(Event::Closed { .. }))
    ));
    let again = script.says(
        1,
        &mut status("status", "NetStream.Play.UnpublishNotify", "gone"),
    );
    assert_eq!(again, Ok(None));
    for code in [
        "NetStream.Play.UnpublishNotify",
        "NetStream.Play.Stop",
        "NetStream.Play.Complete",
    ] {
        assert_eq!(
            playing().says(1, &mut status("status", code, "gone")),
            closed(code, "gone")
        );
    }
    let error = playing().says(1, &mut status("error", "NetStream.Play.Failed", "broken"));
    assert_eq!(error, closed("NetStream.Play.Failed", "broken"));
    let other = Bytes::from_static(&[0, 1, 0, 0, 0, 9]);
    assert_eq!(playing().raw(kind::USER_CONTROL, 0, other), Ok(None));
}

#[test]
fn a_ping_is_answered() {
    let mut script = playing();
    script.session.output();
    script
        .raw(
            kind::USER_CONTROL,
            0,
            Bytes::from_static(&[0, 6, 9, 8, 7, 6]),
        )
        .unwrap();
    assert_eq!(&script.session.output()[12..], [0, 7, 9, 8, 7, 6]);
}

#[test]
fn a_servers_long_text_is_cut() {
    let mut script = Script::new(Session::publish(&target()));
    let long = "é".repeat(5000);
    match script.says(0, &mut status("error", "X", &long)) {
        Ok(Some(Event::Refused { description, .. })) => assert_eq!(description.len(), 200),
        other => panic!("{other:?}"),
    }
}
