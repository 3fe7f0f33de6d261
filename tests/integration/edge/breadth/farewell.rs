//! The server goes down: clients that can be asked to reconnect are, the others hear the end.

use std::time::Duration;

use super::*;

/// What a client says of itself in `capsEx`: that it can be asked to reconnect, and everything but that.
const CAN: u32 = 1;
const EVERYTHING_ELSE: u32 = 2 | 4 | 8;

const REQUEST: &str = "NetConnection.Connect.ReconnectRequest";

/// The codes that a client still hears, up to the close.
async fn codes(mut wire: Wire) -> Vec<String> {
    let mut codes = Vec::new();
    while let Some((_, code)) = wire.command().await {
        codes.push(code);
    }
    codes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_can_be_asked_is_asked_to_reconnect_before_the_end() {
    let place = Place::open().await;
    let mut polite = Wire::connect(&place.urls.push("polite"), Some(CAN)).await;
    polite.begin("publish").await;
    let mut plain = Wire::connect(&place.urls.push("plain"), Some(EVERYTHING_ELSE)).await;
    plain.begin("publish").await;
    let mut old = Wire::connect(&place.urls.push("old"), None).await;
    old.begin("publish").await;
    for wire in [&mut polite, &mut plain, &mut old] {
        wire.send(kind::AUDIO, 0, 1, &[0x2f, 0]).await;
    }
    let mut players = Vec::new();
    for caps in [Some(CAN), Some(EVERYTHING_ELSE), None] {
        let mut player = Wire::connect(&place.urls.plain("polite"), caps).await;
        player.begin("play").await;
        players.push(player);
    }
    let Place { server, _state, .. } = place;
    let down = tokio::spawn(server.shutdown());

    let [asked, unasked, unaware] = players.try_into().ok().expect("three");
    let asked = codes(asked).await;
    assert_eq!(asked[0], REQUEST);
    let end = ["NetStream.Play.UnpublishNotify", "NetStream.Play.Stop"];
    assert_eq!(asked[1..], end);
    for other in [unasked, unaware] {
        assert_eq!(codes(other).await, end);
    }
    for other in [plain, old] {
        assert_eq!(codes(other).await, ["NetStream.Publish.Denied"]);
    }
    let request = polite.until("onStatus").await;
    assert_eq!(request.1, REQUEST);
    // It goes on to its next key frame and is heard; then it leaves in order.
    for n in 1..20 {
        polite.send(kind::AUDIO, n * 20, 1, &[0x2f, 1]).await;
    }
    let delete = Writer::new()
        .string("deleteStream")
        .number(0.0)
        .null()
        .number(1.0)
        .finish();
    polite.send(kind::COMMAND, 0, 0, &delete).await;
    let (_, code) = polite.until("onStatus").await;
    assert_eq!(code, "NetStream.Unpublish.Success");
    drop(polite);
    timeout(SOON, down)
        .await
        .expect("it goes down")
        .expect("without a panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_asked_and_stays_is_sent_away() {
    let place = Place::open().await;
    let mut stubborn = Wire::connect(&place.urls.push("stubborn"), Some(CAN)).await;
    stubborn.begin("publish").await;
    let Place { server, _state, .. } = place;
    let down = tokio::spawn(server.shutdown());
    assert_eq!(codes(stubborn).await, [REQUEST, "NetStream.Publish.Denied"]);
    timeout(SOON, down)
        .await
        .expect("it goes down")
        .expect("without a panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_asks_who_can_be_asked_and_the_others_stay_until_the_deadline() {
    let place = Place::open().await;
    let mut polite = Wire::connect(&place.urls.push("polite"), Some(CAN)).await;
    polite.begin("publish").await;
    let mut old = Wire::connect(&place.urls.push("old"), None).await;
    old.begin("publish").await;
    let mut idle = Wire::connect(&place.urls.push("late"), Some(CAN)).await;
    let Place { server, _state, .. } = place;
    let operations = server.operations().clone();
    let signals = linkmic::server::Signals::listen().expect("signals");
    let down = tokio::spawn(server.run_until_signal(signals, || unreachable!("no reload")));
    operations.drain(Duration::from_secs(6), false);
    assert_eq!(polite.until("onStatus").await.1, REQUEST);
    // Who was connected and asks now is refused.
    idle.ask("publish").await;
    assert_eq!(idle.until("onStatus").await.1, "NetStream.Publish.Denied");
    // Neither of the others is sent away yet: media is taken.
    for n in 0..50 {
        polite.send(kind::AUDIO, n * 20, 1, &[0x2f, 1]).await;
        old.send(kind::AUDIO, n * 20, 1, &[0x2f, 1]).await;
    }
    assert!(!down.is_finished());
    assert_eq!(codes(polite).await, ["NetStream.Publish.Denied"]);
    assert_eq!(codes(old).await, ["NetStream.Publish.Denied"]);
    timeout(SOON, down)
        .await
        .expect("it goes down")
        .expect("without a panic");
}
