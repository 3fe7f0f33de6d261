//! Readiness and the metrics page.

use super::*;

#[tokio::test]
async fn metrics_are_open_on_this_machine_only() {
    let (house, client) = open(None).await;
    let stranger = Client::new(client.address, None);
    let answer = stranger.call("GET", "/metrics", "").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );

    // From another machine, and where the address is not known.
    let ask = |peer: Option<[u8; 4]>, token: Option<&str>| {
        let mut request = Request::get("/metrics").body(Body::empty()).unwrap();
        if let Some(ip) = peer {
            let peer = Peer((ip, 4_000).into());
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        house.router.clone().oneshot(request)
    };
    for peer in [Some([203, 0, 113, 9]), Some([10, 0, 0, 1]), None] {
        let status = ask(peer, None).await.unwrap().status();
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{peer:?}");
        let status = ask(peer, Some(TOKEN)).await.unwrap().status();
        assert_eq!(status, StatusCode::OK, "{peer:?}");
    }
    let status = ask(Some([127, 0, 0, 1]), None).await.unwrap().status();
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn metrics_tell_what_the_rooms_know() {
    let (house, client) = open(Some(Arc::new(Scenes::default()))).await;
    let _publisher = anchor(&house.relay);
    let _peer = house
        .relay
        .subscribe(&key(), Feed::Source, Class::LowLatency);
    let _viewers = [(); 2].map(|()| house.relay.subscribe(&key(), Feed::Program, Class::Viewer));
    house.metrics.connections_open.set(4);
    let scene = r#"{"inputs": [{"state": "live"}, {"state": "waiting"}, {"state": "live"}]}"#;
    client.call("PUT", "/api/v1/mixes/m", scene).await;
    let text = client.call("GET", "/metrics", "").await.body;
    for line in [
        "linkmic_relay_publishers 1",
        "linkmic_relay_subscribers{class=\"low_latency\",feed=\"source\"} 1",
        "linkmic_relay_subscribers{class=\"viewer\",feed=\"program\"} 2",
        "linkmic_ingest_connections 4",
        "linkmic_mixer_mixes 1",
        "linkmic_mixer_inputs{state=\"live\"} 2",
        "linkmic_mixer_inputs{state=\"waiting\"} 1",
        "linkmic_mixer_budget_units 150",
        "linkmic_mixer_can_accept 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn metrics_tell_of_single_streams_where_that_is_asked_for() {
    let (house, client) = open(None).await;
    let publisher = anchor(&house.relay);
    let _peer = house
        .relay
        .subscribe(&key(), Feed::Source, Class::LowLatency);
    let asked = StreamKey::new("live", "asked").unwrap();
    let _waits = house.relay.subscribe(&asked, Feed::Program, Class::Viewer);
    let streams = || async {
        let page = client.call("GET", "/metrics", "").await.body;
        let lines = page.lines().filter(|line| line.contains("stream=\""));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(streams().await, [""; 0]);
    house.metrics.cap_streams(Some(5));
    let shown = streams().await;
    for line in [
        "linkmic_stream_up{app=\"live\",stream=\"8888_streamA\"} 1",
        "linkmic_stream_ingest_bytes_total{app=\"live\",stream=\"8888_streamA\"} 16",
        "linkmic_stream_ingest_frames_total{app=\"live\",stream=\"8888_streamA\"} 1",
        "linkmic_stream_readers{app=\"live\",class=\"low_latency\",stream=\"8888_streamA\"} 1",
        "linkmic_stream_readers{app=\"live\",class=\"viewer\",stream=\"8888_streamA\"} 0",
    ] {
        assert!(
            shown.iter().any(|l| l == line),
            "{line} is not in\n{shown:#?}"
        );
    }
    assert!(!shown.concat().contains("asked"), "{shown:#?}");
    // Somebody reads it still, so the relay knows it.
    drop(publisher);
    let up = "linkmic_stream_up{app=\"live\",stream=\"8888_streamA\"} 0";
    let shown = streams().await;
    assert!(shown.iter().any(|l| l == up), "{shown:#?}");
    house.metrics.cap_streams(None);
    assert_eq!(streams().await, [""; 0]);
}

#[tokio::test]
async fn readiness_follows_the_flag_on_both_listeners() {
    let (house, client) = open(None).await;
    let public = Client::new(listen(public_router(house.readiness.clone())).await, None);
    for asked in [&client, &public] {
        is_error(&asked.call("GET", "/readyz", "").await, 503, "not_ready");
        assert_eq!(asked.call("GET", "/healthz", "").await.status, 200);
    }
    house.readiness.set(true);
    for asked in [&client, &public] {
        assert_eq!(asked.call("GET", "/readyz", "").await.status, 200);
        let answer = asked.call("POST", "/healthz", "").await;
        is_error(&answer, 405, "method_not_allowed");
    }
    for path in ["/api/v1/streams", "/metrics", "/"] {
        is_error(&public.call("GET", path, "").await, 404, "not_found");
    }
}
