//! What there is to see of one stream, against the examples, and a camera that is none.

use super::examples::is_as_documented;
use super::*;
use crate::hooks::Remark;
use crate::media::vitals::Spread;

/// Tells what it was asked for.
pub struct Still;

impl Camera for Still {
    fn picture<'a>(&'a self, key: &'a StreamKey, feed: Feed, width: Option<u32>) -> Developing<'a> {
        Box::pin(async move {
            if key.stream() == "dark" {
                return Err(PictureError::None("no key frame".to_owned()));
            }
            Ok(Picture {
                jpeg: format!("{key} {} {width:?}", feed.as_str()).into(),
                age: Duration::from_millis(1_234),
            })
        })
    }
}

/// A mixer that knows one mix.
struct OneMix;

impl Mixes for OneMix {
    fn put<'a>(&'a self, _: &'a str, _: &'a [u8]) -> Pending<'a, (Made, Value)> {
        Box::pin(async { Err(MixError::Unavailable("none but one".into())) })
    }

    fn preview<'a>(&'a self, _: &'a [u8], _: Wish) -> Pending<'a, Drawn> {
        Box::pin(async { Err(MixError::Unavailable("blind".into())) })
    }

    fn get(&self, id: &str) -> Option<Value> {
        self.list().into_iter().find(|mix| mix["id"] == id)
    }

    fn list(&self) -> Vec<Value> {
        let input = json!({"id": "a", "stream": "8888_streamA", "state": "held"});
        vec![json!({
            "id": "show", "app": "live", "state": "live", "inputs": [input],
            "output": {"stream": "8888_streamA"}, "degraded": null, "error": null,
        })]
    }

    fn stages(&self, _: &str) -> Vec<(&'static str, Spread)> {
        let of = |word, us| Some((word, Spread::of([us, 2 * us, 3 * us].into_iter())?));
        let all = [
            of("decode", 900),
            of("hold", 2_000),
            of("beat", 700),
            of("encode", 4_000),
            of("added", 7_600),
        ];
        all.into_iter().flatten().collect()
    }

    fn decoders(&self) -> [(&'static str, usize); 2] {
        [("audio", 0), ("video", 0)]
    }

    fn load(&self) -> MixLoad {
        MixLoad::default()
    }

    fn picture_size(&self, _: &StreamKey) -> Option<(u32, u32)> {
        None
    }

    fn gone(&self) -> Gone<'_> {
        Box::pin(std::future::pending())
    }

    fn remove<'a>(&'a self, _: &'a str) -> Pending<'a, Value> {
        Box::pin(async { Err(MixError::NotFound("stays".into())) })
    }
}

/// Twenty seconds of fourteen pictures a second, which end now; a key frame each 8 s, sound 600 ms ahead.
fn lame(relay: &Relay) -> Publisher {
    let origin = Origin::Anchor {
        address: ([203, 0, 113, 7], 50_412).into(),
        connection: crate::logging::ConnectionId::next(),
        key_id: None,
        query: Query::default(),
    };
    let publisher = relay.publish(&key(), origin).unwrap();
    let now = Instant::now();
    for n in 0..280i64 {
        let ms = n * 1_000 / 14;
        let at = now - Duration::from_millis((20_000 - ms) as u64);
        let key = n % 112 == 0;
        let first = if key { 0x17 } else { 0x27 };
        for (kind, dts, payload) in [
            (Kind::Video, ms, vec![first, 1, 0, 0, 0, 1]),
            (Kind::Audio, ms + 600, vec![0xaf, 1, 1]),
        ] {
            let message = Message::new(kind, MediaTime(dts), payload.into());
            publisher.publish(message, at);
        }
        publisher.handled(Duration::from_micros(40));
    }
    publisher
}

