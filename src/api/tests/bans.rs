//! Bans and keys through the API: what is kept, what is refused, and who hears of it.

use std::net::SocketAddr;
use std::task::Poll;
use std::time::SystemTime;

use super::*;
use crate::auth::{Action, Authorizer, Grant, Refusal, Request as Asked, Stay, signed_query};

impl House {
    async fn come(
        &self,
        action: Action,
        name: &str,
        query: &str,
    ) -> Result<(Grant, Stay), Refusal> {
        let request = Asked {
            connection: None,
            action,
            key: &StreamKey::new("live", name).unwrap(),
            query,
            peer: SocketAddr::from(([203, 0, 113, 7], 1)),
            now: SystemTime::now(),
        };
        let grant = self.gate.authorize(&request).await?;
        let stay = self.gate.admit(&request, &grant)?;
        Ok((grant, stay))
    }

    async fn publish(&self, name: &str) -> Result<(Grant, Stay), Refusal> {
        let until = SystemTime::now() + Duration::from_secs(60);
        let query = signed_query(&Secret::new(PUSH_KEY), name, until);
        self.come(Action::Publish, name, &query).await
    }
}

#[tokio::test]
async fn a_ban_holds_from_its_answer_on_and_until_it_is_deleted() {
    let (house, client) = open(None).await;
    let (_, anchor) = house.publish("a").await.unwrap();
    let body = json!({"stream": "live/a", "action": "publish", "expires_in": "1h", "note": "spam"});
    let made = client.post("/api/v1/bans", &body).await;
    assert_eq!(made.status, 201);
    let made = made.json();
    assert_eq!(made["ended"], json!({"publishers": 1, "players": 0}));
    let told = tokio::time::timeout(Duration::from_secs(30), anchor.ended()).await;
    told.expect("it is told to go");
    assert!(house.publish("a").await.is_err());
    assert!(house.publish("b").await.is_ok());

    // The same again is the same ban; what it ended it ends once.
    let again = client.post("/api/v1/bans", &body).await;
    assert_eq!(again.status, 200);
    let again = again.json();
    assert_eq!(
        (&again["id"], &again["created_at"]),
        (&made["id"], &made["created_at"])
    );
    assert_eq!(again["ended"]["publishers"], 0);
    let listed = client.call("GET", "/api/v1/bans", "").await.json();
    assert_eq!(listed["bans"].as_array().unwrap().len(), 1);

    let path = format!("/api/v1/bans/{}", made["id"]);
    let deleted = client.call("DELETE", &path, "").await;
    assert_eq!(
        (deleted.status, &deleted.json()["note"]),
        (200, &json!("spam"))
    );
    assert!(house.publish("a").await.is_ok());
    for method in ["GET", "DELETE"] {
        is_error(&client.call(method, &path, "").await, 404, "not_found");
    }
}

/// What was on the disk when it was read, beside what is in force: the streams that are banned.
async fn kept_and_held(house: &House, client: &Client) -> (Vec<String>, Vec<String>) {
    let listed = client.call("GET", "/api/v1/bans", "").await.json();
    let mut held: Vec<String> = listed["bans"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ban| ban["stream"].as_str().unwrap().to_owned())
        .collect();
    let rows = house.store.bans(0).await.unwrap();
    let mut kept: Vec<String> = rows.into_iter().map(|row| row.subject).collect();
    kept.sort();
    held.sort();
    (kept, held)
}

