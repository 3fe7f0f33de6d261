//! Targets inside TLS: every byte arrives, and who cannot prove the name is not pushed to.

use serde_json::json;

use super::stage::{Program, Recording, nothing_is_missing, on_air, put, until};
use crate::edge::house::{BURST, House};
use crate::edge::tunnel::Pair;

const MBIT: usize = 1_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_inside_tls_gets_every_byte_if_it_proves_its_name() {
    let pair = Pair::new();
    let target = House::open_edited("", BURST, |text| text + &pair.section()).await;
    let trusting = format!("[push]\nca_file = \"{}\"", pair.certificate().display());
    let house = House::open_with("", &trusting).await;
    let program = Program::start(&house.urls.push("a"), MBIT).await;
    on_air(&house, "a").await;
    let port = target.server.rtmps_addr().expect("it listens").port();
    let plain = format!("rtmp://{}", target.urls.rtmp());
    let push = target.urls.push("a");
    let by = |host: &str| push.replacen(&plain, &format!("rtmps://{host}:{port}"), 1);

    // The certificate is for localhost.
    put(&house, "address", &by("127.0.0.1"), json!({})).await;
    let refused = until(house.control(), "address", "it is not believed", |p| {
        p["state"] == "backoff"
    })
    .await;
    let words = refused["last_error"].as_str().expect("a reason");
    assert!(
        words.starts_with("TLS failed: ") && words.contains("not valid for name"),
        "{words}"
    );
    assert_eq!(refused["bytes"], 0);

    put(&house, "cdn", &by("localhost"), json!({})).await;
    on_air(&target, "a").await;
    let recording = Recording::of(&target.urls.plain("a")).await;
    recording.upto(50).await;
    let live = until(house.control(), "cdn", "it is told", |p| {
        p["bytes"].as_u64() > Some(0)
    })
    .await;
    assert!(
        live["url"]
            .as_str()
            .is_some_and(|url| url.starts_with("rtmps://localhost:")),
        "{live}"
    );
    let sent = program.finish().await;
    nothing_is_missing(&recording.whole().await, &sent);

    // A server that was not told whom to believe does not believe it.
    let house = House::open().await;
    let _program = Program::start(&house.urls.push("a"), MBIT).await;
    put(&house, "cdn", &by("localhost"), json!({})).await;
    let refused = until(house.control(), "cdn", "it is not believed", |p| {
        p["state"] == "backoff"
    })
    .await;
    let words = refused["last_error"].as_str().expect("a reason");
    assert!(words.starts_with("TLS failed: "), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_target_inside_tls_is_no_dead_one() {
    use super::narrow::Narrow;
    use crate::edge::throttle::Flow;

    let pair = Pair::new();
    let target = House::open_edited("", BURST, |text| text + &pair.section()).await;
    let trusting = format!("[push]\nca_file = \"{}\"", pair.certificate().display());
    let house = House::open_with("", &trusting).await;
    let _program = Program::start(&house.urls.push("a"), MBIT).await;
    let rtmps = target.server.rtmps_addr().expect("it listens");
    let narrow = Narrow::before(rtmps, Flow::Rate(12_500)).await;
    let url = target.urls.push("a").replacen(
        &format!("rtmp://{}", target.urls.rtmp()),
        &format!("rtmps://{rtmps}"),
        1,
    );
    let url = narrow
        .through(&url, rtmps)
        .replace("127.0.0.1", "localhost");
    put(&house, "cdn", &url, json!({})).await;
    let behind = until(house.control(), "cdn", "it skips", |p| {
        p["skips"].as_u64() >= Some(2)
    })
    .await;
    assert_eq!(
        (&behind["state"], &behind["failures"]),
        (&json!("live"), &json!(0)),
        "{behind}"
    );
}
