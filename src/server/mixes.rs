//! The mixer behind the API's trait: JSON in, JSON out, refusals translated, numbers to the metrics.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::api::{
    self, Clash, Drawn, Flaw, Gone, Keep, KeptMixes, Made, MixError, Mixes, Pending, Wish,
};
use crate::compat::Picture;
use crate::config;
use crate::logging;
use crate::media::vitals::Spread;
use crate::media::{Kind, StreamKey};
use crate::metrics::{Metrics, MixLoad};
use crate::mixer::{self, Change, Ending, Event, InputState, MixRequest, Mixer, Outcome};
use crate::relay::Relay;

/// Builds the mixer room.
pub fn mixer(
    relay: Relay,
    config: &config::Mixer,
    compat: &config::Compat,
    state: &config::State,
    metrics: Arc<Metrics>,
) -> Result<Arc<Mixer>, Error> {
    let mut pictures = config.pictures.clone();
    for (&number, picture) in &compat.pictures {
        if let Picture::File(path) = picture {
            pictures.insert(Picture::file_id(number), path.clone());
        }
    }
    let config = mixer::Config {
        // The configuration has been checked for its word.
        video_encoder: mixer::EncoderChoice::from_word(&config.video_encoder).unwrap_or_default(),
        budget: config.budget,
        degrade: config.degrade,
        preset: config.preset.clone(),
        audio_encoder: match config.audio_encoder {
            config::AudioEncoder::Auto => mixer::AudioEncoder::Auto,
            config::AudioEncoder::Voaacenc => mixer::AudioEncoder::Voaacenc,
            config::AudioEncoder::Avenc => mixer::AudioEncoder::Avenc,
        },
        audio_kbps: config.audio_kbps,
        video_kbps: config.video_kbps,
        deadline: config.deadline,
        passthrough_after: config.passthrough_after,
        abandoned_after: config.abandoned_after,
        pictures,
        picture_networks: config.picture_networks.clone(),
        fonts: config.fonts.clone(),
        graphs: Some(state.dir.join("graphs")),
        ..mixer::Config::default()
    };
    let mixer = Mixer::new(relay, config).map_err(Error::Mixer)?;
    mixer.set_observer(Arc::new(Meter(metrics)));
    Ok(Arc::new(mixer))
}

/// Called from the mixer's own threads, once per picture.
struct Meter(Arc<Metrics>);

impl mixer::Observer for Meter {
    fn added_latency(&self, latency: Duration) {
        self.0.mix_added_latency.observe(latency.as_secs_f64());
    }

    fn frame(&self) {
        self.0.mix_frames.inc();
    }

    fn skip(&self) {
        self.0.mix_skips.inc();
    }

    fn stage(&self, stage: mixer::Stage, took: Duration) {
        self.0.mix_stage(stage.word(), took);
    }

    fn av_offset_us(&self, by: i64) {
        self.0.mix_av_offset(by as f64 / 1e6);
    }

    fn stepped(&self, down: bool) {
        self.0.mix_stepped(down);
    }

    fn restarted(&self) {
        self.0.mix_restarted();
    }
}

/// Previews that are drawn at once. A scene of the largest canvas takes some 50 MB and a core while it is drawn.
const PREVIEWS: usize = 2;
/// Changes of mixes that get still pictures at once. Each may hold a thread for seconds, and some 35 MB for its largest
/// picture.
const FETCHING: usize = 8;
/// How long a request waits for its turn: longer than one with a picture from a slow address takes.
const WAIT: Duration = Duration::from_secs(10);

/// Places for requests that take long.
struct Turns {
    places: Arc<Semaphore>,
    /// What they are.
    of: &'static str,
}

impl Turns {
    fn new(places: usize, of: &'static str) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            of,
        }
    }

    /// Waits for a place, which is free again when dropped.
    async fn take(&self) -> Result<OwnedSemaphorePermit, MixError> {
        let busy = || MixError::Unavailable(format!("too many {} at once; try again", self.of));
        let turn = tokio::time::timeout(WAIT, self.places.clone().acquire_owned());
        turn.await.map_err(|_| busy())?.map_err(|_| busy())
    }
}

