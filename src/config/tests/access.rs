//! Keys with windows, address lists and limits.

use std::time::UNIX_EPOCH;

use super::*;
use crate::auth::{AppKeys, Role, Window};

#[test]
fn a_key_has_a_role_and_a_time_in_which_it_is_valid() {
    let key = |more: &str| {
        let text = format!("[auth]\npush_keys = [{{ id = \"a\", secret = \"{SECRET}\", {more} }}]");
        parse(&text).map(|config| config.auth.push_keys[0].clone())
    };
    let plain = parse(&format!(
        "[auth]\npush_keys = [{{ id = \"a\", secret = \"{SECRET}\" }}]"
    ))
    .unwrap();
    assert_eq!(plain.auth.push_keys[0].role, Role::Primary);
    assert_eq!(plain.auth.push_keys[0].window, Window::default());
    assert_eq!(key("role = \"backup\"").unwrap().role, Role::Backup);
    // 2026-12-01T00:00:00 in UTC, said in five ways.
    let midnight = UNIX_EPOCH + Duration::from_secs(1_796_083_200);
    for text in [
        "\"2026-12-01T00:00:00Z\"",
        "\"2026-12-01T08:00:00+08:00\"",
        "\"2026-11-30T19:30:00-04:30\"",
        "2026-12-01T00:00:00Z",
        "2026-12-01t08:00:00+08:00",
    ] {
        let found = key(&format!("not_before = {text}")).unwrap();
        assert_eq!(found.window.not_before, Some(midnight), "{text}");
        let found = key(&format!("not_after = {text}")).unwrap();
        assert_eq!(found.window.not_after, Some(midnight), "{text}");
    }
    for (more, words) in [
        (
            "role = \"main\"",
            "role: \"main\" is none of \"primary\", \"backup\"",
        ),
        (
            "not_before = \"soon\"",
            "not_before: \"soon\" is not a time; write a time like",
        ),
        ("not_before = \"2026-12-01T00:00:00\"", "not_before: "),
        ("not_before = \"2026-12-01T00:00:00+25:00\"", "not_before: "),
        ("not_before = \"2026-12-01T00:00:00*08:00\"", "not_before: "),
        ("not_before = \"é26-12-01T00:00:00+0é:00\"", "not_before: "),
        (
            "not_after = 7",
            "not_after: expected a string, found a whole number",
        ),
        (
            "not_before = \"2026-12-01T00:00:00Z\", not_after = \"2026-12-01T00:00:00Z\"",
            "not_after: is not later than not_before",
        ),
    ] {
        let error = key(more).unwrap_err().to_string();
        let expected = format!("auth.push_keys[0].{words}");
        assert!(error.starts_with(&expected), "{more}: {error}");
    }
}

#[test]
fn access_lists_and_limits_name_what_is_wrong_in_them() {
    let text = r#"
        [access]
        publish = { allow = ["10.0.0.0/8", "here"], deny = [7] }
        play = { allowed = [] }
        watch = {}
        [apps.live]
        max_kbps = -1
        [limits]
        connections_per_address = 1000001
        publishers = "all"
        memory = "1MiB"
    "#;
    let expected = [
        "access.play.allowed: unknown key; known here: allow, deny",
        "access.publish.allow: \"here\" is neither a network, like \"10.0.0.0/8\" or \"fd00::/8\", nor an address",
        "access.publish.deny: expected a string, found a whole number",
        "access.watch: unknown key; known here: publish, play, control, trusted_proxies",
        "apps.live.max_kbps: -1 is not within 0 to 10000000",
        "limits.connections_per_address: 1000001 is not within 0 to 1000000",
        "limits.memory: 1048576 bytes is not within 16777216 bytes to 17592186044416 bytes; 0 is no limit",
        "limits.publishers: expected a whole number, found a string",
    ];
    assert_eq!(mistakes(text, &none()), expected);
    let keys = (0..101).map(|n| format!("{{ id = \"k{n}\", secret = \"{SECRET}{n}\" }}"));
    let text = format!(
        "[auth]\npush_keys = [{}]",
        keys.collect::<Vec<_>>().join(", ")
    );
    assert_eq!(
        mistakes(&text, &none()),
        ["auth: 101 keys; at most 100 are allowed over all sets and applications"]
    );
}

#[test]
fn keys_and_networks_that_can_never_be_of_use_are_warned_of() {
    let text = format!(
        r#"
        [auth]
        push_keys = [{{ id = "a", secret = "{SECRET}", not_after = "2020-01-01T00:00:00Z" }}]
        peer_keys = [{{ id = "b", secret = "{SECRET}peer", not_before = "2099-01-01T00:00:00Z" }}]
        [access]
        publish = {{ allow = ["10.1.0.0/16"], deny = ["10.0.0.0/8"] }}
        [limits]
        memory = "16MiB"
    "#
    );
    let found = parse(&text).unwrap().warnings();
    let found: Vec<_> = found.iter().map(Remark::to_string).collect();
    let expected = [
        "access.publish.allow: 10.1.0.0/16 is within a network that access.publish.deny names; it stays denied",
        "auth.peer_keys: none of them is valid now, so no URL that is signed with one is let in",
        "auth.peer_keys[0].secret: begins with auth.push_keys[0].secret; signatures of one can be taken for the other's",
        "auth.push_keys: none of them is valid now, so no URL that is signed with one is let in",
        "auth.push_keys[0].not_after: is past; the key opens nothing any more",
        "limits.memory: less than the two feeds of one stream may keep (twice limits.gop_bytes)",
    ];
    assert_eq!(found, expected);
}

