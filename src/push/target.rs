//! What to push where: the request's form, and the target parsed from it.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Error, SignError, Signer};
use crate::auth::{self, Secret};
use crate::media::{Feed, StreamKey};
use crate::rtmp::url;

/// Signatures of more than ten years have no use, and txTime ends in 2106. Years of 365.25 days.
const VALIDITY: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(315_576_000);

/// Longest name of a group.
const MAX_GROUP_BYTES: usize = 64;

/// Body of `PUT /api/v1/pushes/{id}`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PushRequest, example = json!({
    "app": "live", "stream": "8888_streamA", "url": "rtmp://push.cdn.example/live/8888_streamA",
}))]
pub struct Spec {
    pub app: String,
    pub stream: String,
    #[serde(default)]
    pub feed: FeedWord,
    /// `rtmp[s]://host[:port]/app/name[?query]`
    pub url: String,
    pub sign: Option<SignSpec>,
    /// Which of the stream's targets stand in for each other.
    pub group: Option<String>,
    /// Only with `group`, and `primary` where it is left out.
    pub role: Option<Role>,
}

/// Whether a target of a group publishes always or in need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PushRole)]
pub enum Role {
    /// Publishes whenever there is media.
    #[default]
    Primary,
    /// Publishes while no primary of its group does.
    Backup,
}

/// [`Feed`] as requests and answers spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PushFeed)]
pub enum FeedWord {
    Source,
    #[default]
    Program,
}

impl From<FeedWord> for Feed {
    fn from(word: FeedWord) -> Self {
        match word {
            FeedWord::Source => Feed::Source,
            FeedWord::Program => Feed::Program,
        }
    }
}

/// How the URL is signed, as a request says it: with exactly one of `key` and `secret`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PushSignRequest)]
pub struct SignSpec {
    /// Id of a key in this server's configuration.
    pub key: Option<String>,
    /// The target's own push key.
    pub secret: Option<String>,
    /// A duration like `12h`.
    #[serde(with = "humantime_serde")]
    #[schema(value_type = String)]
    pub expires_in: Duration,
}

/// One target, checked. Prints and shows its URL without the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub key: StreamKey,
    pub feed: Feed,
    pub url: url::Target,
    /// The URL is signed anew with this at each connect.
    pub sign: Option<Sign>,
    /// `None` for a target that publishes whatever the others do.
    pub group: Option<Membership>,
}

/// A target's part in a group of targets of the same stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The group's name, the stream's own.
    pub name: String,
    pub role: Role,
}

/// How a target's URL is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    pub with: SignWith,
    /// How long after each connect the signature is good.
    pub expires_in: Duration,
}

/// Which key signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignWith {
    /// A key that the [`Signer`] knows by this id.
    Key(String),
    /// The target's own push key. Not one of ours: ours would open publishing here.
    Secret(Secret),
}

impl Target {
    /// Checks a request.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field that is wrong.
    pub fn parse(spec: Spec) -> Result<Self, Error> {
        let sign = spec.sign.map(Sign::parse).transpose()?;
        let group = Membership::new(spec.group, spec.role)?;
        let target = Self::new(&spec.app, &spec.stream, spec.feed.into(), &spec.url, sign)?;
        Ok(Self { group, ..target })
    }

    /// Puts a target of no group together.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field that is wrong.
    pub fn new(
        app: &str,
        stream: &str,
        feed: Feed,
        url: &str,
        sign: Option<Sign>,
    ) -> Result<Self, Error> {
        // The name's error says which of the two parts it is about.
        let key = StreamKey::new(app, stream).map_err(|e| {
            let field = if StreamKey::new(app, "x").is_err() {
                "app"
            } else {
                "stream"
            };
            invalid(field, e)
        })?;
        let url = url::Target::parse(url).map_err(|e| invalid("url", e))?;
        if sign.is_some() && url.query.contains("txSecret=") {
            return Err(invalid(
                "url",
                "has a txSecret already; leave it out when the target is to be signed at each connect",
            ));
        }
        Ok(Self {
            key,
            feed,
            url,
            sign,
            group: None,
        })
    }

    /// Whether it is a backup.
    pub(super) fn role(&self) -> Role {
        self.group
            .as_ref()
            .map_or(Role::Primary, |group| group.role)
    }

    /// The URL to connect to now, signed where the target wants that.
    ///
    /// # Errors
    /// When the signing key is not known.
    pub(super) fn address(&self, signer: &dyn Signer) -> Result<url::Target, SignError> {
        let Some(sign) = &self.sign else {
            return Ok(self.url.clone());
        };
        let name = &self.url.name;
        let signature = match &sign.with {
            SignWith::Key(id) => signer.sign(id, name, sign.expires_in)?,
            SignWith::Secret(secret) => {
                auth::signed_query(secret, name, SystemTime::now() + sign.expires_in)
            }
        };
        let query = match self.url.query.as_str() {
            "" => signature,
            given => format!("{given}&{signature}"),
        };
        Ok(self.url.clone().with_query(query))
    }
}

