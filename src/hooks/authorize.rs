//! The back end that may refuse who publishes and plays: asked over HTTP when addresses, bans and signatures have let somebody in.
//!
//! | source | covered |
//! |---|---|
//! | SRS, "HTTP Callback" (6.0) | `on_publish` and `on_play` as they are posted, and the answers that grant: status 200 with a body of `0` or a JSON object with code 0 |
//!
//! The question is sent from the server's own runtime: who asks may be served by a thread that serves others too.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::fact::rfc3339;
use super::post::{After, Answer, Error, Post};
use super::{Address, Fact, Hooks, Kind, webhook};
use crate::auth::{Action, Authorizer, Decision, Grant, Refusal, Request, Secret, Stay};
use crate::media::StreamKey;
use crate::metrics::Metrics;
use crate::net::Fold;
use crate::reason::Reason;

/// Questions on their way at once; each holds a socket. Others wait, within their time.
const AT_ONCE: usize = 128;
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 4 << 10;
/// Longest text of a back end that a client is told, in characters.
const MAX_WORDS: usize = 200;
/// How long a publisher waits for its beginning to be on the disk. A commit takes some milliseconds; a disk that is full or broken
/// is no reason to keep everybody out.
const REMEMBERED_WITHIN: Duration = Duration::from_millis(500);

/// What repeats is said so often, with its number.
const SAID_EVERY: Duration = Duration::from_secs(10);
static UNREMEMBERED: Fold = Fold::new(SAID_EVERY);

/// How the back end is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub address: Address,
    pub style: Style,
    /// Within which it must have answered.
    pub patience: Duration,
    pub on_failure: OnFailure,
    /// Signs questions as webhooks are signed; `None`: they are not.
    pub secret: Option<Secret>,
}

/// Whose form of questions and answers it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Ours.
    Native,
    /// That of SRS's `on_publish` and `on_play`.
    Srs,
}

/// What it means that there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    Deny,
    Allow,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Granted,
    /// What the client is told, where there is something.
    Denied(Option<String>),
    /// It is no answer.
    Failed(String),
}

/// An authorizer behind which another one decides first.
pub struct Door {
    inner: Arc<dyn Authorizer>,
    hooks: Hooks,
    asking: Option<Arc<Asking>>,
}

struct Asking {
    ask: Ask,
    node: String,
    post: Post,
    turns: Semaphore,
    silent: Fold,
    runtime: Handle,
    metrics: Arc<Metrics>,
}

impl Door {
    /// Asks, where `ask` says whom, those that `inner` grants; from the runtime in which it is made.
    ///
    /// # Errors
    /// When TLS cannot be used, which would be a build mistake.
    pub fn new(inner: Arc<dyn Authorizer>, hooks: Hooks, ask: Option<Ask>) -> Result<Self, String> {
        let asking = match ask {
            None => None,
            Some(ask) => Some(Arc::new(Asking {
                ask,
                node: hooks.0.config.node.clone(),
                post: Post::new(&hooks.0.config.trust, After::Keep)?,
                turns: Semaphore::new(AT_ONCE),
                silent: Fold::new(SAID_EVERY),
                runtime: Handle::current(),
                metrics: hooks.0.metrics.clone(),
            })),
        };
        Ok(Self {
            inner,
            hooks,
            asking,
        })
    }
}

impl Authorizer for Door {
    fn authorize<'a>(&'a self, request: &'a Request<'a>) -> Decision<'a> {
        Box::pin(async move {
            let grant = self.inner.authorize(request).await?;
            if let Some(asking) = &self.asking {
                asking.judge(request, &grant).await?;
            }
            Ok(grant)
        })
    }

    fn admit(&self, request: &Request<'_>, grant: &Grant) -> Result<Stay, Refusal> {
        let stay = self.inner.admit(request, grant)?;
        if let Grant::Play { feed, class, key } = grant
            && self.hooks.wants(Kind::Play)
        {
            self.hooks.journal().tell(Fact {
                kind: Kind::Play,
                stream: request.key.clone(),
                at: request.now,
                data: json!({
                    "address": request.peer.ip().to_canonical().to_string(),
                    "connection": request.connection.map(|id| id.to_string()),
                    "feed": feed.as_str(), "class": class.as_str(),
                    "key": key.as_ref().map(ToString::to_string),
                }),
            });
        }
        Ok(stay)
    }

    fn remembered<'a>(
        &'a self,
        key: &'a StreamKey,
        epoch: u64,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            let hooks = &self.hooks.0;
            let told_of = hooks.accounts(key).next().is_some()
                || self.hooks.wants(Kind::Publish)
                || self.hooks.wants(Kind::Unpublish);
            if !told_of {
                return;
            }
            let mut kept = hooks.kept.subscribe();
            let wait = kept.wait_for(|kept| *kept >= epoch);
            if tokio::time::timeout(REMEMBERED_WITHIN, wait).await.is_err()
                && let Some(times) = UNREMEMBERED.happened(Instant::now())
            {
                warn!(stream = %key, times, "a publish is granted before it is on the disk, which takes too long");
            }
        })
    }
}

