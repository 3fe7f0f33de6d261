//! Standing orders from the configuration: every stream of an application whose name matches is pushed.

use std::collections::BTreeSet;
use std::fmt;

use tokio::sync::broadcast::error::RecvError;

use super::registry::Pushes;
use super::target::{Sign, Target, invalid};
use super::{Error, Membership, SignWith};
use crate::media::{Feed, StreamKey};
use crate::relay::{Event, Relay};

/// Whose streams a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Apps {
    /// One application's.
    One(String),
    /// Those of every application but these.
    AllBut(BTreeSet<String>),
}

impl Apps {
    fn has(&self, app: &str) -> bool {
        match self {
            Apps::One(name) => name == app,
            Apps::AllBut(named) => !named.contains(app),
        }
    }
}

/// One `[[push.rules]]` or `[[apps.NAME.push]]`. Prints without its URL's query.
#[derive(Clone)]
pub struct Rule {
    apps: Apps,
    pattern: String,
    feed: Feed,
    /// With `{app}` and `{stream}` still in it.
    url: String,
    sign: Option<Sign>,
    group: Option<Membership>,
}

impl Rule {
    /// `pattern` is a stream name in which `*` stands for any characters, also none; in `url`, `{app}` and `{stream}`
    /// stand for the names of the stream.
    ///
    /// # Errors
    /// [`Error::Invalid`] when no stream could be pushed by this rule.
    pub fn new(
        apps: Apps,
        pattern: &str,
        feed: Feed,
        url: &str,
        sign: Option<Sign>,
    ) -> Result<Self, Error> {
        let rule = Self {
            apps,
            pattern: pattern.to_owned(),
            feed,
            url: url.to_owned(),
            sign,
            group: None,
        };
        if pattern.is_empty() {
            return Err(invalid("match", "is empty; * matches every name"));
        }
        let app = match &rule.apps {
            Apps::One(app) => app,
            Apps::AllBut(_) => "any",
        };
        let sample = StreamKey::new(app, "x").map_err(|e| invalid("app", e))?;
        rule.target(&sample)?;
        Ok(rule)
    }

    /// The same rule for targets that are members of a group, each stream's own.
    pub fn in_group(self, group: Option<Membership>) -> Self {
        Self { group, ..self }
    }

    fn matches(&self, key: &StreamKey) -> bool {
        self.apps.has(key.app()) && matches(&self.pattern, key.stream())
    }

    fn target(&self, key: &StreamKey) -> Result<Target, Error> {
        let url = self
            .url
            .replace("{app}", key.app())
            .replace("{stream}", key.stream());
        let target = Target::new(key.app(), key.stream(), self.feed, &url, self.sign.clone())?;
        let group = self.group.clone();
        Ok(Target { group, ..target })
    }

    pub(super) fn key_id(&self) -> Option<&str> {
        match &self.sign.as_ref()?.with {
            SignWith::Key(id) => Some(id),
            SignWith::Secret(_) => None,
        }
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.split('?').next().unwrap_or_default();
        f.debug_struct("Rule")
            .field("apps", &self.apps)
            .field("match", &self.pattern)
            .field("feed", &self.feed)
            .field("url", &url)
            .field("sign", &self.sign)
            .field("group", &self.group)
            .finish()
    }
}

/// Does `name` fit `pattern`, where `*` stands for any characters, also none? Linear in both but for backtracking to
/// the latest star, so at worst their product: 128 × a configured pattern.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on after the latest star, and how much of the name it has been given.
    let mut star = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p + 1, n));
            p += 1;
        } else if p < pattern.len() && pattern[p] == name[n] {
            p += 1;
            n += 1;
        } else if let Some((after, given)) = star {
            star = Some((after, given + 1));
            p = after;
            n = given + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// Makes targets for published streams, from now until `pushes` is shut down. A target's own task ends it.
pub(super) async fn follow(relay: Relay, rules: Vec<Rule>, pushes: Pushes) {
    // Before the first look around, so that nothing falls between the two.
    let mut events = relay.events();
    let apply = |key: &StreamKey| {
        for (at, rule) in rules.iter().enumerate() {
            if !rule.matches(key) {
                continue;
            }
            let made = rule
                .target(key)
                .and_then(|target| pushes.put_by_rule(at, target));
            if let Err(error) = made {
                tracing::error!(rule = at, stream = %key, %error, "push rule could not be applied");
            }
        }
    };
    let reconcile = || {
        for stream in relay.streams() {
            if stream.publisher.is_some() {
                apply(&stream.key);
            }
        }
    };
    reconcile();
    loop {
        tokio::select! {
            () = pushes.stopped() => return,
            // A target of a rule ended just when its stream may have come back.
            () = pushes.rule_ended() => reconcile(),
            event = events.recv() => match event {
                Ok(Event::Published { key, .. }) => apply(&key),
                Ok(Event::Unpublished { .. }) => {}
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "push rules fell behind the relay's events; looking at all streams");
                    reconcile();
                }
                Err(RecvError::Closed) => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, name, expected) in [
            ("*", "a", true),
            ("8888_*", "8888_a", true),
            ("8888_*", "8888_", true),
            ("8888_*", "888_a", false),
            ("*_main", "x_77_main", true),
            ("*_main", "x_main_2", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1c2b", false),
            ("a", "ab", false),
            ("ab", "a", false),
            ("a**", "a", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_rule_that_could_never_push_is_refused() {
        let rule = |app: &str, pattern, url| {
            let apps = Apps::One(app.to_owned());
            Rule::new(apps, pattern, Feed::Program, url, None).map_err(|e| e.to_string())
        };
        assert!(rule("live", "*", "rtmp://cdn.example/live/{stream}").is_ok());
        for (app, pattern, url, field) in [
            ("li ve", "*", "rtmp://h/live/{stream}", "app: "),
            ("live", "", "rtmp://h/live/{stream}", "match: "),
            ("live", "*", "http://h/live/{stream}", "url: "),
        ] {
            let message = rule(app, pattern, url).unwrap_err();
            assert!(message.starts_with(field), "{message}");
        }
    }

    #[test]
    fn a_rule_for_the_other_applications_leaves_those_alone_that_are_named() {
        let named = BTreeSet::from(["film".to_owned(), "live".to_owned()]);
        let url = "rtmp://h/{app}/{stream}";
        let rule = Rule::new(Apps::AllBut(named), "a*", Feed::Program, url, None).unwrap();
        for (app, name, matched) in [
            ("live", "a", false),
            ("film", "a", false),
            ("show", "a", true),
            ("show", "b", false),
        ] {
            let key = StreamKey::new(app, name).unwrap();
            assert_eq!(rule.matches(&key), matched, "{key}");
        }
    }

    #[test]
    fn a_rule_fills_in_the_names() {
        let rule = Rule::new(
            Apps::One("live".into()),
            "*",
            Feed::Program,
            "rtmp://h/{app}_out/x_{stream}?k=v",
            None,
        )
        .unwrap();
        let target = rule.target(&StreamKey::new("live", "a").unwrap()).unwrap();
        assert_eq!(target.url.tc_url(), "rtmp://h/live_out");
        assert_eq!(target.url.name_with_query(), "x_a?k=v");
        assert!(!format!("{rule:?}").contains("k=v"));
    }
}
