//! A mix that rests: its name stays its own while the source plays, and it comes and goes by clean splices.

use super::*;

impl Scene {
    /// Steps until the mix hears `wanted`, for two GOPs at most.
    fn step_until(&mut self, mix_key: bool, wanted: Status) {
        let heard = (0..50).any(|_| self.step(mix_key) == Some(wanted));
        assert!(heard, "{wanted:?} is never heard");
    }

    /// A mix that is on the air since frame 10.
    fn on_air() -> Self {
        Self::on_air_with(0)
    }

    /// As above, its sound so many frames late.
    fn on_air_with(sound_late: i64) -> Self {
        let mut scene = Self::new();
        scene.sound_late = sound_late;
        for _ in 0..10 {
            scene.step(false);
        }
        scene.start_mix();
        assert_eq!(scene.step(true), Some(Status::Live));
        scene
    }

    fn mix(&self) -> &Publisher {
        self.mix.as_ref().unwrap()
    }
}

#[test]
fn a_mix_rests_behind_its_source_and_begins_again_by_clean_splices() {
    let mut scene = Scene::on_air();
    for _ in 0..3 {
        assert_eq!(scene.mix().rest(Instant::now()), Status::Ending);
        scene.step_until(false, Status::Resting);
        // Its key frames change nothing, and nobody else gets the name.
        for _ in 0..10 {
            assert_eq!(scene.step(true), Some(Status::Resting));
        }
        assert!(!scene.relay.streams()[0].mixed);
        let taken = scene.relay.overlay(&key()).map(|_| ());
        assert_eq!(taken, Err(PublishError::Mixed));

        assert_eq!(scene.mix().resume(), Status::Preparing);
        assert_eq!(scene.step(false), Some(Status::Preparing));
        for kind in [Kind::Video, Kind::Audio] {
            scene.mix().publish(header(kind, MIX), scene.t0);
        }
        assert_eq!(scene.step(true), Some(Status::Live));
        assert_eq!(scene.step(false), Some(Status::Live));
    }
    assert_eq!(scene.mix().request_end(Instant::now()), Status::Ending);
    scene.step_until(false, Status::Done);
    let (got, ended) = drain(&mut scene.viewer);
    assert_eq!(ended, None);
    assert_clean_splices(&got, 8, 0);
}

#[test]
fn a_mix_that_wants_to_rest_may_stay_until_the_splice_begins() {
    let mut scene = Scene::on_air_with(3);
    scene.mix().rest(Instant::now());
    assert_eq!(scene.step(false), Some(Status::Ending));
    assert_eq!(scene.mix().resume(), Status::Live);
    // Well past the source's next key frame.
    for _ in 0..30 {
        assert_eq!(scene.step(false), Some(Status::Live));
    }
    // The source's key frame is here, and the mix still has to tell of what was before it.
    scene.mix().rest(Instant::now());
    while scene.n % 25 != 1 {
        assert_eq!(scene.step(false), Some(Status::Ending));
    }
    assert_eq!(scene.mix().resume(), Status::Ending);
    scene.step_until(false, Status::Resting);
    assert_clean_splices(&drain(&mut scene.viewer).0, 2, 0);
}

#[test]
fn a_mix_that_rests_already_does_not_come_back_by_staying() {
    let mut scene = Scene::on_air_with(3);
    scene.mix().rest(Instant::now());
    while scene.n % 25 != 1 {
        assert_eq!(scene.step(false), Some(Status::Ending));
    }
    // A sub returns while the splice goes on: the pipeline that gives the feed back has no headers to begin with again.
    assert_eq!(scene.mix().stay(), Status::Ending);
    scene.step_until(false, Status::Resting);
    assert_eq!(scene.mix().stay(), Status::Resting);
    assert_eq!(scene.step(true), Some(Status::Resting));
    assert_clean_splices(&drain(&mut scene.viewer).0, 2, 0);
}

#[test]
fn a_source_without_sound_takes_its_feed_back_as_soon_as_the_mix_has_told_of_what_was_before() {
    let mut scene = Scene::new();
    (scene.silent, scene.sound_late) = (true, 2);
    for _ in 0..10 {
        scene.step(false);
    }
    scene.start_mix();
    scene.step(true);
    for _ in 0..20 {
        scene.step(false);
    }
    scene.mix().request_end(Instant::now());
    while scene.n % 25 != 0 {
        assert_eq!(scene.step(false), Some(Status::Ending));
    }
    // The mix tells of what was at the key frame two frames later.
    let steps = (1..50).find(|_| scene.step(false) == Some(Status::Done));
    assert_eq!(steps, Some(3));
    let got = drain(&mut scene.viewer).0;
    let pictures = got.iter().filter(|g| g.kind == Kind::Video && !g.header);
    let times: Vec<i64> = pictures.map(|g| g.dts).collect();
    let steps = times.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(
        steps.clone().all(|step| (1..=FRAME).contains(&step)),
        "{times:?}"
    );
}

#[test]
fn a_mix_whose_source_goes_does_not_rest() {
    for clean in [false, true] {
        let mut scene = Scene::on_air();
        scene.mix().rest(Instant::now());
        assert_eq!(scene.step(false), Some(Status::Ending));
        let source = scene.source.take().unwrap();
        match clean {
            true => source.finish(Reason::Deleted),
            false => source.vanish(Reason::Disconnected),
        }
        assert_eq!(scene.step(false), Some(Status::Live), "clean: {clean}");
        assert_eq!(scene.mix().rest(Instant::now()), Status::Live);
        assert_eq!(drain(&mut scene.viewer).1, None);
    }
}

#[test]
fn a_resting_mix_leaves_its_readers_to_the_source() {
    let mut scene = Scene::on_air();
    scene.mix().rest(Instant::now());
    scene.step_until(false, Status::Resting);
    scene.source.take().unwrap().finish(Reason::Deleted);
    assert_eq!(drain(&mut scene.viewer).1, Some(Reason::Deleted));
    assert_eq!(scene.mix().request_end(Instant::now()), Status::Done);
    assert!(scene.relay.overlay(&key()).is_ok());
}

#[test]
fn a_mix_that_ends_while_it_goes_to_rest_is_gone() {
    let mut scene = Scene::on_air();
    scene.mix().rest(Instant::now());
    scene.step(false);
    assert_eq!(scene.mix().request_end(Instant::now()), Status::Ending);
    // To rest is no more what it wants.
    assert_eq!(scene.mix().rest(Instant::now()), Status::Ending);
    assert_eq!(scene.mix().resume(), Status::Ending);
    scene.step_until(false, Status::Done);
    assert_clean_splices(&drain(&mut scene.viewer).0, 2, 0);
}
