//! The room's promises, over real sockets, against a server made of our own server session.

mod groups;
mod sink;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::sink::{Anchor, DEADLINE, FRAME, Manner, Report, Sink};
use super::*;
use crate::media::{Feed, Kind, StreamKey};
use crate::relay::Relay;

const PACE: Duration = Duration::from_millis(5);

/// Signs with a number that grows with each signature.
#[derive(Default)]
struct Counting(AtomicU64);

impl Signer for Counting {
    fn sign(&self, key: &str, stream: &str, _: Duration) -> Result<String, SignError> {
        if key != "cdn" {
            return Err(SignError(format!("no key has the id {key:?}")));
        }
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        Ok(format!("txSecret={stream}-{n}&txTime=5F000000"))
    }
}

struct Setup {
    relay: Relay,
    pushes: Pushes,
    key: StreamKey,
}

fn setup(config: Config) -> Setup {
    let relay = Relay::new(crate::relay::Config::default());
    let pushes = Pushes::new(relay.clone(), config, Arc::new(Counting::default()));
    Setup {
        relay,
        pushes,
        key: StreamKey::new("live", "8888_streamA").unwrap(),
    }
}

/// Fast where the defaults are patient, and patient with a busy machine.
fn config() -> Config {
    Config {
        max_backoff: Duration::from_millis(300),
        max_lag: Duration::from_secs(600),
        ..Config::default()
    }
}

fn spec(url: &str) -> Spec {
    spec_with(url, serde_json::json!({}))
}

fn spec_with(url: &str, more: serde_json::Value) -> Spec {
    let mut body = serde_json::json!({"app": "live", "stream": "8888_streamA", "url": url});
    for (field, value) in more.as_object().unwrap() {
        body[field] = value.clone();
    }
    serde_json::from_value(body).unwrap()
}

impl Setup {
    fn anchor(&self) -> Anchor {
        Anchor::start(&self.relay, &self.key, 100, PACE)
    }

