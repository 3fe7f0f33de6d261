//! The hall's promises about epochs: who holds a name, what is told of it, and what readers see of a change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::media::{Class, Feed, Kind, MediaTime, Message, PerApp, StreamKey};
use crate::reason::Reason;

fn key(name: &str) -> StreamKey {
    StreamKey::new("live", name).unwrap()
}

fn anchor(host: u8, query: &str) -> Origin {
    Origin::Anchor {
        connection: crate::logging::ConnectionId::next(),
        address: ([203, 0, 113, host], 5_000).into(),
        key_id: Some("main".into()),
        query: Query::new(query),
    }
}

fn frame(dts: i64, is_key: bool, tag: u8) -> Message {
    let first = if is_key { 0x17 } else { 0x27 };
    let payload = vec![first, 1, 0, 0, 0, tag].into();
    Message::new(Kind::Video, MediaTime(dts), payload)
}

fn house(policy: OnBusy) -> Relay {
    Relay::new(Config {
        on_busy: PerApp::all(policy),
        ..Config::default()
    })
}

fn take(relay: &Relay, origin: Origin, now: Instant) -> Result<Publisher, PublishError> {
    relay.publish_with(&key("a"), origin, Bell::new(), now)
}

/// Decode time and tag of every picture, and how the feed ended.
fn pictures(reader: &mut Subscriber) -> (Vec<(i64, u8)>, Option<Reason>) {
    let mut items = Vec::new();
    let mut ended = None;
    loop {
        let before = items.len();
        let reception = reader.try_read(64, &mut items);
        ended = reception.ended.or(ended);
        if items.len() == before && reception.ended.is_none() {
            break;
        }
    }
    let of = |item: &Arc<Item>| {
        let message = item.message();
        (message.dts.0, *message.payload.last().unwrap())
    };
    (items.iter().map(of).collect(), ended)
}

#[tokio::test]
async fn a_takeover_tells_the_end_before_the_start_and_tells_the_loser_why() {
    let relay = house(OnBusy::default());
    let mut events = relay.events();
    let t0 = Instant::now();
    let first = take(&relay, anchor(1, "txTime=1"), t0).unwrap();
    first.publish(frame(0, true, 1), t0);
    let soon = t0 + Duration::from_millis(999);
    let refused = take(&relay, anchor(2, "txTime=2"), soon).unwrap_err();
    assert!(matches!(
        refused,
        PublishError::Busy(Refused::Active { .. })
    ));
    assert_eq!(first.eviction(), None);
    let later = t0 + Duration::from_secs(1);
    let second = take(&relay, anchor(2, "txTime=2"), later).unwrap();
    assert_eq!(first.evicted().await, Reason::TakenOver);
    assert_eq!(first.status(), Status::Done);
    assert_eq!(first.publish(frame(40, true, 1), later), Status::Done);
    // What the loser does about it changes nothing for the winner.
    first.vanish(Reason::Disconnected);
    assert_eq!(second.publish(frame(0, true, 2), later), Status::Live);
    second.finish(Reason::Deleted);

    let mut ledger = Ledger::new();
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        ledger.record(&event).unwrap();
        told.push(match event {
            Event::Published { epoch, origin, .. } => (epoch, origin.address(), None),
            Event::Unpublished {
                epoch,
                origin,
                reason,
                ..
            } => (epoch, origin.address(), Some(reason)),
        });
    }
    let [a, b] = [1, 2].map(|host| anchor(host, "").address());
    assert_eq!(
        told,
        [
            (1, a, None),
            (1, a, Some(Reason::TakenOver)),
            (2, b, None),
            (2, b, Some(Reason::Deleted)),
        ]
    );
}

#[test]
fn an_end_event_carries_what_callbacks_will_ask_for() {
    let relay = house(OnBusy::default());
    let mut events = relay.events();
    let t0 = Instant::now();
    let publisher = take(&relay, anchor(1, "txSecret=aa&x=1"), t0).unwrap();
    publisher.publish(frame(0, true, 1), t0);
    publisher.finish(Reason::Closed);
    events.try_recv().unwrap();
    let Ok(Event::Unpublished {
        origin,
        bytes,
        stamp,
        ..
    }) = events.try_recv()
    else {
        panic!("an end was to come");
    };
    let Origin::Anchor {
        query,
        key_id,
        address,
        ..
    } = origin
    else {
        panic!("an anchor was to end");
    };
    assert_eq!(
        (query.expose(), key_id.as_deref()),
        ("txSecret=aa&x=1", Some("main"))
    );
    assert_eq!((address.port(), bytes, stamp.sequence), (5_000, 6, 2));
}

