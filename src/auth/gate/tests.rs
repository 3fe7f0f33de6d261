use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::*;
use crate::auth::{Access, Config, Key, KeyId, Scope, Secret, sign};
use crate::media::StreamKey;

const SECRET: &str = "f3313e36c611150119f5d04ff1225b3e";

struct House {
    gate: Gate,
    memory: Memory,
}

fn house(rules: Rules) -> House {
    let memory = Memory::default();
    let policy = Policy::new(Config {
        push_keys: vec![Key::new(KeyId::new("main"), Secret::new(SECRET))],
        push: Access::Open,
        ..Config::default()
    });
    House {
        gate: Gate::new(Arc::new(policy), rules, memory.clone()),
        memory,
    }
}

impl House {
    async fn come(
        &self,
        action: Action,
        name: &str,
        peer: &str,
        query: &str,
    ) -> Result<Stay, Refusal> {
        let request = Request {
            connection: None,
            action,
            key: &StreamKey::new("live", name).unwrap(),
            query,
            peer: SocketAddr::new(peer.parse().unwrap(), 1),
            now: SystemTime::now(),
        };
        let grant = self.gate.authorize(&request).await?;
        self.gate.admit(&request, &grant)
    }

    async fn publish(&self, name: &str, peer: &str) -> Result<Stay, Refusal> {
        self.come(Action::Publish, name, peer, "").await
    }

    async fn play(&self, name: &str, peer: &str) -> Result<Stay, Refusal> {
        self.come(Action::Play, name, peer, "").await
    }
}

fn signed(name: &str) -> String {
    let secret = sign(&Secret::new(SECRET), name, "7FFFFFFF");
    format!("txSecret={secret}&txTime=7FFFFFFF")
}

fn ban(id: BanId, kind: &str, text: &str, scope: Scope) -> Ban {
    Ban {
        id,
        subject: Subject::parse(kind, text).unwrap(),
        scope,
        created_at: SystemTime::now(),
        expires_at: None,
        note: "never told to a client".into(),
    }
}

async fn is_over(stay: &Stay) -> bool {
    tokio::time::timeout(Duration::ZERO, stay.ended())
        .await
        .is_ok()
}

fn reason<T>(result: Result<T, Refusal>) -> Option<Reason> {
    result.err().map(|refusal| refusal.reason)
}

#[tokio::test]
async fn lists_hold_for_their_own_action_also_against_a_good_signature() {
    let nets = |text: &str| vec![text.parse().unwrap()];
    let house = house(Rules {
        publish: AddressList {
            allow: nets("10.0.0.0/8"),
            deny: nets("10.9.0.0/16"),
        },
        play: AddressList {
            allow: vec![],
            deny: nets("192.0.2.0/24"),
        },
        control: AddressList {
            allow: nets("127.0.0.0/8"),
            deny: vec![],
        },
        ..Rules::default()
    });
    for (peer, may_publish, may_play) in [
        ("10.1.1.1", true, true),
        ("10.9.1.1", false, true),
        ("192.0.2.1", false, false),
        ("198.51.100.1", false, true),
    ] {
        let publish = house.come(Action::Publish, "a", peer, &signed("a")).await;
        assert_eq!(publish.is_ok(), may_publish, "{peer}");
        let play = house.come(Action::Play, "a", peer, &signed("a")).await;
        assert_eq!(play.is_ok(), may_play, "{peer}");
        for result in [publish, play] {
            assert!(matches!(reason(result), None | Some(Reason::AddressDenied)));
        }
    }
    assert!(house.gate.admits_control("127.0.0.1".parse().unwrap()));
    assert!(!house.gate.admits_control("192.0.2.1".parse().unwrap()));
    house.gate.set_rules(Rules::default());
    assert!(house.publish("a", "192.0.2.1").await.is_ok());
}

