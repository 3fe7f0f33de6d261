//! Publishers that come back, or come instead of another: who gets the name, what readers see of it, what is told.

mod beside;
mod line;
mod plays;
mod streams;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use linkmic::media::StreamKey;
use linkmic::probe::process::poll;
use linkmic::reason::Reason;
use linkmic::relay::{self, Ledger};
use linkmic::rtmp::session::client::Event;
use linkmic::rtmp::{Message, kind};
use tokio::sync::broadcast::error::TryRecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::SOON;
use super::client::{Client, is_frame, is_key_frame};
use super::clip::{number_of, numbered};
use super::house::House;
use line::Line;

/// Names that are published at the same time, and how often each publisher vanishes and returns.
const NAMES: usize = 20;
const RETURNS: u32 = 10;
/// How long a publisher is away.
const AWAY: Duration = Duration::from_secs(2);
/// Numbers of one connection's frames begin at its own multiple of this.
const PER_EPOCH: u32 = 10_000;
const FRAME_MS: u32 = 40;
const GOP: u32 = 10;

/// Nothing that is judged here depends on readers being quick, and they all come from one address.
const PATIENT: &str = "[classes.low_latency]\nmax_lag = \"30s\"\n[classes.viewer]\nmax_lag = \"30s\"\n\
     [limits]\nwaiting_per_address = 100\nwait = \"1m\"";

/// xorshift: what it gives is given again by the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

const VIDEO_HEADER: &[u8] = &[0x17, 0, 0, 0, 0, 1, 2, 3];
const AUDIO_HEADER: &[u8] = &[0xaf, 0, 0x12, 0x10];

/// Headers at `base`, as an encoder begins.
async fn headers(publisher: &mut Client, base: u32) {
    publisher.send(kind::VIDEO, base, VIDEO_HEADER).await;
    publisher.send(kind::AUDIO, base, AUDIO_HEADER).await;
}

/// Frame `n` of connection `epoch`, and its sound: type, time, body.
fn messages(epoch: u32, n: u32, base: u32) -> [(u8, u32, Vec<u8>); 2] {
    let time = base.wrapping_add(n * FRAME_MS);
    let body = numbered(epoch * PER_EPOCH + n, n.is_multiple_of(GOP), 1_500);
    let sound = vec![0xaf, 1, n as u8, epoch as u8];
    [(kind::VIDEO, time, body), (kind::AUDIO, time + 10, sound)]
}

async fn frame(publisher: &mut Client, epoch: u32, n: u32, base: u32) {
    for (type_id, time, body) in messages(epoch, n, base) {
        publisher.send(type_id, time, body).await;
    }
}

/// Publishes through `line`, vanishes and returns, and in the end says so.
async fn comes_and_goes(url: String, line: Line, mut dice: Dice) {
    for epoch in 0..=RETURNS {
        let mut publisher = Client::publish(&url)
            .await
            .unwrap_or_else(|no| panic!("return {epoch} refused: {no:?}"));
        let base = dice.roll(1 << 32) as u32;
        headers(&mut publisher, base).await;
        let frames = 3 + dice.roll(25) as u32;
        let begin = Instant::now();
        for n in 0..frames {
            sleep_until(begin + Duration::from_millis(u64::from(n * FRAME_MS))).await;
            frame(&mut publisher, epoch, n, base).await;
        }
        if epoch == RETURNS {
            publisher.unpublish().await;
            return;
        }
        // Anywhere in the next frames: between messages, in a header, in a payload.
        line.cut_after(dice.roll(3_200) as usize);
        let gone = Instant::now();
        // The line may reset the connection at any of these.
        let mut last = (frames..frames + 3).flat_map(|n| messages(epoch, n, base));
        while let Some((type_id, time, body)) = last.next()
            && publisher.try_send(type_id, time, body).await
        {}
        drop(publisher);
        sleep_until(gone + AWAY).await;
    }
}

/// All media until the stream ends in order.
async fn to_the_end(mut reader: Client) -> Vec<Message> {
    let mut all = Vec::new();
    loop {
        match reader.event().await {
            Some(Event::Media(message)) => all.push(message),
            Some(Event::Closed { .. }) => return all,
            other => panic!("a reader was closed without a word: {other:?}"),
        }
    }
}