#[tokio::test]
async fn a_caller_who_hangs_up_leaves_no_change_half_made() {
    let (house, client) = open(None).await;
    let hang_up = async |method: &str, path: &str, body: String, polls: usize| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Body::from(body))
            .unwrap();
        let mut answer = Box::pin(house.router.clone().oneshot(request));
        for _ in 0..polls {
            // Once, and then again when something may have come of it; dropped at whatever await it stands.
            if std::future::poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx).is_ready())).await {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    for n in 0..40 {
        let body = json!({"stream": format!("live/{n}")}).to_string();
        hang_up("POST", "/api/v1/bans", body, n % 4 + 1).await;
    }
    // Whatever was begun is before this one: changes come one after the other.
    let settle = json!({"stream": "live/last"});
    assert_eq!(client.post("/api/v1/bans", &settle).await.status, 201);
    let (kept, held) = kept_and_held(&house, &client).await;
    assert_eq!(kept, held, "banned");
    assert!(kept.len() > 30, "{kept:?}");

    for (n, id) in house.gate.bans().iter().map(|ban| ban.id).enumerate() {
        hang_up(
            "DELETE",
            &format!("/api/v1/bans/{id}"),
            String::new(),
            n % 4 + 1,
        )
        .await;
    }
    assert_eq!(
        client
            .post("/api/v1/bans", &json!({"stream": "live/x"}))
            .await
            .status,
        201
    );
    let (kept, held) = kept_and_held(&house, &client).await;
    assert_eq!(kept, held, "lifted");
    assert!(kept.len() < 10, "{kept:?}");
}

#[tokio::test]
async fn a_change_that_the_disk_does_not_take_is_said_to_have_failed_and_does_not_hold() {
    let (house, client) = open(None).await;
    let kept = client
        .post("/api/v1/bans", &json!({"stream": "live/kept"}))
        .await;
    house.store.refuse_commits().await;
    for name in ["a", "b", "a"] {
        let answer = client
            .post("/api/v1/bans", &json!({"stream": format!("live/{name}")}))
            .await;
        is_error(&answer, 503, "storage");
        assert!(house.publish(name).await.is_ok());
    }
    let path = format!("/api/v1/bans/{}", kept.json()["id"]);
    is_error(&client.call("DELETE", &path, "").await, 503, "storage");
    assert!(house.publish("kept").await.is_err());
    let (kept, held) = kept_and_held(&house, &client).await;
    assert_eq!(
        (&kept[..], &held[..]),
        (&["live/kept".to_owned()][..], &["live/kept".to_owned()][..])
    );
}

