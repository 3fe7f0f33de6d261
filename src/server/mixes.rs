//! The mixer behind the API's trait: JSON in, JSON out, refusals translated, numbers to the metrics.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Error;
use crate::api::{self, Made, MixError, Mixes, Pending};
use crate::config;
use crate::metrics::Metrics;
use crate::mixer::{self, Mixer, Outcome};
use crate::relay::Relay;

/// Builds the mixer room.
pub fn mixer(
    relay: Relay,
    config: &config::Mixer,
    metrics: Arc<Metrics>,
) -> Result<Arc<Mixer>, Error> {
    let config = mixer::Config {
        preset: config.preset.clone(),
        audio_kbps: config.audio_kbps,
        video_kbps: config.video_kbps,
        deadline: config.deadline,
        pictures: config.pictures.clone(),
        picture_networks: config.picture_networks.clone(),
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
}

/// [`Mixes`] over the mixer's handle.
pub struct Adapter(pub Arc<Mixer>);

impl Mixes for Adapter {
    fn put<'a>(&'a self, id: &'a str, scene: &'a [u8]) -> Pending<'a, (Made, Value)> {
        Box::pin(async move {
            let request = api::parse(scene).map_err(|e| MixError::Invalid(e.message))?;
            let (mixer, id) = (self.0.clone(), id.to_owned());
            // Building pipelines takes milliseconds: not on the threads that carry media.
            let (info, outcome) = off_the_media_path(move || mixer.put(&id, request)).await?;
            let made = match outcome {
                Outcome::Created => Made::Created,
                Outcome::Changed => Made::Changed,
                Outcome::Unchanged => Made::Unchanged,
            };
            Ok((made, shown(&info)?))
        })
    }

    fn get(&self, id: &str) -> Option<Value> {
        self.0.get(id).and_then(|info| shown(&info).ok())
    }

    fn list(&self) -> Vec<Value> {
        let infos = self.0.list();
        infos.iter().filter_map(|info| shown(info).ok()).collect()
    }

    fn remove<'a>(&'a self, id: &'a str) -> Pending<'a, Value> {
        Box::pin(async move {
            let (mixer, id) = (self.0.clone(), id.to_owned());
            shown(&off_the_media_path(move || mixer.remove(&id)).await?)
        })
    }
}

async fn off_the_media_path<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, mixer::Error> + Send + 'static,
) -> Result<T, MixError> {
    tokio::task::spawn_blocking(call)
        .await
        .map_err(|_| MixError::Unavailable("the mixer failed on this request".into()))?
        .map_err(refusal)
}

fn shown(info: &mixer::MixInfo) -> Result<Value, MixError> {
    serde_json::to_value(info).map_err(|e| MixError::Unavailable(e.to_string()))
}

fn refusal(error: mixer::Error) -> MixError {
    let message = error.to_string();
    match error {
        mixer::Error::Invalid { .. } => MixError::Invalid(message),
        mixer::Error::Conflict { .. } => MixError::Conflict(message),
        mixer::Error::NotFound => MixError::NotFound(message),
        mixer::Error::Unavailable(..) => MixError::Unavailable(message),
    }
}
