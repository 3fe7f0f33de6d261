//! What real clients sent after the handshake, byte for byte, up to `publish` or `play`.
//!
//! Recorded on loopback from ffmpeg 5.1, rtmpdump 2.4 and GStreamer 1.22 (rtmp2sink, rtmp2src), which waited for the
//! answers that this session gives.

use super::*;

struct Recording {
    client: &'static str,
    bytes: &'static [u8],
    flash_ver: &'static str,
    /// Commands before the last, as answered: the names of all commands that went back.
    answers: &'static [&'static str],
    last: fn(&Event) -> bool,
}

fn publishes(event: &Event, wanted: &str) -> bool {
    matches!(event, Event::Publish { stream_id: 1, name, query, kind: PublishKind::Live }
        if name == "g" && query == wanted)
}

fn plays(event: &Event, from: f64) -> bool {
    matches!(event, Event::Play { stream_id: 1, name, start, .. } if name == "g" && *start == from)
}

const RECORDINGS: [Recording; 5] = [
    Recording {
        client: "ffmpeg publishing",
        bytes: include_bytes!("recorded/ffmpeg_publish.bin"),
        flash_ver: "FMLE/3.0 (compatible; Lavf59.27.100)",
        answers: &["_result", "_result", "_result", "onFCPublish", "_result"],
        last: |event| publishes(event, "k=v"),
    },
    Recording {
        client: "GStreamer publishing",
        bytes: include_bytes!("recorded/gstreamer_publish.bin"),
        flash_ver: "LNX 10,0,32,18",
        answers: &["_result", "onFCPublish", "_result"],
        last: |event| publishes(event, ""),
    },
    Recording {
        client: "ffmpeg playing",
        bytes: include_bytes!("recorded/ffmpeg_play.bin"),
        flash_ver: "LNX 9,0,124,2",
        answers: &["_result", "_result", "_result"],
        last: |event| plays(event, -2000.0),
    },
    Recording {
        client: "rtmpdump playing",
        bytes: include_bytes!("recorded/rtmpdump_play.bin"),
        flash_ver: "LNX 10,0,32,18",
        answers: &["_result", "_result", "onFCSubscribe"],
        last: |event| plays(event, -1000.0),
    },
    Recording {
        client: "GStreamer playing",
        bytes: include_bytes!("recorded/gstreamer_play.bin"),
        flash_ver: "LNX 10,0,32,18",
        answers: &["_result", "_result"],
        last: |event| plays(event, -2.0),
    },
];

#[test]
fn recorded_clients_are_understood_however_their_bytes_are_split() {
    for recording in &RECORDINGS {
        for step in [1, 2, 3, 64, 4096] {
            let mut peer = Peer::new();
            let mut from_client = chunk::Reader::new(chunk::Limits::default());
            let mut events = Vec::new();
            for part in recording.bytes.chunks(step) {
                from_client.buffer().extend_from_slice(part);
                while let Some(message) = from_client.next().unwrap() {
                    let event = peer.session.handle(message).unwrap();
                    if let Some(Event::Connect(info)) = &event {
                        assert_eq!(
                            (info.app.as_str(), info.flash_ver.as_str()),
                            ("live", recording.flash_ver)
                        );
                        peer.session.accept_connect();
                    }
                    events.extend(event);
                }
            }
            let client = recording.client;
            assert!(
                matches!(events[..], [Event::Connect(_), _]),
                "{client}: {events:?}"
            );
            assert!((recording.last)(&events[1]), "{client}: {:?}", events[1]);
            let answers = peer.answers();
            let names: Vec<_> = answers
                .iter()
                .map(|(_, name, _)| name.as_str())
                .filter(|name| !name.starts_with('#'))
                .collect();
            assert_eq!(names, recording.answers, "{client}");
        }
    }
}
