use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::media::PerApp;

mod keys;

/// 2017-06-10 12:12:12 at +08: the moment of the vendor's printed sample, txTime 593B719C.
const NOW: u64 = 0x593B_719C;
const STREAM: &str = "8888_streamA";
/// Validity of the play key in these tests.
const VALID_FOR: u64 = 600;

const MAIN: &str = "f3313e36c611150119f5d04ff1225b3e";
const BACKUP: &str = "e12c46f2612d5106e2034781ab261ca3";
const PEER: &str = "69e0daf7234b01f257a7adb9f807ae9f";
const VIEW: &str = "40328529ca4381a80c6ecf2e6aa57438";

/// Columns are key sets, rows are URLs, a cell is the outcome of `publish/play`.
/// `push` has two push keys, `peer` these and a peer key, `play` push keys and a play key, `all` all three;
/// `+o` adds `push = "open"` and `peer = "open"`.
const TABLE: &str = "
url               none             o                push             push+o           peer             play             all              all+o
unsigned          missing/program  publish/program  missing/program  publish/program  missing/program  missing/missing  missing/missing  publish/missing
feed_source       missing/program  publish/source   missing/program  publish/source   missing/program  missing/missing  missing/missing  publish/source
foreign_only      missing/program  publish/program  missing/program  publish/program  missing/program  missing/missing  missing/missing  publish/missing

push              wrong/wrong      publish/wrong    publish/source   publish/source   publish/wrong    publish/source   publish/wrong    publish/wrong
push_backup       wrong/wrong      publish/wrong    publish/source   publish/source   publish/wrong    publish/source   publish/wrong    publish/wrong
push_upper_secret wrong/wrong      publish/wrong    publish/source   publish/source   publish/wrong    publish/source   publish/wrong    publish/wrong
push_lower_time   wrong/wrong      publish/wrong    publish/source   publish/source   publish/wrong    publish/source   publish/wrong    publish/wrong
push_decimal      wrong/wrong      publish/wrong    publish/source   publish/source   publish/wrong    publish/source   publish/wrong    publish/wrong
push_escaped      wrong/wrong      publish/wrong    publish/source   publish/source   publish/wrong    publish/source   publish/wrong    publish/wrong
push_repeated     wrong/wrong      publish/wrong    publish/source   publish/source   publish/wrong    publish/source   publish/wrong    publish/wrong
push_and_foreign  wrong/wrong      publish/wrong    publish/source   publish/source   publish/wrong    publish/source   publish/wrong    publish/wrong
push_last_second  wrong/wrong      publish/wrong    publish/source   publish/source   publish/wrong    publish/source   publish/wrong    publish/wrong
push_expired      wrong/wrong      publish/wrong    expired/expired  publish/expired  expired/wrong    expired/expired  expired/wrong    publish/wrong
push_long_ago     wrong/wrong      publish/wrong    expired/expired  publish/expired  expired/wrong    expired/expired  expired/wrong    publish/wrong

peer              wrong/wrong      publish/wrong    wrong/wrong      publish/wrong    wrong/source     wrong/wrong      wrong/source     publish/source
peer_expired      wrong/wrong      publish/wrong    wrong/wrong      publish/wrong    wrong/expired    wrong/wrong      wrong/expired    publish/expired

play              wrong/wrong      publish/wrong    wrong/wrong      publish/wrong    wrong/wrong      wrong/program    wrong/program    publish/program
play_within       wrong/wrong      publish/wrong    wrong/wrong      publish/wrong    wrong/wrong      wrong/program    wrong/program    publish/program
play_last_second  wrong/wrong      publish/wrong    wrong/wrong      publish/wrong    wrong/wrong      wrong/program    wrong/program    publish/program
play_expired      wrong/wrong      publish/wrong    wrong/wrong      publish/wrong    wrong/wrong      wrong/expired    wrong/expired    publish/expired
play_feed_source  wrong/wrong      publish/wrong    wrong/wrong      publish/wrong    wrong/wrong      wrong/program    wrong/program    publish/program

