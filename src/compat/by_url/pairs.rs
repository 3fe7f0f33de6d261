//! Which publishers belong together, by what their URLs say. Pure.

use std::collections::{BTreeMap, HashMap};

use md5::{Digest, Md5};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::auth::digest;
use crate::media::StreamKey;

/// What the ids of these mixes begin with; those of accounts begin with a number.
pub(super) const PREFIX: &str = "url.";
/// Longest id of a mix; see [`super::super::account`].
const MAX_MIX_ID: usize = 80;
/// Longest name of a session, as that of a session of Mix_StreamV2.
const MAX_SESSION: usize = 80;

/// Whether a stream is the background or stands upon it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Background,
    Small,
}

/// What a push URL asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    session: String,
    layer: Layer,
}

impl Wish {
    /// Reads the query of a push URL: `mix=layer:b;session_id:7;t_id:1` with a number, or
    /// `mixv2=t_id:1;session_id:room;layer:b` with a name. `None` where it asks for nothing, or for what there is not: the
    /// only template is 1, and `mix=session_id:7` alone is a mark for callbacks.
    fn parse(query: &str) -> Option<Self> {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find_map(|(form, value)| match &*form {
            "mix" => Self::read(&value, |c| c.is_ascii_digit()),
            "mixv2" => Self::read(&value, |c| c.is_ascii_alphanumeric() || c == '_'),
            _ => None,
        })
    }

    /// Reads the value of either. `fits`: what a session's name is made of.
    fn read(value: &str, fits: fn(char) -> bool) -> Option<Self> {
        let mut fields = HashMap::new();
        for field in value.split(';') {
            let (name, value) = field.split_once(':')?;
            fields.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        if fields.get("t_id").is_some_and(|template| template != "1") {
            return None;
        }
        let session = fields.remove("session_id")?;
        let named = (1..=MAX_SESSION).contains(&session.len()) && session.chars().all(fits);
        let layer = match fields.get("layer").map(String::as_str) {
            Some("b") => Layer::Background,
            Some("s") => Layer::Small,
            _ => return None,
        };
        named.then_some(Self { session, layer })
    }
}

/// Who publishes for a session, by epoch: who came first holds its place until it goes.
#[derive(Debug, Default)]
struct Session {
    backgrounds: BTreeMap<u64, StreamKey>,
    smalls: BTreeMap<u64, StreamKey>,
}

/// All publishers whose URLs ask to be mixed.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// By application and name.
    sessions: BTreeMap<(String, String), Session>,
}

impl Pairs {
    /// Somebody publishes with that query. Gives whether that is of any concern here.
    pub fn published(&mut self, key: &StreamKey, epoch: u64, query: &str) -> bool {
        let Some(wish) = Wish::parse(query) else {
            return false;
        };
        let named = (key.app().to_owned(), wish.session);
        let session = self.sessions.entry(named).or_default();
        let side = match wish.layer {
            Layer::Background => &mut session.backgrounds,
            Layer::Small => &mut session.smalls,
        };
        side.insert(epoch, key.clone());
        true
    }

    /// That epoch is over. Gives whether that is of any concern here.
    pub fn unpublished(&mut self, epoch: u64) -> bool {
        let mut known = false;
        self.sessions.retain(|_, session| {
            known |= session.backgrounds.remove(&epoch).is_some();
            known |= session.smalls.remove(&epoch).is_some();
            !session.backgrounds.is_empty() || !session.smalls.is_empty()
        });
        known
    }

    /// The mixes that there ought to be: native scenes by id.
    pub fn wanted(&self) -> BTreeMap<String, Value> {
        let pairs = self.sessions.iter().filter_map(|((app, name), session)| {
            let (_, main) = session.backgrounds.first_key_value()?;
            let (_, sub) = session.smalls.first_key_value()?;
            let scene = json!({
                "app": app,
                // The small picture at the bottom right, a third of the sides.
                "template": 20,
                "inputs": [
                    {"stream": main.stream(), "layer": 1},
                    {"stream": sub.stream(), "layer": 2},
                ],
                "output": {"stream": main.stream(), "codec_change": true},
            });
            Some((mix_id(app, name), scene))
        });
        pairs.collect()
    }
}

