//! Captures over a relay of their own.

use std::time::Instant;

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::media::{Kind, MediaTime, Message};
use crate::reason::Reason;
use crate::relay::{Config, Publisher, Query};

struct Room {
    captures: Captures,
    relay: Relay,
    folder: tempfile::TempDir,
    tasks: TaskTracker,
}

fn key(name: &str) -> StreamKey {
    StreamKey::new("live", name).unwrap()
}

impl Room {
    fn new() -> Self {
        let relay = Relay::new(Config::default());
        let folder = tempfile::tempdir().unwrap();
        let tasks = TaskTracker::new();
        let path = folder.path().join("captures");
        let stop = CancellationToken::new();
        Self {
            captures: Captures::new(relay.clone(), path, tasks.clone(), stop),
            relay,
            folder,
            tasks,
        }
    }

    fn publish(&self, name: &str) -> Publisher {
        let origin = Origin::Anchor {
            address: ([203, 0, 113, 7], 1_935).into(),
            connection: crate::logging::ConnectionId::next(),
            key_id: None,
            query: Query::default(),
        };
        let publisher = self.relay.publish(&key(name), origin).unwrap();
        send(&publisher, 0, &[0x17, 0, 0, 0, 0, 1]);
        publisher
    }

    async fn done(&self, id: &str) -> Info {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let info = self.captures.get(id).await.unwrap();
            if info.end.is_some() {
                return info;
            }
            assert!(Instant::now() < deadline, "{info:?}");
            tokio::task::yield_now().await;
        }
    }

    fn file(&self, id: &str, ending: &str) -> Vec<u8> {
        let path = self.folder.path().join("captures");
        std::fs::read(path.join(format!("{id}.{ending}"))).unwrap()
    }
}

fn send(publisher: &Publisher, ms: i64, payload: &[u8]) {
    let message = Message::new(Kind::Video, MediaTime(ms), Bytes::copy_from_slice(payload));
    publisher.publish(message, Instant::now());
}

#[tokio::test]
async fn a_capture_has_headers_then_every_message_and_a_line_for_each() {
    let room = Room::new();
    let publisher = room.publish("a");
    send(&publisher, 0, &[0x17, 1, 0, 0, 0, 1]);
    let begun = room.captures.begin(&key("a"), MAX_TIME).await.unwrap();
    for n in 1..=200u8 {
        send(&publisher, i64::from(n) * 40, &[0x27, 1, 0, 0, 0, n]);
        tokio::task::yield_now().await;
    }
    let again = room.captures.begin(&key("a"), MAX_TIME).await.unwrap_err();
    assert_eq!(again.to_string(), "live/a is being captured");
    publisher.finish(Reason::Deleted);
    let info = room.done(&begun.id).await;
    assert_eq!(info.end, Some(End::Publisher));
    assert_eq!(info.address.as_deref(), Some("203.0.113.7:1935"));
    // The header from before, and two hundred pictures: none before the beginning.
    assert_eq!(info.messages, 201);
    let media = room.file(&info.id, "flv");
    assert_eq!(info.bytes, media.len() as u64);
    let lines = String::from_utf8(room.file(&info.id, "jsonl")).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 201);
    assert_eq!(
        (&lines[0]["header"], &lines[0]["arrived_us"]),
        (&true.into(), &Value::Null)
    );
    let mut before = 0;
    for (n, line) in lines.iter().enumerate().skip(1) {
        assert_eq!(line["n"], n);
        assert_eq!(line["dts_ms"], n * 40);
        let at = line["offset"].as_u64().unwrap() as usize;
        // The tag's header of 11 bytes, then the body.
        assert_eq!(media[at], 9, "{line}");
        assert_eq!(media[at + 11..at + 17], [0x27, 1, 0, 0, 0, n as u8]);
        let arrived = line["arrived_us"].as_u64().unwrap();
        assert!(arrived >= before);
        before = arrived;
    }
}

#[tokio::test]
async fn there_are_so_many_at_once_and_a_running_one_can_be_deleted() {
    let room = Room::new();
    let publishers: Vec<_> = (0..=AT_ONCE)
        .map(|n| room.publish(&format!("s{n}")))
        .collect();
    let mut ids = Vec::new();
    for n in 0..AT_ONCE {
        let begun = room.captures.begin(&key(&format!("s{n}")), MAX_TIME).await;
        ids.push(begun.unwrap().id);
    }
    let last = key(&format!("s{AT_ONCE}"));
    let full = room.captures.begin(&last, MAX_TIME).await.unwrap_err();
    assert!(matches!(full, Error::Full), "{full}");
    assert_eq!(room.captures.list().await.unwrap().len(), AT_ONCE);
    let deleted = room.captures.delete(&ids[0]).await.unwrap();
    assert_eq!(deleted.end, Some(End::Stopped));
    for missing in [&ids[0], "", "../../etc/passwd", "20261129T191412345Z-1"] {
        let error = room.captures.get(missing).await.unwrap_err();
        assert!(matches!(error, Error::NotFound(_)), "{missing}: {error}");
        let error = room.captures.open(missing, Part::Media).await.unwrap_err();
        assert!(matches!(error, Error::NotFound(_)), "{missing}: {error}");
    }
    assert!(room.captures.begin(&last, MAX_TIME).await.is_ok());
    let absent = room.captures.begin(&key("absent"), MAX_TIME).await;
    assert_eq!(
        absent.unwrap_err().to_string(),
        "nobody publishes live/absent"
    );
    drop(publishers);
    room.tasks.close();
    room.tasks.wait().await;
}

