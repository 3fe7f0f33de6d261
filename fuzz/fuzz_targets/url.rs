//! URLs come apart and go together again; no query opens a door without a signature, or is repeated in a refusal.
#![no_main]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use linkmic::auth::{Action, Config, Grant, Key, KeyId, Policy, Request, Secret};
use linkmic::media::{Feed, StreamKey};
use linkmic::rtmp::url::{Target, app_of, app_of_tc_url, query_of_tc_url, split_name};

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let key = |id: &str, secret: &str| Key::new(KeyId::new(id), Secret::new(secret));
    Policy::new(Config {
        push_keys: vec![key("push", "a1b2c3d4e5f60718293a4b5c6d7e8f90")],
        peer_keys: vec![key("peer", "b1b2c3d4e5f60718293a4b5c6d7e8f90")],
        play_keys: vec![key("play", "c1b2c3d4e5f60718293a4b5c6d7e8f90")],
        ..Config::default()
    })
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(target) = Target::parse(text) {
        let again = format!("{}/{}", target.tc_url(), target.name_with_query());
        assert_eq!(
            Target::parse(&again).as_ref(),
            Ok(&target),
            "put together again"
        );
        let shown = format!("{target} {target:?}");
        assert!(
            target.query.is_empty() || shown.matches("?***").count() == 2,
            "{shown}"
        );
    }
    app_of(text);
    app_of_tc_url(text);
    query_of_tc_url(text);
    let (name, query) = split_name(text);
    let Ok(key) = StreamKey::new("live", name) else {
        return;
    };
    for action in [Action::Publish, Action::Play] {
        let request = Request {
            connection: None,
            action,
            key: &key,
            query,
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            now: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        };
        match POLICY.decide(&request) {
            Ok(
                Grant::Publish { .. }
                | Grant::Play {
                    feed: Feed::Source | Feed::Program,
                    ..
                },
            ) => {
                panic!("granted without a signature")
            }
            Err(refusal) => {
                // Long enough, and no sentence: not to be found there by chance.
                let word = |part: &&str| {
                    part.len() >= 16 && part.bytes().all(|b| b.is_ascii_alphanumeric())
                };
                for part in query.split(['&', '=']).filter(word) {
                    assert!(!refusal.message.contains(part), "the query is repeated");
                }
            }
        }
    }
});
