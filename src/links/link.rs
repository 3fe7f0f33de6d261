//! A link as a value: who is in it, where it stands and how long it may.

use serde::{Deserialize, Serialize};

/// Most subs that are in a link or asked into it, the contract's.
pub const MAX_SUBS: usize = 3;
/// Subs that are remembered, those who left among them.
pub(super) const MAX_REMEMBERED: usize = 32;

/// Where a link stands. It only goes on, never back.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
#[schema(as = LinkState)]
pub enum State {
    /// Nobody has accepted yet.
    Requested,
    /// A sub is to come, and has its URLs.
    Accepted,
    /// The main and a sub have published together.
    Live,
    /// Over, whatever comes.
    Ended,
}

impl State {
    /// As the API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Requested => "requested",
            State::Accepted => "accepted",
            State::Live => "live",
            State::Ended => "ended",
        }
    }
}

/// Why a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = LinkReason)]
pub enum Reason {
    /// All who were asked said no.
    Rejected,
    /// Somebody called it off.
    Cancelled,
    /// The main left, or the last sub.
    Left,
    /// Nobody answered in time.
    Unanswered,
    /// It was accepted, and main and sub did not both publish in time.
    NotStarted,
    /// The main, or every sub, was gone for too long.
    Gone,
}

impl Reason {
    /// As the API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Rejected => "rejected",
            Reason::Cancelled => "cancelled",
            Reason::Left => "left",
            Reason::Unanswered => "unanswered",
            Reason::NotStarted => "not_started",
            Reason::Gone => "gone",
        }
    }
}

/// Where a sub stands in its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = LinkPart)]
pub enum Part {
    /// Asked, or asking.
    Requested,
    /// In.
    Accepted,
    Rejected,
    /// Nobody answered in time.
    Unanswered,
    Left,
    /// It did not publish for too long while others did.
    Gone,
}

/// Whether somebody publishes, as far as the link has seen. Times are UNIX milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// Not since the link began.
    Never,
    Here,
    /// No more, since then.
    Away(i64),
}

impl Seen {
    /// After a look at `now`.
    pub(super) fn look(self, here: bool, now: i64) -> Self {
        match (self, here) {
            (_, true) => Seen::Here,
            (Seen::Here, false) => Seen::Away(now),
            (seen, false) => seen,
        }
    }
}

/// A sub of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sub {
    /// The stream's name.
    pub stream: String,
    pub part: Part,
    /// Since when.
    pub since: i64,
    pub seen: Seen,
}

/// How the streams are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = LinkLayout)]
pub enum Layout {
    /// The main fills the picture, subs stand in a column at its right.
    #[default]
    Linkmic,
    /// Main and one sub side by side.
    Pk,
}

impl Layout {
    /// Most subs that it has room for.
    pub const fn room(self) -> usize {
        match self {
            Layout::Linkmic => MAX_SUBS,
            Layout::Pk => 1,
        }
    }
}

/// How long a link may stand where it does, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// A request without an answer.
    pub answer_ms: i64,
    /// Accepted, and not live; of a sub: accepted, and not yet publishing.
    pub start_ms: i64,
    /// Live, with the main or every sub gone; of a sub: gone.
    pub gone_ms: i64,
    /// How long a sub that stopped publishing keeps its place in the picture.
    pub hold_ms: i64,
}

/// What the answers' URLs are to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urls {
    /// Seconds from each answer.
    pub expires_in: u64,
    /// Push URLs too.
    pub push: bool,
    /// Scheme, host and port, where the server's own are not meant.
    pub base: Option<String>,
}

/// What somebody asks for: the part of a link that never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    pub app: String,
    /// The main's stream, whose viewers see the link.
    pub main: String,
    /// The subs' streams as they were asked for first.
    pub subs: Vec<String>,
    pub layout: Layout,
    pub limits: Limits,
    pub urls: Urls,
}

/// One link. Times are UNIX milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub id: String,
    pub wish: Wish,
    pub state: State,
    /// When it came to stand there.
    pub since: i64,
    pub created_at: i64,
    /// Why it ended.
    pub reason: Option<Reason>,
    pub main: Seen,
    pub subs: Vec<Sub>,
    /// Since when no sub of a live link publishes.
    pub lonely_since: Option<i64>,
}

impl Link {
    /// As it begins, at `now`.
    pub fn new(id: String, wish: Wish, now: i64) -> Self {
        let subs = wish.subs.iter().map(|stream| Sub {
            stream: stream.clone(),
            part: Part::Requested,
            since: now,
            seen: Seen::Never,
        });
        Self {
            id,
            subs: subs.collect(),
            wish,
            state: State::Requested,
            since: now,
            created_at: now,
            reason: None,
            main: Seen::Never,
            lonely_since: None,
        }
    }

    /// Subs that stand there, in the order in which they were asked.
    pub fn subs_that_are(&self, part: Part) -> impl Iterator<Item = &Sub> {
        self.subs.iter().filter(move |sub| sub.part == part)
    }

    pub fn is_over(&self) -> bool {
        self.state == State::Ended
    }
}