#[test]
fn bytes_of_an_unfinished_message_keep_a_name() {
    let relay = house(OnBusy::default());
    let t0 = Instant::now();
    let first = take(&relay, anchor(1, ""), t0).unwrap();
    // A key frame that takes 3 s to arrive.
    let at = |ms| t0 + Duration::from_millis(ms);
    first.progress(at(2_900));
    assert!(take(&relay, anchor(2, ""), at(3_000)).is_err());
    take(&relay, anchor(2, ""), at(3_900)).unwrap();
}

#[test]
fn metadata_alone_does_not_keep_a_name() {
    let relay = house(OnBusy::default());
    let t0 = Instant::now();
    let first = take(&relay, anchor(1, ""), t0).unwrap();
    let later = t0 + Duration::from_millis(1_500);
    let data = Message::new(Kind::Data, MediaTime::ZERO, vec![2, 0, 1, b'x'].into());
    first.publish(data, later);
    take(&relay, anchor(2, ""), later).unwrap();
}

#[test]
fn the_fourth_takeover_in_half_a_minute_leaves_the_name_where_it_is() {
    let relay = house(OnBusy::Takeover);
    let t0 = Instant::now();
    let at = |s| t0 + Duration::from_secs(s);
    let mut holder = take(&relay, anchor(0, ""), t0).unwrap();
    for n in 1..=3 {
        let next = take(&relay, anchor(n, ""), at(u64::from(n))).unwrap();
        assert_eq!(holder.eviction(), Some(Reason::TakenOver));
        holder = next;
    }
    let refused = take(&relay, anchor(9, ""), at(10)).unwrap_err();
    assert_eq!(refused, PublishError::Busy(Refused::Flapping));
    assert_eq!((holder.eviction(), holder.status()), (None, Status::Live));
    // The holder itself may come back, and does so without limit.
    for s in 11..20 {
        holder = take(&relay, anchor(3, ""), at(s)).unwrap();
    }
    assert_eq!(holder.status(), Status::Live);
    // The first of the three was at 1 s.
    assert!(take(&relay, anchor(9, ""), at(30)).is_err());
    take(&relay, anchor(9, ""), at(31)).unwrap();
    assert_eq!(holder.eviction(), Some(Reason::TakenOver));
}

#[test]
fn readers_of_both_feeds_stay_and_see_one_step_in_time_to_a_key_frame() {
    let relay = house(OnBusy::default());
    let t0 = Instant::now();
    let at = |ms| t0 + Duration::from_millis(ms);
    let first = take(&relay, anchor(1, "q"), t0).unwrap();
    let mut readers = [Feed::Source, Feed::Program]
        .map(|feed| relay.subscribe(&key("a"), feed, Class::LowLatency));
    first.publish(frame(70_000, true, 1), at(0));
    first.publish(frame(70_040, false, 1), at(40));
    let second = take(&relay, anchor(1, "q"), at(1_000)).unwrap();
    // A picture that nobody can decode, as of an encoder that goes on where its connection broke.
    second.publish(frame(3, false, 2), at(1_990));
    second.publish(frame(43, true, 2), at(2_040));
    second.publish(frame(83, false, 2), at(2_080));
    drop(first);
    for reader in &mut readers {
        let (got, ended) = pictures(reader);
        // 40 + the 2,000 ms of wall time in between, then the newcomer's own steps.
        assert_eq!(got, [(0, 1), (40, 1), (2_040, 2), (2_080, 2)]);
        assert_eq!(ended, None);
        assert!(reader.can_begin());
    }
}

#[test]
fn what_a_dead_link_delivers_late_counts_from_its_arrival_and_no_time_counts_twice() {
    let relay = house(OnBusy::default());
    let t0 = Instant::now();
    let at = |ms| t0 + Duration::from_millis(ms);
    let mut reader = relay.subscribe(&key("a"), Feed::Source, Class::LowLatency);
    let first = take(&relay, anchor(1, "q"), t0).unwrap();
    first.publish(frame(70_000, true, 1), at(0));
    first.publish(frame(70_040, false, 1), at(40));
    // The link is dead for 7 s; then comes what was on its way, and at once the publisher anew, at its newest key frame.
    first.publish(frame(70_080, false, 1), at(7_000));
    let second = take(&relay, anchor(1, "q"), at(7_010)).unwrap();
    drop(first);
    second.publish(frame(76_000, true, 2), at(7_020));
    second.publish(frame(76_040, false, 2), at(7_020));
    second.publish(frame(77_000, false, 2), at(7_021));
    // Its readers stood at 80 when the link came back, 20 ms ago. By its own clock it would be at 6,000.
    let returned = [(100, 2), (140, 2), (1_100, 2)];
    let (got, _) = pictures(&mut reader);
    assert_eq!(got, [&[(0, 1), (40, 1), (80, 1)], &returned[..]].concat());
    // What it brought in a burst is ahead of wall time, and stays so: 1,100, and the 2 s since that came.
    let third = take(&relay, anchor(1, "q"), at(9_000)).unwrap();
    drop(second);
    third.publish(frame(5, true, 3), at(9_021));
    assert_eq!(pictures(&mut reader).0, [(3_100, 3)]);
}

