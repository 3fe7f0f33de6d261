//! Every way to be refused, as each client hears it.

use std::path::Path;
use std::time::Duration;

use linkmic::auth::Purpose;
use linkmic::probe::process::{Process, poll};
use linkmic::rtmp::kind;

use super::SOON;
use super::client::{Client, No};
use super::clip::clip;
use super::house::{Hour, House, PLAY_KEY};
use super::programs::{Player, Publisher};

/// A signature that no key made.
const WRONG: &str = "txSecret=00000000000000000000000000000000&txTime=7FFFFFFF";
const FITS_NONE: &str = concat!(
    "txSecret fits none of the keys for this stream name and this exact text of txTime",
    " [signature_wrong] (18/503)"
);

const BAD_NAME: &str = "NetStream.Publish.BadName";
const DENIED: &str = "NetStream.Publish.Denied";
const NOT_FOUND: &str = "NetStream.Play.StreamNotFound";
const FAILED: &str = "NetStream.Play.Failed";
const REJECTED: &str = "NetConnection.Connect.Rejected";

/// One way to be refused, and what is to be heard.
struct Case {
    name: &'static str,
    url: String,
    code: &'static str,
    /// The text, or its beginning and end around what varies.
    says: [&'static str; 2],
}

impl Case {
    fn new(name: &'static str, url: String, code: &'static str, says: &'static str) -> Self {
        Self {
            name,
            url,
            code,
            says: [says, ""],
        }
    }