#[tokio::test]
async fn a_diagnosis_and_latencies_answer_as_documented() {
    let (house, client) = open(Some(Arc::new(OneMix))).await;
    let path = "/api/v1/streams/live/8888_streamA";
    for what in ["diagnose", "latency", "events", "snapshot.jpg"] {
        let answer = client.call("GET", &format!("{path}/{what}"), "").await;
        is_error(&answer, 404, "not_found");
    }
    let push = json!({
        "app": "live", "stream": "8888_streamA", "feed": "program", "url": "rtmp://127.0.0.1:1/live/a",
    });
    let put = client
        .call("PUT", "/api/v1/pushes/cdn-a", &push.to_string())
        .await;
    assert_eq!(put.status, 201);
    // What it sent is judged by when it is asked about.
    let publisher = lame(&house.relay);
    let listed = client.call("GET", "/metrics", "").await.body;
    let line = "linkmic_relay_publisher_grades{grade=\"fair\"} 1";
    assert!(listed.contains(line), "{listed}");
    publisher.finish(Reason::Deleted);
    let _publisher = lame(&house.relay);
    let trouble = Remark {
        kind: "trouble",
        reason: "video_time_back",
        words: "video timestamp goes back: from 9 to 5 ms (1 in 5 s)".to_owned(),
        address: None,
    };
    house.hooks.journal().chronicle().remark(&key(), trouble);

    let answer = client.call("GET", &format!("{path}/diagnose"), "").await;
    let shown = answer.json();
    is_as_documented("diagnose", &shown);
    // The push is another matter, and may have failed by now.
    assert_ne!(shown["grade"], "good", "{shown}");
    let found = shown["findings"].as_array().unwrap();
    let told = |code: &str| {
        let mut of_it = found.iter().filter(|found| found["code"] == code);
        let message = of_it.next().map(|found| found["message"].as_str().unwrap());
        message.unwrap_or_else(|| panic!("no {code} in {shown}"))
    };
    assert!(told("few_pictures").contains("sends 14.0 pictures a second"));
    assert!(told("long_gop").contains("every 8.0 s"));
    assert!(told("audio_ahead").contains("600 ms ahead"));
    assert!(told("mix_input_lost").contains("in the mix \"show\" it is held"));
    assert!(told("video_time_back").contains("from 9 to 5 ms"));

    let answer = client.call("GET", &format!("{path}/latency"), "").await;
    let shown = answer.json();
    is_as_documented("latency", &shown);
    assert_eq!(shown["mixes"][0]["role"], "output");
    assert_eq!(shown["mixes"][0]["encode_ms"]["max"], 12.0);
    assert_eq!(shown["ingest"]["handling_ms"]["median"], 0.04);
}

#[tokio::test]
async fn what_happened_answers_as_documented_also_when_nobody_is_there() {
    let (house, client) = open(None).await;
    let refusal = Remark {
        kind: "publish_refused",
        reason: "signature_expired",
        words: "txTime expired 37 s ago".to_owned(),
        address: Some("203.0.113.9:40112".to_owned()),
    };
    for _ in 0..3 {
        house
            .hooks
            .journal()
            .chronicle()
            .remark(&key(), refusal.clone());
    }
    house.hooks.journal().tell(crate::hooks::Fact {
        kind: crate::hooks::Kind::Unpublish,
        stream: key(),
        at: std::time::SystemTime::now(),
        data: json!({"epoch": 1, "reason": "idle"}),
    });
    let path = "/api/v1/streams/live/8888_streamA";
    let answer = client.call("GET", &format!("{path}/events"), "").await;
    let shown = answer.json();
    is_as_documented("stream_events", &without_data(&shown));
    let events = shown["events"].as_array().unwrap();
    assert_eq!(events[0]["type"], "unpublish");
    assert_eq!(
        (&events[0]["reason"], &events[0]["data"]["epoch"]),
        (&json!("idle"), &json!(1))
    );
    assert_eq!(
        (&events[1]["count"], &events[1]["reason"]),
        (&json!(3), &json!("signature_expired"))
    );
    let answer = client.call("GET", &format!("{path}/diagnose"), "").await;
    let shown = answer.json();
    assert_eq!(shown["grade"], "poor");
    let first = &shown["findings"][0];
    assert_eq!(first["code"], "not_published");
    assert!(
        first["message"].as_str().unwrap().ends_with("s ago (idle)"),
        "{first}"
    );
}