/// What the mixer calls the mix of that session. A name is no longer than it is plain here, so no two sessions share one.
fn mix_id(app: &str, session: &str) -> String {
    let plain = format!("{PREFIX}{app}.{session}");
    if plain.len() <= MAX_MIX_ID {
        return plain;
    }
    let digest: [u8; 16] = Md5::digest(plain.as_bytes()).into();
    format!("{PREFIX}.{}", digest::hex(&digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> StreamKey {
        StreamKey::new("live", name).unwrap()
    }

    #[test]
    fn section_1_6_a_push_url_says_which_session_and_which_layer() {
        for (query, wish) in [
            (
                "bizid=8888&txSecret=x&txTime=593B719C&mix=layer:b;session_id:1234;t_id:1",
                Some(("1234", Layer::Background)),
            ),
            (
                "mix=layer:s;session_id:1234;t_id:1",
                Some(("1234", Layer::Small)),
            ),
            (
                "mix=layer%3As%3Bsession_id%3A1234",
                Some(("1234", Layer::Small)),
            ),
            (
                "mixv2=t_id:1;session_id:room_A;layer:s",
                Some(("room_A", Layer::Small)),
            ),
            // A mark for callbacks beside it.
            (
                "mix=session_id:9&mixv2=t_id:1;session_id:r;layer:b",
                Some(("r", Layer::Background)),
            ),
            // Another template, a name where a number is due, no layer, no session, nothing.
            ("mix=layer:b;session_id:1234;t_id:2", None),
            ("mix=layer:b;session_id:room;t_id:1", None),
            ("mix=session_id:1234", None),
            ("mix=layer:b;t_id:1", None),
            ("mix=layer:x;session_id:1;t_id:1", None),
            ("mixv2=t_id:1;session_id:a-b;layer:b", None),
            ("mixv2=", None),
            ("live_id=7", None),
            ("", None),
        ] {
            let wish = wish.map(|(session, layer)| Wish {
                session: session.into(),
                layer,
            });
            assert_eq!(Wish::parse(query), wish, "{query}");
        }
        let longest = |n: usize| format!("mixv2=t_id:1;layer:b;session_id:{}", "a".repeat(n));
        assert!(Wish::parse(&longest(80)).is_some());
        assert_eq!(Wish::parse(&longest(81)), None);
    }

    #[test]
    fn section_1_6_a_mix_is_wanted_while_both_publish() {
        let mut pairs = Pairs::default();
        let background = "mix=layer:b;session_id:7;t_id:1";
        let small = "mix=layer:s;session_id:7;t_id:1";
        assert!(pairs.published(&key("a"), 1, background));
        assert!(!pairs.published(&key("x"), 2, "live_id=7"));
        assert!(pairs.wanted().is_empty());
        assert!(pairs.published(&key("b"), 3, small));
        let wanted = pairs.wanted();
        let scene = &wanted["url.live.7"];
        assert_eq!(scene["output"]["stream"], "a");
        assert_eq!(scene["inputs"][1]["stream"], "b");
        // Only 1+1: a third waits for its turn.
        assert!(pairs.published(&key("c"), 4, small));
        assert_eq!(pairs.wanted(), wanted);
        assert!(pairs.unpublished(3));
        assert_eq!(
            pairs.wanted()["url.live.7"]["inputs"][1]["stream"],
            "c",
            "its turn"
        );
        assert!(pairs.unpublished(4));
        assert!(pairs.wanted().is_empty());
        assert!(!pairs.unpublished(4));
        assert!(pairs.unpublished(1));
        assert!(pairs.sessions.is_empty());
    }

    #[test]
    fn section_1_6_sessions_of_other_applications_are_others() {
        let mut pairs = Pairs::default();
        let film = StreamKey::new("film", "a").unwrap();
        pairs.published(&film, 1, "mixv2=t_id:1;session_id:r;layer:b");
        pairs.published(&key("b"), 2, "mixv2=t_id:1;session_id:r;layer:s");
        assert!(pairs.wanted().is_empty());
        let long = "r".repeat(80);
        for id in [mix_id("live", &long), mix_id("live", "r")] {
            assert!(id.len() <= MAX_MIX_ID && id.starts_with(PREFIX), "{id}");
        }
    }
}
