//! How mixes are made and changed, in two steps: what can be refused is refused before anything changes, so that whoever
//! keeps what was asked for can do so in between.

use std::time::{Duration, Instant};

use super::cast::Stills;
use super::error::{Clash, conflict};
use super::outlet::Outlet;
use super::scene::Scene;
use super::session::{Beginning, Session};
use super::{Error, MAX_ID_BYTES, MixInfo, MixRequest, Mixer, Outcome, admit, format};
use crate::media::{Codec, Feed, Kind, Slot, StreamKey};
use crate::relay::{PublishError, Relay};

/// How long a mix that was there before the server's start gets at least before it counts as abandoned: publishers come
/// back within seconds, and some after a minute.
const RETURN: Duration = Duration::from_secs(60);

/// A request that was found good, with all that it takes to follow it.
pub struct Prepared {
    id: String,
    scene: Scene,
    /// For each input of the scene, its place in the request.
    order: Vec<usize>,
    stills: Stills,
    outcome: Outcome,
    /// How long it has been without any of its streams.
    idle: Duration,
    /// It ran before the server's start, so there is room for it.
    admitted: bool,
}

impl Prepared {
    /// What [`Mixer::commit`] will do, unless something comes in between.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }
}

impl Mixer {
    /// Makes the mix `id` what the request says: starts it, or changes it while it runs. The same scene twice changes
    /// nothing. Inputs that are absent are waited for; still pictures are fetched and decoded before anything is
    /// changed, which may take seconds. Blocks for that long.
    ///
    /// # Errors
    /// [`Error::Invalid`] and [`Error::Picture`] for the request's own mistakes; [`Error::Conflict`] when the output is taken, would feed on
    /// itself, has another name than before, or would change its codec, and while the mix is ending;
    /// [`Error::Overloaded`] when the machine has no room for it.
    pub fn put(&self, id: &str, request: MixRequest) -> Result<(MixInfo, Outcome), Error> {
        self.commit(self.prepare(id, request)?)
    }

    /// The first step of [`Self::put`]: everything but the change. Blocks for as long.
    ///
    /// # Errors
    /// As for [`Self::put`].
    pub fn prepare(&self, id: &str, request: MixRequest) -> Result<Prepared, Error> {
        let prepared = self.prepared(id, request, None)?;
        if prepared.outcome == Outcome::Created {
            let Scene {
                output, in_place, ..
            } = &prepared.scene;
            let relay = &self.shared.context.relay;
            // Told before the change where it can be seen; the relay has the last word.
            if !in_place && relay.is_published(&output.key) {
                return Err(taken(&output.key));
            }
        }
        Ok(prepared)
    }

    /// Makes a mix that ran before the server's start and had had none of its streams for `idle`: that time counts, but
    /// for the last minute of what it may be without. Room for it is not asked for. Blocks as [`Self::put`] does.
    ///
    /// # Errors
    /// As for [`Self::put`].
    pub fn restore(
        &self,
        id: &str,
        request: MixRequest,
        idle: Duration,
    ) -> Result<(MixInfo, Outcome), Error> {
        let long = self.shared.context.config.abandoned_after;
        self.commit(self.prepared(id, request, Some(counted(idle, long)))?)
    }

    fn prepared(
        &self,
        id: &str,
        request: MixRequest,
        restored: Option<Duration>,
    ) -> Result<Prepared, Error> {
        check_id(id)?;
        let draft = Scene::draft(&request)?;
        self.check_engine(&draft)?;
        let order = draft.order.clone();
        let scene = draft.accept()?;
        let running = self.sessions().get(id).cloned();
        let kept = running.as_ref().map(|session| session.stills());
        let kept = kept.unwrap_or_default();
        let idle = restored.unwrap_or_default();
        let admitted = restored.is_some();
        if running.is_some_and(|session| session.has(&scene)) {
            return Ok(Prepared {
                id: id.to_owned(),
                scene,
                order,
                stills: kept,
                outcome: Outcome::Unchanged,
                idle,
                admitted,
            });
        }
        let stills = self.stills(&scene, &order, &kept)?;
        let sessions = self.sessions();
        admit::outputs(&sessions, id, &scene)?;
        admit::streams(&sessions, id, &scene, &order)?;
        if !admitted {
            self.check_cost(&sessions, id, &scene)?;
        }
        let outcome = match sessions.get(id) {
            Some(session) => {
                check_change(session, &scene)?;
                Outcome::Changed
            }
            None => {
                self.check_codecs(&scene)?;
                Outcome::Created
            }
        };
        Ok(Prepared {
            id: id.to_owned(),
            scene,
            order,
            stills,
            outcome,
            idle,
            admitted,
        })
    }