unknown_key       wrong/wrong      publish/wrong    wrong/wrong      publish/wrong    wrong/wrong      wrong/wrong      wrong/wrong      publish/wrong
other_name        wrong/wrong      publish/wrong    wrong/wrong      publish/wrong    wrong/wrong      wrong/wrong      wrong/wrong      publish/wrong
time_recased      wrong/wrong      publish/wrong    wrong/wrong      publish/wrong    wrong/wrong      wrong/wrong      wrong/wrong      publish/wrong
time_moved        wrong/wrong      publish/wrong    wrong/wrong      publish/wrong    wrong/wrong      wrong/wrong      wrong/wrong      publish/wrong
short_secret      wrong/wrong      publish/wrong    wrong/wrong      publish/wrong    wrong/wrong      wrong/wrong      wrong/wrong      publish/wrong
two_secrets       wrong/wrong      publish/wrong    wrong/wrong      publish/wrong    wrong/wrong      wrong/wrong      wrong/wrong      publish/wrong
wrong_feed_source wrong/wrong      publish/wrong    wrong/wrong      publish/wrong    wrong/wrong      wrong/wrong      wrong/wrong      publish/wrong
time_alone        missing/missing  publish/missing  missing/missing  publish/missing  missing/missing  missing/missing  missing/missing  publish/missing
secret_empty      missing/missing  publish/missing  missing/missing  publish/missing  missing/missing  missing/missing  missing/missing  publish/missing
secret_alone      no_time/no_time  publish/no_time  no_time/no_time  publish/no_time  no_time/no_time  no_time/no_time  no_time/no_time  publish/no_time
both_empty        no_time/no_time  publish/no_time  no_time/no_time  publish/no_time  no_time/no_time  no_time/no_time  no_time/no_time  publish/no_time
time_malformed    bad_time/bad_time publish/bad_time bad_time/bad_time publish/bad_time bad_time/bad_time bad_time/bad_time bad_time/bad_time publish/bad_time
two_times         bad_time/bad_time publish/bad_time bad_time/bad_time publish/bad_time bad_time/bad_time bad_time/bad_time bad_time/bad_time publish/bad_time
";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn key(id: &str, secret: &str, valid_for: u64) -> Key {
    Key {
        valid_for: Duration::from_secs(valid_for),
        ..Key::new(KeyId::new(id), Secret::new(secret))
    }
}

fn config(column: &str) -> Config {
    let mut config = Config::default();
    for part in column.split('+') {
        if part == "o" {
            config.push = Access::Open;
            config.peer = Access::Open;
        }
        if ["push", "peer", "play", "all"].contains(&part) {
            config.push_keys = vec![key("main", MAIN, 0), key("backup", BACKUP, 0)];
        }
        if ["peer", "all"].contains(&part) {
            config.peer_keys = vec![key("friends", PEER, 0)];
        }
        if ["play", "all"].contains(&part) {
            config.play_keys = vec![key("viewers", VIEW, VALID_FOR)];
        }
    }
    config
}

fn hashed(secret: &str, stream: &str, time: &str) -> String {
    sign(&Secret::new(secret), stream, time)
}

fn url(secret: &str, seconds: u64) -> String {
    signed_query(&Secret::new(secret), STREAM, at(seconds))
}

fn urls() -> HashMap<&'static str, String> {
    let signed =
        |secret, time: &str| format!("txSecret={}&txTime={time}", hashed(secret, STREAM, time));
    let good = hashed(MAIN, STREAM, "593B71FF");
    let ago = |seconds| NOW - seconds;
    HashMap::from([
        ("unsigned", String::new()),
        ("feed_source", "feed=source".to_owned()),
        (
            "foreign_only",
            "bizid=8888&mix=layer:b;session_id:1".to_owned(),
        ),
        ("push", url(MAIN, NOW + 60)),
        ("push_backup", url(BACKUP, NOW + 60)),
        (
            "push_upper_secret",
            format!("txSecret={}&txTime=593B71FF", good.to_uppercase()),
        ),
        ("push_lower_time", signed(MAIN, "593b71ff")),
        ("push_decimal", signed(MAIN, "1497068000")),
        ("push_escaped", format!("txSecret={good}&txTime=593B71%46F")),
        (
            "push_repeated",
            format!("txTime=593B71FF&txSecret={good}&txTime=593B71FF"),
        ),
        (
            "push_and_foreign",
            format!("bizid=8888&txTime=593B71FF&feed=source&txSecret={good}&record=flv|hls"),
        ),
        ("push_last_second", url(MAIN, NOW)),
        ("push_expired", url(MAIN, ago(37))),
        ("push_long_ago", signed(MAIN, "00000000")),
        ("peer", url(PEER, NOW + 60)),
        ("peer_expired", url(PEER, ago(1))),
        ("play", url(VIEW, NOW + 60)),
        ("play_within", url(VIEW, ago(VALID_FOR - 1))),
        ("play_last_second", url(VIEW, ago(VALID_FOR))),
        ("play_expired", url(VIEW, ago(VALID_FOR + 1))),
        (
            "play_feed_source",
            format!("{}&feed=source", url(VIEW, NOW + 60)),
        ),
        ("unknown_key", url("not-one-of-ours", NOW + 60)),
        (
            "other_name",
            format!(
                "txSecret={}&txTime=593B71FF",
                hashed(MAIN, "streamA", "593B71FF")
            ),
        ),
        ("time_recased", format!("txSecret={good}&txTime=593b71ff")),
        ("time_moved", format!("txSecret={good}&txTime=693B71FF")),
        (
            "short_secret",
            format!("txSecret={}&txTime=593B71FF", &good[1..]),
        ),
        (
            "two_secrets",
            format!("txSecret={good}&txTime=593B71FF&txSecret=x"),
        ),
        (
            "wrong_feed_source",
            "txSecret=x&txTime=593B71FF&feed=source".to_owned(),
        ),
        ("time_alone", "txTime=593B71FF".to_owned()),
        ("secret_empty", "txSecret=&txTime=593B71FF".to_owned()),
        ("secret_alone", format!("txSecret={good}")),
        ("both_empty", "txSecret=&txTime=".to_owned()),
        ("time_malformed", signed(MAIN, "tomorrow")),
        (
            "two_times",
            format!("txSecret={good}&txTime=593B71FF&txTime=693B71FF"),
        ),
    ])
}