#[tokio::test]
async fn the_oldest_go_by_number_and_by_bytes() {
    let room = Room::new();
    let folder = room.folder.path().join("captures");
    std::fs::create_dir(&folder).unwrap();
    let put = |n: usize, bytes: u64| {
        let id = format!("20200101T000000{n:03}Z-1");
        let file = std::fs::File::create(folder.join(format!("{id}.flv"))).unwrap();
        // A hole, which costs the disk nothing.
        file.set_len(bytes).unwrap();
        id
    };
    let ids: Vec<_> = (0..KEPT).map(|n| put(n, 10)).collect();
    let strange = folder.join("notes.txt");
    std::fs::write(&strange, "keep").unwrap();
    let publisher = room.publish("a");
    let time = Duration::from_secs(1);
    let first = room.captures.begin(&key("a"), time).await.unwrap();
    let kept = |id: &String| folder.join(format!("{id}.flv")).exists();
    assert!(!kept(&ids[0]) && kept(&ids[1]));
    publisher.finish(Reason::Deleted);
    assert_eq!(room.done(&first.id).await.end, Some(End::Publisher));
    let known = room.captures.get(&ids[1]).await.unwrap();
    assert_eq!((known.end, known.bytes), (Some(End::Unknown), 10));

    // Two of these and what the next may become are more than may be kept.
    let large: Vec<_> = (900..902).map(|n| put(n, KEPT_BYTES / 2)).collect();
    let publisher = room.publish("b");
    room.captures.begin(&key("b"), time).await.unwrap();
    assert!(ids.iter().all(|id| !kept(id)));
    assert!(!kept(&large[0]) && kept(&large[1]));
    assert!(strange.exists());
    drop(publisher);
}

#[tokio::test]
async fn a_capture_ends_by_its_bytes() {
    let room = Room::new();
    let publisher = room.publish("a");
    // Before a key frame pictures are no use to anybody, and are not on the feed.
    send(&publisher, 0, &[0x17, 1, 0, 0, 0, 1]);
    let begun = room.captures.begin(&key("a"), MAX_TIME).await.unwrap();
    let mut large = vec![0x27, 1, 0, 0, 0];
    large.resize(4 << 20, 1);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut sent = 0;
    loop {
        let info = room.captures.get(&begun.id).await.unwrap();
        if info.end.is_some() {
            break;
        }
        // The next one when the last is written: else they would fall out of the ring.
        if info.messages >= sent {
            sent += 1;
            send(&publisher, sent as i64, &large);
        }
        tokio::task::yield_now().await;
        assert!(Instant::now() < deadline, "{info:?}");
    }
    let info = room.done(&begun.id).await;
    assert_eq!(info.end, Some(End::Bytes));
    // What one more message takes beyond the limit, and a piece: no batch of such messages.
    assert!(
        (MAX_BYTES..MAX_BYTES + (5 << 20)).contains(&info.bytes),
        "{info:?}"
    );
}

#[tokio::test]
async fn one_that_runs_goes_for_no_other() {
    let room = Room::new();
    let _publishers = ["a", "b"].map(|name| room.publish(name));
    let running = room.captures.begin(&key("a"), MAX_TIME).await.unwrap();
    let folder = room.folder.path().join("captures");
    // A clock that was set back since: what has ended is newer than what runs.
    let newer: Vec<_> = (0..KEPT)
        .map(|n| {
            let id = format!("29990101T000000{n:03}Z-1");
            std::fs::write(folder.join(format!("{id}.flv")), "").unwrap();
            id
        })
        .collect();
    room.captures.begin(&key("b"), MAX_TIME).await.unwrap();
    let kept = |id: &String| folder.join(format!("{id}.flv")).exists();
    assert!(kept(&running.id));
    assert!(!kept(&newer[0]) && !kept(&newer[1]) && kept(&newer[2]));
}

#[tokio::test]
async fn a_capture_ends_with_its_publisher_although_another_one_takes_over() {
    for sent in [10u8, 0] {
        let room = Room::new();
        let first = room.publish("a");
        send(&first, 0, &[0x17, 1, 0, 0, 0, 1]);
        let begun = room.captures.begin(&key("a"), MAX_TIME).await.unwrap();
        send(&first, 40, &[0x27, 1, 0, 0, 0, 2]);
        let second = room.publish("a");
        for n in 0..sent {
            send(
                &second,
                1_000 + i64::from(n) * 40,
                &[0x17, 1, 0, 0, 0, 0x70 + n],
            );
        }
        let info = room.done(&begun.id).await;
        assert_eq!(info.end, Some(End::Publisher));
        // The header from before, and one picture.
        assert_eq!(info.messages, 2);
        assert_ne!(info.epoch, 0);
        let media = room.file(&begun.id, "flv");
        let theirs = |tag: &[u8]| tag[..5] == [0x17, 1, 0, 0, 0] && tag[5] >= 0x70;
        assert!(!media.windows(6).any(theirs));
    }
}