#[tokio::test]
async fn a_start_on_a_full_disk_has_the_bans_that_hold() {
    let (house, client) = open(None).await;
    for (name, term) in [("short", json!("1s")), ("long", json!(null))] {
        let ban = json!({"stream": format!("live/{name}"), "expires_in": term});
        assert_eq!(client.post("/api/v1/bans", &ban).await.status, 201);
    }
    house.store.refuse_commits().await;
    // The first has ended by then, and cannot be removed.
    let later = SystemTime::now() + Duration::from_secs(2);
    house.gate.set_bans(crate::auth::Bans::default());
    Bans::load_at(later, house.store.clone(), house.gate.clone())
        .await
        .unwrap();
    let held = house.gate.bans();
    let held: Vec<_> = held.iter().map(|ban| ban.subject.to_string()).collect();
    assert_eq!(held, ["live/long"]);
    assert_eq!(house.store.bans(0).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_verified_url_tells_of_bans_of_its_stream_and_key() {
    let (_house, client) = open(None).await;
    let sign = json!({"action": "push", "app": "live", "stream": "a", "expires_in": "1h"});
    let signed = client.post("/api/v1/urls/sign", &sign).await.json();
    for (ban, reason) in [
        (json!({"key": "main"}), "forbidden"),
        (json!({"stream": "live/*"}), "forbidden"),
    ] {
        let made = client.post("/api/v1/bans", &ban).await.json();
        let asked = json!({"url": signed["url"]});
        let verdict = client.post("/api/v1/urls/verify", &asked).await.json();
        assert_eq!(verdict["publish"]["reason"], reason, "{verdict}");
        client
            .call("DELETE", &format!("/api/v1/bans/{}", made["id"]), "")
            .await;
    }
}

#[tokio::test]
async fn a_ban_that_makes_no_sense_is_refused_with_the_path_of_what_is_wrong() {
    let (_house, client) = open(None).await;
    for (body, words) in [
        (json!({}), "exactly one of stream, address and key"),
        (
            json!({"stream": "live/a", "key": "main"}),
            "exactly one of stream, address and key",
        ),
        (
            json!({"stream": "live"}),
            "stream: \"live\" is neither app/name nor app/*",
        ),
        (
            json!({"stream": "film/a"}),
            "stream: no application \"film\" is configured",
        ),
        (
            json!({"address": "203.0.113.7/33"}),
            "address: \"203.0.113.7/33\" is neither an address nor a network",
        ),
        (
            json!(["live/a", null, null, "both", "1h", ""]),
            "invalid type: sequence, expected an object",
        ),
        (
            json!({"key": "other"}),
            "key: no key has the id \"other\"; there are: main, viewers",
        ),
        (json!({"key": 7}), "key: invalid type"),
        (
            json!({"stream": "live/a", "action": "watch"}),
            "action: unknown variant",
        ),
        (
            json!({"stream": "live/a", "expires_in": "soon"}),
            "expires_in: ",
        ),
        (
            json!({"stream": "live/a", "expires_in": "0s"}),
            "expires_in: 0s is not within 1s to 10years",
        ),
        (
            json!({"stream": "live/a", "expires_in": "11years"}),
            "expires_in: 11years is not within 1s to 10years",
        ),
        (
            json!({"stream": "live/a", "note": "x".repeat(501)}),
            "note: 501 bytes exceed the limit of 500",
        ),
        (
            json!({"stream": "live/a", "until": "1h"}),
            "until: unknown field",
        ),
    ] {
        let answer = client.post("/api/v1/bans", &body).await;
        is_error(&answer, 400, "invalid");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with(words), "{body}: {message}");
    }
    let answer = client.call("DELETE", "/api/v1/bans/first", "").await;
    is_error(&answer, 400, "invalid");
    assert_eq!(
        client.call("GET", "/api/v1/bans", "").await.json(),
        json!({"bans": []})
    );
}

#[tokio::test]
async fn an_id_that_stands_in_several_sets_is_told_once() {
    let (house, client) = open(None).await;
    let key = |id: &str, n: u32| Key::new(KeyId::new(id), Secret::new(format!("secret-{n:025}")));
    house.policy.rotate(auth::Config {
        push_keys: vec![key("main", 1), key("old", 2)],
        play_keys: vec![key("main", 3), key("old", 4)],
        ..auth::Config::default()
    });
    let answer = client.post("/api/v1/bans", &json!({"key": "new"})).await;
    is_error(&answer, 400, "invalid");
    let message = answer.json()["message"].clone();
    assert_eq!(
        message,
        "key: no key has the id \"new\"; there are: main, old"
    );
}

#[tokio::test]
async fn the_use_that_is_made_of_a_key_is_counted_and_its_secret_never_shown() {
    let (house, client) = open(None).await;
    for _ in 0..3 {
        let _ = house.publish("a").await.unwrap();
    }
    let page = client.call("GET", "/metrics", "").await.body;
    let line = "linkmic_auth_key_hits_total{key=\"main\",set=\"push\"} 3";
    assert!(page.contains(line), "{page}");
    let keys = client.call("GET", "/api/v1/auth/keys", "").await;
    assert!(!keys.body.contains(PUSH_KEY) && !keys.body.contains(PLAY_KEY));
    let keys = keys.json()["keys"].clone();
    assert_eq!(
        (&keys[0]["id"], &keys[0]["hits"]),
        (&json!("main"), &json!(3))
    );
    assert!(keys[0]["last_used"].is_string());
    assert_eq!(
        (&keys[1]["id"], &keys[1]["hits"], &keys[1]["last_used"]),
        (&json!("viewers"), &json!(0), &Value::Null)
    );
}

#[tokio::test]
async fn an_address_that_may_not_call_is_refused_whatever_its_token() {
    let (house, client) = open(None).await;
    let mut rules = Rules::default();
    rules.control.deny = vec!["127.0.0.0/8".parse().unwrap()];
    house.gate.set_rules(rules);
    for path in ["/api/v1/bans", "/metrics"] {
        is_error(&client.call("GET", path, "").await, 403, "address_denied");
    }
    assert_eq!(client.call("GET", "/healthz", "").await.status, 200);
    house.gate.set_rules(Rules::default());
    assert_eq!(client.call("GET", "/api/v1/bans", "").await.status, 200);
}