/// What facts tell depends on their kind.
fn without_data(events: &Value) -> Value {
    let mut events = events.clone();
    events["events"][0]["data"] = Value::Null;
    events
}

#[tokio::test]
async fn a_snapshot_is_a_jpeg_with_its_age_and_refused_with_a_reason() {
    let (house, client) = open(Some(Arc::new(OneMix))).await;
    let _publisher = anchor(&house.relay);
    let path = "/api/v1/streams/live/8888_streamA/snapshot.jpg";
    let first = client.call("GET", path, "").await;
    assert_eq!(
        (first.status, first.header("content-type")),
        (200, Some("image/jpeg"))
    );
    assert_eq!(first.header("picture-age-ms"), Some("1234"));
    assert_eq!(first.body, "live/8888_streamA source None");
    let asked = client
        .call("GET", &format!("{path}?feed=program&width=320"), "")
        .await;
    assert_eq!(asked.body, "live/8888_streamA program Some(320)");
    for (query, message) in [
        ("feed=both", "feed: \"both\" is neither source nor program"),
        ("width=15", "width: 15 is outside 16 to 4096 pixels"),
        ("width=wide", "width"),
        ("height=3", "unknown field"),
    ] {
        let answer = client.call("GET", &format!("{path}?{query}"), "").await;
        is_error(&answer, 400, "invalid");
        let text = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(text.contains(message), "{query}: {text}");
    }
    let origin = Origin::Mix {
        id: "night".to_owned(),
    };
    let dark = StreamKey::new("live", "dark").unwrap();
    let _dark = house.relay.publish(&dark, origin).unwrap();
    let dark = "/api/v1/streams/live/dark/snapshot.jpg";
    let answer = client.call("GET", dark, "").await;
    is_error(&answer, 404, "not_found");
    assert_eq!(answer.json()["message"], "no key frame");
    let (house, client) = open(None).await;
    let _publisher = anchor(&house.relay);
    let answer = client.call("GET", path, "").await;
    is_error(&answer, 501, "mixer_not_built");
}

#[tokio::test]
async fn captures_answer_as_documented() {
    let (house, client) = open(None).await;
    let path = "/api/v1/streams/live/8888_streamA/capture";
    let body = json!({"seconds": 30, "what": "publisher"});
    is_error(&client.post(path, &body).await, 404, "not_found");
    let publisher = anchor(&house.relay);
    for (body, message) in [
        (
            json!({"seconds": 61, "what": "publisher"}),
            "seconds: 61 is outside 1 to 60",
        ),
        (
            json!({"seconds": 0, "what": "publisher"}),
            "seconds: 0 is outside",
        ),
        (
            json!({"seconds": 5, "what": "player"}),
            "what: unknown variant",
        ),
        (json!({"seconds": 5}), "missing field"),
    ] {
        let answer = client.post(path, &body).await;
        is_error(&answer, 400, "invalid");
        let text = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(text.contains(message), "{text}");
    }
    let begun = client.post(path, &body).await;
    assert_eq!(begun.status, 201);
    is_as_documented("capture", &begun.json());
    is_error(&client.post(path, &body).await, 409, "conflict");
    publisher.finish(Reason::Deleted);
    let own = format!("/api/v1/captures/{}", begun.json()["id"].as_str().unwrap());
    let deadline = Instant::now() + Duration::from_secs(30);
    let done = loop {
        let shown = client.call("GET", &own, "").await.json();
        if shown["state"] == "done" {
            break shown;
        }
        assert!(Instant::now() < deadline, "{shown}");
    };
    assert_eq!(done["end"], "publisher");
    is_as_documented("capture", &done);
    let listed = client.call("GET", "/api/v1/captures", "").await.json();
    is_as_documented("captures", &listed);
    let timing = client
        .call("GET", done["timing"].as_str().unwrap(), "")
        .await;
    assert_eq!(timing.header("content-type"), Some("application/jsonl"));
    // The two headers that were there before.
    assert_eq!(timing.body.lines().count(), 2);
    assert_eq!(client.call("DELETE", &own, "").await.status, 200);
    for method in ["GET", "DELETE"] {
        is_error(&client.call(method, &own, "").await, 404, "not_found");
    }
}
