//! What is told: one value per fact, as the journal keeps it, webhooks carry it and event streams show it.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::media::StreamKey;

/// What kind of fact it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A publish epoch began.
    Publish,
    /// It ended.
    Unpublish,
    /// Somebody was let in to play. Told only where a webhook wants it: there are as many as players.
    Play,
    /// A mix began, changed its state or ended.
    Mix,
    /// An input of a mix was lost, came back, or changed otherwise.
    Input,
    /// A push target changed its state.
    Push,
    /// A link between anchors changed its state.
    Link,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Publish,
        Kind::Unpublish,
        Kind::Play,
        Kind::Mix,
        Kind::Input,
        Kind::Push,
        Kind::Link,
    ];

    /// The stable word for configuration, webhooks and event streams.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Publish => "publish",
            Kind::Unpublish => "unpublish",
            Kind::Play => "play",
            Kind::Mix => "mix",
            Kind::Input => "input",
            Kind::Push => "push",
            Kind::Link => "link",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// Something became so. Told to a [`Journal`](super::Journal), which makes an [`Event`] of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    pub kind: Kind,
    /// The stream that it is about, and after which it is ordered: a mix's output, a link's main, what is pushed.
    pub stream: StreamKey,
    /// Wall time; it may step where the host's clock does.
    pub at: SystemTime,
    /// What its kind says of it: a JSON object, without secrets.
    pub data: Value,
}

/// Counts the facts of all runs of a server: unique, and rising.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// The run of the server.
    pub run: u64,
    /// Counts the run's facts from 1, without a gap.
    pub number: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.number)
    }
}

impl FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (run, number) = text.split_once('-').ok_or(())?;
        let digits = |text: &str| -> Result<u64, ()> {
            match text.bytes().all(|b| b.is_ascii_digit()) {
                true => text.parse().map_err(drop),
                false => Err(()),
            }
        };
        Ok(Self {
            run: digits(run)?,
            number: digits(number)?,
        })
    }
}

/// A fact with its number, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    pub kind: Kind,
    pub stream: StreamKey,
    /// The JSON that webhooks carry and event streams show.
    pub text: String,
}

impl Event {
    pub(super) fn new(id: EventId, fact: Fact) -> Self {
        let Fact {
            kind,
            stream,
            at,
            data,
        } = fact;
        let text = json!({
            "id": id.to_string(),
            "type": kind.word(),
            "time": rfc3339(at),
            "app": stream.app(),
            "stream": stream.stream(),
            "data": match data {
                Value::Null => Value::Object(Map::new()),
                data => data,
            },
        });
        Self {
            id,
            kind,
            stream,
            text: text.to_string(),
        }
    }
}

/// As all times of the API.
pub(super) fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_word() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_word(kind.word()), Some(kind));
        }
        assert_eq!(Kind::from_word("Publish"), None);
    }

    #[test]
    fn an_id_is_read_as_it_is_written_and_rises_with_runs_and_numbers() {
        let id = |run, number| EventId { run, number };
        for known in [id(1_764_423_216_000, 17), id(0, 0), id(u64::MAX, u64::MAX)] {
            assert_eq!(known.to_string().parse(), Ok(known));
        }
        for wrong in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-+2",
            "1-2-3",
            "a-1",
            "1-99999999999999999999",
        ] {
            assert_eq!(wrong.parse::<EventId>(), Err(()), "{wrong}");
        }
        assert!(id(1, 900) < id(2, 1) && id(2, 1) < id(2, 2));
    }
}