#[test]
fn a_new_main_during_a_mix_in_place_is_no_event_of_the_program() {
    let relay = house(OnBusy::default());
    let t0 = Instant::now();
    let at = |ms| t0 + Duration::from_millis(ms);
    let first = take(&relay, anchor(1, "q"), t0).unwrap();
    let mut viewer = relay.subscribe(&key("a"), Feed::Program, Class::Viewer);
    let mut peer = relay.subscribe(&key("a"), Feed::Source, Class::LowLatency);
    first.publish(frame(0, true, 1), at(0));
    let mix = relay.overlay(&key("a")).unwrap();
    mix.publish(frame(500_000, true, 9), at(40));
    let second = take(&relay, anchor(1, "q"), at(50)).unwrap();
    second.publish(frame(7, true, 2), at(60));
    mix.publish(frame(500_040, false, 9), at(80));
    drop(first);
    let (program, ended) = pictures(&mut viewer);
    assert_eq!((program, ended), (vec![(0, 1), (40, 9), (80, 9)], None));
    assert_eq!(pictures(&mut peer).0, [(0, 1), (60, 2)]);
    // Joiners of the program still begin in the mix.
    assert!(viewer.can_begin());
}

#[test]
fn a_mix_and_an_anchor_never_take_a_name_from_each_other() {
    let relay = house(OnBusy::Takeover);
    let late = Instant::now() + Duration::from_secs(60);
    let mix = Origin::Mix { id: "show".into() };
    let held = PublishError::Busy(Refused::Held);
    let anchors = take(&relay, anchor(1, ""), Instant::now()).unwrap();
    assert_eq!(take(&relay, mix.clone(), late).unwrap_err(), held);
    drop(anchors);
    let _mixed = take(&relay, mix, Instant::now()).unwrap();
    assert_eq!(take(&relay, anchor(1, ""), late).unwrap_err(), held);
}

#[test]
fn a_long_gop_is_told_of_its_publisher() {
    let relay = Relay::new(Config {
        gop_warning: PerApp::all(Duration::from_secs(2)),
        ..Config::default()
    });
    let t0 = Instant::now();
    let publisher = take(&relay, anchor(1, ""), t0).unwrap();
    let health = || {
        let info = relay.stream_info(&key("a")).unwrap().publisher.unwrap();
        (info.gop_too_long, info.longest_gop.as_millis())
    };
    for (dts, is_key, expected) in [
        (0, true, (false, 0)),
        (2_000, true, (false, 2_000)),
        (4_001, false, (true, 2_001)),
        (4_100, true, (true, 2_100)),
    ] {
        publisher.publish(frame(dts, is_key, 1), t0);
        assert_eq!(health(), expected);
    }
    let publisher = take(&relay, anchor(1, ""), t0).unwrap();
    publisher.publish(frame(0, true, 1), t0);
    assert_eq!(health(), (false, 0), "another publisher, another health");
}

#[test]
fn threads_that_fight_for_names_leave_a_log_without_contradiction() {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    const HOSTS: usize = 4;
    const ROUNDS: usize = 40;
    let relay = house(OnBusy::TakeoverIfIdle(Duration::ZERO));
    let mut events = relay.events();
    let round = std::sync::Barrier::new(HOSTS);
    std::thread::scope(|scope| {
        for host in 0..HOSTS {
            let (relay, round) = (&relay, &round);
            scope.spawn(move || {
                // All from one host, or the flap guard would end the fight at once.
                for n in 0..ROUNDS {
                    let name = NAMES[(n * (host + 1)) % NAMES.len()];
                    let query = format!("n={n}&host={host}");
                    let publisher = relay.publish(&key(name), anchor(1, &query)).unwrap();
                    publisher.publish(frame(0, true, host as u8), Instant::now());
                    // More hosts than names: somebody has lost one by now.
                    round.wait();
                    match n % 3 {
                        0 => publisher.finish(Reason::Deleted),
                        1 => publisher.vanish(Reason::SocketError),
                        _ => drop(publisher),
                    }
                }
            });
        }
    });
    let mut ledger = Ledger::new();
    let mut takeovers = 0;
    while let Ok(event) = events.try_recv() {
        ledger.record(&event).unwrap_or_else(|e| panic!("{e}"));
        if let Event::Unpublished { reason, .. } = event {
            takeovers += usize::from(reason == Reason::TakenOver);
        }
    }
    let begun: usize = NAMES.iter().map(|name| ledger.begun(&key(name))).sum();
    assert_eq!((begun, ledger.live_count()), (HOSTS * ROUNDS, 0));
    assert!(takeovers >= ROUNDS, "{takeovers}");
    assert_eq!(relay.streams().len(), 0);
}
