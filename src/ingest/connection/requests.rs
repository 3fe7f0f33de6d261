//! What a client asks for: an application, a name to publish, a name to play.

use std::time::{Instant, SystemTime};

use tracing::info;

use super::{Connection, Next, PUBLISH_DENIED, PlayRequest, Publishing};
use crate::auth::{Action, Grant, Refusal, Request, Stay};
use crate::logging::refused;
use crate::media::StreamKey;
use crate::reason::Reason;
use crate::relay::{Origin, Query};
use crate::rtmp::session::server::ConnectInfo;

/// Status codes of refusals.
const CONNECT_REJECTED: &str = "NetConnection.Connect.Rejected";
const PUBLISH_BAD_NAME: &str = "NetStream.Publish.BadName";
/// What a publisher hears who comes while the server drains.
const DRAINING: &str =
    "this server is going down and takes no new publishers; connect again to reach another";
pub(super) const PLAY_FAILED: &str = "NetStream.Play.Failed";
pub(super) const PLAY_NOT_FOUND: &str = "NetStream.Play.StreamNotFound";

impl Connection {
    pub(super) fn connect(&mut self, info: ConnectInfo) -> Option<Next> {
        if self.shared.app(&info.app).is_none() {
            // The name is the client's; it is shown only as far as a valid one could be.
            let shown: String = info.app.chars().take(64).collect();
            refused!(Reason::UnknownApp, app = ?shown, "application not configured");
            let why = "this application is not configured here";
            let reason = Reason::UnknownApp;
            self.session.refuse_connect(CONNECT_REJECTED, reason, why);
            return Some(Next::Over(reason));
        }
        self.session.accept_connect();
        self.connected = Some(info);
        None
    }

    pub(super) async fn publish(
        &mut self,
        stream_id: u32,
        name: &str,
        query: &str,
    ) -> Option<Next> {
        let key = match self.key(name) {
            Ok(key) => key,
            Err(refusal) => return self.refuse_publish(stream_id, PUBLISH_BAD_NAME, refusal),
        };
        if query.len() > Query::MAX_BYTES {
            let message = format!(
                "query of {} bytes exceeds the limit of {}",
                query.len(),
                Query::MAX_BYTES
            );
            let refusal = Refusal::new(Reason::TooLarge, message);
            return self.refuse_publish(stream_id, PUBLISH_DENIED, refusal);
        }
        let decided = match self.open() {
            Ok(()) => self.authorize(Action::Publish, &key, query).await,
            Err(refusal) => Err(refusal),
        };
        // The drain may have begun while a back end was asked.
        let decided = decided.and_then(|granted| self.open().map(|()| granted));
        let (key_id, stay) = match decided {
            Ok((grant, stay)) => (grant.key().map(ToString::to_string), stay),
            Err(refusal) => return self.refuse_publish(stream_id, PUBLISH_DENIED, refusal),
        };
        let origin = Origin::Anchor {
            address: self.peer,
            connection: self.id,
            key_id,
            query: Query::new(query),
        };
        let (bell, now) = (self.bell.clone(), Instant::now());
        match self.shared.relay.publish_with(&key, origin, bell, now) {
            Ok(publisher) => {
                let authorizer = &self.shared.authorizer;
                authorizer.remembered(&key, publisher.epoch()).await;
                info!(stream = %key, "publisher connected");
                self.session.accept_publish(stream_id, name);
                self.has_heard = false;
                let app = self.shared.app(key.app()).unwrap_or_default();
                let publishing = Publishing::new(stream_id, publisher, &app, stay, now);
                self.publishing.push(publishing);
                self.calls.look_again();
                (!self.is_apart && self.companions.is_empty()).then_some(Next::Publishes)
            }
            Err(e) => {
                let refusal = Refusal::new(Reason::NameBusy, e.to_string());
                if let Some(observer) = self.shared.observer.get() {
                    observer.refused(&key, self.peer, &refusal);
                }
                self.refuse_publish(stream_id, PUBLISH_BAD_NAME, refusal)
            }
        }
    }

    /// Whether anybody may begin to publish now.
    fn open(&self) -> Result<(), Refusal> {
        match self.shared.is_closed(Instant::now()) {
            true => Err(Refusal::new(Reason::Shutdown, DRAINING)),
            false => Ok(()),
        }
    }

    /// The client hears why, and the connection ends, unless it publishes something else.
    fn refuse_publish(&mut self, stream_id: u32, code: &str, refusal: Refusal) -> Option<Next> {
        refused!(refusal.reason, "publish refused: {}", refusal.message);
        let Refusal { reason, message } = &refusal;
        self.session
            .refuse_publish(stream_id, code, *reason, message);
        self.has_heard = true;
        self.over_unless_busy(refusal.reason)
    }

    /// The connection is over, unless it publishes or plays something else.
    pub(super) fn over_unless_busy(&self, reason: Reason) -> Option<Next> {
        let plays = !self.companions.is_empty() || !self.next_plays.is_empty();
        (self.publishing.is_empty() && !plays).then_some(Next::Over(reason))
    }

    pub(super) async fn play(&mut self, stream_id: u32, name: String, query: &str) -> Option<Next> {
        let decided = match self.key(&name) {
            Ok(key) => self
                .authorize(Action::Play, &key, query)
                .await
                .map(|(grant, stay)| (key, grant, stay)),
            Err(refusal) => Err(refusal),
        };
        match decided {
            Ok((key, Grant::Play { feed, class, .. }, stay)) => {
                let request = PlayRequest {
                    stream_id,
                    name,
                    key,
                    feed,
                    class,
                    stay,
                };
                // Also beside what was granted and has yet to begin.
                if self.publishing.is_empty()
                    && self.companions.is_empty()
                    && self.next_plays.is_empty()
                {
                    return Some(Next::Play(request));
                }
                self.next_plays.push(request);
                None
            }
            Ok((_, Grant::Publish { .. }, _)) => Some(Next::Over(Reason::Internal)),
            Err(refusal) => {
                refused!(refusal.reason, "play refused: {}", refusal.message);
                let code = if refusal.reason == Reason::BadName {
                    PLAY_NOT_FOUND
                } else {
                    PLAY_FAILED
                };
                let Refusal { reason, message } = &refusal;
                self.session.refuse_play(stream_id, code, *reason, message);
                self.has_heard = true;
                self.over_unless_busy(refusal.reason)
            }
        }
    }

    fn key(&self, name: &str) -> Result<StreamKey, Refusal> {
        let app = self.connected.as_ref().map_or("", |c| c.app.as_str());
        StreamKey::new(app, name).map_err(|e| Refusal::new(Reason::BadName, e.to_string()))
    }

    async fn authorize(
        &self,
        action: Action,
        key: &StreamKey,
        query: &str,
    ) -> Result<(Grant, Stay), Refusal> {
        let request = Request {
            action,
            key,
            query,
            peer: self.peer,
            connection: Some(self.id),
            now: SystemTime::now(),
        };
        let authorizer = &self.shared.authorizer;
        let decision = authorizer.authorize(&request).await;
        let decision = decision.and_then(|grant| {
            let stay = authorizer.admit(&request, &grant)?;
            Ok((grant, stay))
        });
        let outcome = decision
            .as_ref()
            .map_or_else(|refusal| refusal.reason.code(), |_| "granted");
        let action = match action {
            Action::Publish => "publish",
            Action::Play => "play",
        };
        self.shared.metrics.auth(action, outcome);
        decision
    }
}
