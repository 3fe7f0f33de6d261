//! What is published is what is played, byte for byte.

use linkmic::probe::flv::Tag;

use super::SOON;
use super::clip::{clip, frames, run_of};
use super::house::{BURST, House};
use super::programs::{Player, Publisher, recorded};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_payload_passes_byte_for_byte_from_ffmpeg_to_ffmpeg_rtmpdump_and_gstreamer() {
    let house = House::open_with("", BURST).await;
    let clip = clip().await;
    let folder = tempfile::tempdir().expect("a folder");
    // The players wait for the stream, so that none of it is missed.
    let mut players = Vec::new();
    for player in Player::ALL {
        let file = folder.path().join(format!("{player:?}.flv"));
        let process = player.start(&house.urls.plain("exact"), &file);
        players.push((player, process, file));
    }
    let mut publisher = Publisher::Ffmpeg.start(clip.path(), &house.urls.push("exact"));
    publisher.success(SOON).await.expect("published");

    for (player, process, file) in &mut players {
        let status = process.end(SOON).await.expect("it ends with the stream");
        let tags = recorded(file);
        for kind in [Tag::VIDEO, Tag::AUDIO] {
            let (sent, got) = (clip.frames(kind), frames(&tags, kind));
            let at = run_of(&got, &sent).unwrap_or_else(|| {
                panic!("{player:?}: kind {kind} is not what was sent; {status}")
            });
            // A player that was slow to start may have come a GOP late, not more.
            let least = sent.len() / 4 * 3;
            assert!(
                got.len() >= least,
                "{player:?}: {} of {} frames of kind {kind} from {at}; it said\n{}",
                got.len(),
                sent.len(),
                process.said()
            );
        }
        let first = tags.iter().find(|t| t.kind == Tag::VIDEO && t.is_media());
        assert!(first.expect("video").is_key_frame(), "{player:?}");
        for header in clip.headers() {
            let same = tags
                .iter()
                .any(|t| t.kind == header.kind && t.body == header.body);
            assert!(same, "{player:?}: configuration of kind {}", header.kind);
        }
    }
}
