//! Groups over real sockets: who publishes when, and where one stops and the other goes on.

use super::sink::GOP;
use super::*;

/// A group of two that decides fast.
fn hasty() -> Config {
    Config {
        failover: Duration::from_millis(500),
        steady: Duration::from_secs(1),
        ..config()
    }
}

fn member(sink: &Sink, role: &str) -> Spec {
    spec_with(
        &sink.url("b"),
        serde_json::json!({"group": "main", "role": role}),
    )
}

/// Reads on until the goodbye: timestamps of the pictures.
async fn pictures_until_the_end(sink: &mut Sink) -> Vec<u32> {
    let mut pictures = Vec::new();
    loop {
        match sink.next().await {
            Report::Media {
                kind: Kind::Video,
                timestamp,
                header: false,
                ..
            } => pictures.push(timestamp),
            Report::Unpublish { .. } => return pictures,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_backup_publishes_while_there_is_no_primary_and_stops_before_a_key_frame() {
    let setup = setup(hasty());
    let mut events = setup.pushes.events();
    let (mut primary, mut backup) = (
        Sink::start(Manner::Accept).await,
        Sink::start(Manner::Accept).await,
    );
    let _anchor = setup.anchor();
    setup.pushes.put("b", member(&backup, "backup")).unwrap();
    setup.pushes.put("p", member(&primary, "primary")).unwrap();
    primary.publish().await;
    let status = setup.until("b", |s| s.state == State::Standby).await;
    assert_eq!((status.connects, status.role), (0, Some(Role::Backup)));

    primary.kill().await;
    assert_eq!(backup.publish().await.0, 1);
    let first = backup.media(4).await;
    assert!(first[3].2 && !first[3].3, "{first:?}");
    setup
        .until("b", |s| s.state == State::Live && s.takeovers == 1)
        .await;

    primary.listen().await;
    primary.publish().await;
    let pictures = pictures_until_the_end(&mut backup).await;
    for pair in pictures.windows(2) {
        assert_eq!(pair[1] - pair[0], FRAME as u32, "no picture is missing");
    }
    let last = i64::from(*pictures.last().unwrap());
    assert_eq!((last / FRAME) % GOP, GOP - 1, "the next is a key frame");
    setup.until("b", |s| s.state == State::Standby).await;
    // The primary has it and what comes before: both published for a while.
    let upto = primary.until(|report| match report {
        Report::Media { timestamp, .. } => Some(i64::from(*timestamp)).filter(|t| *t >= last),
        _ => None,
    });
    upto.await;
    assert_eq!(setup.pushes.metrics().takeovers, 1);

    let mut states = Vec::new();
    while let Ok(event) = events.try_recv() {
        if event.id == "b" {
            states.push(event.state);
        }
    }
    assert_eq!(
        states,
        [
            State::Standby,
            State::Connecting,
            State::Live,
            State::Standby
        ]
    );
}

#[tokio::test]
async fn a_backup_of_another_group_or_stream_does_not_care() {
    let setup = setup(hasty());
    let (mut primary, mut other) = (
        Sink::start(Manner::Accept).await,
        Sink::start(Manner::Accept).await,
    );
    let _anchor = setup.anchor();
    setup.pushes.put("p", member(&primary, "primary")).unwrap();
    primary.publish().await;
    let body = serde_json::json!({"group": "second", "role": "backup"});
    setup
        .pushes
        .put("o", spec_with(&other.url("b"), body))
        .unwrap();
    other.publish().await;
    assert_eq!(setup.pushes.get("p").unwrap().failures, 0);
}

#[tokio::test]
async fn the_second_backup_takes_over_where_the_first_is_refused() {
    let setup = setup(hasty());
    let mut sinks = [
        Sink::start(Manner::Refuse).await,
        Sink::start(Manner::Refuse).await,
        Sink::start(Manner::Accept).await,
    ];
    let roles = ["primary", "backup", "backup"];
    for (n, (sink, role)) in sinks.iter().zip(roles).enumerate() {
        let id = format!("t{n}");
        setup.pushes.put(&id, member(sink, role)).unwrap();
    }
    let anchor = setup.anchor();
    sinks[2].publish().await;
    let first = setup.until("t1", |s| s.state == State::Standby).await;
    assert!(first.failures >= 1, "{first:?}");
    setup.until("t2", |s| s.state == State::Live).await;
    // The program's end is everybody's.
    anchor.finish().await;
    assert_eq!(sinks[2].unpublish().await, 1);
    for id in ["t1", "t2"] {
        setup.until(id, |s| s.state == State::Waiting).await;
    }
}

#[tokio::test]
async fn a_primary_that_is_removed_is_followed_by_its_backup() {
    let setup = setup(hasty());
    let (mut primary, mut backup) = (
        Sink::start(Manner::Accept).await,
        Sink::start(Manner::Accept).await,
    );
    let _anchor = setup.anchor();
    setup.pushes.put("p", member(&primary, "primary")).unwrap();
    primary.publish().await;
    setup.pushes.put("b", member(&backup, "backup")).unwrap();
    setup.until("b", |s| s.state == State::Standby).await;
    setup.pushes.remove("p").await.unwrap();
    backup.publish().await;
    // A changed part counts at once: a primary does not stand by.
    setup.pushes.put("b", member(&backup, "primary")).unwrap();
    assert_eq!(backup.publish().await.0, 2);
}

#[tokio::test]
async fn a_backup_does_not_take_over_a_stream_that_is_silent() {
    let setup = setup(Config {
        hold: Duration::from_millis(1_000),
        ..hasty()
    });
    let (mut primary, backup) = (
        Sink::start(Manner::Accept).await,
        Sink::start(Manner::Accept).await,
    );
    let anchor = setup.anchor();
    setup.pushes.put("p", member(&primary, "primary")).unwrap();
    primary.publish().await;
    setup.pushes.put("b", member(&backup, "backup")).unwrap();
    setup.until("b", |s| s.state == State::Standby).await;
    anchor.pause(true);
    primary.unpublish().await;
    let status = setup.until("b", |s| s.state == State::Waiting).await;
    assert_eq!(status.connects, 0);
    anchor.pause(false);
    primary.publish().await;
    setup.until("b", |s| s.state == State::Standby).await;
}
