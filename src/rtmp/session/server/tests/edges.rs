//! Refusals, commands out of order, and what a stranger might send.

use bytes::BytesMut;

use super::*;
use crate::rtmp::Framed;

const REJECTED: &str = "NetConnection.Connect.Rejected";
const BAD_NAME: &str = "NetStream.Publish.BadName";

#[test]
fn refusals_carry_level_code_and_reason() {
    let mut peer = Peer::new();
    peer.send(0, command::begin("connect", 1.0).object().end())
        .unwrap();
    peer.session
        .refuse_connect(REJECTED, Reason::UnknownApp, "no such application");
    let texts = [
        "1",
        "error",
        REJECTED,
        "no such application [unknown_app] (18/303)",
    ];
    assert_eq!(peer.answers()[1..], [answer(0, "_error", &texts)]);
    assert_eq!(
        peer.send(0, command::begin("createStream", 2.0).null()),
        Ok(None)
    );

    for (command, code) in [
        ("publish", BAD_NAME),
        ("play", "NetStream.Play.StreamNotFound"),
    ] {
        let mut peer = Peer::connected("live");
        peer.send(0, command::begin("createStream", 2.0).null())
            .unwrap();
        peer.send(1, command::begin(command, 3.0).null().string("a"))
            .unwrap();
        peer.answers();
        match command {
            "publish" => peer
                .session
                .refuse_publish(1, code, Reason::NameBusy, "taken"),
            _ => peer.session.refuse_play(1, code, Reason::NameBusy, "taken"),
        }
        let texts = ["0", "error", code, "taken [name_busy] (18/600)"];
        assert_eq!(peer.answers(), [answer(1, "onStatus", &texts)]);
        // An answer to a question that is no longer open changes nothing.
        peer.session.accept_publish(1, "a");
        peer.session.accept_play(1, "a");
        assert_eq!(peer.answers(), []);
    }

    let mut peer = Peer::publishing();
    peer.session
        .end_publish(1, BAD_NAME, Reason::TakenOver, "replaced");
    peer.session.close(Reason::Shutdown, "goodbye");
    assert_eq!(
        peer.answers(),
        [
            answer(
                1,
                "onStatus",
                &["0", "error", BAD_NAME, "replaced [taken_over] (21/102)"]
            ),
            answer(
                0,
                "onStatus",
                &[
                    "0",
                    "error",
                    "NetConnection.Connect.Closed",
                    "goodbye [shutdown]"
                ]
            ),
        ]
    );
    assert_eq!(peer.session.handle(media(9, kind::VIDEO)), Ok(None));
}

#[test]
fn a_ping_is_answered_at_any_time_and_other_control_is_ignored() {
    let mut peer = Peer::new();
    peer.raw(kind::USER_CONTROL, 0, vec![0, 6, 1, 2, 3, 4])
        .unwrap();
    assert_eq!(peer.answers(), [answer(0, "#4", &["000701020304"])]);
    for payload in [
        vec![],
        vec![0],
        vec![0, 6],
        vec![0, 6, 1],
        vec![0, 7, 1, 2, 3, 4],
        vec![9; 99],
    ] {
        assert_eq!(peer.raw(kind::USER_CONTROL, 0, payload), Ok(None));
    }
    for type_id in [3, 6, 7, 16, 19, 200] {
        assert_eq!(peer.raw(type_id, 0, vec![1, 2, 3]), Ok(None));
    }
    assert_eq!(peer.answers(), []);
}

#[test]
fn data_is_passed_on_without_its_wrapper() {
    let meta = Writer::new()
        .string("onMetaData")
        .object()
        .key("width")
        .number(540.0)
        .end()
        .finish();
    let wrapped = [
        &Writer::new().string("@setDataFrame").finish()[..],
        &meta[..],
    ]
    .concat();
    let amf3 = [&[0], &wrapped[..]].concat();
    let mut peer = Peer::publishing();
    for (type_id, payload) in [
        (18, wrapped.clone()),
        (15, amf3),
        (18, meta.to_vec()),
        (15, wrapped.clone()),
    ] {
        let Ok(Some(Event::Media(message))) = peer.raw(type_id, 1, payload) else {
            panic!()
        };
        assert_eq!((message.type_id, &message.payload), (kind::DATA, &meta));
    }
    let clear = Writer::new().string("@clearDataFrame").finish();
    let deep = [&meta[..], &[10, 0, 0, 0, 1].repeat(10_000)[..]].concat();
    let truncated = [&wrapped[..], &[3]].concat();
    for payload in [
        clear.to_vec(),
        deep,
        truncated,
        vec![],
        vec![0xff; 9],
        vec![5],
    ] {
        assert_eq!(peer.raw(18, 1, payload), Ok(None));
    }
    // Before anything is published, and on stream 0.
    assert_eq!(peer.raw(18, 0, wrapped.clone()), Ok(None));
    assert_eq!(Peer::new().raw(18, 1, wrapped), Ok(None));
}

