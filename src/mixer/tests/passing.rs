//! Mixes with nothing to mix: the main goes out as it came, and no codec is at work.

use super::*;
use crate::mixer::decode::programs;

/// Soon enough for a test, and longer than an input is missed by the busiest machine.
const SOON: Duration = Duration::from_millis(1_500);

/// How long a mix stays whose streams are gone.
const ALONE: Duration = Duration::from_secs(3);

fn quick() -> Config {
    Config {
        passthrough_after: SOON,
        // A step down makes another encoder, whose headers are not what is counted here.
        degrade: false,
        ..Config::default()
    }
}

/// The sub leaves the picture half a second after it stopped.
fn one_and_one() -> MixRequest {
    let request = json!({"app": "live", "on_loss": {"policy": "hide", "after_ms": 500},
        "inputs": [{"stream": "main", "layer": 1}, {"stream": "sub", "layer": 2}],
        "output": {"stream": "main"}});
    serde_json::from_value(request).unwrap()
}

/// Decoders of pictures and of sound, and pipelines with encoders.
fn codecs(mixer: &Mixer) -> [usize; 3] {
    let decoders = [Kind::Video, Kind::Audio].map(|kind| mixer.decoders(kind));
    [decoders[0], decoders[1], programs()]
}

fn is(mixer: &Mixer, state: MixState) -> bool {
    mixer.get("m").is_some_and(|info| info.state == state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_comes_with_a_sub_and_goes_without_and_the_main_passes_meanwhile() {
    let (_guard, relay, mixer) = studio_with(quick()).await;
    let _main = Anchor::start(&relay, "main", MAIN);
    let viewer = Viewer::attach(&relay, "main");
    viewer.next(60).await;
    mixer.put("m", one_and_one()).unwrap();
    eventually("passes", || is(&mixer, MixState::Passing)).await;
    assert_eq!(mixer.get("m").unwrap().not_passed, None);
    viewer.watch_for(300).await;
    assert!(splice(&viewer.seen(), 1).is_none(), "nothing has changed");

    for turn in 0..2 {
        eventually("no codec", || codecs(&mixer) == [0, 0, 0]).await;
        let before = viewer.count();
        let asked = Instant::now();
        let sub = Anchor::start(&relay, "sub", SUBS[0]);
        eventually("on air", || splice(&viewer.seen(), 1 + 2 * turn).is_some()).await;
        println!(
            "{} ms from the sub's encoder to the mix",
            asked.elapsed().as_millis()
        );
        eventually("live", || is(&mixer, MixState::Live)).await;
        let why = mixer.get("m").unwrap().not_passed;
        assert_eq!(why.as_deref(), Some("sub is present"));
        assert!(viewer.count() > before);
        viewer.watch_for(600).await;
        drop(sub);
        eventually("passes again", || is(&mixer, MixState::Passing)).await;
        assert_eq!(state_of(&mixer, "m", 1), InputState::Hidden);
        assert_eq!(state_of(&mixer, "m", 0), InputState::Live);
        viewer.watch_for(600).await;
    }
    // The name is the mix's own all the while.
    assert!(relay.overlay(&key("main")).is_err());
    mixer.remove("m").unwrap();
    eventually("gone", || mixer.list().is_empty()).await;
    viewer.watch_for(300).await;

    let seen = viewer.seen();
    assert_eq!(splice(&seen, 5), None, "two splices a turn and no more");
    let edges: Vec<_> = (1..5).map(|nth| splice(&seen, nth).unwrap()).collect();
    let is_picture = |s: &&Seen| s.message.kind == Kind::Video && !s.message.is_header();
    for &at in &edges {
        let first = seen[at..].iter().find(is_picture).unwrap();
        let before = seen[..at].iter().rfind(is_picture).unwrap();
        assert!(first.message.is_video_key());
        // An interval is 50 ms; the rest is a busy machine.
        let media = first.message.dts.0 - before.message.dts.0;
        assert!((1..=200).contains(&media), "{media} ms");
    }
    // Every segment of the mix is evenly spaced, and its picture is what it is to be: the sub while it is there.
    let film = decode(&seen);
    let at = |index: usize| seen[index].message.dts.0;
    let (x, y) = BOXES[0];
    for pair in edges.chunks(2) {
        let times = video_times(&seen[pair[0]..pair[1]]);
        assert!(times.windows(2).all(|w| w[1] - w[0] == 50), "{times:?}");
        let (frames, _) = film.between(at(pair[0]) + 100, at(pair[0]) + 500);
        let places = [(60, 400, MAIN.colour), (x + 60, y + 130, SUBS[0].colour)];
        assert_colours("mixed", &frames, &places);
        let (frames, sound) = film.between(at(pair[1]), at(pair[1]) + 500);
        let places = [(60, 400, MAIN.colour), (x + 60, y + 130, MAIN.colour)];
        assert_colours("passed", &frames, &places);
        assert!(advance(&frames, (0, 0), (360, 640)) > 5);
        assert!(loudness(sound, MAIN.hz) > 0.15 && loudness(sound, SUBS[0].hz) < 0.01);
    }
    let decoded = film.frames.len();
    assert_eq!(decoded, video_times(&seen).len(), "every picture decodes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_of_one_mixes_where_it_may_not_pass_or_where_there_is_something_to_do() {
    let (_guard, relay, mixer) = studio_with(quick()).await;
    let _main = Anchor::start(&relay, "main", MAIN);
    let viewer = Viewer::attach(&relay, "main");
    viewer.next(30).await;
    let alone = |gain: f64, passthrough: &str| -> MixRequest {
        let request = json!({"app": "live", "inputs": [{"stream": "main", "layer": 1, "gain": gain}],
            "output": {"stream": "main", "passthrough": passthrough}});
        serde_json::from_value(request).unwrap()
    };
    let mut splices = 0;
    for (gain, passthrough, wanted, why) in [
        (1.0, "auto", MixState::Passing, None),
        (
            0.5,
            "auto",
            MixState::Live,
            Some("the main's gain is not 1"),
        ),
        (1.0, "auto", MixState::Passing, None),
        (
            1.0,
            "never",
            MixState::Live,
            Some("output.passthrough is \"never\""),
        ),
        (1.0, "auto", MixState::Passing, None),
    ] {
        mixer.put("m", alone(gain, passthrough)).unwrap();
        eventually(passthrough, || is(&mixer, wanted)).await;
        assert_eq!(mixer.get("m").unwrap().not_passed.as_deref(), why);
        splices += usize::from(splices > 0 || wanted == MixState::Live);
        eventually("spliced", || splice(&viewer.seen(), splices).is_some()).await;
        let own = usize::from(wanted == MixState::Live);
        eventually("its codecs", || codecs(&mixer) == [own; 3]).await;
        viewer.watch_for(200).await;
    }
    mixer.remove("m").unwrap();
    eventually("gone", || mixer.list().is_empty()).await;
    assert!(splice(&viewer.seen(), splices + 1).is_none());
}

/// What was told, in words, as far as it is one of `wanted`, in their order.
fn assert_told(events: &mut broadcast::Receiver<Event>, wanted: &[&str]) {
    let mut told = Vec::new();
    let mut last = None;
    while let Ok(event) = events.try_recv() {
        assert!(last.is_none_or(|last| event.sequence == last + 1));
        last = Some(event.sequence);
        assert_eq!((event.mix.as_str(), &event.output), ("m", &key("main")));
        told.push(match event.change {
            Change::Started => "started".to_owned(),
            Change::State { state, .. } => state.word().to_owned(),
            Change::Input { id, from, to } => format!("{id}: {} to {}", from.word(), to.word()),
            Change::Ended(why) => format!("ended: {why}"),
        });
    }
    let mut left = wanted.iter();
    let mut next = left.next();
    for word in &told {
        if next.is_some_and(|next| next == word) {
            next = left.next();
        }
    }
    assert_eq!(next, None, "not told in its turn: {told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_a_mix_is_told_in_order_and_one_without_streams_ends_by_itself() {
    let (_guard, relay, mixer) = studio_with(Config {
        abandoned_after: ALONE,
        ..quick()
    })
    .await;
    let mut events = mixer.events();
    let main = Anchor::start(&relay, "main", MAIN);
    let viewer = Viewer::attach(&relay, "main");
    viewer.next(30).await;
    mixer.put("m", one_and_one()).unwrap();
    eventually("passes", || is(&mixer, MixState::Passing)).await;
    let sub = Anchor::start(&relay, "sub", SUBS[0]);
    eventually("mixes", || is(&mixer, MixState::Live)).await;
    drop(sub);
    eventually("away", || state_of(&mixer, "m", 1) == InputState::Hidden).await;
    viewer.watch_for(400).await;
    let sub = Anchor::start(&relay, "sub", SUBS[0]);
    eventually("back", || state_of(&mixer, "m", 1) == InputState::Live).await;
    viewer.watch_for(300).await;
    let gone = Instant::now();
    drop((main, sub));
    eventually("ended", || mixer.list().is_empty()).await;
    // They were live for up to a second after they were gone.
    assert!(gone.elapsed() >= ALONE);
    assert!(relay.overlay(&key("main")).is_ok(), "the name is free");
    assert_told(
        &mut events,
        &[
            "started",
            "passing",
            "sub: waiting to live",
            "waiting",
            "starting",
            "live",
            "sub: live to hidden",
            "sub: hidden to live",
            "sub: live to hidden",
            "ending",
            "ended: all its streams were gone for too long",
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_that_never_got_an_input_ends_by_itself() {
    let (_guard, relay, mixer) = studio_with(Config {
        abandoned_after: Duration::from_secs(1),
        ..quick()
    })
    .await;
    let asked = Instant::now();
    mixer.put("m", one_and_one()).unwrap();
    assert!(is(&mixer, MixState::Waiting));
    eventually("ended", || mixer.list().is_empty()).await;
    assert!(asked.elapsed() >= Duration::from_secs(1));
    assert!(relay.overlay(&key("main")).is_ok(), "the name is free");
}
