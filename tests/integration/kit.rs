//! The measuring kit against a server that is not ours: what it reads there is true of the kit alone.

use std::time::{Duration, Instant};

use linkmic::probe::nginx::Nginx;
use linkmic::probe::player::Watch;
use linkmic::probe::publisher::Show;
use linkmic::probe::{Colour, Player, Publisher};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_kit_sees_colour_numbers_and_tone_through_nginx() {
    let folder = tempfile::tempdir().expect("a folder");
    let nginx = Nginx::start(folder.path()).await.expect("nginx starts");
    let show = Show::sub(Colour::RED, 700.0);
    let mut publisher = Publisher::start(&nginx.url("a"), &show).expect("ffmpeg starts");
    let mut player = Player::start(&nginx.url("a"), Watch::whole(show.size))
        .await
        .expect("ffmpeg starts");
    player
        .until("40 numbered pictures and the tone", SOON, |seen| {
            let read = seen.sightings.iter().filter(|s| {
                s.readings[0].counter.is_some() && s.readings[0].colour.name() == Some("red")
            });
            (read.count() >= 40 && seen.hears(700.0)).then_some(())
        })
        .await
        .expect("they are seen and heard");
    publisher.check().expect("still publishing");
    let latencies = player.latencies(&publisher, 0, Instant::now() - SOON);
    println!("through nginx: {latencies}");
    assert!(
        !player.look(|seen| seen.hears(400.0)),
        "a tone that nobody sent"
    );
    player.look(|seen| {
        let timed = seen.sightings.iter().filter(|s| s.pts.is_some()).count();
        assert!(
            timed >= seen.sightings.len() - 1,
            "{timed} of {} have a time",
            seen.sightings.len()
        );
    });
}