#[test]
fn commands_in_amf3_clothing_are_read() {
    let mut peer = Peer::new();
    let body = command::begin("connect", 1.0)
        .object()
        .key("app")
        .string("live")
        .end()
        .finish();
    let event = peer.raw(kind::COMMAND_AMF3, 0, [&[0], &body[..]].concat());
    assert!(matches!(event, Ok(Some(Event::Connect(_)))));
}

#[test]
fn objects_in_amf3_inside_commands_and_data_are_read_and_passed_on_as_amf0() {
    // {app: "live"} as an AMF3 object without a class.
    let app = b"\x11\x0a\x0b\x01\x07app\x06\x09live\x01";
    let mut peer = Peer::new();
    let head = command::begin("connect", 1.0).finish();
    let event = peer.raw(kind::COMMAND_AMF3, 0, [&[0], &head[..], app].concat());
    let Ok(Some(Event::Connect(info))) = event else {
        panic!("{event:?}")
    };
    assert_eq!(info.app, "live");

    let mut peer = Peer::publishing();
    let head = Writer::new()
        .string("@setDataFrame")
        .string("onMetaData")
        .finish();
    let expected = Writer::new()
        .string("onMetaData")
        .object()
        .key("app")
        .string("live")
        .end()
        .finish();
    let amf0 = [&head[..], app].concat();
    for (type_id, payload) in [
        (15, [&[0], &amf0[..]].concat()),
        (15, amf0.clone()),
        (18, amf0),
    ] {
        let Ok(Some(Event::Media(message))) = peer.raw(type_id, 1, payload) else {
            panic!("type {type_id}")
        };
        assert_eq!((message.type_id, &message.payload), (kind::DATA, &expected));
    }
    // 20,000 levels deep, in either language, and one that refers to nothing.
    for bad in [&b"\x11\x09\x03\x01".repeat(20_000)[..], &[0x11, 6, 4]] {
        assert_eq!(peer.raw(15, 1, [&[0], &head[..], bad].concat()), Ok(None));
    }
    let error = peer.raw(
        17,
        0,
        [&[0], &head[..], &[0x11, 9, 3, 1].repeat(40)].concat(),
    );
    assert!(error.is_err());
}

#[test]
fn players_are_answered_when_they_seek_and_asked_nothing_else() {
    let mut peer = Peer::playing();
    let seek = |peer: &mut Peer| peer.send(1, command::begin("seek", 5.0).null().number(9000.0));
    assert_eq!(seek(&mut peer), Ok(None));
    let text = "Live streams cannot be sought; 9000 ms is ignored.";
    let texts = ["0", "status", "NetStream.Seek.Notify", text];
    assert_eq!(peer.answers(), [answer(1, "onStatus", &texts)]);
    let mut publisher = Peer::publishing();
    assert_eq!(seek(&mut publisher), Ok(None));
    assert_eq!(publisher.answers(), []);
}

#[test]
fn pausing_and_muting_a_player_are_told_with_their_stream() {
    let mut peer = Peer::playing();
    for (name, flag, expected) in [
        (
            "pause",
            true,
            Event::Pause {
                stream_id: 1,
                on: true,
            },
        ),
        (
            "pauseRaw",
            false,
            Event::Pause {
                stream_id: 1,
                on: false,
            },
        ),
        (
            "receiveVideo",
            false,
            Event::ReceiveVideo {
                stream_id: 1,
                on: false,
            },
        ),
        (
            "receiveAudio",
            false,
            Event::ReceiveAudio {
                stream_id: 1,
                on: false,
            },
        ),
        (
            "receiveVideo",
            true,
            Event::ReceiveVideo {
                stream_id: 1,
                on: true,
            },
        ),
    ] {
        let mut body = command::begin(name, 0.0);
        let event = peer.send(1, body.null().boolean(flag).number(0.0));
        assert_eq!(event, Ok(Some(expected)), "{name}");
    }
    let codes: Vec<_> = peer.answers().into_iter().map(|a| a.2[2].clone()).collect();
    assert_eq!(
        codes,
        ["NetStream.Pause.Notify", "NetStream.Unpause.Notify"]
    );
    // A publisher cannot.
    let mut publisher = Peer::publishing();
    for name in ["pause", "receiveVideo", "receiveAudio"] {
        let mut body = command::begin(name, 0.0);
        assert_eq!(publisher.send(1, body.null().boolean(false)), Ok(None));
    }
    assert_eq!(publisher.answers(), []);
}

