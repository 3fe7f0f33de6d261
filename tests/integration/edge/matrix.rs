//! Every publisher with every player.

use linkmic::probe::flv::Tag;

use super::SOON;
use super::clip::{clip, frames};
use super::house::House;
use super::programs::{Player, Publisher, decode, ffmpeg_has_librtmp, recorded};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ffmpeg_publishes_every_player_can_decode() {
    every_player_decodes(Publisher::Ffmpeg).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_gstreamer_publishes_every_player_can_decode() {
    every_player_decodes(Publisher::Rtmp2Sink).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_librtmp_publishes_every_player_can_decode() {
    every_player_decodes(Publisher::Librtmp).await;
}

/// Debian's ffmpeg speaks RTMP by itself; were it built on librtmp, it would be no second client here.
#[tokio::test]
async fn this_ffmpeg_is_a_client_of_its_own() {
    assert!(!ffmpeg_has_librtmp().await);
}

async fn every_player_decodes(publisher: Publisher) {
    // On a busy machine six programs take their time to start, and the first waits for the last; there the publisher
    // also stands still and makes up for it at once, which is more than a peer in a conversation would be sent.
    let more = "[limits]\nwait = \"1m\"\n[classes.low_latency]\nmax_lag = \"3s\"";
    let house = House::open_with("", more).await;
    let clip = clip().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut players = Vec::new();
    for (feed, url) in [
        ("viewer", house.urls.plain("matrix")),
        ("peer", house.urls.peer("matrix")),
    ] {
        for player in Player::ALL {
            let file = folder.path().join(format!("{feed}-{player:?}.flv"));
            players.push((player.start(&url, &file), file));
        }
    }
    // Whoever came later would get no sound from before.
    house.wait_for_viewers(Player::ALL.len()).await;
    house.wait_for_peers(Player::ALL.len()).await;
    let mut sender = publisher.start(clip.path(), &house.urls.push("matrix"));
    sender.success(SOON).await.expect("published");
    for (process, file) in &mut players {
        let name = file.display();
        let ended = process.end(SOON).await;
        ended.unwrap_or_else(|e| panic!("{name}: it ends with the stream: {e}"));
        decode(file).await;
        let tags = recorded(file);
        for kind in [Tag::VIDEO, Tag::AUDIO] {
            let (sent, got) = (clip.frames(kind).len(), frames(&tags, kind).len());
            assert!(
                got >= sent / 4 * 3,
                "{name}: {got} of {sent} frames of kind {kind}"
            );
        }
    }
}