fn decide(policy: &Policy, action: Action, query: &str, now: SystemTime) -> Result<Grant, Refusal> {
    let key = StreamKey::new("live", STREAM).unwrap();
    policy.decide(&Request {
        connection: None,
        action,
        key: &key,
        query,
        peer: "192.0.2.1:40000".parse().unwrap(),
        now,
    })
}

fn word(decision: &Result<Grant, Refusal>) -> &'static str {
    match decision {
        Ok(Grant::Publish { .. }) => "publish",
        Ok(Grant::Play {
            feed: Feed::Source,
            class: Class::LowLatency,
            ..
        }) => "source",
        Ok(Grant::Play {
            feed: Feed::Program,
            class: Class::Viewer,
            ..
        }) => "program",
        Ok(Grant::Play { .. }) => "a feed in a class it must not have",
        Err(refusal) => match refusal.reason {
            Reason::SignatureMissing => "missing",
            Reason::SignatureWrong => "wrong",
            Reason::SignatureExpired => "expired",
            Reason::TxTimeMissing => "no_time",
            Reason::TxTimeMalformed => "bad_time",
            _ => "another reason",
        },
    }
}

/// Keys that no URL of the table is signed with, in every set.
fn foreign() -> Config {
    let keys = |set: &str| {
        let keys = [0, 1].map(|n| key(&format!("{set}-{n}"), &format!("foreign-{set}-{n}"), 0));
        keys.to_vec()
    };
    Config {
        push_keys: keys("push"),
        peer_keys: keys("peer"),
        play_keys: keys("play"),
        ..Config::default()
    }
}

/// All three sets as an application's own.
fn own(config: &Config) -> AppKeys {
    AppKeys {
        push_keys: Some(config.push_keys.clone()),
        peer_keys: Some(config.peer_keys.clone()),
        play_keys: Some(config.play_keys.clone()),
    }
}

