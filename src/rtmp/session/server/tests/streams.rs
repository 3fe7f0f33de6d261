//! Streams, names and capabilities.

use super::*;

#[test]
fn closing_and_deleting_say_how_a_stream_ended() {
    let close = |peer: &mut Peer| peer.send(1, command::begin("closeStream", 0.0).null());
    let delete =
        |peer: &mut Peer| peer.send(0, command::begin("deleteStream", 0.0).null().number(1.0));
    let bare = |peer: &mut Peer| peer.send(1, command::begin("deleteStream", 0.0).null());
    let other =
        |peer: &mut Peer| peer.send(0, command::begin("FCUnpublish", 0.0).null().string(""));
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
        "nameless, the only stream is meant"
    );
    assert_eq!(close(&mut Peer::playing()), stop());
    assert_eq!(delete(&mut Peer::playing()), stop());
    let mut unknown = Peer::publishing();
    let got = unknown.send(0, command::begin("deleteStream", 0.0).null().number(5.0));
    assert_eq!(got, Ok(None));
}

/// A peer whose streams 1 and 2 publish these names.
fn publishing_two(names: [&str; 2]) -> Peer {
    let mut peer = Peer::connected("live");
    for (id, name) in (1..).zip(names) {
        peer.send(0, command::begin("createStream", 2.0).null())
            .unwrap();
        peer.send(id, command::begin("publish", 0.0).null().string(name))
            .unwrap();
        peer.session.accept_publish(id, name);
    }
    peer.messages();
    peer
}

#[test]
fn fc_unpublish_ends_the_stream_of_that_name_queries_aside_and_no_other() {
    let end = |published: [&str; 2], named: &str| {
        let mut peer = publishing_two(published);
        let body = &mut command::begin("FCUnpublish", 0.0);
        match peer.send(0, body.null().string(named)).unwrap() {
            Some(Event::Unpublish { stream_id, .. }) => Some(stream_id),
            None => None,
            other => panic!("{other:?}"),
        }
    };
    for (case, published, named, ended) in [
        ("as published", ["a?k=1", "b?k=2"], "b?k=2", Some(2)),
        ("without the query", ["a?k=1", "b?k=2"], "a", Some(1)),
        ("with one it never had", ["a", "b"], "b?txSecret=9", Some(2)),
        ("with another query", ["a?k=1", "b?k=2"], "b?k=1", Some(2)),
        ("a beginning of it", ["ab", "b"], "a", None),
        ("another name", ["a", "b"], "z", None),
        ("no name, two meant", ["a", "b"], "", None),
    ] {
        assert_eq!(end(published, named), ended, "{case}");
    }
    let mut only = Peer::publishing();
    let other = only.send(0, command::begin("FCUnpublish", 0.0).null().string("z"));
    assert_eq!(other, Ok(None), "the only stream has another name");
    assert!(
        only.session
            .handle(media(1, kind::VIDEO))
            .unwrap()
            .is_some()
    );
}

