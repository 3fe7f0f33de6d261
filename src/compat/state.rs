//! What the forms call: the one place here that asks and tells the rooms below.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use super::account::{Account, Picture};
use super::mix::{self, Ask, Code, Facts, Mix, Plan, Refusal, Stream};
use super::room::Shape;
use super::seen::Seen;
use crate::api::{self, Bans, Clash, Flaw, MixError, Mixes, Peer};
use crate::auth::{Gate, Pattern, Scope, Subject};
use crate::media::{Feed, StreamKey};
use crate::reason::Reason;
use crate::relay::{Relay, StreamInfo};

/// How long a start waits for a mix that is ending and holds the output still: a splice back waits for the source's next
/// key frame, and the official clients send one every 3 s. What takes longer is answered with a code that they try again
/// after.
const ENDING: Duration = Duration::from_secs(5);

/// Handles on the rooms, and what the configuration says.
pub struct State {
    pub relay: Relay,
    /// `None`: built without the mixer.
    pub mixes: Option<Arc<dyn Mixes>>,
    pub gate: Arc<Gate>,
    pub bans: Bans,
    pub tasks: TaskTracker,
    pub accounts: Vec<Account>,
    pub pictures: BTreeMap<u32, Picture>,
    pub seen: Seen,
    /// How a room service's call is answered.
    pub shape: Shape,
    /// What is told as the server's address.
    pub address: IpAddr,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl State {
    /// Starts, updates or (with one input) ends a mix.
    ///
    /// # Cancel safety
    /// Dropped while it waits, nothing is changed; a change that has begun is made to its end.
    pub(super) async fn start(&self, account: &Account, ask: &Ask) -> Result<(), Refusal> {
        let mixes = self.mixes()?;
        let until = Instant::now() + ENDING;
        loop {
            // Before the look, so that no end is missed.
            let gone = mixes.gone();
            let facts = self.facts(account, ask);
            match mix::start(account, &self.pictures, ask, &facts)? {
                Plan::Nothing => return Ok(()),
                Plan::Stop { id } => {
                    return match mixes.remove(&id).await {
                        // Gone meanwhile is as good.
                        Ok(_) | Err(MixError::NotFound(_)) => Ok(()),
                        Err(error) => Err(refusal(error)),
                    };
                }
                Plan::Mix { id, scene, wait } => {
                    if !wait {
                        let made = mixes.put(&id, scene.to_string().as_bytes()).await;
                        match made {
                            Ok(_) => return Ok(()),
                            // Asked to end since we looked.
                            Err(MixError::Conflict {
                                clash: Clash::Ending,
                                ..
                            }) => {}
                            Err(error) => return Err(refusal(error)),
                        }
                    }
                    if timeout_at(until, gone).await.is_err() {
                        return Err(Code::Failed.because(
                            "the last mix of this output is still ending; try again after 5 s",
                        ));
                    }
                }
            }
        }
    }

    /// Ends the mix of a session.
    pub(super) async fn cancel(
        &self,
        account: &Account,
        session: &str,
        output: Option<&str>,
    ) -> Result<(), Refusal> {
        let mixes = self.mixes()?;
        let facts = Facts {
            mixes: self.mixes_of(account),
            ..Facts::default()
        };
        let id = mix::cancel(account, session, output, &facts)?;
        match mixes.remove(&id).await {
            Ok(_) => Ok(()),
            Err(MixError::NotFound(_)) => Err(mix::no_session()),
            Err(error) => Err(refusal(error)),
        }
    }

    fn mixes(&self) -> Result<&dyn Mixes, Refusal> {
        let none = || Code::Failed.because("this server was built without the mixer");
        self.mixes.as_deref().ok_or_else(none)
    }

    fn facts(&self, account: &Account, ask: &Ask) -> Facts {
        let names = ask
            .inputs
            .iter()
            .map(|input| &input.id)
            .chain([&ask.output]);
        let streams = names.filter_map(|name| {
            let key = account.stream(name)?;
            Some((name.clone(), self.stream(&key)?))
        });
        Facts {
            streams: streams.collect(),
            mixes: self.mixes_of(account),
        }
    }

    /// All mixes in the account's application, as the mixer describes them.
    fn mixes_of(&self, account: &Account) -> Vec<Mix> {
        let all = self.mixes.as_deref().map(Mixes::list).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let own = all.iter().filter(|mix| mix["app"] == account.app.as_str());
        own.map(|mix| Mix {
            id: text(&mix["id"]),
            output: text(&mix["output"]["stream"]),
            streams: mix["inputs"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|input| Some(input["stream"].as_str()?.to_owned()))
                .collect(),
            ending: mix["state"] == "ending",
        })
        .collect()
    }

    /// `None` while nobody publishes it.
    fn stream(&self, key: &StreamKey) -> Option<Stream> {
        // Before anything is attached to a name that may not be there.
        self.relay.stream_info(key)?.publisher?;
        Some(Stream {
            begun: self.relay.watch(key, Feed::Source).can_begin(),
            size: self.size(key),
        })
    }

    /// Of a stream's own pictures, in pixels.
    pub(super) fn size(&self, key: &StreamKey) -> Option<(u32, u32)> {
        self.mixes.as_deref()?.picture_size(key)
    }

    /// The account's streams that somebody publishes, by name.
    pub(super) fn live(&self, account: &Account) -> Vec<StreamInfo> {
        let mut streams = self.relay.streams();
        streams.retain(|info| info.publisher.is_some() && account.owns(&info.key));
        streams
    }

    pub(super) fn is_live(&self, key: &StreamKey) -> bool {
        self.relay.is_published(key)
    }

    /// The account's streams that were published since the start or are forbidden, and since when.
    pub(super) fn channels(&self, account: &Account) -> Vec<(StreamKey, SystemTime)> {
        let mut channels: BTreeMap<StreamKey, SystemTime> = self.seen.all().into_iter().collect();
        let now = SystemTime::now();
        for ban in self.gate.bans().iter().filter(|ban| ban.holds(now)) {
            if let Subject::Stream(Pattern::Stream(key)) = &ban.subject
                && ban.scope != Scope::Play
            {
                channels.entry(key.clone()).or_insert(ban.created_at);
            }
        }
        channels.retain(|key, _| account.owns(key));
        channels.into_iter().collect()
    }

    /// Disconnects who publishes it. `false`: nobody does, or it is a mix.
    pub(super) fn drop_publisher(&self, key: &StreamKey) -> bool {
        let dropped = self.relay.evict(key, Reason::Dropped);
        if dropped {
            tracing::info!(stream = %key, "publisher dropped through the compatible interface");
        }
        dropped
    }

    /// Whether nobody may publish it.
    pub(super) fn is_forbidden(&self, key: &StreamKey) -> bool {
        self.gate.is_forbidden(key, SystemTime::now())
    }

    /// Forbids publishing it until then, and disconnects who does.
    pub(super) async fn forbid(
        &self,
        key: &StreamKey,
        until: SystemTime,
        note: String,
    ) -> Result<(), api::Error> {
        let kept = self
            .bans
            .forbid_publishing(&self.tasks, key.clone(), until, note);
        kept.await
    }

    /// Lets it be published again. `false`: it was not forbidden so.
    pub(super) async fn resume(&self, key: &StreamKey) -> Result<bool, api::Error> {
        self.bans.allow_publishing(&self.tasks, key.clone()).await
    }
}

/// What the mixer refused, as the documents say it.
fn refusal(error: MixError) -> Refusal {
    let code = match &error {
        MixError::Unreadable(_) => Code::Parameter,
        MixError::Invalid { flaw, .. } => match flaw {
            Flaw::Value => Code::Parameter,
            Flaw::Picture => Code::PictureSource,
        },
        MixError::Conflict { clash, .. } => match clash {
            Clash::Taken => Code::OutputTaken,
            // The same output, and once in the place of an input, once as a stream of its own.
            Clash::Fixed => Code::OutputKind,
            Clash::Crowded => Code::Crowded,
            Clash::Loop | Clash::Codec => Code::Parameter,
            Clash::Ending => Code::Failed,
        },
        MixError::NotFound(_) => Code::NoSession,
        MixError::Overloaded(_) | MixError::Unavailable(_) => Code::Failed,
    };
    code.because(error.to_string())
}

/// UNIX seconds.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// On the control listener: only from the addresses that may call the native API.
pub(super) async fn admit(
    axum::extract::State(state): axum::extract::State<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let address = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |ConnectInfo(Peer(peer))| {
        peer.ip()
    });
    if state.gate.admits_control(address) {
        return next.run(request).await;
    }
    let message = "your address may not call this API";
    api::Error::new(StatusCode::FORBIDDEN, "address_denied", message).into_response()
}