/// The same keys for the application `live`, wherever they stand: for all applications, as its own, as those of every
/// application without a section. Elsewhere there are others.
fn placements(config: Config) -> [(&'static str, Config); 4] {
    let of = |app: &str, keys: AppKeys| PerApp {
        named: [(app.to_owned(), keys)].into(),
        others: None,
    };
    let elsewhere = |apps| Config {
        push: config.push,
        peer: config.peer,
        apps,
        ..foreign()
    };
    let own_keys = elsewhere(of("live", own(&config)));
    let others = elsewhere(PerApp {
        named: [("film".to_owned(), AppKeys::default())].into(),
        others: Some(own(&config)),
    });
    let beside = Config {
        apps: of("film", own(&foreign())),
        ..config.clone()
    };
    [
        ("for all", config),
        ("its own", own_keys),
        ("the others'", others),
        ("beside an application with its own", beside),
    ]
}

#[test]
fn which_url_opens_which_feed_under_which_keys() {
    let urls = urls();
    let mut lines = TABLE.lines().filter(|line| !line.is_empty());
    let columns: Vec<_> = lines.next().unwrap().split_whitespace().skip(1).collect();
    let mut rows = 0;
    let mut wrong = Vec::new();
    for line in lines {
        rows += 1;
        let mut cells = line.split_whitespace();
        let name = cells.next().unwrap();
        let query = &urls[name];
        let cells: Vec<_> = cells.collect();
        assert_eq!(cells.len(), columns.len(), "{name}");
        for (column, expected) in columns.iter().zip(cells) {
            for (place, config) in placements(config(column)) {
                let policy = Policy::new(config);
                let publish = decide(&policy, Action::Publish, query, at(NOW));
                let play = decide(&policy, Action::Play, query, at(NOW));
                let found = format!("{}/{}", word(&publish), word(&play));
                if found != expected {
                    wrong.push(format!(
                        "{name} with {column} {place}: {found}, not {expected}"
                    ));
                }
            }
        }
    }
    assert_eq!(rows, urls.len(), "every URL has its row");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_refusal_repeats_a_secret_or_a_signature() {
    for (name, query) in urls() {
        for column in ["none", "push", "peer", "play", "all"] {
            for action in [Action::Publish, Action::Play] {
                let policy = Policy::new(config(column));
                let Err(refusal) = decide(&policy, action, &query, at(NOW)) else {
                    continue;
                };
                assert!(!refusal.message.is_empty());
                for part in query.split(['&', '=']).chain([MAIN, BACKUP, PEER, VIEW]) {
                    let hidden = part.len() < 8 || !refusal.message.contains(part);
                    assert!(hidden || part == "txSecret", "{name}: {refusal}");
                }
            }
        }
    }
}

#[test]
fn refusals_say_what_to_do() {
    let message = |column: &str, action, url: &str| {
        let policy = Policy::new(config(column));
        let urls = urls();
        decide(&policy, action, &urls[url], at(NOW))
            .unwrap_err()
            .message
    };
    for (column, action, url, expected) in [
        (
            "push",
            Action::Publish,
            "push_expired",
            "txTime expired 37 s ago",
        ),
        (
            "play",
            Action::Play,
            "play_expired",
            "txTime plus the key's 10m expired 1 s ago",
        ),
        (
            "none",
            Action::Publish,
            "unsigned",
            "no push key is configured here, so nobody can publish",
        ),
        (
            "none",
            Action::Publish,
            "push",
            "no push key is configured here, so nobody can publish",
        ),
        (
            "push",
            Action::Publish,
            "unsigned",
            "publishing needs a signed URL; it has neither txSecret nor txTime",
        ),
        (
            "play",
            Action::Play,
            "unsigned",
            "playing needs a signed URL; it has neither txSecret nor txTime",
        ),
        (
            "peer",
            Action::Play,
            "push",
            "the URL is signed with a push key, but here only peer keys open the source feed",
        ),
        (
            "all",
            Action::Publish,
            "peer",
            "the URL is signed with a peer key, which does not open publishing",
        ),
        (
            "all",
            Action::Publish,
            "play",
            "the URL is signed with a play key, which does not open publishing",
        ),
        (
            "push",
            Action::Publish,
            "short_secret",
            "txSecret of 31 bytes is not 32 hexadecimal digits",
        ),
        (
            "push",
            Action::Publish,
            "time_malformed",
            "txTime of 8 bytes is neither 8 hexadecimal nor 10 decimal digits",
        ),
        (
            "push",
            Action::Play,
            "two_times",
            "txTime is given twice with different values",
        ),
        ("push", Action::Play, "time_alone", "txSecret is missing"),
        ("push", Action::Play, "both_empty", "txTime is empty"),
    ] {
        assert_eq!(message(column, action, url), expected, "{column} {url}");
    }
}

#[test]
fn the_vendors_printed_url_is_good_to_the_last_second_and_not_after() {
    let policy = Policy::new(config("push"));
    let query = "bizid=8888&txSecret=3bc85763bddab40be60c838174f53e03&txTime=593B719C";
    let granted = Grant::Publish {
        key: Some(KeyId::new("main")),
    };
    assert_eq!(
        decide(&policy, Action::Publish, query, at(NOW)),
        Ok(granted)
    );
    let just_after = at(NOW) + Duration::from_millis(1);
    let refusal = decide(&policy, Action::Publish, query, just_after).unwrap_err();
    assert_eq!(refusal.message, "txTime expired 1 s ago");
}

#[test]
fn a_grant_names_the_key_that_opened() {
    let policy = Policy::new(config("all+o"));
    let urls = urls();
    for (action, url, id) in [
        (Action::Publish, "push", Some("main")),
        (Action::Publish, "push_backup", Some("backup")),
        (Action::Publish, "push_expired", None),
        (Action::Publish, "unsigned", None),
        (Action::Play, "peer", Some("friends")),
        (Action::Play, "play", Some("viewers")),
        (Action::Play, "feed_source", None),
    ] {
        let grant = decide(&policy, action, &urls[url], at(NOW)).unwrap();
        assert_eq!(grant.key().map(KeyId::as_str), id, "{url}");
    }
    let grant = decide(&policy, Action::Play, &urls["peer"], at(NOW)).unwrap();
    assert_eq!(
        grant.to_string(),
        "play the source feed, class low_latency, signed with key \"friends\""
    );
}

#[tokio::test]
async fn the_clock_tolerance_lets_late_urls_in_and_near_misses_are_counted() {
    let tolerant = Config {
        clock_skew: Duration::from_secs(5),
        ..config("push")
    };
    let policy = Policy::new(tolerant);
    let key = StreamKey::new("live", STREAM).unwrap();
    let query = url(MAIN, NOW);
    // Expired by: nothing; within 5 s; within a minute of that; too long to be a matter of clocks.
    for (late, granted) in [(0, true), (5, true), (6, false), (65, false), (66, false)] {
        let request = Request {
            connection: None,
            action: Action::Publish,
            key: &key,
            query: &query,
            peer: "192.0.2.1:40000".parse().unwrap(),
            now: at(NOW + late),
        };
        assert_eq!(policy.authorize(&request).await.is_ok(), granted, "{late}");
        assert_eq!(policy.decide(&request).is_ok(), granted, "{late}");
    }
    let counted = NearMisses {
        forgiven: 1,
        refused: 2,
    };
    assert_eq!(policy.near_misses(), counted, "explaining does not count");
}

#[test]
fn a_url_signed_here_opens_what_it_was_signed_for_and_ends_when_asked() {
    let name = StreamKey::new("live", STREAM).unwrap();
    for (column, purpose, action, opened) in [
        ("push", Purpose::Push, Action::Publish, "publish"),
        ("push", Purpose::Peer, Action::Play, "source"),
        ("peer", Purpose::Peer, Action::Play, "source"),
        ("play", Purpose::View, Action::Play, "program"),
        ("push", Purpose::View, Action::Play, "program"),
        ("o", Purpose::Push, Action::Publish, "publish"),
        ("o", Purpose::Peer, Action::Play, "source"),
    ] {
        let policy = Policy::new(config(column));
        let signed = policy.signed_query(purpose, &name, at(NOW + 3600), None, at(NOW));
        let query = signed.unwrap().unwrap_or_default();
        let last = decide(&policy, action, &query, at(NOW + 3600));
        assert_eq!(word(&last), opened, "{column} {purpose:?}");
        let after = decide(&policy, action, &query, at(NOW + 3601));
        let ends = query.contains("txTime");
        assert_eq!(
            word(&after),
            if ends { "expired" } else { opened },
            "{column} {purpose:?}"
        );
    }
}

#[test]
fn signing_without_a_key_says_which_is_missing() {
    let name = StreamKey::new("live", STREAM).unwrap();
    let error = |column: &str, purpose, id| {
        Policy::new(config(column))
            .signed_query(purpose, &name, at(NOW), id, at(NOW))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error("none", Purpose::Push, None),
        "no push key is configured to sign with"
    );
    assert_eq!(
        error("none", Purpose::Peer, None),
        "no push key is configured to sign with"
    );
    assert_eq!(
        error("all", Purpose::Push, Some("x")),
        "no push key has the id \"x\"; there are: main, backup"
    );
    assert_eq!(
        error("push", Purpose::View, Some("x")),
        "no play key has the id \"x\"; there are: none"
    );
    let picked = Policy::new(config("push")).signed_query(
        Purpose::Push,
        &name,
        at(NOW),
        Some("backup"),
        at(NOW),
    );
    assert_eq!(picked, Ok(Some(url(BACKUP, NOW))));
}

#[test]
fn nothing_with_a_secret_in_it_prints_it() {
    let name = StreamKey::new("live", STREAM).unwrap();
    let query = url(MAIN, NOW);
    let request = Request {
        connection: None,
        action: Action::Play,
        key: &name,
        query: &query,
        peer: "192.0.2.1:40000".parse().unwrap(),
        now: at(NOW),
    };
    let printed = format!("{request:?} {:?}", Policy::new(config("all")));
    for secret in [MAIN, BACKUP, PEER, VIEW, "txSecret"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}
