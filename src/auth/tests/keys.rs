//! Keys that come and go: windows, roles, rotation, and the use that is counted.

use super::*;

/// A policy with three push keys: one before its time, one in it, one after it; the one in it is a backup.
fn windows() -> Config {
    let window = |begin: u64, end: u64| Window {
        not_before: Some(at(begin)),
        not_after: Some(at(end)),
    };
    Config {
        push_keys: vec![
            Key {
                window: window(NOW + 100, NOW + 1_000),
                ..key("next", MAIN, 0)
            },
            Key {
                window: window(NOW - 100, NOW + 200),
                role: Role::Backup,
                ..key("now", BACKUP, 0)
            },
            Key {
                window: window(NOW - 1_000, NOW - 1),
                ..key("last", PEER, 0)
            },
        ],
        ..Config::default()
    }
}

#[test]
fn a_key_opens_only_within_its_window_to_the_moment() {
    let policy = Policy::new(windows());
    for (secret, moment, opens) in [
        (MAIN, NOW, false),
        (MAIN, NOW + 99, false),
        (MAIN, NOW + 100, true),
        (MAIN, NOW + 1_000, true),
        (MAIN, NOW + 1_001, false),
        (BACKUP, NOW, true),
        (PEER, NOW, false),
        (PEER, NOW - 1, true),
    ] {
        let query = url(secret, NOW + 100_000);
        for action in [Action::Publish, Action::Play] {
            let decision = decide(&policy, action, &query, at(moment));
            assert_eq!(decision.is_ok(), opens, "{secret} {moment}");
            if let Err(refusal) = decision {
                assert_eq!(refusal.reason, Reason::KeyNotValid);
                let words = "the push key that the URL is signed with is not valid ";
                assert!(refusal.message.starts_with(words), "{refusal}");
            }
        }
    }
}

#[test]
fn the_first_valid_primary_key_signs_and_a_backup_only_without_one() {
    let policy = Policy::new(windows());
    let name = StreamKey::new("live", STREAM).unwrap();
    let until = at(NOW + 100_000);
    let sign = |id, now| policy.signed_query(Purpose::Push, &name, until, id, at(now));
    let by = |secret| Ok(Some(url(secret, NOW + 100_000)));
    assert_eq!(sign(None, NOW), by(BACKUP));
    assert_eq!(sign(None, NOW + 150), by(MAIN));
    assert_eq!(sign(None, NOW - 50), by(PEER));
    assert_eq!(sign(Some("now"), NOW), by(BACKUP));
    let says = |id, now| sign(id, now).unwrap_err().to_string();
    assert_eq!(
        says(Some("next"), NOW),
        "push key \"next\" is not valid now"
    );
    assert_eq!(says(None, NOW + 5_000), "no push key is valid now");
    let signing: Vec<_> = policy
        .keys(at(NOW))
        .into_iter()
        .filter(|key| key.signs)
        .map(|key| key.id)
        .collect();
    assert_eq!(signing, [KeyId::new("now")]);
}

#[tokio::test]
async fn rotation_holds_for_those_who_come_after_it_and_keeps_the_counters_of_keys_that_stay() {
    let policy = Policy::new(config("all"));
    let name = StreamKey::new("live", STREAM).unwrap();
    let come = async |action, query: &str| {
        let request = Request {
            connection: None,
            action,
            key: &name,
            query,
            peer: "192.0.2.1:40000".parse().unwrap(),
            now: at(NOW),
        };
        policy.authorize(&request).await.is_ok()
    };
    let hits = || {
        let keys = policy.keys(at(NOW)).into_iter();
        keys.map(|key| (key.set.as_str(), key.id.to_string(), key.hits))
            .collect::<Vec<_>>()
    };
    let is = |set, id: &str, hits| (set, id.to_owned(), hits);
    for (action, secret) in [
        (Action::Publish, MAIN),
        (Action::Publish, MAIN),
        (Action::Publish, BACKUP),
        (Action::Play, PEER),
        (Action::Play, VIEW),
    ] {
        assert!(come(action, &url(secret, NOW + 60)).await);
    }
    assert!(
        !come(Action::Play, &url(MAIN, NOW + 60)).await,
        "there are peer keys"
    );
    assert_eq!(
        hits(),
        [
            is("push", "main", 2),
            is("push", "backup", 1),
            is("peer", "friends", 1),
            is("play", "viewers", 1)
        ]
    );
    assert_eq!(policy.keys(at(NOW))[0].last_used, Some(at(NOW)));

    // Without peer keys the push keys open the source feed, which counts for them.
    let mut rotated = config("push");
    rotated.push_keys.remove(1);
    rotated.push_keys.push(key("new", VIEW, 0));
    policy.rotate(rotated);
    assert!(!come(Action::Publish, &url(BACKUP, NOW + 60)).await);
    assert!(come(Action::Publish, &url(VIEW, NOW + 60)).await);
    assert!(come(Action::Play, &url(MAIN, NOW + 60)).await);
    assert_eq!(hits(), [is("push", "main", 3), is("push", "new", 1)]);
}

