//! Conversations as real clients hold them; the edges are in the files beside.

mod edges;
mod recorded;
mod streams;

use super::*;
use crate::reason::Reason;
use crate::rtmp::amf::{Value, Writer};
use crate::rtmp::chunk;

/// A client that speaks through real chunks, so that every answer is read back from the wire.
struct Peer {
    session: Session,
    reader: chunk::Reader,
}

/// One answer: message stream, name and the texts that say what happened.
type Answer = (u32, String, Vec<String>);

impl Peer {
    fn new() -> Self {
        Self {
            session: Session::new(),
            reader: chunk::Reader::new(chunk::Limits::default()),
        }
    }

    /// Connected to `live`, with the query in `app` when there is one.
    fn connected(app: &str) -> Self {
        let mut peer = Self::new();
        peer.send(
            0,
            command::begin("connect", 1.0)
                .object()
                .key("app")
                .string(app)
                .end(),
        )
        .unwrap();
        peer.session.accept_connect();
        peer.answers();
        peer
    }

    /// Connected, with message stream 1 publishing `a`.
    fn publishing() -> Self {
        let mut peer = Self::connected("live");
        peer.send(0, command::begin("createStream", 2.0).null())
            .unwrap();
        peer.send(
            1,
            command::begin("publish", 3.0)
                .null()
                .string("a")
                .string("live"),
        )
        .unwrap();
        peer.session.accept_publish(1, "a");
        peer.answers();
        peer
    }

    fn playing() -> Self {
        let mut peer = Self::connected("live");
        peer.send(0, command::begin("createStream", 2.0).null())
            .unwrap();
        peer.send(1, command::begin("play", 3.0).null().string("a"))
            .unwrap();
        peer.session.accept_play(1, "a");
        peer.answers();
        peer
    }

    fn send(&mut self, stream_id: u32, body: &mut Writer) -> Result<Option<Event>, Error> {
        self.raw(kind::COMMAND, stream_id, body.finish())
    }

    fn raw(
        &mut self,
        type_id: u8,
        stream_id: u32,
        payload: impl Into<Bytes>,
    ) -> Result<Option<Event>, Error> {
        self.session.handle(Message {
            type_id,
            stream_id,
            timestamp: 0,
            payload: payload.into(),
        })
    }

    fn messages(&mut self) -> Vec<Message> {
        let output = self.session.output();
        self.reader.buffer().extend_from_slice(&output);
        std::iter::from_fn(|| self.reader.next().unwrap()).collect()
    }

    /// All commands and data answered since the last call.
    fn answers(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        for message in self.messages() {
            if !matches!(message.type_id, kind::COMMAND | kind::DATA) {
                let body = message
                    .payload
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect::<String>();
                answers.push((
                    message.stream_id,
                    format!("#{}", message.type_id),
                    vec![body],
                ));
                continue;
            }
            let mut texts = Vec::new();
            let mut values = amf::decode(&message.payload).unwrap().into_iter();
            let name = values.next().and_then(Value::get_string).unwrap();
            for value in values {
                match value {
                    Value::Number(n) => texts.push(n.to_string()),
                    Value::Boolean(b) => texts.push(b.to_string()),
                    Value::Object(o) => {
                        for key in ["level", "code", "description"] {
                            texts.extend(o.get(key).and_then(amf::text).map(str::to_owned));
                        }
                    }
                    _ => {}
                }
            }
            answers.push((message.stream_id, name, texts));
        }
        answers
    }
}

fn answer(stream_id: u32, name: &str, texts: &[&str]) -> Answer {
    (
        stream_id,
        name.into(),
        texts.iter().map(|t| t.to_string()).collect(),
    )
}

fn media(stream_id: u32, type_id: u8) -> Message {
    Message {
        type_id,
        stream_id,
        timestamp: 40,
        payload: Bytes::from_static(b"\x17\x01"),
    }
}

const PUBLISHED: [&str; 4] = [
    "0",
    "status",
    "NetStream.Publish.Start",
    "a is now published.",
];

