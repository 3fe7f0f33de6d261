//! Refusals, commands out of order, and what a stranger might send.

use bytes::BytesMut;

use super::*;
use crate::rtmp::Framed;

#[test]
fn refusals_carry_level_code_and_reason() {
    let mut peer = Peer::new();
    peer.send(0, command::begin("connect", 1.0).object().end())
        .unwrap();
    peer.session
        .refuse_connect("NetConnection.Connect.Rejected", "no such application");
    let texts = [
        "1",
        "error",
        "NetConnection.Connect.Rejected",
        "no such application",
    ];
    assert_eq!(peer.answers()[1..], [answer(0, "_error", &texts)]);
    assert_eq!(
        peer.send(0, command::begin("createStream", 2.0).null()),
        Ok(None)
    );

    for (command, code) in [
        ("publish", "NetStream.Publish.BadName"),
        ("play", "NetStream.Play.StreamNotFound"),
    ] {
        let mut peer = Peer::connected("live");
        peer.send(0, command::begin("createStream", 2.0).null())
            .unwrap();
        peer.send(1, command::begin(command, 3.0).null().string("a"))
            .unwrap();
        peer.answers();
        match command {
            "publish" => peer.session.refuse_publish(1, code, "name busy"),
            _ => peer.session.refuse_play(1, code, "name busy"),
        }
        let texts = ["0", "error", code, "name busy"];
        assert_eq!(peer.answers(), [answer(1, "onStatus", &texts)]);
        // An answer to a question that is no longer open changes nothing.
        peer.session.accept_publish(1, "a");
        peer.session.accept_play(1, "a");
        assert_eq!(peer.answers(), []);
    }

    let mut peer = Peer::publishing();
    peer.session
        .end_publish(1, "NetStream.Publish.BadName", "replaced");
    peer.session.close("goodbye");
    assert_eq!(
        peer.answers(),
        [
            answer(
                1,
                "onStatus",
                &["0", "error", "NetStream.Publish.BadName", "replaced"]
            ),
            answer(
                0,
                "onStatus",
                &["0", "error", "NetConnection.Connect.Closed", "goodbye"]
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