/// What a reader may see of publishers that came and went.
fn judge(media: &[Message]) {
    for type_id in [kind::VIDEO, kind::AUDIO] {
        let times: Vec<_> = media
            .iter()
            .filter(|m| is_frame(m, type_id))
            .map(|m| m.timestamp)
            .collect();
        let rising = times.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(rising, "type {type_id}: time stands or goes back");
    }
    let frames: Vec<_> = media
        .iter()
        .enumerate()
        .filter(|(_, m)| is_frame(m, kind::VIDEO))
        .map(|(at, m)| (at, number_of(&m.payload).expect("numbered"), m))
        .collect();
    assert_eq!(frames[0].1 / PER_EPOCH, 0, "the first connection is seen");
    let mut steps = 0;
    for pair in frames.windows(2) {
        let [(before, last, earlier), (at, number, later)] = pair else {
            unreachable!("windows of two");
        };
        let step = later.timestamp - earlier.timestamp;
        if number / PER_EPOCH == last / PER_EPOCH {
            assert_eq!(*number, last + 1, "a frame is missing");
            assert_eq!(step, FRAME_MS, "frame {number}");
            continue;
        }
        steps += 1;
        assert_eq!(*number, (last / PER_EPOCH + 1) * PER_EPOCH);
        assert!(is_key_frame(later), "frame {number}");
        let configured = media[*before..*at]
            .iter()
            .any(|m| m.type_id == kind::VIDEO && m.payload == VIDEO_HEADER);
        assert!(configured, "no configuration before frame {number}");
        // It was away for 2 s, on a machine that may be busy.
        assert!((1_800..20_000).contains(&step), "step of {step} ms");
    }
    assert_eq!(steps, RETURNS);
}

fn seed() -> u64 {
    let given = std::env::var("LINKMIC_TEST_SEED").ok();
    let seed = given.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.expect("after 1970").as_micros() as u64
    });
    println!("LINKMIC_TEST_SEED={seed}");
    seed
}