#[test]
fn courtesies_of_the_field_are_answered() {
    let mut peer = Peer::connected("live");
    let notice = |name, code| answer(0, name, &["0", "status", code, "a"]);
    let cases: [(&str, Vec<Answer>); 8] = [
        ("releaseStream", vec![]),
        ("_checkbw", vec![]),
        ("checkBandwidth", vec![]),
        (
            "FCPublish",
            vec![notice("onFCPublish", "NetStream.Publish.Start")],
        ),
        (
            "FCUnpublish",
            vec![notice("onFCUnpublish", "NetStream.Unpublish.Success")],
        ),
        (
            "FCSubscribe",
            vec![notice("onFCSubscribe", "NetStream.Play.Start")],
        ),
        (
            "FCUnsubscribe",
            vec![notice("onFCUnsubscribe", "NetStream.Play.Stop")],
        ),
        ("of tomorrow", vec![]),
    ];
    for (name, notices) in cases {
        let event = peer.send(0, command::begin(name, 7.0).null().string("a?k=v"));
        assert_eq!(event, Ok(None), "{name}");
        let mut expected = match name {
            "FCSubscribe" | "of tomorrow" => vec![],
            _ => vec![answer(0, "_result", &["7"])],
        };
        expected.extend(notices);
        assert_eq!(peer.answers(), expected, "{name}");
    }
    for name in ["getStreamLength", "getMovLen"] {
        peer.send(0, command::begin(name, 8.0).null().string("a"))
            .unwrap();
        assert_eq!(
            peer.answers(),
            [answer(0, "_result", &["8", "0"])],
            "{name}"
        );
    }
}

#[test]
fn commands_out_of_order_are_errors_with_a_reason() {
    let publish = || command::begin("publish", 0.0).null().string("a").finish();
    let create = || command::begin("createStream", 0.0).null().finish();
    let connect = || command::begin("connect", 1.0).object().end().finish();

    let mut fresh = Peer::new();
    assert_eq!(
        fresh.raw(20, 0, create()),
        Err(Error::BeforeConnect { what: "command" })
    );
    let early = fresh.session.handle(media(1, kind::VIDEO));
    assert_eq!(early, Err(Error::BeforeConnect { what: "media" }));

    fresh.raw(20, 0, connect()).unwrap();
    assert!(matches!(
        fresh.raw(20, 0, create()),
        Err(Error::Unanswered { .. })
    ));
    fresh.session.accept_connect();
    assert_eq!(fresh.raw(20, 0, connect()), Err(Error::ConnectedTwice));

    let none = |what| Err(Error::NoStream { what, stream_id: 1 });
    assert_eq!(fresh.raw(20, 1, publish()), none("publish"));
    assert_eq!(fresh.session.handle(media(1, kind::VIDEO)), none("media"));
    fresh.raw(20, 0, create()).unwrap();
    let idle = fresh.session.handle(media(1, kind::VIDEO));
    assert_eq!(idle, Err(Error::NotPublishing { stream_id: 1 }));
    let nameless = fresh.raw(20, 1, command::begin("play", 0.0).null().finish());
    assert!(matches!(
        nameless,
        Err(Error::Missing {
            command: "play",
            ..
        })
    ));
    fresh.raw(20, 1, publish()).unwrap();
    let unanswered = fresh.session.handle(media(1, kind::VIDEO));
    assert!(matches!(
        unanswered,
        Err(Error::Unanswered { what: "media", .. })
    ));
    assert!(matches!(
        fresh.raw(20, 1, publish()),
        Err(Error::StreamInUse { .. })
    ));

    let mut player = Peer::playing();
    let got = player.session.handle(media(1, kind::VIDEO));
    assert_eq!(got, Err(Error::NotPublishing { stream_id: 1 }));

    let error = Peer::new().raw(20, 0, Writer::new().number(1.0).finish());
    assert_eq!(error, Err(command::Error::NoName.into()));
    assert_eq!(
        Error::NotPublishing { stream_id: 1 }.reason(),
        crate::reason::Reason::Protocol
    );
}

