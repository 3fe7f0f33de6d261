use std::time::Duration;

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn ban(id: BanId, kind: &str, text: &str, scope: Scope) -> Ban {
    Ban {
        id,
        subject: Subject::parse(kind, text).unwrap(),
        scope,
        created_at: NOW,
        expires_at: None,
        note: String::new(),
    }
}

fn found(
    bans: &Bans,
    action: Action,
    name: &str,
    address: &str,
    key: Option<&str>,
) -> Option<BanId> {
    let (app, stream) = name.split_once('/').unwrap();
    let key_id = key.map(KeyId::new);
    let who = Who {
        action,
        key: &StreamKey::new(app, stream).unwrap(),
        address: address.parse().unwrap(),
        key_id: key_id.as_ref(),
    };
    let found = bans.find(&who, NOW).map(|ban| ban.id);
    // The index and the single ban must agree on whom a ban concerns.
    let by_hand = bans.iter().any(|ban| ban.holds(NOW) && ban.concerns(&who));
    assert_eq!(found.is_some(), by_hand, "{name} {address}");
    found
}

#[test]
fn a_ban_holds_for_what_it_names_and_for_nothing_else() {
    use Action::{Play, Publish};
    for (kind, subject, action, name, address, key, hit) in [
        (
            "stream",
            "live/a",
            Publish,
            "live/a",
            "192.0.2.1",
            None,
            true,
        ),
        ("stream", "live/a", Play, "live/a", "192.0.2.1", None, true),
        (
            "stream",
            "live/a",
            Publish,
            "live/b",
            "192.0.2.1",
            None,
            false,
        ),
        (
            "stream",
            "live/a",
            Publish,
            "other/a",
            "192.0.2.1",
            None,
            false,
        ),
        (
            "stream",
            "live/*",
            Publish,
            "live/b",
            "192.0.2.1",
            None,
            true,
        ),
        (
            "stream",
            "live/*",
            Publish,
            "other/b",
            "192.0.2.1",
            None,
            false,
        ),
        (
            "address",
            "192.0.2.1",
            Play,
            "live/a",
            "192.0.2.1",
            None,
            true,
        ),
        (
            "address",
            "192.0.2.1",
            Play,
            "live/a",
            "::ffff:192.0.2.1",
            None,
            true,
        ),
        (
            "address",
            "::ffff:192.0.2.1",
            Play,
            "live/a",
            "192.0.2.1",
            None,
            true,
        ),
        (
            "address",
            "192.0.2.1",
            Play,
            "live/a",
            "192.0.2.2",
            None,
            false,
        ),
        (
            "address",
            "::ffff:192.0.2.0/120",
            Play,
            "live/a",
            "192.0.2.2",
            None,
            true,
        ),
        (
            "address",
            "::ffff:192.0.2.0/120",
            Play,
            "live/a",
            "::ffff:192.0.2.2",
            None,
            true,
        ),
        (
            "address",
            "::ffff:0:0/96",
            Play,
            "live/a",
            "192.0.2.2",
            None,
            true,
        ),
        (
            "address",
            "::ffff:0:0/96",
            Play,
            "live/a",
            "2001:db8::1",
            None,
            false,
        ),
        (
            "address",
            "192.0.2.77/24",
            Play,
            "live/a",
            "192.0.2.2",
            None,
            true,
        ),
        (
            "address",
            "192.0.2.0/24",
            Play,
            "live/a",
            "192.0.3.2",
            None,
            false,
        ),
        (
            "address",
            "2001:db8::/32",
            Play,
            "live/a",
            "2001:db8:9::1",
            None,
            true,
        ),
        (
            "address",
            "2001:db8::/32",
            Play,
            "live/a",
            "2001:db9::1",
            None,
            false,
        ),
        (
            "address",
            "0.0.0.0/0",
            Play,
            "live/a",
            "198.51.100.1",
            None,
            true,
        ),
        (
            "address",
            "0.0.0.0/0",
            Play,
            "live/a",
            "2001:db8::1",
            None,
            false,
        ),
        (
            "key",
            "main",
            Publish,
            "live/a",
            "192.0.2.1",
            Some("main"),
            true,
        ),
        (
            "key",
            "main",
            Publish,
            "live/a",
            "192.0.2.1",
            Some("other"),
            false,
        ),
        ("key", "main", Publish, "live/a", "192.0.2.1", None, false),
    ] {
        let bans = Bans::new([ban(1, kind, subject, Scope::Both)]);
        let found = found(&bans, action, name, address, key);
        assert_eq!(
            found,
            hit.then_some(1),
            "{kind} {subject}: {action:?} {name} {address}"
        );
    }
}