/// Every event so far, replayed; the reasons of all ends by name.
fn replay(
    events: &mut tokio::sync::broadcast::Receiver<relay::Event>,
) -> (Ledger, HashMap<StreamKey, Vec<Reason>>) {
    let mut ledger = Ledger::new();
    let mut ends: HashMap<_, Vec<_>> = HashMap::new();
    loop {
        match events.try_recv() {
            Ok(event) => {
                ledger.record(&event).unwrap_or_else(|e| panic!("{e}"));
                if let relay::Event::Unpublished { key, reason, .. } = event {
                    ends.entry(key).or_default().push(reason);
                }
            }
            Err(TryRecvError::Lagged(_)) => panic!("the log is longer than the channel"),
            Err(_) => return (ledger, ends),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_vanished_200_times_is_back_after_two_seconds_and_no_reader_is_closed() {
    let seed = seed();
    let house = House::open_with("", PATIENT).await;
    let mut events = house.events();
    let server = house.urls.rtmp();
    let (mut publishers, mut readers) = (JoinSet::new(), JoinSet::new());
    for n in 0..NAMES {
        let name = format!("s{n}");
        let line = Line::to(server).await;
        let url = line.url(&house.urls.push(&name), server);
        for reader in [house.urls.peer(&name), house.urls.plain(&name)] {
            // They come first and wait, so that they see the first connection from its beginning.
            readers.spawn(async move {
                let reader = Client::play(&reader).await.expect("granted");
                to_the_end(reader).await
            });
        }
        let dice = Dice(seed.wrapping_mul(n as u64 * 2 + 1) | 1);
        publishers.spawn(comes_and_goes(url, line, dice));
    }
    while let Some(done) = publishers.join_next().await {
        done.expect("every return is accepted");
    }
    while let Some(media) = readers.join_next().await {
        judge(&media.expect("no reader is closed"));
    }
    let (ledger, ends) = replay(&mut events);
    assert_eq!(ledger.live_count(), 0);
    for n in 0..NAMES {
        let key = StreamKey::new("live", &format!("s{n}")).expect("a name");
        assert_eq!(ledger.begun(&key), RETURNS as usize + 1, "{key}");
        let mut expected = vec![Reason::TakenOver; RETURNS as usize];
        expected.push(Reason::Deleted);
        assert_eq!(ends[&key], expected, "{key}");
    }
}

/// Publishes in real time until it is told why not; returns the server's words.
async fn publish_until_told(mut publisher: Client, quiet_after: Option<u32>) -> String {
    headers(&mut publisher, 0).await;
    let begin = Instant::now();
    for n in 0.. {
        if quiet_after.is_some_and(|last| n >= last) {
            break;
        }
        let due = sleep_until(begin + Duration::from_millis(u64::from(n * FRAME_MS)));
        tokio::select! {
            event = publisher.event() => return last_words(event, &mut publisher).await,
            () = due => frame(&mut publisher, 0, n, 0).await,
        }
    }
    let event = publisher.event().await;
    last_words(event, &mut publisher).await
}

async fn last_words(event: Option<Event>, publisher: &mut Client) -> String {
    let Some(Event::Closed { description, .. }) = event else {
        panic!("the loser was to be told, not {event:?}");
    };
    assert_eq!(publisher.event().await, None, "and then closed");
    description
}

fn host(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, n)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_publisher_keeps_its_name_and_a_quiet_one_loses_it_to_another_host() {
    // Long enough that a busy machine does not make a busy publisher quiet.
    let house = House::open_with("", "[apps.live]\ntakeover_if_idle = \"6s\"").await;
    let url = house.urls.push("a");
    let first = Client::publish_from(host(1), &url).await.expect("granted");
    let first = tokio::spawn(publish_until_told(first, Some(50)));
    let no = Client::publish_from(host(2), &url).await.err();
    let no = no.expect("it is busy");
    assert_eq!(no.code, "NetStream.Publish.BadName");
    assert!(no.description.contains("sent media"), "{no:?}");
    let begin = Instant::now();
    let _second = poll("the name to be free", SOON, || async {
        Client::publish_from(host(2), &url).await.ok()
    })
    .await
    .expect("granted once the first is quiet");
    assert!(
        begin.elapsed() > Duration::from_secs(2),
        "it was not quiet yet"
    );
    let told = first.await.expect("it was told");
    assert!(
        told.contains("taken") && told.contains("(21/102)"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applications_may_always_give_a_name_to_the_newcomer_or_never() {
    for (policy, given) in [("takeover", true), ("reject", false)] {
        let house = House::open_with("", &format!("[apps.live]\non_busy = \"{policy}\"")).await;
        let url = house.urls.push("a");
        let first = Client::publish_from(host(1), &url).await.expect("granted");
        let first = tokio::spawn(publish_until_told(first, None));
        let second = Client::publish_from(host(2), &url).await;
        assert_eq!(second.is_ok(), given, "{policy}");
        if given {
            first.await.expect("it was told");
        } else {
            // Not even to the same host with the same query.
            let no = Client::publish_from(host(1), &url).await.err();
            let no = no.expect("refused");
            assert!(no.description.contains("keeps"), "{no:?}");
            assert!(!first.is_finished(), "the first goes on");
            first.abort();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_fight_for_a_name_are_stopped_and_told_why() {
    let house = House::open_with("", "[apps.live]\non_busy = \"takeover\"").await;
    let mut events = house.events();
    let url = house.urls.push("a");
    let mut publishers = Vec::new();
    for n in 1..=4 {
        let granted = Client::publish_from(host(n), &url).await;
        publishers.push(granted.expect("three takeovers are none too many"));
    }
    let no = Client::publish_from(host(5), &url).await.err();
    let no = no.expect("the fourth is");
    assert!(no.description.contains("different addresses"), "{no:?}");
    // The one who has the name is not disturbed by itself.
    let _again = Client::publish_from(host(4), &url).await.expect("granted");
    let (ledger, ends) = replay(&mut events);
    let key = StreamKey::new("live", "a").expect("a name");
    assert_eq!((ledger.begun(&key), ledger.live_count()), (5, 1));
    assert_eq!(ends[&key], [Reason::TakenOver; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_half_open_publisher_that_never_returns_are_told_after_idle_and_grace() {
    let more = "[apps.live]\npublish_idle = \"1s\"\nrepublish_grace = \"1s\"";
    let house = House::open_with("", more).await;
    let mut events = house.events();
    let server = house.urls.rtmp();
    let line = Line::to(server).await;
    let url = line.url(&house.urls.push("a"), server);
    let mut publisher = Client::publish(&url).await.expect("granted");
    headers(&mut publisher, 0).await;
    frame(&mut publisher, 0, 0, 0).await;
    let mut viewer = Client::play(&house.urls.plain("a")).await.expect("granted");
    viewer.media_until(is_key_frame).await;
    line.cut_after(0);
    let begin = Instant::now();
    let end = loop {
        match viewer.event().await {
            Some(Event::Media(_)) => {}
            other => break other,
        }
    };
    assert!(matches!(end, Some(Event::Closed { .. })), "{end:?}");
    assert!(
        begin.elapsed() > Duration::from_millis(1_500),
        "idle, then grace"
    );
    let key = StreamKey::new("live", "a").expect("a name");
    assert_eq!(replay(&mut events).1[&key], [Reason::Idle]);
    drop(publisher);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_that_takes_long_to_arrive_keeps_its_name() {
    let house = House::open_with("", "[apps.live]\ntakeover_if_idle = \"2s\"").await;
    let url = house.urls.push("a");
    let mut slow = Client::publish_from(host(1), &url).await.expect("granted");
    headers(&mut slow, 0).await;
    let bytes = slow.framed(kind::VIDEO, 0, numbered(0, true, 60_000).into());
    // 4 s for one key frame, of which no message is whole before the end.
    for part in bytes.chunks(bytes.len() / 20) {
        slow.send_raw(part).await;
        sleep(Duration::from_millis(200)).await;
    }
    let mut viewer = Client::play(&house.urls.plain("a")).await.expect("granted");
    viewer.media_until(is_key_frame).await;
    // Now cut in the middle of the next, and watched by one who would take over as soon as it is quiet.
    let begin = Instant::now();
    for part in bytes.chunks(bytes.len() / 20).take(15) {
        slow.send_raw(part).await;
        let no = Client::publish_from(host(2), &url).await;
        assert!(no.is_err(), "taken over after {:?} of it", begin.elapsed());
        sleep(Duration::from_millis(200)).await;
    }
    assert!(
        begin.elapsed() > Duration::from_secs(2),
        "longer than the limit"
    );
}
