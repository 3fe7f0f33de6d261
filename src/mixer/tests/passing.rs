//! Mixes with nothing to mix: the main goes out as it came, and no codec is at work.

use super::*;
use crate::media::Message;
use crate::mixer::decode::programs;
use crate::mixer::tests::studio::Coder;

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
fn one_and_one(output: &str) -> MixRequest {
    let request = json!({"app": "live", "on_loss": {"policy": "hide", "after_ms": 500},
        "inputs": [{"stream": "main", "layer": 1}, {"stream": "sub", "layer": 2}],
        "output": {"stream": output}});
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
    comes_and_goes("main").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_to_a_new_name_passes_the_main_on_while_there_is_nothing_to_mix() {
    comes_and_goes("own").await;
}

/// Of a mix whose output is the main's name, or another.
async fn comes_and_goes(output: &str) {
    let (_guard, relay, mixer) = studio_with(quick()).await;
    let _main = Anchor::start(&relay, "main", MAIN);
    let of_main = Viewer::attach(&relay, "main");
    let viewer = Viewer::attach(&relay, output);
    of_main.next(60).await;
    mixer.put("m", one_and_one(output)).unwrap();
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
    let origin = || Origin::Mix { id: "n".into() };
    match output {
        "main" => assert!(relay.overlay(&key(output)).is_err()),
        _ => assert!(relay.publish(&key(output), origin()).is_err()),
    }
    mixer.remove("m").unwrap();
    eventually("gone", || mixer.list().is_empty()).await;
    of_main.watch_for(300).await;
    assert_eq!(relay.is_published(&key(output)), output == "main");

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

/// Its sound in FLAC, as the headers of Enhanced RTMP tell; nothing else.
fn foreign_sound(message: Message) -> Vec<Message> {
    let head: &[u8] = match (message.kind, message.is_header()) {
        (Kind::Audio, true) => b"\x90fLaC",
        (Kind::Audio, false) => b"\x91fLaC",
        _ => return Vec::new(),
    };
    let payload = [head, &message.payload[2..]].concat().into();
    vec![Message::new(Kind::Audio, message.dts, payload)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_that_no_decoder_takes_leaves_the_main_passing() {
    let (_guard, relay, mixer) = studio_with(quick()).await;
    let _main = Anchor::start(&relay, "main", MAIN);
    let viewer = Viewer::attach(&relay, "main");
    viewer.next(60).await;
    mixer.put("m", one_and_one("main")).unwrap();
    eventually("passes", || is(&mixer, MixState::Passing)).await;
    let mut events = mixer.events();
    let _sub = Anchor::coded(&relay, "sub", SUBS[0], Coder::H264, foreign_sound);
    let came = || relay.stream_info(&key("sub"))?.publisher?.idle;
    eventually("the sub sends", || came().is_some()).await;
    // Longer than a mix takes to wake and to find out that it was for nothing.
    viewer.watch_for(3_000).await;
    assert!(is(&mixer, MixState::Passing));
    let told = events.try_recv();
    assert!(
        matches!(told, Err(broadcast::error::TryRecvError::Empty)),
        "{told:?}"
    );
    assert_eq!(codecs(&mixer), [0, 0, 0]);
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
    mixer.put("m", one_and_one("main")).unwrap();
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
    mixer.put("m", one_and_one("main")).unwrap();
    assert!(is(&mixer, MixState::Waiting));
    eventually("ended", || mixer.list().is_empty()).await;
    assert!(asked.elapsed() >= Duration::from_secs(1));
    assert!(relay.overlay(&key("main")).is_ok(), "the name is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_its_own_shows_nothing_but_what_was_asked_for() {
    let (_guard, relay, mixer) = studio_with(quick()).await;
    let _main = Anchor::start(&relay, "main", MAIN);
    let other = Look {
        colour: 0xff00ff,
        ..MAIN
    };
    let _other = Anchor::start(&relay, "other", other);
    let viewer = Viewer::attach(&relay, "own");
    let of = |stream: &str, output: serde_json::Value| -> MixRequest {
        let request =
            json!({"app": "live", "inputs": [{"stream": stream, "layer": 1}], "output": output});
        serde_json::from_value(request).unwrap()
    };
    let (own, small) = (
        json!({"stream": "own"}),
        json!({"stream": "own", "width": 180, "height": 320}),
    );
    // What cannot pass is mixed from the first picture on.
    mixer.put("m", of("main", small)).unwrap();
    viewer.next(40).await;
    assert!(is(&mixer, MixState::Live));
    mixer.remove("m").unwrap();
    eventually("gone", || !relay.is_published(&key("own"))).await;
    let film = decode(&viewer.seen());
    assert!(film.frames.iter().all(|frame| frame.width == 180));

    // Another main, without a codec at work; and one that has not come: the old one has no business there any more.
    let viewer = Viewer::attach(&relay, "own");
    mixer.put("m", of("main", own.clone())).unwrap();
    viewer.next(60).await;
    mixer.put("m", of("other", own.clone())).unwrap();
    eventually("spliced", || splice(&viewer.seen(), 1).is_some()).await;
    viewer.watch_for(500).await;
    assert_eq!(codecs(&mixer), [0, 0, 0]);
    mixer.put("m", of("absent", own)).unwrap();
    eventually("waits", || is(&mixer, MixState::Waiting)).await;
    let of_other = Viewer::attach(&relay, "other");
    of_other.watch_for(200).await;
    let before = viewer.count();
    of_other.watch_for(400).await;
    assert_eq!(viewer.count(), before, "the old main goes on");
    let seen = viewer.seen();
    let at = splice(&seen, 1).unwrap();
    assert_eq!(splice(&seen, 2), None);
    let (before, after) = (decode(&seen[..at]), decode(&seen[at..]));
    let middle = |film: &studio::Film, colour| {
        assert!(film.frames.len() > 5);
        assert!(
            film.frames
                .iter()
                .all(|frame| frame.is_colour(60, 400, colour))
        );
    };
    middle(&before, MAIN.colour);
    middle(&after, other.colour);
    let times = video_times(&seen);
    assert!(
        times.windows(2).all(|w| (1..=200).contains(&(w[1] - w[0]))),
        "{times:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_of_a_new_name_wait_for_a_main_that_returns() {
    let (_guard, relay, mixer) = studio_with(quick()).await;
    let main = Anchor::start(&relay, "main", MAIN);
    mixer.put("m", one_and_one("own")).unwrap();
    let viewer = Viewer::attach(&relay, "own");
    viewer.next(60).await;
    drop(main);
    eventually("offline", || !relay.is_published(&key("main"))).await;
    assert!(relay.is_published(&key("own")), "the mix holds its name");
    let other = Look {
        colour: 0x00ffff,
        ..MAIN
    };
    let _main = Anchor::start(&relay, "main", other);
    eventually("goes on", || splice(&viewer.seen(), 1).is_some()).await;
    viewer.watch_for(500).await;
    assert_eq!(codecs(&mixer), [0, 0, 0]);
    // And it is mixed as any other.
    let _sub = Anchor::start(&relay, "sub", SUBS[0]);
    eventually("mixed", || splice(&viewer.seen(), 2).is_some()).await;
    viewer.watch_for(1_000).await;
    mixer.shutdown().await;

    let seen = viewer.seen();
    let times = video_times(&seen);
    assert!(times.windows(2).all(|w| w[1] > w[0]), "{times:?}");
    let [back, mixed] = [1, 2].map(|nth| splice(&seen, nth).unwrap());
    let is_picture = |s: &&Seen| s.message.kind == Kind::Video && !s.message.is_header();
    for at in [back, mixed] {
        assert!(
            seen[at..]
                .iter()
                .find(is_picture)
                .unwrap()
                .message
                .is_video_key()
        );
    }
    let film = decode(&seen);
    let at = |index: usize| seen[index].message.dts.0;
    let (x, y) = BOXES[0];
    let (frames, _) = film.between(at(back), at(mixed));
    assert_colours("back", &frames, &[(60, 400, other.colour)]);
    let (frames, _) = film.between(at(mixed) + 200, at(mixed) + 900);
    let places = [(60, 400, other.colour), (x + 60, y + 130, SUBS[0].colour)];
    assert_colours("mixed", &frames, &places);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_to_a_new_name_that_began_by_mixing_passes_when_the_sub_has_gone() {
    let (_guard, relay, mixer) = studio_with(quick()).await;
    let _main = Anchor::start(&relay, "main", MAIN);
    let sub = Anchor::start(&relay, "sub", SUBS[0]);
    let of_sub = Viewer::attach(&relay, "sub");
    of_sub.next(60).await;
    mixer.put("m", one_and_one("own")).unwrap();
    let viewer = Viewer::attach(&relay, "own");
    eventually("mixes", || is(&mixer, MixState::Live)).await;
    viewer.watch_for(500).await;
    drop(sub);
    eventually("passes", || is(&mixer, MixState::Passing)).await;
    eventually("no codec", || codecs(&mixer) == [0, 0, 0]).await;
    viewer.watch_for(500).await;
    mixer.shutdown().await;
    let seen = viewer.seen();
    let at = splice(&seen, 1).unwrap();
    assert_eq!(splice(&seen, 2), None);
    let film = decode(&seen);
    assert_eq!(film.frames.len(), video_times(&seen).len());
    let (frames, _) = film.between(seen[at].message.dts.0, i64::MAX / 100);
    assert_colours("passed", &frames, &[(60, 400, MAIN.colour)]);
}