impl Asking {
    /// Asks, and makes of the answer, or of none, what is configured.
    async fn judge(self: &Arc<Self>, request: &Request<'_>, grant: &Grant) -> Result<(), Refusal> {
        let action = action(request.action);
        let body = match self.ask.style {
            Style::Native => native(request, grant),
            Style::Srs => srs(request, &self.node),
        };
        let begun = Instant::now();
        let asking = self.clone();
        let asked = self
            .runtime
            .spawn(async move { asking.exchange(body.to_string()).await });
        // Who is not there any more wants no answer.
        let answer = AbortOnDropHandle::new(asked).await;
        let (verdict, outcome) = match answer {
            Ok(Ok(answer)) => {
                let verdict = verdict(self.ask.style, &answer);
                let outcome = match &verdict {
                    Verdict::Granted => "granted",
                    Verdict::Denied(_) => "denied",
                    Verdict::Failed(_) => "error",
                };
                (verdict, outcome)
            }
            Ok(Err(error @ Error::Slow(_))) => (Verdict::Failed(error.to_string()), "timeout"),
            Ok(Err(error)) => (Verdict::Failed(error.to_string()), "error"),
            Err(_) => (Verdict::Failed("the question was dropped".into()), "error"),
        };
        self.metrics.hook_asked(action, outcome, begun.elapsed());
        match (verdict, self.ask.on_failure) {
            (Verdict::Granted, _) => Ok(()),
            (Verdict::Denied(words), _) => {
                let words = words.unwrap_or_else(|| "the application refused it".to_owned());
                Err(Refusal::new(Reason::HookDenied, words))
            }
            (Verdict::Failed(why), OnFailure::Allow) => {
                self.complain(action, &why, "whoever asks is let in");
                Ok(())
            }
            (Verdict::Failed(why), OnFailure::Deny) => {
                self.complain(action, &why, "whoever asks is refused");
                let words = "nobody can say now whether this is allowed; try again later";
                Err(Refusal::new(Reason::HookFailed, words))
            }
        }
    }

    /// Says that there was no answer: now and then, since strangers may cause it.
    fn complain(&self, action: &str, why: &str, so: &str) {
        if let Some(times) = self.silent.happened(Instant::now()) {
            warn!(
                action,
                why, times, "the authorize hook gave no answer; {so}"
            );
        }
    }

    async fn exchange(&self, body: String) -> Result<Answer, Error> {
        let ask = &self.ask;
        let now = SystemTime::now();
        let headers = match &ask.secret {
            None => HeaderMap::new(),
            Some(secret) => webhook::headers(secret, &question_id(now), &body, now),
        };
        let asked = async {
            // It is never closed.
            let _turn = self.turns.acquire().await;
            let (to, patience) = (&ask.address, ask.patience);
            let first = self
                .post
                .post(to, headers.clone(), body.clone(), patience, MAX_ANSWER)
                .await;
            match first {
                // A connection that was kept may have been closed by the other side in this moment.
                Err(Error::Broke(_)) => {
                    let again = self.post.post(to, headers, body, patience, MAX_ANSWER);
                    again.await
                }
                answer => answer,
            }
        };
        tokio::time::timeout(ask.patience, asked)
            .await
            .unwrap_or(Err(Error::Slow(ask.patience)))
    }
}

/// No two questions have the same, as far as chance goes.
fn question_id(now: SystemTime) -> String {
    let chance = getrandom::u64().unwrap_or(0);
    format!("ask_{}_{chance:016x}", super::millis(now))
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Publish => "publish",
        Action::Play => "play",
    }
}

/// The native question.
fn native(request: &Request<'_>, grant: &Grant) -> Value {
    let (feed, class) = match grant {
        Grant::Publish { .. } => (None, None),
        Grant::Play { feed, class, .. } => (Some(feed.as_str()), Some(class.as_str())),
    };
    json!({
        "action": action(request.action),
        "time": rfc3339(request.now),
        "app": request.key.app(),
        "stream": request.key.stream(),
        "address": request.peer.ip().to_canonical().to_string(),
        "connection": request.connection.map(|id| id.to_string()),
        "query": request.query,
        "key": grant.key().map(ToString::to_string),
        "feed": feed,
        "class": class,
    })
}