/// [`Mixes`] over the mixer's handle.
pub struct Adapter {
    mixer: Arc<Mixer>,
    previews: Turns,
    fetching: Turns,
}

impl Adapter {
    pub fn new(mixer: Arc<Mixer>) -> Self {
        Self {
            mixer,
            previews: Turns::new(PREVIEWS, "previews"),
            fetching: Turns::new(FETCHING, "mixes that get pictures"),
        }
    }

    /// A place for a request that has to get still pictures; `None` for any other.
    async fn turn(
        &self,
        id: &str,
        request: &MixRequest,
    ) -> Result<Option<OwnedSemaphorePermit>, MixError> {
        match self.mixer.has_to_get_pictures(id, request) {
            true => Ok(Some(self.fetching.take().await?)),
            false => Ok(None),
        }
    }
}

impl Mixes for Adapter {
    fn put<'a>(&'a self, id: &'a str, scene: &'a [u8]) -> Pending<'a, (Made, Value)> {
        self.put_kept(id, scene, Box::new(|_| Box::pin(async { Ok(()) })))
    }

    fn put_kept<'a>(
        &'a self,
        id: &'a str,
        scene: &'a [u8],
        keep: Keep<'a>,
    ) -> Pending<'a, (Made, Value)> {
        Box::pin(async move {
            let request = api::parse(scene).map_err(|e| MixError::Unreadable(e.message))?;
            let turn = self.turn(id, &request).await?;
            // Building pipelines takes milliseconds: not on the threads that carry media.
            let (mixer, own) = (self.mixer.clone(), id.to_owned());
            let prepared = off_the_media_path(move || {
                let prepared = mixer.prepare(&own, request);
                // Not before the work is done: the caller may have gone long ago.
                drop(turn);
                prepared
            })
            .await?;
            keep(made(prepared.outcome())).await?;
            let mixer = self.mixer.clone();
            let (info, outcome) = off_the_media_path(move || mixer.commit(prepared)).await?;
            Ok((made(outcome), shown(&info)?))
        })
    }

    fn gets_pictures(&self, id: &str, scene: &[u8]) -> bool {
        let request = api::parse::<MixRequest>(scene);
        request.is_ok_and(|request| self.mixer.has_to_get_pictures(id, &request))
    }

    fn restore<'a>(&'a self, id: &'a str, scene: &'a [u8], idle: Duration) -> Pending<'a, Value> {
        Box::pin(async move {
            let request = api::parse(scene).map_err(|e| MixError::Unreadable(e.message))?;
            let (mixer, id) = (self.mixer.clone(), id.to_owned());
            let restored = off_the_media_path(move || mixer.restore(&id, request, idle));
            shown(&restored.await?.0)
        })
    }

    fn preview<'a>(&'a self, scene: &'a [u8], wish: Wish) -> Pending<'a, Drawn> {
        Box::pin(async move {
            let request = api::parse(scene).map_err(|e| MixError::Unreadable(e.message))?;
            let turn = self.previews.take().await?;
            let mixer = self.mixer.clone();
            let wish = mixer::Wish {
                live: wish.live,
                width: wish.width,
            };
            let drawn = off_the_media_path(move || {
                let drawn = mixer.preview(&request, wish);
                // Not before the work is done: the caller may have gone long ago.
                drop(turn);
                drawn
            });
            let drawn = drawn.await?;
            let mut warnings = Vec::with_capacity(drawn.warnings.len());
            for warning in &drawn.warnings {
                warnings.push(shown(warning)?);
            }
            Ok(Drawn {
                png: drawn.png,
                layout: shown(&drawn.layout)?,
                warnings,
            })
        })
    }

    fn get(&self, id: &str) -> Option<Value> {
        self.mixer.get(id).and_then(|info| shown(&info).ok())
    }

    fn list(&self) -> Vec<Value> {
        let infos = self.mixer.list();
        infos.iter().filter_map(|info| shown(info).ok()).collect()
    }

    fn stages(&self, id: &str) -> Vec<(&'static str, Spread)> {
        self.mixer.stages(id)
    }

    fn decoders(&self) -> [(&'static str, usize); 2] {
        let of = |kind| self.mixer.decoders(kind);
        [("audio", of(Kind::Audio)), ("video", of(Kind::Video))]
    }

    fn load(&self) -> MixLoad {
        let load = self.mixer.load();
        MixLoad {
            by_preset: load.by_preset,
            by_pictures: load.by_pictures,
            budget: load.budget,
            cost: load.cost,
            can_accept: load.can_accept,
        }
    }

    fn picture_size(&self, stream: &StreamKey) -> Option<(u32, u32)> {
        let size = self.mixer.picture_size(stream)?;
        Some((size.width, size.height))
    }

    fn gone(&self) -> Gone<'_> {
        Box::pin(self.mixer.gone())
    }

    fn remove<'a>(&'a self, id: &'a str) -> Pending<'a, Value> {
        Box::pin(async move {
            let (mixer, id) = (self.mixer.clone(), id.to_owned());
            shown(&off_the_media_path(move || mixer.remove(&id)).await?)
        })
    }
}