#[test]
fn an_encoder_in_ffmpegs_order_publishes() {
    let mut peer = Peer::new();
    let event = peer.send(
        0,
        command::begin("connect", 1.0)
            .object()
            .key("app")
            .string("live")
            .key("type")
            .string("nonprivate")
            .key("flashVer")
            .string("FMLE/3.0 (compatible; Lavf60.16.100)")
            .key("tcUrl")
            .string("rtmp://127.0.0.1:1935/live")
            .end(),
    );
    let Ok(Some(Event::Connect(info))) = event else {
        panic!("{event:?}")
    };
    assert_eq!((info.app.as_str(), info.query.as_str()), ("live", ""));
    assert!(info.flash_ver.contains("Lavf"));
    assert_eq!(peer.answers(), []);
    peer.session.accept_connect();
    let success = [
        "1",
        "status",
        "NetConnection.Connect.Success",
        "Connection succeeded.",
    ];
    assert_eq!(
        peer.answers(),
        [
            // Window and chunk size are the reader's; 2,500,000 bytes, dynamic.
            answer(0, "#6", &["002625a002"]),
            answer(0, "_result", &success),
        ]
    );

    peer.send(
        0,
        command::begin("releaseStream", 2.0).null().string("a?k=v"),
    )
    .unwrap();
    peer.send(0, command::begin("FCPublish", 3.0).null().string("a?k=v"))
        .unwrap();
    peer.send(0, command::begin("createStream", 4.0).null())
        .unwrap();
    assert_eq!(
        peer.answers(),
        [
            answer(0, "_result", &["2"]),
            answer(0, "_result", &["3"]),
            answer(
                0,
                "onFCPublish",
                &["0", "status", "NetStream.Publish.Start", "a"]
            ),
            answer(0, "_result", &["4", "1"]),
        ]
    );

    let event = peer
        .send(
            1,
            command::begin("publish", 5.0)
                .null()
                .string("a?k=v")
                .string("live"),
        )
        .unwrap();
    let expected = Event::Publish {
        stream_id: 1,
        name: "a".into(),
        query: "k=v".into(),
        kind: PublishKind::Live,
    };
    assert_eq!(event, Some(expected));
    assert_eq!(peer.answers(), []);
    peer.session.accept_publish(1, "a");
    assert_eq!(
        peer.answers(),
        [
            answer(0, "#4", &["000000000001"]),
            answer(1, "onStatus", &PUBLISHED)
        ]
    );

    for type_id in [kind::VIDEO, kind::AUDIO] {
        let message = media(1, type_id);
        let event = peer.session.handle(message.clone()).unwrap();
        assert_eq!(event, Some(Event::Media(message)));
    }

    let event = peer.send(0, command::begin("FCUnpublish", 6.0).null().string("a?k=v"));
    let how = End::Deleted;
    assert_eq!(event, Ok(Some(Event::Unpublish { stream_id: 1, how })));
    let event = peer.send(0, command::begin("deleteStream", 7.0).null().number(1.0));
    assert_eq!(event, Ok(None), "the end is reported once");
    let gone = ["0", "status", "NetStream.Unpublish.Success", "a"];
    let stopped = [
        "0",
        "status",
        "NetStream.Unpublish.Success",
        "Stopped publishing.",
    ];
    assert_eq!(
        peer.answers(),
        [
            answer(0, "_result", &["6"]),
            answer(0, "onFCUnpublish", &gone),
            answer(1, "onStatus", &stopped),
        ]
    );
    assert_eq!(
        peer.session.handle(media(1, kind::VIDEO)),
        Ok(None),
        "late, not wrong"
    );
}

#[test]
fn a_player_in_librtmps_order_plays() {
    let mut peer = Peer::connected("live");
    peer.raw(kind::WINDOW_ACKNOWLEDGEMENT_SIZE, 0, vec![0, 38, 37, 160])
        .unwrap();
    peer.raw(kind::USER_CONTROL, 0, vec![0, 3, 0, 0, 0, 0, 0, 0, 1, 44])
        .unwrap();
    peer.send(0, command::begin("createStream", 2.0).null())
        .unwrap();
    peer.send(0, command::begin("FCSubscribe", 3.0).null().string("a?k=v"))
        .unwrap();
    peer.send(0, command::begin("_checkbw", 4.0).null())
        .unwrap();
    peer.send(0, command::begin("getStreamLength", 5.0).null().string("a"))
        .unwrap();
    assert_eq!(
        peer.answers(),
        [
            answer(0, "_result", &["2", "1"]),
            answer(
                0,
                "onFCSubscribe",
                &["0", "status", "NetStream.Play.Start", "a"]
            ),
            answer(0, "_result", &["4"]),
            answer(0, "_result", &["5", "0"]),
        ]
    );
    let event = peer
        .send(
            1,
            command::begin("play", 6.0)
                .null()
                .string("a?k=v")
                .number(-1000.0),
        )
        .unwrap();
    let expected = Event::Play {
        stream_id: 1,
        name: "a".into(),
        query: "k=v".into(),
        start: -1000.0,
    };
    assert_eq!(event, Some(expected));
    peer.session.accept_play(1, "a");
    let reset = [
        "0",
        "status",
        "NetStream.Play.Reset",
        "Playing and resetting a.",
    ];
    let start = ["0", "status", "NetStream.Play.Start", "Started playing a."];
    assert_eq!(
        peer.answers(),
        [
            answer(0, "#4", &["000000000001"]),
            answer(1, "onStatus", &reset),
            answer(1, "onStatus", &start),
            answer(1, "|RtmpSampleAccess", &["true", "true"]),
        ]
    );

    for (name, event) in [
        (
            "pause",
            Event::Pause {
                stream_id: 1,
                on: true,
            },
        ),
        (
            "receiveAudio",
            Event::ReceiveAudio {
                stream_id: 1,
                on: true,
            },
        ),
        (
            "receiveVideo",
            Event::ReceiveVideo {
                stream_id: 1,
                on: true,
            },
        ),
    ] {
        let got = peer.send(1, command::begin(name, 0.0).null().boolean(true));
        assert_eq!(got, Ok(Some(event)));
    }
    let got = peer.send(
        1,
        command::begin("pause", 0.0)
            .null()
            .boolean(false)
            .number(9.0),
    );
    assert_eq!(
        got,
        Ok(Some(Event::Pause {
            stream_id: 1,
            on: false
        }))
    );
    assert_eq!(
        peer.answers(),
        [
            answer(
                1,
                "onStatus",
                &["0", "status", "NetStream.Pause.Notify", "Paused."]
            ),
            answer(
                1,
                "onStatus",
                &["0", "status", "NetStream.Unpause.Notify", "Resumed."]
            ),
        ]
    );

    peer.session.end_play(1, "a", Reason::StreamEnded);
    let gone = [
        "0",
        "status",
        "NetStream.Play.UnpublishNotify",
        "a is now unpublished.",
    ];
    let stop = [
        "0",
        "status",
        "NetStream.Play.Stop",
        "Stopped playing a. [stream_ended] (3/0)",
    ];
    assert_eq!(
        peer.answers(),
        [
            answer(0, "#4", &["000100000001"]),
            answer(1, "onStatus", &gone),
            answer(1, "onStatus", &stop),
        ]
    );
    let got = peer.send(0, command::begin("deleteStream", 7.0).null().number(1.0));
    assert_eq!(got, Ok(None));
}