impl Membership {
    /// A part in the group `name`, as primary where `role` does not say; `None` without a group.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a role without a group, and for a name that is none.
    pub fn new(name: Option<String>, role: Option<Role>) -> Result<Option<Self>, Error> {
        let Some(name) = name else {
            return match role {
                Some(_) => Err(invalid("role", "needs the group that it is for")),
                None => Ok(None),
            };
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || name.len() > MAX_GROUP_BYTES || !name.chars().all(allowed) {
            return Err(invalid(
                "group",
                format!("is no name of 1 to {MAX_GROUP_BYTES} characters of A-Z a-z 0-9 _ . -"),
            ));
        }
        let role = role.unwrap_or_default();
        Ok(Some(Self { name, role }))
    }
}

impl Sign {
    fn parse(spec: SignSpec) -> Result<Self, Error> {
        let with = match (spec.key, spec.secret) {
            (Some(key), None) => SignWith::Key(key),
            (None, Some(secret)) if secret.is_empty() => {
                return Err(invalid("sign.secret", "is empty"));
            }
            (None, Some(secret)) => SignWith::Secret(Secret::new(secret)),
            _ => {
                return Err(invalid(
                    "sign",
                    "needs either key (the id of a key configured here) or secret (the target's own push key)",
                ));
            }
        };
        if !VALIDITY.contains(&spec.expires_in) {
            let text = humantime::format_duration;
            let (least, most) = (text(*VALIDITY.start()), text(*VALIDITY.end()));
            let given = text(spec.expires_in);
            return Err(invalid(
                "sign.expires_in",
                format!("{given} is not within {least} to {most}"),
            ));
        }
        Ok(Self {
            with,
            expires_in: spec.expires_in,
        })
    }
}

pub(super) fn invalid(field: &'static str, message: impl fmt::Display) -> Error {
    Error::Invalid {
        field,
        message: message.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Signer for Fixed {
        fn sign(&self, key: &str, stream: &str, _: Duration) -> Result<String, SignError> {
            Ok(format!("by={key}&for={stream}"))
        }
    }

    fn parse(json: serde_json::Value) -> Result<Target, String> {
        let spec: Spec = serde_json::from_value(json).map_err(|e| e.to_string())?;
        Target::parse(spec).map_err(|e| e.to_string())
    }

    #[test]
    fn a_plain_target_reads_the_program_feed() {
        let target = parse(serde_json::json!({
            "app": "live", "stream": "a", "url": "rtmp://cdn.example/live/b?k=v"
        }))
        .unwrap();
        assert_eq!(target.feed, Feed::Program);
        assert_eq!(target.address(&Fixed).unwrap().query, "k=v");
    }

    #[test]
    fn a_signed_target_signs_the_name_it_has_at_the_target() {
        let target = parse(serde_json::json!({
            "app": "live", "stream": "a", "feed": "source", "url": "rtmp://cdn.example/live/b?k=v",
            "sign": {"key": "cdn", "expires_in": "12h"}
        }))
        .unwrap();
        assert_eq!(target.address(&Fixed).unwrap().query, "k=v&by=cdn&for=b");
        let target = parse(serde_json::json!({
            "app": "live", "stream": "a", "url": "rtmp://cdn.example/live/b",
            "sign": {"secret": "theirs", "expires_in": "1h"}
        }))
        .unwrap();
        let query = target.address(&Fixed).unwrap().query;
        let (tx_secret, tx_time) = query
            .strip_prefix("txSecret=")
            .unwrap()
            .split_once("&txTime=")
            .unwrap();
        assert_eq!(tx_secret, auth::sign(&Secret::new("theirs"), "b", tx_time));
        assert!(!format!("{target:?}").contains("theirs"));
    }

    #[test]
    fn mistakes_are_named_by_their_field() {
        let base = serde_json::json!({"app": "live", "stream": "a", "url": "rtmp://h/live/b"});
        for (field, value, expected) in [
            ("app", serde_json::json!("li ve"), "app: "),
            ("stream", serde_json::json!("a/b"), "stream: "),
            ("feed", serde_json::json!("both"), "unknown variant `both`"),
            ("url", serde_json::json!("http://h/a/b"), "url: "),
            ("url", serde_json::json!("rtmp://h/a"), "url: "),
            ("role", serde_json::json!("backup"), "role: needs the group"),
            (
                "role",
                serde_json::json!("third"),
                "unknown variant `third`",
            ),
            (
                "group",
                serde_json::json!("a b"),
                "group: is no name of 1 to 64",
            ),
            (
                "group",
                serde_json::json!(""),
                "group: is no name of 1 to 64",
            ),
            ("roll", serde_json::json!("backup"), "unknown field `roll`"),
            (
                "sign",
                serde_json::json!({"expires_in": "1h"}),
                "sign: needs either",
            ),
            (
                "sign",
                serde_json::json!({"key": "a", "secret": "b", "expires_in": "1h"}),
                "sign: needs either",
            ),
            (
                "sign",
                serde_json::json!({"key": "a", "expires_in": "0s"}),
                "sign.expires_in: ",
            ),
        ] {
            let mut body = base.clone();
            body[field] = value;
            let message = parse(body).unwrap_err();
            assert!(message.contains(expected), "{field}: {message}");
        }
    }

    #[test]
    fn a_member_of_a_group_is_a_primary_unless_it_says_otherwise() {
        let member = |more: serde_json::Value| {
            let mut body = serde_json::json!({
                "app": "live", "stream": "a", "url": "rtmps://cdn.example/live/b", "group": "main"
            });
            body["role"] = more;
            parse(body).unwrap().group.unwrap()
        };
        for (role, expected) in [
            (serde_json::Value::Null, Role::Primary),
            ("primary".into(), Role::Primary),
            ("backup".into(), Role::Backup),
        ] {
            let name = "main".to_owned();
            let role_of = expected;
            assert_eq!(
                member(role),
                Membership {
                    name,
                    role: role_of
                }
            );
        }
    }

    #[test]
    fn a_target_that_is_signed_twice_is_refused() {
        let message = parse(serde_json::json!({
            "app": "live", "stream": "a", "url": "rtmp://h/live/b?txSecret=0123abcd&txTime=5",
            "sign": {"key": "cdn", "expires_in": "12h"}
        }))
        .unwrap_err();
        assert!(message.starts_with("url: has a txSecret already"));
        assert!(!message.contains("0123abcd"));
    }
}