fn made(outcome: Outcome) -> Made {
    match outcome {
        Outcome::Created => Made::Created,
        Outcome::Changed => Made::Changed,
        Outcome::Unchanged => Made::Unchanged,
    }
}

/// Tells the keeper of mixes what becomes of them, until `stop`.
pub async fn follow(
    mut events: broadcast::Receiver<Event>,
    kept: KeptMixes,
    stop: CancellationToken,
) {
    let mut company = Company::default();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = stop.cancelled() => return,
        };
        match event {
            Ok(event) => {
                if let Some(any) = company.heard(&event) {
                    kept.company(&event.mix, any);
                }
                if let Change::Ended(why) = event.change {
                    kept.ended(&event.mix, why == Ending::Asked);
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => kept.look_for_ended(),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Which streams of each mix come. Pure.
#[derive(Debug, Default)]
struct Company(HashMap<String, HashSet<Arc<str>>>);

impl Company {
    /// Whether any comes now, when that has just changed.
    fn heard(&mut self, event: &Event) -> Option<bool> {
        match &event.change {
            Change::Started | Change::Ended(_) => {
                self.0.remove(&event.mix);
                None
            }
            Change::State { .. } => None,
            Change::Input { id, to, .. } => {
                let live = self.0.entry(event.mix.clone()).or_default();
                let before = !live.is_empty();
                match to {
                    InputState::Live => live.insert(id.clone()),
                    _ => live.remove(id),
                };
                let after = !live.is_empty();
                (before != after).then_some(after)
            }
        }
    }
}

async fn off_the_media_path<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, mixer::Error> + Send + 'static,
) -> Result<T, MixError> {
    tokio::task::spawn_blocking(logging::carried_blocking(call))
        .await
        .map_err(|_| MixError::Unavailable("the mixer failed on this request".into()))?
        .map_err(refusal)
}

fn shown(info: &impl serde::Serialize) -> Result<Value, MixError> {
    serde_json::to_value(info).map_err(|e| MixError::Unavailable(e.to_string()))
}

fn refusal(error: mixer::Error) -> MixError {
    let whole = error.to_string();
    let invalid = |path, flaw, message| MixError::Invalid {
        path,
        flaw,
        message,
    };
    match error {
        mixer::Error::Invalid { path, message } => invalid(path, Flaw::Value, message),
        mixer::Error::Picture { path, message } => invalid(path, Flaw::Picture, message),
        mixer::Error::Conflict {
            path,
            clash,
            message,
        } => MixError::Conflict {
            path,
            clash: match clash {
                mixer::Clash::Taken => Clash::Taken,
                mixer::Clash::Fixed => Clash::Fixed,
                mixer::Clash::Loop => Clash::Loop,
                mixer::Clash::Crowded => Clash::Crowded,
                mixer::Clash::Codec => Clash::Codec,
                mixer::Clash::Ending => Clash::Ending,
            },
            message,
        },
        mixer::Error::NotFound => MixError::NotFound(whole),
        mixer::Error::Overloaded { .. } => MixError::Overloaded(whole),
        mixer::Error::Unavailable(..) => MixError::Unavailable(whole),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::relay;

    #[tokio::test]
    async fn who_waits_for_the_end_of_a_mix_is_told_of_one_that_came_before_the_wait() {
        let relay = Relay::new(relay::Config::default());
        let mixer = Mixer::new(relay, mixer::Config::default()).expect("GStreamer is installed");
        let adapter = Adapter::new(Arc::new(mixer));
        let scene = json!({"app": "live", "inputs": [{"stream": "a", "layer": 1}], "output": {"stream": "b"}});
        let scene = scene.to_string().into_bytes();
        for _ in 0..20 {
            adapter.put("m", &scene).await.expect("it is made");
            let gone = adapter.gone();
            adapter.remove("m").await.expect("it is there");
            while adapter.get("m").is_some() {
                tokio::task::yield_now().await;
            }
            let told = tokio::time::timeout(Duration::from_secs(10), gone);
            told.await.expect("it is told, though nobody listened");
        }
        adapter.mixer.shutdown().await;
    }

    #[test]
    fn a_mix_has_company_from_its_first_stream_to_its_last() {
        let mut company = Company::default();
        let mut hear = |mix: &str, change: Change| {
            company.heard(&Event {
                mix: mix.into(),
                output: StreamKey::new("live", "a").unwrap(),
                change,
                request: None,
                sequence: 1,
                at: std::time::SystemTime::now(),
            })
        };
        let input = |id: &str, to: InputState| Change::Input {
            id: id.into(),
            from: InputState::Waiting,
            to,
        };
        for (mix, change, told) in [
            ("m", Change::Started, None),
            ("m", input("a", InputState::Live), Some(true)),
            ("m", input("b", InputState::Live), None),
            ("n", input("a", InputState::Live), Some(true)),
            ("m", input("a", InputState::Held), None),
            ("m", input("b", InputState::Held), Some(false)),
            ("m", input("b", InputState::Hidden), None),
            ("m", input("b", InputState::Live), Some(true)),
            ("m", Change::Ended(Ending::Asked), None),
            // Another of the same id.
            ("m", Change::Started, None),
            ("m", input("b", InputState::Live), Some(true)),
        ] {
            assert_eq!(hear(mix, change.clone()), told, "{mix} {change:?}");
        }
    }

    /// On a clock that runs ahead while nobody has anything to do.
    #[tokio::test(start_paused = true)]
    async fn changes_that_get_pictures_take_turns_and_others_do_not_wait_for_them() {
        let relay = Relay::new(relay::Config::default());
        let mixer = Mixer::new(relay, mixer::Config::default()).expect("GStreamer is installed");
        let adapter = Adapter::new(Arc::new(mixer));
        let scene = |mark: serde_json::Value| {
            let scene = json!({"app": "live", "inputs": [{"stream": "a", "layer": 1}],
                "watermark": mark, "output": {"stream": "b"}});
            scene.to_string().into_bytes()
        };
        let (plain, marked) = (scene(json!(null)), scene(json!({"file": "absent"})));
        let mut turns = Vec::new();
        for _ in 0..FETCHING {
            turns.push(adapter.fetching.take().await.expect("a place"));
        }
        let refused = adapter.put("m", &marked).await.expect_err("no place");
        let busy = "too many mixes that get pictures at once; try again";
        assert!(
            matches!(&refused, MixError::Unavailable(why) if why == busy),
            "{refused}"
        );
        adapter.put("m", &plain).await.expect("it gets nothing");
        // What was kept does not take part.
        assert!(adapter.gets_pictures("n", &marked) && !adapter.gets_pictures("n", &plain));
        let kept = adapter.restore("n", &marked, Duration::ZERO).await;
        let kept = kept.expect_err("no such file");
        assert!(matches!(kept, MixError::Invalid { .. }), "{kept}");
        turns.pop();
        // As often as there are places, and once more: each is given back.
        for _ in 0..2 {
            let refused = adapter.put("m", &marked).await.expect_err("no such file");
            let picture = Flaw::Picture;
            assert!(
                matches!(refused, MixError::Invalid { flaw, .. } if flaw == picture),
                "{refused}"
            );
        }
        adapter.remove("m").await.expect("it is there");
        adapter.mixer.shutdown().await;
    }
}
