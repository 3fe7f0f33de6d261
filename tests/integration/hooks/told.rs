//! Callbacks and webhooks arrive: in order, signed, over TLS where it is believed, after as many tries as it takes.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use linkmic::probe::process::poll;
use linkmic::rtmp::kind;
use serde_json::{Value, json};
use sha2::Sha256;

use super::receiver::{Receiver, Reply, Request};
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::house::House;
use crate::edge::tunnel::Pair;

const SECRET: &str = "webhook-0123456789abcdef";

fn webhook(url: &str, events: &str) -> String {
    format!("[[hooks.webhooks]]\nurl = \"{url}\"\nsecret = \"{SECRET}\"\nevents = {events}\n")
}

fn account(url: &str) -> String {
    format!(
        "[[compat.accounts]]\nappid = 7\napi_key = \"0123456789abcdef\"\ncallback_url = \"{url}\"\n"
    )
}

/// Whether a request is what it says it is: computed here once more, from what came over the wire.
fn is_signed(request: &Request) -> bool {
    let field = |name: &str| request.headers[name].as_str();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    let signed = format!(
        "{}.{}.{}",
        field("webhook-id"),
        field("webhook-timestamp"),
        request.text
    );
    mac.update(signed.as_bytes());
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    field("webhook-signature") == expected && field("webhook-id") == request.json["id"]
}

fn types(requests: &[Request]) -> Vec<&str> {
    let words = requests.iter().filter_map(|r| r.json["type"].as_str());
    words.collect()
}

/// What an id counts within a run of the server.
fn number(id: &Value) -> u64 {
    let (_, number) = id.as_str().expect("an id").split_once('-').expect("a run");
    number.parse().expect("a number")
}