    fn assert_heard(&self, no: &No) {
        let Self { name, says, .. } = self;
        assert_eq!(no.code, self.code, "{name}: {}", no.description);
        match says {
            [all, ""] => assert_eq!(no.description, *all, "{name}"),
            [begin, end] => {
                let middle = no.description.strip_prefix(begin);
                let middle = middle.and_then(|rest| rest.strip_suffix(end));
                let number = middle.and_then(|text| text.parse::<u32>().ok());
                assert!(number.is_some(), "{name}: {}", no.description);
            }
        }
    }
}

/// Viewers must sign, absent streams are waited for only briefly.
async fn house() -> House {
    let viewers = format!(
        "play_keys = [{{ id = \"viewers\", secret = \"{PLAY_KEY}\", valid_for = \"1h\" }}]"
    );
    House::open_with(
        &viewers,
        "[limits]\nwait = \"1s\"\n[apps.live]\non_busy = \"reject\"",
    )
    .await
}

fn elsewhere(house: &House) -> String {
    format!("rtmp://{}/elsewhere/a", house.urls.rtmp())
}

fn publish_cases(house: &House) -> Vec<Case> {
    let urls = &house.urls;
    let expired = urls.query(Purpose::Push, "a", Hour::Last);
    vec![
        Case::new("bad signature", urls.with("a", WRONG), DENIED, FITS_NONE),
        Case {
            name: "expired",
            url: urls.with("a", &expired),
            code: DENIED,
            says: ["txTime expired ", " s ago [signature_expired] (18/501)"],
        },
        Case::new(
            "no signature",
            urls.plain("a"),
            DENIED,
            "publishing needs a signed URL; it has neither txSecret nor txTime [signature_missing] (18/502)",
        ),
        Case::new(
            "name busy",
            urls.push("busy"),
            BAD_NAME,
            "another publisher holds this name, and this application keeps the one it has [name_busy] (18/600)",
        ),
        Case::new(
            "bad name",
            urls.with("a~b", WRONG),
            BAD_NAME,
            "stream name has the character '~' at byte 1; allowed are A-Z a-z 0-9 _ . - [bad_name] (18/308)",
        ),
        Case::new(
            "unknown app",
            elsewhere(house),
            REJECTED,
            "this application is not configured here [unknown_app] (18/303)",
        ),
    ]
}

fn play_cases(house: &House) -> Vec<Case> {
    let urls = &house.urls;
    let expired = urls.query(Purpose::View, "a", Hour::Last);
    let absent = urls.query(Purpose::View, "absent", Hour::Next);
    vec![
        Case::new("bad signature", urls.with("a", WRONG), FAILED, FITS_NONE),
        Case {
            name: "expired",
            url: urls.with("a", &expired),
            code: FAILED,
            says: [
                "txTime plus the key's 1h expired ",
                " s ago [signature_expired] (18/501)",
            ],
        },
        Case::new(
            "no signature",
            urls.plain("a"),
            FAILED,
            "playing needs a signed URL; it has neither txSecret nor txTime [signature_missing] (18/502)",
        ),
        Case::new(
            "not found",
            urls.with("absent", &absent),
            NOT_FOUND,
            "nobody publishes this stream; waited 1 s [not_found] (18/301)",
        ),
        Case::new(
            "bad name",
            urls.with("a~b", WRONG),
            NOT_FOUND,
            "stream name has the character '~' at byte 1; allowed are A-Z a-z 0-9 _ . - [bad_name] (18/308)",
        ),
        Case::new(
            "unknown app",
            elsewhere(house),
            REJECTED,
            "this application is not configured here [unknown_app] (18/303)",
        ),
    ]
}

/// A publisher that holds the name `busy`, with a stream that a player could play.
async fn incumbent(house: &House) -> Client {
    let mut publisher = Client::publish(&house.urls.push("busy"))
        .await
        .expect("granted");
    for tag in clip().await.tags.iter().filter(|t| t.time < 200) {
        publisher.send_tag(tag, 0).await;
    }
    publisher
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_has_its_code_and_its_reason_in_words() {
    let house = house().await;
    let mut incumbent = incumbent(&house).await;
    for case in publish_cases(&house) {
        let no = Client::publish(&case.url).await.err();
        case.assert_heard(&no.unwrap_or_else(|| panic!("{} is let in", case.name)));
    }
    for case in play_cases(&house) {
        let no = Client::play(&case.url).await.err();
        case.assert_heard(&no.unwrap_or_else(|| panic!("{} is let in", case.name)));
    }
    // Those who were refused took nothing from the one who holds the name.
    incumbent
        .send(kind::VIDEO, 240, vec![0x27, 1, 0, 0, 0, 1])
        .await;
    let url = house
        .urls
        .with("busy", &house.urls.query(Purpose::View, "busy", Hour::Next));
    let mut viewer = Client::play(&url).await.expect("granted");
    viewer
        .media_until(|m| m.payload[..] == [0x27, 1, 0, 0, 0, 1])
        .await;
}

/// How long a pipe may still have what an ended program said.
const LAST_WORDS: Duration = Duration::from_secs(5);

async fn assert_refused(who: &str, case: &Case, mut process: Process) {
    let name = format!("{who}, {}", case.name);
    let status = process.end(SOON).await;
    let status = status.unwrap_or_else(|e| panic!("{name}: it ends by itself: {e}"));
    assert!(!status.success(), "{name}: {status}\n{}", process.said());
    // What it said may be read a moment after its end.
    let heard = poll("its last words", LAST_WORDS, || async {
        let said = process.said();
        case.says
            .iter()
            .all(|words| said.contains(words))
            .then_some(())
    });
    let heard = heard.await.is_ok();
    let said = process.said();
    assert!(heard, "{name} was to hear {:?}; it said\n{said}", case.says);
    assert!(
        !said.contains("NetStream.Publish.Start"),
        "{name}: success before the refusal\n{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_hears_why_it_may_not_publish() {
    publisher_hears(Publisher::Ffmpeg).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gstreamer_hears_why_it_may_not_publish() {
    publisher_hears(Publisher::Rtmp2Sink).await;
}

async fn publisher_hears(publisher: Publisher) {
    let house = house().await;
    let _incumbent = incumbent(&house).await;
    let file: &Path = clip().await.path();
    for case in publish_cases(&house) {
        let process = publisher.start(file, &case.url);
        assert_refused(&format!("{publisher:?}"), &case, process).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_hears_why_it_may_not_play() {
    player_hears(Player::Ffmpeg).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rtmpdump_hears_why_it_may_not_play() {
    player_hears(Player::Rtmpdump).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gstreamer_hears_why_it_may_not_play() {
    player_hears(Player::Rtmp2Src).await;
}

async fn player_hears(player: Player) {
    let house = house().await;
    let folder = tempfile::tempdir().expect("a folder");
    for case in play_cases(&house) {
        let process = player.start(&case.url, &folder.path().join("nothing.flv"));
        assert_refused(&format!("{player:?}"), &case, process).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_waiting_players_than_allowed_are_refused_at_once() {
    let house = House::open_with("", "[limits]\nwaiting_per_name = 2\nwait = \"20s\"").await;
    let url = house.urls.plain("absent");
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { Client::play(&url).await })
        })
        .collect();
    house.wait_for_viewers(2).await;
    let no = Client::play(&url).await.err().expect("refused");
    assert_eq!(
        no,
        No {
            code: FAILED.into(),
            description: "2 players already wait for this stream [limit_reached] (18/600)".into()
        }
    );
    assert!(waiting.iter().all(|w| !w.is_finished()), "they still wait");
}