#[test]
fn ipv4_networks_may_be_written_as_ipv6_ones_wherever_networks_are_named() {
    let text = r#"
        [access]
        publish = { allow = ["::ffff:10.0.0.0/104"], deny = ["::ffff:10.1.0.0/112"] }
        control = { deny = ["::ffff:0:0/96"] }
        trusted_proxies = ["::ffff:192.0.2.0/120"]
    "#;
    let access = parse(text).unwrap().access;
    for (list, address, admitted) in [
        (&access.publish, "10.2.0.1", true),
        (&access.publish, "::ffff:10.2.0.1", true),
        (&access.publish, "10.1.0.1", false),
        (&access.publish, "203.0.113.7", false),
        (&access.control, "127.0.0.1", false),
        (&access.control, "2001:db8::1", true),
    ] {
        let found = list.admits(address.parse().unwrap());
        assert_eq!(found, admitted, "{address} in {list:?}");
    }
    assert_eq!(access.trusted_proxies, ["192.0.2.0/24".parse().unwrap()]);
}

/// Two applications with keys and rules of their own, beside one without.
fn apps(film: &str, others: &str) -> String {
    format!(
        "[auth]\npush_keys = [{{ id = \"main\", secret = \"{SECRET}\" }}]\n\
         [apps.live]\n[apps.film]\n{film}\n[apps.\"*\"]\n{others}\n"
    )
}

#[test]
fn an_application_has_keys_and_push_rules_of_its_own() {
    let text = apps(
        "play_keys = [{ id = \"cinema\", secret = \"0123456789abcdef\", valid_for = \"1h\" }]\npeer_keys = []\n\
         [[apps.film.push]]\nmatch = \"a*\"\nfeed = \"source\"\nurl = \"rtmp://h/a/{stream}\"",
        "push = [{ match = \"*\", url = \"rtmp://h/{app}/{stream}\" }]",
    );
    let config = parse(&text).unwrap();
    let keys = &config.auth.apps;
    let film = keys.find("film").unwrap();
    let cinema = &film.play_keys.as_ref().unwrap()[0];
    assert_eq!(
        (cinema.id.as_str(), cinema.valid_for.as_secs()),
        ("cinema", 3_600)
    );
    assert_eq!(
        (&film.push_keys, &film.peer_keys),
        (&None, &Some(Vec::new()))
    );
    assert_eq!(keys.find("live"), Some(&AppKeys::default()));
    let rules: Vec<_> = config
        .push_rules()
        .map(|(path, rule)| (path, rule.app.as_str(), rule.pattern.as_str(), rule.feed))
        .collect();
    assert_eq!(
        rules,
        [
            ("apps.\"*\".push[0]".to_owned(), "*", "*", Feed::Program),
            ("apps.film.push[0]".to_owned(), "film", "a*", Feed::Source),
        ]
    );
    let env = [(
        "LINKMIC__APPS__FILM__PUSH_KEYS",
        "[{ id = \"x\", secret = \"fedcba9876543210\" }]",
    )];
    let config = Config::parse(&text, "test", &env.into_iter().collect()).unwrap();
    let film = config.auth.apps.find("film").unwrap().clone();
    assert_eq!(film.push_keys.unwrap()[0].id.as_str(), "x");
}

#[test]
fn keys_and_rules_of_applications_are_checked_as_strictly_as_those_for_all() {
    let text = apps(
        &format!(
            "push_keys = [{{ id = \"main\", secret = \"0123456789abcdef\" }}, {{ id = \"b\", secret = \"{SECRET}\" }}]\n\
             peer_keys = [{{ id = \"c\", secret = \"fedcba9876543210\", valid_for = \"1h\" }}]\n\
             push = [{{ app = \"live\", match = \"?\", url = \"http://h/a/b\" }}, {{}}]"
        ),
        "play_keys = [{ id = \"d\", secret = \"0123456789abcdef\" }]\nkeys = []",
    );
    let found = mistakes(&text, &none());
    let expected = [
        "apps.\"*\".keys: unknown key",
        "apps.\"*\".play_keys[0].secret: the same secret as apps.film.push_keys[0].secret; each key needs its own",
        "apps.film.peer_keys[0].valid_for: unknown key",
        "apps.film.push[0].app: unknown key",
        "apps.film.push[0].match: \"?\" has the character '?'",
        "apps.film.push[0].url: scheme \"http\" is neither rtmp nor rtmps",
        "apps.film.push[1].match: is missing",
        "apps.film.push[1].url: is missing",
        "apps.film.push_keys[0].id: the same id as auth.push_keys[0].id",
        "apps.film.push_keys[1].secret: the same secret as auth.push_keys[0].secret; each key needs its own",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn applications_in_which_nobody_can_publish_are_remarked() {
    let warnings = |film: &str, others: &str| {
        let config = parse(&apps(film, others)).unwrap();
        let warnings = config.warnings().into_iter();
        warnings
            .map(|remark| remark.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(warnings("", ""), [""; 0]);
    assert_eq!(
        warnings(
            "push_keys = []",
            "push = [{ match = \"*\", url = \"rtmp://h/a/b\" }]"
        ),
        [
            "apps.\"*\".push[0].url: the same for every stream that matches; put {stream} in it",
            "apps.film.push_keys: no push key holds for this application, so nobody can publish in it",
        ]
    );
    let retired = "play_keys = [{ id = \"a\", secret = \"0123456789abcdef\", not_after = \"2020-01-01T00:00:00Z\" }]";
    assert_eq!(
        warnings(retired, ""),
        [
            "apps.film.play_keys: none of them is valid now, so no URL that is signed with one is let in",
            "apps.film.play_keys[0].not_after: is past; the key opens nothing any more",
        ]
    );
}