#[tokio::test]
async fn a_new_ban_ends_those_it_concerns_and_refuses_them_from_then_on() {
    let house = house(Rules::default());
    let anchor = house.publish("a", "192.0.2.1").await.unwrap();
    let viewer = house.play("a", "192.0.2.2").await.unwrap();
    let signed_viewer = house
        .come(Action::Play, "b", "192.0.2.3", &signed("b"))
        .await
        .unwrap();
    let other = house.play("b", "192.0.2.4").await.unwrap();

    let ended = house.gate.ban(ban(1, "stream", "live/a", Scope::Publish));
    assert_eq!(
        ended,
        Ended {
            publishers: 1,
            players: 0
        }
    );
    assert!(is_over(&anchor).await && !is_over(&viewer).await);
    let refusal = house.publish("a", "192.0.2.9").await.unwrap_err();
    assert_eq!(
        (refusal.reason, refusal.message.as_str()),
        (Reason::Forbidden, "this stream is forbidden")
    );
    assert!(house.play("a", "192.0.2.9").await.is_ok());

    let ended = house.gate.ban(ban(2, "address", "192.0.2.2", Scope::Both));
    assert_eq!(
        ended,
        Ended {
            publishers: 0,
            players: 1
        }
    );
    assert!(is_over(&viewer).await);
    assert_eq!(
        reason(house.play("b", "192.0.2.2").await),
        Some(Reason::AddressDenied)
    );

    let ended = house.gate.ban(ban(3, "key", "main", Scope::Both));
    assert_eq!(
        ended,
        Ended {
            publishers: 0,
            players: 1
        }
    );
    assert!(is_over(&signed_viewer).await && !is_over(&other).await);
    let again = house
        .come(Action::Play, "b", "192.0.2.3", &signed("b"))
        .await;
    assert_eq!(reason(again), Some(Reason::Forbidden));
    assert!(
        house.play("b", "192.0.2.3").await.is_ok(),
        "unsigned, it came with no key"
    );

    for id in 1..=3 {
        assert_eq!(house.gate.pardon(id).map(|ban| ban.id), Some(id));
    }
    assert_eq!(house.gate.pardon(1), None);
    assert!(house.publish("a", "192.0.2.2").await.is_ok());
}

#[tokio::test]
async fn a_ban_between_decision_and_admission_is_not_slipped_past() {
    let house = house(Rules::default());
    let key = StreamKey::new("live", "a").unwrap();
    let request = Request {
        connection: None,
        action: Action::Publish,
        key: &key,
        query: "",
        peer: "192.0.2.1:1".parse().unwrap(),
        now: SystemTime::now(),
    };
    let grant = house.gate.authorize(&request).await.unwrap();
    house.gate.ban(ban(1, "stream", "live/a", Scope::Both));
    assert_eq!(
        reason(house.gate.admit(&request, &grant)),
        Some(Reason::Forbidden)
    );
}

#[tokio::test]
async fn publishers_are_bounded_in_total_and_per_address_and_players_are_not() {
    let limits = GuestLimits {
        publishers: 3,
        publishers_per_address: 2,
    };
    let house = house(Rules {
        limits,
        ..Rules::default()
    });
    // Two addresses of one /64 are one client.
    let first = house.publish("a", "2001:db8::1").await.unwrap();
    let _second = house.publish("b", "2001:db8::2").await.unwrap();
    let refusal = house.publish("c", "2001:db8::3").await.unwrap_err();
    assert_eq!(refusal.reason, Reason::LimitReached);
    assert_eq!(
        refusal.message,
        "2 publishers from your address are here, as many as there may be"
    );
    let _third = house.publish("c", "192.0.2.1").await.unwrap();
    let refusal = house.publish("d", "192.0.2.2").await.unwrap_err();
    assert_eq!(
        refusal.message,
        "3 publishers are here, as many as there may be"
    );
    let mut players = Vec::new();
    for _ in 0..10 {
        players.push(house.play("a", "192.0.2.1").await.unwrap());
    }
    drop(first);
    assert!(house.publish("d", "192.0.2.2").await.is_ok());
    assert_eq!(house.gate.refused(), [1, 1, 0, 0, 0]);
}

#[tokio::test]
async fn nobody_comes_in_while_memory_is_full() {
    let house = house(Rules::default());
    house.memory.limit_to(1_000);
    let mut charge = house.memory.open();
    charge.set(1_001);
    for action in [Action::Publish, Action::Play] {
        let refused = house.come(action, "a", "192.0.2.1", "").await;
        assert_eq!(reason(refused), Some(Reason::Overloaded));
    }
    charge.set(1_000);
    assert!(house.publish("a", "192.0.2.1").await.is_ok());
    assert_eq!(house.gate.refused(), [0, 0, 2, 0, 0]);
}

#[tokio::test]
async fn nothing_is_kept_of_guests_who_left() {
    let house = house(Rules::default());
    for n in 0..100 {
        let _ = house
            .publish(&format!("a{n}"), &format!("192.0.2.{n}"))
            .await
            .unwrap();
        let _ = house
            .play(&format!("a{n}"), &format!("192.0.2.{n}"))
            .await
            .unwrap();
    }
    let ended = house.gate.ban(ban(1, "stream", "live/*", Scope::Both));
    assert_eq!(ended, Ended::default());
}