/// A series of the metrics page.
pub async fn metric(house: &House, series: &str) -> f64 {
    let page = house.ask("/metrics").await.body;
    let line = page.lines().find_map(|l| l.strip_prefix(series));
    let value = line.and_then(|rest| rest.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{series} is not there"))
}

#[tokio::test]
async fn callbacks_and_webhooks_go_over_tls_to_who_proves_his_name() {
    let pair = Pair::new();
    let back_end = Receiver::deciding(Some(&pair), |_, _| Reply::Says(200, "{}")).await;
    let told = account(&back_end.url("/cb"))
        + &webhook(&back_end.url("/hook"), "[\"publish\", \"unpublish\"]");
    let trusting = format!(
        "[hooks]\nca_file = \"{}\"\n{told}",
        pair.certificate().display()
    );
    let house = House::open_with("", &trusting).await;
    let publisher = Client::publish(&house.urls.push("a"))
        .await
        .expect("granted");
    back_end.wait(2).await;
    publisher.unpublish().await;
    let requests = back_end.wait(4).await;
    let of = |path: &str| -> Vec<_> {
        requests
            .iter()
            .filter(|r| r.path == path)
            .cloned()
            .collect()
    };
    let (callbacks, hooks) = (of("/cb"), of("/hook"));
    let event_types: Vec<_> = callbacks
        .iter()
        .map(|r| r.json["event_type"].clone())
        .collect();
    assert_eq!(event_types, [json!(1), json!(0)]);
    assert_eq!(types(&hooks), ["publish", "unpublish"]);
    assert!(hooks.iter().all(is_signed), "{hooks:#?}");
    let end = &hooks[1].json;
    assert_eq!((&end["app"], &end["stream"]), (&json!("live"), &json!("a")));
    assert_eq!(end["data"]["reason"], "deleted");
    assert_eq!(end["data"]["sequence"], hooks[0].json["data"]["sequence"]);
    assert!(
        !hooks[0].text.contains("txSecret=") || hooks[0].text.contains("txSecret=***"),
        "{hooks:#?}"
    );
    assert!(humantime::parse_rfc3339(end["time"].as_str().expect("a time")).is_ok());

    // A server that was not told whom to believe does not tell.
    let before = back_end.requests().len();
    let house = House::open_with("", &told).await;
    let _publisher = Client::publish(&house.urls.push("a"))
        .await
        .expect("granted");
    let failed = poll("the tries to fail", SOON, || async {
        let failures = metric(
            &house,
            "linkmic_hooks_deliveries_total{kind=\"webhook\",outcome=\"failed\"}",
        );
        (failures.await >= 1.0).then_some(())
    });
    failed.await.expect("they fail");
    assert_eq!(back_end.requests().len(), before);
}

#[tokio::test]
async fn what_is_refused_or_redirected_comes_again_and_in_order() {
    let back_end = Receiver::deciding(None, |_, before| match before {
        0 => Reply::Says(503, ""),
        1 => Reply::Says(302, ""),
        _ => Reply::Says(204, ""),
    })
    .await;
    let house = House::open_with(
        "",
        &webhook(&back_end.url("/"), "[\"publish\", \"unpublish\"]"),
    )
    .await;
    for _ in 0..3 {
        let publisher = Client::publish(&house.urls.push("a"))
            .await
            .expect("granted");
        publisher.unpublish().await;
    }
    let requests = back_end.wait(8).await;
    let ids: Vec<_> = requests.iter().map(|r| &r.json["id"]).collect();
    assert_eq!(
        (ids[0], ids[1]),
        (ids[1], ids[2]),
        "the first one came three times"
    );
    let taken = &requests[2..];
    assert_eq!(types(taken), ["publish", "unpublish"].repeat(3));
    assert!(requests.iter().all(is_signed));
    assert!(
        taken
            .windows(2)
            .all(|two| number(&two[0].json["id"]) < number(&two[1].json["id"]))
    );
    assert_eq!(
        metric(&house, "linkmic_hooks_outbox_letters{state=\"waiting\"}").await,
        0.0
    );
    let delivered = "linkmic_hooks_deliveries_total{kind=\"webhook\",outcome=\"delivered\"}";
    assert_eq!(metric(&house, delivered).await, 6.0);
}

#[tokio::test]
async fn who_does_not_answer_holds_up_nobody_else() {
    let silent = Receiver::deciding(None, |_, _| Reply::Silence).await;
    let good = Receiver::open().await;
    let events = "[\"publish\", \"unpublish\"]";
    let hooks = webhook(&silent.url("/"), events) + &webhook(&good.url("/"), events);
    let house = House::open_with("", &hooks).await;
    // More streams than letters that are on their way at once.
    for n in 0..40 {
        let publisher = Client::publish(&house.urls.push(&format!("s{n}")))
            .await
            .expect("granted");
        drop(publisher);
    }
    let begin = std::time::Instant::now();
    good.wait(80).await;
    // Long before the silent one's time is up.
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
    assert!(silent.requests().len() <= 8, "{}", silent.requests().len());
    assert!(metric(&house, "linkmic_hooks_outbox_letters{state=\"waiting\"}").await >= 80.0);
}

#[tokio::test]
async fn a_webhook_is_told_of_players_and_pushes_where_it_wants_them() {
    let back_end = Receiver::open().await;
    let house = House::open_with(
        "",
        &webhook(&back_end.url("/"), "[\"publish\", \"play\", \"push\"]"),
    )
    .await;
    let mut publisher = Client::publish(&house.urls.push("a"))
        .await
        .expect("granted");
    // A header and a picture: without any there is nothing to push.
    for packet_type in [0, 1] {
        let picture = vec![0x17, packet_type, 0, 0, 0, 1];
        publisher.send(kind::VIDEO, 0, picture).await;
    }
    let _player = Client::play(&house.urls.peer("a")).await.expect("granted");
    let push =
        json!({"app": "live", "stream": "a", "url": "rtmp://127.0.0.1:1/live/a?key=hunter2"});
    let put = house
        .control()
        .put("/api/v1/pushes/cdn", &push)
        .await
        .expect("an answer");
    assert!(put.is_success(), "{put:?}");
    let told = |requests: &[Request]| {
        let find = |word: &str, field: &str, value: &str| {
            let of = |r: &&Request| r.json["type"] == word && r.json["data"][field] == value;
            requests.iter().find(of).map(|r| r.json.clone())
        };
        Some((
            find("play", "feed", "source")?,
            find("push", "state", "backoff")?,
        ))
    };
    let (play, push) = back_end.until("a player and a push that fails", told).await;
    // What is about one stream comes in the order of its ids, whoever told it.
    let numbers: Vec<u64> = back_end
        .requests()
        .iter()
        .map(|r| number(&r.json["id"]))
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(back_end.requests()[0].json["type"], "publish");
    assert_eq!(play["data"]["class"], "low_latency");
    assert_eq!(play["data"]["address"], "127.0.0.1");
    assert_eq!(
        (&push["stream"], &push["data"]["push"]),
        (&json!("a"), &json!("cdn"))
    );
    assert!(
        back_end
            .requests()
            .iter()
            .all(|r| is_signed(r) && !r.text.contains("hunter2"))
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_publisher_is_called_back_between_its_start_and_its_end() {
    let back_end = Receiver::open().await;
    let house = House::open_with("", &account(&back_end.url("/cb"))).await;
    let url = house.urls.push("a");
    let mut publisher = Client::publish(&url).await.expect("granted");
    publisher
        .send(kind::VIDEO, 0, vec![0x17, 0, 0, 0, 0, 1])
        .await;
    let exception = |all: &[Request]| {
        let found = all.iter().find(|r| r.json["event_type"] == 321);
        found.map(|r| r.json.clone())
    };
    // Twenty pictures a second, of which the third is older than the second, until the first report is due and told.
    let mut told = None;
    for n in 0..600_u32 {
        told = exception(&back_end.requests());
        if told.is_some() {
            break;
        }
        let picture = if n % 40 == 0 { 0x17 } else { 0x27 };
        let time = if n == 2 { 20 } else { n * 50 };
        publisher
            .send(kind::VIDEO, time, vec![picture, 1, 0, 0, 0, 1])
            .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = told.expect("it is told of");
    publisher.unpublish().await;
    let all = back_end.wait(3).await;
    let event_types: Vec<_> = all.iter().map(|r| r.json["event_type"].clone()).collect();
    assert_eq!(
        (&event_types[0], event_types.last()),
        (&json!(1), Some(&json!(0)))
    );
    assert_eq!(told["sequence"], all[0].json["sequence"]);
    for (field, value) in [
        ("stream_id", json!("a")),
        ("path", json!("live")),
        ("user_ip", json!("127.0.0.1")),
        ("report_interval", json!(5_000)),
        (
            "stream_param",
            json!(url.split_once('?').expect("a query").1),
        ),
    ] {
        assert_eq!(told[field], value, "{told}");
    }
    for field in ["t", "data_time"] {
        assert!(told[field].is_u64(), "{field}: {told}");
    }
    let found = told["abnormal_event"].as_array().expect("a list");
    let back = found
        .iter()
        .find(|one| one["type"] == 1)
        .expect("it is found");
    assert_eq!(
        (&back["count"], &back["detail"][0]["desc"]),
        (&json!(1), &json!("from 50 to 20 ms"))
    );
    assert!(back["detail"][0]["occur_time"].as_u64() <= told["data_time"].as_u64());
}

#[cfg(feature = "mixer")]
#[tokio::test]
async fn a_webhook_is_told_of_mixes_in_the_order_in_which_they_change() {
    let back_end = Receiver::open().await;
    let house = House::open_with("", &webhook(&back_end.url("/"), "[\"mix\", \"input\"]")).await;
    let scene = json!({"app": "live", "inputs": [{"stream": "a", "layer": 1}, {"stream": "b", "layer": 2}], "output": {"stream": "m"}});
    let put = house
        .control()
        .put("/api/v1/mixes/duet", &scene)
        .await
        .expect("an answer");
    assert!(put.is_success(), "{put:?}");
    let deleted = house
        .control()
        .delete("/api/v1/mixes/duet")
        .await
        .expect("an answer");
    assert!(deleted.is_success(), "{deleted:?}");
    let ended = |all: &[Request]| {
        let last = all.last()?;
        (last.json["data"]["change"] == "ended").then(|| all.to_vec())
    };
    let all = back_end.until("the end of the mix", ended).await;
    assert_eq!(all[0].json["data"]["change"], "started");
    for request in &all {
        assert_eq!(
            (&request.json["stream"], &request.json["data"]["mix"]),
            (&json!("m"), &json!("duet"))
        );
        assert!(is_signed(request));
    }
}