#[test]
fn short_and_monstrous_commands_do_no_harm() {
    let connect = Writer::new().string("connect").finish();
    assert!(matches!(
        Peer::new().raw(20, 0, connect),
        Ok(Some(Event::Connect(_)))
    ));
    let mut peer = Peer::connected("live");
    for name in [
        "createStream",
        "releaseStream",
        "FCPublish",
        "FCUnpublish",
        "deleteStream",
        "closeStream",
        "pause",
        "receiveAudio",
        "getStreamLength",
        "getMovLen",
        "seek",
        "pauseRaw",
        "receiveVideo",
        "FCUnsubscribe",
        "_checkbw",
        "FCSubscribe",
        "onStatus",
        "_result",
        "nonsense",
        "",
    ] {
        assert_eq!(
            peer.raw(20, 0, Writer::new().string(name).finish()),
            Ok(None),
            "{name}"
        );
    }
    let deep = [&connect_head()[..], &[10, 0, 0, 0, 1].repeat(10_000)[..]].concat();
    let error = Peer::new().raw(20, 0, deep).unwrap_err();
    assert_eq!(error.reason(), crate::reason::Reason::TooLarge);
    let error = Peer::new().raw(20, 0, vec![5; 16 << 20]).unwrap_err();
    assert_eq!(error.reason(), crate::reason::Reason::TooLarge);
}

fn connect_head() -> Bytes {
    command::begin("connect", 1.0).finish()
}

#[test]
fn message_streams_are_numbered_from_one_reused_and_bounded() {
    let mut peer = Peer::connected("live");
    let create = |peer: &mut Peer| peer.send(0, command::begin("createStream", 2.0).null());
    for _ in 0..MAX_STREAMS {
        create(&mut peer).unwrap();
    }
    let error = create(&mut peer).unwrap_err();
    assert_eq!(error.reason(), crate::reason::Reason::LimitReached);
    peer.answers();
    peer.send(0, command::begin("deleteStream", 3.0).null().number(1.0))
        .unwrap();
    create(&mut peer).unwrap();
    assert_eq!(peer.answers(), [answer(0, "_result", &["2", "1"])]);
}

#[test]
fn two_streams_of_one_connection_publish_apart() {
    let mut peer = Peer::publishing();
    peer.send(0, command::begin("createStream", 2.0).null())
        .unwrap();
    peer.send(2, command::begin("publish", 3.0).null().string("b"))
        .unwrap();
    peer.session.accept_publish(2, "b");
    for id in [1, 2] {
        let event = peer.session.handle(media(id, kind::AUDIO));
        assert_eq!(event, Ok(Some(Event::Media(media(id, kind::AUDIO)))));
    }
    let event = peer.send(0, command::begin("FCUnpublish", 4.0).null().string("b"));
    assert_eq!(
        event,
        Ok(Some(Event::Unpublish {
            stream_id: 2,
            how: End::Deleted
        }))
    );
    assert!(
        peer.session
            .handle(media(1, kind::AUDIO))
            .unwrap()
            .is_some()
    );
}

#[test]
fn an_event_prints_no_query() {
    let mut peer = Peer::new();
    let mut body = command::begin("connect", 1.0);
    body.object()
        .key("app")
        .string("live?txSecret=s3")
        .key("tcUrl")
        .string("rtmp://h/live?txSecret=s3")
        .end();
    let event = peer.send(0, &mut body).unwrap().unwrap();
    peer.session.accept_connect();
    peer.send(0, command::begin("createStream", 2.0).null())
        .unwrap();
    let publish = peer
        .send(
            1,
            command::begin("publish", 3.0)
                .null()
                .string("a?txSecret=s3"),
        )
        .unwrap();
    let printed = format!("{event:?} {publish:?}");
    assert!(!printed.contains("s3"), "{printed}");
    assert!(printed.contains("live") && printed.contains("\"a\""));
}

#[test]
fn acknowledgements_are_queued() {
    let mut peer = Peer::new();
    peer.session.acknowledge(0x0102);
    let mut expected = BytesMut::new();
    Framed::new(kind::ACKNOWLEDGEMENT, 0, 0, vec![0, 0, 1, 2].into()).write_to(&mut expected);
    assert_eq!(peer.session.output(), expected.freeze());
    assert!(peer.session.output().is_empty());
}
