//! Streams, names and capabilities.

use super::*;

#[test]
fn closing_and_deleting_say_how_a_stream_ended() {
    let close = |peer: &mut Peer| peer.send(1, command::begin("closeStream", 0.0).null());
    let delete =
        |peer: &mut Peer| peer.send(0, command::begin("deleteStream", 0.0).null().number(1.0));
    let bare = |peer: &mut Peer| peer.send(1, command::begin("deleteStream", 0.0).null());
    let other =
        |peer: &mut Peer| peer.send(0, command::begin("FCUnpublish", 0.0).null().string("z"));
    let named =
        |peer: &mut Peer| peer.send(0, command::begin("deleteStream", 0.0).null().string("a"));
    let end = |how| Ok(Some(Event::Unpublish { stream_id: 1, how }));
    let stop = || Ok(Some(Event::StopPlay { stream_id: 1 }));
    assert_eq!(close(&mut Peer::publishing()), end(End::Closed));
    assert_eq!(delete(&mut Peer::publishing()), end(End::Deleted));
    assert_eq!(bare(&mut Peer::publishing()), end(End::Deleted));
    assert_eq!(named(&mut Peer::publishing()), end(End::Deleted));
    assert_eq!(
        other(&mut Peer::publishing()),
        end(End::Deleted),
        "the only stream is meant"
    );
    assert_eq!(close(&mut Peer::playing()), stop());
    assert_eq!(delete(&mut Peer::playing()), stop());
    let mut unknown = Peer::publishing();
    let got = unknown.send(0, command::begin("deleteStream", 0.0).null().number(5.0));
    assert_eq!(got, Ok(None));
}

#[test]
fn a_closed_stream_can_publish_again() {
    let mut peer = Peer::publishing();
    peer.send(1, command::begin("closeStream", 0.0).null())
        .unwrap();
    let event = peer.send(
        1,
        command::begin("publish", 0.0)
            .null()
            .string("b")
            .string("record"),
    );
    let Ok(Some(Event::Publish { name, kind, .. })) = event else {
        panic!("{event:?}")
    };
    assert_eq!((name.as_str(), kind), ("b", PublishKind::Record));
    peer.session.accept_publish(1, "b");
    assert!(
        peer.session
            .handle(media(1, kind::AUDIO))
            .unwrap()
            .is_some()
    );
}

#[test]
fn the_query_comes_from_the_name_else_the_app_else_the_url() {
    for (app, tc_url, name, expected) in [
        ("live?a=1", "rtmp://h/live?t=1", "s?n=1", "n=1"),
        ("live?a=1", "rtmp://h/live?t=1", "s", "a=1"),
        ("live", "rtmp://h/live?t=1", "s", "t=1"),
        ("", "rtmp://h/live?t=1", "s", "t=1"),
        ("/live/", "rtmp://h/live", "s", ""),
    ] {
        let mut peer = Peer::new();
        let mut body = command::begin("connect", 1.0);
        body.object()
            .key("app")
            .string(app)
            .key("tcUrl")
            .string(tc_url)
            .end();
        let Ok(Some(Event::Connect(info))) = peer.send(0, &mut body) else {
            panic!()
        };
        assert_eq!(info.app, "live");
        peer.session.accept_connect();
        peer.send(0, command::begin("createStream", 2.0).null())
            .unwrap();
        for command in ["publish", "play"] {
            peer.send(1, command::begin("closeStream", 0.0).null())
                .unwrap();
            match peer
                .send(1, command::begin(command, 3.0).null().string(name))
                .unwrap()
            {
                Some(Event::Publish { query, name, .. } | Event::Play { query, name, .. }) => {
                    assert_eq!((name.as_str(), query.as_str()), ("s", expected));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn enhanced_capabilities_are_repeated_as_forwarded() {
    let mut peer = Peer::new();
    let mut body = command::begin("connect", 1.0);
    body.object()
        .key("app")
        .string("live")
        .key("capsEx")
        .number(7.0);
    body.key("fourCcList")
        .strings(&["hvc1".into(), "av01".into(), "nonsense".into()]);
    body.key("videoFourCcInfoMap")
        .object()
        .key("*")
        .number(7.0)
        .end()
        .end();
    let Ok(Some(Event::Connect(info))) = peer.send(0, &mut body) else {
        panic!()
    };
    assert_eq!(info.four_cc_list, ["hvc1", "av01"]);
    assert_eq!(
        (info.video_four_cc, info.caps),
        (vec!["*".to_string()], Some(7))
    );
    peer.session.accept_connect();
    let messages = peer.messages();
    let values = amf::decode(&messages.last().unwrap().payload).unwrap();
    for object in &values[2..] {
        let list = amf::property(object, "fourCcList").unwrap();
        assert_eq!(
            list,
            &Value::StrictArray(["hvc1", "av01"].map(|t| Value::Utf8String(t.into())).into())
        );
        let map = amf::property(object, "videoFourCcInfoMap").unwrap();
        assert_eq!(amf::property(map, "*"), Some(&Value::Number(4.0)));
        assert_eq!(amf::property(object, "capsEx"), Some(&Value::Number(6.0)));
    }
    let mut plain = Peer::new();
    plain
        .send(
            0,
            command::begin("connect", 1.0)
                .object()
                .key("app")
                .string("live")
                .end(),
        )
        .unwrap();
    plain.session.accept_connect();
    let messages = plain.messages();
    let values = amf::decode(&messages.last().unwrap().payload).unwrap();
    assert_eq!(amf::property(&values[3], "capsEx"), None);
}