#[test]
fn a_ban_of_one_action_leaves_the_other_alone() {
    for (scope, publish, play) in [
        (Scope::Publish, true, false),
        (Scope::Play, false, true),
        (Scope::Both, true, true),
    ] {
        let bans = Bans::new([ban(1, "stream", "live/a", scope)]);
        let hit = |action| found(&bans, action, "live/a", "192.0.2.1", None).is_some();
        assert_eq!((hit(Action::Publish), hit(Action::Play)), (publish, play));
    }
}

#[test]
fn a_ban_ends_at_its_expiry() {
    let mut bounded = ban(1, "stream", "live/a", Scope::Both);
    bounded.expires_at = Some(NOW + Duration::from_secs(10));
    let bans = Bans::new([bounded]);
    let key = StreamKey::new("live", "a").unwrap();
    let who = Who {
        action: Action::Play,
        key: &key,
        address: "192.0.2.1".parse().unwrap(),
        key_id: None,
    };
    assert!(
        bans.find(&who, NOW + Duration::from_millis(9_999))
            .is_some()
    );
    assert!(bans.find(&who, NOW + Duration::from_secs(10)).is_none());
}

#[test]
fn removed_bans_leave_nothing_behind() {
    let mut bans = Bans::default();
    for (id, (kind, subject)) in (0..).zip([
        ("stream", "live/a"),
        ("stream", "live/*"),
        ("address", "192.0.2.0/24"),
        ("address", "2001:db8::/32"),
        ("key", "main"),
    ]) {
        bans.insert(ban(id, kind, subject, Scope::Both));
        // Inserting again replaces.
        bans.insert(ban(id, kind, subject, Scope::Play));
    }
    assert_eq!(bans.len(), 5);
    for id in 0..5 {
        assert!(bans.remove(id).is_some());
    }
    assert!(bans.is_empty() && bans.remove(0).is_none());
    assert!(bans.streams.is_empty() && bans.apps.is_empty() && bans.keys.is_empty());
    assert!(bans.nets.is_empty() && bans.lengths.iter().all(BTreeMap::is_empty));
}

#[test]
fn subjects_are_written_as_they_are_read() {
    for (kind, text, written) in [
        ("stream", "live/8888_streamA", "live/8888_streamA"),
        ("stream", "live/*", "live/*"),
        ("address", "192.0.2.7", "192.0.2.7"),
        ("address", "192.0.2.7/32", "192.0.2.7"),
        ("address", "192.0.2.7/24", "192.0.2.0/24"),
        ("address", "2001:db8::1", "2001:db8::1"),
        ("key", "main", "main"),
    ] {
        let subject = Subject::parse(kind, text).unwrap();
        assert_eq!(
            (subject.kind(), subject.to_string()),
            (kind, written.to_owned())
        );
        assert_eq!(Subject::parse(kind, written), Ok(subject));
    }
    for (kind, text, words) in [
        (
            "stream",
            "live",
            "stream: \"live\" is neither app/name nor app/*",
        ),
        (
            "stream",
            "li ve/*",
            "stream: application name has the character ' '",
        ),
        (
            "stream",
            "live/a*",
            "stream: stream name has the character '*'",
        ),
        (
            "address",
            "192.0.2.0/33",
            "address: \"192.0.2.0/33\" is neither",
        ),
        ("address", "localhost", "address: \"localhost\" is neither"),
        ("key", "", "key: is empty"),
        ("planet", "x", "there are no bans of planet"),
    ] {
        let error = Subject::parse(kind, text).unwrap_err().to_string();
        assert!(error.starts_with(words), "{kind} {text}: {error}");
    }
}