    /// The second step of [`Self::put`]: the change. What was found good may be so no more, when others were changed in
    /// between.
    ///
    /// # Errors
    /// As for [`Self::put`].
    pub fn commit(&self, prepared: Prepared) -> Result<(MixInfo, Outcome), Error> {
        let Prepared {
            id,
            scene,
            order,
            stills,
            idle,
            admitted,
            ..
        } = prepared;
        let mut sessions = self.sessions();
        if let Some(session) = sessions.get(&id)
            && session.has(&scene)
        {
            return Ok((session.info(), Outcome::Unchanged));
        }
        admit::outputs(&sessions, &id, &scene)?;
        admit::streams(&sessions, &id, &scene, &order)?;
        if !admitted {
            self.check_cost(&sessions, &id, &scene)?;
        }
        if let Some(session) = sessions.get(&id) {
            check_change(session, &scene)?;
            session.change(scene, stills);
            return Ok((session.info(), Outcome::Changed));
        }
        self.check_codecs(&scene)?;
        let relay = &self.shared.context.relay;
        let zero = Instant::now();
        let outlet = if scene.in_place {
            Outlet::in_place(relay, &scene.output.key)
        } else {
            Outlet::under(&scene.output.key, &id, relay, &self.shared.context.runtime)
        };
        let outlet = outlet.map_err(|error| match error {
            PublishError::Busy(_) => taken(&scene.output.key),
            PublishError::Mixed => conflict(
                Clash::Taken,
                "output.stream",
                format!("{} is held by another mix", scene.output.key),
            ),
        })?;
        let (shared, own_id) = (self.shared.clone(), id.clone());
        let ended = move || {
            shared.sessions().remove(&own_id);
            shared.gone.notify_waiters();
        };
        let context = self.shared.context.clone();
        let beginning = Beginning {
            scene,
            stills,
            outlet,
            zero,
            idle,
        };
        let session = Session::start(&id, beginning, context, ended)?;
        sessions.insert(id, session.clone());
        drop(sessions);
        Ok((session.info(), Outcome::Created))
    }

    /// A mix in place must not change the codecs of the name behind the viewers' backs.
    fn check_codecs(&self, scene: &Scene) -> Result<(), Error> {
        if !scene.in_place || scene.output.codec_change {
            return Ok(());
        }
        check_codecs(&self.shared.context.relay, &scene.output.key)
    }
}

/// What of the time without streams before the start counts, where a mix may be without them for `long`. Pure.
fn counted(idle: Duration, long: Duration) -> Duration {
    idle.min(long.saturating_sub(RETURN))
}

fn taken(key: &StreamKey) -> Error {
    conflict(
        Clash::Taken,
        "output.stream",
        format!("{key} is being published already"),
    )
}

fn check_id(id: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if (1..=MAX_ID_BYTES).contains(&id.len()) && id.chars().all(allowed) {
        return Ok(());
    }
    Err(Error::Invalid {
        path: "id".into(),
        message: format!(
            "the id has {} bytes; a mix's id has 1 to {MAX_ID_BYTES} of A-Z a-z 0-9 _ . -",
            id.len()
        ),
    })
}

/// A running mix keeps its output, and one that is ending does so.
fn check_change(session: &Session, scene: &Scene) -> Result<(), Error> {
    if session.is_ending() {
        return Err(conflict(
            Clash::Ending,
            "id",
            "this mix is ending; wait until it is gone".into(),
        ));
    }
    let old = session.scene();
    if old.output.key != scene.output.key || old.in_place != scene.in_place {
        return Err(conflict(
            Clash::Fixed,
            "output.stream",
            "a running mix keeps its output; delete it and make another".into(),
        ));
    }
    Ok(())
}

fn check_codecs(relay: &Relay, key: &StreamKey) -> Result<(), Error> {
    let headers = relay.watch(key, Feed::Source).headers();
    let info = relay.stream_info(key).and_then(|info| info.publisher);
    let video = info.as_ref().and_then(|p| p.video).map(|t| t.codec);
    let audio = info.as_ref().and_then(|p| p.audio).map(|t| t.codec);
    let foreign = match (video, audio) {
        (Some(video), _) if video != Codec::H264 => Some(format!("{video:?}")),
        (_, Some(audio)) if audio != Codec::Aac => Some(format!("{audio:?}")),
        _ => headers
            .find(Kind::Audio, Slot::Sequence)
            .and_then(|header| format::audio_config(&format::body(header)?))
            .filter(|config| !config.plain)
            .map(|_| "HE-AAC".to_owned()),
    };
    match foreign {
        None => Ok(()),
        Some(codec) => Err(conflict(
            Clash::Codec,
            "output.codec_change",
            format!(
                "{key} is in {codec}, the mix would be in H.264 and AAC-LC; set codec_change to true to allow it"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_without_streams_counts_on_but_for_a_last_minute_to_come_back_in() {
        for (idle, long, wanted) in [
            (0, 900, 0),
            (400, 900, 400),
            (839, 900, 839),
            // 900 s less a minute.
            (860, 900, 840),
            (1_000_000, 900, 840),
            (50, 70, 10),
            // Who may be without for less than a minute gets all of it.
            (50, 60, 0),
            (50, 5, 0),
        ] {
            let [idle, long, wanted] = [idle, long, wanted].map(Duration::from_secs);
            assert_eq!(counted(idle, long), wanted, "{idle:?} of {long:?}");
        }
    }
}
