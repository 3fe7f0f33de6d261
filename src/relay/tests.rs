//! The hall's promises: epochs, joins across them, and splices of the program feed.

mod rest;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::media::{Class, Feed, Kind, MediaTime, Message, StreamKey};
use crate::reason::Reason;
use crate::rtmp::amf;

fn key() -> StreamKey {
    StreamKey::new("live", "8888_streamA").unwrap()
}

fn anchor() -> Origin {
    Origin::Anchor {
        connection: crate::logging::ConnectionId::next(),
        address: ([127, 0, 0, 1], 5_000).into(),
        key_id: None,
        query: Query::default(),
    }
}

/// A video message whose last payload byte tells who sent it.
fn video(dts: i64, is_key: bool, tag: u8) -> Message {
    let first = if is_key { 0x17 } else { 0x27 };
    Message::new(
        Kind::Video,
        MediaTime(dts),
        vec![first, 1, 0, 0, 0, tag].into(),
    )
}

fn sound(dts: i64, tag: u8) -> Message {
    Message::new(Kind::Audio, MediaTime(dts), vec![0xaf, 1, tag].into())
}

fn header(kind: Kind, tag: u8) -> Message {
    let payload: Bytes = match kind {
        Kind::Video => vec![0x17, 0, 0, 0, 0, tag].into(),
        _ => vec![0xaf, 0, tag].into(),
    };
    Message::new(kind, MediaTime(0), payload)
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Got {
    kind: Kind,
    dts: i64,
    pts: i64,
    header: bool,
    tag: u8,
}

fn drain(subscriber: &mut Subscriber) -> (Vec<Got>, Option<Reason>) {
    let mut items = Vec::new();
    let mut ended = None;
    loop {
        let before = items.len();
        let reception = subscriber.try_read(64, &mut items);
        ended = reception.ended.or(ended);
        if items.len() == before && reception.ended.is_none() {
            break;
        }
    }
    let got = items
        .iter()
        .map(|i: &Arc<Item>| Got {
            kind: i.message().kind,
            dts: i.message().dts.0,
            pts: i.message().pts().0,
            header: i.message().is_header(),
            tag: *i.message().payload.last().unwrap(),
        })
        .collect();
    (got, ended)
}

#[test]
fn the_last_handle_takes_the_stream_with_it() {
    let relay = Relay::new(Config::default());
    let publisher = relay.publish(&key(), anchor()).unwrap();
    let reader = relay.subscribe(&key(), Feed::Program, Class::Viewer);
    publisher.finish(Reason::Deleted);
    assert_eq!(relay.streams().len(), 1);
    drop(reader);
    assert_eq!(relay.streams().len(), 0);
}

#[test]
fn a_clean_end_reaches_readers_of_both_feeds_after_the_last_message() {
    let relay = Relay::new(Config::default());
    let publisher = relay.publish(&key(), anchor()).unwrap();
    let mut readers =
        [Feed::Source, Feed::Program].map(|f| relay.subscribe(&key(), f, Class::Viewer));
    publisher.publish(video(500, true, 1), Instant::now());
    publisher.finish(Reason::Deleted);
    for reader in &mut readers {
        let (got, ended) = drain(reader);
        assert_eq!((got.len(), got[0].dts), (1, 0));
        assert_eq!(ended, Some(Reason::Deleted));
        assert_eq!(drain(reader), (vec![], None), "an end is told once");
    }
}

#[tokio::test(start_paused = true)]
async fn readers_of_a_vanished_publisher_wait_out_the_grace() {
    let relay = Relay::new(Config::default());
    let publisher = relay.publish(&key(), anchor()).unwrap();
    let mut reader = relay.subscribe(&key(), Feed::Program, Class::Viewer);
    drop(publisher);
    assert_eq!(drain(&mut reader).1, None);
    let began = tokio::time::Instant::now();
    reader.ready().await;
    assert_eq!(drain(&mut reader).1, Some(Reason::Disconnected));
    assert_eq!(began.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn readers_stay_through_a_publisher_that_returns_and_time_runs_on() {
    let relay = Relay::new(Config::default());
    let t0 = Instant::now();
    let publisher = relay.publish(&key(), anchor()).unwrap();
    let mut reader = relay.subscribe(&key(), Feed::Source, Class::LowLatency);
    publisher.publish(video(70_000, true, 1), t0);
    drop(publisher);
    tokio::time::advance(Duration::from_secs(2)).await;
    let publisher = relay.publish(&key(), anchor()).unwrap();
    publisher.publish(video(3, true, 2), t0 + Duration::from_secs(2));
    tokio::time::advance(Duration::from_secs(60)).await;
    let (got, ended) = drain(&mut reader);
    assert_eq!(ended, None);
    assert_eq!(got.iter().map(|g| g.dts).collect::<Vec<_>>(), [0, 2_000]);
    drop(publisher);
}

#[test]
fn the_end_of_an_epoch_is_told_before_the_next_begins() {
    let relay = Relay::new(Config::default());
    let mut events = relay.events();
    for _ in 0..3 {
        relay
            .publish(&key(), anchor())
            .unwrap()
            .finish(Reason::Closed);
    }
    for _ in 0..3 {
        assert!(matches!(events.try_recv(), Ok(Event::Published { .. })));
        assert!(matches!(events.try_recv(), Ok(Event::Unpublished { .. })));
    }
}

/// A source at 25 frames a second with a key frame each second, beside a mix at the same rate, on one clock.
struct Scene {
    relay: Relay,
    source: Option<Publisher>,
    mix: Option<Publisher>,
    viewer: Subscriber,
    peer: Subscriber,
    t0: Instant,
    /// Frames so far.
    n: i64,
    /// How much later than its pictures the mix's sound leaves, in frames.
    sound_late: i64,
    /// How many of its frame intervals a picture of the mix stands for the past when it leaves.
    picture_late: i64,
    /// Frames by which the source presents later than it decodes.
    reordered: i64,
    /// The source sends no sound.
    silent: bool,
}

const FRAME: i64 = 40;
/// The mix's pictures and sound leave that much after the moment they stand for.
const MIX_LATENCY: i64 = 20;
const SOURCE: u8 = 1;
const MIX: u8 = 2;

impl Scene {
    fn new() -> Self {
        let relay = Relay::new(Config::default());
        let source = relay.publish(&key(), anchor()).unwrap();
        let viewer = relay.subscribe(&key(), Feed::Program, Class::Viewer);
        let peer = relay.subscribe(&key(), Feed::Source, Class::LowLatency);
        let t0 = Instant::now();
        for kind in [Kind::Video, Kind::Audio] {
            source.publish(header(kind, SOURCE), t0);
        }
        Self {
            relay,
            source: Some(source),
            mix: None,
            viewer,
            peer,
            t0,
            n: 0,
            sound_late: 0,
            picture_late: 0,
            reordered: 0,
            silent: false,
        }
    }

    fn start_mix(&mut self) {
        let mix = self.relay.overlay(&key()).unwrap();
        for kind in [Kind::Video, Kind::Audio] {
            mix.publish(header(kind, MIX), self.t0);
        }
        self.mix = Some(mix);
    }

    /// One frame interval: the source's frame, its sound, then the mix's frame and sound a little later.
    /// Returns what the mix heard last.
    fn step(&mut self, mix_key: bool) -> Option<Status> {
        let ms = self.n * FRAME;
        let now = self.t0 + Duration::from_millis(ms as u64);
        if let Some(source) = &self.source {
            let picture = video(9_000 + ms, self.n % 25 == 0, SOURCE);
            let pts = picture.dts + self.reordered * FRAME;
            source.publish(picture.timed(picture.dts, pts), now);
            if !self.silent {
                source.publish(sound(9_000 + ms, SOURCE), now);
            }
        }
        self.n += 1;
        let later = now + Duration::from_millis(MIX_LATENCY as u64);
        let mix = self.mix.as_ref()?;
        // Its clock has a zero of its own.
        let moment = 70_000 + ms - self.picture_late * FRAME;
        mix.publish(video(moment, mix_key, MIX), later);
        Some(mix.publish(sound(moment - self.sound_late * FRAME, MIX), later))
    }
}

/// What semantics.md asks of each splice, over everything a viewer got.
fn assert_clean_splices(got: &[Got], splices: usize, reordered: i64) {
    let mut seen = 0;
    for kind in [Kind::Video, Kind::Audio] {
        let track: Vec<_> = got.iter().filter(|g| g.kind == kind && !g.header).collect();
        for pair in track.windows(2) {
            let gap = pair[1].dts - pair[0].dts;
            assert!(gap > 0 && gap <= 2 * FRAME, "{kind:?} {pair:?}");
            if pair[0].tag == pair[1].tag && (reordered == 0 || kind == Kind::Audio) {
                assert_eq!(gap, FRAME, "{kind:?} {pair:?}");
            } else if kind == Kind::Video {
                seen += usize::from(pair[0].tag != pair[1].tag);
                assert!(gap <= FRAME, "{pair:?}");
            }
        }
    }
    assert_eq!(seen, splices);
    // One header set of the new feeder goes out right before its first picture.
    let mut feeder = None;
    for (at, g) in got.iter().enumerate() {
        if g.header || g.kind != Kind::Video {
            continue;
        }
        if feeder.is_some_and(|f| f != g.tag) {
            let headers: Vec<_> = got[at - 2..at].iter().map(|g| (g.header, g.tag)).collect();
            assert_eq!(headers, [(true, g.tag); 2], "{:?}", &got[at - 3..=at]);
        }
        feeder = Some(g.tag);
    }
}

#[test]
fn a_mix_takes_over_at_its_key_frame_and_gives_back_at_the_sources() {
    let mut scene = Scene::new();
    for _ in 0..30 {
        scene.step(false);
    }
    scene.start_mix();
    for _ in 0..5 {
        assert_eq!(scene.step(false), Some(Status::Preparing));
    }
    assert_eq!(scene.step(true), Some(Status::Live));
    for _ in 0..30 {
        assert_eq!(scene.step(false), Some(Status::Live));
    }
    // Frame 66 is next; the source's next key frame is frame 75.
    let mix = scene.mix.as_ref().unwrap();
    assert_eq!(mix.request_end(Instant::now()), Status::Ending);
    for _ in 66..75 {
        assert_eq!(scene.step(false), Some(Status::Ending));
    }
    assert_eq!(scene.step(false), Some(Status::Done));
    scene.mix = None;
    for _ in 0..10 {
        scene.step(false);
    }
    let (got, ended) = drain(&mut scene.viewer);
    assert_eq!(ended, None);
    assert_clean_splices(&got, 2, 0);
    let (peer, _) = drain(&mut scene.peer);
    assert!(
        peer.iter().all(|g| g.tag == SOURCE),
        "peers never get the mix"
    );
    let pictures = peer.iter().filter(|g| g.kind == Kind::Video && !g.header);
    assert_eq!(pictures.count() as i64, scene.n);
}

#[test]
fn ten_switches_leave_no_hole_and_no_delay_behind() {
    for (sound_late, picture_late, reordered) in [(0, 0, 0), (3, 0, 0), (3, 3, 0), (2, 1, 2)] {
        let name = format!("sound {sound_late}, pictures {picture_late}, reordered {reordered}");
        let mut scene = Scene::new();
        scene.sound_late = sound_late;
        scene.picture_late = picture_late;
        scene.reordered = reordered;
        let mut got = Vec::new();
        for _ in 0..10 {
            while scene.n % 25 != 10 {
                scene.step(false);
            }
            scene.start_mix();
            scene.step(true);
            for _ in 0..7 {
                scene.step(false);
            }
            scene.mix.as_ref().unwrap().request_end(Instant::now());
            while scene.step(false) != Some(Status::Done) {}
            scene.mix = None;
            got.extend(drain(&mut scene.viewer).0);
        }
        while scene.n % 25 != 10 {
            scene.step(false);
        }
        got.extend(drain(&mut scene.viewer).0);
        assert_clean_splices(&got, 20, reordered);
        // Frame n of the source was at 40 n before the first switch; after the last it may be off by the 1 ms
        // that keeps a cut behind what was sent.
        let last = got.iter().rfind(|g| g.kind == Kind::Video).unwrap();
        let expected = (scene.n - 1) * FRAME;
        assert!(
            (last.dts - expected).abs() <= 1,
            "{name}: {} {expected}",
            last.dts
        );
        let shown: Vec<_> = got
            .iter()
            .filter(|g| g.kind == Kind::Video && !g.header)
            .collect();
        assert!(shown.windows(2).all(|p| p[1].pts > p[0].pts), "{name}");
    }
}

/// onMetaData as publishers send it, of a picture that wide, marked by `tag`.
fn metadata(width: f64, tag: u8) -> Message {
    let mut writer = amf::Writer::new();
    writer.string("onMetaData").object();
    writer.key("width").number(width);
    writer.key("height").number(360.0);
    writer.end();
    let mut payload = writer.finish().to_vec();
    // A trailing string that only tells whose it is.
    payload.extend_from_slice(&[2, 0, 1, tag]);
    Message::new(Kind::Data, MediaTime(0), payload.into())
}

#[test]
fn metadata_goes_out_again_only_when_the_picture_size_differs() {
    for (mix_width, sent) in [(640.0, vec![SOURCE]), (720.0, vec![SOURCE, MIX])] {
        let mut scene = Scene::new();
        let source = scene.source.as_ref().unwrap();
        source.publish(metadata(640.0, SOURCE), scene.t0);
        scene.step(false);
        scene.start_mix();
        let mix = scene.mix.as_ref().unwrap();
        mix.publish(metadata(mix_width, MIX), scene.t0);
        scene.step(true);
        let (got, _) = drain(&mut scene.viewer);
        let metadata: Vec<_> = got.iter().filter(|g| g.kind == Kind::Data).collect();
        assert_eq!(metadata.iter().map(|g| g.tag).collect::<Vec<_>>(), sent);
        // A joiner gets one, whichever it is.
        let joiner = scene.relay.subscribe(&key(), Feed::Program, Class::Viewer);
        let headers = joiner.headers();
        let known = headers.find(Kind::Data, crate::media::Slot::Metadata);
        assert_eq!(known.unwrap().payload.last(), sent.last());
    }
}

#[test]
fn a_mix_that_never_went_on_air_leaves_no_trace() {
    let mut scene = Scene::new();
    scene.start_mix();
    for _ in 0..5 {
        scene.step(false);
    }
    assert_eq!(
        scene.mix.take().unwrap().request_end(Instant::now()),
        Status::Done
    );
    scene.step(false);
    let (got, _) = drain(&mut scene.viewer);
    assert!(got.iter().all(|g| g.tag == SOURCE));
    assert_eq!(got.len(), 2 + 2 * 6);
}

#[test]
fn the_mix_plays_on_when_its_main_goes_and_ends_the_feed_when_asked_to_end() {
    let mut scene = Scene::new();
    scene.step(false);
    scene.start_mix();
    scene.step(true);
    scene.source.take().unwrap().finish(Reason::Deleted);
    for _ in 0..10 {
        assert_eq!(scene.step(false), Some(Status::Live));
    }
    assert_eq!(drain(&mut scene.viewer).1, None);
    assert_eq!(drain(&mut scene.peer).1, Some(Reason::Deleted));
    assert_eq!(
        scene.mix.take().unwrap().request_end(Instant::now()),
        Status::Done
    );
    assert_eq!(drain(&mut scene.viewer).1, Some(Reason::StreamEnded));
}

#[test]
fn a_mix_that_dies_hands_the_feed_back_at_the_sources_next_key_frame() {
    let mut scene = Scene::new();
    scene.step(false);
    scene.start_mix();
    scene.step(true);
    scene.mix = None;
    for _ in 0..30 {
        scene.step(false);
    }
    let (got, _) = drain(&mut scene.viewer);
    let back: Vec<_> = got.iter().filter(|g| g.kind == Kind::Video).collect();
    // Frames 0 and 1 of the source, 1 of the mix, then from the source's key frame 25 to 31.
    assert_eq!(back.iter().filter(|g| g.tag == MIX && !g.header).count(), 1);
    let source = back.iter().filter(|g| g.tag == SOURCE && !g.header);
    assert_eq!(source.count(), 2 + 7);
}

#[test]
fn a_source_without_key_frames_keeps_the_mix_on_air_and_is_reported() {
    let mut scene = Scene::new();
    scene.step(false);
    scene.start_mix();
    scene.step(true);
    let mix = scene.mix.take().unwrap();
    mix.request_end(scene.t0);
    let source = scene.source.as_ref().unwrap();
    for (seconds, overdue) in [(9, false), (11, true)] {
        let at = scene.t0 + Duration::from_secs(seconds);
        source.publish(video(9_000 + seconds as i64 * 1_000, false, SOURCE), at);
        let status = mix.publish(video(70_000 + seconds as i64 * 1_000, false, MIX), at);
        assert_eq!((status, mix.is_overdue()), (Status::Ending, overdue));
    }
}

#[test]
fn a_mix_whose_sound_stopped_still_gives_back() {
    let mut scene = Scene::new();
    scene.step(false);
    scene.start_mix();
    scene.step(true);
    let mix = scene.mix.take().unwrap();
    mix.request_end(Instant::now());
    let mut last = Status::Ending;
    for _ in 0..60 {
        let ms = scene.n * FRAME;
        scene.step(false);
        let later = scene.t0 + Duration::from_millis((ms + MIX_LATENCY) as u64);
        last = mix.publish(video(ms, false, MIX), later);
        if last == Status::Done {
            break;
        }
    }
    assert_eq!(last, Status::Done);
    // Key frame 25 + 400 ms of patience = 10 frames.
    assert!(scene.n > 35 && scene.n <= 37, "{}", scene.n);
}

#[test]
fn time_runs_on_when_the_main_returns_after_its_mix_ended_without_it() {
    for clean_end_while_ending in [false, true] {
        let mut scene = Scene::new();
        // The mix has a clock with another zero.
        let at = |ms: u64| scene.t0 + Duration::from_millis(ms);
        let source = scene.source.take().unwrap();
        source.publish(video(0, true, SOURCE), at(0));
        let mix = scene.relay.overlay(&key()).unwrap();
        for n in 1..=50 {
            mix.publish(video(30_000 + n * FRAME, n == 1, MIX), at(n as u64 * 40));
        }
        if clean_end_while_ending {
            mix.request_end(at(2_000));
            source.finish(Reason::Deleted);
        } else {
            source.finish(Reason::Deleted);
            mix.request_end(at(2_000));
        }
        drop(mix);
        assert!(drain(&mut scene.viewer).1.is_some());
        // The newcomer's clock has a zero of its own.
        let source = scene.relay.publish(&key(), anchor()).unwrap();
        for n in 0..3 {
            source.publish(video(n * FRAME, n == 0, SOURCE), at(5_000 + n as u64 * 40));
        }
        let (got, ended) = drain(&mut scene.viewer);
        let times: Vec<_> = got.iter().map(|g| g.dts).collect();
        assert_eq!(times, [5_000, 5_040, 5_080], "{clean_end_while_ending}");
        assert_eq!(ended, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_waited_through_the_end_of_an_epoch_is_not_told_of_it() {
    let relay = Relay::new(Config::default());
    // Somebody else, a CDN target say, keeps the stream's record.
    let _other = relay.subscribe(&key(), Feed::Program, Class::Viewer);
    drop(relay.publish(&key(), anchor()).unwrap());
    let mut reader = relay.subscribe(&key(), Feed::Program, Class::Viewer);
    assert!(!reader.is_fed());
    // The grace of the epoch that was over before the reader came runs out while it waits.
    reader.ready().await;
    let publisher = relay.publish(&key(), anchor()).unwrap();
    publisher.publish(video(0, true, 1), Instant::now());
    reader.fed().await;
    reader.join(Join::Burst);
    let (got, ended) = drain(&mut reader);
    assert_eq!((got.len(), ended), (1, None));
    publisher.finish(Reason::Deleted);
    assert_eq!(drain(&mut reader).1, Some(Reason::Deleted));
}

#[test]
fn a_mix_that_waits_for_its_main_feeds_nobody() {
    let mut scene = Scene::new();
    scene.source.take().unwrap().finish(Reason::Deleted);
    scene.start_mix();
    assert!(!scene.viewer.is_fed());
    scene.step(true);
    assert!(scene.viewer.is_fed());
    assert!(!scene.peer.is_fed());
}

#[test]
fn after_a_mix_another_track_of_the_source_comes_back_at_its_own_key_frame() {
    let (relay, now) = (Relay::new(Config::default()), Instant::now());
    let mut viewer = relay.subscribe(&key(), Feed::Program, Class::Viewer);
    let source = relay.publish(&key(), anchor()).unwrap();
    let one = |dts, is_key: bool, tag| {
        let first = if is_key { 0x96 } else { 0xa6 };
        let payload = vec![first, 1, b'a', b'v', b'0', b'1', 1, tag];
        Message::new(Kind::Video, MediaTime(dts), payload.into())
    };
    let send = |messages: Vec<Message>| {
        messages.into_iter().for_each(|message| {
            source.publish(message, now);
        });
    };
    send(vec![video(0, true, 1), one(0, true, 2), one(40, false, 3)]);
    let mix = relay.overlay(&key()).unwrap();
    mix.publish(video(7_000, true, 10), now);
    send(vec![one(80, false, 4)]);
    mix.request_end(now);
    send(vec![video(120, true, 5), one(120, false, 6)]);
    drop(mix);
    send(vec![
        one(160, false, 7),
        one(200, true, 8),
        one(240, false, 9),
    ]);
    let tags: Vec<_> = drain(&mut viewer).0.iter().map(|g| g.tag).collect();
    assert_eq!(tags, [1, 2, 3, 10, 5, 8, 9]);
}

#[test]
fn the_pace_of_a_source_is_known_also_right_after_a_key_frame() {
    let (relay, now) = (Relay::new(Config::default()), Instant::now());
    assert_eq!(relay.cadence(&key()).fps(), None, "nobody is there");
    let source = relay.publish(&key(), anchor()).unwrap();
    source.publish(header(Kind::Video, 1), now);
    for n in 0..31 {
        source.publish(video(n * 50, n % 10 == 0, 1), now);
        source.publish(sound(n * 50, 1), now);
    }
    assert_eq!(relay.cadence(&key()).fps(), Some(20));
}