/// The question as SRS puts it. There are no virtual hosts here, and what page a player is on is not known.
fn srs(request: &Request<'_>, node: &str) -> Value {
    let (app, stream) = (request.key.app(), request.key.stream());
    let param = match request.query {
        "" => String::new(),
        query => format!("?{query}"),
    };
    let mut question = json!({
        "server_id": "linkmic",
        "service_id": "linkmic",
        "action": format!("on_{}", action(request.action)),
        "client_id": request.peer.to_string(),
        "ip": request.peer.ip().to_canonical().to_string(),
        "vhost": "__defaultVhost__",
        "app": app,
        "tcUrl": format!("rtmp://{node}/{app}"),
        "stream": stream,
        "param": param,
        "stream_url": format!("/{app}/{stream}"),
        "stream_id": format!("{app}/{stream}"),
    });
    if request.action == Action::Play
        && let Value::Object(question) = &mut question
    {
        question.insert("pageUrl".to_owned(), json!(""));
    }
    question
}

/// What a native answer may say.
#[derive(Deserialize)]
struct Native {
    allow: bool,
    #[serde(default)]
    message: Option<String>,
}

/// What an answer of SRS's form says.
#[derive(Deserialize)]
struct Code {
    code: i64,
}

fn verdict(style: Style, answer: &Answer) -> Verdict {
    let Answer { status, body } = answer;
    let failed = || Verdict::Failed(format!("HTTP {status}"));
    match style {
        Style::Native => match status {
            200..=299 if body.trim_ascii().is_empty() => Verdict::Granted,
            200..=299 => match serde_json::from_slice::<Native>(body) {
                Ok(Native { allow: true, .. }) => Verdict::Granted,
                Ok(Native { message, .. }) => Verdict::Denied(message.map(shown)),
                Err(_) => Verdict::Failed("the answer is not {\"allow\": …}".into()),
            },
            401 | 403 => Verdict::Denied(None),
            _ => failed(),
        },
        Style::Srs => match status {
            200 if body.trim_ascii() == b"0" => Verdict::Granted,
            200 => match serde_json::from_slice::<Code>(body) {
                Ok(Code { code: 0 }) => Verdict::Granted,
                _ => Verdict::Denied(None),
            },
            500..=599 => failed(),
            _ => Verdict::Denied(None),
        },
    }
}

/// A back end's words, as far as a client is told them.
fn shown(words: String) -> String {
    let words = words.chars().filter(|c| !c.is_control());
    words.take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_says_what_its_form_says() {
        let denied = || Verdict::Denied(None);
        let is_failed = |verdict: &Verdict| matches!(verdict, Verdict::Failed(_));
        for (style, status, body, says) in [
            (Style::Srs, 200, "0", Some(Verdict::Granted)),
            (Style::Srs, 200, " 0\r\n", Some(Verdict::Granted)),
            (
                Style::Srs,
                200,
                r#"{"code": 0, "msg": "OK"}"#,
                Some(Verdict::Granted),
            ),
            (Style::Srs, 200, r#"{"code": 1}"#, Some(denied())),
            (Style::Srs, 200, r#"{"code": "0"}"#, Some(denied())),
            (Style::Srs, 200, "", Some(denied())),
            (Style::Srs, 200, "1", Some(denied())),
            (Style::Srs, 201, "0", Some(denied())),
            (Style::Srs, 403, "0", Some(denied())),
            (Style::Srs, 302, "", Some(denied())),
            (Style::Srs, 502, "0", None),
            (Style::Native, 200, "", Some(Verdict::Granted)),
            (Style::Native, 204, "", Some(Verdict::Granted)),
            (
                Style::Native,
                200,
                r#"{"allow": true}"#,
                Some(Verdict::Granted),
            ),
            (Style::Native, 200, r#"{"allow": false}"#, Some(denied())),
            (
                Style::Native,
                200,
                "{\"allow\": false, \"message\": \"pay\\nfirst\"}",
                Some(Verdict::Denied(Some("payfirst".into()))),
            ),
            (Style::Native, 403, "", Some(denied())),
            (Style::Native, 401, "no", Some(denied())),
            (Style::Native, 200, "<html>", None),
            (Style::Native, 200, r#"{"allow": 1}"#, None),
            (Style::Native, 404, "", None),
            (Style::Native, 302, "", None),
            (Style::Native, 500, "", None),
        ] {
            let answer = Answer {
                status,
                body: body.as_bytes().to_vec(),
            };
            let found = verdict(style, &answer);
            match says {
                Some(says) => assert_eq!(found, says, "{style:?} {status} {body}"),
                None => assert!(is_failed(&found), "{style:?} {status} {body}: {found:?}"),
            }
        }
    }
}
