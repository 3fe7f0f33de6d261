//! Applications with keys and push rules of their own, on one server.

use std::path::Path;
use std::time::{Duration, SystemTime};

use linkmic::auth::{Secret, signed_query};
use linkmic::config::{Config, Env};
use linkmic::probe::process::poll;

use super::SOON;
use super::client::Client;
use super::house::{House, PUSH_KEY, configuration};

const FILM_KEY: &str = "film-0123456789abcdef";
const NEXT_KEY: &str = "next-0123456789abcdef";

/// `film` has the push key `secret` of its own; `live` has those for all.
fn sections(secret: &str) -> String {
    // Port 1: nobody is there, which a rule's target does not mind.
    format!(
        "[apps.live]\n[apps.film]\npush_keys = [{{ id = \"film\", secret = \"{secret}\" }}]\n\
         [[apps.film.push]]\nmatch = \"*\"\nurl = \"rtmp://127.0.0.1:1/cdn/{{stream}}\"\n\
         [[push.rules]]\napp = \"film\"\nmatch = \"a*\"\nurl = \"rtmp://127.0.0.1:1/all/{{stream}}\"\n"
    )
}

async fn publish(house: &House, app: &str, name: &str, secret: &str) -> Option<Client> {
    let until = SystemTime::now() + Duration::from_secs(3600);
    let query = signed_query(&Secret::new(secret), name, until);
    let url = format!("rtmp://{}/{app}/{name}?{query}", house.urls.rtmp());
    Client::publish(&url).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_applications_own_keys_open_it_and_nothing_else_also_after_a_reload() {
    let house = House::open_with("", &sections(FILM_KEY)).await;
    let mut held = Vec::new();
    for (app, secret, granted) in [
        ("film", FILM_KEY, true),
        ("film", PUSH_KEY, false),
        ("live", PUSH_KEY, true),
        ("live", FILM_KEY, false),
    ] {
        let client = publish(&house, app, "a", secret).await;
        assert_eq!(client.is_some(), granted, "{app} {secret}");
        held.extend(client);
    }
    let text = configuration(Path::new("/nonexistent"), "", &sections(NEXT_KEY));
    let next = Config::parse(&text, "test", &Env::default()).expect("a configuration");
    let report = house.server.reload(next);
    assert_eq!(report.applied, ["apps.film.push_keys"]);
    for (app, secret, granted) in [
        ("film", NEXT_KEY, true),
        ("film", FILM_KEY, false),
        ("live", PUSH_KEY, true),
        ("live", NEXT_KEY, false),
    ] {
        let client = publish(&house, app, "b", secret).await;
        assert_eq!(client.is_some(), granted, "{app} {secret}");
    }
    let keys = house.ask("/api/v1/auth/keys").await.json();
    let film = &keys["keys"][1];
    assert_eq!((&film["app"], &film["hits"]), (&"film".into(), &2.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_pushed_by_the_rules_of_their_application_and_by_those_for_all() {
    let house = House::open_with("", &sections(FILM_KEY)).await;
    let mut held = Vec::new();
    for (app, name, secret) in [
        ("film", "a", FILM_KEY),
        ("film", "b", FILM_KEY),
        ("live", "a", PUSH_KEY),
    ] {
        held.push(publish(&house, app, name, secret).await.expect("granted"));
    }
    let expected = [
        ("film", "a", "rtmp://127.0.0.1:1/all/a"),
        ("film", "a", "rtmp://127.0.0.1:1/cdn/a"),
        ("film", "b", "rtmp://127.0.0.1:1/cdn/b"),
    ];
    let mut found = Vec::new();
    let seen = poll("three targets", SOON, || {
        let pushes = house.ask("/api/v1/pushes");
        async {
            let pushes = pushes.await.json()["pushes"].as_array().cloned()?;
            (pushes.len() == expected.len()).then_some(pushes)
        }
    });
    for push in seen.await.expect("they are there") {
        let text = |field: &str| push[field].as_str().expect("a text").to_owned();
        found.push((text("app"), text("stream"), text("url")));
    }
    found.sort();
    let expected = expected.map(|(app, name, url)| (app.into(), name.into(), url.into()));
    assert_eq!(found, expected);
}