    /// Polls a target's status until it is as wanted.
    async fn until(&self, id: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let status = self.pushes.get(id).unwrap();
            if wanted(&status) {
                return status;
            }
            assert!(tokio::time::Instant::now() < deadline, "{status:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn a_target_gets_headers_then_a_key_frame_then_everything() {
    let setup = setup(config());
    let mut sink = Sink::start(Manner::Accept).await;
    let (put, status) = setup.pushes.put("cdn", spec(&sink.url("b?k=v"))).unwrap();
    assert_eq!((put, status.state), (Put::Created, State::Waiting));
    assert_eq!(status.connects, 0);

    let anchor = setup.anchor();
    assert_eq!(sink.publish().await, (1, "b".into(), "k=v".into()));
    let got = sink.media(3 + 100).await;
    let headers: Vec<_> = got[..3].iter().map(|m| (m.0, m.3)).collect();
    assert_eq!(
        headers,
        [(Kind::Data, true), (Kind::Audio, true), (Kind::Video, true)]
    );
    assert!(got[3].0 == Kind::Video && got[3].2, "{:?}", got[3]);
    let video: Vec<_> = got[3..].iter().filter(|m| m.0 == Kind::Video).collect();
    for pair in video.windows(2) {
        assert_eq!(pair[1].1 - pair[0].1, FRAME as u32, "no picture is missing");
    }

    let status = setup.until("cdn", |s| s.state == State::Live).await;
    assert_eq!((status.connects, status.failures), (1, 0));
    assert!(status.bytes > 100 * 100 / 2 && status.messages >= 103 && status.dropped == 0);
    assert!(status.last_progress_ms.is_some() && status.last_error.is_none());
    assert!(status.url.ends_with("/live/b?***"), "{}", status.url);

    anchor.finish().await;
    assert_eq!(sink.unpublish().await, 1);
    let status = setup.until("cdn", |s| s.state == State::Waiting).await;
    assert_eq!((status.connects, status.failures), (1, 0));

    // The stream comes back, and with it the push.
    let _anchor = setup.anchor();
    assert_eq!(sink.publish().await.0, 2);
    sink.media(1).await;
    setup.pushes.shutdown().await;
    assert_eq!(sink.unpublish().await, 2);
    assert!(matches!(
        setup.pushes.put("cdn", spec(&sink.url("b"))),
        Err(Error::Closed)
    ));
}

#[tokio::test]
async fn a_refused_target_is_asked_again_and_its_words_are_masked() {
    let setup = setup(config());
    let mut sink = Sink::start(Manner::Refuse).await;
    let _anchor = setup.anchor();
    setup
        .pushes
        .put("cdn", spec(&sink.url("b?secret=1234")))
        .unwrap();
    let status = setup
        .until("cdn", |s| s.state == State::Backoff && s.failures >= 2)
        .await;
    assert!(status.retry_in_ms.is_some());
    assert_eq!(
        status.last_error.as_deref(),
        Some("target refused: NetStream.Publish.BadName (no room for b?*** [name_busy] (18/600))")
    );
    sink.become_(Manner::Accept);
    sink.publish().await;
    let status = setup.until("cdn", |s| s.state == State::Live).await;
    // What went wrong last stays readable.
    assert!(status.last_error.is_some() && status.retry_in_ms.is_none());
}

#[tokio::test]
async fn a_target_that_nobody_listens_at_backs_off() {
    let setup = setup(config());
    let mut sink = Sink::start(Manner::Accept).await;
    sink.kill().await;
    let _anchor = setup.anchor();
    setup.pushes.put("cdn", spec(&sink.url("b"))).unwrap();
    let status = setup.until("cdn", |s| s.failures >= 3).await;
    let error = status.last_error.unwrap();
    assert!(error.starts_with("cannot connect: "), "{error}");
    assert!(status.last_progress_ms.is_none() && status.bytes == 0);
}

#[tokio::test]
async fn a_black_hole_is_found_out_and_harms_nobody() {
    let setup = setup(Config {
        stall: Duration::from_secs(1),
        ..config()
    });
    let hole = Sink::start(Manner::BlackHole).await;
    let mut healthy = Sink::start(Manner::Accept).await;
    // 60 KB every 40 ms of media, 20 ms of wall time: the kernel's buffers are full in about a second.
    let pace = Duration::from_millis(20);
    let _anchor = Anchor::start(&setup.relay, &setup.key, 60_000, pace);
    setup.pushes.put("hole", spec(&hole.url("b"))).unwrap();
    setup.pushes.put("good", spec(&healthy.url("b"))).unwrap();
    let status = setup.until("hole", |s| s.failures >= 1).await;
    assert_eq!(
        status.last_error.as_deref(),
        Some("target acknowledged no byte for 1s while there was something to send")
    );
    // What it took went into buffers: two of ours at most, and the peer's.
    assert!(status.bytes < 16 << 20, "{}", status.bytes);

    let got = healthy.media(60).await;
    let video: Vec<_> = got.iter().filter(|m| m.0 == Kind::Video && !m.3).collect();
    for pair in video.windows(2) {
        assert_eq!(pair[1].1 - pair[0].1, FRAME as u32);
    }
    let status = setup.pushes.get("good").unwrap();
    assert_eq!((status.failures, status.dropped), (0, 0));
    let metrics = setup.pushes.metrics();
    assert_eq!(metrics.by_state.iter().map(|(_, n)| n).sum::<usize>(), 2);
    assert!(metrics.failures >= 1 && metrics.bytes > 0);
}

#[tokio::test]
async fn a_killed_target_is_resumed_at_a_key_frame_and_time_never_goes_back() {
    let setup = setup(config());
    let mut sink = Sink::start(Manner::Accept).await;
    let _anchor = setup.anchor();
    setup.pushes.put("cdn", spec(&sink.url("b"))).unwrap();
    let mut last = 0;
    for round in 1..=3 {
        let (connection, ..) = sink.publish().await;
        let got = sink.media(40).await;
        let (headers, media) = got.split_at(3);
        assert!(headers.iter().all(|m| m.3), "{headers:?}");
        assert!(media[0].2, "round {round} begins at a key frame");
        for (_, timestamp, ..) in got {
            assert!(
                timestamp >= last,
                "{timestamp} after {last} in round {round}"
            );
            last = timestamp;
        }
        sink.kill().await;
        let status = setup.until("cdn", |s| s.failures >= round).await;
        assert!(status.last_error.is_some());
        // Whatever this connection still got counts as sent.
        while let Some(report) = sink.try_next() {
            if let Report::Media {
                timestamp,
                connection: of,
                ..
            } = report
            {
                assert_eq!(of, connection);
                last = last.max(timestamp);
            }
        }
        sink.listen().await;
    }
}

#[tokio::test]
async fn a_signed_target_is_signed_anew_at_each_connect() {
    let setup = setup(config());
    let mut sink = Sink::start(Manner::Accept).await;
    let _anchor = setup.anchor();
    let sign = serde_json::json!({"sign": {"key": "cdn", "expires_in": "1h"}});
    setup
        .pushes
        .put("cdn", spec_with(&sink.url("b?k=v"), sign))
        .unwrap();
    // Signature 0 was the check when it was put.
    for n in 1..=2 {
        let (.., query) = sink.publish().await;
        assert_eq!(query, format!("k=v&txSecret=b-{n}&txTime=5F000000"));
        sink.kill().await;
        sink.listen().await;
    }
    let shown = format!("{:?}", setup.pushes.list());
    assert!(!shown.contains("txSecret"), "{shown}");
}

#[tokio::test]
async fn the_same_target_twice_is_one_and_another_one_replaces_it() {
    let setup = setup(config());
    let mut sink = Sink::start(Manner::Accept).await;
    let _anchor = setup.anchor();
    let put = |name: &str| setup.pushes.put("cdn", spec(&sink.url(name))).unwrap().0;
    assert_eq!(put("b"), Put::Created);
    let put = |name: &str| setup.pushes.put("cdn", spec(name)).unwrap().0;
    let (b, c) = (sink.url("b"), sink.url("c"));
    assert_eq!(sink.publish().await.1, "b");
    sink.media(1).await;
    assert_eq!(put(&b), Put::Unchanged);
    assert_eq!(put(&c), Put::Changed);
    // The old one says goodbye before the new one says hello.
    let order = sink
        .until(|report| match report {
            Report::Media { .. } => None,
            other => Some(other.clone()),
        })
        .await;
    assert_eq!(order, Report::Unpublish { connection: 1 });
    assert_eq!(sink.publish().await.1, "c");
    assert_eq!(setup.pushes.list().len(), 1);
}

#[tokio::test]
async fn a_removed_target_says_goodbye_and_is_gone() {
    let setup = setup(config());
    let mut sink = Sink::start(Manner::Accept).await;
    let _anchor = setup.anchor();
    setup.pushes.put("cdn", spec(&sink.url("b"))).unwrap();
    sink.media(5).await;
    let status = setup.pushes.remove("cdn").await.unwrap();
    assert_eq!(status.state, State::Ended);
    assert!(status.bytes > 0);
    assert_eq!(sink.unpublish().await, 1);
    assert!(setup.pushes.get("cdn").is_none());
    assert_eq!(
        setup.pushes.remove("cdn").await,
        Err(Error::NotFound("cdn".into()))
    );
    // Its numbers are not lost to the totals.
    assert_eq!(setup.pushes.metrics().bytes, status.bytes);
}

#[tokio::test]
async fn without_media_the_connection_is_held_for_a_while_only() {
    let setup = setup(Config {
        hold: Duration::from_millis(300),
        ..config()
    });
    let mut sink = Sink::start(Manner::Accept).await;
    let anchor = setup.anchor();
    setup.pushes.put("cdn", spec(&sink.url("b"))).unwrap();
    sink.media(10).await;
    anchor.pause(true);
    assert_eq!(sink.unpublish().await, 1);
    let status = setup.until("cdn", |s| s.state == State::Waiting).await;
    assert_eq!((status.connects, status.failures), (1, 0));
    anchor.pause(false);
    assert_eq!(sink.publish().await.0, 2);
    let got = sink.media(4).await;
    assert!(got[3].2 && !got[3].3, "{got:?}");
}

#[tokio::test]
async fn wrong_requests_are_refused_before_anything_happens() {
    let setup = setup(Config {
        max_targets: 1,
        ..config()
    });
    let url = "rtmp://127.0.0.1:1/live/b";
    let refusal = |id: &str, spec: Spec| setup.pushes.put(id, spec).unwrap_err().to_string();
    assert!(refusal("", spec(url)).starts_with("id: "));
    assert!(refusal("a/b", spec(url)).starts_with("id: "));
    assert!(refusal("rule:0:a:b", spec(url)).starts_with("id: "));
    assert!(refusal("a", spec("rtmp://h")).starts_with("url: "));
    let sign = serde_json::json!({"sign": {"key": "nobody", "expires_in": "1h"}});
    assert!(refusal("a", spec_with(url, sign)).starts_with("sign.key: "));
    assert!(setup.pushes.list().is_empty());
    setup.pushes.put("a", spec(url)).unwrap();
    assert_eq!(
        setup.pushes.put("b", spec(url)).unwrap_err(),
        Error::Full { limit: 1 }
    );
}

#[tokio::test]
async fn a_rule_pushes_what_matches_for_as_long_as_it_is_there() {
    let setup = setup(config());
    let mut sink = Sink::start(Manner::Accept).await;
    let url = format!("rtmp://127.0.0.1:{}/out/{{stream}}", sink.port);
    let rule = Rule::new(
        Apps::One("live".into()),
        "8888_*",
        Feed::Program,
        &url,
        None,
    )
    .unwrap();
    let other = StreamKey::new("live", "9999_x").unwrap();
    // One is there before the rule, one comes that does not match, and then the first comes back.
    let anchor = setup.anchor();
    setup.pushes.follow(vec![rule]).unwrap();
    let _other = Anchor::start(&setup.relay, &other, 100, PACE);
    let id = "rule:0:live:8888_streamA";
    assert_eq!(
        sink.publish().await,
        (1, "8888_streamA".into(), String::new())
    );
    assert_eq!(
        setup.until(id, |s| s.state == State::Live).await.origin,
        "rule"
    );
    assert_eq!(
        setup.pushes.remove(id).await,
        Err(Error::MadeByRule(id.into()))
    );
    anchor.finish().await;
    assert_eq!(sink.unpublish().await, 1);
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !setup.pushes.list().is_empty() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let _anchor = setup.anchor();
    assert_eq!(sink.publish().await.0, 2);
    assert_eq!(setup.pushes.list().len(), 1);
    setup.pushes.shutdown().await;
}
