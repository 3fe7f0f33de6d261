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