/// An application that has only some sets of its own, beside one that has none: what each URL opens in both.
#[test]
fn a_set_of_its_own_holds_instead_of_the_one_for_all_and_the_others_hold_on() {
    let keys = |secret, valid_for| Some(vec![key("own", secret, valid_for)]);
    let shared = || config("push");
    for (what, own, url, here, elsewhere) in [
        (
            "push",
            AppKeys {
                push_keys: keys(VIEW, 0),
                ..AppKeys::default()
            },
            [VIEW, MAIN],
            ["publish/source", "wrong/wrong"],
            ["wrong/wrong", "publish/source"],
        ),
        (
            "peer",
            AppKeys {
                peer_keys: keys(PEER, 0),
                ..AppKeys::default()
            },
            [PEER, MAIN],
            ["wrong/source", "publish/wrong"],
            ["wrong/wrong", "publish/source"],
        ),
        (
            "play",
            AppKeys {
                play_keys: keys(VIEW, VALID_FOR),
                ..AppKeys::default()
            },
            [VIEW, MAIN],
            ["wrong/program", "publish/source"],
            ["wrong/wrong", "publish/source"],
        ),
        (
            "an empty push set",
            AppKeys {
                push_keys: Some(Vec::new()),
                ..AppKeys::default()
            },
            [BACKUP, MAIN],
            ["wrong/wrong", "wrong/wrong"],
            ["publish/source", "publish/source"],
        ),
    ] {
        let policy = Policy::new(Config {
            apps: PerApp {
                named: [("film".to_owned(), own)].into(),
                others: None,
            },
            ..shared()
        });
        for (app, expected) in [("film", here), ("live", elsewhere)] {
            for (secret, expected) in url.into_iter().zip(expected) {
                let name = StreamKey::new(app, STREAM).unwrap();
                let query = super::url(secret, NOW + 60);
                let [publish, play] = [Action::Publish, Action::Play].map(|action| {
                    let request = Request {
                        connection: None,
                        action,
                        key: &name,
                        query: &query,
                        peer: "192.0.2.1:40000".parse().unwrap(),
                        now: at(NOW),
                    };
                    policy.decide(&request)
                });
                let found = format!("{}/{}", word(&publish), word(&play));
                assert_eq!(found, expected, "{what} of its own: {app} {secret}");
            }
        }
        let sign = |app| {
            let name = StreamKey::new(app, STREAM).unwrap();
            policy.signed_query(Purpose::Push, &name, at(NOW + 60), None, at(NOW))
        };
        assert_eq!(sign("live"), Ok(Some(super::url(MAIN, NOW + 60))));
        let expected = match what {
            "push" => Ok(Some(super::url(VIEW, NOW + 60))),
            "an empty push set" => Err(SignError::NoKey { set: KeySet::Push }),
            _ => Ok(Some(super::url(MAIN, NOW + 60))),
        };
        assert_eq!(sign("film"), expected, "{what}");
    }
}

#[tokio::test]
async fn a_key_of_an_application_is_listed_and_counted_as_its_own_and_a_shared_one_once() {
    let own = AppKeys {
        push_keys: Some(vec![key("film-1", PEER, 0)]),
        ..AppKeys::default()
    };
    let with = |own: AppKeys| Config {
        apps: PerApp {
            named: [("film".to_owned(), own)].into(),
            others: None,
        },
        ..config("play")
    };
    let policy = Policy::new(with(own.clone()));
    let come = async |app, action, secret| {
        let request = Request {
            connection: None,
            action,
            key: &StreamKey::new(app, STREAM).unwrap(),
            query: &url(secret, NOW + 60),
            peer: "192.0.2.1:40000".parse().unwrap(),
            now: at(NOW),
        };
        policy.authorize(&request).await.is_ok()
    };
    let hits = || {
        let keys = policy.keys(at(NOW)).into_iter();
        keys.map(|key| (key.app, key.set.as_str(), key.id.to_string(), key.hits))
            .collect::<Vec<_>>()
    };
    assert!(come("film", Action::Publish, PEER).await);
    assert!(come("film", Action::Play, VIEW).await);
    assert!(come("live", Action::Play, VIEW).await);
    assert!(come("live", Action::Publish, MAIN).await);
    let shared = |set, id: &str, hits| (None, set, id.to_owned(), hits);
    let of_film = |id: &str, hits| (Some("film".to_owned()), "push", id.to_owned(), hits);
    assert_eq!(
        hits(),
        [
            shared("push", "main", 1),
            shared("push", "backup", 0),
            shared("play", "viewers", 2),
            of_film("film-1", 1),
        ]
    );
    // Rotation of an application's own keys: what stays keeps its count.
    let mut rotated = own;
    rotated
        .push_keys
        .as_mut()
        .unwrap()
        .push(key("film-2", "another-one", 0));
    policy.rotate(with(rotated));
    assert!(come("film", Action::Publish, "another-one").await);
    assert_eq!(hits()[3..], [of_film("film-1", 1), of_film("film-2", 1)]);
    assert_eq!(
        policy.push_secret("film-2"),
        Some(Secret::new("another-one"))
    );
}