#[test]
fn what_a_stream_cannot_do_besides_is_refused_there_and_the_others_go_on() {
    let ask = |peer: &mut Peer, id: u32, what: &str| {
        let got = peer.send(id, command::begin(what, 0.0).null().string("x"));
        assert_eq!(got, Ok(None), "{what} on {id}");
        let [(on, _, texts)] = &peer.answers()[..] else {
            panic!("one answer to {what} on {id}")
        };
        assert_eq!((*on, texts[1].as_str()), (id, "error"));
        (texts[2].clone(), texts[3].clone())
    };
    let denied = |why: &str| ("NetStream.Publish.Denied".to_owned(), why.to_owned());
    let failed = |why: &str| ("NetStream.Play.Failed".to_owned(), why.to_owned());

    let mut publisher = publishing_two(["a", "b"]);
    let why = "stream 1 publishes already [limit_reached] (18/600)";
    assert_eq!(ask(&mut publisher, 1, "play"), failed(why));
    assert_eq!(ask(&mut publisher, 1, "publish"), denied(why));
    for id in [1, 2] {
        let got = publisher.session.handle(media(id, kind::VIDEO)).unwrap();
        assert!(got.is_some(), "stream {id} goes on publishing");
    }

    let mut player = Peer::playing();
    player
        .send(0, command::begin("createStream", 2.0).null())
        .unwrap();
    player.messages();
    let why = "stream 1 plays already [limit_reached] (18/600)";
    assert_eq!(ask(&mut player, 1, "publish"), denied(why));
    assert_eq!(ask(&mut player, 1, "play"), failed(why));
    // Another stream may play, too; who decides says no.
    let asked = player.send(2, command::begin("play", 0.0).null().string("x"));
    assert!(matches!(asked, Ok(Some(Event::Play { stream_id: 2, .. }))));
    let (code, reason) = ("NetStream.Play.Failed", Reason::Banned);
    player.session.refuse_play(2, code, reason, "no");
    player.messages();
    // What was on its way before the refusal came there is late, not wrong.
    assert_eq!(player.session.handle(media(2, kind::VIDEO)), Ok(None));
    let paused = player.send(1, command::begin("pause", 0.0).null().boolean(true));
    assert!(matches!(
        paused,
        Ok(Some(Event::Pause {
            stream_id: 1,
            on: true
        }))
    ));
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
        .number(f64::from(0x35));
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
        (vec!["*".to_string()], Some(0x35))
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
        // Reconnecting and ModEx; the two bits that nobody knows are not promised.
        assert_eq!(amf::property(object, "capsEx"), Some(&Value::Number(5.0)));
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

/// Connected with these `capsEx` bits, if any.
fn connected_with(caps: Option<f64>) -> Peer {
    let mut peer = Peer::new();
    let mut body = command::begin("connect", 1.0);
    body.object().key("app").string("live");
    if let Some(caps) = caps {
        body.key("capsEx").number(caps);
    }
    peer.send(0, body.end()).unwrap();
    peer.session.accept_connect();
    peer.answers();
    peer
}

#[test]
fn clients_that_can_be_asked_to_reconnect_are_asked_once() {
    for (caps, can) in [
        (Some(1.0), true),
        (Some(15.0), true),
        (Some(14.0), false),
        (None, false),
    ] {
        let mut peer = connected_with(caps);
        assert_eq!(
            peer.session
                .request_reconnect(Reason::Shutdown, "going down"),
            can,
            "{caps:?}"
        );
        let texts = [
            "0",
            "status",
            "NetConnection.Connect.ReconnectRequest",
            "going down [shutdown]",
        ];
        let expected = can.then(|| answer(0, "onStatus", &texts));
        assert_eq!(peer.answers(), Vec::from_iter(expected), "{caps:?}");
        assert!(!peer.session.request_reconnect(Reason::Shutdown, "again"));
        assert_eq!(peer.answers(), []);
        // The conversation goes on.
        peer.send(0, command::begin("createStream", 2.0).null())
            .unwrap();
        assert_eq!(peer.answers(), [answer(0, "_result", &["2", "1"])]);
    }
    let mut closed = connected_with(Some(1.0));
    closed.session.close(Reason::Shutdown, "bye");
    closed.answers();
    assert!(
        !closed
            .session
            .request_reconnect(Reason::Shutdown, "too late")
    );
}

#[test]
fn one_connection_publishes_and_plays_on_streams_of_their_own_and_ids_are_given_again() {
    let mut peer = Peer::publishing();
    peer.send(0, command::begin("createStream", 4.0).null())
        .unwrap();
    let play = peer.send(2, command::begin("play", 5.0).null().string("b?k=v"));
    assert!(
        matches!(play, Ok(Some(Event::Play { stream_id: 2, .. }))),
        "{play:?}"
    );
    peer.session.accept_play(2, "b");
    peer.answers();
    // Commands and media keep to their stream.
    assert!(
        peer.session
            .handle(media(1, kind::VIDEO))
            .unwrap()
            .is_some()
    );
    let wrong = peer.session.handle(media(2, kind::VIDEO));
    assert_eq!(wrong, Err(Error::NotPublishing { stream_id: 2 }));
    let pause = peer.send(2, command::begin("pause", 0.0).null().boolean(true));
    assert_eq!(
        pause,
        Ok(Some(Event::Pause {
            stream_id: 2,
            on: true
        }))
    );
    peer.answers();
    let gone = peer.send(0, command::begin("deleteStream", 0.0).null().number(2.0));
    assert_eq!(gone, Ok(Some(Event::StopPlay { stream_id: 2 })));
    peer.send(0, command::begin("createStream", 6.0).null())
        .unwrap();
    assert_eq!(peer.answers(), [answer(0, "_result", &["6", "2"])]);
    // The new stream 2 is not the old one.
    let idle = peer.session.handle(media(2, kind::VIDEO));
    assert_eq!(idle, Err(Error::NotPublishing { stream_id: 2 }));
    peer.send(2, command::begin("publish", 7.0).null().string("c"))
        .unwrap();
    peer.session.accept_publish(2, "c");
    // closeStream ends the stream that it came on, and no other.
    let closed = peer.send(2, command::begin("closeStream", 0.0).null());
    let how = End::Closed;
    assert_eq!(closed, Ok(Some(Event::Unpublish { stream_id: 2, how })));
    assert_eq!(
        peer.session.handle(media(2, kind::AUDIO)),
        Ok(None),
        "late, not wrong"
    );
    assert!(
        peer.session
            .handle(media(1, kind::AUDIO))
            .unwrap()
            .is_some()
    );
}
